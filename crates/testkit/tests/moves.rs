//! Clusters that go to another management cluster: controllers that know nothing of them find everything again.

use std::{collections::BTreeMap, time::Duration};

use api::{
    cluster::Cluster,
    condition,
    machine::Machine,
    names::CLUSTER_LABEL,
    resource_set::{ClusterResourceSet, ClusterResourceSetBinding},
};
use apiserver::User;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use serde_json::json;
use testkit::{Shape, World};

/// Machines by name with their servers; those that are not ready have none.
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

/// What the binding says was applied, and when.
async fn bound(world: &World) -> serde_json::Value {
    let binding = world.api::<ClusterResourceSetBinding>().get("plain").await.unwrap();
    json!(binding.spec)["bindings"][0]["resources"].clone()
}

/// Gives the cluster something once, which its user deletes; what the binding says of it.
async fn add_on(world: &World) -> serde_json::Value {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: of-set}\n";
    let core = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "manifests"}});
    let mut map = core("ConfigMap");
    map["data"] = json!({ "x.yaml": manifest });
    world.apply(&map).await;
    let set = json!({
        "apiVersion": "addons.cluster.x-k8s.io/v1beta2", "kind": "ClusterResourceSet", "metadata": {"name": "once"},
        "spec": {
            "clusterSelector": {"matchLabels": {"tier": "gold"}}, "strategy": "ApplyOnce",
            "resources": [{"kind": "ConfigMap", "name": "manifests"}],
        },
    });
    world.apply(&set).await;
    world.patch::<Cluster>("plain", json!({"metadata": {"labels": {"tier": "gold"}}})).await;
    let maps = Api::<ConfigMap>::namespaced(world.workload("plain").await, "default");
    world.until("it is applied", async || maps.get_opt("of-set").await.unwrap().is_some()).await;
    let told = async || {
        let found = world.api::<ClusterResourceSetBinding>().get_opt("plain").await.unwrap();
        found.is_some_and(|found| json!(found.spec)["bindings"][0]["resources"][0]["applied"] == true)
    };
    world.until("it is noted", told).await;
    maps.delete("of-set", &Default::default()).await.unwrap();
    bound(world).await
}

#[tokio::test(start_paused = true)]
async fn clusters_that_moved_keep_their_servers_and_are_looked_after_where_they_are() {
    let mut world = World::start(51).await;
    world.create("plain", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    world.create_topology("topo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    world.until("all machines are ready", async || all_ready(&world, 4).await).await;
    for cluster in ["plain", "topo"] {
        world.available(cluster).await;
        let label = json!({"metadata": {"labels": {"clusterctl.cluster.x-k8s.io/move": "true"}}});
        world.patch::<Secret>(&format!("{cluster}-cloud-config"), label).await;
    }
    let applied = add_on(&world).await;
    let (before, cloud) = (machines(&world).await, world.in_cloud().await);

    let target = world.another(52).await;
    let to = Client::new(target.service_as(User::master("admin")), "default");
    let from = world.client.clone();
    let moving = cli::Move { from, to, namespace: "default".into(), cluster: None, dry_run: false };
    let mut said = Vec::new();
    moving.run(&mut |word| said.push(word.to_owned())).await.unwrap();
    assert!(world.machines().await.is_empty(), "{said:?}");
    assert_eq!(world.in_cloud().await, cloud, "nothing in the cloud has gone with the objects");
    world.go_over(target).await;

    world.until("all machines are ready again", async || all_ready(&world, 4).await).await;
    for cluster in ["plain", "topo"] {
        world.available(cluster).await;
    }
    // Long enough for everything that is done now and then.
    tokio::time::sleep(Duration::from_secs(45 * 60)).await;
    assert_eq!(machines(&world).await, before, "no machine was replaced");
    assert_eq!(world.in_cloud().await, cloud);
    assert_eq!(bound(&world).await, applied, "nothing was applied again");
    let maps = Api::<ConfigMap>::namespaced(world.workload("plain").await, "default");
    assert!(maps.get_opt("of-set").await.unwrap().is_none(), "what is applied once is left alone");
    let set = world.api::<ClusterResourceSet>().get("once").await.unwrap();
    assert!(condition::is_true(&set.status.unwrap_or_default().conditions, "ResourcesApplied"));

    let worker =
        world.machines().await.into_iter().find(|machine| {
            machine.metadata.labels.as_ref().is_some_and(|labels| {
                labels[CLUSTER_LABEL] == "topo" && labels.contains_key("cluster.x-k8s.io/set-name")
            })
        });
    let worker = worker.unwrap().metadata.name.unwrap();
    world.api::<Machine>().delete(&worker, &Default::default()).await.unwrap();
    let replaced = async || all_ready(&world, 4).await && !machines(&world).await.contains_key(&worker);
    world.until("a machine that is deleted is replaced", replaced).await;
    for cluster in ["plain", "topo"] {
        world.delete(cluster).await;
    }
    world.until("all is gone", async || world.machines().await.is_empty() && world.in_cloud().await.is_empty()).await;
    world.shutdown().await;
}
