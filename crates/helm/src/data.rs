//! Values as text and back: JSON and YAML as Go's libraries write and read them.

pub mod json;
pub mod toml;
pub mod yaml;
mod yaml_text;

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value as Json};

use crate::template::{
    error::{Error, Result},
    format::NESTING_MAX,
    value::{Entries, Value},
};

/// Nodes that a text may stand for, what aliases repeat included.
pub const NODES_MAX: usize = 1_000_000;
/// Lists and maps may lie so deep in one another in a text that is read.
pub const DEEP_MAX: usize = 127;

/// What a value is where only JSON's types are known.
enum View<'v> {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(Cow<'v, str>),
    List(Vec<Value>),
    Map(Vec<(Arc<str>, Value)>),
}

fn view(value: &Value) -> View<'_> {
    match value {
        Value::None | Value::Nil => View::Null,
        Value::Bool(truth) => View::Bool(*truth),
        Value::Int(number) | Value::Int64(number) => View::Whole((*number).into()),
        Value::Uint64(number) => View::Whole((*number).into()),
        Value::Uint8(number) => View::Whole((*number).into()),
        Value::Float(number) => View::Float(*number),
        Value::Str(text) => View::Text(Cow::Borrowed(text)),
        Value::Bytes(bytes) => View::Text(Cow::Owned(base64(bytes))),
        Value::List(list) if list.absent => View::Null,
        Value::List(list) => View::List(list.items.clone()),
        Value::Map(map) => {
            View::Map(map.entries.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        Value::Struct(object) => match object.ty.json {
            Some(json) => match json(object) {
                Value::Str(text) => View::Text(Cow::Owned(text.to_string())),
                Value::Map(map) => View::Map(map.entries.borrow().clone().into_iter().collect()),
                _ => View::Null,
            },
            None => {
                let kept = |name: &str, omit: bool, value: &Value| !name.is_empty() && (!omit || value.truth());
                let fields = object.fields.iter().filter(|field| kept(field.json.0, field.json.1, &field.value));
                View::Map(fields.map(|field| (Arc::from(field.json.0), field.value.clone())).collect())
            }
        },
    }
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn deeper(depth: usize) -> Result<usize> {
    if depth >= NESTING_MAX {
        return Error::limit(format!("values are nested more than {NESTING_MAX} deep"));
    }
    Ok(depth + 1)
}

/// A copy that shares nothing that can change.
///
/// # Errors
/// That it is nested too deeply.
pub fn copied(value: &Value) -> Result<Value> {
    fn copy(value: &Value, depth: usize) -> Result<Value> {
        let depth = deeper(depth)?;
        Ok(match value {
            Value::List(list) if !list.absent => {
                let items = list.items.iter().map(|item| copy(item, depth)).collect::<Result<_>>()?;
                Value::typed_list(list.ty, items)
            }
            Value::Map(map) => {
                let entries = map.entries.borrow();
                let entries = entries.iter().map(|(key, value)| Ok((key.clone(), copy(value, depth)?)));
                Value::typed_map(map.ty, entries.collect::<Result<Entries>>()?)
            }
            value => value.clone(),
        })
    }
    copy(value, 0)
}

/// The entries of a map as JSON.
pub fn json_map(entries: &Entries) -> Map<String, Json> {
    entries.iter().map(|(key, value)| (key.to_string(), json_value(value))).collect()
}

/// As deep as what readers let through; what lies deeper is null.
fn json_value(value: &Value) -> Json {
    match view(value) {
        View::Null => Json::Null,
        View::Bool(truth) => Json::Bool(truth),
        #[expect(clippy::cast_precision_loss, reason = "as Go reads numbers")]
        View::Whole(number) => serde_json::Number::from_f64(number as f64).map_or(Json::Null, Json::Number),
        View::Float(number) => serde_json::Number::from_f64(number).map_or(Json::Null, Json::Number),
        View::Text(text) => Json::String(text.into_owned()),
        View::List(items) => items.iter().map(json_value).collect(),
        View::Map(entries) => entries.iter().map(|(key, value)| (key.to_string(), json_value(value))).collect(),
    }
}

/// What templates see of JSON: whole numbers are `int64`, others `float64`.
pub fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int64(whole),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::text(text),
        Json::Array(items) => Value::list(items.iter().map(of_json).collect()),
        Json::Object(entries) => Value::map(entries_of_json(entries)),
    }
}

pub fn entries_of_json(entries: &Map<String, Json>) -> Entries {
    entries.iter().map(|(key, value)| (Arc::from(key.as_str()), of_json(value))).collect()
}
