use std::sync::Arc;

use apiserver::{Options, Profile, Server, User};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use store::{Embedded, Limits};

use super::*;

fn id(group: &str, kind: &str) -> Id {
    Id { group: group.to_owned(), kind: kind.to_owned(), namespace: "n".to_owned(), name: "x".to_owned() }
}

fn of(old: &Json, new: &Json, live: &Json) -> Json {
    merged(&id("apps", "Deployment"), Some(old), new, live, Extent::Upgrade)
}

fn pod(containers: &Json) -> Json {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn what_others_added_stays_and_what_the_manifest_dropped_goes() {
    let old = json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"paused": true, "replicas": 1}});
    let new = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"replicas": 3}});
    let live = json!({"metadata": {"labels": {"a": "1", "b": "1", "c": "1"}, "uid": "u"},
                      "spec": {"paused": true, "replicas": 7, "revisionHistoryLimit": 10}, "status": {"replicas": 7}});
    let wanted = json!({"metadata": {"labels": {"a": "2", "c": "1"}, "uid": "u"},
                        "spec": {"replicas": 3, "revisionHistoryLimit": 10}, "status": {"replicas": 7}});
    assert_eq!(of(&old, &new, &live), wanted);
}

#[test]
fn lists_are_merged_by_their_keys_in_the_order_of_the_manifest() {
    let old = pod(
        &json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]}, {"name": "gone"}]),
    );
    let new = pod(&json!([{"name": "b"}, {"name": "a", "env": [{"name": "X", "value": "2"}]}]));
    let live = pod(&json!([
        {"name": "a", "imagePullPolicy": "Always", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}, {"name": "Z", "value": "injected"}]},
        {"name": "sidecar"},
        {"name": "gone"},
    ]));
    let wanted = pod(&json!([
        {"name": "b"},
        {"name": "a", "imagePullPolicy": "Always", "env": [{"name": "X", "value": "2"}, {"name": "Z", "value": "injected"}]},
        {"name": "sidecar"},
    ]));
    assert_eq!(of(&old, &new, &live), wanted);
    assert_eq!(of(&new, &new, &wanted), wanted, "what was merged is what is wanted");
}

#[test]
fn two_ports_of_one_number_are_two() {
    let ports = |ports: Json| json!({"spec": {"ports": ports}});
    let old = ports(json!([{"port": 53}]));
    let new = ports(json!([{"port": 53, "protocol": "UDP"}, {"port": 53}]));
    let live = ports(json!([{"port": 53, "protocol": "TCP", "nodePort": 30053}]));
    let wanted = ports(json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "nodePort": 30053}]));
    assert_eq!(merged(&id("", "Service"), Some(&old), &new, &live, Extent::Upgrade), wanted);
}

#[test]
fn items_that_cannot_be_told_apart_are_taken_from_the_manifest_as_they_are() {
    let env = |env: Json| pod(&json!([{"name": "a", "env": env}]));
    let twice = env(json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]));
    assert_eq!(of(&twice, &twice, &env(json!([{"name": "X", "value": "3"}]))), twice);
}

#[test]
fn a_union_keeps_nothing_of_what_it_was() {
    let volumes = |volume: Json| json!({"spec": {"template": {"spec": {"volumes": [volume]}}}});
    let old = volumes(json!({"name": "v", "configMap": {"name": "c"}}));
    let new = volumes(json!({"name": "v", "emptyDir": {}}));
    let live = volumes(json!({"name": "v", "configMap": {"name": "c", "defaultMode": 420}}));
    assert_eq!(of(&old, &new, &live), new);
    let kept = volumes(json!({"name": "v", "configMap": {"name": "c", "defaultMode": 420}}));
    assert_eq!(of(&old, &old, &live), kept, "nothing changes, so the default stays");
    let old = json!({"spec": {"strategy": {"type": "RollingUpdate"}}});
    let new = json!({"spec": {"strategy": {"type": "Recreate"}}});
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    assert_eq!(of(&old, &new, &live), new);
}

#[test]
fn null_takes_a_field_away_and_is_no_change_where_there_is_none() {
    let new = json!({"spec": {"replicas": null, "paused": null}});
    let live = json!({"spec": {"replicas": 3, "x": 1}});
    assert_eq!(of(&json!({}), &new, &live), json!({"spec": {"x": 1}}));
}

