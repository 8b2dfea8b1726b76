//! The Machine controller: binds bootstrap data, infrastructure and node together, and takes them apart in order.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machine.

pub mod boot;
mod conditions;
mod deletion;
mod drain;
mod eviction;
mod in_place;
mod node;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use api::{
    cluster::Cluster,
    condition,
    drain_rule::MachineDrainRule,
    machine::{Machine, MachineInitialization, MachinePhase, MachineStatus, NodeRef},
    meta::{TemplateMeta, Time},
    names,
};
use control::{Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, core::ObjectMeta};
use parking_lot::Mutex;

pub use self::{conditions::mirrored, drain::is_unreachable};
use self::{drain::Load, node::Remote};
use crate::{Caches, Context, external::External, machine_deployment::revision, owner, propagation, sync::Synced};

/// Pause while the workload cluster's API is waited for; a connection that is made comes sooner.
const NODE_PAUSE_S: u64 = 20;

pub struct Machines {
    context: Arc<Context>,
    /// Of machines that are being deleted. What is lost with the process is found out again.
    memories: Mutex<HashMap<Key, Memory>>,
}

/// What a deletion remembers from one look to the next.
#[derive(Clone, Default)]
pub struct Memory {
    /// Why pods may not be evicted: pods by reason.
    refused: BTreeMap<String, Vec<String>>,
    /// When the deletion of the node was first asked for.
    node_deletion: Option<Timestamp>,
}

impl Machines {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, memories: Mutex::default() }
    }
}

pub struct Seen {
    pub machine: Arc<Machine>,
    pub cluster: Option<Arc<Cluster>>,
    pub bootstrap: Option<External>,
    pub infrastructure: Option<External>,
    pub node: Option<Arc<Node>>,
    /// What the node gets of its machine.
    pub synced: Synced,
    /// The MachineSet that controls the machine is of an earlier revision than its MachineDeployment.
    pub outdated: bool,
    /// The cluster's nodes are known, so that `node: None` means that there is none.
    pub connected: bool,
    /// The cluster's API answers now.
    pub reachable: bool,
    /// No other machine of the control plane stays.
    pub last_of_control_plane: bool,
    /// While it is deleted: what is on its node, `Err` says why that is not known; and the rules that are for the machine.
    pub load: std::result::Result<Load, String>,
    pub drain_rules: Vec<Arc<MachineDrainRule>>,
    pub node_deletion: Option<Timestamp>,
    /// While an extension is to update it in place: how far that is.
    pub update: Option<in_place::Update>,
}

/// Changes in the Management API, and in the workload cluster.
#[derive(Default)]
pub struct MachinePlan {
    pub local: Plan,
    pub remote: Vec<Remote>,
}

impl Reconcile for Machines {
    const NAME: &'static str = "machine";
    type Seen = Seen;
    type Plan = MachinePlan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Context { caches, workloads, .. } = self.context.as_ref();
        let Some(machine) = caches.machines.get(key) else {
            self.memories.lock().remove(key);
            return Ok(None);
        };
        let name = Key::new(key.namespace.as_str(), machine.spec.cluster_name.as_str());
        let cluster = caches.clusters.get(&name);
        let provider_id = machine.spec.provider_id.as_deref();
        let node = provider_id.and_then(|id| workloads.node(&name, id));
        let mut seen = Seen {
            bootstrap: caches.external(&key.namespace, machine.spec.bootstrap.config_ref.as_ref()),
            infrastructure: caches.external(&key.namespace, Some(&machine.spec.infrastructure_ref)),
            synced: self.context.synced.clone(),
            outdated: is_outdated(caches, &machine),
            connected: workloads.knows_nodes(&name),
            reachable: workloads.client(&name).is_some(),
            last_of_control_plane: false,
            load: Ok(Load::default()),
            drain_rules: Vec::new(),
            node_deletion: None,
            update: None,
            cluster,
            node,
            machine,
        };
        seen.update = in_place::drive(&self.context, key, &seen).await;
        if seen.machine.metadata.deletion_timestamp.is_some() && !deletion::is_with_cluster(seen.cluster.as_deref()) {
            self.observe_deletion(&name, key, &mut seen).await;
        }
        Ok(Some(seen))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> MachinePlan {
        plan(seen, &Time(now))
    }

