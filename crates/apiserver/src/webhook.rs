//! Calls of webhooks over HTTPS, those of admission and those of conversion: where one is, whom it trusts, and one exchange
//! with it. Connections are kept and used again.
//!
//! A webhook that is named as a service is found through what stands for it in this cluster: the name outside that the
//! service has (`externalName`), or the addresses of its endpoints; there is no network of services here. Without
//! `caBundle` the system's own authorities are trusted. Left out: proxies; HTTP/2.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use store::{At, Range, SharedStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    field::FieldError,
    kinds::ROOT,
    names,
    object::{at, text_at},
    trace,
};

mod caller;
mod kubeconfig;
mod trust;

use self::caller::Caller;
pub use self::kubeconfig::ReadFile;

/// A connection is there in this time, or the call has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to one webhook that are kept for later.
const IDLE_MAX: usize = 16;
/// And for how long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Of an answer that is an error, so much is shown.
const ERROR_BYTES_SHOWN: usize = 2048;

/// Where a webhook is, whom it trusts, and the connections to it that nobody uses at the moment.
pub(crate) struct Endpoint {
    place: Place,
    path: String,
    /// What is wrong with the authorities is told when it is called.
    tls: Result<Arc<ClientConfig>, String>,
    authorization: Option<HeaderValue>,
    /// What the caller is called.
    agent: &'static str,
    idle: Mutex<Vec<Idle>>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(None))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Url { host: String, port: u16, authority: String, certified: String },
    Service { namespace: String, name: String, port: u16 },
}

/// Where to connect, and whose certificate is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    certified: String,
}

struct Idle {
    address: Address,
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// Nothing came back: the reason, without the address.
    Exchange(String),
    /// Something else than success came back.
    Status { code: u16, body: Bytes },
}

impl CallError {
    /// In the words of Kubernetes' own client.
    pub fn text(&self, url: &str) -> String {
        match self {
            Self::Exchange(why) => format!("Post {url:?}: {why}"),
            Self::Status { code, body } => refusal(*code, body),
        }
    }
}

