//! What a check finds and does, as text.

use api::{
    cluster::ClusterSpec,
    condition::Statement,
    health_check::MachineHealthCheckSpec,
    machine::{MachineSpec, MachineStatus, NodeRef},
    meta::LabelSelector,
    topology::{ControlPlaneRemediation, HealthChecks, RemediationTrigger, UnhealthyNodeCondition},
};
use control::Step;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use kube::core::ObjectMeta;
use serde_json::json;

use super::*;
use crate::machine_set::tests::{external, now, placed};

/// Seconds before now.
fn ago(seconds: i64) -> Time {
    Time(now().0 - SignedDuration::from_secs(seconds))
}

fn cluster() -> Cluster {
    let mut cluster = placed(Cluster::new("demo", ClusterSpec::default()), "cluster");
    let conditions = &mut cluster.status.get_or_insert_default().conditions;
    for type_ in ["ControlPlaneInitialized", "InfrastructureReady"] {
        condition::set(conditions, Statement::yes(type_, "Yes"), None, &ago(3600));
    }
    cluster
}

fn check(trigger: RemediationTrigger) -> MachineHealthCheck {
    let bad = UnhealthyNodeCondition { type_: "Ready".into(), status: "Unknown".into(), timeout_seconds: 300 };
    let spec = MachineHealthCheckSpec {
        cluster_name: "demo".into(),
        selector: LabelSelector {
            match_labels: [("role".to_owned(), "worker".to_owned())].into(),
            ..Default::default()
        },
        checks: Some(HealthChecks { unhealthy_node_conditions: vec![bad], ..Default::default() }),
        remediation: Some(ControlPlaneRemediation { trigger_if: Some(trigger), ..Default::default() }),
    };
    placed(MachineHealthCheck::new("check", spec), "check")
}

fn machine(name: &str, node: bool) -> Machine {
    let mut machine =
        placed(Machine::new(name, MachineSpec { cluster_name: "demo".into(), ..Default::default() }), name);
    machine.metadata.labels = Some([("role".to_owned(), "worker".to_owned())].into());
    machine.metadata.creation_timestamp = Some(ago(400));
    let node_ref = node.then(|| NodeRef { name: name.to_owned() });
    machine.status = Some(MachineStatus { node_ref, ..Default::default() });
    machine
}

/// A node whose Ready condition has had this status for so long.
fn node(status: &str, seconds: i64) -> Option<Arc<Node>> {
    let ready = NodeCondition {
        type_: "Ready".into(),
        status: status.into(),
        reason: Some("Why".into()),
        last_transition_time: Some(ago(seconds)),
        ..Default::default()
    };
    let status = NodeStatus { conditions: Some(vec![ready]), ..Default::default() };
    Some(Arc::new(Node { status: Some(status), ..Default::default() }))
}

fn seen(trigger: RemediationTrigger, targets: Vec<(Machine, Option<Arc<Node>>)>) -> Seen {
    let targets = targets.into_iter().map(|(machine, node)| Target { machine: Arc::new(machine), node }).collect();
    Seen { check: Arc::new(check(trigger)), cluster: Some(Arc::new(cluster())), targets, connected: true, remedy: None }
}

/// What is said of machines and of the check, and what else is done.
fn told(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &plan.steps {
        let Step::Update(change) = step else {
            lines.push(step.to_string());
            continue;
        };
        let Some(status) = change.status.as_ref().map(|patch| &patch["status"]) else { continue };
        let mut line = format!("{}:", change.key.name);
        for counter in ["expectedMachines", "currentHealthy", "remediationsAllowed"] {
            if let Some(count) = status[counter].as_i64() {
                line.push_str(&format!(" {counter} {count}"));
            }
        }
        for one in status["conditions"].as_array().into_iter().flatten().filter(|one| one["type"] != "Paused") {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            line.push_str(&format!(" | {} {} {} {}", text("type"), text("status"), text("reason"), text("message")));
        }
        lines.push(line);
    }
    lines
}

#[test]
fn a_node_that_is_lost_for_too_long_has_its_machine_replaced_by_its_owner() {
    let targets = vec![(machine("a", true), node("True", 3000)), (machine("b", true), node("Unknown", 301))];
    let plan = plan(&seen(RemediationTrigger::default(), targets), &now());
    let lines = told(&plan);
    assert_eq!(lines[0], "a: | HealthCheckSucceeded True HealthCheckSucceeded ");
    assert_eq!(lines[1], "event Normal MachineMarkedUnhealthy: Machine ns/b has been marked as unhealthy by ns/check");
    assert_eq!(
        lines[2],
        "b: | HealthCheckSucceeded False UnhealthyNode Health check failed:\n  * Condition Ready on Node is reporting status \
         Unknown with reason Why for more than 5m0s | OwnerRemediated False WaitingForRemediation Waiting for remediation"
    );
    assert_eq!(
        lines[3],
        "check: expectedMachines 2 currentHealthy 1 remediationsAllowed 1 | RemediationAllowed True RemediationAllowed "
    );
    assert_eq!(plan.outcome, Outcome::Settled);
}

