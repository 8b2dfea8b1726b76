//! Carries plans out against the Management API.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, Request},
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::{Clock, Error, Event, Haste, Key, Outcome, Plan, Result, Step, cache::Head, pace::Pace};

/// How long a reconcile waits to see its own writes in the caches before it gives up and comes back later.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// What sums up other objects is written this long after the object's last write: so many times as long as writes take, since
/// the busier the server is, the more comes together meanwhile.
const SUMMARY_PAUSES: u32 = 10;
const SUMMARY_PAUSE_MIN: Duration = Duration::from_millis(50);
const SUMMARY_PAUSE_MAX: Duration = Duration::from_secs(3);
/// What is new in words only is written this long after the object's last write: a machine on its way says a dozen things,
/// and each would be written again in the summaries of everything above it. The longer this goes on, the longer the pause.
const WORDS_PAUSE: Duration = Duration::from_secs(3);
const WORDS_PAUSE_MAX: Duration = Duration::from_secs(30);
/// An object that was left alone for so many pauses has a short one again.
const QUIET_PAUSES: u32 = 3;

tokio::task_local! {
    /// After how long a reconcile is to come again, since it held back what it would have written.
    static HELD_BACK: Cell<Option<Duration>>;
}

/// Runs a reconcile, and says when it is to come again for what was held back in it, whatever it says itself.
pub(crate) async fn holding_back<T>(reconcile: impl Future<Output = T>) -> (T, Option<Duration>) {
    HELD_BACK.scope(Cell::new(None), async { (reconcile.await, HELD_BACK.with(Cell::get)) }).await
}

/// Writes on behalf of the controllers of one process. Cheap to clone.
#[derive(Clone)]
pub struct Writer(Arc<Inner>);

struct Inner {
    client: Client,
    component: String,
    clock: Clock,
    tasks: TaskTracker,
    /// By group and plural.
    heads: Mutex<HashMap<(String, String), Arc<Head>>>,
    recent: Mutex<Recent>,
    pace: Pace,
}

/// Objects that were written lately.
#[derive(Default)]
struct Recent {
    written: HashMap<(String, Key), Written>,
    /// By when they are forgotten.
    order: BTreeSet<(Instant, (String, Key))>,
}

struct Written {
    at: Instant,
    /// Until it may be written in words.
    pause: Duration,
}

impl Written {
    fn forgotten_at(&self) -> Instant {
        self.at + self.pause * QUIET_PAUSES
    }
}

impl Recent {
    /// How long to wait until the object may be written, now that something is new. Notes that it is written if that is now.
    fn left(&mut self, object: (String, Key), haste: Haste, summary: Duration, now: Instant) -> Option<Duration> {
        while let Some((until, _)) = self.order.first()
            && *until <= now
        {
            let Some((_, object)) = self.order.pop_first() else { break };
            self.written.remove(&object);
        }
        let mut pause = WORDS_PAUSE;
        if let Some(last) = self.written.get(&object) {
            let wait = match haste {
                Haste::Now => Duration::ZERO,
                Haste::Soon => summary,
                Haste::Later => last.pause,
            };
            let left = (last.at + wait).saturating_duration_since(now);
            if !left.is_zero() {
                return Some(left);
            }
            pause = if haste == Haste::Later { WORDS_PAUSE_MAX.min(last.pause * 2) } else { last.pause };
            self.order.remove(&(last.forgotten_at(), object.clone()));
        }
        let written = Written { at: now, pause };
        self.order.insert((written.forgotten_at(), object.clone()));
        self.written.insert(object, written);
        None
    }
}

