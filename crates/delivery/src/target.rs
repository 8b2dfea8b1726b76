//! The clusters that apps go to: for each one connection and one watch of its Charts, for as long as an app names it.
//!
//! A cluster that is not reached costs nobody else anything: what would call it is told so at once, and woken when it is back.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use api::app::{App, CLUSTER_LABEL, Chart, ConfigKind, MANAGED_BY_LABEL, ORGANIZATION_LABEL, PLATFORM_NAMESPACE};
use control::{CALL_LIMIT, Clock, Connect, Error, Key, Queue, Result, bounded};
use futures::{StreamExt, pin_mut};
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
    runtime::watcher::{self, watcher},
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    app::interests::{Interest, Interests},
    release::{Chance, Engine, Limits},
};

/// Pauses between attempts to connect; the first ones are short because an API that starts is waited for.
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Calls of one release to its cluster at once.
const PARALLEL: usize = 4;
/// The keys of a kubeconfig in its Secret: of older platforms, and of Cluster API.
const KUBECONFIG_KEYS: [&str; 2] = ["kubeConfig", "value"];
/// The annotations of a Chart that name its App.
pub const APP_NAME: &str = "chart-operator.giantswarm.io/app-name";
pub const APP_NAMESPACE: &str = "chart-operator.giantswarm.io/app-namespace";
const CHARTS: &str = "charts.application.giantswarm.io";

/// Where an app goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The cluster that the app is written to.
    Here,
    /// The cluster of the kubeconfig in this Secret.
    Remote(Key),
}

impl Place {
    /// None where the app does not say.
    pub fn of(app: &App) -> Option<Self> {
        if app.spec.kube_config.in_cluster {
            return Some(Self::Here);
        }
        let secret = app.spec.kube_config.secret.as_ref()?;
        let is_whole = !secret.name.is_empty() && !secret.namespace.is_empty();
        is_whole.then(|| Self::Remote(Key::new(&secret.namespace, &secret.name)))
    }

    /// The key of a Chart there.
    pub fn chart(&self, name: &str) -> Key {
        let place = match self {
            Self::Here => String::new(),
            Self::Remote(secret) => secret.to_string(),
        };
        Key::new(place, name)
    }

    /// Where the Chart of such a key is.
    pub fn of_chart(key: &Key) -> Self {
        match key.namespace.split_once('/') {
            Some((namespace, name)) => Self::Remote(Key::new(namespace, name)),
            None => Self::Here,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("the management cluster"),
            Self::Remote(secret) => write!(f, "the cluster of kubeconfig {secret}"),
        }
    }
}

/// A client of the cluster at a place; `here` is one of the management cluster, with whose rights the kubeconfig is read.
///
/// # Errors
/// That there is no kubeconfig that can be read and used.
pub async fn dial(here: &Client, place: &Place, connect: &dyn Connect) -> Result<Client> {
    let Place::Remote(secret) = place else { return Ok(here.clone()) };
    let secrets = Api::<Secret>::namespaced(here.clone(), &secret.namespace);
    let found =
        secrets.get(&secret.name).await.map_err(|error| Error::api("get", format!("secret {secret}"), error))?;
    let data = found.data.unwrap_or_default();
    let text = KUBECONFIG_KEYS.iter().find_map(|key| data.get(*key));
    let missing = || Error::Retry(format!("secret {secret} has no kubeconfig under {}", KUBECONFIG_KEYS.join(" or ")));
    let text = std::str::from_utf8(&text.ok_or_else(missing)?.0)
        .map_err(|_| Error::Retry(format!("the kubeconfig in secret {secret} is not text")))?;
    connect.connect(text).await
}

/// A client with the rights of a service account of the management cluster (namespace, name), if one can be made.
pub type Act = Arc<dyn Fn(&str, &str) -> Option<Client> + Send + Sync>;

/// What connections are made with.
#[derive(Clone)]
pub struct Surroundings {
    /// Of the management cluster, with the controllers' identity.
    pub client: Client,
    pub act: Act,
    pub connect: Arc<dyn Connect>,
    pub clock: Clock,
    pub chance: Chance,
}

/// What was last written of an app's values: its hash and the version it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub hash: String,
    pub version: String,
}

/// One cluster's connection.
struct Link {
    stop: CancellationToken,
    /// Somebody got no answer: the connection is tried.
    doubt: Notify,
    state: RwLock<State>,
    /// By kind and name of the object.
    written: Mutex<HashMap<(ConfigKind, String), Written>>,
    engines: Mutex<HashMap<String, Arc<Engine>>>,
}

#[derive(Default)]
struct State {
    client: Option<Client>,
    /// Why there is none.
    why: Option<String>,
    charts: HashMap<String, Arc<Chart>>,
}

pub struct Targets {
    with: Surroundings,
    interests: Arc<Interests>,
    apps: Queue,
    charts: Queue,
    stop: CancellationToken,
    links: RwLock<HashMap<Place, Arc<Link>>>,
}

