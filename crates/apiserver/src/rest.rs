//! Create, change and delete: one of each, for every kind.

use std::sync::Arc;

use serde_json::{Value, json};
use store::{At, KeyValue, Range};

use crate::{
    convert,
    field::FieldError,
    kinds::Kind,
    object::{self, meta, meta_mut, set_at, text_at},
    status::{Error, Result},
    strategy,
    write::{
        Admitted, Draft, NAMES_TRIED_MAX, Outcome, RETRIES_MAX, Scope, Stored, admit_deletion,
        has_namespace_finalizers, is_done, rfc3339, store_error,
    },
};

mod edit;
mod scale;

pub(crate) use edit::{Edit, scale_view, scale_write_back};
pub(crate) use scale::check_replicas;

/// A stored object in the version that the kind serves.
pub(crate) fn served_value(kind: &Kind, kv: &KeyValue) -> Result<Value> {
    to_served(kind, object::decode_kv(kv)?)
}

fn to_served(kind: &Kind, mut object: Value) -> Result<Value> {
    let expected = kind.api_version();
    if text_at(&object, &["apiVersion"]) != expected {
        let local = kind.custom.as_ref().and_then(|custom| custom.local.as_ref());
        if let Some(local) = local {
            object = local.convert(&object, &expected)?;
        }
        set_at(&mut object, &["apiVersion"], expected.into());
        if let Some((from_stored, _)) = kind.convert {
            from_stored(&mut object);
        } else if let Some(schema) = kind.schema() {
            schema.prune(&mut object);
            schema.default(&mut object);
        }
    }
    Ok(object)
}

impl Stored {
    /// The object as it is served.
    pub(crate) fn value(&self, kind: &Kind) -> Result<Value> {
        let object = match self.revision {
            Some(revision) => object::decode(&self.bytes, revision)?,
            None => serde_json::from_slice(&self.bytes).map_err(Error::internal)?,
        };
        to_served(kind, object)
    }
}

pub(crate) async fn create(scope: &mut Scope, mut draft: Draft) -> Result<Stored> {
    let name = scope.name.clone();
    let mut names_tried = 0;
    for _ in 0..RETRIES_MAX {
        let again = draft.object.clone();
        name.clone_into(&mut scope.name);
        let admitted = draft.admit_new(scope, false).await?;
        let generated = admitted.generated;
        match admitted.commit(scope).await? {
            Outcome::Stored(stored) => {
                settle(scope).await?;
                return convert::shown(&scope.kind, stored).await;
            }
            Outcome::Conflict { on_self: true } => {
                names_tried += 1;
                if !generated || names_tried == NAMES_TRIED_MAX {
                    return Err(Error::already_exists(&scope.kind.group, &scope.kind.plural, &scope.name));
                }
            }
            Outcome::Conflict { on_self: false } => {}
        }
        draft = Draft { object: again };
    }
    Err(scope.conflict("the namespace changes too often to write into it; please try again"))
}

