//! What goes on behind the requests: garbage collection, the emptying of namespaces and CRDs, the aggregation of roles,
//! the default service account of each namespace, tokens in secrets, the end of old events.
//!
//! One task reads the store's events and keeps the indexes; another does the work that they call for. The graph of owners
//! grows with each event and is never scanned.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use parking_lot::Mutex;
use policy::User;
use store::{At, Event, Range, Revision, WatchItem};
use tokio::{sync::Notify, time::Instant};

use crate::{
    crd,
    kinds::{self, split_key},
    object::Partial,
    rest::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER, after_key},
    server::Server,
    status::Result,
    write::store_error,
};

mod controller;
mod graph;
mod namespaces;
mod owners;
mod roles;
mod tokens;

pub use controller::{Controller, UnknownController};
use graph::Graph;

/// Work that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// How often events are looked through for those that are too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Keys that are read at once at start.
const LOAD_ITEMS: usize = 1000;

/// Something to be looked at. Each is done from what stands at that time, so doing it twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// The object (its key) has owners: is one of them still there?
    Dependent(Box<[u8]>),
    /// The object is being deleted, and waits for its dependents.
    Finalize(Box<[u8]>),
    /// The namespace is being deleted.
    Namespace(String),
    /// The namespace is to have its default service account.
    Account(String),
    /// The CRD is being deleted.
    Crd(String),
    /// A CRD of the group has gone: names that it had are free for others.
    Names(String),
    /// Cluster roles have changed.
    Aggregate,
    /// What a quota (namespace, name) limits is to be counted, if it is not.
    Quota(String, String),
    /// The same, whether it is counted or not: something was written by somebody who did not know of it yet.
    Recount(String, String),
    /// The secret (namespace, name) is to hold a token.
    Token(String, String),
    /// The account (namespace, name) has gone: its tokens are to go.
    Tokens(String, String),
    /// The account (namespace, name) may name a secret that has gone.
    Unnamed(String, String, String),
    /// Old events are to go.
    Sweep,
}

impl Work {
    /// What each server does for itself, even if another does all else.
    fn is_own(&self) -> bool {
        matches!(self, Self::Quota(..) | Self::Recount(..) | Self::Sweep)
    }
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Work>,
    known: HashSet<Work>,
    later: Vec<(Instant, Work)>,
}

#[derive(Default)]
pub(crate) struct Collector {
    queue: Mutex<Queue>,
    wake: Notify,
    graph: Mutex<Graph>,
    /// Another of several servers does what is done once for all of them.
    rests: AtomicBool,
    resumed: Notify,
}

impl Collector {
    /// Whether this server does what is to be done once for all servers over a store; told by whoever lets one of them do it.
    pub(crate) fn set_working(&self, works: bool) {
        self.rests.store(!works, Ordering::SeqCst);
        if works {
            // What came up in the meantime is found by reading everything once more.
            self.resumed.notify_one();
        } else {
            let mut queue = self.queue.lock();
            queue.ready.clear();
            queue.known.clear();
            queue.later.retain(|(_, work)| work.is_own());
        }
    }

    fn rests(&self) -> bool {
        self.rests.load(Ordering::SeqCst)
    }

    pub(crate) fn push(&self, work: Work) {
        if self.rests() && !work.is_own() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.known.insert(work.clone()) {
            queue.ready.push_back(work);
            self.wake.notify_one();
        }
    }

    fn push_later(&self, work: Work, at: Instant) {
        let mut queue = self.queue.lock();
        if !queue.later.iter().any(|(_, known)| *known == work) {
            queue.later.push((at, work));
        }
    }

    /// The next work, or when to look again.
    fn pop(&self) -> Result<Work, Option<Instant>> {
        let mut queue = self.queue.lock();
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = queue.later.drain(..).partition(|(at, _)| *at <= now);
        queue.later = later;
        for (_, work) in due {
            if queue.known.insert(work.clone()) {
                queue.ready.push_back(work);
            }
        }
        match queue.ready.pop_front() {
            Some(work) => {
                queue.known.remove(&work);
                Ok(work)
            }
            None => Err(queue.later.iter().map(|(at, _)| *at).min()),
        }
    }
}

