//! A cluster in memory, an engine for it, and charts.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use apiserver::{Logs, Options as ServerOptions, Profile, Server, User};
use control::Clock;
use delivery::release::{Chance, Engine, Limits, Options, Outcome, Release, Request, Result};
use helm::{
    Prepared,
    chart::{Chart, Files, ignore},
    values::Table,
};
use http::Method;
use jiff::Timestamp;
use kube::{
    Client,
    client::Body,
    core::{
        Request as Raw,
        params::{GetParams, Patch, PatchParams, PostParams},
    },
};
use serde_json::{Value as Json, json};
use store::{Embedded, Limits as StoreLimits};
use tower::ServiceExt;

pub const NS: &str = "default";

pub struct World {
    pub server: Server,
    seconds: Arc<AtomicI64>,
    /// What engines wrote and was taken: method and path.
    pub writes: Arc<parking::Writes>,
}

/// A list that grows, in the order of calls.
pub mod parking {
    use std::sync::Mutex;

    #[derive(Default)]
    pub struct Writes(Mutex<Vec<String>>);

    impl Writes {
        pub fn push(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }

        pub fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }
}

/// What a kubelet of this cluster tells of a container.
struct Written;

impl Logs for Written {
    fn of(&self, pod: &Json, container: &str) -> String {
        format!("{container} of {}\n", pod["metadata"]["name"].as_str().unwrap())
    }
}

impl World {
    pub async fn new() -> Self {
        let logs = Some(Arc::new(Written) as Arc<dyn Logs>);
        let options = ServerOptions { profile: Profile::Workload, logs, ..ServerOptions::default() };
        let server = Server::start(Arc::new(Embedded::memory(StoreLimits::default())), options).await.unwrap();
        Self { server, seconds: Arc::new(AtomicI64::new(1_800_000_000)), writes: Arc::default() }
    }

    pub fn client(&self) -> Client {
        Client::new(self.server.service_as(User::master("test")), "default")
    }

    pub fn engine(&self) -> Engine {
        self.engine_until(None)
    }

