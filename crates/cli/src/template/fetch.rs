//! Charts that are neither folders nor archives: of a registry, or of a catalog.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use api::app::{App, AppSpec};
use delivery::repository::{Access, Repositories, grant};
use helm::chart::{Chart, archive};
use kube::ResourceExt;

use crate::{Charts, app};

/// Where a chart is fetched from.
#[derive(clap::Args)]
pub struct Place {
    /// Catalog that the chart is of
    #[arg(long)]
    catalog: Option<String>,
    /// Namespace of the catalog [default: default, then giantswarm]
    #[arg(long, value_name = "NAMESPACE", requires = "catalog")]
    catalog_namespace: Option<String>,
    /// Version of the chart [default: the newest of the catalog, or of the registry]
    #[arg(long)]
    version: Option<String>,
    /// Kubeconfig of the management cluster that has the catalog [default: $KUBECONFIG, then ~/.skep/kubeconfig, then ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "catalog")]
    kubeconfig: Option<PathBuf>,
}

impl Place {
    /// None where the chart is on this machine.
    pub async fn fetch(&self, chart: &str, charts: Charts) -> Result<Option<Chart>> {
        match &self.catalog {
            Some(catalog) => self.of_catalog(catalog, chart, charts).await.map(Some),
            None if grant::is_registry(chart) => self.of_registry(chart, charts).await.map(Some),
            None if self.version.is_some() => {
                bail!(
                    "--version {} is for charts of a catalog (--catalog) or a registry (oci://), and {chart} is neither",
                    told(self)
                )
            }
            None => Ok(None),
        }
    }

    async fn of_catalog(&self, catalog: &str, chart: &str, charts: Charts) -> Result<Chart> {
        if grant::is_registry(chart) || chart.contains('/') {
            bail!("{chart} is no name of a chart in catalog {catalog}: write one of skep catalog show {catalog}");
        }
        let client = crate::connect(self.kubeconfig.as_deref()).await?;
        let found = app::catalog(&client, catalog, self.catalog_namespace.as_deref()).await?;
        let offered = app::offered(&client, &found).await?;
        let entry = app::pick(catalog, chart, self.version.as_deref(), &offered)?;
        let version = entry.map(|entry| entry.spec.version.clone()).or_else(|| self.version.clone());
        let Some(version) = version else {
            bail!(
                "catalog {catalog} lists no versions of {chart}: see skep catalog show {catalog}, or pass one with --version"
            );
        };
        let spec = AppSpec {
            catalog: catalog.to_owned(),
            catalog_namespace: found.namespace(),
            name: chart.to_owned(),
            version,
            ..AppSpec::default()
        };
        app::fetch(&client, &App::new("release-name", spec), &found, charts).await
    }

    /// As anybody would: credentials are a catalog's.
    async fn of_registry(&self, url: &str, charts: Charts) -> Result<Chart> {
        let (access, all) =
            (Access { plain_http: grant::is_on_this_machine(url), ..Access::new(charts()?) }, Repositories::default());
        let what = || format!("fetch the chart {url}");
        let reference = match versioned(url, self.version.as_deref())? {
            Some(reference) => reference,
            None => {
                let (place, name) = url.trim_end_matches('/').rsplit_once('/').unwrap_or_default();
                let versions = all.versions(&access, place, name).await.with_context(what)?;
                // Pre-releases are taken by name only.
                let is_final = |version: &&String| !version.split('+').next().unwrap_or_default().contains('-');
                let Some(newest) = versions.iter().find(is_final) else {
                    bail!("{url} has no version that is no pre-release: pass one with --version");
                };
                format!("{url}:{newest}")
            }
        };
        let fetched = all.archive(&access, &reference, None).await.with_context(what)?;
        let files = archive::unpack(&fetched.archive).with_context(what)?;
        Chart::load(&files).with_context(what)
    }
}

fn told(place: &Place) -> &str {
    place.version.as_deref().unwrap_or_default()
}

/// The address with its version, if it is told, there or beside it.
fn versioned(url: &str, version: Option<&str>) -> Result<Option<String>> {
    let last = url.rsplit('/').next().unwrap_or_default();
    match (last.contains([':', '@']), version) {
        (true, None) => Ok(Some(url.to_owned())),
        (true, Some(version)) => bail!("{url} names a version already, beside --version {version}"),
        (false, Some(version)) => Ok(Some(format!("{}:{version}", url.trim_end_matches('/')))),
        (false, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_in_the_address_or_beside_it() {
        let of = |url: &str, version: Option<&str>| versioned(url, version).map_err(|error| error.to_string());
        assert_eq!(of("oci://r.test:5000/a/b:1.0.0", None), Ok(Some("oci://r.test:5000/a/b:1.0.0".into())));
        assert_eq!(of("oci://r.test:5000/a/b", Some("1.0.0")), Ok(Some("oci://r.test:5000/a/b:1.0.0".into())));
        assert_eq!(of("oci://r.test:5000/a/b", None), Ok(None));
        let digest = format!("oci://r.test/b@sha256:{}", "0".repeat(64));
        assert_eq!(of(&digest, None), Ok(Some(digest.clone())));
        let both = of("oci://r.test/b:1", Some("2"));
        assert_eq!(both, Err("oci://r.test/b:1 names a version already, beside --version 2".into()));
    }

    #[tokio::test]
    async fn a_version_of_what_is_on_this_machine_is_refused_and_nobody_is_asked() {
        let nobody: Charts = || bail!("nobody is to be asked");
        let place = |catalog: Option<&str>, version: Option<&str>| Place {
            catalog: catalog.map(str::to_owned),
            catalog_namespace: None,
            version: version.map(str::to_owned),
            kubeconfig: None,
        };
        assert!(place(None, None).fetch("./hello", nobody).await.unwrap().is_none());
        let error = place(None, Some("1")).fetch("./hello", nobody).await.err().unwrap().to_string();
        assert!(error.starts_with("--version 1 is for charts of a catalog"), "{error}");
        let error = place(Some("default"), None).fetch("a/hello", nobody).await.err().unwrap().to_string();
        assert!(error.starts_with("a/hello is no name of a chart in catalog default"), "{error}");
    }
}
