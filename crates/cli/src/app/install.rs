//! `skep app install`: an App, and the user's values beside it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use api::app::{
    App, AppCatalogEntry, AppSpec, CLUSTER_LABEL, Catalog, ConfigKind, KubeConfig, ORGANIZATION_PREFIX, ObjectRef,
    UNIQUE_VERSION, VERSION_LABEL, WATCHING_LABEL,
};
use api::cluster::Cluster;
use delivery::{
    app::dependencies::DEPENDS_ON,
    catalog::{COMMUNITY, LATEST_LABEL, TESTED_NAMESPACE, TYPE_LABEL, VERSIONS_MAX},
    repository::grant::CATALOG_LABEL,
};
use helm::values::{self, Table};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};

use super::{
    Place,
    state::{self, State, plain},
    told,
    wait::{Waiting, until_deployed},
};
use crate::{DONE, Output, chart::Values, output};

/// What apps outside of organizations' namespaces say of whom they are for: of the versions that are judged, this platform has one.
const OPERATOR_VERSION: &str = "6.0.0";

// Its own --version takes the place of that of every command.
#[derive(clap::Args)]
#[command(disable_version_flag = true)]
pub struct Arguments {
    /// Name of the App
    name: String,
    /// Name of the chart [default: the App's name]
    chart: Option<String>,
    /// Catalog that the chart is of
    #[arg(long)]
    catalog: String,
    /// Namespace of the catalog [default: default, then giantswarm]
    #[arg(long, value_name = "NAMESPACE")]
    catalog_namespace: Option<String>,
    /// Version of the chart [default: the newest of the catalog]
    #[arg(long)]
    version: Option<String>,
    /// Workload cluster that it goes to
    #[arg(long, required_unless_present = "in_cluster", conflicts_with = "in_cluster")]
    cluster: Option<String>,
    /// Install it in the management cluster
    #[arg(long)]
    in_cluster: bool,
    /// Namespace of the release in that cluster [default: what the chart demands or was tested in, else the chart's name; with
    /// --in-cluster what it demands, else the App's]
    #[arg(long, value_name = "NAMESPACE")]
    target_namespace: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    values: Values,
    /// A file of values (YAML) that go into a Secret; later ones go over earlier ones
    #[arg(long, value_name = "FILE")]
    secret_values: Vec<PathBuf>,
    /// Apps of the same namespace that are to be there first
    #[arg(long, value_name = "APPS", value_delimiter = ',')]
    depends_on: Vec<String>,
    /// Print what would be made, and make nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// All that an App is made of.
struct Wish<'w> {
    name: &'w str,
    chart: &'w str,
    catalog: &'w str,
    catalog_namespace: Option<&'w str>,
    version: &'w str,
    /// None: the management cluster.
    cluster: Option<&'w str>,
    namespace: &'w str,
    target_namespace: &'w str,
    depends_on: &'w [String],
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let user = arguments.values.read()?;
    let secrets = secrets(&arguments.secret_values)?;
    let client = arguments.place.client().await?;
    let catalog = state::catalog(&client, &arguments.catalog, arguments.catalog_namespace.as_deref()).await?;
    let chart = arguments.chart.as_deref().unwrap_or(&arguments.name);
    let offered = offered(&client, &catalog).await?;
    let entry = pick(&arguments.catalog, chart, arguments.version.as_deref(), &offered)?;
    let version = match (&arguments.version, entry) {
        (Some(version), _) => version.clone(),
        (None, Some(entry)) => entry.spec.version.clone(),
        (None, None) => bail!(
            "catalog {0} lists no versions of {chart}: see skep catalog show {0}, or pass one with --version",
            arguments.catalog
        ),
    };
    let clusters = match &arguments.cluster {
        Some(cluster) => clusters(&client, cluster).await?,
        None => Vec::new(),
    };
    let namespace = match (&arguments.cluster, arguments.place.namespace.as_deref()) {
        (Some(cluster), given) => home(given, cluster, &places(&clusters))?,
        (None, given) => given.unwrap_or("default").to_owned(),
    };
    let usual = match arguments.in_cluster {
        true => namespace.as_str(),
        false => tested_namespace(chart, entry, &offered).unwrap_or(chart),
    };
    let usual = entry.and_then(fixed_namespace).unwrap_or(usual);
    let app = app(&Wish {
        name: &arguments.name,
        chart,
        catalog: &arguments.catalog,
        catalog_namespace: arguments.catalog_namespace.as_deref(),
        version: &version,
        cluster: arguments.cluster.as_deref(),
        namespace: &namespace,
        target_namespace: arguments.target_namespace.as_deref().unwrap_or(usual),
        depends_on: &arguments.depends_on,
    });
    let mut state = State::new(app, catalog);
    state.set_user(ConfigKind::ConfigMap, &user)?;
    state.set_user(ConfigKind::Secret, &secrets)?;
    if arguments.dry_run {
        for object in state.objects() {
            output::line("---");
            output::document(&object, Output::Yaml)?;
        }
        output::line("---");
        output::document(&state.app, Output::Yaml)?;
        return Ok(DONE);
    }
    make(&client, &state, &clusters, &arguments).await
}

