//! The whole plane in one process: Management API, controllers, sandbox cloud, hollow machines and their clusters' APIs,
//! without a socket or a file, on tokio's paused clock. An hour of a fleet's life takes as long as its work does.
//!
//! Use it in a `#[tokio::test(start_paused = true)]`: time moves when nobody has anything to do. [`World::start`] takes a
//! seed for identifiers, names and the cloud's faults. [`sim`] lets a seed choose a whole life of a cluster, with faults.
//! Left out: the binary's wiring (admission, TLS towards users, leases); the order in which tokio runs what is ready, and
//! the keys of certificates, are not seeded.

mod api_faults;
mod extension;
mod objects;
pub mod sim;

use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    machine::{Machine, MachineDeployment},
    machine_pool::MachinePool,
    openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachine,
    openstack_machine_pool::OpenStackMachinePool,
    openstack_pool::OpenStackFloatingIPPool,
    openstack_server::OpenStackServer,
};
use apiserver::{Server as ApiServer, User};
use axum::body::Body;
use control::{Connect, Life};
use fleet::openstack::Clouds;
use futures::future::BoxFuture;
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use openstack::{
    Client as CloudClient, Cloud as Where, Local, Query, Resource, Transport,
    block_storage::{Snapshot, Volume},
    compute::{Server, ServerGroup},
    load_balancer::LoadBalancer,
    network::{FloatingIp, Network as CloudNetwork, Port, Router, SecurityGroup, Trunk},
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sandbox::{
    cloud::{Cloud, Options as CloudOptions},
    hollow::{
        self, Hollow,
        network::{InProcess, Network},
    },
};
use serde_json::Value;
use store::{Embedded, Limits};
use tokio::time::Instant;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

pub use self::{
    api_faults::{ApiFaults, Shares},
    extension::Extensions,
    objects::{Shape, cluster, topology},
};

/// Time that passes between two looks at whether something holds.
const STEP: Duration = Duration::from_millis(250);
/// Longest wait for anything, on the world's clock.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Reconciles at once, for each controller.
const CONCURRENCY: usize = 4;
/// The cloud in [`World::clouds_yaml`].
pub const CLOUD: &str = "sandbox";
/// Worlds begin so long ago: TLS asks the wall whether certificates are valid, and those that are made late in a world's
/// life must be.
const AGO: SignedDuration = SignedDuration::from_hours(12);

thread_local! {
    /// When the world of this thread began: by its wall clock, and by tokio's.
    static BEGUN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// The world's wall clock, which moves as tokio's does.
fn now() -> Timestamp {
    let (wall, since) = BEGUN.get().expect("a World runs on the thread that it was started on");
    wall + since.elapsed()
}

/// The plane, and what a person has to work with it.
pub struct World {
    /// Of the Management API, as its administrator.
    pub client: Client,
    /// Of the cloud, as its administrator.
    pub cloud: CloudClient,
    /// The cloud itself, to have it fail.
    pub sandbox: Cloud,
    clouds_yaml: String,
    external_network: String,
    network: InProcess,
    /// The inside of the servers, to see what is left of an etcd.
    pub hollow: Arc<Hollow>,
    /// What goes wrong between the controllers and the Management API.
    pub api_faults: ApiFaults,
    /// Where servers of runtime extensions stand.
    pub extensions: Extensions,
    fleet: Option<Life>,
    /// When the controllers were started last.
    started: Instant,
    options: fleet::Options,
    server: ApiServer,
}

/// The cloud, called without a socket.
struct Inside(Arc<dyn Transport>);

impl Clouds for Inside {
    fn client(&self, cloud: Where) -> openstack::Result<CloudClient> {
        Ok(CloudClient::new(cloud, self.0.clone(), openstack::Options::default()))
    }
}

/// Conversion between versions, as the binary has it.
struct Versions;

impl apiserver::Conversion for Versions {
    fn converts(&self, group: &str, kind: &str) -> bool {
        api::conversion::converts(group, kind)
    }

    fn convert(&self, object: &Value, version: &str) -> Result<Value, String> {
        api::conversion::convert(object, version).map_err(|error| error.to_string())
    }
}

/// Workload clusters, called without a socket.
struct Reach(InProcess);

impl Connect for Reach {
    fn connect<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, control::Result<Client>> {
        Box::pin(reach(&self.0, kubeconfig))
    }
}

async fn reach(network: &InProcess, kubeconfig: &str) -> control::Result<Client> {
    let unusable = |error: &dyn std::fmt::Display| control::Error::Retry(format!("the kubeconfig is no use: {error}"));
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).map_err(|error| unusable(&error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| unusable(&error))?;
    network.client(config).map_err(|error| unusable(&error))
}

/// An API server with our kinds.
async fn management(seed: u64) -> ApiServer {
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).expect("a definition is JSON"));
    let options = apiserver::Options {
        clock: Arc::new(now),
        random: Arc::new(move || random.lock().random()),
        crds: crds.collect(),
        conversion: Some(Arc::new(Versions)),
        ..Default::default()
    };
    let store = Arc::new(Embedded::memory(Limits::default()));
    ApiServer::start(store, options).await.expect("start the Management API")
}

