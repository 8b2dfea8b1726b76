//! Request bodies read into values: JSON with its repeated keys noticed and its depth bounded, YAML, and protobuf.

use std::{cell::RefCell, fmt, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{
    protobuf,
    status::{Error, Result},
};

/// Request bodies, in bytes (`MaxRequestBodyBytes` of Kubernetes).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// A request's body must be there in this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Lists and objects inside of each other.
pub const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// A request's body, no more than [`BODY_BYTES_MAX`].
pub(crate) async fn read(body: Body, headers: &HeaderMap) -> Result<Bytes> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(Error::body_too_large(BODY_BYTES_MAX));
    }
    let read = Limited::new(body, BODY_BYTES_MAX).collect();
    let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, read).await else {
        return Err(Error::bad_request(format!("the body did not come within {} s", BODY_TIMEOUT.as_secs())));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::body_too_large(BODY_BYTES_MAX)),
        Err(error) => Err(Error::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// A value, and the keys that occurred twice in it (`spec.a`, `spec.list[0].b`).
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// Errors are a text alone: the caller knows what the body should have been.
pub(crate) fn parse(bytes: &[u8], media: Media) -> Result<Parsed, String> {
    match media {
        Media::Json => parse_json(bytes),
        Media::Protobuf => protobuf::parse(bytes).map(|value| Parsed { value, duplicates: Vec::new() }),
        Media::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|e| format!("the body is not UTF-8: {e}"))?;
            if text.starts_with('\t') {
                return Err("yaml: found character that cannot start any token".to_owned());
            }
            // As Kubernetes reads it: the first document, and of a key that is there twice, the last value.
            let options = serde_saphyr::options! {
                duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
                legacy_octal_numbers: true,
            };
            let value: Value =
                serde_saphyr::from_str_with_options(first_document(text), options).map_err(|e| format!("yaml: {e}"))?;
            if depth(&value) > DEPTH_MAX {
                return Err(too_deep());
            }
            Ok(Parsed { value, duplicates: Vec::new() })
        }
    }
}

/// Up to the line that begins the second one.
fn first_document(text: &str) -> &str {
    let mut seen = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if seen && (line.trim_end() == "---" || line.starts_with("--- ")) {
            return &text[..at];
        }
        let line_text = line.trim();
        seen |= !line_text.is_empty() && !line_text.starts_with('#') && line_text != "---";
        at += line.len();
    }
    text
}

/// Whole numbers below are the same as integers (2^53).
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn too_deep() -> String {
    format!("exceeded max depth: lists and objects lie more than {DEPTH_MAX} deep")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn parse_json(bytes: &[u8]) -> Result<Parsed, String> {
    let duplicates = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed { duplicates: &duplicates, path: &Path::Root, depth: 0 };
    let value = seed.deserialize(&mut reader).map_err(|e| format!("json parse error: {e}"))?;
    reader.end().map_err(|e| format!("json parse error: {e}"))?;
    Ok(Parsed { value, duplicates: duplicates.into_inner() })
}

/// Where the reader is; only spelled out when there is something to say.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    path: &'a Path<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        // As Go writes it again: a whole number has no fraction.
        #[expect(clippy::cast_possible_truncation, reason = "whole and small enough to be exact")]
        if v.fract() == 0.0 && v.abs() < WHOLE_MAX {
            return Ok((v as i64).into());
        }
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        if self.depth >= DEPTH_MAX {
            return Err(A::Error::custom(too_deep()));
        }
        let mut list = Vec::new();
        loop {
            let path = Path::Index(self.path, list.len());
            match access.next_element_seed(Seed { path: &path, depth: self.depth + 1, ..self })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        if self.depth >= DEPTH_MAX {
            return Err(A::Error::custom(too_deep()));
        }
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = Path::Key(self.path, &key);
            let value = access.next_value_seed(Seed { path: &path, depth: self.depth + 1, ..self })?;
            if map.contains_key(&key) {
                self.duplicates.borrow_mut().push(path.to_string());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// The text that Kubernetes prints when a body is no object of the kind.
pub(crate) fn unrecognized(kind: &str, why: &str) -> Error {
    Error::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_read_and_repeated_keys_are_named() {
        let parsed = parse(br#"{"a":{"b":1,"b":2},"l":[{"c":null,"c":1.5}],"s":"x"}"#, Media::Json).unwrap();
        assert_eq!(parsed.value, json!({"a": {"b": 2}, "l": [{"c": 1.5}], "s": "x"}));
        assert_eq!(parsed.duplicates, ["a.b", "l[0].c"]);
        assert_eq!(parse(b"a: [1, yes]\n", Media::Yaml).unwrap().value["a"][0], 1);
    }

    #[test]
    fn depth_holds_at_one_more() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(DEPTH_MAX).as_bytes(), Media::Json).is_ok());
        assert!(parse(nested(DEPTH_MAX + 1).as_bytes(), Media::Json).unwrap_err().contains("max depth"));
        assert!(parse(nested(DEPTH_MAX + 1).as_bytes(), Media::Yaml).is_err());
    }

    #[test]
    fn broken_bodies_are_errors() {
        for bad in [&b"{"[..], b"", b"{} {}", b"{\"a\":\"\xff\"}", b"nope"] {
            assert!(parse(bad, Media::Json).is_err());
        }
        assert!(parse(b"\xff", Media::Yaml).is_err());
    }
}