    async fn act(&self, key: &Key, seen: &Seen, plan: MachinePlan) -> Result<Outcome> {
        let cluster = Key::new(key.namespace.as_str(), seen.machine.spec.cluster_name.as_str());
        let mut outcome = Outcome::Settled;
        for remote in plan.remote {
            let mut memory = self.memories.lock().get(key).cloned().unwrap_or_default();
            if matches!(remote, Remote::Delete { .. }) {
                memory.node_deletion.get_or_insert_with(|| self.context.writer.clock().now());
            }
            let keep = !matches!(remote, Remote::Patch { .. });
            let done = remote.carry_out(&self.context.workloads, &cluster, &mut memory).await;
            if keep {
                self.memories.lock().insert(key.clone(), memory);
            }
            outcome = outcome.sooner(done?);
        }
        Ok(outcome.sooner(self.context.writer.execute(plan.local).await?))
    }
}

fn is_outdated(caches: &Caches, machine: &Machine) -> bool {
    let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
    let set = owner::owner_of_kind(&machine.metadata, "MachineSet");
    let set = set.and_then(|set| caches.sets.get(&Key::new(namespace, set.name.as_str())));
    let Some(set) = set else { return false };
    let deployment = owner::owner_of_kind(&set.metadata, "MachineDeployment");
    let deployment = deployment.and_then(|owner| caches.deployments.get(&Key::new(namespace, owner.name.as_str())));
    deployment.is_some_and(|deployment| revision(set.as_ref()) < revision(deployment.as_ref()))
}

impl Machines {
    /// Adds what a deletion has to know.
    async fn observe_deletion(&self, cluster: &Key, key: &Key, seen: &mut Seen) {
        let Context { caches, workloads, .. } = self.context.as_ref();
        let memory = self.memories.lock().get(key).cloned().unwrap_or_default();
        let is_control_plane =
            |machine: &Machine| owner::label_of(&machine.metadata, names::CONTROL_PLANE_LABEL).is_some();
        seen.node_deletion = memory.node_deletion;
        seen.last_of_control_plane = is_control_plane(&seen.machine)
            && !caches.machines.in_cluster(&cluster.namespace, &cluster.name).iter().any(|other| {
                is_control_plane(other) && other.metadata.deletion_timestamp.is_none() && node_name(other).is_some()
            });
        let rules = caches.drain_rules.in_namespace(&key.namespace);
        seen.drain_rules = drain::rules_of(&rules, &seen.machine, seen.cluster.as_deref());
        if let Some(node) = &seen.node {
            let namespaces = seen.drain_rules.iter().flat_map(|rule| &rule.spec.pods);
            let namespaces = namespaces.into_iter().any(|entry| entry.namespace_selector.is_some());
            let load = eviction::load(workloads, cluster, node, namespaces).await;
            seen.load = load.map(|load| Load { refused: memory.refused, ..load }).map_err(|error| error.chain());
        }
    }
}

pub fn plan(seen: &Seen, now: &Time) -> MachinePlan {
    let machine = seen.machine.as_ref();
    let mut plan = MachinePlan::default();
    let mut after = machine.clone();
    let deleting = machine.metadata.deletion_timestamp.is_some();
    let paused = owner::is_paused(seen.cluster.as_deref(), &machine.metadata);
    if !deleting && !owner::has_finalizer(&machine.metadata, names::MACHINE_FINALIZER) {
        owner::add_finalizer(&mut after.metadata, names::MACHINE_FINALIZER);
    }
    let mut deletion = None;
    if !paused {
        owner::label(&mut after.metadata, names::CLUSTER_LABEL, machine.spec.cluster_name.as_str());
        if deleting {
            deletion = Some(deletion::plan(seen, now, &mut plan, &mut after));
        } else if let Some(cluster) = &seen.cluster {
            if is_alone(&machine.metadata) {
                owner::ensure(&mut after.metadata, owner::reference(cluster.as_ref(), false));
            }
            adopt(machine, seen, &mut plan.local);
            in_place::plan(seen, &mut after, &mut plan.local);
            take_over(seen, &mut after);
            node::plan(seen, &mut plan, &mut after);
        } else {
            plan.local.wait(format!("cluster {}", machine.spec.cluster_name), NODE_PAUSE_S);
        }
    }
    let recheck = conditions::set(seen, &mut after, deletion.as_ref(), paused, now);
    if let Some(after_s) = recheck {
        plan.local.wait("minReadySeconds", after_s);
    }
    let status = after.status.get_or_insert_default();
    let updating = condition::is_true(&status.conditions, "Updating");
    let phase =
        phase(&after.spec.provider_id, status, updating, deleting, deletion.as_ref().is_some_and(|step| step.done));
    if status.phase != Some(phase) {
        status.phase = Some(phase);
        status.last_updated = Some(now.clone());
    }
    status.observed_generation = machine.metadata.generation;
    if deletion.is_some_and(|step| step.done) {
        after.status = machine.status.clone();
    }
    plan.local.update(machine, &after);
    plan
}

