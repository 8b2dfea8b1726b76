//! What is asked of pods by all who own them: whether they are ready, which one goes first, and how one is made.
//!
//! Source: kubernetes/kubernetes pkg/controller/controller_utils.go, pkg/api/v1/pod/util.go.

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::{
    Resource, ResourceExt,
    core::{Selector, SelectorExt},
};
use serde::Serialize;

/// Pods that a controller makes in one go.
pub const BURST: usize = 500;

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty())
}

pub fn is_deleted(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_some()
}

pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It runs, or is going to.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_deleted(pod)
}

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When a pod is, or was, ready for so long; none if it is not ready.
pub fn available_at(pod: &Pod, min_ready_s: Option<i32>) -> Option<Timestamp> {
    let wait = SignedDuration::from_secs(i64::from(min_ready_s.unwrap_or(0)));
    match ready_since(pod) {
        Some(since) => Some(since.saturating_add(wait).unwrap_or(Timestamp::MAX)),
        None => (is_ready(pod) && wait.is_zero()).then_some(Timestamp::MIN),
    }
}

pub fn is_available(pod: &Pod, min_ready_s: Option<i32>, now: Timestamp) -> bool {
    available_at(pod, min_ready_s).is_some_and(|at| at <= now)
}

pub fn count<'a>(pods: impl IntoIterator<Item = &'a Pod>, is: impl Fn(&Pod) -> bool) -> i32 {
    i32::try_from(pods.into_iter().filter(|pod| is(pod)).count()).unwrap_or(i32::MAX)
}

pub fn selector(selector: &LabelSelector) -> Selector {
    // What is no selector was refused by the API; it selects nothing.
    selector.clone().try_into().unwrap_or_else(|_| [("", "")].into_iter().collect())
}

pub fn is_selected(selector: &LabelSelector, object: &impl ResourceExt) -> bool {
    self::selector(selector).matches(object.labels())
}

pub fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Vec<OwnerReference> {
    object.controller_owner_ref(&()).into_iter().collect()
}

/// A pod of a template, in the namespace of its owner, without a name.
pub fn from_template<K: Resource<DynamicType = ()>>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.labels = given.labels;
    pod.metadata.annotations = given.annotations;
    pod.metadata.finalizers = given.finalizers;
    pod.metadata.namespace = owner.namespace();
    pod.metadata.owner_references = Some(self::owner(owner));
    pod
}

/// The name that the API completes: the owner's and a hyphen.
pub fn generate_name(owner: &str) -> String {
    format!("{owner}-")
}

/// Ten letters and digits that follow from an object.
pub fn hash(object: &impl Serialize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = serde_json::to_vec(object).unwrap_or_default();
    let digest = digest::digest(&digest::SHA256, &text);
    digest.as_ref().iter().take(10).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// Which of several goes first: what is least of use. Greater goes later.
pub fn deletion_rank(pod: &Pod) -> impl Ord + use<> {
    let phase = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let restarts: i32 =
        pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).map(|c| c.restart_count).sum();
    let newest = |time: Option<Timestamp>| std::cmp::Reverse(time.unwrap_or(Timestamp::MAX));
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let placed = node(pod).is_some();
    (placed, phase, is_ready(pod), cost, newest(ready_since(pod)), -restarts, newest(created), pod.name_any())
}

/// A number, or a share of a total in percent.
pub fn share(of: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match of {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = i64::from(total) * percent;
            let share = if up { product.div_euclid(100) + i64::from(product % 100 != 0) } else { product / 100 };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_are_rounded_as_asked() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(share(Some(&percent("25%")), 3, true), 1);
        assert_eq!(share(Some(&percent("25%")), 3, false), 0);
        assert_eq!(share(Some(&percent("100%")), 4, true), 4);
        assert_eq!(share(Some(&IntOrString::Int(2)), 4, true), 2);
        assert_eq!(share(None, 4, true), 0);
    }

    #[test]
    fn what_is_least_of_use_goes_first() {
        let pod = |name: &str, node: Option<&str>, ready: bool, cost: &str| -> Pod {
            let status = if ready { "True" } else { "False" };
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                "spec": {"containers": [], "nodeName": node},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        let mut pods = [
            pod("dear", Some("n"), true, "5"),
            pod("ready", Some("n"), true, "0"),
            pod("unready", Some("n"), false, "0"),
            pod("unplaced", None, false, "0"),
        ];
        pods.sort_by_key(deletion_rank);
        assert_eq!(pods.map(|pod| pod.name_any()), ["unplaced", "unready", "ready", "dear"]);
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(available_at(&pod, Some(10)), Some(at("2026-01-01T00:00:10Z")));
        assert!(!is_available(&pod, Some(10), at("2026-01-01T00:00:09Z")));
        assert!(is_available(&pod, None, at("2026-01-01T00:00:00Z")));
        assert_eq!(available_at(&Pod::default(), None), None);
    }
}
