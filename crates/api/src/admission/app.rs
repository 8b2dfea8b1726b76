//! Apps: what is filled in, and what is refused with the published texts. Whoever asks brings what stands beside the app.
//!
//! Source: giantswarm/app pkg/validation, giantswarm/app-admission-controller pkg/app.

pub mod inspection;

use serde_json::{Map, Value, json};

use crate::{
    app::{
        App, AppCatalogEntry, ConfigKind, ConfigRefs, DRIFT_ANNOTATION, Drift, FLAGS, LEGACY_VERSION,
        ORGANIZATION_PREFIX, ObjectRef, PLATFORM_NAMESPACE, Quoted, Restrictions, UNIQUE_VERSION, VERSION_LABEL, flag,
    },
    release::{Component, Release},
    version,
};

/// The webhook that users know the refusals by.
pub const WEBHOOK: &str = "apps.app-admission-controller.giantswarm.io";
/// The app whose version label those of a namespace without one take over.
pub const CHART_OPERATOR: &str = "chart-operator";
/// The catalogs of charts that clusters are made of, and what the names of these begin with.
const CLUSTER_CATALOGS: [&str; 2] = ["cluster", "cluster-test"];
const CLUSTER_PREFIX: &str = "cluster-";
/// Names of releases are no longer.
const NAME_MAX: usize = 53;
/// Below all other extra values.
const BOTTOM_PRIORITY: i32 = 1;
/// Apps of older platform releases are left alone.
const MAJOR_MIN: u64 = 3;
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// The namespace of a Chart's app.
pub const APP_NAMESPACE_ANNOTATION: &str = "chart-operator.giantswarm.io/app-namespace";

/// Why an app is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("validation error: {0}")]
    Invalid(String),
    #[error("security violation error: {0}")]
    Security(String),
}

type Checked = Result<(), Refusal>;

fn invalid(why: impl Into<String>) -> Checked {
    Err(Refusal::Invalid(why.into()))
}

/// What defaults depend on, besides the app.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// [`VERSION_LABEL`] of the namespace's app [`CHART_OPERATOR`].
    pub version: Option<String>,
    /// Where the Secret [`App::cluster_kubeconfig`] is: in the app's namespace, or where the cluster of that name is.
    pub kubeconfig_namespace: Option<String>,
    /// What the Release that its values name has for it; asked for where [`takes_release`] says so.
    pub component: Option<Component>,
}

/// What validation depends on, besides the app.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Whether there is a catalog of that name where the app may take it from.
    pub catalog: bool,
    /// [`App::entry`] of the namespace `default`.
    pub entry: Option<AppCatalogEntry>,
    /// The apps of its namespace; asked for where [`compares`] says so.
    pub neighbours: Vec<App>,
    /// The apps of that name in other namespaces; asked for where [`is_unique`] says so.
    pub namesakes: Vec<App>,
    /// The infrastructure's name, as restrictions call it.
    pub provider: String,
}

/// Whether an app has to be compared with its neighbours.
pub fn compares(app: &App, entry: Option<&AppCatalogEntry>) -> bool {
    let restrictions = entry.and_then(|entry| entry.spec.restrictions.as_ref());
    app.spec.namespace_config.is_some()
        || restrictions.is_some_and(|only| only.cluster_singleton || only.namespace_singleton)
}

/// Whether no other namespace may have an in-cluster app of its name.
pub fn is_unique(app: &App) -> bool {
    app.spec.kube_config.in_cluster || namespace(app) == PLATFORM_NAMESPACE
}

fn namespace(app: &App) -> &str {
    app.metadata.namespace.as_deref().unwrap_or_default()
}

fn name(app: &App) -> &str {
    app.metadata.name.as_deref().unwrap_or_default()
}

/// The first number of a version; none if it is no version (`v3`, `3.1` and `3.1.0-rc.1+b` are). What follows the numbers is
/// nobody's business.
fn major(version: &str) -> Option<u64> {
    version::parse(version.split(['-', '+']).next()?).map(|version| version.major)
}

/// Whether the rules are for an app with this version label.
fn is_judged(app: &App, version: &str) -> bool {
    if app.is_of_organization() {
        return true;
    }
    major(version).is_some_and(|major| version == UNIQUE_VERSION || major >= MAJOR_MIN)
}

