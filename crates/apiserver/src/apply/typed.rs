//! Values seen through their schema: which fields they have, how two differ, how one is merged over another (upstream:
//! `structured-merge-diff/typed`). Without a schema, maps are merged and lists are one value.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::set::{Element, Set};
use crate::{
    patch::printed,
    schema::{Additional, List, Node, Type},
};

type Schema<'a> = Option<&'a Node>;

/// A value as it is merged: field by field, item by item, or as one.
enum Shape<'a> {
    Fields(&'a Map<String, Value>),
    /// The items in order, each with what it is known by; no two alike.
    Items(Vec<(Element, &'a Value)>),
    Leaf,
}

fn inner<'a>(node: Schema<'a>, name: &str) -> Schema<'a> {
    node.and_then(|node| node.field(name)).map(|node| &**node)
}

fn items(node: Schema<'_>) -> Schema<'_> {
    node.and_then(|node| node.items.as_deref())
}

/// What a list item is known by. None: it is not as the list needs it.
fn element(list: &List, item_node: Schema<'_>, item: &Value) -> Option<Element> {
    match list {
        List::Atomic => None,
        List::Set => (!item.is_null()).then(|| Element::value(item)),
        List::Map(keys) => {
            let fields = item.as_object()?;
            let mut found = Map::new();
            for key in keys {
                let default = || item_node.and_then(|node| node.property(key)).and_then(|node| node.default.as_ref());
                if let Some(value) = fields.get(&**key).filter(|value| !value.is_null()).or_else(default) {
                    found.insert(key.to_string(), value.clone());
                }
            }
            (!found.is_empty()).then(|| Element::key(found))
        }
    }
}

fn shape<'a>(node: Schema<'_>, value: &'a Value) -> Shape<'a> {
    match value {
        Value::Object(fields) if !node.is_some_and(|node| node.atomic_map) => Shape::Fields(fields),
        Value::Array(list) => {
            let Some(node) = node.filter(|node| node.list != List::Atomic) else { return Shape::Leaf };
            let mut seen = HashMap::new();
            let mut found = Vec::with_capacity(list.len());
            for item in list {
                let Some(element) = element(&node.list, items(Some(node)), item) else { return Shape::Leaf };
                if seen.insert(element.clone(), ()).is_some() {
                    return Shape::Leaf;
                }
                found.push((element, item));
            }
            Shape::Items(found)
        }
        _ => Shape::Leaf,
    }
}

/// The paths of a value. Fields that the schema names count by what is in them; entries of maps and lists, themselves.
pub(super) fn fields_of(node: Schema<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    match shape(node, value) {
        Shape::Fields(fields) => {
            for (name, value) in fields {
                let mut child = fields_of(inner(node, name), value);
                let named = node.is_some_and(|node| node.property(name).is_some());
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                child.member |= is_empty || !named;
                set.put(Element::Field(name.clone()), child);
            }
        }
        Shape::Items(list) => {
            for (element, item) in list {
                let mut child = fields_of(items(node), item);
                child.member = true;
                set.put(element, child);
            }
        }
        Shape::Leaf => set.member = true,
    }
    set
}

/// How one value differs from another, as sets of paths.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    fn put(&mut self, element: &Element, child: Self) {
        self.added.put(element.clone(), child.added);
        self.modified.put(element.clone(), child.modified);
        self.removed.put(element.clone(), child.removed);
    }
}

/// Every node of a value, containers as well.
fn whole(node: Schema<'_>, value: &Value) -> Set {
    let mut set = Set::leaf();
    match shape(node, value) {
        Shape::Fields(fields) => {
            for (name, value) in fields {
                set.put(Element::Field(name.clone()), whole(inner(node, name), value));
            }
        }
        Shape::Items(list) => {
            for (element, item) in list {
                set.put(element, whole(items(node), item));
            }
        }
        Shape::Leaf => {}
    }
    set
}

