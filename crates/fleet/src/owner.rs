//! Owner references, labels and finalizers: small changes that every controller makes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, core::ObjectMeta};

/// A reference to `owner`; `controller` says whether it manages the object.
pub fn reference<K: Resource<DynamicType = ()>>(owner: &K, controller: bool) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        block_owner_deletion: Some(true),
        controller: Some(controller),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// Puts the reference among the object's owners; one with the same UID is replaced. A controller takes the place of
/// an earlier controller, which stays an owner.
pub fn ensure(meta: &mut ObjectMeta, reference: OwnerReference) {
    let owners = meta.owner_references.get_or_insert_default();
    if reference.controller == Some(true) {
        for other in owners.iter_mut().filter(|other| other.uid != reference.uid && other.controller == Some(true)) {
            other.controller = Some(false);
        }
    }
    match owners.iter_mut().find(|other| other.uid == reference.uid) {
        Some(other) => *other = reference,
        None => owners.push(reference),
    }
}

/// As [`ensure`], and drops the references of a kind that the new owner replaces.
pub fn hand_over(meta: &mut ObjectMeta, reference: OwnerReference, from_kind: &str) {
    if let Some(owners) = &mut meta.owner_references {
        owners.retain(|other| other.kind != from_kind || other.uid == reference.uid);
    }
    ensure(meta, reference);
}

/// The owner that manages the object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller(meta).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

pub fn owner_of_kind<'a>(meta: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.kind == kind)
}

pub fn label(meta: &mut ObjectMeta, key: &str, value: impl Into<String>) {
    meta.labels.get_or_insert_default().insert(key.to_owned(), value.into());
}

pub fn label_of<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

pub fn annotate(meta: &mut ObjectMeta, key: &str, value: impl Into<String>) {
    meta.annotations.get_or_insert_default().insert(key.to_owned(), value.into());
}

pub fn annotation_of<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|name| name == finalizer)
}

pub fn add_finalizer(meta: &mut ObjectMeta, finalizer: &str) {
    if !has_finalizer(meta, finalizer) {
        meta.finalizers.get_or_insert_default().push(finalizer.to_owned());
    }
}

pub fn remove_finalizer(meta: &mut ObjectMeta, finalizer: &str) {
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|name| name != finalizer);
        if finalizers.is_empty() {
            meta.finalizers = None;
        }
    }
}

/// Adds entries to a map that may be absent.
pub fn extend(map: &mut Option<BTreeMap<String, String>>, entries: &BTreeMap<String, String>) {
    if !entries.is_empty() {
        map.get_or_insert_default().extend(entries.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// Paused by its cluster or by its own annotation.
pub fn is_paused(cluster: Option<&api::cluster::Cluster>, meta: &ObjectMeta) -> bool {
    cluster.is_some_and(|cluster| cluster.spec.paused == Some(true))
        || annotation_of(meta, api::names::PAUSED_ANNOTATION).is_some()
}
