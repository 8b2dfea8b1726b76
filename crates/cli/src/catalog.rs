//! `skep catalog`: what apps are installed from.

mod mirror;
mod serve;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use api::app::{AppCatalogEntry, Catalog, CatalogSpec, Repository};
use delivery::{
    catalog::{COMMUNITY, LATEST_LABEL, TYPE_LABEL},
    repository::grant::{self, CATALOG_LABEL},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};

pub use self::serve::Arguments as Serve;
use crate::{
    Charts, DONE, NOT_FOUND, Output,
    app::{events_by_time, fields, plain, seen_at},
    output,
};

const VISIBILITY_LABEL: &str = "application.giantswarm.io/catalog-visibility";
/// The word of a description that is shown in a table is cut after so many characters.
const DESCRIPTION_CHARS_MAX: usize = 60;

#[derive(clap::Args)]
pub struct Catalogs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List catalogs with where they are and what is wrong with them
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a catalog: its repositories, its charts with their newest versions, what was wrong with its index
    Show(Show),
    /// Look for charts by name, description or keyword
    Search(Search),
    /// Make a catalog of a repository
    Add(Add),
    /// Copy charts of a catalog to a folder or a registry of one's own
    Mirror(mirror::Arguments),
    /// Serve charts to others, as a repository of Helm over HTTP
    Serve(serve::Arguments),
}

impl Catalogs {
    /// What is to be served, if that is what is asked for.
    pub fn served(&self) -> Option<&serve::Arguments> {
        match &self.what {
            What::Serve(arguments) => Some(arguments),
            _ => None,
        }
    }
}

/// Where catalogs are.
#[derive(clap::Args)]
struct Place {
    /// Kubeconfig of the management cluster [default: $KUBECONFIG, then ~/.skep/kubeconfig, then ~/.kube/config]
    #[arg(long)]
    kubeconfig: Option<std::path::PathBuf>,
    /// Namespace of the catalogs [default: all; where a catalog is made: default]
    #[arg(short, long)]
    namespace: Option<String>,
}

impl Place {
    async fn client(&self) -> Result<Client> {
        crate::connect(self.kubeconfig.as_deref()).await
    }

    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    /// The catalogs, each with what it offers and the last warning of it.
    async fn seen(&self, client: &Client, name: Option<&str>) -> Result<Vec<Seen>> {
        let params = name
            .map_or_else(ListParams::default, |name| ListParams::default().fields(&format!("metadata.name={name}")));
        let catalogs = self.api::<Catalog>(client).list(&params).await.map_err(plain).context("list catalogs")?;
        let labels = name.map_or_else(|| CATALOG_LABEL.to_owned(), |name| format!("{CATALOG_LABEL}={name}"));
        let params = ListParams::default().labels(&labels);
        let entries = self.api::<AppCatalogEntry>(client).list(&params).await;
        let entries = entries.map_err(plain).context("list what catalogs offer")?.items;
        let params = ListParams::default().fields("involvedObject.kind=Catalog");
        // Who may not see events sees the rest.
        let events = self.api::<Event>(client).list(&params).await.map_or_else(|_| Vec::new(), |found| found.items);
        let events = events_by_time(events);
        let seen = |catalog: Catalog| {
            let is_of = |entry: &&AppCatalogEntry| {
                entry.labels().get(CATALOG_LABEL) == catalog.metadata.name.as_ref()
                    && entry.namespace() == catalog.namespace()
            };
            Seen {
                entries: entries.iter().filter(is_of).cloned().collect(),
                event: events.iter().rfind(|event| event.involved_object.uid == catalog.uid()).cloned(),
                catalog,
            }
        };
        Ok(catalogs.items.into_iter().map(seen).collect())
    }
}

