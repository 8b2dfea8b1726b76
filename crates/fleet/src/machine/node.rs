//! The machine's node: found by its provider ID, labelled, freed of its first taint, drained, deleted.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    machine::{Machine, MachineTaint, NodeInfo, NodeRef, NodeSwap, TaintPropagation},
    names,
};
use control::{Error, EventType, Key, Outcome, Result, bounded};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::{MachinePlan, Memory, NODE_PAUSE_S, Seen, eviction};
use crate::{owner, workload::Workloads};

/// Keys that the node has from its machine, there since it was first brought in line.
const LABELS_FROM_MACHINE: &str = "cluster.x-k8s.io/labels-from-machine";
/// The same of annotations, where there was one.
const ANNOTATIONS_FROM_MACHINE: &str = "cluster.x-k8s.io/annotations-from-machine";
/// Taints that go with their machine's word, each `key:effect`; there since the node was first brought in line.
const TAINTS_FROM_MACHINE: &str = "cluster.x-k8s.io/taints-from-machine";

/// What a node says in these is not copied.
const OWN_ANNOTATIONS: [&str; 8] = [
    names::CLUSTER_NAME_ANNOTATION,
    names::CLUSTER_NAMESPACE_ANNOTATION,
    names::MACHINE_ANNOTATION,
    names::OWNER_KIND_ANNOTATION,
    names::OWNER_NAME_ANNOTATION,
    LABELS_FROM_MACHINE,
    ANNOTATIONS_FROM_MACHINE,
    TAINTS_FROM_MACHINE,
];

/// A change in the workload cluster.
#[derive(Debug)]
pub enum Remote {
    /// Merge patch of a node, against the resourceVersion that it carries.
    Patch { node: String, patch: serde_json::Value },
    /// Cordon, and ask the pods to leave as their disruption budgets allow.
    Drain { node: String, pods: Vec<Pod>, grace_s: Option<u32> },
    /// Not required: a failure is logged and the machine goes all the same.
    Delete { node: String, required: bool },
}

/// Finds the node and brings its metadata in line.
pub fn plan(seen: &Seen, plan: &mut MachinePlan, after: &mut Machine) {
    let Some(node) = &seen.node else {
        if after.spec.provider_id.is_some() {
            plan.local.wait("the node", NODE_PAUSE_S);
        }
        return;
    };
    let status = after.status.get_or_insert_default();
    status.node_ref = Some(NodeRef { name: node.metadata.name.clone().unwrap_or_default() });
    status.node_info = node.status.as_ref().and_then(|status| status.node_info.as_ref()).map(info);
    if let Some(patch) = metadata(seen, node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if patch["metadata"]["labels"].get(names::INTERRUPTIBLE_LABEL).is_some_and(|value| !value.is_null()) {
            let machine = seen.machine.as_ref();
            plan.local.event(machine, EventType::Normal, "SuccessfulSetInterruptibleNodeLabel", name.as_str());
        }
        plan.remote.push(Remote::Patch { node: name, patch });
    }
}

