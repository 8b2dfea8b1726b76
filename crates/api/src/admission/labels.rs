//! Labels, annotations, taints and names that stand inside of other objects.
//!
//! Source: apimachinery `pkg/api/validate/content`, kubernetes-sigs/cluster-api internal/util/taints.

use serde_json::{Value, json};

use super::Problem;
use crate::topology::template;

/// Longest value of a label, and longest name of a key.
const LABEL_BYTES_MAX: usize = 63;
/// Longest name of an object, and longest prefix of a key.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// All annotations of an object together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const WORD: &str = "'-', '_' or '.', and must start and end with an alphanumeric character";
const WORD_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn is_word(text: &str) -> bool {
    let ends = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric());
    let all = text.chars().all(|one| one.is_ascii_alphanumeric() || "-_.".contains(one));
    all && ends(text.chars().next()) && ends(text.chars().next_back())
}

/// What is wrong with the name of an object (RFC 1123).
pub fn subdomain(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > SUBDOMAIN_BYTES_MAX {
        wrong.push(format!("must be no more than {SUBDOMAIN_BYTES_MAX} bytes"));
    }
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let ends = label.bytes().next().is_some_and(lower) && label.bytes().next_back().is_some_and(lower);
        ends && label.bytes().all(|byte| lower(byte) || byte == b'-')
    };
    if !name.split('.').all(is_label) {
        wrong.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
             and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    wrong
}

/// What is wrong with a label's value.
pub fn value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        wrong.push(format!("must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !value.is_empty() && !is_word(value) {
        wrong.push(format!(
            "a valid label must be an empty string or consist of alphanumeric characters, {WORD} (e.g. 'MyValue',  or \
             'my_value',  or '12345', regex used for validation is '({WORD_FORM})?')"
        ));
    }
    wrong
}

/// What is wrong with the key of a label, an annotation or a taint.
pub fn key(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let examples = "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is";
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            let shape = format!("a valid label key must consist of alphanumeric characters, {WORD}");
            let prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("{shape} {examples} '{WORD_FORM}') {prefix}")];
        }
        Some(("", name)) => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            wrong.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_BYTES_MAX {
        wrong.push(format!("name part must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !is_word(name) {
        wrong.push(format!("name part must consist of alphanumeric characters, {WORD} {examples} '{WORD_FORM}')"));
    }
    wrong
}

/// Labels and annotations of a template.
pub fn metadata(metadata: &Value, path: &str, problems: &mut Vec<Problem>) {
    for (name, text) in metadata["labels"].as_object().into_iter().flatten() {
        let at = format!("{path}.labels");
        problems.extend(key(name).into_iter().map(|detail| Problem::invalid(&at, &json!(name), detail)));
        let wrong = value(text.as_str().unwrap_or_default());
        problems.extend(wrong.into_iter().map(|detail| Problem::invalid(&at, text, detail)));
    }
    let mut bytes = 0;
    for (name, text) in metadata["annotations"].as_object().into_iter().flatten() {
        let wrong = key(&name.to_lowercase());
        let at = format!("{path}.annotations");
        problems.extend(wrong.into_iter().map(|detail| Problem::invalid(&at, &json!(name), detail)));
        bytes += name.len() + text.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        let detail = format!("must have at most {ANNOTATIONS_BYTES_MAX} bytes");
        problems.push(Problem::invalid(&format!("{path}.annotations"), &Value::from(""), detail));
    }
}

/// A name that becomes the value of a label.
pub fn name(object: &Value, problems: &mut Vec<Problem>) {
    let own = object.pointer("/metadata/name").unwrap_or(&Value::Null);
    let wrong = value(own.as_str().unwrap_or_default()).into_iter();
    problems
        .extend(wrong.map(|why| Problem::invalid("metadata.name", own, format!("must be a valid label value: {why}"))));
}

/// Taints of machines; `workers`: those of a control plane are not for these.
pub fn taints(taints: &Value, workers: bool, path: &str, problems: &mut Vec<Problem>) {
    for (index, taint) in taints.as_array().into_iter().flatten().enumerate() {
        let own = taint["key"].as_str().unwrap_or_default();
        let reserved = match own {
            "node.cluster.x-k8s.io/uninitialized" | "node.cluster.x-k8s.io/outdated-revision" => {
                Some("taint key is not allowed")
            }
            "node.kubernetes.io/out-of-service" => None,
            "node-role.kubernetes.io/master" => Some("taint is deprecated since 1.24 and should not be used anymore"),
            "node-role.kubernetes.io/control-plane" if workers => Some("taint is not allowed for worker Machines"),
            _ if own.starts_with("node.kubernetes.io/") => Some(
                "taint key must not have the prefix node.kubernetes.io/, except for node.kubernetes.io/out-of-service",
            ),
            _ if own.starts_with("node.cloudprovider.kubernetes.io/") => {
                Some("taint key must not have the prefix node.cloudprovider.kubernetes.io/")
            }
            _ => None,
        };
        let wrong = reserved.map(str::to_owned).into_iter().chain(key(own));
        let at = format!("{path}[{index}].key");
        problems.extend(wrong.map(|detail| Problem::invalid(&at, &taint["key"], detail)));
    }
}

/// A template of machine names; `owner` as in `machineSet`.
pub fn naming(naming: &Value, owner: &str, path: &str, problems: &mut Vec<Problem>) {
    let text = &naming["template"];
    let Some(given) = text.as_str().filter(|given| !given.is_empty()) else { return };
    let path = format!("{path}.template");
    if !given.contains("{{ .random }}") {
        problems.push(Problem::invalid(&path, text, "invalid template, {{ .random }} is missing"));
    }
    let sample = json!({"cluster": {"name": "cluster"}, owner: {"name": owner.to_lowercase()}, "random": "abcde"});
    match template::render(given, &sample) {
        Ok(name) if name.contains("<no value>") => {
            let detail = "invalid template: a field is not known here";
            problems.push(Problem::invalid(&path, text, detail));
        }
        Ok(name) => {
            const WHY: &str = "invalid template, generated names would not be valid Kubernetes object names";
            let wrong = subdomain(&name).into_iter();
            problems.extend(wrong.map(|why| Problem::invalid(&path, text, format!("{WHY}: {why}"))));
        }
        Err(error) => problems.push(Problem::invalid(&path, text, format!("invalid template: {error}"))),
    }
}