fn is_absent(label: &str) -> bool {
    label.is_empty() || label == LEGACY_VERSION
}

/// Whether [`Defaults::version`] is asked for.
pub fn takes_version(app: &App) -> bool {
    !app.is_of_organization() && is_absent(app.version_label())
}

/// Whether [`Defaults::kubeconfig_namespace`] is asked for.
pub fn takes_kubeconfig(app: &App) -> bool {
    let secret = app.spec.kube_config.secret.as_ref();
    !app.spec.kube_config.in_cluster
        && secret.is_none_or(|secret| secret.name.is_empty() && secret.namespace.is_empty())
}

/// The version label as it will be; none if nobody knows one.
fn version<'a>(app: &'a App, defaults: &'a Defaults) -> Option<&'a str> {
    match takes_version(app) {
        true => defaults.version.as_deref().filter(|version| !version.is_empty()),
        false => Some(app.version_label()),
    }
}

/// Whether it is a chart that clusters are made of, whose version is told by a Release. `defaults` has the version already.
pub fn takes_release(app: &App, defaults: &Defaults) -> bool {
    CLUSTER_CATALOGS.contains(&&*app.spec.catalog)
        && app.spec.name.starts_with(CLUSTER_PREFIX)
        && version(app, defaults).is_some_and(|version| is_judged(app, version))
}

/// The name of the Release that an app's values ask for; none if they ask for none, as charts without releases do.
///
/// # Errors
/// That they do not say it well.
pub fn release(app: &App, values: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    let Some(release) = values.get("global").and_then(|global| global.get("release")) else { return Ok(None) };
    let wrong = |why: &str| Err(Refusal::Invalid(why.to_owned()));
    if !release.is_object() {
        return wrong("release config object is not a map");
    }
    let Some(version) = release["version"].as_str() else {
        return wrong("release version string is not found in release config");
    };
    let provider = app.spec.name.strip_prefix(CLUSTER_PREFIX).unwrap_or(&app.spec.name).to_lowercase();
    Ok(Some(format!("{provider}-{}", version.strip_prefix('v').unwrap_or(version))))
}

/// What a Release has for an app.
///
/// # Errors
/// That there is no such Release, or nothing in it.
pub fn component(app: &App, name: &str, release: Option<Release>) -> Result<Component, Refusal> {
    let Some(release) = release else {
        return Err(Refusal::Invalid(format!("releases.release.giantswarm.io \"{name}\" not found")));
    };
    let mut components = release.spec.components.into_iter();
    components.find(|component| component.name == app.spec.name && !component.version.is_empty()).ok_or_else(|| {
        Refusal::Invalid(format!("Cannot find the version of '{}' in the Release '{name}'", app.spec.name))
    })
}

/// Fills in labels, the cluster's values, its kubeconfig, and what a Release tells. `object` is the app, with its namespace.
pub fn default(app: &App, object: &mut Value, defaults: &Defaults) {
    let own = app.version_label();
    let Some(version) = version(app, defaults) else { return };
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    for map in ["annotations", "labels"] {
        let map = metadata.entry(map).or_insert(Value::Null);
        if map.is_null() {
            *map = json!({});
        }
    }
    let labels = &mut metadata["labels"];
    let has = |labels: &Value, name: &str| labels[name].as_str().is_some_and(|value| !value.is_empty());
    if !has(labels, NAME_LABEL) && !has(labels, "app") {
        labels[NAME_LABEL] = app.spec.name.clone().into();
    }
    if is_absent(own) && !version.is_empty() {
        labels[VERSION_LABEL] = version.into();
    }
    if !is_judged(app, version) {
        return;
    }
    add_cluster_values(app, object);
    if let Some(found) = defaults.kubeconfig_namespace.as_ref().filter(|_| takes_kubeconfig(app)) {
        let kube_config = &mut object["spec"]["kubeConfig"];
        if app.spec.kube_config.context.as_ref().is_none_or(|context| context.name.is_empty()) {
            let context = if app.is_of_organization() { app.cluster() } else { namespace(app) };
            kube_config["context"] = json!({ "name": context });
        }
        kube_config["secret"] = json!({"name": app.cluster_kubeconfig(), "namespace": found});
    }
    if let Some(Component { catalog, version, .. }) = &defaults.component {
        let spec = &mut object["spec"];
        (spec["catalog"], spec["version"]) = (catalog.clone().into(), version.clone().into());
    }
}

