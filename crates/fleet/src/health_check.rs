//! The MachineHealthCheck controller: says which machines are sick, and asks their owners, or somebody else, to replace them.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machinehealthcheck.

mod remedy;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;

use api::{
    admission::selection,
    cluster::Cluster,
    condition::{self, Statement},
    health_check::MachineHealthCheck,
    machine::Machine,
    meta::Time,
    names,
};
use control::{EventType, Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::util::intstr::IntOrString};

use self::{remedy::Remedy, verdict::Verdict};
use crate::{Context, owner};

/// Pause while the workload cluster's API is waited for; a connection that is made comes sooner.
const CONNECTION_PAUSE_S: u64 = 20;
/// Pause until a template for remediation is looked for again.
const TEMPLATE_PAUSE_S: u64 = 30;

pub struct HealthChecks(pub Arc<Context>);

pub struct Seen {
    pub check: Arc<MachineHealthCheck>,
    pub cluster: Option<Arc<Cluster>>,
    pub targets: Vec<Target>,
    /// The cluster's nodes are up to date.
    pub connected: bool,
    /// Of `spec.remediation.templateRef`.
    pub remedy: Option<Remedy>,
}

/// A machine that is looked after.
pub struct Target {
    pub machine: Arc<Machine>,
    pub node: Option<Arc<Node>>,
}

impl Reconcile for HealthChecks {
    const NAME: &'static str = "machinehealthcheck";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let (caches, workloads) = (&self.0.caches, &self.0.workloads);
        let Some(check) = caches.health_checks.get(key) else { return Ok(None) };
        let cluster = Key::new(key.namespace.as_str(), check.spec.cluster_name.as_str());
        let node = |machine: &Machine| {
            let reference = machine.status.as_ref()?.node_ref.as_ref()?;
            workloads.node_named(&cluster, &reference.name)
        };
        let machines = caches.machines.in_cluster(&key.namespace, &cluster.name);
        let targets = machines.into_iter().filter(|machine| is_target(&check, machine));
        let targets: Vec<_> = targets.map(|machine| Target { node: node(&machine), machine }).collect();
        let reference = check.spec.remediation.as_ref().and_then(|remediation| remediation.template_ref.as_ref());
        let remedy = match reference {
            Some(reference) => Some(Remedy::find(self.0.writer.client(), &key.namespace, reference).await),
            None => None,
        };
        Ok(Some(Seen {
            cluster: caches.clusters.get(&cluster),
            connected: workloads.client(&cluster).is_some(),
            targets,
            remedy,
            check,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> Result<Outcome> {
        self.0.writer.execute(plan).await
    }
}

/// Selected, and not taken out by its user.
fn is_target(check: &MachineHealthCheck, machine: &Machine) -> bool {
    let meta = &machine.metadata;
    !check.spec.selector.is_empty()
        && check.spec.selector.selects(meta.labels.as_ref())
        && owner::annotation_of(meta, names::PAUSED_ANNOTATION).is_none()
        && owner::annotation_of(meta, names::SKIP_REMEDIATION_ANNOTATION).is_none()
}

pub fn plan(seen: &Seen, now: &Time) -> Plan {
    let check = seen.check.as_ref();
    let mut plan = Plan::nothing();
    let Some(cluster) = seen.cluster.as_deref().filter(|_| check.metadata.deletion_timestamp.is_none()) else {
        // Its cluster's appearance brings it here again.
        return plan;
    };
    let mut after = check.clone();
    let generation = after.metadata.generation;
    let paused = owner::is_paused(Some(cluster), &check.metadata);
    let statement = Statement::of("Paused", paused, ("Paused", "NotPaused"), "");
    condition::set(&mut after.status.get_or_insert_default().conditions, statement, generation, now);
    if paused {
        plan.update(check, &after);
        return plan;
    }
    owner::label(&mut after.metadata, names::CLUSTER_LABEL, check.spec.cluster_name.as_str());
    owner::ensure(&mut after.metadata, owner::reference(cluster, false));
    if verdict::holds(cluster, "ControlPlaneInitialized") && !seen.connected {
        // What the nodes were like when they were last seen says nothing about machines.
        plan.wait(format!("the API of cluster {}", check.spec.cluster_name), CONNECTION_PAUSE_S);
        plan.update(check, &after);
        return plan;
    }
    let verdicts: Vec<_> =
        seen.targets.iter().map(|target| (target, verdict::of(check, cluster, target, now))).collect();
    let total = verdicts.len();
    let healthy = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Healthy).count();
    let sick = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Sick { .. })).count();
    let allowed = allowance(check, total, total - healthy);
    let count = |number: usize| i32::try_from(number).ok();
    let status = after.status.get_or_insert_default();
    status.observed_generation = generation;
    status.expected_machines = count(total);
    status.current_healthy = count(healthy);
    status.remediations_allowed = count(*allowed.as_ref().unwrap_or(&0));
    status.targets = verdicts.iter().filter_map(|(target, _)| target.machine.metadata.name.clone()).collect();
    status.targets.sort();
    let statement = match &allowed {
        Ok(_) => Statement::yes("RemediationAllowed", "RemediationAllowed"),
        Err(limit) => {
            let why = format!("Remediation is not allowed, the number of not started or unhealthy machines {limit}");
            let why = why.replace("{unhealthy}", &sick.to_string());
            let before =
                check.status.as_ref().and_then(|status| condition::get(&status.conditions, "RemediationAllowed"));
            if sick > 0 && before.is_none_or(|before| before.message != why) {
                plan.event(check, EventType::Warning, "RemediationRestricted", why.as_str());
            }
            Statement::no("RemediationAllowed", "TooManyUnhealthy", why)
        }
    };
    condition::set(&mut status.conditions, statement, generation, now);
    for (target, verdict) in &verdicts {
        judge(seen, target, verdict, allowed.is_ok(), now, &mut plan);
    }
    plan.update(check, &after);
    plan
}

