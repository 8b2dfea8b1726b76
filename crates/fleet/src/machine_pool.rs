//! The MachinePool controller: binds what the infrastructure makes for each replica of a pool to a Machine.
//!
//! A pool has one bootstrap configuration for all machines and one object of the infrastructure, which makes the servers: an
//! object of its own for each (`status.infrastructureMachineKind`, labelled with the pool's name), for which a Machine is made
//! here. So nodes are drained, health-checked and named by the autoscaler as those of sets. How many there are, which go
//! first and how a change is rolled out is the infrastructure's to decide. Left out: infrastructure that has no such objects.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machinepool, docs/proposals/20220209-machinepool-machines.md,
//! docs/book/src/developer/providers/contracts/infra-machinepool.md.

mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    machine::{Bootstrap, Machine, MachineDeletion, MachineSpec},
    machine_pool::{MachinePool, MachinePoolStatus},
    meta::{ContractRef, Time},
    names,
};
use control::{EventType, Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::ObjectMeta;

use crate::{
    Context,
    external::External,
    machine,
    machine_set::{deletes, remediation},
    owner, propagation,
};

/// Pause while an object that the pool names is waited for: it may be a line further down in what a user applies.
const PAUSE_S: u64 = 5;

/// So long a machine may be without infrastructure that was never seen to be ready.
const BARE_S: i64 = 60;

pub struct MachinePools(pub Arc<Context>);

pub struct Seen {
    pub pool: Arc<MachinePool>,
    pub cluster: Option<Arc<Cluster>>,
    pub bootstrap: Option<External>,
    pub infrastructure: Option<External>,
    /// Those that the pool controls.
    pub machines: Vec<Arc<Machine>>,
    /// What the infrastructure made for each replica.
    pub replicas: Vec<External>,
    /// Names of the machines whose infrastructure is not there.
    pub bare: BTreeSet<String>,
    /// UIDs of the machines' nodes that are known, by name.
    pub nodes: BTreeMap<String, String>,
}

impl Seen {
    /// The configuration, if it is this pool's.
    fn own_bootstrap(&self) -> Option<&External> {
        self.bootstrap.as_ref().filter(|part| other_pool(part, &self.pool).is_none())
    }

    /// The infrastructure, if it is this pool's.
    fn own_infrastructure(&self) -> Option<&External> {
        self.infrastructure.as_ref().filter(|part| other_pool(part, &self.pool).is_none())
    }
}

/// The pool that the part belongs to, if it is another one. A pool that was made anew takes over what the last of its name had.
fn other_pool<'a>(part: &'a External, pool: &MachinePool) -> Option<&'a str> {
    let owner = owner::controller(&part.meta).filter(|owner| owner.kind == "MachinePool")?;
    (Some(&owner.name) != pool.metadata.name.as_ref()).then_some(owner.name.as_str())
}

