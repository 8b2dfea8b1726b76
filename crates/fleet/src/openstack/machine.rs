//! The OpenStackMachine controller: one server, its ports and volumes, and its place behind the API's endpoint.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackmachine_controller.go and
//! openstackserver_controller.go (whose two objects are one here).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    machine::Machine,
    meta::{ConditionStatus, Time},
    names,
    openstack_cluster::OpenStackCluster,
    openstack_machine::{NodeAddress, OpenStackMachine, OpenStackMachineStatus},
    openstack_reference::Provisioned,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control::{Key, Outcome, Plan, Reconcile};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use openstack::compute::Server;

use super::{
    Shared, claim, member,
    passes::Aim,
    placement,
    scope::Scope,
    server::{self, Wanted},
    stop::{Result, Stop, blocked, pace, wait},
};
use crate::owner;

/// Pause while something in the Management API is waited for; its event comes sooner.
const PAUSE: Duration = Duration::from_secs(15);
/// A machine that has no node after this long is asked why, and again after each such pause.
const BOOT_PATIENCE: Duration = Duration::from_secs(20);
/// A server whose node is not healthy is looked at so often.
const TROUBLE_PAUSE: Duration = Duration::from_secs(30);
/// A server that nothing is known against is looked at so often: nobody tells when one is lost.
const LOOK_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Lines of the console that are read: a boot's last words.
const CONSOLE_LINES: u32 = 100;
/// Set while the console of a server without a node tells of a failure; the Machine shows it.
const BOOT: &str = "BootSucceeded";

pub struct OpenStackMachines(pub Arc<Shared>);

pub struct Seen {
    pub machine: Option<Arc<Machine>>,
    pub cluster: Option<Arc<Cluster>>,
    pub infra_cluster: Option<Arc<OpenStackCluster>>,
    pub infra: Arc<OpenStackMachine>,
    pub bootstrap: Option<Arc<Secret>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    Paused,
    /// Something that the Management API is to bring first.
    Wait {
        reason: &'static str,
        on: String,
    },
    AddFinalizer,
    Ensure,
    Delete,
}

