//! Brings manifests to a workload cluster.

use std::{collections::HashMap, time::Duration};

use api::resource_set::ResourceRef;
use control::{Key, bounded};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde_json::Value;

use super::manifests;
use crate::Context;

/// As whom objects are written.
const MANAGER: &str = "skep-clusterresourceset";
/// Longest time that one pass may take; the next goes on.
const PASS_LIMIT: Duration = Duration::from_secs(10);

/// Applies a resource; gives the hash of what was applied, or why not all of it could be.
pub async fn apply(context: &Context, cluster: &Key, resource: &ResourceRef, follow: bool) -> Result<String, String> {
    let Some(client) = context.workloads.client(cluster) else {
        return Err("waiting for the cluster's API".to_owned());
    };
    let read = manifests::read(context, &cluster.namespace, resource).await;
    let content = read.map_err(|error| error.chain())??;
    let objects = content.objects()?;
    let passed = tokio::time::timeout(PASS_LIMIT, all(client, cluster, objects, follow)).await;
    passed.unwrap_or_else(|_| Err(format!("not all objects were applied within {PASS_LIMIT:?}; it goes on")))?;
    Ok(content.hash())
}

/// Applies what can be, and tells of what cannot.
async fn all(client: Client, cluster: &Key, objects: Vec<Value>, follow: bool) -> Result<(), String> {
    let mut known: HashMap<GroupVersionKind, (ApiResource, Scope)> = HashMap::new();
    let mut failures = Vec::new();
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let gvk = GroupVersionKind::gvk(group, version, &kind);
        let failed = |why: String| format!("{kind} {name}: {why}");
        if !known.contains_key(&gvk) {
            match bounded(cluster, discovery::pinned_kind(&client, &gvk)).await {
                Ok(Ok((resource, capabilities))) => drop(known.insert(gvk.clone(), (resource, capabilities.scope))),
                Ok(Err(error)) => {
                    failures.push(failed(error.to_string()));
                    continue;
                }
                // Nobody answers: the others need not be tried.
                Err(late) => return Err(failed(late.to_string())),
            }
        }
        let Some((resource, scope)) = known.get(&gvk) else { continue };
        let namespace = text("/metadata/namespace");
        let namespace = if namespace.is_empty() { "default" } else { &namespace };
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(client.clone(), resource),
            Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, resource),
        };
        let object: DynamicObject = match serde_json::from_value(object.clone()) {
            Ok(object) => object,
            Err(error) => {
                failures.push(failed(error.to_string()));
                continue;
            }
        };
        let written = if follow {
            bounded(cluster, api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object))).await
        } else {
            bounded(
                cluster,
                api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }, &object),
            )
            .await
        };
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(kube::Error::Api(status))) if !follow && status.reason == "AlreadyExists" => {}
            Ok(Err(kube::Error::Api(status))) => failures.push(failed(status.message.clone())),
            Ok(Err(error)) => failures.push(failed(error.to_string())),
            Err(late) => return Err(failed(late.to_string())),
        }
    }
    match failures.len() {
        0 => Ok(()),
        count => {
            let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
            Err(format!("{}{more}", failures[0]))
        }
    }
}
