//! A management cluster, workload clusters that can be cut off, a repository, and the controllers.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::app::{App, AppStatus};
use apiserver::{Options as ServerOptions, Profile, Server, User};
use bytes::Bytes;
use control::{Clock, Connect, Error, Life};
use delivery::{Options, release::Chance, target::Surroundings};
use futures::future::BoxFuture;
use helm::chart::Files;
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use store::{Embedded as Store, Limits};
use tokio::time::Instant;
use tower::ServiceExt;
use transport::{Local, Transport};

pub const ORGANIZATION: &str = "org-acme";
pub const REPOSITORY: &str = "https://charts.test/stable";

/// A workload cluster.
pub struct Cluster {
    server: Server,
    /// Calls to it are not answered.
    pub is_cut_off: AtomicBool,
    /// So long each call takes, in seconds.
    pub delay_s: AtomicUsize,
    /// Calls that were made to it, and those of them that write: trials do not.
    pub calls: AtomicUsize,
    pub writes: AtomicUsize,
    /// After so many writes no call is answered.
    pub writes_max: AtomicUsize,
}

impl Cluster {
    async fn new() -> Arc<Self> {
        let options = ServerOptions { profile: Profile::Workload, clock: Arc::new(now), ..ServerOptions::default() };
        let server = Server::start(Arc::new(Store::memory(Limits::default())), options).await.unwrap();
        let (is_cut_off, delay_s, calls, writes) = Default::default();
        Arc::new(Self { server, is_cut_off, delay_s, calls, writes, writes_max: AtomicUsize::new(usize::MAX) })
    }

    /// As the controllers reach it.
    fn reached(self: &Arc<Self>) -> Client {
        let (cluster, router) = (self.clone(), self.server.service_as(User::master("controllers")));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (cluster, router) = (cluster.clone(), router.clone());
            async move {
                cluster.calls.fetch_add(1, Ordering::SeqCst);
                let is_trial = request.uri().query().is_some_and(|query| query.contains("dryRun=All"));
                if request.method() != Method::GET && !is_trial {
                    cluster.writes.fetch_add(1, Ordering::SeqCst);
                }
                let is_over = cluster.writes.load(Ordering::SeqCst) > cluster.writes_max.load(Ordering::SeqCst);
                if is_over || cluster.is_cut_off.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_secs(cluster.delay_s.load(Ordering::SeqCst) as u64)).await;
                router.oneshot(request).await
            }
        });
        Client::new(service, "default")
    }

    pub fn client(&self) -> Client {
        Client::new(self.server.service_as(User::master("test")), "default")
    }

    pub async fn map(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
        let found = Api::<ConfigMap>::namespaced(self.client(), namespace).get_opt(name).await.unwrap();
        found.map(|map| map.data.unwrap_or_default())
    }

    /// The statuses of a release's revisions, the oldest first.
    pub async fn history(&self, namespace: &str, name: &str) -> Vec<String> {
        let engine = delivery::release::Engine::new(self.client(), clock(), chance(), Default::default());
        let heads = engine.history(namespace, Some(name)).await.unwrap();
        heads.into_iter().map(|head| format!("{} {}", head.version, head.status.text())).collect()
    }
}

/// Kubeconfigs here are names of clusters.
#[derive(Default)]
struct Network(Mutex<HashMap<String, Arc<Cluster>>>);

impl Connect for Network {
    fn connect<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, control::Result<Client>> {
        let found = self.0.lock().get(kubeconfig).cloned();
        Box::pin(async move {
            let cluster = found.ok_or_else(|| Error::Retry(format!("there is no cluster {kubeconfig}")))?;
            Ok(cluster.reached())
        })
    }
}

/// What is at which address.
#[derive(Default)]
pub struct Site(Mutex<HashMap<String, Bytes>>);

impl Site {
    pub fn put(&self, url: &str, body: impl Into<Bytes>) {
        self.0.lock().insert(url.to_owned(), body.into());
    }

    fn transport(self: &Arc<Self>) -> Arc<dyn Transport> {
        let site = self.clone();
        Local::shared::<axum::body::Body, axum::body::Body>(tower::service_fn(
            move |request: http::Request<axum::body::Body>| {
                let page = site.0.lock().get(&request.uri().to_string()).cloned();
                let hangs = request.uri().host() == Some("hangs.test");
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    let status = if page.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
                    let mut response = Response::new(axum::body::Body::from(page.unwrap_or_default()));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            },
        ))
    }

