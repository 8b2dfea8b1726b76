//! Groups that APIServices name.

use std::sync::Arc;

use apiserver::{Aggregated, Backend, Options, Profile};
use futures::future::BoxFuture;
use http::Method;
use serde_json::{Value, json};

use crate::support::{delete, get, merge, post, put, send, server_with, workload_server};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.numbers.example.com";

fn registered(spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": NAME}, "spec": {
        "group": "numbers.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
        "service": {"namespace": "default", "name": "numbers"},
    }});
    json_patch::merge(&mut object["spec"], spec);
    object
}

fn condition(status: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Available", "status": status, "reason": "Said", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

/// Two primes, one in each namespace.
struct Numbers;

const KINDS: [Aggregated; 1] = [Aggregated { plural: "primes", kind: "Prime", namespaced: true }];

impl Backend for Numbers {
    fn kinds(&self, group: &str, version: &str) -> Option<&'static [Aggregated]> {
        (group == "numbers.example.com" && version == "v1").then_some(&KINDS)
    }

    fn objects<'a>(&'a self, _: &'a str, _: &'a Aggregated) -> BoxFuture<'a, Result<Vec<Value>, String>> {
        let prime = |name: &str, namespace: &str| json!({"metadata": {"name": name, "namespace": namespace, "labels": {"is": name}}});
        Box::pin(async move { Ok(vec![prime("two", "default"), prime("three", "kube-system")]) })
    }
}

#[tokio::test]
async fn an_api_service_is_checked_as_kube_aggregator_checks_it() {
    let server = workload_server().await;
    for (spec, field) in [
        (json!({"version": "v2"}), "metadata.name"),
        (json!({"group": "Numbers"}), "spec.group"),
        (json!({"group": "", "version": "v2"}), "spec.group"),
        (json!({"version": "1"}), "spec.version"),
        (json!({"groupPriorityMinimum": 20_001}), "spec.groupPriorityMinimum"),
        (json!({"groupPriorityMinimum": 0}), "spec.groupPriorityMinimum"),
        (json!({"versionPriority": 1001}), "spec.versionPriority"),
        (json!({"service": null, "caBundle": "YQ=="}), "spec.caBundle"),
        (json!({"service": null, "insecureSkipTLSVerify": true}), "spec.insecureSkipTLSVerify"),
        (json!({"service": {"name": null}}), "spec.service.name"),
        (json!({"service": {"namespace": ""}}), "spec.service.namespace"),
        (json!({"service": {"port": 65_536}}), "spec.service.port"),
        (json!({"insecureSkipTLSVerify": true, "caBundle": "YQ=="}), "spec.insecureSkipTLSVerify"),
    ] {
        let refused = post(&server, SERVICES, &registered(&spec)).await;
        assert_eq!(refused.code, 422, "{spec}");
        let causes = refused.json()["details"]["causes"].clone();
        assert!(causes.as_array().unwrap().iter().any(|cause| cause["field"] == field), "{spec}: {causes}");
    }
    let taken = json!({"groupPriorityMinimum": 20_000, "versionPriority": 1000, "service": {"port": 65_535}});
    assert_eq!(post(&server, SERVICES, &registered(&taken)).await.code, 201);
    let path = format!("{SERVICES}/{NAME}");
    let unversioned = registered(&json!({}));
    assert_eq!(put(&server, &path, &unversioned).await.code, 422, "a replacement names what it replaces");
    let bad = merge(&server, &format!("{path}/status"), &condition("Maybe")).await;
    assert_eq!(bad.code, 422);
    assert_eq!(delete(&server, &path).await.json()["kind"], "Status");
}

#[tokio::test]
async fn what_has_no_service_is_local_and_available_at_once() {
    let server = workload_server().await;
    let made = post(&server, SERVICES, &registered(&json!({"service": null}))).await.json();
    let condition = &made["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Local")));
    assert_eq!(get(&server, "/apis/numbers.example.com/v1/primes").await.code, 404);
}

