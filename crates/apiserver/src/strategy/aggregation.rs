//! APIServices (`k8s.io/kube-aggregator/pkg/apis/apiregistration/validation`). What they do is in [`crate::aggregation`].

use serde_json::{Value, json};

use super::{Cx, Strategy, plain, zero_status};
use crate::{
    field::FieldError,
    names::{self, NameRule},
    object::{self, at, set_at, text_at},
    write::rfc3339,
};

pub(crate) static API_SERVICE: Strategy = Strategy {
    names: NameRule::PathSegment,
    unconditional_update: false,
    prepare: |cx, object| {
        zero_status(cx, object);
        if at(object, &["spec", "service"]).is_none_or(Value::is_null) {
            let condition = json!({
                "type": "Available", "status": "True", "lastTransitionTime": rfc3339(cx.now), "reason": "Local",
                "message": "Local APIServices are always available",
            });
            set_at(object, &["status", "conditions"], json!([condition]));
        }
    },
    check,
    ..plain()
};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;
const CONDITION_STATUSES: [&str; 3] = ["True", "False", "Unknown"];

fn check(cx: &Cx<'_>, new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    if cx.subresource == "status" { check_status(new) } else { check_spec(new) }
}

fn check_spec(new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = new.get("spec").unwrap_or(&Value::Null);
    let (name, group, version) = (object::name(new), text_at(spec, &["group"]), text_at(spec, &["version"]));
    let wanted = format!("{version}.{group}");
    // A name that cannot stand in a path is told of with the metadata.
    if name != wanted && NameRule::PathSegment.check(name).is_empty() {
        let text = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", name, text));
    }
    if group.is_empty() && version != "v1" {
        errors.push(FieldError::required("spec.group", "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        errors.extend(names::subdomain(group).into_iter().map(|why| FieldError::invalid("spec.group", group, why)));
    }
    errors.extend(names::rfc1035(version).into_iter().map(|why| FieldError::invalid("spec.version", version, why)));
    for (key, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let number = spec.get(key).and_then(Value::as_i64).unwrap_or_default();
        if !(1..=max).contains(&number) {
            let text = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(format!("spec.{key}"), number, text));
        }
    }
    errors.extend(check_service(spec));
    errors
}

fn check_service(spec: &Value) -> Vec<FieldError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut errors = Vec::new();
    let bundle = STANDARD.decode(text_at(spec, &["caBundle"])).map_or(0, |bytes| bytes.len());
    let insecure = spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true));
    let Some(service) = spec.get("service").filter(|service| !service.is_null()) else {
        if bundle > 0 {
            let text = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid("spec.caBundle", format!("{bundle} bytes"), text));
        }
        if insecure {
            let text = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, text));
        }
        return errors;
    };
    for key in ["namespace", "name"] {
        if text_at(service, &[key]).is_empty() {
            errors.push(FieldError::required(format!("spec.service.{key}"), ""));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or_default();
    if !(1..=65_535).contains(&port) {
        let text = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid("spec.service.port", port, text));
    }
    if insecure && bundle > 0 {
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, "may not be true if caBundle is present"));
    }
    errors
}

fn check_status(new: &Value) -> Vec<FieldError> {
    let conditions = at(new, &["status", "conditions"]).and_then(Value::as_array);
    let mut errors = Vec::new();
    for (i, condition) in conditions.into_iter().flatten().enumerate() {
        let status = text_at(condition, &["status"]);
        if !CONDITION_STATUSES.contains(&status) {
            let path = format!("status.conditions[{i}].status");
            errors.push(FieldError::not_supported(path, status, &CONDITION_STATUSES));
        }
    }
    errors
}
