//! What becomes of pods when their node does: taints of nodes that are silent, and pods that have to leave.
//!
//! Source: kubernetes/kubernetes pkg/controller/nodelifecycle, tainteviction, podgc.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;

use super::{kubelet, observed::Observed, plan::Plan, pods, scheduler::affinity};

pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Set by whoever knows that a machine is off for good (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The taints that follow from a node's state.
const OWN: [&str; 3] = [UNSCHEDULABLE, NOT_READY, UNREACHABLE];

fn readiness(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.as_str())
}

/// Its kubelet does what it is told.
pub fn is_heard(node: &Node) -> bool {
    readiness(node) != Some("Unknown")
}

/// A node's taints as they are to be.
pub fn taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    let old = spec.taints.unwrap_or_default();
    let mut wanted = Vec::new();
    match readiness(node) {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    if spec.unschedulable == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let mut taints: Vec<Taint> = old.iter().filter(|taint| !OWN.contains(&taint.key.as_str())).cloned().collect();
    for (key, effect) in wanted {
        let kept = old.iter().find(|taint| taint.key == key && taint.effect == effect).cloned();
        let new = || Taint { key: key.into(), effect: effect.into(), time_added: Some(Time(now)), value: None };
        taints.push(kept.unwrap_or_else(new));
    }
    // Since when pods are sent away is what their tolerations count from.
    for taint in taints.iter_mut().filter(|taint| taint.effect == "NoExecute" && taint.time_added.is_none()) {
        taint.time_added = Some(Time(now));
    }
    taints
}

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for node in &seen.nodes {
        let wanted = taints(node, seen.now);
        let mut old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let order = |taint: &Taint| (taint.key.clone(), taint.effect.clone());
        let mut sorted = wanted.clone();
        sorted.sort_by_key(order);
        old.sort_by_key(order);
        if old != sorted {
            let version = &node.metadata.resource_version;
            plan.patch(node, json!({"metadata": {"resourceVersion": version}, "spec": {"taints": wanted}}));
        }
    }
    for pod in &seen.pods {
        let Some(name) = pods::node(pod) else { continue };
        match seen.node(name) {
            // Nobody is left to end it.
            None => plan.delete_now(pod),
            Some(_) if kubelet::is_mirror(pod) => {}
            Some(node) => leave(seen, node, pod, plan),
        }
    }
}

fn leave(seen: &Observed, node: &Node, pod: &Pod, plan: &mut Plan) {
    let taints = taints(node, seen.now);
    if pods::is_deleted(pod) {
        if !is_heard(node) && taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) {
            plan.delete_now(pod);
        }
        return;
    }
    if !is_heard(node) && pods::is_ready(pod) {
        unready(seen, pod, plan);
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let limits = taints.iter().filter(|taint| taint.effect == "NoExecute").filter_map(|taint| {
        let since = taint.time_added.as_ref().map_or(seen.now, |time| time.0);
        match stay_s(taint, tolerations) {
            Stay::Ever => None,
            Stay::Seconds(s) => Some(since.saturating_add(SignedDuration::from_secs(s)).unwrap_or(Timestamp::MAX)),
        }
    });
    match limits.min() {
        Some(end) if end <= seen.now => {
            let why = ("taint-eviction-controller", "Normal", "TaintManagerEviction");
            plan.event(pod, seen.now, why, "Marking for deletion Pod");
            plan.delete(pod);
        }
        Some(end) => plan.wake_at(end),
        None => {}
    }
}

enum Stay {
    Ever,
    Seconds(i64),
}

/// For how long a pod stays with a taint.
fn stay_s(taint: &Taint, tolerations: &[Toleration]) -> Stay {
    let tolerating: Vec<_> = tolerations.iter().filter(|toleration| affinity::tolerates(toleration, taint)).collect();
    if tolerating.is_empty() {
        return Stay::Seconds(0);
    }
    match tolerating.iter().filter_map(|toleration| toleration.toleration_seconds).min() {
        Some(seconds) => Stay::Seconds(seconds.max(0)),
        None => Stay::Ever,
    }
}

/// A pod of a node that is not heard of is not ready, whatever it said last.
fn unready(seen: &Observed, pod: &Pod, plan: &mut Plan) {
    let mut pod = pod.clone();
    let conditions = pod.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    for ready in conditions.filter(|condition| condition.type_ == "Ready") {
        ready.status = "False".into();
        ready.last_transition_time = Some(Time(seen.now));
    }
    plan.status(&pod);
}

#[cfg(test)]
mod tests;
