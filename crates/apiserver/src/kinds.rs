//! What the server knows of a kind: a description that one registry reads. Built-in kinds and those of CRDs differ only
//! in where it comes from.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::{
    convert::{Converter, Local},
    object,
    schema::{self, Schema},
    strategy::Strategy,
    table::{self, Column},
};

pub(crate) mod builtin;

type Text = Cow<'static, str>;

/// Where the numbers of a Scale are found in an object (`spec.subresources.scale` of a CRD).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub spec_replicas: Vec<Text>,
    pub status_replicas: Vec<Text>,
    /// A selector in text form, or a LabelSelector.
    pub selector: Option<Vec<Text>>,
}

/// Where a kind's objects lie in the store; kinds that show the same objects share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Storage {
    pub group: Text,
    pub plural: Text,
}

/// All objects in the store lie below this.
pub(crate) const ROOT: &str = "/registry/";

impl Storage {
    /// `/registry/<group>/<plural>/`; the core group is `core`.
    pub(crate) fn prefix(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        format!("{ROOT}{group}/{}/", self.plural)
    }

    pub(crate) fn prefix_in(&self, namespace: &str) -> String {
        if namespace.is_empty() { self.prefix() } else { format!("{}{namespace}/", self.prefix()) }
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.prefix_in(namespace))
    }
}

/// A key taken apart again: storage group (`core` for the core group), plural, namespace (may be empty), name.
pub(crate) fn split_key(key: &[u8]) -> Option<(&str, &str, &str, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let (group, rest) = rest.split_once('/')?;
    let (plural, rest) = rest.split_once('/')?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    Some((group, plural, namespace, name))
}

#[derive(Debug)]
pub(crate) enum Shape {
    /// Found by group, version and kind when first used.
    Builtin(OnceLock<Option<Arc<Schema>>>),
    Parsed(Arc<Schema>),
    /// Of a version that few ask for: parsed when first used. The schema as JSON, which was parsed once before.
    Later(Box<str>, OnceLock<Option<Arc<Schema>>>),
}

impl Shape {
    pub(crate) fn later(schema: &Value) -> Self {
        Self::Later(schema.to_string().into(), OnceLock::new())
    }
}

/// Changes an object of one version of its kind into another.
pub(crate) type Convert = fn(&mut Value);

/// What only kinds of CRDs have.
#[derive(Debug)]
pub(crate) struct Custom {
    pub crd: String,
    pub columns: Vec<Column>,
    pub deprecation: Option<String>,
    /// As in `spec.color`.
    pub selectable: Vec<String>,
    /// Who converts between versions, if they differ in more than their name.
    pub converter: Option<Arc<Converter>>,
    /// The same in this process.
    pub local: Option<Local>,
}

pub(crate) struct Kind {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    pub status: bool,
    pub scale: Option<Scale>,
    /// May only be created, and is answered instead of stored.
    pub review: bool,
    pub strategy: &'static Strategy,
    pub storage: Storage,
    /// From the stored version to this one, and back; `None`: only the apiVersion differs.
    pub convert: Option<(Convert, Convert)>,
    /// `group/version` of the version that is stored.
    pub storage_api_version: Text,
    pub shape: Shape,
    pub custom: Option<Custom>,
    /// How an object of this kind and version begins in the store.
    pub head: Box<str>,
    /// The same for the version that is stored.
    pub storage_head: Box<str>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

/// `group/version`, or the version alone in the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Group and version of an apiVersion.
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

impl Kind {
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The schema; `None` for a built-in kind that has none.
    pub(crate) fn schema(&self) -> Option<Arc<Schema>> {
        match &self.shape {
            Shape::Parsed(schema) => Some(Arc::clone(schema)),
            Shape::Later(text, known) => {
                let parse = || Schema::parse(&serde_json::from_str(text).ok()?).ok().map(Arc::new);
                known.get_or_init(parse).clone()
            }
            Shape::Builtin(known) => {
                known.get_or_init(|| schema::builtin(&self.group, &self.version, &self.kind)).clone()
            }
        }
    }

    pub(crate) fn columns(&self) -> Cow<'_, [Column]> {
        match &self.custom {
            Some(custom) => Cow::Borrowed(&custom.columns),
            None => Cow::Owned(table::builtin_columns(&self.group, &self.kind)),
        }
    }

    /// What field selectors may name besides `metadata.name` and `metadata.namespace`.
    pub(crate) fn selectable_fields(&self) -> Vec<&str> {
        match &self.custom {
            Some(custom) => custom.selectable.iter().map(String::as_str).collect(),
            None => self.strategy.fields.to_vec(),
        }
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// The namespaces' own kind.
    pub(crate) fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }

    /// Sets `head` and `storage_head` from the other fields.
    pub(crate) fn with_heads(mut self) -> Self {
        self.head = object::head(&self.api_version(), &self.kind);
        self.storage_head = object::head(&self.storage_api_version, &self.kind);
        self
    }

    /// Whether requests may use this subresource.
    pub(crate) fn has_subresource(&self, name: &str) -> bool {
        match name {
            "" => true,
            "status" => self.status,
            "scale" => self.scale.is_some(),
            _ => self.strategy.subresources.iter().any(|sub| sub.name == name),
        }
    }
}

/// Orders versions as Kubernetes prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, then anything else by name.
pub(crate) fn version_rank(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    use std::cmp::Reverse;
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let major: u32 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            return Some((0, Reverse(major), Reverse(0)));
        }
        let (stage, minor) =
            [(1, "beta"), (2, "alpha")].into_iter().find_map(|(s, w)| Some((s, tail.strip_prefix(w)?)))?;
        Some((stage, Reverse(major), Reverse(minor.parse().ok()?)))
    });
    match parsed {
        Some((stage, major, minor)) => (stage, major, minor, String::new()),
        None => (3, Reverse(0), Reverse(0), version.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_prefers_them() {
        let mut versions = ["v1alpha1", "foo", "v1", "v1beta1", "v10", "v1beta2", "v2"];
        versions.sort_by_key(|v| version_rank(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }

    #[test]
    fn keys_are_taken_apart_as_they_were_made() {
        let storage = Storage { group: "".into(), plural: "pods".into() };
        assert_eq!(split_key(storage.key("a", "b").as_bytes()), Some(("core", "pods", "a", "b")));
        let storage = Storage { group: "x.io".into(), plural: "things".into() };
        assert_eq!(split_key(storage.key("", "b").as_bytes()), Some(("x.io", "things", "", "b")));
    }
}
