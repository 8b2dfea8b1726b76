//! What the control plane says of each of its machines, and carries to it.

use std::sync::Arc;

use api::{
    condition::{self, Statement},
    control_plane::KubeadmControlPlane,
    machine::{Machine, MachineDeletion},
    meta::{Gate, Time},
};
use control::{Key, Plan, Step};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;
use serde_json::json;

use super::{
    Seen, deletion,
    etcd::look::Trouble,
    expiry, preflight,
    remediation::{self, Decision},
    rollout,
};
use crate::{machine_set, propagation};

/// Condition of a machine, and the static pod that it speaks of (kubeadm names them `<component>-<node>`).
const COMPONENTS: [(&str, &str); 4] = [
    ("APIServerPodHealthy", "kube-apiserver"),
    ("ControllerManagerPodHealthy", "kube-controller-manager"),
    ("SchedulerPodHealthy", "kube-scheduler"),
    ("EtcdPodHealthy", "etcd"),
];

/// Condition of a machine about its etcd member.
pub const ETCD_MEMBER: &str = "EtcdMemberHealthy";

/// Condition of a machine about what kubeadm writes on its node.
pub const NODE_MARKS: &str = "NodeKubeadmLabelsAndTaintsSet";
pub const NODE_ROLE: &str = "node-role.kubernetes.io/control-plane";

/// The components that the control plane runs: with an etcd of its own or the user's.
pub fn components(seen: &Seen) -> &'static [(&'static str, &'static str)] {
    if has_own_etcd(&seen.control_plane) { &COMPONENTS } else { &COMPONENTS[..3] }
}

/// Whether etcd runs on the control plane's machines, and is not the user's own elsewhere.
pub fn has_own_etcd(control_plane: &KubeadmControlPlane) -> bool {
    let spec = control_plane.spec.kubeadm_config_spec.as_ref();
    let configuration = spec.and_then(|spec| spec.cluster_configuration.as_ref());
    configuration.and_then(|found| found.etcd.as_ref()?.external.as_ref()).is_none()
}

/// What a machine's readiness consists of besides: what the control plane says of it, then what the user asks for.
pub fn gates(control_plane: &KubeadmControlPlane) -> Vec<Gate> {
    let own_etcd = has_own_etcd(control_plane);
    let components = if own_etcd { &COMPONENTS } else { &COMPONENTS[..3] };
    let told = std::iter::once(NODE_MARKS)
        .chain(components.iter().map(|(type_, _)| *type_))
        .chain(own_etcd.then_some(ETCD_MEMBER));
    let mut gates: Vec<Gate> = told.map(|type_| Gate { condition_type: type_.to_owned(), polarity: None }).collect();
    for gate in &control_plane.spec.machine_template.spec.readiness_gates {
        if !gates.iter().any(|found| found.condition_type == gate.condition_type) {
            gates.push(gate.clone());
        }
    }
    gates
}

/// The nodes of all machines that have one.
pub fn nodes(seen: &Seen) -> Vec<String> {
    seen.machines.iter().filter_map(|machine| node_of(machine).map(str::to_owned)).collect()
}

fn node_of(machine: &Machine) -> Option<&str> {
    Some(machine.status.as_ref()?.node_ref.as_ref()?.name.as_str())
}

/// All components run on it, whether it goes or stays.
pub fn runs(seen: &Seen, machine: &Machine) -> bool {
    let (Some(node), Ok(pods)) = (node_of(machine), &seen.pods) else { return false };
    components(seen).iter().all(|(_, component)| pods.get(&format!("{component}-{node}")).is_some_and(is_ready))
}

/// Removes the hook that holds the machine's infrastructure.
pub fn release(machine: &Machine, plan: &mut Plan) {
    let mut after = machine.clone();
    if let Some(annotations) = &mut after.metadata.annotations {
        annotations.remove(deletion::CLEANUP_HOOK);
    }
    plan.update(machine, &after);
}

