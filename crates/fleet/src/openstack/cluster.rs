//! The OpenStackCluster controller: network, security groups, the API's endpoint, failure domains, bastion; and all of
//! it away again.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackcluster_controller.go.

use std::{sync::Arc, time::Duration};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    meta::Time,
    names,
    openstack_cluster::{OpenStackCluster, OpenStackClusterStatus},
    openstack_reference::Provisioned,
};
use control::{EventType, Key, Outcome, Plan, Reconcile};
use jiff::Timestamp;

use super::{
    Shared, bastion, credential, endpoint, leftovers, network,
    passes::Aim,
    placement,
    scope::{AUTHENTICATED, Scope, Scopes},
    security,
    stop::{Result, Stop, wait},
    zones,
};
use crate::{owner, unacted};

/// Machines that are still there are looked at again this often; their events come sooner.
const MACHINES_PAUSE: Duration = Duration::from_secs(5);

/// A cluster that nothing is known against is looked at so often.
const LOOK_PAUSE: Duration = Duration::from_secs(30 * 60);

pub struct OpenStackClusters(pub Arc<Shared>);

pub struct Seen {
    pub cluster: Option<Arc<Cluster>>,
    pub infra: Arc<OpenStackCluster>,
    /// Names of machines of the cluster that have not gone yet.
    pub machines: Vec<String>,
}

/// What there is to do; pure, so that the order of a cluster's life can be read and tested in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Somebody else's, or nothing left to do.
    Nothing,
    /// Not owned by a Cluster yet.
    WaitForOwner,
    Paused,
    AddFinalizer,
    Ensure,
    /// Machines are still there.
    WaitForMachines,
    Delete,
}

