//! CRDs whose versions a webhook converts: a real one, over TLS.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use apiserver::Server;
use axum::{Json, Router, routing::post as on_post};
use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::{
    hook::serve,
    support::{get, merge, post, put, raw, server},
};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/boxes.example.com/v1/namespaces/default/boxes";
const V2: &str = "/apis/boxes.example.com/v2/namespaces/default/boxes";

/// In v1 a box has `spec.size`, in v2 `spec.edges.length`.
fn converted(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = wanted.into();
    object["spec"] = match wanted {
        "boxes.example.com/v2" => json!({"edges": {"length": object["spec"]["size"]}}),
        _ => json!({"size": object["spec"]["edges"]["length"]}),
    };
    // Such changes are undone.
    object["metadata"]["finalizers"] = json!(["example.com/made-up"]);
    object
}

async fn answer(calls: Arc<AtomicUsize>, Json(review): Json<Value>) -> Json<Value> {
    calls.fetch_add(1, Ordering::Relaxed);
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap();
    let bad = objects.iter().any(|object| object["metadata"]["name"] == "bad");
    let list: Vec<Value> = objects.iter().map(|object| converted(object, wanted)).collect();
    let result = if bad { json!({"status": "Failure", "message": "I will not"}) } else { json!({"status": "Success"}) };
    Json(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": result, "convertedObjects": list}}))
}

/// The URL and the authority of a webhook.
async fn webhook(calls: Arc<AtomicUsize>) -> (String, String) {
    let hook = serve(Router::new().route("/convert", on_post(move |body| answer(calls, body))), &[]).await;
    (hook.url("/convert"), hook.ca)
}

fn crd(url: &str, ca: &str) -> Value {
    let version = |name: &str, storage: bool, spec: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}}})
    };
    let edges = json!({"edges": {"type": "object", "properties": {"length": {"type": "integer"}, "unit": {"type": "string", "default": "m"}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boxes.boxes.example.com"},
        "spec": {"group": "boxes.example.com", "scope": "Namespaced", "names": {"kind": "Box", "plural": "boxes"},
            "versions": [version("v1", true, json!({"size": {"type": "integer"}})), version("v2", false, edges)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"url": url, "caBundle": ca}}}}})
}

fn small(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("boxes.example.com/{version}"), "kind": "Box", "metadata": {"name": name}, "spec": spec})
}

async fn with_boxes() -> (Server, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (url, ca) = webhook(Arc::clone(&calls)).await;
    let server = server().await;
    let made = post(&server, CRDS, &crd(&url, &ca)).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    (server, calls)
}

#[tokio::test]
async fn objects_are_read_and_written_in_each_version() {
    let (server, calls) = with_boxes().await;
    let made = post(&server, V1, &small("v1", "a", json!({"size": 3}))).await;
    assert_eq!((made.code, calls.load(Ordering::Relaxed)), (201, 0), "the stored version needs no webhook");
    let two = get(&server, &format!("{V2}/a")).await.json();
    assert_eq!(two["spec"], json!({"edges": {"length": 3, "unit": "m"}}), "converted, then defaulted");
    assert_eq!(two["apiVersion"], "boxes.example.com/v2");
    assert_eq!(two["metadata"]["uid"], made.json()["metadata"]["uid"]);
    assert_eq!(two["metadata"]["resourceVersion"], made.json()["metadata"]["resourceVersion"]);
    assert_eq!(two["metadata"].get("finalizers"), None, "of the metadata only labels and annotations may change");
    let made = post(&server, V2, &small("v2", "b", json!({"edges": {"length": 5}}))).await;
    assert_eq!((made.code, &made.json()["spec"]["edges"]["length"]), (201, &json!(5)));
    assert_eq!(get(&server, &format!("{V1}/b")).await.json()["spec"], json!({"size": 5}));
    let changed = merge(&server, &format!("{V2}/a"), &json!({"spec": {"edges": {"length": 4}}})).await;
    assert_eq!((changed.code, &changed.json()["spec"]["edges"]["length"]), (200, &json!(4)));
    let mut one = get(&server, &format!("{V1}/a")).await.json();
    assert_eq!(one["spec"], json!({"size": 4}));
    one["spec"]["size"] = 6.into();
    assert_eq!(put(&server, &format!("{V1}/a"), &one).await.code, 200);
    let before = calls.load(Ordering::Relaxed);
    let list = get(&server, V2).await.json();
    let sizes: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| item["spec"]["edges"]["length"].clone()).collect();
    assert_eq!(sizes, [6, 5]);
    assert_eq!(calls.load(Ordering::Relaxed), before + 1, "a list is one call");
    assert_eq!(crate::support::delete(&server, &format!("{V2}/a")).await.code, 200);
    assert_eq!(get(&server, &format!("{V1}/a")).await.code, 404);
}

