//! Which changes wake the topology controller.

use std::sync::Arc;

use api::{cluster::Cluster, names};
use control::{Cache, Cached, Key, Queue};
use kube::core::ObjectMeta;

use super::is_owned;
use crate::{Caches, owner};

/// What is part of a cluster wakes its topology.
fn of_cluster<K: Cached>(caches: &Arc<Caches>, cache: &Cache<K>, queue: &Queue) {
    of_cluster_if(caches, cache, |_| true, queue);
}

fn of_cluster_if<K: Cached>(caches: &Arc<Caches>, cache: &Cache<K>, is: fn(&ObjectMeta) -> bool, queue: &Queue) {
    let (caches, queue) = (Arc::downgrade(caches), queue.clone());
    cache.on_change(move |object| {
        let (Some(caches), meta) = (caches.upgrade(), object.meta()) else { return };
        if !is(meta) {
            return;
        }
        let Some(cluster) = owner::label_of(meta, names::CLUSTER_LABEL) else { return };
        let key = Key::new(meta.namespace.clone().unwrap_or_default(), cluster);
        if caches.clusters.get(&key).is_some_and(|cluster| cluster.spec.topology.is_some()) {
            queue.add(key);
        }
    });
}

/// Topologies that have a class in this namespace; of this name, if one is given.
fn with_class(caches: &Caches, namespace: &str, name: Option<&str>, queue: &Queue) {
    let has = |cluster: &Cluster| {
        cluster.spec.topology.as_ref().is_some_and(|topology| {
            let own = cluster.metadata.namespace.as_deref();
            let of = topology.class_ref.namespace.as_deref().or(own).unwrap_or_default();
            of == namespace && name.is_none_or(|name| topology.class_ref.name == name)
        })
    };
    for key in caches.clusters.keys() {
        if caches.clusters.get(&key).is_some_and(|cluster| has(&cluster)) {
            queue.add(key);
        }
    }
}

/// A template of a class wakes all of its namespace; one that a topology made wakes that alone.
fn of_template<K: Cached>(caches: &Arc<Caches>, cache: &Cache<K>, queue: &Queue) {
    let (weak, own) = (Arc::downgrade(caches), queue.clone());
    cache.on_change(move |object| {
        let Some(caches) = weak.upgrade() else { return };
        if !is_owned(object.meta()) {
            with_class(&caches, object.meta().namespace.as_deref().unwrap_or_default(), None, &own);
        }
    });
    of_cluster(caches, cache, queue);
}

impl Caches {
    /// Clusters of a class that changes.
    pub(crate) fn feed_clusters_of_class(self: &Arc<Self>, queue: &Queue) {
        let (caches, queue) = (Arc::downgrade(self), queue.clone());
        self.classes.on_change(move |class| {
            let Some(caches) = caches.upgrade() else { return };
            let namespace = class.metadata.namespace.as_deref().unwrap_or_default();
            with_class(&caches, namespace, class.metadata.name.as_deref(), &queue);
        });
    }

    /// A namespace that changes its labels may come to be one that an extension is for.
    fn feed_of_namespaces(
        self: &Arc<Self>,
        is_about: fn(&Self, &Key) -> bool,
        keys: fn(&Self) -> Vec<Key>,
        queue: &Queue,
    ) {
        let (caches, queue) = (Arc::downgrade(self), queue.clone());
        self.namespaces.on_change(move |namespace| {
            let Some(caches) = caches.upgrade().filter(|caches| !caches.extensions.keys().is_empty()) else { return };
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            let of_it = keys(&caches).into_iter().filter(|key| *key.namespace == *name && is_about(&caches, key));
            of_it.for_each(|key| queue.add(key));
        });
    }

    /// Classes, and the extensions that bring along variables for them.
    pub(crate) fn feed_classes(self: &Arc<Self>, queue: &Queue) {
        self.classes.feed(queue);
        let (caches, own) = (Arc::downgrade(self), queue.clone());
        self.extensions.on_change(move |_| {
            let Some(caches) = caches.upgrade() else { return };
            caches.classes.keys().into_iter().for_each(|key| own.add(key));
        });
        self.feed_of_namespaces(|_, _| true, |caches| caches.classes.keys(), queue);
    }

    pub(crate) fn feed_topologies(self: &Arc<Self>, queue: &Queue) {
        self.clusters.feed(queue);
        let (caches, own) = (Arc::downgrade(self), queue.clone());
        self.classes.on_change(move |class| {
            let Some(caches) = caches.upgrade() else { return };
            let namespace = class.metadata.namespace.as_deref().unwrap_or_default();
            with_class(&caches, namespace, class.metadata.name.as_deref(), &own);
        });
        // Handlers that come and go.
        let (caches, own) = (Arc::downgrade(self), queue.clone());
        self.extensions.on_change(move |_| {
            let Some(caches) = caches.upgrade() else { return };
            for key in caches.clusters.keys() {
                if caches.clusters.get(&key).is_some_and(|cluster| cluster.spec.topology.is_some()) {
                    own.add(key);
                }
            }
        });
        let has_topology =
            |caches: &Self, key: &Key| caches.clusters.get(key).is_some_and(|cluster| cluster.spec.topology.is_some());
        self.feed_of_namespaces(has_topology, |caches| caches.clusters.keys(), queue);
        of_cluster(self, &self.control_planes, queue);
        of_cluster(self, &self.deployments, queue);
        of_cluster(self, &self.machine_pools, queue);
        of_cluster(self, &self.openstack_machine_pools, queue);
        of_cluster(self, &self.sets, queue);
        of_cluster(self, &self.machines, queue);
        of_cluster(self, &self.health_checks, queue);
        of_cluster(self, &self.openstack_clusters, queue);
        of_template(self, &self.cluster_templates, queue);
        of_template(self, &self.pool_templates, queue);
        // Configurations of machines are no part of a topology, those of pools are.
        let of_pool = |meta: &ObjectMeta| owner::label_of(meta, names::TOPOLOGY_POOL_LABEL).is_some();
        of_cluster_if(self, &self.configs, of_pool, queue);
        of_template(self, &self.control_plane_templates, queue);
        of_template(self, &self.config_templates, queue);
        of_template(self, &self.openstack_templates, queue);
    }
}
