//! The controllers of the app platform, and what they share.

use std::{collections::BTreeMap, sync::Arc};

use api::app::{App, AppCatalogEntry, CATALOG_NAMESPACES, Catalog, Chart, ConfigKind};
use control::{CALL_LIMIT, Cache, Class, Error, Figures, Key, Life, Longest, Queue, Result, Runner, Writer};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use serde_json::json;
use transport::Transport;

use crate::{
    app::{
        MANAGER,
        chart::{is_of, owner},
        controller::Apps,
        interests::{Interest, Interests, referenced},
        news::News,
        values::{APP_VALUES, Contents},
    },
    catalog::{self, Catalogs},
    chart::{archives::Archives, controller::Charts, drift::Looks},
    repository::{Access, Repositories, grant},
    target::{Place, Surroundings, Targets},
};

/// Objects that hold values carry this label, so that only they are watched.
const WATCHING: &str = "app-operator.giantswarm.io/watching";

/// A catalog whose repository does not answer is waited for (`repository::TIMEOUT`): others are looked at meanwhile.
const CATALOGS_AT_ONCE: usize = 16;

/// What the controllers need from their surroundings.
#[derive(Clone)]
pub struct Options {
    pub with: Surroundings,
    /// How repositories are reached.
    pub transport: Arc<dyn Transport>,
    /// What restrictions of catalogs call the infrastructure.
    pub provider: String,
    /// Where what is counted of apps can be read.
    pub figures: Figures,
    /// Reconciles at once, for each controller.
    pub concurrency: usize,
    /// Is told how long reconciles take.
    pub longest: Longest,
}

/// Starts all controllers and returns at once; they begin to work when their caches are filled.
pub fn start(options: Options) -> Life {
    Life::begin(|life| launch(options, life))
}

/// What all of them share.
pub struct Context {
    pub caches: Caches,
    pub writer: Writer,
    pub values: Values,
    pub targets: Arc<Targets>,
    pub repositories: Arc<Repositories>,
    pub charts: Archives,
    pub looks: Looks,
    pub news: News,
    pub transport: Arc<dyn Transport>,
    pub provider: String,
}

impl Context {
    /// How a repository of a catalog is reached; of none, as anybody would.
    ///
    /// # Errors
    /// What of the catalog's Secret cannot be used.
    pub fn access(&self, catalog: Option<&Catalog>, url: &str) -> Result<Access, String> {
        let Some(catalog) = catalog else { return Ok(Access::new(self.transport.clone())) };
        let (name, namespace) = (catalog.name_any(), catalog.namespace().unwrap_or_default());
        let secret = self.caches.credentials.get(&Key::new(namespace, grant::secret_name(&name)));
        grant::access(self.transport.clone(), catalog, secret.as_deref(), url)
    }

    /// The App that a Chart there is of. Whoever owns a cluster writes there what they like, also whose Chart it is said to be; what is
    /// fetched for an App is fetched with its catalog's credentials.
    pub fn app_of(&self, place: &Place, chart: &Chart) -> Option<Arc<App>> {
        let app = self.caches.apps.get(&owner(chart)?)?;
        is_of(&app, place, chart).then_some(app)
    }

    /// The catalog that an app names.
    pub fn catalog(&self, app: &App) -> Option<Arc<Catalog>> {
        let own = app.spec.catalog_namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let places = own.map_or_else(|| CATALOG_NAMESPACES.to_vec(), |own| vec![own]);
        places.into_iter().find_map(|place| self.caches.catalogs.get(&Key::new(place, &app.spec.catalog)))
    }
}

pub struct Caches {
    pub apps: Arc<Cache<App>>,
    pub catalogs: Arc<Cache<Catalog>>,
    pub entries: Arc<Cache<AppCatalogEntry>>,
    /// Of catalogs.
    pub credentials: Arc<Cache<Secret>>,
}

async fn launch(options: Options, life: Life) {
    let client = options.with.client.clone();
    let writer = Writer::new(client.clone(), MANAGER, options.with.clock.clone());
    let all = watcher::Config::default;
    let caches = Caches {
        apps: Cache::start(client.clone(), all(), &writer),
        catalogs: Cache::start(client.clone(), all(), &writer),
        entries: Cache::start(client.clone(), all(), &writer),
        credentials: Cache::start(client.clone(), all().labels(grant::CATALOG_LABEL), &writer),
    };
    let values = Values::start(&client, &writer);
    let runner = || Runner::new(options.concurrency, &writer).measured(&options.longest);
    let (apps, charts) = (runner(), runner());
    let catalogs = Runner::new(options.concurrency.max(CATALOGS_AT_ONCE), &writer);
    let catalogs = catalogs.measured(&options.longest);
    let interests = Arc::new(Interests::default());
    let targets = Targets::new(options.with.clone(), interests.clone(), apps.queue(), charts.queue(), life.stop());
    feed(&caches, &values, &interests, &targets, &apps.queue());
    catalog::feed(&caches, &catalogs.queue());
    caches.apps.synced().await;
    caches.catalogs.synced().await;
    caches.entries.synced().await;
    caches.credentials.synced().await;
    values.synced().await;
    let context = Arc::new(Context {
        caches,
        writer,
        values,
        targets,
        repositories: Arc::default(),
        charts: Archives::default(),
        looks: Looks::default(),
        news: News::default(),
        transport: options.transport,
        provider: options.provider,
    });
    options.figures.follow(&context);
    life.spawn(apps, Apps(context.clone()));
    life.spawn(catalogs, Catalogs::new(&context));
    life.spawn(charts, Charts::new(context));
}