#[tokio::test]
async fn a_watch_shows_its_own_version() {
    let (server, _) = with_boxes().await;
    assert_eq!(post(&server, V1, &small("v1", "a", json!({"size": 1}))).await.code, 201);
    let request = http::Request::get(format!("{V2}?watch=true")).body(axum::body::Body::empty()).unwrap();
    let response = raw(&server, &apiserver::User::master("test"), request).await;
    let mut lines = response.into_body().into_data_stream();
    let mut next = async || -> Value {
        let frame = lines.next().await.unwrap().unwrap();
        serde_json::from_slice(frame.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
    };
    let first = next().await;
    assert_eq!((&first["type"], &first["object"]["spec"]["edges"]["length"]), (&json!("ADDED"), &json!(1)));
    assert_eq!(merge(&server, &format!("{V1}/a"), &json!({"spec": {"size": 2}})).await.code, 200);
    let second = next().await;
    assert_eq!((&second["type"], &second["object"]["spec"]["edges"]["length"]), (&json!("MODIFIED"), &json!(2)));
    assert_eq!(second["object"]["apiVersion"], "boxes.example.com/v2");
    assert_eq!(crate::support::delete(&server, &format!("{V1}/a")).await.code, 200);
    assert_eq!(next().await["type"], "DELETED");
}

#[tokio::test]
async fn what_the_webhook_refuses_is_an_error_and_nothing_is_written() {
    let (server, _) = with_boxes().await;
    let refused = post(&server, V2, &small("v2", "bad", json!({"edges": {"length": 1}}))).await;
    let text = "conversion webhook for boxes.example.com/v2, Kind=Box failed: I will not";
    assert_eq!((refused.code, refused.status().2.as_str()), (500, text));
    assert_eq!(get(&server, &format!("{V1}/bad")).await.code, 404);
    let (url, _) = webhook(Arc::default()).await;
    let (_, other) = webhook(Arc::default()).await;
    let mut wrong = crd(&url, &other);
    wrong["metadata"]["name"] = "tins.boxes.example.com".into();
    wrong["spec"]["names"] = json!({"kind": "Tin", "plural": "tins"});
    assert_eq!(post(&server, CRDS, &wrong).await.code, 201);
    let path = "/apis/boxes.example.com/v2/namespaces/default/tins";
    let mut tin = small("v2", "t", json!({"edges": {"length": 1}}));
    tin["kind"] = "Tin".into();
    let refused = post(&server, path, &tin).await;
    assert_eq!(refused.code, 500);
    assert!(refused.status().2.contains("x509: certificate signed by unknown authority"), "{:?}", refused.status());
}

#[tokio::test]
async fn webhooks_that_cannot_be_called_are_refused() {
    let server = server().await;
    let (url, ca) = webhook(Arc::default()).await;
    let cases: [(&str, Value, &str); 4] = [
        ("url", json!("http://x/"), "'https' is the only allowed URL scheme; desired format: https://host[/path]"),
        ("caBundle", json!("bm8gUEVN"), "unable to load root certificates: unable to parse bytes as PEM block"),
        ("url", json!("https://u:p@x/"), "user information is not permitted in the URL"),
        ("service", json!({"namespace": "a", "name": "b"}), "exactly one of url or service is required"),
    ];
    for (key, value, expected) in cases {
        let mut crd = crd(&url, &ca);
        crd["spec"]["conversion"]["webhook"]["clientConfig"][key] = value;
        let refused = crate::support::send(&server, Method::POST, CRDS, "application/json", crd.to_string()).await;
        assert_eq!(refused.code, 422);
        assert!(refused.status().2.contains(expected), "{expected}: {:?}", refused.status());
    }
}
