//! What a Machine says about itself.
//!
//! Source: kubernetes-sigs/cluster-api api/core/v1beta2/machine_types.go (types and reasons).

use api::{
    condition::{self, Statement},
    machine::Machine,
    meta::{Condition, ConditionStatus, GatePolarity, Time},
};
use k8s_openapi::api::core::v1::Node;

use super::{Seen, deletion::Step, in_place};
use crate::{external::External, summary};

/// A drain that takes longer than this shows in the Ready condition, in seconds.
const DELETION_SHOWS_AFTER_S: i64 = 15 * 60;
const PRESSURES: [&str; 3] = ["MemoryPressure", "DiskPressure", "PIDPressure"];

/// Sets all conditions; returns in how many seconds availability has to be looked at again.
pub fn set(seen: &Seen, after: &mut Machine, deletion: Option<&Step>, paused: bool, now: &Time) -> Option<u64> {
    let generation = after.metadata.generation;
    let updating = in_place::statement(seen, after);
    let min_ready_s = i64::from(after.spec.min_ready_seconds.unwrap_or(0));
    let gates = after.spec.readiness_gates.clone();
    let has_config = after.spec.bootstrap.config_ref.is_some();
    let status = after.status.get_or_insert_default();
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if paused {
        return None;
    }
    if deletion.is_none() || seen.bootstrap.is_some() {
        set(mirrored("BootstrapConfigReady", seen.bootstrap.as_ref(), has_config));
    }
    if deletion.is_none() || seen.infrastructure.is_some() {
        set(mirrored("InfrastructureReady", seen.infrastructure.as_ref(), true));
    }
    for statement in node(seen, status.node_ref.is_some()) {
        condition::set(&mut status.conditions, statement, generation, now);
    }
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(updating);
    let deleting = match deletion {
        Some(step) => Statement { message: step.message.clone(), ..Statement::yes("Deleting", step.reason) },
        None => Statement::no("Deleting", "NotDeleting", ""),
    };
    set(deleting);
    let mut parts = vec!["BootstrapConfigReady", "InfrastructureReady", "NodeHealthy"];
    if condition::get(&status.conditions, "HealthCheckSucceeded").is_some() {
        parts.push("HealthCheckSucceeded");
    }
    let (positive, negative): (Vec<_>, Vec<_>) =
        gates.iter().partition(|gate| gate.polarity != Some(GatePolarity::Negative));
    parts.extend(positive.iter().map(|gate| gate.condition_type.as_str()));
    let negative = negative.iter().map(|gate| gate.condition_type.as_str());
    let negative: Vec<_> = std::iter::once("Updating").chain(negative).collect();
    let mut ready = summary::both("Ready", summary::READY, &status.conditions, &parts, &negative);
    if let Some(step) = deletion {
        let since = seen
            .machine
            .metadata
            .deletion_timestamp
            .as_ref()
            .map_or(0, |since| now.0.duration_since(since.0).as_secs());
        let detail =
            if since > DELETION_SHOWS_AFTER_S { step.message.as_str() } else { "Machine deletion in progress" };
        ready = Statement::no("Ready", "NotReady", format!("* Deleting: {detail}"));
    }
    condition::set(&mut status.conditions, ready, generation, now);
    let (available, recheck) = available(&status.conditions, min_ready_s, now);
    condition::set(&mut status.conditions, available, generation, now);
    recheck
}

pub fn mirrored(type_: &'static str, part: Option<&External>, wanted: bool) -> Statement {
    let Some(part) = part else {
        return if wanted {
            Statement::unknown(type_, "DoesNotExist", "The referenced object does not exist")
        } else {
            Statement::yes(type_, "Ready")
        };
    };
    match part.condition("Ready") {
        Some(Condition { status, reason, message, .. }) => {
            let reason = if status == ConditionStatus::True { "Ready".to_owned() } else { reason };
            Statement { type_, status, reason, message }
        }
        None => {
            let message = format!("Condition Ready not yet reported by {}", part.resource.kind);
            Statement::unknown(type_, "NotYetReported", message)
        }
    }
}

