//! Connections to workload clusters: one client and one watch of the nodes for each cluster that has an API.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::names::Purpose;
use control::{CALL_LIMIT, Clock, Connect, Error, Key, Queue, Result, bounded};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    runtime::watcher::{self, watcher},
};
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{Caches, control_plane::NODE_ROLE, machine::is_unreachable};

/// Pauses between attempts to connect; the first ones are short because an API that starts is waited for.
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Longest pause while an API has never answered yet.
const STARTING_MAX: Duration = Duration::from_secs(2);
/// Pages of a pod list.
const PODS_MAX: u32 = 500;

/// Whether a cluster's API answered when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Succeeded,
    Failed(String),
}

pub struct Workloads {
    caches: Arc<Caches>,
    connect: Arc<dyn Connect>,
    clock: Clock,
    stop: CancellationToken,
    links: RwLock<HashMap<Key, Arc<Link>>>,
    machines: Mutex<Vec<Queue>>,
    control_planes: Mutex<Vec<Queue>>,
    clusters: Mutex<Vec<Queue>>,
    health_checks: Mutex<Vec<Queue>>,
}

/// One cluster's connection.
struct Link {
    stop: CancellationToken,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    probe: Option<Probe>,
    nodes: HashMap<String, Arc<Node>>,
    /// The first list of nodes is complete.
    listed: bool,
}

