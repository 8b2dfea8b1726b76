//! What would change, and what has changed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use apiserver::User;
use delivery::release::{Difference, Engine, Field, Limits, Verdict};
use kube::{Client, client::Body};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{DEPLOYMENT, MAP, NS, Wish, World, chance, chart, clock, done};

fn told(found: &[Difference]) -> Vec<String> {
    let one = |one: &Difference| {
        let changes: Vec<String> = one
            .changes
            .iter()
            .map(|change| {
                let side = |side: &Option<serde_json::Value>| {
                    side.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
                };
                format!(" {}: {} -> {}", change.path, side(&change.from), side(&change.to))
            })
            .collect();
        format!("{:?} {} {}{}", one.verdict, one.id.kind, one.id.name, changes.join(","))
    };
    found.iter().filter(|found| found.verdict != Verdict::Same).map(one).collect()
}

#[tokio::test]
async fn what_an_upgrade_would_change_is_told_and_nothing_is_written() {
    let world = World::new().await;
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n";
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: '{{ .Values.color }}', same: x}\n";
    done(
        Wish::new(chart(&[("map", MAP), ("more", more), ("secret", secret), ("web", DEPLOYMENT)]), "blue")
            .install(&world)
            .await,
    );
    let new = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\n";
    let wish = Wish::new(chart(&[("map", MAP), ("new", new), ("secret", secret), ("web", DEPLOYMENT)]), "red");
    let history = world.history("shop").await;
    let found = world.engine().diff(&wish.request()).await.unwrap();
    assert_eq!(
        told(&found),
        [
            "Changed Secret s data.password: \"(hidden)\" -> \"(hidden)\"",
            "Changed ConfigMap shop data.color: \"blue\" -> \"red\", data.revision: \"1\" -> \"2\"",
            "Made ConfigMap new",
            "Changed Deployment web spec.template.spec.containers[0].image: \"web:blue\" -> \"web:red\"",
            "Deleted ConfigMap more",
        ]
    );
    let secret = found.iter().find(|one| one.id.kind == "Secret").unwrap();
    let data = |side: &Option<serde_json::Value>| side.as_ref().unwrap()["data"].clone();
    assert_eq!(data(&secret.before), json!({"password": "(hidden: as it is)", "same": "(hidden)"}));
    assert_eq!(data(&secret.after), json!({"password": "(hidden: as it would be)", "same": "(hidden)"}));
    let whole = |verdict| found.iter().find(|one| one.verdict == verdict).unwrap();
    let (new, gone) = (whole(Verdict::Made), whole(Verdict::Deleted));
    assert!(new.before.is_none() && new.after.as_ref().unwrap()["metadata"]["name"] == "new");
    assert!(gone.after.is_none() && gone.before.as_ref().unwrap()["metadata"].get("uid").is_none());
    assert_eq!(world.history("shop").await, history);
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "blue");
    assert!(world.config_map("new").await.is_none());
}

#[tokio::test]
async fn what_others_changed_is_told_and_put_back_and_what_they_added_stays() {
    let world = World::new().await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: x}\n";
    done(Wish::new(chart(&[("map", MAP), ("web", DEPLOYMENT), ("secret", secret)]), "blue").install(&world).await);
    assert_eq!(told(&world.engine().drift("shop", NS).await.unwrap()), Vec::<String>::new(), "defaults are no drift");
    let secret_text = |found: &[Difference]| format!("{:?}", found.iter().find(|one| one.id.kind == "Secret"));
    world.patch("/api/v1/namespaces/default/configmaps/shop", &json!({"data": {"color": "pink", "own": "1"}})).await;
    world.patch("/apis/apps/v1/namespaces/default/deployments/web", &json!({"spec": {"replicas": 5}})).await;
    world.delete("/api/v1/namespaces/default/secrets/s").await;
    let found = world.engine().drift("shop", NS).await.unwrap();
    assert!(secret_text(&found).contains("(hidden)") && !secret_text(&found).contains("eA=="), "{found:?}");
    assert_eq!(
        told(&found),
        [
            "Made Secret s",
            "Changed ConfigMap shop data.color: \"pink\" -> \"blue\"",
            "Changed Deployment web spec.replicas: 5 -> 2"
        ]
    );
    world.engine().correct("shop", NS).await.unwrap();
    assert_eq!(told(&world.engine().drift("shop", NS).await.unwrap()), Vec::<String>::new());
    let data = world.config_map("shop").await.unwrap()["data"].clone();
    assert_eq!(data, json!({"color": "blue", "revision": "1", "own": "1"}));
    assert_eq!(world.history("shop").await, ["1 deployed"]);
}

