//! What must hold whenever somebody looks.

use std::time::Duration;

use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    kubeadm::KubeadmConfig,
    machine::{Machine, MachineDeployment, MachineSet},
    machine_pool::MachinePool,
    meta::{Condition, ConditionStatus},
    openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachine,
    openstack_machine_pool::OpenStackMachinePool,
    openstack_pool::OpenStackFloatingIPPool,
    openstack_server::OpenStackServer,
};
use kube::{Resource, core::ObjectMeta};
use sandbox::hollow::Quorum;

use crate::{World, now};

/// What waits says for what after this long: the first call to the cloud may take 30 s to fail.
const SPEAKS_AFTER: Duration = Duration::from_secs(45);
/// What could not be written is tried again within this time.
const WRITTEN_AFTER: Duration = Duration::from_secs(75);

/// Most voters of each etcd live.
pub fn quorum(world: &World) -> Result<(), String> {
    let lost = world.hollow.quorums().into_iter().find(|one| one.members > 0 && one.alive * 2 <= one.members);
    lost.map_or(Ok(()), |quorum| Err(format!("etcd has lost its quorum: {quorum:?}")))
}

/// Each member of etcd is that of a machine, and has a vote.
pub fn members(world: &World, machines: usize) -> Option<String> {
    let fits = |quorum: &Quorum| (quorum.members, quorum.alive, quorum.learners) == (machines, machines, 0);
    let quorums = world.hollow.quorums();
    (!quorums.iter().all(fits)).then(|| format!("etcd is {quorums:?} for {machines} machines"))
}

/// Its server is in error, stopped, or gone.
pub fn is_lost(infra: &OpenStackMachine) -> bool {
    let Some(status) = &infra.status else { return false };
    matches!(status.instance_state.as_deref(), Some("ERROR" | "SHUTOFF" | "DELETED"))
        && !condition::is_true(&status.conditions, "InstanceReady")
}

/// Every object that is not ready says why, once the controllers have had the time to ask and could write it.
pub async fn silent(world: &World) -> Result<(), String> {
    if world.controllers_age() < SPEAKS_AFTER || world.api_faults.whole_for() < WRITTEN_AFTER {
        return Ok(());
    }
    macro_rules! look {
        ($($kind:ty: $condition:literal),*) => {
            $(for object in world.list_all::<$kind>().await {
                let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
                says_why(stringify!($kind), object.meta(), conditions, $condition)?;
            })*
        };
    }
    look!(
        Cluster: "Available", KubeadmControlPlane: "Available", MachineDeployment: "Available", MachineSet: "MachinesReady",
        Machine: "Ready", KubeadmConfig: "Ready", OpenStackCluster: "Ready", OpenStackMachine: "Ready",
        MachinePool: "Available", OpenStackMachinePool: "Ready", OpenStackServer: "Ready",
        OpenStackFloatingIPPool: "OpenstackFloatingIPPoolReadyCondition"
    );
    Ok(())
}

fn says_why(kind: &str, meta: &ObjectMeta, conditions: &[Condition], type_: &str) -> Result<(), String> {
    let age = meta.creation_timestamp.as_ref().map_or(0, |since| now().duration_since(since.0).as_secs());
    if age.unsigned_abs() < SPEAKS_AFTER.as_secs() {
        return Ok(());
    }
    match condition::get(conditions, type_) {
        Some(found) if found.status == ConditionStatus::True => Ok(()),
        Some(found) if !found.reason.is_empty() && !found.message.is_empty() => Ok(()),
        other => {
            let name = meta.name.as_deref().unwrap_or_default();
            Err(format!("{kind} {name} is not {type_} and does not say why: {other:?}"))
        }
    }
}
