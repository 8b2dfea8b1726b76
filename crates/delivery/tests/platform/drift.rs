//! What others change of a release.

use std::{sync::atomic::Ordering, time::Duration};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Event, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::world::{Cluster, ORGANIZATION, World, chart, chart_of};

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: hidden}\nstringData: {password: '{{ .Values.color }}-word', more: x}\n";
const JOB: &str = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: c}]}}}\n";

fn drift(mode: &str) -> serde_json::Value {
    json!({"metadata": {"annotations": {"delivery.skep.dev/drift": mode}}})
}

/// Each release is looked at once in this time.
async fn a_look() {
    tokio::time::sleep(Duration::from_secs(600)).await;
}

/// Somebody changes the release's object.
async fn change(cluster: &Cluster, data: &serde_json::Value) {
    let maps = Api::<ConfigMap>::namespaced(cluster.client(), "web");
    maps.patch("hello", &PatchParams::default(), &Patch::Merge(&json!({ "data": data }))).await.unwrap();
}

async fn color(cluster: &Cluster) -> String {
    cluster.map("web", "hello").await.unwrap()["color"].clone()
}

/// Reason, count and message of what is told of drift there, in the order of reasons.
async fn told(client: Client, namespace: &str) -> Vec<String> {
    let events = Api::<Event>::namespaced(client, namespace).list(&ListParams::default()).await.unwrap();
    let of_drift =
        events.items.into_iter().filter(|event| event.reason.as_deref().unwrap_or_default().contains("Drift"));
    let mut told: Vec<String> = of_drift
        .map(|event| {
            let text = |text: Option<String>| text.unwrap_or_default();
            format!("{} {}: {}", text(event.reason), event.count.unwrap_or_default(), text(event.message))
        })
        .collect();
    told.sort();
    told
}

async fn told_of_app(world: &World) -> Vec<String> {
    told(world.client(), ORGANIZATION).await
}

