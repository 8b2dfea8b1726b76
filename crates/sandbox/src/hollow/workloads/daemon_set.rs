//! A pod on each node that takes it.
//!
//! Source: kubernetes/kubernetes pkg/controller/daemon (daemon_controller.go, update.go).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus},
        core::v1::{
            Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
            Toleration,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;

use super::{
    history,
    observed::Observed,
    plan::Plan,
    pods,
    scheduler::{self, Place, affinity, filters},
};

const COMPONENT: &str = "daemonset-controller";
const HISTORY_LIMIT: i32 = 10;
const GENERATION_LABEL: &str = "pod-template-generation";
/// What daemons stay with, whatever their template says: key, effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub fn plan(seen: &Observed, plan: &mut Plan) {
    let sets: Vec<&DaemonSet> = seen.daemon_sets.iter().filter(|set| !pods::is_deleted(*set)).collect();
    if sets.is_empty() {
        return;
    }
    let places = scheduler::places(seen);
    for set in sets {
        let Some(spec) = set.spec.as_ref().filter(|_| !plan.is_adopting(set)) else { continue };
        let history = history::History::of(seen, set, &spec.template);
        let Some(current) = history.current else {
            history.create(set, set.status.as_ref().and_then(|status| status.collision_count), plan);
            continue;
        };
        Daemons::new(seen, set, spec, current, &places).plan(plan);
        let limit = spec.revision_history_limit.unwrap_or(HISTORY_LIMIT);
        history.clean_up(limit, &seen.pods_of(&set.metadata).collect::<Vec<_>>(), plan);
    }
}

struct Daemons<'a> {
    seen: &'a Observed,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    hash: String,
    /// The template's pod with what daemons tolerate.
    pod: PodSpec,
    /// The nodes, and whether they are to have one, and may keep one.
    nodes: Vec<(&'a Node, bool, bool)>,
    /// Its pods that have not ended, by the node that they are on or meant for.
    by_node: BTreeMap<String, Vec<&'a Pod>>,
}

impl<'a> Daemons<'a> {
    fn new(
        seen: &'a Observed,
        set: &'a DaemonSet,
        spec: &'a DaemonSetSpec,
        current: &ControllerRevision,
        places: &[Place<'a>],
    ) -> Self {
        let mut pod = spec.template.spec.clone().unwrap_or_default();
        tolerate(&mut pod);
        let nodes = places.iter().map(|place| {
            let accepted = filters::accepts(place, &pod).is_ok();
            (place.node, accepted, affinity::matches(place.node, &pod) && stays(place, &pod))
        });
        let nodes = nodes.collect();
        let mut by_node: BTreeMap<String, Vec<&Pod>> = BTreeMap::new();
        for pod in seen.pods_of(&set.metadata) {
            if let Some(node) = pods::node(pod).map(str::to_owned).or_else(|| meant_for(pod)) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        Self { seen, set, spec, hash: history::hash_of(current), pod, nodes, by_node }
    }

    fn on(&self, node: &Node) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.by_node.get(&node.name_any()).cloned().unwrap_or_default().into_iter()
    }

    fn plan(&self, plan: &mut Plan) {
        self.place(plan);
        let rolling = self.spec.update_strategy.as_ref();
        if rolling.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete") {
            self.roll(plan);
        }
        let min_ready_s = self.spec.min_ready_seconds;
        let all = self.seen.pods_of(&self.set.metadata);
        if let Some(next) =
            all.filter_map(|pod| pods::available_at(pod, min_ready_s)).filter(|at| *at > self.seen.now).min()
        {
            plan.wake_at(next);
        }
        let status = self.status();
        if self.set.status.as_ref() != Some(&status) {
            plan.status(&DaemonSet { status: Some(status), ..self.set.clone() });
        }
    }

    /// One where there is to be one, none where there is to be none, and those that have failed anew.
    fn place(&self, plan: &mut Plan) {
        for (node, wanted, kept) in &self.nodes {
            let mut alive: Vec<&Pod> = Vec::new();
            for pod in self.on(node) {
                if pods::is_deleted(pod) {
                    continue;
                }
                if pods::phase(pod) == "Failed" {
                    let message = format!(
                        "Found failed daemon pod {}/{} on node {}, will try to kill it",
                        pod.namespace().unwrap_or_default(),
                        pod.name_any(),
                        node.name_any()
                    );
                    plan.event(self.set, self.seen.now, (COMPONENT, "Warning", "FailedDaemonPod"), message);
                    plan.delete(pod);
                } else {
                    alive.push(pod);
                }
            }
            if !*kept {
                alive.iter().for_each(|pod| self.remove(pod, plan));
            } else if *wanted && self.on(node).next().is_none() {
                plan.create(&self.daemon(node));
            } else if alive.len() > 1 && !self.surges() {
                // The oldest stays.
                alive.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
                alive[1..].iter().for_each(|pod| self.remove(pod, plan));
            }
        }
    }

