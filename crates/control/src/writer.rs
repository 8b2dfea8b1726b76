//! Carries plans out against the Management API.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::{Clock, Error, Event, Key, Outcome, Plan, Result, Step, cache::Head};

/// How long a reconcile waits to see its own writes in the caches before it gives up and comes back later.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// What is new in words only is written this long after the object's last write: a machine on its way says a dozen things,
/// and each would be written again in the summaries of everything above it.
const WORDS_INTERVAL: Duration = Duration::from_secs(1);

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
}

/// Objects that were written less than [`WORDS_INTERVAL`] ago.
#[derive(Default)]
struct Recent {
    written: HashMap<(String, Key), Instant>,
    order: VecDeque<(Instant, (String, Key))>,
}

impl Recent {
    fn add(&mut self, object: (String, Key), now: Instant) {
        self.forget(now);
        self.written.insert(object.clone(), now);
        self.order.push_back((now, object));
    }

    /// How long to wait until the object may be written in words.
    fn left(&mut self, object: &(String, Key), now: Instant) -> Option<Duration> {
        self.forget(now);
        self.written.get(object).map(|at| (*at + WORDS_INTERVAL).saturating_duration_since(now))
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.order.front()
            && *at + WORDS_INTERVAL <= now
        {
            let Some((at, object)) = self.order.pop_front() else { break };
            // Unless it was written again since.
            if self.written.get(&object) == Some(&at) {
                self.written.remove(&object);
            }
        }
    }
}

impl Writer {
    /// `component` is named as the source of events and as the field manager.
    pub fn new(client: Client, component: &str, clock: Clock) -> Self {
        let (tasks, heads, recent) = (TaskTracker::new(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { client, component: component.to_owned(), clock, tasks, heads, recent }))
    }

    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// What controllers write of a kind they read in its first cache. Later ones of the same kind hold another part of it,
    /// which no write of ours ever reaches.
    pub(crate) fn follow(&self, group: &str, plural: &str, head: Arc<Head>) {
        self.0.heads.lock().entry((group.to_owned(), plural.to_owned())).or_insert(head);
    }

    /// Does the steps in order and stops at the first that fails. Returns when the caches have read what was written.
    pub async fn execute(&self, plan: Plan) -> Result<Outcome> {
        let mut written: HashMap<(String, String), u64> = HashMap::new();
        let mut result = Ok(plan.outcome);
        for step in plan.steps {
            if let Some(after) = self.early(&step) {
                result =
                    result.map(|outcome| outcome.sooner(Outcome::Waiting { on: "the time to tell".into(), after }));
                continue;
            }
            debug!("{step}");
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
        result
    }

    /// How long this step is still to wait, if it only says in other words what was written just now.
    fn early(&self, step: &Step) -> Option<Duration> {
        let Step::Update(change) = step else { return None };
        let object = (change.resource.plural.clone(), change.key.clone());
        let (mut recent, now) = (self.0.recent.lock(), Instant::now());
        let left = recent.left(&object, now).filter(|_| change.words_only);
        if left.is_none() {
            recent.add(object, now);
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
                let object: DynamicObject = serde_json::from_value(body).map_err(|error| Error::Bug {
                    what: format!("{} {key} is not an object", resource.kind),
                    source: Some(error.into()),
                })?;
                let created = self.api(&resource, &key).create(&PostParams::default(), &object).await;
                let created = created.map_err(|source| failed("create", &resource, &key, source))?;
                Ok(version(&created).map(|version| (resource, version)))
            }
            Step::Update(change) => {
                let api = self.api(&change.resource, &change.key);
                let mut seen = change.version;
                let mut last = None;
                for (subresource, patch) in [(false, change.main), (true, change.status)] {
                    let Some(mut patch) = patch else { continue };
                    if let Some(seen) = &seen {
                        merge(&mut patch, json!({"metadata": {"resourceVersion": seen}}));
                    }
                    let params = PatchParams { field_manager: Some(self.0.component.clone()), ..Default::default() };
                    let (name, patch) = (&change.key.name, Patch::Merge(patch));
                    let written = if subresource {
                        api.patch_status(name, &params, &patch).await
                    } else {
                        api.patch(name, &params, &patch).await
                    };
                    let operation = if subresource { "patch the status of" } else { "patch" };
                    match written {
                        Ok(object) => {
                            last = version(&object).or(last);
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
                    Ok(deleted) => Ok(deleted.left().as_ref().and_then(version).map(|version| (resource, version))),
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

fn version(object: &DynamicObject) -> Option<u64> {
    object.metadata.resource_version.as_deref()?.parse().ok()
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
