//! The lifecycle of workload clusters: Cluster API's core, kubeadm bootstrap and kubeadm control plane controllers, and
//! the infrastructure providers.
//!
//! Controllers speak the Kubernetes API and nothing else, so they run on any Kubernetes. Behaviour is that of
//! kubernetes-sigs/cluster-api v1beta2 and of its OpenStack provider; what a controller does not act on yet, it says in
//! a condition or an event. Left out: everything about apps, tenants and policy.

mod adoption;
mod bootstrap;
mod caches;
mod certificates;
mod cluster;
mod control_plane;
pub mod deletion_rules;
pub mod extension;
mod external;
mod health_check;
mod in_place;
mod machine;
mod machine_deployment;
mod machine_pool;
mod machine_set;
mod naming;
pub mod openstack;
mod owner;
mod propagation;
mod resource_set;
mod summary;
pub mod sync;
mod topology;
mod unacted;
mod workload;

use std::sync::Arc;

use api::names;
use control::{Cache, Cached, Clock, Connect, Life, Longest, Runner, Writer};
use kube::Client;
use parking_lot::Mutex;

pub use self::{
    caches::Caches,
    external::{External, Kinds},
    machine::boot::boot_failure,
    workload::Workloads,
};

/// What the controllers need from their surroundings.
#[derive(Clone)]
pub struct Options {
    /// A client of the Management API with the controllers' identity.
    pub client: Client,
    pub clock: Clock,
    /// How workload clusters' APIs are reached.
    pub connect: Arc<dyn Connect>,
    /// How OpenStack clouds are reached.
    pub clouds: Arc<dyn openstack::Clouds>,
    /// How runtime extensions are reached.
    pub extensions: Arc<dyn extension::Dial>,
    /// Reconciles at once, for each controller.
    pub concurrency: usize,
    /// Where the suffixes of names come from.
    pub random: Random,
    /// Is told how long reconciles take.
    pub longest: Longest,
    /// What must not be deleted yet.
    pub deletion_rules: Vec<deletion_rules::Rule>,
    /// What nodes get of their Machines.
    pub synced: sync::Synced,
    /// Only objects whose label `cluster.x-k8s.io/watch-filter` has this value are acted upon.
    pub watch_filter: Option<String>,
}

impl Options {
    /// A runner of the controller whose objects these are.
    fn runner<K: Cached>(&self, writer: &Writer, objects: &Arc<Cache<K>>) -> Runner {
        let runner = Runner::new(self.concurrency, writer).measured(&self.longest);
        match &self.watch_filter {
            Some(value) => runner.only(objects, names::WATCH_FILTER_LABEL, value),
            None => runner,
        }
    }
}

/// Numbers that nobody can foresee, or in tests those of a seed.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Starts all controllers and returns at once; they begin to work when their caches are filled.
pub fn start(options: Options) -> Life {
    Life::begin(|life| launch(options, life))
}

