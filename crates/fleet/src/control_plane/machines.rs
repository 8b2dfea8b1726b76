//! What the control plane says of each of its machines, and carries to it.

use std::collections::BTreeMap;

use api::{
    condition::{self, Statement},
    control_plane::KubeadmControlPlane,
    machine::Machine,
    meta::Time,
};
use control::Plan;
use k8s_openapi::api::core::v1::Pod;

use super::{Seen, rollout};
use crate::{machine_set, owner};

/// Condition of a machine, and the static pod that it speaks of (kubeadm names them `<component>-<node>`).
const COMPONENTS: [(&str, &str); 4] = [
    ("APIServerPodHealthy", "kube-apiserver"),
    ("ControllerManagerPodHealthy", "kube-controller-manager"),
    ("SchedulerPodHealthy", "kube-scheduler"),
    ("EtcdPodHealthy", "etcd"),
];

/// The components that the control plane runs: with an etcd of its own or the user's.
fn components(seen: &Seen) -> &'static [(&'static str, &'static str)] {
    if has_own_etcd(&seen.control_plane) { &COMPONENTS } else { &COMPONENTS[..3] }
}

/// Whether etcd runs on the control plane's machines, and is not the user's own elsewhere.
pub fn has_own_etcd(control_plane: &KubeadmControlPlane) -> bool {
    let spec = control_plane.spec.kubeadm_config_spec.as_ref();
    let configuration = spec.and_then(|spec| spec.cluster_configuration.as_ref());
    configuration.and_then(|found| found.etcd.as_ref()?.external.as_ref()).is_none()
}

/// Its node is there and every component that was reported runs.
pub fn is_healthy(machine: &Machine) -> bool {
    let Some(status) = &machine.status else { return false };
    let reported = COMPONENTS.iter().filter_map(|(type_, _)| condition::get(&status.conditions, type_));
    let mut reported = reported.peekable();
    status.node_ref.is_some()
        && reported.peek().is_some()
        && reported.all(|found| found.status == api::meta::ConditionStatus::True)
}

/// Removes the hook that holds the machine's infrastructure.
pub fn release(machine: &Machine, plan: &mut Plan) {
    let mut after = machine.clone();
    if let Some(annotations) = &mut after.metadata.annotations {
        annotations.remove(rollout::CLEANUP_HOOK);
    }
    plan.update(machine, &after);
}

pub fn update_conditions(seen: &Seen, now: &Time, plan: &mut Plan) {
    let template = &seen.control_plane.spec.machine_template;
    for machine in &seen.machines {
        // Its deletion is planned elsewhere: one write of one object a reconcile.
        if machine.metadata.deletion_timestamp.is_some() || machine_set::deletes(plan, machine) {
            continue;
        }
        let mut after = machine.as_ref().clone();
        if let Some(meta) = &template.metadata {
            owner::extend(&mut after.metadata.labels, &meta.labels);
            owner::extend(&mut after.metadata.annotations, &meta.annotations);
        }
        after.spec.deletion = template.spec.deletion.clone();
        after.spec.readiness_gates = template.spec.readiness_gates.clone();
        after.spec.taints = template.spec.taints.clone();
        let generation = machine.metadata.generation;
        let status = after.status.get_or_insert_default();
        let node = status.node_ref.as_ref().map(|node| node.name.clone());
        for (type_, component) in components(seen) {
            let statement = health(type_, component, node.as_deref(), &seen.pods);
            condition::set(&mut status.conditions, statement, generation, now);
        }
        let statement = match rollout::outdated(seen, machine, now) {
            None => Statement::yes("UpToDate", "UpToDate"),
            Some(why) => Statement::no("UpToDate", "NotUpToDate", format!("* {why}")),
        };
        condition::set(&mut status.conditions, statement, generation, now);
        plan.update(machine.as_ref(), &after);
    }
}

fn health(
    type_: &'static str,
    component: &str,
    node: Option<&str>,
    pods: &Result<BTreeMap<String, Pod>, String>,
) -> Statement {
    let Some(node) = node else {
        return Statement::unknown(type_, "InspectionFailed", "Waiting for the node to be known");
    };
    let pods = match pods {
        Ok(pods) => pods,
        Err(why) => return Statement::unknown(type_, "ConnectionDown", why.as_str()),
    };
    let name = format!("{component}-{node}");
    let Some(pod) = pods.get(&name) else {
        return Statement::no(type_, "DoesNotExist", format!("Pod {name} does not exist"));
    };
    let status = pod.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if ready {
        return Statement::yes(type_, "Running");
    }
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let reason = if phase == "Failed" { "Failed" } else { "Provisioning" };
    Statement::no(type_, reason, format!("Pod {name} is {phase} and not ready"))
}