/// Who the server itself is when it deletes.
fn collector_user() -> std::sync::Arc<User> {
    static USER: LazyLock<std::sync::Arc<User>> =
        LazyLock::new(|| std::sync::Arc::new(User::service_account("kube-system", "generic-garbage-collector", "")));
    std::sync::Arc::clone(&USER)
}

/// Reads everything that stands into the indexes, and opens the watch that goes on from there.
pub(crate) async fn load(server: &Server) -> Result<store::Watch> {
    *server.state().collector.graph.lock() = Graph::default();
    let all = Range::prefix(kinds::ROOT);
    let mut range = all.clone();
    let mut at = At::Latest;
    let mut stale = server.taken_in();
    let revision = loop {
        let page = server.store().range(range.clone(), at, LOAD_ITEMS).await.map_err(store_error)?;
        for kv in &page.items {
            stale.remove(&kv.key[..]);
            put(server, &kv.key, kv.modified, &kv.value);
        }
        match page.items.last() {
            Some(last) if page.remaining > 0 => range.start = after_key(&last.key),
            _ => break page.revision,
        }
        at = At::Exact(page.revision);
    };
    // What was deleted while nobody looked.
    for key in stale {
        server.take_in(&key, revision, None, true);
    }
    server.store().watch(all, revision).map_err(store_error)
}

/// Follows the store until the server ends.
pub(crate) async fn observe(server: Server, mut watch: store::Watch) {
    let stop = server.state().stop.clone();
    loop {
        let item = tokio::select! {
            item = watch.next() => item,
            () = server.state().collector.resumed.notified() => Some(WatchItem::Compacted),
            () = stop.cancelled() => return,
        };
        match item {
            Some(WatchItem::Event(Event::Put { item, .. })) => {
                recount_if_new(&server, &item.key);
                put(&server, &item.key, item.modified, &item.value);
            }
            Some(WatchItem::Event(Event::Delete { revision, prev })) => {
                delete(&server, &prev.key, revision, &prev.value);
            }
            Some(WatchItem::Bookmark(_)) => {}
            Some(WatchItem::Compacted) => {
                tracing::debug!("the collector reads the store anew");
                watch = loop {
                    match load(&server).await {
                        Ok(new) => break new,
                        Err(error) => tracing::warn!(%error, "the store cannot be read; the collector tries again"),
                    }
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = stop.cancelled() => return,
                    }
                };
            }
            None => return,
        }
    }
}

/// A quota that another server made: until now this one wrote without it.
fn recount_if_new(server: &Server, key: &[u8]) {
    if let Some(("core", "resourcequotas", namespace, name)) = split_key(key)
        && !server.limits().quotas(namespace).iter().any(|known| known == name)
    {
        server.state().collector.push(Work::Recount(namespace.to_owned(), name.to_owned()));
    }
}

fn put(server: &Server, key: &[u8], revision: Revision, value: &[u8]) {
    server.take_in(key, revision, Some(value), true);
    let Some((group, plural, namespace, name)) = split_key(key) else { return };
    let Ok(partial) = Partial::read(value) else { return };
    let collector = &server.state().collector;
    let metadata = &partial.metadata;
    let deleting = metadata.deletion_timestamp.is_some();
    let waits =
        deleting && metadata.finalizers.iter().any(|f| matches!(f.as_ref(), ORPHAN_FINALIZER | FOREGROUND_FINALIZER));
    let changed = collector.graph.lock().put(key, &metadata.uid, &metadata.owner_references, waits);
    if changed && !metadata.owner_references.is_empty() {
        collector.push(Work::Dependent(key.into()));
    }
    if waits {
        collector.push(Work::Finalize(key.into()));
    }
    match (group, plural) {
        ("core", "namespaces") if deleting => {
            collector.graph.lock().terminating.insert(name.to_owned());
            collector.push(Work::Namespace(name.to_owned()));
        }
        ("core", "namespaces") => collector.push(Work::Account(name.to_owned())),
        ("core", "resourcequotas") => collector.push(Work::Quota(namespace.to_owned(), name.to_owned())),
        ("core", "secrets") if !deleting && tokens::holds_token(value) => {
            collector.push(Work::Token(namespace.to_owned(), name.to_owned()));
        }
        (crd::GROUP, _) if deleting => {
            collector.graph.lock().terminating_crds.insert(name.to_owned());
            collector.push(Work::Crd(name.to_owned()));
        }
        (crate::access::GROUP, "clusterroles") => collector.push(Work::Aggregate),
        _ => {}
    }
}

