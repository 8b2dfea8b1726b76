//! Conversion webhooks of CRDs (apiextensions.k8s.io/v1 `ConversionReview`): objects are stored in one version and asked for
//! in another, and whoever made the CRD says what becomes of them.
//!
//! Called over HTTPS by URL, trusting the authorities that the CRD names. Left out: webhooks that are named as a service, for
//! this server reaches none, and the system's own authorities; a CRD that wants either is refused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use store::{Event, KeyValue};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    field::FieldError,
    kinds::Kind,
    object::{self, at, text_at},
    status::{Error, Result},
    write::Stored,
};

/// A call may take so long (`conversion` of apiextensions has no field for it).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects that are sent at once.
const OBJECTS_MAX: usize = 500;
/// An answer may have so many bytes for each object that was sent.
const ANSWER_BYTES_PER_OBJECT: usize = 3 * 1024 * 1024;
/// And no more than this.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where the objects of a CRD are converted.
#[derive(Debug)]
pub(crate) struct Converter {
    /// What is wrong with it is told when it is called.
    endpoint: Result<Endpoint, String>,
}

#[derive(Debug)]
struct Endpoint {
    uri: http::Uri,
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

fn client_config(crd: &Value) -> Option<&Value> {
    at(crd, &["spec", "conversion", "webhook", "clientConfig"]).filter(|config| !config.is_null())
}

/// What is wrong with the webhook of a CRD.
pub(crate) fn check(crd: &Value) -> Vec<FieldError> {
    const PATH: &str = "spec.conversion.webhookClientConfig";
    let mut errors = Vec::new();
    let webhook = at(crd, &["spec", "conversion", "webhook"]).filter(|webhook| !webhook.is_null());
    let Some(config) = client_config(crd) else {
        errors.push(FieldError::required(PATH, "required when strategy is set to Webhook"));
        if webhook.and_then(|webhook| webhook.get("conversionReviewVersions")).is_none_or(Value::is_null) {
            errors.push(FieldError::required("spec.conversion.conversionReviewVersions", ""));
        }
        return errors;
    };
    let url = text_at(config, &["url"]);
    let service = config.get("service").is_some_and(|service| !service.is_null());
    if url.is_empty() != service {
        errors.push(FieldError::required(PATH, "exactly one of url or service is required"));
    } else if service {
        let detail = "this server reaches no services; name the webhook by its url";
        errors.push(FieldError::forbidden(format!("{PATH}.service"), detail));
    } else if let Err(why) = Endpoint::of(config) {
        errors.push(FieldError::invalid(PATH, url, why));
    }
    let versions = webhook.and_then(|webhook| webhook.get("conversionReviewVersions")).and_then(Value::as_array);
    let path = "spec.conversion.conversionReviewVersions";
    match versions {
        None => errors.push(FieldError::required(path, "")),
        Some(list) if !list.iter().any(|version| version == "v1") => {
            errors.push(FieldError::invalid(path, list.clone(), "must include at least one of v1"));
        }
        Some(_) => {}
    }
    errors
}

impl Endpoint {
    fn of(config: &Value) -> Result<Self, String> {
        let url = text_at(config, &["url"]);
        let uri: http::Uri = url.parse().map_err(|error| format!("url must be a valid URL: {error}"))?;
        if uri.scheme_str() != Some("https") {
            return Err("'https' is the only allowed URL scheme; desired format: https://host[/path]".to_owned());
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or("host must be specified; desired format: https://host[/path]")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("user information is not permitted in the URL".to_owned());
        }
        if uri.query().is_some() {
            return Err("query parameters are not permitted in the URL".to_owned());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let tls = Arc::new(tls(text_at(config, &["caBundle"]))?);
        Ok(Self { uri, host, port, tls })
    }

    async fn post(&self, body: Vec<u8>, answer_bytes_max: usize) -> Result<Bytes, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| text(&e))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|e| text(&e))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.map_err(|e| text(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(tls)).await.map_err(|e| text(&e))?;
        let request = http::Request::post(self.uri.path())
            .header("host", self.uri.authority().map_or("", |authority| authority.as_str()))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::from(body))
            .map_err(|e| text(&e))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| text(&e))?;
            let status = response.status();
            if !status.is_success() {
                return Err(format!("the server answered {status}"));
            }
            let body = Limited::new(response.into_body(), answer_bytes_max).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|e| text(&e))
        };
        // The connection lives no longer than the exchange.
        tokio::pin!(exchange, connection);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(text(&error)),
            },
        }
    }
}