/// NodeReady and NodeHealthy.
fn node(seen: &Seen, had_node: bool) -> [Statement; 2] {
    let initialized = seen
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.status.as_ref()?.initialization.as_ref()?.control_plane_initialized);
    let both = |unknown: bool, reason: &str, message: String| {
        ["NodeReady", "NodeHealthy"].map(|type_| {
            if unknown {
                Statement::unknown(type_, reason, message.as_str())
            } else {
                Statement::no(type_, reason, message.as_str())
            }
        })
    };
    let Some(node) = &seen.node else {
        // Infrastructure that has seen the boot fail knows more than that there is no node.
        let boot = seen.infrastructure.as_ref().and_then(|part| part.condition("BootSucceeded"));
        if let Some(boot) = boot.filter(|boot| boot.status == ConditionStatus::False && !had_node) {
            return both(false, "BootFailed", boot.message);
        }
        return match (&seen.machine.spec.provider_id, initialized) {
            (_, Some(false) | None) => {
                both(true, "InspectionFailed", "Waiting for Cluster control plane to be initialized".into())
            }
            (None, _) => {
                both(true, "InspectionFailed", "Waiting for the infrastructure to report spec.providerID".into())
            }
            (Some(_), _) if !seen.connected => {
                both(true, "ConnectionDown", "Remote connection not established yet".into())
            }
            (Some(_), _) if had_node => both(false, "NodeDeleted", "The node no longer exists".into()),
            (Some(id), _) => {
                both(true, "NodeDoesNotExist", format!("Waiting for a node with spec.providerID {id} to exist"))
            }
        };
    };
    let (ready, why) = node_condition(node, "Ready");
    let ready_statement = match ready {
        Some(true) => Statement::yes("NodeReady", "NodeReady"),
        Some(false) => Statement::no("NodeReady", "NodeNotReady", format!("* Node.Ready: {why}")),
        None => Statement::unknown("NodeReady", "NodeReadyUnknown", "* Node.Ready: not yet reported"),
    };
    let mut troubles = Vec::new();
    if ready != Some(true) {
        troubles.push(format!("* Node.Ready: {}", if why.is_empty() { "not yet reported" } else { &why }));
    }
    for type_ in PRESSURES {
        if let (Some(true), why) = node_condition(node, type_) {
            troubles.push(format!("* Node.{type_}: {why}"));
        }
    }
    let healthy =
        Statement::of("NodeHealthy", troubles.is_empty(), ("NodeHealthy", "NodeNotHealthy"), troubles.join("\n"));
    [ready_statement, healthy]
}

/// The status of a node's condition (`None`: unknown or absent), and its message.
fn node_condition(node: &Node, type_: &str) -> (Option<bool>, String) {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let Some(found) = conditions.into_iter().flatten().find(|condition| condition.type_ == type_) else {
        return (None, String::new());
    };
    let message = found.message.clone().or_else(|| found.reason.clone()).unwrap_or_default();
    match found.status.as_str() {
        "True" => (Some(true), message),
        "False" => (Some(false), message),
        _ => (None, message),
    }
}

/// Ready for `min_ready_s` without a break.
fn available(conditions: &[Condition], min_ready_s: i64, now: &Time) -> (Statement, Option<u64>) {
    let Some(ready) = condition::get(conditions, "Ready").filter(|ready| ready.status == ConditionStatus::True) else {
        return (Statement::no("Available", "NotReady", ""), None);
    };
    let left_s = min_ready_s - now.0.duration_since(ready.last_transition_time.0).as_secs();
    if left_s > 0 {
        let message = format!("Ready for less than {min_ready_s} s");
        (Statement::no("Available", "WaitingForMinReadySeconds", message), u64::try_from(left_s).ok())
    } else {
        (Statement::yes("Available", "Available"), None)
    }
}
