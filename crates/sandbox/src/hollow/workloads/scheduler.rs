//! A node for each pod that has none, or the reason why there is no node for it.
//!
//! Source: kubernetes/kubernetes pkg/scheduler (framework/types.go for the messages, framework/plugins for the filters).
//! Left out: preemption of pods that are there, and volumes' limits.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition, PodSpec, PodStatus, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{
    nodes,
    observed::{Observed, controller_of},
    plan::{Plan, Target, Write},
    pods,
    quantity::{self, Amounts},
};

pub mod affinity;
pub mod filters;
mod spread;
pub mod storage;

const COMPONENT: &str = "default-scheduler";
const FAILED: &str = "FailedScheduling";

/// A node with what is on it.
pub struct Place<'a> {
    pub node: &'a Node,
    pub taints: Vec<Taint>,
    pub room: Amounts,
    pub used: Amounts,
    pub pods: Vec<&'a Pod>,
}

impl<'a> Place<'a> {
    fn new(node: &'a Node, now: jiff::Timestamp) -> Self {
        let room = quantity::amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        Self { node, taints: nodes::taints(node, now), room, used: Amounts::new(), pods: Vec::new() }
    }

    fn add(&mut self, pod: &'a Pod) {
        for (name, amount) in pod.spec.as_ref().map(quantity::requests).unwrap_or_default() {
            *self.used.entry(name).or_default() += amount;
        }
        self.pods.push(pod);
    }

    /// What it has in a topology, as `topology.kubernetes.io/zone`.
    pub fn domain(&self, key: &str) -> Option<&'a str> {
        self.node.labels().get(key).map(String::as_str)
    }
}

/// The nodes with the pods on them.
pub fn places(seen: &Observed) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = seen.nodes.iter().map(|node| Place::new(node, seen.now)).collect();
    let by_name: BTreeMap<String, usize> =
        places.iter().enumerate().map(|(at, place)| (place.node.name_any(), at)).collect();
    for pod in seen.pods.iter().filter(|pod| !pods::has_ended(pod)) {
        if let Some(at) = pods::node(pod).and_then(|node| by_name.get(node)) {
            places[*at].add(pod);
        }
    }
    places
}

pub fn plan(seen: &Observed, plan: &mut Plan) {
    let waits = |pod: &&Pod| {
        let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        pods::node(pod).is_none() && pods::is_active(pod) && scheduler.is_none_or(|name| name == COMPONENT)
    };
    let mut waiting: Vec<&Pod> = seen.pods.iter().filter(waits).collect();
    if waiting.is_empty() {
        return;
    }
    // The most important one first, then the oldest.
    waiting.sort_by_key(|pod| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        (std::cmp::Reverse(priority), pod.metadata.creation_timestamp.clone(), pod.name_any())
    });
    let mut places = places(seen);
    for pod in waiting {
        let Some(spec) = &pod.spec else { continue };
        if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            let why = "Scheduling is blocked due to non-empty scheduling gates";
            refuse(seen, pod, "SchedulingGated", why, plan);
            continue;
        }
        match choose(seen, &places, pod, spec) {
            Ok(at) => match storage::wanted(seen, pod, spec, &places[at].node.name_any()) {
                storage::Wanted::Nothing => {
                    let node = places[at].node.name_any();
                    let message = format!(
                        "Successfully assigned {}/{} to {node}",
                        pod.namespace().unwrap_or_default(),
                        pod.name_any()
                    );
                    plan.writes.push(Write::Bind { pod: Target::of(pod), node });
                    plan.event(pod, seen.now, (COMPONENT, "Normal", "Scheduled"), message);
                    places[at].add(pod);
                }
                storage::Wanted::Volumes(writes) => plan.writes.extend(writes),
            },
            Err(why) => refuse(seen, pod, "Unschedulable", &why, plan),
        }
    }
}

