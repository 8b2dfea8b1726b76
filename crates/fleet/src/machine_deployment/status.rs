//! Counters, phase and conditions of a MachineDeployment.

use api::{
    condition::{self, Statement},
    in_place::is_under_way,
    machine::{MachineDeployment, MachineDeploymentPhase, RolloutStrategyType},
    meta::Time,
};

use super::{Seen, current, limits};
use crate::{
    machine_set::{
        remediation, statement_of,
        status::{count, selector},
    },
    owner, summary,
};

pub fn set(seen: &Seen, after: &mut MachineDeployment, paused: bool, now: &Time) {
    let generation = after.metadata.generation;
    let machines: Vec<_> = seen.machines.iter().map(AsRef::as_ref).collect();
    let counts = count(&machines);
    let deleting = after.metadata.deletion_timestamp.is_some();
    let wanted = after.spec.replicas.unwrap_or(1);
    let strategy = after.spec.rollout.as_ref().and_then(|rollout| rollout.strategy.clone()).unwrap_or_default();
    let unavailable = match strategy.type_ {
        RolloutStrategyType::RollingUpdate => limits(strategy.rolling_update.as_ref(), wanted).1,
        RolloutStrategyType::OnDelete => 0,
    };
    let current = current(seen, now);
    // Counted by set: the machines' own word comes later.
    let up_to_date = seen.machines.iter().filter(|machine| {
        let whole = !is_under_way(&machine.metadata);
        whole && current.as_ref().is_some_and(|set| owner::is_controlled_by(&machine.metadata, &set.metadata))
    });
    let up_to_date = i32::try_from(up_to_date.count()).unwrap_or(i32::MAX);
    let selector = selector(&after.spec.selector);
    let status = after.status.get_or_insert_default();
    status.observed_generation = generation;
    status.selector = selector;
    status.replicas = Some(counts.total);
    status.ready_replicas = Some(counts.ready);
    status.available_replicas = Some(counts.available);
    status.up_to_date_replicas = Some(up_to_date);
    status.versions = counts.versions;
    status.phase = Some(if counts.total < wanted {
        MachineDeploymentPhase::ScalingUp
    } else if counts.total > wanted || deleting {
        MachineDeploymentPhase::ScalingDown
    } else {
        MachineDeploymentPhase::Running
    });
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if paused {
        return;
    }
    let minimum = (wanted - unavailable).max(0);
    let enough = counts.available >= minimum && !deleting;
    let why = if deleting {
        "Deletion in progress".to_owned()
    } else {
        format!(
            "{} available replicas, at least {minimum} required (spec.strategy.rollout.maxUnavailable is {unavailable}, spec.replicas is {wanted})",
            counts.available
        )
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
    let outdated = counts.total - up_to_date;
    let rolling = outdated > 0 && !deleting;
    let mut message = if rolling { format!("Rolling out {outdated} not up-to-date replicas") } else { String::new() };
    if let Some(held) = seen.in_place.held().flatten().filter(|_| rolling) {
        message = format!("{message} is blocked because:\n* {held}");
    }
    set(statement_of("RollingOut", rolling, ("RollingOut", "NotRollingOut"), message));
    let up = counts.total < wanted && !deleting;
    let message = if up { format!("Scaling up from {} to {wanted} replicas", counts.total) } else { String::new() };
    set(statement_of("ScalingUp", up, ("ScalingUp", "NotScalingUp"), message));
    let target = if deleting { 0 } else { wanted };
    let down = counts.total > target;
    let message = if down { format!("Scaling down from {} to {target} replicas", counts.total) } else { String::new() };
    set(statement_of("ScalingDown", down, ("ScalingDown", "NotScalingDown"), message));
    set(remediation::remediating(&seen.machines));
    let message = if deleting { format!("Deleting {} MachineSets", seen.sets.len()) } else { String::new() };
    set(statement_of("Deleting", deleting, ("Deleting", "NotDeleting"), message));
}
