//! How many pods of a PodDisruptionBudget may be evicted: what the eviction API takes from.
//!
//! Source: kubernetes/kubernetes pkg/controller/disruption.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{
    observed::{Observed, controller_of},
    plan::Plan,
    pods,
};

/// An eviction that was allowed and whose pod is not gone by then did not take place.
const EVICTION_S: i64 = 120;

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for budget in seen.budgets.iter().filter(|budget| !pods::is_deleted(*budget)) {
        let status = status(seen, budget, plan);
        if budget.status.as_ref() != Some(&status) {
            plan.status(&PodDisruptionBudget { status: Some(status), ..budget.clone() });
        }
    }
}

fn status(seen: &Observed, budget: &PodDisruptionBudget, plan: &mut Plan) -> PodDisruptionBudgetStatus {
    let spec = budget.spec.clone().unwrap_or_default();
    let old = budget.status.clone().unwrap_or_default();
    let meant = |pod: &&Pod| {
        let selected = spec.selector.as_ref().is_some_and(|selector| pods::is_selected(selector, *pod));
        selected && pod.namespace() == budget.namespace() && !pods::has_ended(pod)
    };
    let own: Vec<&Pod> = seen.pods.iter().filter(meant).collect();
    let count = i32::try_from(own.len()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.min_available, &spec.max_unavailable) {
        (Some(IntOrString::Int(least)), _) => (count, *least),
        (Some(share), _) => {
            let scale = scale(seen, &own);
            (scale, pods::share(Some(share), scale, true))
        }
        (None, most) => {
            let scale = scale(seen, &own);
            (scale, (scale - pods::share(most.as_ref(), scale, true)).max(0))
        }
    };
    let mut disrupted = BTreeMap::new();
    for (name, since) in old.disrupted_pods.clone().unwrap_or_default() {
        let end = since.0.saturating_add(SignedDuration::from_secs(EVICTION_S)).unwrap_or(since.0);
        let there = own.iter().any(|pod| pod.name_any() == name && !pods::is_deleted(*pod));
        if there && end > seen.now {
            plan.wake_at(end);
            disrupted.insert(name, since);
        }
    }
    let healthy = |pod: &Pod| pods::is_ready(pod) && !pods::is_deleted(pod) && !disrupted.contains_key(&pod.name_any());
    let healthy = pods::count(own.iter().copied(), healthy);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(seen, budget, allowed)]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    }
}

/// How many pods those who own these want together.
fn scale(seen: &Observed, own: &[&Pod]) -> i32 {
    let mut scales: BTreeMap<&str, i32> = BTreeMap::new();
    let mut alone = 0;
    for pod in own {
        let Some(owner) = controller_of(&pod.metadata) else {
            alone += 1;
            continue;
        };
        let is = |uid: Option<String>| uid.as_ref() == Some(&owner.uid);
        let set = seen.replica_sets.iter().find(|set| is(set.uid()));
        let above = set.and_then(|set| controller_of(&set.metadata));
        let deployment =
            above.and_then(|above| seen.deployments.iter().find(|one| one.uid().as_ref() == Some(&above.uid)));
        let stateful = seen.stateful_sets.iter().find(|set| is(set.uid()));
        let (uid, scale) = match (deployment, set, stateful, above) {
            (Some(one), _, _, Some(above)) => (&above.uid, one.spec.as_ref().and_then(|spec| spec.replicas)),
            (_, Some(set), _, _) => (&owner.uid, set.spec.as_ref().and_then(|spec| spec.replicas)),
            (_, _, Some(set), _) => (&owner.uid, set.spec.as_ref().and_then(|spec| spec.replicas)),
            _ => {
                alone += 1;
                continue;
            }
        };
        scales.insert(uid, scale.unwrap_or(1));
    }
    scales.values().sum::<i32>() + alone
}

fn condition(seen: &Observed, budget: &PodDisruptionBudget, allowed: i32) -> Condition {
    const TYPE: &str = "DisruptionAllowed";
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let old = budget.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let old = old.clone().find(|condition| condition.type_ == TYPE && condition.status == status);
    Condition {
        type_: TYPE.into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        observed_generation: budget.metadata.generation,
        last_transition_time: old.map_or(Time(seen.now), |old| old.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn pod(name: &str, ready: bool) -> Value {
        json!({
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "s", "controller": true}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        })
    }

    fn allowed(rule: Value, disrupted: Value, ready: u32) -> (i64, i64, i64) {
        let mut budget = json!({"kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
                "disruptedPods": disrupted}});
        for (key, value) in rule.as_object().unwrap() {
            budget["spec"][key] = value.clone();
        }
        let set = json!({"kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default", "uid": "s"},
            "spec": {"replicas": 4, "selector": {}}});
        let pods = (0..3).map(|number| pod(&format!("p-{number}"), number < ready));
        let mut made = Plan::default();
        plan(&Observed::of(NOW, &[vec![budget, set], pods.collect()].concat()), &mut made);
        let status = made.status_of("PodDisruptionBudget");
        let number = |field: &str| status[field].as_i64().unwrap();
        (number("disruptionsAllowed"), number("desiredHealthy"), number("expectedPods"))
    }

    #[test]
    fn what_may_be_evicted_follows_from_the_rule_and_what_is_healthy() {
        for (rule, ready, want) in [
            (json!({"minAvailable": 1}), 3, (2, 1, 3)),
            (json!({"minAvailable": 1}), 1, (0, 1, 3)),
            (json!({"minAvailable": "50%"}), 3, (1, 2, 4)),
            (json!({"maxUnavailable": 1}), 3, (0, 3, 4)),
            (json!({"maxUnavailable": 2}), 3, (1, 2, 4)),
            (json!({"maxUnavailable": "50%"}), 3, (1, 2, 4)),
        ] {
            assert_eq!(allowed(rule.clone(), json!({}), ready), want, "{rule} {ready}");
        }
    }

    #[test]
    fn a_pod_that_is_being_evicted_is_not_counted_for_a_while() {
        let rule = || json!({"minAvailable": 1});
        assert_eq!(allowed(rule(), json!({"p-0": "2025-12-31T23:59:00Z"}), 3).0, 1);
        assert_eq!(allowed(rule(), json!({"p-0": "2025-12-31T23:58:00Z"}), 3).0, 2);
        assert_eq!(allowed(rule(), json!({"gone": NOW}), 3).0, 2);
    }
}
