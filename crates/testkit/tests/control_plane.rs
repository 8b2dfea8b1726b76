//! Control planes on bad days: members of etcd that fail, machines that die, users who delete what is needed.

use api::{
    condition,
    control_plane::{KubeadmControlPlane, KubeadmControlPlaneStatus},
    kubeadm::KubeadmConfig,
    machine::Machine,
    openstack_machine::OpenStackMachine,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, WatchParams},
};
use openstack::{Query, compute::Server};
use sandbox::hollow::EtcdFault;
use serde_json::json;
use testkit::{Shape, World};

async fn started(seed: u64, replicas: u32) -> World {
    let world = World::start(seed).await;
    world.create("demo", Shape { control_plane: replicas, workers: 0, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    settled(&world, usize::try_from(replicas).unwrap()).await;
    // Only etcd and what is kept in it know of this.
    let mark: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "mark"}})).unwrap();
    let maps = Api::<ConfigMap>::namespaced(world.workload("demo").await, "default");
    maps.create(&PostParams::default(), &mark).await.unwrap();
    world
}

async fn status(world: &World) -> KubeadmControlPlaneStatus {
    world.api::<KubeadmControlPlane>().get("demo-cp").await.unwrap().status.unwrap_or_default()
}

fn is_well(machine: &Machine) -> bool {
    let status = machine.status.clone().unwrap_or_default();
    machine.metadata.deletion_timestamp.is_none() && condition::is_true(&status.conditions, "EtcdMemberHealthy")
}

/// So many machines, all of them well.
async fn settled(world: &World, machines: usize) {
    let holds = async || {
        let all = world.machines().await;
        let told = status(world).await.conditions;
        all.len() == machines && all.iter().all(is_well) && condition::is_true(&told, "EtcdClusterHealthy")
    };
    world.until(&format!("{machines} control plane machines are well"), holds).await;
}

async fn survives(world: &World) {
    let maps = Api::<ConfigMap>::namespaced(world.workload("demo").await, "default");
    assert!(maps.get_opt("mark").await.unwrap().is_some(), "the cluster is another one now");
}

async fn names(world: &World) -> Vec<String> {
    world.machines().await.into_iter().filter_map(|machine| machine.metadata.name).collect()
}

