//! The OpenStackServer controller: one server that is no machine of a cluster, made of the same parts as one.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackserver_controller.go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    condition::{self, Statement},
    meta::Time,
    names,
    openstack_cluster::OpenStackClusterStatus,
    openstack_server::{OpenStackServer, OpenStackServerStatus},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control::{Key, Outcome, Plan, Reconcile};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use openstack::compute::Server;

use super::{
    Shared, claim,
    machine::{addresses, is_up},
    passes::Aim,
    scope::Scope,
    server::{self, Wanted},
    stop::{Result, Stop, blocked, wait},
};
use crate::owner;

/// A server that nothing is known against is looked at so often.
const LOOK_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Pause while something in the Management API is waited for.
const PAUSE: Duration = Duration::from_secs(15);

pub struct OpenStackServers(pub Arc<Shared>);

pub struct Seen {
    pub server: Arc<OpenStackServer>,
    /// By its own annotation, or its cluster's.
    pub paused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    Paused,
    AddFinalizer,
    Ensure,
    Delete,
}

impl Reconcile for OpenStackServers {
    const NAME: &'static str = "openstackserver";
    type Seen = Seen;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(server) = caches.openstack_servers.get(key) else { return Ok(None) };
        let label = owner::label_of(&server.metadata, names::CLUSTER_LABEL);
        let cluster = label.and_then(|name| caches.cluster(&key.namespace, name));
        let paused = owner::is_paused(cluster.as_deref(), &server.metadata);
        Ok(Some(Seen { server, paused }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> control::Result<Outcome> {
        let now = Time(self.0.writer.clock().now());
        let before = seen.server.as_ref();
        let mut after = before.clone();
        let conditions = before.status.as_ref().map_or(&[][..], |status| &status.conditions);
        self.0.unanswered.meet(Self::NAME, key, &before.metadata, conditions);
        let doubts = match work {
            Work::Ensure => self.0.begin(Self::NAME, key, Aim::Ensure),
            Work::Delete => self.0.begin(Self::NAME, key, Aim::Delete),
            _ => false,
        };
        let done = match work {
            Work::Nothing | Work::Paused => return Ok(Outcome::Settled),
            Work::AddFinalizer => {
                owner::add_finalizer(&mut after.metadata, names::OPENSTACK_SERVER_FINALIZER);
                let mut plan = Plan::nothing();
                plan.update(before, &after);
                return self.0.writer.execute(plan).await;
            }
            Work::Ensure => self.ensure(key, &mut after, &now).await,
            Work::Delete => self.delete(key, before, &now).await,
        };
        let late = self.0.end(Self::NAME, key, &done, doubts);
        let done = match (work, done) {
            (Work::Delete, Ok(())) => self.0.unanswered.wait(Self::NAME, key),
            (_, done) => done,
        };
        if work == Work::Delete && done.is_ok() {
            owner::remove_finalizer(&mut after.metadata, names::OPENSTACK_SERVER_FINALIZER);
        } else {
            let generation = after.metadata.generation;
            state(after.status.get_or_insert_default(), &done, generation, &now);
        }
        let mut plan = Plan::nothing();
        plan.update(before, &after);
        let written = self.0.writer.execute(plan).await?;
        match done {
            Ok(()) if work == Work::Ensure => {
                let after = late.unwrap_or(LOOK_PAUSE);
                Ok(written.sooner(Outcome::Waiting { on: "the next look at the server".to_owned(), after }))
            }
            Ok(()) => Ok(written),
            Err(stop) => stop.outcome(),
        }
    }
}

pub fn plan(seen: &Seen) -> Work {
    let meta = &seen.server.metadata;
    let has_finalizer = owner::has_finalizer(meta, names::OPENSTACK_SERVER_FINALIZER);
    match (meta.deletion_timestamp.is_some(), has_finalizer) {
        _ if seen.paused => Work::Paused,
        (true, true) => Work::Delete,
        (true, false) => Work::Nothing,
        (false, false) => Work::AddFinalizer,
        (false, true) => Work::Ensure,
    }
}

fn state(status: &mut OpenStackServerStatus, done: &Result<()>, generation: Option<i64>, now: &Time) {
    if matches!(done, Err(stop) if stop.found_nothing() && condition::is_true(&status.conditions, "Ready")) {
        return;
    }
    status.ready = done.is_ok();
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    match done {
        Ok(()) => {
            set(Statement::yes("InstanceReady", "InstanceReady"));
            set(Statement::yes("Ready", "Ready"));
        }
        Err(stop) => {
            let (reason, message) = stop.told();
            if claim::is_about(reason) {
                set(Statement::no(claim::CONDITION, reason, message.clone()));
            } else {
                set(Statement::no("InstanceReady", reason, message.clone()));
            }
            set(Statement::no("Ready", reason, message));
        }
    }
}

impl OpenStackServers {
    async fn scope(&self, key: &Key, server: &OpenStackServer) -> Result<Scope> {
        let owner = owner::label_of(&server.metadata, names::CLUSTER_LABEL).unwrap_or(&key.name);
        let resource = super::names::resource(&key.namespace, owner);
        let scope = self.0.scopes.open(&key.namespace, &server.spec.identity_ref, resource, Vec::new()).await?;
        Ok(self.0.during(Self::NAME, key, scope))
    }

    async fn ensure(&self, key: &Key, after: &mut OpenStackServer, now: &Time) -> Result<()> {
        let scope = self.scope(key, after).await?;
        let mut status = after.status.take().unwrap_or_default();
        let done = match self.instance(&scope, key, after, &mut status, now).await {
            Ok(server) if scope.doubts => {
                let ports = status.resources.as_ref().map_or(&[][..], |resources| &resources.ports);
                server::delete_doubles(&scope, &server, &after.spec.as_machine(), ports).await.map(|()| server)
            }
            done => done,
        };
        if let Ok(server) = &done {
            status.addresses = addresses(server);
        }
        let done = match (done, &after.spec.floating_ip_pool_ref) {
            (Ok(server), Some(pool)) => {
                let address = claim::ensure(&self.0, after, pool, &scope, &server.id).await;
                if let Ok(address) = &address {
                    condition::set(
                        &mut status.conditions,
                        Statement::yes(claim::CONDITION, "Ready"),
                        after.metadata.generation,
                        now,
                    );
                    claim::show(&mut status.addresses, address);
                }
                address.map(drop)
            }
            (done, _) => done.map(drop),
        };
        after.status = Some(status);
        done
    }

    /// The server, ACTIVE; what is known of it is in the status also if it is not.
    async fn instance(
        &self,
        scope: &Scope,
        key: &Key,
        object: &OpenStackServer,
        status: &mut OpenStackServerStatus,
        now: &Time,
    ) -> Result<Server> {
        let age = super::age(&object.metadata, now);
        let server = match status.instance_id.clone() {
            Some(id) => match scope.cloud.look::<Server>(&id).await? {
                Some(server) if server.status != "DELETED" => server,
                _ => {
                    status.instance_state = Some("DELETED".to_owned());
                    let message = format!("server {id} does not exist any more: it was deleted by somebody else");
                    return blocked("InstanceDeleted", message);
                }
            },
            None => {
                let spec = object.spec.as_machine();
                if let Some(index) = object.spec.ports.iter().position(|port| port.network.is_none()) {
                    return blocked("InvalidMachineSpec", format!("ports[{index}].network is missing"));
                }
                let wanted = Wanted {
                    name: &key.name,
                    spec: &spec,
                    cluster: &OpenStackClusterStatus::default(),
                    primary_subnet: None,
                    metadata: BTreeMap::new(),
                    zone: object.spec.availability_zone.as_deref(),
                    groups: Vec::new(),
                    user_data: self.user_data(key, object).await?,
                    age,
                };
                let mut resolved = status.resolved.take().unwrap_or_default();
                let mut resources = status.resources.take().unwrap_or_default();
                let made = server::ensure(scope, &wanted, &mut resolved, &mut resources).await;
                status.resolved = Some(resolved);
                status.resources = Some(resources);
                made?
            }
        };
        status.instance_id = Some(server.id.clone());
        status.instance_state = Some(server.status.clone());
        is_up(server, age)
    }

    /// In base64.
    async fn user_data(&self, key: &Key, object: &OpenStackServer) -> Result<Option<String>> {
        let Some(reference) = &object.spec.user_data_ref else { return Ok(None) };
        let secrets = Api::<Secret>::namespaced(self.0.writer.client().clone(), &key.namespace);
        let found = secrets.get_opt(&reference.name).await;
        let found = found.map_err(|e| control::Error::api("get", format!("Secret {}", reference.name), e))?;
        let Some(secret) = found else {
            return wait("WaitingForBootstrapData", format!("Secret {} (userDataRef)", reference.name), PAUSE);
        };
        match secret.data.unwrap_or_default().get("value") {
            Some(value) => Ok(Some(STANDARD.encode(&value.0))),
            None => {
                let message = format!("Secret {} (userDataRef) has no key value", reference.name);
                blocked("InvalidMachineSpec", message)
            }
        }
    }

    async fn delete(&self, key: &Key, object: &OpenStackServer, now: &Time) -> Result<()> {
        let status = object.status.clone().unwrap_or_default();
        let untouched = status.instance_id.is_none() && status.resources.is_none() && status.resolved.is_none();
        let scope = match self.scope(key, object).await {
            // Nothing was ever made without credentials.
            Err(Stop::Blocked { .. }) if untouched => return Ok(()),
            other => other?,
        };
        let age = object.metadata.deletion_timestamp.as_ref().map_or(Duration::ZERO, |t| super::since(t.0, now));
        let spec = object.spec.as_machine();
        server::delete(&scope, status.instance_id.as_deref(), &key.name, &spec, age).await?;
        claim::delete(&self.0, key).await
    }
}

#[cfg(test)]
mod tests {
    use api::meta::ConditionStatus;

    use super::*;

    fn server(change: impl FnOnce(&mut OpenStackServer)) -> Seen {
        let mut server = OpenStackServer::default();
        owner::add_finalizer(&mut server.metadata, names::OPENSTACK_SERVER_FINALIZER);
        change(&mut server);
        Seen { server: Arc::new(server), paused: false }
    }

    #[test]
    fn a_server_lives_and_goes() {
        let dying = |server: &mut OpenStackServer| {
            server.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        };
        assert_eq!(plan(&server(|server| server.metadata.finalizers = None)), Work::AddFinalizer);
        assert_eq!(plan(&server(|_| ())), Work::Ensure);
        assert_eq!(plan(&server(dying)), Work::Delete);
        assert_eq!(plan(&Seen { paused: true, ..server(dying) }), Work::Paused);
    }

    #[test]
    fn a_flavor_is_taken_by_its_id_before_its_name() {
        let seen = server(|server| {
            server.spec.flavor = Some("small".into());
            server.spec.flavor_id = Some("id".into());
        });
        let flavor = seen.server.spec.as_machine().flavor;
        assert_eq!((flavor.id.as_deref(), flavor.filter), (Some("id"), None));
    }

    #[test]
    fn what_is_not_yet_is_told_as_not_ready() {
        let mut status = OpenStackServerStatus::default();
        let now = Time(Timestamp::UNIX_EPOCH);
        state(&mut status, &wait("InstanceNotReady", "it", PAUSE), None, &now);
        assert!(!status.ready && condition::is_false(&status.conditions, "InstanceReady"));
        state(&mut status, &Ok(()), None, &now);
        let told: Vec<_> = status.conditions.iter().map(|c| (c.type_.as_str(), c.status)).collect();
        assert_eq!(told, [("InstanceReady", ConditionStatus::True), ("Ready", ConditionStatus::True)]);
    }
}
