//! Three sides of a value: what it was, what one side has made of it, and what the other has.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Names by which the items of a list are known.
const KEYS: [&str; 6] = ["name", "type", "key", "path", "conditionType", "class"];

/// `theirs`, with what `mine` has changed since `base`.
pub(super) fn merge(base: &Value, mine: &Value, theirs: &Value) -> Value {
    side(Some(base), Some(mine), Some(theirs)).unwrap_or(Value::Null)
}

fn side(base: Option<&Value>, mine: Option<&Value>, theirs: Option<&Value>) -> Option<Value> {
    if mine == base {
        return theirs.cloned();
    }
    if theirs == base {
        return mine.cloned();
    }
    match (mine, theirs) {
        (Some(Value::Object(mine)), Some(Value::Object(theirs))) => {
            let nothing = Map::new();
            let base = base.and_then(Value::as_object).unwrap_or(&nothing);
            let names = mine.keys().chain(theirs.keys().filter(|name| !mine.contains_key(*name)));
            let fields =
                names.filter_map(|name| Some((name.clone(), side(base.get(name), mine.get(name), theirs.get(name))?)));
            Some(Value::Object(fields.collect()))
        }
        (Some(Value::Array(mine)), Some(Value::Array(theirs))) => {
            let base = base.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            Some(list(base, mine, theirs))
        }
        _ => mine.cloned(),
    }
}

/// Items go together by their names, or by their places where there are as many; otherwise the list is a whole.
fn list(base: &[Value], mine: &[Value], theirs: &[Value]) -> Value {
    for key in KEYS {
        if let (Some(base), Some(known), Some(theirs)) = (by(key, base), by(key, mine), by(key, theirs)) {
            if known.is_empty() {
                break;
            }
            let items = mine.iter().filter_map(|item| {
                let name = item.get(key)?.as_str()?;
                side(base.get(name).copied(), Some(item), theirs.get(name).copied())
            });
            return items.collect();
        }
    }
    if base.len() == mine.len() && mine.len() == theirs.len() {
        let items = base.iter().zip(mine).zip(theirs);
        return items.map(|((base, mine), theirs)| merge(base, mine, theirs)).collect();
    }
    Value::Array(mine.to_vec())
}

/// The items by a field that each has, no two the same.
fn by<'a>(key: &str, list: &'a [Value]) -> Option<BTreeMap<&'a str, &'a Value>> {
    let mut items = BTreeMap::new();
    for item in list {
        if items.insert(item.get(key)?.as_str()?, item).is_some() {
            return None;
        }
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_changed_wins_and_the_rest_is_theirs() {
        let base = json!({"a": 1, "b": {"c": 2}, "list": [{"name": "x", "v": 1}, {"name": "y", "v": 1}]});
        let mine = json!({"a": 1, "b": {"c": 3}, "list": [{"name": "y", "v": 2}, {"name": "z", "v": 1}]});
        let theirs = json!({"a": 7, "b": {"c": 2, "d": 8}, "list": [{"name": "x", "v": 1, "w": 9}, {"name": "y", "v": 1, "w": 9}]});
        let merged =
            json!({"a": 7, "b": {"c": 3, "d": 8}, "list": [{"name": "y", "v": 2, "w": 9}, {"name": "z", "v": 1}]});
        assert_eq!(merge(&base, &mine, &theirs), merged);
        assert_eq!(merge(&base, &base, &theirs), theirs);
        assert_eq!(merge(&base, &mine, &base), mine);
    }
}