    /// Puts versions of a chart into the stable repository, which has nothing else then.
    pub fn publish(&self, charts: &[(&str, &str, Files)]) {
        let mut entries = BTreeMap::<&str, Vec<Json>>::new();
        for (name, version, files) in charts {
            let archive = packed(name, files);
            let file = format!("{name}-{version}.tgz");
            let digest = delivery::repository::digest::of(&archive);
            entries
                .entry(name)
                .or_default()
                .push(json!({"name": name, "version": version, "urls": [file], "digest": digest}));
            self.put(&format!("{REPOSITORY}/{file}"), archive);
        }
        self.put(&format!("{REPOSITORY}/index.yaml"), json!({"apiVersion": "v1", "entries": entries}).to_string());
    }
}

/// A registry's address, as a catalog has it.
pub const REGISTRY: &str = "oci://r.test/charts";

impl Site {
    /// Puts a chart into the registry under a tag, whatever it was of before.
    pub fn push(&self, name: &str, version: &str, files: &Files) {
        let archive = packed(name, files);
        let digest = delivery::repository::digest::of(&archive);
        let kind = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
        let layer = json!({"mediaType": kind, "digest": digest, "size": archive.len()});
        let at = format!("https://r.test/v2/charts/{name}");
        self.put(&format!("{at}/blobs/{digest}"), archive);
        let manifest = json!({"schemaVersion": 2, "config": {}, "layers": [layer]}).to_string();
        self.put(&format!("{at}/manifests/{version}"), manifest);
    }
}

