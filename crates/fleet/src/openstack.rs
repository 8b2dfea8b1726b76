//! The OpenStack infrastructure provider: OpenStackCluster and OpenStackMachine, v1beta2.
//!
//! Everything in the cloud has a name that follows from the Management API's objects, and carries the cluster's mark from
//! the moment it is made; ids in the status only save looking. So a reconcile may be cut off at any line: the next one
//! finds what the last one made. Nothing is adopted or deleted that does not carry the mark. Where the cloud needs time, a
//! reconcile ends and says what it waits for.

mod bastion;
mod claim;
mod cluster;
mod credential;
mod endpoint;
mod find;
mod floating;
mod image;
mod leftovers;
mod machine;
mod machine_pool;
mod member;
mod names;
mod network;
mod passes;
mod placement;
mod pool;
mod scope;
mod security;
mod server;
mod servers;
mod stop;
mod template;
mod unanswered;
mod volumes;
mod zones;

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{
    meta::Time,
    names::CLUSTER_LABEL,
    openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachineTemplate,
    openstack_machine_pool::OpenStackMachinePool,
    openstack_reference::{IdentityRef, IdentityType},
};
use control::{Cache, Cached, Key, Life, Queue, Runner, Writer};
use kube::core::ObjectMeta;
use parking_lot::Mutex;

pub use self::image::CRD as IMAGES_CRD;
use crate::{Caches, Options, Random, Workloads, owner};

/// Makes clients of clouds: over the network, or of a cloud in the same process.
pub trait Clouds: Send + Sync + 'static {
    fn client(&self, cloud: openstack::Cloud) -> openstack::Result<openstack::Client>;
}

/// Over the network.
#[derive(Clone, Debug)]
pub struct Network(pub openstack::Options);

impl Clouds for Network {
    fn client(&self, cloud: openstack::Cloud) -> openstack::Result<openstack::Client> {
        openstack::Client::connect(cloud, self.0.clone())
    }
}

/// What both controllers share.
pub(crate) struct Shared {
    pub caches: Arc<Caches>,
    pub writer: Writer,
    pub scopes: scope::Scopes,
    pub unanswered: unanswered::Unanswered,
    pub passes: passes::Passes,
    pub workloads: Arc<Workloads>,
}

impl Shared {
    /// A reconcile begins: what an earlier one has seen that was put off, and had the same aim, is used in it. True if the cloud has
    /// to be asked for what it made twice.
    pub fn begin(&self, kind: &'static str, key: &Key, aim: passes::Aim) -> bool {
        let doubts = self.unanswered.left(kind, key).is_some_and(|left| left.is_zero());
        self.passes.begin(kind, key, aim, doubts);
        doubts
    }

    /// The scope of the reconcile that is under way: its calls belong to that.
    pub fn during(&self, kind: &'static str, key: &Key, scope: scope::Scope) -> scope::Scope {
        let doubts = self.unanswered.left(kind, key).is_some_and(|left| left.is_zero());
        scope.during(&self.passes.current(kind, key), doubts)
    }

    /// Notes how it ended, with what [`Self::begin`] said; and says when the cloud is to be asked for what it made twice.
    pub fn end<T>(&self, kind: &'static str, key: &Key, done: &stop::Result<T>, doubted: bool) -> Option<Duration> {
        self.passes.end(kind, key, done);
        if doubted && done.is_ok() {
            self.unanswered.forget(kind, key);
        }
        self.unanswered.note(kind, key, done);
        self.unanswered.left(kind, key).filter(|_| done.is_ok())
    }
}

/// The provider's controllers, before they run.
pub struct Provider {
    shared: Arc<Shared>,
    clusters: Runner,
    machines: Runner,
    images: Runner,
    servers: Runner,
    pools: Runner,
    zones: Runner,
    volumes: Runner,
    templates: Runner,
    machine_pools: Runner,
    capacities: Runner,
    random: Random,
}

impl Provider {
    pub fn new(options: &Options, caches: &Arc<Caches>, writer: &Writer, workloads: &Arc<Workloads>) -> Self {
        let scopes = scope::Scopes::new(options.clouds.clone(), options.client.clone(), caches);
        let unanswered = unanswered::Unanswered::since(Time(writer.clock().now()));
        let passes = passes::Passes::default();
        let (caches, writer, workloads) = (caches.clone(), writer.clone(), workloads.clone());
        let shared = Arc::new(Shared { caches, writer, scopes, unanswered, passes, workloads });
        let (caches, writer) = (&shared.caches, &shared.writer);
        Self {
            shared: shared.clone(),
            clusters: options.runner(writer, &caches.openstack_clusters),
            machines: options.runner(writer, &caches.openstack_machines),
            images: options.runner(writer, &caches.images),
            servers: options.runner(writer, &caches.openstack_servers),
            pools: options.runner(writer, &caches.pools),
            zones: options.runner(writer, &caches.openstack_clusters),
            volumes: options.runner(writer, &caches.openstack_clusters),
            templates: options.runner(writer, &caches.openstack_templates),
            machine_pools: options.runner(writer, &caches.openstack_machine_pools),
            capacities: options.runner(writer, &caches.openstack_machine_pools),
            random: options.random.clone(),
        }
    }