/// Logs tell the time on the world's own clock.
struct OwnTime;

impl FormatTime for OwnTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let elapsed = BEGUN.get().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        write!(w, "{:9.3} s", elapsed.as_secs_f64())
    }
}

impl World {
    /// Starts the plane. The seed decides the identifiers and names that are given out.
    pub async fn start(seed: u64) -> Self {
        Self::start_with(seed, |_| ()).await
    }

    /// Starts the plane on a cloud whose options are changed.
    pub async fn start_with(seed: u64, change: impl FnOnce(&mut CloudOptions)) -> Self {
        // Times are written down in whole seconds: a world that began within one would take another course each time.
        let begun = TimestampRound::new().smallest(Unit::Hour).mode(RoundMode::Trunc);
        let begun = (Timestamp::now() - AGO).round(begun).expect("an hour of today is a time");
        BEGUN.set(Some((begun, Instant::now())));
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_timer(OwnTime).with_test_writer().try_init();
        let store = || Arc::new(Embedded::memory(Limits::default()));
        let server = management(seed).await;
        let mut settings = CloudOptions {
            public_url: "http://cloud.test".to_owned(),
            seed: Some(seed),
            clock: now,
            ..Default::default()
        };
        change(&mut settings);
        let region = settings.region.clone();
        let place = Cloud::open(store(), settings).await.expect("open the cloud");
        let transport: Arc<dyn Transport> = Local::shared::<Body, Body>(place.router());
        let clouds_yaml = place.clouds_yaml(CLOUD);
        let admin = Where::from_yaml(clouds_yaml.as_bytes(), Some(&format!("{CLOUD}-admin")), None);
        let admin = admin.expect("the sandbox writes a clouds.yaml that can be read");
        let cloud = CloudClient::new(admin, transport.clone(), openstack::Options::default());
        let network = InProcess::default();
        let consoles = place.clone();
        let options = hollow::Options {
            cloud: cloud.clone(),
            region,
            store: store(),
            clock: Arc::new(now),
            console: Arc::new(move |server, text| consoles.set_console(server, text)),
            changed: Some(place.changed()),
            poll: Duration::from_secs(30),
        };
        let hollow = Hollow::start_on(options, Arc::new(network.clone()));
        let random = Mutex::new(StdRng::seed_from_u64(!seed));
        let api_faults = ApiFaults::new(seed);
        let extensions = Extensions::default();
        let options = fleet::Options {
            client: Client::new(api_faults.before(server.service_as(User::master("fleet"))), "default"),
            clock: control::Clock::from_fn(now),
            connect: Arc::new(Reach(network.clone())),
            clouds: Arc::new(Inside(transport)),
            extensions: Arc::new(extensions.clone()),
            concurrency: CONCURRENCY,
            random: Arc::new(move || random.lock().random()),
            longest: control::Longest::default(),
            deletion_rules: Vec::new(),
            synced: Default::default(),
            watch_filter: None,
        };
        Self {
            client: Client::new(server.service_as(User::master("admin")), "default"),
            cloud,
            clouds_yaml,
            external_network: place.external_network(),
            sandbox: place,
            network,
            hollow,
            api_faults,
            extensions,
            fleet: Some(fleet::start(options.clone())),
            started: Instant::now(),
            options,
            server,
        }
    }

    /// Credentials of the cloud, as clusters have them.
    pub fn clouds_yaml(&self) -> &str {
        &self.clouds_yaml
    }

    /// A client of the cloud in the project that clusters are in.
    pub fn tenant(&self) -> CloudClient {
        let tenant = Where::from_yaml(self.clouds_yaml.as_bytes(), Some(CLOUD), None);
        let tenant = tenant.expect("the sandbox writes a clouds.yaml that can be read");
        self.options.clouds.client(tenant).expect("a cloud in the same process needs no set-up")
    }