impl Reconcile for OpenStackMachines {
    const NAME: &'static str = "openstackmachine";
    type Seen = Seen;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(infra) = caches.openstack_machines.get(key) else { return Ok(None) };
        let namespace = &key.namespace;
        let owner = owner::owner_of_kind(&infra.metadata, "Machine").map(|o| o.name.clone());
        let machine = owner.and_then(|name| caches.machines.get(&Key::new(namespace.as_str(), name)));
        let label = owner::label_of(&infra.metadata, names::CLUSTER_LABEL).map(str::to_owned);
        let cluster_name = machine.as_ref().map(|m| m.spec.cluster_name.clone()).or(label);
        let cluster = cluster_name.and_then(|name| caches.cluster(namespace, &name));
        let reference = cluster.as_ref().and_then(|c| c.spec.infrastructure_ref.clone());
        let infra_cluster =
            reference.and_then(|r| caches.openstack_clusters.get(&Key::new(namespace.as_str(), r.name)));
        let secret = machine.as_ref().and_then(|m| m.spec.bootstrap.data_secret_name.clone());
        let bootstrap = secret.and_then(|name| caches.secret(namespace, &name));
        Ok(Some(Seen { machine, cluster, infra_cluster, infra, bootstrap }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> control::Result<Outcome> {
        let now = Time(self.0.writer.clock().now());
        let before = seen.infra.as_ref();
        let mut after = before.clone();
        let conditions = before.status.as_ref().map_or(&[][..], |status| &status.conditions);
        self.0.unanswered.meet(Self::NAME, key, &before.metadata, conditions);
        let doubts = match work {
            Work::Ensure => self.0.begin(Self::NAME, key, Aim::Ensure),
            Work::Delete => self.0.begin(Self::NAME, key, Aim::Delete),
            _ => false,
        };
        let done = match &work {
            Work::Nothing => return Ok(Outcome::Settled),
            Work::AddFinalizer => {
                owner::add_finalizer(&mut after.metadata, names::OPENSTACK_MACHINE_FINALIZER);
                let mut plan = Plan::nothing();
                plan.update(before, &after);
                return self.0.writer.execute(plan).await;
            }
            Work::Paused => Ok(()),
            Work::Wait { reason, on } => wait(reason, on.clone(), PAUSE),
            Work::Ensure => self.ensure(key, seen, &mut after, &now).await,
            Work::Delete => self.delete(key, seen, &now).await,
        };
        let late = self.0.end(Self::NAME, key, &done, doubts);
        let done = match (&work, done) {
            (Work::Delete, Ok(())) => self.0.unanswered.wait(Self::NAME, key),
            (_, done) => done,
        };
        let generation = after.metadata.generation;
        let status = after.status.get_or_insert_default();
        let paused = work == Work::Paused;
        let stated = Statement {
            status: if paused { ConditionStatus::True } else { ConditionStatus::False },
            ..Statement::yes("Paused", if paused { "Paused" } else { "NotPaused" })
        };
        condition::set(&mut status.conditions, stated, generation, &now);
        if !paused {
            state(status, &done, work == Work::Delete, generation, &now);
        }
        if work == Work::Delete && done.is_ok() {
            owner::remove_finalizer(&mut after.metadata, names::OPENSTACK_MACHINE_FINALIZER);
            after.status = before.status.clone();
        }
        let mut plan = Plan::nothing();
        plan.update(before, &after);
        let written = self.0.writer.execute(plan).await?;
        match done {
            Ok(()) if work == Work::Ensure => {
                let machine = seen.machine.as_deref();
                let next = if machine.is_some_and(is_booting) {
                    Outcome::waiting("the machine's node", BOOT_PATIENCE.as_secs())
                } else if machine.is_some_and(is_in_trouble) {
                    Outcome::waiting("the machine's node to be healthy", TROUBLE_PAUSE.as_secs())
                } else {
                    Outcome::waiting("the next look at the server", LOOK_PAUSE.as_secs())
                };
                let late = late.map_or(Outcome::Settled, |after| Outcome::Waiting {
                    on: "what the cloud may make late".to_owned(),
                    after,
                });
                Ok(written.sooner(next).sooner(late))
            }
            Ok(()) => Ok(written),
            Err(stop) => stop.outcome(),
        }
    }
}

/// It has a node that is not healthy: perhaps its server is lost, which the cloud tells only if it is asked.
pub fn is_in_trouble(machine: &Machine) -> bool {
    let Some(status) = machine.status.as_ref().filter(|status| status.node_ref.is_some()) else { return false };
    machine.metadata.deletion_timestamp.is_none() && !condition::is_true(&status.conditions, "NodeHealthy")
}

/// Its server is there or on its way, and no node has been seen.
fn is_booting(machine: &Machine) -> bool {
    machine.metadata.deletion_timestamp.is_none()
        && machine.status.as_ref().is_none_or(|status| status.node_ref.is_none())
}

/// Says what the console of a server without a node tells of its boot. A cloud without consoles says nothing.
async fn look_at_boot(
    scope: &Scope,
    server: &str,
    status: &mut OpenStackMachineStatus,
    generation: Option<i64>,
    now: &Time,
) {
    let Ok(console) = scope.cloud.console_log(server, CONSOLE_LINES).await else { return };
    match crate::machine::boot::boot_failure(&console) {
        Some(why) => {
            condition::set(&mut status.conditions, Statement::no(BOOT, "BootFailed", why), generation, now);
        }
        None => condition::remove(&mut status.conditions, BOOT),
    }
}

/// Conditions: what stopped is told at the stage that it stopped, and in Ready.
fn state(status: &mut OpenStackMachineStatus, done: &Result<()>, deleting: bool, generation: Option<i64>, now: &Time) {
    let was = ["InstanceReady", "Ready"].map(|type_| condition::is_true(&status.conditions, type_));
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    match done {
        Ok(()) if deleting => {}
        // What was found before still counts.
        Err(stop) if stop.found_nothing() => {
            let (reason, message) = stop.told();
            for (type_, _) in ["InstanceReady", "Ready"].into_iter().zip(was).filter(|(_, was)| !was) {
                set(Statement::no(type_, reason, message.clone()));
            }
        }
        Ok(()) => {
            set(Statement::yes("InstanceReady", "InstanceReady"));
            set(Statement::yes("Ready", "Ready"));
        }
        Err(stop) => {
            let (reason, message) = stop.told();
            if claim::is_about(reason) {
                set(Statement::yes("InstanceReady", "InstanceReady"));
                set(Statement::no(claim::CONDITION, reason, message.clone()));
                return set(Statement::no("Ready", reason, message));
            }
            let reached = matches!(reason, member::REASON | member::NOT_READY | "FloatingIPError");
            if reached {
                set(Statement::yes("InstanceReady", "InstanceReady"));
                set(Statement::no("APIServerIngressReady", reason, message.clone()));
            } else {
                set(Statement::no("InstanceReady", reason, message.clone()));
            }
            set(Statement::no("Ready", reason, message));
        }
    }
}

pub fn plan(seen: &Seen) -> Work {
    let meta = &seen.infra.metadata;
    let has_finalizer = owner::has_finalizer(meta, names::OPENSTACK_MACHINE_FINALIZER);
    if owner::is_paused(seen.cluster.as_deref(), meta) {
        return Work::Paused;
    }
    if meta.deletion_timestamp.is_some() {
        return if has_finalizer { Work::Delete } else { Work::Nothing };
    }
    let wait = |reason, on: &str| Work::Wait { reason, on: on.to_owned() };
    let Some(machine) = &seen.machine else { return Work::Nothing };
    let Some(infra_cluster) = &seen.infra_cluster else {
        return wait("WaitingForClusterInfrastructure", "the OpenStackCluster");
    };
    if !has_finalizer {
        return Work::AddFinalizer;
    }
    let ready = infra_cluster.status.as_ref().and_then(|s| s.initialization.as_ref()).and_then(|i| i.provisioned);
    if ready != Some(true) {
        return wait("WaitingForClusterInfrastructure", "the cluster's infrastructure to be provisioned");
    }
    let exists = seen.infra.status.as_ref().is_some_and(|s| s.instance_id.is_some());
    if machine.spec.bootstrap.data_secret_name.is_none() && !exists {
        return wait("WaitingForBootstrapData", "the bootstrap data");
    }
    if seen.bootstrap.is_none() && !exists {
        return wait("WaitingForBootstrapData", "the bootstrap data's Secret");
    }
    Work::Ensure
}

impl OpenStackMachines {
    async fn scope(&self, key: &Key, seen: &Seen, cluster: &OpenStackCluster) -> Result<Scope> {
        let name = owner::label_of(&seen.infra.metadata, names::CLUSTER_LABEL)
            .map(str::to_owned)
            .or_else(|| seen.machine.as_ref().map(|m| m.spec.cluster_name.clone()))
            .unwrap_or_default();
        let identity = seen.infra.spec.identity_ref.as_ref().unwrap_or(&cluster.spec.identity_ref);
        let resource = super::names::resource(&key.namespace, &name);
        let scope = self.0.scopes.open(&key.namespace, identity, resource, cluster.spec.tags.clone()).await?;
        Ok(self.0.during(Self::NAME, key, scope))
    }

    async fn ensure(&self, key: &Key, seen: &Seen, after: &mut OpenStackMachine, now: &Time) -> Result<()> {
        let (Some(machine), Some(cluster)) = (&seen.machine, &seen.infra_cluster) else { return Ok(()) };
        let scope = self.scope(key, seen, cluster).await?;
        let age = super::age(&seen.infra.metadata, now);
        let mut status = after.status.take().unwrap_or_default();
        let done = instance(&scope, seen, machine, cluster, &key.name, &mut status, age).await;
        let server = match done {
            Ok(server) => server,
            Err(stop) => {
                after.status = Some(status);
                return Err(stop);
            }
        };
        // Only what has changed is looked at: a settled machine costs no calls.
        let generation = after.metadata.generation;
        let settled = condition::get(&status.conditions, "InstanceReady")
            .is_some_and(|ready| ready.status == ConditionStatus::True && ready.observed_generation == generation);
        if !settled && let (Some(resolved), Some(resources)) = (&mut status.resolved, &status.resources) {
            let paired = server::pair(&scope, &after.spec, resolved, resources).await;
            if let Err(stop) = paired {
                after.status = Some(status);
                return Err(stop);
            }
        }
        // At each look at one that is settled, as controllers that start anew know nothing of calls without an answer.
        if settled || scope.doubts {
            let ports = status.resources.as_ref().map_or(&[][..], |resources| &resources.ports);
            let twice = server::delete_doubles(&scope, &server, &after.spec, ports).await;
            if let Err(stop) = twice {
                after.status = Some(status);
                return Err(stop);
            }
        }
        status.addresses = addresses(&server);
        status.initialization = Some(Provisioned { provisioned: Some(true) });
        after.spec.provider_id = Some(format!("openstack://{}/{}", scope.region, server.id));
        let mut reached = Ok(());
        if crate::cluster::is_control_plane(machine) {
            reached = async {
                let (port, address) = member::port_of(&scope, cluster, &server.id).await?;
                member::ensure(&scope, cluster, &key.name, &address, &port, age).await
            }
            .await;
            if reached.is_ok() {
                let statement = Statement::yes("APIServerIngressReady", "APIServerIngressReady");
                condition::set(&mut status.conditions, statement, after.metadata.generation, now);
            }
        }
        if let (Ok(()), Some(pool)) = (&reached, &after.spec.floating_ip_pool_ref) {
            let address = claim::ensure(&self.0, seen.infra.as_ref(), pool, &scope, &server.id).await;
            if let Ok(address) = &address {
                claim::show(&mut status.addresses, address);
                let statement = Statement::yes(claim::CONDITION, "Ready");
                condition::set(&mut status.conditions, statement, after.metadata.generation, now);
            }
            reached = address.map(drop);
        }
        if !is_booting(machine) {
            condition::remove(&mut status.conditions, BOOT);
        } else if age >= BOOT_PATIENCE {
            look_at_boot(&scope, &server.id, &mut status, after.metadata.generation, now).await;
        }
        after.status = Some(status);
        reached
    }

    async fn delete(&self, key: &Key, seen: &Seen, now: &Time) -> Result<()> {
        let status = seen.infra.status.clone().unwrap_or_default();
        let untouched = status.instance_id.is_none() && status.resources.is_none() && status.resolved.is_none();
        let Some(cluster) = &seen.infra_cluster else {
            if untouched {
                return Ok(());
            }
            return blocked(
                "InstanceDeleteFailed",
                "the OpenStackCluster is gone, and with it the credentials that the server needs",
            );
        };
        let scope = match self.scope(key, seen, cluster).await {
            Err(Stop::Blocked { .. }) if untouched => return Ok(()),
            other => other?,
        };
        let since = seen.infra.metadata.deletion_timestamp.clone();
        let age = since.map_or(Duration::ZERO, |t| super::since(t.0, now));
        let control_plane = owner::label_of(&seen.infra.metadata, names::CONTROL_PLANE_LABEL).is_some()
            || seen.machine.as_ref().is_some_and(|m| crate::cluster::is_control_plane(m));
        if control_plane {
            member::delete(&scope, cluster, &key.name, age).await?;
        }
        server::delete(&scope, status.instance_id.as_deref(), &key.name, &seen.infra.spec, age).await?;
        claim::delete(&self.0, key).await
    }
}

/// The server, ACTIVE; what is known of it is in the status also if it is not.
async fn instance(
    scope: &Scope,
    seen: &Seen,
    machine: &Machine,
    cluster: &OpenStackCluster,
    name: &str,
    status: &mut OpenStackMachineStatus,
    age: Duration,
) -> Result<Server> {
    let server = match status.instance_id.clone() {
        Some(id) => match scope.cloud.look::<Server>(&id).await? {
            Some(server) if server.status != "DELETED" => server,
            _ => {
                status.instance_state = Some("DELETED".to_owned());
                return blocked(
                    "InstanceDeleted",
                    format!("server {id} does not exist any more: it was deleted outside of the cluster"),
                );
            }
        },
        None => {
            let shared = cluster.status.clone().unwrap_or_default();
            let groups = managed_groups(machine, cluster);
            let value = seen.bootstrap.as_ref().and_then(|s| s.data.as_ref()?.get("value"));
            let Some(value) = value else {
                return blocked("WaitingForBootstrapData", "the bootstrap data's Secret has no key `value`");
            };
            let wanted = Wanted {
                name,
                spec: &seen.infra.spec,
                cluster: &shared,
                primary_subnet: cluster.spec.primary_subnet.as_ref(),
                metadata: BTreeMap::new(),
                zone: machine.spec.failure_domain.as_deref(),
                groups,
                user_data: Some(STANDARD.encode(&value.0)),
                age,
            };
            let placed = status.resolved.as_ref().is_some_and(|resolved| resolved.server_group_id.is_some());
            if seen.infra.spec.server_group.is_none()
                && !placed
                && let Some(group) = placement::group(scope, cluster, &seen.infra, machine).await?
            {
                status.resolved.get_or_insert_default().server_group_id = Some(group);
            }
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

/// Waits until the server is ACTIVE.
pub(super) fn is_up(server: Server, age: Duration) -> Result<Server> {
    match server.status.as_str() {
        "ACTIVE" => Ok(server),
        "ERROR" => {
            let fault = server.fault.as_ref().map_or("Nova gives no fault", |f| f.message.as_str());
            blocked("InstanceStateError", format!("server {} is in ERROR: {fault}", server.id))
        }
        "BUILD" => wait("InstanceNotReady", format!("server {} to be ACTIVE (it is BUILD)", server.id), pace(age)),
        other => wait("InstanceNotReady", format!("server {} to be ACTIVE (it is {other})", server.id), PAUSE),
    }
}

fn managed_groups(machine: &Machine, cluster: &OpenStackCluster) -> Vec<String> {
    let status = cluster.status.clone().unwrap_or_default();
    let unsecured = cluster.spec.managed_network.as_ref().and_then(|n| n.enable_port_security) == Some(false);
    if cluster.spec.managed_security_groups.is_none() || unsecured {
        return Vec::new();
    }
    let group = if crate::cluster::is_control_plane(machine) {
        status.control_plane_security_group
    } else {
        status.worker_security_group
    };
    group.into_iter().map(|g| g.id).collect()
}

/// Fixed addresses are internal, floating ones external; the server's name is its internal DNS name.
pub(super) fn addresses(server: &Server) -> Vec<NodeAddress> {
    let mut found = Vec::new();
    for address in server.addresses.values().flatten() {
        let type_ = if address.kind == "floating" { "ExternalIP" } else { "InternalIP" };
        found.push(NodeAddress { address: address.addr.clone(), type_: type_.to_owned() });
    }
    found.push(NodeAddress { address: server.name.clone(), type_: "InternalDNS".to_owned() });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(change: impl FnOnce(&mut Machine, &mut OpenStackCluster, &mut OpenStackMachine)) -> Seen {
        let (mut machine, mut cluster, mut infra) =
            (Machine::default(), OpenStackCluster::default(), OpenStackMachine::default());
        machine.spec.bootstrap.data_secret_name = Some("data".to_owned());
        cluster.status.get_or_insert_default().initialization = Some(Provisioned { provisioned: Some(true) });
        owner::add_finalizer(&mut infra.metadata, names::OPENSTACK_MACHINE_FINALIZER);
        change(&mut machine, &mut cluster, &mut infra);
        Seen {
            machine: Some(Arc::new(machine)),
            cluster: Some(Arc::default()),
            infra_cluster: Some(Arc::new(cluster)),
            infra: Arc::new(infra),
            bootstrap: Some(Arc::default()),
        }
    }

    fn reason(work: Work) -> &'static str {
        match work {
            Work::Wait { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_is_made_when_finalizer_network_and_bootstrap_data_are_there() {
        assert_eq!(plan(&seen(|_, _, _| ())), Work::Ensure);
        assert_eq!(plan(&seen(|_, _, infra| infra.metadata.finalizers = None)), Work::AddFinalizer);
        let unprovisioned = plan(&seen(|_, cluster, _| cluster.status = None));
        assert_eq!(reason(unprovisioned), "WaitingForClusterInfrastructure");
        let no_data = |machine: &mut Machine| machine.spec.bootstrap.data_secret_name = None;
        assert_eq!(reason(plan(&seen(|machine, _, _| no_data(machine)))), "WaitingForBootstrapData");
        let unseen = Seen { bootstrap: None, ..seen(|_, _, _| ()) };
        assert_eq!(reason(plan(&unseen)), "WaitingForBootstrapData");
    }

    #[test]
    fn a_server_that_exists_needs_its_bootstrap_data_no_more() {
        let after_move = plan(&seen(|machine, _, infra| {
            machine.spec.bootstrap.data_secret_name = None;
            infra.status.get_or_insert_default().instance_id = Some("id".to_owned());
        }));
        assert_eq!(after_move, Work::Ensure);
    }

    #[test]
    fn deletion_goes_on_without_machine_and_cluster_and_pauses_with_them() {
        let dying =
            |infra: &mut OpenStackMachine| infra.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let orphan = Seen { machine: None, infra_cluster: None, ..seen(|_, _, infra| dying(infra)) };
        assert_eq!(plan(&orphan), Work::Delete);
        assert_eq!(
            plan(&seen(|_, _, infra| {
                dying(infra);
                infra.metadata.finalizers = None;
            })),
            Work::Nothing
        );
        let paused = seen(|_, _, infra| {
            dying(infra);
            owner::annotate(&mut infra.metadata, names::PAUSED_ANNOTATION, "");
        });
        assert_eq!(plan(&paused), Work::Paused);
    }

    #[test]
    fn addresses_are_of_the_kinds_that_nodes_have() {
        use openstack::compute::Address;
        let address = |addr: &str, kind: &str| Address { addr: addr.into(), kind: kind.into(), ..Default::default() };
        let server = Server {
            name: "m".into(),
            addresses: [("n".to_owned(), vec![address("10.6.0.9", "fixed"), address("127.24.0.9", "floating")])].into(),
            ..Default::default()
        };
        let found: Vec<String> = addresses(&server).into_iter().map(|a| format!("{} {}", a.type_, a.address)).collect();
        assert_eq!(found, ["InternalIP 10.6.0.9", "ExternalIP 127.24.0.9", "InternalDNS m"]);
    }
}
