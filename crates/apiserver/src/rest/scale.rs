//! The scale subresource: autoscaling/v1 Scale, read out of and written into an object by paths.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::{
    field::FieldError,
    kinds::{Kind, Scale},
    object::{self, meta},
    status::{Error, Result},
};

fn find<'a>(object: &'a Value, path: &[Cow<'static, str>]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key.as_ref()))
}

/// The Scale of an object.
pub(crate) fn view(scale: &Scale, object: &Value) -> Value {
    let number = |path: &[Cow<'static, str>]| find(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta(object).and_then(|m| m.get(key)) {
            metadata.insert(key.into(), value.clone());
        }
    }
    let mut view = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&scale.spec_replicas)}, "status": {"replicas": number(&scale.status_replicas)},
    });
    let selector = scale.selector.as_ref().and_then(|path| find(object, path)).map(selector_text);
    if let Some(selector) = selector.filter(|s| !s.is_empty()) {
        view["status"]["selector"] = selector.into();
    }
    view
}

/// A selector in text form.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let labels = selector.get("matchLabels").unwrap_or(selector).as_object();
    let mut terms: Vec<String> =
        labels.into_iter().flatten().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    for entry in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = object::text_at(entry, &["key"]);
        let values = entry.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        terms.push(match object::text_at(entry, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

/// What is wrong with the replicas of a custom object that can be scaled.
pub(crate) fn check_replicas(path: &[Cow<'static, str>], object: &Value) -> Option<FieldError> {
    let place = format!(".{}", path.join("."));
    let mut here = object;
    for step in path {
        let kind = match here {
            Value::Object(_) => "",
            Value::Array(_) => "[]interface {}",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(number) => {
                if number.is_f64() {
                    "float64"
                } else {
                    "int64"
                }
            }
            Value::Null => return None,
        };
        if !kind.is_empty() {
            let found = crate::patch::printed(here);
            let why =
                format!("{place} accessor error: {found} is of the type {kind}, expected map[string]interface{{}}");
            return Some(FieldError::invalid(place, 0, why));
        }
        here = here.get(step.as_ref())?;
    }
    let Some(count) = here.as_i64() else {
        let kind = match here {
            Value::Object(_) => "map[string]interface {}",
            Value::Array(_) => "[]interface {}",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(_) => "float64",
            Value::Null => return None,
        };
        let found = crate::patch::printed(here);
        let why = format!("{place} accessor error: {found} is of the type {kind}, expected int64");
        return Some(FieldError::invalid(place, 0, why));
    };
    match count {
        count if count < 0 => Some(FieldError::invalid(place, count, "should be a non-negative integer")),
        count if count > i64::from(i32::MAX) => {
            let text = format!("should be less than or equal to {}", i32::MAX);
            Some(FieldError::invalid(place, count, text))
        }
        _ => None,
    }
}

/// The object with the replicas of a (changed) Scale.
pub(crate) fn write_back(kind: &Kind, scale: &Scale, view: &Value, object: &Value) -> Result<Value> {
    let name = object::name(object);
    let replicas = view.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into());
    match replicas.as_i64() {
        Some(count) if count >= 0 && i32::try_from(count).is_ok() => {}
        _ if kind.is_custom() => {
            let path = format!(".{}", scale.spec_replicas.join("."));
            let error = FieldError::invalid(path, replicas, "should be a non-negative integer");
            return Err(Error::invalid(&kind.group, &kind.kind, name, &[error]));
        }
        _ => {
            let text = "must be greater than or equal to 0";
            let error = FieldError::invalid("spec.replicas", replicas, text);
            return Err(Error::invalid("autoscaling", "Scale", name, &[error]));
        }
    }
    let mut changed = object.clone();
    let path: Vec<&str> = scale.spec_replicas.iter().map(AsRef::as_ref).collect();
    object::set_at(&mut changed, &path, replicas);
    let version = object::resource_version(view);
    if !version.is_empty() {
        object::set_at(&mut changed, &["metadata", "resourceVersion"], version.into());
    }
    Ok(changed)
}
