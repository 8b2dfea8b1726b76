//! The Chart that an App becomes. Source: giantswarm/app-operator, the chart resource.

use std::collections::BTreeMap;

use api::app::{
    App, Chart, ChartConfig, ChartConfigRef, ChartSpec, MANAGED_BY_LABEL, NamespaceConfig, OWN_PREFIX,
    PLATFORM_NAMESPACE, VERSION_LABEL,
};
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt, api::ObjectMeta};

use super::{MANAGER, source::Source};
use crate::target::{APP_NAME, APP_NAMESPACE, Place};

const PREFIX: &str = "chart-operator.giantswarm.io";
/// Left over from older platforms.
const WEBHOOK: &str = "chart-operator.giantswarm.io/webhook-url";
pub const PAUSED: &str = "chart-operator.giantswarm.io/paused";
/// Whose pause it is: there where it is ours.
pub const PAUSE_REASON: &str = "app-operator.giantswarm.io/pause-reason";
const PAUSE_STARTED: &str = "app-operator.giantswarm.io/pause-ts";
/// Charts with this label are looked after.
pub const VERSION: (&str, &str) = ("chart-operator.giantswarm.io/version", "1.0.0");
/// Holds a Chart until its release is gone.
pub const FINALIZER: &str = "operatorkit.giantswarm.io/chart-operator-chart";
/// On a Chart: which archive was fetched from a registry for what it asks for, as [`crate::chart::archives`] writes it.
pub const ARCHIVE: &str = "delivery.skep.dev/archive";
/// So long an app waits for others, and then no more.
pub const DEPENDENCIES_LIMIT: SignedDuration = SignedDuration::from_mins(30);

/// The name of the Chart and its release: in a cluster of its own an app needs no cluster's name.
pub fn name(app: &App) -> String {
    let own = app.name_any();
    let cluster = app.cluster();
    if app.spec.kube_config.in_cluster || cluster.is_empty() || app.version_label() == api::app::UNIQUE_VERSION {
        return own;
    }
    let bare = own.strip_prefix(&format!("{cluster}-")).unwrap_or(&own);
    bare.strip_suffix(&format!("-{cluster}")).unwrap_or(bare).to_owned()
}

