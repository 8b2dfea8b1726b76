//! Values seen through their schema: which fields they have, how two differ, how one is merged over another (upstream:
//! `structured-merge-diff/typed`). Without a schema, maps are merged and lists are one value.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::set::{Element, Set};
use crate::{
    field::FieldError,
    schema::{List, Node},
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
        (Some(old), Some(new)) => (old, new),
    };
    match (shape(node, old), shape(node, new)) {
        (Shape::Fields(old), Shape::Fields(new)) => {
            for (name, value) in old {
                let child = difference(inner(node, name), Some(value), new.get(name));
                out.put(&Element::Field(name.clone()), child);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                let child = difference(inner(node, name), None, Some(value));
                out.put(&Element::Field(name.clone()), child);
            }
        }
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
        (Shape::Items(old), Shape::Items(new)) => {
            let places: HashMap<_, _> = old.iter().enumerate().map(|(at, (element, _))| (element, at)).collect();
            let said: HashMap<_, _> = new.iter().map(|(element, _)| (element, ())).collect();
            // What only `old` has keeps its place before the item that followed it.
            let mut others = old.iter().enumerate().filter(|(_, (element, _))| !said.contains_key(element)).peekable();
            let mut out = Vec::with_capacity(old.len() + new.len());
            for (element, item) in &new {
                let Some(&at) = places.get(element) else {
                    out.push(Value::clone(item));
                    continue;
                };
                while let Some((_, (_, other))) = others.next_if(|(other, _)| *other < at) {
                    out.push(Value::clone(other));
                }
                let before = old.get(at).map_or(&Value::Null, |(_, item)| item);
                out.push(merge(items(node), before, item));
            }
            out.extend(others.map(|(_, (_, other))| Value::clone(other)));
            Value::Array(out)
        }
        _ => new.clone(),
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

/// Whether every list that is merged can be: what an applied configuration must keep, unlike a stored object.
pub(super) fn check(node: Schema<'_>, value: &Value, path: &str) -> Result<(), FieldError> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                check(inner(node, name), value, &path)?;
            }
        }
        Value::Array(list) => {
            let mut seen = HashMap::new();
            for (index, item) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                check(items(node), item, &path)?;
                let Some(node) = node.filter(|node| node.list != List::Atomic) else { continue };
                let Some(element) = element(&node.list, items(Some(node)), item) else {
                    return Err(match &node.list {
                        List::Map(keys) => {
                            let keys: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
                            let detail = format!(
                                "associative list with keys has an element that omits key field {} (and doesn't have \
                                 default value)",
                                keys.join(", ")
                            );
                            FieldError::invalid(path, item.clone(), detail)
                        }
                        _ => FieldError::invalid(
                            path,
                            Value::Null,
                            "associative list without keys has an element that is null",
                        ),
                    });
                };
                if seen.insert(element, ()).is_some() {
                    return Err(FieldError::duplicate(path, item.clone()));
                }
            }
        }
        _ => {}
    }
    Ok(())
}