pub(super) fn difference(node: Schema<'_>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut out = Difference::default();
    let (old, new) = match (old, new) {
        (None, None) => return out,
        (None, Some(new)) => {
            out.added = whole(node, new);
            return out;
        }
        (Some(old), None) => {
            out.removed = whole(node, old);
            return out;
        }
        // Most of an object is as it was; to find its elements takes longer than to compare them.
        (Some(old), Some(new)) if old == new => return out,
        (Some(old), Some(new)) => (old, new),
    };
    match (shape(node, old), shape(node, new)) {
        (Shape::Fields(old), Shape::Fields(new)) => return of_fields(node, old, new, &[]),
        (Shape::Items(old), Shape::Items(new)) => {
            let mut rest: HashMap<_, _> = new.iter().map(|(element, item)| (element, *item)).collect();
            for (element, item) in &old {
                let child = difference(items(node), Some(item), rest.remove(element));
                out.put(element, child);
            }
            for (element, item) in new.iter().filter(|(element, _)| rest.contains_key(element)) {
                out.put(element, difference(items(node), None, Some(item)));
            }
        }
        (Shape::Leaf, Shape::Leaf) => out.modified.member = old != new,
        _ => {
            out.removed = whole(node, old);
            out.removed.member = false;
            out.added = whole(node, new);
            out.added.member = false;
            out.modified.member = true;
        }
    }
    out
}

/// How two objects of a kind differ, but for who manages their fields.
pub(super) fn change(node: Schema<'_>, old: &Value, new: &Value) -> Difference {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => of_fields(node, old, new, &["metadata", "managedFields"]),
        _ => difference(node, Some(old), Some(new)),
    }
}

/// `but`: a path that does not count.
fn of_fields(node: Schema<'_>, old: &Map<String, Value>, new: &Map<String, Value>, but: &[&str]) -> Difference {
    let mut out = Difference::default();
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let (old, new, node) = (old.get(name), new.get(name), inner(node, name));
        let child = match (but, old, new) {
            ([last], ..) if last == name => continue,
            ([first, rest @ ..], Some(Value::Object(old)), Some(Value::Object(new))) if first == name => {
                of_fields(node, old, new, rest)
            }
            _ => difference(node, old, new),
        };
        if !child.is_empty() {
            out.put(&Element::Field(name.clone()), child);
        }
    }
    out
}

/// Where a value is something that is merged as one: lists and maps, not plain values.
pub(super) fn atomics(node: Schema<'_>, value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if node.is_some_and(|node| node.atomic_map) {
                out.push(path.to_owned());
            }
            for (name, value) in fields {
                if let Some(node) = node.and_then(|node| node.property(name)) {
                    atomics(Some(node), value, &format!("{path}.{name}"), out);
                }
            }
        }
        Value::Array(list) => {
            if node.is_none_or(|node| node.list == List::Atomic) {
                out.push(path.to_owned());
            }
            for (i, item) in list.iter().enumerate() {
                atomics(items(node), item, &format!("{path}[{i}]"), out);
            }
        }
        _ => {}
    }
}

/// `new` over `old`: what only one has is kept, and where both have something, `new` wins.
pub(super) fn merge(node: Schema<'_>, old: &Value, new: &Value) -> Value {
    match (shape(node, old), shape(node, new)) {
        (Shape::Fields(old), Shape::Fields(new)) => {
            let mut out = old.clone();
            for (name, value) in new {
                let merged = match old.get(name) {
                    Some(old) => merge(inner(node, name), old, value),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::Items(old), Shape::Items(new)) => merge_items(node, &old, &new),
        _ => new.clone(),
    }
}

/// Both lists in the order that upstream gives them: what both have in that of `new`, what one has where it stood before the
/// next that both have, that of `old` first.
fn merge_items(node: Schema<'_>, old: &[(Element, &Value)], new: &[(Element, &Value)]) -> Value {
    let before: HashMap<_, _> = old.iter().map(|(element, item)| (element, *item)).collect();
    let said: HashMap<_, _> = new.iter().map(|(element, _)| (element, ())).collect();
    let mut shared = new.iter().map(|(element, _)| element).filter(|element| before.contains_key(element)).peekable();
    let mut out = Vec::with_capacity(old.len() + new.len());
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some((mine, kept)), Some((theirs, item))) if mine == theirs => {
                out.push(merge(items(node), kept, item));
                shared.next_if(|next| *next == mine);
                left.next();
                right.next();
            }
            (Some((mine, kept)), _) if !said.contains_key(mine) => {
                out.push(Value::clone(kept));
                left.next();
            }
            // Shared, but its turn comes with the other list.
            (Some((mine, _)), Some(_)) if shared.peek().is_some_and(|next| *next != mine) => drop(left.next()),
            (_, Some((theirs, item))) => {
                let kept = before.get(theirs).copied().unwrap_or(&Value::Null);
                out.push(merge(items(node), kept, item));
                shared.next_if(|next| *next == theirs);
                right.next();
            }
            (Some(_), None) => drop(left.next()),
            (None, None) => return Value::Array(out),
        }
    }
}

