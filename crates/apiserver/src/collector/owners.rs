//! Garbage collection: an object goes when the last of its owners has gone (`pkg/controller/garbagecollector`).

use std::sync::Arc;

use serde_json::Value;

use super::{Work, collector_user};
use crate::{
    kinds::{Kind, split_api_version, split_key},
    object::{self, decode_kv, has_finalizer, text_at},
    rest::{self, DeleteOptions, FOREGROUND_FINALIZER, ORPHAN_FINALIZER, Propagation},
    server::Server,
    status::Result,
    write::{Scope, get},
};

fn scope_of(server: &Server, key: &[u8]) -> Option<Scope> {
    let (group, plural, namespace, name) = split_key(key)?;
    let kind = server.catalog().find_stored(group, plural)?;
    Some(Scope::internal(server, &collector_user(), kind, namespace, name))
}

enum Owner {
    Stands,
    /// It is being deleted in the foreground and waits for this dependent.
    Waits,
    Gone,
    /// Nobody can say: the kind is not served.
    Unknown,
}

async fn look_up(server: &Server, reference: &Value, namespace: &str) -> Result<Owner> {
    if server.state().collector.graph.lock().is_gone(text_at(reference, &["uid"])) {
        return Ok(Owner::Gone);
    }
    let (group, version) = split_api_version(text_at(reference, &["apiVersion"]));
    let kind = text_at(reference, &["kind"]);
    let catalog = server.catalog();
    let found: Option<Arc<Kind>> =
        catalog.find_kind(group, version, kind).or_else(|| catalog.find_any_version(group, kind));
    let Some(kind) = found else { return Ok(Owner::Unknown) };
    if kind.namespaced && namespace.is_empty() {
        // An object of cluster scope cannot have such an owner; deleting it for that would be rash.
        return Ok(Owner::Unknown);
    }
    let namespace = if kind.namespaced { namespace } else { "" };
    let key = kind.storage.key(namespace, text_at(reference, &["name"]));
    let Some(kv) = get(server, key).await? else { return Ok(Owner::Gone) };
    let owner = decode_kv(&kv)?;
    if object::uid(&owner) != text_at(reference, &["uid"]) {
        return Ok(Owner::Gone);
    }
    let blocks = reference.get("blockOwnerDeletion") == Some(&Value::Bool(true));
    let waits = object::is_deleting(&owner) && has_finalizer(&owner, FOREGROUND_FINALIZER);
    Ok(if waits && blocks { Owner::Waits } else { Owner::Stands })
}

/// Deletes an object whose owners are all gone; of some that are gone, it forgets.
pub(super) async fn check(server: &Server, key: &[u8]) -> Result<()> {
    let Some(mut scope) = scope_of(server, key) else { return Ok(()) };
    let Some(kv) = scope.current().await? else { return Ok(()) };
    let dependent = decode_kv(&kv)?;
    let references = references(&dependent);
    if references.is_empty() || (object::is_deleting(&dependent) && !has_finalizer(&dependent, FOREGROUND_FINALIZER)) {
        return Ok(());
    }
    let (mut stands, mut waits, mut gone) = (0, 0, Vec::new());
    for reference in &references {
        match look_up(server, reference, object::namespace(&dependent)).await? {
            Owner::Stands | Owner::Unknown => stands += 1,
            Owner::Waits => {
                waits += 1;
                gone.push(text_at(reference, &["uid"]).to_owned());
            }
            Owner::Gone => gone.push(text_at(reference, &["uid"]).to_owned()),
        }
    }
    if gone.is_empty() || object::is_deleting(&dependent) {
        return Ok(());
    }
    if stands > 0 {
        return disown(&scope, &gone).await;
    }
    let has_dependents = !server.state().collector.graph.lock().dependents_of(object::uid(&dependent)).is_empty();
    let propagation = if has_finalizer(&dependent, ORPHAN_FINALIZER) {
        Propagation::Orphan
    } else if has_finalizer(&dependent, FOREGROUND_FINALIZER) || (waits > 0 && has_dependents) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let options = DeleteOptions {
        propagation: Some(propagation),
        uid: Some(object::uid(&dependent).to_owned()),
        resource_version: Some(object::resource_version(&dependent).to_owned()),
        ..DeleteOptions::default()
    };
    rest::delete(&mut scope, &options).await.map(drop)
}

fn references(object: &Value) -> Vec<Value> {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Takes owners out of an object's references.
async fn disown(scope: &Scope, uids: &[String]) -> Result<()> {
    let change = |object: &mut Value| {
        let mut list = references(object);
        let before = list.len();
        list.retain(|r| !uids.iter().any(|uid| uid == text_at(r, &["uid"])));
        let changed = list.len() != before;
        let metadata = object::meta_mut(object);
        if list.is_empty() {
            metadata.remove("ownerReferences");
        } else {
            metadata.insert("ownerReferences".into(), list.into());
        }
        changed
    };
    rest::modify_internal(scope, change).await.map(drop)
}

/// Goes on with an object that waits for its dependents.
pub(super) async fn finalize(server: &Server, key: &[u8]) -> Result<()> {
    let Some(scope) = scope_of(server, key) else { return Ok(()) };
    let Some(kv) = scope.current().await? else { return Ok(()) };
    let owner = decode_kv(&kv)?;
    if !object::is_deleting(&owner) {
        return Ok(());
    }
    let uid = object::uid(&owner).to_owned();
    if has_finalizer(&owner, ORPHAN_FINALIZER) {
        let dependents = server.state().collector.graph.lock().dependents_of(&uid);
        for dependent in dependents {
            let Some(scope) = scope_of(server, &dependent) else { continue };
            match disown(&scope, std::slice::from_ref(&uid)).await {
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
        }
        return remove_finalizer(&scope, ORPHAN_FINALIZER).await;
    }
    if has_finalizer(&owner, FOREGROUND_FINALIZER) {
        let blocking = server.state().collector.graph.lock().blocking_dependents_of(&uid);
        if blocking.is_empty() {
            return remove_finalizer(&scope, FOREGROUND_FINALIZER).await;
        }
        for dependent in blocking {
            server.state().collector.push(Work::Dependent(dependent));
        }
    }
    Ok(())
}

async fn remove_finalizer(scope: &Scope, finalizer: &str) -> Result<()> {
    let change = |object: &mut Value| {
        let before = object::finalizers(object).count();
        let rest: Vec<String> = object::finalizers(object).filter(|f| *f != finalizer).map(str::to_owned).collect();
        let changed = rest.len() != before;
        object::set_finalizers(object, rest);
        changed
    };
    rest::modify_internal(scope, change).await.map(drop)
}
