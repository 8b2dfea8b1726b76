//! Who did what (audit.k8s.io/v1): a policy says which requests are told of and how much, a log takes a line of JSON for each.
//!
//! Bodies are only in events of the levels Request and RequestResponse, so that what is told at Metadata holds no secret. What
//! is in memory before it is written has a limit; a request whose event finds no room waits for it, and when that takes too
//! long the event is lost, counted and said in the server's own log. A webhook takes batches of them, and is never waited for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use parking_lot::RwLock;
use policy::User;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    body::{self, Media},
    metrics::Metrics,
    path::{Resource, Verb},
    server::Server,
};

mod log;
mod policy_file;
mod webhook;

use self::policy_file::{Asked, Level, Policy, Stage};
pub use self::{
    log::{AuditLog, Rotation},
    policy_file::PolicyError,
    webhook::{AuditWebhook, Batching},
};

/// Bytes of events that wait to be written.
const BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Longest wait for room in the buffer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Longer names of clients are cut off.
const USER_AGENT_BYTES_MAX: usize = 1024;
const TRUNCATED: &str = "...TRUNCATED";
/// Addresses that a request may say it came through.
const SOURCE_IPS_MAX: usize = 16;
/// Bytes of an audit id that a caller gives.
const ID_BYTES_MAX: usize = 64;

/// Why auditing did not begin.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("read the audit policy: {0}")]
    Policy(#[source] PolicyError),
    #[error("open the audit log {path}")]
    Open {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("set up the audit webhook: {0}")]
    Webhook(String),
}

/// A policy, and the log and the webhook that it fills; one for each server.
pub struct Audit {
    policy: RwLock<Arc<Policy>>,
    log: Option<AuditLog>,
    webhook: Option<AuditWebhook>,
    room: Arc<Semaphore>,
}

impl Audit {
    /// `policy`: YAML or JSON of an audit.k8s.io/v1 Policy.
    pub fn new(policy: &str, log: AuditLog) -> Result<Arc<Self>, AuditError> {
        Self::with(policy, Some(log), None)
    }

    /// The same with a log, a webhook, or both.
    pub fn with(policy: &str, log: Option<AuditLog>, webhook: Option<AuditWebhook>) -> Result<Arc<Self>, AuditError> {
        let policy = RwLock::new(Arc::new(Policy::parse(policy).map_err(AuditError::Policy)?));
        Ok(Arc::new(Self { policy, log, webhook, room: Arc::new(Semaphore::new(BUFFER_BYTES)) }))
    }

    /// Takes a new policy for the requests that come; the old one stays if that is wrong.
    pub fn replace(&self, policy: &str) -> Result<(), AuditError> {
        let policy = Arc::new(Policy::parse(policy).map_err(AuditError::Policy)?);
        *self.policy.write() = policy;
        Ok(())
    }

    /// Begins to send events to the webhook, in the runtime of whoever calls.
    pub(crate) fn start(&self) {
        if let Some(webhook) = &self.webhook {
            webhook.start();
        }
    }

    /// Writes what waits, and ends the log.
    pub async fn close(&self) {
        if let Some(webhook) = &self.webhook {
            webhook.close().await;
        }
        if let Some(log) = &self.log {
            log.close().await;
        }
    }
}

/// An Event, with its fields in upstream's order.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    annotations: serde_json::Map<String, Value>,
}

/// One request that is told of.
pub(crate) struct Trail {
    server: Server,
    audit: Arc<Audit>,
    omitted: Vec<Stage>,
    omit_managed: bool,
    event: Event,
    ended: bool,
}

fn micros(server: &Server) -> String {
    server.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// What is asked, by whom.
pub(crate) struct Asking<'a> {
    pub user: &'a User,
    pub impersonated: Option<&'a User>,
    pub verb: &'a str,
    pub target: Option<&'a Resource>,
    pub parts: &'a Parts,
}

