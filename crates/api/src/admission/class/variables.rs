//! Variables of a class: their names, their schemas, their defaults, and their rules in CEL.

use std::collections::BTreeSet;

use regex::RegexBuilder;
use serde_json::Value;

use super::{Problem, items};
use crate::topology::{rules, variables};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// A schema may be nested so deep.
const DEPTH_MAX: usize = 50;

pub(super) fn check(class: &Value, problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for variable in items(class, "/spec/variables") {
        let name = variable["name"].as_str().unwrap_or_default();
        let path = format!("spec.variables[{name}]");
        let at = format!("{path}.name");
        if !names.insert(name) {
            let detail = format!("variable name must be unique. Variable with name {name:?} is defined more than once");
            problems.push(Problem::invalid(&at, &variable["name"], detail));
        }
        if name.is_empty() {
            problems.push(Problem::required(&at, "variable name must be defined"));
        } else if name == "builtin" {
            problems.push(Problem::invalid(&at, &variable["name"], "\"builtin\" is a reserved variable name"));
        }
        if name.contains('.') {
            problems.push(Problem::invalid(&at, &variable["name"], "variable name cannot contain \".\""));
        }
        let root = &variable["schema"]["openAPIV3Schema"];
        let path = format!("{path}.schema.openAPIV3Schema");
        let before = problems.len();
        schema(root, &path, 0, problems);
        if problems.len() == before {
            rules::check(root, &path, problems);
        }
        if problems.len() == before {
            defaults(root, &path, problems);
        }
    }
}

fn schema(at: &Value, path: &str, depth: usize, problems: &mut Vec<Problem>) {
    if depth > DEPTH_MAX {
        problems.push(Problem::forbidden(path, format!("schemas may not be nested more than {DEPTH_MAX} deep")));
        return;
    }
    let open =
        at["x-kubernetes-preserve-unknown-fields"] == true || at["x-kubernetes-int-or-string"] == true || depth > 0;
    match at["type"].as_str().filter(|type_| !type_.is_empty()) {
        Some(type_) if !TYPES.contains(&type_) => {
            let detail = format!("supported values: {}", TYPES.map(|type_| format!("{type_:?}")).join(", "));
            problems.push(Problem::invalid(&format!("{path}.type"), &at["type"], detail));
            return;
        }
        None if !open => {
            problems.push(Problem::required(&format!("{path}.type"), "must not be empty for specified object fields"));
        }
        _ => {}
    }
    if let Some(pattern) = at["pattern"].as_str()
        && let Err(error) = RegexBuilder::new(pattern).size_limit(variables::PATTERN_BYTES_MAX).build()
    {
        problems.push(Problem::invalid(&format!("{path}.pattern"), &at["pattern"], format!("must be valid: {error}")));
    }
    for (index, choice) in items(at, "/enum").iter().enumerate().filter(|(_, choice)| !choice.is_null()) {
        problems.extend(variables::wrong(at, choice, &format!("{path}.enum[{index}]")));
    }
    if at["additionalProperties"].is_object() && at["properties"].as_object().is_some_and(|all| !all.is_empty()) {
        problems.push(Problem::forbidden(path, "additionalProperties and properties are mutually exclusive"));
    }
    for (name, below) in at["properties"].as_object().into_iter().flatten() {
        schema(below, &format!("{path}.properties[{name}]"), depth + 1, problems);
    }
    for field in ["additionalProperties", "items", "not"] {
        if at[field].is_object() {
            schema(&at[field], &format!("{path}.{field}"), depth + 1, problems);
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, branch) in items(at, &format!("/{field}")).iter().enumerate() {
            schema(branch, &format!("{path}.{field}[{index}]"), depth + 1, problems);
        }
    }
    if at["type"] == "array" && !at["items"].is_object() {
        problems.push(Problem::required(&format!("{path}.items"), "must be specified"));
    }
}

/// What a schema fills in has to be right by it.
fn defaults(at: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(default) = at.get("default") {
        problems.extend(variables::wrong(at, &variables::filled(at, default), &format!("{path}.default")));
    }
    for (name, below) in at["properties"].as_object().into_iter().flatten() {
        defaults(below, &format!("{path}.properties[{name}]"), problems);
    }
    for field in ["additionalProperties", "items"] {
        if at[field].is_object() {
            defaults(&at[field], &format!("{path}.{field}"), problems);
        }
    }
}