/// Metadata of a Machine that `maker` makes and controls: what its template says, which it follows from then on, with `labels`,
/// those of the template among them.
pub fn metadata<O: Resource<DynamicType = ()>>(
    maker: &O,
    key: Key,
    template: &TemplateMeta,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    let mut metadata = ObjectMeta {
        name: Some(key.name),
        namespace: Some(key.namespace),
        labels: Some(labels),
        annotations: (!template.annotations.is_empty()).then(|| template.annotations.clone()),
        owner_references: Some(vec![owner::reference(maker, true)]),
        finalizers: Some(vec![names::MACHINE_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    propagation::note(&mut metadata, template);
    metadata
}

/// Whether the machine was made by no set, pool or control plane, which would adopt it again.
fn is_alone(meta: &ObjectMeta) -> bool {
    let makers = [names::SET_LABEL, names::POOL_LABEL, names::CONTROL_PLANE_NAME_LABEL];
    owner::controller(meta).is_none() && !makers.iter().any(|maker| owner::label_of(meta, maker).is_some())
}

/// Makes the machine the owner of its bootstrap configuration and of its infrastructure, which their makers (a set or
/// a control plane) hand over.
fn adopt(machine: &Machine, seen: &Seen, plan: &mut Plan) {
    for part in [&seen.bootstrap, &seen.infrastructure].into_iter().flatten() {
        if part.deleting() {
            continue;
        }
        let mut meta = part.meta.clone();
        for maker in ["MachineSet", "KubeadmControlPlane"] {
            owner::hand_over(&mut meta, owner::reference(machine, true), maker);
        }
        owner::label(&mut meta, names::CLUSTER_LABEL, machine.spec.cluster_name.as_str());
        if in_place::is_ending(machine) {
            api::in_place::mark(&mut meta, false);
        }
        plan.update_metadata(&part.resource, &part.meta, &meta);
    }
}

/// Takes over what bootstrap and infrastructure report.
fn take_over(seen: &Seen, after: &mut Machine) {
    let mut started = after.status.as_ref().and_then(|status| status.initialization.clone()).unwrap_or_default();
    match &seen.bootstrap {
        Some(bootstrap) => {
            let created = bootstrap.read("/status/initialization/dataSecretCreated") == Some(true);
            if let Some(name) = bootstrap.read::<String>("/status/dataSecretName").filter(|_| created) {
                after.spec.bootstrap.data_secret_name = Some(name);
                started.bootstrap_data_secret_created = Some(true);
            }
        }
        None if after.spec.bootstrap.config_ref.is_none() && after.spec.bootstrap.data_secret_name.is_some() => {
            started.bootstrap_data_secret_created = Some(true);
        }
        None => {}
    }
    let status = after.status.get_or_insert_default();
    if let Some(infrastructure) = &seen.infrastructure {
        let provider_id = infrastructure.read::<String>("/spec/providerID");
        if let Some(provider_id) = provider_id.filter(|id| !id.is_empty() && infrastructure.provisioned()) {
            after.spec.provider_id = Some(provider_id);
            started.infrastructure_provisioned = Some(true);
            status.addresses = infrastructure.read("/status/addresses").unwrap_or_default();
            status.failure_domain = infrastructure
                .read("/status/failureDomain")
                .or_else(|| infrastructure.read("/spec/failureDomain"))
                .or_else(|| after.spec.failure_domain.clone());
        }
    }
    if started != MachineInitialization::default() {
        status.initialization = Some(started);
    }
}

fn phase(
    provider_id: &Option<String>,
    status: &MachineStatus,
    updating: bool,
    deleting: bool,
    done: bool,
) -> MachinePhase {
    let started = status.initialization.clone().unwrap_or_default();
    let infrastructure = started.infrastructure_provisioned == Some(true);
    if done {
        MachinePhase::Deleted
    } else if deleting {
        MachinePhase::Deleting
    } else if updating {
        MachinePhase::Updating
    } else if status.node_ref.is_some() && infrastructure {
        MachinePhase::Running
    } else if provider_id.is_some() {
        MachinePhase::Provisioned
    } else if started.bootstrap_data_secret_created == Some(true) {
        MachinePhase::Provisioning
    } else {
        MachinePhase::Pending
    }
}

/// The node's name as the machine knows it.
fn node_name(machine: &Machine) -> Option<&str> {
    machine.status.as_ref()?.node_ref.as_ref().map(|NodeRef { name }| name.as_str())
}
