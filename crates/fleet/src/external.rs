//! Objects that the core controllers know by contract only: infrastructure and bootstrap of any provider.
//!
//! Source: kubernetes-sigs/cluster-api docs/book/src/developer/providers/contracts.

use std::{collections::HashMap, sync::Arc};

use api::meta::{Condition, ContractRef};
use control::{Cache, Cached, Key};
use kube::{api::ApiResource, core::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// An object seen through its contract.
#[derive(Clone, Debug)]
pub struct External {
    pub resource: ApiResource,
    pub meta: ObjectMeta,
    pub value: Value,
}

impl External {
    pub fn of<K: Cached + Serialize>(object: &K) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let value = serde_json::to_value(object).expect("API types serialize to JSON: string keys only");
        Self { resource, meta: object.meta().clone(), value }
    }

    pub fn key(&self) -> Key {
        Key::new(self.meta.namespace.clone().unwrap_or_default(), self.meta.name.clone().unwrap_or_default())
    }

    pub fn deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// The field at a JSON pointer; `None` if it is absent or of another type.
    pub fn read<T: DeserializeOwned>(&self, pointer: &str) -> Option<T> {
        T::deserialize(self.value.pointer(pointer)?).ok()
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

/// The kinds that references may name, with where to find their objects.
#[derive(Default)]
pub struct Kinds(HashMap<(String, String), (ApiResource, Get, InCluster)>);

impl Kinds {
    pub fn add<K: Cached + Serialize>(&mut self, cache: &Arc<Cache<K>>) {
        let resource = ApiResource::erase::<K>(&());
        let (one, many) = (cache.clone(), cache.clone());
        let get: Get = Box::new(move |key| one.get(key).map(|object| External::of(object.as_ref())));
        let in_cluster: InCluster = Box::new(move |namespace, cluster| {
            many.in_cluster(namespace, cluster).iter().map(|object| External::of(object.as_ref())).collect()
        });
        self.0.insert((resource.group.clone(), resource.kind.clone()), (resource, get, in_cluster));
    }

    /// The resource that a reference's kind is served as; `None` if no provider here knows it.
    pub fn resource(&self, group: &str, kind: &str) -> Option<&ApiResource> {
        self.0.get(&(group.to_owned(), kind.to_owned())).map(|(resource, ..)| resource)
    }

    pub fn get(&self, namespace: &str, reference: &ContractRef) -> Option<External> {
        let (_, get, _) = self.0.get(&(reference.api_group.clone(), reference.kind.clone()))?;
        get(&Key::new(namespace, reference.name.as_str()))
    }

    /// Objects of the kind that carry the cluster's label.
    pub fn in_cluster(&self, group: &str, kind: &str, namespace: &str, cluster: &str) -> Vec<External> {
        let entry = self.0.get(&(group.to_owned(), kind.to_owned()));
        entry.map(|(_, _, in_cluster)| in_cluster(namespace, cluster)).unwrap_or_default()
    }
}
