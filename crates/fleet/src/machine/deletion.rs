//! The order in which a machine goes: hooks, drain, volumes, hooks, infrastructure, bootstrap, node.

use api::{
    cluster::Cluster,
    machine::{Machine, MachineDeletionStatus},
    meta::Time,
    names,
};
use control::EventType;
use jiff::Timestamp;
use kube::core::ObjectMeta;

use super::{MachinePlan, Seen, drain, node::Remote, node_name};
use crate::owner;

/// How long a node's deletion is tried (Machine.spec.deletion.nodeDeletionTimeoutSeconds, default of the published API).
const NODE_DELETION_TIMEOUT_S: i64 = 10;
/// The same, while the cluster's API does not answer.
const UNREACHABLE_TIMEOUT_S: i64 = 120;
const PAUSE_S: u64 = 5;

/// Where the deletion stands: for the Deleting condition.
pub struct Step {
    pub reason: &'static str,
    pub message: String,
    pub done: bool,
}

impl Step {
    fn at(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), done: false }
    }
}

/// The next step; each waits for the one before it.
pub fn plan(seen: &Seen, now: &Time, plan: &mut MachinePlan, after: &mut Machine) -> Step {
    let machine = seen.machine.as_ref();
    let cluster_goes = is_with_cluster(seen.cluster.as_deref());
    let mut times = machine.status.as_ref().and_then(|status| status.deletion.clone()).unwrap_or_default();
    if let Some(hooks) = hooks(&machine.metadata, names::PRE_DRAIN_HOOK_PREFIX) {
        times.wait_for_pre_drain_hook_start_time.get_or_insert_with(|| now.clone());
        store(after, times);
        plan.local.wait("pre-drain hooks", PAUSE_S);
        return Step::at("WaitingForPreDrainHook", format!("Waiting for pre-drain hooks to complete (hooks: {hooks})"));
    }
    // Nobody would answer for the last member of a control plane, nor has its node a place to go.
    let node = node_name(machine).filter(|_| !cluster_goes && !seen.last_of_control_plane);
    if let Some(node) = node
        && let Some(step) = drain(seen, node, now, &mut times, plan)
    {
        store(after, times);
        return step;
    }
    if let Some(hooks) = hooks(&machine.metadata, names::PRE_TERMINATE_HOOK_PREFIX) {
        times.wait_for_pre_terminate_hook_start_time.get_or_insert_with(|| now.clone());
        store(after, times);
        plan.local.wait("pre-terminate hooks", PAUSE_S);
        let message = format!("Waiting for pre-terminate hooks to complete (hooks: {hooks})");
        return Step::at("WaitingForPreTerminateHook", message);
    }
    store(after, times);
    for (part, reason) in
        [(&seen.infrastructure, "WaitingForInfrastructureDeletion"), (&seen.bootstrap, "WaitingForBootstrapDeletion")]
    {
        let Some(part) = part else { continue };
        if !part.deleting() {
            plan.local.delete_external(&part.resource, &part.meta);
        }
        plan.local.wait(format!("the deletion of {}", part.resource.kind), PAUSE_S);
        return Step::at(reason, format!("Waiting for {} {} to be deleted", part.resource.kind, part.key().name));
    }
    // A node that is not seen is there, perhaps, if nodes are not seen at all.
    if let Some(node) = node.filter(|_| seen.node.is_some() || !seen.connected) {
        let required = !is_over(machine, seen.node_deletion, seen.reachable, now);
        plan.remote.push(Remote::Delete { node: node.to_owned(), required });
        if required {
            plan.local.wait("the node's deletion", 1);
            return Step::at("DeletingNode", format!("Deleting node {node}"));
        }
    }
    owner::remove_finalizer(&mut after.metadata, names::MACHINE_FINALIZER);
    Step { reason: "DeletionCompleted", message: String::new(), done: true }
}

/// Its whole cluster goes: nobody needs its pods moved, nor its node deleted.
pub fn is_with_cluster(cluster: Option<&Cluster>) -> bool {
    cluster.is_none_or(|cluster| cluster.metadata.deletion_timestamp.is_some())
}

