//! What Kubernetes fills in where a manifest is silent (`pkg/apis/{core,apps,batch}/v1/defaults.go`).

use serde_json::{Value, json};

use crate::object::{at, default_at, set_at, text_at};

/// Sets `defaults` (an object of values) below `path` where nothing is.
fn fill(object: &mut Value, path: &[&str], defaults: &Value) {
    for (key, value) in defaults.as_object().into_iter().flatten() {
        let mut full = path.to_vec();
        full.push(key);
        default_at(object, &full, value.clone());
    }
}

/// The pod spec at `path`.
pub(super) fn pod_spec(object: &mut Value, path: &[&str]) {
    if at(object, path).is_none_or(|spec| !spec.is_object()) {
        return;
    }
    fill(
        object,
        path,
        &json!({
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
        }),
    );
    let Some(spec) = path.iter().try_fold(&mut *object, |value, key| value.get_mut(*key)) else { return };
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let image = text_at(container, &["image"]);
            let latest =
                image.rsplit('/').next().is_some_and(|last| !last.contains([':', '@']) || last.ends_with(":latest"));
            let pull = if latest { "Always" } else { "IfNotPresent" };
            fill(
                container,
                &[],
                &json!({
                    "imagePullPolicy": pull, "resources": {}, "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }),
            );
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                default_at(port, &["protocol"], "TCP".into());
            }
        }
    }
}

/// BestEffort, Guaranteed or Burstable, by what the containers ask for.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_array);
    let (mut any, mut all) = (false, true);
    for container in containers.into_iter().flatten() {
        for resource in ["cpu", "memory"] {
            let limit = at(container, &["resources", "limits", resource]);
            let request = at(container, &["resources", "requests", resource]).or(limit);
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && limit == request;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

pub(super) fn service(service: &mut Value) {
    fill(
        service,
        &["spec"],
        &json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
    );
    for port in service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        default_at(port, &["protocol"], "TCP".into());
        let number = port.get("port").cloned().unwrap_or_default();
        default_at(port, &["targetPort"], number);
    }
}

/// A kind with a pod template.
pub(super) fn workload(kind: &str, object: &mut Value) {
    let template: &[&str] = if kind == "CronJob" {
        &["spec", "jobTemplate", "spec", "template", "spec"]
    } else {
        &["spec", "template", "spec"]
    };
    pod_spec(object, template);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
    let defaults = match kind {
        "Deployment" => {
            json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": rolling})
        }
        "ReplicaSet" | "ReplicationController" => json!({"replicas": 1}),
        "StatefulSet" => json!({
            "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        }),
        "DaemonSet" => json!({
            "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        }),
        "Job" => {
            json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false})
        }
        "CronJob" => json!({
            "concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        }),
        _ => return,
    };
    fill(object, &["spec"], &defaults);
    if kind == "Deployment" && text_at(object, &["spec", "strategy", "type"]).is_empty() {
        set_at(object, &["spec", "strategy"], rolling);
    }
}
