//! The Machine controller: binds bootstrap data, infrastructure and node together, and takes them apart in order.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machine.

pub mod boot;
mod conditions;
mod deletion;
mod node;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::{
    cluster::Cluster,
    machine::{Machine, MachineInitialization, MachinePhase, MachineStatus, NodeRef},
    meta::Time,
    names,
};
use control::{Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{Context, external::External, owner};

/// Pause while the workload cluster's API is waited for; a connection that is made comes sooner.
const NODE_PAUSE_S: u64 = 20;

pub struct Machines(pub Arc<Context>);

pub struct Seen {
    pub machine: Arc<Machine>,
    pub cluster: Option<Arc<Cluster>>,
    pub bootstrap: Option<External>,
    pub infrastructure: Option<External>,
    pub node: Option<Arc<Node>>,
    /// The cluster's nodes are known, so that `node: None` means that there is none.
    pub connected: bool,
    /// While it is deleted: the pods that a drain has to move. `Err` says why they are not known.
    pub pods: std::result::Result<Vec<Pod>, String>,
}

/// Changes in the Management API, and in the workload cluster.
#[derive(Default)]
pub struct MachinePlan {
    pub local: Plan,
    pub remote: Vec<node::Remote>,
}

impl Reconcile for Machines {
    const NAME: &'static str = "machine";
    type Seen = Seen;
    type Plan = MachinePlan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(machine) = caches.machines.get(key) else { return Ok(None) };
        let cluster = Key::new(key.namespace.as_str(), machine.spec.cluster_name.as_str());
        let provider_id = machine.spec.provider_id.as_deref();
        let owner = caches.clusters.get(&cluster);
        let pods = match node_name(&machine).filter(|_| !deletion::is_with_cluster(owner.as_deref())) {
            Some(node) if machine.metadata.deletion_timestamp.is_some() => {
                node::leaving(&self.0.workloads, &cluster, node).await.map_err(|error| error.chain())
            }
            _ => Ok(Vec::new()),
        };
        Ok(Some(Seen {
            pods,
            cluster: owner,
            bootstrap: caches.external(&key.namespace, machine.spec.bootstrap.config_ref.as_ref()),
            infrastructure: caches.external(&key.namespace, Some(&machine.spec.infrastructure_ref)),
            node: provider_id.and_then(|id| self.0.workloads.node(&cluster, id)),
            connected: self.0.workloads.knows_nodes(&cluster),
            machine,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> MachinePlan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, seen: &Seen, plan: MachinePlan) -> Result<Outcome> {
        let cluster = Key::new(
            seen.machine.metadata.namespace.clone().unwrap_or_default(),
            seen.machine.spec.cluster_name.as_str(),
        );
        let mut outcome = Outcome::Settled;
        for remote in plan.remote {
            outcome = outcome.sooner(remote.carry_out(&self.0.workloads, &cluster).await?);
        }
        Ok(outcome.sooner(self.0.writer.execute(plan.local).await?))
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
            if owner::controller(&machine.metadata).is_none() {
                owner::ensure(&mut after.metadata, owner::reference(cluster.as_ref(), false));
            }
            adopt(machine, seen, &mut plan.local);
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
    let phase = phase(&after.spec.provider_id, status, deleting, deletion.as_ref().is_some_and(|step| step.done));
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

fn phase(provider_id: &Option<String>, status: &MachineStatus, deleting: bool, done: bool) -> MachinePhase {
    let started = status.initialization.clone().unwrap_or_default();
    let infrastructure = started.infrastructure_provisioned == Some(true);
    if done {
        MachinePhase::Deleted
    } else if deleting {
        MachinePhase::Deleting
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