impl Targets {
    /// `apps` and `charts` are woken when a Chart changes or a cluster is reached again.
    pub fn new(
        with: Surroundings,
        interests: Arc<Interests>,
        apps: Queue,
        charts: Queue,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { with, interests, apps, charts, stop, links: RwLock::default() })
    }

    fn link(&self, place: &Place) -> Option<Arc<Link>> {
        self.links.read().get(place).cloned()
    }

    /// Connects and stays connected until [`Self::forget`]. `app` is one that goes there.
    pub fn follow(self: &Arc<Self>, place: &Place, app: &App) {
        if self.links.read().contains_key(place) {
            return;
        }
        let (doubt, state, written, engines) = Default::default();
        let link = Arc::new(Link { stop: self.stop.child_token(), doubt, state, written, engines });
        if self.links.write().insert(place.clone(), link.clone()).is_some() {
            return;
        }
        let labels = [CLUSTER_LABEL, ORGANIZATION_LABEL].into_iter().filter_map(|label| {
            let value = app.labels().get(label).filter(|value| !value.is_empty())?;
            Some((label.to_owned(), value.clone()))
        });
        let mut namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(PLATFORM_NAMESPACE.to_owned()),
                labels: Some(labels.collect()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespace.labels_mut().insert(MANAGED_BY_LABEL.to_owned(), crate::app::MANAGER.to_owned());
        let (targets, place) = (Arc::downgrade(self), place.clone());
        tokio::task::spawn(async move {
            let stop = link.stop.clone();
            let mut pause = RECONNECT_MIN;
            loop {
                let Some(targets) = targets.upgrade() else { return };
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = targets.watch(&place, &link, &namespace) => ended,
                };
                let why = ended.err().map_or_else(|| "the watch of its charts ended".to_owned(), |error| error.chain());
                debug!(%place, why, "is not reached");
                let was_up = {
                    let mut state = link.state.write();
                    state.why = Some(why);
                    state.client.take().is_some()
                };
                pause = if was_up { RECONNECT_MIN } else { RECONNECT_MAX.min(pause * 2) };
                drop(targets);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Ends the connection of a cluster that no app goes to any more.
    pub fn forget(&self, place: &Place) {
        let Some(link) = self.links.write().remove(place) else { return };
        link.stop.cancel();
        // Whoever remembers something of them forgets it.
        for name in link.state.read().charts.keys() {
            self.charts.add(place.chart(name));
        }
    }

    /// A client, if the cluster is reached and its charts are known.
    pub fn client(&self, place: &Place) -> Option<Client> {
        self.link(place)?.state.read().client.clone()
    }

    /// Why a cluster is not reached.
    pub fn why(&self, place: &Place) -> String {
        let why = self.link(place).and_then(|link| link.state.read().why.clone());
        why.unwrap_or_else(|| "it is being connected to".to_owned())
    }

    pub fn chart(&self, place: &Place, name: &str) -> Option<Arc<Chart>> {
        self.link(place)?.state.read().charts.get(name).cloned()
    }

    /// What the cluster answered to a write, which the watch may tell later.
    pub fn put(&self, place: &Place, chart: Chart) {
        if let Some(link) = self.link(place) {
            link.state.write().put(chart);
        }
    }

    pub fn written(&self, place: &Place, kind: ConfigKind, name: &str) -> Option<Written> {
        self.link(place)?.written.lock().get(&(kind, name.to_owned())).cloned()
    }

    pub fn note(&self, place: &Place, kind: ConfigKind, name: &str, written: Option<Written>) {
        let Some(link) = self.link(place) else { return };
        let (mut all, key) = (link.written.lock(), (kind, name.to_owned()));
        match written {
            Some(written) => drop(all.insert(key, written)),
            None => drop(all.remove(&key)),
        }
    }

    /// Values there are not as they were written for an app: they are written again.
    pub fn rewrite(&self, place: &Place, kind: ConfigKind, name: &str, app: Key) {
        self.note(place, kind, name, None);
        self.apps.add(app);
    }

    /// What carries releases out there, with the rights of a service account if one is named.
    pub fn engine(&self, place: &Place, account: Option<(&str, &str)>) -> Option<Arc<Engine>> {
        let link = self.link(place)?;
        let client = link.state.read().client.clone()?;
        let name = account.map(|(namespace, name)| format!("{namespace}/{name}")).unwrap_or_default();
        let mut engines = link.engines.lock();
        if let Some(engine) = engines.get(&name) {
            return Some(engine.clone());
        }
        let client = match account {
            Some((namespace, name)) => (self.with.act)(namespace, name)?,
            None => client,
        };
        let limits = Limits { call: CALL_LIMIT, parallel: PARALLEL };
        let engine = Arc::new(Engine::new(client, self.with.clock.clone(), self.with.chance.clone(), limits));
        engines.insert(name, engine.clone());
        Some(engine)
    }

    /// A call got no answer: the connection is tried anew, and nothing calls the cluster until it is there.
    pub fn doubt(&self, place: &Place, why: &str) {
        if let Some(link) = self.link(place) {
            let mut state = link.state.write();
            state.client = None;
            state.why = Some(why.to_owned());
            drop(state);
            link.doubt.notify_one();
        }
    }

    /// Connects and keeps the charts up to date until the connection breaks.
    async fn watch(&self, place: &Place, link: &Link, namespace: &Namespace) -> Result<()> {
        let client = dial(&self.with.client, place, &*self.with.connect).await?;
        let cluster = place.chart("");
        prepare(&client, &cluster, namespace, *place != Place::Here).await?;
        link.engines.lock().clear();
        let charts = Api::<Chart>::namespaced(client.clone(), PLATFORM_NAMESPACE);
        let events = watcher(charts, watcher::Config::default());
        pin_mut!(events);
        let mut fresh = HashMap::new();
        loop {
            let event = tokio::select! {
                () = link.doubt.notified() => return Err(Error::Retry("a call got no answer".to_owned())),
                event = events.next() => event,
            };
            let Some(event) = event else { return Ok(()) };
            match event.map_err(|error| Error::Retry(format!("watching charts: {error}")))? {
                watcher::Event::Init => fresh.clear(),
                watcher::Event::InitApply(chart) => drop(fresh.insert(chart.name_any(), Arc::new(stripped(chart)))),
                watcher::Event::InitDone => {
                    let mut state = link.state.write();
                    let before = std::mem::replace(&mut state.charts, std::mem::take(&mut fresh));
                    let now: Vec<Arc<Chart>> = state.charts.values().cloned().collect();
                    (state.client, state.why) = (Some(client.clone()), None);
                    drop(state);
                    // Whoever writes values looks at what is there.
                    link.written.lock().clear();
                    before.values().chain(&now).for_each(|chart| self.wake(place, chart));
                    for app in self.interests.of(&Interest::Place(place.clone())) {
                        self.apps.add(app);
                    }
                }
                watcher::Event::Apply(chart) => {
                    let chart = link.state.write().put(chart);
                    self.wake(place, &chart);
                }
                watcher::Event::Delete(chart) => {
                    link.state.write().charts.remove(&chart.name_any());
                    self.wake(place, &chart);
                }
            }
        }
    }

    fn wake(&self, place: &Place, chart: &Chart) {
        self.charts.add(place.chart(&chart.name_any()));
        let annotation = |name| chart.annotations().get(name).cloned();
        if let (Some(name), Some(namespace)) = (annotation(APP_NAME), annotation(APP_NAMESPACE)) {
            self.apps.add(Key::new(namespace, name));
        }
    }
}

impl State {
    /// The newer of the two.
    fn put(&mut self, chart: Chart) -> Arc<Chart> {
        let version =
            |chart: &Chart| chart.resource_version().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let chart = Arc::new(stripped(chart));
        let known = self.charts.entry(chart.name_any()).or_insert_with(|| chart.clone());
        if version(&chart) >= version(known) || known.uid() != chart.uid() {
            *known = chart;
        }
        known.clone()
    }
}

fn stripped(mut chart: Chart) -> Chart {
    chart.metadata.managed_fields = None;
    chart
}

/// The definition of Charts, as it is installed in clusters.
fn definition() -> Option<&'static CustomResourceDefinition> {
    static DEFINITION: OnceLock<Option<CustomResourceDefinition>> = OnceLock::new();
    let find = || api::crd::all().into_iter().find(|crd| crd.metadata.name.as_deref() == Some(CHARTS));
    DEFINITION.get_or_init(find).as_ref()
}

/// What a cluster needs before Charts can be written to it.
async fn prepare(client: &Client, cluster: &Key, namespace: &Namespace, defines: bool) -> Result<()> {
    let (params, name) = (PostParams::default(), PLATFORM_NAMESPACE);
    let namespaces = Api::<Namespace>::all(client.clone());
    let failed = |operation, what: &str| {
        let what = what.to_owned();
        move |source| Error::api(operation, what, source)
    };
    if bounded(cluster, namespaces.get_opt(name)).await?.map_err(failed("get", "namespace giantswarm"))?.is_none() {
        let made = bounded(cluster, namespaces.create(&params, namespace)).await?;
        made.map(drop).or_else(made_meanwhile).map_err(failed("create", "namespace giantswarm"))?;
    }
    if !defines {
        return Ok(());
    }
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    if bounded(cluster, definitions.get_metadata_opt(CHARTS)).await?.map_err(failed("get", CHARTS))?.is_none() {
        let definition = definition().ok_or_else(|| Error::bug(format!("there is no definition {CHARTS}")))?;
        let made = bounded(cluster, definitions.create(&params, definition)).await?;
        made.map(drop).or_else(made_meanwhile).map_err(failed("create", CHARTS))?;
    }
    Ok(())
}

fn made_meanwhile(error: kube::Error) -> Result<(), kube::Error> {
    match &error {
        kube::Error::Api(status) if status.code == 409 => Ok(()),
        _ => Err(error),
    }
}
