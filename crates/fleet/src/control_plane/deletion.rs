//! How a control plane machine goes: its etcd member first, and only while most of the others are well.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane, reconcilePreTerminateHook and
//! reconcileEtcdMembers.

use api::{condition, machine::Machine, names, version};
use control::Plan;

use super::{
    Seen, etcd, machines,
    preflight::{self, conditions},
    rollout::name_of,
};
use crate::owner;

/// Holds a machine's infrastructure back until its etcd member is gone.
pub const CLEANUP_HOOK: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup";

fn going(seen: &Seen) -> impl Iterator<Item = &Machine> {
    seen.machines.iter().map(AsRef::as_ref).filter(|machine| machine.metadata.deletion_timestamp.is_some())
}

fn holds(machine: &Machine) -> bool {
    owner::annotation_of(&machine.metadata, CLEANUP_HOOK).is_some()
}

/// What is to be done about machines that go.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// None goes.
    Nothing,
    /// Etcd is asked first.
    Ask(etcd::Change),
    /// All that there are go: another one has to be there before, or the cluster is lost.
    Replace,
}

/// The next step: of one machine at a time, the oldest deletion first. `Err` says what is waited for.
pub fn step(seen: &Seen, plan: &mut Plan) -> Result<Next, String> {
    // One that was let go counts until it is gone.
    let Some(first) = going(seen).min_by_key(|machine| {
        (holds(machine), machine.metadata.deletion_timestamp.as_ref().map(|time| time.0), name_of(machine))
    }) else {
        return Ok(Next::Nothing);
    };
    let waits = || Err(format!("Waiting for Machine {} to be deleted", name_of(first)));
    let reason = condition::get(conditions(first), "Deleting").map(|found| found.reason.as_str());
    let drained = reason == Some("WaitingForPreTerminateHook");
    if !holds(first) || !drained || (runs_without_server(&seen.control_plane.spec.version) && has_other_hooks(first)) {
        return waits();
    }
    let held = |why: &str| format!("Machine {} cannot be deleted: {why}", name_of(first));
    if going(seen).count() == seen.machines.len() && is_initialized(seen) {
        return last(seen).map(|()| Next::Replace).map_err(|why| held(&why));
    }
    if seen.machines.len() == 1 {
        machines::release(first, plan);
        return waits();
    }
    if !preflight::serves_without(seen, Some(first)) {
        return Err(held(
            "there are no control plane Machines with all Kubernetes control plane components in healthy state. \
             Please check Kubernetes control plane component status",
        ));
    }
    let look = preflight::look(seen).map_err(|why| held(&why))?;
    // One that is deleted while it joins may have a member that its Machine does not tell of yet.
    let others = seen.machines.iter().map(AsRef::as_ref).filter(|other| name_of(other) != name_of(first));
    let member = |look: &'_ etcd::Look| look.member_of(first).or_else(|| look.may_be_of(first, others)).cloned();
    match look.and_then(|look| member(look).map(|member| (look, member))) {
        Some((look, member)) => {
            look.removal(&member, &staying_nodes(seen, first)).map(Next::Ask).map_err(|why| held(&why))
        }
        None => {
            machines::release(first, plan);
            waits()
        }
    }
}

/// Whether another machine can join one that is about to go with all that the cluster knows.
fn last(seen: &Seen) -> Result<(), String> {
    let by_hand = format!(
        "it is the last one, and the cluster would go with it. To give the cluster up, remove the \
                           Machine's annotation {CLEANUP_HOOK}"
    );
    if !preflight::serves_without(seen, None) {
        return Err(format!(
            "no other Machine can join, because its control plane components are not healthy; {by_hand}"
        ));
    }
    match preflight::look(seen) {
        Ok(Some(look)) if !look.keeps_quorum(None, true) => {
            Err(format!("no other Machine can join, because its etcd is not healthy; {by_hand}"))
        }
        Err(why) => Err(format!("{why}; {by_hand}")),
        Ok(_) => Ok(()),
    }
}

fn is_initialized(seen: &Seen) -> bool {
    let status = seen.control_plane.status.as_ref().and_then(|status| status.initialization.as_ref());
    status.is_some_and(|status| status.control_plane_initialized == Some(true))
}

/// From 1.31 on kubelets speak to the API server of their own machine, which goes with its etcd member: hooks of others
/// come first.
fn runs_without_server(version: &str) -> bool {
    version::parse(version).is_some_and(|version| version.minor >= 31)
}

fn has_other_hooks(machine: &Machine) -> bool {
    let mut keys = machine.metadata.annotations.iter().flatten().map(|(key, _)| key);
    keys.any(|key| key.starts_with(names::PRE_TERMINATE_HOOK_PREFIX) && key != CLEANUP_HOOK)
}

/// The nodes of the machines that stay when `goes` goes, those that can lead best first: with a member that is well, not
/// found ill by a health check, as declared, and new.
pub fn staying_nodes(seen: &Seen, goes: &Machine) -> Vec<String> {
    let stay = seen
        .machines
        .iter()
        .rev()
        .filter(|machine| machine.metadata.deletion_timestamp.is_none() && name_of(machine) != name_of(goes));
    let mut stay: Vec<&Machine> = stay.map(AsRef::as_ref).collect();
    stay.sort_by_key(|machine| {
        [machines::ETCD_MEMBER, "HealthCheckSucceeded", "UpToDate"].map(|type_| !preflight::is_true(machine, type_))
    });
    stay.into_iter().filter_map(|machine| Some(machine.status.as_ref()?.node_ref.as_ref()?.name.clone())).collect()
}

/// Moves leadership away from a machine that is about to be deleted; nothing if it does not lead.
pub fn handover(seen: &Seen, machine: &Machine) -> Option<etcd::Change> {
    let look = preflight::look(seen).ok().flatten()?;
    let leadership = look.handover(look.member_of(machine)?, &staying_nodes(seen, machine))?;
    Some(etcd::Change { leadership: Some(leadership), ..etcd::Change::default() })
}

/// Takes away a member that runs on no machine of ours, one at a time; `Err` says why it has to stay.
pub fn stray(seen: &Seen) -> Result<Option<(String, etcd::Change)>, String> {
    let Ok(Some(look)) = preflight::look(seen) else { return Ok(None) };
    let strays = look.strays(seen.machines.iter().map(AsRef::as_ref));
    let Some(member) = strays.first() else { return Ok(None) };
    let nodes: Vec<_> = seen
        .machines
        .iter()
        .rev()
        .filter_map(|machine| Some(machine.status.as_ref()?.node_ref.as_ref()?.name.clone()))
        .collect();
    let told = member.told();
    let change = look.removal(member, &nodes).map_err(|why| {
        format!(
            "etcd member {told} does not have a corresponding Machine, it must be removed from the cluster but {why}"
        )
    })?;
    Ok(Some((told, change)))
}
