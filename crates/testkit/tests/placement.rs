//! Server groups that the platform makes.

use std::collections::BTreeMap;

use api::{machine::MachineDeployment, openstack_machine::OpenStackMachine};
use openstack::{Query, compute::ServerGroup};
use serde_json::json;
use testkit::{Shape, World};

async fn groups(world: &World) -> BTreeMap<String, usize> {
    let all = world.cloud.list::<ServerGroup>(&Query::new().with("all_projects", 1)).await.unwrap();
    all.into_iter().map(|group| (group.name, group.members.len())).collect()
}

#[tokio::test(start_paused = true)]
async fn machines_are_placed_in_groups_that_come_and_go_with_their_cluster() {
    let world = World::start(41).await;
    let shape = Shape { control_plane: 3, workers: 2, version: "v1.34.2".into() };
    let apart = |object: &mut serde_json::Value| {
        if object["kind"] == "OpenStackCluster" {
            let key = "openstackcluster.infrastructure.cluster.x-k8s.io/server-groups";
            object["metadata"]["annotations"] = json!({ key: "soft-anti-affinity" });
        }
    };
    world.create_with("demo", shape, apart).await;
    world.available("demo").await;
    world.until("all servers are there", async || groups(&world).await.values().sum::<usize>() == 5).await;
    let prefix = "k8s-clusterapi-cluster-default-demo/";
    let wanted = BTreeMap::from([(format!("{prefix}controlplane"), 3), (format!("{prefix}demo-md"), 2)]);
    assert_eq!(groups(&world).await, wanted);
    world.patch::<MachineDeployment>("demo-md", json!({"spec": {"replicas": 3}})).await;
    let three = async || groups(&world).await.get(&format!("{prefix}demo-md")) == Some(&3);
    world.until("the third worker is in the same group", three).await;
    let machines = world.api::<OpenStackMachine>().list(&Default::default()).await.unwrap();
    assert!(machines.iter().all(|machine| machine.spec.server_group.is_none()));
    world.delete("demo").await;
    let gone = async || world.api::<api::cluster::Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    assert_eq!(world.in_cloud().await, BTreeMap::new());
    world.shutdown().await;
}
