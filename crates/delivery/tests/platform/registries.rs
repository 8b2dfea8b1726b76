//! Apps whose charts are in registries.

use std::time::Duration;

use serde_json::json;

use super::world::{ORGANIZATION, REGISTRY, World, chart, chart_of};

const OTHER: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hello}\ndata: {color: other}\n";

#[tokio::test(start_paused = true)]
async fn a_tag_that_moves_is_told_and_what_it_names_now_is_not_installed_until_another_version_is_asked_for() {
    let mut world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.catalog("registry", &[REGISTRY]).await;
    world.site.push("hello", "1.0.0", &chart("hello", "1.0.0"));
    world.app("w1-hello", "w1", &json!({"spec": {"catalog": "registry"}})).await;
    world.until("w1-hello", "deployed").await;
    // Somebody pushes another chart under the same tag, which is no news until the chart is needed again.
    world.site.push("hello", "1.0.0", &chart_of("hello", "1.0.0", &[("map.yaml", OTHER)]));
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(world.status("w1-hello").await.release.status, "deployed");
    world.map("user", "color: red\n").await;
    let refs = json!({"configMap": {"name": "user", "namespace": ORGANIZATION}});
    world.patch("w1-hello", &json!({"spec": {"userConfig": refs}})).await;
    let why = world.until("w1-hello", "chart-pull-failed").await;
    assert!(why.starts_with("pulling chart `oci://r.test/charts/hello:1.0.0` failed: the tag has moved: "), "{why}");
    world.kill().await;
    world.start();
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(
        world.status("w1-hello").await.release.status,
        "chart-pull-failed",
        "a process that begins knows it too"
    );
    assert_eq!(cluster.history("web", "hello").await, ["1 deployed"]);
    assert_eq!(cluster.map("web", "hello").await.unwrap()["color"], "none");
    world.site.push("hello", "1.1.0", &chart("hello", "1.1.0"));
    world.patch("w1-hello", &json!({"spec": {"version": "1.1.0"}})).await;
    world.until("w1-hello", "deployed").await;
    assert_eq!(cluster.map("web", "hello").await.unwrap()["color"], "red");
}