/// Every app of a workload cluster is told what all of them are told.
fn add_cluster_values(app: &App, object: &mut Value) {
    let values = app.cluster_values();
    let is = |found: &ObjectRef| found.name == values && found.namespace == namespace(app);
    let named = |refs: &Option<ConfigRefs>| refs.as_ref().and_then(|refs| refs.config_map.as_ref()).is_some_and(is);
    let extra = |app: &App| app.extra_configs().iter().any(|c| c.name == values && c.namespace == namespace(app));
    let managed_here = app.version_label() == UNIQUE_VERSION;
    if managed_here || named(&app.spec.config) || named(&app.spec.user_config) || extra(app) {
        return;
    }
    let added = json!({
        "kind": "configMap", "name": values, "namespace": namespace(app), "priority": BOTTOM_PRIORITY,
    });
    match object["spec"]["extraConfigs"].as_array_mut() {
        Some(list) => list.push(added),
        None => object["spec"]["extraConfigs"] = json!([added]),
    }
}

/// Whether an app that is written is judged at all: one that goes away is not.
pub fn applies(app: &App, updates: bool) -> bool {
    !(updates && app.metadata.deletion_timestamp.is_some()) && is_judged(app, app.version_label())
}

/// Judges an app by itself and by what is beside it; `old` is what stands so far.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(app: &App, old: Option<&App>, beside: &Beside) -> Checked {
    app_namespace(app)?;
    if !app.spec.catalog.is_empty() && !beside.catalog {
        return invalid(format!("catalog {} not found", Quoted(&app.spec.catalog)));
    }
    labels(app)?;
    references(app.spec.config.as_ref())?;
    kubeconfig(app)?;
    if let Some(restrictions) = beside.entry.as_ref().and_then(|entry| entry.spec.restrictions.as_ref()) {
        restricted(app, restrictions, beside)?;
    }
    if name(app).len() > NAME_MAX {
        let length = name(app).len();
        let name = Quoted(name(app));
        return invalid(format!("name {name} is {length} chars and exceeds max length of {NAME_MAX} chars"));
    }
    namespace_config(app, &beside.neighbours)?;
    let target = &app.spec.namespace;
    if app.spec.kube_config.in_cluster && namespace(app) != PLATFORM_NAMESPACE && namespace(app) != target {
        return invalid(format!("target namespace {target} is not allowed for in-cluster apps"));
    }
    user_config(app)?;
    unique(app, &beside.namesakes)?;
    foreign(app)?;
    match old {
        Some(old) if old.spec.namespace != *target => invalid(format!(
            "target namespace for app {} cannot be changed from {} to {}",
            Quoted(name(app)),
            Quoted(&old.spec.namespace),
            Quoted(target)
        )),
        _ => Ok(()),
    }
}

/// Judges the annotations that are not published.
///
/// # Errors
/// Which of them has none of its values.
pub fn own_annotations(app: &App) -> Checked {
    let empty = Default::default();
    let annotations = app.metadata.annotations.as_ref().unwrap_or(&empty);
    let wrong = |name: &str, told: &str, names: &[&str]| {
        let names = names.iter().map(|name| Quoted(name).to_string()).collect::<Vec<_>>().join(", ");
        invalid(format!("annotation `{name}` is {}: it has to be one of {names}", Quoted(told)))
    };
    if let Err(told) = Drift::of(annotations) {
        return wrong(DRIFT_ANNOTATION, told, &Drift::NAMES.map(|(name, _)| name));
    }
    let told = FLAGS.iter().find_map(|name| Some((name, flag(annotations, name).err()?)));
    told.map_or(Ok(()), |(name, told)| wrong(name, told, &["true", "false"]))
}

/// Whoever installs charts takes an app's rights from this annotation.
fn app_namespace(app: &App) -> Checked {
    let annotations = app.metadata.annotations.as_ref();
    let told = annotations.and_then(|all| all.get(APP_NAMESPACE_ANNOTATION)).filter(|told| !told.is_empty());
    match told.filter(|told| *told != namespace(app)) {
        Some(told) => {
            invalid(format!("wrong {} namespace for the `{APP_NAMESPACE_ANNOTATION}` annotation", Quoted(told)))
        }
        None => Ok(()),
    }
}

