//! As many pods as a ReplicaSet asks for.
//!
//! Source: kubernetes/kubernetes pkg/controller/replicaset.

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{observed::Observed, plan::Plan, pods};

const COMPONENT: &str = "replicaset-controller";

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for set in seen.replica_sets.iter().filter(|set| !pods::is_deleted(*set)) {
        if !plan.is_adopting(set) {
            of_one(seen, set, plan);
        }
    }
}

fn of_one(seen: &Observed, set: &ReplicaSet, plan: &mut Plan) {
    let Some(spec) = &set.spec else { return };
    let active: Vec<&Pod> = seen.pods_of(&set.metadata).filter(|pod| pods::is_active(pod)).collect();
    let want = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if let Some(template) = spec.template.as_ref().filter(|_| active.len() < want) {
        let mut pod = pods::from_template(set, template);
        pod.metadata.generate_name = Some(pods::generate_name(&set.name_any()));
        for _ in 0..(want - active.len()).min(pods::BURST) {
            plan.create(&pod);
        }
    }
    if active.len() > want {
        let mut going = active.clone();
        going.sort_by_cached_key(|pod| pods::deletion_rank(pod));
        for pod in &going[..active.len() - want] {
            plan.delete(*pod);
            let message = format!("Deleted pod: {}", pod.name_any());
            plan.event(set, seen.now, (COMPONENT, "Normal", "SuccessfulDelete"), message);
        }
    }
    for pod in &active {
        // Whoever has made a pod learns its name from the answer: told when it is seen.
        if pods::node(pod).is_none() && pods::condition(pod, "PodScheduled").is_none() {
            let message = format!("Created pod: {}", pod.name_any());
            plan.event(set, seen.now, (COMPONENT, "Normal", "SuccessfulCreate"), message);
        }
    }
    let min_ready_s = spec.min_ready_seconds;
    let next = active.iter().filter_map(|pod| pods::available_at(pod, min_ready_s)).filter(|at| *at > seen.now).min();
    if let Some(next) = next {
        plan.wake_at(next);
    }
    let status = status(seen, set, &active);
    if set.status.as_ref() != Some(&status) {
        for failure in status.conditions.iter().flatten().filter(|condition| condition.type_ == "ReplicaFailure") {
            let message = failure.message.clone().unwrap_or_default();
            plan.event(set, seen.now, (COMPONENT, "Warning", "FailedCreate"), format!("Error creating: {message}"));
        }
        plan.status(&ReplicaSet { status: Some(status), ..set.clone() });
    }
}

fn status(seen: &Observed, set: &ReplicaSet, active: &[&Pod]) -> ReplicaSetStatus {
    let min_ready_s = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
    let labels = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone());
    let labels = labels.unwrap_or_default();
    let count = |is: &dyn Fn(&Pod) -> bool| pods::count(active.iter().copied(), is);
    let some = |count: i32| (count > 0).then_some(count);
    let going = pods::count(seen.pods_of(&set.metadata), |pod| pods::is_deleted(pod) && !pods::has_ended(pod));
    let old = set.status.clone().unwrap_or_default();
    let has = |pod: &Pod| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&has)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|pod| pods::is_available(pod, min_ready_s, seen.now))),
        terminating_replicas: Some(going),
        observed_generation: set.metadata.generation,
        conditions: conditions(seen, set, old.conditions),
    }
}

fn conditions(
    seen: &Observed,
    set: &ReplicaSet,
    old: Option<Vec<ReplicaSetCondition>>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let refused = set.metadata.uid.as_ref().and_then(|uid| seen.refused.get(uid));
    match refused {
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(message)
            if conditions.iter().any(|c| c.type_ == "ReplicaFailure" && c.message.as_ref() == Some(message)) => {}
        Some(message) => {
            conditions.retain(|condition| condition.type_ != "ReplicaFailure");
            conditions.push(ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some("FailedCreate".into()),
                message: Some(message.clone()),
                last_transition_time: Some(Time(seen.now)),
            });
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests;
