//! The seam for rules of the platform's own: they see each write before it is stored, and may change or refuse it.

use async_trait::async_trait;
use policy::User;
use serde_json::Value;

use crate::{
    field::FieldError,
    status::{Cause, Error},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// As metrics name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

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
    pub old: Option<Value>,
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
}

impl Denied {
    pub(crate) fn into_error(self, request: &Request) -> Error {
        match self {
            Self::Forbidden(why) => Error::forbidden(&request.group, &request.resource, &request.name, why),
            Self::Invalid(errors) => Error::invalid(&request.group, &request.kind, &request.name, &errors)
                .with_causes(errors.iter().map(Cause::from).collect()),
        }
    }
}

/// Rules that every write goes through; in the order in which the server was given them.
#[async_trait]
pub trait Admission: Send + Sync {
    /// May change the object, before it is validated. Not asked for deletions.
    async fn mutate(&self, _request: &Request, _object: &mut Value) -> Result<Vec<Warning>, Denied> {
        Ok(Vec::new())
    }

    /// May refuse; sees what would be stored, or for a deletion what stands.
    async fn validate(&self, _request: &Request, _object: &Value) -> Result<Vec<Warning>, Denied> {
        Ok(Vec::new())
    }
}