#[tokio::test]
async fn a_group_whose_service_is_not_reached_is_stale_and_answers_503() {
    let server = workload_server().await;
    let made = post(&server, SERVICES, &registered(&json!({}))).await.json();
    assert_eq!((&made["spec"]["service"]["port"], &made["status"]), (&json!(443), &json!({})));
    for path in ["/apis/numbers.example.com/v1", "/apis/numbers.example.com/v1/namespaces/default/primes/two"] {
        let answer = get(&server, path).await;
        assert_eq!((answer.code, answer.body.as_slice()), (503, &b"service unavailable\n"[..]), "{path}");
    }
    let group = get(&server, "/apis/numbers.example.com").await.json();
    assert_eq!(group["preferredVersion"]["groupVersion"], "numbers.example.com/v1");
    let groups = get(&server, "/apis").await.json();
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "numbers.example.com"));
    merge(&server, &format!("{SERVICES}/{NAME}/status"), &condition("True")).await;
    let answer = get(&server, "/apis/numbers.example.com/v1").await;
    assert_eq!(answer.code, 503, "nobody answers in this server, whatever somebody says");
    delete(&server, &format!("{SERVICES}/{NAME}")).await;
    assert_eq!(get(&server, "/apis/numbers.example.com").await.code, 404);
}

#[tokio::test]
async fn an_available_group_is_read_and_nothing_else() {
    let options = Options { profile: Profile::Workload, aggregated: Some(Arc::new(Numbers)), ..Options::default() };
    let server = server_with(options).await;
    post(&server, SERVICES, &registered(&json!({}))).await;
    merge(&server, &format!("{SERVICES}/{NAME}/status"), &condition("True")).await;
    let root = "/apis/numbers.example.com/v1";
    assert_eq!(get(&server, root).await.json()["resources"][0]["kind"], "Prime");
    let names = async |path: &str| {
        let list = get(&server, &format!("{root}/{path}")).await.json();
        assert_eq!(list["kind"], "PrimeList");
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("primes").await, ["two", "three"]);
    assert_eq!(names("namespaces/default/primes").await, ["two"]);
    assert_eq!(names("primes?labelSelector=is%3Dthree").await, ["three"]);
    let one = get(&server, &format!("{root}/namespaces/default/primes/two")).await.json();
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("Prime"), &json!("numbers.example.com/v1")));
    assert_eq!(get(&server, &format!("{root}/namespaces/default/primes/three")).await.code, 404);
    assert_eq!(get(&server, &format!("{root}/composites")).await.code, 404);
    assert_eq!(get(&server, &format!("{root}/primes?fieldSelector=metadata.name%3Dtwo")).await.code, 400);
    let four = json!({"metadata": {"name": "four"}});
    assert_eq!(post(&server, &format!("{root}/namespaces/default/primes"), &four).await.code, 405);
    assert_eq!(get(&server, &format!("{root}/primes?watch=true")).await.code, 405);
}

#[tokio::test]
async fn aggregated_discovery_tells_what_is_stale_and_lists_what_is_not() {
    let options = Options { profile: Profile::Workload, aggregated: Some(Arc::new(Numbers)), ..Options::default() };
    let server = server_with(options).await;
    post(&server, SERVICES, &registered(&json!({}))).await;
    let version = async || {
        let discovery = kube::Discovery::new(crate::support::client(&server)).run_aggregated().await.unwrap();
        discovery.get("numbers.example.com").map(|group| group.recommended_resources().len())
    };
    assert_eq!(version().await.unwrap_or_default(), 0);
    merge(&server, &format!("{SERVICES}/{NAME}/status"), &condition("True")).await;
    assert_eq!(version().await, Some(1));
}

#[tokio::test]
async fn groups_of_the_server_itself_are_nobody_elses() {
    let server = workload_server().await;
    let mut apps = registered(&json!({"group": "apps"}));
    apps["metadata"]["name"] = "v1.apps".into();
    assert_eq!(post(&server, SERVICES, &apps).await.code, 201);
    assert_eq!(get(&server, "/apis/apps/v1/deployments").await.code, 200);
    let answer = send(&server, Method::GET, "/apis/apps/v1", "application/json", "").await;
    assert_eq!(answer.code, 200);
}
