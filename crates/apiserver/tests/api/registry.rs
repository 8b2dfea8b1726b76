use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::support::{client, delete, get, merge, post, put, send, server, workload_server};

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

#[tokio::test]
async fn an_object_is_made_read_changed_and_deleted_through_kube() {
    let server = server().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
    let made = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(maps.get("a").await.unwrap(), made);
    let mut changed = made.clone();
    changed.data = Some([("k".to_owned(), "v".to_owned())].into());
    let replaced = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(replaced.metadata.resource_version, made.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    let same = maps.replace("a", &PostParams::default(), &replaced).await.unwrap();
    assert_eq!(same.metadata.resource_version, replaced.metadata.resource_version);
    assert!(maps.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    assert!(maps.get_opt("a").await.unwrap().is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn names_are_made_up_from_generate_name() {
    let server = server().await;
    let object = json!({"metadata": {"generateName": "a-"}});
    let one = post(&server, "/api/v1/namespaces/default/configmaps", &object).await;
    assert_eq!(one.code, 201);
    let name = one.json()["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn failures_are_told_as_kubernetes_tells_them() {
    let server = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let missing = get(&server, &format!("{maps}/x")).await;
    assert_eq!(missing.status(), (404, "NotFound".into(), "configmaps \"x\" not found".into()));
    assert_eq!(missing.json()["details"], json!({"name": "x", "kind": "configmaps"}));
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    post(&server, maps, &object).await;
    let again = post(&server, maps, &object).await;
    assert_eq!(again.status(), (409, "AlreadyExists".into(), "configmaps \"x\" already exists".into()));
    let nowhere = post(&server, "/api/v1/namespaces/nowhere/configmaps", &object).await;
    assert_eq!(nowhere.status(), (404, "NotFound".into(), "namespaces \"nowhere\" not found".into()));
    let bad = json!({"metadata": {"name": "X_"}, "data": {"a b": "c"}});
    let bad = post(&server, maps, &bad).await;
    assert_eq!(bad.code, 422);
    assert!(
        bad.status()
            .2
            .starts_with("ConfigMap \"X_\" is invalid: metadata.name: Invalid value: \"X_\": a lowercase RFC 1123")
    );
    assert_eq!(bad.json()["details"]["causes"][0]["field"], "metadata.name");
    assert_eq!(bad.json()["details"]["causes"][0]["reason"], "FieldValueInvalid");
    for (path, code) in [
        ("/api/v1/nonsense", 404),
        ("/apis/no.such.io/v1/things", 404),
        ("/api/v2/configmaps", 404),
        ("/nonsense", 404),
        ("/api/v1/namespaces/default/configmaps/x/status", 404),
        ("/api/v1/namespaces/default/namespaces", 404),
    ] {
        assert_eq!(get(&server, path).await.code, code, "{path}");
    }
    assert_eq!(send(&server, Method::POST, &format!("{maps}/x"), "application/json", "{}").await.code, 405);
    assert_eq!(send(&server, Method::OPTIONS, maps, "", "").await.code, 405);
    assert_eq!(send(&server, Method::POST, "/api/v1/configmaps", "application/json", "{}").await.code, 405);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_state() {
    let server = server().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
    for i in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m{i}"))).await.unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    maps.delete("m3", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let second = maps.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.clone().unwrap();
    let third = maps.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    let names: Vec<_> = [first, second, third].into_iter().flatten().map(|m| m.metadata.name.unwrap()).collect();
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 4);
}

#[tokio::test]
async fn lists_select_by_labels_and_fields() {
    let server = server().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut map = config_map(name);
        map.metadata.labels = Some([("tier".to_owned(), tier.to_owned())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let names = async |params: ListParams| {
        let list = maps.list(&params).await.unwrap();
        list.into_iter().map(|m| m.metadata.name.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(ListParams::default().labels("tier=x")).await, ["a", "c"]);
    assert_eq!(names(ListParams::default().labels("tier notin (x)")).await, ["b"]);
    assert_eq!(names(ListParams::default().fields("metadata.name=b")).await, ["b"]);
    assert_eq!(names(ListParams::default().fields("metadata.name!=b").labels("tier=x").limit(1)).await, ["a"]);
    let bad = maps.list(&ListParams::default().fields("spec.x=1")).await.unwrap_err();
    assert!(matches!(bad, kube::Error::Api(status) if status.code == 400));
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "x"}});
    assert_eq!(post(&server, &format!("{maps}?dryRun=All"), &object).await.code, 201);
    assert_eq!(get(&server, &format!("{maps}/x")).await.code, 404);
    post(&server, maps, &object).await;
    let changed = merge(&server, &format!("{maps}/x?dryRun=All"), &json!({"data": {"a": "b"}})).await;
    assert_eq!(changed.json()["data"]["a"], "b");
    assert_eq!(delete(&server, &format!("{maps}/x?dryRun=All")).await.code, 200);
    assert_eq!(get(&server, &format!("{maps}/x")).await.json().get("data"), None);
    assert_eq!(post(&server, &format!("{maps}?dryRun=Yes"), &object).await.code, 422);
}

#[tokio::test]
async fn patches_of_each_type_change_what_they_say() {
    let server = server().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let merged = json!({"data": {"a": "1", "b": "2"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&merged)).await.unwrap();
    let strategic = json!({"data": {"a": null, "c": "3"}});
    maps.patch("a", &PatchParams::default(), &Patch::Strategic(&strategic)).await.unwrap();
    let path = "/api/v1/namespaces/default/configmaps/a";
    let ops =
        json!([{"op": "test", "path": "/data/b", "value": "2"}, {"op": "replace", "path": "/data/b", "value": "4"}]);
    let answer = send(&server, Method::PATCH, path, "application/json-patch+json", ops.to_string()).await;
    assert_eq!(answer.json()["data"], json!({"b": "4", "c": "3"}));
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {}});
    assert_eq!(merge(&server, path, &stale).await.code, 409);
    assert_eq!(send(&server, Method::PATCH, path, "application/json", "{}").await.code, 415);
    assert_eq!(send(&server, Method::PATCH, path, "application/merge-patch+json", "[]").await.code, 400);
    let failing = json!([{"op": "test", "path": "/data/b", "value": "9"}]).to_string();
    assert_eq!(send(&server, Method::PATCH, path, "application/json-patch+json", failing).await.code, 422);
}

#[tokio::test]
async fn secrets_take_text_and_keep_what_is_immutable() {
    let server = server().await;
    let secrets: Api<Secret> = Api::default_namespaced(client(&server));
    let mut secret = Secret { string_data: Some([("k".to_owned(), "v".to_owned())].into()), ..Secret::default() };
    secret.metadata.name = Some("s".to_owned());
    secret.immutable = Some(true);
    let made = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(made.data.as_ref().unwrap()["k"].0, b"v");
    assert_eq!((made.type_.as_deref(), made.string_data), (Some("Opaque"), None));
    let changed = secrets.patch("s", &PatchParams::default(), &Patch::Merge(json!({"stringData": {"k": "w"}}))).await;
    assert!(matches!(changed.unwrap_err(), kube::Error::Api(status) if status.code == 422));
}

#[tokio::test]
async fn finalizers_hold_a_deletion_until_they_are_taken_away() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/configmaps/x";
    post(
        &server,
        "/api/v1/namespaces/default/configmaps",
        &json!({"metadata": {"name": "x", "finalizers": ["a.io/b"]}}),
    )
    .await;
    let going = delete(&server, path).await;
    assert_eq!(going.code, 200);
    assert!(going.json()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(going.json()["metadata"]["deletionGracePeriodSeconds"], 0);
    let added = merge(&server, path, &json!({"metadata": {"finalizers": ["a.io/b", "a.io/c"]}})).await;
    assert_eq!(added.code, 422);
    assert!(added.status().2.contains("no new finalizers can be added if the object is being deleted"));
    let version = delete(&server, path).await.json()["metadata"]["resourceVersion"].clone();
    assert_eq!(version, going.json()["metadata"]["resourceVersion"]);
    assert_eq!(merge(&server, path, &json!({"metadata": {"finalizers": null}})).await.code, 200);
    assert_eq!(get(&server, path).await.code, 404);
}

#[tokio::test]
async fn preconditions_of_a_deletion_must_hold() {
    let server = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = post(&server, maps, &json!({"metadata": {"name": "x"}})).await.json();
    let path = format!("{maps}/x");
    let with = async |preconditions: serde_json::Value| {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
        send(&server, Method::DELETE, &path, "application/json", body.to_string()).await.code
    };
    assert_eq!(with(json!({"uid": "other"})).await, 409);
    assert_eq!(with(json!({"resourceVersion": "1"})).await, 409);
    assert_eq!(with(json!({"uid": made["metadata"]["uid"]})).await, 200);
}

#[tokio::test]
async fn a_name_in_the_body_must_be_that_of_the_path() {
    let server = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    post(&server, maps, &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(put(&server, &format!("{maps}/x"), &json!({"metadata": {"name": "y"}})).await.code, 400);
    assert_eq!(post(&server, maps, &json!({"metadata": {"name": "z", "namespace": "other"}})).await.code, 400);
    assert_eq!(
        post(&server, maps, &json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "z"}})).await.code,
        400
    );
    assert_eq!(post(&server, maps, &json!({"apiVersion": "v2", "metadata": {"name": "z"}})).await.code, 400);
    assert_eq!(put(&server, &format!("{maps}/none"), &json!({"metadata": {"name": "none"}})).await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        post(&server, maps, &json!({"metadata": {"name": name, "labels": {"l": label}}})).await;
    }
    assert_eq!(delete(&server, &format!("{maps}?labelSelector=l%3Dx")).await.code, 200);
    let left = get(&server, maps).await.json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn events_are_one_kind_in_two_groups() {
    let server = server().await;
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "hello",
        "reason": "Started", "action": "Start", "type": "Normal", "reportingController": "c", "reportingInstance": "i",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    let made = post(&server, "/apis/events.k8s.io/v1/namespaces/default/events", &event).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    assert_eq!(made.json()["note"], "hello");
    let core = get(&server, "/api/v1/namespaces/default/events/e").await.json();
    assert_eq!((&core["message"], &core["apiVersion"]), (&json!("hello"), &json!("v1")));
    assert_eq!(core["involvedObject"]["name"], "p");
    let listed = get(&server, "/api/v1/events?fieldSelector=involvedObject.name%3Dp").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let listed = get(&server, "/apis/events.k8s.io/v1/events").await.json();
    assert_eq!(listed["items"][0]["regarding"]["name"], "p");
}

#[tokio::test]
async fn namespaces_have_what_every_cluster_begins_with() {
    let server = server().await;
    let namespaces: Api<Namespace> = Api::all(client(&server));
    let names: Vec<_> =
        namespaces.list(&ListParams::default()).await.unwrap().into_iter().map(|n| n.metadata.name.unwrap()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    for path in ["/healthz", "/livez", "/readyz?verbose", "/version", "/api", "/apis", "/api/v1", "/apis/apps"] {
        let code = get(&server, path).await.code;
        assert_eq!(code, if path == "/apis/apps" { 404 } else { 200 }, "{path}");
    }
    let workload = workload_server().await;
    assert_eq!(get(&workload, "/apis/apps/v1").await.code, 200);
    let other = get(&workload, "/api/v1/namespaces/default").await.json();
    assert_eq!(other["metadata"]["labels"]["kubernetes.io/metadata.name"], "default");
}
