//! What may be said in configurations of webhooks and in policies
//! (`kubernetes/pkg/apis/admissionregistration/validation/validation.go`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    expression::{Expression, Scope, Variable},
    matching::texts,
    policies,
};
use crate::{
    field::FieldError,
    names,
    object::{at, text_at},
    webhook,
};

mod policy;

pub(crate) use policy::{check_binding, check_policy};

const CONDITIONS_MAX: usize = 64;
const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn given<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    value.get(key).filter(|value| !value.is_null())
}

/// What is wrong with a configuration of webhooks. What was wrong with the old one in the same way is let be.
pub(crate) fn check_webhooks(new: &Value, old: Option<&Value>, mutating: bool) -> Vec<FieldError> {
    let before = old.map_or(&[][..], |old| list(old, "webhooks"));
    let harmless = |hook: &Value| NO_SIDE_EFFECTS.contains(&text_at(hook, &["sideEffects"]));
    let recognized = |hook: &Value| {
        let versions = texts(hook.get("admissionReviewVersions"));
        versions.is_empty() || versions.iter().any(|version| REVIEW_VERSIONS.contains(&version.as_str()))
    };
    let mut seen = BTreeSet::new();
    let unique = before.iter().all(|hook| seen.insert(text_at(hook, &["name"])));
    let strict = Strict {
        side_effects: before.iter().all(harmless),
        versions: before.iter().all(recognized),
        names: unique,
        conditions: !(before.len() == list(new, "webhooks").len()
            && old.is_some()
            && before
                .iter()
                .zip(list(new, "webhooks"))
                .all(|(a, b)| a.get("matchConditions") == b.get("matchConditions"))),
    };
    let mut errors = Vec::new();
    let mut names = BTreeSet::new();
    for (i, hook) in list(new, "webhooks").iter().enumerate() {
        let path = format!("webhooks[{i}]");
        errors.extend(check_webhook(hook, &path, &strict, mutating));
        let name = text_at(hook, &["name"]);
        if strict.names && !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
    }
    errors
}

/// What is looked at, since the old configuration was right in it.
struct Strict {
    side_effects: bool,
    versions: bool,
    names: bool,
    conditions: bool,
}

fn check_webhook(hook: &Value, path: &str, strict: &Strict, mutating: bool) -> Vec<FieldError> {
    let at = |key: &str| format!("{path}.{key}");
    let mut errors = check_name(text_at(hook, &["name"]), &at("name"));
    for (i, rule) in list(hook, "rules").iter().enumerate() {
        errors.extend(check_rule(rule, &format!("{path}.rules[{i}]")));
    }
    let mut one_of = |key: &str, allowed: &[&str]| {
        if let Some(found) = given(hook, key).filter(|found| !allowed.contains(&found.as_str().unwrap_or_default())) {
            errors.push(FieldError::not_supported(format!("{path}.{key}"), found.clone(), allowed));
        }
    };
    one_of("failurePolicy", &FAILURE_POLICIES);
    one_of("matchPolicy", &MATCH_POLICIES);
    if mutating {
        one_of("reinvocationPolicy", &REINVOCATION_POLICIES);
    }
    let allowed: &[&str] = if strict.side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    one_of("sideEffects", allowed);
    if given(hook, "sideEffects").is_none() {
        errors.push(FieldError::required(at("sideEffects"), format!("must specify one of {}", allowed.join(", "))));
    }
    if let Some(timeout_s) = hook.get("timeoutSeconds").and_then(Value::as_i64).filter(|s| !(1..=30).contains(s)) {
        let text = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(at("timeoutSeconds"), timeout_s, text));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = given(hook, key) {
            check_selector(selector, &at(key), &mut errors);
        }
    }
    errors.extend(webhook::check(hook.get("clientConfig").unwrap_or(&Value::Null), &at("clientConfig")));
    if strict.conditions {
        check_conditions(hook, path, false, &mut errors);
    }
    check_review_versions(hook, &at("admissionReviewVersions"), strict.versions, &mut errors);
    errors
}

fn check_name(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let wrong = names::subdomain(name);
    if !wrong.is_empty() {
        return vec![FieldError::invalid(path, name, wrong.join(","))];
    }
    if name.split('.').count() < 3 {
        let text = "should be a domain with at least three segments separated by dots";
        return vec![FieldError::invalid(path, name, text)];
    }
    Vec::new()
}

fn check_review_versions(hook: &Value, path: &str, strict: bool, errors: &mut Vec<FieldError>) {
    let versions = texts(hook.get("admissionReviewVersions"));
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.push(FieldError::required(path, format!("must specify one of {known}")));
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if versions.iter().take(i).any(|before| before == version) {
            errors.push(FieldError::invalid(path, version.as_str(), "duplicate version"));
            continue;
        }
        let wrong = names::rfc1035(version);
        errors.extend(wrong.into_iter().map(|wrong| FieldError::invalid(path.as_str(), version.as_str(), wrong)));
    }
    if strict && !versions.iter().any(|version| REVIEW_VERSIONS.contains(&version.as_str())) {
        errors.push(FieldError::invalid(path, versions, format!("must include at least one of {known}")));
    }
}

