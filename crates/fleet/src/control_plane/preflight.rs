//! What must be well before a machine comes or goes: one operation at a time, and never a quorum lost by it.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane/preflight.go, remediation.go.

use api::{
    cluster::Cluster,
    condition,
    machine::Machine,
    meta::{Condition, ConditionStatus},
};

use super::{
    Seen, etcd, machines,
    rollout::{self, name_of},
};
use crate::owner;

/// What is about to happen.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// One machine more.
    Up,
    /// This one goes.
    Down(&'a Machine),
    /// This one changes while it stays, and may be away for a while.
    Update(&'a Machine),
}

/// Whether it may happen; `Err` says what holds it back.
pub fn check(seen: &Seen, cluster: &Cluster, operation: Operation<'_>) -> Result<(), String> {
    if let Some(version) = pending_version(seen, cluster) {
        return Err(format!("waiting for a version upgrade to {version} to be propagated"));
    }
    if seen.machines.iter().any(|machine| machine.metadata.deletion_timestamp.is_some()) {
        return Err("waiting for a control plane Machine to complete deletion".to_owned());
    }
    let checked = stable(seen, operation);
    let replaces = owner::annotation_of(&seen.control_plane.metadata, super::remediation::IN_PROGRESS).is_some();
    match checked {
        Err(_) if replaces && matches!(operation, Operation::Up) => operational(seen),
        checked => checked,
    }
}

/// The version that the topology is about to bring to the control plane.
pub fn pending_version(seen: &Seen, cluster: &Cluster) -> Option<String> {
    let wanted = cluster.spec.topology.as_ref()?.version.clone();
    let step = owner::annotation_of(&cluster.metadata, UPGRADE_STEP).filter(|step| !step.is_empty());
    let present = &seen.control_plane.spec.version;
    (wanted != *present && step != Some(present)).then(|| step.map_or(wanted, str::to_owned))
}

/// Names the version of an upgrade over several minor versions that is being done.
const UPGRADE_STEP: &str = api::names::TOPOLOGY_UPGRADE_STEP_ANNOTATION;

/// Everything is well, but for the machine that goes.
fn stable(seen: &Seen, operation: Operation<'_>) -> Result<(), String> {
    let goes = match operation {
        Operation::Up | Operation::Update(_) => None,
        Operation::Down(machine) => Some(machine),
    };
    if let Err(why) = &seen.pods {
        return Err(format!("the control plane's pods are not known: {why}"));
    }
    let stay = seen.machines.iter().filter(|machine| goes.is_none_or(|goes| name_of(goes) != name_of(machine)));
    let troubles: Vec<String> = stay.flat_map(|machine| troubles(seen, machine)).collect();
    if !troubles.is_empty() {
        return Err(troubles.join("; "));
    }
    let Some(look) = look(seen)? else { return Ok(()) };
    if let Operation::Update(machine) = operation {
        let member = look.member_of(machine);
        return match member.is_none_or(|member| look.bears_absence(member.id)) {
            true => Ok(()),
            false => Err("updating a control plane Machine in place can lead to etcd quorum loss".to_owned()),
        };
    }
    let (without, adds) = match goes.map(|goes| look.member_of(goes)) {
        None => (None, true),
        // Without a member here, or with one that has no vote, nothing changes for the others.
        Some(None) => return Ok(()),
        Some(Some(member)) if member.learner || member.name.is_empty() => return Ok(()),
        Some(Some(member)) => (Some(member.id), false),
    };
    if look.keeps_quorum(without, adds) {
        return Ok(());
    }
    let what = if adds { "adding a new control plane Machine" } else { "deleting a control plane Machine" };
    Err(format!("{what} can lead to etcd quorum loss. Please check the etcd status"))
}

/// While one that was not well is replaced, less is asked: else two that fail would never be replaced.
fn operational(seen: &Seen) -> Result<(), String> {
    if !serves_without(seen, None) {
        return Err(
            "cannot add a new control plane Machine when there are no control plane Machines with all Kubernetes \
                    control plane components in healthy state. Please check Kubernetes control plane component status"
                .to_owned(),
        );
    }
    match look(seen)? {
        Some(look) if !look.keeps_quorum(None, true) => {
            Err("adding a new control plane Machine can lead to etcd quorum loss. Please check the etcd status"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// The members of an etcd of our own; `Err` if they are not known.
pub fn look(seen: &Seen) -> Result<Option<&etcd::Look>, String> {
    if !machines::has_own_etcd(&seen.control_plane) {
        return Ok(None);
    }
    match &seen.etcd {
        Some(Ok(look)) => Ok(Some(look)),
        Some(Err(why)) => Err(format!("the etcd members are not known: {why}")),
        None => Err("the etcd members are not known yet".to_owned()),
    }
}

/// Some machine has all components of a control plane in health, without the one that goes.
pub fn serves_without(seen: &Seen, goes: Option<&Machine>) -> bool {
    let stay = seen.machines.iter().filter(|machine| goes.is_none_or(|goes| name_of(goes) != name_of(machine)));
    let mut serve = stay.filter(|machine| machines::runs(seen, machine));
    serve.next().is_some()
}

/// What is not well on a machine.
pub fn troubles(seen: &Seen, machine: &Machine) -> Vec<String> {
    let name = name_of(machine);
    let status = machine.status.as_ref();
    if status.is_none_or(|status| status.node_ref.is_none()) {
        return vec![format!("Machine {name} does not have a corresponding Node yet (Machine.status.nodeRef not set)")];
    }
    let found = |type_| (type_, condition::get(conditions(machine), type_));
    let told = |(type_, found): (&str, Option<&Condition>)| match found {
        None => Some(format!("Machine {name} does not have {type_} condition")),
        Some(found) => {
            let is = match found.status {
                ConditionStatus::True => return None,
                ConditionStatus::False => "false",
                ConditionStatus::Unknown => "unknown",
            };
            Some(format!("Machine {name} reports {type_} condition is {is} ({})", found.message))
        }
    };
    required(seen).map(found).filter_map(told).collect()
}

/// The conditions of a machine that is well.
fn required(seen: &Seen) -> impl Iterator<Item = &'static str> {
    let member = machines::has_own_etcd(&seen.control_plane).then_some(machines::ETCD_MEMBER);
    machines::components(seen).iter().map(|(type_, _)| *type_).chain(member)
}

/// Its node is there, and all components and its etcd member are well.
pub fn is_healthy(seen: &Seen, machine: &Machine) -> bool {
    troubles(seen, machine).is_empty()
}

pub fn conditions(machine: &Machine) -> &[Condition] {
    machine.status.as_ref().map_or(&[][..], |status| &status.conditions)
}

pub fn is_true(machine: &Machine, type_: &str) -> bool {
    condition::is_true(conditions(machine), type_)
}

/// Those that a step away from rest needs fresh news of: nothing is to be done, and all is well.
pub fn is_settled(seen: &Seen, now: &api::meta::Time) -> bool {
    let told = seen.control_plane.status.as_ref().map_or(&[][..], |status| &status.conditions);
    rollout::is_complete(seen, now)
        && super::remediation::candidates(seen).next().is_none()
        && (!machines::has_own_etcd(&seen.control_plane) || condition::is_true(told, "EtcdClusterHealthy"))
}
