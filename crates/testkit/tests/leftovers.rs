//! What a workload cluster's own controllers make in the cloud, and what becomes of it.

use std::collections::BTreeMap;

use api::{cluster::Cluster, openstack_cluster::OpenStackCluster};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use openstack::{
    Query,
    block_storage::{Volume, VolumeDraft},
    load_balancer::{LoadBalancer, LoadBalancerDraft},
    network::{FloatingIp, FloatingIpDraft, SecurityGroup, SecurityGroupDraft},
};
use serde_json::json;
use testkit::{Shape, World};

/// Makes what a Service of type LoadBalancer makes.
async fn service(world: &World) {
    let c = world.tenant();
    let infra = world.api::<OpenStackCluster>().get("demo").await.unwrap();
    let network = infra.status.unwrap().network.unwrap();
    let draft = LoadBalancerDraft {
        name: "kube_service_kubernetes_default_web".into(),
        vip_subnet_id: Some(network.subnets[0].id.clone()),
        ..Default::default()
    };
    let balancer: LoadBalancer = c.create(&draft).await.unwrap();
    let address = |description: &str, port_id: Option<String>| FloatingIpDraft {
        description: description.into(),
        floating_network_id: world.sandbox.external_network(),
        port_id,
        ..Default::default()
    };
    let text = "Floating IP for Kubernetes external service default/web from cluster kubernetes";
    let _: FloatingIp = c.create(&address(text, Some(balancer.vip_port_id))).await.unwrap();
    let text = "Floating IP for Kubernetes external service default/old from cluster demo";
    let _: FloatingIp = c.create(&address(text, None)).await.unwrap();
    let group = SecurityGroupDraft {
        name: "lb-sg-1-default-web".into(),
        description: "Security Group for default/web Service LoadBalancer in cluster demo".into(),
    };
    let _: SecurityGroup = c.create(&group).await.unwrap();
}

/// Makes a volume as the CSI driver does, and its PersistentVolume.
async fn volume(world: &World, name: &str, policy: &str) {
    let draft = VolumeDraft {
        name: name.into(),
        size: Some(1),
        metadata: [("cinder.csi.openstack.org/cluster".to_owned(), "demo".to_owned())].into(),
        ..Default::default()
    };
    let made: Volume = world.tenant().create(&draft).await.unwrap();
    let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": policy,
        "csi": {"driver": "cinder.csi.openstack.org", "volumeHandle": made.id}}}))
    .unwrap();
    Api::<PersistentVolume>::all(world.workload("demo").await).create(&Default::default(), &volume).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_clusters_own_controllers_made_goes_with_it_but_volumes_that_are_retained() {
    let world = World::start(5).await;
    world.create("demo", Shape { workers: 0, ..Shape::default() }).await;
    world.available("demo").await;
    service(&world).await;
    volume(&world, "pvc-goes", "Delete").await;
    volume(&world, "pvc-stays", "Retain").await;
    world.delete("demo").await;
    let gone = async || world.api::<Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    let settled = async || world.in_cloud().await.get("volumes") == Some(&1);
    world.until("one volume is left", settled).await;
    let left: BTreeMap<_, _> = world.in_cloud().await.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(left, BTreeMap::from([("volumes", 1)]));
    let volumes = world.tenant().list::<Volume>(&Query::new()).await.unwrap();
    assert_eq!(volumes[0].name, "pvc-stays");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn leftovers_that_are_to_be_kept_hold_the_network_and_say_so() {
    let world = World::start(6).await;
    world.create("demo", Shape { workers: 0, ..Shape::default() }).await;
    world.available("demo").await;
    service(&world).await;
    let keep = |value: Option<&str>| json!({"metadata": {"annotations": {api::names::LEFTOVERS_ANNOTATION: value}}});
    world.patch::<OpenStackCluster>("demo", keep(Some("keep"))).await;
    world.delete("demo").await;
    let held = async || {
        let infra = world.api::<OpenStackCluster>().get_opt("demo").await.unwrap();
        let conditions = infra.and_then(|infra| infra.status).map(|status| status.conditions).unwrap_or_default();
        api::condition::get(&conditions, "Ready")
            .is_some_and(|ready| ready.message.contains("kube_service_kubernetes_default_web"))
    };
    world.until("the deletion says what holds it", held).await;
    world.patch::<OpenStackCluster>("demo", keep(None)).await;
    let gone = async || world.api::<Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    assert!(world.in_cloud().await.values().all(|count| *count == 0));
    world.shutdown().await;
}
