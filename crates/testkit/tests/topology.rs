//! A cluster of a ClusterClass, from its topology to its end.

use std::{collections::BTreeMap, time::Duration};

use api::{
    cluster::Cluster, condition, control_plane::KubeadmControlPlane, health_check::MachineHealthCheck,
    machine::MachineDeployment, openstack_machine::OpenStackMachineTemplate,
};
use kube::{Api, api::ListParams, core::DynamicObject, discovery};
use serde_json::{Value, json};
use testkit::{Shape, World};

/// All machines are ready, of this version, and as many.
async fn ready(world: &World, count: usize, version: &str) -> bool {
    let machines = world.machines().await;
    let fits = |machine: &api::machine::Machine| {
        let conditions = machine.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        machine.spec.version.as_deref() == Some(version)
            && machine.metadata.deletion_timestamp.is_none()
            && condition::is_true(conditions, "Ready")
    };
    machines.len() == count && machines.iter().all(fits)
}

async fn reconciled(world: &World) -> Option<String> {
    let cluster = world.api::<Cluster>().get("topo").await.unwrap();
    let conditions = cluster.status.unwrap_or_default().conditions;
    condition::get(&conditions, "TopologyReconciled").map(|found| found.reason.clone())
}

/// Every object of our groups, by kind and name, with its version.
async fn versions(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let found = discovery::Discovery::new(world.client.clone()).run().await.unwrap();
    for group in found.groups().filter(|group| group.name().ends_with("x-k8s.io")) {
        for (resource, _) in group.recommended_resources() {
            let api = Api::<DynamicObject>::all_with(world.client.clone(), &resource);
            for object in api.list(&ListParams::default()).await.unwrap() {
                let key = format!("{} {}", resource.kind, object.metadata.name.unwrap_or_default());
                all.insert(key, object.metadata.resource_version.unwrap_or_default());
            }
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_topology_becomes_a_cluster_that_follows_it() {
    let world = World::start(7).await;
    world.create_topology("topo", Shape { control_plane: 1, workers: 2, version: "v1.34.2".into() }).await;
    world.available("topo").await;
    world.until("three machines are ready", async || ready(&world, 3, "v1.34.2").await).await;
    assert_eq!(reconciled(&world).await.as_deref(), Some("ReconcileSucceeded"));
    let deployments = world.api::<MachineDeployment>();
    let name = deployments.list(&ListParams::default()).await.unwrap().items[0].metadata.name.clone().unwrap();
    let checks = world.api::<MachineHealthCheck>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(checks.len(), 1, "the class' health check is there");

    // A settled topology writes nothing.
    world
        .until("nothing is on its way", async || {
            let before = versions(&world).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            before == versions(&world).await
        })
        .await;
    let before = versions(&world).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(before, versions(&world).await);

    // A variable rolls the workers, and only them.
    let machines: Vec<String> =
        world.machines().await.into_iter().filter_map(|machine| machine.metadata.name).collect();
    world
        .patch::<Cluster>(
            "topo",
            json!({"spec": {"topology": {"variables": [{"name": "flavor", "value": "m1.large"}]}}}),
        )
        .await;
    let rolled = async || {
        let now: Vec<String> = world.machines().await.into_iter().filter_map(|machine| machine.metadata.name).collect();
        ready(&world, 3, "v1.34.2").await && now.iter().filter(|name| machines.contains(name)).count() == 1
    };
    world.until("the workers are others", rolled).await;
    let templates = world.api::<OpenStackMachineTemplate>();
    let unused = async || {
        let all =
            templates.list(&ListParams::default().labels("topology.cluster.x-k8s.io/deployment-name")).await.unwrap();
        all.items.len() == 1
    };
    world.until("the old template is gone", unused).await;

    // A version goes to the control plane first.
    world.patch::<Cluster>("topo", json!({"spec": {"topology": {"version": "v1.35.0"}}})).await;
    let first = async || {
        let plane = world.api::<KubeadmControlPlane>().list(&ListParams::default()).await.unwrap().items.remove(0);
        let workers = deployments.get(&name).await.unwrap();
        let (plane, workers) = (plane.spec.version, workers.spec.template.spec.version.unwrap_or_default());
        assert!(plane == "v1.35.0" || workers == "v1.34.2", "workers are ahead: {plane} {workers}");
        workers == "v1.35.0"
    };
    world.until("the workers follow", first).await;
    world.until("all machines are of the new version", async || ready(&world, 3, "v1.35.0").await).await;
    world
        .until("the upgrade is told to be over", async || {
            reconciled(&world).await.as_deref() == Some("ReconcileSucceeded")
        })
        .await;

    // Other workers are made, and go again.
    let own = |name: &str| json!({"class": "worker", "name": name, "replicas": 1});
    let workers = |list: Value| json!({"spec": {"topology": {"workers": {"machineDeployments": list}}}});
    world.patch::<Cluster>("topo", workers(json!([own("md-0"), own("md-1")]))).await;
    world
        .until("there are other workers", async || {
            ready(&world, 3, "v1.35.0").await
                && deployments.list(&ListParams::default()).await.unwrap().items.len() == 2
        })
        .await;
    world.patch::<Cluster>("topo", workers(json!([own("md-1")]))).await;
    world
        .until("the first workers are gone", async || {
            ready(&world, 2, "v1.35.0").await && deployments.get_opt(&name).await.unwrap().is_none()
        })
        .await;

    // What cannot be is told, and changes nothing.
    world
        .patch::<Cluster>("topo", json!({"spec": {"topology": {"variables": [{"name": "flavor", "value": 7}]}}}))
        .await;
    world
        .until("the wrong variable is told of", async || reconciled(&world).await.as_deref() == Some("ReconcileFailed"))
        .await;
    assert!(ready(&world, 2, "v1.35.0").await);

    world.delete("topo").await;
    world.until("the cluster is gone", async || world.api::<Cluster>().get_opt("topo").await.unwrap().is_none()).await;
    world.until("nothing of it is left", async || world.in_cloud().await.is_empty()).await;
    let own = ListParams::default().labels("topology.cluster.x-k8s.io/owned");
    world.until("its templates are gone", async || templates.list(&own).await.unwrap().items.is_empty()).await;
    world.shutdown().await;
}
