//! The OpenStackMachinePool controller: an OpenStackMachine for each replica of a MachinePool, and their rollout.
//!
//! The servers are made by the controller of OpenStackMachines, once the MachinePool controller has made their Machines.
//! Replicas go by way of their Machines, so that nodes are drained.
//!
//! Source: the contract of infrastructure machine pools (kubernetes-sigs/cluster-api
//! docs/book/src/developer/providers/contracts/infra-machinepool.md); what the published OpenStack provider has nothing of
//! is decided in docs/decisions/machine-pools.md.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    machine::{Machine, RolloutStrategyType},
    machine_pool::MachinePool,
    meta::Time,
    names,
    openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachine,
    openstack_machine_pool::{OpenStackMachinePool, OpenStackMachinePoolStatus},
    openstack_reference::Provisioned,
};
use control::{EventType, Key, Outcome, Plan, Queue, Reconcile};
use jiff::Timestamp;
use kube::core::ObjectMeta;

use super::{
    Shared,
    passes::Aim,
    placement,
    stop::{Result, Stop},
};
use crate::{
    Caches, Random,
    machine_deployment::{fingerprint, limits},
    machine_set::first_to_go,
    naming::{self, MACHINE_NAME_MAX, Suffixes},
    owner, summary,
};

pub const KIND: &str = "OpenStackMachinePool";
/// Machines that are made in one reconcile; the next one goes on.
const CREATED_AT_ONCE: usize = 20;
/// Pause while something in the Management API is waited for; its event comes sooner.
const PAUSE_S: u64 = 15;

pub struct OpenStackMachinePools {
    pub shared: Arc<Shared>,
    pub random: Random,
}

/// A server's object, and the Machine that it is bound to.
#[derive(Clone)]
pub struct Replica {
    pub infra: Arc<OpenStackMachine>,
    pub machine: Option<Arc<Machine>>,
}

pub struct Seen {
    pub infra: Arc<OpenStackMachinePool>,
    pub pool: Option<Arc<MachinePool>>,
    pub cluster: Option<Arc<Cluster>>,
    pub infra_cluster: Option<Arc<OpenStackCluster>>,
    pub replicas: Vec<Replica>,
    pub suffixes: Suffixes,
}

/// Changes in the Management API; and whether the pool's server group is to go first.
#[derive(Default)]
pub struct PoolPlan {
    pub local: Plan,
    pub last: bool,
}

/// Pools are woken by their MachinePool, their servers' objects, the Machines of these, and what their cluster waits for.
pub fn feed(caches: &Arc<Caches>, queue: &Queue) {
    caches.openstack_machine_pools.feed(queue);
    caches.openstack_machines.feed_owner("infrastructure.cluster.x-k8s.io", KIND, queue);
    let pools = queue.clone();
    caches.machine_pools.on_change(move |pool| {
        if let Some(key) = infra_of(pool) {
            pools.add(key);
        }
    });
    let (weak, pools) = (Arc::downgrade(caches), queue.clone());
    caches.machines.on_change(move |machine| {
        let Some(caches) = weak.upgrade() else { return };
        let Some(name) = owner::label_of(&machine.metadata, names::POOL_LABEL) else { return };
        let key = Key::new(machine.metadata.namespace.clone().unwrap_or_default(), name);
        if let Some(key) = caches.machine_pools.get(&key).and_then(|pool| infra_of(&pool)) {
            pools.add(key);
        }
    });
    caches.feed_of_cluster(queue, |caches, namespace, cluster| {
        let found = caches.openstack_machine_pools.in_cluster(namespace, cluster);
        found.iter().map(|pool| Key::of(pool.as_ref())).collect()
    });
}

fn infra_of(pool: &MachinePool) -> Option<Key> {
    let reference = Some(&pool.spec.template.spec.infrastructure_ref).filter(|reference| reference.kind == KIND)?;
    Some(Key::new(pool.metadata.namespace.clone().unwrap_or_default(), reference.name.as_str()))
}

