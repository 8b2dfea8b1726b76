//! The reconcile kit: how every controller of Skep observes, plans and acts.
//!
//! A reconciler gets a key and nothing else. It *observes* (from shared [`Cache`]s, and from the outside world where it
//! must), *plans* with a pure function that is tested by goldens, and *acts*. The kit brings the rest: one watch for
//! each kind in a process, a queue that never runs one key twice at once, pacing of failures, and writes that are seen
//! by the caches before a reconcile ends, so that no reconcile works on a state older than its own last write.
//!
//! Built on kube-runtime's watcher. Its `Controller` is left out: it opens its own watch for each relation and has no
//! index by cluster (see `docs/decisions/reconcile-kit.md`).

mod cache;
mod clock;
mod connection;
mod election;
mod error;
mod event;
mod figures;
mod life;
mod longest;
mod pace;
mod plan;
mod queue;
mod writer;

use std::{future::Future, time::Duration};

use jiff::Timestamp;

pub use self::{
    cache::{Cache, Cached},
    clock::Clock,
    connection::{CALL_LIMIT, Connect, Direct, bounded},
    election::{Election, Overrun, Timing},
    error::{Class, Error},
    event::{Event, EventType},
    figures::{Counted, Figures},
    life::Life,
    longest::Longest,
    plan::{Change, Haste, Plan, Step},
    queue::{Queue, Runner},
    writer::Writer,
};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names one object of a kind that the reconciler knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for kinds that are not namespaced.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(object: &impl kube::Resource) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a reconcile ended when nothing went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As declared; run again only when something changes.
    Settled,
    /// Something outside has to happen first; look again after `after` if no event comes before.
    Waiting { on: String, after: Duration },
    /// The object is no more.
    Gone,
}

impl Outcome {
    pub fn waiting(on: impl Into<String>, after_s: u64) -> Self {
        Self::Waiting { on: on.into(), after: Duration::from_secs(after_s) }
    }

    /// The one that comes back sooner; settled comes last.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Waiting { after: a, .. }, Self::Waiting { after: b, .. }) if b < a => other,
            (Self::Settled, Self::Waiting { .. }) => other,
            _ => self,
        }
    }
}

/// One controller: level-triggered, driven by keys.
pub trait Reconcile: Send + Sync + 'static {
    /// Used in logs and metrics, e.g. `machineset`.
    const NAME: &'static str;
    type Seen: Send + Sync;
    type Plan: Send;

    /// All that the plan depends on; `None` if the object does not exist.
    fn observe(&self, key: &Key) -> impl Future<Output = Result<Option<Self::Seen>>> + Send;

    /// What to do about it: pure, and it says why when there is nothing to do.
    fn plan(&self, seen: &Self::Seen, now: Timestamp) -> Self::Plan;

    /// Carries the plan out; returns early rather than waits.
    fn act(&self, key: &Key, seen: &Self::Seen, plan: Self::Plan) -> impl Future<Output = Result<Outcome>> + Send;
}
