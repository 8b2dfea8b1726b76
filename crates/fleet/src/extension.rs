//! Runtime extensions: servers of others that topologies and owners of machines ask, over HTTPS.
//!
//! A hook that holds a cluster back is not asked again before it said it may be, and what one handler says to a question
//! holds for a while. A reconcile calls handlers in its first moments only, and the next one goes on with what was said
//! (a [`Pass`]): none takes longer than one call may. Left out: certificates of our own towards the server; proxies.
//!
//! Source: kubernetes-sigs/cluster-api internal/runtime/client.

mod config;
mod exchange;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use api::{
    cluster::Cluster,
    extension::{
        ExtensionConfig, ExtensionHandler, FailurePolicy,
        call::{TIMEOUT_S, handlers, hook, own_name, readable, request, timeout_s},
    },
    names,
    topology::hooks::{Hook, Question, Runtime},
};
use control::{Clock, Error, Key, Result, Writer};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::exchange::CallError;
pub use self::{
    config::ExtensionConfigs,
    exchange::{Dial, Network, Stream},
};
use crate::{Caches, owner};

/// What a handler says to a question holds so long.
const KNOWN_FOR: SignedDuration = SignedDuration::from_mins(10);
/// Answers that are kept; when there are more, all are asked anew.
const KNOWN_MAX: usize = 10_000;
/// The longest that one may say.
pub(crate) const TIMEOUT_MAX_S: i64 = 30;
/// Pause until what was put off goes on.
pub(crate) const GO_ON_S: u64 = 1;
/// Handlers are called for so long since a pass began.
const BEGIN_LIMIT: Duration = Duration::from_secs(2);
/// What the handlers of a hook said is kept so long for the passes that follow.
const KEPT_FOR: SignedDuration = SignedDuration::from_mins(2);

/// In the answer of a handler that was not reached, where that is to be ignored.
pub(crate) const UNREACHED: &str = "unreached";
/// It is asked again after this long: nothing else may bring back what it would have said.
pub(crate) const UNREACHED_S: u64 = 2 * 60;

/// What came of asking; none: it is put off to the next pass.
pub(crate) type Asked = std::result::Result<Option<Value>, String>;

/// One reconcile.
pub(crate) struct Pass(Instant);

impl Pass {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    fn is_over(&self) -> bool {
        self.0.elapsed() >= BEGIN_LIMIT
    }
}

/// How far something is that takes its time.
pub(crate) struct Progress {
    pub message: String,
    /// When it is to be asked for again; 0: it is done.
    pub again_s: u64,
}

/// What the handlers of a hook said about a cluster so far.
struct Kept {
    until: Timestamp,
    /// What they were asked.
    asked: String,
    said: HashMap<String, Value>,
}

pub struct Extensions {
    caches: Arc<Caches>,
    client: Client,
    clock: Clock,
    writer: Writer,
    dial: Arc<dyn Dial>,
    tls: OnceLock<Arc<tokio_rustls::rustls::RootCertStore>>,
    /// Until when a hook holds a cluster back, and what it said.
    waits: Mutex<HashMap<(Key, Hook), (Timestamp, String)>>,
    kept: Mutex<HashMap<(Key, Hook), Kept>>,
    /// By what it is about, the question and the version of the extension that answered it.
    known: Mutex<HashMap<String, (Timestamp, Value)>>,
}

impl Extensions {
    pub(crate) fn new(caches: Arc<Caches>, writer: Writer, dial: Arc<dyn Dial>) -> Arc<Self> {
        let (tls, waits, kept, known) = Default::default();
        let (client, clock) = (writer.client().clone(), writer.clock().clone());
        Arc::new(Self { caches, client, clock, writer, dial, tls, waits, kept, known })
    }

    /// Whether anybody wants to be asked before clusters are deleted, wherever they are.
    pub(crate) fn guard_deletion(caches: &Caches) -> bool {
        all(caches)
            .iter()
            .any(|config| handlers(config).any(|handler| hook(handler) == Some(Hook::BeforeClusterDelete)))
    }

    /// Whether a cluster that is to be deleted has to wait for that.
    pub(crate) fn hold_deletion(caches: &Caches, cluster: &Cluster) -> bool {
        cluster.spec.topology.is_some()
            && owner::annotation_of(&cluster.metadata, names::OK_TO_DELETE_ANNOTATION).is_none()
            && Self::guard_deletion(caches)
    }

