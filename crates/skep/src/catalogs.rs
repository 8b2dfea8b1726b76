//! The catalogs that every installation has: `default`, whose charts are in this binary, the same as `cluster`, as `kubectl gs` calls
//! where charts of clusters are, and `upstream`, charts of others with values that make them fit (`charts/upstream/catalog.yaml`).

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result};
use api::app::{Catalog, CatalogSpec, ConfigRefs, Repository};
use delivery::{
    app::values::{APP_VALUES, WITHOUT_CLUSTER_VALUES},
    embedded::{self, Beside, Embedded},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
};
use serde::Deserialize;
use transport::Transport;

use crate::rights::MANAGER;

/// The files of a chart, by their path in it.
type Folder = &'static [(&'static str, &'static [u8])];

const CHARTS: &[(&str, Folder)] = include!(concat!(env!("OUT_DIR"), "/charts.rs"));
const UPSTREAM: &str = include_str!("../../../charts/upstream/catalog.yaml");
/// When the charts of this binary are said to have been made: the same bytes come of them wherever it is built.
const CREATED: Timestamp = Timestamp::constant(1_767_225_600, 0);
const NAMESPACE: &str = "default";
/// What of these catalogs is ours says so; a catalog of the same name that does not is left alone.
const OWNER: (&str, &str) = ("app.kubernetes.io/managed-by", MANAGER);

/// One chart of the upstream catalog.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[expect(dead_code, reason = "for whoever reads the file")]
    name: String,
    repository: String,
    chart: String,
    #[expect(dead_code, reason = "apps name the version that they want")]
    version: String,
    #[expect(dead_code, reason = "apps name the namespace that they want")]
    namespace: String,
    #[serde(default)]
    values: serde_json::Map<String, serde_json::Value>,
    /// It refuses values that it does not know, so those of the cluster are kept from it.
    #[serde(default)]
    without_cluster_values: bool,
}

/// The charts of this binary, found at their address by whoever fetches with this.
pub fn beside(others: Arc<dyn Transport>) -> Result<Arc<dyn Transport>> {
    let files = |files: &[(&str, &'static [u8])]| {
        files.iter().map(|(path, data)| ((*path).to_owned(), Arc::from(*data))).collect()
    };
    let folders: BTreeMap<String, _> = CHARTS.iter().map(|(name, all)| ((*name).to_owned(), files(all))).collect();
    let catalog = Embedded::new(&folders, CREATED).context("pack the charts of the catalog")?;
    Ok(Beside::new(catalog, others))
}

/// Writes the catalogs, unless there are others of these names.
pub async fn install(client: &Client) -> Result<()> {
    let catalogs = Api::<Catalog>::namespaced(client.clone(), NAMESPACE);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let params = PatchParams::apply(MANAGER).force();
    let (upstream, values) = upstream()?;
    for (catalog, values) in [(own("default"), Vec::new()), (own("cluster"), Vec::new()), (upstream, values)] {
        let name = catalog.name_any();
        let found = catalogs.get_metadata_opt(&name).await.with_context(|| format!("read catalog {name}"))?;
        if found.is_some_and(|found| found.labels().get(OWNER.0).is_none_or(|owner| owner != OWNER.1)) {
            continue;
        }
        for map in values {
            maps.patch(&map.name_any(), &params, &Patch::Apply(&map))
                .await
                .with_context(|| format!("write {}", map.name_any()))?;
        }
        catalogs
            .patch(&name, &params, &Patch::Apply(&catalog))
            .await
            .with_context(|| format!("write catalog {name}"))?;
    }
    Ok(())
}

fn metadata(name: &str, kind: &str) -> ObjectMeta {
    let labels = [
        OWNER,
        ("application.giantswarm.io/catalog-visibility", "public"),
        ("application.giantswarm.io/catalog-type", kind),
    ];
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

/// With the ConfigMaps that hold the values of its charts.
fn upstream() -> Result<(Catalog, Vec<ConfigMap>)> {
    let entries: Vec<Entry> = serde_saphyr::from_str(UPSTREAM).context("read the upstream catalog")?;
    let mut repositories: Vec<Repository> = Vec::new();
    let (mut maps, mut without) = (Vec::new(), Vec::new());
    for entry in entries {
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
    let mut catalog = Catalog { metadata: metadata("upstream", "community"), spec, status: None };
    // What it offers is too much to be kept as objects: the indexes of others have thousands of versions.
    catalog.annotations_mut().insert(APP_VALUES.to_owned(), "upstream".to_owned());
    catalog.annotations_mut().insert(WITHOUT_CLUSTER_VALUES.to_owned(), without.join(","));
    Ok((catalog, maps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chart_of_the_folder_is_in_the_binary_and_the_upstream_catalog_is_whole() {
        let names: Vec<&str> = CHARTS.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"hello-world") && names.contains(&"cluster-openstack"), "{names:?}");
        let (catalog, maps) = upstream().unwrap();
        assert!(catalog.spec.repositories.len() > 3 && maps.len() > catalog.spec.repositories.len() / 2);
    }
}
