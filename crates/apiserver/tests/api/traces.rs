//! Traces, taken by a collector that speaks OTLP over gRPC.

use std::convert::Infallible;

use apiserver::{Options, Server, Tracing, User};
use axum::{Router, body::Body, routing::post as answer_post};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    hook,
    support::{post, raw, server_with},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    of_resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, repeated, tag = "2")]
    of_scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AttributeValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeValue {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    number: i64,
}

impl Span {
    fn attribute(&self, key: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A collector on loopback: its address, and the spans that it took.
async fn collector() -> (String, mpsc::UnboundedReceiver<Span>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let sender = sender.clone();
                async move {
                    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let export = Export::decode(&body[5..]).unwrap();
                    let scopes = export.of_resources.into_iter().flat_map(|resource| resource.of_scopes);
                    scopes.flat_map(|scope| scope.spans).for_each(|span| sender.send(span).unwrap());
                    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))]);
                    let message = Full::new(Bytes::from_static(&[0; 5]));
                    let body = message.with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
                    let answer = http::Response::builder().header("content-type", "application/grpc");
                    Ok::<_, Infallible>(answer.body(body).unwrap())
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(tcp), service));
        }
    });
    (address, receiver)
}

async fn traced(rate: u32) -> (Server, mpsc::UnboundedReceiver<Span>) {
    let (address, spans) = collector().await;
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: {address}\n\
         samplingRatePerMillion: {rate}\n"
    );
    let tracing = Some(Tracing::new(&config).unwrap());
    (server_with(Options { tracing, ..Options::default() }).await, spans)
}

/// What the collector has when the server has ended.
async fn end(server: Server, mut spans: mpsc::UnboundedReceiver<Span>) -> Vec<Span> {
    server.shutdown().await;
    std::iter::from_fn(|| spans.try_recv().ok()).collect()
}

fn asking(method: Method, path: &str, flags: &str, body: &Value) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{TRACE}-{SPAN}-{flags}"))
        .header("tracestate", "vendor=1")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// A mutating webhook for configmaps that lets all through, and the headers that it was called with.
async fn watched_webhook(server: &Server) -> mpsc::UnboundedReceiver<HeaderMap> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        sender.send(headers).unwrap();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let response = json!({"uid": review["request"]["uid"], "allowed": true});
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
    };
    let hook = hook::serve(Router::new().route("/", answer_post(answer)), &[]).await;
    let configuration = json!({
        "metadata": {"name": "traced"},
        "webhooks": [{
            "name": "a.example.com", "clientConfig": hook.config("/"), "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        }],
    });
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    assert_eq!(post(server, path, &configuration).await.code, 201);
    receiver
}

#[tokio::test]
async fn an_administrators_trace_goes_on_through_webhooks_and_commits() {
    let (server, spans) = traced(0).await;
    let mut called = watched_webhook(&server).await;
    let map = json!({"metadata": {"name": "m"}});
    let answer = raw(&server, &User::master("root"), asking(Method::POST, MAPS, "01", &map)).await;
    assert_eq!(answer.status(), 201);
    let headers = called.recv().await.unwrap();
    let spans = end(server, spans).await;
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:?}"));
    let request = find("POST /api/v1/namespaces/{:namespace}/configmaps");
    let (webhook, commit) = (find("Call mutating webhook"), find("store commit"));
    assert_eq!((hex(&request.trace), hex(&request.parent)), (TRACE.to_owned(), SPAN.to_owned()));
    assert_eq!((request.kind, request.state.as_str()), (2, "vendor=1"));
    assert_eq!(request.attribute("http.response.status_code").unwrap().number, 201);
    assert_eq!(request.attribute("http.target").unwrap().text, MAPS);
    for inner in [webhook, commit] {
        assert_eq!((&inner.trace, &inner.parent), (&request.trace, &request.id));
        assert!(request.start <= inner.start && inner.start <= inner.end && inner.end <= request.end);
    }
    assert_eq!(webhook.attribute("webhook").unwrap().text, "a.example.com");
    assert_eq!(commit.attribute("resource").unwrap().text, "core/configmaps");
    assert_eq!(headers["traceparent"], format!("00-{TRACE}-{}-01", hex(&webhook.id)));
    assert_eq!(headers["tracestate"], "vendor=1");
    // What nobody wanted sampled is not.
    assert_eq!(spans.len(), 3, "{spans:?}");
}

#[tokio::test]
async fn what_a_caller_does_not_want_sampled_is_not_but_goes_on() {
    let (server, spans) = traced(1_000_000).await;
    let mut called = watched_webhook(&server).await;
    let map = json!({"metadata": {"name": "m"}});
    raw(&server, &User::master("root"), asking(Method::POST, MAPS, "00", &map)).await;
    let headers = called.recv().await.unwrap();
    let parent = headers["traceparent"].to_str().unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00"), "{parent}");
    let spans = end(server, spans).await;
    assert!(spans.iter().all(|span| hex(&span.trace) != TRACE), "{spans:?}");
    assert!(spans.iter().any(|span| span.name.contains("mutatingwebhookconfigurations")), "{spans:?}");
}

#[tokio::test]
async fn a_users_trace_is_linked_to_and_not_taken_over() {
    for (rate, count) in [(0, 0), (1_000_000, 1)] {
        let (server, spans) = traced(rate).await;
        let anna = User::new("anna", ["acme"]);
        raw(&server, &anna, asking(Method::GET, &format!("{MAPS}/m/status"), "01", &Value::Null)).await;
        let spans = end(server, spans).await;
        assert_eq!(spans.len(), count, "{spans:?}");
        for span in spans {
            assert_ne!(hex(&span.trace), TRACE);
            assert!(span.parent.is_empty());
            assert_eq!(span.name, "GET /api/v1/namespaces/{:namespace}/configmaps/{:name}/status");
            let [link] = &span.links[..] else { panic!("{span:?}") };
            assert_eq!((hex(&link.trace), hex(&link.span)), (TRACE.to_owned(), SPAN.to_owned()));
            assert_eq!(span.attribute("http.response.status_code").unwrap().number, 403);
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_up_nobody() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: TracingConfiguration, endpoint: '{gone}', \
         samplingRatePerMillion: 1000000}}"
    );
    let tracing = Some(Tracing::new(&config).unwrap());
    let server = server_with(Options { tracing, ..Options::default() }).await;
    assert_eq!(post(&server, MAPS, &json!({"metadata": {"name": "m"}})).await.code, 201);
    server.shutdown().await;
}
