//! Rules for names, labels and annotations (`apimachinery/pkg/util/validation`, RFC 1123 and RFC 1035), texts included.

use serde_json::{Map, Value};

use crate::field::FieldError;

pub(crate) const SUBDOMAIN_BYTES_MAX: usize = 253;
pub(crate) const LABEL_BYTES_MAX: usize = 63;
/// All keys and values of `metadata.annotations` together.
pub(crate) const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Random letters that are put behind `metadata.generateName`.
pub(crate) const SUFFIX_BYTES: usize = 5;
/// How much of a `generateName` is kept, so that the name stays a DNS label.
pub(crate) const GENERATE_NAME_BYTES_MAX: usize = LABEL_BYTES_MAX - SUFFIX_BYTES;

const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const RFC1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_TEXT: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What a kind's names must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    Subdomain,
    Label,
    /// A DNS label that starts with a letter.
    /// Whatever can stand in a path.
    PathSegment,
}

impl NameRule {
    /// What is wrong with a name, if anything.
    pub(crate) fn check(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => subdomain(name),
            Self::Label => label(name),
            Self::PathSegment => path_segment(name),
        }
    }
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if lower(*a) && lower(*z))
        && bytes.iter().all(|b| lower(*b) || *b == b'-')
}

pub(crate) fn subdomain(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > SUBDOMAIN_BYTES_MAX {
        wrong.push(too_long(SUBDOMAIN_BYTES_MAX));
    }
    if !name.split('.').all(is_label) {
        wrong.push(SUBDOMAIN_TEXT.to_owned());
    }
    wrong
}

pub(crate) fn label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.contains('.') {
        wrong.push(DOTS_TEXT.to_owned());
    }
    if name.len() > LABEL_BYTES_MAX {
        wrong.push(too_long(LABEL_BYTES_MAX));
    }
    if !name.split('.').all(is_label) {
        wrong.push(LABEL_TEXT.to_owned());
    }
    wrong
}

pub(crate) fn rfc1035(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > LABEL_BYTES_MAX {
        wrong.push(too_long(LABEL_BYTES_MAX));
    }
    if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        wrong.push(RFC1035_TEXT.to_owned());
    }
    wrong
}

fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ["/", "%"].iter().filter(|s| name.contains(**s)).map(|s| format!("may not contain '{s}'")).collect(),
    }
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

const DOTS_TEXT: &str = "must not contain dots";
const QUALIFIED_SHAPE_TEXT: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";

/// A label's or annotation's key: `[prefix/]name`.
pub(crate) fn qualified_name(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => return vec![QUALIFIED_SHAPE_TEXT.to_owned()],
        Some((prefix, name)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                let texts = subdomain(prefix).into_iter().map(|text| text.replace("253 characters", "253 bytes"));
                wrong.extend(texts.map(|text| format!("prefix part {text}")));
            }
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        wrong.push(format!("name part must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !is_word(name) {
        wrong.push(QUALIFIED_TEXT.to_owned());
    }
    wrong
}

pub(crate) fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        wrong.push(format!("must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !value.is_empty() && !is_word(value) {
        wrong.push(VALUE_TEXT.to_owned());
    }
    wrong
}

/// Checks everything in `metadata` that does not depend on the object before it.
pub(crate) fn check_metadata(metadata: &Map<String, Value>, rule: NameRule, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    check_types(metadata, &mut errors);
    let generate = text("generateName");
    if !generate.is_empty() {
        // A trailing dash is fine: a suffix will stand behind it.
        let probe = format!("{}a", generate.trim_end_matches(['-', '.']));
        for wrong in rule.check(&probe) {
            errors.push(FieldError::invalid("metadata.generateName", generate, wrong));
        }
    }
    if text("name").is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        for wrong in rule.check(text("name")) {
            errors.push(FieldError::invalid("metadata.name", text("name"), wrong));
        }
    }
    if namespaced {
        for wrong in label(text("namespace")) {
            errors.push(FieldError::invalid("metadata.namespace", text("namespace"), wrong));
        }
    }
    check_labels(metadata.get("labels"), "metadata.labels", &mut errors);
    check_annotations(metadata.get("annotations"), &mut errors);
    check_owners(metadata.get("ownerReferences"), &mut errors);
    for finalizer in metadata.get("finalizers").and_then(Value::as_array).into_iter().flatten() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        for wrong in qualified_name(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, wrong));
        }
    }
    errors
}

/// Finalizers of core kinds that are neither standard nor have a domain.
pub(crate) fn check_finalizer_names(object: &Value) -> Vec<FieldError> {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let wrong = list.enumerate().filter_map(|(i, finalizer)| {
        let name = finalizer.as_str()?;
        let fits = name.contains('/') || STANDARD.contains(&name);
        let text = "name is neither a standard finalizer name nor is it fully qualified";
        (!fits).then(|| FieldError::invalid(format!("metadata.finalizers[{i}]"), name, text))
    });
    wrong.collect()
}

