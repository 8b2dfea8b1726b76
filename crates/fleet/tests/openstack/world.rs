//! The plane that the tests work on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use api::{cluster::Cluster, condition, openstack_cluster::OpenStackCluster, openstack_machine::OpenStackMachine};
use apiserver::{Server as ApiServer, User};
use axum::body::Body;
use bytes::Bytes;
use control::{Connect, Life};
use fleet::{Options, openstack::Clouds};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::wait::await_condition,
};
use openstack::{
    Client as CloudClient, Cloud as Where, Local, Options as CloudOptions, Query, Transport, TransportError,
    compute::Server,
    load_balancer::{HealthMonitor, Listener, LoadBalancer, Member, Pool},
    network::{FloatingIp, Network, Port, Router, SecurityGroup, Subnet},
};
use sandbox::cloud::{Cloud, Options as CloudSettings};
use serde_json::{Value, json};
use store::{Embedded, Limits};

pub const LIMIT: Duration = Duration::from_secs(20);

/// No workload cluster answers: servers of the bare sandbox cloud run nothing.
struct Nowhere;

impl Connect for Nowhere {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, control::Result<Client>> {
        Box::pin(async { Err(control::Error::Retry("there is no workload cluster here".to_owned())) })
    }
}

/// The sandbox cloud, called in process; loses the answers of some requests that it has carried out.
struct InProcess {
    transport: Arc<dyn Transport>,
}

impl Clouds for InProcess {
    fn client(&self, cloud: Where) -> openstack::Result<CloudClient> {
        Ok(CloudClient::new(cloud, self.transport.clone(), CloudOptions::default()))
    }
}