impl Reconcile for OpenStackMachinePools {
    const NAME: &'static str = "openstackmachinepool";
    type Seen = Seen;
    type Plan = PoolPlan;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let caches = &self.shared.caches;
        let Some(infra) = caches.openstack_machine_pools.get(key) else { return Ok(None) };
        let namespace = key.namespace.as_str();
        let pool = owner::owner_of_kind(&infra.metadata, "MachinePool");
        let pool = pool.and_then(|owner| caches.machine_pools.get(&Key::new(namespace, owner.name.as_str())));
        let name = pool.as_ref().map(|pool| pool.spec.cluster_name.clone());
        let name = name.or_else(|| owner::label_of(&infra.metadata, names::CLUSTER_LABEL).map(str::to_owned));
        let name = name.unwrap_or_default();
        let cluster = caches.cluster(namespace, &name);
        let reference = cluster.as_ref().and_then(|cluster| cluster.spec.infrastructure_ref.clone());
        let is_mine = |meta: &ObjectMeta| {
            meta.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == infra.metadata.uid.as_ref())
        };
        let mut found = caches.openstack_machines.in_cluster(namespace, &name);
        found.retain(|machine| is_mine(&machine.metadata));
        found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let replicas =
            found.into_iter().map(|infra| Replica { machine: caches.machines.get(&Key::of(infra.as_ref())), infra });
        Ok(Some(Seen {
            infra_cluster: reference
                .and_then(|reference| caches.openstack_clusters.get(&Key::new(namespace, reference.name))),
            replicas: replicas.collect(),
            suffixes: Suffixes::seeded((self.random)()),
            infra,
            pool,
            cluster,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> PoolPlan {
        plan(seen, &Time(now))
    }

    async fn act(&self, key: &Key, seen: &Seen, plan: PoolPlan) -> control::Result<Outcome> {
        if plan.last {
            let doubts = self.shared.begin(Self::NAME, key, Aim::Delete);
            let done = self.delete_group(key, seen).await;
            self.shared.end(Self::NAME, key, &done, doubts);
            if let Err(stop) = done {
                if !stop.found_nothing() {
                    let now = Time(self.shared.writer.clock().now());
                    self.shared.writer.execute(held_up(&seen.infra, stop.told(), &now)).await?;
                }
                return stop.outcome();
            }
        }
        self.shared.writer.execute(plan.local).await
    }
}

impl OpenStackMachinePools {
    /// Takes away the group that the pool's servers were in. A cluster that is gone has taken it along.
    async fn delete_group(&self, key: &Key, seen: &Seen) -> Result<()> {
        let (Some(cluster), Some(infra)) = (&seen.cluster, &seen.infra_cluster) else { return Ok(()) };
        let Some(pool) = owner::owner_of_kind(&seen.infra.metadata, "MachinePool") else { return Ok(()) };
        let resource = super::names::resource(&key.namespace, cluster.metadata.name.as_deref().unwrap_or_default());
        let identity = seen.infra.spec.template.spec.identity_ref.as_ref().unwrap_or(&infra.spec.identity_ref);
        let scope = match self.shared.scopes.open(&key.namespace, identity, resource, infra.spec.tags.clone()).await {
            // Nothing was ever made without credentials; with them lost, somebody has to bring them back.
            Err(Stop::Blocked { .. }) if !is_provisioned(infra) => return Ok(()),
            other => other?,
        };
        placement::delete_of_pool(&self.shared.during(Self::NAME, key, scope), &pool.name).await
    }
}

pub fn plan(seen: &Seen, now: &Time) -> PoolPlan {
    let infra = seen.infra.as_ref();
    let mut plan = PoolPlan::default();
    let mut after = infra.clone();
    let deleting = infra.metadata.deletion_timestamp.is_some();
    let paused = owner::is_paused(seen.cluster.as_deref(), &infra.metadata);
    let has_finalizer = owner::has_finalizer(&infra.metadata, names::OPENSTACK_MACHINE_POOL_FINALIZER);
    if deleting && !has_finalizer {
        return plan;
    }
    let mut waits = None;
    if deleting && !paused {
        for replica in &seen.replicas {
            remove(replica, &mut plan.local);
        }
        if seen.replicas.is_empty() {
            plan.last = true;
            owner::remove_finalizer(&mut after.metadata, names::OPENSTACK_MACHINE_POOL_FINALIZER);
            plan.local.update(infra, &after);
            return plan;
        }
    } else if !paused {
        owner::add_finalizer(&mut after.metadata, names::OPENSTACK_MACHINE_POOL_FINALIZER);
        waits = waiting(seen);
        match (&seen.pool, &waits) {
            (Some(pool), None) if has_finalizer => scale(seen, pool, &mut plan.local),
            (_, Some((_, on))) => drop(plan.local.wait(on.as_str(), PAUSE_S)),
            _ => {}
        }
        after.spec.provider_id_list = provider_ids(seen);
    }
    status(seen, &mut after, waits, paused, now);
    plan.local.update(infra, &after);
    plan
}

/// What has to be there before servers are made.
fn waiting(seen: &Seen) -> Option<(&'static str, String)> {
    let Some(pool) = &seen.pool else {
        return Some(("WaitingForMachinePool", "a MachinePool that names this pool".to_owned()));
    };
    if !seen.infra_cluster.as_deref().is_some_and(is_provisioned) {
        return Some(("WaitingForClusterInfrastructure", "the infrastructure of the cluster".to_owned()));
    }
    if pool.spec.template.spec.bootstrap.data_secret_name.is_none() {
        return Some(("WaitingForBootstrapData", "the bootstrap data".to_owned()));
    }
    None
}

fn is_provisioned(infra: &OpenStackCluster) -> bool {
    let initialization = infra.status.as_ref().and_then(|status| status.initialization.as_ref());
    initialization.is_some_and(|initialization| initialization.provisioned == Some(true))
}

/// Says what holds up the deletion: the reason, and the message.
fn held_up(infra: &OpenStackMachinePool, (reason, message): (&'static str, String), now: &Time) -> Plan {
    let mut after = infra.clone();
    let conditions = &mut after.status.get_or_insert_default().conditions;
    condition::set(conditions, Statement::no("Ready", reason, message), infra.metadata.generation, now);
    let mut plan = Plan::nothing();
    plan.update(infra, &after);
    plan
}

/// What machines are made from now, as a short name: another makes other machines.
fn template_hash(infra: &OpenStackMachinePool, pool: &MachinePool) -> String {
    let spec = &pool.spec.template.spec;
    fingerprint(&(&infra.spec.template.spec, &spec.version, &spec.bootstrap.data_secret_name))
}

fn is_going(replica: &Replica) -> bool {
    let machine = replica.machine.as_ref().is_some_and(|machine| machine.metadata.deletion_timestamp.is_some());
    replica.infra.metadata.deletion_timestamp.is_some() || machine
}

fn is_available(replica: &Replica) -> bool {
    let status = replica.machine.as_ref().and_then(|machine| machine.status.as_ref());
    status.is_some_and(|status| condition::is_true(&status.conditions, "Available"))
}

/// Makes machines and removes them: as many as are wanted, and others in place of those that are outdated.
fn scale(seen: &Seen, pool: &MachinePool, plan: &mut Plan) {
    if pool.metadata.deletion_timestamp.is_some() {
        return;
    }
    let wanted = pool.spec.replicas.unwrap_or(1).max(0);
    let hash = template_hash(&seen.infra, pool);
    let alive: Vec<&Replica> = seen.replicas.iter().filter(|replica| !is_going(replica)).collect();
    let is_new = |replica: &&Replica| {
        owner::label_of(&replica.infra.metadata, names::TEMPLATE_HASH_LABEL) == Some(hash.as_str())
    };
    let (new, old): (Vec<&Replica>, Vec<&Replica>) = alive.iter().copied().partition(is_new);
    let count = |list: &[&Replica]| i32::try_from(list.len()).unwrap_or(i32::MAX);
    let strategy = seen.infra.spec.strategy.clone().unwrap_or_default();
    let rolling = strategy.type_ == RolloutStrategyType::RollingUpdate && !old.is_empty();
    let (surge, unavailable) = if rolling { limits(strategy.rolling_update.as_ref(), wanted) } else { (0, 0) };
    let mut gone = Vec::new();
    if rolling {
        // Those of the old kind that serve nobody go at once, the others as new ones take their place.
        let (serving, idle): (Vec<&Replica>, Vec<&Replica>) = old.iter().copied().partition(|one| is_available(one));
        let available = alive.iter().filter(|replica| is_available(replica)).count();
        let spare = i32::try_from(available).unwrap_or(i32::MAX) - (wanted - unavailable).max(0);
        gone.extend(idle);
        gone.extend(chosen(seen, &serving, spare));
        gone.extend(chosen(seen, &new, count(&new) - wanted));
    } else {
        // Outdated ones that are replaced only when they are deleted go before others.
        let surplus = count(&alive) - wanted;
        gone.extend(chosen(seen, &old, surplus));
        gone.extend(chosen(seen, &new, surplus - count(&old)));
    }
    for replica in &gone {
        remove(replica, plan);
    }
    let room = wanted.saturating_add(surge) - (count(&alive) - count(&gone));
    let missing = if rolling { (wanted - count(&new)).min(room) } else { wanted - count(&alive) };
    let missing = usize::try_from(missing).unwrap_or(0);
    if missing > CREATED_AT_ONCE {
        plan.wait("the next machines' turn", 1);
    }
    for index in 0..missing.min(CREATED_AT_ONCE) {
        create(seen, pool, &hash, index, plan);
    }
}

/// So many of them, in the order in which they go.
fn chosen<'a>(seen: &Seen, among: &[&'a Replica], count: i32) -> Vec<&'a Replica> {
    let order = seen.infra.spec.deletion.as_ref().and_then(|deletion| deletion.order).unwrap_or_default();
    let count = usize::try_from(count).unwrap_or(0);
    // What nobody has bound yet is missed by nobody.
    let (bound, free): (Vec<&Replica>, Vec<&Replica>) = among.iter().partition(|replica| replica.machine.is_some());
    let machines = first_to_go(bound.iter().filter_map(|replica| replica.machine.as_ref()), order);
    let of =
        |machine: &Arc<Machine>| bound.iter().copied().find(|one| one.infra.metadata.name == machine.metadata.name);
    free.into_iter().chain(machines.into_iter().filter_map(of)).take(count).collect()
}

