//! Errors, worded and wrapped as each service wraps them.

use http::StatusCode;
use serde_json::{Value, json};

use super::http::Service;

pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// An error as a user of the API sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub status: StatusCode,
    /// Neutron's error type; other services derive theirs from the status.
    pub kind: &'static str,
    pub message: String,
    pub retry_after_s: Option<u32>,
}

impl Fault {
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), retry_after_s: None }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HTTPBadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "HTTPUnauthorized", "The request you have made requires authentication.")
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "HTTPForbidden", message)
    }

    pub fn not_found(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, message)
    }

    pub fn conflict(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, message)
    }

    /// No such path, or nothing here serves it.
    pub fn no_route() -> Self {
        Self::not_found("HTTPNotFound", "The resource could not be found.")
    }

    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "HTTPMethodNotAllowed",
            "The method is not allowed for this resource.",
        )
    }

    pub fn body(&self, service: Service) -> Value {
        let code = self.status.as_u16();
        let message = &self.message;
        match service {
            Service::Network => json!({"NeutronError": {"type": self.kind, "message": message, "detail": ""}}),
            Service::Identity => {
                let title = self.status.canonical_reason().unwrap_or("Error");
                json!({"error": {"code": code, "title": title, "message": message}})
            }
            Service::LoadBalancer => {
                let side = if self.status.is_server_error() { "Server" } else { "Client" };
                json!({"faultcode": side, "faultstring": message, "debuginfo": null})
            }
            Service::Image => {
                let title = self.status.canonical_reason().unwrap_or("Error");
                json!({"code": format!("{code} {title}"), "title": title, "message": message})
            }
            Service::Compute | Service::BlockStorage => {
                let key = match code {
                    400 => "badRequest",
                    401 => "unauthorized",
                    403 => "forbidden",
                    404 => "itemNotFound",
                    405 => "badMethod",
                    409 => "conflictingRequest",
                    413 | 429 => "overLimit",
                    503 => "serviceUnavailable",
                    _ => "computeFault",
                };
                json!({ key: {"code": code, "message": message} })
            }
        }
    }
}