struct Lossy {
    inner: Arc<dyn Transport>,
    /// Ends of paths whose first POST's answer is lost.
    lose: Mutex<Vec<&'static str>>,
    calls: Arc<AtomicUsize>,
    credentials: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Transport for Lossy {
    async fn send(&self, request: Request<Bytes>, limit: usize) -> Result<Response<Bytes>, TransportError> {
        self.calls.fetch_add(1, Relaxed);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if path.contains("/application_credentials") {
            self.credentials.fetch_add(1, Relaxed);
        }
        let answer = self.inner.send(request, limit).await?;
        let mut lose = self.lose.lock().unwrap();
        let hit = lose.iter().position(|end| path.ends_with(end));
        if let (Method::POST, Some(hit), true) = (method, hit, answer.status().is_success()) {
            lose.remove(hit);
            let source = "the answer was lost".into();
            return Err(TransportError::Read { authority: "sandbox".to_owned(), source });
        }
        Ok(answer)
    }
}

/// A cloud that takes as little time as a cloud may.
pub fn quick() -> CloudSettings {
    let quick = Duration::from_millis(50);
    CloudSettings {
        boot_latency: quick,
        delete_latency: quick,
        lb_latency: quick,
        volume_latency: quick,
        ..CloudSettings::default()
    }
}

/// A client of an API server with our kinds.
pub async fn management() -> Client {
    let crds = api::crd::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let options = apiserver::Options { crds, ..Default::default() };
    let server = ApiServer::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    Client::new(server.service_as(User::master("fleet")), "default")
}

pub struct World {
    pub client: Client,
    pub cloud: Cloud,
    /// Of the cloud's administrator, who sees everything.
    pub admin: CloudClient,
    fleet: Option<Life>,
    options: Options,
    /// Requests to the cloud by the controllers.
    pub calls: Arc<AtomicUsize>,
    /// Those of them that ask for an application credential.
    pub credentials: Arc<AtomicUsize>,
}

impl World {
    pub async fn start(settings: CloudSettings, lose: &[&'static str]) -> Self {
        let filter =
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "fleet=warn,control=warn".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let store = || Arc::new(Embedded::memory(Limits::default()));
        let client = management().await;
        let settings = CloudSettings { public_url: "http://cloud.test".to_owned(), ..settings };
        let cloud = Cloud::open(store(), settings).await.unwrap();
        let local = Local::shared::<Body, Body>(cloud.router());
        Self::over(cloud, local, client, lose)
    }

    /// Starts the controllers over a cloud that is reached in this way.
    pub fn over(cloud: Cloud, local: Arc<dyn Transport>, client: Client, lose: &[&'static str]) -> Self {
        let at = Where::from_yaml(cloud.clouds_yaml("c").as_bytes(), Some("c-admin"), None).unwrap();
        let admin = CloudClient::new(at, local.clone(), CloudOptions::default());
        let calls = Arc::<AtomicUsize>::default();
        let credentials = Arc::<AtomicUsize>::default();
        let lossy = Lossy {
            inner: local,
            lose: Mutex::new(lose.to_vec()),
            calls: calls.clone(),
            credentials: credentials.clone(),
        };
        let transport = Arc::new(lossy);
        let options = Options {
            client: client.clone(),
            clock: control::Clock::system(),
            connect: Arc::new(Nowhere),
            extensions: Arc::new(fleet::extension::Network),
            clouds: Arc::new(InProcess { transport }),
            concurrency: 4,
            random: Arc::new(rand::random),
            longest: control::Longest::default(),
            deletion_rules: Vec::new(),
            synced: Default::default(),
            watch_filter: None,
        };
        let fleet = Some(fleet::start(options.clone()));
        Self { client, cloud, admin, fleet, options, calls, credentials }
    }

    /// Starts the controllers anew for the objects alone whose label says so.
    pub async fn watch_only(&mut self, value: &str) {
        self.options.watch_filter = Some(value.to_owned());
        self.restart().await;
    }

    pub async fn restart(&mut self) {
        if let Some(fleet) = self.fleet.take() {
            fleet.shutdown().await;
        }
        self.fleet = Some(fleet::start(self.options.clone()));
    }

    pub async fn apply(&self, objects: &[Value]) {
        for object in objects {
            let text = |key: &str| object[key].as_str().unwrap().to_owned();
            let (group, version) = match text("apiVersion").split_once('/') {
                Some((group, version)) => (group.to_owned(), version.to_owned()),
                None => (String::new(), text("apiVersion")),
            };
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, &version, &text("kind")));
            let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), "default", &resource);
            let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
        }
    }

    pub fn objects(&self, change: impl FnOnce(&mut Value)) -> Vec<Value> {
        let infra = "infrastructure.cluster.x-k8s.io";
        let mut infra_cluster = json!({
            "apiVersion": format!("{infra}/v1beta2"), "kind": "OpenStackCluster", "metadata": {"name": "demo"},
            "spec": {
                "identityRef": {"name": "demo-cloud-config", "cloudName": "c"},
                "apiServer": {"managedLoadBalancer": {"enabled": true}},
                "externalNetwork": {"id": self.cloud.external_network()},
                "managedSecurityGroups": {"allowAllInClusterTraffic": true},
                "managedSubnets": [{"cidr": "10.6.0.0/24", "dnsNameservers": ["192.0.2.53"]}],
            },
        });
        change(&mut infra_cluster);
        let reference = |group: &str, kind: &str, name: &str| json!({"apiGroup": group, "kind": kind, "name": name});
        let registration = json!({"nodeRegistration": {"name": "{{ local_hostname }}"}});
        let external = json!({"extraArgs": [{"name": "cloud-provider", "value": "external"}]});
        let kubeadm = json!({"clusterConfiguration": {"controllerManager": external},
                             "initConfiguration": registration, "joinConfiguration": registration});
        vec![
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-cloud-config"},
                   "stringData": {"clouds.yaml": self.cloud.clouds_yaml("c"), "cacert": "\n"}}),
            infra_cluster,
            json!({"apiVersion": format!("{infra}/v1beta2"), "kind": "OpenStackMachineTemplate", "metadata": {"name": "demo-cp"},
                   "spec": {"template": {"spec": {"flavor": {"filter": {"name": "m1.medium"}},
                            "image": {"filter": {"name": "ubuntu-2404-kube"}}}}}}),
            json!({"apiVersion": "controlplane.cluster.x-k8s.io/v1beta2", "kind": "KubeadmControlPlane", "metadata": {"name": "demo-cp"},
                   "spec": {"replicas": 1, "version": "v1.34.0", "kubeadmConfigSpec": kubeadm,
                            "machineTemplate": {"spec": {"infrastructureRef": reference(infra, "OpenStackMachineTemplate", "demo-cp")}}}}),
            json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "demo"},
                   "spec": {"infrastructureRef": reference(infra, "OpenStackCluster", "demo"),
                            "controlPlaneRef": reference("controlplane.cluster.x-k8s.io", "KubeadmControlPlane", "demo-cp")}}),
        ]
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits for the one control plane machine to be as `is` wants it.
    pub async fn machine(&self, is: impl Fn(&OpenStackMachine) -> bool + Clone) -> OpenStackMachine {
        let api = self.api::<OpenStackMachine>();
        let params = kube::runtime::watcher::Config::default();
        let wanted = async {
            use futures::TryStreamExt;
            use kube::runtime::{WatchStreamExt, watcher};
            let mut stream = std::pin::pin!(watcher(api, params).default_backoff().applied_objects());
            while let Some(found) = stream.try_next().await.unwrap() {
                if is(&found) {
                    return found;
                }
            }
            panic!("the watch has ended")
        };
        match tokio::time::timeout(LIMIT, wanted).await {
            Ok(found) => found,
            Err(_) => {
                let all = self.api::<OpenStackMachine>().list(&Default::default()).await.unwrap();
                let states: Vec<_> =
                    all.items.iter().map(|m| m.status.clone().unwrap_or_default().conditions).collect();
                let makers =
                    self.api::<api::control_plane::KubeadmControlPlane>().list(&Default::default()).await.unwrap();
                let makers: Vec<_> =
                    makers.items.iter().map(|m| told(&m.status.clone().unwrap_or_default().conditions)).collect();
                let cluster = self.api::<Cluster>().get("demo").await.unwrap().status.unwrap_or_default();
                let states: Vec<_> = states.iter().map(|s| told(s)).collect();
                panic!(
                    "no machine is as wanted: {states:#?}\ncontrol plane: {makers:#?}\ncluster: {:#?}",
                    told(&cluster.conditions)
                );
            }
        }
    }

    pub async fn infra_cluster(&self, is: impl Fn(&OpenStackCluster) -> bool) -> OpenStackCluster {
        let wanted = await_condition(self.api(), "demo", |c: Option<&OpenStackCluster>| c.is_some_and(&is));
        match tokio::time::timeout(LIMIT, wanted).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => panic!("not as wanted: {:#?}", self.api::<OpenStackCluster>().get("demo").await.unwrap().status),
        }
    }

    pub async fn delete(&self) {
        let api = self.api::<Cluster>();
        let uid = api.get("demo").await.unwrap().uid().unwrap();
        api.delete("demo", &DeleteParams::background()).await.unwrap();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        if tokio::time::timeout(LIMIT, await_condition(api.clone(), "demo", gone)).await.is_err() {
            let infra = self.api::<OpenStackCluster>().get_opt("demo").await.unwrap();
            let cluster = api.get("demo").await.unwrap();
            panic!("still there: {:#?} {:#?}", cluster.status.map(|s| s.conditions), infra.map(|i| i.status));
        }
    }

    /// How many there are of everything in the cloud that a cluster makes.
    pub async fn inventory(&self) -> HashMap<&'static str, usize> {
        let all = Query::new().with("all_tenants", 1);
        let c = &self.admin;
        let external = self.cloud.external_network();
        let pools = c.list::<Pool>(&Query::new()).await.unwrap();
        let mut members = 0;
        for pool in &pools {
            members += c.list_in::<Member>(&pool.id, &Query::new()).await.unwrap().len();
        }
        let networks = c.list::<Network>(&Query::new()).await.unwrap();
        let subnets = c.list::<Subnet>(&Query::new()).await.unwrap();
        let groups = c.list::<SecurityGroup>(&Query::new()).await.unwrap();
        let servers = c.list::<Server>(&all).await.unwrap();
        let ports = c.list::<Port>(&Query::new()).await.unwrap();
        HashMap::from([
            ("networks", networks.iter().filter(|n| n.id != external).count()),
            ("subnets", subnets.iter().filter(|s| s.network_id != external).count()),
            ("routers", c.list::<Router>(&Query::new()).await.unwrap().len()),
            ("groups", groups.iter().filter(|g| g.name != "default").count()),
            ("balancers", c.list::<LoadBalancer>(&Query::new()).await.unwrap().len()),
            ("listeners", c.list::<Listener>(&Query::new()).await.unwrap().len()),
            ("pools", pools.len()),
            ("monitors", c.list::<HealthMonitor>(&Query::new()).await.unwrap().len()),
            ("members", members),
            ("servers", servers.len()),
            (
                "ports",
                ports.iter().filter(|p| p.device_owner.starts_with("compute:") || p.device_owner.is_empty()).count(),
            ),
            ("floating", c.list::<FloatingIp>(&Query::new()).await.unwrap().len()),
        ])
    }
}

pub fn is_ready(machine: &OpenStackMachine) -> bool {
    machine.status.as_ref().is_some_and(|s| condition::is_true(&s.conditions, "Ready"))
}

/// All conditions, a line each.
pub fn told(conditions: &[api::meta::Condition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{} {:?} {} {}", c.type_, c.status, c.reason, c.message)).collect()
}

pub fn message(conditions: &[api::meta::Condition], type_: &str) -> String {
    condition::get(conditions, type_).map(|c| format!("{}: {}", c.reason, c.message)).unwrap_or_default()
}

/// What a cluster with one control plane machine has.
pub fn one_of_each() -> HashMap<&'static str, usize> {
    let one = [
        "networks",
        "subnets",
        "routers",
        "balancers",
        "listeners",
        "pools",
        "monitors",
        "members",
        "servers",
        "ports",
        "floating",
    ];
    one.into_iter().map(|k| (k, 1)).chain([("groups", 2)]).collect()
}
