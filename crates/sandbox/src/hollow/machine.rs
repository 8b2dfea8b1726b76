//! One machine's boot: cloud-init, then kubeadm, up to a registered node.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use openstack::compute::Server;
use serde::{Deserialize, Serialize};

use super::{
    Hollow, addons, balance,
    cluster::{self, Cluster, Keys},
    join::{self, Discovery},
    kubeadm::{self, ClusterConfiguration, NodeRegistration},
    objects::{self, Host},
    pki::{self, Authority},
    signer,
    user_data::{self, CloudConfig, Instance},
};

/// A hollow cluster's signer takes milliseconds; kubeadm, which cannot know that, waits for minutes.
const SIGNATURE_LIMIT: Duration = Duration::from_secs(5);

const JOINED: &str = "This node has joined the cluster";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    UserData(#[source] user_data::Error),
    #[error("[kubeadm] {0}")]
    Configuration(#[from] kubeadm::Error),
    #[error("[kubeadm] {0}")]
    Certificates(#[from] pki::Error),
    #[error("[kubeadm] {0}")]
    Join(#[source] join::Error),
    #[error("[kubeadm] {0}")]
    Refused(String),
    #[error("[kubeadm] error execution phase control-plane-join/etcd: {0}")]
    Etcd(String),
    #[error("[hollow] {0}")]
    Cluster(#[from] cluster::Error),
    #[error("[hollow] {0}")]
    Listen(#[from] balance::Error),
    #[error("[kubelet] {what}")]
    Register {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("[hollow] {0}")]
    Store(#[from] store::Error),
}

impl Error {
    /// For how long since the boot began it is worth trying again: what was missing may come.
    pub fn patience(&self, limit: Duration) -> Duration {
        match self {
            Self::Join(join::Error::Unsigned { .. }) => SIGNATURE_LIMIT,
            Self::Join(join::Error::Unreachable { .. }) | Self::Register { .. } | Self::Store(_) | Self::Etcd(_) => {
                limit
            }
            _ => Duration::ZERO,
        }
    }
}

/// What is kept of a machine, so that a restart finds it as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Empty for a machine that runs no Kubernetes.
    pub cluster: String,
    pub node: String,
    pub control_plane: bool,
    /// Its etcd member may be one of the cluster's, its node is not registered yet.
    #[serde(default)]
    pub joining: bool,
    /// Why the boot failed, once and for all.
    pub failure: Option<String>,
}

/// The kubeadm command among the machine's commands.
enum Kubeadm {
    Init(String),
    Join(String),
}

fn kubeadm_command(config: &CloudConfig) -> Option<Kubeadm> {
    for line in &config.commands {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "kubeadm" || word.ends_with("/kubeadm")) else { continue };
        let path = words.iter().position(|word| *word == "--config").and_then(|at| words.get(at + 1));
        let path = path.map(|path| (*path).to_owned()).unwrap_or_default();
        match words.get(at + 1) {
            Some(&"init") => return Some(Kubeadm::Init(path)),
            Some(&"join") => return Some(Kubeadm::Join(path)),
            _ => {}
        }
    }
    None
}

/// A booting machine.
pub struct Machine<'a> {
    pub hollow: &'a Arc<Hollow>,
    pub server: &'a Server,
    /// vCPUs and memory of its flavor.
    pub size: (u32, u32),
    /// The Kubernetes version that its image carries, if the image's name says so.
    pub image_version: Option<String>,
}

impl Machine<'_> {
    fn address(&self) -> String {
        let fixed = self.server.addresses.values().flatten().find(|address| address.kind != "floating");
        fixed.map(|address| address.addr.clone()).unwrap_or_default()
    }

    fn instance(&self) -> Instance {
        Instance {
            id: self.server.id.clone(),
            hostname: self.hostname(),
            zone: self.server.availability_zone.clone(),
            region: self.hollow.region.clone(),
            local_ipv4: self.address(),
        }
    }

    fn hostname(&self) -> String {
        self.server.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| self.server.name.clone())
    }

    fn log(&self, line: &str) {
        self.hollow.log(&self.server.id, line);
    }

    /// Boots, or after a restart goes on as what the record says.
    pub async fn boot(&self, known: Option<Record>) -> Result<Record, Error> {
        let user_data = self.server.user_data.as_deref().unwrap_or_default();
        if user_data.is_empty() {
            return Ok(Record::default());
        }
        let config = match CloudConfig::read(user_data, &self.instance()) {
            // A script, or nothing for cloud-init: a machine of its own kind.
            Err(user_data::Error::Format(_)) => return Ok(Record::default()),
            config => config.map_err(Error::UserData)?,
        };
        self.log("user data read");
        match kubeadm_command(&config) {
            None => Ok(Record::default()),
            Some(Kubeadm::Init(path)) => self.init(&config, &path, known).await,
            Some(Kubeadm::Join(path)) => self.join(&config, &path, known).await,
        }
    }

    async fn init(&self, config: &CloudConfig, path: &str, known: Option<Record>) -> Result<Record, Error> {
        let (cluster, init) = kubeadm::init(path, config.text(path))?;
        let name = self.node_name(&init.node_registration);
        let opened = self.open(&self.server.id, &cluster, config).await?;
        self.serve(&opened, &cluster, config, &name, &init.local_api_endpoint.advertise_address).await?;
        let record =
            Record { cluster: opened.id.clone(), node: name.clone(), control_plane: true, ..Record::default() };
        if known.as_ref() == Some(&record) {
            return Ok(record);
        }
        self.log(&format!("[init] Using Kubernetes version: {}", cluster.kubernetes_version));
        let host = self.host(&name, true, &cluster);
        register(&opened.client, &host, &init.node_registration, &opened.now()).await?;
        // kubeadm uploads the configuration without what belongs to the node.
        let raw = config.text(path).unwrap_or_default();
        let raw = raw.split("\n---").find(|part| part.contains("kind: ClusterConfiguration")).unwrap_or(raw);
        let raw = raw.trim_start_matches("---").trim_start();
        opened.apply_new(addons::objects(&cluster, &init)).await?;
        let objects = objects::kubeadm(&cluster, raw, &opened.ca.certificate_pem);
        opened.apply_new(objects).await?;
        let tokens = init.bootstrap_tokens.iter().filter_map(|token| objects::token(token, (self.hollow.clock)()));
        opened.apply_new(tokens.collect()).await?;
        let signed = signer::sign(&opened.client, (self.hollow.clock)()).await;
        signed.map_err(|source| Error::Register { what: "sign cluster-info".into(), source: Box::new(source) })?;
        self.log("Your Kubernetes control-plane has initialized successfully!");
        Ok(record)
    }

    async fn join(&self, config: &CloudConfig, path: &str, known: Option<Record>) -> Result<Record, Error> {
        let join = kubeadm::join(path, config.text(path))?;
        let name = self.node_name(&join.node_registration);
        let control_plane = join.control_plane.is_some();
        let discovery = Discovery::of(&join, config).map_err(Error::Join)?;
        let endpoint = discovery.endpoint().to_owned();
        if let Some(record) = known.filter(|record| record.failure.is_none() && !record.cluster.is_empty()) {
            // Joined before: its token has long expired, and it needs none.
            if record.control_plane {
                let kept = self.hollow.configuration_of(&record.cluster).await?;
                let cluster = ClusterConfiguration { control_plane_endpoint: endpoint, ..kept };
                let opened = self.open(&record.cluster, &cluster, config).await?;
                self.serve(&opened, &cluster, config, &name, "").await?;
                if record.joining {
                    let host = self.host(&name, true, &cluster);
                    register(&opened.client, &host, &join.node_registration, &opened.now()).await?;
                    self.log(JOINED);
                }
            }
            return Ok(Record { joining: false, ..record });
        }
        let joined = join::join(self.hollow.network.as_ref(), &discovery, &name, (self.hollow.clock)())
            .await
            .map_err(Error::Join)?;
        self.log("[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap");
        let cluster = self.hollow.cluster_at(&endpoint);
        if control_plane {
            let authority = self.authority(config, &joined.configuration)?;
            let cluster = cluster
                .clone()
                .ok_or_else(|| Error::Refused(format!("etcd of the cluster at {endpoint} is not on this cloud")))?;
            let etcd = self.etcd_ca(config, &joined.configuration)?;
            if authority.certificate_pem.trim() != cluster.ca.certificate_pem.trim() {
                return Err(Error::Refused(
                    "the cluster's certificate authority is not the one that this machine was given".into(),
                ));
            }
            if etcd.trim() != cluster.etcd_ca_pem.trim() {
                return Err(Error::Refused("etcd: x509: certificate signed by unknown authority".into()));
            }
            // The cluster may need the member of this machine for its quorum as soon as it is added: a restart from here
            // on has to find the machine again.
            let (id, node) = (cluster.id.clone(), name.clone());
            let record = Record { cluster: id, node, control_plane, joining: true, ..Record::default() };
            self.hollow.remember(&self.server.id, &record).await?;
            let advertised =
                join.control_plane.map(|found| found.local_api_endpoint.advertise_address).unwrap_or_default();
            self.serve(&cluster, &joined.configuration, config, &name, &advertised).await?;
        }
        let host = self.host(&name, control_plane, &joined.configuration);
        let now = (self.hollow.clock)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let registrar = match (&cluster, control_plane) {
            // The kubelet of a control plane machine may label its own role: kubeadm does it as administrator.
            (Some(cluster), true) => &cluster.client,
            _ => &joined.client,
        };
        register(registrar, &host, &join.node_registration, &now).await?;
        self.log(JOINED);
        let id = cluster.map(|cluster| cluster.id.clone()).unwrap_or_else(|| format!("elsewhere/{endpoint}"));
        Ok(Record { cluster: id, node: name, control_plane, ..Record::default() })
    }

    fn node_name(&self, registration: &NodeRegistration) -> String {
        if registration.name.is_empty() { self.hostname().to_lowercase() } else { registration.name.clone() }
    }

    fn host(&self, name: &str, control_plane: bool, cluster: &ClusterConfiguration) -> Host {
        Host {
            name: name.to_owned(),
            id: self.server.id.clone(),
            address: self.address(),
            zone: self.server.availability_zone.clone(),
            region: self.hollow.region.clone(),
            flavor: self.server.flavor["original_name"].as_str().unwrap_or_default().to_owned(),
            kubelet_version: self.image_version.clone().unwrap_or_else(|| cluster.kubernetes_version.clone()),
            control_plane,
            vcpus: self.size.0,
            ram_mib: self.size.1,
        }
    }

    fn authority(&self, config: &CloudConfig, cluster: &ClusterConfiguration) -> Result<Authority, Error> {
        let pem = |name| config.text(&cluster.pki(name));
        Ok(Authority::load("ca", pem("ca.crt"), pem("ca.key"))?)
    }

    /// The certificate that etcd is trusted by: the cluster's own, or that of an etcd outside.
    fn etcd_ca(&self, config: &CloudConfig, cluster: &ClusterConfiguration) -> Result<String, Error> {
        let path =
            cluster.etcd.external.as_ref().map_or_else(|| cluster.pki("etcd/ca.crt"), |etcd| etcd.ca_file.clone());
        let missing = || pki::Error::Authority { name: "etcd-ca", what: format!("{path} was not written") };
        Ok(config.text(&path).ok_or_else(missing)?.to_owned())
    }

    /// What signs for the etcd on this machine; none if the cluster's etcd is elsewhere.
    fn etcd_authority(
        &self,
        config: &CloudConfig,
        cluster: &ClusterConfiguration,
    ) -> Result<Option<Authority>, pki::Error> {
        let pem = |name| config.text(&cluster.pki(name));
        let key = pem("etcd/ca.key").filter(|_| cluster.etcd.external.is_none());
        key.map(|key| Authority::load("etcd-ca", pem("etcd/ca.crt"), Some(key))).transpose()
    }

    /// The cluster with this id: running, or begun with the keys that the machine was given.
    async fn open(
        &self,
        id: &str,
        cluster: &ClusterConfiguration,
        config: &CloudConfig,
    ) -> Result<Arc<Cluster>, Error> {
        let pem = |name| config.text(&cluster.pki(name));
        let ca = self.authority(config, cluster)?;
        let etcd_ca_pem = match &cluster.etcd.external {
            Some(_) => self.etcd_ca(config, cluster)?,
            None => Authority::load("etcd-ca", pem("etcd/ca.crt"), pem("etcd/ca.key"))?.certificate_pem,
        };
        Authority::load("front-proxy-ca", pem("front-proxy-ca.crt"), pem("front-proxy-ca.key"))?;
        let key = pem("sa.key")
            .ok_or_else(|| pki::Error::Authority { name: "sa", what: "the key was not written".into() })?;
        let keys = Keys { ca, etcd_ca_pem, service_account_key_pem: key.to_owned() };
        self.hollow.open(id, cluster, keys).await
    }

    /// Puts the machine's API server behind the cluster's endpoint.
    async fn serve(
        &self,
        opened: &Arc<Cluster>,
        cluster: &ClusterConfiguration,
        config: &CloudConfig,
        name: &str,
        advertised: &str,
    ) -> Result<(), Error> {
        cluster.api_server.check(|path| config.files.contains_key(path))?;
        let address = self.address();
        let host = cluster.control_plane_endpoint.rsplit_once(':').map_or("", |(host, _)| host);
        let mut names: Vec<String> =
            [name, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
                .map(str::to_owned)
                .to_vec();
        names.push("kubernetes.default.svc.cluster.local".into());
        names.extend([address.as_str(), advertised, host.trim_matches(['[', ']'])].map(str::to_owned));
        names.extend(cluster.api_server.cert_sans.iter().cloned());
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        let serving =
            self.authority(config, cluster)?.server(&names, (self.hollow.clock)(), cluster.validity_hours())?;
        let etcd_serving = match self.etcd_authority(config, cluster)? {
            Some(authority) => {
                let joined = opened.etcd.join(&self.server.id, name, &address, &opened.alive()).await;
                joined.map_err(Error::Etcd)?;
                let names = [name, address.as_str(), "localhost", "127.0.0.1"].map(str::to_owned);
                Some(authority.server(&names, (self.hollow.clock)(), cluster.validity_hours())?)
            }
            None => None,
        };
        opened.join(&self.server.id, name, &address, &serving, etcd_serving.as_ref())?;
        self.hollow.balancer.listen(opened).await?;
        Ok(())
    }
}

/// Creates the node with its status, and the static pods of a control plane.
async fn register(client: &Client, host: &Host, registration: &NodeRegistration, now: &str) -> Result<(), Error> {
    let failed = |what: String| move |source: kube::Error| Error::Register { what, source: Box::new(source) };
    let (node, status) = objects::node(host, registration, now);
    let created = cluster::create(client, node).await;
    let created = created.map_err(|(what, source)| Error::Register { what, source: Box::new(source) })?;
    let nodes = Api::<Node>::all(client.clone());
    let patched = nodes.patch_status(&host.name, &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map_err(failed(format!("report the status of node {}", host.name)))?;
    if !host.control_plane {
        return Ok(());
    }
    let uid = created.metadata.uid.unwrap_or_default();
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    for pod in objects::static_pods(host, &uid) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        cluster::create(client, pod.clone())
            .await
            .map_err(|(what, source)| Error::Register { what, source: Box::new(source) })?;
        let status = Patch::Merge(objects::running(&pod, &host.address, now));
        let patched = pods.patch_status(&name, &PatchParams::default(), &status).await;
        patched.map_err(failed(format!("report the status of pod {name}")))?;
    }
    Ok(())
}
