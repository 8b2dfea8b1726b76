//! What must hold of a CRD's versions, names and group beyond the schemas
//! (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use serde_json::Value;

use crate::{
    crd,
    field::FieldError,
    names,
    object::{at, text_at},
};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
/// Says that a CRD of a group of Kubernetes' own is theirs (KEP-1111).
const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) fn check(new: &Value, versions: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, part) in [
        ("subresources", subresources as fn(&Value, &Value, &str, &mut Vec<FieldError>)),
        ("additionalPrinterColumns", columns),
        ("selectableFields", selectable),
    ] {
        // What all versions have in common stands, and is spoken of, in one place.
        let common = versions.iter().all(|version| version.get(key) == versions[0].get(key));
        for (i, version) in versions.iter().enumerate().take(if common { 1 } else { versions.len() }) {
            let path = if common { format!("spec.{key}") } else { format!("spec.versions[{i}].{key}") };
            if let Some(value) = version.get(key) {
                part(version, value, &path, &mut errors);
            }
        }
    }
    if let Some(first) = versions.first() {
        let name = text_at(first, &["name"]);
        errors.extend(names::rfc1035(name).into_iter().map(|wrong| FieldError::invalid("spec.version", name, wrong)));
    }
    let stored = at(new, &["status", "storedVersions"]).cloned().unwrap_or_default();
    let current = crd::storage_version(new);
    match stored.as_array() {
        Some(list) if !list.is_empty() => {
            let last = versions.iter().rfind(|version| version["storage"] == true).map(|v| text_at(v, &["name"]));
            let wanted = last.unwrap_or(current);
            if !wanted.is_empty() && !list.iter().any(|version| version == wanted) {
                let text = format!("must have the storage version {wanted}");
                errors.push(FieldError::invalid("status.storedVersions", stored.clone(), text));
            }
        }
        _ => {
            let text = "must have at least one stored version";
            errors.push(FieldError::invalid("status.storedVersions", Value::Null, text));
        }
    }
    errors
}

fn subresources(_: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(scale) = value.get("scale").filter(|scale| scale.is_object()) else { return };
    for (key, root) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status"), ("labelSelectorPath", "")] {
        let said = text_at(scale, &[key]);
        let path = format!("{path}.scale.{key}");
        if said.is_empty() {
            if key != "labelSelectorPath" {
                errors.push(FieldError::required(path, ""));
            }
            continue;
        }
        if !said.starts_with('.') {
            errors.push(FieldError::invalid(path, said, "must be a json path in the dot notation"));
        } else if !root.is_empty() && !said.starts_with(&format!("{root}.")) {
            errors.push(FieldError::invalid(path, said, format!("should be a json path under {root}")));
        } else if root.is_empty() && !said.starts_with(".spec.") && !said.starts_with(".status.") {
            let text = "should be a json path under either .status or .spec";
            errors.push(FieldError::invalid(path, said, text));
        }
    }
}

fn columns(_: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, column) in value.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{i}]");
        if text_at(column, &["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.header"), ""));
        }
        let said = text_at(column, &["type"]);
        let text = format!("must be one of {}", COLUMN_TYPES.join(","));
        if said.is_empty() {
            errors.push(FieldError::required(format!("{path}.type"), text));
        } else if !COLUMN_TYPES.contains(&said) {
            errors.push(FieldError::invalid(format!("{path}.type"), said, text));
        }
        let said = text_at(column, &["jsonPath"]);
        if said.is_empty() {
            errors.push(FieldError::required(format!("{path}.JSONPath"), ""));
        } else if !said.starts_with('.') {
            let text = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(format!("{path}.JSONPath"), said, text));
        }
    }
}

fn selectable(version: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, field) in value.as_array().into_iter().flatten().enumerate() {
        let said = text_at(field, &["jsonPath"]);
        let mut node = at(version, &["schema", "openAPIV3Schema"]);
        for step in said.trim_start_matches('.').split('.') {
            node = node.and_then(|node| node.get("properties")?.get(step));
        }
        let leaf = node.is_some_and(|node| matches!(text_at(node, &["type"]), "string" | "integer" | "boolean"));
        if !leaf {
            let text = match node {
                None => "is an invalid path: does not refer to a valid field",
                Some(_) => {
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                            formats are allowed."
                }
            };
            errors.push(FieldError::invalid(format!("{path}[{i}].jsonPath"), said, text));
        }
    }
}

pub(super) fn short_names(new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["shortNames", "categories"] {
        let names = at(new, &["spec", "names", list]).and_then(Value::as_array).into_iter().flatten();
        for (i, name) in names.filter_map(Value::as_str).enumerate() {
            let path = format!("spec.names.{list}[{i}]");
            errors
                .extend(names::rfc1035(name).into_iter().map(|wrong| FieldError::invalid(path.as_str(), name, wrong)));
        }
    }
    errors
}

/// Groups of Kubernetes' own are taken only with a word that they may be.
pub(super) fn protected_group(new: &Value, group: &str) -> Option<FieldError> {
    let is_protected =
        ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")));
    let said = text_at(new, &["metadata", "annotations", APPROVED]);
    if !is_protected || said.starts_with("http://") || said.starts_with("https://") || said.starts_with("unapproved") {
        return None;
    }
    let path = format!("metadata.annotations[{APPROVED}]");
    let help = "https://github.com/kubernetes/enhancements/pull/1111";
    if said.is_empty() {
        let text = format!("protected groups must have approval annotation \"{APPROVED}\", see {help}");
        return Some(FieldError::required(path, text));
    }
    let text = format!(
        "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \"unapproved\", see {help}"
    );
    Some(FieldError::invalid(path, said, text))
}
