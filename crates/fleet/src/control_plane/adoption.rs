//! Machines of the control plane that nobody controls become its own, with the Secrets of the cluster. Until then, and while
//! others control some, nothing else is done: a control plane has one owner.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane, adoptMachines,
//! initControlPlaneScope, ensureCertificatesOwnerRef and adoptKubeconfigSecret.

use std::{collections::BTreeMap, sync::Arc};

use api::{kubeadm::KubeadmConfig, machine::Machine, names, version};
use control::{EventType, Key};
use kube::core::ObjectMeta;

use super::{ControlPlanePlan, Seen, deletion::CLEANUP_HOOK, rollout::name_of};
use crate::{Caches, adoption, external::External, owner};

/// Adds, by the machine's name, what belongs to machines and has neither that name nor the control plane's label: it was not
/// made here.
pub fn add_parts<'a>(
    caches: &Caches,
    machines: impl Iterator<Item = &'a Arc<Machine>>,
    configs: &mut BTreeMap<String, Arc<KubeadmConfig>>,
    infrastructures: &mut BTreeMap<String, External>,
) {
    for machine in machines {
        let Key { namespace, name } = Key::of(machine.as_ref());
        let config = machine.spec.bootstrap.config_ref.as_ref().filter(|config| config.kind == "KubeadmConfig");
        let config = config.filter(|_| !configs.contains_key(&name));
        if let Some(config) = config.and_then(|it| caches.configs.get(&Key::new(namespace.as_str(), it.name.as_str())))
        {
            configs.insert(name.clone(), config);
        }
        if !infrastructures.contains_key(&name)
            && let Some(infrastructure) = caches.external(&namespace, Some(&machine.spec.infrastructure_ref))
        {
            infrastructures.insert(name, infrastructure);
        }
    }
}

/// Adopts all that there are, or none; `Err` says what stands in the way.
pub fn step(seen: &Seen, plan: &mut ControlPlanePlan) -> Result<(), String> {
    if let Some(why) = seen.orphans.iter().find_map(|machine| check(seen, machine).err()) {
        refuse(seen, &why, plan);
        return Err(why);
    }
    let control_plane = seen.control_plane.as_ref();
    for machine in &seen.orphans {
        let mark = |meta: &mut ObjectMeta| {
            let name = control_plane.metadata.name.clone().unwrap_or_default();
            owner::label(meta, names::CONTROL_PLANE_NAME_LABEL, name);
            if meta.deletion_timestamp.is_none() {
                owner::annotate(meta, CLEANUP_HOOK, "");
            }
        };
        adoption::adopt(control_plane, machine.as_ref(), mark, &mut plan.local);
    }
    Ok(())
}

/// Whether the control plane can go on with the machine.
fn check(seen: &Seen, machine: &Machine) -> Result<(), String> {
    let (name, spec) = (name_of(machine), &machine.spec);
    let cannot = |why: String| format!("Could not adopt Machine {name}: {why}");
    let config = spec.bootstrap.config_ref.as_ref().filter(|config| config.kind == "KubeadmConfig");
    let Some(config) = config else {
        return Err(cannot("its spec.bootstrap.configRef names no KubeadmConfig".to_owned()));
    };
    if !seen.configs.contains_key(name) {
        return Err(cannot(format!("KubeadmConfig {} does not exist", config.name)));
    }
    // One that tells none was brought by somebody who knows.
    let Some(own) = spec.version.as_deref().filter(|version| !version.is_empty()) else { return Ok(()) };
    let wanted = seen.control_plane.spec.version.as_str();
    let read = |text: &str| version::parse(text).ok_or_else(|| cannot(format!("version {text:?} cannot be read")));
    let (theirs, ours) = (read(own)?, read(wanted)?);
    if theirs.major != ours.major || theirs.minor.abs_diff(ours.minor) > 1 {
        return Err(cannot(format!(
            "its version {own} is more than one minor version away from {wanted} of the KubeadmControlPlane"
        )));
    }
    Ok(())
}

/// Says in an event why nothing is adopted, once for each new answer.
fn refuse(seen: &Seen, why: &str, plan: &mut ControlPlanePlan) {
    let status = seen.control_plane.status.as_ref();
    let told = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    if !told.iter().any(|condition| condition.message.contains(why)) {
        plan.local.event(seen.control_plane.as_ref(), EventType::Warning, "AdoptionFailed", why);
    }
}

/// The control plane owns the cluster's certificates and its kubeconfig, whoever made them; those of another type than
/// Cluster API's own are their maker's.
pub fn take_secrets(seen: &Seen, plan: &mut ControlPlanePlan) {
    let own = seen.certificates.iter().map(|(_, secret)| secret).chain(&seen.kubeconfig);
    for secret in own.filter(|secret| secret.type_.as_deref() == Some(names::SECRET_TYPE)) {
        let mut after = secret.as_ref().clone();
        let reference = owner::reference(seen.control_plane.as_ref(), true);
        if let Some(owners) = &mut after.metadata.owner_references {
            owners.retain(|other| other.controller != Some(true) || other.uid == reference.uid);
        }
        owner::ensure(&mut after.metadata, reference);
        if secret.metadata.deletion_timestamp.is_none() {
            plan.local.update(secret.as_ref(), &after);
        }
    }
}