fn is_planned(plan: &Plan, machine: &Machine) -> bool {
    let (kind, key) = (Machine::kind(&()), Key::of(machine));
    machine_set::deletes(plan, machine)
        || plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Update(change) if change.resource.kind == kind && change.key == key))
}

/// The machines as they are to be written: with what is carried to them, and what is known of them.
pub fn updated(seen: &Seen, decision: Option<&Decision>, now: &Time) -> Vec<Machine> {
    let template = &seen.control_plane.spec.machine_template;
    let update = |machine: &Arc<Machine>| {
        let mut after = machine.as_ref().clone();
        let goes = machine.metadata.deletion_timestamp.is_some();
        // One that goes gets them too: a drain that does not end is freed by a shorter time for it.
        after.spec.deletion = MachineDeletion::completed(template.spec.deletion.as_ref());
        after.spec.taints = template.spec.taints.clone();
        if !goes {
            propagation::carry(&mut after.metadata, template.metadata.as_ref());
            after.spec.readiness_gates = gates(&seen.control_plane);
        }
        let generation = machine.metadata.generation;
        let mut statements: Vec<Statement> =
            components(seen).iter().filter_map(|(type_, component)| health(seen, machine, type_, component)).collect();
        if has_own_etcd(&seen.control_plane) {
            statements.extend(member(seen, machine));
        }
        statements.extend(marks(seen, machine));
        if !goes {
            statements.push(match rollout::outdated(seen, machine, now) {
                Some(why) => Statement::no("UpToDate", "NotUpToDate", format!("* {why}")),
                None => crate::in_place::updating(machine).unwrap_or_else(|| Statement::yes("UpToDate", "UpToDate")),
            });
        }
        let remediated = remediation::statement(machine, decision);
        let expiry = expiry::of(seen, machine);
        let status = after.status.get_or_insert_default();
        status.certificates_expiry_date = expiry.or_else(|| status.certificates_expiry_date.take());
        if remediated == Some(None) {
            condition::remove(&mut status.conditions, "OwnerRemediated");
        }
        for statement in statements.into_iter().chain(remediated.flatten()) {
            condition::set(&mut status.conditions, statement, generation, now);
        }
        after
    };
    seen.machines.iter().map(update).collect()
}

