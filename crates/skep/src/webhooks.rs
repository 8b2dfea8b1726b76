//! The rules and the conversions of `api` as webhooks, for an API server that is not ours.
//!
//! Source: `AdmissionReview` (admission.k8s.io/v1), `ConversionReview` (apiextensions.k8s.io/v1).

use std::{sync::Arc, time::Duration};

use api::conversion;
use apiserver::{Admission, Denied, Operation, Request, User};
use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Rules,
    metrics::{METRICS, Metrics},
};

pub const MUTATE: &str = "/mutate";
pub const VALIDATE: &str = "/validate";
pub const CONVERT: &str = "/convert";
pub const HEALTH: &str = "/healthz";

/// A review of a conversion has all objects of a list.
const BODY_BYTES_MAX: usize = 128 << 20;
/// A TLS handshake must be through in this time.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES_MAX: usize = 256;

/// Serves until `stop`. The rules ask the API for what they need.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (sender, secured) = mpsc::channel(HANDSHAKES_MAX);
    let address = listener.local_addr()?;
    tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, tls, sender)));
    let listener = Secured { secured, address };
    axum::serve(listener, router(rules, metrics)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(rules: Arc<Rules>, metrics: Arc<Metrics>) -> Router {
    let judges = rules.clone();
    Router::new()
        .route(MUTATE, post(|Json(review): Json<Value>| async move { admit(&rules, review, true).await }))
        .route(VALIDATE, post(|Json(review): Json<Value>| async move { admit(&judges, review, false).await }))
        .route(CONVERT, post(|Json(review): Json<Value>| async { convert(review) }))
        .route(HEALTH, get(|| async { "ok" }))
        .route(METRICS, get(|headers: HeaderMap| async move { metrics.answer(&headers).await }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Connections whose handshake is through.
struct Secured {
    secured: mpsc::Receiver<(TlsStream<TcpStream>, std::net::SocketAddr)>,
    address: std::net::SocketAddr,
}

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.secured.recv().await {
            Some(accepted) => accepted,
            // Ends with the server.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    sender: mpsc::Sender<(TlsStream<TcpStream>, std::net::SocketAddr)>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, sender) = (TlsAcceptor::from(Arc::clone(&tls.borrow())), sender.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                // Nobody to take it: the server ends.
                Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
            drop(slot);
        });
    }
}

/// What the API server asks, as our own asks it.
fn asked(request: &Value) -> Option<Request> {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match request["operation"].as_str()? {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        _ => return None,
    };
    let groups = request["userInfo"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Some(Request {
        operation,
        group: text("/kind/group"),
        version: text("/kind/version"),
        kind: text("/kind/kind"),
        resource: text("/resource/resource"),
        subresource: text("/subResource"),
        namespace: text("/namespace"),
        name: text("/name"),
        user: User::new(text("/userInfo/username"), groups),
        dry_run: request["dryRun"] == true,
        old: Some(&request["oldObject"]).filter(|old| !old.is_null()).cloned().map(Arc::new),
        options: request["options"].clone(),
    })
}

async fn admit(rules: &Rules, mut review: Value, mutates: bool) -> Response {
    let mut object = review.pointer_mut("/request/object").map(Value::take).unwrap_or_default();
    let uid = review["request"]["uid"].clone();
    let Some(request) = asked(&review["request"]) else {
        return (StatusCode::BAD_REQUEST, "an AdmissionReview with a request is expected").into_response();
    };
    let mut response = json!({"uid": uid, "allowed": true});
    let before = object.clone();
    let decided = match mutates {
        _ if !rules.concerns(&request) => Ok(Vec::new()),
        true => rules.mutate(&request, &mut object).await,
        false => rules.validate(&request, &object).await,
    };
    match decided {
        Ok(warnings) => {
            if !warnings.is_empty() {
                response["warnings"] = json!(warnings);
            }
            let patch = json_patch::diff(&before, &object);
            if !patch.0.is_empty() {
                let patch = serde_json::to_vec(&patch).unwrap_or_default();
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(patch));
            }
        }
        Err(denied) => response = refused(uid, denied, &request),
    }
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})).into_response()
}

