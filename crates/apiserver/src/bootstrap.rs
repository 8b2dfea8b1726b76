//! What every cluster begins with: its namespaces, the default roles and bindings, and the CRDs of the options.

use bytes::Bytes;
use policy::User;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Commit, Expect, Guard, Op, Revision};

use crate::{
    crd, object,
    rest::{self, Edit},
    server::Server,
    status::{Error, Result},
    strategy::{NAMESPACE_FINALIZER, NAMESPACE_LABEL},
    write::{Draft, RETRIES_MAX, Scope, get, rfc3339, store_error},
};

mod roles;

/// The namespaces that are always there.
pub(crate) const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Plural and object, of the kinds of their group's v1.
fn objects(server: &Server) -> Vec<(&'static str, Value)> {
    let mut list: Vec<(&'static str, Value)> = NAMESPACES
        .iter()
        .map(|name| {
            let namespace = json!({
                "kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": {NAMESPACE_LABEL: name}},
                "spec": {"finalizers": [NAMESPACE_FINALIZER]}, "status": {"phase": "Active"},
            });
            ("namespaces", namespace)
        })
        .collect();
    list.extend(roles::objects(server.state().options.profile));
    if let Some(pem) = &server.state().options.client_ca_pem {
        let config = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {"client-ca-file": pem},
        });
        list.push(("configmaps", config));
    }
    list
}

/// The cluster roles that clusters of either profile begin with.
pub(crate) fn default_roles() -> Vec<Value> {
    let objects = roles::objects(crate::kinds::builtin::Profile::Workload);
    objects.into_iter().filter(|(plural, _)| *plural == "clusterroles").map(|(_, role)| role).collect()
}

/// Objects of one commit: a store in etcd takes no more than 126.
const COMMIT_OBJECTS: usize = 100;

/// Makes what is missing, in as few commits as the store allows; what is there stays as it is.
pub(crate) async fn ensure(server: &Server) -> Result<Revision> {
    let objects = objects(server);
    for part in objects.chunks(COMMIT_OBJECTS) {
        ensure_part(server, part).await?;
    }
    Ok(server.store().revision())
}

async fn ensure_part(server: &Server, objects: &[(&'static str, Value)]) -> Result<Revision> {
    let catalog = server.catalog();
    let now = rfc3339(server.now());
    for _ in 0..RETRIES_MAX {
        let (mut guard, mut ops) = (Vec::new(), Vec::new());
        for (plural, object) in objects {
            let mut object = object.clone();
            let (group, _) = crate::kinds::split_api_version(object::text_at(&object, &["apiVersion"]));
            let kind = catalog.find(group, "v1", plural).ok_or_else(Error::no_such_path)?;
            let key = kind.storage.key(object::namespace(&object), object::name(&object));
            if get(server, key.clone()).await?.is_some() {
                continue;
            }
            let metadata = object::meta_mut(&mut object);
            metadata.insert("uid".into(), server.new_uid().into());
            metadata.insert("creationTimestamp".into(), now.as_str().into());
            let key = Bytes::from(key);
            guard.push((key.clone(), Expect::Absent));
            ops.push(Op::Put { key, value: object::encode(&kind.storage_head, &object).into() });
        }
        if ops.is_empty() {
            return Ok(server.store().revision());
        }
        match server.store().commit(Guard(guard), ops).await.map_err(store_error)? {
            Commit::Done(revision) => return Ok(revision),
            Commit::Conflict { .. } => {}
        }
    }
    Err(Error::unavailable("another server keeps changing the objects that every cluster has"))
}

/// Makes a CRD, or brings the one that is there up to date; other servers may be at it, too.
pub(crate) async fn install_crd(server: &Server, definition: &Value) -> Result<()> {
    for _ in 0..RETRIES_MAX {
        match try_install_crd(server, definition).await {
            Err(error) if matches!(error.reason(), "Conflict" | "AlreadyExists") => {}
            done => return done,
        }
    }
    Err(Error::unavailable("another server keeps changing the CRD"))
}

async fn try_install_crd(server: &Server, definition: &Value) -> Result<()> {
    let catalog = server.catalog();
    let kind = catalog.find(crd::GROUP, "v1", "customresourcedefinitions").ok_or_else(Error::no_such_path)?;
    let user = Arc::new(User::master("system:apiserver"));
    let mut scope = Scope::internal(server, &user, kind, "", object::name(definition));
    let mut object = definition.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    match scope.current().await? {
        None => rest::create(&mut scope, Draft { object }).await.map(drop),
        Some(stands) => {
            let version = stands.modified.to_string();
            object::set_at(&mut object, &["metadata", "resourceVersion"], version.into());
            rest::modify(&mut scope, &Edit::Replace(object)).await.map(drop)
        }
    }
}
