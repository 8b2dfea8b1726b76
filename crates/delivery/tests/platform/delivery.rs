//! What becomes of an app in its cluster.

use serde_json::json;

use super::world::{ORGANIZATION, World, chart, chart_of};

fn refs(name: &str) -> serde_json::Value {
    json!({"name": name, "namespace": ORGANIZATION})
}

#[tokio::test(start_paused = true)]
async fn an_app_becomes_a_release_with_its_values_and_tells_so() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("w1-hello-config", "color: red\nsize: 1000000\n").await;
    world.app("w1-hello", "w1", &json!({"spec": {"config": {"configMap": refs("w1-hello-config")}}})).await;
    world.until("w1-hello", "deployed").await;
    let status = world.status("w1-hello").await;
    assert_eq!((status.version.as_str(), status.app_version.as_str()), ("1.0.0", "7"));
    assert!(status.release.last_deployed.is_some() && status.release.reason.is_none(), "{status:?}");
    let map = cluster.map("web", "hello").await.expect("the chart's object");
    assert_eq!((map["color"].as_str(), map["size"].as_str()), ("red", "1000000"), "whole numbers are whole");
    assert_eq!(cluster.history("web", "hello").await, ["1 deployed"]);
    let values = cluster.map("giantswarm", "w1-hello-chart-values").await.expect("the values");
    assert_eq!(values["values"], "color: red\nsize: 1000000\n");
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_is_rolled_out_at_once_and_no_more_often() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("user", "color: red\n").await;
    world.app("w1-hello", "w1", &json!({"spec": {"userConfig": {"configMap": refs("user")}}})).await;
    world.until("w1-hello", "deployed").await;
    world.map("user", "color: blue\n").await;
    world
        .eventually("the value is in the release", async || {
            cluster.map("web", "hello").await.unwrap()["color"] == "blue"
        })
        .await;
    world.patch("w1-hello", &json!({"spec": {"version": "1.1.0"}})).await;
    world.eventually("the version is told", async || world.status("w1-hello").await.version == "1.1.0").await;
    assert_eq!(cluster.map("web", "hello").await.unwrap()["version"], "1.1.0");
    assert_eq!(cluster.history("web", "hello").await, ["1 superseded", "2 superseded", "3 deployed"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_app_stays_until_its_release_is_gone() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("user", "color: red\n").await;
    world.app("w1-hello", "w1", &json!({"spec": {"userConfig": {"configMap": refs("user")}}})).await;
    world.until("w1-hello", "deployed").await;
    world.delete("w1-hello").await;
    world.eventually("the app is gone", async || world.apps().get_opt("w1-hello").await.unwrap().is_none()).await;
    assert!(cluster.map("web", "hello").await.is_none(), "its object");
    assert!(cluster.history("web", "hello").await.is_empty(), "its release");
    assert!(cluster.map("giantswarm", "w1-hello-chart-values").await.is_none(), "its values");
}

#[tokio::test(start_paused = true)]
async fn an_app_waits_for_those_it_depends_on() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let depends = json!({"metadata": {"annotations": {"app-operator.giantswarm.io/depends-on": "w1-first"}}});
    world.app("w1-second", "w1", &depends).await;
    world
        .eventually("its chart is there", async || {
            let charts: kube::Api<api::app::Chart> = kube::Api::namespaced(cluster.client(), "giantswarm");
            charts.get_opt("second").await.is_ok_and(|chart| chart.is_some())
        })
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(cluster.map("web", "second").await.is_none());
    world.app("w1-third", "w1", &depends).await;
    world
        .eventually("it waits too", async || {
            !world.apps().get("w1-third").await.unwrap().metadata.finalizers.unwrap_or_default().is_empty()
        })
        .await;
    world.delete("w1-third").await;
    world.eventually("who waits can go", async || world.apps().get_opt("w1-third").await.unwrap().is_none()).await;
    world.app("w1-first", "w1", &json!({})).await;
    world.until("w1-first", "deployed").await;
    world.until("w1-second", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn an_app_waits_for_releases_of_flux_too_where_it_says_so() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let depends = json!({"metadata": {"annotations": {
        "app-operator.giantswarm.io/depends-on": "agent", "app-operator.giantswarm.io/depends-on-helmrelease": "true",
    }}});
    let is_waiting = async |name: &str| {
        let charts: kube::Api<api::app::Chart> = kube::Api::namespaced(cluster.client(), "giantswarm");
        let chart = charts.get_opt(name).await.ok().flatten();
        chart.is_some_and(|chart| chart.metadata.annotations.unwrap()["chart-operator.giantswarm.io/paused"] == "true")
    };
    world.app("w1-early", "w1", &depends).await;
    world.eventually("it waits where there is no Flux", async || is_waiting("early").await).await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    world
        .create(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "helmreleases.helm.toolkit.fluxcd.io"},
            "spec": {"group": "helm.toolkit.fluxcd.io", "scope": "Namespaced", "names": {"kind": "HelmRelease", "plural": "helmreleases"},
                "versions": [{"name": "v2beta2", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        }))
        .await;
    let release = |status: &str| {
        json!({
            "apiVersion": "helm.toolkit.fluxcd.io/v2beta2", "kind": "HelmRelease",
            "metadata": {"name": "agent", "namespace": ORGANIZATION},
            "spec": {"chart": {"spec": {"version": "3.0.0"}}},
            "status": {"lastAttemptedRevision": "3.0.0", "history": [{"chartVersion": "3.0.0", "status": status}]},
        })
    };
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    world.create(&release("pending-install")).await;
    world.app("w1-late", "w1", &depends).await;
    world.eventually("it waits", async || is_waiting("late").await).await;
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    assert!(is_waiting("late").await && is_waiting("early").await);
    let kind = kube::core::GroupVersionKind::gvk("helm.toolkit.fluxcd.io", "v2beta2", "HelmRelease");
    let kind = kube::api::ApiResource::from_gvk(&kind);
    let releases = kube::Api::<kube::api::DynamicObject>::namespaced_with(world.client(), ORGANIZATION, &kind);
    let patch = kube::api::Patch::Merge(release("deployed"));
    releases.patch("agent", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.until("w1-late", "deployed").await;
    world.until("w1-early", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn controllers_that_end_anywhere_go_on_and_make_each_revision_once() {
    let mut world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("user", "color: c0\n").await;
    world.app("w1-hello", "w1", &json!({"spec": {"userConfig": {"configMap": refs("user")}}})).await;
    world.until("w1-hello", "deployed").await;
    for round in 1..=12_u64 {
        world.map("user", &format!("color: c{round}\n")).await;
        // A little further each time: before, in and after the upgrade.
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(round)).await;
        world.kill().await;
        world.start();
        let wanted = format!("c{round}");
        world
            .eventually("the value is in the release", async || {
                cluster.map("web", "hello").await.unwrap()["color"] == wanted
                    && cluster.history("web", "hello").await.last().is_some_and(|last| last.ends_with("deployed"))
            })
            .await;
        let last = cluster.history("web", "hello").await.pop().unwrap();
        assert_eq!(last, format!("{} deployed", round + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_chart_in_two_steps_is_upgraded_once_after_it_is_installed() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let mut files = chart("hello", "1.0.0");
    let about = "apiVersion: v2\nname: hello\nversion: 1.0.0\nannotations: {application.giantswarm.io/two-step-install: 'true'}\n";
    files.insert("Chart.yaml".to_owned(), std::sync::Arc::from(about.as_bytes()));
    world.site.publish(&[("hello", "1.0.0", files)]);
    world.app("w1-hello", "w1", &json!({})).await;
    world.until("w1-hello", "deployed").await;
    assert_eq!(cluster.history("web", "hello").await, ["1 superseded", "2 deployed"]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_tells_why_and_is_tried_again() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    // The API refuses it when it is applied.
    let broken = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hello, labels: {color: '{{ .Values.color }}'}}\n";
    world.site.publish(&[("hello", "1.0.0", chart_of("hello", "1.0.0", &[("map.yaml", broken)]))]);
    world.map("user", "color: 'not a label'\n").await;
    world.app("w1-hello", "w1", &json!({"spec": {"userConfig": {"configMap": refs("user")}}})).await;
    let reason = world.until("w1-hello", "failed").await;
    assert!(reason.contains("not a label"), "{reason}");
    world.eventually("it was tried again", async || cluster.history("web", "hello").await.len() > 1).await;
    world.map("user", "color: red\n").await;
    world.until("w1-hello", "deployed").await;
}
