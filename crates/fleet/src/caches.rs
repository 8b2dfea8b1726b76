//! The shared copies of every kind that the fleet's controllers read, and which change wakes which controller.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use api::{
    cluster::Cluster,
    cluster_class::{ClusterClass, KubeadmControlPlaneTemplate},
    control_plane::KubeadmControlPlane,
    drain_rule::MachineDrainRule,
    extension::ExtensionConfig,
    health_check::MachineHealthCheck,
    ip_address::{IPAddress, IPAddressClaim},
    kubeadm::{KubeadmConfig, KubeadmConfigTemplate},
    machine::{Machine, MachineDeployment, MachineSet, MachineSpec},
    machine_pool::MachinePool,
    meta::ContractRef,
    names,
    openstack_cluster::{OpenStackCluster, OpenStackClusterTemplate},
    openstack_identity::OpenStackClusterIdentity,
    openstack_image::Image,
    openstack_machine::{OpenStackMachine, OpenStackMachineTemplate},
    openstack_machine_pool::{OpenStackMachinePool, OpenStackMachinePoolTemplate},
    openstack_pool::OpenStackFloatingIPPool,
    openstack_server::OpenStackServer,
    resource_set::{ClusterResourceSet, ClusterResourceSetBinding, SECRET_TYPE},
};
use control::{Cache, Cached, Key, Queue, Writer};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{Client, core::PartialObjectMeta, runtime::watcher};
use parking_lot::Mutex;

use crate::{
    adoption,
    external::{External, Kinds},
    machine_deployment::revision,
    owner,
};

/// One cache a kind.
pub struct Caches {
    pub clusters: Arc<Cache<Cluster>>,
    pub machines: Arc<Cache<Machine>>,
    pub sets: Arc<Cache<MachineSet>>,
    pub deployments: Arc<Cache<MachineDeployment>>,
    pub machine_pools: Arc<Cache<MachinePool>>,
    pub health_checks: Arc<Cache<MachineHealthCheck>>,
    pub drain_rules: Arc<Cache<MachineDrainRule>>,
    pub configs: Arc<Cache<KubeadmConfig>>,
    pub config_templates: Arc<Cache<KubeadmConfigTemplate>>,
    pub control_planes: Arc<Cache<KubeadmControlPlane>>,
    pub openstack_clusters: Arc<Cache<OpenStackCluster>>,
    pub openstack_machines: Arc<Cache<OpenStackMachine>>,
    pub openstack_templates: Arc<Cache<OpenStackMachineTemplate>>,
    pub openstack_machine_pools: Arc<Cache<OpenStackMachinePool>>,
    pub images: Arc<Cache<Image>>,
    pub identities: Arc<Cache<OpenStackClusterIdentity>>,
    pub openstack_servers: Arc<Cache<OpenStackServer>>,
    pub pools: Arc<Cache<OpenStackFloatingIPPool>>,
    pub claims: Arc<Cache<IPAddressClaim>>,
    pub addresses: Arc<Cache<IPAddress>>,
    pub classes: Arc<Cache<ClusterClass>>,
    pub extensions: Arc<Cache<ExtensionConfig>>,
    /// Their labels: extensions are for some of them.
    pub namespaces: Arc<Cache<PartialObjectMeta<Namespace>>>,
    pub control_plane_templates: Arc<Cache<KubeadmControlPlaneTemplate>>,
    pub cluster_templates: Arc<Cache<OpenStackClusterTemplate>>,
    pub pool_templates: Arc<Cache<OpenStackMachinePoolTemplate>>,
    /// Only those with the cluster label: certificates, kubeconfigs, bootstrap data.
    pub secrets: Arc<Cache<Secret>>,
    pub resource_sets: Arc<Cache<ClusterResourceSet>>,
    pub bindings: Arc<Cache<ClusterResourceSetBinding>>,
    /// What sets may hold: that it is there and when it changed.
    pub config_maps: Arc<Cache<PartialObjectMeta<ConfigMap>>>,
    pub resource_secrets: Arc<Cache<PartialObjectMeta<Secret>>>,
    /// What references may point at.
    pub kinds: Kinds,
}

