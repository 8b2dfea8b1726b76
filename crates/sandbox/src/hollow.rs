//! Hollow machines: what stands in for the inside of a server.
//!
//! For each server that is ACTIVE, the machine's user data is rendered and read as cloud-init and kubeadm would, with the
//! certificates, tokens and configuration in it. A control plane machine serves a real Kubernetes API with those
//! certificates; a joining one authenticates with its token. What is hollow is the hardware and the containers: pods are
//! placed and reported Running, and nothing runs. The cloud is spoken to over its API only, so hollow machines stand
//! beside any OpenStack whose servers do not boot.

mod addons;
mod balance;
mod cluster;
mod etcd;
mod ignition;
mod join;
mod kubeadm;
mod machine;
pub mod network;
mod objects;
mod pki;
mod signer;
mod user_data;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use openstack::{
    Client, Query,
    compute::{Flavor, Server},
    image::Image,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::{At, Commit, Guard, Op, Range, SharedStore};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use self::{
    balance::Balancer,
    cluster::{Cluster, Keys},
    kubeadm::{ClusterConfiguration, Etcd, Networking},
    machine::{Machine, Record},
    network::{Network, Sockets},
};
pub use self::{
    etcd::{Fault as EtcdFault, calls as etcd_calls},
    user_data::USER_DATA_MAX_BYTES,
};

pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// Takes what a server has written to its console: id, whole text.
pub type Console = Arc<dyn Fn(&str, &str) + Send + Sync>;

const RECORDS: &str = "hollow/machines/";
const CLUSTERS: &str = "hollow/clusters/";
/// Between two looks at changes, and between two whole lists.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const WHOLE_LIST_EVERY: Duration = Duration::from_secs(60);
/// Servers on a page of a list: each may come with its user data, 64 KiB and more in base64.
const PAGE_SERVERS: usize = 100;
/// How far apart the clocks of the cloud may be.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(2);
/// Machines that boot at once.
const BOOTS_MAX: usize = 16;
/// A machine that cannot reach its cluster tries again after these pauses, as kubeadm does.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// kubeadm gives up joining after this long (timeouts.discovery and tlsBootstrap, 5 minutes each).
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// Longest console text that is kept of a machine.
const CONSOLE_MAX_BYTES: usize = 16 * 1024;

#[derive(Clone)]
pub struct Options {
    /// Of an administrator: user data is shown to nobody else.
    pub cloud: Client,
    pub region: String,
    /// Where the machines' and the clusters' state is kept.
    pub store: SharedStore,
    pub clock: Clock,
    pub console: Console,
    /// Tells that something changed in the cloud; without it the cloud is only polled.
    pub changed: Option<watch::Receiver<u64>>,
    /// Pause between two looks at the list of servers.
    pub poll: Duration,
}

/// What a machine that comes back after a restart has to know of its cluster.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    version: String,
    certificates_dir: String,
    service_subnet: String,
    etcd: Etcd,
}

/// How many voters an etcd has, how many of them live, how many would but for a fault that was set, and how many more members
/// it has that have no vote yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Of its cluster: `host:port`.
    pub endpoint: String,
    pub members: usize,
    pub alive: usize,
    pub down: usize,
    pub learners: usize,
}