/// Writes them; one write of one object a reconcile.
pub fn update(seen: &Seen, updated: &[Machine], plan: &mut Plan) {
    let observed = if seen.observed.is_empty() { &seen.machines } else { &seen.observed };
    for (before, after) in observed.iter().zip(updated) {
        if !is_planned(plan, before) {
            plan.update(before.as_ref(), after);
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What is said of a machine that is not one of the cluster's nodes yet, or will soon be none any more.
fn passing(machine: &Machine, type_: &'static str) -> Option<Statement> {
    if machine.metadata.deletion_timestamp.is_some() {
        return Some(Statement::no(type_, "Deleting", "Machine is deleting"));
    }
    if node_of(machine).is_some() {
        return None;
    }
    let message = match &machine.spec.provider_id {
        Some(id) => format!("Waiting for a Node with spec.providerID {id} to exist"),
        None => format!("Waiting for {} to report spec.providerID", machine.spec.infrastructure_ref.kind),
    };
    Some(Statement::unknown(type_, "InspectionFailed", message))
}

/// The state of one component; `None` leaves what was said before.
fn health(seen: &Seen, machine: &Machine, type_: &'static str, component: &str) -> Option<Statement> {
    let (None, Some(node)) = (passing(machine, type_), node_of(machine)) else { return passing(machine, type_) };
    let pods = match &seen.pods {
        Ok(pods) => pods,
        Err(_) if is_kept(seen, machine, type_) => return None,
        Err(why) => return Some(Statement::unknown(type_, "ConnectionDown", why.as_str())),
    };
    let name = format!("{component}-{node}");
    let Some(pod) = pods.get(&name) else {
        return Some(Statement::no(type_, "DoesNotExist", format!("Pod {name} does not exist")));
    };
    if is_ready(pod) {
        return Some(Statement::yes(type_, "Running"));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let reason = if phase == "Failed" { "Failed" } else { "Provisioning" };
    Some(Statement::no(type_, reason, format!("Pod {name} is {phase} and not ready")))
}

/// Whether the node has the label and the taint that kubeadm gives; `None` leaves what was said before.
fn marks(seen: &Seen, machine: &Machine) -> Option<Statement> {
    let node = node_of(machine).and_then(|name| seen.nodes.get(name));
    let (Some(node), Some(name)) = (node, node_of(machine)) else {
        let without = || Statement::unknown(NODE_MARKS, "InspectionFailed", absent(machine));
        return match passing(machine, NODE_MARKS) {
            None if is_kept(seen, machine, NODE_MARKS) => None,
            passing => Some(passing.unwrap_or_else(without)),
        };
    };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let has = |key: &str, effect: &str| taints.iter().any(|taint| taint.key == key && taint.effect == effect);
    if has("node.kubernetes.io/unreachable", "NoExecute") {
        return Some(Statement::unknown(NODE_MARKS, "InspectionFailed", format!("Node {name} is unreachable")));
    }
    let mut missing = Vec::new();
    if node.metadata.labels.as_ref().is_none_or(|labels| !labels.contains_key(NODE_ROLE)) {
        missing.push(format!("the {NODE_ROLE} label"));
    }
    if wants_taint(seen, machine) && !has(NODE_ROLE, "NoSchedule") {
        missing.push(format!("the {NODE_ROLE}:NoSchedule taint"));
    }
    if missing.is_empty() {
        return Some(Statement::yes(NODE_MARKS, "Set"));
    }
    let message = format!("Node {name} does not have {}", missing.join(" and "));
    Some(Statement::no(NODE_MARKS, "NotSet", message))
}

fn absent(machine: &Machine) -> String {
    format!("Node {} does not exist", node_of(machine).unwrap_or_default())
}

/// kubeadm taints the node of a control plane unless a list of taints is given.
fn wants_taint(seen: &Seen, machine: &Machine) -> bool {
    let is_it = |key: &str, effect: &str| key == NODE_ROLE && effect == "NoSchedule";
    let own = machine.spec.taints.iter();
    if own.into_iter().any(|taint| taint.key == NODE_ROLE && json!(taint.effect) == "NoSchedule") {
        return true;
    }
    let config = machine.metadata.name.as_ref().and_then(|name| seen.configs.get(name));
    let Some(spec) = config.map(|config| &config.spec) else { return true };
    let registration = match (&spec.join_configuration, &spec.init_configuration) {
        (Some(join), None) => join.node_registration.as_ref(),
        (_, init) => init.as_ref().and_then(|init| init.node_registration.as_ref()),
    };
    let given = registration.and_then(|registration| registration.taints.as_ref());
    given.is_none_or(|taints| taints.iter().any(|taint| is_it(&taint.key, &taint.effect)))
}

/// The state of the etcd member; `None` leaves what was said before.
fn member(seen: &Seen, machine: &Machine) -> Option<Statement> {
    let (None, Some(node)) = (passing(machine, ETCD_MEMBER), node_of(machine)) else {
        return passing(machine, ETCD_MEMBER);
    };
    let inspected = |why: &str| Some(Statement::unknown(ETCD_MEMBER, "InspectionFailed", why));
    match &seen.etcd {
        Some(Ok(look)) => match look.trouble(node) {
            None => Some(Statement::yes(ETCD_MEMBER, "Healthy")),
            Some(Trouble::Unreached(why)) => inspected(&why),
            Some(Trouble::Unwell(why)) => Some(Statement::no(ETCD_MEMBER, "NotHealthy", why)),
        },
        Some(Err(_)) | None if is_kept(seen, machine, ETCD_MEMBER) => None,
        Some(Err(why)) => inspected(&format!("Failed to get etcd members: {why}")),
        None => inspected("Etcd has not been asked yet"),
    }
}

/// A cluster that has not answered for a moment only: its state stays as it was told.
fn is_kept(seen: &Seen, machine: &Machine, type_: &str) -> bool {
    seen.fresh && condition::get(preflight::conditions(machine), type_).is_some()
}