#[tokio::test]
async fn an_object_that_others_write_while_it_is_compared_is_read_again() {
    let world = Arc::new(World::new().await);
    done(Wish::new(chart(&[("map", MAP)]), "blue").install(&world).await);
    let (router, others, meanwhile) =
        (world.server.service_as(User::master("test")), world.clone(), Arc::new(AtomicBool::new(false)));
    let between = meanwhile.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (router, others, between) = (router.clone(), others.clone(), between.clone());
        async move {
            if request.method() == http::Method::PATCH && !between.swap(true, Ordering::SeqCst) {
                let patch = json!({"metadata": {"labels": {"of": "others"}}});
                others.patch("/api/v1/namespaces/default/configmaps/shop", &patch).await;
            }
            router.oneshot(request).await
        }
    });
    let engine = Engine::new(Client::new(service, "default"), clock(), chance(), Limits::default());
    let found = engine.diff(&Wish::new(chart(&[("map", MAP)]), "red").request()).await.unwrap();
    let changed = "Changed ConfigMap shop data.color: \"blue\" -> \"red\", data.revision: \"1\" -> \"2\"";
    assert_eq!(told(&found), [changed]);
    assert!(meanwhile.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_is_not_deployed_has_no_drift() {
    let world = World::new().await;
    let error = world.engine().drift("shop", NS).await.unwrap_err();
    assert_eq!(error.to_string(), "release: not found: shop");
}

#[tokio::test]
async fn of_what_is_put_back_fields_can_be_left_as_they_are() {
    let world = World::new().await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: x, more: w}\n";
    done(Wish::new(chart(&[("map", MAP), ("web", DEPLOYMENT), ("secret", secret)]), "blue").install(&world).await);
    world
        .patch("/apis/apps/v1/namespaces/default/deployments/web", &json!({"spec": {"replicas": 5, "paused": true}}))
        .await;
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil"}]);
    world.json_patch("/apis/apps/v1/namespaces/default/deployments/web", &image).await;
    world.patch("/api/v1/namespaces/default/secrets/s", &json!({"data": {"password": "eg==", "more": "eg=="}})).await;
    world.delete("/api/v1/namespaces/default/configmaps/shop").await;
    let engine = world.engine();
    let installed = engine.installed("shop", NS, Some(1)).await.unwrap();
    let found = installed.drift().await.unwrap();
    let id = |kind: &str| found.iter().find(|one| one.id.kind == kind).unwrap().id.clone();
    let spared = [("Deployment", "spec.replicas"), ("Secret", "data.more")];
    let spared = spared.map(|(kind, path)| Field { id: id(kind), path: path.to_owned() }).into();
    installed.put_back(&[id("Deployment"), id("Secret")].into(), &spared).await.unwrap();
    assert_eq!(
        told(&installed.drift().await.unwrap()),
        [
            "Changed Secret s data.more: \"(hidden)\" -> \"(hidden)\"",
            "Made ConfigMap shop",
            "Changed Deployment web spec.replicas: 5 -> 2",
        ]
    );
    let web = world.get("/apis/apps/v1/namespaces/default/deployments/web").await.unwrap();
    assert_eq!(web["spec"]["paused"], true, "what is not the manifest's");
}

#[tokio::test]
async fn a_kind_that_is_not_served_any_more_keeps_nothing_else_from_being_put_back() {
    let world = World::new().await;
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: cars.x.test}\nspec:\n  group: x.test\n  scope: Namespaced\n  names: {kind: Car, plural: cars}\n  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]\n";
    let car = "apiVersion: x.test/v1\nkind: Car\nmetadata: {name: mini}\n";
    let files = [("crds/cars.yaml", definition)];
    done(Wish::new(crate::support::chart_with(&[("map", MAP), ("car", car)], &files), "blue").install(&world).await);
    world.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/cars.x.test").await;
    world.delete("/api/v1/namespaces/default/configmaps/shop").await;
    let engine = world.engine();
    let installed = engine.installed("shop", NS, None).await.unwrap();
    let found = installed.drift().await.unwrap();
    assert_eq!(told(&found), ["Made ConfigMap shop", "Made Car mini"]);
    let every = found.iter().map(|one| one.id.clone()).collect();
    let error = installed.put_back(&every, &[].into()).await.unwrap_err();
    assert_eq!(error.to_string(), "Car \"mini\": its kind is not served");
    assert!(world.config_map("shop").await.is_some());
}

#[tokio::test]
async fn the_charts_of_this_project_have_not_drifted_when_they_are_installed() {
    let charts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
    let mut tried = 0;
    for entry in std::fs::read_dir(charts).unwrap() {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
        let name = name.to_string_lossy();
        // They need kinds that are not there, or are no charts.
        let needs_more = ["cluster-openstack", "default-apps-openstack"].contains(&&*name);
        if needs_more || !path.join("Chart.yaml").is_file() {
            continue;
        }
        let world = World::new().await;
        let wish = Wish::new(crate::support::chart_in(&path), "").with(|options| options.no_hooks = true);
        let wish = Wish { values: Default::default(), ..wish };
        let release = done(wish.install(&world).await);
        tried += usize::from(release.manifest.contains("kind: "));
        assert_eq!(told(&world.engine().drift("shop", NS).await.unwrap()), Vec::<String>::new(), "{name}");
    }
    assert!(tried >= 5, "{tried} charts with objects");
}