impl Reconcile for MachinePools {
    const NAME: &'static str = "machinepool";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Context { caches, workloads, .. } = self.0.as_ref();
        let Some(pool) = caches.machine_pools.get(key) else { return Ok(None) };
        let (namespace, cluster) = (key.namespace.as_str(), pool.spec.cluster_name.as_str());
        let spec = &pool.spec.template.spec;
        let infrastructure = caches.external(namespace, Some(&spec.infrastructure_ref));
        let kind: Option<String> = infrastructure.as_ref().and_then(|it| it.read("/status/infrastructureMachineKind"));
        let made =
            kind.map(|kind| caches.kinds.in_cluster(&spec.infrastructure_ref.api_group, &kind, namespace, cluster));
        let is_mine = |meta: &ObjectMeta| owner::label_of(meta, names::POOL_LABEL) == Some(&key.name);
        let mut machines = caches.machines.in_cluster(namespace, cluster);
        machines.retain(|machine| owner::is_controlled_by(&machine.metadata, &pool.metadata));
        machines.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let name = Key::new(namespace, cluster);
        let node = |machine: &Arc<Machine>| {
            let node = machine.status.as_ref()?.node_ref.as_ref()?.name.clone();
            let uid = workloads.node_named(&name, &node)?.metadata.uid.clone()?;
            Some((node, uid))
        };
        let replicas: Vec<External> = made.into_iter().flatten().filter(|replica| is_mine(&replica.meta)).collect();
        let is_bare = |machine: &&Arc<Machine>| {
            let reference = &machine.spec.infrastructure_ref;
            !replicas.iter().any(|replica| replica.meta.name.as_ref() == Some(&reference.name))
                && caches.kinds.resource(&reference.api_group, &reference.kind).is_some()
                && caches.external(namespace, Some(reference)).is_none()
        };
        Ok(Some(Seen {
            cluster: caches.cluster(namespace, cluster),
            bootstrap: caches.external(namespace, spec.bootstrap.config_ref.as_ref()),
            bare: machines.iter().filter(is_bare).filter_map(|machine| machine.metadata.name.clone()).collect(),
            replicas,
            nodes: machines.iter().filter_map(node).collect(),
            infrastructure,
            machines,
            pool,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> Result<Outcome> {
        self.0.writer.execute(plan).await
    }
}

pub fn plan(seen: &Seen, now: &Time) -> Plan {
    let pool = seen.pool.as_ref();
    let mut plan = Plan::nothing();
    let mut after = pool.clone();
    let deleting = pool.metadata.deletion_timestamp.is_some();
    let paused = owner::is_paused(seen.cluster.as_deref(), &pool.metadata);
    let has_finalizer = owner::has_finalizer(&pool.metadata, names::MACHINE_POOL_FINALIZER);
    if deleting && !has_finalizer {
        return plan;
    }
    if deleting && !paused {
        if delete(seen, &mut plan) {
            owner::remove_finalizer(&mut after.metadata, names::MACHINE_POOL_FINALIZER);
            plan.update(pool, &after);
            return plan;
        }
    } else if !paused {
        owner::add_finalizer(&mut after.metadata, names::MACHINE_POOL_FINALIZER);
        owner::label(&mut after.metadata, names::CLUSTER_LABEL, pool.spec.cluster_name.as_str());
        if let Some(cluster) = &seen.cluster {
            owner::ensure(&mut after.metadata, owner::reference(cluster.as_ref(), false));
        }
        if has_finalizer && seen.cluster.is_some() {
            adopt(seen, &mut plan);
            take_over(seen, &mut after);
            create(seen, &after, &mut plan);
            bury(seen, now, &mut plan);
            remediate(seen, now, &mut plan);
        } else if seen.cluster.is_none() {
            plan.wait(format!("cluster {}", pool.spec.cluster_name), PAUSE_S);
        }
    }
    status::set(seen, &mut after, paused, now);
    plan.update(pool, &after);
    plan
}

/// Makes the pool the owner of its configuration and of its infrastructure. Of what two pools name one has both: they would
/// take it from one another for ever.
fn adopt(seen: &Seen, plan: &mut Plan) {
    let parts = [seen.own_bootstrap(), seen.own_infrastructure()];
    for part in parts.into_iter().flatten().filter(|part| !part.deleting()) {
        let mut meta = part.meta.clone();
        owner::ensure(&mut meta, owner::reference(seen.pool.as_ref(), true));
        owner::label(&mut meta, names::CLUSTER_LABEL, seen.pool.spec.cluster_name.as_str());
        plan.update_metadata(&part.resource, &part.meta, &meta);
    }
}

/// Whether somebody else decides how many machines there are.
pub fn is_managed_elsewhere(meta: &ObjectMeta) -> bool {
    owner::annotation_of(meta, names::REPLICAS_MANAGED_BY_ANNOTATION).is_some_and(|by| by != "false")
}

/// Takes over what the configuration and the infrastructure report.
fn take_over(seen: &Seen, after: &mut MachinePool) {
    let mut started = after.status.as_ref().and_then(|status| status.initialization.clone()).unwrap_or_default();
    let bootstrap = &mut after.spec.template.spec.bootstrap;
    if let Some(name) = seen.own_bootstrap().and_then(data_secret) {
        bootstrap.data_secret_name = Some(name);
        started.bootstrap_data_secret_created = Some(true);
    } else if bootstrap.config_ref.is_none() && bootstrap.data_secret_name.is_some() {
        started.bootstrap_data_secret_created = Some(true);
    }
    let mut replicas = None;
    if let Some(infrastructure) = seen.own_infrastructure() {
        after.spec.provider_id_list = infrastructure.read("/spec/providerIDList").unwrap_or_default();
        replicas = infrastructure.read("/status/replicas");
        if infrastructure.provisioned() {
            started.infrastructure_provisioned = Some(true);
        }
        let wanted = infrastructure.read::<i32>("/spec/replicas");
        if let Some(wanted) = wanted.filter(|_| is_managed_elsewhere(&after.metadata)) {
            after.spec.replicas = Some(wanted);
        }
    }
    let status = after.status.get_or_insert_default();
    status.replicas = replicas.or(Some(0));
    if started != Default::default() {
        status.initialization = Some(started);
    }
}

/// The Secret with what machines boot with, when it is there.
fn data_secret(bootstrap: &External) -> Option<String> {
    let created = bootstrap.read("/status/initialization/dataSecretCreated") == Some(true);
    bootstrap.read::<String>("/status/dataSecretName").filter(|_| created)
}

/// A Machine for each replica that has none.
fn create(seen: &Seen, after: &MachinePool, plan: &mut Plan) {
    let pool = seen.pool.as_ref();
    let template = &pool.spec.template;
    let secret = match (&template.spec.bootstrap.config_ref, seen.own_bootstrap()) {
        (Some(_), Some(bootstrap)) => data_secret(bootstrap),
        (Some(_), None) => None,
        (None, _) => after.spec.template.spec.bootstrap.data_secret_name.clone(),
    };
    let mut domains: Vec<Option<String>> =
        seen.machines.iter().map(|machine| machine.spec.failure_domain.clone()).collect();
    let has_machine = |name: &str| seen.machines.iter().any(|machine| machine.metadata.name.as_deref() == Some(name));
    for replica in seen.replicas.iter().filter(|replica| !replica.deleting()) {
        let Key { name, namespace } = replica.key();
        if has_machine(&name) || owner::owner_of_kind(&replica.meta, "Machine").is_some() {
            continue;
        }
        let Some(secret) = &secret else {
            plan.wait("the bootstrap data", PAUSE_S);
            return;
        };
        let domain = next_domain(&pool.spec.failure_domains, &domains).or_else(|| template.spec.failure_domain.clone());
        domains.push(domain.clone());
        let meta = template.metadata.clone().unwrap_or_default();
        let mut labels = meta.labels.clone();
        labels.insert(names::CLUSTER_LABEL.into(), pool.spec.cluster_name.clone());
        labels.insert(names::POOL_LABEL.into(), pool.metadata.name.clone().unwrap_or_default());
        plan.create(&Machine {
            metadata: machine::metadata(pool, Key::new(namespace, name.as_str()), &meta, labels),
            spec: MachineSpec {
                bootstrap: Bootstrap { config_ref: None, data_secret_name: Some(secret.clone()) },
                failure_domain: domain,
                infrastructure_ref: ContractRef {
                    api_group: template.spec.infrastructure_ref.api_group.clone(),
                    kind: replica.resource.kind.clone(),
                    name: name.clone(),
                },
                provider_id: None,
                deletion: MachineDeletion::completed(template.spec.deletion.as_ref()),
                ..template.spec.clone()
            },
            status: None,
        });
        plan.event(pool, EventType::Normal, "SuccessfulCreate", format!("Created Machine {name}"));
    }
}

/// The zone that the fewest machines are in.
fn next_domain(domains: &[String], taken: &[Option<String>]) -> Option<String> {
    let count = |domain: &String| taken.iter().filter(|other| other.as_ref() == Some(domain)).count();
    domains.iter().min_by_key(|domain| count(domain)).cloned()
}

/// Replaces machines that failed a health check, tells each whether it is up to date, and carries to them what changes
/// without replacing them.
fn remediate(seen: &Seen, now: &Time, plan: &mut Plan) {
    let template = &seen.pool.spec.template;
    for machine in &seen.machines {
        let mut after = machine.as_ref().clone();
        let due = machine.metadata.deletion_timestamp.is_none() && remediation::is_due(machine);
        // One that goes gets them too: a drain that does not end is freed by a shorter time for it.
        after.spec.deletion = MachineDeletion::completed(template.spec.deletion.as_ref());
        after.spec.min_ready_seconds = template.spec.min_ready_seconds;
        after.spec.readiness_gates = template.spec.readiness_gates.clone();
        after.spec.taints = template.spec.taints.clone();
        if machine.metadata.deletion_timestamp.is_none() {
            propagation::carry(&mut after.metadata, template.metadata.as_ref());
        }
        if let Some(status) = &mut after.status {
            let generation = machine.metadata.generation;
            condition::set(&mut status.conditions, up_to_date(seen, machine), generation, now);
            let healthy = condition::is_true(&status.conditions, "HealthCheckSucceeded");
            if due {
                let statement = Statement::no("OwnerRemediated", "MachineDeleting", "Machine is deleting");
                condition::set(&mut status.conditions, statement, generation, now);
            } else if healthy && condition::is_false(&status.conditions, "OwnerRemediated") {
                condition::remove(&mut status.conditions, "OwnerRemediated");
            }
        }
        // It says why it goes before it does.
        plan.update(machine.as_ref(), &after);
        if due && !deletes(plan, machine) {
            plan.delete(machine.as_ref());
        }
    }
}

/// Machines go with their infrastructure, however that went: it is replaced, they never run again.
fn bury(seen: &Seen, now: &Time, plan: &mut Plan) {
    for machine in seen.machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_none()) {
        let name = machine.metadata.name.clone().unwrap_or_default();
        let infrastructure = &machine.spec.infrastructure_ref.name;
        let goes = seen.replicas.iter().any(|part| part.deleting() && part.meta.name.as_ref() == Some(infrastructure));
        if !goes && !seen.bare.contains(&name) {
            continue;
        }
        let initialization = machine.status.as_ref().and_then(|status| status.initialization.as_ref());
        let was_there = goes || initialization.is_some_and(|found| found.infrastructure_provisioned == Some(true));
        let made = machine.metadata.creation_timestamp.as_ref().map_or(now.0, |made| made.0);
        let left_s = BARE_S - now.0.duration_since(made).as_secs();
        match u64::try_from(left_s) {
            // One that is brought back from a copy comes in any order.
            Ok(left_s) if left_s > 0 && !was_there => drop(plan.wait(format!("the infrastructure of {name}"), left_s)),
            _ => {
                plan.event(
                    seen.pool.as_ref(),
                    EventType::Normal,
                    "InfrastructureDeleted",
                    format!("Deleting Machine {name}, whose infrastructure is deleted"),
                );
                plan.delete(machine.as_ref());
            }
        }
    }
}

/// Whether the machine is what the pool wants now: of its version, with its bootstrap data, and made from what the
/// infrastructure makes machines from now (a label of the replica, equal to `status.currentTemplateHash`).
fn up_to_date(seen: &Seen, machine: &Machine) -> Statement {
    let wanted = &seen.pool.spec.template.spec;
    let replica = seen.replicas.iter().find(|replica| replica.meta.name == machine.metadata.name);
    let current: Option<String> =
        seen.own_infrastructure().and_then(|infrastructure| infrastructure.read("/status/currentTemplateHash"));
    let have = replica.and_then(|replica| owner::label_of(&replica.meta, names::TEMPLATE_HASH_LABEL));
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let why = if wanted.version != machine.spec.version {
        format!("Version {}, {} required", shown(&machine.spec.version), shown(&wanted.version))
    } else if wanted.bootstrap.data_secret_name.is_some()
        && wanted.bootstrap.data_secret_name != machine.spec.bootstrap.data_secret_name
    {
        let (have, wanted) = (&machine.spec.bootstrap.data_secret_name, &wanted.bootstrap.data_secret_name);
        format!("Bootstrap data {}, {} required", shown(have), shown(wanted))
    } else if let (Some(current), Some(have)) = (current, have)
        && current != have
    {
        format!("{} {} has changed", wanted.infrastructure_ref.kind, wanted.infrastructure_ref.name)
    } else {
        return Statement::yes("UpToDate", "UpToDate");
    };
    Statement::no("UpToDate", "NotUpToDate", format!("* {why}"))
}

/// Deletes machines, then the infrastructure, then the configuration; true when there is nothing.
fn delete(seen: &Seen, plan: &mut Plan) -> bool {
    for machine in seen.machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_none()) {
        plan.delete(machine.as_ref());
    }
    if !seen.machines.is_empty() {
        return false;
    }
    for part in [&seen.infrastructure, &seen.bootstrap] {
        let Some(part) = part.as_ref().filter(|part| owner::is_controlled_by(&part.meta, &seen.pool.metadata)) else {
            continue;
        };
        if !part.deleting() {
            plan.delete_external(&part.resource, &part.meta);
        }
        plan.wait(format!("the deletion of {}", part.resource.kind), PAUSE_S);
        return false;
    }
    true
}

/// Nodes as the pool's status names them; what is known of one that is not seen now stays.
fn node_refs(seen: &Seen, before: &MachinePoolStatus) -> Vec<ObjectReference> {
    let names = seen.machines.iter().filter_map(|machine| machine.status.as_ref()?.node_ref.as_ref());
    let told = names.map(|node| ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.name.clone()),
        uid: seen
            .nodes
            .get(&node.name)
            .cloned()
            .or_else(|| before.node_refs.iter().find(|known| known.name.as_ref() == Some(&node.name))?.uid.clone()),
        ..ObjectReference::default()
    });
    told.collect()
}

/// What machines of the pool are made from, as one machine whose configuration is rendered: for the bootstrap controller.
pub fn as_machine(pool: &MachinePool) -> Machine {
    let mut spec = pool.spec.template.spec.clone();
    spec.bootstrap.data_secret_name = None;
    let meta = pool.spec.template.metadata.clone().unwrap_or_default();
    let mut machine = Machine::new(pool.metadata.name.as_deref().unwrap_or_default(), spec);
    machine.metadata.namespace = pool.metadata.namespace.clone();
    machine.metadata.labels = Some(meta.labels);
    machine.metadata.deletion_timestamp = pool.metadata.deletion_timestamp.clone();
    machine
}
