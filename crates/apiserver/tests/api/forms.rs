//! The forms in which the same things are served.

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Discovery,
    api::{ListParams, PartialObjectMetaExt, Patch, PatchParams},
    core::PartialObjectMeta,
    discovery::Scope,
    runtime::watcher,
};
use serde_json::{Value, json};

use apiserver::{Options, Server, User};

use crate::{
    crd::widgets,
    support::{client, get, merge, post, raw, send, server, server_with, workload_server},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn accepting(server: &Server, path: &str, accept: &str) -> (u16, String, Vec<u8>) {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    let (parts, body) = raw(server, &User::master("test"), request).await.into_parts();
    let kind = parts.headers["content-type"].to_str().unwrap().to_owned();
    (parts.status.as_u16(), kind, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn discovery_is_the_same_in_both_of_its_forms() {
    let server = server_with(Options { crds: vec![widgets()], ..Options::default() }).await;
    let plain = Discovery::new(client(&server)).run().await.unwrap();
    let aggregated = Discovery::new(client(&server)).run_aggregated().await.unwrap();
    let list = |discovery: &Discovery| {
        let mut list: Vec<_> = discovery
            .groups()
            .flat_map(kube::discovery::ApiGroup::recommended_resources)
            .map(|(resource, capabilities)| {
                let namespaced = matches!(capabilities.scope, Scope::Namespaced);
                (resource.api_version, resource.kind, resource.plural, namespaced, capabilities.operations.len())
            })
            .collect();
        list.sort();
        list
    };
    assert_eq!(list(&plain), list(&aggregated));
    assert!(list(&plain).iter().any(|(version, kind, ..)| version == "example.com/v1" && kind == "Widget"));
    let (_, kind, _) =
        accepting(&server, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await;
    assert_eq!(kind, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
}

#[tokio::test]
async fn metadata_alone_can_be_read_listed_patched_and_watched() {
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "m", "labels": {"a": "b"}}, "data": {"k": "v"}})).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
    assert_eq!(maps.get_metadata("m").await.unwrap().metadata.labels.unwrap()["a"], "b");
    assert_eq!(maps.list_metadata(&ListParams::default()).await.unwrap().items.len(), 1);
    let patch = kube::api::ObjectMeta { annotations: Some([("x".into(), "y".into())].into()), ..Default::default() };
    let patch = patch.into_request_partial::<ConfigMap>();
    let patched = maps.patch_metadata("m", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched.metadata.annotations.unwrap()["x"], "y");
    let partial: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client(&server));
    let mut watch = std::pin::pin!(watcher(partial, watcher::Config::default()));
    loop {
        if let watcher::Event::InitApply(found) = watch.next().await.unwrap().unwrap() {
            assert_eq!(found.metadata.name.as_deref(), Some("m"));
            break;
        }
    }
    let (_, _, body) =
        accepting(&server, &format!("{MAPS}/m"), "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await;
    let partial: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&partial["kind"], partial.get("data")), (&json!("PartialObjectMetadata"), None));
}

#[tokio::test(start_paused = true)]
async fn tables_are_listed_and_watched_and_tell_their_columns_once() {
    let server = server().await;
    for name in ["a", "b"] {
        post(&server, MAPS, &json!({"metadata": {"name": name}, "data": {"k": "v"}})).await;
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, _, body) = accepting(&server, MAPS, table).await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&list["kind"], list["rows"].as_array().unwrap().len()), (&json!("Table"), 2));
    assert_eq!(list["rows"][0]["cells"][0], "a");
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, _, body) = accepting(&server, &format!("{MAPS}?watch=true&timeoutSeconds=1"), table).await;
    let events: Vec<Value> =
        String::from_utf8(body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert!(events[0]["object"]["columnDefinitions"].is_array() && events[1]["object"]["columnDefinitions"].is_null());
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "b");
    assert_eq!(accepting(&server, &format!("{MAPS}?includeObject=Some"), table).await.0, 400);
}

#[tokio::test]
async fn yaml_goes_in_and_comes_out() {
    let server = server().await;
    let yaml = "metadata: {name: m}\ndata:\n  k: |\n    two\n    lines\n";
    let made = send(&server, Method::POST, MAPS, "application/yaml", yaml).await;
    assert_eq!(made.json()["data"]["k"], "two\nlines\n");
    let (code, kind, body) = accepting(&server, &format!("{MAPS}/m"), "application/yaml").await;
    assert_eq!((code, kind.as_str()), (200, "application/yaml"));
    let read: Value = serde_saphyr::from_str(std::str::from_utf8(&body).unwrap()).unwrap();
    assert_eq!(read, get(&server, &format!("{MAPS}/m")).await.json());
    let head = send(&server, Method::HEAD, &format!("{MAPS}/m"), "", Body::empty()).await;
    assert_eq!((head.code, head.body.len()), (405, 0), "as Kubernetes, which knows no HEAD of objects");
}