/// Which change wakes which app.
fn feed(caches: &Caches, values: &Values, interests: &Arc<Interests>, targets: &Arc<Targets>, apps: &Queue) {
    let (known, index, links, queue) = (Arc::downgrade(&caches.apps), interests.clone(), targets.clone(), apps.clone());
    caches.apps.on_change(move |app| {
        let key = Key::of(app.as_ref());
        let current = known.upgrade().and_then(|apps| apps.get(&key));
        if let Some(left) = index.update(&key, current.as_deref()) {
            links.forget(&left);
        }
        for waiting in index.of(&Interest::App(key.clone())) {
            queue.add(waiting);
        }
        queue.add(key);
    });
    let (index, queue) = (interests.clone(), apps.clone());
    caches.catalogs.on_change(move |catalog| {
        for app in index.of(&Interest::Catalog(catalog.metadata.name.clone().unwrap_or_default())) {
            queue.add(app);
        }
    });
    let (index, queue, catalogs) = (interests.clone(), apps.clone(), Arc::downgrade(&caches.catalogs));
    let wake = Arc::new(move |kind: ConfigKind, key: Key| {
        for app in index.of(&Interest::Values(kind, key.clone())) {
            queue.add(app);
        }
        let Some(catalogs) = catalogs.upgrade() else { return };
        for catalog in catalogs.keys().iter().filter_map(|name| catalogs.get(name)) {
            let is_its =
                catalog.spec.config.as_ref().is_some_and(|refs| referenced(refs).any(|one| one == (kind, key.clone())));
            let of_charts = catalog.annotations().get(APP_VALUES).is_some_and(|prefix| {
                kind == ConfigKind::ConfigMap
                    && catalog.namespace().as_ref() == Some(&key.namespace)
                    && key.name.starts_with(&format!("{prefix}-"))
            });
            if is_its || of_charts {
                let name = catalog.metadata.name.clone().unwrap_or_default();
                index.of(&Interest::Catalog(name)).into_iter().for_each(|app| queue.add(app));
            }
        }
    });
    let other = wake.clone();
    values.maps.on_change(move |map| wake(ConfigKind::ConfigMap, Key::of(map.as_ref())));
    values.secrets.on_change(move |secret| other(ConfigKind::Secret, Key::of(secret.as_ref())));
}

/// What values are in: objects that an app has named once are marked and watched from then on.
pub struct Values {
    client: Client,
    maps: Arc<Cache<ConfigMap>>,
    secrets: Arc<Cache<Secret>>,
}

impl Values {
    fn start(client: &Client, writer: &Writer) -> Self {
        let marked = || watcher::Config::default().labels(&format!("{WATCHING}=true"));
        Self {
            client: client.clone(),
            maps: Cache::start(client.clone(), marked(), writer),
            secrets: Cache::start(client.clone(), marked(), writer),
        }
    }

    async fn synced(&self) {
        self.maps.synced().await;
        self.secrets.synced().await;
    }

    /// What an object holds as text; none if it does not exist.
    pub async fn contents(&self, kind: ConfigKind, key: &Key) -> Result<Option<Contents>> {
        match kind {
            ConfigKind::ConfigMap => {
                if let Some(map) = self.maps.get(key) {
                    return Ok(Some(map.data.clone().unwrap_or_default()));
                }
                let found = self.find::<ConfigMap>(key).await?;
                Ok(found.map(|map| map.data.unwrap_or_default()))
            }
            ConfigKind::Secret => {
                if let Some(secret) = self.secrets.get(key) {
                    return Ok(Some(texts(&secret)));
                }
                Ok(self.find::<Secret>(key).await?.as_ref().map(texts))
            }
        }
    }

    /// Reads an object that is not watched yet, and marks it.
    async fn find<K>(&self, key: &Key) -> Result<Option<K>>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let objects = Api::<K>::namespaced(self.client.clone(), &key.namespace);
        let mark = json!({"metadata": {"labels": {WATCHING: "true"}}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match objects.patch(&key.name, &params, &Patch::Merge(&mark)).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Error::api("mark", format!("{} {key}", K::kind(&())), error)),
        }
    }
}

/// What is not text is none for whoever reads values.
fn texts(secret: &Secret) -> Contents {
    let data = secret.data.iter().flatten();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    data.map(|(key, value)| (key.clone(), text(&value.0))).collect::<BTreeMap<_, _>>()
}

/// Whether an error says that a cluster does not answer, rather than what it answered.
pub fn is_silence(error: &Error) -> bool {
    match error {
        Error::Api { source, .. } => !matches!(source.as_ref(), kube::Error::Api(_)),
        Error::Retry(text) => {
            error.class() == Class::Retry && text.contains(&format!("does not answer within {CALL_LIMIT:?}"))
        }
        _ => false,
    }
}
