//! Apps: looks for the chart, writes the values and the Chart to the target cluster, and tells what became of them.
//!
//! Source: giantswarm/app-operator. What differs: an app that is deleted stays until its release is gone, so that nothing is left behind.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    admission::app::{self as rules, Beside},
    app::{App, AppStatus, Chart, ChartConfig, ConfigKind, LEGACY_VERSION, ObjectRef, PLATFORM_NAMESPACE, Quoted},
    cluster::Cluster,
};
use control::{Error, EventType, Key, Outcome, Plan, Reconcile, Result, bounded};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    MANAGER,
    chart::{self, config_ref, owner},
    dependencies,
    source::{self, Source, Way},
    status::{Failure, of_chart},
    values::{self, Contents, Level, layers},
};
use crate::{
    controllers::Context,
    target::{Place, Written},
};

const FINALIZER: &str = "operatorkit.giantswarm.io/app-operator-app";
const PAUSED: &str = "app-operator.giantswarm.io/paused";
const CORDON_REASON: &str = "app-operator.giantswarm.io/cordon-reason";
pub const CORDON_UNTIL: &str = "app-operator.giantswarm.io/cordon-until";
const NOTES: &str = "giantswarm.io/notes";
const NOTE: &str = "DO NOT EDIT. Values managed by app-operator.";
const VALUES_KEY: &str = "values";
/// What does not tell when it changes is looked at again after so many seconds.
const LOOK_AGAIN_S: u64 = 10;
/// A repository that did not answer is asked again after so many seconds.
const REPOSITORY_PAUSE_S: u64 = 30;

pub struct Apps(pub Arc<Context>);

pub struct Seen {
    app: Arc<App>,
    place: Option<Place>,
    chart: Option<Arc<Chart>>,
    wish: Result<Wish, Failure>,
}

/// All that an app asks for, found and put together.
struct Wish {
    source: Source,
    /// Text of the values, by kind.
    values: BTreeMap<ConfigKind, String>,
    awaited: Vec<String>,
}

/// What is to be done about an app.
pub enum Decision {
    /// Somebody has asked that nothing be done.
    Paused,
    /// The status says why there is nothing to be done.
    Told(Failure, u64),
    Deliver,
    Remove,
}

