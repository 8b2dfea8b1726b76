//! Answers in bytes: JSON, YAML or protobuf, with warnings, and failures as their `Status`.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::{
    admission::Annotations,
    body::Media,
    negotiate::PROTOBUF,
    protobuf::write,
    status::{Error, Result},
    write::Scope,
};

pub(crate) fn to_vec(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Error::internal)
}

pub(crate) fn in_media(code: StatusCode, json: Vec<u8>, media: Media) -> Result<Response> {
    if media == Media::Json {
        return Ok(respond(code, "application/json", json.into()));
    }
    let value: Value = serde_json::from_slice(&json).map_err(Error::internal)?;
    if media == Media::Yaml {
        return yaml(code, &value);
    }
    // What has no message is told in JSON, which whoever takes protobuf reads too.
    Ok(protobuf(code, &value).unwrap_or_else(|| respond(code, "application/json", json.into())))
}

fn protobuf(code: StatusCode, value: &Value) -> Option<Response> {
    Some(respond(code, PROTOBUF, write::object(value)?.into()))
}

pub(crate) fn yaml(code: StatusCode, value: &Value) -> Result<Response> {
    let text = serde_saphyr::to_string(value).map_err(Error::internal)?;
    Ok(respond(code, "application/yaml", text.into()))
}

pub(crate) fn respond(code: StatusCode, content_type: &str, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = code;
    let content_type = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A Warning header for each text (RFC 7234, code 299, as Kubernetes sends them).
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// What admission had to say of a write: warnings for the caller, annotations for the audit log.
pub(crate) fn tell(response: &mut Response, scope: &Scope) {
    warn(response, &scope.warnings);
    if !scope.annotations.is_empty() {
        response.extensions_mut().insert(Annotations(scope.annotations.clone()));
    }
}

pub(crate) fn failure(error: &Error, media: Media) -> Response {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if code.is_server_error() {
        tracing::warn!(code = code.as_u16(), "{error}");
    }
    if let Some(text) = error.plain_text() {
        if text.is_empty() {
            return code.into_response();
        }
        return respond(code, "text/plain; charset=utf-8", text.to_owned().into());
    }
    let value = error.to_value();
    let wanted = match media {
        Media::Json => None,
        Media::Yaml => yaml(code, &value).ok(),
        Media::Protobuf => protobuf(code, &value),
    };
    let mut response = wanted.unwrap_or_else(|| respond(code, "application/json", value.to_string().into()));
    warn(&mut response, error.warnings());
    if !error.annotations().is_empty() {
        response.extensions_mut().insert(Annotations(error.annotations().clone()));
    }
    if let Some(retry_after_s) = error.retry_after_s() {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after_s.into());
    }
    response
}