    /// How long the world has been running, on its own clock.
    pub fn elapsed(&self) -> Duration {
        BEGUN.get().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// Ends the controllers and starts them anew: they know nothing but what is in the API.
    pub async fn restart_controllers(&mut self) {
        if let Some(fleet) = self.fleet.take() {
            fleet.shutdown().await;
        }
        self.start_controllers();
    }

    fn start_controllers(&mut self) {
        self.fleet = Some(fleet::start(self.options.clone()));
        self.started = Instant::now();
    }

    /// How long the controllers have been running, on the world's clock.
    pub fn controllers_age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Starts the controllers anew with rules about what must not be deleted yet.
    pub async fn hold_back(&mut self, rules: &str) {
        self.options.deletion_rules = fleet::deletion_rules::read(rules).expect("the rules of a test are good");
        self.restart_controllers().await;
    }

    /// Ends the controllers in the middle of what they do, as a crash would, and starts them anew.
    pub async fn crash_controllers(&mut self) {
        if let Some(fleet) = self.fleet.take() {
            fleet.abort().await;
        }
        self.start_controllers();
    }

    /// The longest reconcile of each controller so far.
    pub fn longest_reconciles(&self) -> BTreeMap<&'static str, Duration> {
        self.options.longest.all()
    }

    /// Another management cluster over the same cloud. Nobody works in it: see [`World::go_over`].
    pub async fn another(&self, seed: u64) -> ApiServer {
        management(seed).await
    }

    /// Ends the controllers here, starts them over the other management cluster, and looks at that one from now on.
    pub async fn go_over(&mut self, other: ApiServer) {
        if let Some(fleet) = self.fleet.take() {
            fleet.shutdown().await;
        }
        self.client = Client::new(other.service_as(User::master("admin")), "default");
        self.options.client = Client::new(other.service_as(User::master("fleet")), "default");
        std::mem::replace(&mut self.server, other).shutdown().await;
        self.start_controllers();
    }

