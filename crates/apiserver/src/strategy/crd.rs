//! CustomResourceDefinitions: their defaults, their rules and the conditions that say whether they are served.

mod version;

use serde_json::{Value, json};

use super::{Cx, Strategy, plain};
use crate::{
    convert, crd,
    field::FieldError,
    names,
    object::{self, at, default_at, set_at, text_at},
    schema::unknown_formats,
    status::Result,
};

pub(crate) static CRD: Strategy = Strategy {
    generation: true,
    unconditional_update: false,
    create: |_, crd| {
        default(crd);
        Ok(())
    },
    prepare: |_, crd| {
        // Whether the names are free is found out when it is there.
        let status = json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": []});
        set_at(crd, &["status"], status);
        keep_stored_version(crd);
    },
    update: |cx, crd, _| -> Result<()> {
        if cx.subresource.is_empty() {
            default(crd);
            keep_stored_version(crd);
        }
        Ok(())
    },
    check,
    warn: |new, old| {
        let formats = |crd: &Value| {
            let mut found = Vec::new();
            for version in crd::versions(crd) {
                at(version, &["schema", "openAPIV3Schema"]).into_iter().for_each(|s| unknown_formats(s, &mut found));
            }
            found
        };
        let known = old.map(formats).unwrap_or_default();
        let fresh = formats(new).into_iter().filter(|format| !known.contains(format));
        fresh.map(|format| format!("unrecognized format {format:?}")).collect()
    },
    ..plain()
};

fn default(crd: &mut Value) {
    let kind = text_at(crd, &["spec", "names", "kind"]).to_owned();
    if !kind.is_empty() {
        default_at(crd, &["spec", "names", "singular"], kind.to_lowercase().into());
        default_at(crd, &["spec", "names", "listKind"], format!("{kind}List").into());
    }
    default_at(crd, &["spec", "conversion"], json!({"strategy": "None"}));
    let versions = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut).into_iter().flatten();
    versions.filter_map(|version| version.pointer_mut("/schema/openAPIV3Schema")).for_each(without_null_defaults);
}

/// To Go a default that is null is none.
fn without_null_defaults(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    for name in ["items", "additionalProperties"] {
        map.get_mut(name).into_iter().for_each(without_null_defaults);
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(serde_json::Map::values_mut).for_each(without_null_defaults);
}

/// A version that was ever stored is not forgotten.
fn keep_stored_version(crd: &mut Value) {
    let mut stored = at(crd, &["status", "storedVersions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let current = crd::storage_version(crd);
    if !current.is_empty() && !stored.iter().any(|version| version == current) {
        stored.push(current.into());
    }
    set_at(crd, &["status", "storedVersions"], stored.into());
}

/// Says in the status whether the names are free, and with that whether the kinds are served.
pub(crate) fn conditions(cx: &Cx<'_>, crd: &mut Value) {
    let (names, conflict) = accepted_names(cx, crd);
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
    set_at(crd, &["status", "acceptedNames"], names);
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

/// The names that no other CRD of the group has, the accepted ones of before in place of those that are taken, and the last
/// of the conflicts.
fn accepted_names(cx: &Cx<'_>, crd: &Value) -> (Value, Option<(&'static str, String)>) {
    let catalog = cx.server.catalog();
    let own = object::name(crd);
    let (mut plural_like, mut kind_like) = (Vec::new(), Vec::new());
    for (_, custom) in catalog.customs(text_at(crd, &["spec", "group"])).filter(|(name, _)| *name != own) {
        let Some(kind) = custom.served.first() else { continue };
        plural_like.extend([kind.plural.to_string(), kind.singular.to_string()]);
        plural_like.extend(kind.short_names.iter().map(ToString::to_string));
        kind_like.extend([kind.kind.to_string(), kind.list_kind.to_string()]);
    }
    let asked = at(crd, &["spec", "names"]).cloned().unwrap_or_default();
    let before = at(crd, &["status", "acceptedNames"]).cloned().unwrap_or_default();
    let mut accepted = asked.clone();
    let mut conflict = None;
    let keys = [
        ("plural", "PluralConflict", &plural_like),
        ("singular", "SingularConflict", &plural_like),
        ("shortNames", "ShortNamesConflict", &plural_like),
        ("kind", "KindConflict", &kind_like),
        ("listKind", "ListKindConflict", &kind_like),
    ];
    for (key, reason, taken) in keys {
        let wanted = asked.get(key).cloned().unwrap_or_default();
        let list = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted]);
        let found = list.iter().filter_map(Value::as_str).find(|name| taken.iter().any(|other| other == name));
        if let Some(name) = found {
            conflict = Some((reason, format!("{name:?} is already in use")));
            match before.get(key) {
                Some(before) => accepted[key] = before.clone(),
                None if matches!(key, "plural" | "kind") => accepted[key] = "".into(),
                None => drop(accepted.as_object_mut().and_then(|names| names.remove(key))),
            }
        }
    }
    (accepted, conflict)
}

fn check(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if cx.subresource == "status" {
        return errors;
    }
    let group = text_at(new, &["spec", "group"]);
    let names_of = |key: &str| text_at(new, &["spec", "names", key]);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !names::subdomain(group).is_empty() || !group.contains('.') {
        let text = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", group, text));
    } else if cx.server.catalog().has_builtin_group(group) {
        errors.push(FieldError::invalid("spec.group", group, "the group is served by the API server itself"));
    }
    let expected = format!("{}.{group}", names_of("plural"));
    if old.is_none() && object::name(new) != expected {
        let text = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", object::name(new), text));
    }
    if new.get("metadata").is_some() && old.is_none() {
        errors.extend(version::protected_group(new, group));
    }
    for key in ["plural", "singular"] {
        if names_of(key).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
            continue;
        }
        for wrong in names::rfc1035(names_of(key)) {
            errors.push(FieldError::invalid(format!("spec.names.{key}"), names_of(key), wrong));
        }
    }
    errors.extend(version::short_names(new));
    if !names_of("kind").is_empty() && names_of("kind") == names_of("listKind") {
        let text = "kind and listKind may not be the same";
        errors.push(FieldError::invalid("spec.names.listKind", names_of("listKind"), text));
    }
    for key in ["kind", "listKind"] {
        if names_of(key).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
            continue;
        }
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
        "Webhook" => errors.extend(convert::check(new)),
        other => errors.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
    if at(new, &["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true)) {
        const PATH: &str = "spec.preserveUnknownFields";
        errors.push(FieldError::invalid(PATH, true, "must be false in order to use defaults in the schema"));
        let text =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(PATH, true, text));
    }
    check_versions(new, &mut errors);
    if let Some(old) = old {
        check_fixed(new, old, &mut errors);
    }
    if errors.is_empty()
        && let Err(wrong) = crd::compile(new, None, None)
    {
        errors.extend(wrong);
    }
    if errors.is_empty() {
        errors.extend(crd::check_rules(new, old));
    }
    errors
}

