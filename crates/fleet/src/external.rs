//! Objects that the core controllers know by contract only: infrastructure and bootstrap of any provider.
//!
//! Source: kubernetes-sigs/cluster-api docs/book/src/developer/providers/contracts.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, OnceLock},
};

use api::meta::{Condition, ContractRef};
use control::{Cache, Cached, Key, Queue};
use kube::{
    api::{ApiResource, DynamicObject},
    core::ObjectMeta,
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// An object seen through its contract.
#[derive(Clone, Debug)]
pub struct External {
    pub resource: ApiResource,
    pub meta: ObjectMeta,
    object: Arc<dyn Readable>,
    /// The object as JSON, once somebody has looked at more than its metadata.
    value: OnceLock<Value>,
}

trait Readable: Debug + Send + Sync {
    fn value(&self) -> Value;
}

impl<T: Serialize + Debug + Send + Sync> Readable for T {
    fn value(&self) -> Value {
        value(self)
    }
}

/// An object of the API as JSON.
pub fn value<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("API types serialize to JSON: string keys only")
}

impl External {
    pub fn of<K: Cached + Serialize>(object: Arc<K>) -> Self {
        let (resource, meta) = (ApiResource::erase::<K>(&()), object.meta().clone());
        Self { resource, meta, object, value: OnceLock::new() }
    }

    /// An object that was read without a type.
    pub fn from_dynamic(resource: &ApiResource, object: DynamicObject) -> Self {
        let meta = object.metadata.clone();
        Self { resource: resource.clone(), meta, object: Arc::new(object), value: OnceLock::new() }
    }

    #[cfg(test)]
    pub fn from_value(resource: ApiResource, meta: ObjectMeta, value: Value) -> Self {
        Self { resource, meta, object: Arc::new(value), value: OnceLock::new() }
    }

    #[cfg(test)]
    pub fn set(&mut self, value: Value) {
        self.value = value.into();
    }

    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| self.object.value())
    }

    pub fn key(&self) -> Key {
        Key::new(self.meta.namespace.clone().unwrap_or_default(), self.meta.name.clone().unwrap_or_default())
    }

    pub fn deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// The field at a JSON pointer; `None` if it is absent or of another type.
    pub fn read<T: DeserializeOwned>(&self, pointer: &str) -> Option<T> {
        T::deserialize(self.value().pointer(pointer)?).ok()
    }

    pub fn provisioned(&self) -> bool {
        self.read("/status/initialization/provisioned").unwrap_or(false)
    }

    pub fn condition(&self, type_: &str) -> Option<Condition> {
        let conditions: Vec<Condition> = self.read("/status/conditions")?;
        conditions.into_iter().find(|condition| condition.type_ == type_)
    }
}

type Get = Box<dyn Fn(&Key) -> Option<External> + Send + Sync>;
type InCluster = Box<dyn Fn(&str, &str) -> Vec<External> + Send + Sync>;
type Listener = Arc<dyn Fn(&str, &Key) + Send + Sync>;
type OnChange = Box<dyn Fn(Listener) + Send + Sync>;

/// The references of an object that its controller follows.
pub type References<K> = fn(&K) -> Vec<&ContractRef>;

/// Who names whom. Groups are left out: a namesake of another group wakes one too many, which does no harm.
#[derive(Default)]
struct Index {
    referrers: HashMap<(String, Key), HashSet<Key>>,
    named: HashMap<Key, Vec<(String, Key)>>,
}

impl Index {
    fn set(&mut self, referrer: &Key, named: Vec<(String, Key)>) {
        for target in self.named.remove(referrer).unwrap_or_default() {
            if let Some(referrers) = self.referrers.get_mut(&target) {
                referrers.remove(referrer);
                if referrers.is_empty() {
                    self.referrers.remove(&target);
                }
            }
        }
        for target in &named {
            self.referrers.entry(target.clone()).or_default().insert(referrer.clone());
        }
        if !named.is_empty() {
            self.named.insert(referrer.clone(), named);
        }
    }

