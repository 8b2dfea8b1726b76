//! Replacing machines that a health check found ill: one at a time, within the limits that the user set, and never at the
//! cost of the quorum.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane/remediation.go (names, order,
//! messages).

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    control_plane::{KubeadmControlPlane, LastRemediation},
    machine::Machine,
    meta::{Time, go_duration},
    names,
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    Seen, machines,
    preflight::{self, conditions, is_true},
    rollout::name_of,
};
use crate::owner;

/// On the control plane from the deletion of a machine until its replacement is made.
pub const IN_PROGRESS: &str = "controlplane.cluster.x-k8s.io/remediation-in-progress";
/// On a replacement: which machine it stands in for, and how often that was tried.
pub const FOR: &str = "controlplane.cluster.x-k8s.io/remediation-for";
const OWNER_REMEDIATED: &str = "OwnerRemediated";
const HEALTH_CHECK: &str = "HealthCheckSucceeded";
/// A replacement that fails sooner than this is a retry of the same remediation.
const MIN_HEALTHY_S: i32 = 3600;

/// What the annotations hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub machine: String,
    pub timestamp: Time,
    pub retry_count: i32,
}

impl Record {
    fn of(meta: &kube::core::ObjectMeta, annotation: &str) -> Option<Self> {
        serde_json::from_str(owner::annotation_of(meta, annotation)?).ok()
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings, a time and a number are JSON")
    }
}

/// What is done about a machine that is ill.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It waits for something that passes.
    Deferred(String),
    /// Somebody else has to do something.
    Refused(String),
    /// It is deleted, and this is written on the control plane before.
    Replaced(Record),
}

/// The machine whose turn it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub machine: String,
    pub verdict: Verdict,
}

/// The machines that a health check found ill and left to their owner.
pub fn candidates(seen: &Seen) -> impl Iterator<Item = &Machine> {
    seen.machines.iter().map(AsRef::as_ref).filter(|machine| is_ill(machine))
}

fn is_ill(machine: &Machine) -> bool {
    condition::is_false(conditions(machine), HEALTH_CHECK) && condition::is_false(conditions(machine), OWNER_REMEDIATED)
}

/// Whose turn it is, and what is done; nothing if nobody is ill, or the last remediation is not done yet.
pub fn decide(seen: &Seen, cluster: &Cluster, now: &Time) -> Option<Decision> {
    let machine = candidates(seen).min_by_key(|machine| rank(seen, machine))?;
    if machine.metadata.deletion_timestamp.is_some() || in_progress(seen).is_some() {
        return None;
    }
    let verdict = judge(seen, cluster, machine, now).unwrap_or_else(|verdict| verdict);
    Some(Decision { machine: name_of(machine).to_owned(), verdict })
}

/// The remediation that waits for its replacement. A machine made since is the replacement: a crash came between it and
/// the annotation.
pub fn in_progress(seen: &Seen) -> Option<Record> {
    let record = Record::of(&seen.control_plane.metadata, IN_PROGRESS)?;
    let made = |machine: &Machine| machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let replaced = seen.machines.iter().any(|machine| made(machine).is_some_and(|made| made > record.timestamp.0));
    (!replaced).then_some(record)
}

/// The worst first: what a user names, what never became a node, whose etcd is ill, whose components are; then the oldest.
fn rank(seen: &Seen, machine: &Machine) -> impl Ord + use<> {
    let named = owner::annotation_of(&machine.metadata, names::REMEDIATE_ANNOTATION).is_some();
    let node = machine.status.as_ref().is_some_and(|status| status.node_ref.is_some());
    let well = |types: &[&str]| types.iter().map(|type_| is_true(machine, type_)).collect::<Vec<_>>();
    let etcd = if machines::has_own_etcd(&seen.control_plane) {
        well(&[machines::ETCD_MEMBER, "EtcdPodHealthy"])
    } else {
        Vec::new()
    };
    let components = well(&["APIServerPodHealthy", "ControllerManagerPodHealthy", "SchedulerPodHealthy"]);
    let made = machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (!named, node, etcd, components, made, name_of(machine).to_owned())
}