impl Workloads {
    pub fn new(caches: Arc<Caches>, connect: Arc<dyn Connect>, clock: Clock, stop: CancellationToken) -> Arc<Self> {
        let (links, machines, control_planes, clusters, health_checks) = Default::default();
        Arc::new(Self { caches, connect, clock, stop, links, machines, control_planes, clusters, health_checks })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A change of a node wakes the machines of its cluster; a new connection wakes its control plane too, and so do the labels
    /// and taints of its own nodes.
    pub fn feed_machines(&self, queue: &Queue) {
        self.machines.lock().push(queue.clone());
    }

    pub fn feed_control_planes(&self, queue: &Queue) {
        self.control_planes.lock().push(queue.clone());
    }

    /// A change of a node, and a connection that is made, wake the health checks of its cluster.
    pub fn feed_health_checks(&self, queue: &Queue) {
        self.health_checks.lock().push(queue.clone());
    }

    /// A connection that is made or lost wakes the cluster.
    pub fn feed_clusters(&self, queue: &Queue) {
        self.clusters.lock().push(queue.clone());
    }

    /// Connects to the cluster and stays connected until [`Self::forget`].
    pub fn follow(self: &Arc<Self>, cluster: &Key) {
        if self.links.read().contains_key(cluster) {
            return;
        }
        let link = Arc::new(Link { stop: self.stop.child_token(), state: RwLock::default() });
        if self.links.write().insert(cluster.clone(), link.clone()).is_some() {
            return;
        }
        let (workloads, cluster) = (Arc::downgrade(self), cluster.clone());
        tokio::task::spawn(async move {
            let stop = link.stop.clone();
            let mut pause = RECONNECT_MIN;
            loop {
                let Some(workloads) = workloads.upgrade() else { return };
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = workloads.watch(&cluster, &link) => ended,
                };
                let was_up = link.state.read().probe == Some(Probe::Succeeded);
                let why = ended.err().map_or_else(|| "the watch of the nodes ended".into(), |error| error.chain());
                debug!(%cluster, why, "workload cluster is not reached");
                if link.state.write().probe.replace(Probe::Failed(why)) == Some(Probe::Succeeded) {
                    workloads.clusters.lock().iter().for_each(|queue| queue.add(cluster.clone()));
                }
                let starts = !link.state.read().listed;
                let max = if starts { STARTING_MAX } else { RECONNECT_MAX };
                pause = if was_up { RECONNECT_MIN } else { max.min(pause * 2) };
                drop(workloads);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Ends the connection of a cluster that is gone.
    pub fn forget(&self, cluster: &Key) {
        if let Some(link) = self.links.write().remove(cluster) {
            link.stop.cancel();
        }
    }

    pub fn probe(&self, cluster: &Key) -> Option<Probe> {
        self.links.read().get(cluster)?.state.read().probe.clone()
    }

    /// A client, if the cluster is connected.
    pub fn client(&self, cluster: &Key) -> Option<Client> {
        let link = self.links.read().get(cluster)?.clone();
        let state = link.state.read();
        (state.probe == Some(Probe::Succeeded)).then(|| state.client.clone()).flatten()
    }

    /// A client for a cluster whose API is only starting: made from its kubeconfig, connected or not.
    pub async fn try_client(&self, cluster: &Key) -> Result<Client> {
        if let Some(client) = self.client(cluster) {
            return Ok(client);
        }
        self.connect.connect(&self.kubeconfig(cluster)?).await
    }

    /// The node that calls itself by the provider ID (exact match), and whether the nodes are known at all.
    pub fn node(&self, cluster: &Key, provider_id: &str) -> Option<Arc<Node>> {
        let link = self.links.read().get(cluster)?.clone();
        let state = link.state.read();
        let wanted = Some(provider_id);
        let found = state
            .nodes
            .values()
            .find(|node| node.spec.as_ref().is_some_and(|spec| spec.provider_id.as_deref() == wanted));
        found.cloned()
    }

    /// All nodes, as far as they are known.
    pub fn nodes(&self, cluster: &Key) -> Vec<Arc<Node>> {
        let link = self.links.read().get(cluster).cloned();
        link.map(|link| link.state.read().nodes.values().cloned().collect()).unwrap_or_default()
    }

    pub fn node_named(&self, cluster: &Key, name: &str) -> Option<Arc<Node>> {
        let link = self.links.read().get(cluster)?.clone();
        let state = link.state.read();
        state.nodes.get(name).cloned()
    }

    /// True once the nodes have been listed, so that a node that is not there does not exist.
    pub fn knows_nodes(&self, cluster: &Key) -> bool {
        self.links.read().get(cluster).is_some_and(|link| link.state.read().listed)
    }

    /// The static pods of the control plane, by name.
    pub async fn control_plane_pods(&self, cluster: &Key) -> Result<Vec<Pod>> {
        let client = self.try_client(cluster).await?;
        let params = ListParams::default().labels("tier=control-plane").limit(PODS_MAX);
        let pods = Api::<Pod>::namespaced(client, "kube-system");
        let listed = bounded(cluster, pods.list(&params)).await?;
        Ok(listed.map_err(|source| Error::api("list", format!("pods of {cluster}"), source))?.items)
    }

    /// Whether kubeadm has finished its first machine: it leaves its configuration in the cluster.
    pub async fn is_initialized(&self, cluster: &Key) -> Result<bool> {
        let maps = Api::<ConfigMap>::namespaced(self.try_client(cluster).await?, "kube-system");
        let found = bounded(cluster, maps.get_opt("kubeadm-config")).await?;
        Ok(found
            .map_err(|source| Error::api("get", format!("configmap kubeadm-config of {cluster}"), source))?
            .is_some())
    }

    /// Replaces kubeadm's ClusterConfiguration by what `edit` makes of it; `None` leaves it.
    pub async fn edit_cluster_configuration(
        &self,
        cluster: &Key,
        edit: impl FnOnce(&str) -> Result<Option<String>, String> + Send,
    ) -> Result<()> {
        let object = || format!("configmap kube-system/kubeadm-config of {cluster}");
        let too_long = |_| Error::Retry(format!("the API of {cluster} took too long"));
        let maps = Api::<ConfigMap>::namespaced(self.try_client(cluster).await?, "kube-system");
        let found = tokio::time::timeout(CALL_LIMIT, maps.get("kubeadm-config")).await.map_err(too_long)?;
        let mut map = found.map_err(|source| Error::api("get", object(), source))?;
        let data = map.data.get_or_insert_default();
        let current = data.get("ClusterConfiguration").map(String::as_str).unwrap_or_default();
        let edited = edit(current).map_err(|why| {
            Error::blocked("InvalidConfiguration", format!("{}: ClusterConfiguration: {why}", object()))
        })?;
        let Some(edited) = edited else { return Ok(()) };
        data.insert("ClusterConfiguration".to_owned(), edited);
        // With the version that was read: a write in between is a conflict, and tried again.
        let params = PostParams::default();
        let written = maps.replace("kubeadm-config", &params, &map);
        let written = tokio::time::timeout(CALL_LIMIT, written).await.map_err(too_long)?;
        written.map(drop).map_err(|source| Error::api("replace", object(), source))
    }

    fn kubeconfig(&self, cluster: &Key) -> Result<String> {
        let name = Purpose::Kubeconfig.secret_name(&cluster.name);
        let secret = self.caches.secret(&cluster.namespace, &name);
        let value = secret.as_ref().and_then(|secret| secret.data.as_ref()?.get("value"));
        let value =
            value.ok_or_else(|| Error::Retry(format!("secret {}/{name} does not exist yet", cluster.namespace)))?;
        String::from_utf8(value.0.clone()).map_err(|_| {
            Error::blocked("InvalidKubeconfig", format!("secret {}/{name} is not text", cluster.namespace))
        })
    }

    /// Connects and keeps the nodes up to date until the connection breaks.
    async fn watch(&self, cluster: &Key, link: &Link) -> Result<()> {
        let client = self.connect.connect(&self.kubeconfig(cluster)?).await?;
        let version = bounded(cluster, client.apiserver_version()).await?;
        version.map_err(|source| Error::api("probe", cluster, source))?;
        let events = watcher(Api::<Node>::all(client.clone()), watcher::Config::default());
        pin_mut!(events);
        let mut fresh = HashMap::new();
        while let Some(event) = events.next().await {
            match event.map_err(|error| Error::Retry(format!("watching nodes: {error}")))? {
                watcher::Event::Init => fresh.clear(),
                watcher::Event::InitApply(node) => drop(fresh.insert(name(&node), Arc::new(trimmed(node)))),
                watcher::Event::InitDone => {
                    let mut state = link.state.write();
                    state.nodes = std::mem::take(&mut fresh);
                    state.client = Some(client.clone());
                    state.probe = Some(Probe::Succeeded);
                    state.listed = true;
                    drop(state);
                    self.wake(cluster, None);
                }
                watcher::Event::Apply(node) => {
                    let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.clone());
                    // Perhaps its machine is gone, and the cluster takes it away.
                    if is_unreachable(&node) {
                        self.clusters.lock().iter().for_each(|queue| queue.add(cluster.clone()));
                    }
                    let (name, node) = (name(&node), Arc::new(trimmed(node)));
                    let before = link.state.write().nodes.insert(name, node.clone());
                    if before.is_some_and(|before| is_marked_otherwise(&before, &node)) {
                        self.wake_control_planes(cluster);
                    }
                    self.wake(cluster, provider_id.as_deref());
                }
                watcher::Event::Delete(node) => {
                    let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.clone());
                    link.state.write().nodes.remove(&name(&node));
                    self.wake(cluster, provider_id.as_deref());
                }
            }
        }
        Ok(())
    }

    /// Wakes the machine of one node, or all machines and the control plane of the cluster; and its health checks.
    fn wake(&self, cluster: &Key, provider_id: Option<&str>) {
        for machine in self.caches.machines.in_cluster(&cluster.namespace, &cluster.name) {
            if provider_id.is_none() || machine.spec.provider_id.as_deref() == provider_id {
                self.machines.lock().iter().for_each(|queue| queue.add(Key::of(machine.as_ref())));
            }
        }
        for check in self.caches.health_checks.in_cluster(&cluster.namespace, &cluster.name) {
            self.health_checks.lock().iter().for_each(|queue| queue.add(Key::of(check.as_ref())));
        }
        if provider_id.is_none() {
            self.wake_control_planes(cluster);
            self.clusters.lock().iter().for_each(|queue| queue.add(cluster.clone()));
        }
    }

    fn wake_control_planes(&self, cluster: &Key) {
        for control_plane in self.caches.control_planes.in_cluster(&cluster.namespace, &cluster.name) {
            self.control_planes.lock().iter().for_each(|queue| queue.add(Key::of(control_plane.as_ref())));
        }
    }
}

/// Whether a control plane's node has got or lost a label or a taint, of which its machine tells.
fn is_marked_otherwise(before: &Node, after: &Node) -> bool {
    let marks = |node: &Node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        (node.metadata.labels.clone().unwrap_or_default(), taints)
    };
    let (before, after) = (marks(before), marks(after));
    before != after && [&before, &after].iter().any(|(labels, _)| labels.contains_key(NODE_ROLE))
}

fn name(node: &Node) -> String {
    node.metadata.name.clone().unwrap_or_default()
}

/// What no controller reads is not kept: image lists are most of a node.
fn trimmed(mut node: Node) -> Node {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.volumes_in_use = None;
    }
    node
}
