//! Rules about ExtensionConfigs.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks/admission/extensionconfig.go.

use serde_json::{Value, json};

use super::{Problem, fill};

const LABEL_CHARS_MAX: usize = 63;

pub(super) fn default(object: &mut Value) {
    fill(object, &["spec", "namespaceSelector"], json!({}));
    if object.pointer("/spec/clientConfig/service").is_some_and(Value::is_object) {
        fill(object, &["spec", "clientConfig", "service", "port"], 443);
    }
}

pub(super) fn validate(object: &Value, problems: &mut Vec<Problem>) {
    let name = &object["metadata"]["name"];
    if !name.as_str().is_some_and(is_label) {
        let detail = "ExtensionConfig name should be a valid DNS1123 label name";
        problems.push(Problem::invalid("metadata.name", name, detail));
    }
    let path = "spec.clientConfig";
    let config = &object["spec"]["clientConfig"];
    let (url, service) = (&config["url"], &config["service"]);
    match (url.is_null(), service.is_null()) {
        (true, true) => problems.push(Problem::required(path, "either url or service must be defined")),
        (false, false) => problems.push(Problem::forbidden(path, "only one of url or service can be defined")),
        _ => {}
    }
    if let Some(text) = url.as_str() {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let detail = match () {
            () if scheme != "https" => Some("'https' is the only allowed URL scheme, e.g. https://example.com"),
            () if authority.is_empty() || text.contains(char::is_whitespace) => {
                Some("must be a valid URL, e.g. https://example.com")
            }
            () if authority.contains('@') || text.contains(['?', '#']) => {
                Some("users, query parameters and fragments are not allowed")
            }
            () => None,
        };
        problems.extend(detail.map(|detail| Problem::invalid("spec.clientConfig.url", url, detail)));
    }
    if service.is_object() {
        for field in ["name", "namespace"] {
            if !service[field].as_str().is_some_and(is_label) {
                let detail = "must be a DNS label of at most 63 characters";
                problems.push(Problem::invalid(&format!("{path}.service.{field}"), &service[field], detail));
            }
        }
        if service["path"].as_str().is_some_and(|text| !text.starts_with('/')) {
            let detail = "must start with \"/\" to be a valid URL path";
            problems.push(Problem::invalid(&format!("{path}.service.path"), &service["path"], detail));
        }
        if service["port"].as_i64().is_some_and(|port| !(1..=65535).contains(&port)) {
            let detail = "must be between 1 and 65535, inclusive";
            problems.push(Problem::invalid(&format!("{path}.service.port"), &service["port"], detail));
        }
    }
}

/// A DNS label (RFC 1123).
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LABEL_CHARS_MAX
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_at_one_place_over_https() {
        let told = |name: &str, config: Value| {
            let mut object = json!({"metadata": {"name": name}, "spec": {"clientConfig": config}});
            default(&mut object);
            let mut problems = Vec::new();
            validate(&object, &mut problems);
            problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>().join(" ")
        };
        let service =
            |port: i64, path: &str| json!({"service": {"name": "a", "namespace": "b", "port": port, "path": path}});
        for (name, config, wanted) in [
            ("a", json!({"url": "https://a.example:8443/x"}), ""),
            ("a", json!({"service": {"name": "a", "namespace": "b"}}), ""),
            ("a.b", json!({"url": "https://a"}), "metadata.name"),
            ("a", json!({}), "spec.clientConfig"),
            ("a", json!({"url": "https://a", "service": {"name": "a", "namespace": "b"}}), "spec.clientConfig"),
            ("a", json!({"url": "http://a"}), "spec.clientConfig.url"),
            ("a", json!({"url": "https://u:p@a"}), "spec.clientConfig.url"),
            ("a", service(65536, "/x"), "spec.clientConfig.service.port"),
            ("a", service(443, "x"), "spec.clientConfig.service.path"),
        ] {
            assert_eq!(told(name, config.clone()), wanted, "{config}");
        }
    }
}