/// The patch that gives the node what its machine says about it; `None` if it has it.
fn metadata(seen: &Seen, node: &Node) -> Option<serde_json::Value> {
    let (machine, meta) = (seen.machine.as_ref(), &node.metadata);
    let name = |meta: &kube::core::ObjectMeta| meta.name.clone().unwrap_or_default();
    let mut wanted = chosen(machine.metadata.labels.as_ref(), |key| seen.synced.label(key));
    let infrastructure = seen.infrastructure.as_ref();
    if infrastructure.and_then(|infra| infra.read("/status/interruptible")) == Some(true) {
        wanted.insert(names::INTERRUPTIBLE_LABEL, "");
    }
    let labels = changes(&wanted, owner::annotation_of(meta, LABELS_FROM_MACHINE), meta.labels.as_ref());
    let own = |key: &str| OWN_ANNOTATIONS.contains(&key);
    let copied = chosen(machine.metadata.annotations.as_ref(), |key| seen.synced.annotation(key) && !own(key));
    let earlier = owner::annotation_of(meta, ANNOTATIONS_FROM_MACHINE);
    let mut annotations = changes(&copied, earlier, meta.annotations.as_ref());
    annotations.retain(|key, _| !own(key));
    // A node that never had one is not written to say so.
    let copies = (!copied.is_empty() || earlier.is_some()).then(|| record(&copied));
    let maker = owner::controller(&machine.metadata);
    let said = [
        (names::CLUSTER_NAME_ANNOTATION, machine.spec.cluster_name.clone()),
        (names::CLUSTER_NAMESPACE_ANNOTATION, machine.metadata.namespace.clone().unwrap_or_default()),
        (names::MACHINE_ANNOTATION, name(&machine.metadata)),
        (names::OWNER_KIND_ANNOTATION, maker.map(|owner| owner.kind.clone()).unwrap_or_default()),
        (names::OWNER_NAME_ANNOTATION, maker.map(|owner| owner.name.clone()).unwrap_or_default()),
        (LABELS_FROM_MACHINE, record(&wanted)),
    ]
    .into_iter()
    .chain(copies.map(|record| (ANNOTATIONS_FROM_MACHINE, record)))
    .chain(taint_record(machine, node).map(|record| (TAINTS_FROM_MACHINE, record)))
    .filter(|(key, value)| owner::annotation_of(meta, key) != Some(value.as_str()));
    annotations.extend(said.map(|(key, value)| (key.to_owned(), value.into())));
    let taints = taints(machine, node, seen.outdated);
    if labels.is_empty() && annotations.is_empty() && taints.is_none() {
        return None;
    }
    let mut patch = json!({"metadata": {
        "resourceVersion": meta.resource_version, "labels": labels, "annotations": annotations,
    }});
    if let Some(taints) = taints {
        patch["spec"] = json!({ "taints": taints });
    }
    Some(patch)
}

type Words = BTreeMap<String, String>;

fn chosen(all: Option<&Words>, is: impl Fn(&str) -> bool) -> BTreeMap<&str, &str> {
    all.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).filter(|(key, _)| is(key)).collect()
}

/// What the node is to say of the keys that are its machine's.
fn record(wanted: &BTreeMap<&str, &str>) -> String {
    wanted.keys().copied().collect::<Vec<_>>().join(",")
}

/// What makes the node's words those that are wanted, and takes those away that it has from its machine and are wanted no more.
fn changes(
    wanted: &BTreeMap<&str, &str>,
    earlier: Option<&str>,
    has: Option<&Words>,
) -> serde_json::Map<String, serde_json::Value> {
    let of = |key: &str| has.and_then(|has| has.get(key)).map(String::as_str);
    let gone = earlier.into_iter().flat_map(|earlier| earlier.split(','));
    let gone = gone.filter(|key| !wanted.contains_key(key) && of(key).is_some());
    let new = wanted.iter().filter(|(key, value)| of(key) != Some(value));
    let gone = gone.map(|key| (key.to_owned(), serde_json::Value::Null));
    gone.chain(new.map(|(key, value)| ((*key).to_owned(), (*value).into()))).collect()
}

/// As the record names it.
fn mark(key: &str, effect: &str) -> String {
    format!("{key}:{effect}")
}

fn effect(taint: &MachineTaint) -> String {
    format!("{:?}", taint.effect)
}

/// The marks of those taints of the machine that are propagated so.
fn marks(machine: &Machine, propagation: TaintPropagation) -> BTreeSet<String> {
    let taints = machine.spec.taints.iter().filter(|taint| taint.propagation == propagation);
    taints.map(|taint| mark(&taint.key, &effect(taint))).collect()
}

/// Whether the node was brought in line before. One of a manager that keeps no record of taints has that of labels.
fn is_initialized(node: &Node) -> bool {
    let has = |key: &str| owner::annotation_of(&node.metadata, key).is_some();
    has(TAINTS_FROM_MACHINE) || (has(LABELS_FROM_MACHINE) && !has_first_taint(node))
}

fn has_first_taint(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == names::UNINITIALIZED_TAINT)
}

/// What the node is to say of the taints that are its machine's; `None` where it says nothing and nothing is to be said.
fn taint_record(machine: &Machine, node: &Node) -> Option<String> {
    let owned = marks(machine, TaintPropagation::Always);
    let silent = is_initialized(node) && owner::annotation_of(&node.metadata, TAINTS_FROM_MACHINE).is_none();
    (!owned.is_empty() || !silent).then(|| owned.into_iter().collect::<Vec<_>>().join(","))
}