/// A catalog with all that is known of it.
struct Seen {
    catalog: Catalog,
    entries: Vec<AppCatalogEntry>,
    /// What was told of it last.
    event: Option<Event>,
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// In all namespaces, as without -n
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
struct Show {
    /// Name of the catalog
    name: String,
    #[command(flatten)]
    place: Place,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
struct Search {
    /// What names, descriptions or keywords have in them; everything if nothing is said
    text: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Of this catalog only
    #[arg(long)]
    catalog: Option<String>,
    /// All versions that are listed, not the newest only
    #[arg(long)]
    versions: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
struct Add {
    /// Name of the catalog
    name: String,
    /// Where its charts are: https://, http:// or oci://
    #[arg(long)]
    url: String,
    /// It is a registry (as an address with oci:// says by itself)
    #[arg(long)]
    oci: bool,
    /// Title for people [default: the name]
    #[arg(long)]
    title: Option<String>,
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    place: Place,
}

pub async fn run(catalogs: Catalogs, charts: Charts) -> Result<u8> {
    match catalogs.what {
        What::List(arguments) => list(arguments).await,
        What::Show(arguments) => show(arguments).await,
        What::Search(arguments) => search(arguments).await,
        What::Add(arguments) => add(arguments).await,
        What::Mirror(arguments) => mirror::run(arguments, charts).await,
        What::Serve(_) => bail!("this program has no ports: charts are served by skep"),
    }
}

async fn list(arguments: List) -> Result<u8> {
    let client = arguments.place.client().await?;
    let seen = arguments.place.seen(&client, None).await?;
    if arguments.output != Output::Table {
        let items: Vec<&Catalog> = seen.iter().map(|seen| &seen.catalog).collect();
        let list = serde_json::json!({"apiVersion": Catalog::api_version(&()), "kind": "CatalogList", "items": items});
        output::document(&list, arguments.output)?;
        return Ok(DONE);
    }
    if seen.is_empty() {
        output::progress("No catalogs found; one is made with: skep catalog add NAME --url URL");
        return Ok(DONE);
    }
    output::line(&listed(&seen));
    Ok(DONE)
}

fn listed(seen: &[Seen]) -> String {
    let mut rows = vec![["NAMESPACE", "NAME", "TYPE", "REPOSITORY", "CHARTS", "PROBLEM"].map(str::to_owned).to_vec()];
    for one in seen {
        let catalog = &one.catalog;
        let kind = catalog.labels().get(TYPE_LABEL).map(String::as_str).unwrap_or("-");
        rows.push(vec![
            catalog.namespace().unwrap_or_default(),
            catalog.name_any(),
            kind.to_owned(),
            repositories(catalog).into_iter().next().map(|place| place.url.clone()).unwrap_or_default(),
            if kind == COMMUNITY && one.entries.is_empty() {
                "-".to_owned()
            } else {
                charts(&one.entries).len().to_string()
            },
            problem(one).and_then(|event| event.reason.clone()).unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    output::table(&rows)
}

/// The last that was told of it, if it is a warning: the controller tells when it has passed.
fn problem(seen: &Seen) -> Option<&Event> {
    seen.event.as_ref().filter(|event| event.type_.as_deref() == Some("Warning"))
}

/// The storage first, and what mirrors it.
fn repositories(catalog: &Catalog) -> Vec<&Repository> {
    let mut found: Vec<&Repository> = Vec::new();
    for place in std::iter::once(&catalog.spec.storage).chain(&catalog.spec.repositories) {
        if !place.url.is_empty() && found.iter().all(|known| known.url != place.url) {
            found.push(place);
        }
    }
    found
}

/// Versions by chart, the newest first.
fn charts<'e>(entries: impl IntoIterator<Item = &'e AppCatalogEntry>) -> BTreeMap<&'e str, Vec<&'e AppCatalogEntry>> {
    let mut charts: BTreeMap<&str, Vec<&AppCatalogEntry>> = BTreeMap::new();
    for entry in entries {
        charts.entry(&entry.spec.app_name).or_default().push(entry);
    }
    let is_latest = |entry: &AppCatalogEntry| entry.labels().get(LATEST_LABEL).is_some_and(|latest| latest == "true");
    let made = |entry: &AppCatalogEntry| entry.spec.date_created.as_ref().map(|at| at.0);
    for versions in charts.values_mut() {
        versions.sort_by_key(|entry| (std::cmp::Reverse((is_latest(entry), made(entry))), entry.name_any()));
    }
    charts
}

async fn show(arguments: Show) -> Result<u8> {
    let client = arguments.place.client().await?;
    let mut seen = arguments.place.seen(&client, Some(&arguments.name)).await?;
    let Some(one) = seen.pop() else {
        output::progress(&format!("there is no catalog {}; see: skep catalog list", arguments.name));
        return Ok(NOT_FOUND);
    };
    if !seen.is_empty() {
        bail!("there is a catalog {} in several namespaces: pass one with -n", arguments.name);
    }
    if arguments.output == Output::Table {
        output::text(&shown(&one, Timestamp::now()));
    } else {
        output::document(&one.catalog, arguments.output)?;
    }
    Ok(DONE)
}

fn shown(seen: &Seen, now: Timestamp) -> String {
    let catalog = &seen.catalog;
    let mut rows = vec![
        ("Name".to_owned(), catalog.name_any()),
        ("Namespace".to_owned(), catalog.namespace().unwrap_or_default()),
        ("Title".to_owned(), catalog.spec.title.clone()),
    ];
    if !catalog.spec.description.is_empty() {
        rows.push(("Description".to_owned(), catalog.spec.description.clone()));
    }
    for place in repositories(catalog) {
        rows.push(("Repository".to_owned(), format!("{} ({})", place.url, place.type_)));
    }
    if let Some(config) = catalog.spec.config.as_ref() {
        for (word, object) in [("ConfigMap", &config.config_map), ("Secret", &config.secret)] {
            let object = object.as_ref().filter(|object| !object.name.is_empty());
            rows.extend(object.map(|at| ("Values".to_owned(), format!("{word} {}/{}", at.namespace, at.name))));
        }
    }
    if let Some(event) = problem(seen) {
        let ago = seen_at(event).map(|at| output::age(now.duration_since(at).as_secs()));
        let (reason, message) = (event.reason.clone().unwrap_or_default(), event.message.clone().unwrap_or_default());
        rows.push(("Problem".to_owned(), format!("{reason}, {} ago: {message}", ago.unwrap_or_default())));
    }
    let charts = charts(&seen.entries);
    let is_community = catalog.labels().get(TYPE_LABEL).is_some_and(|kind| kind == COMMUNITY);
    let mut all = fields(&rows);
    if charts.is_empty() {
        let told =
            if is_community { "not listed: name chart and version when you install one" } else { "none are known" };
        all.push_str(&format!("\nCharts: {told}\n"));
        return all;
    }
    let mut table = vec![["CHART", "NEWEST", "APP VERSION", "OTHER VERSIONS"].map(str::to_owned).to_vec()];
    for (chart, versions) in charts {
        let Some((newest, others)) = versions.split_first() else { continue };
        let others: Vec<&str> = others.iter().map(|entry| entry.spec.version.as_str()).collect();
        let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
        table.push(vec![chart.to_owned(), newest.spec.version.clone(), or_dash(&newest.spec.app_version), others]);
    }
    all.push_str(&format!("\n{}\n", output::table(&table)));
    if is_community {
        all.push_str("\nIts repositories have more, which is not listed: name chart and version when you install it\n");
    }
    all
}

async fn search(arguments: Search) -> Result<u8> {
    let client = arguments.place.client().await?;
    let seen = arguments.place.seen(&client, arguments.catalog.as_deref()).await?;
    if let Some(catalog) = arguments.catalog.as_ref().filter(|_| seen.is_empty()) {
        output::progress(&format!("there is no catalog {catalog}; see: skep catalog list"));
        return Ok(NOT_FOUND);
    }
    let entries: Vec<AppCatalogEntry> = seen.into_iter().flat_map(|seen| seen.entries).collect();
    let found = found(&entries, arguments.text.as_deref().unwrap_or_default(), arguments.versions);
    if arguments.output != Output::Table {
        output::document(&found, arguments.output)?;
        return Ok(if found.is_empty() { NOT_FOUND } else { DONE });
    }
    if found.is_empty() {
        output::progress("No chart found.");
        return Ok(NOT_FOUND);
    }
    let mut rows = vec![["CATALOG", "CHART", "VERSION", "APP VERSION", "DESCRIPTION"].map(str::to_owned).to_vec()];
    for entry in found {
        let description = entry.spec.chart.as_ref().and_then(|chart| chart.description.clone()).unwrap_or_default();
        rows.push(vec![
            entry.spec.catalog.name.clone(),
            entry.spec.app_name.clone(),
            entry.spec.version.clone(),
            or_dash(&entry.spec.app_version),
            cut(&description),
        ]);
    }
    output::line(&output::table(&rows));
    Ok(DONE)
}

/// An empty cell would be read as the next one.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The first line, and of it so much as goes into a table.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= DESCRIPTION_CHARS_MAX {
        return line.to_owned();
    }
    let start: String = line.chars().take(DESCRIPTION_CHARS_MAX - 3).collect();
    format!("{}...", start.trim_end())
}

/// Charts that have the text in what is said of them, whatever its case; of each catalog and chart the newest version, or all.
fn found<'e>(entries: &'e [AppCatalogEntry], text: &str, all: bool) -> Vec<&'e AppCatalogEntry> {
    let text = text.to_lowercase();
    let fits = |entry: &AppCatalogEntry| {
        let chart = entry.spec.chart.clone().unwrap_or_default();
        let said = [Some(entry.spec.app_name.clone()), chart.description];
        let said = said.into_iter().flatten().chain(chart.keywords.unwrap_or_default());
        said.into_iter().any(|said| said.to_lowercase().contains(&text))
    };
    let catalogs: BTreeSet<(String, String)> =
        entries.iter().map(|entry| (entry.spec.catalog.name.clone(), entry.spec.catalog.namespace.clone())).collect();
    let mut found = Vec::new();
    for (name, namespace) in catalogs {
        let is_of =
            |entry: &&AppCatalogEntry| entry.spec.catalog.name == name && entry.spec.catalog.namespace == namespace;
        for versions in charts(entries.iter().filter(is_of)).into_values() {
            let fitting = versions.into_iter().filter(|entry| fits(entry));
            found.extend(fitting.take(if all { usize::MAX } else { 1 }));
        }
    }
    found
}

async fn add(arguments: Add) -> Result<u8> {
    let catalog = catalog(&arguments)?;
    let client = arguments.place.client().await?;
    let (name, namespace) = (&arguments.name, catalog.namespace().unwrap_or_default());
    let made = Api::<Catalog>::namespaced(client, &namespace).create(&PostParams::default(), &catalog).await;
    match made {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            bail!("catalog {namespace}/{name} exists already: see skep catalog show {name}");
        }
        Err(error) => return Err(plain(error)).with_context(|| format!("make catalog {namespace}/{name}")),
    }
    output::line(&format!("catalog {namespace}/{name} made; what it has is shown by: skep catalog show {name}"));
    output::progress(&format!(
        "credentials, if it wants any, go into the Secret {} beside it (docs/decisions/repositories.md)",
        grant::secret_name(name)
    ));
    Ok(DONE)
}