/// What follows a write of some kinds before it is answered.
async fn settle(scope: &Scope) -> Result<()> {
    if scope.kind.group != crate::crd::GROUP || scope.dry_run || scope.subresource == "status" {
        return Ok(());
    }
    match crate::crd::establish(scope).await {
        // Its last finalizer is gone, and so is it.
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Changes what stands, by `edit`; server-side apply makes what does not stand. True: it was made.
pub(crate) async fn modify(scope: &mut Scope, edit: &Edit) -> Result<(Stored, bool)> {
    if let Edit::Replace(object) = edit
        && object::name(object).is_empty()
    {
        return Err(Error::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            scope.name
        )));
    }
    for _ in 0..RETRIES_MAX {
        let Some(base) = scope.current().await? else {
            let by_replacement = matches!(edit, Edit::Replace(_)) && scope.kind.strategy.create_on_update;
            if !((edit.may_create() || by_replacement) && scope.subresource.is_empty()) {
                return Err(scope.not_found());
            }
            if let Some(denied) = &scope.create_denied {
                return Err(denied.clone());
            }
            let object = match edit {
                Edit::Replace(object) if !object::uid(object).is_empty() => {
                    return Err(scope.uid_conflict(object::uid(object), ""));
                }
                Edit::Replace(object) => object.clone(),
                _ => edit.apply_to(scope, None)?,
            };
            let admitted = Draft { object }.admit_new(scope, edit.is_apply()).await?;
            match admitted.commit(scope).await? {
                Outcome::Stored(stored) => {
                    settle(scope).await?;
                    return Ok((convert::shown(&scope.kind, stored).await?, true));
                }
                Outcome::Conflict { .. } => continue,
            }
        };
        let old = Arc::new(served_value(&scope.kind, &convert::served_one(&scope.kind, base.clone()).await?)?);
        let object = edit.apply_to(scope, Some(&old))?;
        if matches!(edit, Edit::Replace(_))
            && !scope.kind.strategy.unconditional_update
            && matches!(object::resource_version(&object), "" | "0")
        {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            let error = Error::invalid(&scope.kind.group, &scope.kind.plural, &scope.name, &[error]);
            let mut draft = Draft { object };
            draft.prune(scope)?;
            return Err(error.with_warnings(&scope.warnings));
        }
        // The managers of a Scale are not told apart; its apply is an update of the replicas.
        let applied = edit.is_apply() && scope.subresource != "scale";
        let admitted = Draft { object }.admit_change(scope, &old, &base, applied).await?;
        match admitted.commit(scope).await? {
            Outcome::Stored(stored) => {
                settle(scope).await?;
                return Ok((convert::shown(&scope.kind, stored).await?, false));
            }
            Outcome::Conflict { .. } => {}
        }
    }
    Err(scope.conflict("the object has been modified; please apply your changes to the latest version and try again"))
}

/// Changes what stands on the server's own behalf, without admission; `change` says whether it changed anything.
pub(crate) async fn modify_internal(scope: &Scope, change: impl Fn(&mut Value) -> bool) -> Result<Stored> {
    for _ in 0..RETRIES_MAX {
        let Some(base) = scope.current().await? else { return Err(scope.not_found()) };
        let mut object = object::decode_kv(&base)?;
        if !change(&mut object) {
            return Ok(Stored::of(&base));
        }
        if let Outcome::Stored(stored) = Admitted::internal(scope, object, Some(&base))?.commit(scope).await? {
            return Ok(stored);
        }
    }
    Err(scope.conflict("the object changes too often; please try again"))
}

/// What happens to an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// meta/v1 DeleteOptions.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub grace_s: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Whether a body may be DeleteOptions: of no kind, or of that one in a group that takes part.
    pub(crate) fn check_type(body: &Value, api_version: &str) -> Result<()> {
        let misfit = |found: &str| {
            let text = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
            let why = format!("json: cannot unmarshal {found} into Go value of type {text}");
            Err(Error::bad_request(format!("couldn't get version/kind; json parse error: {why}")))
        };
        match body {
            Value::Array(_) => return misfit("array"),
            Value::String(_) => return misfit("string"),
            Value::Number(_) => return misfit("number"),
            Value::Bool(_) => return misfit("bool"),
            _ => {}
        }
        let kind = text_at(body, &["kind"]);
        if !matches!(kind, "" | "DeleteOptions") {
            let version = Some(text_at(body, &["apiVersion"])).filter(|v| !v.is_empty()).unwrap_or(api_version);
            return Err(Error::bad_request(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\""
            )));
        }
        for (field, found) in [("gracePeriodSeconds", body.get("gracePeriodSeconds"))] {
            if found.is_some_and(Value::is_string) {
                let text = "json: cannot unmarshal string into Go struct field";
                return Err(Error::bad_request(format!("{text} DeleteOptions.{field} of type int64")));
            }
        }
        Ok(())
    }

    /// As webhooks see it.
    fn to_value(&self, dry_run: bool) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(grace_s) = self.grace_s {
            value["gracePeriodSeconds"] = grace_s.into();
        }
        if let Some(propagation) = self.propagation {
            value["propagationPolicy"] = format!("{propagation:?}").into();
        }
        for (key, text) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(text) = text {
                value["preconditions"][key] = text.as_str().into();
            }
        }
        if dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }

    /// From the body (may be null); the query says the rest.
    pub(crate) fn read(body: &Value, query: &crate::path::Query) -> Result<Self> {
        let text = |path: &[&str]| Some(text_at(body, path).to_owned()).filter(|t| !t.is_empty());
        let policy = text(&["propagationPolicy"]).or_else(|| query.text("propagationPolicy").map(str::to_owned));
        let orphan = body.get("orphanDependents").and_then(Value::as_bool).or(query.optional_flag("orphanDependents"));
        let propagation = match (policy.as_deref(), orphan) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(_), _) | (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        };
        let all = |value: &Value| value.as_array().is_some_and(|list| list.iter().any(|v| v == "All"));
        Ok(Self {
            grace_s: match body.get("gracePeriodSeconds").and_then(Value::as_i64) {
                Some(grace) => Some(grace),
                None => query.number("gracePeriodSeconds")?,
            },
            propagation,
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            dry_run: query.dry_run() || body.get("dryRun").is_some_and(all),
        })
    }
}