    /// What is known of extensions for clusters of a namespace, without answers.
    pub(crate) async fn runtime(&self, namespace: &str) -> Result<Runtime> {
        let mut runtime = Runtime::default();
        for config in all(&self.caches) {
            let hooks: Vec<Hook> = handlers(&config).filter_map(hook).collect();
            if hooks.is_empty() {
                continue;
            }
            runtime.any = true;
            if self.selects(&config, namespace).await? {
                runtime.handled.extend(hooks);
            }
        }
        Ok(runtime)
    }

    async fn selects(&self, config: &ExtensionConfig, namespace: &str) -> Result<bool> {
        let Some(selector) = config.spec.namespace_selector.as_ref().filter(|selector| !selector.is_empty()) else {
            return Ok(true);
        };
        if let Some(known) = self.caches.namespaces.get(&Key::new("", namespace)) {
            return Ok(selector.selects(known.metadata.labels.as_ref()));
        }
        // It may be so new that nobody has told of it yet.
        let found = Api::<Namespace>::all(self.client.clone()).get_metadata_opt(namespace).await;
        let found = found.map_err(|error| Error::api("get", format!("Namespace {namespace}"), error))?;
        Ok(selector.selects(found.and_then(|found| found.metadata.labels).as_ref()))
    }

    /// Whether anybody handles a hook, wherever they are.
    pub(crate) fn handles(&self, asked: Hook) -> bool {
        all(&self.caches).iter().any(|config| handlers(config).any(|handler| hook(handler) == Some(asked)))
    }

    /// The one handler of a hook that only one may handle; `None` if nobody does.
    pub(crate) async fn sole(&self, asked: Hook, namespace: &str) -> std::result::Result<Option<String>, String> {
        let mut found = Vec::new();
        for config in all(&self.caches) {
            let wanted = handlers(&config).filter(|handler| hook(handler) == Some(asked));
            let wanted: Vec<String> = wanted.map(|handler| handler.name.clone()).collect();
            if !wanted.is_empty() && self.selects(&config, namespace).await.map_err(|error| error.chain())? {
                found.extend(wanted);
            }
        }
        if found.len() > 1 {
            let (hook, names) = (asked.name(), found.join(","));
            return Err(format!("found multiple {hook} hooks ({names}): only one hook is supported"));
        }
        Ok(found.pop())
    }

    /// Has a handler go on with what takes its time. One that said when it is to be called again is not called before.
    pub(crate) async fn drive(&self, about: &Key, question: &Question) -> std::result::Result<Progress, String> {
        let wait = (about.clone(), question.hook);
        let now = self.clock.now();
        if let Some((until, message)) = self.waits.lock().get(&wait).filter(|(until, _)| *until > now).cloned() {
            let again_s = u64::try_from(until.duration_since(now).as_secs()).unwrap_or(0).max(1);
            return Ok(Progress { message, again_s });
        }
        let name = question.handler.as_deref().unwrap_or_default();
        let Some((config, handler)) = self.handler(name) else {
            return Err(format!("extension handler {name:?} is not registered: no ExtensionConfig has discovered it"));
        };
        let response = self.call(&config, &handler, question).await?;
        if response[UNREACHED] == true {
            // Nobody said that it is done, whatever is to become of other calls.
            return Err(format!("extension handler {name:?} was not reached"));
        }
        let message = response["message"].as_str().unwrap_or_default().to_owned();
        let again_s = response["retryAfterSeconds"].as_u64().unwrap_or(0);
        let mut waits = self.waits.lock();
        waits.retain(|_, (until, _)| *until > now);
        if again_s > 0 {
            // `readable` has made sure that it has 32 bits.
            let pause = SignedDuration::from_secs(i64::try_from(again_s).unwrap_or(i64::from(i32::MAX)));
            waits.insert(wait, (now + pause, message.clone()));
        }
        Ok(Progress { message, again_s })
    }

    /// The answer to a question about a cluster, or about a class.
    pub(crate) async fn ask(&self, about: &Key, question: &Question, pass: &Pass) -> Asked {
        match &question.handler {
            None => self.ask_all(about, question, pass).await,
            Some(handler) => self.ask_one(about, handler, question, pass).await,
        }
    }