async fn make(client: &Client, state: &State, clusters: &[Cluster], arguments: &Arguments) -> Result<u8> {
    let (namespace, name) = (super::namespace(&state.app), &arguments.name);
    let apps = Api::<App>::namespaced(client.clone(), &namespace);
    if apps.get_opt(name).await.map_err(plain).with_context(|| format!("read {}", told(&state.app)))?.is_some() {
        bail!("{} exists already: change it with skep app upgrade, or take another name", told(&state.app));
    }
    if arguments.cluster.as_deref() == Some(namespace.as_str()) {
        settle(client, &namespace).await?;
    }
    if arguments.cluster.is_some() && !clusters.iter().any(|cluster| tells(cluster, &namespace)) {
        tell_nothing(client, &state.app).await?;
    }
    let made = state.create(client).await?;
    let goes = arguments.cluster.as_ref().map_or("the management cluster".to_owned(), |name| format!("cluster {name}"));
    output::progress(&format!(
        "{} made: {} {} of catalog {} in namespace {} of {goes}",
        told(&made),
        made.spec.name,
        made.spec.version,
        made.spec.catalog,
        made.spec.namespace
    ));
    if !arguments.waiting.is_asked() {
        return Ok(DONE);
    }
    until_deployed(client, &made, None, &arguments.waiting).await
}

/// Values that are not to be seen.
pub fn secrets(files: &[PathBuf]) -> Result<Table> {
    let mut all = Table::new();
    for path in files {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        // The parser's own words quote what is secret.
        let Ok(read) = values::read(&text) else { bail!("{} holds no values: it is no YAML map", shown(path)) };
        values::overlay(&mut all, read);
    }
    Ok(all)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The versions that a catalog offers.
pub async fn offered(client: &Client, catalog: &Catalog) -> Result<Vec<AppCatalogEntry>> {
    let (name, namespace) = (catalog.name_any(), catalog.namespace().unwrap_or_default());
    let params = ListParams::default().labels(&format!("{CATALOG_LABEL}={name}"));
    let found = Api::<AppCatalogEntry>::namespaced(client.clone(), &namespace).list(&params).await;
    Ok(found.map_err(plain).with_context(|| format!("list what catalog {namespace}/{name} offers"))?.items)
}

/// What the catalog says of this version, the newest if none is named. None where it says nothing of it and cannot know better: catalogs list
/// the newest versions only, and some nothing at all, or no more than what was tested.
///
/// # Errors
/// That there is no such chart or version, and which there are.
pub fn pick<'e>(
    catalog: &str,
    chart: &str,
    version: Option<&str>,
    offered: &'e [AppCatalogEntry],
) -> Result<Option<&'e AppCatalogEntry>> {
    if offered.is_empty() {
        return Ok(None);
    }
    let of_chart: Vec<_> = offered.iter().filter(|entry| entry.spec.app_name == chart).collect();
    if of_chart.is_empty() && is_partial(offered) {
        return Ok(None);
    }
    if of_chart.is_empty() {
        bail!("catalog {catalog} offers no chart {chart}; see: skep catalog search {chart}");
    }
    let bare = |version: &str| version.strip_prefix('v').unwrap_or(version).to_owned();
    let found = match version {
        Some(version) => of_chart.iter().find(|entry| bare(&entry.spec.version) == bare(version)),
        None => of_chart.iter().find(|entry| entry.labels().get(LATEST_LABEL).is_some_and(|latest| latest == "true")),
    };
    match found {
        None if of_chart.len() < VERSIONS_MAX && !is_partial(offered) => {
            let mut all: Vec<&str> = of_chart.iter().map(|entry| entry.spec.version.as_str()).collect();
            all.sort_unstable();
            let asked = version.map_or("newest version".to_owned(), |version| format!("version {version}"));
            bail!("catalog {catalog} has no {asked} of chart {chart}: it has {}", all.join(", "));
        }
        found => Ok(found.copied()),
    }
}

