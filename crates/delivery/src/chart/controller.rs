//! Charts: fetches the archive, merges the values, and has the release engine install, upgrade and remove. Nothing waits here: what takes
//! long is asked for again until it is through.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::app::{
    Chart, ChartConfigRef, ChartRelease, ChartStatus, ConfigKind, PLATFORM_NAMESPACE, TAKE_OWNERSHIP_ANNOTATION,
    WAIT_ANNOTATION, flag,
};
use control::{Error, Key, Outcome, Reconcile, Result, bounded};
use helm::values::{self, Table};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::archives::Found;
use super::decision::{
    CHECKSUM, CORDON_REASON, Decision, FAILURES_MAX, FORCE, ROLLBACKS, ROLLBACKS_MAX, Standing, decide, hash,
    is_atomic, merged, token,
};
use crate::{
    app::{
        chart::{ARCHIVE, FINALIZER},
        source::PULL_FAILED,
    },
    controllers::Context,
    release::{self, Engine, Namespace, Options, Outcome as Made, Release, Request, Status},
    target::{APP_NAMESPACE, Place},
};

/// As the published controller calls itself in what it writes.
pub(super) const MANAGER: &str = "chart-operator";
/// Charts with this annotation are upgraded once, without hooks, as soon as they are installed: the second time finds what the first has made.
const TWO_STEPS: &str = "application.giantswarm.io/two-step-install";
/// Service accounts that releases in the management cluster are made as: for the platform's own apps, and for those of tenants.
pub const PLATFORM_ACCOUNT: &str = "chart-operator";
pub const TENANT_ACCOUNT: &str = "automation";
const TENANTS_DEFAULT: &str = "default";
/// A release that nobody has touched is looked at after so many seconds.
pub(super) const RESYNC_S: u64 = 600;
/// What only a change can mend is tried again after so many seconds.
const BLOCKED_S: u64 = 60;
/// Between two looks at what is under way.
const LOOK_MIN: Duration = Duration::from_millis(300);
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Minutes that a release may take where the Chart does not say.
const TIMEOUT: Duration = Duration::from_secs(300);

pub struct Charts {
    pub context: Arc<Context>,
    /// Values by the versions of what they are in, so that a Chart that nothing has happened to reads nothing.
    known: Mutex<HashMap<Key, Known>>,
    /// What namespaces were given last, for Charts that say so.
    namespaces: Mutex<HashMap<Key, Namespace>>,
}

struct Known {
    versions: [Option<String>; 2],
    hash: String,
}

pub struct Seen {
    pub(super) chart: Arc<Chart>,
    pub(super) place: Place,
    pub(super) client: Client,
    pub(super) engine: Arc<Engine>,
    pub(super) standing: Standing,
    /// Why the releases are not to be seen.
    denied: Option<release::Error>,
    /// The values, if they had to be read, and their hash.
    values: Option<Table>,
    hash: String,
}

impl Charts {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, known: Mutex::default(), namespaces: Mutex::default() }
    }
}