    /// All handlers of a hook, one after the other; the first that fails ends it.
    async fn ask_all(&self, about: &Key, question: &Question, pass: &Pass) -> Asked {
        let (now, wait) = (self.clock.now(), (about.clone(), question.hook));
        if let Some((until, message)) = self.waits.lock().get(&wait).filter(|(until, _)| *until > now) {
            let left = until.duration_since(now).as_secs().max(1);
            return Ok(Some(json!({"message": message, "retryAfterSeconds": left})));
        }
        let (mut retry_after_s, mut messages) = (0, Vec::new());
        let asked = essence(question);
        for config in all(&self.caches) {
            let wanted: Vec<_> = handlers(&config).filter(|handler| hook(handler) == Some(question.hook)).collect();
            if wanted.is_empty() || !self.selects(&config, &about.namespace).await.map_err(|error| error.chain())? {
                continue;
            }
            for handler in wanted {
                let response = match self.said(&wait, &asked, &handler.name) {
                    Some(response) => response,
                    None if pass.is_over() => return Ok(None),
                    None => {
                        let response = self.call(&config, handler, question).await?;
                        self.keep(&wait, &asked, &handler.name, &response);
                        response
                    }
                };
                let again = response["retryAfterSeconds"].as_u64().unwrap_or(0);
                retry_after_s =
                    if retry_after_s == 0 || again == 0 { retry_after_s.max(again) } else { again.min(retry_after_s) };
                messages.extend(response["message"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
            }
        }
        let message = messages.join(", ");
        let mut waits = self.waits.lock();
        waits.retain(|_, (until, _)| *until > now);
        if retry_after_s > 0 {
            let seconds = i64::try_from(retry_after_s).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
            self.kept.lock().remove(&wait);
            waits.insert(wait, (now + SignedDuration::from_secs(seconds), message.clone()));
        }
        Ok(Some(json!({"status": "Success", "message": message, "retryAfterSeconds": retry_after_s})))
    }

    /// What a handler said to this in an earlier pass.
    fn said(&self, whose: &(Key, Hook), asked: &str, handler: &str) -> Option<Value> {
        let (now, all) = (self.clock.now(), self.kept.lock());
        let kept = all.get(whose).filter(|kept| kept.until > now && kept.asked == asked)?;
        kept.said.get(handler).cloned()
    }

    fn keep(&self, whose: &(Key, Hook), asked: &str, handler: &str, response: &Value) {
        let (now, mut all) = (self.clock.now(), self.kept.lock());
        all.retain(|_, kept| kept.until > now);
        let new = || Kept { until: now, asked: asked.to_owned(), said: HashMap::new() };
        let kept = all.entry(whose.clone()).or_insert_with(new);
        if kept.asked != asked {
            *kept = new();
        }
        kept.until = now + KEPT_FOR;
        kept.said.insert(handler.to_owned(), response.clone());
    }

    fn handler(&self, name: &str) -> Option<(Arc<ExtensionConfig>, ExtensionHandler)> {
        all(&self.caches).into_iter().find_map(|config| {
            let found = handlers(&config).find(|handler| handler.name == name).cloned();
            Some((config, found?))
        })
    }

    async fn ask_one(&self, about: &Key, name: &str, question: &Question, pass: &Pass) -> Asked {
        let Some((config, handler)) = self.handler(name) else {
            return Err(format!("extension handler {name:?} is not registered: no ExtensionConfig has discovered it"));
        };
        if hook(&handler) != Some(question.hook) {
            return Err(format!("extension handler {name:?} is not one of hook {}", question.hook.name()));
        }
        if !self.selects(&config, &about.namespace).await.map_err(|error| error.chain())? {
            return Err(format!("extension handler {name:?} is not for namespace {}", about.namespace));
        }
        let version = config.metadata.resource_version.as_deref().unwrap_or_default();
        let (key, now) = (format!("{about} {} {version}", question.key()), self.clock.now());
        if let Some((_, known)) = self.known.lock().get(&key).filter(|(until, _)| *until > now) {
            return Ok(Some(known.clone()));
        }
        if pass.is_over() {
            return Ok(None);
        }
        let response = self.call(&config, &handler, question).await?;
        let mut known = self.known.lock();
        known.retain(|_, (until, _)| *until > now);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let holds = if response[UNREACHED] == true { KEPT_FOR } else { KNOWN_FOR };
        known.insert(key, (now + holds, response.clone()));
        Ok(Some(response))
    }

    async fn call(
        &self,
        config: &ExtensionConfig,
        handler: &ExtensionHandler,
        question: &Question,
    ) -> std::result::Result<Value, String> {
        let (own, request) = (own_name(config, handler), request(config, question));
        let timeout = Duration::from_secs(timeout_s(handler));
        let called = self.post(config, question.hook.name(), own, request, timeout).await;
        let called = called.and_then(|response| readable(response).map_err(CallError::Exchange));
        let failed = |why: String| format!("failed to call extension handler {:?}: {why}", handler.name);
        match called {
            Ok(response) if response["status"] == "Success" => Ok(response),
            Ok(response) => {
                let message = response["message"].as_str().unwrap_or_default();
                Err(failed(format!("got failure response with message: {message}")))
            }
            Err(CallError::Exchange(why)) if handler.failure_policy == Some(FailurePolicy::Ignore) => {
                tracing::warn!(handler = handler.name, why, "an extension was not reached, which is to be ignored");
                Ok(json!({"status": "Success", UNREACHED: true}))
            }
            Err(CallError::Exchange(why) | CallError::Config(why)) => Err(failed(why)),
        }
    }
}

/// Those that are there and stay, by name.
fn all(caches: &Caches) -> Vec<Arc<ExtensionConfig>> {
    let mut all: Vec<_> = caches.extensions.keys().iter().filter_map(|key| caches.extensions.get(key)).collect();
    all.retain(|config| config.metadata.deletion_timestamp.is_none());
    all.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    all
}

/// What tells the questions of a hook apart: the cluster as its user has it, and what else is said of it.
fn essence(question: &Question) -> String {
    let metadata = &question.request["cluster"]["metadata"];
    let rest = question.request.as_object().into_iter().flatten().filter(|(name, _)| *name != "cluster");
    json!([metadata["uid"], metadata["generation"], rest.collect::<Vec<_>>()]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_stay_while_their_server_cannot_be_asked() {
        let config: ExtensionConfig = serde_json::from_value(json!({
            "apiVersion": "runtime.cluster.x-k8s.io/v1beta2", "kind": "ExtensionConfig", "metadata": {"name": "ext"},
            "spec": {"clientConfig": {"url": "https://a"}},
            "status": {
                "conditions": [{"type": "Discovered", "status": "False", "reason": "NotDiscovered", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "handlers": [{"name": "a.ext", "requestHook": {"apiVersion": "v", "hook": "BeforeClusterDelete"}}],
            },
        }))
        .unwrap();
        assert_eq!(handlers(&config).filter_map(hook).collect::<Vec<_>>(), [Hook::BeforeClusterDelete]);
    }

    #[test]
    fn a_pause_that_is_none_is_not_taken_for_going_on() {
        for (pause, good) in [
            (json!(null), true),
            (json!(0), true),
            (json!(i32::MAX), true),
            (json!(i64::from(i32::MAX) + 1), false),
            (json!(u64::MAX), false),
            (json!(-1), false),
            (json!("20"), false),
            (json!(1.5), false),
        ] {
            assert_eq!(readable(json!({ "retryAfterSeconds": pause })).is_ok(), good, "{pause}");
        }
    }

    #[test]
    fn the_same_question_is_known_again_when_only_its_status_changed() {
        let question = |generation: u64, phase: &str, to: &str| Question {
            hook: Hook::BeforeClusterUpgrade,
            handler: None,
            request: json!({
                "cluster": {"metadata": {"uid": "u", "generation": generation}, "status": {"phase": phase}},
                "toKubernetesVersion": to,
            }),
            settings: Value::Null,
        };
        let first = essence(&question(1, "Pending", "v1.35.0"));
        assert_eq!(first, essence(&question(1, "Provisioned", "v1.35.0")));
        assert_ne!(first, essence(&question(2, "Pending", "v1.35.0")));
        assert_ne!(first, essence(&question(1, "Pending", "v1.36.0")));
    }
}