/// Wrong JSON types in metadata, whose fields have no schema of their own in CRDs.
fn check_types(metadata: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    const MAPS: [&str; 2] = ["labels", "annotations"];
    const LISTS: [&str; 2] = ["finalizers", "ownerReferences"];
    for key in MAPS {
        let path = format!("metadata.{key}");
        match metadata.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => {
                for (key, value) in map.iter().filter(|(_, value)| !value.is_string()) {
                    errors.push(FieldError::type_invalid(format!("{path}[{key}]"), value.clone(), "must be a string"));
                }
            }
            Some(other) => errors.push(FieldError::type_invalid(path, other.clone(), "must be a map of strings")),
        }
    }
    for key in LISTS {
        match metadata.get(key) {
            None | Some(Value::Null | Value::Array(_)) => {}
            Some(other) => {
                errors.push(FieldError::type_invalid(format!("metadata.{key}"), other.clone(), "must be a list"));
            }
        }
    }
}

pub(crate) fn check_labels(labels: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for wrong in qualified_name(key) {
            errors.push(FieldError::invalid(path, key.as_str(), wrong));
        }
        let value = value.as_str().unwrap_or_default();
        for wrong in label_value(value) {
            errors.push(FieldError::invalid(path, value, wrong));
        }
    }
}

fn check_annotations(annotations: Option<&Value>, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        for wrong in qualified_name(&key.to_ascii_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key.as_str(), wrong));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
}

fn check_owners(owners: Option<&Value>, errors: &mut Vec<FieldError>) {
    let all = owners.cloned().unwrap_or_default();
    let mut controllers = 0;
    for owner in owners.and_then(Value::as_array).into_iter().flatten() {
        let path = "metadata.ownerReferences";
        for key in ["apiVersion", "kind", "name", "uid"] {
            let said = owner.get(key).and_then(Value::as_str).unwrap_or_default();
            if said.is_empty() || (key == "apiVersion" && said.matches('/').count() > 1) {
                let detail = if key == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                let value = owner.get(key).cloned().unwrap_or_else(|| "".into());
                errors.push(FieldError::invalid(format!("{path}.{key}"), value, detail));
            }
        }
        let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = crate::kinds::split_api_version(text("apiVersion"));
        if text("kind") == "Event" && matches!((group, version), ("", "v1") | ("events.k8s.io", _)) {
            let why = format!("{group}/{version}, Kind=Event is disallowed from being an owner");
            errors.push(FieldError::invalid(path, owner.clone(), why));
        }
        controllers += usize::from(owner.get("controller").and_then(Value::as_bool).unwrap_or(false));
        if controllers > 1 {
            let of = |owner: &Value| {
                let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
                format!("{}/{}", text("kind"), text("name"))
            };
            let is_controller = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
            let first = all.as_array().into_iter().flatten().find(is_controller).map(of).unwrap_or_default();
            let text = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                of(owner)
            );
            errors.push(FieldError::invalid("metadata.ownerReferences", all, text));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_hold_to_their_rule() {
        assert!(subdomain("a.b-c.d1").is_empty());
        for bad in ["", "A", "a..b", "-a", "a-", "a_b", "ä"] {
            assert!(!subdomain(bad).is_empty(), "{bad}");
        }
        assert!(label("1a").is_empty() && !rfc1035("1a").is_empty() && !label("a.b").is_empty());
        assert!(
            path_segment("system:node").is_empty() && !path_segment("a/b").is_empty() && !path_segment("..").is_empty()
        );
        assert!(qualified_name("a.io/Name_1").is_empty() && qualified_name("Name").is_empty());
        for bad in ["", "/a", "a/", "a/b/c", "A_/x", "-a"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty() && label_value("a.B_c").is_empty() && !label_value("a b").is_empty());
    }

    #[test]
    fn lengths_hold_at_one_more() {
        assert!(subdomain(&"a".repeat(SUBDOMAIN_BYTES_MAX)).is_empty());
        assert!(!subdomain(&"a".repeat(SUBDOMAIN_BYTES_MAX + 1)).is_empty());
        assert!(label(&"a".repeat(LABEL_BYTES_MAX)).is_empty());
        assert!(!label(&"a".repeat(LABEL_BYTES_MAX + 1)).is_empty());
        assert!(!label_value(&"a".repeat(LABEL_BYTES_MAX + 1)).is_empty());
        let annotations = |n: usize| json!({"name": "x", "annotations": {"k": "v".repeat(n - 1)}});
        let check = |value: Value| check_metadata(value.as_object().unwrap(), NameRule::Subdomain, false);
        assert!(check(annotations(ANNOTATIONS_BYTES_MAX)).is_empty());
        assert_eq!(check(annotations(ANNOTATIONS_BYTES_MAX + 1)).len(), 1);
    }

    #[test]
    fn metadata_of_the_wrong_type_is_named() {
        let check = |value: Value| {
            let errors = check_metadata(value.as_object().unwrap(), NameRule::Subdomain, true);
            errors.iter().map(|e| e.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(check(json!({"name": "x", "namespace": "a", "labels": {"a": 1}})), ["metadata.labels[a]"]);
        assert_eq!(check(json!({"name": "x", "namespace": "a", "finalizers": "f"})), ["metadata.finalizers"]);
        assert_eq!(check(json!({"namespace": "a"})), ["metadata.name"]);
        assert_eq!(
            check(json!({"name": "x", "namespace": "a", "ownerReferences": [{"kind": "K", "name": "n", "uid": "u"}]})),
            ["metadata.ownerReferences.apiVersion"]
        );
    }
}
