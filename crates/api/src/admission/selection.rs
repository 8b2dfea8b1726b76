//! Rules of the kinds that select others by labels: health checks, drain rules, resource sets.

use serde_json::Value;

use super::Problem;
use crate::names::CLUSTER_LABEL;

/// Shortest time that a node may be given to appear, in seconds; 0 switches the check off.
const STARTUP_TIMEOUT_MIN_S: i64 = 30;

pub fn health_check(object: &Value, problems: &mut Vec<Problem>) {
    let spec = &object["spec"];
    selector(&spec["selector"], "spec.selector", problems);
    if is_empty(&spec["selector"]) {
        problems.push(Problem::required("spec.selector", "selector must not be empty"));
    }
    let labelled = &spec["selector"]["matchLabels"][CLUSTER_LABEL];
    if !labelled.is_null() && *labelled != spec["clusterName"] {
        let detail = "cannot specify a cluster selector other than the one specified by ClusterName";
        problems.push(Problem::invalid("spec.selector", &spec["selector"], detail));
    }
    let timeout = &spec["checks"]["nodeStartupTimeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| seconds != 0 && seconds < STARTUP_TIMEOUT_MIN_S) {
        problems.push(Problem::invalid("spec.checks.nodeStartupTimeoutSeconds", timeout, "must be at least 30s"));
    }
    let trigger = &spec["remediation"]["triggerIf"];
    let max = &trigger["unhealthyLessThanOrEqualTo"];
    super::machines::number(max, "spec.remediation.triggerIf.unhealthyLessThanOrEqualTo", problems);
    let range = &trigger["unhealthyInRange"];
    if range.as_str().is_some_and(|text| self::range(text).is_none()) {
        let detail = "must be a range of two numbers of which the first is not the greater one, e.g. [1-3]";
        problems.push(Problem::invalid("spec.remediation.triggerIf.unhealthyInRange", range, detail));
    }
}

/// `25%` as 25.
pub fn percentage(text: &str) -> Option<u32> {
    text.strip_suffix('%')?.parse().ok()
}

/// `[1-3]` as 1 and 3.
pub fn range(text: &str) -> Option<(u32, u32)> {
    let (min, max) = text.strip_prefix('[')?.strip_suffix(']')?.split_once('-')?;
    let (min, max) = (min.parse().ok()?, max.parse().ok()?);
    (min <= max).then_some((min, max))
}

pub fn drain_rule(object: &Value, problems: &mut Vec<Problem>) {
    let spec = &object["spec"];
    let (behavior, order) = (&spec["drain"]["behavior"], &spec["drain"]["order"]);
    if (behavior == "Skip" || behavior == "WaitCompleted") && !order.is_null() {
        let detail = "order must not be set if drain behavior is \"Skip\" or \"WaitCompleted\"";
        problems.push(Problem::invalid("spec.drain.order", order, detail));
    }
    for (list, fields) in [("machines", ["selector", "clusterSelector"]), ("pods", ["selector", "namespaceSelector"])] {
        for (index, entry) in spec[list].as_array().into_iter().flatten().enumerate() {
            for field in fields {
                selector(&entry[field], &format!("spec.{list}[{index}].{field}"), problems);
            }
        }
    }
}

pub fn resource_set(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let of = |object: &Value, field: &str| object["spec"][field].clone();
    let selected = of(object, "clusterSelector");
    selector(&selected, "spec.clusterSelector", problems);
    if is_empty(&selected) {
        problems.push(Problem::invalid("spec.clusterSelector", &selected, "selector must not be empty"));
    }
    let Some(old) = old else { return };
    for field in ["strategy", "clusterSelector"] {
        let (before, after) = (of(old, field), of(object, field));
        if !before.is_null() && before != after {
            problems.push(Problem::invalid(&format!("spec.{field}"), &after, "field is immutable"));
        }
    }
}

fn is_empty(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().is_none_or(serde_json::Map::is_empty);
    labels && selector["matchExpressions"].as_array().is_none_or(Vec::is_empty)
}

/// Whether labels fit a selector that is well formed.
pub(super) fn matches(selector: &Value, labels: &Value) -> bool {
    let required = selector["matchLabels"].as_object().into_iter().flatten();
    let all = required.fold(true, |all, (key, value)| all && labels[key] == *value);
    let fits = |requirement: &Value| {
        let label = &labels[requirement["key"].as_str().unwrap_or_default()];
        let listed = requirement["values"].as_array().is_some_and(|values| values.contains(label));
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => !label.is_null(),
            _ => label.is_null(),
        }
    };
    all && selector["matchExpressions"].as_array().into_iter().flatten().all(fits)
}

