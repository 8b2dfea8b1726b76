//! What can go wrong in a call, sorted by what a caller can do about it.

use std::{error::Error as StdError, fmt, time::Duration};

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::endpoint::Service;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest part of a cloud's own message that is kept.
pub const MESSAGE_LIMIT_BYTES: usize = 1024;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The object or endpoint does not exist (404).
    NotFound,
    /// The object is in a state that forbids the call now: in use, busy, exists already (409).
    Conflict,
    /// The project's quota is used up (403 or 413 or 409 with a message that says so).
    Quota,
    /// The credentials are wrong or do not allow the call (401, 403).
    Forbidden,
    /// The request itself is wrong (other 4xx).
    Invalid,
    /// Too many requests (429, or 413 with Retry-After).
    RateLimited,
    /// The cloud failed (5xx).
    Server,
    /// No answer came: name resolution, connection, TLS.
    Transport,
    /// No answer came in time.
    Timeout,
    /// An answer came that cannot be read, or is larger than the limit.
    Unreadable,
    /// The client's own settings do not suffice, for example no endpoint for a service in the region.
    Configuration,
}

impl Class {
    /// Whether the same call may well succeed later with nothing changed by a person.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Conflict | Self::RateLimited | Self::Server | Self::Transport | Self::Timeout)
    }
}

/// A call that failed: which, why, and the cloud's own words.
pub struct Error(Box<Inner>);

