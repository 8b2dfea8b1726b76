//! Whether a schema's restrictions speak only of what its structure defines (upstream:
//! `apiextensions-apiserver/pkg/apiserver/schema/complete.go`).

use super::{
    Additional, Checks, Node,
    parse::{child, key},
    prune,
};
use crate::field::FieldError;

impl Checks {
    fn branches(&self) -> impl Iterator<Item = (String, &Node)> {
        let lists = [("allOf", &self.all_of), ("anyOf", &self.any_of), ("oneOf", &self.one_of)];
        lists
            .into_iter()
            .flat_map(|(name, list)| list.iter().enumerate().map(move |(i, node)| (format!("{name}[{i}]"), node)))
            .chain(self.not.iter().map(|node| ("not".to_owned(), &**node)))
    }
}

/// Every default must be all that remains of it. `resource`: the node has the metadata of an object, which is looked at elsewhere.
pub(super) fn check_defaults(node: &Node, resource: bool, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(default) = node.default.as_ref().filter(|default| !prune::is_pruned(node, default)) {
        errors.push(FieldError::invalid(child(path, "default"), default.clone(), "must not have unknown fields"));
    }
    if let Some(items) = &node.items {
        check_defaults(items, items.embedded, &child(path, "items"), errors);
    }
    for (name, property) in node.properties.iter() {
        if !(resource && matches!(&**name, "apiVersion" | "kind" | "metadata")) {
            check_defaults(property, property.embedded, &key(&child(path, "properties"), name), errors);
        }
    }
}

/// Every field that a nested restriction speaks of must be defined by the structure around it.
pub(super) fn check(node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(checks) = &node.checks {
        for (name, branch) in checks.branches() {
            nested_complete(branch, node, path, &child(path, &name), errors);
        }
    }
    if let Some(items) = &node.items {
        check(items, &child(path, "items"), errors);
    }
    for (name, property) in node.properties.iter() {
        check(property, &key(&child(path, "properties"), name), errors);
    }
    if let Additional::Of(additional) = &node.additional {
        check(additional, &child(path, "additionalProperties"), errors);
    }
}

fn nested_complete(nested: &Node, node: &Node, path: &str, nested_path: &str, errors: &mut Vec<FieldError>) {
    if let Some(checks) = &nested.checks {
        for (name, branch) in checks.branches() {
            nested_complete(branch, node, path, &child(nested_path, &name), errors);
        }
    }
    if let Some(items) = &nested.items {
        let inner_path = child(nested_path, "items");
        match &node.items {
            Some(inner) => nested_complete(items, inner, &child(path, "items"), &inner_path, errors),
            None if node.preserve_unknown => {}
            None => errors
                .push(FieldError::required(child(path, "items"), format!("because it is defined in {inner_path}"))),
        }
    }
    for (name, property) in nested.properties.iter() {
        let inner_path = key(&child(nested_path, "properties"), name);
        let outer_path = key(&child(path, "properties"), name);
        match node.property(name) {
            Some(inner) => nested_complete(property, inner, &outer_path, &inner_path, errors),
            None => errors.push(FieldError::required(outer_path, format!("because it is defined in {inner_path}"))),
        }
    }
}
