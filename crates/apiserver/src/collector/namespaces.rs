//! Namespaces and CRDs that are being deleted take what is in them with them (`pkg/controller/namespace`), and each
//! namespace has its default service account.

use std::sync::Arc;

use serde_json::{Value, json};

use super::collector_user;
use crate::{
    crd::{self, CLEANUP_FINALIZER},
    kinds::{Kind, split_key},
    object::{self, Partial, decode_kv},
    rest::{self, DeleteOptions, Edit, Propagation, created_at, finalize_namespace, for_each},
    server::Server,
    status::{Error, Result},
    write::{Draft, Scope, rfc3339},
};

pub(super) const DEFAULT_ACCOUNT: &str = "default";
/// Events older than this are deleted (kube-apiserver's `--event-ttl`).
const EVENT_TTL_S: i64 = 3600;

fn scope(server: &Server, group: &str, version: &str, plural: &str, namespace: &str, name: &str) -> Result<Scope> {
    let kind = server.catalog().find(group, version, plural).ok_or_else(Error::no_such_path)?;
    Ok(Scope::internal(server, &collector_user(), kind, namespace, name))
}

/// What is left of a kind somewhere.
struct Left {
    count: usize,
    finalizers: Vec<String>,
}

/// Asks everything of a kind in a namespace (empty: everywhere) to go; what is still there.
async fn delete_all(server: &Server, kind: &Arc<Kind>, namespace: &str) -> Result<Left> {
    let mut standing = Vec::new();
    let mut left = Left { count: 0, finalizers: Vec::new() };
    for_each(server, kind, namespace, |kv| {
        let metadata = Partial::read(&kv.value)?.metadata;
        if metadata.deletion_timestamp.is_none() {
            standing.push(kv.key.clone());
        } else {
            left.count += 1;
            left.finalizers.extend(metadata.finalizers.iter().map(ToString::to_string));
        }
        Ok(())
    })
    .await?;
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    for key in standing {
        let Some((_, _, namespace, name)) = split_key(&key) else { continue };
        let mut scope = Scope::internal(server, &collector_user(), Arc::clone(kind), namespace, name);
        match rest::delete(&mut scope, &options).await {
            Ok(rest::Deleted::Gone(_)) => {}
            Ok(rest::Deleted::Going(stored)) => {
                left.count += 1;
                left.finalizers.extend(object::finalizers(&stored.value(kind)?).map(str::to_owned));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

/// Empties a namespace; when nothing is left, the namespace goes.
pub(super) async fn empty(server: &Server, name: &str) -> Result<()> {
    let scope = scope(server, "", "v1", "namespaces", "", name)?;
    let Some(kv) = scope.current().await? else { return Ok(()) };
    if !object::is_deleting(&decode_kv(&kv)?) {
        return Ok(());
    }
    let mut remaining = Vec::new();
    let mut finalizers: Vec<(String, usize)> = Vec::new();
    for kind in server.catalog().namespaced() {
        let left = delete_all(server, &kind, name).await?;
        if left.count > 0 {
            // With the point also where the group has no name, as upstream prints it.
            remaining.push(format!("{}.{} has {} resource instances", kind.plural, kind.group, left.count));
        }
        for finalizer in left.finalizers {
            match finalizers.iter_mut().find(|(known, _)| *known == finalizer) {
                Some((_, count)) => *count += 1,
                None => finalizers.push((finalizer, 1)),
            }
        }
    }
    if remaining.is_empty() {
        return finalize_namespace(&scope).await.map(drop);
    }
    let held: Vec<_> = finalizers.iter().map(|(f, count)| format!("{f} in {count} resource instances")).collect();
    let now = rfc3339(server.now());
    let change = |namespace: &mut Value| {
        let conditions: Vec<Value> = what_remains(&remaining, &held)
            .into_iter()
            .map(|(kind, status, reason, message)| {
                let old = namespace.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
                let same = old.filter(|c| c["type"] == kind && c["status"] == status);
                let since = same.map(|c| c["lastTransitionTime"].clone()).next();
                let since = since.unwrap_or_else(|| now.as_str().into());
                json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
            })
            .collect();
        let changed = namespace.pointer("/status/conditions") != Some(&Value::from(conditions.clone()));
        object::set_at(namespace, &["status", "conditions"], conditions.into());
        changed
    };
    rest::modify_internal(&scope, change).await.map(drop)
}

/// What a namespace says while something is left in it: type, status, reason and message of its conditions, in the words of
/// Kubernetes (`pkg/controller/namespace/deletion/status_condition_utils.go`).
fn what_remains(remaining: &[String], held: &[String]) -> [(&'static str, &'static str, &'static str, String); 5] {
    let content = format!("Some resources are remaining: {}", remaining.join(", "));
    let finalizers = match held {
        [] => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
        _ => {
            let text = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
            ("True", "SomeFinalizersRemain", text)
        }
    };
    let fine = |kind, reason, message: &str| (kind, "False", reason, message.to_owned());
    [
        fine("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        fine(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        fine(
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", "True", "SomeResourcesRemain", content),
        ("NamespaceFinalizersRemaining", finalizers.0, finalizers.1, finalizers.2),
    ]
}

/// Deletes the objects of a CRD that is to go; when none is left, the CRD goes.
pub(super) async fn empty_crd(server: &Server, name: &str) -> Result<()> {
    let scope = scope(server, crd::GROUP, "v1", "customresourcedefinitions", "", name)?;
    let Some(kv) = scope.current().await? else { return Ok(()) };
    let definition = decode_kv(&kv)?;
    if !object::is_deleting(&definition) || !object::has_finalizer(&definition, CLEANUP_FINALIZER) {
        return Ok(());
    }
    let kind = server.catalog().custom(name).and_then(|custom| custom.served.first().cloned());
    if let Some(kind) = kind
        && delete_all(server, &kind, "").await?.count > 0
    {
        return Ok(());
    }
    let change = |definition: &mut Value| {
        let rest = object::finalizers(definition).filter(|f| *f != CLEANUP_FINALIZER).map(str::to_owned).collect();
        object::set_finalizers(definition, rest);
        true
    };
    rest::modify_internal(&scope, change).await.map(drop)
}

/// Looks again whether the CRDs of a group that are not established can be.
pub(super) async fn name_again(server: &Server, group: &str) -> Result<()> {
    let kind = server.catalog().find(crd::GROUP, "v1", "customresourcedefinitions").ok_or_else(Error::no_such_path)?;
    let mut waiting = Vec::new();
    for_each(server, &kind, "", |kv| {
        let definition = decode_kv(&kv)?;
        if object::text_at(&definition, &["spec", "group"]) == group && !crd::is_established(&definition) {
            waiting.push(definition);
        }
        Ok(())
    })
    .await?;
    for definition in waiting {
        let name = object::name(&definition);
        let mut scope = Scope::internal(server, &collector_user(), Arc::clone(&kind), "", name);
        // Writing it again as it is settles its conditions anew.
        rest::modify(&mut scope, &Edit::Replace(definition.clone())).await?;
    }
    Ok(())
}

/// Makes the service account that pods and clients of a namespace use when they say nothing else.
pub(super) async fn default_account(server: &Server, namespace: &str) -> Result<()> {
    let mut scope = scope(server, "", "v1", "serviceaccounts", namespace, DEFAULT_ACCOUNT)?;
    if scope.current().await?.is_some() {
        return Ok(());
    }
    let object = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": DEFAULT_ACCOUNT}});
    match rest::create(&mut scope, Draft { object }).await {
        Ok(_) => Ok(()),
        // Somebody else made it, or the namespace is going.
        Err(error) if matches!(error.reason(), "AlreadyExists" | "Forbidden") => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes events that nobody needs any more.
pub(super) async fn sweep_events(server: &Server) -> Result<()> {
    let kind = server.catalog().find("", "v1", "events").ok_or_else(Error::no_such_path)?;
    let end = server.now().as_second() - EVENT_TTL_S;
    let mut old = Vec::new();
    for_each(server, &kind, "", |kv| {
        let event = decode_kv(&kv)?;
        let last =
            event.get("lastTimestamp").or_else(|| event.pointer("/series/lastObservedTime")).and_then(Value::as_str);
        let last = last.and_then(|text| text.parse().ok()).unwrap_or_else(|| created_at(&event));
        if last.as_second().max(created_at(&event).as_second()) < end {
            old.push(kv.key.clone());
        }
        Ok(())
    })
    .await?;
    for key in old {
        let Some((_, _, namespace, name)) = split_key(&key) else { continue };
        let mut scope = Scope::internal(server, &collector_user(), Arc::clone(&kind), namespace, name);
        match rest::delete(&mut scope, &DeleteOptions::default()).await {
            Err(error) if error.is_not_found() => {}
            other => drop(other?),
        }
    }
    Ok(())
}
