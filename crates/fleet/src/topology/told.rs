//! What TopologyReconciled says: whether everything is as the topology has it, and what an upgrade waits for.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/topology/cluster/status.go: reasons, and how lines begin.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    cluster::Cluster,
    condition::Statement,
    names::TOPOLOGY_DEFER_UPGRADE_ANNOTATION,
    topology::{
        desired::{Desired, Group, Waiting},
        hooks,
    },
};
use serde_json::Value;

const TYPE: &str = "TopologyReconciled";
/// Objects that one line names.
const NAMED_MAX: usize = 3;

/// Whether everything is as the topology says, and what waits for what. `control_plane`: the kind of the control plane
/// that there is.
pub(super) fn reconciled(cluster: &Cluster, control_plane: &str, desired: &Desired) -> Statement {
    let upgrade = &desired.upgrade;
    let over = upgrade.waiting.is_empty() && upgrade.upgrading.is_empty() && desired.hooks.blocking.is_empty();
    if over && !desired.hooks.noted.as_deref().is_some_and(|noted| noted.contains("AfterClusterUpgrade")) {
        return Statement::yes(TYPE, "ReconcileSucceeded");
    }
    let version = cluster.spec.topology.as_ref().map(|topology| topology.version.as_str()).unwrap_or_default();
    let mut lines = Vec::new();
    if !desired.hooks.blocking.is_empty() {
        lines.push(hooks::told(&desired.hooks.blocking, "upgrade"));
    }
    lines.extend(of_control_plane(control_plane, desired));
    lines.extend(Group::ALL.into_iter().flat_map(|group| of_workers(group, desired)));
    let lines: String = lines.into_iter().map(|line| format!("\n  * {line}")).collect();
    Statement::no(TYPE, reason(desired), format!("Cluster is upgrading to {version}{lines}"))
}

/// An upgrade that goes no further because its user said so has a reason of its own.
fn reason(desired: &Desired) -> &'static str {
    let upgrade = &desired.upgrade;
    let deferred = |group: Group| {
        upgrade.waiting.iter().any(|one| matches!(one, Waiting::Deferred { group: of, .. } if *of == group))
    };
    let goes_on = !desired.hooks.blocking.is_empty() || upgrade.upgrading.iter().any(|(group, _)| group.is_none());
    let is_still = |group: Group| {
        let moves = upgrade.upgrading.iter().any(|(of, _)| *of == Some(group));
        let waits = |one: &Waiting| matches!(one, Waiting::Workers { group: of, .. } if *of == group);
        !moves && !upgrade.waiting.iter().any(waits)
    };
    if !goes_on && deferred(Group::Deployments) && is_still(Group::Deployments) {
        "MachineDeploymentsUpgradeDeferred"
    } else if !goes_on && deferred(Group::Pools) && is_still(Group::Pools) {
        "MachinePoolsUpgradeDeferred"
    } else {
        "ClusterUpgrading"
    }
}

fn of_control_plane(kind: &str, desired: &Desired) -> Option<String> {
    let (upgrade, version) = (&desired.upgrade, to(desired));
    if upgrade.upgrading.iter().any(|(group, _)| group.is_none()) {
        return Some(format!("{kind} upgrading to version {version}{}", pending(&upgrade.plan.control_plane, version)));
    }
    let on = upgrade.waiting.iter().find_map(|one| match one {
        Waiting::ControlPlane { on, .. } => Some(on),
        _ => None,
    })?;
    Some(format!("{kind} pending upgrade to version {}: {on}", upgrade.plan.control_plane.join(", ")))
}

fn of_workers(group: Group, desired: &Desired) -> Vec<String> {
    let (upgrade, version, kind) = (&desired.upgrade, to(desired), group.kind());
    let mut lines = Vec::new();
    let moving = upgrade.upgrading.iter().filter(|(of, _)| *of == Some(group)).map(|(_, name)| name.as_str());
    // What is on its way may wait for the next one already: it is told once.
    let moving: BTreeSet<&str> = moving.collect();
    if let Some(names) = listed(kind, moving.iter().copied().collect()) {
        lines.push(format!("{names} upgrading to version {version}{}", pending(&upgrade.plan.workers, version)));
    }
    let (mut waiting, mut deferred, mut to_come) = (BTreeMap::<&str, Vec<&str>>::new(), Vec::new(), Vec::new());
    for one in &upgrade.waiting {
        match one {
            Waiting::Workers { name, .. } | Waiting::Deferred { name, .. } if moving.contains(name.as_str()) => {}
            Waiting::Workers { group: of, name, on, .. } if *of == group => {
                waiting.entry(on).or_default().push(name);
            }
            Waiting::Deferred { group: of, name, .. } if *of == group => deferred.push(name.as_str()),
            Waiting::Create { group: of, topology, .. } if *of == group => to_come.push(topology.as_str()),
            _ => {}
        }
    }
    for (on, names) in waiting {
        let names = listed(kind, names).unwrap_or_default();
        lines.push(format!("{names} pending upgrade to version {}: {on}", upgrade.plan.workers.join(", ")));
    }
    if let Some(names) = listed(kind, deferred) {
        let by = match group {
            Group::Deployments => "defer-upgrade",
            Group::Pools => TOPOLOGY_DEFER_UPGRADE_ANNOTATION,
        };
        lines.push(format!(
            "{names} upgrade to version {version} deferred using {by} or hold-upgrade-sequence annotations"
        ));
    }
    if let Some(names) = listed(kind, to_come) {
        lines.push(format!("{names} creation deferred while control plane upgrade is in progress"));
    }
    lines
}

/// The version that the control plane is to have now.
fn to(desired: &Desired) -> &str {
    desired.control_plane.pointer("/spec/version").and_then(Value::as_str).unwrap_or_default()
}

/// What is to follow.
fn pending(way: &[String], version: &str) -> String {
    let rest: Vec<&str> = way.iter().map(String::as_str).filter(|step| *step != version).collect();
    if rest.is_empty() { String::new() } else { format!(" ({} pending)", rest.join(", ")) }
}

/// Kind and names; none if there are none.
fn listed(kind: &str, mut names: Vec<&str>) -> Option<String> {
    names.sort_unstable();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("{kind} {one}")),
        few if few.len() <= NAMED_MAX => Some(format!("{kind}s {}", few.join(", "))),
        many => Some(format!("{kind}s {}, ... ({} more)", many[..NAMED_MAX].join(", "), many.len() - NAMED_MAX)),
    }
}