impl Reconcile for OpenStackClusters {
    const NAME: &'static str = "openstackcluster";
    type Seen = Seen;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(infra) = caches.openstack_clusters.get(key) else { return Ok(None) };
        let owner = owner::owner_of_kind(&infra.metadata, "Cluster").map(|o| o.name.clone());
        let cluster = owner.and_then(|name| caches.cluster(&key.namespace, &name));
        let label = owner::label_of(&infra.metadata, names::CLUSTER_LABEL).unwrap_or_default();
        let machines = caches.openstack_machines.in_cluster(&key.namespace, label);
        let machines = machines.iter().map(|m| m.metadata.name.clone().unwrap_or_default()).collect();
        Ok(Some(Seen { cluster, infra, machines }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> control::Result<Outcome> {
        let now = Time(self.0.writer.clock().now());
        let before = seen.infra.as_ref();
        let mut after = before.clone();
        let (mut stays, mut renewed) = (Vec::new(), None);
        let conditions = before.status.as_ref().map_or(&[][..], |status| &status.conditions);
        self.0.unanswered.meet(Self::NAME, key, &before.metadata, conditions);
        let doubts = match work {
            Work::Ensure => self.0.begin(Self::NAME, key, Aim::Ensure),
            Work::Delete => self.0.begin(Self::NAME, key, Aim::Delete),
            _ => false,
        };
        let done = match work {
            Work::Nothing | Work::WaitForOwner => return Ok(Outcome::Settled),
            Work::Paused => Ok(()),
            Work::AddFinalizer => {
                owner::add_finalizer(&mut after.metadata, names::OPENSTACK_CLUSTER_FINALIZER);
                let mut plan = Plan::nothing();
                plan.update(before, &after);
                return self.0.writer.execute(plan).await;
            }
            Work::WaitForMachines => {
                wait("WaitingForMachines", format!("the machines {}", seen.machines.join(", ")), MACHINES_PAUSE)
            }
            Work::Ensure => self.ensure(key, seen, &mut after, &now, &mut renewed).await,
            Work::Delete => self.delete(key, seen, &mut after, &now, &mut stays).await,
        };
        let late = self.0.end(Self::NAME, key, &done, doubts);
        let done = match (&work, done) {
            (Work::Delete, Ok(())) => self.0.unanswered.wait(Self::NAME, key),
            (_, done) => done,
        };
        let generation = after.metadata.generation;
        let status = after.status.get_or_insert_default();
        let paused = work == Work::Paused;
        let was_ready = condition::is_true(&status.conditions, "Ready");
        let mut set = |statement| condition::set(&mut status.conditions, statement, generation, &now);
        set(Statement {
            status: if paused { api::meta::ConditionStatus::True } else { api::meta::ConditionStatus::False },
            ..Statement::yes("Paused", if paused { "Paused" } else { "NotPaused" })
        });
        if !paused {
            match &done {
                Ok(()) => set(Statement::yes("Ready", "Ready")),
                Err(stop) if stop.found_nothing() && was_ready => {}
                Err(stop) => {
                    let (reason, message) = stop.told();
                    set(Statement::no("Ready", reason, message));
                }
            }
        }
        let gone = work == Work::Delete && done.is_ok();
        if gone {
            owner::remove_finalizer(&mut after.metadata, names::OPENSTACK_CLUSTER_FINALIZER);
            after.status = before.status.clone();
        }
        let mut plan = Plan::nothing();
        if !stays.is_empty() && gone {
            let message = format!("Left in the cloud are {}", stays.join("; "));
            plan.event(before, EventType::Warning, "LeftoversStay", message);
        }
        if work == Work::Ensure {
            let told =
                before.status.as_ref().and_then(|s| condition::get(&s.conditions, "Paused")?.observed_generation);
            unacted::tell(before, told, endpoint::partly(&before.spec), &mut plan);
            credential::tell(before, &after, renewed, &mut plan);
        }
        plan.update(before, &after);
        let written = self.0.writer.execute(plan).await?;
        match done {
            // Zones come and go, and nobody tells of what was deleted by hand.
            Ok(()) if work == Work::Ensure => {
                let after = late.unwrap_or(LOOK_PAUSE);
                Ok(written.sooner(Outcome::Waiting { on: "the next look at the cloud".to_owned(), after }))
            }
            Ok(()) => Ok(written),
            Err(stop) => stop.outcome(),
        }
    }
}

pub fn plan(seen: &Seen) -> Work {
    let meta = &seen.infra.metadata;
    let has_finalizer = owner::has_finalizer(meta, names::OPENSTACK_CLUSTER_FINALIZER);
    if owner::annotation_of(meta, names::MANAGED_BY_ANNOTATION).is_some() {
        return Work::Nothing;
    }
    if owner::is_paused(seen.cluster.as_deref(), meta) {
        return Work::Paused;
    }
    match (meta.deletion_timestamp.is_some(), has_finalizer) {
        (true, false) => Work::Nothing,
        (true, true) if !seen.machines.is_empty() => Work::WaitForMachines,
        (true, true) => Work::Delete,
        (false, _) if seen.cluster.is_none() => Work::WaitForOwner,
        (false, false) => Work::AddFinalizer,
        (false, true) => Work::Ensure,
    }
}

impl OpenStackClusters {
    async fn scope(&self, key: &Key, infra: &OpenStackCluster) -> Result<Scope> {
        let resource = super::names::resource(&key.namespace, cluster_name(key, infra));
        let identity = &infra.spec.identity_ref;
        let scope = self.0.scopes.open(&key.namespace, identity, resource, infra.spec.tags.clone()).await?;
        Ok(self.0.during(Self::NAME, key, scope))
    }

    /// `renewed` is told of credentials that are new.
    async fn ensure(
        &self,
        key: &Key,
        seen: &Seen,
        after: &mut OpenStackCluster,
        now: &Time,
        renewed: &mut Option<String>,
    ) -> Result<()> {
        let age = super::age(&seen.infra.metadata, now);
        let generation = after.metadata.generation;
        let mut status = after.status.clone().unwrap_or_default();
        let mut spec = after.spec.clone();
        let done = async {
            let scope = Scopes::checked(self.scope(key, after).await).await;
            let news = match &scope {
                Ok(scope) => credential::look(scope, self.0.writer.client(), now.0).await?,
                Err(_) => credential::News::default(),
            };
            *renewed = news.renewed;
            let scope = note(&mut status, AUTHENTICATED, generation, now, scope)?;
            if let Some(statement) = news.statement {
                condition::set(&mut status.conditions, statement, generation, now);
            }
            let outside = network::external(&scope, &spec, &mut status).await;
            note(&mut status, "NetworkReady", generation, now, outside)?;
            let inside = network::network(&scope, &spec, &mut status).await;
            note(&mut status, "NetworkReady", generation, now, inside)?;
            let router = network::router(&scope, &spec, &mut status).await;
            note(&mut status, "RouterReady", generation, now, router)?;
            let groups = security::ensure(&scope, &spec, &mut status).await;
            note(&mut status, "SecurityGroupsReady", generation, now, groups)?;
            let reached = endpoint::ensure(&scope, &mut spec, &mut status, age).await;
            note(&mut status, "APIEndpointReady", generation, now, reached)?;
            failure_domains(&scope, after, &mut status).await?;
            status.initialization = Some(Provisioned { provisioned: Some(true) });
            bastion::ensure(&scope, after, &mut status, age).await
        }
        .await;
        after.spec = spec;
        after.status = Some(status);
        done
    }

    /// What was made here and in the cluster goes; `stays` is told what does not.
    async fn delete(
        &self,
        key: &Key,
        seen: &Seen,
        after: &mut OpenStackCluster,
        now: &Time,
        stays: &mut Vec<String>,
    ) -> Result<()> {
        let since = seen.infra.metadata.deletion_timestamp.clone();
        let age = since.map_or(Duration::ZERO, |t| super::since(t.0, now));
        let scope = match self.scope(key, after).await {
            // Nothing was ever made without credentials; with them lost, somebody has to bring them back.
            Err(Stop::Blocked { .. }) if seen.infra.status.as_ref().is_none_or(|s| s.network.is_none()) => {
                return Ok(());
            }
            other => other?,
        };
        let mut status = after.status.clone().unwrap_or_default();
        let done = async {
            bastion::remove(&scope, &after.spec, &mut status, age).await?;
            let cluster = cluster_name(key, after);
            let aliases = leftovers::names_of(&self.0.caches, &key.namespace, cluster);
            *stays = leftovers::delete(&scope, after, &aliases, age).await?;
            endpoint::delete(&scope, &after.spec, age).await?;
            network::delete(&scope, &after.spec, &status).await?;
            placement::delete(&scope).await?;
            security::delete(&scope).await
        }
        .await;
        after.status = Some(status);
        done
    }
}

fn cluster_name<'a>(key: &'a Key, infra: &'a OpenStackCluster) -> &'a str {
    owner::label_of(&infra.metadata, names::CLUSTER_LABEL)
        .or_else(|| owner::owner_of_kind(&infra.metadata, "Cluster").map(|owner| owner.name.as_str()))
        .unwrap_or(&key.name)
}

/// States the condition of a stage, and passes its result on.
fn note<T>(
    status: &mut OpenStackClusterStatus,
    type_: &'static str,
    generation: Option<i64>,
    now: &Time,
    result: Result<T>,
) -> Result<T> {
    let statement = match &result {
        Err(stop) if stop.found_nothing() && condition::is_true(&status.conditions, type_) => return result,
        Ok(_) => Statement::yes(type_, if type_.ends_with("Succeeded") { "Succeeded" } else { "Ready" }),
        Err(stop) => {
            let (reason, message) = stop.told();
            Statement::no(type_, reason, message)
        }
    };
    condition::set(&mut status.conditions, statement, generation, now);
    result
}

/// Nova's zones, as they are now: one that is new appears, also later (`zones`).
async fn failure_domains(scope: &Scope, infra: &OpenStackCluster, status: &mut OpenStackClusterStatus) -> Result<()> {
    status.failure_domains = zones::domains(zones::of(scope).await?, &infra.spec);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(change: impl FnOnce(&mut Seen, &mut OpenStackCluster)) -> Seen {
        let mut infra = OpenStackCluster::default();
        let mut seen = Seen { cluster: Some(Arc::default()), infra: Arc::default(), machines: vec![] };
        change(&mut seen, &mut infra);
        seen.infra = Arc::new(infra);
        seen
    }

    #[test]
    fn a_cluster_is_worked_on_in_order() {
        let finalizer = |infra: &mut OpenStackCluster| {
            owner::add_finalizer(&mut infra.metadata, names::OPENSTACK_CLUSTER_FINALIZER);
        };
        let dying =
            |infra: &mut OpenStackCluster| infra.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&seen(|s, _| s.cluster = None)), Work::WaitForOwner);
        assert_eq!(plan(&seen(|_, _| ())), Work::AddFinalizer);
        assert_eq!(plan(&seen(|_, i| finalizer(i))), Work::Ensure);
        assert_eq!(
            plan(&seen(|s, i| {
                finalizer(i);
                dying(i);
                s.machines.push("m".into());
            })),
            Work::WaitForMachines
        );
        assert_eq!(
            plan(&seen(|_, i| {
                finalizer(i);
                dying(i);
            })),
            Work::Delete
        );
        assert_eq!(plan(&seen(|_, i| dying(i))), Work::Nothing);
        let paused = |i: &mut OpenStackCluster| owner::annotate(&mut i.metadata, names::PAUSED_ANNOTATION, "");
        assert_eq!(
            plan(&seen(|_, i| {
                finalizer(i);
                paused(i);
            })),
            Work::Paused
        );
        let external = |i: &mut OpenStackCluster| owner::annotate(&mut i.metadata, names::MANAGED_BY_ANNOTATION, "x");
        assert_eq!(plan(&seen(|_, i| external(i))), Work::Nothing);
    }
}
