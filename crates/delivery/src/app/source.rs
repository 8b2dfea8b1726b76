//! Where the chart of an app is. Source: giantswarm/app-operator, the chart resource.

use api::app::{App, Catalog, Chart, Quoted};
use kube::ResourceExt;

use super::status::Failure;
use crate::repository::{Access, Class, Error, Missing, Repositories, joined};

const VISIBILITY_LABEL: &str = "application.giantswarm.io/catalog-visibility";
const NO_INDEX: &str = "index-not-found";
/// The status of a Chart whose archive is not to be had.
pub const PULL_FAILED: &str = "chart-pull-failed";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub url: String,
    /// As the repository writes it.
    pub version: String,
}

/// How repositories are asked.
#[derive(Clone, Copy)]
pub struct Way<'w> {
    pub repositories: &'w Repositories,
    /// How the catalog's repository at an address is reached, or what of its credentials cannot be used.
    pub access: &'w (dyn Fn(&str) -> Result<Access, String> + Sync),
}

/// The repositories to try, the best first: the one that the Chart has its archive from, or the next if that failed.
pub fn repositories(catalog: &Catalog, chart: Option<&Chart>) -> Vec<String> {
    let mut urls: Vec<String> = catalog.spec.repositories.iter().map(|repository| repository.url.clone()).collect();
    if urls.is_empty() {
        return vec![catalog.spec.storage.url.clone()];
    }
    let used = chart.and_then(|chart| urls.iter().position(|url| chart.spec.tarball_url.contains(url.as_str())));
    if let (Some(used), Some(chart)) = (used, chart) {
        let failed = chart.status.as_ref().is_some_and(|status| status.release.status == PULL_FAILED);
        let first = (used + usize::from(failed)) % urls.len();
        urls.rotate_left(first);
    }
    if is_internal(catalog) {
        urls.truncate(1);
    }
    urls
}

fn is_internal(catalog: &Catalog) -> bool {
    catalog.labels().get(VISIBILITY_LABEL).is_some_and(|visibility| visibility == "internal")
}

/// The address that follows from name and version where nothing lists them.
fn predicted(repository: &str, name: &str, version: &str) -> String {
    let (repository, version) = (repository.trim_end_matches('/'), version.strip_prefix('v').unwrap_or(version));
    match repository.starts_with("oci://") {
        true => format!("{repository}/{name}:{version}"),
        false => format!("{repository}/{name}-{version}.tgz"),
    }
}

/// Whether what the Chart has now is still what the app wants, so that no index need be asked.
fn holds(app: &App, chart: &Chart, repository: &str) -> bool {
    let wanted = [app.spec.version.as_str(), app.chart_version()];
    let failed = chart.status.as_ref().is_some_and(|status| status.release.status == PULL_FAILED);
    let url = &chart.spec.tarball_url;
    !failed
        && wanted.contains(&chart.spec.version.as_str())
        && url.starts_with(repository)
        && url.contains(app.spec.name.as_str())
}

/// Finds the archive.
///
/// # Errors
/// The status of an app whose chart is not to be found, by the last repository that was asked.
pub async fn find(way: Way<'_>, app: &App, catalog: &Catalog, chart: Option<&Chart>) -> Result<Source, Failure> {
    let mut failures = Vec::new();
    for repository in repositories(catalog, chart) {
        if repository.is_empty() {
            continue;
        }
        if is_internal(catalog) || repository.starts_with("oci://") {
            let url = predicted(&repository, &app.spec.name, app.chart_version());
            return Ok(Source { url, version: app.chart_version().to_owned() });
        }
        if let Some(chart) = chart.filter(|chart| holds(app, chart, &repository)) {
            return Ok(Source { url: chart.spec.tarball_url.clone(), version: chart.spec.version.clone() });
        }
        let access = match (way.access)(&repository) {
            Ok(access) => access,
            Err(why) => return Err(Failure::new("unknown-error", why)),
        };
        match way.repositories.index(&access, &repository).await {
            Ok(index) => match index.find(&app.spec.name, &app.spec.version) {
                Ok(entry) => match entry.urls.first().filter(|url| !url.is_empty()) {
                    Some(url) => {
                        return Ok(Source { url: joined(&repository, url), version: entry.version.clone() });
                    }
                    None => failures.push(no_address(app)),
                },
                Err(missing) => failures.push(told(app, &repository, missing)),
            },
            Err(error) => failures.push(unread(&repository, &error)),
        }
    }
    Err(all(&failures, catalog))
}

/// Of several repositories each says why it has no such chart; one that does not answer might have it.
fn all(failures: &[Failure], catalog: &Catalog) -> Failure {
    let Some(last) = failures.last() else {
        let name = catalog.name_any();
        return Failure::new("unknown-error", format!("catalog {} names no repository", Quoted(&name)));
    };
    let status = failures.iter().find(|failure| failure.status == NO_INDEX).map_or(last.status, |silent| silent.status);
    let reasons: Vec<&str> = failures.iter().map(|failure| failure.reason.as_str()).collect();
    Failure::new(status, reasons.join("; "))
}

fn no_address(app: &App) -> Failure {
    let (name, version) = (Quoted(&app.spec.name), Quoted(&app.spec.version));
    Failure::new(
        "app-version-not-found",
        format!("app version not found error: no URL in index.yaml for app {name} version {version}"),
    )
}

fn told(app: &App, repository: &str, missing: Missing) -> Failure {
    let (name, version, url) = (Quoted(&app.spec.name), Quoted(&app.spec.version), Quoted(repository));
    match missing {
        Missing::All => {
            Failure::new("catalog-empty", format!("catalog empty error: index.yaml for {url} has no entries"))
        }
        Missing::Chart => Failure::new(
            "app-not-found",
            format!("app not found error: no entries for app {name} in index.yaml for {url}"),
        ),
        Missing::Version => Failure::new(
            "app-version-not-found",
            format!("app version not found error: no app {name} in index.yaml with given version {version}"),
        ),
    }
}

fn unread(repository: &str, error: &Error) -> Failure {
    let status = if error.class == Class::Address { "unknown-error" } else { NO_INDEX };
    Failure::new(status, format!("index not found error: index.yaml for {}: {}", Quoted(repository), error.what))
}

/// What the indexes of a catalog say of the digest of an archive; none where no index names it.
///
/// # Errors
/// Which index cannot be asked: nothing is installed that might be another than it says.
pub async fn digest(way: Way<'_>, app: &App, catalog: &Catalog, source: &Source) -> Result<Option<String>, String> {
    if is_internal(catalog) {
        return Ok(None);
    }
    let repositories = repositories(catalog, None);
    let listed = repositories.iter().filter(|url| !url.is_empty() && !url.starts_with("oci://"));
    let mut silent = None;
    for repository in listed {
        let index = way.repositories.index(&(way.access)(repository)?, repository).await;
        let index = match index {
            Ok(index) => index,
            Err(error) => {
                silent.get_or_insert(unread(repository, &error).reason);
                continue;
            }
        };
        let Ok(entry) = index.find(&app.spec.name, &source.version) else { continue };
        if entry.urls.first().is_some_and(|url| joined(repository, url) == source.url) {
            return Ok(Some(entry.digest.clone()).filter(|digest| !digest.is_empty()));
        }
    }
    // A registry's archives are in no index.
    match silent.filter(|_| !source.url.starts_with("oci://")) {
        Some(why) => Err(why),
        None => Ok(None),
    }
}
