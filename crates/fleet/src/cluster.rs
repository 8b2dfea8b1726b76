//! The Cluster controller: ties a cluster's parts to it, mirrors what they report, and takes them apart in order.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/cluster.

mod conditions;
mod strays;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::{
    cluster::{Cluster, ClusterInitialization, ClusterPhase, Endpoint, FailureDomain, ReplicaStatus},
    machine::{Machine, MachineDeployment, MachineSet},
    machine_pool::MachinePool,
    meta::{ConditionStatus, Gate, Time},
    names,
};
use control::{Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::{Caches, Context, extension::Extensions, external::External, owner, unacted, workload::Probe};

/// Pause before a look at parts that are being deleted; their events come sooner.
const DELETION_PAUSE_S: u64 = 5;

pub struct Clusters(pub Arc<Context>);

/// A cluster and what belongs to it.
pub struct Seen {
    pub cluster: Arc<Cluster>,
    pub infrastructure: Option<External>,
    pub control_plane: Option<External>,
    pub machines: Vec<Arc<Machine>>,
    pub sets: Vec<Arc<MachineSet>>,
    pub deployments: Vec<Arc<MachineDeployment>>,
    pub pools: Vec<Arc<MachinePool>>,
    pub probe: Option<Probe>,
    /// Of the workload cluster, as far as they are known.
    pub nodes: Vec<Arc<Node>>,
    /// What its class says of when it is available, if it says nothing itself.
    pub class_gates: Vec<Gate>,
    /// Extensions are to be asked before it is deleted.
    pub held: bool,
    /// There is a kubeconfig, so the API is there or on its way.
    pub kubeconfig: bool,
}

impl Reconcile for Clusters {
    const NAME: &'static str = "cluster";
    type Seen = Seen;
    type Plan = (Plan, Vec<strays::Stray>);

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(cluster) = caches.clusters.get(key) else {
            self.0.workloads.forget(key);
            return Ok(None);
        };
        let (namespace, name) = (&key.namespace, &key.name);
        Ok(Some(Seen {
            infrastructure: caches.external(namespace, cluster.spec.infrastructure_ref.as_ref()),
            control_plane: caches.external(namespace, cluster.spec.control_plane_ref.as_ref()),
            machines: caches.machines.in_cluster(namespace, name),
            sets: caches.sets.in_cluster(namespace, name),
            deployments: caches.deployments.in_cluster(namespace, name),
            pools: caches.machine_pools.in_cluster(namespace, name),
            probe: self.0.workloads.probe(key),
            nodes: self.0.workloads.nodes(key),
            class_gates: class_gates(caches, &cluster),
            held: Extensions::hold_deletion(caches, &cluster),
            kubeconfig: caches.secret(namespace, &names::Purpose::Kubeconfig.secret_name(name)).is_some(),
            cluster,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Self::Plan {
        (plan(seen, &Time(now)), strays::plan(seen))
    }

    async fn act(&self, key: &Key, seen: &Seen, (plan, strays): Self::Plan) -> Result<Outcome> {
        if seen.kubeconfig {
            self.0.workloads.follow(key);
        }
        let outcome = self.0.writer.execute(plan).await?;
        Ok(outcome.sooner(strays::delete(&self.0.workloads, key, strays).await?))
    }
}

fn class_gates(caches: &Caches, cluster: &Cluster) -> Vec<Gate> {
    let Some(topology) = &cluster.spec.topology else { return Vec::new() };
    let namespace = topology.class_ref.namespace.as_deref().or(cluster.metadata.namespace.as_deref());
    let class = caches.classes.get(&Key::new(namespace.unwrap_or_default(), topology.class_ref.name.as_str()));
    let gates = class.and_then(|class| class.spec.fields.get("availabilityGates").cloned());
    gates.and_then(|gates| serde_json::from_value(gates).ok()).unwrap_or_default()
}

pub fn plan(seen: &Seen, now: &Time) -> Plan {
    let cluster = seen.cluster.as_ref();
    let mut plan = Plan::nothing();
    let mut after = cluster.clone();
    let deleting = cluster.metadata.deletion_timestamp.is_some();
    if deleting && !owner::has_finalizer(&cluster.metadata, names::CLUSTER_FINALIZER) {
        return plan;
    }
    let paused = owner::is_paused(Some(cluster), &cluster.metadata);
    let mut deletion = None;
    if deleting && paused {
        // Moved to another manager, perhaps: what belongs to it must stay.
    } else if deleting {
        let (reason, message) = delete(seen, &mut plan, &mut after);
        deletion = Some((reason, message));
    } else if !owner::has_finalizer(&cluster.metadata, names::CLUSTER_FINALIZER) {
        owner::add_finalizer(&mut after.metadata, names::CLUSTER_FINALIZER);
    } else if !paused {
        for part in [&seen.infrastructure, &seen.control_plane].into_iter().flatten() {
            adopt(cluster, part, &mut plan);
        }
        for deployment in &seen.deployments {
            adopt_child(cluster, deployment.as_ref(), &mut plan);
        }
        mirror(seen, &mut after);
    }
    unacted::tell(
        cluster,
        cluster.status.as_ref().and_then(|status| status.observed_generation),
        Vec::new(),
        &mut plan,
    );
    count(seen, &mut after);
    conditions::set(seen, &mut after, deletion.as_ref(), paused, now);
    let status = after.status.get_or_insert_default();
    status.phase = Some(phase(seen, deleting, &after.spec.control_plane_endpoint, status.initialization.as_ref()));
    status.observed_generation = cluster.metadata.generation;
    if after.metadata.finalizers.as_ref().is_some_and(|names| !names.is_empty()) {
        plan.update(cluster, &after);
    } else {
        // The last write: the object goes with its finalizer.
        after.status = cluster.status.clone();
        plan.update(cluster, &after);
    }
    plan
}

/// Makes the cluster the owner of its infrastructure and control plane objects.
fn adopt(cluster: &Cluster, part: &External, plan: &mut Plan) {
    let mut meta = part.meta.clone();
    owner::ensure(&mut meta, owner::reference(cluster, true));
    owner::label(&mut meta, names::CLUSTER_LABEL, cluster.metadata.name.clone().unwrap_or_default());
    plan.update_metadata(&part.resource, &part.meta, &meta);
}

fn adopt_child(cluster: &Cluster, deployment: &MachineDeployment, plan: &mut Plan) {
    let mut after = deployment.clone();
    owner::ensure(&mut after.metadata, owner::reference(cluster, false));
    owner::label(&mut after.metadata, names::CLUSTER_LABEL, cluster.metadata.name.clone().unwrap_or_default());
    plan.update(deployment, &after);
}

/// Takes over what the infrastructure and the control plane report.
fn mirror(seen: &Seen, after: &mut Cluster) {
    let infra_ref = after.spec.infrastructure_ref.is_some();
    let mut endpoint = None;
    let mut started = after.status.as_ref().and_then(|status| status.initialization.clone()).unwrap_or_default();
    let mut domains: Option<Vec<FailureDomain>> = None;
    match &seen.infrastructure {
        // Contract: endpoint, failure domains and the flag are taken over together.
        Some(infra) if infra.provisioned() => {
            started.infrastructure_provisioned = Some(true);
            endpoint = infra.read::<Endpoint>("/spec/controlPlaneEndpoint");
            domains = infra.read("/status/failureDomains");
        }
        None if !infra_ref && after.spec.topology.is_none() => started.infrastructure_provisioned = Some(true),
        _ => {}
    }
    if let Some(control_plane) = &seen.control_plane {
        endpoint = endpoint.or_else(|| control_plane.read("/spec/controlPlaneEndpoint"));
        if control_plane.read("/status/initialization/controlPlaneInitialized") == Some(true) {
            started.control_plane_initialized = Some(true);
        }
    } else if after.spec.control_plane_ref.is_none()
        && seen.machines.iter().any(|machine| is_control_plane(machine) && has_node(machine))
    {
        started.control_plane_initialized = Some(true);
    }
    let unset = after.spec.control_plane_endpoint.as_ref().is_none_or(|endpoint| !is_valid(endpoint));
    if let Some(endpoint) = endpoint.filter(|endpoint| unset && is_valid(endpoint)) {
        after.spec.control_plane_endpoint = Some(endpoint);
    }
    let status = after.status.get_or_insert_default();
    if started != ClusterInitialization::default() {
        status.initialization = Some(started);
    }
    if let Some(domains) = domains {
        status.failure_domains = domains;
    }
}

/// Replica counters of the control plane and of all workers.
fn count(seen: &Seen, after: &mut Cluster) {
    let status = after.status.get_or_insert_default();
    // The way of an upgrade is the topology's to tell.
    let way = |counts: &Option<ReplicaStatus>| counts.as_ref().map(|counts| counts.upgrade_plan.clone());
    let [plane_way, workers_way] =
        [&status.control_plane, &status.workers].map(|counts| way(counts).unwrap_or_default());
    status.control_plane = seen.control_plane.as_ref().map(|control_plane| ReplicaStatus {
        desired_replicas: control_plane.read("/spec/replicas"),
        replicas: control_plane.read("/status/replicas"),
        ready_replicas: control_plane.read("/status/readyReplicas"),
        available_replicas: control_plane.read("/status/availableReplicas"),
        up_to_date_replicas: control_plane.read("/status/upToDateReplicas"),
        versions: control_plane.read("/status/versions").unwrap_or_default(),
        upgrade_plan: plane_way,
    });
    let mut workers = ReplicaStatus { upgrade_plan: workers_way, ..ReplicaStatus::default() };
    let mut add = |field: fn(&mut ReplicaStatus) -> &mut Option<i32>, count: Option<i32>| {
        *field(&mut workers).get_or_insert(0) += count.unwrap_or(0);
    };
    for deployment in &seen.deployments {
        let status = deployment.status.clone().unwrap_or_default();
        add(|workers| &mut workers.desired_replicas, deployment.spec.replicas);
        add(|workers| &mut workers.replicas, status.replicas);
        add(|workers| &mut workers.ready_replicas, status.ready_replicas);
        add(|workers| &mut workers.available_replicas, status.available_replicas);
        add(|workers| &mut workers.up_to_date_replicas, status.up_to_date_replicas);
    }
    for pool in &seen.pools {
        let status = pool.status.clone().unwrap_or_default();
        add(|workers| &mut workers.desired_replicas, pool.spec.replicas);
        add(|workers| &mut workers.replicas, status.replicas);
        add(|workers| &mut workers.ready_replicas, status.ready_replicas);
        add(|workers| &mut workers.available_replicas, status.available_replicas);
        add(|workers| &mut workers.up_to_date_replicas, status.up_to_date_replicas);
    }
    for set in seen.sets.iter().filter(|set| owner::owner_of_kind(&set.metadata, "MachineDeployment").is_none()) {
        let status = set.status.clone().unwrap_or_default();
        add(|workers| &mut workers.desired_replicas, set.spec.replicas);
        add(|workers| &mut workers.replicas, status.replicas);
        add(|workers| &mut workers.ready_replicas, status.ready_replicas);
        add(|workers| &mut workers.available_replicas, status.available_replicas);
        add(|workers| &mut workers.up_to_date_replicas, status.up_to_date_replicas);
    }
    status.workers = Some(workers);
}

/// One stage of the deletion; returns the reason and message of the Deleting condition.
fn delete(seen: &Seen, plan: &mut Plan, after: &mut Cluster) -> (&'static str, String) {
    if seen.held {
        plan.wait("the hook BeforeClusterDelete", DELETION_PAUSE_S);
        return ("WaitingForBeforeDeleteHook", "the hook BeforeClusterDelete has not let it go yet".to_owned());
    }
    let mut left: Vec<String> = Vec::new();
    for deployment in &seen.deployments {
        left.push(format!("MachineDeployment {}", name(&deployment.metadata)));
        if deployment.metadata.deletion_timestamp.is_none() {
            plan.delete(deployment.as_ref());
        }
    }
    for pool in &seen.pools {
        left.push(format!("MachinePool {}", name(&pool.metadata)));
        if pool.metadata.deletion_timestamp.is_none() {
            plan.delete(pool.as_ref());
        }
    }
    for set in &seen.sets {
        left.push(format!("MachineSet {}", name(&set.metadata)));
        let owned = owner::owner_of_kind(&set.metadata, "MachineDeployment").is_some();
        if !owned && set.metadata.deletion_timestamp.is_none() {
            plan.delete(set.as_ref());
        }
    }
    for machine in seen.machines.iter().filter(|machine| !is_control_plane(machine)) {
        left.push(format!("Machine {}", name(&machine.metadata)));
        let owned = owner::controller(&machine.metadata).is_some_and(|owner| owner.kind != "Cluster");
        if !owned && machine.metadata.deletion_timestamp.is_none() {
            plan.delete(machine.as_ref());
        }
    }
    if !left.is_empty() {
        plan.wait("the workers' deletion", DELETION_PAUSE_S);
        return ("WaitingForWorkersDeletion", listed(&left));
    }
    if let Some(control_plane) = &seen.control_plane {
        if !control_plane.deleting() {
            plan.delete_external(&control_plane.resource, &control_plane.meta);
        }
        plan.wait("the control plane's deletion", DELETION_PAUSE_S);
        return ("WaitingForControlPlaneDeletion", still_there(control_plane));
    }
    let standalone: Vec<_> = seen.machines.iter().filter(|machine| is_control_plane(machine)).collect();
    if !standalone.is_empty() {
        for machine in &standalone {
            if machine.metadata.deletion_timestamp.is_none() {
                plan.delete(machine.as_ref());
            }
        }
        plan.wait("the control plane machines' deletion", DELETION_PAUSE_S);
        let names: Vec<_> = standalone.iter().map(|machine| format!("Machine {}", name(&machine.metadata))).collect();
        return ("WaitingForControlPlaneDeletion", listed(&names));
    }
    if let Some(infrastructure) = &seen.infrastructure {
        if !infrastructure.deleting() {
            plan.delete_external(&infrastructure.resource, &infrastructure.meta);
        }
        plan.wait("the infrastructure's deletion", DELETION_PAUSE_S);
        return ("WaitingForInfrastructureDeletion", still_there(infrastructure));
    }
    owner::remove_finalizer(&mut after.metadata, names::CLUSTER_FINALIZER);
    ("DeletionCompleted", String::new())
}

fn listed(names: &[String]) -> String {
    const NAMED_MAX: usize = 5;
    let mut lines: Vec<_> = names.iter().take(NAMED_MAX).map(|name| format!("* {name} still exists")).collect();
    if names.len() > NAMED_MAX {
        lines.push(format!("* and {} more", names.len() - NAMED_MAX));
    }
    lines.join("\n")
}

/// What is there, and what holds it in its own words.
fn still_there(external: &External) -> String {
    let what = format!("* {} {} still exists", external.resource.kind, name(&external.meta));
    let deleting = external.condition("Deleting").filter(|deleting| deleting.status == ConditionStatus::True);
    let held = deleting.or_else(|| external.condition("Ready").filter(|ready| ready.status != ConditionStatus::True));
    match held.filter(|held| external.deleting() && !held.message.is_empty()) {
        Some(held) => format!("{what}: {}", held.message),
        None => what,
    }
}

fn phase(
    seen: &Seen,
    deleting: bool,
    endpoint: &Option<Endpoint>,
    started: Option<&ClusterInitialization>,
) -> ClusterPhase {
    let provisioned = started.is_some_and(|started| started.infrastructure_provisioned == Some(true));
    if deleting {
        ClusterPhase::Deleting
    } else if provisioned && endpoint.as_ref().is_some_and(is_valid) {
        ClusterPhase::Provisioned
    } else if seen.infrastructure.is_some() || seen.control_plane.is_some() {
        ClusterPhase::Provisioning
    } else {
        ClusterPhase::Pending
    }
}

pub fn is_valid(endpoint: &Endpoint) -> bool {
    endpoint.host.as_ref().is_some_and(|host| !host.is_empty()) && endpoint.port.is_some_and(|port| port > 0)
}

pub fn is_control_plane(machine: &Machine) -> bool {
    owner::label_of(&machine.metadata, names::CONTROL_PLANE_LABEL).is_some()
}

fn has_node(machine: &Machine) -> bool {
    machine.status.as_ref().is_some_and(|status| status.node_ref.is_some())
}

fn name(meta: &kube::core::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}
