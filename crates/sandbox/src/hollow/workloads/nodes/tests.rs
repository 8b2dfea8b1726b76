use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:10:00Z";

fn node(ready: &str, spec: Value) -> Value {
    json!({"kind": "Node", "metadata": {"name": "w", "resourceVersion": "7"}, "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn pod(tolerations: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "p"},
        "spec": {"nodeName": "w", "containers": [], "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

/// A node that is silent since some time.
fn silent(since: &str) -> Value {
    node(
        "Unknown",
        json!({"taints": [
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": since},
            {"key": UNREACHABLE, "effect": "NoSchedule", "timeAdded": since},
        ]}),
    )
}

#[test]
fn a_nodes_taints_follow_its_state_and_others_stay() {
    let dedicated = json!({"key": "dedicated", "value": "db", "effect": "NoSchedule"});
    let told = planned(&[node("Unknown", json!({"taints": [dedicated], "unschedulable": true}))]).writes;
    let super::super::plan::Write::Patch { patch, .. } = &told[0] else { panic!() };
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    let keys: Vec<_> =
        patch["spec"]["taints"].as_array().unwrap().iter().map(|taint| taint["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["dedicated", UNREACHABLE, UNREACHABLE, UNSCHEDULABLE]);
    assert!(planned(&[silent("2026-01-01T00:00:00Z")]).writes.is_empty());
    let mut back = silent("2026-01-01T00:00:00Z");
    back["status"]["conditions"][0]["status"] = "True".into();
    let told = planned(&[back]).told();
    assert_eq!(told, [r#"patch Node w {"metadata":{"resourceVersion":"7"},"spec":{"taints":[]}}"#]);
}

#[test]
fn pods_leave_a_silent_node_when_they_have_tolerated_it_for_long_enough() {
    let for_300 = json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
    let stays = planned(&[silent("2026-01-01T00:06:00Z"), pod(for_300.clone())]);
    assert_eq!(stays.told(), ["status Pod p"], "it is not ready any more");
    assert_eq!(stays.wake.unwrap().to_string(), "2026-01-01T00:11:00Z");
    let mut unready = pod(for_300);
    unready["status"]["conditions"][0]["status"] = "False".into();
    assert_eq!(planned(&[silent("2026-01-01T00:05:00Z"), unready]).told(), ["delete Pod p"]);
    let daemon = pod(json!([{"operator": "Exists"}]));
    let stays = planned(&[silent("2026-01-01T00:00:00Z"), daemon]);
    assert_eq!((stays.told(), stays.wake), (vec!["status Pod p".to_owned()], None));
    let taint = json!({"taints": [{"key": "out", "effect": "NoExecute", "timeAdded": NOW}]});
    assert_eq!(planned(&[node("True", taint), pod(json!([]))]).told(), ["delete Pod p"]);
}

#[test]
fn pods_without_a_node_end_and_those_of_one_that_is_off_for_good() {
    assert_eq!(planned(&[pod(json!([]))]).told(), ["delete Pod p now"]);
    let mut deleted = pod(json!([]));
    deleted["metadata"]["deletionTimestamp"] = NOW.into();
    assert!(planned(&[silent("2026-01-01T00:00:00Z"), deleted.clone()]).told().is_empty());
    let mut off = silent("2026-01-01T00:00:00Z");
    let taint = json!({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute", "timeAdded": NOW});
    off["spec"]["taints"].as_array_mut().unwrap().push(taint);
    assert_eq!(planned(&[off, deleted]).told(), ["delete Pod p now"]);
}