impl Caches {
    pub fn start(client: &Client, writer: &Writer) -> Arc<Self> {
        fn cache<K: Cached>(client: &Client, writer: &Writer) -> Arc<Cache<K>> {
            Cache::start(client.clone(), watcher::Config::default(), writer)
        }
        let resource_sets = watcher::Config::default().fields(&format!("type={SECRET_TYPE}"));
        let mut caches = Self {
            clusters: cache(client, writer),
            machines: cache(client, writer),
            sets: cache(client, writer),
            deployments: cache(client, writer),
            machine_pools: cache(client, writer),
            health_checks: cache(client, writer),
            drain_rules: cache(client, writer),
            configs: cache(client, writer),
            config_templates: cache(client, writer),
            control_planes: cache(client, writer),
            openstack_clusters: cache(client, writer),
            openstack_machines: cache(client, writer),
            openstack_templates: cache(client, writer),
            openstack_machine_pools: cache(client, writer),
            images: cache(client, writer),
            identities: cache(client, writer),
            openstack_servers: cache(client, writer),
            pools: cache(client, writer),
            claims: cache(client, writer),
            addresses: cache(client, writer),
            classes: cache(client, writer),
            extensions: cache(client, writer),
            namespaces: cache(client, writer),
            control_plane_templates: cache(client, writer),
            cluster_templates: cache(client, writer),
            pool_templates: cache(client, writer),
            secrets: Cache::start(client.clone(), watcher::Config::default().labels(names::CLUSTER_LABEL), writer),
            resource_sets: cache(client, writer),
            bindings: cache(client, writer),
            config_maps: cache(client, writer),
            resource_secrets: Cache::start(client.clone(), resource_sets, writer),
            kinds: Kinds::default(),
        };
        caches.kinds.add(&caches.configs);
        caches.kinds.add(&caches.config_templates);
        caches.kinds.add(&caches.control_planes);
        caches.kinds.add(&caches.openstack_clusters);
        caches.kinds.add(&caches.openstack_machines);
        caches.kinds.add(&caches.openstack_templates);
        caches.kinds.add(&caches.openstack_machine_pools);
        caches.kinds.add(&caches.control_plane_templates);
        caches.kinds.add(&caches.cluster_templates);
        caches.kinds.add(&caches.pool_templates);
        Arc::new(caches)
    }

    pub async fn synced(&self) {
        self.clusters.synced().await;
        self.machines.synced().await;
        self.sets.synced().await;
        self.deployments.synced().await;
        self.machine_pools.synced().await;
        self.health_checks.synced().await;
        self.drain_rules.synced().await;
        self.configs.synced().await;
        self.config_templates.synced().await;
        self.control_planes.synced().await;
        self.openstack_clusters.synced().await;
        self.openstack_machines.synced().await;
        self.openstack_templates.synced().await;
        self.openstack_machine_pools.synced().await;
        self.images.synced().await;
        self.identities.synced().await;
        self.openstack_servers.synced().await;
        self.pools.synced().await;
        self.claims.synced().await;
        self.addresses.synced().await;
        self.classes.synced().await;
        self.extensions.synced().await;
        self.namespaces.synced().await;
        self.control_plane_templates.synced().await;
        self.cluster_templates.synced().await;
        self.pool_templates.synced().await;
        self.secrets.synced().await;
        self.resource_sets.synced().await;
        self.bindings.synced().await;
        self.config_maps.synced().await;
        self.resource_secrets.synced().await;
    }

    pub fn external(&self, namespace: &str, reference: Option<&ContractRef>) -> Option<External> {
        self.kinds.get(namespace, reference?)
    }

    pub fn cluster(&self, namespace: &str, name: &str) -> Option<Arc<Cluster>> {
        self.clusters.get(&Key::new(namespace, name))
    }

