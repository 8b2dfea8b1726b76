//! Counters and conditions of a KubeadmControlPlane.

use api::{
    condition::{self, Statement},
    control_plane::{KubeadmControlPlane, KubeadmControlPlaneInitialization},
    meta::Time,
    names,
};

use super::{Seen, machines, rollout};
use crate::{
    machine_set::{statement_of, status::count},
    summary,
};

pub fn set(seen: &Seen, after: &mut KubeadmControlPlane, blocked: Option<&str>, paused: bool, now: &Time) {
    let generation = after.metadata.generation;
    let deleting = after.metadata.deletion_timestamp.is_some();
    let machines: Vec<_> = seen.machines.iter().map(AsRef::as_ref).collect();
    let counts = count(&machines);
    let wanted = after.spec.replicas.unwrap_or(1);
    let outdated = machines.iter().filter(|machine| rollout::outdated(seen, machine, now).is_some()).count();
    let outdated = i32::try_from(outdated).unwrap_or(i32::MAX);
    let lowest =
        machines.iter().filter_map(|machine| machine.spec.version.clone()).min_by_key(|version| order(version));
    let status = after.status.get_or_insert_default();
    status.observed_generation = generation;
    let cluster = seen.cluster.as_ref().and_then(|cluster| cluster.metadata.name.as_deref()).unwrap_or_default();
    status.selector = Some(format!("{}={cluster},{}", names::CLUSTER_LABEL, names::CONTROL_PLANE_LABEL));
    status.replicas = Some(counts.total);
    status.ready_replicas = Some(counts.ready);
    status.available_replicas = Some(counts.available);
    status.up_to_date_replicas = Some(counts.total - outdated);
    status.version = lowest;
    status.versions = counts.versions;
    if seen.initialized {
        status.initialization = Some(KubeadmControlPlaneInitialization { control_plane_initialized: Some(true) });
    }
    let initialized = status.initialization.as_ref().is_some_and(|found| found.control_plane_initialized == Some(true));
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if paused {
        return;
    }
    set(Statement::of(
        "Initialized",
        initialized,
        ("Initialized", "NotInitialized"),
        "Control plane not yet initialized",
    ));
    let (made, given) = crate::certificates::needed(super::cluster_configuration(&seen.control_plane));
    let have = |purpose: &&api::names::Purpose| seen.certificates.iter().any(|(found, _)| found == *purpose);
    let missing = made.iter().chain(given).filter(|purpose| !have(purpose)).count();
    let message = format!("{missing} key pairs are to be made");
    set(Statement::of("CertificatesAvailable", missing == 0, ("Available", "NotAvailable"), message));
    let named = || {
        seen.machines.iter().map(|machine| {
            let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
            (rollout::name_of(machine), conditions)
        })
    };
    let healthy = machines.iter().filter(|machine| machines::is_healthy(machine)).count();
    let troubled: Vec<_> = machines
        .iter()
        .filter(|machine| !machines::is_healthy(machine))
        .map(|machine| format!("* Machine {}: control plane components are not healthy yet", rollout::name_of(machine)))
        .collect();
    let all = troubled.is_empty() && !machines.is_empty();
    set(Statement::of("ControlPlaneComponentsHealthy", all, ("Healthy", "NotHealthy"), troubled.join("\n")));
    let etcd =
        summary::Reasons { all: "Healthy", some_not: "NotHealthy", some_unknown: "HealthUnknown", none: "NotHealthy" };
    set(summary::all("EtcdClusterHealthy", "Machine", "EtcdPodHealthy", etcd, named()));
    set(summary::all("MachinesReady", "Machine", "Ready", summary::READY, named()));
    set(summary::all("MachinesUpToDate", "Machine", "UpToDate", summary::UP_TO_DATE, named()));
    let rolling = outdated > 0 && !deleting;
    let message = if rolling { format!("Rolling out {outdated} not up-to-date replicas") } else { String::new() };
    set(statement_of("RollingOut", rolling, ("RollingOut", "NotRollingOut"), message));
    let up = counts.total < wanted && !deleting;
    let mut message = if up { format!("Scaling up from {} to {wanted} replicas", counts.total) } else { String::new() };
    if let Some(blocked) = blocked.filter(|_| up) {
        message = format!("{message} is blocked because:\n* {blocked}");
    }
    set(statement_of("ScalingUp", up, ("ScalingUp", "NotScalingUp"), message));
    let target = if deleting { 0 } else { wanted };
    let down = counts.total > target && (deleting || !rolling);
    let message = if down { format!("Scaling down from {} to {target} replicas", counts.total) } else { String::new() };
    set(statement_of("ScalingDown", down, ("ScalingDown", "NotScalingDown"), message));
    set(Statement::no("Remediating", "NotRemediating", ""));
    let message = if deleting && seen.others > 0 {
        format!("Waiting for {} worker machines to be deleted", seen.others)
    } else if deleting {
        format!("Deleting {} Machines", counts.total)
    } else {
        String::new()
    };
    set(statement_of("Deleting", deleting, ("Deleting", "NotDeleting"), message));
    // The API serves while a majority of the members does.
    let quorum = machines.len() / 2 + 1;
    let serving = !machines.is_empty() && healthy >= quorum && initialized && !deleting;
    let why = if deleting {
        "Control plane is being deleted".to_owned()
    } else if !initialized {
        "Control plane not yet initialized".to_owned()
    } else {
        format!(
            "{healthy} of {} Machines have healthy control plane components, at least {quorum} required",
            machines.len()
        )
    };
    set(Statement::of("Available", serving, ("Available", "NotAvailable"), why));
}

/// Versions by their numbers.
fn order(version: &str) -> Vec<u64> {
    version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0)).collect()
}
