//! Claims of a pod, as far as they say where it may be.
//!
//! Source: kubernetes/kubernetes pkg/scheduler/framework/plugins/volumebinding.

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, PodSpec};
use kube::ResourceExt;
use serde_json::json;

use super::affinity;
use crate::hollow::workloads::{
    observed::Observed,
    plan::{Target, Write},
    pods,
};

/// The node that a claim's volume is to be made for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Names of the claims that a pod mounts, those included that come from its own templates.
pub fn names(pod: &Pod, spec: &PodSpec) -> Vec<String> {
    let own =
        spec.volumes.iter().flatten().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
            (None, None) => None,
        });
    own.collect()
}

fn claim<'a>(seen: &'a Observed, pod: &Pod, name: &str) -> Option<&'a PersistentVolumeClaim> {
    seen.claims.iter().find(|claim| claim.name_any() == name && claim.namespace() == pod.namespace())
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    claim.spec.as_ref()?.volume_name.as_deref().filter(|_| bound)
}

/// Whether its volume is made only when a pod with it has a node.
pub fn waits_for_pod(seen: &Observed, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    let class = seen.classes.iter().find(|class| Some(class.name_any().as_str()) == name);
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// Whether all claims are there, and bound or to be bound once the pod has a node; otherwise the scheduler's words.
pub fn check(seen: &Observed, pod: &Pod, spec: &PodSpec) -> Result<(), String> {
    for name in names(pod, spec) {
        let Some(claim) = claim(seen, pod, &name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if pods::is_deleted(claim) {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if volume_name(claim).is_none() && !waits_for_pod(seen, claim) {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    Ok(())
}

/// Whether all volumes of the pod can be had on a node.
pub fn is_reachable(seen: &Observed, pod: &Pod, spec: &PodSpec, node: &Node) -> bool {
    names(pod, spec).iter().filter_map(|name| volume_name(claim(seen, pod, name)?)).all(|name| {
        let volume = seen.volumes.iter().find(|volume| volume.name_any() == name);
        let affinity = volume.and_then(|volume| volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref());
        affinity.is_none_or(|required| affinity::is_selected(node, required))
    })
}

/// What is missing before a pod can be put on the node that was found for it.
pub enum Wanted {
    Nothing,
    /// Volumes that are to be made there.
    Volumes(Vec<Write>),
}

pub fn wanted(seen: &Observed, pod: &Pod, spec: &PodSpec, node: &str) -> Wanted {
    let names = names(pod, spec);
    let claims: Vec<_> =
        names.iter().filter_map(|name| claim(seen, pod, name)).filter(|claim| volume_name(claim).is_none()).collect();
    if claims.is_empty() {
        return Wanted::Nothing;
    }
    let told = |claim: &&&PersistentVolumeClaim| claim.annotations().contains_key(SELECTED_NODE);
    let untold = claims.iter().filter(|claim| !told(claim));
    let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
    Wanted::Volumes(untold.map(|claim| Write::Patch { target: Target::of(*claim), patch: patch.clone() }).collect())
}
