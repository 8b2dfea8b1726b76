//! The last step of a write: what is admitted, and how it is committed.

use bytes::Bytes;
use serde_json::Value;
use store::{Commit, Expect, Guard, KeyValue, Op, Revision};

use super::{OBJECT_BYTES_MAX, RETRIES_MAX, Scope, get, store_error};
use crate::{
    admission::quota,
    collector::Work,
    kinds::{Kind, split_api_version},
    object::{self, meta},
    service_ip,
    status::{Cause, Error, Result},
};

enum Action {
    Put,
    Delete,
    /// What would be stored is stored already.
    Nothing,
}

/// An object that has passed everything; the only thing that can be committed.
pub(crate) struct Admitted {
    bytes: Bytes,
    key: String,
    action: Action,
    /// The revision that is replaced; none for a new object.
    base: Option<Revision>,
    /// What stands at it, for quotas.
    before: Option<Bytes>,
    /// What is written in the same commit: keys put here must not be there yet.
    pub(super) also: Vec<Op>,
    /// The name was made up, so that another can be tried.
    pub generated: bool,
}

/// What became of a commit.
pub(crate) enum Outcome {
    Stored(Stored),
    /// Somebody was faster.
    Conflict {
        on_self: bool,
    },
}

/// An object as it lies in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub bytes: Bytes,
    /// None if nothing was stored, because only a dry run was asked for.
    pub revision: Option<Revision>,
}

impl Stored {
    pub(crate) fn of(kv: &KeyValue) -> Self {
        Self { bytes: kv.value.clone(), revision: Some(kv.modified) }
    }
}

impl Admitted {
    pub(super) fn new(scope: &Scope, mut object: Value, base: Option<&KeyValue>, generated: bool) -> Result<Self> {
        let kind = &scope.kind;
        let gone = base.is_some() && is_done(kind, &object);
        if let Some((_, to_stored)) = kind.convert {
            to_stored(&mut object);
        }
        as_stored(scope, &mut object);
        let bytes: Bytes = object::encode(&kind.storage_head, &object).into();
        if bytes.len() > OBJECT_BYTES_MAX {
            return Err(Error::object_too_large());
        }
        let action = match base {
            _ if gone => Action::Delete,
            Some(base) if base.value == bytes => Action::Nothing,
            _ => Action::Put,
        };
        let also = match (&action, base) {
            (Action::Delete, Some(base)) => service_ip::release(kind, &base.value).into_iter().collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            bytes,
            key: scope.key(),
            action,
            base: base.map(|kv| kv.modified),
            before: base.map(|kv| kv.value.clone()),
            also,
            generated,
        })
    }

    /// An object that is made or changed by the server itself.
    pub(crate) fn internal(scope: &Scope, object: Value, base: Option<&KeyValue>) -> Result<Self> {
        Self::new(scope, object, base, false)
    }

    /// What stands, about to be deleted.
    pub(crate) fn deletion(scope: &Scope, base: &KeyValue) -> Self {
        let base_revision = Some(base.modified);
        Self {
            bytes: base.value.clone(),
            key: scope.key(),
            action: Action::Delete,
            base: base_revision,
            before: Some(base.value.clone()),
            also: service_ip::release(&scope.kind, &base.value).into_iter().collect(),
            generated: false,
        }
    }

    pub(crate) async fn commit(self, scope: &Scope) -> Result<Outcome> {
        let deleted = matches!(self.action, Action::Delete);
        // What stays the same is written again if it is to be encrypted otherwise than it is.
        if matches!(self.action, Action::Nothing)
            && (scope.dry_run || !scope.server.state().sealed.is_stale(&self.key).await.map_err(store_error)?)
        {
            return Ok(Outcome::Stored(Stored { bytes: self.bytes, revision: self.base }));
        }
        let mut guard = vec![(Bytes::from(self.key.clone()), self.base.map_or(Expect::Absent, Expect::ModifiedAt))];
        if self.base.is_none() && scope.kind.namespaced {
            guard.push(namespace_guard(scope).await?);
        }
        let after = (!deleted).then_some(&self.bytes[..]);
        let known = scope.server.limits().quotas(&scope.namespace);
        let mut charge = quota::charge(scope, &self.key, after, self.before.as_deref()).await?;
        if scope.dry_run {
            let stands = get(&scope.server, self.key).await?;
            return Ok(match (stands.map(|kv| kv.modified), self.base) {
                (stands, base) if stands == base => Outcome::Stored(Stored { bytes: self.bytes, revision: self.base }),
                _ => Outcome::Conflict { on_self: true },
            });
        }
        let key = Bytes::from(self.key);
        let op = if deleted {
            Op::Delete { key: key.clone() }
        } else {
            Op::Put { key: key.clone(), value: self.bytes.clone() }
        };
        let mut ops = vec![op];
        for op in self.also {
            if let Op::Put { key, .. } = &op {
                guard.push((key.clone(), Expect::Absent));
            }
            ops.push(op);
        }
        for _ in 0..RETRIES_MAX {
            let (mut guard, mut ops) = (guard.clone(), ops.clone());
            guard.append(&mut charge.guard.clone());
            ops.append(&mut charge.ops);
            match scope.server.store().commit(Guard(guard), ops).await.map_err(store_error)? {
                Commit::Done(revision) => {
                    scope.server.take_in(&key, revision, (!deleted).then_some(&self.bytes[..]), false);
                    recount_new(scope, &known);
                    // What is gone is shown as it last stood.
                    let shown = if deleted { self.base } else { Some(revision) };
                    return Ok(Outcome::Stored(Stored { bytes: self.bytes, revision: shown }));
                }
                // Only a quota has changed: others wrote in the same namespace.
                Commit::Conflict { key: at, .. } if charge.is_about(&at) => {
                    let (name, after) = (String::from_utf8_lossy(&key), (!deleted).then_some(&self.bytes[..]));
                    charge = quota::charge(scope, &name, after, self.before.as_deref()).await?;
                }
                Commit::Conflict { key: at, .. } => return Ok(Outcome::Conflict { on_self: at == key }),
            }
        }
        Err(scope.conflict("the quotas of the namespace change too often; please try again"))
    }
}

