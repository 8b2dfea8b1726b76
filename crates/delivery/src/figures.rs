//! What Prometheus is told of apps, by the names of the published app-exporter. Each scrape counts what the caches hold.

use std::collections::HashMap;

use api::app::{App, AppCatalogEntry, PLATFORM_NAMESPACE};
use control::{Counted, Key};
use jiff::{Timestamp, civil};
use kube::ResourceExt;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::Deserialize;

use crate::{app::controller::CORDON_UNTIL, controllers::Context};

const TEAM: &str = "application.giantswarm.io/team";
const OWNERS: &str = "application.giantswarm.io/owners";
const NO_TEAM: &str = "noteam";
const VISIBILITY: &str = "application.giantswarm.io/catalog-visibility";
const CATALOG_TYPE: &str = "application.giantswarm.io/catalog-type";

type Labels = Vec<(&'static str, String)>;

impl Counted for Context {
    fn register(&self, registry: &mut Registry) {
        let caches = &self.caches;
        let (infos, cordons) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
        let latest = latest(self);
        for key in caches.apps.keys() {
            let Some(app) = caches.apps.get(&key) else { continue };
            let entry = [PLATFORM_NAMESPACE, "default"]
                .into_iter()
                .find_map(|place| caches.entries.get(&Key::new(place, app.entry())));
            infos.get_or_create(&info(&app, entry.as_deref(), &latest, &self.provider)).set(1);
            if let Some(until) = app.annotations().get(CORDON_UNTIL).and_then(|until| time(until)) {
                let labels = vec![("name", app.spec.name.clone()), ("namespace", app.spec.namespace.clone())];
                cordons.get_or_create(&labels).set(until.as_second());
            }
        }
        let drifts = Family::<Labels, Gauge>::default();
        for (key, is_drifted) in self.looks.drifted() {
            let Some(app) = caches.apps.get(&key) else { continue };
            let labels = vec![
                ("name", key.name.clone()),
                ("namespace", key.namespace),
                ("cluster_id", app.cluster().to_owned()),
            ];
            drifts.get_or_create(&labels).set(i64::from(is_drifted));
        }
        registry.register("app_operator_app_info", "Managed apps status", infos);
        registry.register("app_operator_app_cordon_expire_time_seconds", "When the cordon of an app ends", cordons);
        registry.register(
            "delivery_release_drifted",
            "Whether objects of an app's release are other than declared, since its last look",
            drifts,
        );
    }
}

/// The newest version of each app of the public catalogs, by catalog and app.
fn latest(context: &Context) -> HashMap<(String, String), String> {
    let caches = &context.caches;
    let of_public = |key: &Key| {
        let catalog = caches.catalogs.get(key)?;
        let label = |name: &str| catalog.labels().get(name).map(String::as_str).unwrap_or_default();
        (label(VISIBILITY) == "public" && label(CATALOG_TYPE) != "community").then_some(())
    };
    let entries = caches.entries.keys().into_iter().filter_map(|key| caches.entries.get(&key));
    let newest = entries.filter(|entry| entry.labels().get("latest").is_some_and(|latest| latest == "true"));
    newest
        .filter_map(|entry| {
            let (namespace, spec) = (entry.namespace().unwrap_or_default(), &entry.spec);
            of_public(&Key::new(namespace, &spec.catalog.name))?;
            Some(((spec.catalog.name.clone(), spec.app_name.clone()), bare(&spec.version).to_owned()))
        })
        .collect()
}

fn bare(version: &str) -> &str {
    version.strip_prefix('v').unwrap_or(version)
}

fn info(
    app: &App,
    entry: Option<&AppCatalogEntry>,
    latest: &HashMap<(String, String), String>,
    provider: &str,
) -> Labels {
    let status = app.status.clone().unwrap_or_default();
    let (wanted, deployed) = (app.chart_version(), bare(&status.version));
    let inner = Some(bare(&status.app_version)).filter(|inner| *inner != deployed).unwrap_or_default();
    let newest = latest.get(&(app.spec.catalog.clone(), app.spec.name.clone())).cloned().unwrap_or_default();
    let told = Some(status.release.status.as_str()).filter(|status| !status.is_empty()).unwrap_or("not-installed");
    let is_missing = app.is_in_organization() && app.cluster().is_empty();
    vec![
        ("app", app.spec.name.clone()),
        ("app_version", inner.to_owned()),
        ("catalog", app.spec.catalog.clone()),
        ("cluster_missing", is_missing.to_string()),
        ("deployed_version", deployed.to_owned()),
        ("latest_version", newest.clone()),
        ("name", app.name_any()),
        ("namespace", app.namespace().unwrap_or_default()),
        ("status", told.to_owned()),
        ("team", team(app, entry, provider)),
        ("upgrade_available", (!newest.is_empty() && newest != wanted).to_string()),
        ("version", wanted.to_owned()),
        ("version_mismatch", (wanted != deployed).to_string()),
        ("cluster_id", app.cluster().to_owned()),
    ]
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    catalog: String,
    provider: String,
    team: String,
}

/// Whose app it is: by its own label or annotation, or as the catalog says.
fn team(app: &App, entry: Option<&AppCatalogEntry>, provider: &str) -> String {
    let annotations = entry.map(ResourceExt::annotations);
    let owned = || {
        let owners: Vec<Owner> = serde_saphyr::from_str(annotations?.get(OWNERS)?).ok()?;
        let fits = |owner: &Owner| {
            (owner.catalog == app.spec.catalog && (owner.provider == provider || owner.provider.is_empty()))
                || (owner.catalog.is_empty() && owner.provider == provider)
        };
        owners.into_iter().find(fits).map(|owner| owner.team)
    };
    let own = app.labels().get(TEAM).or_else(|| app.annotations().get(TEAM)).cloned();
    let found = own.or_else(owned).or_else(|| annotations?.get(TEAM).cloned()).filter(|team| !team.is_empty());
    let team = found.unwrap_or_else(|| NO_TEAM.to_owned());
    team.strip_prefix("team-").unwrap_or(&team).to_owned()
}

/// With a zone or, as older tools write it, without one.
fn time(text: &str) -> Option<Timestamp> {
    let in_utc = || text.parse::<civil::DateTime>().ok()?.in_tz("UTC").ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(in_utc)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(app: &serde_json::Value, entry: Option<&serde_json::Value>) -> HashMap<&'static str, String> {
        let app: App = serde_json::from_value(app.clone()).unwrap();
        let entry: Option<AppCatalogEntry> = entry.map(|entry| serde_json::from_value(entry.clone()).unwrap());
        let latest = HashMap::from([(("c".to_owned(), "hello".to_owned()), "1.1.0".to_owned())]);
        info(&app, entry.as_ref(), &latest, "openstack").into_iter().collect()
    }

    fn app(status: &serde_json::Value) -> serde_json::Value {
        json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": "w1-hello", "namespace": "org-acme"},
            "spec": {"catalog": "c", "name": "hello", "namespace": "web", "version": "v1.0.0", "kubeConfig": {"inCluster": false}},
            "status": status,
        })
    }

    #[test]
    fn an_app_that_is_behind_is_told_so() {
        let status = json!({"version": "1.0.0", "appVersion": "7", "release": {"status": "deployed"}});
        let told = told(&app(&status), None);
        let of = |label| told[label].as_str();
        assert_eq!((of("version"), of("deployed_version"), of("version_mismatch")), ("1.0.0", "1.0.0", "false"));
        assert_eq!((of("latest_version"), of("upgrade_available")), ("1.1.0", "true"));
        assert_eq!(
            (of("app_version"), of("status"), of("cluster_missing"), of("team")),
            ("7", "deployed", "true", "noteam")
        );
    }

    #[test]
    fn an_app_without_a_release_is_not_installed_and_has_the_catalogs_team() {
        let entry = |annotations: serde_json::Value| {
            json!({
                "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "AppCatalogEntry", "metadata": {"name": "e", "annotations": annotations},
                "spec": {"appName": "hello", "appVersion": "7", "catalog": {"name": "c"}, "version": "1.0.0"},
            })
        };
        let plain = told(&app(&json!(null)), Some(&entry(json!({TEAM: "team-cabbage"}))));
        assert_eq!((plain["status"].as_str(), plain["team"].as_str()), ("not-installed", "cabbage"));
        let owners = "- {provider: aws, team: other}\n- {catalog: c, provider: openstack, team: team-rocket}\n";
        assert_eq!(told(&app(&json!(null)), Some(&entry(json!({OWNERS: owners}))))["team"], "rocket");
    }

    #[test]
    fn the_end_of_a_cordon_is_read_with_a_zone_and_without() {
        assert_eq!(time("2026-03-01T12:00:00Z"), time("2026-03-01T12:00:00"));
        assert_eq!(time("soon"), None);
    }
}