/// The node's taints without the one that it registered with and those that the machine declares no more, with those that it
/// declares, and with the one of outdated revisions as long as it is of one.
fn taints(machine: &Machine, node: &Node, outdated: bool) -> Option<Vec<Taint>> {
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut new: Vec<Taint> = old.iter().filter(|taint| taint.key != names::UNINITIALIZED_TAINT).cloned().collect();
    let record = owner::annotation_of(&node.metadata, TAINTS_FROM_MACHINE).unwrap_or_default();
    let earlier: BTreeSet<&str> = record.split(',').collect();
    let [always, start] = [TaintPropagation::Always, TaintPropagation::OnInitialization].map(|of| marks(machine, of));
    new.retain(|taint| {
        let mark = mark(&taint.key, &taint.effect);
        !earlier.contains(mark.as_str()) || always.contains(&mark) || start.contains(&mark)
    });
    for taint in &machine.spec.taints {
        // Those for the start are set once: whoever takes them away then is not contradicted.
        if taint.propagation == TaintPropagation::OnInitialization && is_initialized(node) {
            continue;
        }
        let effect = effect(taint);
        let same = |other: &&mut Taint| other.key == taint.key && other.effect == effect;
        match new.iter_mut().find(same) {
            Some(other) => other.value = taint.value.clone(),
            None => new.push(Taint { effect, key: taint.key.clone(), time_added: None, value: taint.value.clone() }),
        }
    }
    let tells = |taint: &Taint| taint.key == names::OUTDATED_TAINT && taint.effect == "PreferNoSchedule";
    match new.iter().position(tells) {
        Some(at) if !outdated => drop(new.remove(at)),
        None if outdated => new.push(Taint {
            effect: "PreferNoSchedule".to_owned(),
            key: names::OUTDATED_TAINT.to_owned(),
            ..Taint::default()
        }),
        _ => {}
    }
    (new != old).then_some(new)
}

fn info(info: &k8s_openapi::api::core::v1::NodeSystemInfo) -> NodeInfo {
    NodeInfo {
        architecture: info.architecture.clone(),
        boot_id: info.boot_id.clone(),
        container_runtime_version: info.container_runtime_version.clone(),
        kernel_version: info.kernel_version.clone(),
        kube_proxy_version: info.kube_proxy_version.clone(),
        kubelet_version: info.kubelet_version.clone(),
        machine_id: info.machine_id.clone(),
        operating_system: info.operating_system.clone(),
        os_image: info.os_image.clone(),
        swap: info.swap.as_ref().map(|swap| NodeSwap { capacity: swap.capacity }),
        system_uuid: info.system_uuid.clone(),
    }
}

impl Remote {
    pub async fn carry_out(self, workloads: &Workloads, cluster: &Key, memory: &mut Memory) -> Result<Outcome> {
        let Some(client) = workloads.client(cluster) else {
            return Ok(Outcome::waiting(format!("the API of cluster {cluster}"), NODE_PAUSE_S));
        };
        let nodes = Api::<Node>::all(client.clone());
        match self {
            Self::Patch { node, patch } => {
                match bounded(cluster, nodes.patch(&node, &PatchParams::default(), &Patch::Merge(patch))).await? {
                    Ok(_) => Ok(Outcome::Settled),
                    // Changed or gone since: the watch tells, and the machine comes again.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                        Ok(Outcome::waiting("the node's next state", 1))
                    }
                    Err(source) => Err(Error::api("patch", format!("node {node} of {cluster}"), source)),
                }
            }
            Self::Delete { node, required } => {
                let deleted = bounded(cluster, nodes.delete(&node, &DeleteParams::default())).await;
                let deleted = match deleted {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
                    Ok(Err(source)) => Err(Error::api("delete", format!("node {node} of {cluster}"), source)),
                    Err(late) => Err(late),
                };
                match deleted {
                    Err(error) if !required => {
                        let error = error.chain();
                        warn!(node, %cluster, error, "the node stays behind: it could not be deleted in time");
                        Ok(Outcome::Settled)
                    }
                    other => other.map(|()| Outcome::Settled),
                }
            }
            Self::Drain { node, pods, grace_s } => {
                let (outcome, refused) = eviction::evict(workloads, cluster, &node, pods, grace_s).await?;
                memory.refused = refused;
                Ok(outcome)
            }
        }
    }
}