/// What Kubernetes' client says of an answer (`apimachinery/pkg/api/errors.NewGenericServerResponse`), unless it is a Status.
fn refusal(code: u16, body: &Bytes) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(body)
        && text_at(&status, &["kind"]) == "Status"
    {
        return text_at(&status, &["message"]).to_owned();
    }
    let shown = match std::str::from_utf8(body) {
        Ok(text) if !text.trim().is_empty() => text.chars().take(ERROR_BYTES_SHOWN).collect(),
        _ => "unknown".to_owned(),
    };
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        413 => format!("Request entity too large: {shown}"),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned()
        }
        403 | 406 | 415 => shown,
        500.. => format!("an error on the server ({shown:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

impl Endpoint {
    /// From a `clientConfig`; what is wrong with it is told as [`check`] tells it.
    pub fn of(config: &Value) -> Result<Self, String> {
        let tls = tls(text_at(config, &["caBundle"]));
        let service = config.get("service").filter(|service| !service.is_null());
        let (place, path) = match service {
            Some(service) => {
                let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
                let text = |key: &str| text_at(service, &[key]).to_owned();
                let port = u16::try_from(port).map_err(|_| format!("there is no port {port}"))?;
                (Place::Service { namespace: text("namespace"), name: text("name"), port }, text("path"))
            }
            None => {
                let url = text_at(config, &["url"]);
                let uri: http::Uri = url.parse().map_err(|error| format!("url must be a valid URL: {error}"))?;
                let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
                let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
                let certified = host.clone();
                (Place::Url { host, port: uri.port_u16().unwrap_or(443), authority, certified }, uri.path().to_owned())
            }
        };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        Ok(Self { place, path, tls, authorization: None, agent: "kube-apiserver-admission", idle: Mutex::default() })
    }

    fn authority(&self) -> String {
        match &self.place {
            Place::Url { authority, .. } => authority.clone(),
            Place::Service { namespace, name, port } => format!("{name}.{namespace}.svc:{port}"),
        }
    }

    fn target(&self, timeout_s: Option<u64>) -> String {
        match timeout_s {
            Some(timeout_s) => format!("{}?timeout={timeout_s}s", self.path),
            None => self.path.clone(),
        }
    }

    /// As error texts name it.
    pub fn url(&self, timeout_s: Option<u64>) -> String {
        format!("https://{}{}", self.authority(), self.target(timeout_s))
    }

    /// Sends JSON and takes JSON. `timeout_s`: told to the webhook, for whoever calls keeps the time. `store`: what services
    /// are looked up in.
    pub async fn post(
        &self,
        store: Option<&SharedStore>,
        body: Vec<u8>,
        timeout_s: Option<u64>,
        answer_bytes_max: usize,
    ) -> Result<Bytes, CallError> {
        let address = self.address(store).await.map_err(CallError::Exchange)?;
        let body = Bytes::from(body);
        let request = |body: Bytes| {
            let mut request = http::Request::post(self.target(timeout_s))
                .header("host", self.authority())
                .header("content-type", "application/json")
                .header("accept", "application/json, */*")
                .header("user-agent", self.agent)
                .body(Full::from(body))
                .map_err(|error| CallError::Exchange(error.to_string()))?;
            if let Some(authorization) = &self.authorization {
                request.headers_mut().insert(http::header::AUTHORIZATION, authorization.clone());
            }
            if let Some(context) = trace::current() {
                context.put(request.headers_mut());
            }
            Ok(request)
        };
        // A connection that was kept may have ended in the meantime; then nothing was sent.
        if let Some(mut sender) = self.kept(&address) {
            match sender.try_send_request(request(body.clone())?).await {
                Ok(response) => return self.receive(address, sender, response, answer_bytes_max).await,
                Err(error) if error.message().is_some() => {}
                Err(error) => return Err(CallError::Exchange(exchange_error(&error.into_error()))),
            }
        }
        let mut sender = self.connect(&address).await.map_err(CallError::Exchange)?;
        let response = sender.send_request(request(body)?).await;
        let response = response.map_err(|error| CallError::Exchange(exchange_error(&error)))?;
        self.receive(address, sender, response, answer_bytes_max).await
    }

    async fn receive(
        &self,
        address: Address,
        sender: SendRequest<Full<Bytes>>,
        response: http::Response<hyper::body::Incoming>,
        bytes_max: usize,
    ) -> Result<Bytes, CallError> {
        let status = response.status();
        let read = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = read.map(http_body_util::Collected::to_bytes).map_err(|error| {
            CallError::Exchange(match error.is::<LengthLimitError>() {
                true => format!("the answer has more than {bytes_max} bytes"),
                false => error.to_string(),
            })
        })?;
        self.keep(Idle { address, sender, since: Instant::now() });
        match status.is_success() {
            true => Ok(body),
            false => Err(CallError::Status { code: status.as_u16(), body }),
        }
    }

    fn kept(&self, address: &Address) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock();
        idle.retain(|kept| kept.since.elapsed() < IDLE_TIMEOUT && !kept.sender.is_closed());
        let place = idle.iter().rposition(|kept| kept.address == *address && kept.sender.is_ready())?;
        Some(idle.swap_remove(place).sender)
    }

    fn keep(&self, kept: Idle) {
        let mut idle = self.idle.lock();
        if !kept.sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push(kept);
        }
    }

    async fn connect(&self, address: &Address) -> Result<SendRequest<Full<Bytes>>, String> {
        let name = ServerName::try_from(address.certified.clone()).map_err(|error| error.to_string())?;
        let connecting = async {
            let shown = match address.host.contains(':') {
                true => format!("[{}]:{}", address.host, address.port),
                false => format!("{}:{}", address.host, address.port),
            };
            let tcp = TcpStream::connect((address.host.as_str(), address.port));
            let tcp = tcp.await.map_err(|error| format!("dial tcp {shown}: {}", connect_error(&error)))?;
            // Small questions and small answers: waiting to fill a packet is what would take the time.
            let _ = tcp.set_nodelay(true);
            let tls = self.tls.clone()?;
            let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| tls_error(&error))?;
            let (sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            // Ends when the last of the two ends is gone.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to a webhook ended");
                }
            });
            Ok(sender)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())),
        }
    }

    async fn address(&self, store: Option<&SharedStore>) -> Result<Address, String> {
        match &self.place {
            Place::Url { host, port, certified, .. } => {
                Ok(Address { host: host.clone(), port: *port, certified: certified.clone() })
            }
            Place::Service { namespace, name, port } => {
                let store = store.ok_or("there is nothing to look services up in")?;
                resolve(store, namespace, name, *port).await
            }
        }
    }
}

