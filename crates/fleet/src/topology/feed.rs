//! Which changes wake the topology controller.

use std::sync::Arc;

use api::{cluster::Cluster, names};
use control::{Cache, Cached, Key, Queue};

use super::is_owned;
use crate::{Caches, owner};

/// What is part of a cluster wakes its topology.
fn of_cluster<K: Cached>(caches: &Arc<Caches>, cache: &Cache<K>, queue: &Queue) {
    let (caches, queue) = (Arc::downgrade(caches), queue.clone());
    cache.on_change(move |object| {
        let (Some(caches), meta) = (caches.upgrade(), object.meta()) else { return };
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
    pub(crate) fn feed_topologies(self: &Arc<Self>, queue: &Queue) {
        self.clusters.feed(queue);
        let (caches, own) = (Arc::downgrade(self), queue.clone());
        self.classes.on_change(move |class| {
            let Some(caches) = caches.upgrade() else { return };
            let namespace = class.metadata.namespace.as_deref().unwrap_or_default();
            with_class(&caches, namespace, class.metadata.name.as_deref(), &own);
        });
        of_cluster(self, &self.control_planes, queue);
        of_cluster(self, &self.deployments, queue);
        of_cluster(self, &self.sets, queue);
        of_cluster(self, &self.machines, queue);
        of_cluster(self, &self.health_checks, queue);
        of_cluster(self, &self.openstack_clusters, queue);
        of_template(self, &self.cluster_templates, queue);
        of_template(self, &self.control_plane_templates, queue);
        of_template(self, &self.config_templates, queue);
        of_template(self, &self.openstack_templates, queue);
    }
}
