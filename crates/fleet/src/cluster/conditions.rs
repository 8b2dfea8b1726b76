//! What a Cluster says about itself.
//!
//! Source: kubernetes-sigs/cluster-api api/core/v1beta2/cluster_types.go (types and reasons).

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    machine::Machine,
    meta::{Condition, ConditionStatus, GatePolarity, Time},
};

use super::{Seen, is_control_plane, name};
use crate::{external::External, summary, workload::Probe};

/// Reasons of TopologyReconciled for which a cluster is not available; with others it is on its way, or waits for somebody.
const TOPOLOGY_FAILURES: [&str; 2] = ["ReconcileFailed", "ClusterClassNotReconciled"];

pub fn set(seen: &Seen, after: &mut Cluster, deletion: Option<&(&'static str, String)>, paused: bool, now: &Time) {
    let generation = after.metadata.generation;
    let status = after.status.get_or_insert_default();
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if paused && deletion.is_none() {
        return;
    }
    if let Some((reason, message)) = deletion {
        // Deleting says what is still there. The rest would change with each part that goes, and every change is a write.
        set(Statement { message: message.clone(), ..Statement::yes("Deleting", *reason) });
        set(Statement::no("Available", "NotAvailable", "* Deleting: the cluster is being deleted"));
        return;
    }
    set(mirrored(
        "InfrastructureReady",
        "Ready",
        seen.infrastructure.as_ref(),
        seen.cluster.spec.infrastructure_ref.is_some(),
    ));
    set(mirrored(
        "ControlPlaneAvailable",
        "Available",
        seen.control_plane.as_ref(),
        seen.cluster.spec.control_plane_ref.is_some(),
    ));
    let started =
        seen.control_plane.as_ref().and_then(|part| part.read("/status/initialization/controlPlaneInitialized"));
    set(Statement::of(
        "ControlPlaneInitialized",
        started == Some(true),
        ("Initialized", "NotInitialized"),
        "Control plane not yet initialized",
    ));
    let (control_plane, workers): (Vec<_>, Vec<_>) =
        seen.machines.iter().partition(|machine| is_control_plane(machine));
    for (type_, machines, part, reasons) in [
        ("ControlPlaneMachinesReady", &control_plane, "Ready", summary::READY),
        ("ControlPlaneMachinesUpToDate", &control_plane, "UpToDate", summary::UP_TO_DATE),
        ("WorkerMachinesReady", &workers, "Ready", summary::READY),
        ("WorkerMachinesUpToDate", &workers, "UpToDate", summary::UP_TO_DATE),
    ] {
        let machines = machines.iter().map(|machine| (name(&machine.metadata), of_machine(machine)));
        set(summary::all(type_, "Machine", part, reasons, machines));
    }
    set(workers_available(seen));
    for (type_, reasons) in [
        ("RollingOut", ("RollingOut", "NotRollingOut")),
        ("ScalingUp", ("ScalingUp", "NotScalingUp")),
        ("ScalingDown", ("ScalingDown", "NotScalingDown")),
        ("Remediating", ("Remediating", "NotRemediating")),
    ] {
        set(any(seen, type_, reasons));
    }
    set(match &seen.probe {
        Some(Probe::Succeeded) => Statement::yes("RemoteConnectionProbe", "ProbeSucceeded"),
        Some(Probe::Failed(why)) => Statement::no("RemoteConnectionProbe", "ProbeFailed", why.as_str()),
        None => Statement::no("RemoteConnectionProbe", "ProbeFailed", "Remote connection not established yet"),
    });
    set(Statement::no("Deleting", "NotDeleting", ""));
    let mut parts = vec!["RemoteConnectionProbe", "InfrastructureReady", "ControlPlaneAvailable", "WorkersAvailable"];
    if seen.cluster.spec.topology.is_some() {
        // The topology controller says it.
        let told = condition::get(&status.conditions, "TopologyReconciled");
        if told.is_none_or(|told| TOPOLOGY_FAILURES.contains(&told.reason.as_str())) {
            parts.push("TopologyReconciled");
        }
    }
    let own = &seen.cluster.spec.availability_gates;
    let gates = if own.is_empty() { &seen.class_gates } else { own };
    let (positive, negative): (Vec<_>, Vec<_>) =
        gates.iter().partition(|gate| gate.polarity != Some(GatePolarity::Negative));
    parts.extend(positive.iter().map(|gate| gate.condition_type.as_str()));
    let negative: Vec<_> = negative.iter().map(|gate| gate.condition_type.as_str()).collect();
    let available = summary::both("Available", summary::AVAILABLE, &status.conditions, &parts, &negative);
    condition::set(&mut status.conditions, available, generation, now);
}

/// A part's own condition under the cluster's name for it.
fn mirrored(type_: &'static str, part: &str, external: Option<&External>, wanted: bool) -> Statement {
    let Some(external) = external else {
        return if wanted {
            Statement::unknown(type_, "DoesNotExist", "The referenced object does not exist")
        } else {
            Statement::yes(type_, part)
        };
    };
    match external.condition(part) {
        Some(Condition { status, reason, message, .. }) => {
            let reason = if status == ConditionStatus::True { part.to_owned() } else { reason };
            Statement { type_, status, reason, message }
        }
        None => {
            let message = format!("Condition {part} not yet reported by {}", external.resource.kind);
            Statement::unknown(type_, "NotYetReported", message)
        }
    }
}

/// Of deployments, and of pools, which tell it as those do.
fn workers_available(seen: &Seen) -> Statement {
    let of = |kind: &'static str, parts: Vec<(&str, &[Condition])>| {
        summary::all("WorkersAvailable", kind, "Available", summary::AVAILABLE, parts)
    };
    let deployments = seen.deployments.iter().map(|deployment| {
        let conditions = deployment.status.as_ref().map_or(&[][..], |status| &status.conditions);
        (name(&deployment.metadata), conditions)
    });
    let pools = seen.pools.iter().map(|pool| {
        let conditions = pool.status.as_ref().map_or(&[][..], |status| &status.conditions);
        (name(&pool.metadata), conditions)
    });
    let mut told = of("MachineDeployment", deployments.collect());
    if seen.pools.is_empty() {
        return told;
    }
    let pools = of("MachinePool", pools.collect());
    if seen.deployments.is_empty() || told.status == ConditionStatus::True {
        return pools;
    }
    if pools.status != ConditionStatus::True {
        told.message = format!("{}\n{}", told.message, pools.message);
        if pools.status == ConditionStatus::False {
            (told.status, told.reason) = (pools.status, pools.reason);
        }
    }
    told
}

