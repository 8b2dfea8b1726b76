//! What v1beta1 tells in its status of what v1beta2 tells in other words, and what others say there beside.
//!
//! Our controllers never write `deprecated.v1beta1`: what they have to say there is made of the rest.

use serde_json::{Value, json};

/// Where v1beta2 keeps what v1beta1 says in its own words.
pub(super) const OWN: &str = "deprecated.v1beta1";

/// What v1beta1 was told under this name.
pub(super) fn said<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    OWN.split('.').chain([name]).try_fold(status, |value, field| value.get(field))
}

/// What is made goes before what was said: that may be of other controllers, which are gone. Conditions of other types stand beside.
pub(super) fn shown(made: Option<Value>, said: Option<&Value>) -> Option<Value> {
    match (made, said) {
        (Some(Value::Array(mut all)), Some(Value::Array(said))) => {
            all.extend(others(&all, said));
            Some(in_order(all))
        }
        (made, said) => made.or_else(|| said.cloned()),
    }
}

/// What v1beta1 is told and is not made at all. A nought where nothing is counted yet is what Go writes of nothing.
pub(super) fn kept(made: Option<&Value>, told: &Value) -> Option<Value> {
    match (made, told) {
        (Some(Value::Array(made)), Value::Array(told)) => {
            let others = others(made, told);
            (!others.is_empty()).then(|| others.into())
        }
        (None, Value::Number(number)) if number.as_i64() == Some(0) => None,
        (None, told) => Some(told.clone()),
        (Some(_), _) => None,
    }
}

/// Conditions of types that none is made of.
fn others(made: &[Value], said: &[Value]) -> Vec<Value> {
    said.iter().filter(|one| made.iter().all(|other| other["type"] != one["type"])).cloned().collect()
}

/// As published controllers keep them, so that what they write back is the same: Ready, then by type.
fn in_order(mut conditions: Vec<Value>) -> Value {
    conditions.sort_by_key(|one| {
        let type_ = one["type"].as_str().unwrap_or_default().to_owned();
        (type_ != "Ready", type_)
    });
    conditions.into()
}

/// A text of a condition that v1beta1 takes: not empty, and no longer than so many characters.
fn text(condition: &Value, name: &str, most: usize) -> Option<Value> {
    let text = condition[name].as_str().filter(|text| !text.is_empty())?;
    Some(text.chars().take(most).collect::<String>().into())
}

/// Conditions of v1beta1, made from those of v1beta2: of what is true no reason is given.
pub(super) fn legacy(pairs: &[(&str, &str)], status: &Value) -> Option<Value> {
    let conditions = status["conditions"].as_array()?;
    let of = |(old, new): &(&str, &str)| {
        let condition = conditions.iter().find(|condition| condition["type"] == *new)?;
        let mut out = json!({
            "type": old, "status": condition["status"], "lastTransitionTime": condition["lastTransitionTime"],
        });
        if condition["status"] != "True" {
            for (name, most) in [("reason", 256), ("message", 10_240)] {
                if let Some(text) = text(condition, name, most) {
                    out[name] = text;
                }
            }
        }
        if condition["status"] == "False" {
            out["severity"] = "Info".into();
        }
        Some(out)
    };
    let found: Vec<Value> = pairs.iter().filter_map(of).collect();
    (!found.is_empty()).then(|| in_order(found))
}

/// What only others say.
pub(super) fn nothing(_: &Value) -> Option<Value> {
    None
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

/// A control plane is ready when one of its machines is, as v1beta1 counts them.
pub(super) fn some_ready(status: &Value) -> Option<Value> {
    let ready = status.get("readyReplicas").or_else(|| said(status, "readyReplicas"))?;
    Some((ready.as_i64()? > 0).into())
}

/// What the Ready condition says.
pub(super) fn is_ready(status: &Value) -> Option<Value> {
    let conditions = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    Some(conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True").into())
}
