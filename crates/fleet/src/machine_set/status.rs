//! Counters and conditions of a MachineSet.

use api::{
    condition::{self, Statement},
    in_place::is_under_way,
    machine::{Machine, MachineSet, VersionReplicas},
    meta::{LabelSelector, Time},
};
use control::{EventType, Plan};
use std::collections::BTreeMap;

use super::{Seen, in_place, remediation, statement_of};
use crate::{in_place::updating, machine_deployment, summary};

pub fn set(seen: &Seen, after: &mut MachineSet, trouble: Option<String>, paused: bool, now: &Time, plan: &mut Plan) {
    let generation = after.metadata.generation;
    let counts = count(&seen.machines.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    let wanted = after.spec.replicas.unwrap_or(1);
    let deleting = after.metadata.deletion_timestamp.is_some();
    let selector = selector(&after.spec.selector);
    let status = after.status.get_or_insert_default();
    status.observed_generation = generation;
    status.selector = selector;
    status.replicas = Some(counts.total);
    status.ready_replicas = Some(counts.ready);
    status.available_replicas = Some(counts.available);
    status.up_to_date_replicas = Some(counts.up_to_date);
    status.versions = counts.versions;
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if paused {
        return;
    }
    let machines = || {
        seen.machines.iter().map(|machine| {
            let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
            (machine.metadata.name.as_deref().unwrap_or_default(), conditions)
        })
    };
    set(summary::all("MachinesReady", "Machine", "Ready", summary::READY, machines()));
    set(summary::all("MachinesUpToDate", "Machine", "UpToDate", summary::UP_TO_DATE, machines()));
    let up = !deleting && counts.total < wanted;
    let mut message = if up { format!("Scaling up from {} to {wanted} replicas", counts.total) } else { String::new() };
    if let Some(trouble) = trouble.as_ref().filter(|_| up) {
        message = format!("{message} is blocked because:\n* {trouble}");
        let told = seen.set.status.as_ref().and_then(|status| condition::get(&status.conditions, "ScalingUp"));
        if told.is_none_or(|told| told.message != message) {
            plan.event(seen.set.as_ref(), EventType::Warning, "ScalingUpBlocked", trouble.as_str());
        }
    }
    set(statement_of("ScalingUp", up, ("ScalingUp", "NotScalingUp"), message));
    let uncounted = i32::try_from(in_place::uncounted(&seen.set, &seen.machines)).unwrap_or(i32::MAX);
    let down = counts.total - uncounted > wanted || (deleting && counts.total > 0);
    let target = if deleting { 0 } else { wanted };
    let message = if down { format!("Scaling down from {} to {target} replicas", counts.total) } else { String::new() };
    set(statement_of("ScalingDown", down, ("ScalingDown", "NotScalingDown"), message));
    set(remediation::remediating(&seen.machines));
    let left = format!("Deleting {} Machines", counts.total);
    set(statement_of("Deleting", deleting, ("Deleting", "NotDeleting"), if deleting { left } else { String::new() }));
}

/// Whether a machine of the set is what the deployment wants now. `stuck`: why its update in place cannot begin.
pub fn up_to_date(seen: &Seen, machine: &Machine, stuck: Option<String>) -> Statement {
    let outdated = seen
        .deployment
        .as_ref()
        .and_then(|deployment| machine_deployment::difference(&deployment.spec.template, &seen.set.spec.template));
    match outdated {
        None if stuck.is_some() => Statement::no("UpToDate", "Updating", format!("* {}", stuck.unwrap_or_default())),
        None => updating(machine).unwrap_or_else(|| Statement::yes("UpToDate", "UpToDate")),
        Some(why) => Statement::no("UpToDate", "NotUpToDate", format!("* {why}")),
    }
}

#[derive(Default)]
pub struct Counts {
    pub total: i32,
    pub ready: i32,
    pub available: i32,
    pub up_to_date: i32,
    pub versions: Vec<VersionReplicas>,
}

pub fn count(machines: &[&Machine]) -> Counts {
    let mut counts = Counts::default();
    let mut versions: BTreeMap<String, i32> = BTreeMap::new();
    for machine in machines {
        counts.total += 1;
        let Some(status) = &machine.status else { continue };
        // One that is being updated in place counts as unavailable before its own conditions say so.
        let whole = !is_under_way(&machine.metadata);
        let holds = |type_| i32::from(whole && condition::is_true(&status.conditions, type_));
        counts.ready += holds("Ready");
        counts.available += holds("Available");
        counts.up_to_date += holds("UpToDate");
        if let Some(info) = &status.node_info {
            *versions.entry(info.kubelet_version.clone()).or_default() += 1;
        }
    }
    counts.versions =
        versions.into_iter().map(|(version, replicas)| VersionReplicas { replicas: Some(replicas), version }).collect();
    counts
}

/// A selector in the form of the scale subresource.
pub fn selector(selector: &LabelSelector) -> Option<String> {
    let mut parts: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for requirement in &selector.match_expressions {
        let (key, values) = (&requirement.key, requirement.values.join(","));
        parts.push(match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}
