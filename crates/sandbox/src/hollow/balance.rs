//! The way in: listens at floating IPs and hands each connection to a control plane machine behind them.
//!
//! What is behind an address is the cloud's word, not ours: the floating IP's port is a load balancer's (then the
//! members of the listener's pool) or a server's. A machine that nobody made a member is not reached.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use openstack::{
    Client, Query,
    load_balancer::{Listener, LoadBalancer, Member, Pool},
    network::{FloatingIp, Port},
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    cluster::Cluster,
    network::{Listener as Socket, Network},
};

/// Connections at one address; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// The cloud is asked again what is behind an address when its answer is older than this.
const TARGETS_LIFE: Duration = Duration::from_secs(2);
/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the control plane endpoint {0:?} is not an address of this machine: hollow clusters are reached at floating IPs in 127.0.0.0/8"
    )]
    NotLocal(String),
    #[error("cannot listen at {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// The listeners, by address.
pub struct Balancer {
    cloud: Client,
    network: Arc<dyn Network>,
    listeners: Mutex<HashMap<SocketAddr, CancellationToken>>,
    stop: CancellationToken,
}

impl Balancer {
    pub fn new(cloud: Client, network: Arc<dyn Network>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { cloud, network, listeners: Mutex::default(), stop })
    }

    /// Begins to listen at the cluster's endpoint; nothing if it does already.
    pub async fn listen(self: &Arc<Self>, cluster: &Arc<Cluster>) -> Result<(), Error> {
        let address: SocketAddr = cluster.endpoint.parse().map_err(|_| Error::NotLocal(cluster.endpoint.clone()))?;
        if !address.ip().is_loopback() {
            return Err(Error::NotLocal(cluster.endpoint.clone()));
        }
        let stop = self.stop.child_token();
        {
            let mut listeners = self.listeners.lock();
            if listeners.contains_key(&address) {
                return Ok(());
            }
            listeners.insert(address, stop.clone());
        }
        let listener = match self.network.listen(address).await {
            Ok(listener) => listener,
            Err(source) => {
                self.listeners.lock().remove(&address);
                return Err(Error::Listen { address, source });
            }
        };
        let (balancer, cluster) = (self.clone(), cluster.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = balancer.accept(listener, address, cluster) => {}
            }
        });
        Ok(())
    }

    pub fn close(&self, endpoint: &str) {
        let Ok(address) = endpoint.parse::<SocketAddr>() else { return };
        if let Some(stop) = self.listeners.lock().remove(&address) {
            stop.cancel();
        }
    }

    async fn accept(self: Arc<Self>, mut listener: Box<dyn Socket>, address: SocketAddr, cluster: Arc<Cluster>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let targets = Arc::new(tokio::sync::Mutex::new(None::<(Instant, Vec<String>)>));
        let turn = Arc::new(AtomicUsize::new(0));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    warn!(%address, %error, "a connection is not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (balancer, cluster, targets, turn) = (self.clone(), cluster.clone(), targets.clone(), turn.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let addresses = balancer.targets(address, &targets).await;
                let members: Vec<_> = cluster
                    .members
                    .read()
                    .iter()
                    .filter(|(_, member)| addresses.contains(&member.address) && !cluster.etcd.is_down(&member.node))
                    .map(|(machine, member)| (machine.clone(), member.tls.clone()))
                    .collect();
                if members.is_empty() {
                    debug!(%address, "no machine is behind the address");
                    return;
                }
                if !cluster.has_quorum() {
                    debug!(%address, "etcd of the cluster has no quorum");
                    return;
                }
                let (machine, tls) = &members[turn.fetch_add(1, Ordering::Relaxed) % members.len()];
                tokio::select! {
                    () = cluster.server.serve_connection(stream, tls.clone()) => {}
                    () = cluster.ceases(machine) => {}
                }
            });
        }
    }

    /// Fixed addresses behind a floating one, by the cloud's state.
    async fn targets(
        &self,
        address: SocketAddr,
        known: &tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
    ) -> Vec<String> {
        let mut known = known.lock().await;
        if let Some((since, addresses)) = known.as_ref()
            && since.elapsed() < TARGETS_LIFE
            && !addresses.is_empty()
        {
            return addresses.clone();
        }
        match self.look(address).await {
            Ok(addresses) => {
                *known = Some((Instant::now(), addresses.clone()));
                addresses
            }
            Err(error) => {
                debug!(%address, %error, "the cloud does not say what is behind the address");
                known.as_ref().map(|(_, addresses)| addresses.clone()).unwrap_or_default()
            }
        }
    }

    async fn look(&self, address: SocketAddr) -> openstack::Result<Vec<String>> {
        let ips = self.cloud.list::<FloatingIp>(&Query::new().with("floating_ip_address", address.ip())).await?;
        let Some(port) = ips.into_iter().find_map(|ip| ip.port_id) else { return Ok(Vec::new()) };
        let balancers = self.cloud.list::<LoadBalancer>(&Query::new().with("vip_port_id", &port)).await?;
        let Some(balancer) = balancers.first() else {
            let port = self.cloud.look::<Port>(&port).await?;
            return Ok(port.into_iter().flat_map(|port| port.fixed_ips).map(|ip| ip.ip_address).collect());
        };
        let listeners = self.cloud.list::<Listener>(&Query::new().with("loadbalancer_id", &balancer.id)).await?;
        let Some(listener) = listeners.iter().find(|listener| listener.protocol_port == address.port()) else {
            return Ok(Vec::new());
        };
        let Some(pool) = self.cloud.look::<Pool>(&listener.default_pool_id).await? else { return Ok(Vec::new()) };
        let members = self.cloud.list_in::<Member>(&pool.id, &Query::new()).await?;
        Ok(members.into_iter().map(|member| member.address).collect())
    }
}