fn judge(seen: &Seen, cluster: &Cluster, machine: &Machine, now: &Time) -> Result<Verdict, Verdict> {
    let deferred = |why: &str| Verdict::Deferred(why.to_owned());
    if let Some(version) = preflight::pending_version(seen, cluster) {
        return Err(Verdict::Deferred(format!(
            "KubeadmControlPlane can't remediate while waiting for a version upgrade to {version} to be propagated from \
             Cluster.spec.topology"
        )));
    }
    let record = within_limits(seen, machine, now)?;
    let status = seen.control_plane.status.as_ref();
    let started = status.and_then(|status| status.initialization.as_ref()?.control_plane_initialized);
    if started != Some(true) {
        return Ok(Verdict::Replaced(record));
    }
    if seen.machines.len() <= 1 {
        return Err(Verdict::Refused(
            "KubeadmControlPlane can't remediate if current replicas are less or equal to 1: the only API server would go, \
             and with it the only etcd member and all that the cluster knows. Repair this Machine, or scale up to 3 replicas \
             once it is healthy"
                .to_owned(),
        ));
    }
    let provisioning = |machine: &Machine| {
        !condition::is_false(conditions(machine), HEALTH_CHECK)
            && machine.status.as_ref().is_none_or(|status| status.node_ref.is_none())
    };
    if seen.machines.iter().any(|machine| provisioning(machine)) {
        return Err(deferred(
            "KubeadmControlPlane waiting for control plane Machine provisioning to complete before triggering remediation",
        ));
    }
    if seen.machines.iter().any(|machine| machine.metadata.deletion_timestamp.is_some()) {
        return Err(deferred(
            "KubeadmControlPlane waiting for control plane Machine deletion to complete before triggering remediation",
        ));
    }
    let look = preflight::look(seen).map_err(|_| deferred("Failed to check etcd cluster health before remediation"))?;
    let safe = look.and_then(|look| Some((look, look.member_of(machine)?)));
    let safe = safe.is_none_or(|(look, member)| {
        // One that never started has no vote; it may go, whoever else is ill.
        member.name.is_empty() || member.learner || look.keeps_quorum(Some(member.id), false)
    });
    if !safe || !preflight::serves_without(seen, Some(machine)) {
        return Err(Verdict::Refused(
            "KubeadmControlPlane can't remediate this Machine because this could result in loosing Kubernetes control plane \
             components or in etcd quorum loss"
                .to_owned(),
        ));
    }
    Ok(Verdict::Replaced(record))
}

/// What is to be recorded of this remediation; `Err` while the user's limits forbid it.
fn within_limits(seen: &Seen, machine: &Machine, now: &Time) -> Result<Record, Verdict> {
    let mut record = Record { machine: name_of(machine).to_owned(), timestamp: whole(now), retry_count: 0 };
    let Some(last) = Record::of(&machine.metadata, FOR) else { return Ok(record) };
    let limits = seen.control_plane.spec.remediation.clone().unwrap_or_default();
    let seconds = |seconds: Option<i32>, default: i32| SignedDuration::from_secs(seconds.unwrap_or(default).into());
    let is_before = |period| now.0 < last.timestamp.0 + period;
    if !is_before(seconds(limits.min_healthy_period_seconds, MIN_HEALTHY_S)) {
        return Ok(record);
    }
    let retry = seconds(limits.retry_period_seconds, 0);
    if is_before(retry) {
        return Err(Verdict::Deferred(format!(
            "KubeadmControlPlane can't remediate this machine because the operation already failed in the latest {} \
             (RetryPeriodSeconds)",
            go_duration(retry.as_secs())
        )));
    }
    if limits.max_retry.is_some_and(|max| last.retry_count >= max) {
        let max = limits.max_retry.unwrap_or_default();
        return Err(Verdict::Refused(format!(
            "KubeadmControlPlane can't remediate this machine because the operation already failed {max} times (MaxRetry)"
        )));
    }
    record.retry_count = last.retry_count + 1;
    Ok(record)
}

/// Creation times are in whole seconds, and are compared with this.
fn whole(now: &Time) -> Time {
    Time(jiff::Timestamp::from_second(now.0.as_second()).unwrap_or(now.0))
}

