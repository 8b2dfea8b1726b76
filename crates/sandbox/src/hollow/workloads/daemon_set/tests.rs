use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn node(name: &str, taint: Option<(&str, &str)>) -> Value {
    let taints: Vec<_> = taint.into_iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
    json!({"kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints}, "status": {
        "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn set(image: &str) -> Value {
    json!({
        "kind": "DaemonSet", "metadata": {"name": "agent", "namespace": "default", "uid": "s", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {
            "metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "a", "image": image}]}}},
    })
}

/// The revision of a template, with the hash that it is told by.
fn revision(image: &str, number: i64) -> Value {
    let spec = set(image)["spec"].clone();
    let mut template = super::super::plan::value(
        &serde_json::from_value::<k8s_openapi::api::core::v1::PodTemplateSpec>(spec["template"].clone()).unwrap(),
    );
    template["$patch"] = "replace".into();
    json!({"kind": "ControllerRevision", "revision": number, "data": {"spec": {"template": template}}, "metadata": {
        "name": format!("agent-{image}"), "namespace": "default", "uid": image, "labels": {history::HASH_LABEL: image},
        "ownerReferences": owner()}})
}

fn owner() -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "s", "controller": true}])
}

fn pod(name: &str, node: &str, image: &str, ready: bool) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "ownerReferences": owner(),
            "labels": {"app": "agent", history::HASH_LABEL: image}},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": image}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

#[test]
fn each_node_that_takes_it_gets_one_that_only_it_may_have() {
    let first = planned(&[set("a"), node("w", None)]).told();
    assert!(first[0].starts_with("create ControllerRevision agent-"), "{first:?}");
    let tainted = node("t", Some(("dedicated", "NoSchedule")));
    let plan = planned(&[set("a"), revision("a", 1), node("w", None), tainted]);
    assert_eq!(plan.told(), ["create Pod agent-", "status DaemonSet agent"]);
    assert_eq!(plan.status_of("DaemonSet")["desiredNumberScheduled"], 1);
    let super::super::plan::Write::Create(pod) = &plan.writes[0] else { panic!() };
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    assert_eq!(meant_for(&pod).as_deref(), Some("w"));
    assert_eq!(pod.labels()[history::HASH_LABEL], "a");
    assert_eq!(pod.spec.unwrap().tolerations.unwrap().len(), TOLERATED.len());
}

#[test]
fn a_node_that_does_not_take_it_any_more_keeps_what_it_may_keep() {
    let objects = |effect: &str| {
        vec![set("a"), revision("a", 1), node("w", Some(("dedicated", effect))), pod("p", "w", "a", true)]
    };
    let kept = planned(&objects("NoSchedule"));
    assert_eq!(kept.told(), ["status DaemonSet agent"]);
    assert_eq!(kept.status_of("DaemonSet")["numberMisscheduled"], 1);
    assert_eq!(planned(&objects("NoExecute")).told()[0], "delete Pod p");
}

#[test]
fn a_new_template_replaces_one_pod_at_a_time() {
    let nodes = [node("w-1", None), node("w-2", None)];
    let with =
        |pods: &[Value]| [vec![set("b"), revision("a", 1), revision("b", 2)], nodes.to_vec(), pods.to_vec()].concat();
    let old = || vec![pod("p-1", "w-1", "a", true), pod("p-2", "w-2", "a", true)];
    assert_eq!(planned(&with(&old())).told(), ["delete Pod p-1", "status DaemonSet agent"]);
    let begun = with(&[pod("q-1", "w-1", "b", false), pod("p-2", "w-2", "a", true)]);
    assert_eq!(planned(&begun).told(), ["status DaemonSet agent"]);
    let next = with(&[pod("q-1", "w-1", "b", true), pod("p-2", "w-2", "a", true)]);
    assert_eq!(planned(&next).told()[0], "delete Pod p-2");
    let done = planned(&with(&[pod("q-1", "w-1", "b", true), pod("q-2", "w-2", "b", true)]));
    let status = done.status_of("DaemonSet");
    assert_eq!((&status["updatedNumberScheduled"], &status["numberAvailable"]), (&json!(2), &json!(2)));
    let mut on_delete = with(&old());
    on_delete[0]["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    assert_eq!(planned(&on_delete).told(), ["status DaemonSet agent"]);
}

#[test]
fn with_a_surge_the_new_pod_comes_before_the_old_one_goes() {
    let surging = |pods: &[Value]| {
        let mut set = set("b");
        set["spec"]["updateStrategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        planned(&[vec![set, revision("a", 1), revision("b", 2), node("w", None)], pods.to_vec()].concat()).told()
    };
    assert_eq!(surging(&[pod("p", "w", "a", true)])[0], "create Pod agent-");
    let begun = surging(&[pod("p", "w", "a", true), pod("q", "w", "b", false)]);
    assert_eq!(begun, ["status DaemonSet agent"]);
    assert_eq!(surging(&[pod("p", "w", "a", true), pod("q", "w", "b", true)])[0], "delete Pod p");
}

#[test]
fn one_that_failed_is_made_anew() {
    let mut failed = pod("p", "w", "a", false);
    failed["status"]["phase"] = "Failed".into();
    let plan = planned(&[set("a"), revision("a", 1), node("w", None), failed]);
    assert_eq!(plan.told()[0], "delete Pod p");
    assert_eq!(plan.events(), ["FailedDaemonPod"]);
}