/// How many more machines may fall ill; `Err` says which limit stands against any remediation, with `{unhealthy}` in
/// place of the number of those that are ill.
fn allowance(check: &MachineHealthCheck, total: usize, not_healthy: usize) -> std::result::Result<usize, String> {
    let trigger = check.spec.remediation.as_ref().and_then(|remediation| remediation.trigger_if.as_ref());
    if let Some(range) = trigger.and_then(|trigger| trigger.unhealthy_in_range.as_deref()) {
        let limits = selection::range(range).map(|(min, max)| (min as usize, max as usize));
        return match limits {
            Some((min, max)) if (min..=max).contains(&not_healthy) => Ok(max - not_healthy),
            _ => Err(format!(
                "does not fall within the range (total: {total}, unhealthy: {{unhealthy}}, unhealthyRange: {range})"
            )),
        };
    }
    let (max, text) = match trigger.and_then(|trigger| trigger.unhealthy_less_than_or_equal_to.as_ref()) {
        None => (total, "100%".to_owned()),
        Some(IntOrString::Int(count)) => (usize::try_from(*count).unwrap_or(0), count.to_string()),
        Some(IntOrString::String(text)) => {
            (selection::percentage(text).unwrap_or(0) as usize * total / 100, text.clone())
        }
    };
    max.checked_sub(not_healthy)
        .ok_or_else(|| format!("exceeds maxUnhealthy (total: {total}, unhealthy: {{unhealthy}}, maxUnhealthy: {text})"))
}

/// Writes the verdict on the machine, and sets its replacement going where that is allowed.
fn judge(seen: &Seen, target: &Target, verdict: &Verdict, allowed: bool, now: &Time, plan: &mut Plan) {
    let machine = target.machine.as_ref();
    let mut after = machine.clone();
    let generation = machine.metadata.generation;
    let conditions = &mut after.status.get_or_insert_default().conditions;
    match verdict {
        Verdict::Undecided { recheck_s } => {
            if let Some(seconds) = recheck_s {
                plan.wait("a machine that may turn out to be unhealthy", *seconds);
            }
            return;
        }
        Verdict::Healthy => {
            let statement = Statement::yes("HealthCheckSucceeded", "HealthCheckSucceeded");
            condition::set(conditions, statement, generation, now);
            if let Some(remedy) = seen.remedy.as_ref().filter(|_| allowed) {
                remedy.withdraw(machine, plan);
            }
        }
        Verdict::Sick { reason, message } => {
            let news = !condition::is_false(conditions, "HealthCheckSucceeded");
            let statement = Statement::no("HealthCheckSucceeded", *reason, message.as_str());
            condition::set(conditions, statement, generation, now);
            if allowed && let Some(remedy) = &seen.remedy {
                if let Some(statement) = remedy.request(machine, plan) {
                    condition::set(conditions, statement, generation, now);
                }
            } else if allowed
                && machine.metadata.deletion_timestamp.is_none()
                && !condition::is_false(conditions, "OwnerRemediated")
            {
                // One that is under way is its owner's to end.
                let statement = Statement::no("OwnerRemediated", "WaitingForRemediation", "Waiting for remediation");
                condition::set(conditions, statement, generation, now);
            }
            if news {
                let name = |meta: &kube::core::ObjectMeta| {
                    format!(
                        "{}/{}",
                        meta.namespace.as_deref().unwrap_or_default(),
                        meta.name.as_deref().unwrap_or_default()
                    )
                };
                let (marked, by) = (name(&machine.metadata), name(&seen.check.metadata));
                let message = format!("Machine {marked} has been marked as unhealthy by {by}");
                plan.event(machine, EventType::Normal, "MachineMarkedUnhealthy", message);
            }
        }
    }
    plan.update(machine, &after);
}