    fn remove(&self, pod: &Pod, plan: &mut Plan) {
        plan.delete(pod);
        let message = format!("Deleted pod: {}", pod.name_any());
        plan.event(self.set, self.seen.now, (COMPONENT, "Normal", "SuccessfulDelete"), message);
    }

    fn daemon(&self, node: &Node) -> Pod {
        let mut pod = pods::from_template(self.set, &self.spec.template);
        pod.metadata.generate_name = Some(pods::generate_name(&self.set.name_any()));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(history::HASH_LABEL.into(), self.hash.clone());
        labels.insert(GENERATION_LABEL.into(), self.set.metadata.generation.unwrap_or(1).to_string());
        let mut spec = self.pod.clone();
        bind(&mut spec, &node.name_any());
        pod.spec = Some(spec);
        pod
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(history::HASH_LABEL) == Some(&self.hash)
    }

    fn rolling(&self, of: impl Fn(&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet) -> Option<IntOrString>) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = self.nodes.iter().filter(|(_, wanted, _)| *wanted).count();
        pods::share(rolling.and_then(of).as_ref(), i32::try_from(wanted).unwrap_or(i32::MAX), true)
    }

    fn surges(&self) -> bool {
        self.rolling(|rolling| rolling.max_surge.clone()) > 0
    }

    /// Old pods go, as many as may be missing at a time; or, with a surge, when the new one beside them is there.
    fn roll(&self, plan: &mut Plan) {
        let surge = self.rolling(|rolling| rolling.max_surge.clone());
        let missing = self.rolling(|rolling| rolling.max_unavailable.clone());
        let mut room = if surge == 0 { missing.max(1) } else { surge };
        let available = |pod: &Pod| pods::is_available(pod, self.spec.min_ready_seconds, self.seen.now);
        let mut old = Vec::new();
        for (node, ..) in self.nodes.iter().filter(|(_, wanted, _)| *wanted) {
            let alive: Vec<&Pod> = self.on(node).filter(|pod| pods::is_active(pod)).collect();
            let (new, stale): (Vec<&Pod>, Vec<&Pod>) = alive.iter().partition(|pod| self.is_new(pod));
            let Some(stale) = stale.first().copied() else {
                if surge == 0 && !new.iter().any(|pod| available(pod)) {
                    room -= 1;
                }
                continue;
            };
            match (surge, new.first()) {
                (0, _) if !available(stale) => self.remove(stale, plan),
                (0, _) => old.push(stale),
                (_, Some(new)) => {
                    room -= 1;
                    if available(new) {
                        self.remove(stale, plan);
                    }
                }
                (_, None) if !available(stale) => self.remove(stale, plan),
                (_, None) => old.push(stale),
            }
        }
        for pod in old.into_iter().take(usize::try_from(room).unwrap_or(0)) {
            match pods::node(pod).and_then(|name| self.seen.node(name)).filter(|_| surge > 0) {
                Some(node) => plan.create(&self.daemon(node)),
                None => self.remove(pod, plan),
            }
        }
    }

    fn status(&self) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: self.set.status.as_ref().and_then(|status| status.collision_count),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (node, wanted, _) in &self.nodes {
            let mut own: Vec<&Pod> = self.on(node).filter(|pod| !pods::is_deleted(*pod)).collect();
            own.sort_by_key(|pod| (!pods::is_ready(pod), pod.metadata.creation_timestamp.clone()));
            if !wanted {
                status.number_misscheduled += i32::from(!own.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = own.first() else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pods::is_ready(pod));
            available += i32::from(pods::is_available(pod, self.spec.min_ready_seconds, self.seen.now));
            updated += i32::from(own.iter().any(|pod| self.is_new(pod)));
        }
        let some = |count: i32| (count > 0).then_some(count);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }
}

/// Whether a daemon that is on a node may stay there.
fn stays(place: &Place<'_>, pod: &PodSpec) -> bool {
    let tolerations = pod.tolerations.as_deref().unwrap_or_default();
    let taints = place.taints.iter().filter(|taint| taint.effect == "NoExecute");
    taints.into_iter().all(|taint| affinity::is_tolerated(taint, tolerations))
}

fn tolerate(pod: &mut PodSpec) {
    let host = pod.host_network == Some(true);
    let network = host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    let list = pod.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !list.contains(&toleration) {
            list.push(toleration);
        }
    }
}

/// Lets the scheduler put a pod on one node only.
fn bind(pod: &mut PodSpec, node: &str) {
    let name = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    let affinity: &mut Affinity = pod.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // The node was chosen by what else was asked for.
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod waits for.
fn meant_for(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = terms.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields.find(|field| field.key == "metadata.name")?.values.as_ref()?.first().cloned()
}

#[cfg(test)]
mod tests;
