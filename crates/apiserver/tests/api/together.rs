//! Many at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::support::{delete, get, merge, post, put, send, server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_patch_of_many_is_lost() {
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "m"}})).await;
    let patches = (0..64).map(|i| {
        let server = server.clone();
        tokio::spawn(async move {
            merge(&server, &format!("{MAPS}/m"), &json!({"data": {format!("k{i}"): "v"}})).await.code
        })
    });
    let codes: Vec<u16> = join_all(patches).await.into_iter().map(Result::unwrap).collect();
    let taken = codes.iter().filter(|code| **code == 200).count();
    assert!(codes.iter().all(|code| matches!(code, 200 | 409)), "{codes:?}");
    let map = get(&server, &format!("{MAPS}/m")).await.json();
    assert_eq!(map["data"].as_object().unwrap().len(), taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_replace_the_same_version_one_wins() {
    let server = server().await;
    let made = post(&server, MAPS, &json!({"metadata": {"name": "m"}})).await.json();
    let writers = (0..16).map(|i| {
        let (server, mut map) = (server.clone(), made.clone());
        map["data"] = json!({"winner": i.to_string()});
        tokio::spawn(async move { put(&server, &format!("{MAPS}/m"), &map).await.code })
    });
    let codes: Vec<u16> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_make_the_same_name_one_wins_and_made_up_names_differ() {
    let server = server().await;
    let makers = (0..16).map(|_| {
        let server = server.clone();
        tokio::spawn(async move {
            let same = post(&server, MAPS, &json!({"metadata": {"name": "m"}})).await.code;
            let made_up = post(&server, MAPS, &json!({"metadata": {"generateName": "g-"}})).await.json();
            (same, made_up["metadata"]["name"].as_str().unwrap().to_owned())
        })
    });
    let done: Vec<(u16, String)> = join_all(makers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(done.iter().filter(|(code, _)| *code == 201).count(), 1);
    assert_eq!(done.iter().map(|(_, name)| name).collect::<BTreeSet<_>>().len(), 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_slips_into_a_namespace_that_goes() {
    for _ in 0..20 {
        let server = server().await;
        post(&server, "/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await;
        let maps = "/api/v1/namespaces/team/configmaps";
        let makers = (0..8).map(|i| {
            let server = server.clone();
            tokio::spawn(async move { post(&server, maps, &json!({"metadata": {"name": format!("m{i}")}})).await.code })
        });
        let end = server.clone();
        let end = tokio::spawn(async move { delete(&end, "/api/v1/namespaces/team").await.code });
        join_all(makers).await;
        assert_eq!(end.await.unwrap(), 200);
        let gone = async || get(&server, "/api/v1/namespaces/team").await.code == 404;
        crate::support::eventually(&server, "the namespace goes", gone).await;
        let left = get(&server, maps).await.json();
        assert_eq!(left["items"], json!([]));
        server.shutdown().await;
    }
}

/// As an item of a list: the list says the kind.
fn untyped(object: &Value) -> Value {
    let mut object = object.clone();
    for key in ["apiVersion", "kind"] {
        object.as_object_mut().unwrap().remove(key);
    }
    object
}

#[tokio::test]
async fn a_continue_token_does_not_lead_out_of_its_namespace() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "secret"}})).await;
    let version =
        get(&server, MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().parse::<i64>().unwrap();
    for start in ["", "default/", "kube-system0", "../secrets/"] {
        let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": start}).to_string();
        let token = URL_SAFE_NO_PAD.encode(token);
        let path = format!("/api/v1/namespaces/kube-system/configmaps?continue={token}");
        assert_eq!(get(&server, &path).await.code, 400, "{start}");
    }
}

#[tokio::test]
async fn every_write_of_a_mixed_load_is_seen_by_a_watcher_in_order() {
    let server = server().await;
    let from = get(&server, MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for i in 0..50 {
        let path = format!("{MAPS}/m{}", i % 7);
        match i % 3 {
            0 => drop(post(&server, MAPS, &json!({"metadata": {"name": format!("m{}", i % 7)}})).await),
            1 => drop(merge(&server, &path, &json!({"data": {"i": i.to_string()}})).await),
            _ => drop(delete(&server, &path).await),
        }
    }
    let path = format!("{MAPS}?watch=true&resourceVersion={from}&timeoutSeconds=1");
    let text = send(&server, Method::GET, &path, "", "").await.body;
    let mut state = std::collections::BTreeMap::new();
    let mut last = 0;
    for line in String::from_utf8(text).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let object = &event["object"];
        let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(version > last);
        last = version;
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        match event["type"].as_str().unwrap() {
            "ADDED" => assert!(state.insert(name, untyped(object)).is_none()),
            "MODIFIED" => assert!(state.insert(name, untyped(object)).is_some()),
            "DELETED" => assert!(state.remove(&name).is_some()),
            other => panic!("{other}"),
        }
    }
    let listed = get(&server, MAPS).await.json();
    let listed: Vec<Value> = listed["items"].as_array().unwrap().clone();
    assert_eq!(listed, state.into_values().collect::<Vec<_>>());
}

#[tokio::test]
async fn two_servers_over_one_store_are_one_cluster() {
    let store: store::SharedStore = std::sync::Arc::new(store::Embedded::memory(store::Limits::default()));
    let (one, two) = tokio::join!(
        apiserver::Server::start(store.clone(), apiserver::Options::default()),
        apiserver::Server::start(store.clone(), apiserver::Options::default()),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    post(&one, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crate::crd::widgets()).await;
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    crate::support::eventually(&two, "the kind is served", async || get(&two, widgets).await.code == 200).await;
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}});
    assert_eq!(post(&two, widgets, &widget).await.code, 201);
    assert_eq!(get(&one, &format!("{widgets}/w")).await.code, 200);
    let owner = get(&one, &format!("{widgets}/w")).await.json();
    let owners =
        json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": owner["metadata"]["uid"]}]);
    post(&two, MAPS, &json!({"metadata": {"name": "m", "ownerReferences": owners}})).await;
    delete(&one, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com").await;
    let gone = async || get(&one, &format!("{MAPS}/m")).await.code == 404 && get(&two, widgets).await.code == 404;
    crate::support::eventually(&one, "the kind, its object and the dependent are gone", gone).await;
    one.shutdown().await;
    two.shutdown().await;
}
