//! What requests cost in process: creates, patches, gets and lists of a config map, one after another.

use std::sync::Arc;

use apiserver::{Options, Server, User};
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use store::{Embedded, Limits};

async fn send(server: &Server, user: &Arc<User>, method: Method, path: String, body: String) -> usize {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request =
        Request::builder().method(method).uri(path).header("content-type", kind).body(Body::from(body)).unwrap();
    let response = server.call_as(Arc::clone(user), request).await;
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.unwrap().to_bytes().len()
}

#[tokio::main]
async fn main() {
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), Options::default()).await.unwrap();
    let user = Arc::new(User::master("load"));
    let maps = "/api/v1/namespaces/default/configmaps";
    let count = 5000;
    let start = tokio::time::Instant::now();
    let told = |what: &str, start: tokio::time::Instant, count: u32| {
        #[allow(clippy::print_stdout)]
        {
            println!("{what}: {:?} each", start.elapsed() / count);
        }
    };
    for i in 0..count {
        let body = format!(
            "{{\"metadata\":{{\"name\":\"m{i}\",\"labels\":{{\"n\":\"l{}\"}}}},\"data\":{{\"k\":\"v\"}}}}",
            i % 100
        );
        send(&server, &user, Method::POST, maps.to_owned(), body).await;
    }
    told("create", start, count);
    let start = tokio::time::Instant::now();
    for i in 0..count {
        send(&server, &user, Method::PATCH, format!("{maps}/m{i}"), format!("{{\"data\":{{\"k\":\"w{i}\"}}}}")).await;
    }
    told("patch", start, count);
    let start = tokio::time::Instant::now();
    for i in 0..count {
        send(&server, &user, Method::GET, format!("{maps}/m{i}"), String::new()).await;
    }
    told("get", start, count);
    let start = tokio::time::Instant::now();
    for _ in 0..20 {
        send(&server, &user, Method::GET, maps.to_owned(), String::new()).await;
    }
    told("list of 5000", start, 20);
    let start = tokio::time::Instant::now();
    for _ in 0..20 {
        send(&server, &user, Method::GET, format!("{maps}?labelSelector=n%3Dl7"), String::new()).await;
    }
    told("list of 50 of 5000 by label", start, 20);
}