impl Trail {
    /// None: this request is not told of.
    pub(crate) fn begin(server: &Server, asking: &Asking<'_>) -> Option<Self> {
        let audit = server.state().options.audit.clone()?;
        let (headers, uri) = (&asking.parts.headers, &asking.parts.uri);
        let asked = Asked { user: asking.user, verb: asking.verb, target: asking.target, path: uri.path() };
        let policy = Arc::clone(&audit.policy.read());
        let (level, omitted, omit_managed) = policy.decide(&asked);
        server.state().metrics.audit_level(level.as_str());
        if level == Level::None {
            return None;
        }
        let object_ref = asking.target.map(|target| {
            let mut reference = serde_json::Map::new();
            let fields = [
                ("resource", &target.resource),
                ("namespace", &target.namespace),
                ("name", &target.name),
                ("apiGroup", &target.group),
                ("apiVersion", &target.version),
                ("subresource", &target.subresource),
            ];
            for (key, value) in fields {
                if !value.is_empty() {
                    reference.insert(key.to_owned(), value.as_str().into());
                }
            }
            Value::Object(reference)
        });
        let now = micros(server);
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id: audit_id(server, headers),
            stage: Stage::RequestReceived,
            request_uri: uri.path_and_query().map_or_else(String::new, ToString::to_string),
            verb: asking.verb.to_owned(),
            user: asking.user.clone(),
            impersonated_user: asking.impersonated.cloned(),
            source_ips: source_ips(asking.parts),
            user_agent: user_agent(headers),
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now.clone(),
            stage_timestamp: now,
            annotations: serde_json::Map::new(),
        };
        Some(Self { server: server.clone(), audit, omitted, omit_managed, event, ended: false })
    }

    pub(crate) fn id(&self) -> &str {
        &self.event.audit_id
    }

    pub(crate) fn wants_request(&self) -> bool {
        self.event.level >= Level::Request
    }

    pub(crate) fn wants_response(&self) -> bool {
        self.event.level >= Level::RequestResponse
    }

    /// Why a request was let through or not.
    pub(crate) fn decided(&mut self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.event.annotations.insert("authorization.k8s.io/decision".to_owned(), decision.into());
        self.event.annotations.insert("authorization.k8s.io/reason".to_owned(), reason.into());
    }

    /// The body that came, as it came.
    /// Adds what admission had to say.
    pub(crate) fn annotate(&mut self, annotations: std::collections::BTreeMap<String, String>) {
        self.event.annotations.extend(annotations.into_iter().map(|(key, value)| (key, value.into())));
    }

    pub(crate) fn request(&mut self, bytes: &Bytes, media: Media) {
        if bytes.is_empty() {
            return;
        }
        let Ok(parsed) = body::parse(bytes, media) else { return };
        self.event.request_object = Some(self.shown(parsed.value));
    }

    pub(crate) fn response(&mut self, bytes: &Bytes, media: Media) {
        if let Ok(parsed) = body::parse(bytes, media) {
            self.event.response_object = Some(self.shown(parsed.value));
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.omit_managed {
            let without = |object: &mut Value| {
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields");
                }
            };
            without(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(without);
        }
        object
    }

    /// `status`: the Status object of a failure.
    fn answered(&mut self, code: u16, status: Option<&Value>) {
        let mut said = json!({"metadata": {}, "code": code});
        if let Some(status) = status {
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = status.get(key) {
                    said[key] = value.clone();
                }
            }
        }
        self.event.response_status = Some(said);
    }

    pub(crate) async fn received(&mut self) {
        self.tell(Stage::RequestReceived).await;
    }

    /// The beginning of an answer that goes on.
    pub(crate) async fn started(&mut self, code: u16) {
        self.answered(code, None);
        self.tell(Stage::ResponseStarted).await;
    }

    pub(crate) async fn complete(mut self, code: u16, status: Option<&Value>) {
        self.answered(code, status);
        self.ended = true;
        self.tell(Stage::ResponseComplete).await;
    }

    pub(crate) async fn panicked(mut self) {
        let status =
            json!({"status": "Failure", "reason": "InternalError", "message": "the request met a bug of the server"});
        self.answered(500, Some(&status));
        self.ended = true;
        self.tell(Stage::Panic).await;
    }

    /// Somebody whose credentials were not believed.
    pub(crate) async fn refused(mut self) {
        let message = "Authentication failed, attempted: bearer";
        self.answered(401, Some(&json!({"status": "Failure", "reason": "Unauthorized", "message": message})));
        self.ended = true;
        self.tell(Stage::ResponseStarted).await;
    }

    fn line(&mut self, stage: Stage) -> Option<Vec<u8>> {
        if self.omitted.contains(&stage) {
            return None;
        }
        self.event.stage = stage;
        self.event.stage_timestamp = micros(&self.server);
        let mut line = serde_json::to_vec(&self.event).ok()?;
        line.push(b'\n');
        Some(line)
    }

    async fn tell(&mut self, stage: Stage) {
        let Some(line) = self.line(stage) else { return };
        let line = self.to_webhook(line);
        if self.audit.log.is_none() {
            return;
        }
        let bytes = u32::try_from(line.len().min(BUFFER_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.audit.room).acquire_many_owned(bytes);
        match tokio::time::timeout(WAIT_MAX, room).await {
            Ok(Ok(room)) => self.write(line, Some(room)),
            _ => self.write(line, None),
        }
    }

    fn to_webhook(&self, line: Vec<u8>) -> Bytes {
        let line = Bytes::from(line);
        if let Some(webhook) = &self.audit.webhook {
            let metrics = &self.server.state().metrics;
            let taken = webhook.write(line.clone(), metrics);
            if !taken {
                let id = &self.event.audit_id;
                tracing::error!(id, "an audit event was lost: the webhook does not keep up");
            }
            if !taken || self.audit.log.is_none() {
                metrics.audited(taken);
            }
        }
        line
    }

    fn write(&self, line: Bytes, room: Option<OwnedSemaphorePermit>) {
        let metrics = &self.server.state().metrics;
        let Some(room) = room else {
            metrics.audited(false);
            let id = &self.event.audit_id;
            return tracing::error!(id, "an audit event was lost: the log does not keep up");
        };
        if let Some(log) = &self.audit.log {
            metrics.audited(log.write(line, room, Arc::clone(metrics)));
        }
    }
}

