//! A cluster's life from its first object to its last.

use std::{collections::BTreeMap, time::Duration};

use api::{control_plane::KubeadmControlPlane, health_check::MachineHealthCheck, machine::MachineDeployment};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Node},
    rbac::v1::ClusterRoleBinding,
};
use kube::Api;
use serde_json::json;
use testkit::{Shape, World};

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_scaled_upgraded_and_deleted_and_nothing_is_left() {
    let world = World::start(1).await;
    world.create("demo", Shape { control_plane: 3, workers: 3, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    assert!(world.elapsed() < Duration::from_secs(30), "something waits for what never comes: {:?}", world.elapsed());
    let ready = async |machines: usize, version: &str| {
        let all = world.machines().await;
        let as_wanted = |machine: &api::machine::Machine| {
            let status = machine.status.clone().unwrap_or_default();
            machine.spec.version.as_deref() == Some(version)
                && machine.metadata.deletion_timestamp.is_none()
                && api::condition::is_true(&status.conditions, "Ready")
        };
        all.len() == machines && all.iter().all(as_wanted)
    };
    world.until("3+3 machines are ready", async || ready(6, "v1.34.2").await).await;
    assert_eq!(world.nodes("demo").await.len(), 6);
    let wanted = [
        ("floating ips", 1),
        ("load balancers", 1),
        ("networks", 1),
        ("routers", 1),
        ("security groups", 2),
        ("servers", 6),
    ];
    let mut there = world.in_cloud().await;
    there.remove("ports");
    assert_eq!(there, BTreeMap::from(wanted));

    world.patch::<MachineDeployment>("demo-md", json!({"spec": {"replicas": 5}})).await;
    world.until("there are five workers", async || ready(8, "v1.34.2").await).await;
    world.patch::<MachineDeployment>("demo-md", json!({"spec": {"replicas": 2}})).await;
    world.until("there are two workers", async || ready(5, "v1.34.2").await).await;

    let spec = json!({
        "version": "v1.35.0", "kubeadmConfigSpec": {"clusterConfiguration": {"dns": {"imageTag": "v1.13.0"}}},
    });
    world.patch::<KubeadmControlPlane>("demo-cp", json!({ "spec": spec })).await;
    let template = json!({"spec": {"template": {"spec": {"version": "v1.35.0"}}}});
    world.patch::<MachineDeployment>("demo-md", template).await;
    world.until("all machines are of the new version", async || ready(5, "v1.35.0").await).await;
    world.available("demo").await;
    assert_eq!(world.nodes("demo").await.len(), 5);
    let wanted = ["registry.k8s.io/kube-proxy:v1.35.0", "registry.k8s.io/coredns/coredns:v1.13.0"];
    world.until("the add-ons follow", async || addon_images(&world).await == wanted).await;
    // What kubeadm would do on an upgrade, and what it is told.
    let client = world.workload("demo").await;
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    let binding = bindings.get("kubeadm:apiserver-kubelet-client").await.unwrap();
    assert_eq!(binding.role_ref.name, "system:kubelet-api-admin");
    let maps = Api::<ConfigMap>::namespaced(client, "kube-system");
    let configuration = maps.get("kubeadm-config").await.unwrap().data.unwrap().remove("ClusterConfiguration").unwrap();
    assert!(configuration.contains("ControlPlaneKubeletLocalMode: true"), "{configuration}");

    world.delete("demo").await;
    let gone = async || {
        let clusters = world.api::<api::cluster::Cluster>().list(&Default::default()).await.unwrap();
        clusters.items.is_empty()
    };
    world.until("the cluster is gone", gone).await;
    assert!(world.machines().await.is_empty());
    assert_eq!(world.in_cloud().await, BTreeMap::new());
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_load_balancer_the_address_of_the_api_goes_from_machine_to_machine() {
    let world = World::start(5).await;
    let bare = |object: &mut serde_json::Value| {
        if object["kind"] == "OpenStackCluster" {
            object["spec"]["apiServer"] = json!({"managedLoadBalancer": {"enabled": false}});
        }
    };
    world.create_with("demo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }, bare).await;
    world.available("demo").await;
    let as_wanted = async |machines: usize, version: &str| {
        let all = world.machines().await;
        all.len() == machines
            && all.iter().all(|machine| {
                let status = machine.status.clone().unwrap_or_default();
                machine.spec.version.as_deref() == Some(version) && api::condition::is_true(&status.conditions, "Ready")
            })
    };
    world.patch::<KubeadmControlPlane>("demo-cp", json!({"spec": {"replicas": 3}})).await;
    world.until("3+1 machines are ready", async || as_wanted(4, "v1.34.2").await).await;
    world.patch::<KubeadmControlPlane>("demo-cp", json!({"spec": {"version": "v1.35.0"}})).await;
    let template = json!({"spec": {"template": {"spec": {"version": "v1.35.0"}}}});
    world.patch::<MachineDeployment>("demo-md", template).await;
    let before = world.elapsed();
    world.until("all machines are of the new version", async || as_wanted(4, "v1.35.0").await).await;
    world.available("demo").await;
    let took = world.elapsed() - before;
    assert!(took < Duration::from_secs(45), "nobody took the address when it was free: {took:?}");
    world.delete("demo").await;
    let gone = async || world.api::<api::cluster::Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    assert_eq!(world.in_cloud().await, BTreeMap::new());
    world.shutdown().await;
}

/// Of kube-proxy and of CoreDNS.
async fn addon_images(world: &World) -> Vec<String> {
    let client = world.workload("demo").await;
    let proxy = Api::<DaemonSet>::namespaced(client.clone(), "kube-system").get("kube-proxy").await.unwrap();
    let dns = Api::<Deployment>::namespaced(client, "kube-system").get("coredns").await.unwrap();
    let pods = [proxy.spec.unwrap().template, dns.spec.unwrap().template];
    pods.into_iter().flat_map(|pod| pod.spec.unwrap().containers).filter_map(|container| container.image).collect()
}

#[tokio::test(start_paused = true)]
async fn controllers_that_end_at_any_moment_double_nothing_and_leave_nothing() {
    const MOMENTS: u32 = 60;
    let mut world = World::start(2).await;
    world.create("demo", Shape::default()).await;
    for moment in 0..MOMENTS {
        // Not in step with anything that happens in the plane.
        tokio::time::sleep(Duration::from_millis(170 + u64::from(moment) * 13)).await;
        world.restart_controllers().await;
    }
    world.available("demo").await;
    let mut there = world.in_cloud().await;
    there.remove("ports");
    let one = ["floating ips", "load balancers", "networks", "routers"].map(|kind| (kind, 1));
    let two = ["security groups", "servers"].map(|kind| (kind, 2));
    assert_eq!(there, one.into_iter().chain(two).collect());
    assert_eq!((world.machines().await.len(), world.nodes("demo").await.len()), (2, 2));
    world.delete("demo").await;
    for moment in 0..MOMENTS {
        tokio::time::sleep(Duration::from_millis(90 + u64::from(moment) * 7)).await;
        world.restart_controllers().await;
    }
    let gone = async || world.api::<api::cluster::Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    assert_eq!(world.in_cloud().await, BTreeMap::new());
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn members_whose_keys_lie_in_a_folder_of_their_own_find_together() {
    let world = World::start(3).await;
    let shape = Shape { control_plane: 3, workers: 0, ..Shape::default() };
    let elsewhere = |object: &mut serde_json::Value| {
        if object["kind"] == "KubeadmControlPlane" {
            object["spec"]["kubeadmConfigSpec"]["clusterConfiguration"] = json!({"certificatesDir": "/srv/pki"});
        }
    };
    world.create_with("demo", shape, elsewhere).await;
    let joined = async || {
        let all = world.machines().await;
        all.iter().filter(|machine| machine.status.as_ref().is_some_and(|status| status.node_ref.is_some())).count()
            == 3
    };
    world.until("three members have joined", joined).await;
    world.available("demo").await;
    assert_eq!(world.nodes("demo").await.len(), 3);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_node_is_lost_is_replaced() {
    let world = World::start(4).await;
    world.create("demo", Shape { control_plane: 1, workers: 2, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let spec = json!({
        "clusterName": "demo", "selector": {"matchLabels": {"cluster.x-k8s.io/deployment-name": "demo-md"}},
        "remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": "50%"}},
    });
    let check = json!({"metadata": {"name": "workers"}, "spec": spec});
    let checks = world.api::<MachineHealthCheck>();
    checks.create(&Default::default(), &serde_json::from_value(check).unwrap()).await.unwrap();
    let healthy = async |count: i32| {
        let status = checks.get("workers").await.unwrap().status.unwrap_or_default();
        (status.expected_machines, status.current_healthy) == (Some(2), Some(count))
    };
    world.until("both workers are healthy", async || healthy(2).await).await;
    let lost =
        world.machines().await.into_iter().find(|machine| machine.metadata.name.as_ref().unwrap().contains("md"));
    let (lost, node) =
        lost.map(|lost| (lost.metadata.name.unwrap(), lost.status.unwrap().node_ref.unwrap().name)).unwrap();
    Api::<Node>::all(world.workload("demo").await).delete(&node, &Default::default()).await.unwrap();
    let replaced = async || {
        let workers: Vec<_> = world.machines().await;
        workers.len() == 3 && !workers.iter().any(|machine| machine.metadata.name.as_ref() == Some(&lost))
    };
    world.until("the machine is replaced", replaced).await;
    world.until("both workers are healthy again", async || healthy(2).await).await;
    assert_eq!(world.nodes("demo").await.len(), 3);
    world.shutdown().await;
}
