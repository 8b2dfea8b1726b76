//! Puts the pure rules of `api` into the API server's admission.

use apiserver::{Admission, Denied, FieldError, FieldErrorKind, Operation, Request, Warning};
use async_trait::async_trait;
use serde_json::Value;

/// Defaults and validation of the kinds that Skep serves.
pub struct Rules;

#[async_trait]
impl Admission for Rules {
    async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<Warning>, Denied> {
        if request.subresource.is_empty() {
            api::admission::default(&request.group, &request.kind, object);
        }
        Ok(Vec::new())
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() || request.operation == Operation::Delete {
            return Ok(Vec::new());
        }
        let problems = api::admission::validate(&request.group, &request.kind, object, request.old.as_ref());
        if problems.is_empty() {
            return Ok(Vec::new());
        }
        let errors = problems.into_iter().map(|problem| FieldError {
            kind: match problem.kind {
                api::admission::ProblemKind::Required => FieldErrorKind::Required,
                api::admission::ProblemKind::Invalid => FieldErrorKind::Invalid,
                api::admission::ProblemKind::Forbidden => FieldErrorKind::Forbidden,
                api::admission::ProblemKind::Duplicate => FieldErrorKind::Duplicate,
            },
            path: problem.path,
            value: problem.value,
            detail: problem.detail,
        });
        Err(Denied::Invalid(errors.collect()))
    }
}