impl Reconcile for Apps {
    const NAME: &'static str = "app";
    type Seen = Seen;
    type Plan = Decision;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Some(app) = self.0.caches.apps.get(key).filter(|app| is_ours(app)) else {
            self.0.news.forget(key);
            return Ok(None);
        };
        let place = Place::of(&app);
        if let Some(place) = &place {
            self.0.targets.follow(place, &app);
        }
        let chart = place.as_ref().and_then(|place| self.0.targets.chart(place, &chart::name(&app)));
        let is_idle = app.metadata.deletion_timestamp.is_some() || is_paused(&app);
        let wish = if is_idle { Err(Failure::new("", "")) } else { self.wish(&app, chart.as_deref()).await? };
        Ok(Some(Seen { app, place, chart, wish }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Decision {
        decide(&seen.app, seen.wish.as_ref().err(), now)
    }

    async fn act(&self, key: &Key, seen: &Seen, decision: Decision) -> Result<Outcome> {
        let mut news = Plan::nothing();
        for text in self.0.news.of(key, &seen.app) {
            news.event(&*seen.app, EventType::Normal, "AppUpdated", text);
        }
        self.0.writer.execute(news).await?;
        match decision {
            Decision::Paused => Ok(Outcome::Settled),
            Decision::Told(failure, again_s) => {
                self.tell(&seen.app, failure.told()).await?;
                Ok(Outcome::waiting(failure.reason, again_s))
            }
            Decision::Deliver => match self.with_user_values(&seen.app).await? {
                // It is looked at anew with them.
                Some(after) => {
                    let mut plan = Plan::nothing();
                    plan.update(&*seen.app, &after);
                    self.0.writer.execute(plan).await
                }
                None => self.deliver(key, seen).await,
            },
            Decision::Remove => self.remove(seen).await,
        }
    }
}

/// Whether an app is for one of the management cluster's or a workload cluster's controllers, which are all here, of whatever version it
/// names: apps of older platforms name no cluster.
fn is_ours(app: &App) -> bool {
    !matches!(app.version_label(), "" | LEGACY_VERSION) || !app.cluster().is_empty()
}

fn is_paused(app: &App) -> bool {
    app.annotations().get(PAUSED).is_some_and(|paused| paused == "true")
}

/// Whether nobody is to do anything with what an app has brought: it is paused, cordoned or on its way out.
pub fn is_left_alone(app: &App, now: Timestamp) -> bool {
    let until = app.annotations().get(CORDON_UNTIL).filter(|until| !until.is_empty());
    let is_cordoned = until.is_some_and(|until| until.parse::<Timestamp>().map_or(true, |until| now < until));
    is_paused(app) || is_cordoned || app.metadata.deletion_timestamp.is_some()
}

fn decide(app: &App, failure: Option<&Failure>, now: Timestamp) -> Decision {
    if is_paused(app) {
        return Decision::Paused;
    }
    if app.metadata.deletion_timestamp.is_some() {
        return Decision::Remove;
    }
    if let Some(until) = app.annotations().get(CORDON_UNTIL).filter(|until| !until.is_empty()) {
        let reason = app.annotations().get(CORDON_REASON).cloned().unwrap_or_default();
        match until.parse::<Timestamp>() {
            Ok(until) if now < until => {
                let left_s = u64::try_from(until.duration_since(now).as_secs()).unwrap_or_default();
                return Decision::Told(Failure::new("cordoned", reason), left_s + 1);
            }
            Ok(_) => {}
            Err(error) => return Decision::Told(Failure::new("cordon-failed", error.to_string()), REPOSITORY_PAUSE_S),
        }
    }
    match failure {
        Some(failure) => {
            let is_elsewhere = matches!(failure.status, "index-not-found" | "unknown-error" | "catalog-empty");
            let again_s = if is_elsewhere { REPOSITORY_PAUSE_S } else { LOOK_AGAIN_S };
            Decision::Told(failure.clone(), again_s)
        }
        None => Decision::Deliver,
    }
}

impl Apps {
    /// Finds what the app asks for; the inner error is for its status.
    async fn wish(&self, app: &App, chart: Option<&Chart>) -> Result<Result<Wish, Failure>> {
        let catalog = self.0.catalog(app);
        let unfit = |why: String| Ok(Err(Failure::new("resource-not-found", why)));
        if let Err(refusal) = rules::validate(app, None, &self.beside(app, catalog.is_some())) {
            return unfit(refusal.to_string());
        }
        let Some(catalog) = catalog else {
            return unfit(format!("validation error: catalog {} not found", Quoted(&app.spec.catalog)));
        };
        let mut texts = BTreeMap::new();
        for (kind, status) in
            [(ConfigKind::ConfigMap, "configmap-merge-failed"), (ConfigKind::Secret, "secret-merge-failed")]
        {
            let layers = layers(app, &catalog, kind);
            let mut contents = BTreeMap::new();
            for layer in &layers {
                let key = Key::new(&layer.object.namespace, &layer.object.name);
                if let Some(found) = self.0.values.contents(kind, &key).await? {
                    contents.insert(key, found);
                }
            }
            let find = |object: &ObjectRef| -> Option<Contents> {
                contents.get(&Key::new(&object.namespace, &object.name)).cloned()
            };
            match values::merged(&layers, kind, find) {
                Ok(Some(table)) => drop(texts.insert(kind, values::text(&table)?)),
                Ok(None) => {}
                // What the App itself names is there, or the App is not right.
                Err(error @ values::Error::NotFound { level: Level::App | Level::User, .. }) => {
                    return unfit(error.to_string());
                }
                Err(error) => return Ok(Err(Failure::new(status, error.to_string()))),
            }
        }
        let access = |url: &str| self.0.access(Some(&catalog), url);
        let way = Way { repositories: &self.0.repositories, access: &access };
        let found = source::find(way, app, &catalog, chart).await;
        let namespace = app.namespace().unwrap_or_default();
        let now = self.0.writer.clock().now();
        // Once nothing is waited for any more, nothing is asked.
        let releases = match dependencies::names_releases(app) && chart::may_wait(chart, now) {
            true => dependencies::releases(self.0.writer.client(), &namespace).await?,
            false => BTreeMap::new(),
        };
        let find = |name: &str| self.0.caches.apps.get(&Key::new(&namespace, name));
        let awaited = dependencies::missing(app, &releases, find);
        Ok(found.map(|source| Wish { source, values: texts, awaited }))
    }

    fn beside(&self, app: &App, catalog: bool) -> Beside {
        let entry = self.0.caches.entries.get(&Key::new("default", app.entry())).map(|entry| (*entry).clone());
        let neighbours = if rules::compares(app, entry.as_ref()) {
            let here = self.0.caches.apps.in_namespace(&app.namespace().unwrap_or_default());
            here.iter().map(|app| (**app).clone()).collect()
        } else {
            Vec::new()
        };
        // That its name is its own was judged when it was written.
        Beside { catalog, entry, neighbours, namesakes: Vec::new(), provider: self.0.provider.clone() }
    }

    /// As published, `<app>-user-values` and `<app>-user-secrets` beside the Chart become the user's values of an app that names none. Here
    /// only of the platform's own apps in the management cluster: a tenant could name an app so as to be given what is the platform's.
    async fn with_user_values(&self, app: &App) -> Result<Option<App>> {
        if !app.spec.kube_config.in_cluster || app.namespace().as_deref() != Some(PLATFORM_NAMESPACE) {
            return Ok(None);
        }
        let (client, mut refs) = (self.0.writer.client(), app.spec.user_config.clone().unwrap_or_default());
        let there = |name: String| ObjectRef { name, namespace: PLATFORM_NAMESPACE.to_owned() };
        let is_free = |own: &Option<ObjectRef>| own.as_ref().is_none_or(|own| own.name.is_empty());
        let failed = |error| Error::api("get", format!("the user's values of app {}", app.name_any()), error);
        let before = refs.clone();
        if is_free(&refs.config_map) {
            let name = format!("{}-user-values", app.name_any());
            let maps = Api::<ConfigMap>::namespaced(client.clone(), PLATFORM_NAMESPACE);
            let found = maps.get_metadata_opt(&name).await.map_err(failed)?;
            refs.config_map = found.map(|_| there(name)).or(refs.config_map);
        }
        if is_free(&refs.secret) {
            let name = format!("{}-user-secrets", app.name_any());
            let secrets = Api::<Secret>::namespaced(client.clone(), PLATFORM_NAMESPACE);
            let found = secrets.get_metadata_opt(&name).await.map_err(failed)?;
            refs.secret = found.map(|_| there(name)).or(refs.secret);
        }
        if refs == before {
            return Ok(None);
        }
        let mut after = app.clone();
        after.spec.user_config = Some(refs);
        Ok(Some(after))
    }

    async fn deliver(&self, key: &Key, seen: &Seen) -> Result<Outcome> {
        let (Ok(wish), Some(place)) = (&seen.wish, &seen.place) else { return Ok(Outcome::Settled) };
        let targets = &self.0.targets;
        let Some(client) = targets.client(place) else {
            if let Place::Remote(secret) = place
                && !self.has_secret(secret).await?
            {
                let (name, namespace) = (Quoted(&secret.name), Quoted(&secret.namespace));
                let why =
                    format!("kube config not found error: kubeconfig secret {name} in namespace {namespace} not found");
                self.tell(&seen.app, Failure::new("resource-not-found", why).told()).await?;
            }
            return Ok(Outcome::waiting(format!("{place} is not reached: {}", targets.why(place)), 60));
        };
        self.hold(&seen.app).await?;
        let changed = match self.write(key, seen, wish, place, &client).await {
            Ok(changed) => changed,
            Err(error) => return Err(self.doubted(place, error)),
        };
        if changed {
            let version = &wish.source.version;
            let mut plan = Plan::nothing();
            plan.event(
                &*seen.app,
                EventType::Normal,
                "AppUpdated",
                format!("chart and values of version {version} were written"),
            );
            self.0.writer.execute(plan).await?;
        }
        let chart = targets.chart(place, &chart::name(&seen.app));
        if let Some(status) = chart.as_deref().and_then(of_chart) {
            self.tell(&seen.app, status).await?;
        }
        if wish.awaited.is_empty() {
            return Ok(Outcome::Settled);
        }
        Ok(Outcome::waiting(format!("apps {} to be installed", wish.awaited.join(", ")), 60))
    }

    /// Writes values and Chart where they differ; whether they did.
    async fn write(&self, key: &Key, seen: &Seen, wish: &Wish, place: &Place, client: &Client) -> Result<bool> {
        let (app, targets) = (&*seen.app, &self.0.targets);
        if let Some(chart) = &seen.chart
            && chart.metadata.deletion_timestamp.is_some()
        {
            return Err(Error::Retry(format!("chart {} of an earlier app is still being removed", chart.name_any())));
        }
        let other = seen.chart.as_deref().and_then(owner).filter(|owner| owner != key);
        if let Some(owner) = other.filter(|owner| self.0.caches.apps.get(owner).is_some()) {
            let reason = format!("chart {} in {place} is that of app {owner}: choose another name", chart::name(app));
            self.tell(app, Failure::new("already-exists", reason.clone()).told()).await?;
            return Err(Error::blocked("AlreadyExists", reason));
        }
        let mut config = ChartConfig::default();
        for kind in [ConfigKind::ConfigMap, ConfigKind::Secret] {
            let name = values_name(app, kind);
            let text = wish.values.get(&kind).map(String::as_str);
            let slot = match kind {
                ConfigKind::ConfigMap => &mut config.config_map,
                ConfigKind::Secret => &mut config.secret,
            };
            *slot = self
                .write_values(key, place, client, seen.chart.as_deref(), (kind, text))
                .await?
                .map(|version| config_ref(&name, &version));
        }
        let now = self.0.writer.clock().now();
        let current = seen.chart.as_deref();
        let wanted = chart::desired(app, &wish.source, config, &wish.awaited, current, now);
        if current == Some(&wanted) {
            return Ok(false);
        }
        let (charts, params, name) = (charts(client), PostParams::default(), wanted.name_any());
        let written = match current {
            Some(_) => bounded(key, charts.replace(&name, &params, &wanted)).await?,
            None => bounded(key, charts.create(&params, &wanted)).await?,
        };
        targets.put(place, written.map_err(|error| Error::api("write", format!("chart {name}"), error))?);
        Ok(true)
    }

    /// Writes the values of one kind, and returns their version; none where there are none.
    async fn write_values(
        &self,
        key: &Key,
        place: &Place,
        client: &Client,
        chart: Option<&Chart>,
        (kind, text): (ConfigKind, Option<&str>),
    ) -> Result<Option<String>> {
        let (targets, name) =
            (&self.0.targets, format!("{}{}", key.name, SUFFIXES[usize::from(kind == ConfigKind::Secret)]));
        let name = name.as_str();
        let known = targets.written(place, kind, name);
        let Some(text) = text else {
            let is_named = chart.is_some_and(|chart| names_values(chart, kind));
            if known.is_some() || is_named {
                delete_values(key, client, kind, name).await?;
                targets.note(place, kind, name, None);
            }
            return Ok(None);
        };
        let hash: String = Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        if let Some(known) = known.filter(|known| known.hash == hash) {
            return Ok(Some(known.version));
        }
        let metadata = json!({
            "name": name, "namespace": PLATFORM_NAMESPACE,
            "annotations": {NOTES: NOTE}, "labels": {api::app::MANAGED_BY_LABEL: MANAGER},
        });
        let params = PatchParams::apply(MANAGER).force();
        let failed = |error| Error::api("apply", format!("values {name}"), error);
        let version = match kind {
            ConfigKind::ConfigMap => {
                let body =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {VALUES_KEY: text}});
                let maps = Api::<ConfigMap>::namespaced(client.clone(), PLATFORM_NAMESPACE);
                bounded(key, maps.patch_metadata(name, &params, &Patch::Apply(&body)))
                    .await?
                    .map_err(failed)?
                    .resource_version()
            }
            ConfigKind::Secret => {
                use base64::{Engine, engine::general_purpose::STANDARD};
                let data = json!({VALUES_KEY: STANDARD.encode(text)});
                let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
                let secrets = Api::<Secret>::namespaced(client.clone(), PLATFORM_NAMESPACE);
                bounded(key, secrets.patch_metadata(name, &params, &Patch::Apply(&body)))
                    .await?
                    .map_err(failed)?
                    .resource_version()
            }
        };
        let version = version.unwrap_or_default();
        targets.note(place, kind, name, Some(Written { hash, version: version.clone() }));
        Ok(Some(version))
    }

