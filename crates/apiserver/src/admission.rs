//! Admission: who sees each write before it is stored, and may change or refuse it.
//!
//! The order, which is that of kube-apiserver:
//!
//! 1. The request is decoded, checked against the schema, and defaulted; whoever sends it comes to own its fields.
//! 2. The server's own plugins change it: [`plugins`].
//! 3. The platform's own plugins change it ([`Admission::mutate`]), in the order in which the server was given them.
//! 4. Mutating policies, in the order of their names.
//! 5. Mutating webhooks, in the order of the names of their configurations, and as they stand in them. What each leaves is
//!    decoded and defaulted again.
//! 6. If a policy or a webhook changed something, 2 to 5 once more; of policies and webhooks only those that want it.
//! 7. The server sets what is its own (uid, time, generation), and the result is validated.
//! 8. The server's own plugins may refuse, then the platform's own ([`Admission::validate`]), validating policies, and
//!    validating webhooks, all at once.
//! 9. Quotas are charged, in the commit itself.
//!
//! Deletions go through 5 and 8, without an object. What the server writes on its own behalf goes through none of it.
//! Configurations of webhooks and policies themselves are seen by steps 2, 3 and 8, but by no webhook and no policy.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use policy::User;
use serde_json::Value;

pub(crate) mod chain;
pub(crate) mod check;
mod expression;
pub(crate) mod limits;
mod matching;
mod mutations;
mod plugins;
mod policies;
mod quantity;
pub(crate) mod quota;
pub(crate) mod registry;
mod webhooks;

/// The API group of what configures admission.
pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

use crate::{
    field::FieldError,
    status::{Cause, Error},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A stream into an object is opened.
    Connect,
}

impl Operation {
    /// As reviews and metrics name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What admission has said for the audit log; an extension of the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations(pub BTreeMap<String, String>);

/// What is asked of admission, besides the object itself.
#[derive(Clone, Debug)]
pub struct Request {
    pub operation: Operation,
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub user: User,
    pub dry_run: bool,
    /// The object as it stands; none when it is being created.
    pub old: Option<Arc<Value>>,
    /// CreateOptions, UpdateOptions, PatchOptions or DeleteOptions of meta.k8s.io/v1; null of the server's own requests.
    pub options: Value,
}

/// A text for a Warning header.
pub type Warning = String;

/// A refusal.
#[derive(Clone, Debug)]
pub enum Denied {
    /// 403, with the reason.
    Forbidden(String),
    /// 422, with what is wrong with which field.
    Invalid(Vec<FieldError>),
    /// 400, in the words that the webhook of this name has for it: clients look for them.
    Webhook { name: &'static str, why: String },
}

impl Denied {
    /// The Status that a client gets (meta.k8s.io/v1).
    pub fn status(self, request: &Request) -> Value {
        self.into_error(request).to_value()
    }

    pub(crate) fn into_error(self, request: &Request) -> Error {
        match self {
            Self::Forbidden(why) => Error::forbidden(&request.group, &request.resource, &request.name, why),
            Self::Webhook { name, why } => Error::of_webhook(name, &why),
            Self::Invalid(errors) => Error::invalid(&request.group, &request.kind, &request.name, &errors)
                .with_causes(errors.iter().map(Cause::from).collect()),
        }
    }
}

/// Rules that every write goes through; in the order in which the server was given them.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Whether the rules have anything to say about a request; they are not asked otherwise.
    fn concerns(&self, _request: &Request) -> bool {
        true
    }

    /// May change the object, before it is validated; a second time if webhooks have changed it. Not asked for deletions.
    async fn mutate(&self, _request: &Request, _object: &mut Value) -> Result<Vec<Warning>, Denied> {
        Ok(Vec::new())
    }

    /// May refuse; sees what would be stored, or for a deletion what stands.
    async fn validate(&self, _request: &Request, _object: &Value) -> Result<Vec<Warning>, Denied> {
        Ok(Vec::new())
    }
}
