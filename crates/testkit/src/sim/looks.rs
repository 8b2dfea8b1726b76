//! What must hold whenever somebody looks, and what a cluster has when it is as wanted.

use std::{collections::BTreeSet, time::Duration};

use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    kubeadm::KubeadmConfig,
    machine::{Machine, MachineDeployment, MachineSet},
    machine_pool::MachinePool,
    meta::{Condition, ConditionStatus},
    openstack_cluster::OpenStackCluster,
    openstack_image::Image,
    openstack_machine::OpenStackMachine,
    openstack_machine_pool::OpenStackMachinePool,
    openstack_pool::OpenStackFloatingIPPool,
    openstack_server::OpenStackServer,
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Resource, ResourceExt, api::ListParams, core::ObjectMeta};
use openstack::{
    Query,
    load_balancer::LoadBalancer,
    network::{Network, Router, SecurityGroup},
};
use sandbox::hollow::Quorum;

use crate::{World, now};

/// What waits says for what after this long: the first call to the cloud may take 30 s to fail.
const SPEAKS_AFTER: Duration = Duration::from_secs(45);
/// What could not be written is tried again within this time.
const WRITTEN_AFTER: Duration = Duration::from_secs(75);

/// Most voters of the etcd of each cluster live that is not deleted. Where a fault has most members of a cluster down (`most_of`),
/// all must be there that the fault has left: nobody takes one away that is to come back.
pub async fn quorum(world: &World, most_of: Option<&str>) -> Result<(), String> {
    for cluster in world.list_all::<Cluster>().await {
        if cluster.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let faulty = most_of == Some(cluster.name_any().as_str());
        let kept =
            |one: &Quorum| if faulty { one.alive + one.down == one.members } else { one.alive * 2 > one.members };
        if let Some(lost) = quorums(world, &cluster).into_iter().find(|one| one.members > 0 && !kept(one)) {
            return Err(format!("the etcd of {} has lost its quorum: {lost:?}", cluster.name_any()));
        }
    }
    Ok(())
}

/// What is left of a cluster that is deleted.
pub async fn rest(world: &World, cluster: &str) -> Option<String> {
    let there = world.api::<Cluster>().get_opt(cluster).await.expect("read the cluster").is_some();
    let machines = of(world, cluster).await.len();
    (there || machines > 0).then(|| format!("cluster {cluster} and {machines} machines of it are there"))
}

/// What stands behind a cluster's endpoint.
fn quorums(world: &World, cluster: &Cluster) -> Vec<Quorum> {
    let Some(endpoint) = &cluster.spec.control_plane_endpoint else { return Vec::new() };
    let (Some(host), Some(port)) = (&endpoint.host, endpoint.port) else { return Vec::new() };
    let endpoint = format!("{host}:{port}");
    world.hollow.quorums().into_iter().filter(|one| one.endpoint == endpoint).collect()
}

/// What is not yet as wanted of a cluster: its machines and their nodes, and that each member of etcd is that of a machine, and
/// has a vote.
pub async fn unlike(world: &World, name: &str, version: &str, wanted: u32, control_plane: u32) -> Option<String> {
    let machines = of(world, name).await;
    let ready = |machine: &&Machine| {
        let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
        machine.metadata.deletion_timestamp.is_none()
            && machine.spec.version.as_deref() == Some(version)
            && condition::is_true(conditions, "Ready")
    };
    let count = machines.iter().filter(ready).count();
    if count != machines.len() || count != wanted as usize {
        return Some(format!("{count} of {} machines are ready and of {version}, {wanted} wanted", machines.len()));
    }
    let cluster = world.api::<Cluster>().get_opt(name).await.expect("read the cluster");
    let conditions = |cluster: &Cluster| cluster.status.clone().unwrap_or_default().conditions;
    let Some(cluster) = cluster.filter(|cluster| condition::is_true(&conditions(cluster), "Available")) else {
        return Some(format!("the cluster {name} is not Available"));
    };
    let nodes = Api::<Node>::all(world.workload(name).await).list(&ListParams::default()).await;
    match nodes {
        Err(error) => return Some(format!("the nodes cannot be read: {error}")),
        Ok(nodes) if nodes.items.len() != wanted as usize => {
            let of = |node: &Node| node.spec.clone().unwrap_or_default().provider_id;
            let strays = nodes.items.iter().filter(|node| !machines.iter().any(|m| m.spec.provider_id == of(node)));
            let strays: Vec<String> = strays.map(|node| format!("{} ({:?})", node.name_any(), of(node))).collect();
            let count = nodes.items.len();
            return Some(format!("there are {count} nodes for {wanted} machines: {}", strays.join(", ")));
        }
        Ok(_) => {}
    }
    let masters = control_plane as usize;
    let fits = |quorum: &Quorum| (quorum.members, quorum.alive, quorum.learners) == (masters, masters, 0);
    let quorums = quorums(world, &cluster);
    let all = quorums.len() == 1 && quorums.iter().all(fits);
    (!all).then(|| format!("etcd is {quorums:?} for {masters} machines"))
}

/// The machines of a cluster.
pub async fn of(world: &World, cluster: &str) -> Vec<Machine> {
    let machines = world.machines().await;
    machines.into_iter().filter(|machine| machine.spec.cluster_name == cluster).collect()
}

/// What a cluster has in the cloud from its beginning to its end: of which kind, its name and its ID.
pub async fn lasting(world: &World, cluster: &str) -> BTreeSet<String> {
    let resource = format!("default-{cluster}");
    let network = format!("k8s-clusterapi-cluster-{resource}");
    let names = [
        network.clone(),
        format!("{network}-kubeapi"),
        format!("k8s-cluster-{resource}-secgroup-controlplane"),
        format!("k8s-cluster-{resource}-secgroup-worker"),
    ];
    let mut found = BTreeSet::new();
    macro_rules! add {
        ($($kind:ty),*) => {
            $(for one in world.cloud.list::<$kind>(&Query::new().with("all_tenants", 1)).await.expect("list in the cloud") {
                if names.contains(&one.name) {
                    found.insert(format!("{} {} {}", stringify!($kind), one.name, one.id));
                }
            })*
        };
    }
    add!(Network, Router, SecurityGroup, LoadBalancer);
    found
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
        OpenStackFloatingIPPool: "OpenstackFloatingIPPoolReadyCondition", Image: "Available"
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