    pub async fn shutdown(self) {
        if let Some(fleet) = self.fleet {
            fleet.shutdown().await;
        }
        self.hollow.shutdown().await;
        self.server.shutdown().await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates the objects of a cluster.
    pub async fn create(&self, name: &str, shape: Shape) {
        self.create_with(name, shape, |_| ()).await;
    }

    /// Creates a ClusterClass `base` and all that it needs, and a cluster of it.
    pub async fn create_topology(&self, name: &str, shape: Shape) {
        self.create_topology_with(name, shape, |_| ()).await;
    }

    /// The same, each object changed by `change` before.
    pub async fn create_topology_with(&self, name: &str, shape: Shape, change: impl Fn(&mut Value)) {
        for mut object in topology(name, shape, &self.clouds_yaml, CLOUD, &self.external_network) {
            change(&mut object);
            self.apply(&object).await;
        }
    }

    /// Creates the objects of a cluster, each changed by `change` before.
    pub async fn create_with(&self, name: &str, shape: Shape, change: impl Fn(&mut Value)) {
        for mut object in cluster(name, shape, &self.clouds_yaml, CLOUD, &self.external_network) {
            change(&mut object);
            let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
            let dynamic: DynamicObject = serde_json::from_value(object.clone()).expect("objects have kinds and names");
            let created = self.dynamic(&object).create(&PostParams::default(), &dynamic).await;
            created.unwrap_or_else(|error| panic!("create {what}: {error}"));
        }
    }

    /// Applies an object, server-side.
    pub async fn apply(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let applied =
            self.dynamic(object).patch(name, &PatchParams::apply("admin").force(), &Patch::Apply(object)).await;
        applied.unwrap_or_else(|error| panic!("apply {} {name}: {error}", object["kind"]));
    }

    fn dynamic(&self, object: &Value) -> Api<DynamicObject> {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let version = text("apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text("kind")));
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    /// Changes an object by a merge patch.
    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("patch {name}: {error}"));
    }

    /// The insides of the cloud's servers.
    pub fn hollow(&self) -> &Hollow {
        &self.hollow
    }

    pub async fn delete(&self, cluster: &str) {
        let deleted = self.api::<Cluster>().delete(cluster, &DeleteParams::background()).await;
        deleted.unwrap_or_else(|error| panic!("delete {cluster}: {error}"));
    }

    /// Lets time pass until it holds; panics with the state of all clusters and machines if it never does.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        if !self.within(PATIENCE, holds).await {
            panic!("not within {PATIENCE:?}: {what}\n{}", self.told().await);
        }
    }

    /// Lets time pass until it holds; whether it did.
    pub async fn within(&self, limit: Duration, holds: impl AsyncFn() -> bool) -> bool {
        let end = Instant::now() + limit;
        while !holds().await {
            if Instant::now() > end {
                return false;
            }
            tokio::time::sleep(STEP).await;
        }
        true
    }

    /// Waits for a cluster to be Available.
    pub async fn available(&self, cluster: &str) {
        let is = async || {
            let found = self.api::<Cluster>().get_opt(cluster).await.expect("read the cluster");
            found.and_then(|found| found.status).is_some_and(|s| condition::is_true(&s.conditions, "Available"))
        };
        self.until(&format!("cluster {cluster} is Available"), is).await;
    }

    pub async fn machines(&self) -> Vec<Machine> {
        self.api::<Machine>().list(&ListParams::default()).await.expect("list machines").items
    }

    pub(crate) async fn list_all<K>(&self) -> Vec<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let all = self.api::<K>().list(&ListParams::default()).await;
        all.unwrap_or_else(|error| panic!("list {}: {error}", K::kind(&()))).items
    }

    /// A client of a workload cluster, as its administrator has one: with the kubeconfig in the Secret.
    pub async fn workload(&self, cluster: &str) -> Client {
        let secrets = self.api::<k8s_openapi::api::core::v1::Secret>();
        let secret = secrets.get(&format!("{cluster}-kubeconfig")).await.expect("read the kubeconfig's Secret");
        let value = secret.data.and_then(|mut data| data.remove("value")).expect("the Secret has a kubeconfig");
        reach(&self.network, &String::from_utf8_lossy(&value.0)).await.expect("use the kubeconfig")
    }

    pub async fn nodes(&self, cluster: &str) -> Vec<Node> {
        Api::<Node>::all(self.workload(cluster).await).list(&ListParams::default()).await.expect("list nodes").items
    }

    /// How many there are of what clusters make in the cloud; kinds of which there is none are left out.
    pub async fn in_cloud(&self) -> BTreeMap<&'static str, usize> {
        async fn count<R: Resource>(cloud: &CloudClient, keep: impl Fn(&R) -> bool) -> usize {
            let all = Query::new().with("all_tenants", 1);
            cloud.list::<R>(&all).await.expect("list in the cloud").iter().filter(|one| keep(one)).count()
        }
        let cloud = &self.cloud;
        let external = &self.external_network;
        let mut found = BTreeMap::from([
            ("servers", count::<Server>(cloud, |_| true).await),
            ("ports", count::<Port>(cloud, |port| port.network_id != *external).await),
            ("networks", count::<CloudNetwork>(cloud, |network| network.id != *external).await),
            ("routers", count::<Router>(cloud, |_| true).await),
            ("security groups", count::<SecurityGroup>(cloud, |group| group.name != "default").await),
            ("load balancers", count::<LoadBalancer>(cloud, |_| true).await),
            ("floating ips", count::<FloatingIp>(cloud, |_| true).await),
            ("volumes", count::<Volume>(cloud, |_| true).await),
            ("snapshots", count::<Snapshot>(cloud, |_| true).await),
            ("trunks", count::<Trunk>(cloud, |_| true).await),
        ]);
        let groups = cloud.list::<ServerGroup>(&Query::new().with("all_projects", 1)).await;
        found.insert("server groups", groups.expect("list server groups in the cloud").len());
        found.retain(|_, count| *count > 0);
        found
    }

    /// All clusters and machines with their conditions.
    pub async fn told(&self) -> String {
        let mut text = String::new();
        let mut tell = |kind: &str, name: Option<String>, conditions: Vec<api::meta::Condition>| {
            text.push_str(&format!("{kind} {}\n", name.unwrap_or_default()));
            for one in conditions {
                text.push_str(&format!("  {} {:?} {} {}\n", one.type_, one.status, one.reason, one.message));
            }
        };
        for cluster in self.api::<Cluster>().list(&ListParams::default()).await.expect("list clusters").items {
            tell("Cluster", cluster.metadata.name, cluster.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<OpenStackCluster>().await {
            tell("OpenStackCluster", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<KubeadmControlPlane>().await {
            tell("KubeadmControlPlane", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<MachineDeployment>().await {
            tell("MachineDeployment", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<OpenStackMachine>().await {
            tell("OpenStackMachine", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<MachinePool>().await {
            tell("MachinePool", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<OpenStackMachinePool>().await {
            tell("OpenStackMachinePool", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<OpenStackServer>().await {
            tell("OpenStackServer", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for object in self.list_all::<OpenStackFloatingIPPool>().await {
            tell("OpenStackFloatingIPPool", object.metadata.name, object.status.unwrap_or_default().conditions);
        }
        for machine in self.machines().await {
            tell("Machine", machine.metadata.name, machine.status.unwrap_or_default().conditions);
        }
        text
    }
}
