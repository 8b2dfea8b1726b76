//! Reads what a resource of a set holds.

use api::resource_set::{ResourceKind, ResourceRef, SECRET_TYPE};
use aws_lc_rs::digest;
use control::{Error, Key, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use serde_json::Value;

use crate::Context;

/// Objects in one Secret or ConfigMap.
const OBJECTS_MAX: usize = 1000;

/// Kinds that others need come first. As published: util/resource.
const FIRST: [&str; 25] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// The values of a Secret or ConfigMap, in the order of their keys.
#[derive(Debug)]
pub struct Content {
    pub values: Vec<Vec<u8>>,
}

impl Content {
    pub fn hash(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        self.values.iter().for_each(|value| context.update(value));
        let digits = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("sha256:{digits}")
    }

    /// The objects in the manifests, those that others need first within each value. `Err` says what can't be read.
    pub fn objects(&self) -> std::result::Result<Vec<Value>, String> {
        let mut all = Vec::new();
        for value in &self.values {
            let text = std::str::from_utf8(value).map_err(|_| "a value is not UTF-8".to_owned())?;
            let mut found = Vec::new();
            for document in documents(text)? {
                match document {
                    Value::Null => {}
                    Value::Array(items) => found.extend(items),
                    Value::Object(mut list) if is_list(&list) => match list.remove("items") {
                        Some(Value::Array(items)) => found.extend(items),
                        _ => return Err("a List has no items".to_owned()),
                    },
                    object => found.push(object),
                }
            }
            for object in &found {
                let has = |field: &str| object[field].as_str().is_some_and(|text| !text.is_empty());
                if !has("apiVersion") || !has("kind") {
                    return Err("an object has no apiVersion or no kind".to_owned());
                }
            }
            found.sort_by_key(|object| FIRST.iter().position(|kind| object["kind"] == *kind).unwrap_or(FIRST.len()));
            all.extend(found);
            if all.len() > OBJECTS_MAX {
                return Err(format!("more than {OBJECTS_MAX} objects"));
            }
        }
        Ok(all)
    }
}

fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    object.get("kind").is_some_and(|kind| kind == "List")
        && object.get("apiVersion").is_some_and(|version| version == "v1")
}

/// The documents of a stream in YAML; JSON is one of them.
fn documents(text: &str) -> std::result::Result<Vec<Value>, String> {
    serde_saphyr::from_multiple(text).map_err(|error| {
        let told = error.to_string();
        format!("not YAML: {}", told.lines().next().unwrap_or_default())
    })
}

/// Reads a resource. The inner error says why it can't be used.
pub async fn read(
    context: &Context,
    namespace: &str,
    resource: &ResourceRef,
) -> Result<std::result::Result<Content, String>> {
    let client = context.writer.client().clone();
    let (kind, name) = (resource.kind, resource.name.as_str());
    let failed = |source| Error::api("get", format!("{kind:?} {namespace}/{name}"), source);
    let absent = || Err("it does not exist".to_owned());
    Ok(match kind {
        ResourceKind::ConfigMap => {
            match Api::<ConfigMap>::namespaced(client, namespace).get_opt(name).await.map_err(failed)? {
                Some(map) => {
                    let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
                    let bytes = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
                    let values: std::collections::BTreeMap<_, _> = text.chain(bytes).collect();
                    Ok(Content { values: values.into_values().collect() })
                }
                None => absent(),
            }
        }
        ResourceKind::Secret => {
            match Api::<Secret>::namespaced(client, namespace).get_opt(name).await.map_err(failed)? {
                Some(secret) if secret.type_.as_deref() == Some(SECRET_TYPE) => {
                    Ok(Content { values: secret.data.unwrap_or_default().into_values().map(|value| value.0).collect() })
                }
                Some(_) => Err(format!("{WRONG_TYPE}: it must be {SECRET_TYPE}")),
                None => absent(),
            }
        }
    })
}

pub const WRONG_TYPE: &str = "Secret type is not supported";

/// The hash of what a resource holds now; `None` if it can't be read. Read again only when the resource has changed.
pub async fn hash(context: &Context, namespace: &str, resource: &ResourceRef) -> Result<Option<String>> {
    let key = Key::new(namespace, resource.name.as_str());
    let caches = &context.caches;
    let meta = match resource.kind {
        ResourceKind::ConfigMap => caches.config_maps.get(&key).map(|map| map.metadata.clone()),
        ResourceKind::Secret => caches.resource_secrets.get(&key).map(|secret| secret.metadata.clone()),
    };
    let Some(version) = meta.and_then(|meta| meta.resource_version) else { return Ok(None) };
    let slot = (resource.kind, key.clone());
    let known = context.hashes.lock().get(&slot).filter(|(of, _)| *of == version).map(|(_, hash)| hash.clone());
    if known.is_some() {
        return Ok(known);
    }
    let Ok(content) = read(context, namespace, resource).await? else { return Ok(None) };
    let hash = content.hash();
    context.hashes.lock().insert(slot, (version, hash.clone()));
    Ok(Some(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(values: &[&str]) -> std::result::Result<Vec<String>, String> {
        let content = Content { values: values.iter().map(|text| text.as_bytes().to_vec()).collect() };
        Ok(content.objects()?.iter().map(|object| object["kind"].as_str().unwrap_or_default().to_owned()).collect())
    }

    #[test]
    fn manifests_are_yaml_json_and_lists_and_what_others_need_comes_first() {
        let yaml = "apiVersion: apps/v1\nkind: Deployment\n---\n---\napiVersion: v1\nkind: Namespace\n";
        let json = r#"[{"apiVersion": "v1", "kind": "Service"}, {"apiVersion": "v1", "kind": "ServiceAccount"}]"#;
        let list =
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: x/v1, kind: X}\n- {apiVersion: v1, kind: Secret}\n";
        assert_eq!(
            kinds(&[yaml, json, list]).unwrap(),
            ["Namespace", "Deployment", "ServiceAccount", "Service", "Secret", "X"]
        );
        assert_eq!(kinds(&["", "# nothing\n"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        assert_eq!(kinds(&["kind: X"]).unwrap_err(), "an object has no apiVersion or no kind");
        assert!(kinds(&["{"]).unwrap_err().starts_with("not YAML: "));
        assert!(kinds(&["just text"]).is_err());
        let many = "---\napiVersion: v1\nkind: X\n".repeat(OBJECTS_MAX + 1);
        assert_eq!(kinds(&[&many]).unwrap_err(), format!("more than {OBJECTS_MAX} objects"));
    }

    #[test]
    fn the_hash_is_of_all_values() {
        let hash =
            |values: &[&str]| Content { values: values.iter().map(|text| text.as_bytes().to_vec()).collect() }.hash();
        assert_eq!(hash(&[]), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_ne!(hash(&["a"]), hash(&["b"]));
        assert_eq!(hash(&["a", "b"]), hash(&["ab"]), "as published");
    }
}
