//! Taking out what does not belong, and putting in what is implied.

use std::fmt::Write;

use serde_json::Value;

use super::{Additional, Node};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Where a walk is, as text; cut back to a remembered length on the way out.
struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn key(&mut self, key: &str) -> usize {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        mark
    }

    fn index(&mut self, index: usize) -> usize {
        let mark = self.path.len();
        // Writing to a String cannot fail.
        let _ = write!(self.path, "[{index}]");
        mark
    }

    fn back(&mut self, mark: usize) {
        self.path.truncate(mark);
    }
}

pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    node(Some(root), true, object, &mut walk);
    walk.unknown.sort();
    walk.unknown
}

/// Whether nothing of a value at that place would be taken out.
pub(super) fn is_pruned(schema: &Node, value: &Value) -> bool {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    node(Some(schema), schema.embedded, &mut value.clone(), &mut walk);
    walk.unknown.is_empty()
}

/// `resource`: the value is a whole object with apiVersion, kind and metadata.
fn node(schema: Option<&Node>, resource: bool, value: &mut Value, walk: &mut Walk) {
    let keep = schema.is_some_and(|schema| schema.preserve_unknown);
    let resource = resource || schema.is_some_and(|schema| schema.embedded);
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| {
                let mark = walk.key(key);
                let known = if resource && META.contains(&key.as_str()) {
                    if key == "metadata" {
                        node(Some(&super::object_meta()), false, value, walk);
                    }
                    true
                } else if let Some(property) = schema.and_then(|schema| schema.property(key)) {
                    node(Some(property), false, value, walk);
                    true
                } else {
                    match schema.map(|schema| &schema.additional) {
                        Some(Additional::Of(additional)) => {
                            node(Some(additional), false, value, walk);
                            true
                        }
                        Some(Additional::Any) => {
                            if !keep {
                                node(None, false, value, walk);
                            }
                            true
                        }
                        _ => keep,
                    }
                };
                if !known {
                    walk.unknown.push(walk.path.clone());
                }
                walk.back(mark);
                known
            });
        }
        Value::Array(list) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            if keep && items.is_none() {
                return;
            }
            for (index, item) in list.iter_mut().enumerate() {
                let mark = walk.index(index);
                node(items, false, item, walk);
                walk.back(mark);
            }
        }
        _ => {}
    }
}

/// A null in a field that cannot be null, and has no default, is the same as no field.
pub(super) fn drop_nulls(schema: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.retain(|key, value| {
            let Some(field) = schema.field(key) else { return true };
            if value.is_null() {
                return field.nullable || field.default.is_some() || accepts_null(field);
            }
            drop_nulls(field, value);
            true
        }),
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| drop_nulls(items, item));
            }
        }
        _ => {}
    }
}

/// A node without a type holds anything.
fn accepts_null(node: &Node) -> bool {
    node.type_.is_none() && node.preserve_unknown
}

pub(super) fn default(schema: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema.properties.iter() {
                let Some(default) = &property.default else { continue };
                let absent = fields.get(&**name).is_none_or(|value| value.is_null() && !property.nullable);
                if absent {
                    fields.insert(name.to_string(), default.clone());
                }
            }
            for (key, value) in fields {
                let Some(field) = schema.field(key) else { continue };
                fill(field, value);
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| fill(items, item));
            }
        }
        _ => {}
    }
}

fn fill(schema: &Node, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    if schema.quantity && value.is_number() {
        *value = Value::String(value.to_string());
    }
    default(schema, value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::Schema;

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "integer", "default": 3},
                "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
                "nested": {"type": "object", "default": {}, "properties": {"b": {"type": "boolean", "default": true}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {}}}},
                "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                "none": {"type": "string", "nullable": true}
            }},
        }}))
        .unwrap()
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut object = json!({
            "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "labels": {"a": "b"}, "wrong": 1}, "extra": 1,
            "spec": {"foo": 1, "list": [{"x": "1", "bar": 2}], "map": {"k": {"x": "1", "z": 1}},
                "free": {"any": {"thing": 1}, "known": {"gone": 1}},
                "inner": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "odd": 1}, "spec": {"a": 1}}},
        });
        assert_eq!(
            schema().prune(&mut object),
            [
                "extra",
                "metadata.wrong",
                "spec.foo",
                "spec.free.known.gone",
                "spec.inner.metadata.odd",
                "spec.list[0].bar",
                "spec.map.k.z"
            ]
        );
        assert_eq!(object["spec"]["free"], json!({"any": {"thing": 1}, "known": {}}));
        assert_eq!(object["metadata"], json!({"name": "n", "labels": {"a": "b"}}));
        assert!(schema().prune(&mut object).is_empty());
    }

    #[test]
    fn defaults_fill_what_is_absent_at_every_depth() {
        let mut object = json!({"spec": {"list": [{}, {"x": "z"}], "a": null, "map": null, "none": null}});
        schema().default(&mut object);
        assert_eq!(
            object,
            json!({"spec": {"a": 3, "list": [{"x": "y"}, {"x": "z"}], "nested": {"b": true}, "none": null}})
        );
        let mut without = json!({"metadata": {}});
        schema().default(&mut without);
        assert_eq!(without, json!({"metadata": {}}), "a default below an absent field is not applied");
    }
}
