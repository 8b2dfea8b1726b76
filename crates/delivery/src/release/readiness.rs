//! Whether an object has become what it was to be, told by the object alone: the rules of kstatus
//! (sigs.k8s.io/cli-utils, pkg/kstatus), which other tools of the field follow too.

use serde_json::Value as Json;

/// Where an object stands; the texts say why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    InProgress(String),
    /// It will not become ready by itself.
    Failed(String),
    Terminating,
}

use Readiness::{Failed, InProgress, Ready, Terminating};

/// So long may a pod be unschedulable before that is a failure is the caller's to say: here it is in progress.
pub fn readiness(object: &Json) -> Readiness {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Terminating;
    }
    if let Some(not_seen) = not_seen(object) {
        return not_seen;
    }
    let group = object["apiVersion"].as_str().and_then(|text| text.split_once('/')).map_or("", |(group, _)| group);
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => match object["status"]["phase"].as_str() {
            Some("Bound") => Ready,
            phase => InProgress(format!("the claim is not bound: phase {}", phase.unwrap_or("unknown"))),
        },
        ("", "Service") => service(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("apiregistration.k8s.io", "APIService") => wanted(object, "Available"),
        ("policy", "PodDisruptionBudget") | ("networking.k8s.io", "Ingress") | ("", "ConfigMap" | "Secret") => Ready,
        _ => generic(object),
    }
}

/// A controller has not read the newest specification.
fn not_seen(object: &Json) -> Option<Readiness> {
    let seen = object["status"]["observedGeneration"].as_i64()?;
    let generation = object["metadata"]["generation"].as_i64()?;
    (seen < generation).then(|| InProgress(format!("generation {generation} is not observed yet, only {seen}")))
}

fn condition<'o>(object: &'o Json, kind: &str) -> Option<&'o Json> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn is(object: &Json, kind: &str, status: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == status)
}