/// What cannot change, and what cannot change any more once the kind is served.
fn check_fixed(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut fixed: Vec<&[&str]> = vec![&["spec", "group"]];
    if crd::is_established(old) {
        fixed.extend([&["spec", "scope"][..], &["spec", "names", "kind"], &["spec", "names", "plural"]]);
    }
    for path in fixed {
        if at(old, path) != at(new, path) {
            let value = at(new, path).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(path.join("."), value, "field is immutable"));
        }
    }
}

/// Versions as upstream prints them where there is something wrong with them together.
fn printed_versions(versions: &[Value]) -> Value {
    let text = |version: &Value, key: &str| version.get(key).cloned().unwrap_or_default();
    let flag = |version: &Value, key: &str| version.get(key).and_then(Value::as_bool).unwrap_or(false);
    let print = |version: &Value| {
        json!({
            "Name": text(version, "name"), "Served": flag(version, "served"), "Storage": flag(version, "storage"),
            "Deprecated": flag(version, "deprecated"), "DeprecationWarning": text(version, "deprecationWarning"),
            "Schema": null, "Subresources": null, "AdditionalPrinterColumns": null, "SelectableFields": null,
        })
    };
    versions.iter().map(print).collect()
}

fn check_versions(new: &Value, errors: &mut Vec<FieldError>) {
    let versions = crd::versions(new);
    let mut seen = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let name = text_at(version, &["name"]);
        for wrong in names::rfc1035(name) {
            errors.push(FieldError::invalid(format!("spec.versions[{i}].name"), name, wrong));
        }
        if seen.contains(&name) {
            let text = "must contain unique version names";
            errors.push(FieldError::invalid("spec.versions", printed_versions(versions), text));
        }
        seen.push(name);
        let warning = text_at(version, &["deprecationWarning"]);
        if !warning.is_empty() && version.get("deprecated") != Some(&Value::Bool(true)) {
            let path = format!("spec.versions[{i}].deprecationWarning");
            errors.push(FieldError::invalid(path, warning, "can only be set for deprecated versions"));
        }
        if at(version, &["schema", "openAPIV3Schema"]).is_none_or(Value::is_null) {
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
            errors.push(FieldError::required(path, ""));
        }
    }
    errors.extend(version::check(new, versions));
    let storage = versions.iter().filter(|v| v.get("storage") == Some(&Value::Bool(true))).count();
    if storage != 1 {
        let text = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", printed_versions(versions), text));
    }
    let stored = at(new, &["status", "storedVersions"]).and_then(Value::as_array);
    for (i, version) in stored.into_iter().flatten().filter_map(Value::as_str).enumerate() {
        if !seen.contains(&version) {
            let text = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {version} and removes {version} from \
                 status.storedVersions"
            );
            errors.push(FieldError::invalid(format!("status.storedVersions[{i}]"), version, text));
        }
    }
}