/// With an app that is deployed.
async fn deployed(world: &World, more: &serde_json::Value) -> std::sync::Arc<Cluster> {
    let cluster = world.cluster("w1").await;
    world.app("w1-hello", "w1", more).await;
    world.until("w1-hello", "deployed").await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn what_others_change_or_delete_is_put_back_and_what_they_add_stays() {
    let world = World::new().await;
    let mut files = chart("hello", "1.0.0");
    files.insert("templates/secret.yaml".to_owned(), std::sync::Arc::from(SECRET.as_bytes()));
    world.site.publish(&[("hello", "1.0.0", files)]);
    let cluster = deployed(&world, &json!({})).await;
    let secrets = Api::<Secret>::namespaced(cluster.client(), "web");
    a_look().await;
    assert_eq!(told_of_app(&world).await, Vec::<String>::new());
    change(&cluster, &json!({"color": "pink", "own": "1"})).await;
    secrets.delete("hidden", &DeleteParams::default()).await.unwrap();
    a_look().await;
    let map = cluster.map("web", "hello").await.unwrap();
    assert_eq!((map["color"].as_str(), map["own"].as_str()), ("none", "1"));
    assert_eq!(secrets.get("hidden").await.unwrap().data.unwrap()["password"].0, b"none-word");
    let patch = json!({"stringData": {"password": "stolen"}});
    secrets.patch("hidden", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    a_look().await;
    assert_eq!(secrets.get("hidden").await.unwrap().data.unwrap()["password"].0, b"none-word");
    let expected = [
        "DriftCorrected 1: Secret web/hidden (data.password)",
        "DriftCorrected 1: Secret web/hidden (was gone), ConfigMap web/hello (data.color)",
    ];
    assert_eq!(told_of_app(&world).await, expected);
    assert_eq!(told(cluster.client(), "giantswarm").await, expected, "of the chart too");
    assert_eq!(cluster.history("web", "hello").await, ["1 deployed"], "no revision is made of it");
    assert!(
        world
            .options
            .figures
            .text()
            .contains("delivery_release_drifted{name=\"w1-hello\",namespace=\"org-acme\",cluster_id=\"w1\"} 0")
    );
}

#[tokio::test(start_paused = true)]
async fn where_it_is_only_to_be_told_it_is_told_once_and_stays() {
    let world = World::new().await;
    let cluster = deployed(&world, &drift("warn")).await;
    change(&cluster, &json!({"color": "pink"})).await;
    let writes = cluster.writes.load(Ordering::SeqCst);
    a_look().await;
    a_look().await;
    a_look().await;
    assert_eq!(color(&cluster).await, "pink");
    assert_eq!(told_of_app(&world).await, ["DriftDetected 1: ConfigMap web/hello (data.color)"]);
    assert_eq!(cluster.writes.load(Ordering::SeqCst) - writes, 1, "the chart's event");
    assert!(
        world
            .options
            .figures
            .text()
            .contains("delivery_release_drifted{name=\"w1-hello\",namespace=\"org-acme\",cluster_id=\"w1\"} 1")
    );
    world.patch("w1-hello", &drift("correct")).await;
    a_look().await;
    assert_eq!(color(&cluster).await, "none");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_to_look_nobody_does() {
    let world = World::new().await;
    let cluster = deployed(&world, &drift("ignore")).await;
    change(&cluster, &json!({"color": "pink"})).await;
    a_look().await;
    assert_eq!((color(&cluster).await.as_str(), told_of_app(&world).await), ("pink", Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_twice_is_left_and_told_until_there_is_a_new_revision() {
    let world = World::new().await;
    let cluster = deployed(&world, &json!({})).await;
    for _ in 0..2 {
        change(&cluster, &json!({"color": "pink"})).await;
        a_look().await;
        assert_eq!(color(&cluster).await, "none");
    }
    change(&cluster, &json!({"color": "pink", "size": "9"})).await;
    a_look().await;
    let map = cluster.map("web", "hello").await.unwrap();
    assert_eq!((map["color"].as_str(), map["size"].as_str()), ("pink", "1"), "the other field is put back");
    let writes = cluster.writes.load(Ordering::SeqCst);
    a_look().await;
    a_look().await;
    assert_eq!(color(&cluster).await, "pink");
    assert_eq!(cluster.writes.load(Ordering::SeqCst), writes);
    assert_eq!(
        told_of_app(&world).await,
        [
            "DriftCorrected 1: ConfigMap web/hello (data.size)",
            "DriftCorrected 2: ConfigMap web/hello (data.color)",
            "DriftReturns 1: put back 2 times and changed again, now left: ConfigMap web/hello (data.color)",
        ]
    );
    world.patch("w1-hello", &json!({"spec": {"version": "1.1.0"}})).await;
    world.eventually("the version is there", async || world.status("w1-hello").await.version == "1.1.0").await;
    assert_eq!(color(&cluster).await, "none");
    change(&cluster, &json!({"color": "pink"})).await;
    a_look().await;
    assert_eq!(color(&cluster).await, "none", "it counts anew");
}

#[tokio::test(start_paused = true)]
async fn what_drifts_now_and_then_is_put_back_each_time() {
    let world = World::new().await;
    let cluster = deployed(&world, &json!({})).await;
    for _ in 0..4 {
        change(&cluster, &json!({"color": "pink"})).await;
        a_look().await;
        assert_eq!(color(&cluster).await, "none");
        a_look().await;
    }
    assert_eq!(told_of_app(&world).await, ["DriftCorrected 4: ConfigMap web/hello (data.color)"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_is_left_as_it_is() {
    let world = World::new().await;
    let cluster = deployed(&world, &json!({})).await;
    for annotation in ["chart-operator.giantswarm.io/paused", "app-operator.giantswarm.io/paused"] {
        let paused = |value: Option<&str>| json!({"metadata": {"annotations": {annotation: value}}});
        world.patch("w1-hello", &paused(Some("true"))).await;
        a_look().await;
        change(&cluster, &json!({"color": "pink"})).await;
        a_look().await;
        assert_eq!((color(&cluster).await.as_str(), told_of_app(&world).await.len()), ("pink", 0), "{annotation}");
        world.patch("w1-hello", &paused(None)).await;
        // Of the Chart it is taken away by whoever put it there.
        let charts = Api::<api::app::Chart>::namespaced(cluster.client(), "giantswarm");
        charts.patch("hello", &PatchParams::default(), &Patch::Merge(&paused(None))).await.unwrap();
        a_look().await;
        assert_eq!(color(&cluster).await, "none", "{annotation}");
        for event in Api::<Event>::namespaced(world.client(), ORGANIZATION).list(&ListParams::default()).await.unwrap()
        {
            let events = Api::<Event>::namespaced(world.client(), ORGANIZATION);
            events.delete(&event.name_any(), &DeleteParams::default()).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_ran_once_and_is_gone_is_not_run_again() {
    let world = World::new().await;
    world.site.publish(&[("hello", "1.0.0", chart_of("hello", "1.0.0", &[("job.yaml", JOB)]))]);
    let cluster = deployed(&world, &json!({})).await;
    let jobs = Api::<Job>::namespaced(cluster.client(), "web");
    jobs.delete("once", &DeleteParams::background()).await.unwrap();
    a_look().await;
    assert!(jobs.get_opt("once").await.unwrap().is_none());
    assert_eq!(told_of_app(&world).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_nobody_knows_is_told_once_and_drift_is_corrected() {
    let world = World::new().await;
    let cluster = deployed(&world, &drift("maybe")).await;
    change(&cluster, &json!({"color": "pink"})).await;
    a_look().await;
    a_look().await;
    assert_eq!(color(&cluster).await, "none");
    assert_eq!(
        told_of_app(&world).await,
        [
            "DriftCorrected 1: ConfigMap web/hello (data.color)",
            "InvalidDrift 1: annotation delivery.skep.dev/drift is `maybe`: drift is corrected",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_too_long_is_given_up_and_told_once() {
    let world = World::new().await;
    let maps: Vec<(String, String)> = (0..80)
        .map(|n| (format!("{n}.yaml"), format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map-{n}}}\n")))
        .collect();
    let maps: Vec<(&str, &str)> = maps.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    world.site.publish(&[("hello", "1.0.0", chart_of("hello", "1.0.0", &maps))]);
    let cluster = deployed(&world, &json!({})).await;
    a_look().await;
    assert_eq!(told_of_app(&world).await, Vec::<String>::new());
    // Within what one call may take, but four at once are eighty seconds.
    cluster.delay_s.store(4, Ordering::SeqCst);
    a_look().await;
    a_look().await;
    a_look().await;
    let expected = "DriftUnknown 1: not through within 60 s: its cluster answers slowly";
    assert_eq!(told_of_app(&world).await, [expected]);
}