/// What a condition says, in its own words.
fn words(object: &Json, kind: &str) -> String {
    let text =
        |field: &str| condition(object, kind).and_then(|condition| condition[field].as_str()).unwrap_or_default();
    match (text("reason"), text("message")) {
        ("", "") => kind.to_owned(),
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn wanted(object: &Json, kind: &str) -> Readiness {
    if is(object, kind, "True") { Ready } else { InProgress(format!("{kind} is not true: {}", words(object, kind))) }
}

fn number(object: &Json, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

fn wished(object: &Json) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// A controller that has never looked at it has not told what it observed.
fn is_new(object: &Json) -> bool {
    object["status"]["observedGeneration"].is_null()
}

fn deployment(object: &Json) -> Readiness {
    if condition(object, "Progressing").is_some_and(|condition| condition["reason"] == "ProgressDeadlineExceeded") {
        return Failed(words(object, "Progressing"));
    }
    if is(object, "ReplicaFailure", "True") {
        return InProgress(words(object, "ReplicaFailure"));
    }
    if is_new(object) {
        return InProgress("no controller has looked at it yet".to_owned());
    }
    let (wished, all, updated) = (wished(object), number(object, "replicas"), number(object, "updatedReplicas"));
    let (ready, available) = (number(object, "readyReplicas"), number(object, "availableReplicas"));
    if updated < wished {
        return InProgress(format!("{updated} of {wished} replicas are updated"));
    }
    if all > updated {
        return InProgress(format!("{} old replicas are still there", all - updated));
    }
    if available < updated {
        return InProgress(format!("{available} of {updated} updated replicas are available"));
    }
    if ready < wished {
        return InProgress(format!("{ready} of {wished} replicas are ready"));
    }
    if wished > 0 && condition(object, "Available").is_some() && !is(object, "Available", "True") {
        return InProgress(words(object, "Available"));
    }
    Ready
}

fn stateful_set(object: &Json) -> Readiness {
    // What is replaced only when somebody deletes it is never waited for.
    if object["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return Ready;
    }
    if is_new(object) {
        return InProgress("no controller has looked at it yet".to_owned());
    }
    let (wished, all) = (wished(object), number(object, "replicas"));
    let (ready, updated) = (number(object, "readyReplicas"), number(object, "updatedReplicas"));
    if all < wished {
        return InProgress(format!("{all} of {wished} replicas are there"));
    }
    if ready < wished {
        return InProgress(format!("{ready} of {wished} replicas are ready"));
    }
    if all > wished {
        return InProgress(format!("{} replicas too many are still there", all - wished));
    }
    let partition = object["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
    if partition > 0 {
        let due = (wished - partition).max(0);
        return if updated < due {
            InProgress(format!("{updated} of {due} replicas beyond the partition are updated"))
        } else {
            Ready
        };
    }
    if object["status"]["currentRevision"] != object["status"]["updateRevision"] {
        return InProgress(format!("{updated} of {wished} replicas are updated"));
    }
    Ready
}

fn daemon_set(object: &Json) -> Readiness {
    if is_new(object) || object["status"]["desiredNumberScheduled"].is_null() {
        return InProgress("no controller has looked at it yet".to_owned());
    }
    let wished = number(object, "desiredNumberScheduled");
    let parts = [
        ("currentNumberScheduled", "scheduled"),
        ("updatedNumberScheduled", "updated"),
        ("numberAvailable", "available"),
        ("numberReady", "ready"),
    ];
    for (field, what) in parts {
        // Pods that are replaced only when somebody deletes them need not be new.
        let is_left = field == "updatedNumberScheduled" && object["spec"]["updateStrategy"]["type"] == "OnDelete";
        if number(object, field) < wished && !is_left {
            return InProgress(format!("{} of {wished} pods are {what}", number(object, field)));
        }
    }
    Ready
}

fn replica_set(object: &Json) -> Readiness {
    if is(object, "ReplicaFailure", "True") {
        return InProgress(words(object, "ReplicaFailure"));
    }
    if is_new(object) {
        return InProgress("no controller has looked at it yet".to_owned());
    }
    let (wished, all) = (wished(object), number(object, "replicas"));
    for (field, what) in
        [("fullyLabeledReplicas", "labelled"), ("availableReplicas", "available"), ("readyReplicas", "ready")]
    {
        if number(object, field) < wished {
            return InProgress(format!("{} of {wished} replicas are {what}", number(object, field)));
        }
    }
    if all > wished { InProgress(format!("{} replicas too many are still there", all - wished)) } else { Ready }
}

/// A job that runs is not ready: whoever waits for jobs waits for their end.
fn job(object: &Json) -> Readiness {
    if is(object, "Failed", "True") {
        return Failed(words(object, "Failed"));
    }
    if is(object, "Complete", "True") {
        return Ready;
    }
    let (active, succeeded) = (number(object, "active"), number(object, "succeeded"));
    InProgress(format!(
        "the job is not complete: {active} pods active, {succeeded} succeeded, {} failed",
        number(object, "failed")
    ))
}

fn pod(object: &Json) -> Readiness {
    match object["status"]["phase"].as_str() {
        Some("Succeeded") => Ready,
        Some("Failed") => {
            Failed(format!("the pod failed: {}", object["status"]["message"].as_str().unwrap_or("no message")))
        }
        _ if is(object, "Ready", "True") => Ready,
        Some("Running") => {
            let containers = object["status"]["containerStatuses"].as_array().into_iter().flatten();
            let mut waiting = containers.filter_map(|one| one["state"]["waiting"]["reason"].as_str());
            match waiting.find(|reason| *reason == "CrashLoopBackOff") {
                Some(reason) => Failed(format!("a container ends again and again: {reason}")),
                None => InProgress(format!("the pod runs and is not ready: {}", words(object, "Ready"))),
            }
        }
        Some("Pending") if is(object, "PodScheduled", "False") => InProgress(words(object, "PodScheduled")),
        phase => InProgress(format!("the pod is {}", phase.unwrap_or("not seen by a kubelet"))),
    }
}

fn service(object: &Json) -> Readiness {
    let is_balanced = object["spec"]["type"] == "LoadBalancer";
    let has_address = object["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|found| !found.is_empty());
    if is_balanced && !has_address && object["spec"]["externalIPs"].as_array().is_none_or(Vec::is_empty) {
        return InProgress("its load balancer has no address yet".to_owned());
    }
    Ready
}

fn definition(object: &Json) -> Readiness {
    if is(object, "NamesAccepted", "False") {
        return Failed(words(object, "NamesAccepted"));
    }
    wanted(object, "Established")
}

/// Conditions that many kinds have. What has none is ready as soon as it is there.
fn generic(object: &Json) -> Readiness {
    if is(object, "Stalled", "True") {
        return Failed(words(object, "Stalled"));
    }
    if is(object, "Reconciling", "True") {
        return InProgress(words(object, "Reconciling"));
    }
    match condition(object, "Ready") {
        Some(ready) if ready["status"] != "True" => InProgress(words(object, "Ready")),
        _ => Ready,
    }
}

#[cfg(test)]
mod tests;