/// Writes why a pod has no node, unless it says so already.
fn refuse(seen: &Observed, pod: &Pod, reason: &str, why: &str, plan: &mut Plan) {
    let old = pods::condition(pod, "PodScheduled");
    if old.is_some_and(|old| old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(why)) {
        return;
    }
    let since = old.filter(|old| old.status == "False").and_then(|old| old.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(reason.into()),
        message: Some(why.into()),
        last_transition_time: Some(since.unwrap_or(Time(seen.now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let mut status: PodStatus = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(condition);
    plan.status(&Pod { status: Some(status), ..pod.clone() });
    if reason == "Unschedulable" {
        plan.event(pod, seen.now, (COMPONENT, "Warning", FAILED), why);
    }
}

/// The best of the nodes that a pod may be on, by its place in the list; or the scheduler's message.
fn choose(seen: &Observed, places: &[Place<'_>], pod: &Pod, spec: &PodSpec) -> Result<usize, String> {
    if places.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    if let Err(why) = storage::check(seen, pod, spec) {
        let all = places.len();
        let help = preemption(spec, all, &BTreeMap::from([(filters::UNHELPFUL, all)]));
        return Err(format!("0/{all} nodes are available: {why}. {help}"));
    }
    let cluster = filters::Cluster::new(seen, places, pod, spec);
    let verdicts: Vec<Result<(), filters::Refusal>> = places.iter().map(|place| cluster.check(place)).collect();
    let fitting = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.is_ok()).map(|(at, _)| at);
    match fitting.min_by_key(|at| rank(&places[*at], &cluster, pod, spec)) {
        Some(at) => Ok(at),
        None => Err(message(spec, &verdicts)),
    }
}

/// The lowest is the best.
fn rank(place: &Place<'_>, cluster: &filters::Cluster<'_>, pod: &Pod, spec: &PodSpec) -> impl Ord + use<> {
    let siblings = place.pods.iter().filter(|other| {
        let own = controller_of(&pod.metadata).map(|owner| &owner.uid);
        own.is_some() && controller_of(&other.metadata).map(|owner| &owner.uid) == own
    });
    let requests = quantity::requests(spec);
    // Thousandths of what it has of cpu and memory.
    let load: i128 = ["cpu", "memory"]
        .into_iter()
        .map(|name| {
            let all = [&place.used, &requests].iter().filter_map(|amounts| amounts.get(name)).sum::<i128>();
            all * 1000 / place.room.get(name).copied().unwrap_or(1).max(1)
        })
        .sum();
    let unwanted = filters::unwanted_taints(place, spec);
    let wanted = affinity::preference(place.node, spec) + cluster.preference(place);
    (unwanted, std::cmp::Reverse(wanted), siblings.count(), load, place.pods.len(), place.node.name_any())
}

/// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: ...`
fn message(spec: &PodSpec, verdicts: &[Result<(), filters::Refusal>]) -> String {
    let all = verdicts.len();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut helps: BTreeMap<&str, usize> = BTreeMap::new();
    for refusal in verdicts.iter().filter_map(|verdict| verdict.as_ref().err()) {
        for reason in &refusal.reasons {
            *reasons.entry(reason).or_default() += 1;
        }
        *helps.entry(if refusal.resolvable { filters::VICTIMLESS } else { filters::UNHELPFUL }).or_default() += 1;
    }
    format!("0/{all} nodes are available: {}. {}", histogram(&reasons), preemption(spec, all, &helps))
}

fn histogram(reasons: &BTreeMap<&str, usize>) -> String {
    let mut told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    told.sort();
    told.join(", ")
}

fn preemption(spec: &PodSpec, all: usize, helps: &BTreeMap<&str, usize>) -> String {
    if spec.preemption_policy.as_deref() == Some("Never") {
        return "preemption: not eligible due to preemptionPolicy=Never.".to_owned();
    }
    format!("preemption: 0/{all} nodes are available: {}.", histogram(helps))
}

#[cfg(test)]
mod tests;
