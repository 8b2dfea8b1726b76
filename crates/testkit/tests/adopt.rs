//! Clusters that no management cluster knows come under one, and keep their machines.

use std::{collections::BTreeMap, time::Duration};

use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    machine::{Machine, MachineDeployment},
};
use apiserver::User;
use cli::Adopt;
use hyper::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::{Client, api::DeleteParams};
use openstack::{Query, Service, block_storage::Volume};
use serde_json::{Value, json};
use testkit::{Shape, World};

/// Machines by name with their servers; those that are not ready and up to date have none.
async fn machines(world: &World) -> BTreeMap<String, Option<String>> {
    let server = |machine: Machine| {
        let conditions = machine.status.unwrap_or_default().conditions;
        let ready = condition::is_true(&conditions, "Ready") && condition::is_true(&conditions, "UpToDate");
        (machine.metadata.name.unwrap_or_default(), machine.spec.provider_id.filter(|_| ready))
    };
    world.machines().await.into_iter().map(server).collect()
}

async fn all_ready(world: &World, count: usize) -> bool {
    let machines = machines(world).await;
    machines.len() == count && machines.values().all(Option::is_some)
}

/// What lies in `/etc/kubernetes/pki`.
async fn keys(world: &World) -> BTreeMap<&'static str, (String, String)> {
    let mut keys = BTreeMap::new();
    for purpose in ["ca", "etcd", "proxy", "sa"] {
        let secret = world.api::<Secret>().get(&format!("demo-{purpose}")).await.unwrap();
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        keys.insert(purpose, (text("tls.crt"), text("tls.key")));
    }
    keys
}

/// A cluster of three machines whose management cluster is lost with all that it knew, adopted by another; and its machines.
/// `meanwhile` is what happens in the cloud before that.
async fn taken_over(
    seed: u64,
    change: impl Fn(&mut Value),
    meanwhile: impl AsyncFnOnce(&World),
) -> (World, BTreeMap<String, Option<String>>) {
    let mut world = World::start(seed).await;
    world.create_with("demo", Shape { control_plane: 1, workers: 2, version: "v1.34.1".into() }, change).await;
    world.until("all machines are ready", async || all_ready(&world, 3).await).await;
    world.available("demo").await;
    let (before, cloud) = (machines(&world).await, world.in_cloud().await);
    let (keys, workload) = (keys(&world).await, world.workload("demo").await);

    let other = world.another(seed + 1).await;
    let management = Client::new(other.service_as(User::master("admin")), "default");
    world.go_over(other).await;
    meanwhile(&world).await;
    assert!(world.machines().await.is_empty());
    let mut adopt = Adopt {
        management: management.clone(),
        workload: workload.clone(),
        cloud: world.tenant(),
        namespace: "default".into(),
        name: "demo".into(),
        keys,
        clouds_yaml: world.clouds_yaml().to_owned(),
        cloud_name: testkit::CLOUD.to_owned(),
        dry_run: true,
    };
    let mut said = Vec::new();
    assert!(adopt.run(&mut |word| said.push(word.to_owned())).await.unwrap(), "{said:?}");
    assert!(said[0].contains("no machine would be replaced"), "{said:?}");
    assert!(world.api::<Cluster>().get_opt("demo").await.unwrap().is_none());
    adopt.dry_run = false;
    // Twice: what an earlier run made is taken for what it is.
    for _ in 0..2 {
        assert!(adopt.run(&mut |word| said.push(word.to_owned())).await.unwrap(), "{said:?}");
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.in_cloud().await, cloud, "it is paused");
    cli::go_on_with_adopted(&management, &workload, "default", "demo", &mut |word| said.push(word.to_owned()))
        .await
        .unwrap();
    world.until("all machines are ready again", async || all_ready(&world, 3).await).await;
    world.available("demo").await;
    tokio::time::sleep(Duration::from_secs(45 * 60)).await;
    assert_eq!((machines(&world).await, world.in_cloud().await), (before.clone(), cloud), "nothing was replaced");
    (world, before)
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_management_is_lost_is_adopted_scaled_upgraded_and_deleted() {
    let (world, before) = taken_over(71, |_| (), async |_| ()).await;
    world.patch::<MachineDeployment>("demo-md-0", json!({"spec": {"replicas": 3}})).await;
    world.until("there is one more", async || all_ready(&world, 4).await).await;
    let version = json!({"spec": {"version": "v1.34.2"}});
    world.patch::<KubeadmControlPlane>("demo-control-plane", version).await;
    let upgraded = async || {
        let machines = world.machines().await;
        let new = machines.iter().filter(|machine| machine.spec.version.as_deref() == Some("v1.34.2"));
        new.count() == 1 && all_ready(&world, 4).await
    };
    world.until("the control plane is upgraded", upgraded).await;
    let version = json!({"spec": {"template": {"spec": {"version": "v1.34.2"}}}});
    world.patch::<MachineDeployment>("demo-md-0", version).await;
    let upgraded = async || {
        let now = machines(&world).await;
        all_ready(&world, 4).await && before.keys().all(|old| !now.contains_key(old))
    };
    world.until("the workers are upgraded", upgraded).await;
    // As `skep delete cluster` does it: what the cluster owns goes first, and its credentials are needed to the end.
    world.api::<Cluster>().delete("demo", &DeleteParams::foreground()).await.unwrap();
    world.until("all is gone", async || world.machines().await.is_empty() && world.in_cloud().await.is_empty()).await;
    let left = async || {
        let secrets = world.api::<Secret>().list(&Default::default()).await.unwrap().items;
        secrets.into_iter().filter_map(|secret| secret.metadata.name).collect::<Vec<_>>()
    };
    world.until("its credentials alone are left", async || left().await == ["demo-cloud-config"]).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_boot_from_volumes_of_any_name_are_adopted_and_leave_no_volume() {
    let from_volumes = |object: &mut Value| {
        if object["kind"] == "OpenStackMachineTemplate" {
            object["spec"]["template"]["spec"]["rootVolume"] = json!({"sizeGiB": 30});
        }
    };
    let nameless = json!({"volume": {"name": "", "metadata": {}}});
    let forget = async |world: &World| {
        let cloud = world.tenant();
        let volumes = cloud.list::<Volume>(&Query::new()).await.unwrap();
        assert_eq!(volumes.len(), 3);
        for volume in volumes {
            let path = format!("volumes/{}", volume.id);
            cloud.raw(Service::BlockStorage, Method::PUT, &path, &Query::new(), Some(&nameless)).await.unwrap();
        }
    };
    let (world, _) = taken_over(73, from_volumes, forget).await;
    let mut names: Vec<String> =
        world.tenant().list::<Volume>(&Query::new()).await.unwrap().into_iter().map(|v| v.name).collect();
    names.sort();
    let expected: Vec<String> = machines(&world).await.keys().map(|name| format!("{name}-root")).collect();
    assert_eq!(names, expected);
    world.delete("demo").await;
    world.until("all is gone", async || world.machines().await.is_empty() && world.in_cloud().await.is_empty()).await;
    world.shutdown().await;
}