impl Drop for Trail {
    /// The end of an answer that went on, or a caller that did not wait for one.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.event.response_status.is_none() {
            let status = json!({"status": "Success", "message": "Connection closed early"});
            self.answered(200, Some(&status));
        }
        let Some(line) = self.line(Stage::ResponseComplete) else { return };
        let line = self.to_webhook(line);
        if self.audit.log.is_none() {
            return;
        }
        let bytes = u32::try_from(line.len().min(BUFFER_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.audit.room).try_acquire_many_owned(bytes).ok();
        self.write(line, room);
    }
}

/// The caller's own, if it gives one.
fn audit_id(server: &Server, headers: &HeaderMap) -> String {
    let given = headers.get("audit-id").and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty());
    match given {
        Some(id) => id.chars().take(ID_BYTES_MAX).collect(),
        None => server.new_uid(),
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let agent = agent.unwrap_or_default();
    if agent.len() <= USER_AGENT_BYTES_MAX {
        return agent.into_owned();
    }
    let mut end = USER_AGENT_BYTES_MAX;
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{TRUNCATED}", &agent[..end])
}

/// Where a connection comes from; an extension of each of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub std::net::IpAddr);

/// What proxies say, and last of all who connected.
fn source_ips(parts: &Parts) -> Vec<String> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_ip = |text: &&str| text.parse::<std::net::IpAddr>().is_ok();
    let forwarded = text("x-forwarded-for").split(',').map(str::trim).filter(is_ip).take(SOURCE_IPS_MAX);
    let mut list: Vec<String> = forwarded.map(str::to_owned).collect();
    let real = text("x-real-ip").trim();
    if is_ip(&real) && !list.iter().any(|ip| ip == real) {
        list.push(real.to_owned());
    }
    if let Some(PeerAddress(peer)) = parts.extensions.get::<PeerAddress>() {
        let peer = peer.to_string();
        if list.last() != Some(&peer) {
            list.push(peer);
        }
    }
    list
}

/// The verb that a policy knows a request by.
pub(crate) fn verb_name(verb: Option<Verb>, method: &http::Method) -> String {
    verb.map_or_else(|| method.as_str().to_ascii_lowercase(), |verb| verb.as_str().to_owned())
}

/// Tells the metrics of lines that could not be written.
pub(crate) fn lost(metrics: &Metrics, error: &std::io::Error) {
    metrics.audited(false);
    tracing::error!(%error, "an audit event could not be written");
}
