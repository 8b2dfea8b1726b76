//! Calls to the store, timed, and what is in it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use store::{At, Commit, Guard, Op, Page, Range, Revision, SharedStore, Store, Watch};
use tokio::time::Instant;

use super::{Metrics, Text};
use crate::{kinds::ROOT, server::Server, trace};

/// The kinds that calls are counted by at most; those of further kinds are counted together.
const KINDS_MAX: usize = 2000;

/// What calls for the objects of one kind take.
pub(super) struct Calls {
    get: Histogram,
    list: Histogram,
    write: Histogram,
    errors: Counter,
}

/// A store whose calls are timed.
pub(crate) struct Metered {
    store: SharedStore,
    metrics: Arc<Metrics>,
}

impl Metered {
    pub(crate) fn new(store: SharedStore, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }
}

/// `group/plural` of a key below the root.
fn place(key: &[u8]) -> &str {
    let Some(rest) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(ROOT)) else { return "" };
    let mut slashes = rest.match_indices('/').map(|(at, _)| at);
    let _group = slashes.next();
    slashes.next().map_or("", |end| &rest[..end])
}

impl Metrics {
    fn calls(&self, key: &[u8]) -> Arc<Calls> {
        let place = place(key);
        if let Some(calls) = self.stores.read().get(place) {
            return Arc::clone(calls);
        }
        let mut stores = self.stores.write();
        let place = if stores.len() < KINDS_MAX { place } else { "" };
        let (group, plural) = place.split_once('/').unwrap_or_default();
        let group = if group == "core" { "" } else { group };
        let labels = |operation: &'static str| {
            [
                ("group", Text::Owned(group.to_owned())),
                ("operation", Text::Borrowed(operation)),
                ("resource", Text::Owned(plural.to_owned())),
            ]
        };
        let of = |operation| self.store_calls.get_or_create(&labels(operation)).clone();
        let errors = self.store_errors.get_or_create(&labels("any")).clone();
        let calls = Calls { get: of("get"), list: of("list"), write: of("update"), errors };
        Arc::clone(stores.entry(place.into()).or_insert_with(|| Arc::new(calls)))
    }

    /// Counts what is stored; -1 where it cannot be read.
    pub(super) async fn count_objects(&self, server: &Server) {
        let store = server.store();
        self.store_bytes.set(i64::try_from(store.size_bytes()).unwrap_or(i64::MAX));
        self.objects.clear();
        self.objects_by_group.clear();
        let catalog = server.catalog();
        let mut seen = std::collections::HashSet::new();
        for group in catalog.groups() {
            for kind in group.versions.iter().flat_map(|(_, kinds)| kinds).filter(|kind| !kind.review) {
                if !seen.insert(kind.storage.prefix()) {
                    continue;
                }
                let page = store.range(Range::prefix(kind.storage.prefix()), At::Latest, 1).await;
                let count = page.map_or(-1, |page| {
                    i64::try_from(page.remaining).unwrap_or(i64::MAX).saturating_add(i64::from(!page.items.is_empty()))
                });
                let resource = crate::status::qualified(&kind.storage.plural, &kind.storage.group);
                self.objects.get_or_create(&[("resource", Text::Owned(resource))]).set(count);
                let labels = [("group", kind.storage.group.clone()), ("resource", kind.storage.plural.clone())];
                self.objects_by_group.get_or_create(&labels).set(count);
            }
        }
    }
}

#[async_trait]
impl Store for Metered {
    async fn range(&self, range: Range, at: At, limit: usize) -> store::Result<Page> {
        let calls = self.metrics.calls(&range.start);
        let start = Instant::now();
        let page = self.store.range(range, at, limit).await;
        let histogram = if limit == 1 { &calls.get } else { &calls.list };
        histogram.observe(start.elapsed().as_secs_f64());
        if page.is_err() {
            calls.errors.inc();
        }
        page
    }

    async fn commit(&self, guard: Guard, ops: Vec<Op>) -> store::Result<Commit> {
        let calls = match ops.first() {
            Some(Op::Put { key, .. } | Op::Delete { key }) => self.metrics.calls(key),
            None => self.metrics.calls(b""),
        };
        let mut span = trace::child(|| "store commit".to_owned(), trace::Kind::Client);
        if let (Some(span), Some(Op::Put { key, .. } | Op::Delete { key })) = (&mut span, ops.first()) {
            span.text("resource", place(key));
            span.number("operations", i64::try_from(ops.len()).unwrap_or(i64::MAX));
        }
        let start = Instant::now();
        let commit = self.store.commit(guard, ops).await;
        if let (Some(span), Err(error)) = (&mut span, &commit) {
            span.failed(&error.to_string());
        }
        let took: Duration = start.elapsed();
        calls.write.observe(took.as_secs_f64());
        if commit.is_err() {
            calls.errors.inc();
        }
        commit
    }

    fn watch(&self, range: Range, after: Revision) -> store::Result<Watch> {
        self.store.watch(range, after)
    }

    async fn reach(&self, revision: Revision) -> store::Result<()> {
        self.store.reach(revision).await
    }

    async fn compact(&self, below: Revision) -> store::Result<()> {
        self.store.compact(below).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}
