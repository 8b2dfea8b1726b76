//! Replacing machines that a health check found ill.

use api::control_plane::KubeadmControlPlaneRemediation;

use super::{
    members::{deleted, dies, freshen, machine, named},
    *,
};
use crate::control_plane::remediation::{self, FOR, IN_PROGRESS, Record};

/// A health check found it ill, and left it to the control plane.
fn ill(seen: &mut Seen, index: usize) {
    let conditions = &mut machine(seen, index).status.as_mut().unwrap().conditions;
    condition::set(conditions, Statement::no("HealthCheckSucceeded", "UnhealthyNode", ""), None, &now());
    condition::set(conditions, Statement::no("OwnerRemediated", "WaitingForRemediation", ""), None, &now());
}

fn decided(seen: &Seen) -> String {
    let cluster = seen.cluster.clone().unwrap();
    let Some(decision) = remediation::decide(seen, &cluster, &now()) else { return "nothing".into() };
    match decision.verdict {
        remediation::Verdict::Deferred(why) => format!("{} deferred: {why}", decision.machine),
        remediation::Verdict::Refused(why) => format!("{} refused: {why}", decision.machine),
        remediation::Verdict::Replaced(record) => format!("{} replaced, {}", decision.machine, record.text()),
    }
}

fn replaced(machine: &str, retries: i32) -> String {
    format!(
        r#"{machine} replaced, {{"machine":"{machine}","timestamp":"2026-01-01T00:00:00Z","retryCount":{retries}}}"#
    )
}

/// Made for another one that failed so many seconds ago.
fn stands_in(seen: &mut Seen, index: usize, seconds: i64, retry_count: i32) {
    let timestamp = Time(now().0 - SignedDuration::from_secs(seconds));
    let record = Record { machine: "m0".into(), timestamp, retry_count };
    owner::annotate(&mut machine(seen, index).metadata, FOR, record.text());
}