fn exchange_error(error: &hyper::Error) -> String {
    match error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        true => "EOF".to_owned(),
        false => error.to_string(),
    }
}

fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    }
}

fn tls_error(error: &std::io::Error) -> String {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        _ => error.to_string(),
    }
}

async fn read(store: &SharedStore, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, String> {
    let page = store.range(Range::key(format!("{ROOT}{plural}/{namespace}/{name}")), At::Latest, 1).await;
    let page = page.map_err(|error| error.to_string())?;
    Ok(page.items.first().and_then(|kv| serde_json::from_slice(&kv.value).ok()))
}

/// The address of a service: the name outside that it has, or one of its endpoints.
async fn resolve(store: &SharedStore, namespace: &str, name: &str, port: u16) -> Result<Address, String> {
    let Some(service) = read(store, "core/services", namespace, name).await? else {
        return Err(format!("service {name:?} not found"));
    };
    let certified = format!("{name}.{namespace}.svc");
    if text_at(&service, &["spec", "type"]) == "ExternalName" {
        let host = text_at(&service, &["spec", "externalName"]).to_owned();
        return Ok(Address { host, port, certified });
    }
    let ports = at(&service, &["spec", "ports"]).and_then(Value::as_array).into_iter().flatten();
    let Some(wanted) = ports.into_iter().find(|found| found.get("port").and_then(Value::as_u64) == Some(port.into()))
    else {
        return Err(format!("no service port {port} found for service {name:?}"));
    };
    let port_name = text_at(wanted, &["name"]);
    let none = || format!("no endpoints available for service {name:?}");
    let place = |subset: &Value, addresses: &str, address: fn(&Value) -> String| {
        let named = |found: &&Value| text_at(found, &["name"]) == port_name;
        let port =
            subset.get("ports").and_then(Value::as_array).into_iter().flatten().find(named)?.get("port")?.as_u64()?;
        let ready = |found: &&Value| at(found, &["conditions", "ready"]) != Some(&Value::Bool(false));
        let list = subset.get(addresses).and_then(Value::as_array).into_iter().flatten();
        let host = list.into_iter().find(ready).map(address).filter(|host| !host.is_empty())?;
        Some((host, u16::try_from(port).ok()?))
    };
    let endpoints = read(store, "core/endpoints", namespace, name).await?.unwrap_or_default();
    let subsets = endpoints.get("subsets").and_then(Value::as_array).into_iter().flatten();
    let mut found = subsets
        .into_iter()
        .find_map(|subset| place(subset, "addresses", |address| text_at(address, &["ip"]).to_owned()));
    if found.is_none() {
        const SLICES_MAX: usize = 100;
        let range = Range::prefix(format!("{ROOT}discovery.k8s.io/endpointslices/{namespace}/"));
        let page = store.range(range, At::Latest, SLICES_MAX).await.map_err(|error| error.to_string())?;
        let slices = page.items.iter().filter_map(|kv| serde_json::from_slice::<Value>(&kv.value).ok());
        let mine = |slice: &Value| text_at(slice, &["metadata", "labels", "kubernetes.io/service-name"]) == name;
        let first =
            |endpoint: &Value| endpoint.pointer("/addresses/0").and_then(Value::as_str).unwrap_or_default().to_owned();
        found = slices.into_iter().filter(mine).find_map(|slice| place(&slice, "endpoints", first));
    }
    let (host, port) = found.ok_or_else(none)?;
    Ok(Address { host, port, certified })
}

fn tls(ca_bundle: &str) -> Result<Arc<ClientConfig>, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let authority = STANDARD.decode(ca_bundle).map_err(|error| format!("caBundle is not base64: {error}"))?;
    Caller { authority, identity: None }.config()
}

