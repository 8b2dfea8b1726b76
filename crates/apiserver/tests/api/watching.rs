use std::sync::Arc;

use axum::body::Body;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};

use crate::support::{client, delete, get, merge, post, raw, server, server_with};
use apiserver::{Options, Server, User};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The events of a watch that ends by itself.
async fn events(server: &Server, query: &str) -> Vec<(String, Value)> {
    events_in(server, query, "application/json").await
}

async fn events_in(server: &Server, query: &str, accept: &str) -> Vec<(String, Value)> {
    let request = Request::get(format!("{MAPS}?watch=true&{query}")).header("accept", accept);
    let response = raw(server, &User::master("test"), request.body(Body::empty()).unwrap()).await;
    let chunks: Vec<_> = response.into_body().into_data_stream().map_ok(|b| b.to_vec()).try_collect().await.unwrap();
    let text = String::from_utf8(chunks.concat()).unwrap();
    let line = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    };
    text.lines().map(line).collect()
}

fn brief(events: &[(String, Value)]) -> Vec<String> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or("-").to_owned();
    events.iter().map(|(kind, object)| format!("{kind} {}", name(object))).collect()
}

async fn version(server: &Server) -> String {
    get(server, MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_every_change_after_its_version() {
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "old"}})).await;
    let from = version(&server).await;
    post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await;
    merge(&server, &format!("{MAPS}/a"), &json!({"data": {"k": "v"}})).await;
    delete(&server, &format!("{MAPS}/a")).await;
    let seen = events(&server, &format!("resourceVersion={from}&timeoutSeconds=1")).await;
    assert_eq!(brief(&seen), ["ADDED a", "MODIFIED a", "DELETED a"]);
    let versions: Vec<u64> =
        seen.iter().map(|(_, o)| o["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()).collect();
    assert!(versions.is_sorted() && versions[1] < versions[2]);
    assert_eq!(seen[2].1["data"]["k"], "v");
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(brief(&events(&server, "timeoutSeconds=1").await), ["ADDED a"]);
    assert_eq!(brief(&events(&server, "resourceVersion=0&timeoutSeconds=1").await), ["ADDED a"]);
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = server().await;
    post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let seen = events(&server, query).await;
    assert_eq!(brief(&seen), ["ADDED a", "BOOKMARK -"]);
    assert_eq!(seen[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(seen[1].1["kind"], "ConfigMap");
    let number = |i: usize| seen[i].1["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(1) >= number(0));
    assert_eq!(get(&server, &format!("{MAPS}?watch=1&sendInitialEvents=true")).await.code, 422);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_a_quiet_watch_is() {
    let server = server().await;
    let from = version(&server).await;
    post(&server, "/api/v1/namespaces/kube-system/configmaps", &json!({"metadata": {"name": "elsewhere"}})).await;
    let seen = events(&server, &format!("resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=90")).await;
    // After a minute, and shortly before the end.
    assert_eq!(brief(&seen), ["BOOKMARK -", "BOOKMARK -"]);
    assert_eq!(seen[0].1["metadata"]["resourceVersion"], version(&server).await);
    let seen = events(&server, &format!("resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=30")).await;
    assert_eq!(brief(&seen), ["BOOKMARK -"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_leaves_the_selector_is_deleted_for_the_watcher() {
    let server = server().await;
    let from = version(&server).await;
    post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await;
    for label in [json!("x"), json!("x"), json!("y"), json!("x")] {
        let data = json!({"metadata": {"labels": {"l": label}}, "data": {"n": uuid()}});
        merge(&server, &format!("{MAPS}/a"), &data).await;
    }
    delete(&server, &format!("{MAPS}/a")).await;
    let seen = events(&server, &format!("labelSelector=l%3Dx&resourceVersion={from}&timeoutSeconds=1")).await;
    assert_eq!(brief(&seen), ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"]);
    let one =
        events(&server, &format!("fieldSelector=metadata.name%3Db&resourceVersion={from}&timeoutSeconds=1")).await;
    assert!(one.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_watchers_see_what_each_would_see_alone() {
    const FORMS: [&str; 3] = [
        "application/json",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "application/json;as=Table;g=meta.k8s.io;v=v1",
    ];
    // Tables tell ages.
    let now = jiff::Timestamp::UNIX_EPOCH;
    let server = server_with(Options { clock: Arc::new(move || now), ..Options::default() }).await;
    let from = version(&server).await;
    let queries = ["", "labelSelector=l%3Dx&", "labelSelector=l%3Dy&", "fieldSelector=metadata.name%3Da&"];
    let watches = (0..36).map(|n| {
        let (query, form) = (queries[n % 4], FORMS[n / 4 % 3]);
        let (server, from) = (server.clone(), from.clone());
        tokio::spawn(async move {
            let seen = events_in(&server, &format!("{query}resourceVersion={from}&timeoutSeconds=60"), form).await;
            (query, form, seen)
        })
    });
    let watches: Vec<_> = watches.collect();
    for n in 0..5 {
        for name in ["a", "b"] {
            post(&server, MAPS, &json!({"metadata": {"name": name, "labels": {"l": "x"}}})).await;
            merge(
                &server,
                &format!("{MAPS}/{name}"),
                &json!({"metadata": {"labels": {"l": "y"}}, "data": {"n": n.to_string()}}),
            )
            .await;
            tokio::task::yield_now().await;
            delete(&server, &format!("{MAPS}/{name}")).await;
        }
    }
    for watch in watches {
        let (query, form, seen) = watch.await.unwrap();
        let alone = events_in(&server, &format!("{query}resourceVersion={from}&timeoutSeconds=1"), form).await;
        assert!(seen.len() >= 10 && seen == alone, "{query} {form}");
    }
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_no_longer_kept_is_expired_and_one_to_come_is_too_large() {
    let server = server().await;
    let old = version(&server).await;
    for i in 0..3 {
        post(&server, MAPS, &json!({"metadata": {"name": format!("m{i}")}})).await;
    }
    let page = get(&server, &format!("{MAPS}?limit=1")).await.json();
    merge(&server, &format!("{MAPS}/m0"), &json!({"data": {"a": "b"}})).await;
    server.store().compact(server.store().revision()).await.unwrap();
    let seen = events(&server, &format!("resourceVersion={old}&timeoutSeconds=1")).await;
    assert_eq!(brief(&seen), ["ERROR -"]);
    assert_eq!((&seen[0].1["code"], &seen[0].1["reason"]), (&json!(410), &json!("Expired")));
    let exact = get(&server, &format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await;
    assert_eq!(exact.status().0, 410);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let next = get(&server, &format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((next.code, &next.json()["reason"]), (410, &json!("Expired")));
    let resume = next.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = get(&server, &format!("{MAPS}?continue={resume}")).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
    let future = get(&server, &format!("{MAPS}?resourceVersion=99999")).await;
    assert_eq!(
        (future.code, &future.json()["details"]["causes"][0]["reason"]),
        (504, &json!("ResourceVersionTooLarge"))
    );
    assert_eq!(get(&server, &format!("{MAPS}?resourceVersion=x")).await.code, 400);
}

#[tokio::test]
async fn the_watcher_of_kube_runtime_follows_in_both_of_its_ways() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let server = server().await;
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
        post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await;
        let mut stream = std::pin::pin!(watcher(maps.clone(), config).applied_objects());
        assert_eq!(stream.next().await.unwrap().unwrap().metadata.name.as_deref(), Some("a"));
        post(&server, MAPS, &json!({"metadata": {"name": "b"}})).await;
        assert_eq!(stream.next().await.unwrap().unwrap().metadata.name.as_deref(), Some("b"));
        server.shutdown().await;
    }
}

#[tokio::test]
async fn a_watch_ends_when_the_server_does() {
    let server = server_with(Options::default()).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server));
    let mut stream = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let map = ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some("a".into()), ..Default::default() },
        ..Default::default()
    };
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Added(_)))));
    server.shutdown().await;
    assert!(stream.next().await.is_none());
}