#[test]
fn what_may_become_unhealthy_is_looked_at_again_when_its_time_has_come() {
    let plan = plan(&seen(RemediationTrigger::default(), vec![(machine("a", true), node("Unknown", 290))]), &now());
    assert_eq!(
        told(&plan)[0],
        "check: expectedMachines 1 currentHealthy 0 remediationsAllowed 0 | RemediationAllowed True RemediationAllowed "
    );
    assert_eq!(plan.outcome, Outcome::waiting("a machine that may turn out to be unhealthy", 11));
}

#[test]
fn a_machine_without_a_node_is_given_time_from_when_it_could_have_had_one() {
    let mut late = machine("late", false);
    late.metadata.creation_timestamp = Some(ago(601));
    let mut started = late.clone();
    started.metadata.name = Some("started".into());
    let conditions = &mut started.status.get_or_insert_default().conditions;
    condition::set(conditions, Statement::yes("InfrastructureReady", "Ready"), None, &ago(10));
    let all = vec![(late, None), (started, None), (machine("gone", true), None)];
    let lines = told(&plan(&seen(RemediationTrigger::default(), all), &now()));
    let said: Vec<_> = lines.iter().filter(|line| line.contains("HealthCheckSucceeded")).collect();
    assert_eq!(said.len(), 2, "{lines:#?}");
    assert!(said[0].contains("late: | HealthCheckSucceeded False NodeStartupTimeout Health check failed:\n  * Node failed to report startup in 10m0s"));
    assert!(said[1].contains(
        "gone: | HealthCheckSucceeded False NodeDeleted Health check failed:\n  * Node gone has been deleted"
    ));
}

#[test]
fn nobody_is_to_blame_for_a_cluster_that_is_not_there_yet_but_its_first_control_plane_machine() {
    let mut control_plane = machine("cp", false);
    control_plane.metadata.creation_timestamp = Some(ago(3700));
    let mut worker = control_plane.clone();
    worker.metadata.name = Some("worker".into());
    owner::label(&mut control_plane.metadata, names::CONTROL_PLANE_LABEL, "");
    let mut seen = seen(RemediationTrigger::default(), vec![(control_plane, None), (worker, None)]);
    let mut cluster = cluster();
    condition::remove(&mut cluster.status.as_mut().unwrap().conditions, "ControlPlaneInitialized");
    seen.cluster = Some(Arc::new(cluster));
    seen.connected = false;
    let lines = told(&plan(&seen, &now()));
    assert!(lines.iter().any(|line| line.starts_with("cp: | HealthCheckSucceeded False NodeStartupTimeout")));
    assert!(!lines.iter().any(|line| line.starts_with("worker:")), "{lines:#?}");
}

#[test]
fn without_a_connection_nothing_is_said_of_machines() {
    let mut seen = seen(RemediationTrigger::default(), vec![(machine("a", true), None)]);
    seen.connected = false;
    assert_eq!(told(&plan(&seen, &now())), ["check:"]);
}

#[test]
fn too_many_at_once_are_a_trouble_of_another_kind_and_none_is_replaced() {
    let targets = || ["a", "b", "c"].map(|name| (machine(name, true), node("Unknown", 900))).to_vec();
    let max = |value| RemediationTrigger { unhealthy_less_than_or_equal_to: Some(value), ..Default::default() };
    let range = |text: &str| RemediationTrigger { unhealthy_in_range: Some(text.into()), ..Default::default() };
    for (trigger, limit) in [
        (max(IntOrString::Int(2)), Some("exceeds maxUnhealthy (total: 3, unhealthy: 3, maxUnhealthy: 2)")),
        (
            max(IntOrString::String("99%".into())),
            Some("exceeds maxUnhealthy (total: 3, unhealthy: 3, maxUnhealthy: 99%)"),
        ),
        (max(IntOrString::Int(3)), None),
        (range("[1-2]"), Some("does not fall within the range (total: 3, unhealthy: 3, unhealthyRange: [1-2])")),
        (range("[1-3]"), None),
    ] {
        let lines = told(&plan(&seen(trigger, targets()), &now()));
        let remediated = lines.iter().filter(|line| line.contains("OwnerRemediated")).count();
        assert_eq!(remediated, if limit.is_some() { 0 } else { 3 });
        assert_eq!(lines.iter().filter(|line| line.contains("HealthCheckSucceeded False")).count(), 3);
        let restricted = limit.map(|limit| {
            format!("event Warning RemediationRestricted: Remediation is not allowed, the number of not started or unhealthy machines {limit}")
        });
        assert_eq!(lines.iter().find(|line| line.contains("RemediationRestricted")), restricted.as_ref());
    }
}