#[test]
fn of_custom_resources_an_upgrade_changes_what_the_manifest_changed() {
    let of = |old, extent| {
        let new = json!({"spec": {"a": 2, "b": 1, "list": [{"name": "x"}]}});
        let live =
            json!({"spec": {"a": 1, "b": 9, "filled": true, "dropped": 1, "list": [{"name": "x"}, {"name": "y"}]}});
        merged(&id("example.dev", "Deployment"), old, &new, &live, extent)
    };
    let old = json!({"spec": {"a": 1, "b": 1, "dropped": 1, "list": [{"name": "x"}]}});
    let kept = json!({"spec": {"a": 2, "b": 9, "filled": true, "list": [{"name": "x"}, {"name": "y"}]}});
    assert_eq!(of(Some(&old), Extent::Upgrade), kept);
    let whole = json!({"spec": {"a": 2, "b": 1, "filled": true, "list": [{"name": "x"}]}});
    assert_eq!(of(Some(&old), Extent::Whole), whole);
    let adopted = json!({"spec": {"a": 2, "b": 1, "filled": true, "dropped": 1, "list": [{"name": "x"}]}});
    assert_eq!(of(None, Extent::Upgrade), adopted, "what is adopted loses nothing");
}

#[test]
fn what_the_server_writes_stays_whatever_a_manifest_says() {
    let new = json!({"apiVersion": "apps/v1", "metadata": {"creationTimestamp": null, "uid": "mine", "resourceVersion": "1"}, "status": {"x": 1}});
    let live = json!({"apiVersion": "apps/v1", "metadata": {"creationTimestamp": "t", "uid": "u"}, "status": {"y": 1}});
    assert_eq!(of(&new, &new, &live), live);
}

#[test]
fn the_patch_from_one_to_the_other_names_what_differs() {
    let from = json!({"a": {"x": 1, "y": 2}, "b": [1], "c": 1});
    let to = json!({"a": {"x": 1, "y": 3}, "b": [2], "d": {"e": 1}});
    assert_eq!(patch(&from, &to), json!({"a": {"y": 3}, "b": [2], "c": null, "d": {"e": 1}}));
    assert_eq!(patch(&from, &from), json!({}));
}

async fn get(server: &Server, path: &str) -> Json {
    let request = Request::builder().uri(path).header("accept", "application/json").body(Body::empty()).unwrap();
    let response = server.call_as(Arc::new(User::master("test")), request).await;
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// Follows references and what stands beside them.
fn resolved<'s>(schemas: &'s Json, mut schema: &'s Json) -> &'s Json {
    loop {
        let inner = schema.get("allOf").map_or(schema, |all| &all[0]);
        let Some(name) = inner.get("$ref").and_then(Json::as_str) else { return inner };
        schema = &schemas[name.rsplit('/').next().unwrap()];
    }
}

fn compare(schemas: &Json, schema: &Json, within: &str, path: &str, is_root: bool, wrong: &mut Vec<String>) -> usize {
    let mut found = 0;
    for (name, property) in resolved(schemas, schema)["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        // What servers write, and the schemas in definitions, which nest without end.
        if (is_root && name == "status") || path.ends_with("openAPIV3Schema") {
            continue;
        }
        let strategy = property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
        let published = if strategy.contains("merge") {
            property["x-kubernetes-patch-merge-key"].as_str().unwrap_or("*")
        } else {
            ""
        };
        let field = Merge { is_own: true, changes_only: false }.field(within, is_root, name);
        let ours = field.keys.split([',', '=']).next().unwrap();
        found += usize::from(!published.is_empty());
        if ours != published || field.retain != strategy.contains("retainKeys") {
            wrong.push(format!("{path}: published {strategy} {published}, ours {field:?}", field = field.keys));
        }
        let inner = resolved(schemas, property);
        // What lies in lists that are replaced is not merged.
        if inner.get("items").is_some() && published.is_empty() {
            continue;
        }
        let inner = inner.get("items").unwrap_or(inner);
        found += compare(schemas, inner, field.inner, &path, false, wrong);
    }
    found
}

#[tokio::test]
async fn lists_merge_as_an_api_server_publishes_it() {
    let options = Options { profile: Profile::Workload, ..Options::default() };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let (mut wrong, mut found, mut groups) = (Vec::new(), 0, Vec::new());
    for (path, _) in get(&server, "/openapi/v3").await["paths"].as_object().unwrap() {
        let document = get(&server, &format!("/openapi/v3/{path}")).await;
        let schemas = &document["components"]["schemas"];
        for schema in schemas.as_object().into_iter().flatten().map(|(_, schema)| schema) {
            for gvk in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let (group, kind) = (gvk["group"].as_str().unwrap(), gvk["kind"].as_str().unwrap());
                let is_object = schema["properties"].get("metadata").is_some() && !kind.ends_with("List");
                if !is_object || !path.ends_with(gvk["version"].as_str().unwrap()) {
                    continue;
                }
                groups.push(group.to_owned());
                found += compare(schemas, schema, kind, kind, true, &mut wrong);
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(found > 100, "only {found} merged lists were seen");
    for group in ["", "apps", "batch", "networking.k8s.io", "policy"] {
        assert!(groups.iter().any(|known| known == group), "nothing of {group:?} was seen");
    }
}
