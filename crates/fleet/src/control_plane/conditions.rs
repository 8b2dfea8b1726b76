//! Counters and conditions of a KubeadmControlPlane.

use api::{
    condition::{self, Statement},
    control_plane::{KubeadmControlPlane, KubeadmControlPlaneInitialization},
    in_place::is_under_way,
    machine::Machine,
    meta::{ConditionStatus, Time},
    names,
};

use super::{Seen, etcd, machines, preflight, remediation, remediation::Decision, rollout};
use crate::{
    machine_set::{statement_of, status::count},
    summary,
};

pub fn set(
    seen: &Seen,
    after: &mut KubeadmControlPlane,
    decision: Option<&Decision>,
    blocked: Option<&str>,
    paused: bool,
    now: &Time,
) {
    let generation = after.metadata.generation;
    let deleting = after.metadata.deletion_timestamp.is_some();
    let machines: Vec<_> = seen.machines.iter().map(AsRef::as_ref).collect();
    let counts = count(&machines);
    let wanted = after.spec.replicas.unwrap_or(1);
    let is_new =
        |machine: &Machine| !is_under_way(&machine.metadata) && rollout::outdated(seen, machine, now).is_none();
    let outdated = machines.iter().filter(|machine| !is_new(machine)).count();
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
    let pods: Vec<_> = machines::components(seen).iter().map(|(type_, _)| *type_).collect();
    set(from_machines("ControlPlaneComponentsHealthy", "control plane", seen, &pods, &[]));
    if machines::has_own_etcd(&seen.control_plane) {
        set(from_machines("EtcdClusterHealthy", "etcd member", seen, &[machines::ETCD_MEMBER], &strangers(seen)));
    }
    set(summary::all("MachinesReady", "Machine", "Ready", summary::READY, named()));
    set(summary::all("MachinesUpToDate", "Machine", "UpToDate", summary::UP_TO_DATE, named()));
    let rolling = outdated > 0 && !deleting;
    let mut message = if rolling { format!("Rolling out {outdated} not up-to-date replicas") } else { String::new() };
    if let Some(blocked) = blocked.filter(|_| rolling) {
        message = format!("{message} is blocked because:\n* {blocked}");
    }
    set(statement_of("RollingOut", rolling, ("RollingOut", "NotRollingOut"), message));
    let up = counts.total < wanted && !deleting;
    let mut message = if up { format!("Scaling up from {} to {wanted} replicas", counts.total) } else { String::new() };
    if let Some(blocked) = blocked.filter(|_| up) {
        message = format!("{message} is blocked because:\n* {blocked}");
    }
    set(statement_of("ScalingUp", up, ("ScalingUp", "NotScalingUp"), message));
    let target = if deleting { 0 } else { wanted };
    let down = counts.total > target && (deleting || !rolling);
    let mut message =
        if down { format!("Scaling down from {} to {target} replicas", counts.total) } else { String::new() };
    if let Some(blocked) = blocked.filter(|_| down) {
        message = format!("{message} is blocked because:\n* {blocked}");
    }
    set(statement_of("ScalingDown", down, ("ScalingDown", "NotScalingDown"), message));
    set(remediation::summary(seen, decision));
    let message = if deleting && seen.others > 0 {
        format!("Waiting for {} worker machines to be deleted", seen.others)
    } else if deleting {
        format!("Deleting {} Machines", counts.total)
    } else {
        String::new()
    };
    set(statement_of("Deleting", deleting, ("Deleting", "NotDeleting"), message));
    let certified = missing == 0;
    set(available(seen, initialized, certified, deleting));
}

