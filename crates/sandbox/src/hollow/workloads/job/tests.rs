use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn job(spec: Value) -> Value {
    let mut job = json!({
        "kind": "Job", "metadata": {"name": "sum", "namespace": "default", "uid": "j"},
        "spec": {"parallelism": 1, "completions": 1, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

fn pod(name: &str, phase: &str, index: Option<u32>, ended: &str) -> Value {
    let annotations = index.map_or(json!({}), |index| json!({INDEX: index.to_string()}));
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations, "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "sum", "uid": "j", "controller": true}]},
        "spec": {"nodeName": "w", "containers": []},
        "status": {"phase": phase, "containerStatuses": [{"name": "a", "image": "a", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 0, "finishedAt": ended}}}]},
    })
}

fn planned(now: &str, objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(now, objects), &mut made);
    made
}

fn conditions(plan: &Plan) -> Vec<(String, String)> {
    let list = plan.status_of("Job")["conditions"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.iter().map(|one| (text(&one["type"]), text(&one["reason"]))).collect()
}

#[test]
fn pods_are_made_until_enough_have_succeeded() {
    let three = || job(json!({"parallelism": 2, "completions": 3}));
    assert_eq!(planned(NOW, &[three()]).told(), ["create Pod sum-", "create Pod sum-", "status Job sum"]);
    let some = [three(), pod("p", "Succeeded", None, NOW), pod("q", "Succeeded", None, NOW)];
    assert_eq!(planned(NOW, &some).told(), ["create Pod sum-", "status Job sum"]);
    let all = [some.to_vec(), vec![pod("r", "Succeeded", None, NOW)]].concat();
    let done = planned(NOW, &all);
    assert_eq!(done.told(), ["status Job sum"]);
    let status = done.status_of("Job");
    assert_eq!((&status["succeeded"], &status["completionTime"]), (&json!(3), &json!(NOW)));
    let reached = |type_: &str| (type_.to_owned(), "CompletionsReached".to_owned());
    assert_eq!(conditions(&done), [reached("SuccessCriteriaMet"), reached("Complete")]);
    assert_eq!(done.events(), ["Completed"]);
    let mut told = all;
    told[0]["status"] = status;
    assert!(planned("2026-01-02T00:00:00Z", &told).writes.is_empty(), "what is done is done");
    let queue = json!({"parallelism": 2, "completions": null});
    let begun = [job(queue.clone()), pod("p", "Running", None, NOW), pod("q", "Succeeded", None, NOW)];
    assert_eq!(planned(NOW, &begun).told(), ["status Job sum"]);
    assert_eq!(conditions(&planned(NOW, &[job(queue), pod("q", "Succeeded", None, NOW)])).len(), 2);
}

#[test]
fn each_index_gets_a_pod_that_knows_it() {
    let spec = json!({"parallelism": 5, "completions": 5, "completionMode": "Indexed"});
    let objects = [
        job(spec),
        pod("p", "Succeeded", Some(0), NOW),
        pod("q", "Running", Some(2), NOW),
        pod("r", "Succeeded", Some(1), NOW),
    ];
    let plan = planned(NOW, &objects);
    assert_eq!(plan.told(), ["create Pod sum-3-", "create Pod sum-4-", "status Job sum"]);
    assert_eq!(plan.status_of("Job")["completedIndexes"], "0-1");
    let super::super::plan::Write::Create(pod) = &plan.writes[0] else { panic!() };
    assert_eq!(pod["spec"]["containers"][0]["env"][0], json!({"name": "JOB_COMPLETION_INDEX", "value": "3"}));
    assert_eq!(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"], "sum");
    assert_eq!(ranges(&[0, 1, 2, 4, 6, 7].into()), "0-2,4,6-7");
}

#[test]
fn what_fails_is_tried_again_after_a_pause_until_the_limit() {
    let once = [job(json!({"backoffLimit": 1})), pod("p", "Failed", None, NOW)];
    let waits = planned("2026-01-01T00:00:09Z", &once);
    assert_eq!(
        (waits.told(), waits.wake.unwrap().to_string()),
        (vec!["status Job sum".to_owned()], "2026-01-01T00:00:10Z".into())
    );
    assert_eq!(planned("2026-01-01T00:00:10Z", &once).told()[0], "create Pod sum-");
    let twice = planned(NOW, &[once.to_vec(), vec![pod("q", "Failed", None, NOW)]].concat());
    let limit = |type_: &str| (type_.to_owned(), "BackoffLimitExceeded".to_owned());
    assert_eq!(conditions(&twice), [limit("FailureTarget"), limit("Failed")]);
    assert_eq!(twice.status_of("Job")["failed"], 2);
    let mut restarted = pod("p", "Running", None, NOW);
    restarted["status"]["containerStatuses"][0]["restartCount"] = 6.into();
    let again = planned(NOW, &[job(json!({})), restarted]);
    assert_eq!(again.told(), ["delete Pod p", "status Job sum"]);
}

#[test]
fn a_job_ends_at_its_deadline_and_goes_when_its_time_is_over() {
    let mut late = job(json!({"activeDeadlineSeconds": 60}));
    late["status"] = json!({"startTime": "2025-12-31T23:59:01Z"});
    let objects = [late.clone(), pod("p", "Running", None, NOW)];
    assert_eq!(planned(NOW, &objects).wake.unwrap().to_string(), "2026-01-01T00:00:01Z");
    let over = planned("2026-01-01T00:00:01Z", &objects);
    assert_eq!(over.told()[0], "delete Pod p");
    assert_eq!(conditions(&over)[1], ("Failed".to_owned(), "DeadlineExceeded".to_owned()));
    let mut done = job(json!({"ttlSecondsAfterFinished": 30}));
    done["status"] = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": NOW}]});
    assert_eq!(planned(NOW, &[done.clone()]).wake.unwrap().to_string(), "2026-01-01T00:00:30Z");
    assert_eq!(planned("2026-01-01T00:00:30Z", &[done]).told(), ["delete Job sum"]);
}

#[test]
fn a_suspended_job_has_no_pods_until_it_is_resumed() {
    let mut suspended = job(json!({"suspend": true}));
    let plan = planned(NOW, &[suspended.clone(), pod("p", "Running", None, NOW)]);
    assert_eq!(plan.told(), ["delete Pod p", "status Job sum"]);
    assert_eq!(plan.status_of("Job")["startTime"], Value::Null);
    suspended["status"] = plan.status_of("Job");
    suspended["spec"]["suspend"] = false.into();
    let resumed = planned(NOW, &[suspended]);
    assert_eq!(resumed.told(), ["create Pod sum-", "status Job sum"]);
    assert_eq!(conditions(&resumed), [("Suspended".to_owned(), "JobResumed".to_owned())]);
}
