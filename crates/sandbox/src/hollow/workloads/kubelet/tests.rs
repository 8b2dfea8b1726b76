use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn node(ready: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": "w"}, "status": {
        "conditions": [{"type": "Ready", "status": ready}], "addresses": [{"type": "InternalIP", "address": "10.6.0.9"}]}})
}

fn pod(spec: Value, annotations: Value) -> Value {
    let mut pod = json!({
        "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u", "annotations": annotations},
        "spec": {"nodeName": "w", "containers": [{"name": "a", "image": "nginx"}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn planned(now: &str, objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(now, objects), &mut made);
    made
}

fn status(pod: &Value, now: &str) -> Value {
    planned(now, &[node("True"), pod.clone()]).status_of("Pod")
}

fn condition(status: &Value, type_: &str) -> Value {
    status["conditions"].as_array().unwrap().iter().find(|found| found["type"] == type_).unwrap().clone()
}

#[test]
fn a_pod_that_comes_to_its_node_runs_and_is_ready() {
    let mut pod = pod(json!({"initContainers": [{"name": "i", "image": "b:1"}]}), json!({}));
    let told = status(&pod, NOW);
    assert_eq!(told["phase"], "Running");
    assert_eq!((&told["podIP"], &told["hostIP"]), (&json!("10.244.0.1"), &json!("10.6.0.9")));
    assert_eq!((&told["qosClass"], &told["startTime"]), (&json!("BestEffort"), &json!(NOW)));
    assert_eq!(condition(&told, "Ready")["status"], "True");
    assert_eq!(told["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(told["containerStatuses"][0]["state"]["running"]["startedAt"], NOW);
    pod["status"] = told;
    let later = planned("2026-01-01T01:00:00Z", &[node("True"), pod]);
    assert!(later.told().is_empty() && later.wake.is_none(), "a pod that runs is not written again");
}

#[test]
fn pods_have_addresses_of_their_own_but_for_those_on_the_nodes_network() {
    let mut other = pod(json!({}), json!({}));
    other["metadata"]["name"] = "q".into();
    let mut there = pod(json!({}), json!({}));
    there["metadata"]["name"] = "there".into();
    there["status"] = json!({"phase": "Running", "podIP": "10.244.0.1"});
    let host = pod(json!({"hostNetwork": true}), json!({}));
    let made = planned(NOW, &[node("True"), there, pod(json!({}), json!({})), other, host]);
    let ips = made.writes.iter().filter_map(|write| match write {
        super::super::plan::Write::Status(object) => object.pointer("/status/podIP"),
        _ => None,
    });
    let ips: Vec<_> = ips.collect();
    assert!(
        ips.contains(&&json!("10.244.0.2")) && ips.contains(&&json!("10.244.0.3")) && ips.contains(&&json!("10.6.0.9"))
    );
}

#[test]
fn an_image_without_a_name_waits_and_the_others_run() {
    let containers = json!({"containers": [{"name": "a", "image": "Not A Name"}, {"name": "b", "image": "good"}]});
    let mut pod = pod(containers, json!({}));
    let plan = planned(NOW, &[node("True"), pod.clone()]);
    assert_eq!(plan.events(), ["InspectFailed", "Started"]);
    let told = plan.status_of("Pod");
    assert_eq!(told["phase"], "Pending");
    assert_eq!(told["containerStatuses"][0]["state"]["waiting"]["reason"], "InvalidImageName");
    assert!(told["containerStatuses"][1]["state"]["running"].is_object());
    let ready = condition(&told, "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ContainersNotReady")));
    assert_eq!(ready["message"], "containers with unready status: [a]");
    pod["status"] = told;
    assert!(planned("2026-01-01T01:00:00Z", &[node("True"), pod.clone()]).writes.is_empty());
    pod["spec"]["containers"][0]["image"] = "good".into();
    assert_eq!(status(&pod, NOW)["phase"], "Running");
}

#[test]
fn what_is_not_started_again_ends_with_the_code_that_it_is_given() {
    for (policy, code, want) in [
        ("Never", None, "Succeeded"),
        ("OnFailure", None, "Succeeded"),
        ("OnFailure", Some("0"), "Succeeded"),
        ("Never", Some("3"), "Failed"),
    ] {
        let annotations = code.map_or(json!({}), |code| json!({EXIT_CODE: code}));
        let mut pod = pod(json!({"restartPolicy": policy}), annotations);
        pod["status"] = status(&pod, NOW);
        assert_eq!(pod["status"]["phase"], "Running", "it runs first");
        pod["status"] = status(&pod, NOW);
        assert_eq!(pod["status"]["phase"], want, "{policy} {code:?}");
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(ended["exitCode"], code.unwrap_or("0").parse::<i32>().unwrap());
        assert!(planned(NOW, &[node("True"), pod]).writes.is_empty());
    }
}

#[test]
fn what_fails_again_and_again_is_started_after_ever_longer_pauses() {
    let mut pod = pod(json!({"restartPolicy": "Always"}), json!({EXIT_CODE: "1"}));
    pod["status"] = status(&pod, NOW);
    let at = |s: i64| (NOW.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(s)).to_string();
    let mut ends = 0;
    for (restarts, pause_s) in [(0, 10), (1, 20), (2, 40), (3, 80), (4, 160), (5, 300), (6, 300)] {
        let plan = planned(&at(ends), &[node("True"), pod.clone()]);
        assert_eq!(plan.events(), ["BackOff"]);
        pod["status"] = plan.status_of("Pod");
        let container = &pod["status"]["containerStatuses"][0];
        assert_eq!(container["restartCount"], restarts);
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
        assert_eq!(condition(&pod["status"], "Ready")["status"], "False");
        let waits = planned(&at(ends + pause_s - 1), &[node("True"), pod.clone()]);
        assert!(waits.writes.is_empty());
        assert_eq!(waits.wake.unwrap().to_string(), at(ends + pause_s));
        ends += pause_s;
    }
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let mut pod = pod(json!({"readinessGates": [{"conditionType": "example.com/in"}]}), json!({}));
    pod["status"] = status(&pod, NOW);
    let ready = condition(&pod["status"], "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ReadinessGatesNotReady")));
    let gate = json!({"type": "example.com/in", "status": "True"});
    pod["status"]["conditions"].as_array_mut().unwrap().push(gate);
    assert_eq!(condition(&status(&pod, NOW), "Ready")["status"], "True");
}

#[test]
fn a_deleted_pod_goes_from_a_node_that_is_heard_of() {
    let mut pod = pod(json!({}), json!({}));
    pod["metadata"]["deletionTimestamp"] = NOW.into();
    assert_eq!(planned(NOW, &[node("True"), pod.clone()]).told(), ["delete Pod p now"]);
    assert!(planned(NOW, &[node("Unknown"), pod]).told().is_empty());
}

#[test]
fn a_pod_ends_at_its_deadline() {
    let mut pod = pod(json!({"restartPolicy": "Always", "activeDeadlineSeconds": 60}), json!({}));
    pod["status"] = status(&pod, NOW);
    let waits = planned("2026-01-01T00:00:59Z", &[node("True"), pod.clone()]);
    assert_eq!((waits.told().len(), waits.wake.unwrap().to_string()), (0, "2026-01-01T00:01:00Z".to_owned()));
    let late = status(&pod, "2026-01-01T00:01:00Z");
    assert_eq!((&late["phase"], &late["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
}

#[test]
fn a_pod_waits_for_the_configuration_that_it_needs() {
    let env = json!({"containers": [
        {"name": "a", "image": "a", "envFrom": [{"configMapRef": {"name": "settings"}}]}, {"name": "b", "image": "b"}]});
    let mounted = json!({"volumes": [{"name": "keys", "secret": {"secretName": "tls"}}]});
    for (spec, key, reason, event) in [
        (env, "core/configmaps/default/settings", "CreateContainerConfigError", "Failed"),
        (mounted, "core/secrets/default/tls", "ContainerCreating", "FailedMount"),
    ] {
        let pod = pod(spec, json!({}));
        let mut seen = Observed::of(NOW, &[node("True"), pod.clone()]);
        seen.missing.insert(key.to_owned());
        let mut made = Plan::default();
        plan(&seen, &mut made);
        let told = made.status_of("Pod");
        assert_eq!(told["phase"], "Pending");
        assert_eq!(told["containerStatuses"][0]["state"]["waiting"]["reason"], reason);
        assert_eq!(condition(&told, "Ready")["status"], "False");
        assert_eq!(made.events()[0], event);
        let mut waits = pod;
        waits["status"] = told;
        let mut later = Observed::of("2026-01-01T01:00:00Z", &[node("True"), waits.clone()]);
        later.missing.insert(key.to_owned());
        let mut made = Plan::default();
        plan(&later, &mut made);
        assert!(made.writes.is_empty(), "{:?}", made.told());
        assert_eq!(status(&waits, NOW)["phase"], "Running", "it starts when it is there");
    }
}
