//! A server in memory, and two ways to talk to it.

use std::sync::Arc;

use apiserver::{Options, Profile, Server, User};
use axum::{body::Body, response::Response};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use store::{Embedded, Limits};

pub async fn server() -> Server {
    server_with(Options::default()).await
}

pub async fn workload_server() -> Server {
    server_with(Options { profile: Profile::Workload, ..Options::default() }).await
}

pub async fn server_with(options: Options) -> Server {
    Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap()
}

pub fn client(server: &Server) -> kube::Client {
    kube::Client::new(server.service_as(User::master("test")), "default")
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| String::from_utf8_lossy(&self.body).into_owned().into())
    }

    /// Code, reason, message of a Status.
    pub fn status(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        (self.code, text("reason"), text("message"))
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok()).collect()
    }
}

pub async fn raw(server: &Server, user: &User, request: Request<Body>) -> Response {
    server.call_as(Arc::new(user.clone()), request).await
}

pub async fn send(server: &Server, method: Method, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    send_as(server, &User::master("test"), method, path, content_type, body).await
}

pub async fn send_as(
    server: &Server,
    user: &User,
    method: Method,
    path: &str,
    content_type: &str,
    body: impl Into<Body>,
) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("user-agent", "test/1")
        .body(body.into())
        .unwrap();
    let (parts, body) = raw(server, user, request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { code: parts.status.as_u16(), headers: parts.headers, body }
}

pub async fn get(server: &Server, path: &str) -> Answer {
    send(server, Method::GET, path, "", Body::empty()).await
}

pub async fn post(server: &Server, path: &str, value: &Value) -> Answer {
    send(server, Method::POST, path, "application/json", value.to_string()).await
}

pub async fn put(server: &Server, path: &str, value: &Value) -> Answer {
    send(server, Method::PUT, path, "application/json", value.to_string()).await
}

pub async fn merge(server: &Server, path: &str, value: &Value) -> Answer {
    send(server, Method::PATCH, path, "application/merge-patch+json", value.to_string()).await
}

pub async fn delete(server: &Server, path: &str) -> Answer {
    send(server, Method::DELETE, path, "", Body::empty()).await
}

/// Waits until `check` holds, woken by every write to the store; fails the test if that does not come to pass.
pub async fn eventually<F: Future<Output = bool>>(server: &Server, what: &str, check: impl Fn() -> F) {
    use futures::StreamExt;
    let mut changes = server.store().watch(store::Range::prefix("/"), server.store().revision()).unwrap();
    let wait = async {
        while !check().await {
            changes.next().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