fn labels(app: &App) -> Checked {
    let version = app.version_label();
    if app.is_of_organization() {
        return match app.cluster() {
            "" => invalid(format!("label `{}` not found", crate::app::CLUSTER_LABEL)),
            _ => Ok(()),
        };
    }
    match version {
        "" => invalid(format!("label `{VERSION_LABEL}` not found")),
        LEGACY_VERSION => invalid(format!("label `{VERSION_LABEL}` has invalid value {}", Quoted(version))),
        _ if app.spec.kube_config.in_cluster && version != UNIQUE_VERSION => {
            invalid(format!("label `{VERSION_LABEL}` must be set to `{UNIQUE_VERSION}` for in-cluster app"))
        }
        _ => Ok(()),
    }
}

fn is_whole(found: &ObjectRef, kind: &str) -> Checked {
    if found.namespace.is_empty() {
        return invalid(format!("namespace is not specified for {kind} {}", Quoted(&found.name)));
    }
    if found.name.is_empty() {
        return invalid(format!("name is not specified for {kind}"));
    }
    Ok(())
}

/// References without a name are none.
fn references(config: Option<&ConfigRefs>) -> Checked {
    let Some(config) = config else { return Ok(()) };
    for (found, kind) in [(&config.config_map, "configmap"), (&config.secret, "secret")] {
        if let Some(found) = found.as_ref().filter(|found| !found.name.is_empty()) {
            is_whole(found, kind)?;
        }
    }
    Ok(())
}

fn kubeconfig(app: &App) -> Checked {
    if app.spec.kube_config.in_cluster {
        return Ok(());
    }
    is_whole(&app.spec.kube_config.secret.clone().unwrap_or_default(), "kubeconfig secret")
}

/// An organization's app uses nothing of another organization, and Secrets only of its own namespace: what an app is given goes to a
/// cluster of the organization. Not published; the published platform leaves it to whoever writes policies.
///
/// # Errors
/// What it names of others.
pub fn foreign(app: &App) -> Checked {
    let own = namespace(app);
    if !app.is_in_organization() {
        return Ok(());
    }
    let refs = [&app.spec.config, &app.spec.user_config].into_iter().flatten();
    let named = refs.flat_map(|refs| {
        [("configmap", refs.config_map.clone()), ("secret", refs.secret.clone())]
            .into_iter()
            .filter_map(|(kind, object)| Some((kind, object?)))
    });
    let extra = app.extra_configs().iter().map(|extra| {
        let kind = if extra.kind == ConfigKind::Secret { "secret" } else { "configmap" };
        (kind, ObjectRef { name: extra.name.clone(), namespace: extra.namespace.clone() })
    });
    let kubeconfig = app.spec.kube_config.secret.clone().filter(|_| !app.spec.kube_config.in_cluster);
    let mut all = named.chain(extra).chain(kubeconfig.map(|secret| ("secret", secret)));
    let is_foreign = |(kind, object): &(&str, ObjectRef)| {
        let elsewhere = !object.name.is_empty() && object.namespace != own;
        elsewhere && (*kind == "secret" || object.namespace.starts_with(ORGANIZATION_PREFIX))
    };
    match all.find(is_foreign) {
        Some((kind, object)) => {
            let (name, there, own) = (Quoted(&object.name), Quoted(&object.namespace), Quoted(own));
            invalid(format!("{kind} {name} is in namespace {there}, and an app in {own} may not use it"))
        }
        None => Ok(()),
    }
}