#[test]
fn one_that_is_ill_is_deleted_after_that_is_recorded_and_its_replacement_says_for_whom_it_is() {
    let mut seen = named(3);
    dies(&mut seen, 1);
    ill(&mut seen, 1);
    assert_eq!(decided(&seen), replaced("m2", 0));
    let planned = plan(&seen, &now());
    let lines = brief(&planned.local);
    let record = r#"{\"machine\":\"m2\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"retryCount\":0}"#;
    let first =
        format!(r#"update KubeadmControlPlane cp {{"metadata":{{"annotations":{{"{IN_PROGRESS}":"{record}"}}}}}}"#);
    assert!(lines.starts_with(&format!("{first}\ndelete Machine m2\n")), "{lines}");
    let summary = remediation::summary(&seen, None);
    assert_eq!((summary.reason.as_str(), summary.message.as_str()), ("Remediating", "* Machine m2: "));

    let control_plane = Arc::make_mut(&mut seen.control_plane);
    owner::annotate(&mut control_plane.metadata, IN_PROGRESS, record.replace('\\', ""));
    assert_eq!(decided(&seen), "nothing", "one at a time");
    seen.machines.remove(1);
    seen.configs.remove("m2");
    seen.infrastructures.remove("m2");
    let mut two = seen.etcd.clone().unwrap().unwrap().as_ref().clone();
    two.members.remove(1);
    members::look(&mut seen, two);
    let planned = plan(&seen, &now());
    let made = planned.local.steps.iter().find_map(|step| match step {
        Step::Create { resource, body, .. } if resource.kind == "Machine" => Some(body.clone()),
        _ => None,
    });
    assert_eq!(made.unwrap()["metadata"]["annotations"][FOR], record.replace('\\', ""));
    let lines = brief(&planned.local);
    assert!(
        lines.contains(&format!(r#"{{"metadata":{{"annotations":{{"{IN_PROGRESS}":null}}}}}}"#))
            || lines.contains(r#""annotations":null"#),
        "{lines}"
    );
}

#[test]
fn the_worst_goes_first() {
    let mut seen = named(5);
    ill(&mut seen, 0);
    ill(&mut seen, 3);
    assert!(decided(&seen).starts_with("m1 replaced"), "the oldest");
    let name = rollout::name_of(&seen.machines[3]).to_owned();
    seen.pods.as_mut().unwrap().remove(&format!("kube-scheduler-{name}"));
    freshen(&mut seen);
    assert!(decided(&seen).starts_with("m4 replaced"), "whose components are not well");
    let name = rollout::name_of(&seen.machines[0]).to_owned();
    seen.pods.as_mut().unwrap().remove(&format!("etcd-{name}"));
    freshen(&mut seen);
    assert!(decided(&seen).starts_with("m1 replaced"), "whose etcd is not well");
    machine(&mut seen, 3).status.as_mut().unwrap().node_ref = None;
    freshen(&mut seen);
    assert!(decided(&seen).starts_with("m4 "), "what is no node");
    owner::annotate(&mut machine(&mut seen, 0).metadata, "cluster.x-k8s.io/remediate-machine", "");
    assert!(decided(&seen).starts_with("m1 "), "what a user names");
}

#[test]
fn nobody_goes_whom_the_others_need() {
    let mut seen = named(1);
    ill(&mut seen, 0);
    assert!(
        decided(&seen)
            .starts_with("m1 refused: KubeadmControlPlane can't remediate if current replicas are less or equal to 1")
    );
    let mut seen = named(3);
    ill(&mut seen, 0);
    dies(&mut seen, 1);
    assert!(
        decided(&seen).starts_with("m1 refused: KubeadmControlPlane can't remediate this Machine because"),
        "{}",
        decided(&seen)
    );
    let mut seen = named(3);
    ill(&mut seen, 0);
    deleted(&mut seen, 1);
    assert!(decided(&seen).contains("waiting for control plane Machine deletion to complete"));
    let mut seen = named(3);
    ill(&mut seen, 0);
    machine(&mut seen, 2).status.as_mut().unwrap().node_ref = None;
    assert!(decided(&seen).contains("waiting for control plane Machine provisioning to complete"));
    let mut seen = named(3);
    ill(&mut seen, 0);
    seen.etcd = Some(Err("refused".into()));
    assert_eq!(decided(&seen), "m1 deferred: Failed to check etcd cluster health before remediation");
    let mut seen = named(5);
    for index in [0, 1] {
        dies(&mut seen, index);
        ill(&mut seen, index);
    }
    assert_eq!(decided(&seen), replaced("m1", 0), "five bear two");
    dies(&mut seen, 2);
    assert!(decided(&seen).contains("refused"), "and not three");
}

#[test]
fn the_first_machine_of_all_is_replaced_too() {
    let mut seen = named(3);
    seen.machines.truncate(1);
    seen.configs.retain(|name, _| name == "m1");
    seen.infrastructures.retain(|name, _| name == "m1");
    seen.initialized = false;
    Arc::make_mut(&mut seen.control_plane).status = None;
    machine(&mut seen, 0).status.as_mut().unwrap().node_ref = None;
    seen.etcd = None;
    ill(&mut seen, 0);
    assert_eq!(decided(&seen), replaced("m1", 0));
    assert!(text(&seen).contains("delete Machine m1"), "{}", text(&seen));
}

#[test]
fn limits_count_what_fails_again_soon() {
    let limits = KubeadmControlPlaneRemediation {
        max_retry: Some(2),
        min_healthy_period_seconds: Some(1000),
        retry_period_seconds: Some(100),
    };
    for (seconds, retries, expected) in [
        (99, 0, "m2 deferred: KubeadmControlPlane can't remediate this machine because the operation already failed in the latest 1m40s (RetryPeriodSeconds)".to_owned()),
        (100, 0, replaced("m2", 1)),
        (999, 1, replaced("m2", 2)),
        (999, 2, "m2 refused: KubeadmControlPlane can't remediate this machine because the operation already failed 2 times (MaxRetry)".to_owned()),
        (1000, 2, replaced("m2", 0)),
    ] {
        let mut seen = named(3);
        spec(&mut seen).remediation = Some(limits.clone());
        ill(&mut seen, 1);
        stands_in(&mut seen, 1, seconds, retries);
        assert_eq!(decided(&seen), expected, "{seconds} s, {retries} retries");
    }
    let mut seen = named(3);
    ill(&mut seen, 1);
    stands_in(&mut seen, 1, 3599, 7);
    assert_eq!(decided(&seen), replaced("m2", 8), "without limits an hour is the same failure");
    assert_eq!(remediation::due_in_s(&seen, &now()), None);
    spec(&mut seen).remediation = Some(limits);
    stands_in(&mut seen, 1, 40, 0);
    assert_eq!(remediation::due_in_s(&seen, &now()), Some(61));
}

#[test]
fn one_that_recovers_is_left_alone() {
    let mut seen = named(3);
    ill(&mut seen, 1);
    let conditions = &mut machine(&mut seen, 1).status.as_mut().unwrap().conditions;
    condition::set(conditions, Statement::yes("HealthCheckSucceeded", "HealthCheckSucceeded"), None, &now());
    assert_eq!(decided(&seen), "nothing");
    freshen(&mut seen);
    assert!(condition::get(preflight::conditions(&seen.machines[1]), "OwnerRemediated").is_none());
}

#[test]
fn while_one_is_replaced_another_that_is_unwell_does_not_hold_it_up() {
    let mut seen = named(5);
    dies(&mut seen, 0);
    let gone = seen.machines.remove(4);
    let mut four = seen.etcd.clone().unwrap().unwrap().as_ref().clone();
    four.members.pop();
    members::look(&mut seen, four);
    seen.configs.remove(rollout::name_of(&gone));
    seen.infrastructures.remove(rollout::name_of(&gone));
    assert!(!text(&seen).contains("create"), "all have to be well else");
    let record = Record { machine: "m5".into(), timestamp: now(), retry_count: 0 };
    owner::annotate(&mut Arc::make_mut(&mut seen.control_plane).metadata, IN_PROGRESS, record.text());
    assert!(text(&seen).contains("create Machine"), "{}", text(&seen));
    dies(&mut seen, 1);
    assert!(!text(&seen).contains("create"), "four of which two are well bear no fifth: {}", text(&seen));
}
