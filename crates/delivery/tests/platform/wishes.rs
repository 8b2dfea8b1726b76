//! What apps ask for: layers, pauses, cordons.

use kube::Api;
use serde_json::json;

use super::world::{ORGANIZATION, World};

#[tokio::test(start_paused = true)]
async fn what_is_paused_or_cordoned_is_left_alone_until_it_is_not() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let annotations = |value: serde_json::Value| json!({"metadata": {"annotations": value}});
    world.app("w1-paused", "w1", &annotations(json!({"app-operator.giantswarm.io/paused": "true"}))).await;
    let until = "2027-01-15T09:00:00Z";
    let cordon = json!({"app-operator.giantswarm.io/cordon-reason": "a migration", "app-operator.giantswarm.io/cordon-until": until});
    world.app("w1-cordoned", "w1", &annotations(cordon)).await;
    assert_eq!(world.until("w1-cordoned", "cordoned").await, "a migration");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(world.status("w1-paused").await.release.status, "");
    assert!(cluster.map("web", "paused").await.is_none() && cluster.map("web", "cordoned").await.is_none());
    world.patch("w1-paused", &annotations(json!({"app-operator.giantswarm.io/paused": null}))).await;
    world.until("w1-paused", "deployed").await;
    // The clock of these tests begins an hour before.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    world.until("w1-cordoned", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn the_layers_of_values_lie_over_one_another_and_secrets_over_all() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("base", "color: base\nsize: 1\n").await;
    world.map("user", "size: 2\n").await;
    world.secret("hidden", &[("values", "color: hidden\n")]).await;
    let refs = |name: &str| json!({"name": name, "namespace": ORGANIZATION});
    let change = json!({"spec": {
        "config": {"configMap": refs("base")}, "userConfig": {"configMap": refs("user")},
        "extraConfigs": [{"kind": "secret", "name": "hidden", "namespace": ORGANIZATION, "priority": 1}],
    }});
    world.app("w1-hello", "w1", &change).await;
    world.until("w1-hello", "deployed").await;
    let map = cluster.map("web", "hello").await.unwrap();
    assert_eq!((map["color"].as_str(), map["size"].as_str()), ("hidden", "2"));
    world.patch("w1-hello", &json!({"spec": {"extraConfigs": null}})).await;
    world
        .eventually("the secret is not in it any more", async || {
            cluster.map("web", "hello").await.unwrap()["color"] == "base"
        })
        .await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(cluster.client(), "giantswarm");
    assert!(secrets.get_opt("w1-hello-chart-secrets").await.unwrap().is_none(), "nor kept");
}

#[tokio::test(start_paused = true)]
async fn values_that_are_missing_are_named_and_taken_when_they_come() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let change = json!({"spec": {"config": {"configMap": {"name": "late", "namespace": ORGANIZATION}}}});
    world.app("w1-hello", "w1", &change).await;
    let reason = world.until("w1-hello", "configmap-merge-failed").await;
    assert_eq!(reason, "not found error: configmap `late` in namespace `org-acme` not found");
    world.map("late", "color: green\n").await;
    world.until("w1-hello", "deployed").await;
    assert_eq!(cluster.map("web", "hello").await.unwrap()["color"], "green");
}
