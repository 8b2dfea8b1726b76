//! Strategic merge patch (upstream: `apimachinery/pkg/util/strategicpatch`): a merge patch that also merges lists whose
//! schema says so, and has directives: `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Node, Patch, Schema};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

type Result<T> = std::result::Result<T, PatchError>;

fn strategic(text: impl Into<String>) -> PatchError {
    PatchError::Strategic(text.into())
}

/// Merges `patch` into `object` as the schema says. Nothing is changed where it fails.
pub fn strategic_merge_patch(object: &mut Value, patch: &Value, schema: &Schema) -> Result<()> {
    let (Value::Object(fields), Value::Object(patch)) = (&*object, patch) else {
        return Err(strategic("invalid JSON document"));
    };
    let mut merged = fields.clone();
    map(&mut merged, patch, Some(schema.root()))?;
    *object = Value::Object(merged);
    Ok(())
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(fields: &Map<String, Value>) -> Result<Directive> {
    match fields.get(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(name)) if name == "merge" => Ok(Directive::Merge),
        Some(Value::String(name)) if name == "replace" => Ok(Directive::Replace),
        Some(Value::String(name)) if name == "delete" => Ok(Directive::Delete),
        Some(other) => {
            let name = other.as_str().map_or_else(|| other.to_string(), ToOwned::to_owned);
            Err(strategic(format!("unknown patch type: {name} in map: {}", printed(&Value::Object(fields.clone())))))
        }
    }
}

/// As Go prints maps.
pub(crate) fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let entries: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{}", printed(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(ORDER)
}

/// What a patch leaves where there was nothing before.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            if fields.get(PATCH).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            let kept = fields.iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key.clone(), plain(value)?))).collect()))
        }
        Value::Array(list) => {
            let is_mark =
                |item: &&Value| item.as_object().is_some_and(|item| item.len() == 1 && item.contains_key(PATCH));
            Some(list.iter().filter(|item| !is_mark(item)).filter_map(plain).collect())
        }
        other => Some(other.clone()),
    }
}