async fn launch(options: Options, life: Life) {
    let writer = Writer::new(options.client.clone(), "skep-fleet", options.clock.clone());
    deletion_rules::start(&options, &writer, &life);
    let caches = Caches::start(&options.client, &writer);
    let workloads = Workloads::new(caches.clone(), options.connect.clone(), options.clock.clone(), life.stop());

    let clusters = options.runner(&writer, &caches.clusters);
    caches.feed_clusters(&clusters.queue());
    caches.feed_cluster_of_children(&clusters.queue());
    caches.feed_clusters_of_class(&clusters.queue());
    workloads.feed_clusters(&clusters.queue());

    let machines = options.runner(&writer, &caches.machines);
    caches.feed_machines(&machines.queue());
    caches.feed_machines_of_cluster(&machines.queue());
    caches.feed_machines_of_revisions(&machines.queue());
    workloads.feed_machines(&machines.queue());

    let sets = options.runner(&writer, &caches.sets);
    caches.feed_sets(&sets.queue());
    caches.machines.feed_owner("cluster.x-k8s.io", "MachineSet", &sets.queue());
    caches.feed_sets_of_cluster(&sets.queue());

    let deployments = options.runner(&writer, &caches.deployments);
    caches.feed_deployments(&deployments.queue());

    let pools = options.runner(&writer, &caches.machine_pools);
    caches.feed_machine_pools(&pools.queue());

    let bootstraps = options.runner(&writer, &caches.configs);
    caches.configs.feed(&bootstraps.queue());
    caches.feed_configs_of_pool(&bootstraps.queue());
    caches.feed_configs_of_machine(&bootstraps.queue());
    caches.feed_configs_of_cluster(&bootstraps.queue());

    let control_planes = options.runner(&writer, &caches.control_planes);
    caches.feed_control_planes(&control_planes.queue());
    caches.machines.feed_owner("controlplane.cluster.x-k8s.io", "KubeadmControlPlane", &control_planes.queue());
    caches.feed_control_plane_of_cluster(&control_planes.queue());
    caches.feed_control_plane_of_secrets(&control_planes.queue());
    workloads.feed_control_planes(&control_planes.queue());

    caches.feed_adopters(&control_planes.queue(), &sets.queue(), &deployments.queue());

    let health_checks = options.runner(&writer, &caches.health_checks);
    caches.feed_health_checks(&health_checks.queue());
    workloads.feed_health_checks(&health_checks.queue());

    // The one has the clusters that sets select, the other the sets.
    let resources = options.runner(&writer, &caches.clusters);
    let resource_sets = options.runner(&writer, &caches.resource_sets);
    resource_set::feed(&caches, &workloads, &resources.queue(), &resource_sets.queue());
    let told = resource_set::Failures::new(resource_sets.queue());

    let topologies = options.runner(&writer, &caches.clusters);
    let classes = options.runner(&writer, &caches.classes);
    let configs = options.runner(&writer, &caches.extensions);
    caches.feed_topologies(&topologies.queue());
    caches.feed_classes(&classes.queue());
    caches.extensions.feed(&configs.queue());
    let extensions = extension::Extensions::new(caches.clone(), writer.clone(), options.extensions.clone());

    let provider = openstack::Provider::new(&options, &caches, &writer, &workloads);
    provider.feed();
    caches.synced().await;

    let (random, synced, hashes) = (options.random, options.synced, Mutex::default());
    let context = Arc::new(Context { caches, writer, workloads, extensions, random, synced, hashes });
    life.spawn(clusters, cluster::Clusters(context.clone()));
    life.spawn(machines, machine::Machines::new(context.clone()));
    life.spawn(sets, machine_set::MachineSets(context.clone()));
    life.spawn(deployments, machine_deployment::MachineDeployments(context.clone()));
    life.spawn(pools, machine_pool::MachinePools(context.clone()));
    life.spawn(health_checks, health_check::HealthChecks(context.clone()));
    life.spawn(resources, resource_set::ClusterResources::new(context.clone(), told.clone()));
    life.spawn(resource_sets, resource_set::ResourceSets::new(context.clone(), told));
    life.spawn(bootstraps, bootstrap::KubeadmConfigs(context.clone()));
    life.spawn(control_planes, control_plane::ControlPlanes::new(context.clone()));
    life.spawn(topologies, topology::Topologies::new(context.clone()));
    life.spawn(classes, topology::Classes(context.clone()));
    life.spawn(configs, extension::ExtensionConfigs(context.extensions.clone()));
    provider.spawn(&life);
}

/// What every core controller shares.
pub(crate) struct Context {
    pub caches: Arc<Caches>,
    pub writer: Writer,
    pub workloads: Arc<Workloads>,
    pub extensions: Arc<extension::Extensions>,
    pub random: Random,
    pub synced: sync::Synced,
    /// Of what resource sets hold, with the version of the object that it is the hash of.
    pub hashes: resource_set::Hashes,
}
