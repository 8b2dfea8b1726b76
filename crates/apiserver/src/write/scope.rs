//! What a write is about, on whose behalf, and what is told of it.

use std::{collections::BTreeMap, sync::Arc};

use policy::User;
use serde_json::Value;
use store::KeyValue;

use super::get;
use crate::{
    admission::{Operation, Request},
    field::FieldError,
    kinds::Kind,
    server::Server,
    status::{Error, Result},
};

/// What becomes of fields that the schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What a write is about, and on whose behalf.
pub(crate) struct Scope {
    pub server: Server,
    pub user: Arc<User>,
    pub kind: Arc<Kind>,
    pub namespace: String,
    /// Empty when the body is to say it.
    pub name: String,
    pub subresource: String,
    pub dry_run: bool,
    pub manager: String,
    pub validation: FieldValidation,
    /// Why the user may not make what is not there by a patch, if so.
    pub create_denied: Option<Error>,
    /// What was there twice in the body, in words.
    pub duplicates: Vec<String>,
    /// The object comes from a patch.
    pub is_patch: bool,
    /// What a patch has made of the object, for errors that show it: printed if unknown fields are one.
    pub patched: Option<String>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
    /// The request's options, as admission sees them.
    pub options: Value,
    /// What admission says for the audit log.
    pub annotations: BTreeMap<String, String>,
    /// The request has been through admission in another form.
    pub admitted: bool,
}

impl Scope {
    /// For the server's own writes.
    pub(crate) fn internal(server: &Server, user: &Arc<User>, kind: Arc<Kind>, namespace: &str, name: &str) -> Self {
        Self {
            server: server.clone(),
            user: Arc::clone(user),
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            dry_run: false,
            manager: "kube-apiserver".to_owned(),
            validation: FieldValidation::Ignore,
            create_denied: None,
            duplicates: Vec::new(),
            is_patch: false,
            patched: None,
            warnings: Vec::new(),
            options: Value::Null,
            annotations: BTreeMap::new(),
            admitted: false,
        }
    }

    pub(crate) fn key(&self) -> String {
        self.kind.storage.key(&self.namespace, &self.name)
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::not_found(&self.kind.group, &self.kind.plural, &self.name)
    }

    pub(crate) fn conflict(&self, why: &str) -> Error {
        Error::conflict(&self.kind.group, &self.kind.plural, &self.name, why)
    }

    /// A replacement of an object that is another by now.
    pub(crate) fn uid_conflict(&self, asked: &str, stands: &str) -> Error {
        let group = if self.kind.is_custom() { format!("{}/", self.kind.group) } else { String::new() };
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        let key = format!("/registry/{group}{}/{namespace}{}", self.kind.plural, self.name);
        self.conflict(&format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
             UID in precondition: {asked}, UID in object meta: {stands}"
        ))
    }

    pub(super) fn invalid(&self, name: &str, errors: &[FieldError]) -> Error {
        Error::invalid(&self.kind.group, &self.kind.kind, name, errors).with_warnings(&self.warnings)
    }

    pub(crate) fn admission_request(&self, operation: Operation, old: Option<&Arc<Value>>) -> Request {
        Request {
            operation,
            group: self.kind.group.to_string(),
            version: self.kind.version.to_string(),
            kind: self.kind.kind.to_string(),
            resource: self.kind.plural.to_string(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            user: (*self.user).clone(),
            dry_run: self.dry_run,
            old: old.cloned(),
            options: self.options.clone(),
        }
    }

    /// The object as it stands in the store.
    pub(crate) async fn current(&self) -> Result<Option<KeyValue>> {
        get(&self.server, self.key()).await
    }
}
