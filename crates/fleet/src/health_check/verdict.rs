//! Whether a machine is healthy, as far as its own conditions and its node's tell.

use api::{
    admission::STARTUP_TIMEOUT_S,
    cluster::Cluster,
    condition,
    health_check::MachineHealthCheck,
    machine::Machine,
    meta::{Condition, ConditionStatus, Time, go_duration},
    names,
};
use jiff::Timestamp;

use super::Target;
use crate::owner;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// Too early to say; `recheck_s` is when a time limit ends.
    Undecided {
        recheck_s: Option<u64>,
    },
    Sick {
        reason: &'static str,
        message: String,
    },
}

/// Troubles that have lasted for long enough, and when the next one will have.
#[derive(Default)]
struct Findings {
    troubles: Vec<String>,
    recheck_s: Option<u64>,
}

impl Findings {
    /// Something is wrong since `since`, and counts after `limit_s`.
    fn note(&mut self, since: Timestamp, limit_s: i32, now: &Time, trouble: impl FnOnce() -> String) {
        let left_s = i64::from(limit_s) - now.0.duration_since(since).as_secs();
        match u64::try_from(left_s) {
            // As published: the limit must have passed, not only been reached.
            Ok(left_s) => self.recheck_s = Some(self.recheck_s.map_or(left_s + 1, |other| other.min(left_s + 1))),
            Err(_) => self.troubles.push(trouble()),
        }
    }
}

pub fn of(check: &MachineHealthCheck, cluster: &Cluster, target: &Target, now: &Time) -> Verdict {
    let machine = target.machine.as_ref();
    if owner::annotation_of(&machine.metadata, names::REMEDIATE_ANNOTATION).is_some() {
        let message =
            format!("Health check failed: marked for remediation via {} annotation", names::REMEDIATE_ANNOTATION);
        return Verdict::Sick { reason: "HasRemediateAnnotation", message };
    }
    let control_plane = owner::label_of(&machine.metadata, names::CONTROL_PLANE_LABEL).is_some();
    // A machine is not to blame for a cluster that it can't join yet. The first of a control plane may be.
    if (!holds(cluster, "ControlPlaneInitialized") && !control_plane) || !holds(cluster, "InfrastructureReady") {
        return Verdict::Undecided { recheck_s: None };
    }
    let own = machine_findings(check, machine, now);
    let (reason, node) = node_findings(check, cluster, target, now);
    if own.troubles.is_empty() && node.troubles.is_empty() {
        let recheck_s = own.recheck_s.into_iter().chain(node.recheck_s).min();
        let settled = recheck_s.is_none() && machine.metadata.deletion_timestamp.is_none() && target.node.is_some();
        return if settled { Verdict::Healthy } else { Verdict::Undecided { recheck_s } };
    }
    let reason = if own.troubles.is_empty() { reason } else { "UnhealthyMachine" };
    let troubles: Vec<_> = own.troubles.into_iter().chain(node.troubles).map(|text| format!("  * {text}")).collect();
    Verdict::Sick { reason, message: format!("Health check failed:\n{}", troubles.join("\n")) }
}

/// Whether a condition of the cluster is true.
pub fn holds(cluster: &Cluster, type_: &str) -> bool {
    true_since(cluster.status.as_ref().map_or(&[], |status| &status.conditions), type_).is_some()
}

fn true_since(conditions: &[Condition], type_: &str) -> Option<Timestamp> {
    let found = condition::get(conditions, type_).filter(|found| found.status == ConditionStatus::True)?;
    Some(found.last_transition_time.0)
}

fn machine_findings(check: &MachineHealthCheck, machine: &Machine, now: &Time) -> Findings {
    let mut findings = Findings::default();
    let wanted = check.spec.checks.iter().flat_map(|checks| &checks.unhealthy_machine_conditions);
    let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
    for bad in wanted {
        if let Some(found) = condition::get(conditions, &bad.type_).filter(|found| found.status == bad.status) {
            findings.note(found.last_transition_time.0, bad.timeout_seconds, now, || {
                let (type_, status, reason) = (&bad.type_, bad.status, &found.reason);
                let limit = go_duration(bad.timeout_seconds.into());
                format!("Condition {type_} on Machine is reporting status {status:?} with reason {reason} for more than {limit}")
            });
        }
    }
    findings
}

fn node_findings(
    check: &MachineHealthCheck,
    cluster: &Cluster,
    target: &Target,
    now: &Time,
) -> (&'static str, Findings) {
    let mut findings = Findings::default();
    let status = target.machine.status.as_ref();
    let Some(node) = &target.node else {
        if let Some(reference) = status.and_then(|status| status.node_ref.as_ref()) {
            findings.troubles.push(format!("Node {} has been deleted", reference.name));
            return ("NodeDeleted", findings);
        }
        let limit_s = check.spec.checks.as_ref().and_then(|checks| checks.node_startup_timeout_seconds);
        let limit_s = limit_s.unwrap_or(STARTUP_TIMEOUT_S);
        if limit_s > 0 {
            let cluster = cluster.status.as_ref().map_or(&[][..], |status| &status.conditions);
            let own = status.map_or(&[][..], |status| &status.conditions);
            let created = target.machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let since = [
                created,
                true_since(cluster, "ControlPlaneInitialized"),
                true_since(cluster, "InfrastructureReady"),
                true_since(own, "InfrastructureReady"),
            ];
            if let Some(since) = since.into_iter().flatten().max() {
                let late = || format!("Node failed to report startup in {}", go_duration(limit_s.into()));
                findings.note(since, limit_s, now, late);
            }
        }
        return ("NodeStartupTimeout", findings);
    };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    for bad in check.spec.checks.iter().flat_map(|checks| &checks.unhealthy_node_conditions) {
        let found =
            conditions.into_iter().flatten().find(|found| found.type_ == bad.type_ && found.status == bad.status);
        if let Some(found) = found {
            let since = found.last_transition_time.as_ref().map_or(now.0, |time| time.0);
            findings.note(since, bad.timeout_seconds, now, || {
                let reason = found.reason.as_deref().unwrap_or_default();
                let (type_, status, limit) = (&bad.type_, &bad.status, go_duration(bad.timeout_seconds.into()));
                format!(
                    "Condition {type_} on Node is reporting status {status} with reason {reason} for more than {limit}"
                )
            });
        }
    }
    ("UnhealthyNode", findings)
}