/// A selector as `kubectl` writes it: `a=b,c in (x,y)`.
pub(super) fn text(selector: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<(String, String)> =
        labels.map(|(key, value)| (key.clone(), format!("{key}={}", word(value)))).collect();
    for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = word(&requirement["key"]);
        let mut values: Vec<String> = requirement["values"].as_array().into_iter().flatten().map(word).collect();
        values.sort();
        let list = values.join(",");
        let part = match requirement["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({list})"),
            "NotIn" => format!("{key} notin ({list})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        };
        parts.push((key, part));
    }
    parts.sort();
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// What is wrong with a label selector (apimachinery `LabelSelectorAsSelector`).
pub(super) fn selector(selector: &Value, path: &str, problems: &mut Vec<Problem>) {
    for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
        let none = requirement["values"].as_array().is_none_or(Vec::is_empty);
        let detail = match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if none => "for 'in', 'notin' operators, values set can't be empty".to_owned(),
            "Exists" | "DoesNotExist" if !none => "values set must be empty for exists and does not exist".to_owned(),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => continue,
            other => format!("{other:?} is not a valid label selector operator"),
        };
        problems.push(Problem::invalid(path, selector, detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validate;
    use super::*;

    fn paths(kind: &str, spec: Value, old: Option<Value>) -> Vec<String> {
        let group = if kind.starts_with("ClusterResource") { "addons.cluster.x-k8s.io" } else { "cluster.x-k8s.io" };
        let old = old.map(|spec| json!({ "spec": spec }));
        let problems = validate(group, kind, &json!({ "spec": spec }), old.as_ref());
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.detail)).collect()
    }

    #[test]
    fn a_health_check_selects_machines_of_its_own_cluster() {
        let check =
            |selector: Value| paths("MachineHealthCheck", json!({"clusterName": "c", "selector": selector}), None);
        assert_eq!(check(json!({"matchLabels": {CLUSTER_LABEL: "c"}})), Vec::<String>::new());
        assert_eq!(check(json!({})), ["spec.selector: selector must not be empty"]);
        assert_eq!(check(json!({"matchLabels": {CLUSTER_LABEL: "d"}})).len(), 1);
        let near = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert_eq!(check(near), ["spec.selector: \"Near\" is not a valid label selector operator"]);
    }

    #[test]
    fn numbers_of_a_health_check_can_be_followed() {
        let check = |rest: Value| {
            let mut spec = json!({"clusterName": "c", "selector": {"matchLabels": {"a": "b"}}});
            spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            paths("MachineHealthCheck", spec, None).len()
        };
        for (seconds, bad) in [(0, 0), (29, 1), (30, 0)] {
            assert_eq!(check(json!({"checks": {"nodeStartupTimeoutSeconds": seconds}})), bad);
        }
        let trigger = |name: &str, value: Value| check(json!({"remediation": {"triggerIf": {name: value}}}));
        assert_eq!(trigger("unhealthyLessThanOrEqualTo", json!("40%")), 0);
        assert_eq!(trigger("unhealthyLessThanOrEqualTo", json!(2)), 0);
        assert_eq!(trigger("unhealthyLessThanOrEqualTo", json!("two")), 1);
        assert_eq!(trigger("unhealthyInRange", json!("[1-3]")), 0);
        assert_eq!(trigger("unhealthyInRange", json!("[3-1]")), 1);
        assert_eq!(trigger("unhealthyInRange", json!("[3-99999999999]")), 1);
    }

    #[test]
    fn only_what_is_drained_has_an_order() {
        let rule = |drain: Value| paths("MachineDrainRule", json!({ "drain": drain }), None).len();
        assert_eq!(rule(json!({"behavior": "Drain", "order": 3})), 0);
        assert_eq!(rule(json!({"behavior": "Skip"})), 0);
        assert_eq!(rule(json!({"behavior": "WaitCompleted", "order": 3})), 1);
    }

    #[test]
    fn a_resource_set_keeps_its_clusters_and_its_strategy() {
        let spec = |label: &str, strategy: &str| json!({"clusterSelector": {"matchLabels": {"cni": label}}, "strategy": strategy});
        assert_eq!(paths("ClusterResourceSet", spec("x", "ApplyOnce"), None), Vec::<String>::new());
        let changed = paths("ClusterResourceSet", spec("y", "Reconcile"), Some(spec("x", "ApplyOnce")));
        assert_eq!(changed, ["spec.strategy: field is immutable", "spec.clusterSelector: field is immutable"]);
        assert_eq!(paths("ClusterResourceSet", json!({"clusterSelector": {}}), None).len(), 1);
    }
}