    fn of(&self, kind: &str, key: &Key) -> Vec<Key> {
        let referrers = self.referrers.get(&(kind.to_owned(), key.clone()));
        referrers.into_iter().flatten().cloned().collect()
    }
}

/// The kinds that references may name, with where to find their objects.
#[derive(Default)]
pub struct Kinds(HashMap<(String, String), Known>);

struct Known {
    resource: ApiResource,
    get: Get,
    in_cluster: InCluster,
    on_change: OnChange,
}

impl Kinds {
    pub fn add<K: Cached + Serialize>(&mut self, cache: &Arc<Cache<K>>) {
        let resource = ApiResource::erase::<K>(&());
        let (one, many) = (cache.clone(), cache.clone());
        let get: Get = Box::new(move |key| one.get(key).map(External::of));
        let in_cluster: InCluster = Box::new(move |namespace, cluster| {
            many.in_cluster(namespace, cluster).into_iter().map(External::of).collect()
        });
        let (watched, kind) = (cache.clone(), resource.kind.clone());
        let on_change: OnChange = Box::new(move |listener| {
            let kind = kind.clone();
            watched.on_change(move |object| listener(&kind, &Key::of(object.as_ref())));
        });
        let known = Known { resource: resource.clone(), get, in_cluster, on_change };
        self.0.insert((resource.group, resource.kind), known);
    }

    /// The resource that a reference's kind is served as; `None` if no provider here knows it.
    pub fn resource(&self, group: &str, kind: &str) -> Option<&ApiResource> {
        self.0.get(&(group.to_owned(), kind.to_owned())).map(|known| &known.resource)
    }

    /// All of them.
    pub fn resources(&self) -> impl Iterator<Item = &ApiResource> {
        self.0.values().map(|known| &known.resource)
    }

    pub fn get(&self, namespace: &str, reference: &ContractRef) -> Option<External> {
        let known = self.0.get(&(reference.api_group.clone(), reference.kind.clone()))?;
        (known.get)(&Key::new(namespace, reference.name.as_str()))
    }

    /// Objects of the kind that carry the cluster's label.
    pub fn in_cluster(&self, group: &str, kind: &str, namespace: &str, cluster: &str) -> Vec<External> {
        let entry = self.0.get(&(group.to_owned(), kind.to_owned()));
        entry.map(|known| (known.in_cluster)(namespace, cluster)).unwrap_or_default()
    }

    /// Feeds a controller with the objects of `cache`, and with each that references an object which is made, changed or
    /// removed: what is applied in whatever order finds together.
    pub fn feed_with_references<K: Cached>(&self, cache: &Arc<Cache<K>>, references: References<K>, queue: &Queue) {
        let index = Arc::new(Mutex::new(Index::default()));
        let (writer, holder, own) = (index.clone(), Arc::downgrade(cache), queue.clone());
        cache.on_change(move |object| {
            let Some(cache) = holder.upgrade() else { return };
            let key = Key::of(object.as_ref());
            let present = cache.get(&key);
            let named = present.iter().flat_map(|object| references(object.as_ref()));
            let named = named.map(|reference| (reference.kind.clone(), Key::new(&*key.namespace, &*reference.name)));
            // Before the object is queued: one of the two sees the other, whichever comes first.
            writer.lock().set(&key, named.collect());
            own.add(key);
        });
        let queue = queue.clone();
        let wake: Listener = Arc::new(move |kind, key| {
            for referrer in index.lock().of(kind, key) {
                queue.add(referrer);
            }
        });
        for known in self.0.values() {
            (known.on_change)(wake.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_forgets_references_that_are_gone() {
        let mut index = Index::default();
        let (cluster, infra) = (Key::new("default", "demo"), Key::new("default", "infra"));
        index.set(&cluster, vec![("OpenStackCluster".to_owned(), infra.clone())]);
        assert_eq!(index.of("OpenStackCluster", &infra), std::slice::from_ref(&cluster));
        assert!(index.of("OpenStackMachine", &infra).is_empty());
        index.set(&cluster, Vec::new());
        assert!(index.referrers.is_empty() && index.named.is_empty());
    }
}
