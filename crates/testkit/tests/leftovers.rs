//! What a workload cluster's own controllers make in the cloud, and what becomes of it.

use std::{collections::BTreeMap, time::Duration};

use api::{cluster::Cluster, openstack_cluster::OpenStackCluster};
use k8s_openapi::{
    api::core::v1::PersistentVolume, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use openstack::{
    Query,
    block_storage::{Snapshot, SnapshotDraft, Volume, VolumeDraft},
    load_balancer::{LoadBalancer, LoadBalancerDraft},
    network::{FloatingIp, FloatingIpDraft, SecurityGroup, SecurityGroupDraft},
};
use sandbox::cloud::End;
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

/// Makes a snapshot as the CSI driver does, and its VolumeSnapshotContent.
async fn snapshot(world: &World, volume: &str, name: &str, policy: &str) {
    let c = world.tenant();
    let available = async || c.get::<Volume>(volume).await.unwrap().status == "available";
    world.until("the volume is there", available).await;
    let draft = SnapshotDraft {
        name: name.into(),
        volume_id: volume.into(),
        metadata: [("cinder.csi.openstack.org/cluster".to_owned(), "demo".to_owned())].into(),
        ..Default::default()
    };
    let made: Snapshot = c.create(&draft).await.unwrap();
    let client = world.workload("demo").await;
    let names = json!({"kind": "VolumeSnapshotContent", "plural": "volumesnapshotcontents", "singular": "volumesnapshotcontent"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let crd: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {
            "name": "volumesnapshotcontents.snapshot.storage.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"},
        },
        "spec": {"group": "snapshot.storage.k8s.io", "names": names, "scope": "Cluster", "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema},
        ]},
    }))
    .unwrap();
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    if crds.get_opt("volumesnapshotcontents.snapshot.storage.k8s.io").await.unwrap().is_none() {
        crds.create(&Default::default(), &crd).await.unwrap();
    }
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent");
    let contents = Api::<DynamicObject>::all_with(client, &ApiResource::from_gvk(&kind));
    let content: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": name},
        "spec": {"deletionPolicy": policy, "driver": "cinder.csi.openstack.org"}, "status": {"snapshotHandle": made.id},
    }))
    .unwrap();
    let made = async || contents.create(&Default::default(), &content).await.is_ok();
    world.until("the content is there", made).await;
}

/// Makes a volume as the CSI driver does, and its PersistentVolume; the volume's id.
async fn volume(world: &World, name: &str, policy: &str) -> String {
    let draft = VolumeDraft {
        name: name.into(),
        size: Some(1),
        metadata: [("cinder.csi.openstack.org/cluster".to_owned(), "demo".to_owned())].into(),
        ..Default::default()
    };
    let made: Volume = world.tenant().create(&draft).await.unwrap();
    let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": policy,
        "csi": {"driver": "cinder.csi.openstack.org", "volumeHandle": made.id.clone()}}}))
    .unwrap();
    Api::<PersistentVolume>::all(world.workload("demo").await).create(&Default::default(), &volume).await.unwrap();
    made.id
}

#[tokio::test(start_paused = true)]
async fn what_the_clusters_own_controllers_made_goes_with_it_but_volumes_that_are_retained() {
    let world = World::start(5).await;
    world.create("demo", Shape { workers: 0, ..Shape::default() }).await;
    world.available("demo").await;
    service(&world).await;
    let (goes, _) = (volume(&world, "pvc-goes", "Delete").await, volume(&world, "pvc-stays", "Retain").await);
    let copied = volume(&world, "pvc-copied", "Delete").await;
    snapshot(&world, &goes, "snapshot-goes", "Delete").await;
    snapshot(&world, &copied, "snapshot-stays", "Retain").await;
    world.delete("demo").await;
    let gone = async || world.api::<Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    let settled = async || world.in_cloud().await.get("volumes") == Some(&2);
    world.until("two volumes are left", settled).await;
    let left: BTreeMap<_, _> = world.in_cloud().await.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(left, BTreeMap::from([("volumes", 2), ("snapshots", 1)]));
    let volumes = world.tenant().list::<Volume>(&Query::new()).await.unwrap();
    let mut names: Vec<_> = volumes.into_iter().map(|volume| volume.name).collect();
    names.sort();
    assert_eq!(names, ["pvc-copied", "pvc-stays"]);
    let snapshots = world.tenant().list::<Snapshot>(&Query::new()).await.unwrap();
    assert_eq!(snapshots[0].name, "snapshot-stays");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn volumes_go_with_a_cluster_whose_api_is_dead_when_it_is_deleted() {
    let world = World::start(7).await;
    world.create("demo", Shape { workers: 0, ..Shape::default() }).await;
    world.available("demo").await;
    volume(&world, "pvc-goes", "Delete").await;
    volume(&world, "pvc-stays", "Retain").await;
    let noted = async || {
        let infra = world.api::<OpenStackCluster>().get("demo").await.unwrap();
        infra.metadata.annotations.unwrap_or_default().contains_key(api::names::VOLUMES_ANNOTATION)
    };
    assert!(world.within(Duration::from_secs(40 * 60), noted).await, "the volumes are noted while the cluster is well");
    let version = async || world.api::<OpenStackCluster>().get("demo").await.unwrap().metadata.resource_version;
    let before = version().await;
    tokio::time::sleep(Duration::from_secs(70 * 60)).await;
    assert_eq!(version().await, before, "and nothing is written while they are the same");
    let machine = world.machines().await.remove(0);
    let server = machine.spec.provider_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap().to_owned();
    assert!(world.sandbox.end_server(&server, End::Shutoff));
    world.delete("demo").await;
    let gone = async || world.api::<Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    let volumes = world.tenant().list::<Volume>(&Query::new()).await.unwrap();
    let names: Vec<_> = volumes.into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["pvc-stays"]);
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
