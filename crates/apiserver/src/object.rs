//! Objects as JSON: how they lie in the store, and the parts of their metadata that the server itself reads.
//!
//! A stored value is the object as it is served, kind and apiVersion and metadata first, but without its
//! resourceVersion: that is the revision of the commit, known only afterwards, and is put in while the bytes are copied
//! out. So reads neither decode nor encode.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Map, Value};
use store::{KeyValue, Revision};

use crate::status::{Error, Result};

/// How every stored object of one kind and version begins.
pub(crate) fn head(api_version: &str, kind: &str) -> Box<str> {
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{").into()
}

/// Writes `object` for the store. `head` stands for its kind, apiVersion and the start of its metadata.
pub(crate) fn encode(head: &str, object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(head.as_bytes());
    let mut first = true;
    for (key, value) in object.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if key != "resourceVersion" {
            write_entry(&mut out, &mut first, key, value);
        }
    }
    out.push(b'}');
    first = false;
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            write_entry(&mut out, &mut first, key, value);
        }
    }
    out.push(b'}');
    // It is kept for as long as the object is: what it grew by would be too.
    out.shrink_to_fit();
    out
}

fn write_entry(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, key).expect("a string always becomes JSON");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("a Value always becomes JSON");
}

/// Copies a stored object to `out`, its resourceVersion put in. False, and nothing written, if it is not of the kind and
/// version that begin with `head`.
pub(crate) fn write_served(out: &mut Vec<u8>, head: &str, stored: &[u8], revision: Revision) -> bool {
    write_with_head(out, head, head, stored, revision)
}

/// The same without kind and apiVersion, as items of a list of built-in objects are: the list says both.
pub(crate) fn write_untyped(out: &mut Vec<u8>, head: &str, stored: &[u8], revision: Revision) -> bool {
    write_with_head(out, head, "{\"metadata\":{", stored, revision)
}

fn write_with_head(out: &mut Vec<u8>, head: &str, shown: &str, stored: &[u8], revision: Revision) -> bool {
    let Some(rest) = stored.strip_prefix(head.as_bytes()) else { return false };
    out.reserve(stored.len() + 40);
    out.extend_from_slice(shown.as_bytes());
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    if rest.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    true
}

/// The stored object with its resourceVersion.
pub(crate) fn decode(stored: &[u8], revision: Revision) -> Result<Value> {
    let mut object: Value =
        serde_json::from_slice(stored).map_err(|e| Error::internal(format!("a stored object is not JSON: {e}")))?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
    Ok(object)
}

pub(crate) fn decode_kv(kv: &KeyValue) -> Result<Value> {
    decode(&kv.value, kv.modified)
}

/// The metadata that selectors, the garbage collector and the caches read, without the rest of the object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Partial<'a> {
    #[serde(borrow)]
    pub metadata: PartialMetadata<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PartialMetadata<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub namespace: Cow<'a, str>,
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    #[serde(borrow)]
    pub labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow)]
    pub finalizers: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub owner_references: Vec<OwnerReference<'a>>,
    #[serde(borrow)]
    pub deletion_timestamp: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct OwnerReference<'a> {
    #[serde(borrow)]
    pub api_version: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    pub block_owner_deletion: Option<bool>,
}

impl<'a> Partial<'a> {
    pub(crate) fn read(stored: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(stored).map_err(|e| Error::internal(format!("a stored object is not an object: {e}")))
    }
}

pub(crate) fn meta(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// The object's metadata, made if it is not there. `object` must be an object.
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let entry = &mut object["metadata"];
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut().expect("made an object just above")
}

/// A text of the metadata; empty if it is not there.
pub(crate) fn meta_str<'a>(object: &'a Value, key: &str) -> &'a str {
    meta(object).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    meta_str(object, "resourceVersion")
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !meta_str(object, "deletionTimestamp").is_empty()
}

pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    meta(object)
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

pub(crate) fn has_finalizer(object: &Value, wanted: &str) -> bool {
    finalizers(object).any(|f| f == wanted)
}

pub(crate) fn set_finalizers(object: &mut Value, list: Vec<String>) {
    let metadata = meta_mut(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), list.into());
    }
}

/// A text at a path of keys; empty if it is not there.
pub(crate) fn text_at<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// Sets the value at a path of keys, making objects on the way.
pub(crate) fn set_at(object: &mut Value, path: &[&str], value: Value) {
    let mut here = object;
    for key in path {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = &mut here[*key];
    }
    *here = value;
}

/// Sets the value at a path unless something other than null is there.
pub(crate) fn default_at(object: &mut Value, path: &[&str], value: Value) {
    if at(object, path).is_none_or(Value::is_null) {
        set_at(object, path, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_stored_is_served_with_the_revision_put_in() {
        let head = head("apps/v1", "Thing");
        let object = json!({
            "spec": {"a": [1, 2]}, "metadata": {"name": "x", "resourceVersion": "1", "labels": {"metadata": "{\"metadata\":{"}},
            "kind": "Thing", "apiVersion": "apps/v1", "status": {},
        });
        let stored = encode(&head, &object);
        let mut out = Vec::new();
        assert!(write_served(&mut out, &head, &stored, Revision(7)));
        let mut served: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(served, decode(&stored, Revision(7)).unwrap());
        assert_eq!(served["metadata"]["resourceVersion"], "7");
        served["metadata"]["resourceVersion"] = "1".into();
        assert_eq!(served, object);
        assert!(!write_served(&mut out, &super::head("apps/v2", "Thing"), &stored, Revision(7)));
    }

    #[test]
    fn metadata_is_read_without_the_rest() {
        let stored = br#"{"metadata":{"name":"x","uid":"u","labels":{"a":"b\n"},"ownerReferences":[{"uid":"o"}]},"spec":{"deep":[{}]}}"#;
        let partial = Partial::read(stored).unwrap();
        assert_eq!(partial.metadata.name, "x");
        assert_eq!(partial.metadata.labels.unwrap()["a"], "b\n");
        assert_eq!(partial.metadata.owner_references[0].uid, "o");
        assert!(partial.metadata.deletion_timestamp.is_none());
    }
}
