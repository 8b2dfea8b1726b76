//! Puts the pure rules of `api` into the API server: admission, and conversion between versions.

use api::conversion;
use apiserver::{Admission, Conversion, Denied, FieldError, FieldErrorKind, Operation, Request, Warning};
use async_trait::async_trait;
use serde_json::Value;

/// Defaults and validation of the kinds that Skep serves.
pub struct Rules;

#[async_trait]
impl Admission for Rules {
    async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() {
            return Ok(Vec::new());
        }
        if !is_older(request) {
            api::admission::default(&request.group, &request.kind, object);
            return Ok(Vec::new());
        }
        // The rules speak of v1beta2.
        let hub = converted(object, conversion::HUB)?;
        let mut defaulted = hub.clone();
        api::admission::default(&request.group, &request.kind, &mut defaulted);
        if defaulted != hub {
            *object = converted(&defaulted, conversion::SPOKE)?;
        }
        Ok(Vec::new())
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() || request.operation == Operation::Delete {
            return Ok(Vec::new());
        }
        let problems = if is_older(request) {
            let object = converted(object, conversion::HUB)?;
            let old = request.old.as_ref().map(|old| converted(old, conversion::HUB)).transpose()?;
            api::admission::validate(&request.group, &request.kind, &object, old.as_ref())
        } else {
            api::admission::validate(&request.group, &request.kind, object, request.old.as_ref())
        };
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

fn is_older(request: &Request) -> bool {
    request.version == conversion::SPOKE && conversion::converts(&request.group, &request.kind)
}

fn converted(object: &Value, version: &str) -> Result<Value, Denied> {
    conversion::convert(object, version).map_err(|error| Denied::Forbidden(error.to_string()))
}

/// The versions of the kinds that Skep serves.
pub struct Versions;

impl Conversion for Versions {
    fn converts(&self, group: &str, kind: &str) -> bool {
        conversion::converts(group, kind)
    }

    fn convert(&self, object: &Value, version: &str) -> Result<Value, String> {
        conversion::convert(object, version).map_err(|error| error.to_string())
    }
}
