use std::sync::Arc;

use apiserver::{Admission, Denied, FieldError, Operation, Options, Request, Server, Warning};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::support::{delete, get, merge, post, server_with};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Labels what is made, keeps what is protected, and wants values to be short.
struct House;

#[async_trait]
impl Admission for House {
    async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<Warning>, Denied> {
        if request.operation == Operation::Create && request.resource == "configmaps" {
            object["metadata"]["labels"]["made-by"] = request.user.name.clone().into();
        }
        Ok(Vec::new())
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        match request.operation {
            Operation::Delete if object["metadata"]["labels"]["keep"] == "yes" => {
                Err(Denied::Forbidden("it is protected by the label keep".to_owned()))
            }
            Operation::Delete => Ok(Vec::new()),
            _ if object["data"]["k"].as_str().is_some_and(|v| v.len() > 3) => {
                Err(Denied::Invalid(vec![FieldError::invalid("data[k]", object["data"]["k"].clone(), "is too long")]))
            }
            Operation::Update if request.old.as_ref().is_some_and(|old| old["data"] != object["data"]) => {
                Ok(vec!["the data \"k\" changes".to_owned()])
            }
            _ => Ok(Vec::new()),
        }
    }
}

async fn server() -> Server {
    server_with(Options { admission: vec![Arc::new(House)], ..Options::default() }).await
}

#[tokio::test]
async fn admission_changes_warns_and_refuses() {
    let server = server().await;
    let made = post(&server, MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "a"}})).await;
    assert_eq!(made.json()["metadata"]["labels"]["made-by"], "test");
    let path = format!("{MAPS}/m");
    let warned = merge(&server, &path, &json!({"data": {"k": "b"}})).await;
    assert_eq!((warned.code, warned.warnings()), (200, vec!["299 - \"the data \\\"k\\\" changes\""]));
    let long = merge(&server, &path, &json!({"data": {"k": "long"}})).await;
    let text = "ConfigMap \"m\" is invalid: data[k]: Invalid value: \"long\": is too long";
    assert_eq!(long.status(), (422, "Invalid".into(), text.into()));
    merge(&server, &path, &json!({"metadata": {"labels": {"keep": "yes"}}})).await;
    let kept = delete(&server, &path).await;
    let text = "configmaps \"m\" is forbidden: it is protected by the label keep";
    assert_eq!(kept.status(), (403, "Forbidden".into(), text.into()));
    assert_eq!(delete(&server, MAPS).await.code, 403);
    merge(&server, &path, &json!({"metadata": {"labels": {"keep": null}}})).await;
    assert_eq!(delete(&server, &path).await.code, 200);
    assert_eq!(get(&server, &path).await.code, 404);
}

/// Finds a bug.
struct Buggy;

#[async_trait]
impl Admission for Buggy {
    async fn mutate(&self, request: &Request, _: &mut Value) -> Result<Vec<Warning>, Denied> {
        assert!(request.name != "bug", "a bug on purpose");
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_bug_that_one_request_finds_is_its_own() {
    let server = server_with(Options { admission: vec![Arc::new(Buggy)], ..Options::default() }).await;
    let found = post(&server, MAPS, &json!({"metadata": {"name": "bug"}})).await;
    assert_eq!((found.code, found.status().1), (500, "InternalError".to_owned()));
    assert_eq!(post(&server, MAPS, &json!({"metadata": {"name": "fine"}})).await.code, 201);
}
