//! Which pods leave the node of a machine that goes, in which order, and what holds them.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machine/drain, docs/proposals/20240930-machine-drain-rules.md.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use api::{
    cluster::Cluster,
    drain_rule::{DrainBehavior, MachineDrainRule},
    machine::Machine,
    meta::{LabelSelector, Time},
    names,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::sync::Arc;

use crate::owner;

/// Names in a message, for each thing that is told of pods.
const NAMED_MAX: usize = 3;
/// Different refusals in a message.
const REFUSALS_MAX: usize = 5;
/// Pods of a node that is not reached are given this long to be gone, in seconds.
const UNREACHABLE_GRACE_S: u32 = 1;

/// What the workload cluster tells of the node of a machine that goes.
#[derive(Clone, Debug, Default)]
pub struct Load {
    pub pods: Vec<Pod>,
    /// Labels of the namespaces, if a rule asks for them.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// DaemonSets that exist, by namespace and name.
    pub daemon_sets: BTreeSet<(String, String)>,
    /// Volumes that are attached to the node.
    pub volumes: Vec<Volume>,
    /// Why evictions were refused when they were last tried: pods by reason.
    pub refused: BTreeMap<String, Vec<String>>,
}

/// A volume that is attached to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Namespace and name of the claim that it is bound to.
    pub claim: Option<(String, String)>,
}

/// What is to be done about the pods of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drain {
    /// To be evicted now.
    pub evict: Vec<Pod>,
    /// Of those pods; `None` is what each pod says itself.
    pub grace_s: Option<u32>,
    /// Have been told to go.
    leaving: Vec<String>,
    /// To be evicted when the ones before them are gone.
    later: Vec<String>,
    /// Complete by themselves, and are waited for.
    completing: Vec<String>,
    completing_later: Vec<String>,
    /// Claims of pods that stay: their volumes are not waited for.
    kept_claims: BTreeSet<(String, String)>,
}

/// What happens to one pod.
enum Fate {
    Stays,
    Evicted { order: i32 },
    Awaited,
}

/// A node whose kubelet is not heard of: its pods never say that they are gone.
pub fn is_unreachable(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "Unknown")
}

/// The rules that are for the machine, in the order in which they count.
pub fn rules_of(
    rules: &[Arc<MachineDrainRule>],
    machine: &Machine,
    cluster: Option<&Cluster>,
) -> Vec<Arc<MachineDrainRule>> {
    let selects = |selector: &Option<LabelSelector>, labels: Option<&BTreeMap<String, String>>| {
        selector.as_ref().is_none_or(|selector| selector.selects(labels))
    };
    let mut found: Vec<_> = rules
        .iter()
        .filter(|rule| {
            rule.spec.machines.is_empty()
                || rule.spec.machines.iter().any(|entry| {
                    selects(&entry.selector, machine.metadata.labels.as_ref())
                        && selects(
                            &entry.cluster_selector,
                            cluster.and_then(|cluster| cluster.metadata.labels.as_ref()),
                        )
                })
        })
        .cloned()
        .collect();
    found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    found
}

pub fn decide(load: &Load, rules: &[Arc<MachineDrainRule>], node: &Node, now: &Time) -> Drain {
    let unreachable = is_unreachable(node);
    let mut drain = Drain { grace_s: unreachable.then_some(UNREACHABLE_GRACE_S), ..Drain::default() };
    let (mut evicted, mut awaited) = (Vec::new(), Vec::new());
    let mut pods: Vec<_> = load.pods.iter().collect();
    pods.sort_by_key(|pod| (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref()));
    for pod in pods {
        let given_up = unreachable && is_overdue(pod, now);
        match if given_up { Fate::Stays } else { fate(load, rules, pod) } {
            Fate::Stays => drain.kept_claims.extend(claims(pod)),
            Fate::Awaited => awaited.push(pod),
            Fate::Evicted { .. } if pod.metadata.deletion_timestamp.is_some() => drain.leaving.push(name(pod)),
            Fate::Evicted { order } => evicted.push((order, pod)),
        }
    }
    // What is waited for has order 0, and what leaves holds its order until it is gone.
    let orders = evicted.iter().map(|(order, _)| *order).chain(awaited.iter().map(|_| 0));
    let lowest = orders.min().unwrap_or(0);
    for (order, pod) in evicted {
        if order == lowest {
            drain.evict.push(pod.clone());
        } else {
            drain.later.push(name(pod));
        }
    }
    let waits = if lowest == 0 { &mut drain.completing } else { &mut drain.completing_later };
    waits.extend(awaited.into_iter().map(name));
    drain
}