    /// Connects the caches to the controllers' queues; called before the caches are synced.
    pub fn feed(&self) {
        let caches = &self.shared.caches;
        let (clusters, machines) = (self.clusters.queue(), self.machines.queue());
        caches.openstack_clusters.feed(&clusters);
        caches.openstack_clusters.feed(&self.zones.queue());
        caches.openstack_clusters.feed(&self.volumes.queue());
        caches.openstack_machines.feed(&machines);
        caches.openstack_templates.feed(&self.templates.queue());
        caches.openstack_machine_pools.feed(&self.capacities.queue());
        // One that is to go says once more what goes with it.
        wake(&caches.clusters, &self.volumes.queue(), |cluster| {
            let reference = cluster.spec.infrastructure_ref.as_ref().filter(|r| r.kind == "OpenStackCluster")?;
            Some((reference.name.clone(), cluster.metadata.uid.clone()))
        });
        // A Cluster's and a Machine's status changes often and concerns nobody here.
        wake(&caches.clusters, &clusters, |cluster| {
            let reference = cluster.spec.infrastructure_ref.as_ref().filter(|r| r.kind == "OpenStackCluster")?;
            let paused = owner::is_paused(Some(cluster), &cluster.metadata);
            Some((reference.name.clone(), (cluster.metadata.uid.clone(), paused)))
        });
        wake(&caches.machines, &machines, |machine| {
            let reference = Some(&machine.spec.infrastructure_ref).filter(|r| r.kind == "OpenStackMachine")?;
            let data = machine.spec.bootstrap.data_secret_name.clone();
            // A node in trouble may have lost its server.
            let trouble = machine::is_in_trouble(machine);
            Some((reference.name.clone(), (machine.metadata.uid.clone(), data, trouble)))
        });
        // A pause that begins or ends wakes the cluster's machines.
        let (weak, queue) = (Arc::downgrade(caches), machines.clone());
        let paused: Mutex<HashMap<Key, bool>> = Mutex::default();
        caches.clusters.on_change(move |cluster| {
            let Some(caches) = weak.upgrade() else { return };
            let (key, now) = (Key::of(cluster.as_ref()), owner::is_paused(Some(cluster), &cluster.metadata));
            let before = match cluster.metadata.deletion_timestamp {
                Some(_) => paused.lock().remove(&key),
                None => paused.lock().insert(key.clone(), now),
            };
            if before.unwrap_or(false) != now {
                for machine in caches.openstack_machines.in_cluster(&key.namespace, &key.name) {
                    queue.add(Key::of(machine.as_ref()));
                }
            }
        });
        // The bootstrap data may be seen later than the machine that names it.
        let (weak, queue) = (Arc::downgrade(caches), machines.clone());
        caches.secrets.on_change(move |secret| {
            let Some(caches) = weak.upgrade() else { return };
            let meta = &secret.metadata;
            let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { return };
            let Some(cluster) = owner::label_of(meta, CLUSTER_LABEL) else { return };
            if owner::owner_of_kind(meta, "KubeadmConfig").is_none() {
                return;
            }
            for machine in caches.machines.in_cluster(namespace, cluster) {
                if machine.spec.bootstrap.data_secret_name.as_ref() == Some(name) {
                    queue.add(Key::new(namespace.as_str(), machine.spec.infrastructure_ref.name.as_str()));
                }
            }
        });
        self.feed_machines_of_cluster();
        image::feed(caches, &self.images.queue(), &machines, &clusters);
        let servers = self.servers.queue();
        caches.openstack_servers.feed(&servers);
        claim::feed(caches, &machines, &servers);
        pool::feed(caches, &self.pools.queue());
        machine_pool::feed(caches, &self.machine_pools.queue());
        self.feed_of_identities();
        // The last machine that goes frees its cluster. One that has gone frees the address of the API, if that led to it.
        let (weak, queue) = (Arc::downgrade(caches), clusters);
        caches.openstack_machines.on_change(move |machine| {
            let Some(caches) = weak.upgrade() else { return };
            let meta = &machine.metadata;
            let (Some(namespace), Some(_)) = (&meta.namespace, &meta.deletion_timestamp) else { return };
            let Some(name) = owner::label_of(meta, CLUSTER_LABEL) else { return };
            let Some(cluster) = caches.cluster(namespace, name) else { return };
            let Some(reference) = &cluster.spec.infrastructure_ref else { return };
            let infra = Key::new(namespace.as_str(), reference.name.as_str());
            // What is told of an object that has gone is how it was before, finalizers and all.
            let has_gone = caches.openstack_machines.get(&Key::of(machine.as_ref())).is_none();
            if has_gone && caches.openstack_clusters.get(&infra).is_some_and(|infra| endpoint::is_on_node(&infra)) {
                for other in caches.openstack_machines.in_cluster(namespace, name) {
                    machines.add(Key::of(other.as_ref()));
                }
            }
            queue.add(infra);
        });
    }