/// What is wrong with the authorities that a webhook trusts.
pub(crate) fn check_authorities(config: &Value) -> Result<(), String> {
    tls(text_at(config, &["caBundle"])).map(drop)
}

/// What is wrong with where a webhook is said to be (upstream: `apiserver/pkg/util/webhook/validation.go`).
pub(crate) fn check(config: &Value, path: &str) -> Vec<FieldError> {
    let url = config.get("url").filter(|url| !url.is_null());
    let service = config.get("service").filter(|service| !service.is_null());
    match (url, service) {
        (Some(url), None) => check_url(url.as_str().unwrap_or_default(), &format!("{path}.url")),
        (None, Some(service)) => check_service(service, &format!("{path}.service")),
        _ => vec![FieldError::required(path, "exactly one of url or service is required")],
    }
}

fn check_url(url: &str, path: &str) -> Vec<FieldError> {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut errors = Vec::new();
    if url.chars().any(char::is_control)
        || (!scheme.is_empty() && host.parse::<http::uri::Authority>().is_err() && !host.is_empty())
    {
        let why = format!("url must be a valid URL: parse {url:?}: invalid character in URL{FORM}");
        return vec![FieldError::required(path, why)];
    }
    if scheme != "https" {
        errors.push(FieldError::invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(path, host, format!("host must be specified{FORM}")));
    }
    if !user.is_empty() {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
    errors
}

fn check_service(service: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["name", "namespace"] {
        if text_at(service, &[key]).is_empty() {
            errors.push(FieldError::required(format!("{path}.{key}"), ""));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let text = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(format!("{path}.port"), port, text));
    }
    let given = text_at(service, &["path"]);
    let at = format!("{path}.path");
    match given {
        "" | "/" => return errors,
        "//" => errors.push(FieldError::invalid(at, given, "segment[0] may not be empty")),
        _ => {
            if !given.starts_with('/') {
                errors.push(FieldError::invalid(at.as_str(), given, "must start with a '/'"));
            }
            let mut chars = given.chars();
            chars.next();
            let rest = chars.as_str();
            for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
                if step.is_empty() {
                    errors.push(FieldError::invalid(at.as_str(), given, format!("segment[{i}] may not be empty")));
                    continue;
                }
                for wrong in names::subdomain(step) {
                    errors.push(FieldError::invalid(at.as_str(), given, format!("segment[{i}]: {wrong}")));
                }
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_checked_as_kubernetes_checks_them() {
        let cases = [
            (json!({"url": "https://a.example.com/x"}), None),
            (json!({"url": "https://[::1]:8443"}), None),
            (
                json!({"url": "http://a"}),
                Some("'https' is the only allowed URL scheme; desired format: https://host[/path]"),
            ),
            (json!({"url": "https:///x"}), Some("host must be specified; desired format: https://host[/path]")),
            (json!({"url": "https://u:p@a"}), Some("user information is not permitted in the URL")),
            (json!({"url": "https://a#f"}), Some("fragments are not permitted in the URL")),
            (json!({"url": "https://a?q=1"}), Some("query parameters are not permitted in the URL")),
            (json!({"service": {"name": "a", "namespace": "b"}}), None),
            (json!({"service": {"name": "a", "namespace": "b", "path": "/x//y"}}), Some("segment[1] may not be empty")),
            (
                json!({"service": {"name": "a", "namespace": "b", "port": 65536}}),
                Some("port is not valid: must be between 1 and 65535, inclusive"),
            ),
            (json!({}), Some("exactly one of url or service is required")),
        ];
        for (config, expected) in cases {
            let errors = check(&config, "c");
            assert_eq!(errors.first().map(|error| error.detail.as_str()), expected, "{config}");
        }
    }

    #[test]
    fn the_address_is_shown_as_clients_of_kubernetes_show_it() {
        let service = json!({"service": {"name": "a", "namespace": "b", "path": "/x", "port": 8443}});
        assert_eq!(Endpoint::of(&service).unwrap().url(Some(10)), "https://a.b.svc:8443/x?timeout=10s");
        let url = json!({"url": "https://a.example.com"});
        assert_eq!(Endpoint::of(&url).unwrap().url(None), "https://a.example.com/");
    }
}
