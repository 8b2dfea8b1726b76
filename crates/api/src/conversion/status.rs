//! What v1beta1 tells in its status of what v1beta2 tells in other words.

use serde_json::{Value, json};

/// Conditions of v1beta1, made from those of v1beta2: of what is true no reason is given.
pub(super) fn legacy(pairs: &[(&str, &str)], status: &Value) -> Option<Value> {
    let conditions = status["conditions"].as_array()?;
    let of = |(old, new): &(&str, &str)| {
        let condition = conditions.iter().find(|condition| condition["type"] == *new)?;
        let mut out = json!({
            "type": old, "status": condition["status"], "lastTransitionTime": condition["lastTransitionTime"],
        });
        if condition["status"] != "True" {
            out["reason"] = condition["reason"].clone();
            out["message"] = condition["message"].clone();
        }
        if condition["status"] == "False" {
            out["severity"] = "Info".into();
        }
        Some(out)
    };
    let found: Vec<Value> = pairs.iter().filter_map(of).collect();
    (!found.is_empty()).then(|| found.into())
}

fn number(status: &Value, name: &str) -> Option<i64> {
    status.get(name)?.as_i64()
}

pub(super) fn ready_replicas(status: &Value) -> Option<Value> {
    status.get("readyReplicas").cloned()
}

pub(super) fn available_replicas(status: &Value) -> Option<Value> {
    status.get("availableReplicas").cloned()
}

pub(super) fn updated_replicas(status: &Value) -> Option<Value> {
    status.get("upToDateReplicas").cloned()
}

pub(super) fn replicas(status: &Value) -> Option<Value> {
    status.get("replicas").cloned()
}

/// Those that are there and not available.
pub(super) fn unavailable_replicas(status: &Value) -> Option<Value> {
    let missing = number(status, "replicas")? - number(status, "availableReplicas").unwrap_or(0);
    Some(missing.max(0).into())
}

/// A control plane is ready when one of its machines is.
pub(super) fn some_ready(status: &Value) -> Option<Value> {
    Some((number(status, "readyReplicas")? > 0).into())
}

/// What the Ready condition says.
pub(super) fn is_ready(status: &Value) -> Option<Value> {
    let conditions = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    Some(conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True").into())
}