#[tokio::test]
async fn openapi_changes_with_the_crds() {
    let server = server().await;
    let root = get(&server, "/openapi/v3").await.json();
    assert!(root["paths"]["api/v1"].is_object() && root["paths"].get("apis/example.com/v1").is_none());
    post(&server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &widgets()).await;
    let root = get(&server, "/openapi/v3").await.json();
    let url = root["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = get(&server, &url).await.json();
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer", "{schema}");
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/maximum", "value": 12}]);
    assert_eq!(send(&server, Method::PATCH, crd, "application/json-patch+json", patch.to_string()).await.code, 200);
    let document = get(&server, &url).await.json();
    let maximum = &document["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"]["properties"]["size"]
        ["maximum"];
    assert_eq!(maximum.as_f64(), Some(12.0));
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 12}});
    assert_eq!(post(&server, "/apis/example.com/v1/namespaces/default/widgets", &widget).await.code, 201);
    assert_eq!(get(&server, "/openapi/v2").await.json()["swagger"], "2.0");
}

#[tokio::test]
async fn a_version_that_is_served_no_more_is_gone_and_its_objects_are_not() {
    let server = server_with(Options { crds: vec![widgets()], ..Options::default() }).await;
    let widget =
        json!({"apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}});
    post(&server, "/apis/example.com/v1beta1/namespaces/default/widgets", &widget).await;
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]).to_string();
    assert_eq!(send(&server, Method::PATCH, crd, "application/json-patch+json", patch).await.code, 200);
    assert_eq!(get(&server, "/apis/example.com/v1beta1/widgets").await.code, 404);
    assert_eq!(get(&server, "/apis/example.com/v1/namespaces/default/widgets/w").await.code, 200);
    let stored = json!({"spec": {"versions": [widgets()["spec"]["versions"][1].clone()]}});
    let dropped = merge(&server, crd, &stored).await;
    assert_eq!(dropped.code, 422, "{}", dropped.json());
}

#[tokio::test]
async fn every_built_in_kind_can_be_listed_and_explained() {
    let server = workload_server().await;
    let root = get(&server, "/openapi/v3").await.json();
    for (path, entry) in root["paths"].as_object().unwrap() {
        let document = get(&server, entry["serverRelativeURL"].as_str().unwrap()).await;
        assert_eq!(document.code, 200, "{path}");
        let resources = get(&server, &format!("/{path}")).await.json();
        for resource in resources["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if name.contains('/') || resource["verbs"] == json!(["create"]) {
                continue;
            }
            let listed = get(&server, &format!("/{path}/{name}")).await;
            assert_eq!(listed.code, 200, "{path}/{name}");
            let (code, _, body) =
                accepting(&server, &format!("/{path}/{name}"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
            let table: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((code, &table["kind"]), (200, &json!("Table")), "{path}/{name}");
            assert!(table["columnDefinitions"].as_array().unwrap().len() > 1, "{path}/{name}");
        }
    }
}

#[tokio::test]
async fn built_in_kinds_come_in_protobuf_as_they_come_in_json() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "m", "labels": {"a": "b"}}, "data": {"k": "v"}})).await;
    let one = format!("{MAPS}/m");
    let missing = format!("{MAPS}/nope");
    for path in [one.as_str(), MAPS, missing.as_str(), "/apis/rbac.authorization.k8s.io", "/api/v1"] {
        let (code, kind, bytes) = accepting(&server, path, &format!("{PROTOBUF},application/json")).await;
        let (code_of_json, _, json) = accepting(&server, path, "application/json").await;
        assert_eq!((code, kind.as_str()), (code_of_json, PROTOBUF), "{path}");
        let mut expected: Value = serde_json::from_slice(&json).unwrap();
        // What is empty is left out.
        expected.as_object_mut().unwrap().retain(|_, value| *value != json!({}));
        assert_eq!(apiserver::protobuf::parse(&bytes).unwrap(), expected, "{path}");
    }
    let (_, kind, bytes) =
        accepting(&server, MAPS, &format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")).await;
    let listed = apiserver::protobuf::parse(&bytes).unwrap();
    assert_eq!((kind.as_str(), &listed["kind"]), (PROTOBUF, &json!("PartialObjectMetadataList")));
    assert_eq!(listed["items"][0]["metadata"]["name"], "m");
    let watch = format!(
        "{MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let (_, kind, bytes) = accepting(&server, &watch, PROTOBUF).await;
    assert_eq!(kind, format!("{PROTOBUF};stream=watch"));
    let events = apiserver::protobuf::events(&bytes).unwrap();
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(events[0]["object"]["data"], json!({"k": "v"}));
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}