#[test]
fn a_remediation_that_its_owner_works_on_is_not_begun_again() {
    let mut working = machine("a", true);
    let conditions = &mut working.status.get_or_insert_default().conditions;
    condition::set(
        conditions,
        Statement::no("OwnerRemediated", "MachineDeleting", "Machine is deleting"),
        None,
        &ago(5),
    );
    let lines = told(&plan(&seen(RemediationTrigger::default(), vec![(working, node("Unknown", 900))]), &now()));
    assert!(lines.iter().any(|line| line.contains("OwnerRemediated False MachineDeleting")), "{lines:#?}");
}

#[test]
fn a_settled_check_writes_nothing() {
    let mut seen = seen(RemediationTrigger::default(), vec![(machine("a", true), node("True", 900))]);
    for _ in 0..2 {
        let plan = plan(&seen, &now());
        for step in plan.steps {
            let Step::Update(change) = step else { panic!("{step}") };
            let patch = json!({"metadata": change.main.unwrap_or_default()["metadata"], "status": change.status.unwrap_or_default()["status"]});
            if change.key.name == "check" {
                seen.check = Arc::new(merged(seen.check.as_ref(), &patch));
            } else {
                seen.targets[0].machine = Arc::new(merged(seen.targets[0].machine.as_ref(), &patch));
            }
        }
    }
    assert_eq!(plan(&seen, &now()).to_string(), "settled");
}

fn merged<K: serde::Serialize + serde::de::DeserializeOwned>(object: &K, patch: &serde_json::Value) -> K {
    let mut value = serde_json::to_value(object).unwrap();
    for part in ["metadata", "status"] {
        for (key, field) in patch[part].as_object().into_iter().flatten() {
            value[part][key] = field.clone();
        }
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn somebody_else_is_asked_by_an_object_of_the_machines_name_until_it_is_well() {
    let resource = kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("x.example", "v1", "Repair"));
    let template = external("RepairTemplate", "t", json!({"spec": {"template": {"spec": {"gently": true}}}}));
    let remedy = |template, requests: Vec<crate::External>| {
        let requests = requests.into_iter().map(|request| (request.key().name, request)).collect();
        Some(Remedy { template, resource: resource.clone(), requests })
    };
    let sick = || vec![(machine("a", true), node("Unknown", 900))];
    let mut seen = seen(RemediationTrigger::default(), sick());
    seen.remedy = remedy(Ok(template.clone()), vec![]);
    let first = plan(&seen, &now());
    let created = first.steps.iter().find_map(|step| match step {
        Step::Create { resource, key, body } => Some((resource.kind.as_str(), key.name.as_str(), &body["spec"])),
        _ => None,
    });
    assert_eq!(created, Some(("Repair", "a", &json!({"gently": true}))));
    assert!(told(&first).iter().any(|line| line.contains("ExternallyRemediated False WaitingForRemediation")));
    assert!(!told(&first).iter().any(|line| line.contains("OwnerRemediated")));
    seen.remedy = remedy(Ok(template.clone()), vec![external("Repair", "a", json!({}))]);
    assert!(!plan(&seen, &now()).to_string().contains("create"));
    seen.targets[0].node = node("True", 5);
    assert!(plan(&seen, &now()).to_string().contains("delete Repair ns/a"));
    seen.targets = sick().into_iter().map(|(machine, node)| Target { machine: Arc::new(machine), node }).collect();
    seen.remedy = remedy(Err("no template".into()), vec![]);
    let lines = told(&plan(&seen, &now()));
    assert!(
        lines.iter().any(|line| line.contains("ExternallyRemediated False RemediationTemplateNotFound no template"))
    );
}

#[test]
fn a_machine_whose_user_takes_it_out_is_no_target() {
    let check = check(RemediationTrigger::default());
    let one = machine("a", true);
    assert!(is_target(&check, &one));
    for annotation in [names::SKIP_REMEDIATION_ANNOTATION, names::PAUSED_ANNOTATION] {
        let mut out = one.clone();
        owner::annotate(&mut out.metadata, annotation, "");
        assert!(!is_target(&check, &out));
    }
    let other = Machine { metadata: ObjectMeta::default(), ..one };
    assert!(!is_target(&check, &other));
}