/// A condition of all machines together, with what is wrong besides.
/// Source: kubernetes-sigs/cluster-api controlplane/kubeadm/pkg/workload_cluster_conditions.go.
fn from_machines(type_: &'static str, note: &str, seen: &Seen, parts: &[&str], besides: &[String]) -> Statement {
    let (mut bad, mut unknown, mut good) = (false, false, false);
    let mut lines = Vec::new();
    for machine in &seen.machines {
        let mut said = Vec::new();
        for found in parts.iter().filter_map(|part| condition::get(preflight::conditions(machine), part)) {
            match found.status {
                ConditionStatus::True => good = true,
                // One that only boots is no news.
                ConditionStatus::Unknown if machine.spec.provider_id.is_none() => good = true,
                status => {
                    if status == ConditionStatus::False {
                        bad = true;
                    } else {
                        unknown = true;
                    }
                    said.push(format!("  * {}: {}", found.type_, found.message));
                }
            }
        }
        if !said.is_empty() {
            lines.push(format!("* Machine {}:\n{}", rollout::name_of(machine), said.join("\n")));
        }
    }
    lines.extend(besides.iter().map(|line| format!("* {line}")));
    let message = lines.join("\n");
    if bad || !besides.is_empty() {
        Statement::no(type_, "NotHealthy", message)
    } else if unknown {
        Statement::unknown(type_, "HealthUnknown", message)
    } else if good {
        Statement::yes(type_, "Healthy")
    } else {
        Statement::unknown(type_, "HealthUnknown", format!("No Machines reporting {note} status"))
    }
}

/// Etcd members without a machine.
fn strangers(seen: &Seen) -> Vec<String> {
    let Ok(Some(look)) = preflight::look(seen) else { return Vec::new() };
    let ours = |member: &&etcd::Member| seen.machines.iter().any(|machine| member.is_on(machine));
    let strangers = look.members.iter().filter(|member| !ours(member));
    strangers.map(|member| format!("Etcd member {} does not have a corresponding Machine", member.told())).collect()
}

/// The API serves: some machine runs all of a control plane, and most etcd members are well.
fn available(seen: &Seen, initialized: bool, certified: bool, deleting: bool) -> Statement {
    let type_ = "Available";
    if !initialized {
        return Statement::no(type_, "NotAvailable", "Control plane not yet initialized");
    }
    let all = seen.machines.len();
    let serve = seen.machines.iter().filter(|machine| {
        let well = |(part, _): &(&str, &str)| preflight::is_true(machine, part);
        machines::components(seen).iter().all(well)
    });
    let serve = serve.count();
    let (mut troubles, mut remarks) = (Vec::new(), Vec::new());
    if deleting {
        troubles.push("* Control plane metadata.deletionTimestamp is set".to_owned());
    }
    if !certified {
        troubles.push("* Control plane certificates are not available".to_owned());
    }
    if machines::has_own_etcd(&seen.control_plane) && !deleting {
        let told = seen.machines.iter().filter(|machine| preflight::is_true(machine, machines::ETCD_MEMBER)).count();
        let (well, members) = match &seen.etcd {
            Some(Ok(look)) => look.voters(),
            // They are not known now: what was said of them last stands while it does.
            _ if told > 0 => (told, all),
            Some(Err(why)) => {
                return Statement::unknown(type_, "InspectionFailed", format!("Failed to get etcd members: {why}"));
            }
            None => return Statement::no(type_, "NotAvailable", "Waiting for etcd to report the list of members"),
        };
        let quorum = members / 2 + 1;
        let verb = if well == 1 { "is" } else { "are" };
        let line = format!(
            "* {well} of {members} etcd members {verb} healthy, at least {quorum} healthy member required for etcd quorum"
        );
        if well < quorum {
            troubles.push(line);
        } else if well < members {
            remarks.push(line);
        }
    }
    if serve == 0 {
        troubles.push("* There are no Machines with healthy control plane components, at least 1 required".to_owned());
    } else if serve < all {
        let verb = if serve == 1 { "Machines has" } else { "Machines have" };
        remarks.push(format!("* {serve} of {all} {verb} healthy control plane components, at least 1 required"));
    }
    if troubles.is_empty() {
        return Statement { message: remarks.join("\n"), ..Statement::yes(type_, "Available") };
    }
    Statement::no(type_, "NotAvailable", troubles.join("\n"))
}

/// Versions by their numbers.
fn order(version: &str) -> Vec<u64> {
    version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0)).collect()
}