fn map(fields: &mut Map<String, Value>, patch: &Map<String, Value>, node: Option<&Arc<Node>>) -> Result<()> {
    match directive(patch)? {
        Directive::Merge => {}
        Directive::Delete => {
            fields.clear();
            return Ok(());
        }
        Directive::Replace => {
            *fields = patch.iter().filter(|(key, _)| *key != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
    }
    retain_keys(fields, patch)?;
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let Value::Array(gone) = value else {
                return Err(strategic("invalid patch format of primitive list"));
            };
            if let Some(Value::Array(list)) = fields.get_mut(name) {
                list.retain(|item| !gone.contains(item));
            }
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        let inner = node.and_then(|node| node.field(key));
        let rule = inner.and_then(|inner| inner.patch.as_deref());
        match (fields.get_mut(key), value) {
            (_, Value::Null) => {
                fields.remove(key);
            }
            (Some(Value::Object(old)), Value::Object(new)) if !rule.is_some_and(|rule| rule.replace) => {
                map(old, new, inner)?;
            }
            (Some(Value::Array(old)), Value::Array(new)) if rule.is_some_and(|rule| rule.merge) => {
                let order = patch.get(&format!("{ORDER}{key}"));
                list(old, new, inner, rule, order)?;
            }
            _ => match plain(value) {
                Some(value) => {
                    fields.insert(key.clone(), value);
                }
                None => {
                    fields.remove(key);
                }
            },
        }
    }
    // An order may come without a change of items.
    for (key, order) in patch {
        let Some(name) = key.strip_prefix(ORDER).filter(|name| !patch.contains_key(*name)) else { continue };
        let inner = node.and_then(|node| node.field(name));
        let rule = inner.and_then(|inner| inner.patch.as_deref());
        if let Some(Value::Array(items)) = fields.get_mut(name) {
            let before = items.clone();
            reorder(items, &before, order, rule.and_then(|rule| rule.key.as_deref()))?;
        }
    }
    Ok(())
}

fn retain_keys(fields: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<()> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys: Option<Vec<&str>> = keys.as_array().and_then(|keys| keys.iter().map(Value::as_str).collect());
    let Some(keys) = keys else { return Err(strategic("invalid patch format of retainKeys")) };
    if patch.iter().any(|(key, value)| !is_directive(key) && !value.is_null() && !keys.contains(&key.as_str())) {
        return Err(strategic("patch content doesn't match retainKeys list"));
    }
    fields.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn list(
    old: &mut Vec<Value>,
    new: &[Value],
    node: Option<&Arc<Node>>,
    rule: Option<&Patch>,
    order: Option<&Value>,
) -> Result<()> {
    let before = old.clone();
    let key = rule.and_then(|rule| rule.key.as_deref());
    if let Some(key) = key {
        items(old, new, node, key)?;
    } else {
        for item in new {
            if item.is_array() {
                return Err(strategic("lists of lists are not supported"));
            }
            if !old.contains(item) {
                old.push(item.clone());
            }
        }
    }
    match order {
        Some(order) => reorder(old, &before, order, key),
        // What is new stands before what was there.
        None => reorder(old, &before, &Value::Array(new.to_vec()), key),
    }
}

/// Merges lists of maps by their key.
fn items(old: &mut Vec<Value>, new: &[Value], node: Option<&Arc<Node>>, key: &str) -> Result<()> {
    let inner = node.and_then(|node| node.items.as_ref());
    let mut changes = Vec::with_capacity(new.len());
    let mut replace = false;
    for item in new {
        let Value::Object(fields) = item else {
            return Err(strategic("expected a map, but received a different type in a list with a merge key"));
        };
        let what = directive(fields)?;
        if matches!(what, Directive::Replace) {
            replace = true;
            continue;
        }
        if fields.len() == 1 && fields.contains_key(PATCH) {
            continue;
        }
        let Some(id) = fields.get(key) else {
            let text = format!("map: {} does not contain declared merge key: {key}", printed(item));
            return Err(strategic(text));
        };
        changes.push((what, id, fields));
    }
    if replace {
        *old = changes
            .into_iter()
            .filter(|(what, _, _)| matches!(what, Directive::Merge))
            .filter_map(|(_, _, fields)| plain(&Value::Object(fields.clone())))
            .collect();
        return Ok(());
    }
    for (what, id, fields) in changes {
        if matches!(what, Directive::Delete) {
            old.retain(|item| item.get(key) != Some(id));
            continue;
        }
        match old.iter_mut().find(|item| item.get(key) == Some(id)) {
            Some(Value::Object(found)) => map(found, fields, inner)?,
            _ => old.extend(plain(&Value::Object(fields.clone()))),
        }
    }
    Ok(())
}

/// Puts the items that `order` names into its order; the others keep their places between their old neighbours.
fn reorder(items: &mut Vec<Value>, before: &[Value], order: &Value, key: Option<&str>) -> Result<()> {
    let Value::Array(order) = order else {
        return Err(strategic("invalid patch format of setElementOrder list"));
    };
    let id = |item: &Value| key.map_or_else(|| Some(item.clone()), |key| item.get(key).cloned());
    let order: Vec<_> = order.iter().map(id).collect();
    let rank = |item: &Value| order.iter().position(|other| *other == id(item));
    let place = |item: &Value| before.iter().position(|other| id(other) == id(item));
    let (mut named, others): (Vec<_>, Vec<_>) = items.drain(..).partition(|item| rank(item).is_some());
    named.sort_by_key(|item| rank(item));
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = place(&item);
        while let (Some(at), Some(other)) = (at, others.peek()) {
            if place(other).is_none_or(|other| other > at) {
                break;
            }
            items.extend(others.next());
        }
        items.push(item);
    }
    items.extend(others);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::builtin;

    fn run(object: Value, patch: Value) -> std::result::Result<Value, String> {
        let schema = builtin("", "v1", "Pod").unwrap();
        let mut patched = object;
        strategic_merge_patch(&mut patched, &patch, &schema).map_err(|error| error.to_string())?;
        Ok(patched)
    }

    fn spec(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn lists_merge_by_key_and_sets_by_value() {
        let object = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [
            {"name": "x", "image": "1", "args": ["p"], "env": [{"name": "E", "value": "1"}]}, {"name": "y", "image": "1"}]}});
        let patch = json!({"metadata": {"finalizers": ["b", "a"], "labels": {"l": "1"}}, "spec": {"containers": [
            {"name": "x", "image": "2", "args": ["q"], "env": [{"name": "F", "value": "2"}, {"name": "E", "value": null}]},
            {"name": "z", "image": "3"}]}});
        let expected = json!({"metadata": {"finalizers": ["b", "a"], "labels": {"l": "1"}}, "spec": {"containers": [
            {"name": "x", "image": "2", "args": ["q"], "env": [{"name": "F", "value": "2"}, {"name": "E"}]},
            {"name": "z", "image": "3"}, {"name": "y", "image": "1"}]}});
        assert_eq!(run(object, patch), Ok(expected));
    }

    #[test]
    fn directives_delete_replace_and_retain() {
        let two = || spec(json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]));
        let deleted = run(two(), spec(json!([{"name": "x", "$patch": "delete"}])));
        assert_eq!(deleted, Ok(spec(json!([{"name": "y", "image": "1"}]))));
        let replaced = run(two(), spec(json!([{"$patch": "replace"}, {"name": "z"}])));
        assert_eq!(replaced, Ok(spec(json!([{"name": "z"}]))));
        let map = run(two(), json!({"spec": {"$patch": "replace", "nodeName": "n"}}));
        assert_eq!(map, Ok(json!({"spec": {"nodeName": "n"}})));
        let emptied = run(two(), json!({"spec": {"$patch": "delete"}}));
        assert_eq!(emptied, Ok(json!({"spec": {}})));

        let volumes = |volume: Value| json!({"spec": {"volumes": [volume]}});
        let retained = run(
            volumes(json!({"name": "v", "emptyDir": {}})),
            volumes(json!({"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}})),
        );
        assert_eq!(retained, Ok(volumes(json!({"name": "v", "hostPath": {"path": "/"}}))));

        let primitive = run(
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}}),
        );
        assert_eq!(primitive, Ok(json!({"metadata": {"finalizers": ["d", "a", "c"]}})));
    }

    #[test]
    fn order_is_set_around_what_only_the_server_has() {
        let object = spec(json!([{"name": "a"}, {"name": "s"}, {"name": "b"}]));
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "new"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "new"}]}});
        let names = |value: Value| {
            let list = value["spec"]["containers"].as_array().unwrap().clone();
            list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(run(object.clone(), patch).unwrap()), ["new", "s", "b", "a"]);
        let only_order = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
        assert_eq!(names(run(object, only_order).unwrap()), ["s", "b", "a"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let object = || spec(json!([{"name": "x"}]));
        let cases = [
            (spec(json!([{"image": "1"}])), "map: map[image:1] does not contain declared merge key: name"),
            (json!({"spec": {"$patch": "explode"}}), "unknown patch type: explode in map: map[$patch:explode]"),
            (json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "patch content doesn't match retainKeys list"),
            (json!([]), "invalid JSON document"),
        ];
        for (patch, expected) in cases {
            assert_eq!(run(object(), patch), Err(expected.to_owned()));
        }
    }

    #[test]
    fn new_parts_carry_no_directives() {
        let patch =
            spec(json!([{"name": "x", "$patch": "delete"}, {"name": "y", "env": [{"name": "A", "value": null}]}]));
        assert_eq!(run(json!({}), patch), Ok(spec(json!([{"name": "y", "env": [{"name": "A"}]}]))));
    }
}
