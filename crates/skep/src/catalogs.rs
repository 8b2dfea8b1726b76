//! The catalogs that every installation has: `default`, whose charts are in this binary, the same as `cluster`, as `kubectl gs` calls
//! where charts of clusters are, and `upstream`, charts of others with values that make them fit (`charts/upstream/catalog.yaml`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use api::app::{AppCatalogEntry, Catalog, CatalogSpec, ConfigRefs, Repository};
use delivery::{
    app::values::{APP_VALUES, WITHOUT_CLUSTER_VALUES},
    catalog::{COMMUNITY, TESTED_NAMESPACE, TYPE_LABEL, only},
    embedded::{self, Beside, Embedded},
    repository::{Entry, grant::CATALOG_LABEL},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use transport::Transport;

use crate::{
    chart_folder::{ChartFolder, opened},
    rights::MANAGER,
};

/// The files of a chart, by their path in it.
type Folder = &'static [(&'static str, &'static [u8])];

const CHARTS: &[(&str, Folder)] = include!(concat!(env!("OUT_DIR"), "/charts.rs"));
const UPSTREAM: &str = include_str!("../../../charts/upstream/catalog.yaml");
/// When the charts of this binary are said to have been made: the same bytes come of them wherever it is built.
const CREATED: Timestamp = Timestamp::constant(1_767_225_600, 0);
const NAMESPACE: &str = "default";
/// What of these catalogs is ours says so; a catalog of the same name that does not is left alone.
const OWNER: (&str, &str) = ("app.kubernetes.io/managed-by", MANAGER);

/// One chart of the upstream catalog, as it was tested.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tested {
    /// As people call it, which is not always the chart's name.
    name: String,
    repository: String,
    chart: String,
    version: String,
    namespace: String,
    description: String,
    #[serde(default)]
    values: serde_json::Map<String, serde_json::Value>,
    /// It refuses values that it does not know, so those of the cluster are kept from it.
    #[serde(default)]
    without_cluster_values: bool,
}

/// The charts of this binary.
pub fn embedded() -> Result<Embedded> {
    let files = |files: &[(&str, &'static [u8])]| {
        files.iter().map(|(path, data)| ((*path).to_owned(), Arc::from(*data))).collect()
    };
    let folders: BTreeMap<String, _> = CHARTS.iter().map(|(name, all)| ((*name).to_owned(), files(all))).collect();
    Embedded::new(&folders, CREATED).context("pack the charts of the catalog")
}

/// The charts of this binary and of these folders, found at their addresses by whoever fetches with this.
pub fn beside(folders: &[ChartFolder], others: Arc<dyn Transport>) -> Result<Arc<dyn Transport>> {
    Ok(Beside::new(embedded()?, opened(folders)?, others))
}

/// Writes the catalogs, unless there are others of these names.
pub async fn install(client: &Client) -> Result<()> {
    write(client, &tested()?).await
}

fn tested() -> Result<Vec<Tested>> {
    serde_saphyr::from_str(UPSTREAM).context("read the upstream catalog")
}

async fn write(client: &Client, tested: &[Tested]) -> Result<()> {
    for name in ["default", "cluster"] {
        apply(client, &own(name)).await?;
    }
    let (catalog, values) = upstream(tested)?;
    if is_anothers::<Catalog>(client, &catalog.name_any()).await? {
        return Ok(());
    }
    for map in values {
        patch(client, &map).await?;
    }
    let catalog = patch(client, &catalog).await?;
    offer(client, &catalog, tested).await
}

/// Offers of each chart the version that was tested, and nothing any more that is not in the file.
async fn offer(client: &Client, catalog: &Catalog, tested: &[Tested]) -> Result<()> {
    let mut kept = BTreeSet::new();
    for chart in tested {
        let entry = entry(catalog, chart);
        apply(client, &entry).await?;
        kept.insert(entry.name_any());
    }
    let entries = Api::<AppCatalogEntry>::namespaced(client.clone(), NAMESPACE);
    let own = ListParams::default().labels(&format!("{CATALOG_LABEL}={},{}={}", catalog.name_any(), OWNER.0, OWNER.1));
    let found = entries.list_metadata(&own).await.context("list what catalog upstream offers")?;
    for gone in found.items.iter().map(ResourceExt::name_any).filter(|name| !kept.contains(name)) {
        match entries.delete(&gone, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).with_context(|| format!("delete AppCatalogEntry {gone}")),
        }
    }
    Ok(())
}

/// A kind of which objects are written here.
trait Written:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned
{
}

impl<K> Written for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