/// What the catalog says of where the app may be.
fn restricted(app: &App, only: &Restrictions, beside: &Beside) -> Checked {
    let chart = Quoted(&app.spec.name);
    let target = Quoted(&app.spec.namespace);
    let providers = only.compatible_providers.as_deref().unwrap_or_default();
    if !providers.is_empty() && !providers.contains(&beside.provider) {
        let list: Vec<String> = providers.iter().map(|provider| Quoted(provider).to_string()).collect();
        let (list, own) = (list.join(" "), Quoted(&beside.provider));
        return invalid(format!("app {chart} can only be installed for providers [{list}] not {own}"));
    }
    let fixed = &only.fixed_namespace;
    if !fixed.is_empty() && *fixed != app.spec.namespace {
        let fixed = Quoted(fixed);
        return invalid(format!("app {chart} can only be installed in namespace {fixed} only, not {target}"));
    }
    let cluster = app.cluster();
    let same = |other: &&App| {
        other.spec.name == app.spec.name
            && name(other) != name(app)
            && (!app.is_in_organization() || other.cluster() == cluster)
    };
    for other in beside.neighbours.iter().filter(same) {
        if only.cluster_singleton {
            let cluster = Quoted(if cluster.is_empty() { namespace(app) } else { cluster });
            return invalid(format!("app {chart} can only be installed once in cluster {cluster}"));
        }
        if only.namespace_singleton && other.spec.namespace == app.spec.namespace {
            return invalid(format!("app {chart} can only be installed only once in namespace {target}"));
        }
    }
    Ok(())
}

/// Two apps cannot want their namespace to be two things.
fn namespace_config(app: &App, neighbours: &[App]) -> Checked {
    let Some(own) = &app.spec.namespace_config else { return Ok(()) };
    let (chart, target) = (Quoted(&app.spec.name), Quoted(&app.spec.namespace));
    for other in neighbours.iter().filter(|o| name(o) != name(app) && o.spec.namespace == app.spec.namespace) {
        let Some(theirs) = &other.spec.namespace_config else { continue };
        let both = [("annotation", &own.annotations, &theirs.annotations), ("label", &own.labels, &theirs.labels)];
        for (what, own, theirs) in both {
            let (Some(own), Some(theirs)) = (own, theirs) else { continue };
            let collision = theirs.iter().find(|(key, value)| own.get(*key).is_some_and(|own| own != *value));
            if let Some((key, value)) = collision {
                return invalid(format!(
                    "app {chart} {what} {} for target namespace {target} collides with value {} for app {}",
                    Quoted(key),
                    Quoted(value),
                    Quoted(name(other))
                ));
            }
        }
    }
    Ok(())
}

/// Apps of the catalog `default` have values of the user under a fixed name.
fn user_config(app: &App) -> Checked {
    let Some(config) = &app.spec.user_config else { return Ok(()) };
    let all = [(&config.config_map, "configmap", "user-values"), (&config.secret, "secret", "user-secrets")];
    for (found, kind, suffix) in all {
        let Some(found) = found.as_ref().filter(|found| !found.name.is_empty()) else { continue };
        if app.spec.catalog == "default" {
            let mut expected = format!("{}-{suffix}", name(app));
            let mut matches = found.name == expected;
            // Bundles of a cluster carry its name before theirs.
            let prefix = format!("{}-", app.cluster());
            if !app.is_in_organization() && prefix != "-" {
                if let Some(short) = expected.strip_prefix(&prefix) {
                    expected = short.to_owned();
                }
                matches |= found.name == expected;
            }
            if !matches {
                return invalid(format!("user {kind} must be named {} for app in default catalog", Quoted(&expected)));
            }
        }
        is_whole(found, kind)?;
    }
    Ok(())
}

/// Charts of in-cluster apps share one namespace.
fn unique(app: &App, namesakes: &[App]) -> Checked {
    if !is_unique(app) {
        return Ok(());
    }
    let (own, here) = (Quoted(name(app)), namespace(app));
    for other in namesakes.iter().filter(|other| name(other) == name(app) && namespace(other) != here) {
        let there = Quoted(namespace(other));
        if namespace(other) == PLATFORM_NAMESPACE {
            return invalid(format!("found another app named {own} installed into the {there} namespace"));
        }
        if !other.spec.kube_config.in_cluster {
            continue;
        }
        return invalid(match here == PLATFORM_NAMESPACE {
            true => format!(
                "there is in-cluster app named {own} already installed in the {there} namespace that would cause name \
                 collision with the currently submitted app named {own} in the {} namespace",
                Quoted(here)
            ),
            false => format!(
                "in-cluster apps must be given a unique name, found an app named {own} as well in the {there} namespace"
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
