//! One shared, indexed copy of a kind, kept up to date by one watch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::{Key, Queue};

/// What a kind must be for a cache to hold it.
pub trait Cached: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K> Cached for K where K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

type Listener<K> = Arc<dyn Fn(&Arc<K>) + Send + Sync>;

/// All objects of one kind, by key and by the cluster they belong to.
pub struct Cache<K> {
    state: RwLock<State<K>>,
    listeners: RwLock<Vec<Listener<K>>>,
    head: Arc<Head>,
    /// Ends the watch when it is dropped.
    _alive: DropGuard,
}

struct State<K> {
    objects: HashMap<Key, Arc<K>>,
    /// (namespace, cluster) -> names, from the cluster label.
    by_cluster: BTreeMap<(String, String), BTreeSet<String>>,
}

/// How far a cache has read: the highest resourceVersion seen, and whether the first list is complete.
#[derive(Debug)]
pub(crate) struct Head {
    seen: Mutex<Seen>,
    synced: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Seen {
    version: u64,
    /// By the version that they wait for: each change wakes those alone whom it is news for.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl<K: Cached> Cache<K> {
    /// Starts the watch.
    pub fn start(client: Client, config: watcher::Config, writer: &crate::Writer) -> Arc<Self> {
        let head = Arc::new(Head { seen: Mutex::default(), synced: watch::Sender::new(false) });
        writer.follow(&K::group(&()), &K::plural(&()), head.clone());
        let state = State { objects: HashMap::new(), by_cluster: BTreeMap::new() };
        let gone = CancellationToken::new();
        let alive = gone.clone().drop_guard();
        let cache =
            Arc::new(Self { state: RwLock::new(state), listeners: RwLock::new(Vec::new()), head, _alive: alive });
        let reader = Arc::downgrade(&cache);
        // Ends when the last handle of the cache is dropped, also while nothing happens.
        writer.tasks().spawn(gone.run_until_cancelled_owned(async move {
            let events = watcher(Api::<K>::all(client), config).default_backoff();
            pin_mut!(events);
            let fresh = Mutex::new(HashMap::new());
            while let Some(event) = events.next().await {
                let Some(cache) = reader.upgrade() else { return };
                match event {
                    Ok(event) => cache.apply(event, &fresh),
                    Err(error) => warn!(kind = %K::kind(&()), %error, "watch failed; it is started again"),
                }
            }
        }));
        cache
    }

    /// Calls `listener` with each object that there is, and with each that is added, changed or removed from now on; with one that
    /// comes at this moment maybe twice.
    pub fn on_change(&self, listener: impl Fn(&Arc<K>) + Send + Sync + 'static) {
        let listener: Listener<K> = Arc::new(listener);
        self.listeners.write().push(listener.clone());
        let present: Vec<_> = self.state.read().objects.values().cloned().collect();
        present.iter().for_each(|object| listener(object));
    }

    /// Feeds a controller of this kind.
    pub fn feed(&self, queue: &Queue) {
        let queue = queue.clone();
        self.on_change(move |object| queue.add(Key::of(object.as_ref())));
    }

    /// Feeds the controller of the owners: those owner references that name `group` and `kind`.
    pub fn feed_owner(&self, group: &'static str, kind: &'static str, queue: &Queue) {
        let queue = queue.clone();
        self.on_change(move |object| {
            let meta = object.meta();
            for owner in meta.owner_references.iter().flatten() {
                if owner.kind == kind && owner.api_version.split('/').next() == Some(group) {
                    queue.add(Key::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()));
                }
            }
        });
    }

    pub async fn synced(&self) {
        let mut synced = self.head.synced.subscribe();
        // The sender lives in `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The objects that carry the cluster's label, by name.
    pub fn in_cluster(&self, namespace: &str, cluster: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let names = state.by_cluster.get(&(namespace.to_owned(), cluster.to_owned()));
        names
            .into_iter()
            .flatten()
            .filter_map(|name| state.objects.get(&Key::new(namespace, name.as_str())).cloned())
            .collect()
    }

    /// The objects of a namespace. Looks at all: for kinds of which there are few.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state.objects.iter().filter(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.state.read().objects.keys().cloned().collect()
    }