    /// Machines are woken when their cluster's infrastructure becomes provisioned, or starts to be deleted; not by
    /// everything else that changes in it.
    fn feed_machines_of_cluster(&self) {
        let (weak, queue) = (Arc::downgrade(&self.shared.caches), self.machines.queue());
        let gates: Mutex<HashMap<Key, (bool, bool)>> = Mutex::default();
        self.shared.caches.openstack_clusters.on_change(move |infra: &Arc<OpenStackCluster>| {
            let Some(caches) = weak.upgrade() else { return };
            let provisioned = infra.status.as_ref().and_then(|s| s.initialization.as_ref()).and_then(|i| i.provisioned);
            let now = (provisioned == Some(true), infra.metadata.deletion_timestamp.is_some());
            let key = Key::of(infra.as_ref());
            if now.1 && infra.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
                gates.lock().remove(&key);
                return;
            }
            if gates.lock().insert(key.clone(), now) == Some(now) {
                return;
            }
            let Some(cluster) = owner::label_of(&infra.metadata, CLUSTER_LABEL) else { return };
            for machine in caches.openstack_machines.in_cluster(&key.namespace, cluster) {
                queue.add(Key::of(machine.as_ref()));
            }
        });
    }

    /// What uses an identity is woken when that changes.
    fn feed_of_identities(&self) {
        let (weak, clusters, machines) =
            (Arc::downgrade(&self.shared.caches), self.clusters.queue(), self.machines.queue());
        let (servers, pools) = (self.servers.queue(), self.pools.queue());
        self.shared.caches.identities.on_change(move |identity| {
            let Some(caches) = weak.upgrade() else { return };
            let name = identity.metadata.name.as_deref().unwrap_or_default();
            let uses = |reference: &IdentityRef| {
                reference.type_ == Some(IdentityType::ClusterIdentity) && reference.name == name
            };
            fn wake<K: Cached>(cache: &Cache<K>, queue: &Queue, uses: impl Fn(&K) -> bool) {
                for key in cache.keys() {
                    if cache.get(&key).is_some_and(|object| uses(&object)) {
                        queue.add(key);
                    }
                }
            }
            wake(&caches.openstack_clusters, &clusters, |object| uses(&object.spec.identity_ref));
            wake(&caches.openstack_machines, &machines, |object| object.spec.identity_ref.as_ref().is_some_and(uses));
            wake(&caches.openstack_servers, &servers, |object| uses(&object.spec.identity_ref));
            wake(&caches.pools, &pools, |object| uses(&object.spec.identity_ref));
        });
    }

    pub(crate) fn spawn(self, life: &Life) {
        let Self {
            shared,
            clusters,
            machines,
            images,
            servers,
            pools,
            zones,
            volumes,
            templates,
            machine_pools,
            capacities,
            random,
        } = self;
        let (keeper, ours) = (image::Images(shared.clone()), image::Images(shared.clone()));
        life.spawn_if(async move { ours.is_ours().await }, images, keeper);
        life.spawn(servers, servers::OpenStackServers(shared.clone()));
        life.spawn(zones, zones::Zones(shared.clone()));
        life.spawn(volumes, volumes::Volumes::new(shared.clone()));
        life.spawn(pools, pool::Pools(shared.clone()));
        life.spawn(machine_pools, machine_pool::OpenStackMachinePools { shared: shared.clone(), random });
        life.spawn(templates, template::Templates::<OpenStackMachineTemplate>::new(shared.clone()));
        life.spawn(capacities, template::Templates::<OpenStackMachinePool>::new(shared.clone()));
        life.spawn(clusters, cluster::OpenStackClusters(shared.clone()));
        life.spawn(machines, machine::OpenStackMachines(shared));
    }
}

/// Wakes what an object refers to (`part`'s name) when the part of it that matters there has changed.
fn wake<K: Cached, G: PartialEq + Send + 'static>(
    cache: &Cache<K>,
    queue: &Queue,
    part: impl Fn(&K) -> Option<(String, G)> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    let seen: Mutex<HashMap<Key, G>> = Mutex::default();
    cache.on_change(move |object| {
        let Some((name, now)) = part(object) else { return };
        let key = Key::of(object.as_ref());
        let target = Key::new(key.namespace.as_str(), name);
        let meta = object.meta();
        if meta.deletion_timestamp.is_some() {
            // On its way out: what it refers to is told by its own deletion.
            seen.lock().remove(&key);
            queue.add(target);
            return;
        }
        if seen.lock().get(&key) == Some(&now) {
            return;
        }
        seen.lock().insert(key, now);
        queue.add(target);
    });
}

/// How long something has been under way.
fn since(start: jiff::Timestamp, now: &Time) -> Duration {
    Duration::try_from(now.0.duration_since(start)).unwrap_or_default()
}

fn age(meta: &ObjectMeta, now: &Time) -> Duration {
    meta.creation_timestamp.as_ref().map_or(Duration::ZERO, |t| since(t.0, now))
}
