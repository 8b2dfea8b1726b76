//! Claims and the volumes that they are bound to.
//!
//! Source: kubernetes/kubernetes pkg/controller/volume/persistentvolume; sig-storage-lib-external-provisioner for the names.
//! Left out: attachments to servers, resizing, and the protection of claims that are in use.

use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    observed::Observed,
    plan::Plan,
    pods, quantity,
    scheduler::storage::{SELECTED_NODE, waits_for_pod},
};

const COMPONENT: &str = "persistentvolume-controller";
const BOUND: &str = "pv.kubernetes.io/bind-completed";
const PROVISIONERS: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];

pub fn plan(seen: &Observed, plan: &mut Plan) {
    let mut given = Vec::new();
    for claim in seen.claims.iter().filter(|claim| !pods::is_deleted(*claim)) {
        match volume_of(seen, claim) {
            Some(volume) => bind(seen, claim, volume, plan),
            None if is_bound(claim) => lose(claim, plan),
            None => {
                let free =
                    seen.volumes.iter().find(|volume| !given.contains(&volume.name_any()) && fits(seen, claim, volume));
                match free {
                    Some(volume) => {
                        given.push(volume.name_any());
                        let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                            "namespace": claim.namespace(), "name": claim.name_any(), "uid": claim.uid()});
                        plan.patch(volume, json!({"spec": {"claimRef": reference}}));
                    }
                    None => wait(seen, claim, plan),
                }
            }
        }
    }
    for volume in seen.volumes.iter().filter(|volume| !pods::is_deleted(*volume)) {
        phase(seen, volume, plan);
    }
}

pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

pub fn class_of<'a>(seen: &'a Observed, claim: &PersistentVolumeClaim) -> Option<&'a StorageClass> {
    let name = claim.spec.as_ref()?.storage_class_name.as_deref()?;
    seen.classes.iter().find(|class| class.name_any() == name)
}

/// The volume that says that it is this claim's.
pub fn volume_of<'a>(seen: &'a Observed, claim: &PersistentVolumeClaim) -> Option<&'a PersistentVolume> {
    let own = |volume: &&PersistentVolume| {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        reference.is_some_and(|reference| reference.uid.is_some() && reference.uid == claim.uid())
    };
    seen.volumes.iter().find(own)
}

/// Whether a volume that nobody has made for it does for a claim.
fn fits(seen: &Observed, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(want), Some(has)) = (&claim.spec, &volume.spec) else { return false };
    if want.volume_name.as_ref().is_some_and(|name| *name != volume.name_any()) || pods::is_deleted(volume) {
        return false;
    }
    match &has.claim_ref {
        // Somebody has kept it for the claim, by its name.
        Some(reference) => {
            return reference.uid.is_none()
                && reference.name == claim.metadata.name
                && reference.namespace == claim.metadata.namespace;
        }
        None if waits_for_pod(seen, claim) && !claim.annotations().contains_key(SELECTED_NODE) => return false,
        None => {}
    }
    let text = |class: &Option<String>| class.clone().unwrap_or_default();
    let modes = want.access_modes.iter().flatten();
    let storage = |list: Option<&std::collections::BTreeMap<String, _>>| quantity::amounts(list).remove("storage");
    let asked = storage(want.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    text(&want.storage_class_name) == text(&has.storage_class_name)
        && mode(&want.volume_mode) == mode(&has.volume_mode)
        && modes.into_iter().all(|mode| has.access_modes.iter().flatten().any(|own| own == mode))
        && want.selector.as_ref().is_none_or(|selector| pods::is_selected(selector, volume))
        && asked <= storage(has.capacity.as_ref())
}

fn bind(seen: &Observed, claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let name = volume.name_any();
    let told = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()) == Some(&name);
    if !told || !claim.annotations().contains_key(BOUND) {
        let annotations = json!({BOUND: "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
        plan.patch(claim, json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": name}}));
        return;
    }
    let spec = volume.spec.clone().unwrap_or_default();
    let status = PersistentVolumeClaimStatus {
        phase: Some("Bound".into()),
        access_modes: spec.access_modes,
        capacity: spec.capacity,
        ..claim.status.clone().unwrap_or_default()
    };
    if claim.status.as_ref() != Some(&status) {
        plan.status(&PersistentVolumeClaim { status: Some(status), ..claim.clone() });
        let message = format!("Volume {name} is bound");
        plan.event(claim, seen.now, (COMPONENT, "Normal", "VolumeBound"), message);
    }
}

/// Its volume is gone.
fn lose(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let status = PersistentVolumeClaimStatus { phase: Some("Lost".into()), ..claim.status.clone().unwrap_or_default() };
    plan.status(&PersistentVolumeClaim { status: Some(status), ..claim.clone() });
}

/// Tells what a claim waits for, once.
fn wait(seen: &Observed, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        return;
    }
    let class = class_of(seen, claim).filter(|class| class.provisioner != "kubernetes.io/no-provisioner");
    let selected = claim.annotations().contains_key(SELECTED_NODE);
    let (reason, message) = match class {
        _ if waits_for_pod(seen, claim) && !selected => {
            ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned())
        }
        Some(class) => {
            let name = &class.provisioner;
            if PROVISIONERS.iter().any(|key| claim.annotations().get(*key) != Some(name)) {
                let annotations: serde_json::Map<_, _> =
                    PROVISIONERS.iter().map(|key| ((*key).to_owned(), name.as_str().into())).collect();
                plan.patch(claim, json!({"metadata": {"annotations": annotations}}));
            }
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system \
                 administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
                 registered."
            );
            ("ExternalProvisioning", message)
        }
        None => {
            let text = "no persistent volumes available for this claim and no storage class is set";
            ("FailedBinding", text.to_owned())
        }
    };
    plan.event(claim, seen.now, (COMPONENT, "Normal", reason), message);
}

fn phase(seen: &Observed, volume: &PersistentVolume, plan: &mut Plan) {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let old = volume.status.clone().unwrap_or_default();
    let phase = match reference {
        None => "Available",
        Some(reference) => {
            let uid = reference.uid.as_ref();
            let there = seen.claims.iter().any(|claim| uid.is_some() && claim.metadata.uid.as_ref() == uid);
            match (uid, there) {
                (None, _) => "Available",
                (_, true) => "Bound",
                (_, false) => "Released",
            }
        }
    };
    if old.phase.as_deref() != Some(phase) {
        let since = Some(Time(seen.now));
        let status = PersistentVolumeStatus { phase: Some(phase.into()), last_phase_transition_time: since, ..old };
        plan.status(&PersistentVolume { status: Some(status), ..volume.clone() });
    }
}

#[cfg(test)]
mod tests;
