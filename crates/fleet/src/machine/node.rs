//! The machine's node: found by its provider ID, labelled, freed of its first taint, drained, deleted.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    machine::{Machine, MachineTaint, NodeInfo, NodeRef, NodeSwap, TaintPropagation},
    names,
};
use control::{Error, Key, Outcome, Result, bounded};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::{MachinePlan, Memory, NODE_PAUSE_S, Seen, eviction};
use crate::{owner, workload::Workloads};

/// Label prefixes that are carried from a machine to its node (Cluster API book, metadata propagation).
const SYNCED_PREFIX: &str = "node-role.kubernetes.io";
const SYNCED_DOMAINS: [&str; 2] = ["node-restriction.kubernetes.io", "node.cluster.x-k8s.io"];
const LABELS_FROM_MACHINE: &str = "cluster.x-k8s.io/labels-from-machine";
/// Taints that go with their machine's word, each `key:effect`; there since the node was first brought in line.
const TAINTS_FROM_MACHINE: &str = "cluster.x-k8s.io/taints-from-machine";

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
    if let Some(patch) = metadata(&seen.machine, node, seen.outdated) {
        plan.remote.push(Remote::Patch { node: node.metadata.name.clone().unwrap_or_default(), patch });
    }
}

/// The patch that gives the node what its machine says about it; `None` if it has it.
fn metadata(machine: &Machine, node: &Node, outdated: bool) -> Option<serde_json::Value> {
    let meta = &node.metadata;
    let name = |meta: &kube::core::ObjectMeta| meta.name.clone().unwrap_or_default();
    let wanted: BTreeMap<&str, &str> = machine
        .metadata
        .labels
        .iter()
        .flatten()
        .filter(|(key, _)| is_synced(key))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let earlier = owner::annotation_of(meta, LABELS_FROM_MACHINE).unwrap_or_default();
    let mut labels = serde_json::Map::new();
    for key in earlier.split(',').filter(|key| !key.is_empty() && !wanted.contains_key(key)) {
        if owner::label_of(meta, key).is_some() {
            labels.insert(key.to_owned(), serde_json::Value::Null);
        }
    }
    for (key, value) in &wanted {
        if owner::label_of(meta, key) != Some(value) {
            labels.insert((*key).to_owned(), (*value).into());
        }
    }
    let maker = owner::controller(&machine.metadata);
    let annotations: BTreeMap<&str, String> = [
        (names::CLUSTER_NAME_ANNOTATION, machine.spec.cluster_name.clone()),
        (names::CLUSTER_NAMESPACE_ANNOTATION, machine.metadata.namespace.clone().unwrap_or_default()),
        (names::MACHINE_ANNOTATION, name(&machine.metadata)),
        (names::OWNER_KIND_ANNOTATION, maker.map(|owner| owner.kind.clone()).unwrap_or_default()),
        (names::OWNER_NAME_ANNOTATION, maker.map(|owner| owner.name.clone()).unwrap_or_default()),
        (LABELS_FROM_MACHINE, wanted.keys().copied().collect::<Vec<_>>().join(",")),
    ]
    .into_iter()
    .chain(taint_record(machine, node).map(|record| (TAINTS_FROM_MACHINE, record)))
    .filter(|(key, value)| owner::annotation_of(meta, key) != Some(value.as_str()))
    .collect();
    let taints = taints(machine, node, outdated);
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

fn is_synced(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    domain == SYNCED_PREFIX
        || SYNCED_DOMAINS.iter().any(|synced| domain == *synced || domain.ends_with(&format!(".{synced}")))
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