fn catalog(arguments: &Add) -> Result<Catalog> {
    let url = arguments.url.trim();
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!("--url {url} is no address of a repository: write https://..., http://... or oci://...");
    };
    let is_registry = scheme == "oci";
    match scheme {
        "oci" | "https" | "http" if !rest.trim_matches('/').is_empty() => {}
        "oci" | "https" | "http" => bail!("--url {url} names no host"),
        _ => bail!("--url {url} is no address of a repository: write https://..., http://... or oci://..."),
    }
    if rest.split('/').next().is_some_and(|host| host.contains('@')) {
        bail!(
            "--url has credentials in it, which everybody would see: put them into the Secret {}",
            grant::secret_name(&arguments.name)
        );
    }
    if arguments.oci && !is_registry {
        bail!("--oci is for registries, whose address begins with oci://, not {scheme}://");
    }
    let kind = if is_registry { "oci" } else { "helm" };
    let place = Repository { url: url.to_owned(), type_: kind.to_owned() };
    let spec = CatalogSpec {
        config: None,
        description: arguments.description.clone(),
        logo_url: String::new(),
        repositories: vec![place.clone()],
        storage: place,
        title: arguments.title.clone().unwrap_or_else(|| arguments.name.clone()),
    };
    let labels = [(TYPE_LABEL, "stable"), (VISIBILITY_LABEL, "public")];
    let metadata = ObjectMeta {
        name: Some(arguments.name.clone()),
        namespace: Some(arguments.place.namespace.clone().unwrap_or_else(|| "default".to_owned())),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        ..ObjectMeta::default()
    };
    Ok(Catalog { metadata, spec, status: None })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(catalog: &str, chart: &str, version: &str, latest: bool, description: &str) -> AppCatalogEntry {
        serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "AppCatalogEntry",
            "metadata": {"name": format!("{catalog}-{chart}-{version}"), "labels": {"latest": latest.to_string()}},
            "spec": {"appName": chart, "appVersion": "7", "catalog": {"name": catalog, "namespace": "default"}, "version": version,
                "chart": {"apiVersion": "v2", "description": description, "keywords": ["web"]},
                "dateCreated": format!("2026-01-0{}T00:00:00Z", version.len() - 4)},
        }))
        .unwrap()
    }

    fn entries() -> Vec<AppCatalogEntry> {
        vec![
            entry("default", "hello", "1.0.0", false, "Says hello"),
            entry("default", "hello", "1.10.0", true, "Says hello"),
            entry("default", "logs", "2.0.0", true, "Collects what is said"),
            entry("mine", "hello", "3.0.0", true, "Another"),
        ]
    }

    fn seen(event: &Value) -> Seen {
        let catalog = serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog",
            "metadata": {"name": "default", "namespace": "default", "labels": {TYPE_LABEL: "stable"}},
            "spec": {"title": "The default", "description": "d", "logoURL": "", "storage": {"URL": "https://a.test", "type": "helm"},
                "repositories": [{"URL": "https://a.test", "type": "helm"}, {"URL": "oci://b.test/c", "type": "oci"}],
                "config": {"configMap": {"name": "v", "namespace": "giantswarm"}}},
        }));
        let event = Some(event.clone()).filter(|event| !event.is_null());
        let entries = entries().into_iter().filter(|entry| entry.spec.catalog.name == "default").collect();
        Seen { catalog: catalog.unwrap(), entries, event: event.map(|event| serde_json::from_value(event).unwrap()) }
    }

    #[test]
    fn a_catalog_is_told_with_its_charts_and_with_what_is_wrong() {
        let warning = json!({"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "IndexUnavailable",
            "message": "https://a.test/index.yaml: there was no answer", "lastTimestamp": "2026-03-01T12:00:00Z"});
        let now = "2026-03-01T12:05:00Z".parse().unwrap();
        insta::assert_snapshot!(format!(
            "{}\n{}",
            shown(&seen(&warning), now),
            listed(&[seen(&warning), seen(&json!(null))])
        ));
    }

    #[test]
    fn charts_are_found_by_name_description_and_keyword_and_the_newest_is_told() {
        let entries = entries();
        let told = |text: &str, all| -> Vec<String> {
            found(&entries, text, all).iter().map(|entry| entry.name_any()).collect()
        };
        assert_eq!(told("HELLO", false), ["default-hello-1.10.0", "mine-hello-3.0.0"]);
        assert_eq!(told("said", false), ["default-logs-2.0.0"]);
        assert_eq!(told("hello", true), ["default-hello-1.10.0", "default-hello-1.0.0", "mine-hello-3.0.0"]);
        assert_eq!(told("web", false).len(), 3);
        assert_eq!(told("nothing", true), [""; 0]);
        assert_eq!(cut(&"x".repeat(DESCRIPTION_CHARS_MAX)).len(), DESCRIPTION_CHARS_MAX);
        assert!(cut(&"x".repeat(DESCRIPTION_CHARS_MAX + 1)).ends_with("x..."));
    }

    #[test]
    fn a_catalog_is_made_of_an_address_and_what_is_none_is_refused() {
        let made = |url: &str, oci| {
            let place = Place { kubeconfig: None, namespace: None };
            let add = Add { name: "mine".into(), url: url.into(), oci, title: None, description: String::new(), place };
            catalog(&add).map(|catalog| catalog.spec.storage.type_).map_err(|error| error.to_string())
        };
        assert_eq!(made("https://a.test/charts", false), Ok("helm".into()));
        assert_eq!(made("oci://a.test/charts", true), Ok("oci".into()));
        assert_eq!(made("oci://a.test/charts", false), Ok("oci".into()));
        for (url, oci, why) in [
            ("a.test/charts", false, "is no address"),
            ("ftp://a.test", false, "is no address"),
            ("https:///", false, "names no host"),
            ("https://u:p@a.test", false, "has credentials in it"),
            ("https://a.test", true, "--oci is for registries"),
        ] {
            let error = made(url, oci).unwrap_err();
            assert!(error.contains(why) && !error.contains("u:p"), "{url}: {error}");
        }
    }
}
