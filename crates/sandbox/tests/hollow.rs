//! Hollow machines in the sandbox cloud: what boots, what does not and why, and what a restart finds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Node, Pod, Secret},
};
use kube::{
    Api, Client as KubeClient, Config, ResourceExt,
    api::{ListParams, PostParams},
};
use openstack::{
    Client, Cloud as Where, Local, Options as ClientOptions, Query,
    compute::{Flavor, Server, ServerDraft, ServerNetwork},
    image::Image,
    network::{
        FloatingIp, FloatingIpDraft, GatewayDraft, Network, NetworkDraft, Port, PortDraft, Router, RouterDraft, Subnet,
        SubnetDraft,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use sandbox::{
    cloud::{Cloud, Options},
    hollow::{self, Hollow},
};
use serde_json::{Value, json};
use store::{At, Commit, Embedded, Guard, Limits, Op, Page, Range, Revision, SharedStore, Store, Watch};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A store that takes so many commits and then no more, as that of a process that is killed.
struct Cut {
    store: SharedStore,
    left: AtomicUsize,
    refused: Notify,
    /// Nobody waits for the answer any more: ends what no killed process would have to end.
    ended: CancellationToken,
}

#[async_trait::async_trait]
impl Store for Cut {
    async fn range(&self, range: Range, at: At, limit: usize) -> store::Result<Page> {
        self.store.range(range, at, limit).await
    }

    async fn commit(&self, guard: Guard, ops: Vec<Op>) -> store::Result<Commit> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            self.refused.notify_one();
            self.ended.cancelled().await;
            return Err(store::Error::Full { size_bytes: 0, limit_bytes: 0 });
        }
        self.store.commit(guard, ops).await
    }

    fn watch(&self, range: Range, after: Revision) -> store::Result<Watch> {
        self.store.watch(range, after)
    }

    async fn compact(&self, below: Revision) -> store::Result<()> {
        self.store.compact(below).await
    }

    async fn reach(&self, revision: Revision) -> store::Result<()> {
        self.store.reach(revision).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

/// No step of a test takes longer.
const LIMIT: Duration = Duration::from_secs(30);
const TOKEN: &str = "abcdef.0123456789abcdef";

/// The authorities and keys that a control plane machine is given.
struct Keys {
    ca: (String, String),
    etcd: (String, String),
    front: (String, String),
    service_account: (String, String),
}

fn authority() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

impl Keys {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let service_account = (key.public_key_pem(), key.serialize_pem());
        Self { ca: authority(), etcd: authority(), front: authority(), service_account }
    }

    fn files(&self) -> Vec<(String, String)> {
        let pairs = [
            ("ca.crt", "ca.key", &self.ca),
            ("etcd/ca.crt", "etcd/ca.key", &self.etcd),
            ("front-proxy-ca.crt", "front-proxy-ca.key", &self.front),
            ("sa.pub", "sa.key", &self.service_account),
        ];
        let at = |name: &str| format!("/etc/kubernetes/pki/{name}");
        pairs
            .into_iter()
            .flat_map(|(public, private, pair)| [(at(public), pair.0.clone()), (at(private), pair.1.clone())])
            .collect()
    }

    /// `sha256:<hex>` of the authority's public key, as kubeadm pins it.
    fn hash(&self) -> String {
        let key = KeyPair::from_pem(&self.ca.1).unwrap();
        let pem = key.public_key_pem();
        let (_, der) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der.contents);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }

    /// A client with an administrator's certificate.
    fn client(&self, endpoint: &str) -> KubeClient {
        let ca = Issuer::from_ca_cert_pem(&self.ca.0, KeyPair::from_pem(&self.ca.1).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &ca).unwrap().pem();
        let mut config = Config::new(format!("https://{endpoint}").parse().unwrap());
        let root = rustls_pki_types::CertificateDer::from_pem_slice(self.ca.0.as_bytes()).unwrap();
        config.root_cert = Some(vec![root.to_vec()]);
        config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate));
        config.auth_info.client_key_data = Some(STANDARD.encode(key.serialize_pem()).into());
        KubeClient::try_from(config).unwrap()
    }
}

