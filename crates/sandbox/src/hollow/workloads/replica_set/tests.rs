use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn set(replicas: u32) -> Value {
    json!({
        "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default", "uid": "s", "generation": 3},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}},
    })
}

fn pod(name: &str, phase: &str, ready: bool) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "s", "controller": true}]},
        "spec": {"nodeName": "w", "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": NOW}]},
    })
}

fn planned(now: &str, objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(now, objects), &mut made);
    made
}

#[test]
fn as_many_pods_are_made_or_deleted_as_are_missing_or_too_many() {
    let told = planned(NOW, &[set(3), pod("p", "Running", true), pod("ended", "Failed", false)]).told();
    assert_eq!(told, ["create Pod web-", "create Pod web-", "status ReplicaSet web"]);
    let many = planned(NOW, &[set(1), pod("p", "Running", true), pod("q", "Pending", false)]);
    assert_eq!(many.told()[0], "delete Pod q");
    assert_eq!(many.events(), ["SuccessfulDelete"]);
    let burst = planned(NOW, &[set(1000)]).told();
    assert_eq!(burst.iter().filter(|one| one.starts_with("create Pod")).count(), pods::BURST);
}

#[test]
fn the_status_counts_pods_and_settles() {
    let mut slow = set(2);
    slow["spec"]["minReadySeconds"] = 30.into();
    let mut objects = vec![slow, pod("p", "Running", true), pod("q", "Running", false)];
    let plan = planned(NOW, &objects);
    let status = plan.status_of("ReplicaSet");
    assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(2), &json!(1)));
    assert_eq!((&status["availableReplicas"], &status["observedGeneration"]), (&Value::Null, &json!(3)));
    assert_eq!(plan.wake.unwrap().to_string(), "2026-01-01T00:00:30Z");
    let later = planned("2026-01-01T00:00:30Z", &objects).status_of("ReplicaSet");
    assert_eq!(later["availableReplicas"], 1);
    objects[0]["status"] = later;
    assert!(planned("2026-01-01T00:01:00Z", &objects).writes.is_empty());
}

#[test]
fn what_the_api_refuses_is_told_until_it_is_taken() {
    let mut seen = Observed::of(NOW, &[set(1)]);
    seen.refused.insert("s".into(), "exceeded quota: pods".into());
    let mut made = Plan::default();
    plan(&seen, &mut made);
    let status = made.status_of("ReplicaSet");
    let condition = &status["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert_eq!(condition["message"], "exceeded quota: pods");
    assert_eq!(made.events(), ["FailedCreate"]);
    let mut told = set(1);
    told["status"] = status;
    let taken = planned(NOW, &[told, pod("p", "Running", true)]).status_of("ReplicaSet");
    assert_eq!(taken["conditions"], Value::Null);
}