struct Inner {
    class: Class,
    service: Service,
    method: Method,
    path: String,
    status: Option<StatusCode>,
    message: String,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    put_off: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(class: Class, call: (Service, &Method, &str), message: impl Into<String>) -> Self {
        let (service, method, path) = call;
        let mut message = message.into();
        truncate(&mut message, MESSAGE_LIMIT_BYTES);
        Self(Box::new(Inner {
            class,
            service,
            method: method.clone(),
            path: path.to_owned(),
            status: None,
            message,
            request_id: None,
            retry_after: None,
            put_off: false,
            source: None,
        }))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn configuration(service: Service, message: impl Into<String>) -> Self {
        Self::new(Class::Configuration, (service, &Method::GET, ""), message)
    }

    /// A call that is not made, because the service has asked to be left alone for so long.
    pub(crate) fn held_back(call: (Service, &Method, &str), message: &str, left: Duration) -> Self {
        let mut error = Self::new(Class::RateLimited, call, message);
        error.0.retry_after = Some(left);
        error
    }

    /// A call that is not made, because its pass is over.
    pub(crate) fn put_off(call: (Service, &Method, &str)) -> Self {
        let mut error = Self::new(Class::Timeout, call, "the cloud answers slowly: the call is made next time");
        error.0.put_off = true;
        error
    }

    /// The error that a response's status, headers and body tell of.
    pub(crate) fn from_response(
        call: (Service, &Method, &str),
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let message = message_of(body).unwrap_or_else(|| status.canonical_reason().unwrap_or("no message").to_owned());
        let retry_after = headers.get("retry-after").and_then(|v| v.to_str().ok()).and_then(parse_retry_after);
        let mut error = Self::new(classify(status, &message, retry_after.is_some()), call, message);
        error.0.status = Some(status);
        error.0.retry_after = retry_after;
        error.0.request_id = ["x-openstack-request-id", "x-compute-request-id"]
            .iter()
            .find_map(|name| headers.get(*name))
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        error
    }

    pub fn class(&self) -> Class {
        self.0.class
    }

    pub fn is_not_found(&self) -> bool {
        self.0.class == Class::NotFound
    }

    pub fn is_conflict(&self) -> bool {
        self.0.class == Class::Conflict
    }

    pub fn service(&self) -> Service {
        self.0.service
    }

    /// Whether the cloud may yet make what it gave no answer to in time. A connection that broke is no such case: what was
    /// done is done by then.
    pub fn may_yet_create(&self) -> bool {
        let made = self.0.class == Class::Timeout && !self.0.put_off;
        made && self.0.method == Method::POST && self.0.service != Service::Identity
    }

    /// The call was not made, because the pass that it belongs to had no time left ([`crate::Pass`]).
    pub fn is_put_off(&self) -> bool {
        self.0.put_off
    }

    /// Nothing can have changed in the cloud by the call.
    pub fn is_of_a_read(&self) -> bool {
        self.0.method == Method::GET || self.0.service == Service::Identity
    }

    /// The HTTP status, when there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The cloud's own words, at most [`MESSAGE_LIMIT_BYTES`].
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What an operator needs to find the call in the cloud's logs.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// How long the cloud asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { service, method, path, status, message, request_id, .. } = &*self.0;
        if path.is_empty() {
            return write!(f, "{service}: {message}");
        }
        write!(f, "{service}: {method} {path}: ")?;
        if let Some(status) = status {
            write!(f, "{}: ", status.as_u16())?;
        }
        f.write_str(message)?;
        if let Some(id) = request_id {
            write!(f, " ({id})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.class)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

fn classify(status: StatusCode, message: &str, retry_after: bool) -> Class {
    // Nova and Cinder answer 403 or 413, Neutron and Octavia 409 or 403, when a quota is used up: the words decide.
    let lower = message.to_ascii_lowercase();
    let quota = lower.contains("quota") && (lower.contains("exceed") || lower.contains("met for"));
    match status.as_u16() {
        403 | 409 | 413 if quota => Class::Quota,
        413 | 503 if retry_after => Class::RateLimited,
        401 | 403 => Class::Forbidden,
        404 | 410 => Class::NotFound,
        409 => Class::Conflict,
        413 if lower.contains("over limit") => Class::RateLimited,
        408 | 504 => Class::Timeout,
        429 => Class::RateLimited,
        500.. => Class::Server,
        _ => Class::Invalid,
    }
}

/// Seconds; the date form of RFC 9110 is not used by OpenStack and is passed over.
fn parse_retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Finds the human text in the error forms of the services: `{"<kind>": {"message": ..}}` (Nova, Cinder, Keystone,
/// Neutron), `{"faultstring": ..}` (Octavia), HTML or plain text (Glance, proxies).
fn message_of(body: &[u8]) -> Option<String> {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return plain_text(body);
    };
    let object = value.as_object()?;
    let text = |v: &Value| {
        ["message", "faultstring", "description"].iter().find_map(|k| v.get(*k)?.as_str().map(str::to_owned))
    };
    if let Some(found) = text(&value) {
        return Some(found);
    }
    let first = object.values().next()?;
    match first {
        Value::String(s) => Some(s.clone()),
        Value::Array(list) => list
            .first()
            .and_then(|e| e.get("detail").or_else(|| e.get("title")).and_then(Value::as_str).map(str::to_owned)),
        other => text(other),
    }
}

fn plain_text(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body.get(..body.len().min(16 * 1024))?);
    let mut out = String::new();
    let mut in_tag = false;
    for c in text.chars() {
        match c {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                out.push(' ');
            }
            c if !in_tag => out.push(c),
            _ => {}
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

pub(crate) fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> Error {
        let call = (Service::Compute, &Method::POST, "/servers");
        Error::from_response(call, StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn the_services_error_forms_yield_class_and_message() {
        let cases = [
            (
                404,
                r#"{"itemNotFound": {"message": "Instance x could not be found.", "code": 404}}"#,
                Class::NotFound,
                "Instance x could not be found.",
            ),
            (
                403,
                r#"{"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"}}"#,
                Class::Quota,
                "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances",
            ),
            (
                409,
                r#"{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}"#,
                Class::Quota,
                "Quota exceeded for resources: ['port'].",
            ),
            (
                403,
                r#"{"faultcode": "Client", "faultstring": "Quota has been met for resources: Load Balancer", "debuginfo": null}"#,
                Class::Quota,
                "Quota has been met for resources: Load Balancer",
            ),
            (
                401,
                r#"{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}"#,
                Class::Forbidden,
                "The request you have made requires authentication.",
            ),
            (
                503,
                "<html><body><h1>503 Service Unavailable</h1>\nNo server is available</body></html>",
                Class::Server,
                "503 Service Unavailable No server is available",
            ),
            (300, r#"{"errors": [{"status": 404, "title": "Not Found", "detail": "gone"}]}"#, Class::Invalid, "gone"),
            (502, "", Class::Server, "Bad Gateway"),
        ];
        for (status, body, class, message) in cases {
            let error = error(status, body);
            assert_eq!((error.class(), error.message()), (class, message), "{status} {body}");
        }
    }

    #[test]
    fn a_message_is_cut_at_its_limit_on_a_character() {
        let body = format!(r#"{{"e": {{"message": "{}é"}}}}"#, "x".repeat(MESSAGE_LIMIT_BYTES - 1));
        assert_eq!(error(500, &body).message().len(), MESSAGE_LIMIT_BYTES - 1);
    }

    #[test]
    fn retry_after_makes_a_rate_limit() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        headers.insert("x-openstack-request-id", "req-1".parse().unwrap());
        let call = (Service::Network, &Method::GET, "/ports");
        let error = Error::from_response(call, StatusCode::PAYLOAD_TOO_LARGE, &headers, b"{}");
        assert_eq!(error.class(), Class::RateLimited);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(error.to_string(), "network: GET /ports: 413: Payload Too Large (req-1)");
    }
}