/// Writes an object unless there is one of its name that is not ours.
async fn apply<K: Written>(client: &Client, object: &K) -> Result<Option<K>> {
    if is_anothers::<K>(client, &object.name_any()).await? {
        return Ok(None);
    }
    patch(client, object).await.map(Some)
}

async fn patch<K: Written>(client: &Client, object: &K) -> Result<K> {
    let (params, name) = (PatchParams::apply(MANAGER).force(), object.name_any());
    let written = Api::<K>::namespaced(client.clone(), NAMESPACE).patch(&name, &params, &Patch::Apply(object)).await;
    written.with_context(|| format!("write {} {name}", K::kind(&())))
}

async fn is_anothers<K: Written>(client: &Client, name: &str) -> Result<bool> {
    let found = Api::<K>::namespaced(client.clone(), NAMESPACE).get_metadata_opt(name).await;
    let found = found.with_context(|| format!("read {} {name}", K::kind(&())))?;
    Ok(found.is_some_and(|found| found.labels().get(OWNER.0).is_none_or(|owner| owner != OWNER.1)))
}

fn metadata(name: &str, kind: &str) -> ObjectMeta {
    let labels = [OWNER, ("application.giantswarm.io/catalog-visibility", "public"), (TYPE_LABEL, kind)];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        ..ObjectMeta::default()
    }
}

fn helm(url: &str) -> Repository {
    Repository { url: url.to_owned(), type_: "helm".to_owned() }
}

fn own(name: &str) -> Catalog {
    let spec = CatalogSpec {
        title: name.to_owned(),
        description: "Charts that come with Skep: clusters, their exporters, policies and resources.".to_owned(),
        repositories: vec![helm(embedded::URL)],
        storage: helm(embedded::URL),
        ..CatalogSpec::default()
    };
    Catalog { metadata: metadata(name, "stable"), spec, status: None }
}

/// What is offered of a chart. Its own `appVersion` is not known without its archive.
fn entry(catalog: &Catalog, tested: &Tested) -> AppCatalogEntry {
    let version = Entry {
        name: tested.chart.clone(),
        version: tested.version.clone(),
        description: tested.description.clone(),
        keywords: vec![tested.name.clone()],
        annotations: BTreeMap::from([(TESTED_NAMESPACE.to_owned(), tested.namespace.clone())]),
        ..Entry::default()
    };
    let mut entry = only(catalog, &version, CREATED);
    entry.labels_mut().insert(OWNER.0.to_owned(), OWNER.1.to_owned());
    entry
}

/// With the ConfigMaps that hold the values of its charts.
fn upstream(tested: &[Tested]) -> Result<(Catalog, Vec<ConfigMap>)> {
    let mut repositories: Vec<Repository> = Vec::new();
    let (mut maps, mut without) = (Vec::new(), Vec::new());
    for entry in tested {
        if entry.without_cluster_values {
            without.push(entry.chart.clone());
        }
        let repository = helm(&entry.repository);
        if !repositories.contains(&repository) {
            repositories.push(repository);
        }
        let name = format!("upstream-{}-values", entry.chart);
        let text =
            serde_saphyr::to_string(&entry.values).with_context(|| format!("write the values of {}", entry.chart))?;
        let labels = BTreeMap::from([(OWNER.0.to_owned(), OWNER.1.to_owned())]);
        maps.push(ConfigMap {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("values".to_owned(), text)])),
            ..ConfigMap::default()
        });
    }
    let storage = repositories.first().cloned().unwrap_or_default();
    let spec = CatalogSpec {
        title: "upstream".to_owned(),
        description: "Charts of others where they are published, with values for clusters on OpenStack.".to_owned(),
        config: None::<ConfigRefs>,
        repositories,
        storage,
        ..CatalogSpec::default()
    };
    let mut catalog = Catalog { metadata: metadata("upstream", COMMUNITY), spec, status: None };
    // All that it has is too much to be kept as objects: the indexes of others have thousands of versions. `offer` keeps what was tested.
    catalog.annotations_mut().insert(APP_VALUES.to_owned(), "upstream".to_owned());
    catalog.annotations_mut().insert(WITHOUT_CLUSTER_VALUES.to_owned(), without.join(","));
    Ok((catalog, maps))
}

#[cfg(test)]
mod tests {
    use apiserver::{Options, Server, User};
    use kube::api::PostParams;
    use serde_json::json;
    use store::Limits;

    use super::*;