/// The hollow machines of one cloud.
pub struct Hollow {
    region: String,
    store: SharedStore,
    clock: Clock,
    console: Console,
    cloud: Client,
    network: Arc<dyn Network>,
    balancer: Arc<Balancer>,
    clusters: Mutex<BTreeMap<String, Arc<Cluster>>>,
    /// One opening at a time, so that two machines of a cluster never open it twice.
    opening: tokio::sync::Mutex<()>,
    machines: Mutex<HashMap<String, CancellationToken>>,
    /// Servers that are there and do not run.
    halted: Mutex<BTreeSet<String>>,
    consoles: Mutex<HashMap<String, String>>,
    boots: tokio::sync::Semaphore,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Hollow {
    /// Starts to stand in for the cloud's servers.
    pub fn start(options: Options) -> Arc<Self> {
        Self::start_on(options, Arc::new(Sockets))
    }

    /// Starts on another network than the machine's own.
    pub fn start_on(options: Options, network: Arc<dyn Network>) -> Arc<Self> {
        let stop = CancellationToken::new();
        let hollow = Arc::new(Self {
            region: options.region,
            store: options.store,
            clock: options.clock,
            console: options.console,
            balancer: Balancer::new(options.cloud.clone(), network.clone(), stop.clone()),
            network,
            cloud: options.cloud,
            clusters: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            machines: Mutex::default(),
            halted: Mutex::default(),
            consoles: Mutex::default(),
            boots: tokio::sync::Semaphore::new(BOOTS_MAX),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        let (running, poll, changed) = (hollow.clone(), options.poll, options.changed);
        hollow.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = running.follow(poll, changed) => {}
            }
        });
        hollow
    }

    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let clusters = std::mem::take(&mut *self.clusters.lock());
        for cluster in clusters.values() {
            cluster.shutdown().await;
        }
    }

    /// What is left of each cluster's etcd.
    pub fn quorums(&self) -> Vec<Quorum> {
        let of = |cluster: &Arc<Cluster>| {
            let (members, alive, learners) = cluster.etcd.count(&cluster.alive());
            let (_, run, _) = cluster.etcd.count(&cluster.run());
            Quorum { endpoint: cluster.endpoint.clone(), members, alive, down: run.saturating_sub(alive), learners }
        };
        self.clusters.lock().values().map(of).collect()
    }

    fn cluster_of(&self, node: &str) -> Option<Arc<Cluster>> {
        let runs_on = |cluster: &&Arc<Cluster>| cluster.members.read().values().any(|member| member.node == node);
        self.clusters.lock().values().find(runs_on).cloned()
    }

    /// Lets the etcd member on a control plane node fail, or work again; false if no such node runs here.
    pub fn set_etcd_fault(&self, node: &str, fault: Option<EtcdFault>) -> bool {
        let cluster = self.cluster_of(node);
        cluster.inspect(|cluster| cluster.set_etcd_fault(node, fault)).is_some()
    }

    /// Leaves a member in the etcd of a node's cluster that never starts, as a machine does that fails while it joins.
    pub async fn add_etcd_member(&self, node: &str, address: &str) -> Result<(), String> {
        let cluster = self.cluster_of(node).ok_or_else(|| format!("no control plane runs on {node}"))?;
        cluster.etcd.add_unstarted(address).await
    }

    /// The etcd member on a node raises an alarm (`NOSPACE`, `CORRUPT`); false if no such member is known.
    pub async fn raise_etcd_alarm(&self, node: &str, alarm: &str) -> Result<bool, String> {
        match self.cluster_of(node) {
            Some(cluster) => cluster.etcd.raise_alarm(node, alarm).await,
            None => Ok(false),
        }
    }

    /// Ends the alarms of every etcd.
    pub async fn end_etcd_alarms(&self) -> Result<(), String> {
        let clusters: Vec<_> = self.clusters.lock().values().cloned().collect();
        for cluster in clusters {
            cluster.etcd.end_alarms().await?;
        }
        Ok(())
    }

    /// Watches the list of servers: all of them now and then, otherwise only what has changed.
    async fn follow(self: Arc<Self>, poll: Duration, mut changed: Option<watch::Receiver<u64>>) {
        let (mut trouble, mut whole, mut since) = (false, None::<Instant>, None::<Timestamp>);
        loop {
            let full = whole.is_none_or(|whole| whole.elapsed() > WHOLE_LIST_EVERY);
            match self.look(since.filter(|_| !full)).await {
                Ok(newest) => {
                    trouble = false;
                    since = newest.and_then(|newest| newest.checked_sub(CLOCK_SKEW).ok()).max(since);
                    if full {
                        whole = self.sweep().await.then(Instant::now);
                    }
                }
                Err(error) if !trouble => {
                    trouble = true;
                    warn!(%error, "the cloud does not list its servers");
                }
                Err(_) => {}
            }
            match &mut changed {
                Some(changed) => {
                    let _ = tokio::time::timeout(poll, changed.changed()).await;
                    // Changes come in bursts: one look for many.
                    tokio::time::sleep(LOOK_PAUSE).await;
                    changed.mark_unchanged();
                }
                None => tokio::time::sleep(poll).await,
            }
        }
    }

    /// Boots what is new and forgets what is gone; `since` limits the list to what changed after it. When the newest of
    /// them changed, by the cloud's clock.
    async fn look(self: &Arc<Self>, since: Option<Timestamp>) -> openstack::Result<Option<Timestamp>> {
        let since = since.map(|since| since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let query = Query::new().with("all_tenants", 1).with("limit", PAGE_SERVERS);
        let query = query.with_some("changes-since", since.as_ref());
        let servers = self.cloud.list::<Server>(&query).await?;
        let newest = servers.iter().filter_map(|server| server.updated.parse().ok()).max();
        let gone: Vec<String> = if since.is_some() {
            servers.iter().filter(|server| is_gone(server)).map(|server| server.id.clone()).collect()
        } else {
            let alive: BTreeSet<&str> =
                servers.iter().filter(|server| !is_gone(server)).map(|server| server.id.as_str()).collect();
            let known: Vec<String> =
                self.machines.lock().keys().cloned().chain(self.halted.lock().iter().cloned()).collect();
            known.into_iter().filter(|id| !alive.contains(id.as_str())).collect()
        };
        for id in gone {
            let halted = self.halted.lock().remove(&id);
            let known = self.machines.lock().remove(&id);
            if let Some(stop) = &known {
                stop.cancel();
            }
            if halted || known.is_some() {
                self.tasks.spawn(self.clone().forget(id));
            }
        }
        for server in servers {
            if is_halted(&server) && self.halted.lock().insert(server.id.clone()) {
                let known = self.machines.lock().remove(&server.id);
                if let Some(stop) = known {
                    stop.cancel();
                    self.tasks.spawn(self.clone().halt(server.id.clone()));
                }
            }
            if server.status != "ACTIVE" || self.machines.lock().contains_key(&server.id) {
                continue;
            }
            self.halted.lock().remove(&server.id);
            let stop = self.stop.child_token();
            self.machines.lock().insert(server.id.clone(), stop.clone());
            let hollow = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = hollow.run(&server) => {}
                }
            });
        }
        Ok(newest)
    }

    /// Forgets the machines that went while nobody looked; false if some of them have to wait for their cluster.
    async fn sweep(self: &Arc<Self>) -> bool {
        let mut done = true;
        for id in self.records().await.into_keys() {
            if !self.is_there(&id) {
                done &= self.clone().forget(id).await;
            }
        }
        done
    }

    /// What is kept of machines, by server.
    async fn records(&self) -> BTreeMap<String, Record> {
        let Ok(page) = self.store.range(Range::prefix(RECORDS), At::Latest, 0).await else { return BTreeMap::new() };
        let read = |item: store::KeyValue| {
            let id = String::from_utf8_lossy(&item.key[RECORDS.len()..]).into_owned();
            (id, serde_json::from_slice(&item.value).unwrap_or_default())
        };
        page.items.into_iter().map(read).collect()
    }

    async fn run(self: &Arc<Self>, server: &Server) {
        let known = self.record(&server.id).await;
        if let Some(record) = &known {
            let cluster = self.clusters.lock().get(&record.cluster).cloned();
            if let Some(cluster) = cluster {
                cluster.find_node(&record.node).await;
            }
        }
        if let Some(failure) = known.as_ref().and_then(|known| known.failure.clone()) {
            self.log(&server.id, &failure);
            return;
        }
        let started = tokio::time::Instant::now();
        let (mut pause, mut told) = (RETRY_MIN, String::new());
        loop {
            let booted = {
                let Ok(_turn) = self.boots.acquire().await else { return };
                let size = self.size(server).await;
                let image_version = self.image_version(server).await;
                Machine { hollow: self, server, size, image_version }.boot(known.clone()).await
            };
            let record = match booted {
                Ok(record) => record,
                Err(error) if error.patience(BOOT_LIMIT) > started.elapsed() => {
                    let text = chain(&error);
                    debug!(server = server.name, text, "boot goes on");
                    if told != text {
                        self.log(&server.id, &text);
                        told = text;
                    }
                    tokio::time::sleep(pause).await;
                    pause = RETRY_MAX.min(pause * 2);
                    continue;
                }
                Err(error) => {
                    // One line: what reads consoles takes the line that is marked.
                    let why = chain(&error).split_whitespace().collect::<Vec<_>>().join(" ");
                    let text = format!("{why}\nboot failed: error execution phase: {why}");
                    info!(server = server.name, error = chain(&error), "hollow machine does not boot");
                    Record { failure: Some(text), ..Record::default() }
                }
            };
            if let Some(failure) = &record.failure {
                self.log(&server.id, failure);
            }
            if Some(&record) != known.as_ref() && self.remember(&server.id, &record).await.is_err() {
                warn!(server = server.name, "a machine's state is not kept");
            }
            return;
        }
    }

    async fn size(&self, server: &Server) -> (u32, u32) {
        let inline = |field: &str| server.flavor[field].as_u64().and_then(|count| u32::try_from(count).ok());
        if let (Some(vcpus), Some(ram)) = (inline("vcpus"), inline("ram")) {
            return (vcpus, ram);
        }
        let Some(id) = server.flavor["id"].as_str() else { return (1, 1024) };
        let flavor = self.cloud.look::<Flavor>(id).await.ok().flatten();
        flavor.map_or((1, 1024), |flavor| (flavor.vcpus, u32::try_from(flavor.ram).unwrap_or(u32::MAX)))
    }

    /// `v1.32.4` out of an image named `ubuntu-2404-kube-v1.32.4`.
    async fn image_version(&self, server: &Server) -> Option<String> {
        let image = self.cloud.look::<Image>(server.image["id"].as_str()?).await.ok().flatten()?;
        let start = image.name.rfind("v1.")?;
        let version: String =
            image.name[start..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, 'v' | '.')).collect();
        Some(version.trim_end_matches('.').to_owned())
    }

    /// Its server exists, running or not.
    fn is_there(&self, id: &str) -> bool {
        self.machines.lock().contains_key(id) || self.halted.lock().contains(id)
    }

    /// A machine whose server has stopped: its kubelet is silent, and nothing of a control plane runs on it.
    async fn halt(self: Arc<Self>, id: String) {
        let record = self.record(&id).await.unwrap_or_default();
        let cluster = self.clusters.lock().get(&record.cluster).cloned();
        match cluster {
            Some(cluster) => {
                cluster.lose_node(&record.node).await;
                if record.control_plane {
                    cluster.leave(&id);
                }
            }
            None => self.lose_nodes_of(&id).await,
        }
    }

    /// For a machine that was stopped in the middle of its boot: it may have registered a node.
    async fn lose_nodes_of(&self, server: &str) {
        let clusters: Vec<_> = self.clusters.lock().values().cloned().collect();
        for cluster in clusters {
            for node in cluster.nodes_of(server).await {
                cluster.lose_node(&node).await;
            }
        }
    }

    /// A machine that is gone: its node is lost, and with the last control plane machine the cluster. False if its
    /// cluster has yet to be opened: then its record stays, and the next whole look finds it again.
    async fn forget(self: Arc<Self>, id: String) -> bool {
        self.consoles.lock().remove(&id);
        let record = self.record(&id).await.unwrap_or_default();
        let served = self.records().await.into_iter().any(|(other, found)| {
            let same = other != id && found.control_plane && found.cluster == record.cluster;
            same && self.is_there(&other)
        });
        let cluster = self.clusters.lock().get(&record.cluster).cloned();
        if record.cluster.is_empty() && record.failure.is_none() {
            self.lose_nodes_of(&id).await;
        }
        if let Some(cluster) = cluster {
            cluster.lose_node(&record.node).await;
            if record.control_plane && cluster.leave(&id) && !served {
                self.clusters.lock().remove(&record.cluster);
                self.balancer.close(&cluster.endpoint);
                cluster.shutdown().await;
                self.erase(&record.cluster).await;
            }
        } else if served {
            return false;
        } else if !record.cluster.is_empty() {
            self.erase(&record.cluster).await;
        }
        let ops = vec![Op::Delete { key: Bytes::from(format!("{RECORDS}{id}")) }];
        if let Err(error) = self.store.commit(Guard::default(), ops).await {
            warn!(server = id, %error, "a machine's record stays");
            return false;
        }
        true
    }

    async fn erase(&self, cluster: &str) {
        for prefix in [cluster::data_prefix(cluster), format!("{CLUSTERS}{cluster}")] {
            let Ok(page) = self.store.range(Range::prefix(prefix), At::Latest, 0).await else { return };
            let ops = page.items.into_iter().map(|item| Op::Delete { key: item.key }).collect();
            if let Err(error) = self.store.commit(Guard::default(), ops).await {
                warn!(cluster, %error, "a cluster's data stays");
            }
        }
    }

    /// The cluster with this id, opened if it does not run yet.
    async fn open(
        &self,
        id: &str,
        configuration: &ClusterConfiguration,
        keys: Keys,
    ) -> Result<Arc<Cluster>, machine::Error> {
        let _turn = self.opening.lock().await;
        if let Some(cluster) = self.clusters.lock().get(id) {
            return Ok(cluster.clone());
        }
        let cluster = Cluster::open(id, configuration, keys, &self.store, self.clock.clone(), self.cloud.clone());
        let cluster = cluster.await?;
        let kept = Kept {
            version: configuration.kubernetes_version.clone(),
            certificates_dir: configuration.certificates_dir.clone(),
            service_subnet: configuration.networking.service_subnet.clone(),
            etcd: configuration.etcd.clone(),
        };
        let key = Bytes::from(format!("{CLUSTERS}{id}"));
        let value = Bytes::from(serde_json::to_vec(&kept).unwrap_or_default());
        let ops = vec![Op::Put { key, value }];
        self.store.commit(Guard::default(), ops).await?;
        self.clusters.lock().insert(id.to_owned(), cluster.clone());
        Ok(cluster)
    }

    /// What is kept of a cluster's configuration.
    async fn configuration_of(&self, cluster: &str) -> Result<ClusterConfiguration, store::Error> {
        let page = self.store.range(Range::key(format!("{CLUSTERS}{cluster}")), At::Latest, 1).await?;
        let value = page.items.first().map(|item| item.value.clone()).unwrap_or_default();
        // Once only the version was kept.
        let plain = || Kept { version: String::from_utf8_lossy(&value).into_owned(), ..Kept::default() };
        let kept = serde_json::from_slice(&value).unwrap_or_else(|_| plain());
        let version = if kept.version.is_empty() { "v1.36.0".to_owned() } else { kept.version };
        Ok(ClusterConfiguration {
            kubernetes_version: version,
            certificates_dir: kept.certificates_dir,
            networking: Networking { service_subnet: kept.service_subnet, ..Networking::default() },
            etcd: kept.etcd,
            ..ClusterConfiguration::default()
        })
    }

    fn cluster_at(&self, endpoint: &str) -> Option<Arc<Cluster>> {
        self.clusters.lock().values().find(|cluster| cluster.endpoint == endpoint).cloned()
    }

    async fn record(&self, id: &str) -> Option<Record> {
        let page = self.store.range(Range::key(format!("{RECORDS}{id}")), At::Latest, 1).await.ok()?;
        serde_json::from_slice(&page.items.first()?.value).ok()
    }

    async fn remember(&self, id: &str, record: &Record) -> Result<Commit, store::Error> {
        let value = serde_json::to_vec(record).expect("a record of strings and booleans is JSON");
        let op = Op::Put { key: Bytes::from(format!("{RECORDS}{id}")), value: Bytes::from(value) };
        self.store.commit(Guard::default(), vec![op]).await
    }

    /// Adds a line to the server's console.
    fn log(&self, server: &str, line: &str) {
        let mut consoles = self.consoles.lock();
        let text = consoles.entry(server.to_owned()).or_default();
        text.push_str(line);
        text.push('\n');
        if text.len() > CONSOLE_MAX_BYTES {
            let start = text.ceil_char_boundary(text.len() - CONSOLE_MAX_BYTES);
            text.drain(..start);
        }
        let text = text.clone();
        drop(consoles);
        (self.console)(server, &text);
    }
}

fn is_gone(server: &Server) -> bool {
    matches!(server.status.as_str(), "DELETED" | "SOFT_DELETED")
}

/// It is there, and its guest does not run.
fn is_halted(server: &Server) -> bool {
    matches!(server.status.as_str(), "ERROR" | "SHUTOFF" | "SUSPENDED" | "SHELVED" | "SHELVED_OFFLOADED")
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        // Transparent layers repeat what they wrap.
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}