impl Reconcile for Charts {
    const NAME: &'static str = "chart";
    type Seen = Seen;
    type Plan = Decision;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let (place, targets) = (Place::of_chart(key), &self.context.targets);
        let Some(chart) = targets.chart(&place, &key.name).filter(|chart| is_ours(chart)) else {
            self.known.lock().remove(key);
            self.namespaces.lock().remove(key);
            self.context.looks.forget(key);
            return Ok(None);
        };
        let account = account(&chart, &place);
        let account = account.as_ref().map(|(namespace, name)| (namespace.as_str(), *name));
        let (Some(client), Some(engine)) = (targets.client(&place), targets.engine(&place, account)) else {
            // It is woken when the cluster is there.
            return Ok(None);
        };
        let heads = engine.history(&chart.spec.namespace, Some(&chart.spec.name)).await;
        let (heads, denied) = match heads {
            Ok(heads) => (heads, None),
            Err(error) if error.class() == control::Class::Blocked => (Vec::new(), Some(error)),
            Err(error) => return Err(self.failed(&place, error)),
        };
        let (values, hash) = self.values(key, &place, &chart, &client).await?;
        let standing = Standing::of(&heads);
        Ok(Some(Seen { chart, place, client, engine, standing, denied, values, hash }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Decision {
        decide(&seen.chart, &seen.standing, &seen.hash, now)
    }

    async fn act(&self, key: &Key, seen: &Seen, decision: Decision) -> Result<Outcome> {
        if matches!(decision, Decision::Settled | Decision::Deploy)
            && let Some(refused) = self.namespace(key, seen).await?
        {
            return Ok(refused);
        }
        match decision {
            Decision::Paused => Ok(Outcome::Settled),
            Decision::Settled => self.look(key, seen).await,
            Decision::Later(after) => Ok(Outcome::Waiting { on: "the time to try again".to_owned(), after }),
            Decision::Cordoned => {
                let mut status = seen.chart.status.clone().unwrap_or_default();
                "cordoned".clone_into(&mut status.release.status);
                status.reason = seen.chart.annotations().get(CORDON_REASON).cloned();
                self.write(key, seen, None, Some(status)).await?;
                Ok(Outcome::waiting("the cordon to end", BLOCKED_S))
            }
            Decision::Uninstall => self.uninstall(key, seen).await,
            Decision::Deploy => self.deploy(key, seen).await,
        }
    }
}

fn is_ours(chart: &Chart) -> bool {
    let (label, version) = crate::app::chart::VERSION;
    chart.labels().get(label).is_some_and(|own| own == version)
}

/// Whose rights a release in the management cluster has: those of the namespace that its app is in. In a workload cluster all are the
/// tenant's anyway.
fn account(chart: &Chart, place: &Place) -> Option<(String, &'static str)> {
    if *place != Place::Here {
        return None;
    }
    let namespace = chart.annotations().get(APP_NAMESPACE).map_or(PLATFORM_NAMESPACE, String::as_str);
    Some(match namespace {
        PLATFORM_NAMESPACE => (PLATFORM_NAMESPACE.to_owned(), PLATFORM_ACCOUNT),
        tenant if tenant.starts_with(api::app::ORGANIZATION_PREFIX) => (tenant.to_owned(), TENANT_ACCOUNT),
        _ => (TENANTS_DEFAULT.to_owned(), TENANT_ACCOUNT),
    })
}

/// Whether a release goes to the tenant's own namespace, which is there and not the tenant's to mark: its labels say what it may be given.
fn is_own_namespace(chart: &Chart, place: &Place) -> bool {
    account(chart, place).is_some_and(|(own, _)| own == chart.spec.namespace && own != PLATFORM_NAMESPACE)
}

impl Charts {
    /// The values, if what they are in has changed, and their hash.
    async fn values(
        &self,
        key: &Key,
        place: &Place,
        chart: &Chart,
        client: &Client,
    ) -> Result<(Option<Table>, String)> {
        if chart.metadata.deletion_timestamp.is_some() {
            return Ok((None, String::new()));
        }
        let config = chart.spec.config.clone().unwrap_or_default();
        let version = |config: &Option<ChartConfigRef>| config.as_ref().map(|config| config.resource_version.clone());
        let versions = [version(&config.config_map), version(&config.secret)];
        if let Some(known) = self.known.lock().get(key).filter(|known| known.versions == versions) {
            return Ok((None, known.hash.clone()));
        }
        let table = self.read(key, place, chart, client).await?;
        let hash = hash(&table);
        self.known.lock().insert(key.clone(), Known { versions, hash: hash.clone() });
        Ok((Some(table), hash))
    }

    async fn read(&self, key: &Key, place: &Place, chart: &Chart, client: &Client) -> Result<Table> {
        let config = chart.spec.config.clone().unwrap_or_default();
        let (mut plain, mut hidden) = (Table::new(), Table::new());
        let unfit = |what: String| Error::blocked("InvalidValues", what);
        if let Some(at) = &config.config_map {
            let what = format!("configmap {}/{}", at.namespace, at.name);
            let maps = Api::<ConfigMap>::namespaced(client.clone(), &at.namespace);
            let found = bounded(key, maps.get_opt(&at.name)).await?;
            let found = found.map_err(|error| Error::api("get", &what, error))?;
            let found = self.written(place, chart, ConfigKind::ConfigMap, at, found)?;
            for text in found.data.unwrap_or_default().values() {
                let read = values::read(text).map_err(|error| unfit(format!("{what}: {error}")))?;
                values::overlay(&mut plain, read);
            }
        }
        if let Some(at) = &config.secret {
            let what = format!("secret {}/{}", at.namespace, at.name);
            let secrets = Api::<Secret>::namespaced(client.clone(), &at.namespace);
            let found = bounded(key, secrets.get_opt(&at.name)).await?;
            let found = found.map_err(|error| Error::api("get", &what, error))?;
            let data = self.written(place, chart, ConfigKind::Secret, at, found)?.data.unwrap_or_default();
            if data.len() != 1 {
                return Err(unfit(format!("{what} has {} keys, and values are in one", data.len())));
            }
            for bytes in data.values() {
                let text = std::str::from_utf8(&bytes.0).map_err(|_| unfit(format!("{what} is not text")))?;
                // The parser's own words quote what is secret.
                hidden = values::read(text).map_err(|_| unfit(format!("{what} holds no values: it is no YAML map")))?;
            }
        }
        Ok(merged(plain, hidden))
    }

    /// The object with values, if it is the one that was written. One of an App that is gone or another by now is written again.
    fn written<K: Resource<DynamicType = ()>>(
        &self,
        place: &Place,
        chart: &Chart,
        kind: ConfigKind,
        at: &ChartConfigRef,
        found: Option<K>,
    ) -> Result<K> {
        let app = self.context.app_of(place, chart).map(|app| Key::of(&*app));
        let is_other =
            |found: &K| app.is_some() && found.meta().resource_version.as_ref() != Some(&at.resource_version);
        match found {
            Some(found) if !is_other(&found) => Ok(found),
            found => {
                if let Some(app) = app {
                    self.context.targets.rewrite(place, kind, &at.name, app);
                }
                let what = found.map_or("is gone", |_| "is not as it was written");
                Err(Error::Retry(format!("{} {}/{} with values {what}", K::kind(&()), at.namespace, at.name)))
            }
        }
    }

    /// Has values written again that somebody has changed or removed since.
    pub(super) async fn keep_values(&self, key: &Key, seen: &Seen) -> Result<()> {
        let Seen { chart, place, client, .. } = seen;
        let config = chart.spec.config.clone().unwrap_or_default();
        if let Some(at) = &config.config_map {
            let maps = Api::<ConfigMap>::namespaced(client.clone(), &at.namespace);
            let found = bounded(key, maps.get_metadata_opt(&at.name)).await?;
            let found = found.map_err(|error| Error::api("get", format!("configmap {}", at.name), error))?;
            self.written(place, chart, ConfigKind::ConfigMap, at, found)?;
        }
        if let Some(at) = &config.secret {
            let secrets = Api::<Secret>::namespaced(client.clone(), &at.namespace);
            let found = bounded(key, secrets.get_metadata_opt(&at.name)).await?;
            let found = found.map_err(|error| Error::api("get", format!("secret {}", at.name), error))?;
            self.written(place, chart, ConfigKind::Secret, at, found)?;
        }
        Ok(())
    }

    /// Gives the namespace of a release that is there what its Chart says now. A first revision does so itself.
    async fn namespace(&self, key: &Key, seen: &Seen) -> Result<Option<Outcome>> {
        let spec = &seen.chart.spec;
        let is_tenants = is_own_namespace(&seen.chart, &seen.place);
        if spec.namespace_config.is_none() || seen.standing.revision == 0 || seen.denied.is_some() || is_tenants {
            return Ok(None);
        }
        let wanted = namespace(&seen.chart);
        if self.namespaces.lock().get(key) == Some(&wanted) {
            return Ok(None);
        }
        match seen.engine.ensure_namespace(&spec.namespace, &wanted).await {
            Ok(_) => {
                self.namespaces.lock().insert(key.clone(), wanted);
                Ok(None)
            }
            Err(error) if error.class() == control::Class::Retry => Err(self.failed(&seen.place, error)),
            Err(error) => self.refuse(key, seen, &error).await.map(Some),
        }
    }

    async fn deploy(&self, key: &Key, seen: &Seen) -> Result<Outcome> {
        if let Some(error) = &seen.denied {
            return self.refuse(key, seen, error).await;
        }
        let (chart, spec) = (&*seen.chart, &seen.chart.spec);
        self.hold(key, seen).await?;
        let table = match &seen.values {
            Some(table) => table.clone(),
            None => self.read(key, &seen.place, chart, &seen.client).await?,
        };
        let archive = match self.context.charts.get(&self.context, &seen.place, chart).await {
            Ok(Found { chart: archive, note }) => {
                // Before anything is made of it.
                if let Some(note) = note.filter(|note| chart.annotations().get(ARCHIVE) != Some(note)) {
                    self.patch(key, seen, &json!({"metadata": {"annotations": {ARCHIVE: note}}}), false).await?;
                }
                archive
            }
            Err(reason) => {
                self.say(key, seen, PULL_FAILED, reason.clone()).await?;
                return Ok(Outcome::waiting(reason, BLOCKED_S));
            }
        };
        let is_new = matches!(seen.standing.status, None | Some(Status::PendingInstall | Status::Uninstalled));
        let two_steps = archive.chart().metadata.annotations.contains_key(TWO_STEPS)
            && !chart.annotations().contains_key(CHECKSUM)
            && seen.standing.revision <= 2;
        let mut options = options(chart, is_new);
        if is_own_namespace(chart, &seen.place) {
            options.namespace = None;
        }
        let token = token(chart, &seen.standing);
        let request = Request {
            name: &spec.name,
            namespace: &spec.namespace,
            chart: &archive,
            values: &table,
            options: &options,
            token: &token,
        };
        let mut made = seen.engine.upgrade(&request).await;
        if two_steps && matches!(&made, Ok(Made::Done(release)) if release.version == 1) {
            let options = Options { no_hooks: true, ..options.clone() };
            made = seen.engine.upgrade(&Request { options: &options, token: "second-step", ..request }).await;
        }
        self.ended(key, seen, made).await
    }

    /// Writes what came of it.
    async fn ended(&self, key: &Key, seen: &Seen, made: release::Result<Made>) -> Result<Outcome> {
        let now = self.context.writer.clock().now();
        match made {
            Ok(Made::Done(release)) => {
                self.write(key, seen, Some(&seen.hash), Some(told(&release, None))).await?;
                Ok(Outcome::waiting("the next look at the release", RESYNC_S))
            }
            Ok(Made::Waiting { on, object, since }) => {
                let on = object.map_or_else(|| on.clone(), |object| format!("{object}: {on}"));
                // Before anything is recorded there is no release to tell of.
                if let Some(release) = self.last(seen).await? {
                    self.write(key, seen, Some(&seen.hash), Some(told(&release, Some(on.clone())))).await?;
                }
                Ok(Outcome::Waiting { on, after: look_after(since, now) })
            }
            Ok(Made::Failed { release, why }) if is_atomic(&seen.chart) => {
                let reason = format!("{why}\nIt is not tried again until its version, values or options change.");
                self.write(key, seen, Some(&seen.hash), Some(undone(&release, reason))).await?;
                Ok(Outcome::waiting("another version, other values or options", RESYNC_S))
            }
            Ok(Made::Failed { release, why }) => {
                let failures = seen.standing.failures + usize::from(release.version > seen.standing.revision);
                let reason = match failures >= FAILURES_MAX {
                    true => format!("Release has failed {FAILURES_MAX} times.\nReason: {why}"),
                    false => why,
                };
                self.write(key, seen, Some(&seen.hash), Some(told(&release, Some(reason.clone())))).await?;
                Ok(Outcome::Waiting { on: reason, after: Duration::from_secs(1) })
            }
            Ok(Made::Gone) => Ok(Outcome::Waiting { on: "the release that is gone".to_owned(), after: LOOK_MIN }),
            Err(release::Error::Busy(name)) => self.unblock(key, seen, &name).await,
            Err(error) if error.class() == control::Class::Retry => Err(self.failed(&seen.place, error)),
            Err(error) => self.refuse(key, seen, &error).await,
        }
    }

    async fn refuse(&self, key: &Key, seen: &Seen, error: &release::Error) -> Result<Outcome> {
        let (status, reason) = refused(error, seen.standing.revision == 0);
        self.say(key, seen, status, reason.clone()).await?;
        Ok(Outcome::waiting(reason, BLOCKED_S))
    }

    /// What somebody else began and has not ended: it is waited for, and then given up, or rolled back where the Chart says so.
    async fn unblock(&self, key: &Key, seen: &Seen, name: &str) -> Result<Outcome> {
        let (chart, namespace) = (&*seen.chart, seen.chart.spec.namespace.as_str());
        let Some(release) = self.last(seen).await? else {
            return Ok(Outcome::Waiting { on: name.to_owned(), after: LOOK_MIN });
        };
        let now = self.context.writer.clock().now();
        let is_first = release.version == 1;
        let failed = |error| self.failed(&seen.place, error);
        let is_forced = chart
            .annotations()
            .get(FORCE)
            .is_some_and(|force| matches!(force.as_str(), "true" | "1" | "t" | "T" | "TRUE" | "True"));
        let count = chart.annotations().get(ROLLBACKS).and_then(|count| count.parse::<u32>().ok()).unwrap_or_default();
        if is_forced && count <= ROLLBACKS_MAX {
            let next = (count + 1).to_string();
            let annotations = json!({"metadata": {"annotations": {ROLLBACKS: next}}});
            self.patch(key, seen, &annotations, false).await?;
            seen.engine.give_up(name, namespace, "given up, as force-helm-upgrade says").await.map_err(failed)?;
            if is_first {
                seen.engine.uninstall(name, namespace, &options(chart, true)).await.map_err(failed)?;
            } else {
                let timeout = chart.spec.rollback.as_ref().and_then(|rollback| rollback.timeout.as_deref());
                let options = Options { timeout_s: seconds(timeout), ..options(chart, false) };
                seen.engine.rollback(name, namespace, None, &options, &next).await.map_err(failed)?;
            }
            return Ok(Outcome::Waiting { on: "the release to be as it was".to_owned(), after: LOOK_MIN });
        }
        let limit = Duration::from_secs(options(chart, is_first).timeout_s);
        let since = release.info.last_deployed.map_or(SignedDuration::MAX, |at| now.duration_since(at));
        let left = limit.saturating_sub(Duration::try_from(since).unwrap_or_default());
        if !left.is_zero() {
            self.write(key, seen, None, Some(told(&release, Some(release.info.description.clone())))).await?;
            return Ok(Outcome::Waiting {
                on: format!("release {name}, which somebody else works on"),
                after: left.min(LOOK_MAX),
            });
        }
        seen.engine.give_up(name, namespace, "nobody went on with it").await.map_err(failed)?;
        Ok(Outcome::Waiting { on: "the release to be free".to_owned(), after: LOOK_MIN })
    }

    async fn uninstall(&self, key: &Key, seen: &Seen) -> Result<Outcome> {
        if !seen.chart.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(Outcome::Settled);
        }
        let spec = &seen.chart.spec;
        let timeout = spec.uninstall.as_ref().and_then(|options| options.timeout.as_deref());
        let options = Options { timeout_s: seconds(timeout), ..Options::default() };
        match seen.engine.uninstall(&spec.name, &spec.namespace, &options).await {
            Ok(Made::Gone | Made::Done(_)) => {
                let left: Vec<_> = seen.chart.finalizers().iter().filter(|name| *name != FINALIZER).collect();
                let body = json!({"metadata": {"finalizers": left, "resourceVersion": seen.chart.resource_version()}});
                self.patch(key, seen, &body, false).await?;
                Ok(Outcome::Gone)
            }
            Ok(Made::Waiting { on, since, .. }) => {
                let after = look_after(since, self.context.writer.clock().now());
                Ok(Outcome::Waiting { on, after })
            }
            Ok(Made::Failed { release, why }) => {
                self.write(key, seen, None, Some(told(&release, Some(why.clone())))).await?;
                Ok(Outcome::waiting(why, BLOCKED_S))
            }
            Err(release::Error::Busy(name)) => {
                seen.engine
                    .give_up(&name, &spec.namespace, "it is removed")
                    .await
                    .map_err(|error| self.failed(&seen.place, error))?;
                Ok(Outcome::Waiting { on: "the release to be free".to_owned(), after: LOOK_MIN })
            }
            Err(error) => Err(self.failed(&seen.place, error)),
        }
    }

    async fn last(&self, seen: &Seen) -> Result<Option<Release>> {
        let spec = &seen.chart.spec;
        seen.engine.last(&spec.name, &spec.namespace).await.map_err(|error| self.failed(&seen.place, error))
    }

    /// A status without a release of this wish; what is known of an older one stays.
    async fn say(&self, key: &Key, seen: &Seen, status: &str, reason: String) -> Result<()> {
        let mut after = seen.chart.status.clone().unwrap_or_default();
        status.clone_into(&mut after.release.status);
        after.reason = Some(reason);
        self.write(key, seen, None, Some(after)).await
    }

    async fn hold(&self, key: &Key, seen: &Seen) -> Result<()> {
        if seen.chart.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        let mut all = seen.chart.finalizers().to_vec();
        all.push(FINALIZER.to_owned());
        self.patch(
            key,
            seen,
            &json!({"metadata": {"finalizers": all, "resourceVersion": seen.chart.resource_version()}}),
            false,
        )
        .await
    }

    /// Writes the status and notes what was tried, as far as they differ.
    async fn write(&self, key: &Key, seen: &Seen, hash: Option<&str>, status: Option<ChartStatus>) -> Result<()> {
        let noted = seen.chart.annotations().get(CHECKSUM);
        if let Some(hash) = hash.filter(|hash| noted.map(String::as_str) != Some(*hash)) {
            self.patch(key, seen, &json!({"metadata": {"annotations": {CHECKSUM: hash}}}), false).await?;
        }
        if let Some(status) = status.filter(|status| seen.chart.status.as_ref() != Some(status)) {
            // Null takes away what the last one said.
            let body = json!({"status": {
                "appVersion": status.app_version, "reason": status.reason, "version": status.version,
                "release": {"lastDeployed": status.release.last_deployed, "revision": status.release.revision, "status": status.release.status},
            }});
            self.patch(key, seen, &body, true).await?;
        }
        Ok(())
    }

    async fn patch(&self, key: &Key, seen: &Seen, body: &Json, is_status: bool) -> Result<()> {
        let charts = Api::<Chart>::namespaced(seen.client.clone(), PLATFORM_NAMESPACE);
        let (name, params) =
            (seen.chart.name_any(), PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() });
        let patch = Patch::Merge(body);
        let patched = match is_status {
            true => bounded(key, charts.patch_status(&name, &params, &patch)).await?,
            false => bounded(key, charts.patch(&name, &params, &patch)).await?,
        };
        match patched {
            Ok(chart) => {
                if chart.metadata.deletion_timestamp.is_none() || !chart.finalizers().is_empty() {
                    self.context.targets.put(&seen.place, chart);
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::api("patch", format!("chart {name}"), error)),
        }
    }

    /// What a call to a cluster failed with, which may be none of the call but of the connection.
    pub(super) fn failed(&self, place: &Place, error: release::Error) -> Error {
        let is_silent = match &error {
            release::Error::Silent { .. } => true,
            release::Error::Api { source, .. } => !matches!(source.as_ref(), kube::Error::Api(_)),
            _ => false,
        };
        if is_silent {
            self.context.targets.doubt(place, &error.to_string());
        }
        Error::Retry(error.to_string())
    }
}

/// The longer a step takes, the seldomer it is looked at.
fn look_after(since: Timestamp, now: Timestamp) -> Duration {
    let gone = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (gone / 4).clamp(LOOK_MIN, LOOK_MAX)
}

/// Why a release was not even begun. `is_new`: there is none so far.
fn refused(error: &release::Error, is_new: bool) -> (&'static str, String) {
    let text = error.to_string();
    match error {
        release::Error::Taken(_) => ("already-exists", format!("object already exists: ({text})")),
        release::Error::Render(_) if text.starts_with("values don't meet the specifications of the schema(s)") => {
            ("values-schema-violation", text)
        }
        release::Error::Invalid(_) if text.starts_with("unable to build kubernetes objects") => {
            ("invalid-manifest", format!("invalid manifest error: ({text})"))
        }
        _ if is_new => ("not-installed", text),
        _ => ("unknown-error", text),
    }
}

fn seconds(timeout: Option<&str>) -> u64 {
    timeout.and_then(duration).unwrap_or(TIMEOUT).as_secs().max(1)
}

/// As the schema has it: `1m30s`, `0.5m`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut all = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let (unit_s, len) = match after {
            _ if after.starts_with("ms") => (0.001, 2),
            _ if after.starts_with('s') => (1.0, 1),
            _ if after.starts_with('m') => (60.0, 1),
            _ => return None,
        };
        all = all.checked_add(Duration::try_from_secs_f64(number * unit_s).ok()?)?;
        rest = &after[len..];
    }
    Some(all)
}