/// Takes the members of `gone` out of a value. Fields that name a list item stay as long as the item does.
pub(super) fn remove(node: Schema<'_>, value: &mut Value, gone: &Set) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| match gone.field(name) {
            Some(inner_gone) if inner_gone.member => false,
            Some(inner_gone) => {
                remove(inner(node, name), value, inner_gone);
                true
            }
            None => true,
        }),
        Value::Array(list) => {
            let Some(node) = node else { return };
            let keys: &[Box<str>] = if let List::Map(keys) = &node.list { keys } else { &[] };
            list.retain_mut(|item| {
                let found = element(&node.list, items(Some(node)), item);
                match found.and_then(|element| gone.child(&element)) {
                    Some(inner_gone) if inner_gone.member => false,
                    Some(inner_gone) => {
                        let mut inner_gone = inner_gone.clone();
                        keys.iter().for_each(|key| inner_gone.remove_field(&[key]));
                        remove(items(Some(node)), item, &inner_gone);
                        true
                    }
                    None => true,
                }
            });
        }
        _ => {}
    }
}

/// What of an applied configuration the schema does not take, each with its path, in the words of upstream
/// (`structured-merge-diff/typed/validate.go`).
pub(super) fn faults(node: Schema<'_>, value: &Value, path: &str, out: &mut Vec<String>) {
    let at = |text: String| if path.is_empty() { text } else { format!("{path}: {text}") };
    let Some(node) = node.filter(|node| !node.int_or_string && !node.quantity) else { return };
    match (node.type_, value) {
        (_, Value::Null) => {}
        (Some(Type::Object) | None, Value::Object(fields)) => {
            let open = node.preserve_unknown || matches!(node.additional, Additional::Any);
            // What says nothing of its fields takes all.
            let blank = node.properties.is_empty() && matches!(node.additional, Additional::None);
            // Every object has these, whatever its schema says of them.
            let everywhere = |name: &str| path.is_empty() && matches!(name, "apiVersion" | "kind" | "metadata");
            for (name, value) in fields {
                match node.field(name) {
                    None if everywhere(name) => {}
                    Some(inner) => faults(Some(inner), value, &format!("{path}.{name}"), out),
                    None if open || (blank && node.name.is_some()) || node.type_.is_none() || node.embedded => {}
                    None => out.push(format!("{path}.{name}: field not declared in schema")),
                }
            }
        }
        (Some(Type::Array), Value::Array(list)) => item_faults(node, list, path, out),
        (Some(Type::Object), other) => out.push(at(format!("expected map, got {}", go_value(other)))),
        (Some(Type::Array), other) => out.push(at(format!("expected list, got {}", go_value(other)))),
        (Some(Type::String), Value::String(_))
        | (Some(Type::Boolean), Value::Bool(_))
        | (Some(Type::Integer | Type::Number), Value::Number(_))
        | (None, _) => {}
        (Some(Type::String), other) => out.push(at(format!("expected string, got {}", go_literal(other)))),
        (Some(Type::Boolean), other) => out.push(at(format!("expected boolean, got {}", go_value(other)))),
        (Some(Type::Integer | Type::Number), other) => {
            let found = match other {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            out.push(at(format!("expected numeric (int or float), got {found}")));
        }
    }
}

fn item_faults(node: &Node, list: &[Value], path: &str, out: &mut Vec<String>) {
    let mut seen = HashMap::new();
    for (index, item) in list.iter().enumerate() {
        let step = if node.list == List::Atomic {
            Element::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            let Some(element) = element(&node.list, items(Some(node)), item) else {
                if item.is_object() && items(Some(node)).is_some_and(|node| node.name.is_some()) {
                    // Keys of built-in lists have the empty text as their default; validation finds it.
                    continue;
                }
                let why = match &node.list {
                    List::Map(keys) => {
                        let keys: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
                        format!(
                            "associative list with keys has an element that omits all key fields [{}] (and doesn't have \
                             default values for any key fields)",
                            keys.join(" ")
                        )
                    }
                    _ => "associative list without keys has an element that's explicitly null".to_owned(),
                };
                out.push(format!("{path}: element {index}: {why}"));
                return;
            };
            if seen.insert(element.clone(), ()).is_some() {
                out.push(format!("{path}: duplicate entries for key {element}"));
            }
            element
        };
        faults(items(Some(node)), item, &format!("{path}{step}"), out);
    }
}

fn go_value(value: &Value) -> String {
    format!("&{{{}}}", printed(value))
}

fn go_literal(value: &Value) -> String {
    format!("&value.valueUnstructured{{Value:{value}}}")
}