/// A cloud-config with these files and one command.
fn cloud_config(files: &[(String, String)], command: &str) -> String {
    let files: Vec<Value> = files.iter().map(|(path, content)| json!({"path": path, "content": content})).collect();
    // JSON is YAML.
    format!("## template: jinja\n#cloud-config\n\n{}\n", json!({"write_files": files, "runcmd": [command]}))
}

const INIT: &str = "kubeadm init --config /run/kubeadm/kubeadm.yaml";
const JOIN: &str = "kubeadm join --config /run/kubeadm/join.yaml";

fn init(keys: &Keys, endpoint: &str) -> String {
    let cluster = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "clusterName": "demo",
        "kubernetesVersion": "v1.34.2", "controlPlaneEndpoint": endpoint,
    });
    let mut files = keys.files();
    files.push(("/run/kubeadm/kubeadm.yaml".into(), format!("---\n{cluster}\n")));
    cloud_config(&files, INIT)
}

/// What `kubeadm join` is told, to be changed by a test.
fn join(keys: &Keys, endpoint: &str) -> Value {
    json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {
            "token": TOKEN, "apiServerEndpoint": endpoint, "caCertHashes": [keys.hash()],
        }},
        "nodeRegistration": {"kubeletExtraArgs": [
            {"name": "provider-id", "value": "openstack:///'{{ ds.meta_data.instance_id }}'"},
        ]},
    })
}

fn joining(join: &Value, mut files: Vec<(String, String)>) -> String {
    files.push(("/run/kubeadm/join.yaml".into(), join.to_string()));
    cloud_config(&files, JOIN)
}

struct World {
    cloud: Cloud,
    client: Client,
    admin: Client,
    store: SharedStore,
    hollow: Arc<Hollow>,
    network: Network,
    keys: Keys,
    endpoint: String,
    /// The port that the endpoint's floating IP belongs to.
    port: Port,
}