impl Writer {
    /// `component` is named as the source of events and as the field manager.
    pub fn new(client: Client, component: &str, clock: Clock) -> Self {
        let (tasks, heads, recent, pace) = (TaskTracker::new(), Mutex::default(), Mutex::default(), Pace::default());
        Self(Arc::new(Inner { client, component: component.to_owned(), clock, tasks, heads, recent, pace }))
    }

    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn pace(&self) -> Pace {
        self.0.pace.clone()
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// What controllers write of a kind they read in its first cache. Later ones of the same kind hold another part of it,
    /// which no write of ours ever reaches.
    pub(crate) fn follow(&self, group: &str, plural: &str, head: Arc<Head>) {
        self.0.heads.lock().entry((group.to_owned(), plural.to_owned())).or_insert(head);
    }

    /// Does the steps in order and stops at the first that fails. Returns when the caches have read what was written. What a
    /// status sums up may be held back; the reconcile that this is part of comes again then.
    pub async fn execute(&self, plan: Plan) -> Result<Outcome> {
        let mut written: HashMap<(String, String), u64> = HashMap::new();
        let mut result = Ok(plan.outcome);
        let (mut writes, mut begun) = (0, None);
        // By what the status says it is known that an event has been published.
        let told = plan.steps.iter().any(|step| matches!(step, Step::Event(_)));
        for mut step in plan.steps {
            if let Some(after) = self.held_back(&mut step, told) {
                // Outside of a reconcile there is nobody who would come again.
                let _ = HELD_BACK.try_with(|held| held.set(Some(held.get().map_or(after, |held| held.min(after)))));
            }
            if matches!(&step, Step::Update(change) if change.main.is_none() && change.status.is_none()) {
                continue;
            }
            debug!("{step}");
            begun.get_or_insert_with(Instant::now);
            writes += 1;
            match self.step(step).await {
                Ok(Some((resource, version))) => {
                    let highest = written.entry((resource.group, resource.plural)).or_default();
                    *highest = version.max(*highest);
                }
                Ok(None) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for (kind, version) in written {
            let head = self.0.heads.lock().get(&kind).cloned();
            if let Some(head) = head
                && !head.reaches(version, SETTLE_LIMIT).await
            {
                warn!(kind = kind.1, version, "the watch is behind this controller's own writes");
                return Err(Error::Retry(format!("the watch of {} has not reached revision {version}", kind.1)));
            }
        }
        if let Some(begun) = begun {
            self.0.pace.took(begun.elapsed() / writes);
        }
        result
    }

    /// Takes out of a step what is not to be written yet. After how long it is.
    fn held_back(&self, step: &mut Step, told: bool) -> Option<Duration> {
        let Step::Update(change) = step else { return None };
        let haste = if told { Haste::Now } else { change.haste };
        let object = (change.resource.plural.clone(), change.key.clone());
        let summary = (self.0.pace.mean() * SUMMARY_PAUSES).clamp(SUMMARY_PAUSE_MIN, SUMMARY_PAUSE_MAX);
        // The object is observed again after the write of what is not status: its status has more to tell then.
        let apart = change.main.is_some() && change.status.is_some() && haste != Haste::Now;
        let haste = if change.main.is_some() { Haste::Now } else { haste };
        let left = self.0.recent.lock().left(object, haste, summary, Instant::now());
        let left = if apart { Some(summary) } else { left };
        if left.is_some() {
            change.status = None;
        }
        left
    }

    /// Reports an event; that it cannot be stored is no reason to fail what it tells of.
    pub async fn publish(&self, event: &Event) {
        let now = Time(self.0.clock.now());
        if let Err(error) = event.publish(&self.0.client, &self.0.component, now).await {
            warn!(reason = event.reason, "{}", error.chain());
        }
    }

    async fn step(&self, step: Step) -> Result<Option<(ApiResource, u64)>> {
        match step {
            Step::Create { resource, key, body } => {
                let body = serde_json::to_vec(&body).expect("JSON becomes text");
                let request = requests(&resource, &key).create(&PostParams::default(), body);
                let created = self.send(request.map_err(kube::Error::BuildRequest)).await;
                let created = created.map_err(|source| failed("create", &resource, &key, source))?;
                Ok(created.version().map(|version| (resource, version)))
            }
            Step::Update(change) => {
                let requests = requests(&change.resource, &change.key);
                let mut seen = change.version;
                let mut last = None;
                for (subresource, patch) in [(false, change.main), (true, change.status)] {
                    let Some(mut patch) = patch else { continue };
                    if let Some(seen) = &seen {
                        merge(&mut patch, json!({"metadata": {"resourceVersion": seen}}));
                    }
                    let params = PatchParams { field_manager: Some(self.0.component.clone()), ..Default::default() };
                    let (name, patch) = (&change.key.name, Patch::Merge(patch));
                    let request = match subresource {
                        true => requests.patch_subresource("status", name, &params, &patch),
                        false => requests.patch(name, &params, &patch),
                    };
                    let written = self.send(request.map_err(kube::Error::BuildRequest)).await;
                    let operation = if subresource { "patch the status of" } else { "patch" };
                    match written {
                        Ok(object) => {
                            last = object.version().or(last);
                            seen = object.metadata.resource_version;
                        }
                        // Gone since it was observed, or with the finalizer that was just taken away: the watch tells.
                        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                        Err(source) => return Err(failed(operation, &change.resource, &change.key, source)),
                    }
                }
                Ok(last.map(|version| (change.resource, version)))
            }
            Step::Delete { resource, key, uid } => {
                let preconditions = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
                let params = DeleteParams { preconditions, ..DeleteParams::background() };
                match self.api(&resource, &key).delete(&key.name, &params).await {
                    // An object that is gone at once is answered with a Status.
                    Ok(deleted) => {
                        let version = deleted.left().and_then(|object| object.metadata.resource_version);
                        Ok(version.and_then(|version| version.parse().ok()).map(|version| (resource, version)))
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                    Err(source) => Err(failed("delete", &resource, &key, source)),
                }
            }
            Step::Event(event) => {
                self.publish(&event).await;
                Ok(None)
            }
        }
    }

    async fn send(&self, request: kube::Result<http::Request<Vec<u8>>>) -> kube::Result<Answer> {
        self.0.client.request(request?).await
    }

    fn api(&self, resource: &ApiResource, key: &Key) -> Api<DynamicObject> {
        if key.namespace.is_empty() {
            Api::all_with(self.0.client.clone(), resource)
        } else {
            Api::namespaced_with(self.0.client.clone(), &key.namespace, resource)
        }
    }
}

fn failed(operation: &'static str, resource: &ApiResource, key: &Key, source: kube::Error) -> Error {
    Error::api(operation, format!("{} {key}", resource.kind), source)
}

fn requests(resource: &ApiResource, key: &Key) -> Request {
    let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    Request::new(DynamicObject::url_path(resource, namespace))
}

/// What is read of the answer to a write: the rest is what was sent, and comes by the watch.
#[derive(Deserialize)]
struct Answer {
    metadata: AnswerMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    resource_version: Option<String>,
}

impl Answer {
    fn version(&self) -> Option<u64> {
        self.metadata.resource_version.as_deref()?.parse().ok()
    }
}

/// Adds to a merge patch.
fn merge(patch: &mut Value, addition: Value) {
    match (patch, addition) {
        (Value::Object(patch), Value::Object(addition)) => {
            for (key, value) in addition {
                merge(patch.entry(key).or_insert(Value::Null), value);
            }
        }
        (patch, addition) => *patch = addition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_wait_for_their_pause_after_the_last_write_whatever_it_was() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let mut at = |ms: u64, haste| {
            let object = ("clusters".to_owned(), Key::new("default", "demo"));
            let left = recent.left(object, haste, Duration::from_millis(400), start + Duration::from_millis(ms));
            left.map(|left| left.as_millis())
        };
        assert_eq!(at(0, Haste::Soon), None, "nothing was written before");
        assert_eq!(at(100, Haste::Soon), Some(300));
        assert_eq!(at(150, Haste::Now), None);
        assert_eq!(at(400, Haste::Soon), Some(150));
        assert_eq!(at(550, Haste::Soon), None);
        assert_eq!(at(2_000, Haste::Later), Some(1_550), "words have a pause of their own");
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_goes_on_saying_other_words_is_written_less_often_until_it_was_quiet() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let at = |recent: &mut Recent, ms: u64, words_only| {
            let now = start + Duration::from_millis(ms);
            let object = ("clusters".to_owned(), Key::new("default", "demo"));
            let haste = if words_only { Haste::Later } else { Haste::Now };
            recent.left(object, haste, Duration::ZERO, now).map(|left| left.as_millis())
        };
        assert_eq!(at(&mut recent, 0, true), None);
        assert_eq!(at(&mut recent, 1_000, true), Some(2_000));
        assert_eq!(at(&mut recent, 1_500, false), None, "what is more than words is written at once");
        assert_eq!(at(&mut recent, 1_600, true), Some(2_900));
        assert_eq!(at(&mut recent, 4_500, true), None);
        assert_eq!(at(&mut recent, 4_600, true), Some(5_900));
        assert_eq!(at(&mut recent, 10_500, true), None);
        assert_eq!(at(&mut recent, 22_500, true), None);
        assert_eq!(at(&mut recent, 46_500, true), None);
        assert_eq!(at(&mut recent, 46_500, true), Some(30_000));
        assert_eq!(at(&mut recent, 136_500, true), None, "it was quiet");
        assert_eq!(at(&mut recent, 136_600, true), Some(2_900));
        assert_eq!((recent.written.len(), recent.order.len()), (1, 1));
    }
}
