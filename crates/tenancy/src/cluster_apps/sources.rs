//! Which objects a cluster's values are made of besides the cluster, so that a change of one wakes those that it is for, and no others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
};

use control::{Key, Queue};
use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tracing::warn;

/// An object by its kind and its key.
pub type Source = (&'static str, Key);

#[derive(Debug, Default)]
pub struct Sources(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    of_cluster: HashMap<Key, BTreeSet<Source>>,
    clusters: BTreeMap<Source, BTreeSet<Key>>,
}

impl Sources {
    /// To be called before they are read: what changes in between wakes too.
    pub fn note(&self, cluster: &Key, sources: &[Source]) {
        let mut index = self.0.lock();
        let new: BTreeSet<Source> = sources.iter().cloned().collect();
        let old = match new.is_empty() {
            true => index.of_cluster.remove(cluster),
            false => index.of_cluster.insert(cluster.clone(), new.clone()),
        };
        let old = old.unwrap_or_default();
        for left in old.difference(&new) {
            let Some(clusters) = index.clusters.get_mut(left) else { continue };
            clusters.remove(cluster);
            if clusters.is_empty() {
                index.clusters.remove(left);
            }
        }
        for source in new.difference(&old) {
            index.clusters.entry(source.clone()).or_default().insert(cluster.clone());
        }
    }

    fn of(&self, source: &Source) -> Vec<Key> {
        self.0.lock().clusters.get(source).into_iter().flatten().cloned().collect()
    }

    /// All clusters that are made of something of this kind.
    fn of_kind(&self, kind: &str) -> BTreeSet<Key> {
        let index = self.0.lock();
        let found = index.clusters.iter().filter(|((of, _), _)| *of == kind);
        found.flat_map(|(_, clusters)| clusters).cloned().collect()
    }

    /// Watches the metadata of a kind and keeps none of it. Never ends.
    pub async fn follow<K>(self: Arc<Self>, kind: &'static str, client: Client, config: Config, queue: Queue)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let events = watcher(Api::<PartialObjectMeta<K>>::all(client), config).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init | Event::InitApply(_)) => {}
                // What has changed or gone while nobody watched is not told one by one.
                Ok(Event::InitDone) => self.of_kind(kind).into_iter().for_each(|cluster| queue.add(cluster)),
                Ok(Event::Apply(object) | Event::Delete(object)) => {
                    self.of(&(kind, Key::of(&object))).into_iter().for_each(|cluster| queue.add(cluster));
                }
                Err(error) => warn!(kind, %error, "watch failed; it is started again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_wakes_whom_it_is_for_until_they_have_others() {
        let (sources, at) = (Sources::default(), |name: &str| Key::new("org-acme", name));
        let secret = |name: &str| ("Secret", at(name));
        sources.note(&at("w1"), &[secret("cloud"), secret("w1-ca")]);
        sources.note(&at("w2"), &[secret("cloud")]);
        assert_eq!(sources.of(&secret("cloud")), [at("w1"), at("w2")]);
        assert!(sources.of(&("OpenStackCluster", at("cloud"))).is_empty());
        sources.note(&at("w1"), &[secret("other")]);
        assert_eq!(sources.of(&secret("cloud")), [at("w2")]);
        assert_eq!(sources.of_kind("Secret"), [at("w1"), at("w2")].into());
        for cluster in ["w1", "w2"] {
            sources.note(&at(cluster), &[]);
        }
        let index = sources.0.lock();
        assert!(index.of_cluster.is_empty() && index.clusters.is_empty());
    }
}
