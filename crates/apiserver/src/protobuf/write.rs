//! Answers in protobuf, written from what they are in JSON. What is empty and no pointer upstream is left out, as every
//! reader takes it for empty.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Field, MAGIC, MESSAGES, Mark, is_zero, message_name};

/// Whether objects of a kind, and lists of them, can be written.
pub(crate) fn knows(api_version: &str, kind: &str) -> bool {
    MESSAGES.contains_key(message_name(api_version, kind).as_str())
}

/// An object, or a list of objects, in its envelope. `None`: its kind is not known in protobuf.
pub(crate) fn object(value: &Value) -> Option<Vec<u8>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw = match kind.strip_suffix("List").filter(|_| value.get("items").is_some()) {
        Some(item) => list(&message_name(api_version, item), value)?,
        None => message(&message_name(api_version, kind), value.as_object()?)?,
    };
    let mut type_meta = Vec::new();
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    bytes(&mut out, 1, &type_meta);
    bytes(&mut out, 2, &raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    Some(out)
}

/// A frame of a watch (`WatchEvent`, its length before it).
pub(crate) fn event(kind: &str, value: &Value) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    bytes(&mut raw, 1, &object(value)?);
    let mut event = Vec::new();
    bytes(&mut event, 1, kind.as_bytes());
    bytes(&mut event, 2, &raw);
    let mut out = u32::try_from(event.len()).ok()?.to_be_bytes().to_vec();
    out.extend_from_slice(&event);
    Some(out)
}

fn list(item: &str, value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    bytes(&mut out, 1, &message("meta.v1.ListMeta", value.get("metadata")?.as_object()?)?);
    for entry in value.get("items")?.as_array()? {
        bytes(&mut out, 2, &message(item, entry.as_object()?)?);
    }
    Some(out)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(super) fn message(name: &str, object: &Map<String, Value>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (at, field) in MESSAGES.get(name)? {
        if field.mark == Mark::Inline {
            let inner = message(field.kind, object)?;
            if !inner.is_empty() {
                bytes(&mut out, *at, &inner);
            }
            continue;
        }
        let Some(value) = object.get(field.name).filter(|value| !value.is_null()) else { continue };
        match field.mark {
            Mark::List => {
                for entry in value.as_array().into_iter().flatten() {
                    one(&mut out, *at, field, entry);
                }
            }
            Mark::Map => {
                for (key, entry) in value.as_object().into_iter().flatten() {
                    let mut pair = Vec::new();
                    bytes(&mut pair, 1, key.as_bytes());
                    one(&mut pair, 2, field, entry);
                    bytes(&mut out, *at, &pair);
                }
            }
            Mark::One if is_zero(value) => {}
            Mark::One | Mark::Present | Mark::Inline => one(&mut out, *at, field, value),
        }
    }
    Some(out)
}

/// What is not of the field's type was never taken in, and is left out.
fn one(out: &mut Vec<u8>, at: u64, field: &Field, value: &Value) {
    match field.kind {
        "s" => bytes(out, at, value.as_str().unwrap_or_default().as_bytes()),
        "b" => bytes(out, at, &STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()),
        "t" => number(out, at, value.as_bool().unwrap_or_default().into()),
        "i" => number(out, at, whole(value).cast_unsigned()),
        "d" => {
            varint(out, at << 3 | 1);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_bits().to_le_bytes());
        }
        "Time" | "MicroTime" => {
            let Some(time) = value.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else { return };
            let mut inner = Vec::new();
            number(&mut inner, 1, time.as_second().cast_unsigned());
            number(&mut inner, 2, i64::from(time.subsec_nanosecond()).cast_unsigned());
            bytes(out, at, &inner);
        }
        "Quantity" => {
            let mut inner = Vec::new();
            match value {
                Value::String(text) => bytes(&mut inner, 1, text.as_bytes()),
                other => bytes(&mut inner, 1, other.to_string().as_bytes()),
            }
            bytes(out, at, &inner);
        }
        "IntOrString" => {
            let mut inner = Vec::new();
            number(&mut inner, 1, value.is_string().into());
            number(&mut inner, 2, whole(value).cast_unsigned());
            bytes(&mut inner, 3, value.as_str().unwrap_or_default().as_bytes());
            bytes(out, at, &inner);
        }
        "Raw" => {
            let mut inner = Vec::new();
            bytes(&mut inner, 1, value.to_string().as_bytes());
            bytes(out, at, &inner);
        }
        "Strings" => {
            let mut inner = Vec::new();
            for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
                bytes(&mut inner, 1, text.as_bytes());
            }
            bytes(out, at, &inner);
        }
        name => {
            if let Some(inner) = value.as_object().and_then(|object| message(name, object)) {
                bytes(out, at, &inner);
            }
        }
    }
}

fn whole(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_u64().map(u64::cast_signed)).unwrap_or_default()
}