fn fate(load: &Load, rules: &[Arc<MachineDrainRule>], pod: &Pod) -> Fate {
    let meta = &pod.metadata;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let finished = matches!(phase, Some("Succeeded" | "Failed"));
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let set = owner::controller(meta).filter(|owner| owner.kind == "DaemonSet" && !finished);
    if set.is_some_and(|set| load.daemon_sets.contains(&(namespace.to_owned(), set.name.clone())))
        || owner::annotation_of(meta, "kubernetes.io/config.mirror").is_some()
    {
        // It would come back at once.
        return Fate::Stays;
    }
    let awaited = || if finished { Fate::Stays } else { Fate::Awaited };
    match owner::label_of(meta, names::DRAIN_LABEL).map(|value| value.to_lowercase().replacen('-', "", 1)).as_deref() {
        Some("skip") => return Fate::Stays,
        Some("waitcompleted") => return awaited(),
        _ => {}
    }
    let labels = load.namespaces.get(namespace);
    let fits = |selector: &Option<LabelSelector>, labels: Option<&BTreeMap<String, String>>| {
        selector.as_ref().is_none_or(|selector| selector.selects(labels))
    };
    let rule = rules.iter().find(|rule| {
        rule.spec.pods.is_empty()
            || rule
                .spec
                .pods
                .iter()
                .any(|entry| fits(&entry.selector, meta.labels.as_ref()) && fits(&entry.namespace_selector, labels))
    });
    match rule.map(|rule| (rule.spec.drain.behavior, rule.spec.drain.order)) {
        Some((DrainBehavior::Skip, _)) => Fate::Stays,
        Some((DrainBehavior::WaitCompleted, _)) => awaited(),
        Some((DrainBehavior::Drain, order)) => Fate::Evicted { order: order.unwrap_or(0) },
        None => Fate::Evicted { order: 0 },
    }
}

/// Told to go, and should have been gone for a while.
fn is_overdue(pod: &Pod, now: &Time) -> bool {
    let since = pod.metadata.deletion_timestamp.as_ref();
    since.is_some_and(|since| now.0.duration_since(since.0).as_secs() > i64::from(UNREACHABLE_GRACE_S))
}

fn name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn claims(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| {
        Some((namespace.clone(), volume.persistent_volume_claim.as_ref()?.claim_name.clone()))
    })
}

impl Drain {
    pub fn is_done(&self) -> bool {
        let lists = [&self.leaving, &self.later, &self.completing, &self.completing_later];
        self.evict.is_empty() && lists.iter().all(|list| list.is_empty())
    }

    /// The message of the Deleting condition.
    pub fn message(&self, refused: &BTreeMap<String, Vec<String>>, since: &Time) -> String {
        let mut lines =
            vec![format!("Drain not completed yet (started at {}):", since.0.strftime("%Y-%m-%dT%H:%M:%SZ"))];
        if !self.leaving.is_empty() {
            let text = format!("{}: deletionTimestamp set, but still not removed from the Node", pods(&self.leaving));
            lines.push(format!("* {text}"));
        }
        let evict: BTreeSet<String> = self.evict.iter().map(name).collect();
        let still = |pods: &Vec<String>| pods.iter().filter(|pod| evict.contains(*pod)).cloned().collect::<Vec<_>>();
        let refused: Vec<_> =
            refused.iter().map(|(why, pods)| (why, still(pods))).filter(|(_, pods)| !pods.is_empty()).collect();
        for (why, names) in refused.iter().take(REFUSALS_MAX) {
            lines.push(format!("* {}: {why}", pods(names)));
        }
        match refused.iter().skip(REFUSALS_MAX).map(|(_, pods)| pods.len()).sum::<usize>() {
            0 => {}
            1 => lines.push("* 1 Pod with other issues".to_owned()),
            many => lines.push(format!("* {many} Pods with other issues")),
        }
        let told: BTreeSet<&String> = refused.iter().flat_map(|(_, pods)| pods).collect();
        let asked: Vec<String> = evict.iter().filter(|pod| !told.contains(pod)).cloned().collect();
        if !asked.is_empty() {
            lines.push(format!("* {}: eviction is asked for", pods(&asked)));
        }
        if !self.completing.is_empty() {
            lines.push(format!("* {}: waiting for completion", pods(&self.completing)));
        }
        if !self.later.is_empty() {
            let later = list(&self.later);
            lines.push(format!(
                "After above Pods have been removed from the Node, the following Pods will be evicted: {later}"
            ));
        }
        if !self.completing_later.is_empty() {
            let later = list(&self.completing_later);
            lines.push(format!(
                "After above Pods have been removed from the Node, waiting for the following Pods to complete without eviction: {later}"
            ));
        }
        lines.join("\n")
    }

    /// Volumes that have to be detached before the machine goes, by what users know of them.
    pub fn waits_for<'a>(&self, volumes: &'a [Volume]) -> Vec<&'a Volume> {
        let kept = |volume: &Volume| volume.claim.as_ref().is_some_and(|claim| self.kept_claims.contains(claim));
        volumes.iter().filter(|volume| !kept(volume)).collect()
    }
}

/// The message of the Deleting condition while volumes are attached.
pub fn volumes_message(volumes: &[&Volume], since: &Time) -> String {
    let mut lines = vec![format!(
        "Waiting for Node volumes to be detached (started at {})",
        since.0.strftime("%Y-%m-%dT%H:%M:%SZ")
    )];
    let claims: Vec<_> =
        volumes.iter().filter_map(|volume| volume.claim.as_ref()).map(|(ns, name)| format!("{ns}/{name}")).collect();
    let others: Vec<_> =
        volumes.iter().filter(|volume| volume.claim.is_none()).map(|volume| volume.name.clone()).collect();
    if !claims.is_empty() {
        lines.push(format!("* PersistentVolumeClaims: {}", list(&claims)));
    }
    if !others.is_empty() {
        lines.push(format!("* Volumes without a PersistentVolumeClaim: {}", list(&others)));
    }
    lines.join("\n")
}

fn pods(names: &[String]) -> String {
    format!("{} {}", if names.len() == 1 { "Pod" } else { "Pods" }, list(names))
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown}, ... ({more} more)"),
    }
}