fn remove(replica: &Replica, plan: &mut Plan) {
    match &replica.machine {
        Some(machine) if machine.metadata.deletion_timestamp.is_none() => drop(plan.delete(machine.as_ref())),
        None if replica.infra.metadata.deletion_timestamp.is_none() => drop(plan.delete(replica.infra.as_ref())),
        _ => {}
    }
}

fn create(seen: &Seen, pool: &MachinePool, hash: &str, index: usize, plan: &mut Plan) {
    let infra = seen.infra.as_ref();
    let own = pool.metadata.name.clone().unwrap_or_default();
    let name = naming::with_suffix(&own, &seen.suffixes.get(index), MACHINE_NAME_MAX);
    let labels = BTreeMap::from([
        (names::CLUSTER_LABEL.to_owned(), pool.spec.cluster_name.clone()),
        (names::POOL_LABEL.to_owned(), own),
        (names::TEMPLATE_HASH_LABEL.to_owned(), hash.to_owned()),
    ]);
    let mut metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: infra.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![owner::reference(infra, false)]),
        ..ObjectMeta::default()
    };
    let spec = infra.spec.template.spec.clone();
    if spec.server_group.is_none() {
        let policy = infra.spec.server_group.clone().unwrap_or_default().policy;
        owner::annotate(&mut metadata, names::SERVER_GROUPS_ANNOTATION, policy.as_str());
    }
    plan.create(&OpenStackMachine { metadata, spec, status: None });
    plan.event(infra, EventType::Normal, "SuccessfulCreate", format!("Created OpenStackMachine {name}"));
}