#[tokio::test(start_paused = true)]
async fn connections_to_a_server_that_is_gone_end_and_the_others_stay() {
    let world = started(10, 3).await;
    let members = async || {
        let machines = world.api::<OpenStackMachine>().list(&Default::default()).await.unwrap().items;
        let is = |one: &OpenStackMachine| condition::is_true(&one.status.as_ref().unwrap().conditions, "Ready");
        machines.len() == 3 && machines.iter().all(is)
    };
    world.until("the load balancer leads to all three", members).await;
    // The sandbox asks its cloud every other second what is behind an address.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let mut watches = Vec::new();
    for _ in 0..9 {
        let maps = Api::<ConfigMap>::namespaced(world.workload("demo").await, "default");
        watches.push(maps.watch(&WatchParams::default().timeout(290), "0").await.unwrap().boxed());
    }
    for watch in &mut watches {
        assert!(watch.next().await.unwrap().is_ok(), "it shows what is there");
    }
    let server = world.tenant().list::<Server>(&Query::new()).await.unwrap().remove(0);
    world.tenant().delete::<Server>(&server.id).await.unwrap();
    let gone = async || world.tenant().look::<Server>(&server.id).await.unwrap().is_none();
    world.until("the server is gone", gone).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let mut ended = 0;
    for watch in &mut watches {
        let ends = async { while let Some(Ok(_)) = watch.next().await {} };
        ended += usize::from(tokio::time::timeout(std::time::Duration::from_secs(5), ends).await.is_ok());
    }
    assert!((1..9).contains(&ended), "{ended} of 9 connections ended");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_tells_soon_of_the_marks_that_its_node_loses_and_gets() {
    let world = started(9, 1).await;
    let ready = async || {
        let machines = world.machines().await;
        let is = |machine: &Machine| {
            machine.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready"))
        };
        machines.iter().all(is)
    };
    world.until("its machine is Ready", ready).await;
    // At rest the workload cluster is asked once a minute.
    tokio::time::sleep(std::time::Duration::from_secs(125)).await;
    let nodes = Api::<Node>::all(world.workload("demo").await);
    let name = world.nodes("demo").await[0].name_any();
    for (label, wanted) in [(json!(null), false), (json!(""), true)] {
        let patch = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": label}}});
        nodes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        let told = world.within(std::time::Duration::from_secs(10), async || ready().await == wanted).await;
        assert!(told, "Ready is not {wanted}");
    }
    world.shutdown().await;
}

/// What a health check writes that leaves a machine to its owner.
async fn found_ill(world: &World, name: &str) {
    let machine = world.api::<Machine>().get(name).await.unwrap();
    let mut conditions = machine.status.unwrap_or_default().conditions;
    let now = api::meta::Time("2026-01-01T00:00:00Z".parse().unwrap());
    for (type_, reason) in [("HealthCheckSucceeded", "UnhealthyNode"), ("OwnerRemediated", "WaitingForRemediation")] {
        condition::set(&mut conditions, condition::Statement::no(type_, reason, ""), None, &now);
    }
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    world.api::<Machine>().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn server_vanishes(world: &World, name: &str) {
    let servers = world.cloud.list::<Server>(&Query::new().with("all_tenants", 1)).await.unwrap();
    let server = servers.iter().find(|server| server.name == name).unwrap();
    world.cloud.delete::<Server>(&server.id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_down_is_told_and_holds_back_what_would_cost_the_quorum() {
    let world = started(11, 3).await;
    let machine = names(&world).await.remove(0);
    assert!(world.hollow().set_etcd_fault(&machine, Some(EtcdFault::Down)));
    let told = async || {
        let machine = world.api::<Machine>().get(&machine).await.unwrap();
        let found = condition::get(&machine.status.unwrap_or_default().conditions, "EtcdMemberHealthy").cloned();
        found.is_some_and(|found| found.reason == "InspectionFailed")
    };
    world.until("it is told that the member is not reached", told).await;
    world.patch::<KubeadmControlPlane>("demo-cp", json!({"spec": {"replicas": 5}})).await;
    let blocked = async || {
        let found = condition::get(&status(&world).await.conditions, "ScalingUp").cloned().unwrap();
        found.message.contains("EtcdMemberHealthy condition is unknown")
    };
    world.until("scaling up says what holds it back", blocked).await;
    assert_eq!(world.machines().await.len(), 3);
    world.hollow().set_etcd_fault(&machine, None);
    settled(&world, 5).await;
    survives(&world).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_started_is_removed_and_the_next_machine_joins() {
    let world = started(12, 3).await;
    let node = names(&world).await.remove(0);
    world.hollow().add_etcd_member(&node, "10.6.0.250").await.unwrap();
    world.patch::<KubeadmControlPlane>("demo-cp", json!({"spec": {"replicas": 5}})).await;
    settled(&world, 5).await;
    survives(&world).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_dies_is_replaced_and_its_replacement_too() {
    let world = started(13, 3).await;
    let before = names(&world).await;
    let mut last = before[0].clone();
    for retries in 0..2 {
        server_vanishes(&world, &last).await;
        found_ill(&world, &last).await;
        let replaced = async || {
            let now = names(&world).await;
            now.len() == 3 && !now.contains(&last)
        };
        world.until("the machine is replaced", replaced).await;
        let told = status(&world).await.last_remediation.unwrap();
        assert_eq!((told.machine.as_str(), told.retry_count), (last.as_str(), retries));
        settled(&world, 3).await;
        survives(&world).await;
        last = names(&world).await.into_iter().find(|name| !before.contains(name)).unwrap();
    }
    let control_plane = world.api::<KubeadmControlPlane>().get("demo-cp").await.unwrap();
    let annotations = control_plane.metadata.annotations.unwrap_or_default();
    assert!(!annotations.contains_key("controlplane.cluster.x-k8s.io/remediation-in-progress"));
    world.shutdown().await;
}

/// A user deletes all machines at once.
async fn outlives(world: World) {
    let before = names(&world).await;
    for name in &before {
        world.api::<Machine>().delete(name, &DeleteParams::default()).await.unwrap();
    }
    let replaced = async || {
        let now = names(&world).await;
        now.len() == before.len() && now.iter().all(|name| !before.contains(name))
    };
    world.until("all machines are others", replaced).await;
    settled(&world, before.len()).await;
    survives(&world).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_outlives_that_a_user_deletes_its_only_control_plane_machine() {
    outlives(started(14, 1).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_outlives_that_a_user_deletes_all_its_control_plane_machines() {
    outlives(started(15, 3).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_answers_are_lost_is_removed_all_the_same() {
    let world = started(16, 3).await;
    let all = names(&world).await;
    world.hollow().set_etcd_fault(&all[2], Some(EtcdFault::Mute));
    world.api::<Machine>().delete(&all[2], &DeleteParams::default()).await.unwrap();
    let replaced = async || !names(&world).await.contains(&all[2]);
    world.until("the machine is gone", replaced).await;
    settled(&world, 3).await;
    survives(&world).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_certificates_end_soon_is_replaced() {
    let world = started(17, 1).await;
    let first = names(&world).await.remove(0);
    let expiry = async |name: &str| {
        let machine = world.api::<Machine>().get_opt(name).await.unwrap();
        machine.and_then(|machine| machine.status?.certificates_expiry_date)
    };
    world.until("it is known when the certificates end", async || expiry(&first).await.is_some()).await;
    let annotation = api::names::CERTIFICATES_EXPIRY_ANNOTATION;
    let soon = json!({"metadata": {"annotations": {annotation: "2020-01-01T00:00:00Z"}}});
    world.patch::<KubeadmConfig>(&first, soon).await;
    let before = json!({"spec": {"rollout": {"before": {"certificatesExpiryDays": 30}}}});
    world.patch::<KubeadmControlPlane>("demo-cp", before).await;
    let replaced = async || {
        let now = names(&world).await;
        now.len() == 1 && now[0] != first && expiry(&now[0]).await.is_some()
    };
    world.until("another machine has taken over", replaced).await;
    settled(&world, 1).await;
    survives(&world).await;
    world.shutdown().await;
}

/// As the OpenStack provider's published template for Flatcar has it.
#[tokio::test(start_paused = true)]
async fn machines_boot_with_ignition_too() {
    const ADDITIONAL: &str = "\
systemd:
  units:
  - name: coreos-metadata-sshkeys@.service
    enabled: true
  - name: kubeadm.service
    enabled: true
    dropins:
    - name: 10-flatcar.conf
      contents: |
        [Unit]
        Requires=containerd.service coreos-metadata.service
        After=containerd.service coreos-metadata.service

        [Service]
        EnvironmentFile=/run/metadata/flatcar
";
    let registration = json!({
        "name": "${COREOS_OPENSTACK_HOSTNAME}",
        "kubeletExtraArgs": [
            {"name": "cloud-provider", "value": "external"},
            {"name": "provider-id", "value": "openstack:///${COREOS_OPENSTACK_INSTANCE_UUID}"},
        ],
    });
    let own = json!({
        "format": "ignition",
        "ignition": {"containerLinuxConfig": {"additionalConfig": ADDITIONAL}},
        "preKubeadmCommands": [
            "export COREOS_OPENSTACK_HOSTNAME=${COREOS_OPENSTACK_HOSTNAME%.*}",
            "export COREOS_OPENSTACK_INSTANCE_UUID=${COREOS_OPENSTACK_INSTANCE_UUID}",
            "envsubst < /etc/kubeadm.yml > /etc/kubeadm.yml.tmp",
            "mv /etc/kubeadm.yml.tmp /etc/kubeadm.yml",
        ],
        "joinConfiguration": {"nodeRegistration": registration},
    });
    let change = |object: &mut serde_json::Value| match object["kind"].as_str() {
        Some("KubeadmControlPlane") => {
            let mut spec = own.clone();
            spec["initConfiguration"] = json!({"nodeRegistration": registration});
            object["spec"]["kubeadmConfigSpec"] = spec;
        }
        Some("KubeadmConfigTemplate") => object["spec"]["template"]["spec"] = own.clone(),
        _ => {}
    };
    let world = World::start(18).await;
    let shape = Shape { control_plane: 3, workers: 1, version: "v1.34.2".into() };
    world.create_with("demo", shape, change).await;
    world.available("demo").await;
    let joined = async || world.nodes("demo").await.len() == 4;
    world.until("all machines have joined", joined).await;
    world.shutdown().await;
}

/// Every version of every object of the cluster.
async fn versions(world: &World) -> Vec<Option<String>> {
    async fn of<K>(world: &World) -> Vec<Option<String>>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let all = world.api::<K>().list(&Default::default()).await.unwrap();
        all.items.iter().map(|object| object.meta().resource_version.clone()).collect()
    }
    let parts = [
        of::<KubeadmControlPlane>(world).await,
        of::<Machine>(world).await,
        of::<KubeadmConfig>(world).await,
        of::<api::cluster::Cluster>(world).await,
        of::<k8s_openapi::api::core::v1::Secret>(world).await,
    ];
    parts.concat()
}

#[tokio::test(start_paused = true)]
async fn a_settled_control_plane_is_not_written() {
    let world = started(19, 3).await;
    let known = async || {
        let all = world.machines().await;
        all.iter().all(|machine| machine.status.as_ref().is_some_and(|s| s.certificates_expiry_date.is_some()))
    };
    world.until("all is known of the machines", known).await;
    world.available("demo").await;
    // What follows from the last change has followed, tokens have ended.
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let before = versions(&world).await;
    tokio::time::sleep(std::time::Duration::from_secs(20 * 60)).await;
    assert_eq!(versions(&world).await, before);
    world.shutdown().await;
}