/// What a deletion came to.
pub(crate) enum Deleted {
    /// The object is gone; it stood like this.
    Gone(Stored),
    /// It stands until its finalizers are done.
    Going(Stored),
}

pub(crate) async fn delete(scope: &mut Scope, options: &DeleteOptions) -> Result<Deleted> {
    scope.dry_run |= options.dry_run;
    for _ in 0..RETRIES_MAX {
        let Some(base) = scope.current().await? else { return Err(scope.not_found()) };
        let old = object::decode_kv(&base)?;
        check_preconditions(scope, &old, options)?;
        if scope.kind.is_namespace() && IMMORTAL_NAMESPACES.contains(&scope.name.as_str()) {
            return Err(Error::forbidden("", "namespaces", &scope.name, "this namespace may not be deleted"));
        }
        scope.options = options.to_value(scope.dry_run);
        admit_deletion(scope, &base).await?;
        let mut object = old.clone();
        mark_deleted(scope, &mut object, options);
        if is_done(&scope.kind, &object) {
            match Admitted::deletion(scope, &base).commit(scope).await? {
                Outcome::Stored(stored) => return Ok(Deleted::Gone(stored)),
                Outcome::Conflict { .. } => continue,
            }
        }
        match Admitted::internal(scope, object, Some(&base))?.commit(scope).await? {
            Outcome::Stored(stored) => return Ok(Deleted::Going(stored)),
            Outcome::Conflict { .. } => {}
        }
    }
    Err(scope.conflict("the object changes too often to delete it; please try again"))
}

/// Namespaces that every cluster keeps.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

fn check_preconditions(scope: &Scope, old: &Value, options: &DeleteOptions) -> Result<()> {
    let kind = &scope.kind;
    let refuse = |why: String| Err(Error::conflict(&kind.group, &kind.kind, &scope.name, why));
    if let Some(asked) = &options.uid
        && asked != object::uid(old)
    {
        let stands = object::uid(old);
        return refuse(format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({stands}). The object might have \
             been deleted and then recreated"
        ));
    }
    if let Some(asked) = &options.resource_version
        && asked != object::resource_version(old)
    {
        let stands = object::resource_version(old);
        return refuse(format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({stands}). \
             The object might have been modified"
        ));
    }
    Ok(())
}

pub(crate) const ORPHAN_FINALIZER: &str = "orphan";
pub(crate) const FOREGROUND_FINALIZER: &str = "foregroundDeletion";