/// The only namespace that a version may be in.
fn fixed_namespace(entry: &AppCatalogEntry) -> Option<&str> {
    let fixed = entry.spec.restrictions.as_ref()?.fixed_namespace.as_str();
    Some(fixed).filter(|fixed| !fixed.is_empty())
}

/// The namespace that this version was tested in; of one that was not, that of those that were.
fn tested_namespace<'e>(
    chart: &str,
    entry: Option<&'e AppCatalogEntry>,
    offered: &'e [AppCatalogEntry],
) -> Option<&'e str> {
    let of_chart = offered.iter().filter(|entry| entry.spec.app_name == chart);
    let mut all = entry.into_iter().chain(of_chart.filter(|_| entry.is_none()));
    all.find_map(|entry| entry.annotations().get(TESTED_NAMESPACE)).map(String::as_str)
}

/// Whether a catalog has more than it lists.
fn is_partial(offered: &[AppCatalogEntry]) -> bool {
    offered.iter().any(|entry| entry.labels().get(TYPE_LABEL).is_some_and(|kind| kind == COMMUNITY))
}

/// Clusters of that name.
async fn clusters(client: &Client, cluster: &str) -> Result<Vec<Cluster>> {
    let params = ListParams::default().fields(&format!("metadata.name={cluster}"));
    match Api::<Cluster>::all(client.clone()).list(&params).await {
        Ok(found) => Ok(found.items),
        // Who may see nothing but their own namespace says which it is.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Vec::new()),
        Err(error) => Err(plain(error).context(format!("look for cluster {cluster}"))),
    }
}

fn places(clusters: &[Cluster]) -> Vec<String> {
    clusters.iter().filter_map(ResourceExt::namespace).collect()
}

/// Whether the platform writes what apps of this namespace are told of the cluster.
fn tells(cluster: &Cluster, namespace: &str) -> bool {
    cluster.namespace().as_deref() == Some(namespace) && cluster.labels().contains_key(WATCHING_LABEL)
}

/// Every app for a workload cluster has what its cluster tells it as a layer of its values. Where the platform does not write
/// that, it is made, and empty.
async fn tell_nothing(client: &Client, app: &App) -> Result<()> {
    let object = ObjectRef { name: app.cluster_values(), namespace: super::namespace(app) };
    let what =
        || format!("make ConfigMap {}/{}, which cluster {} has not made", object.namespace, object.name, app.cluster());
    if state::contents(client, ConfigKind::ConfigMap, &object).await?.is_some() {
        return Ok(());
    }
    let nothing = BTreeMap::from([("values".to_owned(), "{}\n".to_owned())]);
    let state = State::new(app.clone(), Catalog::default());
    state.make(client, ConfigKind::ConfigMap, &object, &nothing).await.with_context(what)?;
    let told = format!("ConfigMap {}/{} made, empty", object.namespace, object.name);
    output::progress(&format!("{told}: cluster {} tells its apps nothing of itself", app.cluster()));
    Ok(())
}