/// True if it is true of the control plane or of any set of workers.
fn any(seen: &Seen, type_: &'static str, reasons: (&'static str, &'static str)) -> Statement {
    let control_plane = seen.control_plane.as_ref().map(|part| {
        let conditions: Vec<Condition> = part.read("/status/conditions").unwrap_or_default();
        (part.resource.kind.as_str(), name(&part.meta), conditions)
    });
    let deployments = seen.deployments.iter().map(|deployment| {
        let conditions = deployment.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        ("MachineDeployment", name(&deployment.metadata), conditions)
    });
    let pools = seen.pools.iter().map(|pool| {
        let conditions = pool.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        ("MachinePool", name(&pool.metadata), conditions)
    });
    let messages: Vec<_> = control_plane
        .into_iter()
        .chain(deployments)
        .chain(pools)
        .filter(|(_, _, conditions)| condition::is_true(conditions, type_))
        .map(|(kind, name, conditions)| {
            let why = condition::get(&conditions, type_).map(|found| found.message.clone()).unwrap_or_default();
            format!("* {kind} {name}: {why}")
        })
        .collect();
    if messages.is_empty() {
        Statement::no(type_, reasons.1, "")
    } else {
        Statement { message: messages.join("\n"), ..Statement::yes(type_, reasons.0) }
    }
}

fn of_machine(machine: &Machine) -> &[Condition] {
    machine.status.as_ref().map_or(&[], |status| &status.conditions)
}