    #[test]
    fn every_chart_of_the_folder_is_in_the_binary_and_the_upstream_catalog_is_whole() {
        let names: Vec<&str> = CHARTS.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"hello-world") && names.contains(&"cluster-openstack"), "{names:?}");
        let (catalog, maps) = upstream(&tested().unwrap()).unwrap();
        assert!(catalog.spec.repositories.len() > 3 && maps.len() > catalog.spec.repositories.len() / 2);
    }

    async fn client() -> (Server, Client) {
        let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let options = Options { crds, ..Options::default() };
        let server = Server::start(Arc::new(store::Embedded::memory(Limits::default())), options).await.unwrap();
        let client = Client::new(server.service_as(User::master("admin")), "default");
        (server, client)
    }

    #[tokio::test]
    async fn of_each_upstream_chart_the_tested_version_is_offered_with_its_namespace_and_owned_by_the_catalog() {
        let (_server, client) = client().await;
        install(&client).await.unwrap();
        let entries = Api::<AppCatalogEntry>::namespaced(client.clone(), NAMESPACE);
        let all = entries.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(all.len(), tested().unwrap().len());
        let catalog = Api::<Catalog>::namespaced(client.clone(), NAMESPACE).get("upstream").await.unwrap();
        let cilium = all.iter().find(|entry| entry.spec.app_name == "cilium").unwrap();
        assert_eq!(cilium.name_any(), format!("upstream-cilium-{}", cilium.spec.version));
        assert_eq!(cilium.annotations()[TESTED_NAMESPACE], "kube-system");
        assert_eq!(cilium.spec.restrictions, None, "another namespace is not forbidden");
        let label = |key: &str| cilium.labels()[key].as_str();
        assert_eq!((label("latest"), label(CATALOG_LABEL), label(TYPE_LABEL)), ("true", "upstream", COMMUNITY));
        assert_eq!(cilium.owner_references()[0].uid, catalog.uid().unwrap());
        let calico = all.iter().find(|entry| entry.spec.app_name == "tigera-operator").unwrap();
        assert_eq!(calico.spec.chart.as_ref().unwrap().keywords, Some(vec!["calico".to_owned()]));
        let before = cilium.resource_version();
        install(&client).await.unwrap();
        let again = entries.get(&cilium.name_any()).await.unwrap();
        assert_eq!(again.resource_version(), before, "what is there already is not written");
    }

    #[tokio::test]
    async fn what_the_file_has_no_more_is_not_offered_any_more_and_entries_of_others_stay() {
        let (_server, client) = client().await;
        install(&client).await.unwrap();
        let entries = Api::<AppCatalogEntry>::namespaced(client.clone(), NAMESPACE);
        let mut tested = tested().unwrap();
        tested.truncate(2);
        let taken = format!("upstream-{}-{}", tested[1].chart, tested[1].version);
        entries.delete(&taken, &DeleteParams::default()).await.unwrap();
        for name in [taken.as_str(), "upstream-mine-1.0.0"] {
            let theirs = json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "AppCatalogEntry",
                "metadata": {"name": name, "labels": {CATALOG_LABEL: "upstream"}},
                "spec": {"appName": "mine", "appVersion": "7", "catalog": {"name": "upstream", "namespace": "default"}, "version": "1.0.0",
                    "dateCreated": "2026-01-01T00:00:00Z", "dateUpdated": "2026-01-01T00:00:00Z"}});
            entries.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
        }
        write(&client, &tested).await.unwrap();
        let names: BTreeSet<String> =
            entries.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
        let own = format!("upstream-{}-{}", tested[0].chart, tested[0].version);
        assert_eq!(names, BTreeSet::from([own, taken.clone(), "upstream-mine-1.0.0".to_owned()]));
        assert_eq!(entries.get(&taken).await.unwrap().spec.app_name, "mine");
    }

    #[tokio::test]
    async fn an_upstream_catalog_of_somebody_else_is_left_alone_and_nothing_is_offered_of_it() {
        let (_server, client) = client().await;
        let catalogs = Api::<Catalog>::namespaced(client.clone(), NAMESPACE);
        let theirs =
            Catalog { metadata: ObjectMeta { labels: None, ..metadata("upstream", "stable") }, ..own("upstream") };
        catalogs.create(&PostParams::default(), &theirs).await.unwrap();
        install(&client).await.unwrap();
        assert_eq!(catalogs.get("upstream").await.unwrap().spec.title, theirs.spec.title);
        let entries = Api::<AppCatalogEntry>::namespaced(client, NAMESPACE);
        assert_eq!(entries.list(&ListParams::default()).await.unwrap().items.len(), 0);
    }
}
