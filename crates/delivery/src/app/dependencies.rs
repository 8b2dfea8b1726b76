//! Apps that wait for others, which may be releases of Flux. Source: giantswarm/app-operator, annotations `depends-on` and
//! `depends-on-helmrelease`.

use std::collections::BTreeMap;

use api::app::App;
use control::{Error, Result};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value as Json;

pub const DEPENDS_ON: &str = "app-operator.giantswarm.io/depends-on";
/// With any value, whom an app waits for may be a HelmRelease too.
const ON_RELEASES: &str = "app-operator.giantswarm.io/depends-on-helmrelease";
const GROUP: &str = "helm.toolkit.fluxcd.io";
/// The newest that is served counts. Their kind is written by others: here only what is read of it has to be alike.
const VERSIONS: [&str; 3] = ["v2", "v2beta2", "v2beta1"];
/// HelmReleases of one namespace that are looked through.
pub const RELEASES_MAX: u32 = 1_000;

/// Whom an app waits for, in its namespace; never itself.
pub fn names(app: &App) -> impl Iterator<Item = &str> {
    let text = app.annotations().get(DEPENDS_ON).map(String::as_str).unwrap_or_default();
    let own = app.metadata.name.as_deref().unwrap_or_default();
    text.split(',').map(str::trim).filter(move |name| !name.is_empty() && *name != own)
}

/// Whether what an app waits for may be HelmReleases.
pub fn names_releases(app: &App) -> bool {
    app.annotations().get(ON_RELEASES).is_some_and(|told| !told.is_empty()) && names(app).next().is_some()
}

/// Those that are not there as they are wished. `releases` are those of Flux; one of them is what is meant, whatever app has its name.
pub fn missing(
    app: &App,
    releases: &BTreeMap<String, bool>,
    find: impl Fn(&str) -> Option<std::sync::Arc<App>>,
) -> Vec<String> {
    let is_installed = |name: &str| {
        find(name).is_some_and(|other| {
            let status = other.status.as_ref();
            status.is_some_and(|status| status.release.status == "deployed" && status.version == other.spec.version)
        })
    };
    let is_there = |name: &str| releases.get(name).copied().unwrap_or_else(|| is_installed(name));
    names(app).filter(|name| !is_there(name)).map(str::to_owned).collect()
}

/// The HelmReleases of a namespace, and whether each is there as it is wished; none where there is no Flux.
///
/// # Errors
/// That they cannot be read, or are too many.
pub async fn releases(client: &Client, namespace: &str) -> Result<BTreeMap<String, bool>> {
    for version in VERSIONS {
        let kind = ApiResource {
            group: GROUP.to_owned(),
            version: version.to_owned(),
            api_version: format!("{GROUP}/{version}"),
            kind: "HelmRelease".to_owned(),
            plural: "helmreleases".to_owned(),
        };
        let all = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
        let what = format!("HelmReleases of namespace {namespace}");
        match all.list(&ListParams::default().limit(RELEASES_MAX)).await {
            Ok(list) if list.metadata.continue_.as_ref().is_some_and(|more| !more.is_empty()) => {
                let why = format!(
                    "namespace {namespace} has more than {RELEASES_MAX} HelmReleases: give the app a namespace of its own"
                );
                return Err(Error::blocked("TooManyReleases", why));
            }
            Ok(list) => return Ok(list.items.iter().map(|one| (one.name_any(), is_deployed(&one.data))).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::api("list", what, error)),
        }
    }
    Ok(BTreeMap::new())
}

/// Whether a HelmRelease's chart is deployed in the version that it asks for.
fn is_deployed(release: &Json) -> bool {
    let text = |pointer: &str| release.pointer(pointer).and_then(Json::as_str).unwrap_or_default();
    let wanted = text("/spec/chart/spec/version");
    let history = release.pointer("/status/history").and_then(Json::as_array);
    let is_it = |one: &Json| one["chartVersion"] == wanted && one["status"] == "deployed";
    text("/status/lastAttemptedRevision") == wanted && history.is_some_and(|all| all.iter().any(is_it))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_release_of_flux_is_there_when_the_version_it_asks_for_is_deployed() {
        let release = |attempted: &str, history: Json| {
            let status = json!({"lastAttemptedRevision": attempted, "history": history});
            json!({"spec": {"chart": {"spec": {"version": "1.2.0"}}}, "status": status})
        };
        let entry = |version: &str, status: &str| json!({"chartVersion": version, "status": status});
        let deployed = json!([entry("1.2.0", "deployed"), entry("1.1.0", "superseded")]);
        assert!(is_deployed(&release("1.2.0", deployed.clone())));
        assert!(!is_deployed(&release("1.1.0", deployed)), "it has not begun");
        assert!(!is_deployed(&release("1.2.0", json!([entry("1.2.0", "failed"), entry("1.1.0", "deployed")]))));
        assert!(!is_deployed(&json!({"spec": {"chart": {"spec": {"version": "1.2.0"}}}})));
        assert!(!is_deployed(&json!({})));
    }

    #[test]
    fn a_release_of_flux_counts_before_the_app_of_its_name() {
        let app = |name: &str, annotations: Json| -> App {
            serde_json::from_value(json!({
                "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
                "metadata": {"name": name, "namespace": "org-acme", "annotations": annotations},
                "spec": {"catalog": "c", "name": "hello", "namespace": "web", "version": "1.0.0", "kubeConfig": {"inCluster": false}},
                "status": {"version": "1.0.0", "release": {"status": "deployed"}},
            }))
            .unwrap()
        };
        let waiting = app("w", json!({DEPENDS_ON: "a, b,c,w", ON_RELEASES: "true"}));
        assert!(names_releases(&waiting));
        assert!(!names_releases(&app("w", json!({ON_RELEASES: "true"}))), "nothing is named");
        let releases = BTreeMap::from([("a".to_owned(), false), ("b".to_owned(), true)]);
        let missing = missing(&waiting, &releases, |name| (name == "a").then(|| app("a", json!({})).into()));
        assert_eq!(missing, ["a", "c"]);
    }
}