    /// Takes away what was delivered, and lets the app go.
    async fn remove(&self, seen: &Seen) -> Result<Outcome> {
        if !seen.app.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(Outcome::Settled);
        }
        if let Some(place) = &seen.place
            && !self.is_lost(seen, place).await?
        {
            let Some(client) = self.0.targets.client(place) else {
                let why = self.0.targets.why(place);
                return Ok(Outcome::waiting(
                    format!("{place} is not reached, where the app is to be removed: {why}"),
                    60,
                ));
            };
            if let Some(waiting) = self.clear(seen, place, &client).await.map_err(|error| self.doubted(place, error))? {
                return Ok(waiting);
            }
        }
        let mut after = (*seen.app).clone();
        after.finalizers_mut().retain(|name| name != FINALIZER);
        let mut plan = Plan::nothing();
        plan.update(&*seen.app, &after);
        self.0.writer.execute(plan).await
    }

    /// Whether the cluster goes or is gone, so that nothing in it needs to be removed.
    async fn is_lost(&self, seen: &Seen, place: &Place) -> Result<bool> {
        let Place::Remote(secret) = place else { return Ok(false) };
        if !self.has_secret(secret).await? {
            return Ok(true);
        }
        let client = self.0.writer.client();
        let name = seen.app.cluster();
        if !name.is_empty() {
            let clusters = Api::<Cluster>::namespaced(client.clone(), &secret.namespace);
            let cluster = clusters.get_metadata_opt(name).await;
            let cluster = cluster.map_err(|error| Error::api("get", format!("cluster {name}"), error))?;
            if cluster.is_some_and(|cluster| cluster.metadata.deletion_timestamp.is_some()) {
                return Ok(true);
            }
        }
        let own = seen.app.namespace().unwrap_or_default();
        let namespace = Api::<Namespace>::all(client.clone()).get_opt(&own).await;
        let namespace = namespace.map_err(|error| Error::api("get", format!("namespace {own}"), error))?;
        Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
    }

    async fn has_secret(&self, secret: &Key) -> Result<bool> {
        let secrets = Api::<Secret>::namespaced(self.0.writer.client().clone(), &secret.namespace);
        let found = secrets.get_metadata_opt(&secret.name).await;
        Ok(found.map_err(|error| Error::api("get", format!("secret {secret}"), error))?.is_some())
    }

    /// Removes the Chart and then the values; what is still waited for.
    async fn clear(&self, seen: &Seen, place: &Place, client: &Client) -> Result<Option<Outcome>> {
        let key = Key::of(&*seen.app);
        if let Some(chart) = seen.chart.as_deref().filter(|chart| owner(chart).is_some_and(|owner| owner == key)) {
            let name = chart.name_any();
            if chart.metadata.deletion_timestamp.is_none() {
                let preconditions = Some(Preconditions { uid: chart.uid(), resource_version: None });
                let params = DeleteParams { preconditions, ..DeleteParams::background() };
                match bounded(&key, charts(client).delete(&name, &params)).await? {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(Error::api("delete", format!("chart {name}"), error)),
                }
            }
            if let Some(status) = of_chart(chart) {
                self.tell(&seen.app, status).await?;
            }
            return Ok(Some(Outcome::waiting(format!("release {name} to be removed from {place}"), 60)));
        }
        for kind in [ConfigKind::ConfigMap, ConfigKind::Secret] {
            let name = values_name(&seen.app, kind);
            delete_values(&key, client, kind, &name).await?;
            self.0.targets.note(place, kind, &name, None);
        }
        Ok(None)
    }

    /// The app stays until what it brought is gone.
    async fn hold(&self, app: &App) -> Result<()> {
        if app.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        let mut after = app.clone();
        after.finalizers_mut().push(FINALIZER.to_owned());
        let mut plan = Plan::nothing();
        plan.update(app, &after);
        self.0.writer.execute(plan).await.map(drop)
    }

    async fn tell(&self, app: &App, status: AppStatus) -> Result<()> {
        // What was written of it meanwhile is in the cache already.
        let Some(current) = self.0.caches.apps.get(&Key::of(app)) else { return Ok(()) };
        let mut after = (*current).clone();
        after.status = Some(status);
        let mut plan = Plan::nothing();
        plan.update(&*current, &after);
        self.0.writer.execute(plan).await.map(drop)
    }

    /// An error of a call to a cluster, which may be none of the call but of the connection.
    fn doubted(&self, place: &Place, error: Error) -> Error {
        if crate::controllers::is_silence(&error) {
            self.0.targets.doubt(place, &error.chain());
        }
        error
    }
}

