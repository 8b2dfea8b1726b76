//! Lists as sets and maps: what their items are known by, and that no two are known by the same (upstream:
//! `apiextensions-apiserver/pkg/apiserver/schema/listtype`).

use std::{collections::HashMap, fmt::Write};

use serde_json::{Map, Value, json};

use super::{List, Node};
use crate::field::FieldError;

/// The items of an old list by what they are known by; items of other lists have no past.
pub(super) struct Past<'a> {
    keys: &'a [Box<str>],
    items: HashMap<String, &'a Value>,
}

impl<'a> Past<'a> {
    pub fn of(node: &'a Node, old: Option<&'a Value>) -> Self {
        let (List::Map(keys), Some(Value::Array(items))) = (&node.list, old) else {
            return Self { keys: &[], items: HashMap::new() };
        };
        Self { keys, items: items.iter().map(|item| (Self::name(keys, item), item)).collect() }
    }

    fn name(keys: &[Box<str>], item: &Value) -> String {
        json!(keys.iter().map(|key| item.get(&**key)).collect::<Vec<_>>()).to_string()
    }

    pub fn of_item(&self, item: &Value) -> Option<&'a Value> {
        if self.items.is_empty() { None } else { self.items.get(&Self::name(self.keys, item)).copied() }
    }
}

/// The positions of values that were there before, each value once.
pub(super) fn first_repeated<'a>(values: impl Iterator<Item = &'a Value>) -> impl Iterator<Item = usize> {
    let mut times: HashMap<String, usize> = HashMap::new();
    let mut repeated = Vec::new();
    for (index, value) in values.enumerate() {
        // Objects print with sorted keys, so equal values have equal texts.
        let seen = times.entry(value.to_string()).or_default();
        *seen += 1;
        if *seen == 2 {
            repeated.push(index);
        }
    }
    repeated.into_iter()
}

/// Sets have no equal items, maps no equal keys.
pub(super) fn check(node: &Node, value: &Value, old: Option<&Value>, path: &mut String, errors: &mut Vec<FieldError>) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let Some(inner) = node.field(key) else { continue };
                let mark = path.len();
                if node.property(key).is_some() {
                    path.push_str(if mark == 0 { "" } else { "." });
                    path.push_str(key);
                } else {
                    let _ = write!(path, "[{key}]");
                }
                check(inner, value, old.and_then(|old| old.get(key)), path, errors);
                path.truncate(mark);
            }
        }
        Value::Array(list) => {
            match &node.list {
                List::Atomic => {}
                List::Set => {
                    for index in first_repeated(list.iter()) {
                        let value = list.get(index).cloned().unwrap_or_default();
                        errors.push(FieldError::duplicate(format!("{path}[{index}]"), value));
                    }
                }
                List::Map(keys) => map_keys(keys, list, path, errors),
            }
            let Some(items) = &node.items else { return };
            let past = Past::of(node, old);
            for (index, item) in list.iter().enumerate() {
                let mark = path.len();
                let _ = write!(path, "[{index}]");
                check(items, item, past.of_item(item), path, errors);
                path.truncate(mark);
            }
        }
        _ => {}
    }
}

fn map_keys(keys: &[Box<str>], list: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let mut found = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let mut parts = Map::new();
        match item {
            Value::Object(fields) => {
                for key in keys {
                    if let Some(value) = fields.get(&**key) {
                        parts.insert(key.to_string(), value.clone());
                    }
                }
            }
            Value::Null => {}
            other => {
                let detail = "must be an object for an array of list-type map";
                errors.push(FieldError::invalid(format!("{path}[{index}]"), other.clone(), detail));
                return;
            }
        }
        found.push(json!(parts));
    }
    for index in first_repeated(found.iter()) {
        let value = found.get(index).cloned().unwrap_or_default();
        errors.push(FieldError::duplicate(format!("{path}[{index}]"), value));
    }
}
