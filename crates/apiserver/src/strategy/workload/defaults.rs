//! What Kubernetes fills in where a manifest is silent and other fields decide (`pkg/apis/{core,apps,batch}/v1`); plain
//! defaults are a table of the schemas.

use serde_json::{Value, json};

use crate::object::{at, default_at, text_at};

/// The pod spec at `path`.
pub(super) fn pod_spec(object: &mut Value, path: &[&str]) {
    let Some(spec) = path.iter().try_fold(&mut *object, |value, key| value.get_mut(*key)) else { return };
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let image = text_at(container, &["image"]);
            let tag = image.rsplit('/').next().unwrap_or_default();
            let latest = !tag.contains([':', '@']) || tag.ends_with(":latest");
            let pull = if latest { "Always" } else { "IfNotPresent" };
            default_at(container, &["imagePullPolicy"], pull.into());
            default_at(container, &["resources"], json!({}));
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
    for port in service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port.get("port").cloned().unwrap_or_default();
        default_at(port, &["targetPort"], number);
    }
}

/// A kind with a pod template.
pub(super) fn workload(kind: &str, object: &mut Value) {
    let template: &[&str] = match kind {
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => &["spec", "template", "spec"],
    };
    pod_spec(object, template);
    match kind {
        "Deployment" if text_at(object, &["spec", "strategy", "type"]) == "RollingUpdate" => {
            default_at(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], "25%".into());
            default_at(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%".into());
        }
        "StatefulSet" => {
            let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
            default_at(object, &["spec", "persistentVolumeClaimRetentionPolicy"], retain);
        }
        "Job" if at(object, &["spec", "parallelism"]) == Some(&Value::from(1)) => {
            default_at(object, &["spec", "completions"], 1.into());
        }
        _ => {}
    }
}
