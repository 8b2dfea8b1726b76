//! One hollow cluster: an API server over its own part of the store, and a TLS front for each control plane machine.

use std::{collections::BTreeMap, sync::Arc};

use apiserver::{Options, Profile, Server, ServiceAccountKeys, User};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Node};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use parking_lot::RwLock;
use rustls::ServerConfig;
use serde_json::{Value, json};
use store::{Prefixed, SharedStore};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Clock,
    etcd::{Etcd, Fault, Pods},
    kubeadm::ClusterConfiguration,
    objects,
    pki::{self, Authority},
    signer,
    workloads::{self, kubelet::Written, metrics::Metrics},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start the API of hollow cluster {cluster}")]
    Start {
        cluster: String,
        #[source]
        source: apiserver::StartError,
    },
    #[error("read the etcd members of hollow cluster {cluster}")]
    Etcd {
        cluster: String,
        #[source]
        source: store::Error,
    },
    #[error("make the TLS front of {machine}")]
    Tls {
        machine: String,
        #[source]
        source: apiserver::ListenError,
    },
    #[error("write {what} in hollow cluster {cluster}")]
    Write {
        cluster: String,
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// A control plane machine's share in the cluster.
#[derive(Clone)]
pub struct Member {
    pub node: String,
    pub address: String,
    pub tls: Arc<ServerConfig>,
    /// None if the cluster's etcd is elsewhere.
    pub etcd_tls: Option<Arc<ServerConfig>>,
}

pub struct Cluster {
    pub id: String,
    /// `host:port` that the members are reached at together.
    pub endpoint: String,
    pub server: Server,
    pub client: Client,
    pub ca: Authority,
    pub etcd_ca_pem: String,
    pub etcd: Etcd,
    /// By machine.
    pub members: RwLock<BTreeMap<String, Member>>,
    /// A machine has left.
    changed: Notify,
    pub clock: Clock,
    /// The one that its machines are in.
    pub cloud: openstack::Client,
    stop: CancellationToken,
}

/// What a control plane machine brings: the authorities and keys that lie in its /etc/kubernetes/pki.
pub struct Keys {
    pub ca: Authority,
    pub etcd_ca_pem: String,
    pub service_account_key_pem: String,
}

impl Cluster {
    /// Opens the cluster's data, or begins it.
    pub async fn open(
        id: &str,
        configuration: &ClusterConfiguration,
        keys: Keys,
        store: &SharedStore,
        clock: Clock,
        cloud: openstack::Client,
    ) -> Result<Arc<Self>, Error> {
        let part: SharedStore = Arc::new(Prefixed::new(store.clone(), data_prefix(id)));
        let etcd = Etcd::open(id, store).await;
        let etcd = etcd.map_err(|source| Error::Etcd { cluster: id.to_owned(), source })?;
        let pods = Arc::new(Pods::default());
        let options = Options {
            clock: clock.clone(),
            profile: Profile::Workload,
            client_ca_pem: Some(keys.ca.certificate_pem.clone()),
            service_account: Some(ServiceAccountKeys {
                signing_key_pem: keys.service_account_key_pem,
                verifying_keys_pem: Vec::new(),
                issuer: "https://kubernetes.default.svc".to_owned(),
                ..ServiceAccountKeys::default()
            }),
            bootstrap_tokens: true,
            node_authorizer: true,
            service_range: configuration.service_subnet().parse().ok(),
            version: configuration.kubernetes_version.clone(),
            forward: Some(pods.clone()),
            logs: Some(Arc::new(Written)),
            aggregated: Some(Arc::new(Metrics { store: part.clone(), clock: clock.clone() })),
            ..Options::default()
        };
        let server = Server::start(part, options).await;
        let server = server.map_err(|source| Error::Start { cluster: id.to_owned(), source })?;
        let client = Client::new(server.service_as(User::master("system:hollow")), "default");
        let cluster = Arc::new(Self {
            id: id.to_owned(),
            endpoint: configuration.control_plane_endpoint.clone(),
            server,
            client,
            ca: keys.ca,
            etcd_ca_pem: keys.etcd_ca_pem,
            etcd,
            members: RwLock::default(),
            changed: Notify::new(),
            clock,
            cloud,
            stop: CancellationToken::new(),
        });
        pods.set(Arc::downgrade(&cluster));
        tokio::spawn(cluster.stop.clone().run_until_cancelled_owned(sign(Arc::downgrade(&cluster))));
        tokio::spawn(cluster.stop.clone().run_until_cancelled_owned(workloads::run(Arc::downgrade(&cluster))));
        tokio::spawn(cluster.stop.clone().run_until_cancelled_owned(signer::run(Arc::downgrade(&cluster))));
        Ok(cluster)
    }

    /// Adds the TLS fronts of a machine: of its API server, and of its etcd.
    pub fn join(
        &self,
        machine: &str,
        node: &str,
        address: &str,
        serving: &pki::Signed,
        etcd_serving: Option<&pki::Signed>,
    ) -> Result<(), Error> {
        let front = |serving: &pki::Signed, clients: &str| {
            let tls = apiserver::server_tls(&serving.certificate_pem, &serving.key_pem, Some(clients));
            tls.map_err(|source| Error::Tls { machine: machine.to_owned(), source })
        };
        let tls = front(serving, &self.ca.certificate_pem)?;
        let etcd_tls = etcd_serving.map(|serving| front(serving, &self.etcd_ca_pem)).transpose()?;
        let member = Member { node: node.to_owned(), address: address.to_owned(), tls, etcd_tls };
        self.members.write().insert(machine.to_owned(), member);
        Ok(())
    }

    /// The control plane machines whose etcd runs.
    pub fn alive(&self) -> Vec<String> {
        let members = self.members.read();
        members.iter().filter(|(_, member)| !self.etcd.is_down(&member.node)).map(|(id, _)| id.clone()).collect()
    }

    /// The control plane machines, also those whose etcd was told to be down.
    pub fn run(&self) -> Vec<String> {
        self.members.read().keys().cloned().collect()
    }

    /// Lets the etcd member on a node fail, or work again.
    pub fn set_etcd_fault(&self, node: &str, fault: Option<Fault>) {
        self.etcd.set_fault(node, fault);
        self.changed.notify_waiters();
    }

    pub fn has_quorum(&self) -> bool {
        self.etcd.has_quorum(&self.alive())
    }

    /// Returns when the machine's API server answers no more: the machine is gone, or its etcd, or most of the etcd members.
    pub async fn ceases(&self, machine: &str) {
        loop {
            let changed = self.changed.notified();
            if !self.alive().iter().any(|id| id == machine) || !self.has_quorum() {
                return;
            }
            changed.await;
        }
    }

    /// Takes a machine away; true if none is left.
    pub fn leave(&self, machine: &str) -> bool {
        let mut members = self.members.write();
        members.remove(machine);
        let last = members.is_empty();
        drop(members);
        self.changed.notify_waiters();
        last
    }

    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.server.shutdown().await;
    }

    /// Creates objects; what exists already is left as it is.
    pub async fn apply_new(&self, objects: Vec<Value>) -> Result<(), Error> {
        for value in objects {
            create(&self.client, value).await.map_err(|(what, source)| Error::Write {
                cluster: self.id.clone(),
                what,
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    /// Marks a node whose machine is gone, or does not run.
    pub async fn lose_node(&self, node: &str) {
        self.mark(node, objects::lost(&self.now())).await;
    }

    /// Marks a node whose machine runs again, if it was lost.
    pub async fn find_node(&self, node: &str) {
        let found = Api::<Node>::all(self.client.clone()).get_opt(node).await.ok().flatten();
        let conditions = found.and_then(|node| node.status?.conditions).unwrap_or_default();
        if conditions.iter().any(|one| one.type_ == "Ready" && one.status == "Unknown") {
            self.mark(node, objects::found(&self.now())).await;
        }
    }

    /// The nodes that a server registered.
    pub async fn nodes_of(&self, server: &str) -> Vec<String> {
        let all = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
        let is = |node: &Node| {
            let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
            info.is_some_and(|info| info.system_uuid == server)
        };
        all.into_iter().flatten().filter(is).filter_map(|node| node.metadata.name).collect()
    }

    async fn mark(&self, node: &str, status: Value) {
        let patch = Patch::Strategic(status);
        let patched = Api::<Node>::all(self.client.clone()).patch_status(node, &PatchParams::default(), &patch).await;
        if let Err(error) = patched {
            debug!(node, %error, "a node is not marked");
        }
    }

    pub fn now(&self) -> String {
        (self.clock)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// Where a cluster's objects lie in the sandbox's store.
pub fn data_prefix(id: &str) -> String {
    format!("hollow/data/{id}/")
}

/// Creates one object of any kind that the hollow API serves; one that exists is left as it is.
pub async fn create(client: &Client, value: Value) -> Result<DynamicObject, (String, kube::Error)> {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (group, short) = version.split_once('/').unwrap_or(("", &version));
    let plural = format!("{}s", kind.to_lowercase());
    let resource = ApiResource {
        group: group.into(),
        version: short.into(),
        api_version: version.clone(),
        kind: kind.clone(),
        plural,
    };
    let namespace = value["metadata"]["namespace"].as_str().map(str::to_owned);
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let what = format!("{kind} {name}");
    let object: DynamicObject =
        serde_json::from_value(value).map_err(|error| (what.clone(), kube::Error::SerdeError(error)))?;
    let api = match &namespace {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    match api.create(&PostParams::default(), &object).await {
        Ok(created) => Ok(created),
        // Whatever is told first: a Service that exists holds the address that it asks for.
        Err(refused) => api.get(&name).await.map_err(|_| (what, refused)),
    }
}

/// What kube-controller-manager's signer does with kubelets' requests.
async fn sign(cluster: std::sync::Weak<Cluster>) {
    let Some(client) = cluster.upgrade().map(|cluster| cluster.client.clone()) else { return };
    let requests = Api::<CertificateSigningRequest>::all(client.clone());
    let events = watcher(requests.clone(), watcher::Config::default()).default_backoff().applied_objects();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let (Some(cluster), Ok(request)) = (cluster.upgrade(), event) else { continue };
        let signed = request.status.as_ref().is_some_and(|status| status.certificate.is_some());
        if signed || request.spec.signer_name != "kubernetes.io/kube-apiserver-client-kubelet" {
            continue;
        }
        let name = request.metadata.name.clone().unwrap_or_default();
        let groups = request.spec.groups.clone().unwrap_or_default();
        let may = groups.iter().any(|group| group == "system:bootstrappers" || group == "system:nodes");
        let subject = pki::subject(&request.spec.request.0);
        let node = subject.is_some_and(|(name, groups)| name.starts_with("system:node:") && groups == ["system:nodes"]);
        if !may || !node {
            warn!(request = name, "a certificate request is left alone: it is not a kubelet's");
            continue;
        }
        let pem = String::from_utf8_lossy(&request.spec.request.0).into_owned();
        let now = cluster.now();
        let approval = json!({"status": {"conditions": [{
            "type": "Approved", "status": "True", "reason": "AutoApproved", "lastUpdateTime": now, "lastTransitionTime": now,
            "message": "Auto approving kubelet client certificate after SubjectAccessReview.",
        }]}});
        let certificate = match cluster.ca.sign_request(&pem, (cluster.clock)()) {
            Ok(certificate) => certificate,
            Err(error) => {
                warn!(request = name, %error, "a kubelet's request is not signed");
                continue;
            }
        };
        let params = PatchParams::default();
        let approved = requests.patch_subresource("approval", &name, &params, &Patch::Merge(approval)).await;
        let encoded = k8s_openapi::ByteString(certificate.into_bytes());
        let issued = json!({ "status": { "certificate": encoded } });
        let issued = match approved {
            Ok(_) => requests.patch_status(&name, &params, &Patch::Merge(issued)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = issued {
            warn!(request = name, %error, "a kubelet's certificate is not stored");
        }
    }
}