/// Quotas that were made while this was written: whoever counted for them may not have seen it.
fn recount_new(scope: &Scope, known: &[String]) {
    if !scope.kind.namespaced {
        return;
    }
    for name in scope.server.limits().quotas(&scope.namespace) {
        if !known.contains(&name) {
            scope.server.state().collector.push(Work::Recount(scope.namespace.clone(), name));
        }
    }
}

/// What the version that is stored does not know is lost on the way there.
fn as_stored(scope: &Scope, object: &mut Value) {
    let kind = &scope.kind;
    if !kind.is_custom() || kind.api_version() == kind.storage_api_version {
        return;
    }
    let (group, version) = split_api_version(&kind.storage_api_version);
    let stored = scope.server.catalog().find(group, version, &kind.plural);
    if let Some(schema) = stored.and_then(|stored| stored.schema()) {
        schema.prune(object);
        schema.default(object);
    }
}

/// Whether nothing holds a deleted object any more.
pub(crate) fn is_done(kind: &Kind, object: &Value) -> bool {
    let grace = meta(object).and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64).unwrap_or(0);
    object::is_deleting(object)
        && grace == 0
        && object::finalizers(object).next().is_none()
        && !(kind.is_namespace() && has_namespace_finalizers(object))
}

pub(crate) fn has_namespace_finalizers(namespace: &Value) -> bool {
    namespace.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// Nothing is made in a namespace that is not there or is going; the guard keeps it so until the commit.
pub(crate) async fn namespace_guard(scope: &Scope) -> Result<(Bytes, Expect)> {
    let key = format!("{}core/namespaces/{}", crate::kinds::ROOT, scope.namespace);
    let Some(found) = get(&scope.server, key.clone()).await? else {
        return Err(Error::not_found("", "namespaces", &scope.namespace));
    };
    if object::Partial::read(&found.value)?.metadata.deletion_timestamp.is_some() {
        let namespace = &scope.namespace;
        let cause = Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        };
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let error = Error::forbidden(&scope.kind.group, &scope.kind.plural, &scope.name, why);
        return Err(error.with_causes(vec![cause]));
    }
    Ok((key.into(), Expect::ModifiedAt(found.modified)))
}