/// When a remediation that waits for its retry period may be looked at again, in seconds.
pub fn due_in_s(seen: &Seen, now: &Time) -> Option<u64> {
    let retry_s = seen.control_plane.spec.remediation.as_ref()?.retry_period_seconds?;
    let last =
        candidates(seen).filter_map(|machine| Record::of(&machine.metadata, FOR)).map(|record| record.timestamp.0);
    let due = last.max()? + SignedDuration::from_secs(retry_s.into());
    u64::try_from(due.duration_since(now.0).as_secs() + 1).ok()
}

/// What the machine is told: nothing, or the state of its remediation. `None` takes the condition away.
pub fn statement(machine: &Machine, decision: Option<&Decision>) -> Option<Option<Statement>> {
    let told = conditions(machine);
    if !condition::is_false(told, OWNER_REMEDIATED) {
        return None;
    }
    if machine.metadata.deletion_timestamp.is_some() {
        let ill = condition::is_false(told, HEALTH_CHECK);
        return ill.then(|| Some(Statement::no(OWNER_REMEDIATED, "MachineDeleting", "Machine is deleting")));
    }
    if condition::is_true(told, HEALTH_CHECK) {
        return Some(None);
    }
    let decision = decision.filter(|decision| decision.machine == name_of(machine))?;
    Some(Some(match &decision.verdict {
        Verdict::Deferred(why) => Statement::no(OWNER_REMEDIATED, "RemediationDeferred", why.as_str()),
        Verdict::Refused(why) => Statement::no(OWNER_REMEDIATED, "CannotBeRemediated", why.as_str()),
        Verdict::Replaced(_) => Statement::no(OWNER_REMEDIATED, "MachineDeleting", "Machine is deleting"),
    }))
}

/// Writes what is known of the last remediation into the control plane's annotations and status.
pub fn record(seen: &Seen, decision: Option<&Decision>, replaced: bool, after: &mut KubeadmControlPlane) {
    let begun = decision.and_then(|decision| match &decision.verdict {
        Verdict::Replaced(record) => Some(record.clone()),
        _ => None,
    });
    let running = begun.or_else(|| in_progress(seen).filter(|_| !replaced));
    match &running {
        Some(record) => owner::annotate(&mut after.metadata, IN_PROGRESS, record.text()),
        None => {
            if let Some(annotations) = &mut after.metadata.annotations {
                annotations.remove(IN_PROGRESS);
            }
        }
    }
    let done = seen.machines.iter().filter_map(|machine| Record::of(&machine.metadata, FOR));
    let last = running.or_else(|| in_progress(seen)).or_else(|| done.max_by_key(|record| record.timestamp.0));
    if let Some(Record { machine, timestamp, retry_count }) = last {
        let last = LastRemediation { machine, retry_count, time: timestamp };
        after.status.get_or_insert_default().last_remediation = Some(last);
    }
}

/// The control plane's own condition.
pub fn summary(seen: &Seen, decision: Option<&Decision>) -> Statement {
    let told = |machine: &Machine| {
        let fresh = statement(machine, decision).flatten().map(|statement| statement.message);
        let found = || condition::get(conditions(machine), OWNER_REMEDIATED).map(|found| found.message.clone());
        format!("* Machine {}: {}", name_of(machine), fresh.or_else(found).unwrap_or_default())
    };
    let ill: Vec<_> = candidates(seen).map(told).collect();
    if !ill.is_empty() {
        return Statement { message: ill.join("\n"), ..Statement::yes("Remediating", "Remediating") };
    }
    let unhealthy = seen.machines.iter().filter(|machine| condition::is_false(conditions(machine), HEALTH_CHECK));
    let mut names: Vec<_> = unhealthy.map(|machine| name_of(machine)).collect();
    names.sort_unstable();
    let message = match names.as_slice() {
        [] => String::new(),
        [one] => format!("Machine {one} is not healthy (not to be remediated by KubeadmControlPlane)"),
        many => format!("Machines {} are not healthy (not to be remediated by KubeadmControlPlane)", many.join(", ")),
    };
    Statement::no("Remediating", "NotRemediating", message)
}