/// Drains unless told not to, out of time, or done; then waits for volumes to be detached.
fn drain(
    seen: &Seen,
    node: &str,
    now: &Time,
    times: &mut MachineDeletionStatus,
    plan: &mut MachinePlan,
) -> Option<Step> {
    let machine = seen.machine.as_ref();
    let limits = machine.spec.deletion.clone().unwrap_or_default();
    let infrastructure_gone = seen.infrastructure.as_ref().is_none_or(crate::External::deleting);
    if infrastructure_gone || times.wait_for_pre_terminate_hook_start_time.is_some() {
        return None;
    }
    let running = seen.node.as_deref()?;
    let load = match &seen.load {
        Ok(load) => load,
        Err(why) => {
            plan.local.wait("the workload cluster's API", PAUSE_S);
            let out_of_time = is_past(&times.node_drain_start_time, limits.node_drain_timeout_seconds, now);
            times.node_drain_start_time.get_or_insert_with(|| now.clone());
            return (!out_of_time).then(|| Step::at("DrainingNode", why.as_str()));
        }
    };
    let drain = drain::decide(load, &seen.drain_rules, running, now);
    let has = |annotation| owner::annotation_of(&machine.metadata, annotation).is_some();
    if !has(names::EXCLUDE_DRAIN_ANNOTATION) && !drain.is_done() {
        let since = times.node_drain_start_time.get_or_insert_with(|| now.clone()).clone();
        if !is_past(&times.node_drain_start_time, limits.node_drain_timeout_seconds, now) {
            let message = drain.message(&load.refused, &since);
            plan.remote.push(Remote::Drain { node: node.to_owned(), pods: drain.evict, grace_s: drain.grace_s });
            return Some(Step::at("DrainingNode", message));
        }
        let text = format!("Drain of node {node} ran out of time");
        if times.wait_for_node_volume_detach_start_time.is_none() {
            plan.local.event(machine, EventType::Warning, "NodeDrainTimeout", text);
        }
    }
    let volumes = drain.waits_for(&load.volumes);
    let start = &times.wait_for_node_volume_detach_start_time;
    // A node that is not reached detaches nothing.
    if !volumes.is_empty()
        && !has(names::EXCLUDE_DETACH_ANNOTATION)
        && !drain::is_unreachable(running)
        && !is_past(start, limits.node_volume_detach_timeout_seconds, now)
    {
        let since = times.wait_for_node_volume_detach_start_time.get_or_insert_with(|| now.clone());
        plan.local.wait("volumes to be detached", PAUSE_S);
        return Some(Step::at("WaitingForVolumeDetach", drain::volumes_message(&volumes, since)));
    }
    None
}

/// Names of the hooks that hold the deletion back.
fn hooks(meta: &ObjectMeta, prefix: &str) -> Option<String> {
    let hooks: Vec<_> =
        meta.annotations.iter().flatten().filter_map(|(key, _)| key.strip_prefix(prefix)?.strip_prefix('/')).collect();
    (!hooks.is_empty()).then(|| hooks.join(","))
}

fn store(after: &mut Machine, times: MachineDeletionStatus) {
    if times != MachineDeletionStatus::default() {
        after.status.get_or_insert_default().deletion = Some(times);
    }
}

/// A timeout of 0 or none never ends.
fn is_past(start: &Option<Time>, timeout_s: Option<i32>, now: &Time) -> bool {
    match (start, timeout_s) {
        (Some(start), Some(timeout_s)) if timeout_s > 0 => {
            now.0.duration_since(start.0).as_secs() >= i64::from(timeout_s)
        }
        _ => false,
    }
}

/// The node's deletion was tried long enough: it is tried once more, and the machine goes whatever comes of it.
fn is_over(machine: &Machine, since: Option<Timestamp>, reachable: bool, now: &Time) -> bool {
    let limit = machine.spec.deletion.as_ref().and_then(|deletion| deletion.node_deletion_timeout_seconds);
    // An API that is away for a moment, as that of a single control plane machine that is replaced, is waited for.
    let usual_s = if reachable { NODE_DELETION_TIMEOUT_S } else { UNREACHABLE_TIMEOUT_S };
    let limit_s = limit.map(i64::from).filter(|limit_s| *limit_s != NODE_DELETION_TIMEOUT_S).unwrap_or(usual_s);
    limit_s > 0 && since.is_some_and(|since| now.0.duration_since(since).as_secs() >= limit_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_deleted_for_ten_seconds_or_two_minutes_while_nobody_answers() {
        let now = |second| Time(Timestamp::from_second(second).unwrap());
        let mut machine = Machine::default();
        let start = Some(Timestamp::UNIX_EPOCH);
        for (limit, reachable, second, over) in [
            (None, true, 9, false),
            (None, true, 10, true),
            (Some(10), false, 10, false),
            (None, false, 120, true),
            (Some(30), false, 30, true),
            (Some(0), true, 1000, false),
        ] {
            machine.spec.deletion.get_or_insert_default().node_deletion_timeout_seconds = limit;
            assert_eq!(is_over(&machine, start, reachable, &now(second)), over, "{limit:?} {reachable} {second}");
        }
    }
}
