//! Many clusters, and those that are not there.

use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use super::world::{ORGANIZATION, World};

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_delays_no_other() {
    let world = World::new().await;
    let down = world.cluster("down").await;
    let up = world.cluster("up").await;
    world.map("values", "color: red\n").await;
    let change = json!({"spec": {"userConfig": {"configMap": {"name": "values", "namespace": ORGANIZATION}}}});
    for cluster in ["down", "up"] {
        for n in 0..20 {
            world.app(&format!("{cluster}-{n}"), cluster, &change).await;
        }
    }
    for n in 0..20 {
        world.until(&format!("down-{n}"), "deployed").await;
        world.until(&format!("up-{n}"), "deployed").await;
    }
    down.is_cut_off.store(true, Ordering::SeqCst);
    world.map("values", "color: blue\n").await;
    let begun = tokio::time::Instant::now();
    world
        .eventually("all of the other are changed", async || {
            for n in 0..20 {
                if up.map("web", &n.to_string()).await.unwrap()["color"] != "blue" {
                    return false;
                }
            }
            true
        })
        .await;
    assert!(begun.elapsed() < control::CALL_LIMIT * 2, "one call's limit, not twenty: {:?}", begun.elapsed());
    let calls = down.calls.load(Ordering::SeqCst);
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    let more = down.calls.load(Ordering::SeqCst) - calls;
    assert!(more < 20, "it is tried now and then, not by each app: {more} calls");
    down.is_cut_off.store(false, Ordering::SeqCst);
    world.eventually("it gets what it missed", async || down.map("web", "7").await.unwrap()["color"] == "blue").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_and_hardly_asked_when_all_is_as_declared() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("values", "color: red\n").await;
    world.secret("hidden", &[("values", "size: 7\n")]).await;
    let change = json!({"spec": {
        "config": {"configMap": {"name": "values", "namespace": ORGANIZATION}, "secret": {"name": "hidden", "namespace": ORGANIZATION}},
        "namespaceConfig": {"labels": {"team": "a"}}, "install": {"timeout": "3m"},
    }});
    for n in 0..5 {
        world.app(&format!("w1-{n}"), "w1", &change).await;
    }
    for n in 0..5 {
        world.until(&format!("w1-{n}"), "deployed").await;
    }
    assert_eq!(cluster.map("web", "3").await.unwrap()["size"], "7");
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let version = async || {
        let list = Api::<ConfigMap>::all(world.client()).list(&ListParams::default().limit(1)).await.unwrap();
        list.metadata.resource_version
    };
    let (before, writes, calls) =
        (version().await, cluster.writes.load(Ordering::SeqCst), cluster.calls.load(Ordering::SeqCst));
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert_eq!(version().await, before, "nothing is written to the management cluster");
    assert_eq!(cluster.writes.load(Ordering::SeqCst), writes, "nor to the workload cluster");
    let asked = cluster.calls.load(Ordering::SeqCst) - calls;
    // Its revisions, the newest of them, its object; what its values are in.
    let look = 5;
    assert!(asked >= 5 * 6 * look, "each release was looked at: {asked} calls in an hour");
    assert!(
        asked <= 5 * 6 * look + 40,
        "a look at each release in ten minutes, and the watch: {asked} calls in an hour"
    );
}

#[tokio::test(start_paused = true)]
async fn apps_of_a_cluster_that_is_gone_go_too() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.app("w1-hello", "w1", &json!({})).await;
    world.until("w1-hello", "deployed").await;
    cluster.is_cut_off.store(true, Ordering::SeqCst);
    world.delete("w1-hello").await;
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    assert!(world.apps().get_opt("w1-hello").await.unwrap().is_some(), "the cluster may come back");
    let secrets = Api::<Secret>::namespaced(world.client(), ORGANIZATION);
    secrets.delete("w1-kubeconfig", &DeleteParams::default()).await.unwrap();
    world.eventually("the app is gone", async || world.apps().get_opt("w1-hello").await.unwrap().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_app_may_come_before_its_cluster() {
    let world = World::new().await;
    world.app("w1-hello", "w1", &json!({})).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let cluster = world.cluster("w1").await;
    world.until("w1-hello", "deployed").await;
    assert!(cluster.map("web", "hello").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_app_of_a_tenant_in_the_management_cluster_has_the_tenants_rights_only() {
    let world = World::new().await;
    let change = json!({
        "metadata": {"labels": {"app-operator.giantswarm.io/version": "0.0.0"}},
        "spec": {"namespace": ORGANIZATION, "kubeConfig": {"inCluster": true, "secret": null}},
    });
    world.app("bundle", "w1", &change).await;
    let reason = world.until("bundle", "not-installed").await;
    assert!(reason.contains("system:serviceaccount:org-acme:automation"), "{reason}");
    let binding = json!({
        "metadata": {"name": "automation"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "automation", "namespace": ORGANIZATION}],
    });
    let bindings = Api::<k8s_openapi::api::rbac::v1::RoleBinding>::namespaced(world.client(), ORGANIZATION);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    world.until("bundle", "deployed").await;
    let map = Api::<ConfigMap>::namespaced(world.client(), ORGANIZATION).get_opt("bundle").await.unwrap();
    assert!(map.is_some());
}
