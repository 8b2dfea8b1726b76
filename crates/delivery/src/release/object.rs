//! The objects of a manifest.

use std::fmt;

use helm::{
    data::{
        json::{Style, text},
        yaml,
    },
    manifests::{self, Manifest},
    template::value::Value,
};
use serde_json::{Map, Value as Json};

use super::error::{Error, Result};

/// So many objects may a release consist of.
pub const OBJECTS_MAX: usize = 5_000;

/// Which object: what stays the same over versions of its API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    /// Empty for what is in none.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, " in namespace {:?}", self.namespace) }
    }
}

/// An object as a manifest has it. The namespace is what is written, if any.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub id: Id,
    pub api_version: String,
    pub json: Json,
}

impl Object {
    pub fn group(&self) -> &str {
        &self.id.group
    }

    pub fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.json.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    fn of(json: Json, path: &str) -> Result<Self> {
        let text = |from: &Json, key: &str| from.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let metadata = json.get("metadata").cloned().unwrap_or_default();
        let api_version = text(&json, "apiVersion");
        let group = api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let id = Id {
            group,
            kind: text(&json, "kind"),
            namespace: text(&metadata, "namespace"),
            name: text(&metadata, "name"),
        };
        for (what, value) in [("apiVersion", &api_version), ("kind", &id.kind), ("metadata.name", &id.name)] {
            if value.is_empty() {
                return Err(Error::Invalid(format!("{path}: an object has no {what}: {}", shown(&id))));
            }
        }
        for (what, value) in [("name", &id.name), ("namespace", &id.namespace)] {
            if !is_segment(value) {
                return Err(Error::Invalid(format!(
                    "{path}: {} has a {what} that no object can have: {value:?}",
                    id.kind
                )));
            }
        }
        Ok(Self { id, api_version, json })
    }
}

/// Whether a name can stand in a path: what a chart writes must not lead a call elsewhere.
pub fn is_segment(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '@' | '~' | '+');
    name.chars().all(is_plain) && !matches!(name, "." | "..")
}

fn shown(id: &Id) -> String {
    if id.name.is_empty() { format!("kind {:?}", id.kind) } else { id.to_string() }
}

/// The objects of a manifest, in its order; lists are taken apart.
///
/// # Errors
/// That it is no YAML, that an object has no name or kind, or that there are more than [`OBJECTS_MAX`].
pub fn objects(manifest: &str) -> Result<Vec<Object>> {
    ordered(manifest, |_| {})
}

/// The same in the order in which they are removed.
///
/// # Errors
/// As of [`objects`].
pub fn removed(manifest: &str) -> Result<Vec<Object>> {
    ordered(manifest, manifests::sort_for_removal)
}

fn ordered(manifest: &str, sort: impl Fn(&mut [Manifest])) -> Result<Vec<Object>> {
    let rendered = [("manifest".to_owned(), manifest.to_owned())].into();
    let mut manifests = manifests::sorted(&rendered)?.objects;
    sort(&mut manifests);
    let mut objects = Vec::new();
    for Manifest { content, .. } in manifests {
        read(&content, "the manifest", &mut objects)?;
    }
    Ok(objects)
}

/// The objects of one document.
pub fn read(document: &str, path: &str, into: &mut Vec<Object>) -> Result<()> {
    let invalid = |what: String| Error::Invalid(format!("{path}: {what}"));
    let entries = yaml::read_map(document).map_err(|error| invalid(error.to_string()))?;
    if entries.is_empty() {
        return Ok(());
    }
    // As Go's encoder writes it, so that whole numbers are whole.
    let json = text(&Value::map(entries), Style { for_html: false, pretty: false });
    let json = json.map_err(|error| invalid(error.to_string()))?;
    let mut json: Json = serde_json::from_str(&json).map_err(|error| invalid(error.to_string()))?;
    let is_list = json.get("kind").and_then(Json::as_str).is_some_and(|kind| kind.ends_with("List"));
    let items = if is_list { json.get_mut("items").map(Json::take) } else { None };
    let found = match items {
        Some(Json::Array(items)) => items,
        _ => vec![json],
    };
    for json in found {
        if into.len() >= OBJECTS_MAX {
            return Err(Error::Limit(format!("the release has more than {OBJECTS_MAX} objects: split the chart")));
        }
        into.push(Object::of(json, path)?);
    }
    Ok(())
}

/// The table at a key of an object, made if it is not there.
pub fn table<'j>(json: &'j mut Json, key: &str) -> Option<&'j mut Map<String, Json>> {
    let inner = json.as_object_mut()?.entry(key).or_insert(Json::Null);
    if inner.is_null() {
        *inner = Json::Object(Map::new());
    }
    inner.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_and_whole_numbers_stay_whole() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A, metadata: {name: a}, count: 3, yes: on}\n- {apiVersion: g/v1, kind: B, metadata: {name: b, namespace: x}}\n";
        let found = objects(text).unwrap();
        assert_eq!(
            found.iter().map(|object| object.id.to_string()).collect::<Vec<_>>(),
            ["A \"a\"", "B \"b\" in namespace \"x\""]
        );
        assert_eq!(found[0].json["count"].to_string(), "3");
        assert_eq!(found[0].json["true"], true);
        assert_eq!((found[1].group(), found[1].version()), ("g", "v1"));
    }

    #[test]
    fn an_object_without_a_name_or_kind_is_refused() {
        let told = objects("apiVersion: v1\nkind: A\n").unwrap_err().to_string();
        assert_eq!(told, "the manifest: an object has no metadata.name: kind \"A\"");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["../secrets", "a/b", "a?dryRun=All", "..", "a%2fb"] {
            let told = objects(&format!("apiVersion: v1\nkind: A\nmetadata: {{name: '{name}'}}\n")).unwrap_err();
            assert!(told.to_string().contains("a name that no object can have"), "{told}");
        }
        assert!(objects("apiVersion: v1\nkind: A\nmetadata: {name: 'system:a-b.c'}\n").is_ok());
    }

    #[test]
    fn one_object_more_than_the_limit_is_refused() {
        let of = |count: usize| {
            let item = "- {apiVersion: v1, kind: A, metadata: {name: a}}\n".repeat(count);
            objects(&format!("apiVersion: v1\nkind: List\nitems:\n{item}"))
        };
        assert_eq!(of(OBJECTS_MAX).unwrap().len(), OBJECTS_MAX);
        assert!(of(OBJECTS_MAX + 1).unwrap_err().to_string().contains("more than 5000 objects"));
    }
}
