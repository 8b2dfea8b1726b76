//! What goes to an extension's server and where, and what of its answer can be read. Pure: who connects is another's matter.
//!
//! Source: kubernetes-sigs/cluster-api internal/runtime/client.

use serde_json::{Map, Value};

use super::{ClientConfig, ExtensionConfig, ExtensionHandler};
use crate::topology::hooks::{Hook, Question, VERSION};

/// Of a response, no more is read (`maxExtensionResponseBodyBytes`).
pub const RESPONSE_BYTES_MAX: usize = 20 << 20;
/// A handler that does not say how long it may take.
pub const TIMEOUT_S: u64 = 10;
const PORT: u16 = 443;

/// Where a server is.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose certificate is expected.
    pub name: String,
    pub port: u16,
    pub authority: String,
    pub path: String,
    /// Namespace and name.
    pub service: Option<(String, String)>,
}

/// Where the server of an extension is.
///
/// # Errors
/// It is no place that HTTPS reaches.
pub fn place(config: &ClientConfig) -> Result<Place, String> {
    if let Some(service) = &config.service {
        let name = format!("{}.{}.svc", service.name, service.namespace);
        let port = service.port.map_or(Ok(PORT), u16::try_from).map_err(|_| "there is no such port".to_owned())?;
        return Ok(Place {
            authority: format!("{name}:{port}"),
            name,
            port,
            path: service.path.clone().unwrap_or_default(),
            service: Some((service.namespace.clone(), service.name.clone())),
        });
    }
    let url = config.url.as_deref().unwrap_or_default();
    let uri: http::Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("{url:?} is not https"));
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Place {
        name: host,
        port: uri.port_u16().unwrap_or(PORT),
        authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: uri.path().to_owned(),
        service: None,
    })
}

/// The path of a hook's handler; discovery has none.
pub fn path(prefix: &str, hook: &str, handler: &str, timeout_s: u64) -> String {
    let end = if handler.is_empty() { String::new() } else { format!("/{}", handler.to_lowercase()) };
    let (prefix, version) = (prefix.trim_end_matches('/'), VERSION);
    format!("{prefix}/{version}/{}{end}?timeout={timeout_s}s", hook.to_lowercase())
}

/// A request as it is sent.
pub fn envelope(hook: &str, mut request: Value) -> Value {
    request["apiVersion"] = VERSION.into();
    request["kind"] = format!("{hook}Request").into();
    request
}

/// What a handler is asked: the question, with the extension's settings and those of the question, which win.
pub fn request(config: &ExtensionConfig, question: &Question) -> Value {
    let mut request = question.request.clone();
    let mut settings: Map<String, Value> =
        config.spec.settings.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    settings.extend(question.settings.as_object().cloned().unwrap_or_default());
    if !settings.is_empty() {
        request["settings"] = settings.into();
    }
    request
}

/// The server's own name for a handler.
pub fn own_name<'a>(config: &ExtensionConfig, handler: &'a ExtensionHandler) -> &'a str {
    let extension = config.metadata.name.as_deref().unwrap_or_default();
    handler.name.strip_suffix(extension).and_then(|name| name.strip_suffix('.')).unwrap_or(&handler.name)
}

/// How long a handler may take.
pub fn timeout_s(handler: &ExtensionHandler) -> u64 {
    let said = handler.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    said.filter(|seconds| *seconds > 0).unwrap_or(TIMEOUT_S)
}

/// Handlers of a server that has been found. They stay while it cannot be asked for them again: a server that is down
/// for a moment lets nothing pass.
pub fn handlers(config: &ExtensionConfig) -> impl Iterator<Item = &ExtensionHandler> {
    config.status.iter().flat_map(|status| &status.handlers)
}

/// The hook of a handler; `None` if it is not known here.
pub fn hook(handler: &ExtensionHandler) -> Option<Hook> {
    Hook::of(&handler.request_hook.hook)
}

/// A pause is a number of 32 bits, as published: what is none must not be taken for "go on".
///
/// # Errors
/// It is none.
pub fn readable(response: Value) -> Result<Value, String> {
    let pause = &response["retryAfterSeconds"];
    match pause.is_null() || pause.as_i64().is_some_and(|seconds| i32::try_from(seconds).is_ok_and(|s| s >= 0)) {
        true => Ok(response),
        false => Err(format!("failed to decode response: retryAfterSeconds is {pause}, no pause")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::ServiceReference;

    #[test]
    fn handlers_are_where_they_are_published_to_be() {
        let url = |url: &str| ClientConfig { url: Some(url.to_owned()), ..ClientConfig::default() };
        let at = |config: &ClientConfig, handler: &str| {
            let place = place(config).unwrap();
            format!("{}{}", place.authority, path(&place.path, "GeneratePatches", handler, 10))
        };
        let version = "hooks.runtime.cluster.x-k8s.io/v1alpha1/generatepatches";
        assert_eq!(at(&url("https://a:1/x/"), "Mine"), format!("a:1/x/{version}/mine?timeout=10s"));
        assert_eq!(at(&url("https://a"), ""), format!("a/{version}?timeout=10s"));
        let service = ServiceReference { name: "a".into(), namespace: "b".into(), path: Some("/p".into()), port: None };
        let service = ClientConfig { service: Some(service), ..ClientConfig::default() };
        assert_eq!(at(&service, "m"), format!("a.b.svc:443/p/{version}/m?timeout=10s"));
        assert!(place(&url("http://a")).is_err() && place(&ClientConfig::default()).is_err());
    }
}