/// Sets what says that an object is to go: finalizers by the policy, the timestamp, the grace period.
fn mark_deleted(scope: &Scope, object: &mut Value, options: &DeleteOptions) {
    if let Some(policy) = options.propagation {
        let mut list: Vec<String> = object::finalizers(object)
            .filter(|f| !matches!(*f, ORPHAN_FINALIZER | FOREGROUND_FINALIZER))
            .map(str::to_owned)
            .collect();
        match policy {
            Propagation::Orphan => list.push(ORPHAN_FINALIZER.to_owned()),
            Propagation::Foreground => list.push(FOREGROUND_FINALIZER.to_owned()),
            Propagation::Background => {}
        }
        object::set_finalizers(object, list);
    }
    let grace_s = grace_s(&scope.kind, object, options);
    let now = scope.server.now();
    let going = object::is_deleting(object);
    let metadata = meta_mut(object);
    let before = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    if !going || before.is_some_and(|before| grace_s < before) {
        let at = now.checked_add(jiff::SignedDuration::from_secs(grace_s)).unwrap_or(now);
        metadata.insert("deletionTimestamp".into(), rfc3339(at).into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace_s.into());
    }
    if !going && let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    if scope.kind.is_namespace() {
        set_at(object, &["status", "phase"], "Terminating".into());
    }
    if !going && scope.kind.group == crate::crd::GROUP {
        let condition = json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            "lastTransitionTime": rfc3339(now),
        });
        if let Some(list) = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
            list.push(condition);
        }
        let mut finalizers: Vec<String> = object::finalizers(object).map(str::to_owned).collect();
        if !finalizers.iter().any(|f| f == crate::crd::CLEANUP_FINALIZER) {
            finalizers.push(crate::crd::CLEANUP_FINALIZER.to_owned());
        }
        object::set_finalizers(object, finalizers);
    }
}

/// Only pods that a node runs are given time; the node says when they are gone.
fn grace_s(kind: &Kind, object: &Value, options: &DeleteOptions) -> i64 {
    let is_pod = kind.group.is_empty() && kind.plural == "pods";
    let finished = matches!(text_at(object, &["status", "phase"]), "Succeeded" | "Failed");
    if !is_pod || finished || text_at(object, &["spec", "nodeName"]).is_empty() {
        return 0;
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    options.grace_s.or(own).unwrap_or(30).max(0)
}

/// Objects that are deleted, or counted, in one go.
const PAGE_ITEMS: usize = 500;

/// Calls `take` for each object of a kind in a namespace (empty: everywhere), as they stand at one revision.
pub(crate) async fn for_each(
    server: &crate::server::Server,
    kind: &Kind,
    namespace: &str,
    mut take: impl FnMut(KeyValue) -> Result<()>,
) -> Result<()> {
    let mut range = Range::prefix(kind.storage.prefix_in(namespace));
    let mut at = At::Latest;
    loop {
        let page = server.store().range(range.clone(), at, PAGE_ITEMS).await.map_err(store_error)?;
        let Some(last) = page.items.last() else { return Ok(()) };
        range.start = after_key(&last.key);
        at = At::Exact(page.revision);
        let done = page.remaining == 0;
        for kv in page.items {
            take(kv)?;
        }
        if done {
            return Ok(());
        }
    }
}

/// The first key behind `key`.
pub(crate) fn after_key(key: &[u8]) -> bytes::Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

/// Takes the namespace's own finalizer away, and with the last one the namespace.
pub(crate) async fn finalize_namespace(scope: &Scope) -> Result<Stored> {
    modify_internal(scope, |namespace| {
        let Some(list) = namespace.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) else { return false };
        list.retain(|f| f != strategy::NAMESPACE_FINALIZER);
        let done = list.is_empty();
        if done && !has_namespace_finalizers(namespace) {
            set_at(namespace, &["spec"], json!({}));
        }
        true
    })
    .await
}

/// Creation time, for age limits; zero if it cannot be read.
pub(crate) fn created_at(object: &Value) -> jiff::Timestamp {
    meta(object)
        .and_then(|m| m.get("creationTimestamp"))
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
