//! All objects of a kind that is known by its name only.

use std::{collections::BTreeMap, sync::Arc};

use control::Key;
use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::RwLock;
use tokio::sync::watch;
use tracing::warn;

/// In the order of namespaces, so that those of one are found without a look at the others.
type Objects = BTreeMap<Key, Arc<DynamicObject>>;
type Listener = Box<dyn Fn(&DynamicObject) + Send + Sync>;

pub(super) struct Watched {
    resource: ApiResource,
    objects: RwLock<Objects>,
    listeners: RwLock<Vec<Listener>>,
    filled: watch::Sender<bool>,
}

pub(super) fn key(object: &DynamicObject) -> Key {
    let meta = &object.metadata;
    Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Watched {
    pub fn new(resource: ApiResource) -> Self {
        let (objects, listeners) = (RwLock::default(), RwLock::default());
        Self { resource, objects, listeners, filled: watch::Sender::new(false) }
    }

    pub fn resource(&self) -> &ApiResource {
        &self.resource
    }

    /// Watches until it is dropped.
    pub async fn follow(self: Arc<Self>, client: Client) {
        let api = Api::<DynamicObject>::all_with(client, &self.resource);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut fresh = Objects::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(object)) => drop(fresh.insert(key(&object), Arc::new(stripped(object)))),
                Ok(Event::InitDone) => self.replace(std::mem::take(&mut fresh)),
                Ok(Event::Apply(object)) => self.put(Arc::new(stripped(object))),
                Ok(Event::Delete(object)) => {
                    self.objects.write().remove(&key(&object));
                    self.tell(&object);
                }
                Err(error) => warn!(kind = self.resource.kind, %error, "watch failed; it is started again"),
            }
        }
    }

    fn replace(&self, fresh: Objects) {
        let before = std::mem::replace(&mut *self.objects.write(), fresh.clone());
        for object in fresh.values().chain(before.iter().filter(|(key, _)| !fresh.contains_key(*key)).map(|(_, o)| o)) {
            self.tell(object);
        }
        self.filled.send_replace(true);
    }

    pub fn put(&self, object: Arc<DynamicObject>) {
        self.objects.write().insert(key(&object), object.clone());
        self.tell(&object);
    }

    fn tell(&self, object: &DynamicObject) {
        for listener in self.listeners.read().iter() {
            listener(object);
        }
    }

    /// Calls `listener` with each object that is added, changed or removed from now on.
    pub fn on_change(&self, listener: impl Fn(&DynamicObject) + Send + Sync + 'static) {
        self.listeners.write().push(Box::new(listener));
    }

    pub async fn filled(&self) {
        // The sender lives in `self`.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    pub fn get(&self, key: &Key) -> Option<Arc<DynamicObject>> {
        self.objects.read().get(key).cloned()
    }

    /// Those of a namespace, and those that have none.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<DynamicObject>> {
        let all = self.objects.read();
        if namespace.is_empty() {
            return all.values().cloned().collect();
        }
        let of = |namespace: &str| {
            let own = namespace.to_owned();
            all.range(Key::new(namespace, "")..).take_while(move |(key, _)| key.namespace == own)
        };
        of("").chain(of(namespace)).map(|(_, object)| object.clone()).collect()
    }

    /// Those of a namespace that are to go.
    pub fn deleting(&self, namespace: &str) -> Vec<Key> {
        let leaves = |object: &DynamicObject| object.metadata.deletion_timestamp.is_some();
        self.in_namespace(namespace).iter().filter(|object| leaves(object)).map(|object| key(object)).collect()
    }
}

/// Without who owns which field, which nobody here reads.
fn stripped(mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_namespace_are_found_with_those_of_none() {
        let watched = Watched::new(ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&()));
        for (namespace, name) in [("", "z"), ("a", "b"), ("ab", "a"), ("b", "a"), ("b", "c")] {
            let mut object = DynamicObject::new(name, watched.resource());
            object.metadata.namespace = Some(namespace.to_owned()).filter(|text| !text.is_empty());
            watched.put(Arc::new(object));
        }
        let names = |namespace: &str| {
            let found = watched.in_namespace(namespace);
            found.iter().map(|object| key(object).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["/z", "a/b"]);
        assert_eq!(names("b"), ["/z", "b/a", "b/c"]);
        assert_eq!(names("c"), ["/z"]);
        assert_eq!(names("").len(), 5);
    }
}