fn options(chart: &Chart, is_new: bool) -> Options {
    let spec = &chart.spec;
    let install = spec.install.as_ref().and_then(|options| options.timeout.as_deref());
    let upgrade = spec.upgrade.as_ref().and_then(|options| options.timeout.as_deref());
    // What was written past admission counts for nothing.
    let is_up = |name| flag(chart.annotations(), name).unwrap_or_default();
    Options {
        install: true,
        wait: is_up(WAIT_ANNOTATION) || is_atomic(chart),
        wait_for_jobs: is_up(WAIT_ANNOTATION) || is_atomic(chart),
        atomic: is_atomic(chart),
        // So that a release that was removed since it failed is not installed again at once.
        keep_history: is_atomic(chart),
        take_ownership: is_up(TAKE_OWNERSHIP_ANNOTATION),
        timeout_s: seconds(if is_new { install } else { upgrade }),
        skip_crds: spec.install.as_ref().and_then(|options| options.skip_crds).unwrap_or_default(),
        namespace: Some(namespace(chart)),
        ..Options::default()
    }
}

/// What the namespace of a release is to have.
fn namespace(chart: &Chart) -> Namespace {
    let wanted = chart.spec.namespace_config.clone().unwrap_or_default();
    let mut labels = wanted.labels.unwrap_or_default();
    labels.insert(api::app::MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    Namespace { labels, annotations: wanted.annotations.unwrap_or_default() }
}

/// What a Chart says of a release whose last change has failed and was undone: the version that is there, which is not the one wished.
fn undone(release: &Release, reason: String) -> ChartStatus {
    let mut status = told(release, Some(reason));
    if release.info.status == Status::Uninstalled {
        (status.version, status.app_version) = (String::new(), String::new());
    }
    Status::Failed.text().clone_into(&mut status.release.status);
    status
}

/// What a Chart says of its release.
fn told(release: &Release, reason: Option<String>) -> ChartStatus {
    let text = |name: &str| release.chart["metadata"][name].as_str().unwrap_or_default().to_owned();
    // To the second, as the API keeps times.
    let at = release.info.last_deployed.and_then(|at| Timestamp::from_second(at.as_second()).ok());
    ChartStatus {
        app_version: text("appVersion"),
        version: text("version"),
        reason: reason.filter(|reason| !reason.is_empty()),
        release: ChartRelease {
            last_deployed: at.map(Time),
            revision: Some(release.version),
            status: release.info.status.text().to_owned(),
        },
    }
}