/// A rule with its operations.
fn check_rule(rule: &Value, path: &str) -> Vec<FieldError> {
    let at = |key: &str| format!("{path}.{key}");
    let mut errors = Vec::new();
    let operations = texts(rule.get("operations"));
    if operations.is_empty() {
        errors.push(FieldError::required(at("operations"), ""));
    }
    let many = |list: &[String]| list.len() > 1 && list.iter().any(|one| one == "*");
    if many(&operations) {
        let text = "if '*' is present, must not specify other operations";
        errors.push(FieldError::invalid(at("operations"), operations.clone(), text));
    }
    for (i, operation) in operations.iter().enumerate().filter(|(_, found)| !OPERATIONS.contains(&found.as_str())) {
        errors.push(FieldError::not_supported(format!("{path}.operations[{i}]"), operation.as_str(), &OPERATIONS));
    }
    let groups = texts(rule.get("apiGroups"));
    if groups.is_empty() {
        errors.push(FieldError::required(at("apiGroups"), ""));
    }
    if many(&groups) {
        let text = "if '*' is present, must not specify other API groups";
        errors.push(FieldError::invalid(at("apiGroups"), groups.clone(), text));
    }
    let versions = texts(rule.get("apiVersions"));
    if versions.is_empty() {
        errors.push(FieldError::required(at("apiVersions"), ""));
    }
    if many(&versions) {
        let text = "if '*' is present, must not specify other API versions";
        errors.push(FieldError::invalid(at("apiVersions"), versions.clone(), text));
    }
    for (i, _) in versions.iter().enumerate().filter(|(_, version)| version.is_empty()) {
        errors.push(FieldError::required(format!("{path}.apiVersions[{i}]"), ""));
    }
    check_resources(&texts(rule.get("resources")), &at("resources"), &mut errors);
    const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
    if let Some(scope) = given(rule, "scope").filter(|scope| !SCOPES.contains(&scope.as_str().unwrap_or_default())) {
        errors.push(FieldError::not_supported(at("scope"), scope.clone(), &SCOPES));
    }
    errors
}

fn check_resources(resources: &[String], path: &str, errors: &mut Vec<FieldError>) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut all_of, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, resource) in resources.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if resource.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let Some((name, sub)) = resource.split_once('/') else {
            plain |= resource != "*";
            continue;
        };
        let mut taken_in = |by: String| {
            let text = format!("if '{by}' is present, must not specify {resource}");
            errors.push(FieldError::invalid(path.as_str(), resource.as_str(), text));
        };
        if all_of.contains(name) {
            taken_in(format!("{name}/*"));
        }
        if everywhere.contains(sub) {
            taken_in(format!("*/{sub}"));
        }
        if sub == "*" {
            all_of.insert(name);
        }
        if name == "*" {
            everywhere.insert(sub);
        }
    }
    let has = |wanted: &str| resources.iter().any(|resource| resource == wanted);
    if resources.len() > 1 && has("*/*") {
        let text = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, resources.to_vec(), text));
    }
    if has("*") && plain {
        let text = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, resources.to_vec(), text));
    }
}

/// A LabelSelector (`apimachinery/pkg/apis/meta/v1/validation.ValidateLabelSelector`).
fn check_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    names::check_labels(selector.get("matchLabels"), &format!("{path}.matchLabels"), errors);
    for (i, entry) in list(selector, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        let values = texts(entry.get("values"));
        match text_at(entry, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), text));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), text));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let text = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), other, text));
            }
        }
        let key = text_at(entry, &["key"]);
        for wrong in names::qualified_name(key) {
            errors.push(FieldError::invalid(format!("{path}.key"), key, wrong));
        }
        for (i, value) in values.iter().enumerate() {
            for wrong in names::label_value(value) {
                errors.push(FieldError::invalid(format!("{path}.values[{i}]"), value.as_str(), wrong));
            }
        }
    }
}

/// The `matchConditions` of a webhook or a policy.
fn check_conditions(holder: &Value, path: &str, params: bool, errors: &mut Vec<FieldError>) {
    let conditions = list(holder, "matchConditions");
    let path = format!("{path}.matchConditions");
    if conditions.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path.as_str(), conditions.len(), CONDITIONS_MAX));
    }
    let scope = Scope::new(params, true, false);
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let source = text_at(condition, &["expression"]).trim();
        if source.is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), ""));
        } else {
            check_expression(source, &scope, &["bool"], &format!("{path}.expression"), errors);
        }
        let name = text_at(condition, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
            continue;
        }
        for wrong in names::qualified_name(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, wrong));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
    }
}

fn check_expression(source: &str, scope: &Scope, outputs: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    if let Err(why) = Expression::compile(source, scope, outputs).program {
        errors.push(FieldError::invalid(path, source, why));
    }
}
