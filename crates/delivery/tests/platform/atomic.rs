//! Apps whose failures are undone.

use std::{sync::atomic::Ordering, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::json;

use super::world::{ORGANIZATION, World, chart_of};

pub const SLOW: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: slow}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
    template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n";
pub const PLAIN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\ndata: {version: '{{ .Chart.Version }}', color: '{{ .Values.color }}'}\n";

/// A chart whose second version never becomes ready, and an app of it.
async fn shaky(world: &World, version: &str) {
    let good = chart_of("shaky", "1.0.0", &[("plain.yaml", PLAIN)]);
    let bad = chart_of("shaky", "2.0.0", &[("plain.yaml", PLAIN), ("slow.yaml", SLOW)]);
    world.site.publish(&[("shaky", "1.0.0", good), ("shaky", "2.0.0", bad)]);
    let timeout = json!({"timeout": "20s"});
    let change = json!({"metadata": {"annotations": {"delivery.skep.dev/atomic": "true"}},
        "spec": {"name": "shaky", "version": version, "install": timeout.clone(), "upgrade": timeout}});
    world.app("w1-shaky", "w1", &change).await;
}

const NOT_AGAIN: &str = "\nIt is not tried again until its version, values or options change.";

#[tokio::test(start_paused = true)]
async fn an_atomic_upgrade_that_fails_is_rolled_back_and_not_tried_again_until_something_changes() {
    let mut world = World::new().await;
    let cluster = world.cluster("w1").await;
    shaky(&world, "1.0.0").await;
    world.until("w1-shaky", "deployed").await;
    world.patch("w1-shaky", &json!({"spec": {"version": "2.0.0"}})).await;
    let why = world.until("w1-shaky", "failed").await;
    assert!(why.starts_with("release shaky failed, and has been rolled back due to atomic being set: "), "{why}");
    assert!(why.contains("timed out waiting for the condition") && why.ends_with(NOT_AGAIN), "{why}");
    assert_eq!(world.status("w1-shaky").await.version, "1.0.0", "what is there");
    let undone = ["1 superseded", "2 failed", "3 deployed"];
    assert_eq!(cluster.history("web", "shaky").await, undone);
    assert_eq!(cluster.map("web", "plain").await.unwrap()["version"], "1.0.0");
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "web");
    assert!(deployments.get_opt("slow").await.unwrap().is_none());
    // What tells of it is written first.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = cluster.writes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(cluster.writes.load(Ordering::SeqCst), before, "nothing is written meanwhile");
    world.kill().await;
    world.start();
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(cluster.history("web", "shaky").await, undone);
    // Other values are another try.
    world.map("user", "color: red\n").await;
    let refs = json!({"configMap": {"name": "user", "namespace": ORGANIZATION}});
    world.patch("w1-shaky", &json!({"spec": {"userConfig": refs}})).await;
    let again = ["1 superseded", "2 failed", "3 superseded", "4 failed", "5 deployed"];
    world.eventually("it is tried again", async || cluster.history("web", "shaky").await == again).await;
    // So is more time, and the version that is there settles it.
    world.patch("w1-shaky", &json!({"spec": {"upgrade": {"timeout": "30s"}}})).await;
    world.eventually("and again", async || cluster.history("web", "shaky").await.len() == 7).await;
    world.until("w1-shaky", "failed").await;
    world.patch("w1-shaky", &json!({"spec": {"version": "1.0.0"}})).await;
    assert_eq!(world.until("w1-shaky", "deployed").await, "");
    assert_eq!(cluster.map("web", "plain").await.unwrap()["color"], "red");
}

#[tokio::test(start_paused = true)]
async fn an_atomic_installation_that_fails_is_removed_and_not_tried_again_until_something_changes() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    shaky(&world, "2.0.0").await;
    let why = world.until("w1-shaky", "failed").await;
    assert!(why.starts_with("release shaky failed, and has been uninstalled due to atomic being set: "), "{why}");
    assert_eq!(world.status("w1-shaky").await.version, "", "nothing is there");
    assert!(cluster.map("web", "plain").await.is_none());
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(cluster.history("web", "shaky").await, ["1 uninstalled"]);
    world.patch("w1-shaky", &json!({"spec": {"version": "1.0.0"}})).await;
    world.until("w1-shaky", "deployed").await;
    assert_eq!(cluster.history("web", "shaky").await, ["1 uninstalled", "2 deployed"]);
    world.delete("w1-shaky").await;
    world.eventually("it is gone", async || world.apps().get_opt("w1-shaky").await.unwrap().is_none()).await;
    assert_eq!(cluster.history("web", "shaky").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_atomic_upgrade_is_undone_once_wherever_the_process_ends() {
    let (mut after, mut total) = (0, usize::MAX);
    while after < total {
        let mut world = World::new().await;
        let cluster = world.cluster("w1").await;
        shaky(&world, "1.0.0").await;
        world.until("w1-shaky", "deployed").await;
        let begun = cluster.writes.load(Ordering::SeqCst);
        if total != usize::MAX {
            cluster.writes_max.store(begun + after, Ordering::SeqCst);
        }
        world.patch("w1-shaky", &json!({"spec": {"version": "2.0.0"}})).await;
        if total == usize::MAX {
            world.until("w1-shaky", "failed").await;
            total = cluster.writes.load(Ordering::SeqCst) - begun;
            assert!(total > 8, "only {total} writes: the test says little");
            continue;
        }
        let is_stuck = async || cluster.writes.load(Ordering::SeqCst) > begun + after;
        world.eventually("it comes as far", is_stuck).await;
        world.kill().await;
        cluster.writes_max.store(usize::MAX, Ordering::SeqCst);
        world.start();
        world.until("w1-shaky", "failed").await;
        tokio::time::sleep(Duration::from_secs(1200)).await;
        let history = cluster.history("web", "shaky").await;
        assert_eq!(history, ["1 superseded", "2 failed", "3 deployed"], "ended after {after} writes");
        assert_eq!(cluster.map("web", "plain").await.unwrap()["version"], "1.0.0");
        // Every write by itself is tried in tests/release/resuming.rs.
        after += 3;
    }
}
