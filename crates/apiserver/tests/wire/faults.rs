//! Clients that do not do their part, and very many of them; figures are printed (`--nocapture`).

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver::{Options, Profile, Server, User};
use axum::body::{Body, Bytes};
use futures::{StreamExt, stream::FuturesUnordered};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use store::{Embedded, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    sockets::connect,
    support::{Cluster, listening},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Resident memory of this process, server and clients together (proc(5), VmRSS).
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

async fn put(cluster: &Cluster, name: &str, text: &str) -> u64 {
    let user = Arc::new(User::master("test"));
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": text}});
    let patch = Request::patch(format!("{MAPS}/{name}?fieldManager=t&force=true"))
        .header("content-type", "application/apply-patch+yaml")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = cluster.server.call_as(user, patch).await;
    assert!(response.status().is_success(), "{}", response.status());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    value["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// The revisions of the events in what has come of a watch.
fn revisions(text: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter_map(|line| line["object"]["metadata"]["resourceVersion"].as_str()?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_told_and_costs_nobody_anything() {
    const WRITES: usize = 300;
    let cluster = listening(Profile::Management).await;
    let root = cluster.certificate("root", &["system:masters"]);
    let text = "x".repeat(400_000);
    let from = put(&cluster, "large", "").await;
    let watch = format!("{MAPS}?watch=true&resourceVersion={from}");
    let mut slow = connect(&cluster, Some((&root.0, &root.1)), b"http/1.1").await.unwrap();
    slow.write_all(format!("GET {watch} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();

    let io = TokioIo::new(connect(&cluster, Some((&root.0, &root.1)), b"h2").await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("https://127.0.0.1{watch}")).body(Empty::<Bytes>::new()).unwrap();
    let mut body = send.send_request(request).await.unwrap().into_body();
    let reading = tokio::spawn(async move {
        let (mut seen, mut rest) = (Vec::new(), String::new());
        while seen.len() < WRITES {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            rest.push_str(std::str::from_utf8(&data).unwrap());
            let whole = rest.rfind('\n').map_or(0, |at| at + 1);
            seen.extend(revisions(&rest[..whole]));
            rest.drain(..whole);
        }
        seen
    });
    let before = resident_mib();
    let (mut made, mut longest) = (Vec::new(), Duration::ZERO);
    for n in 0..WRITES {
        let began = Instant::now();
        made.push(put(&cluster, "large", &format!("{n}{text}")).await);
        longest = longest.max(began.elapsed());
    }
    assert_eq!(reading.await.unwrap(), made, "who reads sees everything, in order");
    let grown = resident_mib().saturating_sub(before);
    eprintln!(
        "{} MiB of events past a slow reader: {grown} MiB more memory, longest write {longest:?}",
        (WRITES * 400_000) >> 20
    );
    assert!(grown < 400, "{grown} MiB: history is 64 MiB, a reader's backlog 32 MiB");

    let mut bytes = Vec::new();
    // The end of the watch is the end of its chunks; the connection may stay.
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        let mut part = vec![0; 1 << 20];
        let count = slow.read(&mut part).await.unwrap();
        assert_ne!(count, 0, "the connection ends after the watch");
        bytes.extend_from_slice(&part[..count]);
    }
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rfind(|line| line.starts_with('{')).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)), "it is told");
    assert!(text.matches(r#""type":"MODIFIED""#).count() < WRITES, "it missed some");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_watches_are_cheap_and_all_hear_of_a_change() {
    const WATCHES: usize = 10_000;
    const A_CONNECTION: usize = 250;
    let cluster = listening(Profile::Management).await;
    let root = cluster.certificate("root", &["system:masters"]);
    let from = put(&cluster, "a", "").await;
    let before = resident_mib();
    let mut bodies = Vec::new();
    for _ in 0..WATCHES / A_CONNECTION {
        let io = TokioIo::new(connect(&cluster, Some((&root.0, &root.1)), b"h2").await.unwrap());
        let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let opening = (0..A_CONNECTION).map(|_| {
            let mut send = send.clone();
            let uri = format!("https://127.0.0.1{MAPS}?watch=true&resourceVersion={from}");
            async move {
                let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
                let response = send.send_request(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                response.into_body()
            }
        });
        bodies.extend(futures::future::join_all(opening).await);
    }
    let grown = resident_mib().saturating_sub(before);
    eprintln!(
        "{WATCHES} idle watches, both ends in this process: {grown} MiB, {} KiB each",
        grown * 1024 / WATCHES as u64
    );
    assert!(grown < 1_000, "{grown} MiB");
    let began = Instant::now();
    let made = put(&cluster, "a", "changed").await;
    let mut hearing: FuturesUnordered<_> = bodies
        .iter_mut()
        .map(|body| async {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(revisions(std::str::from_utf8(&data).unwrap()), [made]);
        })
        .collect();
    while hearing.next().await.is_some() {}
    eprintln!("all of them heard of a change after {:?}", began.elapsed());
    drop(hearing);
    drop(bodies);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stall_in_the_middle_of_a_body_hold_up_nobody() {
    let cluster = listening(Profile::Management).await;
    let root = cluster.certificate("root", &["system:masters"]);
    let mallory = cluster.certificate("mallory", &["dev"]);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "mallory"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "mallory"}],
    });
    let request = Request::post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")
        .header("content-type", "application/json")
        .body(Body::from(binding.to_string()))
        .unwrap();
    let made = cluster.server.call_as(Arc::new(User::master("test")), request).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let mut stalled = Vec::new();
    for _ in 0..700 {
        let mut io = connect(&cluster, Some((&mallory.0, &mallory.1)), b"http/1.1").await.unwrap();
        let head = format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        );
        io.write_all(head.as_bytes()).await.unwrap();
        io.write_all(&[b' '; 500]).await.unwrap();
        stalled.push(io);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        let io = TokioIo::new(connect(&cluster, Some((&root.0, &root.1)), b"http/1.1").await.unwrap());
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(MAPS).header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(send.send_request(request).await.unwrap().status(), StatusCode::OK);
        longest = longest.max(began.elapsed());
    }
    eprintln!("700 clients stall in the middle of a body; another's longest request takes {longest:?}");
    assert!(longest < Duration::from_secs(5));
    drop(stalled);
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_to_its_end_is_refused_after_a_minute() {
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), Options::default()).await.unwrap();
    let half = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(futures::stream::pending());
    let request = Request::post(MAPS).header("content-type", "application/json").body(Body::from_stream(half)).unwrap();
    let began = tokio::time::Instant::now();
    let response = server.call_as(Arc::new(User::master("test")), request).await;
    assert_eq!((response.status(), began.elapsed().as_secs()), (StatusCode::BAD_REQUEST, 60));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("the body did not come within 60 s"));
    server.shutdown().await;
}
