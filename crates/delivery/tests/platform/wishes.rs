//! What apps ask for: layers, pauses, cordons.

use kube::Api;
use serde_json::json;

use super::{
    atomic::{PLAIN, SLOW},
    world::{ORGANIZATION, World, chart_of},
};

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
async fn other_values_in_the_middle_of_an_upgrade_are_one_more_revision_and_not_one_for_each_look() {
    let mut world = World::new().await;
    let cluster = world.cluster("w1").await;
    let good = chart_of("shaky", "1.0.0", &[("plain.yaml", PLAIN)]);
    let slow = chart_of("shaky", "2.0.0", &[("plain.yaml", PLAIN), ("slow.yaml", SLOW)]);
    world.site.publish(&[("shaky", "1.0.0", good), ("shaky", "2.0.0", slow)]);
    let waits = json!({"metadata": {"annotations": {"delivery.skep.dev/wait": "true"}},
        "spec": {"name": "shaky", "version": "1.0.0", "upgrade": {"timeout": "120m"}}});
    world.app("w1-shaky", "w1", &waits).await;
    world.until("w1-shaky", "deployed").await;
    world.patch("w1-shaky", &json!({"spec": {"version": "2.0.0"}})).await;
    world.until("w1-shaky", "pending-upgrade").await;
    world.map("user", "color: red\n").await;
    let refs = json!({"configMap": {"name": "user", "namespace": ORGANIZATION}});
    world.patch("w1-shaky", &json!({"spec": {"userConfig": refs}})).await;
    let begun = ["1 deployed", "2 failed", "3 pending-upgrade"];
    world.eventually("they take its place", async || cluster.history("web", "shaky").await == begun).await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(cluster.history("web", "shaky").await, begun);
    world.kill().await;
    world.start();
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(cluster.history("web", "shaky").await, begun, "and whoever begins anew goes on with it");
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
    let reason = world.until("w1-hello", "resource-not-found").await;
    assert_eq!(reason, "app config map not found error: configmap `late` in namespace `org-acme` not found");
    let extra = json!({"kind": "configMap", "name": "later", "namespace": ORGANIZATION, "priority": 1});
    world.patch("w1-hello", &json!({"spec": {"config": null, "extraConfigs": [extra]}})).await;
    let reason = world.until("w1-hello", "configmap-merge-failed").await;
    assert_eq!(reason, "not found error: configmap `later` in namespace `org-acme` not found");
    world.map("later", "size: 3\n").await;
    world.patch("w1-hello", &change).await;
    world.map("late", "color: green\n").await;
    world.until("w1-hello", "deployed").await;
    assert_eq!(cluster.map("web", "hello").await.unwrap()["color"], "green");
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_cluster_has_no_kubeconfig_says_so() {
    let world = World::new().await;
    world.app("w9-hello", "w9", &json!({})).await;
    let reason = world.until("w9-hello", "resource-not-found").await;
    assert_eq!(
        reason,
        "kube config not found error: kubeconfig secret `w9-kubeconfig` in namespace `org-acme` not found"
    );
    world.cluster("w9").await;
    world.until("w9-hello", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn what_an_app_says_of_its_namespace_later_arrives_without_a_new_revision() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let labels = |labels: serde_json::Value| json!({"spec": {"namespaceConfig": {"labels": labels}}});
    world.app("w1-hello", "w1", &labels(json!({"a": "1"}))).await;
    world.until("w1-hello", "deployed").await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
    let label = async |name: &str| namespaces.get("web").await.unwrap().metadata.labels.unwrap().remove(name);
    assert_eq!(label("a").await.as_deref(), Some("1"));
    world.patch("w1-hello", &labels(json!({"a": "2", "b": "3"}))).await;
    world.eventually("the labels are there", async || label("b").await.as_deref() == Some("3")).await;
    assert_eq!(label("a").await.as_deref(), Some("2"));
    assert_eq!(cluster.history("web", "hello").await, ["1 deployed"]);
}

#[tokio::test(start_paused = true)]
async fn values_that_somebody_takes_away_or_changes_in_the_cluster_are_put_back() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.map("user", "color: red\n").await;
    let refs = json!({"configMap": {"name": "user", "namespace": ORGANIZATION}});
    world.app("w1-hello", "w1", &json!({"spec": {"userConfig": refs}})).await;
    world.until("w1-hello", "deployed").await;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(cluster.client(), "giantswarm");
    let edited = kube::api::Patch::Merge(json!({"data": {"values": "color: pink\n"}}));
    maps.patch("w1-hello-chart-values", &kube::api::PatchParams::default(), &edited).await.unwrap();
    world.patch("w1-hello", &json!({"spec": {"version": "1.1.0"}})).await;
    world.eventually("the version is told", async || world.status("w1-hello").await.version == "1.1.0").await;
    let map = cluster.map("web", "hello").await.unwrap();
    assert_eq!((map["color"].as_str(), map["version"].as_str()), ("red", "1.1.0"), "as the App says");
    maps.delete("w1-hello-chart-values", &kube::api::DeleteParams::default()).await.unwrap();
    // A settled release is looked at every ten minutes.
    tokio::time::sleep(std::time::Duration::from_secs(900)).await;
    world.eventually("they are back", async || maps.get_opt("w1-hello-chart-values").await.unwrap().is_some()).await;
    world.patch("w1-hello", &json!({"spec": {"version": "1.0.0"}})).await;
    world.eventually("it goes on", async || world.status("w1-hello").await.version == "1.0.0").await;
}

#[tokio::test(start_paused = true)]
async fn an_app_is_deployed_when_its_objects_are_ready_where_it_says_so() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: slow}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
        template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n";
    world.site.publish(&[("slow", "1.0.0", chart_of("slow", "1.0.0", &[("slow.yaml", deployment)]))]);
    let change = |wait: &str| {
        json!({"spec": {"name": "slow", "version": "1.0.0", "install": {"timeout": "60s"}},
            "metadata": {"annotations": {"delivery.skep.dev/wait": wait}}})
    };
    world.app("w1-now", "w1", &change("false")).await;
    world.until("w1-now", "deployed").await;
    world.delete("w1-now").await;
    world.eventually("it is gone", async || world.apps().get_opt("w1-now").await.unwrap().is_none()).await;
    world.app("w1-slow", "w1", &change("true")).await;
    world.until("w1-slow", "pending-install").await;
    world.until("w1-slow", "failed").await;
    let status = json!({"status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}});
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(cluster.client(), "web");
    deployments
        .patch_status("slow", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(status))
        .await
        .unwrap();
    world.until("w1-slow", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn an_app_takes_over_what_is_there_where_it_says_so() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
    let web = serde_json::from_value(json!({"metadata": {"name": "web"}})).unwrap();
    namespaces.create(&kube::api::PostParams::default(), &web).await.unwrap();
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(cluster.client(), "web");
    let there = serde_json::from_value(json!({"metadata": {"name": "hello"}, "data": {"color": "old"}})).unwrap();
    maps.create(&kube::api::PostParams::default(), &there).await.unwrap();
    world.map("user", "color: red\n").await;
    let refs = json!({"configMap": {"name": "user", "namespace": ORGANIZATION}});
    world.app("w1-hello", "w1", &json!({"spec": {"userConfig": refs}})).await;
    world.until("w1-hello", "already-exists").await;
    assert_eq!(cluster.map("web", "hello").await.unwrap()["color"], "old");
    world.patch("w1-hello", &json!({"metadata": {"annotations": {"delivery.skep.dev/take-ownership": "true"}}})).await;
    world.until("w1-hello", "deployed").await;
    assert_eq!(cluster.map("web", "hello").await.unwrap()["color"], "red");
}

#[tokio::test(start_paused = true)]
async fn apps_of_older_platforms_name_a_version_of_their_operator_and_no_cluster() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "w1"}})).await;
    for (name, version) in [("old", "5.5.0"), ("older", "1.0.0")] {
        let app = json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": name, "namespace": "w1", "labels": {"app-operator.giantswarm.io/version": version}},
            "spec": {"catalog": "stable", "name": "hello", "namespace": "web", "version": "1.0.0",
                "kubeConfig": {"inCluster": false, "secret": {"name": "w1-kubeconfig", "namespace": ORGANIZATION}}},
        });
        world.create(&app).await;
    }
    let apps: Api<api::app::App> = Api::namespaced(world.client(), "w1");
    let status = async |name: &str| apps.get(name).await.unwrap().status.unwrap_or_default().release.status;
    world.eventually("it is deployed", async || status("old").await == "deployed").await;
    assert_eq!(cluster.history("web", "old").await, ["1 deployed"]);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(status("older").await, "", "that version means none");
}

#[tokio::test(start_paused = true)]
async fn values_beside_the_chart_become_the_users_of_the_platforms_apps_and_of_no_tenants() {
    let world = World::new().await;
    for (kind, name) in [("ConfigMap", "hello-user-values"), ("Secret", "hello-user-secrets")] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "giantswarm"}});
        world.create(&object).await;
    }
    for (namespace, is_given) in [("giantswarm", true), (ORGANIZATION, false)] {
        let app = json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": "hello", "namespace": namespace, "labels": {"app-operator.giantswarm.io/version": "0.0.0"}},
            "spec": {"catalog": "stable", "name": "hello", "namespace": namespace, "version": "1.0.0", "kubeConfig": {"inCluster": true}},
        });
        world.create(&app).await;
        let apps: Api<api::app::App> = Api::namespaced(world.client(), namespace);
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let told = serde_json::to_value(apps.get("hello").await.unwrap().spec.user_config).unwrap();
        let given = json!({"configMap": {"name": "hello-user-values", "namespace": "giantswarm"},
            "secret": {"name": "hello-user-secrets", "namespace": "giantswarm"}});
        assert_eq!(told, if is_given { given } else { json!(null) }, "{namespace}");
        apps.delete("hello", &Default::default()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }
}