/// Of the servers that are there.
fn provider_ids(seen: &Seen) -> Vec<String> {
    let there = |replica: &&Replica| {
        let status = replica.infra.status.as_ref().and_then(|status| status.initialization.as_ref());
        status.is_some_and(|initialization| initialization.provisioned == Some(true))
            && replica.infra.metadata.deletion_timestamp.is_none()
    };
    let mut ids: Vec<String> =
        seen.replicas.iter().filter(there).filter_map(|replica| replica.infra.spec.provider_id.clone()).collect();
    ids.sort();
    ids
}

fn status(
    seen: &Seen,
    after: &mut OpenStackMachinePool,
    waits: Option<(&'static str, String)>,
    paused: bool,
    now: &Time,
) {
    let generation = after.metadata.generation;
    let deleting = after.metadata.deletion_timestamp.is_some();
    let wanted = seen.pool.as_ref().and_then(|pool| pool.spec.replicas).unwrap_or(1);
    let there = i32::try_from(after.spec.provider_id_list.len()).unwrap_or(i32::MAX);
    let status: &mut OpenStackMachinePoolStatus = after.status.get_or_insert_default();
    let statement = Statement::of("Paused", paused, ("Paused", "NotPaused"), "");
    condition::set(&mut status.conditions, statement, generation, now);
    if paused {
        return;
    }
    status.observed_generation = generation;
    status.infrastructure_machine_kind = Some("OpenStackMachine".to_owned());
    status.replicas = i32::try_from(seen.replicas.len()).ok();
    if let Some(pool) = &seen.pool {
        status.current_template_hash = Some(template_hash(&seen.infra, pool));
    }
    if waits.is_none() && there >= wanted && !deleting {
        status.initialization = Some(Provisioned { provisioned: Some(true) });
    }
    let replicas = seen.replicas.iter().map(|replica| {
        let conditions = replica.infra.status.as_ref().map_or(&[][..], |status| &status.conditions);
        (replica.infra.metadata.name.as_deref().unwrap_or_default(), conditions)
    });
    let statement = match waits {
        _ if deleting => Statement::no("Ready", "Deleting", format!("Deleting {} servers", seen.replicas.len())),
        Some((reason, on)) => Statement::no("Ready", reason, format!("Waiting for {on}")),
        None if there < wanted && seen.replicas.is_empty() => {
            Statement::no("Ready", "NotReady", format!("{there} servers, {wanted} required"))
        }
        None => summary::all("Ready", "OpenStackMachine", "Ready", summary::READY, replicas),
    };
    condition::set(&mut status.conditions, statement, generation, now);
}
