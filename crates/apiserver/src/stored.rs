//! Whether what lies in a store is what this server would have put there.

use serde_json::Value;

use crate::{
    kinds::{ROOT, split_key},
    object::text_at,
};

/// Values that an encryption at rest has sealed begin so (as kube-apiserver's do).
const SEALED: &[u8] = b"k8s:enc:";

/// Checks one key and its value: that the object decodes, and lies where its name says.
///
/// # Errors
/// What is wrong, as a text.
pub fn check_stored(key: &[u8], value: &[u8]) -> Result<(), String> {
    if !key.starts_with(ROOT.as_bytes()) {
        // The installation's own records.
        return match key.starts_with(b"/skep/") {
            true => Ok(()),
            false => Err("it is no key of a Management API".to_owned()),
        };
    }
    let Some((group, plural, namespace, name)) = split_key(key) else {
        return Err("the key is not /registry/GROUP/PLURAL[/NAMESPACE]/NAME".to_owned());
    };
    if value.starts_with(SEALED) {
        return Ok(());
    }
    let object: Value = serde_json::from_slice(value).map_err(|error| format!("it is not JSON: {error}"))?;
    let metadata = |field: &str| text_at(&object, &["metadata", field]);
    if metadata("name") != name || metadata("namespace") != namespace {
        let found = format!("{}/{}", metadata("namespace"), metadata("name"));
        return Err(format!("the object in it is called {}", found.trim_start_matches('/')));
    }
    if metadata("uid").is_empty() || metadata("creationTimestamp").is_empty() {
        return Err("it has no uid or no creation time".to_owned());
    }
    let api_version = text_at(&object, &["apiVersion"]);
    let found = api_version.split_once('/').map_or("core", |(group, _)| group);
    if found != group || text_at(&object, &["kind"]).is_empty() {
        let kind = text_at(&object, &["kind"]);
        return Err(format!("it lies among {plural} of group {group}, but is a {kind} of {api_version}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_their_places_pass_and_others_are_named() {
        let object = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"b","uid":"u","creationTimestamp":"t"}}"#;
        assert_eq!(check_stored(b"/registry/core/configmaps/b/a", object), Ok(()));
        assert_eq!(check_stored(b"/registry/core/secrets/b/a", b"k8s:enc:aesgcm:v1:k:xx"), Ok(()));
        assert_eq!(check_stored(b"/skep/identity", b"{}"), Ok(()));
        let wrong: [(&[u8], &[u8], &str); 5] = [
            (b"/registry/core/configmaps/b/c", object, "called b/a"),
            (b"/registry/apps/deployments/b/a", object, "is a ConfigMap of v1"),
            (b"/registry/core", object, "the key is not"),
            (b"/other", object, "no key of"),
            (b"/registry/core/configmaps/b/a", b"{", "not JSON"),
        ];
        for (key, value, text) in wrong {
            assert!(check_stored(key, value).unwrap_err().contains(text), "{text}");
        }
    }
}
