//! Etcd members: what is said of them, and what happens to them when machines go.

use api::{
    machine::{AddressType, MachineAddress},
    meta::ConditionStatus,
};

use super::*;
use crate::control_plane::etcd::{Look, Member, look::tests};

/// Machines are called m1, m2, ... as they were made, and so are their nodes.
pub fn named(replicas: i32) -> Seen {
    let mut seen = running(replicas);
    for (count, machine) in (1..).zip(&mut seen.machines) {
        let (machine, name) = (Arc::make_mut(machine), format!("m{count}"));
        let old = machine.metadata.name.replace(name.clone()).unwrap();
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
            let pods = seen.pods.as_mut().unwrap();
            let pod = pods.remove(&format!("{component}-{old}")).unwrap();
            pods.insert(format!("{component}-{name}"), pod);
        }
        let mut config = seen.configs.remove(&old).unwrap();
        Arc::make_mut(&mut config).metadata.name = Some(name.clone());
        seen.configs.insert(name.clone(), config);
        let mut infrastructure = seen.infrastructures.remove(&old).unwrap();
        infrastructure.meta.name = Some(name.clone());
        seen.infrastructures.insert(name.clone(), infrastructure);
        machine.status.as_mut().unwrap().node_ref = Some(NodeRef { name });
        machine.metadata.creation_timestamp = Some(Time(now().0 - SignedDuration::from_secs(3600 - count)));
    }
    seen.initialized = true;
    let names: Vec<String> = (1..=replicas).map(|count| format!("m{count}")).collect();
    look(&mut seen, tests::well(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    seen
}

pub fn look(seen: &mut Seen, look: Look) {
    seen.etcd = Some(Ok(Arc::new(look)));
    freshen(seen);
}

/// As the controller does when it has looked.
pub fn freshen(seen: &mut Seen) {
    seen.machines = machines::updated(seen, None, &now()).into_iter().map(Arc::new).collect();
}

pub fn machine(seen: &mut Seen, index: usize) -> &mut Machine {
    Arc::make_mut(&mut seen.machines[index])
}

/// Its pods do not run any more, and its etcd member does not answer.
pub fn dies(seen: &mut Seen, index: usize) {
    let node = rollout::name_of(&seen.machines[index]).to_owned();
    seen.pods.as_mut().unwrap().retain(|name, _| !name.ends_with(&node));
    let mut all = seen.etcd.clone().unwrap().unwrap().as_ref().clone();
    all.unreached(&node);
    look(seen, all);
}

/// It is deleted, and has come as far as the hook.
pub fn deleted(seen: &mut Seen, index: usize) {
    let machine = machine(seen, index);
    machine.metadata.deletion_timestamp = Some(now());
    let conditions = &mut machine.status.as_mut().unwrap().conditions;
    let waits =
        Statement { status: ConditionStatus::True, ..Statement::no("Deleting", "WaitingForPreTerminateHook", "") };
    condition::set(conditions, waits, None, &now());
    freshen(seen);
}

fn told(seen: &Seen, index: usize, type_: &str) -> String {
    let found = condition::get(preflight::conditions(&seen.machines[index]), type_).unwrap();
    format!("{:?} {}: {}", found.status, found.reason, found.message)
}

fn of_all(seen: &Seen, type_: &str) -> String {
    let mut after = seen.control_plane.as_ref().clone();
    conditions::set(seen, &mut after, None, None, false, &now());
    let status = after.status.unwrap();
    let found = condition::get(&status.conditions, type_).unwrap();
    format!("{:?} {}: {}", found.status, found.reason, found.message)
}

#[test]
fn the_state_of_each_member_is_told_on_its_machine_and_of_all_on_the_control_plane() {
    let mut seen = named(3);
    assert_eq!(told(&seen, 0, "EtcdMemberHealthy"), "True Healthy: ");
    assert_eq!(of_all(&seen, "EtcdClusterHealthy"), "True Healthy: ");
    assert_eq!(of_all(&seen, "Available"), "True Available: ");
    dies(&mut seen, 1);
    assert_eq!(told(&seen, 1, "EtcdMemberHealthy"), "Unknown InspectionFailed: Failed to connect to etcd: it is dead");
    assert_eq!(
        of_all(&seen, "EtcdClusterHealthy"),
        "Unknown HealthUnknown: * Machine m2:\n  * EtcdMemberHealthy: Failed to connect to etcd: it is dead"
    );
    assert_eq!(
        of_all(&seen, "Available"),
        "True Available: * 2 of 3 etcd members are healthy, at least 2 healthy member required for etcd quorum\n\
         * 2 of 3 Machines have healthy control plane components, at least 1 required"
    );
    dies(&mut seen, 2);
    assert_eq!(
        of_all(&seen, "Available"),
        "False NotAvailable: * 1 of 3 etcd members is healthy, at least 2 healthy member required for etcd quorum"
    );
    let mut seen = named(1);
    deleted(&mut seen, 0);
    assert_eq!(told(&seen, 0, "EtcdMemberHealthy"), "False Deleting: Machine is deleting");
    let first = machine(&mut seen, 0);
    (first.metadata.deletion_timestamp, first.spec.provider_id) = (None, Some("x:///1".into()));
    first.status.as_mut().unwrap().node_ref = None;
    freshen(&mut seen);
    assert_eq!(
        told(&seen, 0, "EtcdMemberHealthy"),
        "Unknown InspectionFailed: Waiting for a Node with spec.providerID x:///1 to exist"
    );
}

#[test]
fn a_cluster_that_is_silent_keeps_its_conditions_for_a_while() {
    let mut seen = named(1);
    seen.pods = Err("connection refused".into());
    seen.etcd = Some(Err("connection refused".into()));
    freshen(&mut seen);
    assert_eq!(told(&seen, 0, "EtcdMemberHealthy"), "True Healthy: ");
    assert_eq!(told(&seen, 0, "APIServerPodHealthy"), "True Running: ");
    spec(&mut seen).replicas = Some(3);
    assert!(!text(&seen).contains("create"), "nothing is done on old news");
    seen.fresh = false;
    freshen(&mut seen);
    assert_eq!(
        told(&seen, 0, "EtcdMemberHealthy"),
        "Unknown InspectionFailed: Failed to get etcd members: connection refused"
    );
    assert_eq!(told(&seen, 0, "APIServerPodHealthy"), "Unknown ConnectionDown: connection refused");
}

#[test]
fn a_member_without_a_machine_is_removed_and_blocks_nobody() {
    let mut seen = named(3);
    spec(&mut seen).replicas = Some(5);
    let mut more = seen.etcd.clone().unwrap().unwrap().as_ref().clone();
    more.members.push(tests::member(9, "gone"));
    look(&mut seen, more.clone());
    assert_eq!(
        of_all(&seen, "EtcdClusterHealthy"),
        "False NotHealthy: * Etcd member gone does not have a corresponding Machine"
    );
    assert!(text(&seen).starts_with("etcd: remove 9\nwaits 1 s: Removing etcd member gone"), "{}", text(&seen));
    // Its name is not told yet: it has no vote, and goes whoever else is unwell.
    more.members[3].name = String::new();
    look(&mut seen, more.clone());
    dies(&mut seen, 0);
    assert!(text(&seen).starts_with("etcd: remove 9\n"), "{}", text(&seen));
}

/// The published controller waits here for ever: kubernetes-sigs/cluster-api#13221.
#[test]
fn the_member_of_a_machine_that_never_joined_does_not_hold_up_its_replacement() {
    let mut seen = named(2);
    spec(&mut seen).replicas = Some(3);
    let mut members = seen.etcd.clone().unwrap().unwrap().as_ref().clone();
    step(&mut seen, 50);
    let at = |address: &str| MachineAddress { address: address.into(), type_: AddressType::InternalIP };
    let third = machine(&mut seen, 2);
    let name = third.metadata.name.replace("m3".into()).unwrap();
    third.status = Some(api::machine::MachineStatus { addresses: vec![at("10.0.0.7")], ..Default::default() });
    let (config, infrastructure) = (seen.configs.remove(&name).unwrap(), seen.infrastructures.remove(&name).unwrap());
    seen.configs.insert("m3".into(), config);
    seen.infrastructures.insert("m3".into(), infrastructure);
    // It got as far as etcd, and no further.
    members.members.push(Member { learner: true, ..tests::member(7, "") });
    look(&mut seen, members.clone());
    assert!(!text(&seen).contains("etcd: remove"), "it is the member of the machine that joins");
    deleted(&mut seen, 2);
    assert!(text(&seen).starts_with("etcd: remove 7\n"), "{}", text(&seen));
    // Left behind all the same, by a machine that was let go by hand: the next one has an address of its own.
    let third = machine(&mut seen, 2);
    third.metadata.deletion_timestamp = None;
    third.status.as_mut().unwrap().addresses = vec![at("10.0.0.8")];
    freshen(&mut seen);
    assert!(text(&seen).starts_with("etcd: remove 7\n"), "{}", text(&seen));
    machine(&mut seen, 2).status.as_mut().unwrap().addresses.clear();
    assert!(!text(&seen).contains("etcd: remove"), "it may be the one that has no address yet");
    deleted(&mut seen, 2);
    assert!(text(&seen).starts_with("etcd: remove 7\n"), "before its server goes: {}", text(&seen));
}

#[test]
fn a_machine_that_a_user_deletes_goes_after_its_member_and_only_if_the_others_are_well() {
    let mut seen = named(3);
    deleted(&mut seen, 0);
    assert!(text(&seen).starts_with("etcd: m1 hands over to 3\netcd: remove 1\n"), "{}", text(&seen));
    dies(&mut seen, 1);
    assert!(
        text(&seen).starts_with("waits 10 s: Machine m1 cannot be deleted: the operation can lead to etcd quorum loss"),
        "{}",
        text(&seen)
    );
    let mut seen = named(3);
    deleted(&mut seen, 0);
    let mut two = seen.etcd.clone().unwrap().unwrap().as_ref().clone();
    two.members.remove(0);
    two.leader = 2;
    look(&mut seen, two);
    let told = brief(&plan(&seen, &now()).local);
    assert!(told.contains("kcp-cleanup\":null"), "its member is gone: {told}");
    deleted(&mut seen, 1);
    assert!(text(&seen).contains("Waiting for Machine") || text(&seen).contains("etcd"), "one after the other");
}

#[test]
fn hooks_of_others_come_first_where_the_kubelet_needs_its_own_api_server() {
    let mut seen = named(3);
    deleted(&mut seen, 0);
    let other = format!("{}/mine", names::PRE_TERMINATE_HOOK_PREFIX);
    owner::annotate(&mut machine(&mut seen, 0).metadata, &other, "");
    assert_eq!(text(&seen), "waits 10 s: Waiting for Machine m1 to be deleted");
    spec(&mut seen).version = "v1.30.0".into();
    assert!(text(&seen).starts_with("etcd: m1 hands over"), "{}", text(&seen));
}

#[test]
fn the_last_machine_goes_when_another_has_taken_over_what_it_knows() {
    let mut seen = named(1);
    deleted(&mut seen, 0);
    assert!(text(&seen).contains("create Machine"), "{}", text(&seen));
    dies(&mut seen, 0);
    let said = text(&seen);
    assert!(
        said.contains("Machine m1 cannot be deleted") && said.contains("remove the Machine's annotation"),
        "{said}"
    );
    let mut all = named(3);
    for index in 0..3 {
        deleted(&mut all, index);
    }
    assert!(text(&all).contains("create Machine"), "{}", text(&all));
}

#[test]
fn a_machine_that_leads_hands_over_before_it_is_deleted() {
    let mut seen = named(3);
    spec(&mut seen).replicas = Some(1);
    assert!(text(&seen).starts_with("etcd: m1 hands over to 3\ndelete Machine m1\n"), "{}", text(&seen));
}

#[test]
fn what_is_settled_needs_no_news_and_what_is_not_does() {
    let mut seen = named(3);
    let settled = |seen: &Seen| {
        let mut after = seen.control_plane.as_ref().clone();
        conditions::set(seen, &mut after, None, None, false, &now());
        let mut with = named(3);
        (with.machines, with.control_plane) = (seen.machines.clone(), Arc::new(after));
        preflight::is_settled(&with, &now())
    };
    assert!(settled(&seen));
    dies(&mut seen, 1);
    assert!(!settled(&seen));
    let mut seen = named(3);
    spec(&mut seen).version = "v1.35.0".into();
    assert!(!settled(&seen));
    let mut seen = named(3);
    deleted(&mut seen, 0);
    assert!(!settled(&seen));
}

#[test]
fn certificates_that_end_soon_roll_unless_they_always_do() {
    let mut seen = named(1);
    let expires = |seen: &mut Seen, days: i64| {
        let end = now().0 + SignedDuration::from_hours(24 * days);
        let config = Arc::make_mut(seen.configs.get_mut("m1").unwrap());
        *config = expiry::noted(config, end);
    };
    assert_eq!(expiry::unread(&seen).len(), 1);
    expires(&mut seen, 30);
    assert_eq!(expiry::unread(&seen), []);
    let before = api::control_plane::RolloutBefore { certificates_expiry_days: Some(30) };
    spec(&mut seen).rollout = Some(KubeadmControlPlaneRollout { before: Some(before), ..Default::default() });
    let why = |seen: &Seen| rollout::outdated(seen, &seen.machines[0], &now()).unwrap_or_default();
    assert_eq!(why(&seen), "");
    expires(&mut seen, 29);
    assert_eq!(why(&seen), "Certificates will expire soon");
    freshen(&mut seen);
    let status = seen.machines[0].status.as_ref().unwrap();
    assert_eq!(status.certificates_expiry_date, expiry::of(&seen, &seen.machines[0]));
    configuration(&mut seen).cluster_configuration.as_mut().unwrap().certificate_validity_period_days = Some(30);
    assert!(!expiry::is_near(&seen, &seen.machines[0], &now()), "the next machine's would be none better");
}