fn charts(client: &Client) -> Api<Chart> {
    Api::namespaced(client.clone(), PLATFORM_NAMESPACE)
}

const SUFFIXES: [&str; 2] = ["-chart-values", "-chart-secrets"];

fn values_name(app: &App, kind: ConfigKind) -> String {
    format!("{}{}", app.name_any(), SUFFIXES[usize::from(kind == ConfigKind::Secret)])
}

fn names_values(chart: &Chart, kind: ConfigKind) -> bool {
    chart.spec.config.as_ref().is_some_and(|config| match kind {
        ConfigKind::ConfigMap => config.config_map.is_some(),
        ConfigKind::Secret => config.secret.is_some(),
    })
}

async fn delete_values(key: &Key, client: &Client, kind: ConfigKind, name: &str) -> Result<()> {
    let params = DeleteParams::default();
    let deleted = match kind {
        ConfigKind::ConfigMap => {
            let maps = Api::<ConfigMap>::namespaced(client.clone(), PLATFORM_NAMESPACE);
            bounded(key, maps.delete(name, &params)).await?.map(drop)
        }
        ConfigKind::Secret => {
            let secrets = Api::<Secret>::namespaced(client.clone(), PLATFORM_NAMESPACE);
            bounded(key, secrets.delete(name, &params)).await?.map(drop)
        }
    };
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map_err(|error| Error::api("delete", format!("values {name}"), error)),
    }
}