/// The namespace of an app for a workload cluster: its organization's, or one that is named as the cluster.
fn home(given: Option<&str>, cluster: &str, clusters: &[String]) -> Result<String> {
    let fits = |namespace: &str| namespace.starts_with(ORGANIZATION_PREFIX) || namespace == cluster;
    match given {
        Some(given) if fits(given) => Ok(given.to_owned()),
        Some(given) => bail!(
            "an app for cluster {cluster} cannot live in namespace {given}: it lives in an organization's ({ORGANIZATION_PREFIX}...), or in one that is called {cluster}"
        ),
        None => match clusters {
            [] => bail!(
                "there is no cluster {cluster} to be seen: see skep get clusters -A, or say where the App is to be with -n"
            ),
            [own] if fits(own) => Ok(own.clone()),
            [_] => Ok(cluster.to_owned()),
            many => bail!(
                "there is a cluster {cluster} in several namespaces ({}): say where the App is to be with -n",
                many.join(", ")
            ),
        },
    }
}

/// Makes the namespace of a cluster's apps, if it is not there.
async fn settle(client: &Client, name: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let what = || format!("make namespace {name}, where the apps of cluster {name} live");
    if namespaces.get_opt(name).await.map_err(plain).with_context(what)?.is_some() {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    match namespaces.create(&PostParams::default(), &namespace).await {
        Ok(_) => output::progress(&format!("namespace {name} made")),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(plain(error)).with_context(what),
    }
    Ok(())
}

/// As `kubectl gs template app` writes it; the kubeconfig is filled in by the Management API.
fn app(wish: &Wish<'_>) -> App {
    let mut labels = BTreeMap::new();
    if let Some(cluster) = wish.cluster {
        labels.insert(CLUSTER_LABEL.to_owned(), cluster.to_owned());
        if !wish.namespace.starts_with(ORGANIZATION_PREFIX) {
            labels.insert(VERSION_LABEL.to_owned(), OPERATOR_VERSION.to_owned());
        }
    } else {
        labels.insert(VERSION_LABEL.to_owned(), UNIQUE_VERSION.to_owned());
    }
    let mut app = App::new(
        wish.name,
        AppSpec {
            catalog: wish.catalog.to_owned(),
            catalog_namespace: wish.catalog_namespace.map(str::to_owned),
            kube_config: KubeConfig { in_cluster: wish.cluster.is_none(), ..KubeConfig::default() },
            name: wish.chart.to_owned(),
            namespace: wish.target_namespace.to_owned(),
            version: wish.version.to_owned(),
            ..AppSpec::default()
        },
    );
    app.metadata.namespace = Some(wish.namespace.to_owned());
    app.metadata.labels = Some(labels);
    if !wish.depends_on.is_empty() {
        app.annotations_mut().insert(DEPENDS_ON.to_owned(), wish.depends_on.join(","));
    }
    app
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(chart: &str, version: &str, latest: bool) -> AppCatalogEntry {
        serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "AppCatalogEntry",
            "metadata": {"name": format!("c-{chart}-{version}"), "labels": {"latest": latest.to_string()}},
            "spec": {"appName": chart, "appVersion": "7", "catalog": {"name": "c"}, "version": version},
        }))
        .unwrap()
    }

    fn picked(chart: &str, version: Option<&str>, offered: &[AppCatalogEntry]) -> Result<Option<String>, String> {
        let found = pick("c", chart, version, offered);
        found.map(|found| found.map(|entry| entry.spec.version.clone())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_newest_version_is_taken_and_one_that_is_not_offered_is_refused_by_naming_those_that_are() {
        let all = [entry("hello", "1.0.0", false), entry("hello", "1.1.0", true), entry("other", "3.0.0", true)];
        assert_eq!(picked("hello", None, &all), Ok(Some("1.1.0".into())));
        assert_eq!(picked("hello", Some("v1.0.0"), &all), Ok(Some("1.0.0".into())));
        let error = picked("hello", Some("9.9.9"), &all).unwrap_err();
        assert_eq!(error, "catalog c has no version 9.9.9 of chart hello: it has 1.0.0, 1.1.0");
        let error = picked("helo", None, &all).unwrap_err();
        assert_eq!(error, "catalog c offers no chart helo; see: skep catalog search helo");
    }

    #[test]
    fn a_version_may_be_there_where_a_catalog_lists_the_newest_only_or_nothing() {
        let many: Vec<_> = (0..VERSIONS_MAX).map(|patch| entry("hello", &format!("1.0.{patch}"), patch == 4)).collect();
        assert_eq!(picked("hello", Some("0.1.0"), &many), Ok(None));
        assert_eq!(picked("hello", Some("0.1.0"), &[]), Ok(None));
    }

    #[test]
    fn a_catalog_that_lists_what_was_tested_may_have_other_charts_and_versions() {
        let mut tested = entry("cilium", "1.19.6", true);
        tested.labels_mut().insert(TYPE_LABEL.to_owned(), COMMUNITY.to_owned());
        let all = [tested];
        assert_eq!(picked("cilium", None, &all), Ok(Some("1.19.6".into())));
        assert_eq!(picked("cilium", Some("1.20.0"), &all), Ok(None));
        assert_eq!(picked("other", Some("1.0.0"), &all), Ok(None));
    }

    #[test]
    fn the_tested_namespace_is_that_of_the_version_or_else_of_the_chart_and_forbids_no_other() {
        let mut tested = entry("cilium", "1.19.6", true);
        tested.annotations_mut().insert(TESTED_NAMESPACE.to_owned(), "kube-system".to_owned());
        let all = [entry("other", "1.0.0", true), tested];
        assert_eq!(tested_namespace("cilium", Some(&all[1]), &all), Some("kube-system"));
        assert_eq!(tested_namespace("cilium", None, &all), Some("kube-system"));
        assert_eq!(tested_namespace("other", Some(&all[0]), &all), None);
        assert_eq!(fixed_namespace(&all[1]), None);
    }

    #[test]
    fn apps_live_in_their_organization_or_in_the_namespace_of_their_cluster() {
        let home = |given: Option<&str>, clusters: &[&str]| {
            let clusters: Vec<String> = clusters.iter().map(ToString::to_string).collect();
            super::home(given, "demo", &clusters).map_err(|error| error.to_string())
        };
        assert_eq!(home(None, &["org-acme"]), Ok("org-acme".into()));
        assert_eq!(home(None, &["default"]), Ok("demo".into()));
        assert_eq!(home(Some("org-other"), &[]), Ok("org-other".into()));
        assert_eq!(home(Some("demo"), &["org-acme"]), Ok("demo".into()));
        assert!(home(Some("default"), &["default"]).unwrap_err().contains("cannot live in namespace default"));
        assert!(home(None, &[]).unwrap_err().starts_with("there is no cluster demo to be seen"));
        assert!(home(None, &["a", "b"]).unwrap_err().contains("several namespaces (a, b)"));
    }

    #[test]
    fn manifests_follow_from_what_is_asked_for() {
        let wish = Wish {
            name: "hello",
            chart: "hello-world",
            catalog: "default",
            catalog_namespace: None,
            version: "1.0.0",
            cluster: Some("demo"),
            namespace: "org-acme",
            target_namespace: "web",
            depends_on: &[],
        };
        let printed = |wish: &Wish<'_>, user: &serde_json::Value, secrets: &serde_json::Value| {
            let mut state = State::new(app(wish), Catalog::default());
            state.set_user(ConfigKind::ConfigMap, user.as_object().unwrap()).unwrap();
            state.set_user(ConfigKind::Secret, secrets.as_object().unwrap()).unwrap();
            let mut all = state.objects();
            all.push(serde_json::to_value(&state.app).unwrap());
            all.iter().map(|object| serde_saphyr::to_string(object).unwrap()).collect::<Vec<_>>().join("---\n")
        };
        insta::assert_snapshot!("organization", printed(&wish, &json!({"replicas": 2}), &json!({"password": "p"})));
        let depends_on = ["cni".to_owned(), "dns".to_owned()];
        let own = Wish { namespace: "demo", depends_on: &depends_on, ..wish };
        insta::assert_snapshot!("cluster", printed(&own, &json!({}), &json!({})));
        let here = Wish { cluster: None, namespace: "giantswarm", catalog_namespace: Some("mine"), ..own };
        insta::assert_snapshot!("management", printed(&here, &json!({}), &json!({})));
    }
}
