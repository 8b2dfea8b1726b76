//! What is no resource: discovery, documents, and how others check tokens.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    answer::{in_media, respond},
    body::Media,
    discovery, documents,
    negotiate::{self, Answer, Form},
    server::Server,
    status::{Error, Result},
};

pub(super) fn serve(server: &Server, segments: &[String], headers: &HeaderMap) -> Result<Response> {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let ["openapi", rest @ ..] = &segments[..] {
        return documents::serve(server, rest, headers);
    }
    if let Some(response) = identity(server, &segments, headers) {
        return response;
    }
    if let ["apis", group, version] = segments[..]
        && let Some(registered) = server.catalog().registered(group, version)
    {
        return registered.resources(server);
    }
    let (content_type, value) = discovery::serve(server, &segments, headers)?;
    let answer = match content_type.as_str() {
        "application/json" if segments.first().is_some_and(|s| matches!(*s, "api" | "apis")) => {
            negotiate::answer(headers, false, true)?
        }
        _ => Answer { form: Form::Object, media: Media::Json, list_form: None, v1beta1: false },
    };
    let bytes = serde_json::to_vec(&value).map_err(Error::internal)?;
    if answer.media != Media::Json {
        return in_media(StatusCode::OK, bytes, answer.media);
    }
    Ok(respond(StatusCode::OK, &content_type, bytes.into()))
}

/// Where others learn how to check service account tokens (OpenID Connect discovery).
fn identity(server: &Server, segments: &[&str], headers: &HeaderMap) -> Option<Result<Response>> {
    let keys = server.state().keys.as_ref()?;
    let (content_type, value) = match segments {
        [".well-known", "openid-configuration"] => {
            let host =
                headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("kubernetes.default.svc");
            ("application/json", keys.discovery(&format!("https://{host}/openid/v1/jwks")))
        }
        ["openid", "v1", "jwks"] => {
            const MEDIA: &str = "application/jwk-set+json";
            if !negotiate::takes(headers, MEDIA) {
                return Some(Err(Error::no_representation(&[MEDIA])));
            }
            (MEDIA, keys.key_set())
        }
        _ => return None,
    };
    let mut response = respond(StatusCode::OK, content_type, value.to_string().into());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(Ok(response))
}
