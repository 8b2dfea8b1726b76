use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T12:00:00Z";

fn cron(spec: Value) -> Value {
    let mut cron = json!({
        "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "default", "uid": "c", "creationTimestamp": "2026-01-01T10:30:00Z"},
        "spec": {"schedule": "0 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        cron["spec"][key] = value.clone();
    }
    cron
}

fn job(name: &str, condition: Option<&str>, hour: u32) -> Value {
    let time = format!("2026-01-01T{hour:02}:00:00Z");
    let conditions: Vec<_> = condition
        .into_iter()
        .map(|type_| json!({"type": type_, "status": "True", "lastTransitionTime": time}))
        .collect();
    json!({
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": time, "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "c", "controller": true}]},
        "status": {"conditions": conditions},
    })
}

/// The name of the job of noon.
fn noon() -> String {
    format!("report-{}", NOW.parse::<Timestamp>().unwrap().as_second() / 60)
}

fn planned(now: &str, objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(now, objects), &mut made);
    made
}

#[test]
fn a_job_is_made_when_it_is_due_and_told_when_it_is_there() {
    let due = planned(NOW, &[cron(json!({}))]);
    assert_eq!(due.told(), [format!("create Job {}", noon())], "of those that were missed only the last");
    assert_eq!(due.wake.unwrap().to_string(), "2026-01-01T13:00:00Z");
    let told = planned(NOW, &[cron(json!({})), job(&noon(), None, 12)]);
    assert_eq!(told.told(), ["status CronJob report"]);
    let status = told.status_of("CronJob");
    assert_eq!((&status["lastScheduleTime"], &status["active"][0]["name"]), (&json!(NOW), &json!(noon())));
    let mut rests = cron(json!({}));
    rests["status"] = status;
    assert!(planned("2026-01-01T12:59:59Z", &[rests.clone(), job(&noon(), None, 12)]).writes.is_empty());
    assert_eq!(planned("2026-01-01T13:00:00Z", &[rests, job(&noon(), None, 12)]).told().len(), 1);
    assert!(planned(NOW, &[cron(json!({"suspend": true}))]).writes.is_empty());
    let late = cron(json!({"startingDeadlineSeconds": 60}));
    assert!(planned("2026-01-01T12:01:01Z", &[late]).told().is_empty());
}

#[test]
fn one_that_runs_forbids_the_next_or_is_replaced() {
    let running = || job("report-1", None, 11);
    let forbidden = planned(NOW, &[cron(json!({"concurrencyPolicy": "Forbid"})), running()]);
    assert_eq!(forbidden.told(), ["status CronJob report"]);
    assert_eq!(forbidden.events(), ["JobAlreadyActive"]);
    let replaced = planned(NOW, &[cron(json!({"concurrencyPolicy": "Replace"})), running()]).told();
    assert_eq!(replaced[..2], ["delete Job report-1".to_owned(), format!("create Job {}", noon())]);
}

#[test]
fn old_jobs_go_beyond_the_history() {
    let jobs: Vec<_> = (1..=5).map(|hour| job(&format!("good-{hour}"), Some("Complete"), hour)).collect();
    let failed: Vec<_> = (6..=7).map(|hour| job(&format!("bad-{hour}"), Some("Failed"), hour)).collect();
    let told = planned("2026-01-01T10:59:00Z", &[vec![cron(json!({}))], jobs, failed].concat()).told();
    assert_eq!(told, ["delete Job good-1", "delete Job good-2", "delete Job bad-6"]);
}

#[test]
fn a_schedule_that_is_none_is_told() {
    let plan = planned(NOW, &[cron(json!({"schedule": "whenever"}))]);
    assert_eq!((plan.told().len(), plan.events()), (0, vec!["UnParseableCronJobSchedule".to_owned()]));
}