    fn apply(&self, event: watcher::Event<K>, fresh: &Mutex<HashMap<Key, Arc<K>>>) {
        match event {
            watcher::Event::Init => fresh.lock().clear(),
            watcher::Event::InitApply(object) => {
                let object = Arc::new(stripped(object));
                fresh.lock().insert(Key::of(object.as_ref()), object);
            }
            watcher::Event::InitDone => self.replace(std::mem::take(&mut *fresh.lock())),
            watcher::Event::Apply(object) => {
                let object = Arc::new(stripped(object));
                self.state.write().insert(object.clone());
                self.seen(object.as_ref());
                self.tell(&object);
            }
            watcher::Event::Delete(object) => {
                let object = Arc::new(object);
                self.state.write().remove(object.as_ref());
                self.seen(object.as_ref());
                self.tell(&object);
            }
        }
    }

    /// Swaps in a complete list and tells what is new, changed or gone.
    fn replace(&self, fresh: HashMap<Key, Arc<K>>) {
        let mut state = self.state.write();
        let gone: Vec<_> =
            state.objects.iter().filter(|(key, _)| !fresh.contains_key(*key)).map(|(_, old)| old.clone()).collect();
        for object in &gone {
            state.remove(object.as_ref());
        }
        let changed: Vec<_> = fresh
            .into_iter()
            .filter(|(key, object)| {
                let old = state.objects.get(key).and_then(|old| old.meta().resource_version.clone());
                old.is_none() || old != object.meta().resource_version
            })
            .map(|(_, object)| object)
            .collect();
        for object in &changed {
            state.insert(object.clone());
        }
        drop(state);
        debug!(kind = %K::kind(&()), changed = changed.len(), gone = gone.len(), "listed");
        for object in changed.iter().chain(&gone) {
            self.seen(object.as_ref());
            self.tell(object);
        }
        self.head.synced.send_replace(true);
    }

    fn seen(&self, object: &K) {
        let version = object.meta().resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
        let Some(version) = version else {
            return;
        };
        self.head.advance(version);
    }

    fn tell(&self, object: &Arc<K>) {
        for listener in self.listeners.read().iter() {
            listener(object);
        }
    }
}

impl<K: Cached> State<K> {
    fn insert(&mut self, object: Arc<K>) {
        let key = Key::of(object.as_ref());
        if let Some(old) = self.objects.insert(key.clone(), object.clone()) {
            let cluster = cluster_of(old.as_ref());
            if cluster != cluster_of(object.as_ref()) {
                self.unindex(&key, cluster);
            }
        }
        if let Some(cluster) = cluster_of(object.as_ref()) {
            self.by_cluster.entry((key.namespace, cluster)).or_default().insert(key.name);
        }
    }

    fn remove(&mut self, object: &K) {
        let key = Key::of(object);
        if let Some(old) = self.objects.remove(&key) {
            self.unindex(&key, cluster_of(old.as_ref()));
        }
    }

    fn unindex(&mut self, key: &Key, cluster: Option<String>) {
        let Some(cluster) = cluster else { return };
        let index = (key.namespace.clone(), cluster);
        if let Some(names) = self.by_cluster.get_mut(&index) {
            names.remove(&key.name);
            if names.is_empty() {
                self.by_cluster.remove(&index);
            }
        }
    }
}

fn cluster_of(object: &impl Resource) -> Option<String> {
    object.meta().labels.as_ref()?.get(api::names::CLUSTER_LABEL).cloned()
}

/// Field ownership is of no use to a controller and is often half of an object.
fn stripped<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

impl Head {
    /// Returns once the cache has read `version`; false if it has not within `limit`.
    pub(crate) async fn reaches(&self, version: u64, limit: Duration) -> bool {
        let reached = {
            let mut seen = self.seen.lock();
            if seen.version >= version {
                return true;
            }
            let (sender, reached) = oneshot::channel();
            seen.waiting.entry(version).or_default().push(sender);
            reached
        };
        tokio::time::timeout(limit, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    fn advance(&self, version: u64) {
        let mut seen = self.seen.lock();
        if version <= seen.version {
            return;
        }
        seen.version = version;
        let later = seen.waiting.split_off(&version.saturating_add(1));
        let reached = std::mem::replace(&mut seen.waiting, later);
        drop(seen);
        for waiting in reached.into_values().flatten() {
            // Who gave up is not told.
            let _ = waiting.send(());
        }
    }
}