/// The Chart as it is to be; `current` is the one that is there.
pub fn desired(
    app: &App,
    source: &Source,
    config: ChartConfig,
    awaited: &[String],
    current: Option<&Chart>,
    now: Timestamp,
) -> Chart {
    let mut chart = current.cloned().unwrap_or_else(|| Chart {
        metadata: ObjectMeta {
            name: Some(name(app)),
            namespace: Some(PLATFORM_NAMESPACE.to_owned()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        ..Chart::default()
    });
    let mut labels: BTreeMap<String, String> = app.labels().clone();
    labels.remove(VERSION_LABEL);
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    labels.insert(VERSION.0.to_owned(), VERSION.1.to_owned());
    chart.metadata.labels = Some(labels);
    chart.metadata.annotations = Some(annotations(app, awaited, current, now));
    let spec = &app.spec;
    let filled = |config: &NamespaceConfig| config.annotations.is_some() || config.labels.is_some();
    chart.spec = ChartSpec {
        config: (config.config_map.is_some() || config.secret.is_some()).then_some(config),
        install: spec.install.clone(),
        name: name(app),
        namespace: spec.namespace.clone(),
        namespace_config: spec.namespace_config.clone().filter(filled),
        rollback: spec.rollback.clone(),
        tarball_url: source.url.clone(),
        uninstall: spec.uninstall.clone(),
        upgrade: spec.upgrade.clone(),
        version: source.version.clone(),
    };
    chart
}

/// The app's own, what others have written on the Chart, and the pause of one that waits.
fn annotations(app: &App, awaited: &[String], current: Option<&Chart>, now: Timestamp) -> BTreeMap<String, String> {
    let is_own = |key: &str| key.starts_with(PREFIX) || key.starts_with(OWN_PREFIX) && key != ARCHIVE;
    let own = app.annotations().iter().filter(|(key, _)| is_own(key));
    let mut all: BTreeMap<String, String> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    all.insert(APP_NAME.to_owned(), app.name_any());
    all.insert(APP_NAMESPACE.to_owned(), app.namespace().unwrap_or_default());
    let empty = BTreeMap::new();
    let there = current.map_or(&empty, ResourceExt::annotations);
    for (key, value) in there {
        if key == ARCHIVE || key.starts_with(PREFIX) && key != WEBHOOK && key != PAUSED {
            all.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let text = |key: &str| there.get(key).filter(|value| !value.is_empty());
    if let Some(foreign) = text(PAUSED).filter(|_| text(PAUSE_REASON).is_none()) {
        all.insert(PAUSED.to_owned(), foreign.clone());
    }
    if awaited.is_empty() {
        return all;
    }
    if may_wait(current, now) {
        let started = current.and_then(pause_started);
        let names = awaited.join(", ");
        all.insert(PAUSED.to_owned(), "true".to_owned());
        all.insert(PAUSE_REASON.to_owned(), format!("Waiting for dependencies to be installed: {names}"));
        let started = started.unwrap_or(now).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        all.insert(PAUSE_STARTED.to_owned(), started);
    }
    all
}

fn pause_started(chart: &Chart) -> Option<Timestamp> {
    chart.annotations().get(PAUSE_STARTED).and_then(|started| started.parse().ok())
}

/// Whether an app may still wait for others. Once the time is over it does not begin anew while the same Chart is there.
pub fn may_wait(current: Option<&Chart>, now: Timestamp) -> bool {
    let Some(chart) = current else { return true };
    let begun = pause_started(chart).or_else(|| chart.creation_timestamp().map(|made| made.0));
    begun.is_none_or(|begun| now.duration_since(begun) <= DEPENDENCIES_LIMIT)
}

/// The App that a Chart is of.
pub fn owner(chart: &Chart) -> Option<control::Key> {
    let annotation = |name| chart.annotations().get(name).cloned();
    Some(control::Key::new(annotation(APP_NAMESPACE)?, annotation(APP_NAME)?))
}

/// Whether a Chart there is what an App becomes, whatever it says itself.
pub fn is_of(app: &App, place: &Place, chart: &Chart) -> bool {
    Place::of(app).as_ref() == Some(place) && name(app) == chart.name_any()
}

/// Where values were written, and as which version.
pub fn config_ref(name: &str, version: &str) -> ChartConfigRef {
    ChartConfigRef {
        name: name.to_owned(),
        namespace: PLATFORM_NAMESPACE.to_owned(),
        resource_version: version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chart_that_only_says_whose_it_is_is_not_the_apps() {
        let app = |secret: &str| -> App {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
                "metadata": {"name": "w1-hello", "namespace": "org-a", "labels": {"giantswarm.io/cluster": "w1"}},
                "spec": {"catalog": "c", "name": "hello", "namespace": "hello", "version": "1.0.0",
                    "kubeConfig": {"inCluster": false, "secret": {"name": secret, "namespace": "org-a"}}},
            }))
            .unwrap()
        };
        let chart = |name: &str| Chart {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            ..Chart::default()
        };
        let place = |secret: &str| Place::Remote(control::Key::new("org-a", secret));
        assert!(is_of(&app("w1-kubeconfig"), &place("w1-kubeconfig"), &chart("hello")));
        assert!(!is_of(&app("w1-kubeconfig"), &place("w2-kubeconfig"), &chart("hello")), "in another cluster");
        assert!(!is_of(&app("w1-kubeconfig"), &Place::Here, &chart("hello")));
        assert!(!is_of(&app("w1-kubeconfig"), &place("w1-kubeconfig"), &chart("other")), "of another name");
    }

    fn app(annotations: &serde_json::Value) -> App {
        serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {
                "name": "w1-hello", "namespace": "org-acme", "annotations": annotations,
                "labels": {"giantswarm.io/cluster": "w1", "giantswarm.io/managed-by": "flux", "team": "a",
                    "app-operator.giantswarm.io/version": "6.0.0"},
            },
            "spec": {"catalog": "c", "name": "hello", "namespace": "web", "version": "v1.0.0",
                "kubeConfig": {"inCluster": false}, "upgrade": {"timeout": "7m"}},
        }))
        .unwrap()
    }

    fn made(app: &App, awaited: &[&str], current: Option<&Chart>, now: &str) -> Chart {
        let source = Source { url: "https://c.test/hello-1.0.0.tgz".into(), version: "1.0.0".into() };
        let awaited: Vec<String> = awaited.iter().map(|name| (*name).to_owned()).collect();
        desired(app, &source, ChartConfig::default(), &awaited, current, now.parse().unwrap())
    }

    const NOON: &str = "2026-03-01T12:00:00Z";

    #[test]
    fn a_chart_has_the_apps_wishes_and_a_name_without_the_clusters() {
        let chart = made(
            &app(&json!({"chart-operator.giantswarm.io/force-helm-upgrade": "true", "other": "x"})),
            &[],
            None,
            NOON,
        );
        assert_eq!(
            serde_json::to_value(&chart).unwrap(),
            json!({
                "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Chart",
                "metadata": {
                    "name": "hello", "namespace": "giantswarm", "finalizers": [FINALIZER],
                    "labels": {"giantswarm.io/cluster": "w1", "giantswarm.io/managed-by": "app-operator", "team": "a",
                        "chart-operator.giantswarm.io/version": "1.0.0"},
                    "annotations": {"chart-operator.giantswarm.io/app-name": "w1-hello",
                        "chart-operator.giantswarm.io/app-namespace": "org-acme",
                        "chart-operator.giantswarm.io/force-helm-upgrade": "true"},
                },
                "spec": {"name": "hello", "namespace": "web", "tarballURL": "https://c.test/hello-1.0.0.tgz", "version": "1.0.0",
                    "upgrade": {"timeout": "7m"}},
            })
        );
    }

    #[test]
    fn names_lose_the_cluster_before_and_behind_but_not_in_the_management_cluster() {
        let named = |name: &str, change: &dyn Fn(&mut App)| {
            let mut app = app(&json!({}));
            app.metadata.name = Some(name.to_owned());
            change(&mut app);
            super::name(&app)
        };
        assert_eq!(named("w1-hello-w1", &|_| ()), "hello");
        assert_eq!(named("hello-w1", &|_| ()), "hello");
        assert_eq!(named("hello", &|_| ()), "hello");
        assert_eq!(named("w1-hello", &|app| app.spec.kube_config.in_cluster = true), "w1-hello");
        let unique = |app: &mut App| drop(app.labels_mut().insert(VERSION_LABEL.to_owned(), "0.0.0".to_owned()));
        assert_eq!(named("w1-hello", &unique), "w1-hello");
    }

    #[test]
    fn an_app_that_waits_is_paused_from_its_first_wait_on_and_not_for_ever() {
        let app = app(&json!({}));
        let first = made(&app, &["a", "b"], None, NOON);
        let told = |chart: &Chart, key: &str| chart.annotations().get(key).cloned().unwrap_or_default();
        assert_eq!(told(&first, PAUSED), "true");
        assert_eq!(told(&first, PAUSE_REASON), "Waiting for dependencies to be installed: a, b");
        assert_eq!(told(&first, PAUSE_STARTED), NOON);
        let later = made(&app, &["b"], Some(&first), "2026-03-01T12:30:00Z");
        assert_eq!((told(&later, PAUSED).as_str(), told(&later, PAUSE_STARTED).as_str()), ("true", NOON));
        let over = made(&app, &["b"], Some(&later), "2026-03-01T12:30:01Z");
        assert_eq!((told(&over, PAUSED).as_str(), told(&over, PAUSE_REASON).as_str()), ("", ""));
        let there = made(&app, &[], Some(&first), NOON);
        assert_eq!((told(&there, PAUSED).as_str(), told(&there, PAUSE_STARTED).as_str()), ("", ""));
    }

    #[test]
    fn what_others_wrote_on_the_chart_stays_and_so_does_their_pause() {
        let app = app(&json!({}));
        let mut current = made(&app, &[], None, NOON);
        for (key, value) in [
            (PAUSED, "true"),
            (WEBHOOK, "x"),
            ("chart-operator.giantswarm.io/values-md5-checksum", "5"),
            (ARCHIVE, "a"),
        ] {
            current.annotations_mut().insert(key.to_owned(), value.to_owned());
        }
        // It is the Chart's, whatever the App says.
        let mut app = app;
        app.annotations_mut().insert(ARCHIVE.to_owned(), "b".to_owned());
        let kept = made(&app, &[], Some(&current), NOON);
        let keys: Vec<&str> = kept.annotations().keys().map(|key| key.strip_prefix(PREFIX).unwrap_or(key)).collect();
        assert_eq!(keys, ["/app-name", "/app-namespace", "/paused", "/values-md5-checksum", ARCHIVE]);
        assert_eq!(kept.annotations()[ARCHIVE], "a");
    }
}