fn tls(ca_bundle: &str) -> Result<ClientConfig, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if ca_bundle.is_empty() {
        return Err("caBundle is required: this server trusts no other authorities".to_owned());
    }
    let pem = STANDARD.decode(ca_bundle).map_err(|error| format!("caBundle is not base64: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
    }
    if roots.is_empty() {
        return Err("unable to load root certificates: no certificate in caBundle".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl Converter {
    /// None: the versions of the CRD differ in name only.
    pub fn of(crd: &Value) -> Option<Self> {
        if text_at(crd, &["spec", "conversion", "strategy"]) != "Webhook" {
            return None;
        }
        let config = client_config(crd);
        Some(Self { endpoint: config.map_or_else(|| Err("no clientConfig".to_owned()), Endpoint::of) })
    }

    async fn convert(&self, kind: &Kind, wanted: &str, objects: Vec<Value>) -> Result<Vec<Value>> {
        let mut out = Vec::with_capacity(objects.len());
        for part in objects.chunks(OBJECTS_MAX) {
            let failed = |why: String| {
                let from = part.first().map_or("", |object| text_at(object, &["apiVersion"]));
                Error::internal_plain(format!("conversion webhook for {from}, Kind={} failed: {why}", kind.kind))
            };
            out.extend(self.ask(kind, wanted, part).await.map_err(failed)?);
        }
        Ok(out)
    }

    async fn ask(&self, kind: &Kind, wanted: &str, objects: &[Value]) -> Result<Vec<Value>, String> {
        let endpoint = self.endpoint.as_ref().map_err(Clone::clone)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        });
        let most = (ANSWER_BYTES_PER_OBJECT * objects.len()).min(ANSWER_BYTES_MAX);
        let asked = endpoint.post(review.to_string().into_bytes(), most);
        let answer = tokio::time::timeout(TIMEOUT, asked).await;
        let answer = answer.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?;
        let answer = answer.map_err(|why| format!("Post {:?}: {why}", endpoint.uri.to_string()))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        let response = answer.get("response").ok_or("no response provided")?;
        let got = text_at(response, &["uid"]);
        if got != uid {
            return Err(format!("expected response.uid={uid:?}, got {got:?}"));
        }
        if text_at(response, &["result", "status"]) != "Success" {
            let why = text_at(response, &["result", "message"]);
            return Err(if why.is_empty() { "no message".to_owned() } else { why.to_owned() });
        }
        let converted = response.get("convertedObjects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if converted.len() != objects.len() {
            return Err(format!("returned {} objects, expected {}", converted.len(), objects.len()));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        pairs
            .map(|(index, (before, after))| {
                checked(kind, wanted, before, after)
                    .map_err(|why| format!("returned invalid converted object at index {index}: {why}"))
            })
            .collect()
    }
}

/// A converted object with the metadata that it had; only its labels and annotations may be others.
fn checked(kind: &Kind, wanted: &str, before: &Value, after: &Value) -> Result<Value, String> {
    let version = text_at(after, &["apiVersion"]);
    if version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {version})"));
    }
    let found = text_at(after, &["kind"]);
    if found != &*kind.kind {
        return Err(format!("invalid kind (expected {}, received {found})", kind.kind));
    }
    for key in ["name", "namespace", "uid"] {
        let (before, after) = (text_at(before, &["metadata", key]), text_at(after, &["metadata", key]));
        if before != after {
            return Err(format!("must have the same {key}: {before} != {after}"));
        }
    }
    let mut object = after.clone();
    let mut metadata = before.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = metadata.as_object_mut() {
        for key in ["labels", "annotations"] {
            match at(after, &["metadata", key]).filter(|value| !value.is_null()) {
                Some(value) => drop(fields.insert(key.to_owned(), value.clone())),
                None => drop(fields.remove(key)),
            }
        }
    }
    object["metadata"] = metadata;
    Ok(object)
}

fn converter(kind: &Kind) -> Option<&Arc<Converter>> {
    kind.custom.as_ref()?.converter.as_ref()
}

/// What was read from the store, as the kind's version has it.
pub(crate) async fn served(kind: &Kind, mut items: Vec<KeyValue>) -> Result<Vec<KeyValue>> {
    let Some(converter) = converter(kind) else { return Ok(items) };
    let is_other = |kv: &KeyValue| !kv.value.starts_with(kind.head.as_bytes());
    let places: Vec<usize> = items.iter().enumerate().filter(|(_, kv)| is_other(kv)).map(|(place, _)| place).collect();
    if places.is_empty() {
        return Ok(items);
    }
    let objects = places.iter().filter_map(|place| items.get(*place)).map(object::decode_kv).collect::<Result<_>>()?;
    let converted = converter.convert(kind, &kind.api_version(), objects).await?;
    for (place, mut object) in places.into_iter().zip(converted) {
        if let Some(schema) = kind.schema() {
            schema.prune(&mut object);
            schema.default(&mut object);
        }
        if let Some(kv) = items.get_mut(place) {
            kv.value = object::encode(&kind.head, &object).into();
        }
    }
    Ok(items)
}

/// The same of one.
pub(crate) async fn served_one(kind: &Kind, kv: KeyValue) -> Result<KeyValue> {
    if converter(kind).is_none() {
        return Ok(kv);
    }
    let mut items = served(kind, vec![kv]).await?;
    items.pop().ok_or_else(|| Error::internal_plain("a converted object was lost"))
}

/// The same of what was just written.
pub(crate) async fn shown(kind: &Kind, stored: Stored) -> Result<Stored> {
    if converter(kind).is_none() {
        return Ok(stored);
    }
    let revision = stored.revision.unwrap_or_default();
    let kv = KeyValue { key: Bytes::new(), value: stored.bytes, created: revision, modified: revision };
    Ok(Stored { bytes: served_one(kind, kv).await?.value, revision: stored.revision })
}

/// The same of an event.
pub(crate) async fn event(kind: &Kind, event: Event) -> Result<Event> {
    Ok(match event {
        Event::Put { item, prev } => {
            let item = served_one(kind, item).await?;
            let prev = match prev {
                Some(prev) => Some(served_one(kind, prev).await?),
                None => None,
            };
            Event::Put { item, prev }
        }
        Event::Delete { revision, prev } => Event::Delete { revision, prev: served_one(kind, prev).await? },
    })
}

/// Whether events have to be converted before they can be shown.
pub(crate) fn waits(kind: &Kind) -> bool {
    converter(kind).is_some()
}

/// An object of the kind's version in the one that is stored.
pub(crate) async fn to_stored(kind: &Kind, object: Value) -> Result<Value> {
    let Some(converter) = converter(kind) else { return Ok(object) };
    if kind.api_version() == *kind.storage_api_version {
        return Ok(object);
    }
    let mut converted = converter.convert(kind, &kind.storage_api_version, vec![object]).await?;
    converted.pop().ok_or_else(|| Error::internal_plain("a converted object was lost"))
}