impl World {
    /// A cloud with a network; `third` makes its floating IPs differ from those of the other tests.
    async fn new(third: u8) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let quick = Duration::from_millis(5);
        let options = Options {
            public_url: "http://cloud.test".to_owned(),
            floating_pool: format!("127.61.{third}.0/24").parse().unwrap(),
            boot_latency: quick,
            delete_latency: quick,
            ..Options::default()
        };
        let store = || -> SharedStore { Arc::new(Embedded::memory(Limits::default())) };
        let cloud = Cloud::open(store(), options).await.unwrap();
        let connect = |name: &str| {
            let at = Where::from_yaml(cloud.clouds_yaml("c").as_bytes(), Some(name), None).unwrap();
            Client::new(at, Local::shared::<Body, Body>(cloud.router()), ClientOptions::default())
        };
        let (client, admin, store) = (connect("c"), connect("c-admin"), store());
        let hollow = start(&cloud, &admin, &store);
        let network: Network = client.create(&NetworkDraft { name: "n".into(), ..Default::default() }).await.unwrap();
        let draft = SubnetDraft {
            name: "s".into(),
            network_id: network.id.clone(),
            cidr: "10.6.0.0/22".into(),
            ip_version: Some(4),
            ..Default::default()
        };
        let subnet: Subnet = client.create(&draft).await.unwrap();
        let gateway = GatewayDraft { network_id: cloud.external_network(), ..Default::default() };
        let draft = RouterDraft { name: "r".into(), external_gateway_info: Some(gateway), ..Default::default() };
        let router: Router = client.create(&draft).await.unwrap();
        client.add_router_interface(&router.id, &subnet.id).await.unwrap();
        let draft = PortDraft { network_id: network.id.clone(), ..Default::default() };
        let port: Port = client.create(&draft).await.unwrap();
        let draft = FloatingIpDraft {
            floating_network_id: cloud.external_network(),
            port_id: Some(port.id.clone()),
            ..Default::default()
        };
        let floating: FloatingIp = client.create(&draft).await.unwrap();
        let endpoint = format!("{}:6443", floating.floating_ip_address);
        Self { cloud, client, admin, store, hollow, network, keys: Keys::new(), endpoint, port }
    }

    async fn server(&self, name: &str, user_data: &str, port: Option<&Port>) -> String {
        let flavor = self.client.find::<Flavor>("m1.small", Query::new()).await.unwrap().unwrap();
        let image = self.client.find::<Image>("ubuntu-2404-kube", Query::new()).await.unwrap().unwrap();
        let network = match port {
            Some(port) => ServerNetwork { port: Some(port.id.clone()), uuid: None },
            None => ServerNetwork { port: None, uuid: Some(self.network.id.clone()) },
        };
        let draft = ServerDraft {
            name: name.into(),
            flavor_ref: flavor.id,
            image_ref: Some(image.id),
            networks: vec![network],
            user_data: Some(STANDARD.encode(user_data)),
            ..Default::default()
        };
        self.client.create::<Server>(&draft).await.unwrap().id
    }

    /// The console's text once it says one of these.
    async fn console(&self, server: &str, texts: &[&str]) -> String {
        let mut changed = self.cloud.changed();
        let mut last = String::new();
        let said = async {
            loop {
                changed.mark_unchanged();
                last = self.client.console_log(server, 100).await.unwrap();
                if texts.iter().any(|text| last.contains(text)) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        let said = tokio::time::timeout(LIMIT, said).await;
        assert!(said.is_ok(), "the console says none of {texts:?}: {last}");
        last
    }

    /// A control plane machine that is up, with a token for others; the server's id.
    async fn control_plane(&self) -> String {
        let id = self.server("cp-1", &init(&self.keys, &self.endpoint), Some(&self.port)).await;
        let text = self.console(&id, &["initialized successfully", "boot failed"]).await;
        assert!(text.contains("[init] Using Kubernetes version: v1.34.2"), "{text}");
        assert!(text.contains("Your Kubernetes control-plane has initialized successfully!"), "{text}");
        let (token_id, secret) = TOKEN.split_once('.').unwrap();
        let token: Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("bootstrap-token-{token_id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": token_id, "token-secret": secret, "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
                "expiration": "2999-01-01T00:00:00Z",
            },
        }))
        .unwrap();
        let secrets = Api::<Secret>::namespaced(self.api(), "kube-system");
        secrets.create(&PostParams::default(), &token).await.unwrap();
        id
    }

    async fn worker(&self, name: &str) -> String {
        let id = self.server(name, &joining(&join(&self.keys, &self.endpoint), Vec::new()), None).await;
        let text = self.console(&id, &["This node has joined", "boot failed"]).await;
        assert!(text.contains("This node has joined the cluster"), "{text}");
        id
    }

    fn api(&self) -> KubeClient {
        self.keys.client(&self.endpoint)
    }

    async fn nodes(&self) -> Vec<Node> {
        Api::<Node>::all(self.api()).list(&ListParams::default()).await.unwrap().items
    }

    async fn node_names(&self) -> Vec<String> {
        self.nodes().await.iter().map(ResourceExt::name_any).collect()
    }

    /// Name, UID and version of all that machines write.
    async fn written(&self) -> Vec<String> {
        let told = |meta: &dyn Fn() -> (String, Option<String>, Option<String>)| format!("{:?}", meta());
        let mut all = Vec::new();
        for node in self.nodes().await {
            all.push(told(&|| (node.name_any(), node.uid(), node.resource_version())));
        }
        for pod in Api::<Pod>::all(self.api()).list(&ListParams::default()).await.unwrap() {
            all.push(told(&|| (pod.name_any(), pod.uid(), pod.resource_version())));
        }
        let requests = Api::<CertificateSigningRequest>::all(self.api());
        for request in requests.list(&ListParams::default()).await.unwrap() {
            all.push(told(&|| (request.name_any(), request.uid(), request.resource_version())));
        }
        all
    }

    async fn restart(&mut self) {
        self.hollow.shutdown().await;
        self.hollow = start(&self.cloud, &self.admin, &self.store);
    }

    /// A restart after which so many more writes are taken.
    async fn cut_off_after(&mut self, writes: usize) -> Arc<Cut> {
        self.hollow.shutdown().await;
        let cut = Arc::new(Cut {
            store: self.store.clone(),
            left: AtomicUsize::new(writes),
            refused: Notify::new(),
            ended: CancellationToken::new(),
        });
        let store: SharedStore = cut.clone();
        self.hollow = start(&self.cloud, &self.admin, &store);
        cut
    }

    /// A restart that takes writes again, once none was taken or `done` is said without that: the machine's console says it
    /// in the end. True if it was said without.
    async fn restart_once_cut_off(&mut self, cut: &Cut, machine: &str, done: &str) -> bool {
        let done = [done];
        let whole = tokio::select! {
            () = cut.refused.notified() => false,
            _ = self.console(machine, &done) => true,
        };
        let end = async { cut.ended.cancel() };
        tokio::join!(biased; self.hollow.shutdown(), end);
        self.hollow = start(&self.cloud, &self.admin, &self.store);
        self.console(machine, &done).await;
        self.answers().await;
        whole
    }

    /// Until the cluster's API answers at its endpoint: a socket tells nobody when it begins to.
    async fn answers(&self) {
        let answers = async {
            while Api::<Node>::all(self.api()).list(&ListParams::default()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, answers).await.expect("the cluster does not answer");
    }

    /// Until the node's Ready condition has this status.
    async fn ready_is(&self, node: &str, status: &str) {
        let api = Api::<Node>::all(self.api());
        let is = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|found| found.type_ == "Ready" && found.status == status)
        };
        let reached = kube::runtime::wait::await_condition(api, node, is);
        let reached = tokio::time::timeout(LIMIT, reached).await;
        reached.unwrap_or_else(|_| panic!("node {node} is never {status}")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_given_a_kubeconfig_joins_with_it() {
    let world = World::new(7).await;
    world.control_plane().await;
    let kubeconfig = json!({"clusters": [{"name": "c", "cluster": {
        "server": format!("https://{}", world.endpoint), "certificate-authority-data": STANDARD.encode(&world.keys.ca.0),
    }}]});
    let path = "/etc/kubernetes/discovery.conf";
    let mut join = join(&world.keys, &world.endpoint);
    join["discovery"] = json!({"file": {"kubeConfigPath": path}, "tlsBootstrapToken": TOKEN});
    let user_data = joining(&join, vec![(path.to_owned(), kubeconfig.to_string())]);
    let id = world.server("w-1", &user_data, None).await;
    let text = world.console(&id, &["This node has joined", "boot failed"]).await;
    assert!(text.contains("This node has joined the cluster"), "{text}");
    assert_eq!(world.node_names().await, ["cp-1", "w-1"]);
    world.hollow.shutdown().await;
}

fn start(cloud: &Cloud, admin: &Client, store: &SharedStore) -> Arc<Hollow> {
    let console = cloud.clone();
    Hollow::start(hollow::Options {
        cloud: admin.clone(),
        region: "RegionOne".to_owned(),
        store: store.clone(),
        clock: Arc::new(Timestamp::now),
        console: Arc::new(move |server, text| console.set_console(server, text)),
        changed: Some(cloud.changed()),
        poll: Duration::from_secs(1),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_comes_up_and_a_worker_joins_it() {
    let world = World::new(1).await;
    let server = world.control_plane().await;
    let worker = world.worker("w-1").await;
    let nodes = world.nodes().await;
    assert_eq!(nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["cp-1", "w-1"]);
    let provider = nodes[1].spec.as_ref().unwrap().provider_id.clone();
    assert_eq!(provider, Some(format!("openstack:///{worker}")));
    assert!(nodes[0].labels().contains_key("node-role.kubernetes.io/control-plane"));
    let version = &nodes[0].status.as_ref().unwrap().node_info.as_ref().unwrap().kubelet_version;
    assert_eq!(version, "v1.34.2");
    let pods = Api::<Pod>::namespaced(world.api(), "kube-system").list(&ListParams::default()).await.unwrap();
    let pods: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
    assert!(pods.contains(&"kube-apiserver-cp-1".to_owned()) && pods.contains(&"etcd-cp-1".to_owned()), "{pods:?}");
    world.client.delete::<Server>(&worker).await.unwrap();
    world.ready_is("w-1", "Unknown").await;
    world.client.delete::<Server>(&server).await.unwrap();
    world.hollow.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_cannot_join_says_why_and_registers_nothing() {
    let world = World::new(2).await;
    world.control_plane().await;
    let (keys, endpoint) = (&world.keys, world.endpoint.as_str());
    let good = join(keys, endpoint);
    let with = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    let token = "/discovery/bootstrapToken/token";
    let mut control_plane = good.clone();
    control_plane["controlPlane"] = json!({});
    let stranger = Keys::new();
    let mixed = |change: fn(&mut Keys, &Keys)| {
        let mut files = Keys {
            ca: keys.ca.clone(),
            etcd: keys.etcd.clone(),
            front: keys.front.clone(),
            service_account: keys.service_account.clone(),
        };
        change(&mut files, &stranger);
        joining(&control_plane, files.files())
    };
    let cases = [
        (
            "unknown-id",
            joining(&with(token, json!("zzzzzz.0123456789abcdef")), vec![]),
            "could not find a JWS signature in the cluster-info ConfigMap for token ID \"zzzzzz\"",
        ),
        (
            "wrong-secret",
            joining(&with(token, json!("abcdef.ffffffffffffffff")), vec![]),
            "failed to verify JWS signature of received cluster info object, can't trust this API Server",
        ),
        ("no-token", joining(&with(token, json!("abcdef")), vec![]), "the bootstrap token is invalid"),
        (
            "wrong-hash",
            joining(&with("/discovery/bootstrapToken/caCertHashes", json!([stranger.hash()])), vec![]),
            "none of the public keys",
        ),
        (
            "wrong-key",
            mixed(|keys, other| keys.ca.1 = other.ca.1.clone()),
            "the certificate and the private key do not match",
        ),
        ("wrong-ca", mixed(|keys, other| keys.ca = other.ca.clone()), "is not the one that this machine was given"),
        (
            "wrong-etcd",
            mixed(|keys, other| keys.etcd = other.etcd.clone()),
            "etcd: x509: certificate signed by unknown",
        ),
        ("not-yaml", "#cloud-config\nwrite_files: [\n".to_owned(), "not a cloud-config document"),
        (
            "wrong-base",
            "#cloud-config\nwrite_files:\n- path: /a\n  encoding: b64\n  content: '%'\n".into(),
            "content is not base64",
        ),
        (
            "unknown-version",
            joining(&with("/apiVersion", json!("kubeadm.k8s.io/v1alpha1")), vec![]),
            "no kind \"JoinConfiguration\" is registered for version \"kubeadm.k8s.io/v1alpha1\"",
        ),
        (
            "no-kubeconfig",
            joining(&with("/discovery", json!({"file": {"kubeConfigPath": "/etc/discovery.conf"}})), vec![]),
            "discovery.file /etc/discovery.conf: it was not written",
        ),
        ("no-discovery", joining(&with("/discovery", json!({})), vec![]), "bootstrapToken or file must be set"),
        ("no-file", cloud_config(&[], JOIN), "/run/kubeadm/join.yaml: it was not written"),
        ("no-keys", joining(&control_plane, vec![]), "the certificate was not written"),
    ];
    let mut servers = Vec::new();
    for (name, user_data, reason) in &cases {
        servers.push((name, world.server(name, user_data, None).await, reason));
    }
    for (name, server, reason) in servers {
        let text = world.console(&server, &["boot failed: ", "has joined"]).await;
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("boot failed: ") && last.contains(reason), "{name}: {text}");
    }
    assert_eq!(world.node_names().await, ["cp-1"]);
    world.hollow.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_cannot_begin_says_why_and_serves_nothing() {
    let mut world = World::new(3).await;
    let endpoint = world.endpoint.clone();
    let good = init(&world.keys, &endpoint);
    let original = world.keys.ca.clone();
    world.keys.ca.1 = authority().1;
    let mismatch = init(&world.keys, &endpoint);
    world.keys.ca = original;
    let cases = [
        ("key", mismatch, "the certificate and the private key do not match"),
        ("version", good.replace("v1beta4", "v1beta1"), "is registered for version \"kubeadm.k8s.io/v1beta1\""),
        ("nowhere", init(&world.keys, "192.0.2.1:6443"), "is not an address of this machine"),
        ("no-endpoint", init(&world.keys, ""), "controlPlaneEndpoint is empty"),
    ];
    for (name, user_data, reason) in cases {
        let server = world.server(name, &user_data, None).await;
        let text = world.console(&server, &["boot failed: ", "initialized successfully"]).await;
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("boot failed: ") && last.contains(reason), "{name}: {text}");
    }
    let refused = tokio::net::TcpStream::connect(&endpoint).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    world.hollow.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_clusters_answer_and_nothing_is_done_twice() {
    let mut world = World::new(4).await;
    world.control_plane().await;
    world.worker("w-1").await;
    let broken = world.server("broken", &cloud_config(&[], JOIN), None).await;
    world.console(&broken, &["boot failed: "]).await;
    let before = world.written().await;
    world.restart().await;
    world.answers().await;
    // A machine that boots after the others: what they would have done twice is done by then.
    world.worker("w-2").await;
    let after = world.written().await;
    assert!(before.iter().all(|object| after.contains(object)), "{before:#?}\n{after:#?}");
    assert_eq!(world.node_names().await, ["cp-1", "w-1", "w-2"]);
    let told = world.client.console_log(&broken, 100).await.unwrap();
    assert_eq!(told.matches("boot failed: ").count(), 1, "a boot that failed is not tried again: {told}");
    world.hollow.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_went_while_nobody_looked_is_lost_and_a_cluster_without_machines_is_erased() {
    let mut world = World::new(5).await;
    let server = world.control_plane().await;
    let worker = world.worker("w-1").await;
    world.hollow.shutdown().await;
    world.client.delete::<Server>(&worker).await.unwrap();
    world.hollow = start(&world.cloud, &world.admin, &world.store);
    world.answers().await;
    world.ready_is("w-1", "Unknown").await;
    world.hollow.shutdown().await;
    let mut changes = world.cloud.changed();
    world.client.delete::<Server>(&server).await.unwrap();
    let gone = async {
        while !world.client.get::<Server>(&server).await.is_err_and(|error| error.is_not_found()) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    world.hollow = start(&world.cloud, &world.admin, &world.store);
    let mut left = world.store.watch(store::Range::prefix("hollow/"), world.store.revision()).unwrap();
    let empty = async {
        loop {
            let page = world.store.range(store::Range::prefix("hollow/"), store::At::Latest, 0).await.unwrap();
            if page.items.is_empty() {
                return;
            }
            let _ = futures::StreamExt::next(&mut left).await;
        }
    };
    tokio::time::timeout(LIMIT, empty).await.expect("the cluster's data stays");
    world.hollow.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_control_plane_machine_that_is_cut_off_at_any_write_initializes_after_a_restart() {
    for cuts in 0.. {
        let mut world = World::new(20 + cuts).await;
        let cut = world.cut_off_after(usize::from(cuts)).await;
        let id = world.server("cp-1", &init(&world.keys, &world.endpoint), Some(&world.port)).await;
        let whole = world.restart_once_cut_off(&cut, &id, "initialized successfully").await;
        assert_eq!(world.node_names().await, ["cp-1"], "cut off after {cuts} writes");
        world.hollow.shutdown().await;
        if whole {
            assert!(cuts > 20, "a cluster begins with more than {cuts} writes");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_machine_that_is_cut_off_at_any_write_joins_after_a_restart() {
    for cuts in 0.. {
        // One other member of etcd alone: the quorum needs the new one from the moment it is added.
        let mut world = World::new(100 + cuts).await;
        world.control_plane().await;
        let cut = world.cut_off_after(usize::from(cuts)).await;
        let mut join = join(&world.keys, &world.endpoint);
        join["controlPlane"] = json!({});
        let id = world.server("cp-2", &joining(&join, world.keys.files()), None).await;
        let whole = world.restart_once_cut_off(&cut, &id, "This node has joined the cluster").await;
        assert_eq!(world.node_names().await, ["cp-1", "cp-2"], "cut off after {cuts} writes");
        world.hollow.shutdown().await;
        if whole {
            assert!(cuts > 5, "a join writes more than {cuts} times");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_boot_in_a_cloud_whose_user_data_fills_more_than_one_answer() {
    let mut world = World::new(8).await;
    world.hollow.shutdown().await;
    // The most that Nova takes, 64 KiB in base64.
    let short = cloud_config(&[], JOIN) + "\n#";
    let user_data = short.clone() + &"#".repeat(48 * 1024 - 3 - short.len());
    let servers = ClientOptions::default().body_limit_bytes / (64 * 1024) + 1;
    let mut last = String::new();
    for number in 0..servers {
        last = world.server(&format!("s-{number}"), &user_data, None).await;
    }
    world.restart().await;
    let text = world.console(&last, &["boot failed: "]).await;
    assert!(text.contains("boot failed: "), "{text}");
    world.hollow.shutdown().await;
}
