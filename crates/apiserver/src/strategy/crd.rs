//! CustomResourceDefinitions: their defaults, their rules and the conditions that say whether they are served.

use serde_json::{Value, json};

use super::{Cx, Strategy, plain};
use crate::{
    crd::{self, CLEANUP_FINALIZER},
    field::FieldError,
    names,
    object::{self, at, default_at, set_at, text_at},
    status::Result,
};

pub(crate) static CRD: Strategy = Strategy {
    generation: true,
    create: |cx, crd| {
        default(crd);
        set_at(crd, &["status"], json!({"storedVersions": []}));
        conditions(cx, crd);
        let mut list: Vec<String> = object::finalizers(crd).map(str::to_owned).collect();
        if !list.iter().any(|f| f == CLEANUP_FINALIZER) {
            list.push(CLEANUP_FINALIZER.to_owned());
        }
        object::set_finalizers(crd, list);
        Ok(())
    },
    update: |cx, crd, _| -> Result<()> {
        if cx.subresource.is_empty() {
            default(crd);
            conditions(cx, crd);
        }
        Ok(())
    },
    check,
    ..plain()
};

fn default(crd: &mut Value) {
    let kind = text_at(crd, &["spec", "names", "kind"]).to_owned();
    default_at(crd, &["spec", "names", "singular"], kind.to_lowercase().into());
    default_at(crd, &["spec", "names", "listKind"], format!("{kind}List").into());
    default_at(crd, &["spec", "conversion"], json!({"strategy": "None"}));
}