/// An archive as `helm package` makes it.
pub fn packed(name: &str, files: &Files) -> Vec<u8> {
    let zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(zipped);
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{name}/{path}"), &data[..]).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// A chart that makes a ConfigMap of its values, named after the release.
pub fn chart(name: &str, version: &str) -> Files {
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\ndata: {color: '{{ .Values.color }}', size: '{{ .Values.size }}', version: '{{ .Chart.Version }}'}\n";
    chart_of(name, version, &[("map.yaml", template)])
}

pub fn chart_of(name: &str, version: &str, templates: &[(&str, &str)]) -> Files {
    let mut files = Files::new();
    let about = format!("apiVersion: v2\nname: {name}\nversion: {version}\nappVersion: '7'\n");
    files.insert("Chart.yaml".to_owned(), Arc::from(about.as_bytes()));
    files.insert("values.yaml".to_owned(), Arc::from(&b"color: none\nsize: 1\n"[..]));
    for (file, text) in templates {
        files.insert(format!("templates/{file}"), Arc::from(text.as_bytes()));
    }
    files
}

static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

/// Goes with tokio's clock.
fn now() -> Timestamp {
    let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
    Timestamp::from_second(1_800_000_000).unwrap() + elapsed
}

fn clock() -> Clock {
    Clock::from_fn(now)
}

fn chance() -> Chance {
    Chance { random: Arc::new(|bytes| bytes.fill(7)), key: Arc::new(|_| Err("no keys here".to_owned())) }
}

pub struct World {
    pub management: Server,
    network: Arc<Network>,
    pub site: Arc<Site>,
    delivery: Option<Life>,
    pub options: Options,
}

impl World {
    /// With the organization's namespace, the catalog `stable` with chart `hello` in it, and the controllers.
    pub async fn new() -> Self {
        let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let options = ServerOptions { clock: Arc::new(now), crds, ..ServerOptions::default() };
        let management = Server::start(Arc::new(Store::memory(Limits::default())), options).await.unwrap();
        let (network, site) = (Arc::<Network>::default(), Arc::<Site>::default());
        let acting = management.clone();
        let with = Surroundings {
            client: Client::new(management.service_as(User::master("controllers")), "default"),
            act: Arc::new(move |namespace, name| {
                let groups = [
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ];
                let user = User::new(format!("system:serviceaccount:{namespace}:{name}"), groups);
                Some(Client::new(acting.service_as(user), "default"))
            }),
            connect: network.clone(),
            clock: clock(),
            chance: chance(),
        };
        let options = Options {
            with,
            transport: site.transport(),
            provider: "openstack".to_owned(),
            figures: Default::default(),
            concurrency: 8,
            longest: Default::default(),
        };
        let mut world = Self { management, network, site, delivery: None, options };
        for name in [ORGANIZATION, "giantswarm"] {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            Api::<Namespace>::all(world.client()).create(&PostParams::default(), &namespace).await.unwrap();
        }
        world.site.publish(&[("hello", "1.0.0", chart("hello", "1.0.0")), ("hello", "1.1.0", chart("hello", "1.1.0"))]);
        world.catalog("stable", &[REPOSITORY]).await;
        world.start();
        world
    }

    pub fn start(&mut self) {
        self.delivery = Some(delivery::start(self.options.clone()));
    }

    /// Ends the controllers wherever they are, as `kill -9` would.
    pub async fn kill(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.abort().await;
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.management.service_as(User::master("test")), "default")
    }

    pub async fn catalog(&self, name: &str, repositories: &[&str]) {
        let repositories: Vec<Json> = repositories.iter().map(|url| json!({"type": "helm", "URL": url})).collect();
        self.create(&json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"title": name, "description": "Charts.", "logoURL": "", "repositories": repositories.clone(),
                "storage": repositories[0]},
        }))
        .await;
    }

    /// A workload cluster with its kubeconfig beside the apps.
    pub async fn cluster(&self, name: &str) -> Arc<Cluster> {
        let cluster = Cluster::new().await;
        self.network.0.lock().insert(name.to_owned(), cluster.clone());
        self.secret(&format!("{name}-kubeconfig"), &[("value", name)]).await;
        cluster
    }

    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        let secrets = Api::<Secret>::namespaced(self.client(), ORGANIZATION);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    /// Writes values into a ConfigMap of the organization.
    pub async fn map(&self, name: &str, text: &str) {
        let body =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"values": text}});
        let maps = Api::<ConfigMap>::namespaced(self.client(), ORGANIZATION);
        maps.patch(name, &PatchParams::apply("test"), &Patch::Apply(&body)).await.unwrap();
    }

    pub async fn create(&self, object: &Json) {
        let object: kube::api::DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let gvk = kube::core::GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let resource = match gvk.kind.as_str() {
            "Catalog" => kube::api::ApiResource::from_gvk_with_plural(&gvk, "catalogs"),
            _ => kube::api::ApiResource::from_gvk(&gvk),
        };
        let namespace = object.namespace();
        let api: Api<kube::api::DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), &namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        };
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    pub fn apps(&self) -> Api<App> {
        Api::namespaced(self.client(), ORGANIZATION)
    }

    /// An app for a workload cluster; `change` is merged over it.
    pub async fn app(&self, name: &str, cluster: &str, change: &Json) {
        let mut app = json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": name, "labels": {"giantswarm.io/cluster": cluster, "app-operator.giantswarm.io/version": "6.0.0"}},
            "spec": {
                "catalog": "stable", "name": "hello", "namespace": "web", "version": "1.0.0",
                "kubeConfig": {"inCluster": false, "secret": {"name": format!("{cluster}-kubeconfig"), "namespace": ORGANIZATION}},
            },
        });
        merge(&mut app, change);
        let app = serde_json::from_value(app).unwrap();
        self.apps().create(&PostParams::default(), &app).await.unwrap();
    }

    pub async fn patch(&self, name: &str, change: &Json) {
        self.apps().patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    pub async fn delete(&self, name: &str) {
        self.apps().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn status(&self, name: &str) -> AppStatus {
        self.apps().get(name).await.unwrap().status.unwrap_or_default()
    }

    /// Waits until an app's status is the one, and returns why it is.
    pub async fn until(&self, name: &str, status: &str) -> String {
        let mut last = AppStatus::default();
        for _ in 0..600 {
            last = self.status(name).await;
            if last.release.status == status {
                return last.release.reason.unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{name} is not {status}: {last:?}");
    }

    /// Waits until something is so.
    pub async fn eventually<F: Future<Output = bool>>(&self, what: &str, is_so: impl Fn() -> F) {
        for _ in 0..600 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("never: {what}");
    }
}

pub fn merge(into: &mut Json, change: &Json) {
    match (into, change) {
        (Json::Object(into), Json::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Json::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}