fn delete(server: &Server, key: &[u8], revision: Revision, value: &[u8]) {
    server.take_in(key, revision, None, true);
    let Some((group, plural, namespace, name)) = split_key(key) else { return };
    let collector = &server.state().collector;
    let uid = Partial::read(value).map(|p| p.metadata.uid.into_owned()).unwrap_or_default();
    let (orphans, owners) = collector.graph.lock().remove(key, &uid);
    for dependent in orphans {
        collector.push(Work::Dependent(dependent));
    }
    for owner in owners {
        collector.push(Work::Finalize(owner));
    }
    let graph = &mut *collector.graph.lock();
    if graph.terminating.contains(namespace) {
        collector.push(Work::Namespace(namespace.to_owned()));
    }
    let crd = format!("{plural}.{group}");
    if graph.terminating_crds.contains(&crd) {
        collector.push(Work::Crd(crd));
    }
    match (group, plural) {
        ("core", "namespaces") => drop(graph.terminating.remove(name)),
        ("core", "serviceaccounts") => {
            collector.push(Work::Tokens(namespace.to_owned(), name.to_owned()));
            if name == namespaces::DEFAULT_ACCOUNT {
                collector.push(Work::Account(namespace.to_owned()));
            }
        }
        ("core", "secrets") if tokens::holds_token(value) => {
            tokens::left(namespace, name, value).into_iter().for_each(|work| collector.push(work));
        }
        (crd::GROUP, _) => {
            graph.terminating_crds.remove(name);
            let group = name.split_once('.').map_or("", |(_, group)| group);
            collector.push(Work::Names(group.to_owned()));
        }
        (crate::access::GROUP, "clusterroles") => collector.push(Work::Aggregate),
        _ => {}
    }
}

/// Does the work until the server ends.
pub(crate) async fn work(server: Server) {
    let stop = server.state().stop.clone();
    let collector = &server.state().collector;
    collector.push_later(Work::Sweep, Instant::now() + SWEEP_INTERVAL);
    loop {
        match collector.pop() {
            Ok(work) => {
                if stop.is_cancelled() {
                    return;
                }
                run(&server, work).await;
            }
            Err(next) => {
                let due = async {
                    match next {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = collector.wake.notified() => {}
                    () = due => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

async fn run(server: &Server, work: Work) {
    let disabled = &server.state().options.disabled_controllers;
    if Controller::of(&work).is_some_and(|controller| disabled.contains(&controller)) {
        return;
    }
    let done = match &work {
        Work::Dependent(key) => owners::check(server, key).await,
        Work::Finalize(key) => owners::finalize(server, key).await,
        Work::Namespace(name) => namespaces::empty(server, name).await,
        Work::Account(name) => namespaces::default_account(server, name).await,
        Work::Crd(name) => namespaces::empty_crd(server, name).await,
        Work::Names(group) => namespaces::name_again(server, group).await,
        Work::Aggregate => roles::aggregate(server).await,
        Work::Quota(namespace, name) => crate::admission::quota::recount(server, namespace, name, false).await,
        Work::Recount(namespace, name) => crate::admission::quota::recount(server, namespace, name, true).await,
        Work::Token(namespace, name) => tokens::fill(server, namespace, name).await,
        Work::Tokens(namespace, name) => tokens::account_gone(server, namespace, name).await,
        Work::Unnamed(namespace, account, secret) => tokens::unname(server, namespace, account, secret).await,
        Work::Sweep => {
            let collector = &server.state().collector;
            collector.push_later(Work::Sweep, Instant::now() + SWEEP_INTERVAL);
            if collector.rests() { Ok(()) } else { namespaces::sweep_events(server).await }
        }
    };
    match done {
        Ok(()) => {}
        // What is not there any more needs no work.
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            tracing::debug!(%error, ?work, "background work is tried again");
            let collector = &server.state().collector;
            if !collector.rests() || work.is_own() {
                collector.push_later(work, Instant::now() + RETRY);
            }
        }
    }
}