    /// A secret of the cluster, by name.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&Key::new(namespace, name))
    }

    pub(crate) fn feed_clusters(&self, queue: &Queue) {
        self.kinds.feed_with_references(
            &self.clusters,
            |cluster| cluster.spec.infrastructure_ref.iter().chain(&cluster.spec.control_plane_ref).collect(),
            queue,
        );
    }

    pub(crate) fn feed_machines(&self, queue: &Queue) {
        self.kinds.feed_with_references(&self.machines, |machine| of_machine(&machine.spec), queue);
    }

    pub(crate) fn feed_sets(&self, queue: &Queue) {
        self.kinds.feed_with_references(&self.sets, |set| of_machine(&set.spec.template.spec), queue);
        // Clones that have no machine yet.
        self.openstack_machines.feed_owner("cluster.x-k8s.io", "MachineSet", queue);
        self.configs.feed_owner("cluster.x-k8s.io", "MachineSet", queue);
    }

    pub(crate) fn feed_deployments(&self, queue: &Queue) {
        self.deployments.feed(queue);
        self.sets.feed_owner("cluster.x-k8s.io", "MachineDeployment", queue);
        // It looks at the machines themselves: they may change and change back before their set has said anything.
        let queue = queue.clone();
        self.machines.on_change(move |machine| {
            let meta = &machine.metadata;
            if let Some(deployment) = owner::label_of(meta, names::DEPLOYMENT_LABEL) {
                queue.add(Key::new(meta.namespace.clone().unwrap_or_default(), deployment));
            }
        });
    }

    /// Objects without a controller wake those that may adopt them: machines their control plane and sets, sets their deployment.
    pub(crate) fn feed_adopters(self: &Arc<Self>, control_planes: &Queue, sets: &Queue, deployments: &Queue) {
        let (caches, control_planes, sets) = (Arc::downgrade(self), control_planes.clone(), sets.clone());
        self.machines.on_change(move |machine| {
            let meta = &machine.metadata;
            let Some(caches) = caches.upgrade().filter(|_| owner::controller(meta).is_none()) else { return };
            let (namespace, cluster) = (meta.namespace.as_deref().unwrap_or_default(), &machine.spec.cluster_name);
            if owner::label_of(meta, names::CONTROL_PLANE_LABEL).is_some() {
                for key in keys(&caches.control_planes.in_cluster(namespace, cluster)) {
                    control_planes.add(key);
                }
            }
            for set in caches.sets.in_cluster(namespace, cluster) {
                if adoption::selects(&set.spec.selector, meta) {
                    sets.add(Key::of(set.as_ref()));
                }
            }
        });
        let (caches, deployments) = (Arc::downgrade(self), deployments.clone());
        self.sets.on_change(move |set| {
            let meta = &set.metadata;
            let Some(caches) = caches.upgrade().filter(|_| owner::controller(meta).is_none()) else { return };
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            for deployment in caches.deployments.in_cluster(namespace, &set.spec.cluster_name) {
                if adoption::selects(&deployment.spec.selector, meta) {
                    deployments.add(Key::of(deployment.as_ref()));
                }
            }
        });
    }

    pub(crate) fn feed_control_planes(&self, queue: &Queue) {
        self.kinds.feed_with_references(
            &self.control_planes,
            |control_plane| vec![&control_plane.spec.machine_template.spec.infrastructure_ref],
            queue,
        );
    }

    /// A pool is woken by what it names, by its machines and what the infrastructure makes for them, and by its cluster.
    pub(crate) fn feed_machine_pools(self: &Arc<Self>, queue: &Queue) {
        self.kinds.feed_with_references(&self.machine_pools, |pool| of_machine(&pool.spec.template.spec), queue);
        self.machines.feed_owner("cluster.x-k8s.io", "MachinePool", queue);
        let replicas = queue.clone();
        self.openstack_machines.on_change(move |machine| {
            let meta = &machine.metadata;
            if let Some(pool) = owner::label_of(meta, names::POOL_LABEL) {
                replicas.add(Key::new(meta.namespace.clone().unwrap_or_default(), pool));
            }
        });
        self.feed_of_cluster(queue, |caches, namespace, cluster| {
            keys(&caches.machine_pools.in_cluster(namespace, cluster))
        });
    }

    /// A pool wakes its bootstrap configuration.
    pub(crate) fn feed_configs_of_pool(&self, queue: &Queue) {
        let queue = queue.clone();
        self.machine_pools.on_change(move |pool| {
            if let Some(reference) = &pool.spec.template.spec.bootstrap.config_ref {
                let namespace = pool.metadata.namespace.clone().unwrap_or_default();
                queue.add(Key::new(namespace, reference.name.clone()));
            }
        });
    }

    /// Machines, sets, deployments and pools wake the controller of their cluster.
    pub(crate) fn feed_cluster_of_children(&self, queue: &Queue) {
        feed_cluster(&self.machines, queue);
        feed_cluster(&self.sets, queue);
        feed_cluster(&self.deployments, queue);
        feed_cluster(&self.machine_pools, queue);
        feed_cluster(&self.secrets, queue);
    }

    /// Machines and their cluster wake the health checks of the cluster.
    pub(crate) fn feed_health_checks(self: &Arc<Self>, queue: &Queue) {
        self.health_checks.feed(queue);
        let wake = |caches: &Self, queue: &Queue, namespace: &str, cluster: &str| {
            for key in keys(&caches.health_checks.in_cluster(namespace, cluster)) {
                queue.add(key);
            }
        };
        let (caches, machines) = (Arc::downgrade(self), queue.clone());
        self.machines.on_change(move |machine| {
            if let Some(caches) = caches.upgrade() {
                let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
                wake(&caches, &machines, namespace, &machine.spec.cluster_name);
            }
        });
        let (caches, clusters) = (Arc::downgrade(self), queue.clone());
        self.clusters.on_change(move |cluster| {
            if let Some(caches) = caches.upgrade() {
                let key = Key::of(cluster.as_ref());
                wake(&caches, &clusters, &key.namespace, &key.name);
            }
        });
    }

    pub(crate) fn feed_machines_of_cluster(self: &Arc<Self>, queue: &Queue) {
        self.feed_of_cluster(queue, |caches, namespace, cluster| keys(&caches.machines.in_cluster(namespace, cluster)));
    }

    /// A revision that changes wakes the machines of its deployment: their nodes carry a taint while they are outdated.
    pub(crate) fn feed_machines_of_revisions(self: &Arc<Self>, queue: &Queue) {
        let wake = Arc::new(Revisions { caches: Arc::downgrade(self), queue: queue.clone(), known: Mutex::default() });
        let of_set = wake.clone();
        self.sets.on_change(move |set| {
            if let Some(deployment) = owner::owner_of_kind(&set.metadata, "MachineDeployment") {
                of_set.changed("MachineSet", set.as_ref(), &set.spec.cluster_name, &deployment.name);
            }
        });
        self.deployments.on_change(move |deployment| {
            let name = deployment.metadata.name.as_deref().unwrap_or_default();
            wake.changed("MachineDeployment", deployment.as_ref(), &deployment.spec.cluster_name, name);
        });
    }

    pub(crate) fn feed_sets_of_cluster(self: &Arc<Self>, queue: &Queue) {
        self.feed_of_cluster(queue, |caches, namespace, cluster| keys(&caches.sets.in_cluster(namespace, cluster)));
        // Workers wait until the control plane is stable.
        let (caches, queue) = (Arc::downgrade(self), queue.clone());
        self.control_planes.on_change(move |control_plane| {
            let Some(caches) = caches.upgrade() else { return };
            let meta = &control_plane.metadata;
            let Some(cluster) = owner::label_of(meta, names::CLUSTER_LABEL) else { return };
            for key in keys(&caches.sets.in_cluster(meta.namespace.as_deref().unwrap_or_default(), cluster)) {
                queue.add(key);
            }
        });
    }

    pub(crate) fn feed_configs_of_cluster(self: &Arc<Self>, queue: &Queue) {
        self.feed_of_cluster(queue, |caches, namespace, cluster| keys(&caches.configs.in_cluster(namespace, cluster)));
    }

    /// A machine wakes its own bootstrap configuration.
    pub(crate) fn feed_configs_of_machine(&self, queue: &Queue) {
        let queue = queue.clone();
        self.machines.on_change(move |machine| {
            if let Some(reference) = &machine.spec.bootstrap.config_ref {
                let namespace = machine.metadata.namespace.clone().unwrap_or_default();
                queue.add(Key::new(namespace, reference.name.clone()));
            }
        });
    }

    pub(crate) fn feed_control_plane_of_cluster(self: &Arc<Self>, queue: &Queue) {
        self.feed_of_cluster(queue, |caches, namespace, cluster| {
            keys(&caches.control_planes.in_cluster(namespace, cluster))
        });
    }

    /// A certificate or kubeconfig that is deleted is made again.
    pub(crate) fn feed_control_plane_of_secrets(self: &Arc<Self>, queue: &Queue) {
        self.secrets.feed_owner("controlplane.cluster.x-k8s.io", "KubeadmControlPlane", queue);
    }

    /// Wakes what `select` names when something about the cluster changes that others wait for. Its counters, which
    /// change with every machine, wake nobody.
    pub(crate) fn feed_of_cluster(
        self: &Arc<Self>,
        queue: &Queue,
        select: impl Fn(&Self, &str, &str) -> Vec<Key> + Send + Sync + 'static,
    ) {
        let (caches, queue) = (Arc::downgrade(self), queue.clone());
        let gates: Mutex<HashMap<Key, Gates>> = Mutex::default();
        self.clusters.on_change(move |cluster| {
            let Some(caches) = caches.upgrade() else { return };
            let (key, now) = (Key::of(cluster.as_ref()), Gates::of(cluster));
            let before = match caches.clusters.get(&key) {
                Some(_) => gates.lock().insert(key.clone(), now.clone()),
                None => {
                    gates.lock().remove(&key);
                    None
                }
            };
            if before.as_ref() != Some(&now) {
                for key in select(&caches, &key.namespace, &key.name) {
                    queue.add(key);
                }
            }
        });
    }
}

