//! Which nodes a pod asks for by their labels and names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt;

/// The node selector and the required node affinity.
pub fn matches(node: &Node, spec: &PodSpec) -> bool {
    let labels = node.labels();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| is_selected(node, required))
}

/// One of the terms is enough.
pub fn is_selected(node: &Node, selector: &NodeSelector) -> bool {
    selector.node_selector_terms.iter().any(|term| is_meant(node, term))
}

fn is_meant(node: &Node, term: &NodeSelectorTerm) -> bool {
    let names = BTreeMap::from([("metadata.name".to_owned(), node.name_any())]);
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    // A term that asks for nothing selects nothing.
    (expressions.clone().count() > 0 || fields.clone().count() > 0)
        && expressions.clone().all(|one| holds(one, node.labels()))
        && fields.clone().all(|one| holds(one, &names))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |is: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(number);
        value.and_then(number).zip(bound).is_some_and(|(value, bound)| is(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

/// The weights of what a pod would like of a node.
pub fn preference(node: &Node, spec: &PodSpec) -> i32 {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let terms =
        affinity.iter().flat_map(|node| node.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    terms.filter(|term| is_meant(node, &term.preference)).map(|term| term.weight).sum()
}

pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |own: Option<&String>, other: &str| own.is_none_or(|own| own.is_empty() || own == other);
    let value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    };
    is(toleration.effect.as_ref(), &taint.effect) && is(toleration.key.as_ref(), &taint.key) && value
}

pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_hold_as_their_operators_say() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("size".to_owned(), "4".to_owned())]);
        for (key, operator, values, want) in [
            ("zone", "In", vec!["a", "b"], true),
            ("zone", "In", vec!["b"], false),
            ("none", "In", vec!["b"], false),
            ("zone", "NotIn", vec!["b"], true),
            ("none", "NotIn", vec!["b"], true),
            ("zone", "NotIn", vec!["a"], false),
            ("zone", "Exists", vec![], true),
            ("none", "Exists", vec![], false),
            ("none", "DoesNotExist", vec![], true),
            ("size", "Gt", vec!["3"], true),
            ("size", "Gt", vec!["4"], false),
            ("size", "Lt", vec!["5"], true),
            ("zone", "Lt", vec!["5"], false),
        ] {
            let requirement = json!({"key": key, "operator": operator, "values": values});
            let requirement = serde_json::from_value(requirement).unwrap();
            assert_eq!(holds(&requirement, &labels), want, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn taints_are_tolerated_by_key_value_and_effect() {
        let taint: Taint = serde_json::from_value(json!({"key": "a", "value": "1", "effect": "NoSchedule"})).unwrap();
        for (toleration, want) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "a", "value": "1"}), true),
            (json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"}), true),
            (json!({"key": "a", "value": "2"}), false),
            (json!({"key": "b", "operator": "Exists"}), false),
            (json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}), false),
        ] {
            let read: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&read, &taint), want, "{toleration}");
        }
    }
}