/// Says in the status whether the names are free, and with that whether the kinds are served.
fn conditions(cx: &Cx<'_>, crd: &mut Value) {
    let conflict = name_conflict(cx, crd);
    let names = at(crd, &["spec", "names"]).cloned().unwrap_or_default();
    let (accepted, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", *reason, message.clone()),
    };
    let mut list = vec![condition(cx, crd, "NamesAccepted", accepted, reason, &message)];
    list.push(match accepted {
        "True" => {
            condition(cx, crd, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
        }
        _ => condition(cx, crd, "Established", "False", "NotAccepted", "not all names are accepted"),
    });
    let rest = at(crd, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    let own = |c: &&Value| !matches!(text_at(c, &["type"]), "NamesAccepted" | "Established");
    list.extend(rest.filter(own).cloned().collect::<Vec<_>>());
    set_at(crd, &["status", "conditions"], list.into());
    if conflict.is_none() {
        set_at(crd, &["status", "acceptedNames"], names);
    } else {
        default_at(crd, &["status", "acceptedNames"], json!({"plural": "", "kind": ""}));
    }
    let mut stored = at(crd, &["status", "storedVersions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let current = Value::from(crd::storage_version(crd));
    if !stored.contains(&current) {
        stored.push(current);
    }
    set_at(crd, &["status", "storedVersions"], stored.into());
}

fn condition(cx: &Cx<'_>, crd: &Value, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let old = at(crd, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    let since = old
        .filter(|c| text_at(c, &["type"]) == kind && text_at(c, &["status"]) == status)
        .map(|c| text_at(c, &["lastTransitionTime"]).to_owned())
        .next();
    let since = since.unwrap_or_else(|| crate::write::rfc3339(cx.now));
    json!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
}

/// Whether another CRD (or a built-in kind) of the group has one of the names already.
fn name_conflict(cx: &Cx<'_>, crd: &Value) -> Option<(&'static str, String)> {
    let catalog = cx.server.catalog();
    let group = text_at(crd, &["spec", "group"]);
    let own = object::name(crd);
    let names = |key: &str| text_at(crd, &["spec", "names", key]);
    for (other, custom) in catalog.customs(group).filter(|(name, _)| *name != own) {
        let Some(kind) = custom.served.first() else { continue };
        let mut taken = vec![kind.plural.as_ref(), kind.singular.as_ref()];
        taken.extend(kind.short_names.iter().map(AsRef::as_ref));
        for (key, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
            if taken.contains(&names(key)) {
                return Some((reason, format!("{:?} is already in use by {other}", names(key))));
            }
        }
        let short = at(crd, &["spec", "names", "shortNames"]).and_then(Value::as_array).into_iter().flatten();
        if let Some(short) = short.filter_map(Value::as_str).find(|s| taken.contains(s)) {
            return Some(("ShortNamesConflict", format!("{short:?} is already in use by {other}")));
        }
        if kind.kind == names("kind") {
            return Some(("KindConflict", format!("{:?} is already in use by {other}", names("kind"))));
        }
    }
    None
}

fn check(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let group = text_at(new, &["spec", "group"]);
    let names_of = |key: &str| text_at(new, &["spec", "names", key]);
    if !names::subdomain(group).is_empty() || !group.contains('.') {
        let text = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", group, text));
    } else if cx.server.catalog().has_builtin_group(group) {
        errors.push(FieldError::invalid("spec.group", group, "the group is served by the API server itself"));
    }
    let expected = format!("{}.{group}", names_of("plural"));
    if object::name(new) != expected {
        let text = format!("must be spec.names.plural+\".\"+spec.group: {expected:?}");
        errors.push(FieldError::invalid("metadata.name", object::name(new), text));
    }
    for key in ["plural", "singular"] {
        for wrong in names::rfc1035(names_of(key)) {
            errors.push(FieldError::invalid(format!("spec.names.{key}"), names_of(key), wrong));
        }
    }
    for key in ["kind", "listKind"] {
        for wrong in names::rfc1035(&names_of(key).to_lowercase()) {
            let text = format!("may have mixed case, but should otherwise match: {wrong}");
            errors.push(FieldError::invalid(format!("spec.names.{key}"), names_of(key), text));
        }
    }
    let scope = text_at(new, &["spec", "scope"]);
    if !matches!(scope, "Namespaced" | "Cluster") {
        errors.push(FieldError::not_supported("spec.scope", scope, &["Cluster", "Namespaced"]));
    }
    match text_at(new, &["spec", "conversion", "strategy"]) {
        "None" => {}
        "Webhook" => {
            let text = "this server calls no conversion webhooks; use None";
            errors.push(FieldError::forbidden("spec.conversion.strategy", text));
        }
        other => errors.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
    if at(new, &["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true)) {
        let text = "must be set to false in order to use defaults in the schema";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, text));
    }
    check_versions(new, &mut errors);
    for (path, field) in [("spec.group", "group"), ("spec.scope", "scope")] {
        if let Some(old) = old
            && at(old, &["spec", field]) != at(new, &["spec", field])
        {
            let value = at(new, &["spec", field]).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(path, value, "field is immutable"));
        }
    }
    if errors.is_empty()
        && let Err(wrong) = crd::compile(new)
    {
        errors.extend(wrong);
    }
    if errors.is_empty() {
        errors.extend(crd::check_rules(new));
    }
    errors
}

fn check_versions(new: &Value, errors: &mut Vec<FieldError>) {
    let versions = crd::versions(new);
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", "must have at least one version"));
    }
    let mut seen = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let name = text_at(version, &["name"]);
        for wrong in names::rfc1035(name) {
            errors.push(FieldError::invalid(format!("spec.versions[{i}].name"), name, wrong));
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(format!("spec.versions[{i}].name"), name));
        }
        seen.push(name);
        if at(version, &["schema", "openAPIV3Schema"]).is_none_or(Value::is_null) {
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
            errors.push(FieldError::required(path, "schemas are required"));
        }
    }
    let storage = versions.iter().filter(|v| v.get("storage") == Some(&Value::Bool(true))).count();
    if storage != 1 {
        let text = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", storage, text));
    }
    let stored = at(new, &["status", "storedVersions"]).and_then(Value::as_array);
    for (i, version) in stored.into_iter().flatten().filter_map(Value::as_str).enumerate() {
        if !seen.contains(&version) {
            let text = "must appear in spec.versions";
            errors.push(FieldError::invalid(format!("status.storedVersions[{i}]"), version, text));
        }
    }
}