/// The revisions that were seen last, by kind and key.
struct Revisions {
    caches: Weak<Caches>,
    queue: Queue,
    known: Mutex<HashMap<(&'static str, Key), i64>>,
}

impl Revisions {
    fn changed<K: Cached>(&self, kind: &'static str, object: &K, cluster: &str, deployment: &str) {
        let Some(caches) = self.caches.upgrade() else { return };
        let (key, now) = (Key::of(object), revision(object));
        let mut known = self.known.lock();
        let there = match kind {
            "MachineSet" => caches.sets.get(&key).is_some(),
            _ => caches.deployments.get(&key).is_some(),
        };
        if !there {
            known.remove(&(kind, key));
            return;
        }
        if known.insert((kind, key.clone()), now) == Some(now) {
            return;
        }
        drop(known);
        for machine in caches.machines.in_cluster(&key.namespace, cluster) {
            if owner::label_of(&machine.metadata, names::DEPLOYMENT_LABEL) == Some(deployment) {
                self.queue.add(Key::of(machine.as_ref()));
            }
        }
    }
}

/// What others wait for at a cluster.
#[derive(Clone, PartialEq)]
struct Gates {
    uid: Option<String>,
    paused: bool,
    deleting: bool,
    infrastructure: bool,
    control_plane: bool,
    endpoint: Option<api::cluster::Endpoint>,
}

impl Gates {
    fn of(cluster: &Cluster) -> Self {
        let started = cluster.status.as_ref().and_then(|status| status.initialization.as_ref());
        Self {
            uid: cluster.metadata.uid.clone(),
            paused: owner::is_paused(Some(cluster), &cluster.metadata),
            deleting: cluster.metadata.deletion_timestamp.is_some(),
            infrastructure: started.is_some_and(|started| started.infrastructure_provisioned == Some(true)),
            control_plane: started.is_some_and(|started| started.control_plane_initialized == Some(true)),
            endpoint: cluster.spec.control_plane_endpoint.clone(),
        }
    }
}

fn of_machine(spec: &MachineSpec) -> Vec<&ContractRef> {
    std::iter::once(&spec.infrastructure_ref).chain(&spec.bootstrap.config_ref).collect()
}

fn feed_cluster<K: Cached>(cache: &Cache<K>, queue: &Queue) {
    let queue = queue.clone();
    cache.on_change(move |object| {
        let meta = object.meta();
        if let Some(cluster) = owner::label_of(meta, names::CLUSTER_LABEL) {
            queue.add(Key::new(meta.namespace.clone().unwrap_or_default(), cluster));
        }
    });
}

fn keys<K: Cached>(objects: &[Arc<K>]) -> Vec<Key> {
    objects.iter().map(|object| Key::of(object.as_ref())).collect()
}