fn refused(uid: Value, denied: Denied, request: &Request) -> Value {
    // The API server says itself which webhook it was.
    let status = match denied {
        Denied::Webhook { why, .. } => json!({"status": "Failure", "message": why}),
        other => other.status(request),
    };
    json!({"uid": uid, "allowed": false, "status": status})
}

fn convert(review: Value) -> Response {
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap_or_default().to_owned();
    let Some((_, version)) = wanted.split_once('/') else {
        return (StatusCode::BAD_REQUEST, "a ConversionReview with a request is expected").into_response();
    };
    let uid = &review["request"]["uid"];
    let objects = review["request"]["objects"].as_array().into_iter().flatten();
    let converted: Result<Vec<Value>, _> = objects.map(|object| conversion::convert(object, version)).collect();
    let response = match converted {
        Ok(objects) => json!({"uid": uid, "result": {"status": "Success"}, "convertedObjects": objects}),
        Err(error) => json!({"uid": uid, "result": {"status": "Failure", "message": error.to_string()}}),
    };
    let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
    Json(review).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(response: Response) -> Value {
        let bytes = axum::body::to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn review(object: Value) -> Value {
        json!({"request": {
            "uid": "u", "operation": "CREATE", "name": "md", "namespace": "ns", "userInfo": {"username": "a"},
            "kind": {"group": "cluster.x-k8s.io", "version": "v1beta2", "kind": "MachineDeployment"},
            "resource": {"group": "cluster.x-k8s.io", "version": "v1beta2", "resource": "machinedeployments"},
            "object": object,
        }})
    }

    fn deployment(version: &str) -> Value {
        json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment", "metadata": {"name": "md"}, "spec": {
            "clusterName": "demo", "selector": {}, "template": {"spec": {
                "clusterName": "demo", "version": version, "bootstrap": {"dataSecretName": "x"},
            }},
        }})
    }

    #[tokio::test]
    async fn defaults_are_a_patch_that_gives_the_object_that_our_own_server_would_store() {
        let before = deployment("1.34.2");
        let review = answer(admit(&Rules::default(), review(before.clone()), true).await).await;
        let patch = STANDARD.decode(review["response"]["patch"].as_str().unwrap()).unwrap();
        let (mut patched, mut wanted) = (before.clone(), before);
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut patched, &patch).unwrap();
        api::admission::default("cluster.x-k8s.io", "MachineDeployment", &mut wanted, None);
        assert_eq!(patched, wanted);
        assert_eq!((&review["response"]["uid"], &review["response"]["allowed"]), (&json!("u"), &json!(true)));
    }

    #[tokio::test]
    async fn a_refusal_is_the_status_that_a_user_is_to_see() {
        let mut bad = deployment("yesterday");
        api::admission::default("cluster.x-k8s.io", "MachineDeployment", &mut bad, None);
        let review = answer(admit(&Rules::default(), review(bad), false).await).await;
        let status = &review["response"]["status"];
        assert_eq!((&review["response"]["allowed"], &status["code"]), (&json!(false), &json!(422)));
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with(
                "MachineDeployment.cluster.x-k8s.io \"md\" is invalid: spec.template.spec.version: Invalid value"
            ),
            "{message}"
        );
    }

    #[tokio::test]
    async fn objects_are_converted_as_many_as_there_are() {
        let object = |name: &str| json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": {"name": name}, "spec": {"paused": true}});
        let ask = |version: &str, objects: Value| json!({"request": {"uid": "u", "desiredAPIVersion": version, "objects": objects}});
        let review = answer(convert(ask("cluster.x-k8s.io/v1beta2", json!([object("a"), object("b")])))).await;
        let converted = review["response"]["convertedObjects"].as_array().unwrap();
        assert_eq!(converted.len(), 2);
        assert_eq!(
            (&converted[1]["apiVersion"], &converted[1]["metadata"]["name"]),
            (&json!("cluster.x-k8s.io/v1beta2"), &json!("b"))
        );
        let review = answer(convert(ask("cluster.x-k8s.io/v9", json!([object("a")])))).await;
        assert_eq!(review["response"]["result"]["status"], "Failure");
        assert_eq!(convert(json!([])).status(), StatusCode::BAD_REQUEST);
        assert_eq!(admit(&Rules::default(), json!({"request": 1}), true).await.status(), StatusCode::BAD_REQUEST);
    }
}