    /// One whose process ends with its Nth write, which is made. After that no call gets through.
    pub fn engine_until(&self, last: Option<usize>) -> Engine {
        let router = self.server.service_as(User::master("test"));
        let (count, writes) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&self.writes));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (router, writes) = (router.clone(), Arc::clone(&writes));
            let is_write = request.method() != Method::GET;
            let at = if is_write { count.fetch_add(1, Ordering::SeqCst) + 1 } else { count.load(Ordering::SeqCst) + 1 };
            async move {
                if last.is_some_and(|last| at > last) {
                    return Err(io::Error::other("the process has ended"));
                }
                let told = format!("{} {}", request.method(), request.uri().path());
                let answer = router.oneshot(request).await.unwrap_or_else(|never| match never {});
                if is_write && answer.status().is_success() {
                    writes.push(told);
                }
                if is_write && last == Some(at) { Err(io::Error::other("the process has ended")) } else { Ok(answer) }
            }
        });
        let seconds = Arc::clone(&self.seconds);
        let clock = Clock::from_fn(move || Timestamp::from_second(seconds.load(Ordering::SeqCst)).unwrap());
        Engine::new(Client::new(service, "default"), clock, chance(), Limits::default())
    }

    pub fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    pub async fn get(&self, path: &str) -> Option<Json> {
        let (place, name) = path.rsplit_once('/').unwrap();
        let request = Raw::new(place).get(name, &GetParams::default()).unwrap();
        self.client().request(request).await.ok()
    }

    pub async fn config_map(&self, name: &str) -> Option<Json> {
        self.get(&format!("/api/v1/namespaces/{NS}/configmaps/{name}")).await
    }

    pub async fn create(&self, place: &str, object: &Json) -> Json {
        let request = Raw::new(place).create(&PostParams::default(), serde_json::to_vec(object).unwrap()).unwrap();
        self.client().request(request).await.unwrap()
    }

    pub async fn patch(&self, path: &str, patch: &Json) -> Json {
        let (place, name) = path.rsplit_once('/').unwrap();
        let request = Raw::new(place).patch(name, &PatchParams::default(), &Patch::Merge(patch)).unwrap();
        self.client().request(request).await.unwrap()
    }

    pub async fn json_patch(&self, path: &str, patch: &Json) -> Json {
        let (place, name) = path.rsplit_once('/').unwrap();
        let patch = Patch::Json::<()>(serde_json::from_value(patch.clone()).unwrap());
        let request = Raw::new(place).patch(name, &PatchParams::default(), &patch).unwrap();
        self.client().request(request).await.unwrap()
    }

    pub async fn patch_status(&self, path: &str, patch: &Json) -> Json {
        let (place, name) = path.rsplit_once('/').unwrap();
        let request =
            Raw::new(place).patch_subresource("status", name, &PatchParams::default(), &Patch::Merge(patch)).unwrap();
        self.client().request(request).await.unwrap()
    }

    pub async fn delete(&self, path: &str) {
        let (place, name) = path.rsplit_once('/').unwrap();
        let request = Raw::new(place).delete(name, &kube::api::DeleteParams::default()).unwrap();
        let _: Json = self.client().request(request).await.unwrap();
    }

    /// The names of all objects at a place.
    pub async fn names(&self, place: &str) -> Vec<String> {
        let request = Raw::new(place).list(&kube::api::ListParams::default()).unwrap();
        let list: Json = self.client().request(request).await.unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What a kubelet and the controllers of Kubernetes would do: jobs complete, deployments have their pods.
    pub async fn work(&self) {
        let jobs = format!("/apis/batch/v1/namespaces/{NS}/jobs");
        for name in self.names(&jobs).await {
            self.end_job(&name, "Complete").await;
        }
        let deployments = format!("/apis/apps/v1/namespaces/{NS}/deployments");
        for name in self.names(&deployments).await {
            let path = format!("{deployments}/{name}");
            let found = self.get(&path).await.unwrap();
            let replicas = &found["spec"]["replicas"];
            let status = json!({"status": {"observedGeneration": found["metadata"]["generation"], "replicas": replicas,
                "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}});
            self.patch_status(&path, &status).await;
        }
    }

    pub async fn end_job(&self, name: &str, how: &str) {
        let path = format!("/apis/batch/v1/namespaces/{NS}/jobs/{name}");
        let time = "2026-01-01T00:00:00Z";
        // As kube-apiserver wants it: a job that ends says so first.
        let first = if how == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        let conditions: Json = [first, how]
            .iter()
            .map(|kind| json!({"type": kind, "status": "True", "reason": "Ended", "lastTransitionTime": time}))
            .collect();
        let mut status = json!({"startTime": time, "conditions": conditions});
        if how == "Complete" {
            status["completionTime"] = json!(time);
            status["succeeded"] = json!(1);
        }
        self.patch_status(&path, &json!({"status": status})).await;
    }

    /// A node takes the pod, and its container ends.
    pub async fn end_pod(&self, name: &str, phase: &str) {
        let pod = format!("/api/v1/namespaces/{NS}/pods/{name}");
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
        self.create(&format!("{pod}/binding"), &binding).await;
        let ended = json!([{"name": "c", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]);
        self.patch_status(&pod, &json!({"status": {"phase": phase, "containerStatuses": ended}})).await;
    }

    /// The statuses of a release's revisions, the oldest first.
    pub async fn history(&self, name: &str) -> Vec<String> {
        let heads = self.engine().history(NS, Some(name)).await.unwrap();
        heads.into_iter().map(|head| format!("{} {}", head.version, head.status.text())).collect()
    }
}

pub fn clock() -> Clock {
    Clock::from_fn(|| Timestamp::from_second(1_800_000_000).unwrap())
}

/// One that comes out the same each time.
pub fn chance() -> Chance {
    Chance { random: Arc::new(|bytes| bytes.fill(7)), key: Arc::new(|_| Err("no keys here".to_owned())) }
}

pub fn chart(templates: &[(&str, &str)]) -> Chart {
    chart_with(templates, &[])
}

/// With other files beside the templates.
pub fn chart_with(templates: &[(&str, &str)], others: &[(&str, &str)]) -> Chart {
    let mut files = helm::chart::Files::new();
    let mut put = |name: String, text: &str| files.insert(name, Arc::from(text.as_bytes()));
    put("Chart.yaml".to_owned(), "apiVersion: v2\nname: shop\nversion: 1.2.3\nappVersion: '7'\n");
    for (name, text) in templates {
        put(format!("templates/{name}.yaml"), text);
    }
    for (name, text) in others {
        put((*name).to_owned(), text);
    }
    Chart::load(&files).unwrap()
}

/// One that is a folder of this machine.
pub fn chart_in(path: &Path) -> Chart {
    let (mut files, mut folders) = (Files::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let found = entry.unwrap().path();
            if found.is_dir() {
                folders.push(found);
            } else {
                let inner = found.strip_prefix(path).unwrap().to_string_lossy().into_owned();
                files.insert(inner, Arc::from(std::fs::read(&found).unwrap()));
            }
        }
    }
    Chart::load(&ignore::kept(&files).unwrap()).unwrap()
}

pub fn values(json: &Json) -> Table {
    json.as_object().unwrap().clone()
}

/// A ConfigMap named after the release, with one value.
pub const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\ndata: {color: '{{ .Values.color }}', revision: '{{ .Release.Revision }}'}\n";

pub const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: 'web:{{ .Values.color }}'}]}\n";

/// A Job that is a hook.
pub fn job(name: &str, events: &str, more: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {name}\n  annotations:\n    helm.sh/hook: {events}\n{more}spec:\n  template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: c}}]}}}}\n"
    )
}

/// A request for a release `shop` with one value.
pub struct Wish {
    pub chart: Arc<Prepared>,
    pub values: Table,
    pub options: Options,
    pub token: String,
}

impl Wish {
    pub fn new(chart: Chart, color: &str) -> Self {
        let chart = Arc::new(Prepared::new(chart));
        Self { chart, values: values(&json!({"color": color})), options: Options::default(), token: String::new() }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub fn request(&self) -> Request<'_> {
        let Self { chart, values, options, token } = self;
        Request { name: "shop", namespace: NS, chart, values, options, token }
    }

    pub async fn install(&self, world: &World) -> Result<Outcome> {
        world.engine().install(&self.request()).await
    }

    pub async fn upgrade(&self, world: &World) -> Result<Outcome> {
        world.engine().upgrade(&self.request()).await
    }
}

pub fn done(outcome: Result<Outcome>) -> Release {
    match outcome.unwrap() {
        Outcome::Done(release) => *release,
        other => panic!("not done: {other:?}"),
    }
}

/// What is waited for.
pub fn waiting(outcome: Result<Outcome>) -> String {
    match outcome.unwrap() {
        Outcome::Waiting { on, object, .. } => {
            format!("{}: {on}", object.map_or_else(String::new, |object| object.to_string()))
        }
        other => panic!("not waiting: {other:?}"),
    }
}

pub fn failed(outcome: Result<Outcome>) -> String {
    match outcome.unwrap() {
        Outcome::Failed { why, .. } => why,
        other => panic!("not failed: {other:?}"),
    }
}
