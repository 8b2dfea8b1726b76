//! Counters, phase and conditions of a MachinePool.
//!
//! Published MachinePools have no conditions of v1beta2 yet: these are the names that their API reserves.

use api::{
    condition::{self, Statement},
    machine_pool::{MachinePool, MachinePoolPhase, MachinePoolStatus},
    meta::Time,
};

use super::{Seen, is_managed_elsewhere, node_refs, other_pool};
use crate::{
    external::External,
    machine::mirrored,
    machine_set::{remediation, statement_of, status::count},
    summary,
};

pub fn set(seen: &Seen, after: &mut MachinePool, paused: bool, now: &Time) {
    let generation = after.metadata.generation;
    let counts = count(&seen.machines.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    let wanted = after.spec.replicas.unwrap_or(1);
    let deleting = after.metadata.deletion_timestamp.is_some();
    let elsewhere = is_managed_elsewhere(&after.metadata);
    let has_config = after.spec.template.spec.bootstrap.config_ref.is_some();
    let status = after.status.get_or_insert_default();
    let nodes = node_refs(seen, status);
    status.observed_generation = generation;
    status.node_refs = nodes;
    status.ready_replicas = Some(counts.ready);
    status.available_replicas = Some(counts.available);
    status.up_to_date_replicas = Some(counts.up_to_date);
    status.versions = counts.versions;
    status.phase = Some(phase(status, wanted, deleting, elsewhere));
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if paused {
        return;
    }
    if !deleting {
        set(of_part(seen, "BootstrapConfigReady", seen.bootstrap.as_ref(), has_config));
        set(of_part(seen, "InfrastructureReady", seen.infrastructure.as_ref(), true));
    }
    let enough = counts.available >= wanted && !deleting;
    let why = if deleting {
        "Deletion in progress".to_owned()
    } else {
        format!("{} available replicas, {wanted} required", counts.available)
    };
    set(Statement::of("Available", enough, ("Available", "NotAvailable"), why));
    let named = || {
        seen.machines.iter().map(|machine| {
            let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
            (machine.metadata.name.as_deref().unwrap_or_default(), conditions)
        })
    };
    set(summary::all("MachinesReady", "Machine", "Ready", summary::READY, named()));
    set(summary::all("MachinesUpToDate", "Machine", "UpToDate", summary::UP_TO_DATE, named()));
    let outdated = counts.total - counts.up_to_date;
    let rolling = outdated > 0 && !deleting && named().any(|(_, of)| condition::is_false(of, "UpToDate"));
    let message = if rolling { format!("Rolling out {outdated} not up-to-date replicas") } else { String::new() };
    set(statement_of("RollingOut", rolling, ("RollingOut", "NotRollingOut"), message));
    let up = counts.total < wanted && !deleting;
    let message = if up { format!("Scaling up from {} to {wanted} replicas", counts.total) } else { String::new() };
    set(statement_of("ScalingUp", up, ("ScalingUp", "NotScalingUp"), message));
    let target = if deleting { 0 } else { wanted };
    let down = counts.total > target;
    let message = if down { format!("Scaling down from {} to {target} replicas", counts.total) } else { String::new() };
    set(statement_of("ScalingDown", down, ("ScalingDown", "NotScalingDown"), message));
    set(remediation::remediating(&seen.machines));
    let message = if deleting { format!("Deleting {} Machines", counts.total) } else { String::new() };
    set(statement_of("Deleting", deleting, ("Deleting", "NotDeleting"), message));
}

/// What the part says of itself, if it is the pool's own.
fn of_part(seen: &Seen, type_: &'static str, part: Option<&External>, wanted: bool) -> Statement {
    match part.and_then(|part| Some((part, other_pool(part, &seen.pool)?))) {
        Some((part, other)) => {
            let message = format!("{} {} belongs to MachinePool {other}", part.resource.kind, part.key().name);
            Statement::no(type_, "NotOwned", message)
        }
        None => mirrored(type_, part, wanted),
    }
}

fn phase(status: &MachinePoolStatus, wanted: i32, deleting: bool, elsewhere: bool) -> MachinePoolPhase {
    let started = status.initialization.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    if deleting {
        MachinePoolPhase::Deleting
    } else if started.infrastructure_provisioned == Some(true) {
        match wanted.cmp(&ready) {
            std::cmp::Ordering::Equal => MachinePoolPhase::Running,
            _ if elsewhere => MachinePoolPhase::Scaling,
            std::cmp::Ordering::Greater => MachinePoolPhase::ScalingUp,
            std::cmp::Ordering::Less => MachinePoolPhase::ScalingDown,
        }
    } else if !status.node_refs.is_empty() {
        MachinePoolPhase::Provisioned
    } else if started.bootstrap_data_secret_created == Some(true) {
        MachinePoolPhase::Provisioning
    } else {
        MachinePoolPhase::Pending
    }
}
