//! `skep app show`: what is asked for, what became of it in the target cluster, where the values come from, what was told of it, and
//! what its chart tells whoever has installed it.

use anyhow::Result;
use api::app::{App, Chart};
use delivery::{
    app::{dependencies, values::Level},
    chart::decision,
    release::Release,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::{
    Named, find, list, namespace,
    state::{State, layer_told, plain},
    target::Target,
};
use crate::{Charts, DONE, NOT_FOUND, Output, output};

/// The latest so many are shown.
const EVENTS_MAX: usize = 10;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    /// json and yaml: the App itself
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// What is known of an app; what could not be found out is told in its place.
struct Seen {
    app: App,
    state: Result<State, String>,
    there: Result<There, String>,
    events: Result<Vec<Event>, String>,
}

struct There {
    place: String,
    chart: Option<Chart>,
    release: Option<Release>,
}

pub async fn run(arguments: Arguments, charts: Charts) -> Result<u8> {
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    if arguments.output != Output::Table {
        output::document(&app, arguments.output)?;
        return Ok(DONE);
    }
    let chain = |error: anyhow::Error| format!("{error:#}");
    let seen = Seen {
        state: State::read(&client, app.clone()).await.map_err(chain),
        there: there(&client, &app, charts).await.map_err(chain),
        events: events(&client, &app).await.map_err(chain),
        app,
    };
    output::text(&text(&seen, Timestamp::now()));
    Ok(DONE)
}

async fn there(client: &Client, app: &App, charts: Charts) -> Result<There> {
    let target = Target::reach(client, app, charts).await?;
    let chart = target.chart().await?;
    let release = target.engine.last(&target.release, &target.namespace).await?;
    Ok(There { place: target.place.to_string(), chart, release })
}

async fn events(client: &Client, app: &App) -> Result<Vec<Event>> {
    let fields = format!("involvedObject.kind=App,involvedObject.name={}", app.name_any());
    let params = ListParams::default().fields(&fields);
    let found = Api::<Event>::namespaced(client.clone(), &namespace(app)).list(&params).await;
    let mut events = found.map_err(plain)?.items;
    events.retain(|event| event.involved_object.uid == app.uid());
    let mut events = events_by_time(events);
    Ok(events.split_off(events.len().saturating_sub(EVENTS_MAX)))
}

/// The oldest first.
pub fn events_by_time(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(seen_at);
    events
}

/// When it was last so.
pub fn seen_at(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|at| at.0);
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|at| at.0);
    series.or(last).or(event.event_time.as_ref().map(|at| at.0)).or(event.creation_timestamp().map(|at| at.0))
}

fn text(seen: &Seen, now: Timestamp) -> String {
    let mut rows = asked_for(&seen.app);
    rows.push(("Status".to_owned(), list::word(&seen.app)));
    let status = seen.app.status.clone().unwrap_or_default();
    if let Some(reason) = status.release.reason.filter(|reason| !reason.is_empty()) {
        rows.push(("Reason".to_owned(), reason));
    }
    for (key, what) in [
        ("app-operator.giantswarm.io/paused", "Paused"),
        ("app-operator.giantswarm.io/cordon-reason", "Cordoned"),
        ("app-operator.giantswarm.io/cordon-until", "Cordoned until"),
    ] {
        rows.extend(seen.app.annotations().get(key).map(|value| (what.to_owned(), value.clone())));
    }
    let awaits = dependencies::names(&seen.app).collect::<Vec<_>>().join(", ");
    if !awaits.is_empty() {
        rows.push(("Depends on".to_owned(), awaits));
    }
    rows.extend(found(&seen.there, now));
    let mut all = fields(&rows);
    all.push_str(&layers(seen));
    match &seen.events {
        Err(why) => all.push_str(&format!("\nEvents: {why}\n")),
        Ok(events) if events.is_empty() => all.push_str("\nEvents: none\n"),
        Ok(events) => {
            let table: Vec<Vec<String>> = events.iter().map(|event| told(event, now)).collect();
            all.push_str(&format!("\nEvents:\n{}\n", indented(&output::table(&table))));
        }
    }
    let release = seen.there.as_ref().ok().and_then(|there| there.release.as_ref());
    all.push_str(&release.map(|release| notes(&release.info.notes)).unwrap_or_default());
    all
}

/// The release's notes, if it has some: what is not for a terminal is left out of them, since charts write them.
fn notes(text: &str) -> String {
    let is_shown = |c: &char| matches!(c, '\n' | '\t') || !c.is_control();
    let text: String = text.chars().filter(is_shown).collect();
    if text.trim().is_empty() {
        return String::new();
    }
    let lines = text.trim_matches('\n').trim_end().lines().map(|line| format!("  {line}").trim_end().to_owned());
    format!("\nNotes:\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

fn asked_for(app: &App) -> Vec<(String, String)> {
    let spec = &app.spec;
    let cluster = match (spec.kube_config.in_cluster, app.cluster()) {
        (true, _) => "the management cluster",
        (false, "") => "-",
        (false, cluster) => cluster,
    };
    [
        ("Name", app.name_any()),
        ("Namespace", namespace(app)),
        ("Chart", format!("{} {}", spec.name, spec.version)),
        ("Catalog", spec.catalog.clone()),
        ("Cluster", cluster.to_owned()),
        ("Target namespace", spec.namespace.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// What there is in the target cluster.
fn found(there: &Result<There, String>, now: Timestamp) -> Vec<(String, String)> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    let there = match there {
        Ok(there) => there,
        Err(why) => return vec![row("Release", format!("not to be seen: {why}"))],
    };
    let mut rows = Vec::new();
    match &there.chart {
        None => rows.push(row("Chart object", format!("none in {}", there.place))),
        Some(chart) => {
            let status = chart.status.clone().unwrap_or_default();
            let word = if status.release.status.is_empty() { "(not acted upon)" } else { &status.release.status };
            rows.push(row("Chart object", format!("{} in {}: {word}", chart.name_any(), there.place)));
            rows.extend(status.reason.map(|reason| row("Chart's reason", reason)));
            let paused = chart.annotations().get(decision::PAUSED).is_some_and(|paused| paused == "true");
            let why = chart.annotations().get("app-operator.giantswarm.io/pause-reason");
            rows.extend(paused.then(|| row("Chart paused", why.cloned().unwrap_or_default())));
        }
    }
    match &there.release {
        None => rows.push(row("Release", format!("none in {}", there.place))),
        Some(release) => {
            let ago = release.info.last_deployed.map(|at| output::age(now.duration_since(at).as_secs()));
            let ago = ago.map(|ago| format!(", {ago} ago")).unwrap_or_default();
            let told = format!(
                "revision {}, {}{ago}: {}",
                release.version,
                release.info.status.text(),
                release.info.description
            );
            rows.push(row("Release", told));
        }
    }
    rows
}

fn layers(seen: &Seen) -> String {
    let state = match &seen.state {
        Ok(state) => state,
        Err(why) => return format!("\nValues: {why}\n"),
    };
    let all = state.layers();
    if all.is_empty() {
        return "\nValues: the chart's own only\n".to_owned();
    }
    let mut text = "\nValues, later ones over earlier ones:\n".to_owned();
    for (kind, layer) in all {
        let missing = match state.held(kind, &layer) {
            Some(_) => "",
            None if layer.level == Level::CatalogApp => continue,
            None => ": it is not there",
        };
        text.push_str(&format!("  {}{missing}\n", layer_told(kind, &layer)));
    }
    text
}

fn told(event: &Event, now: Timestamp) -> Vec<String> {
    let ago = seen_at(event).map(|at| output::age(now.duration_since(at).as_secs()));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![ago.unwrap_or_default(), text(&event.type_), text(&event.reason), text(&event.message)]
}

/// Names and values, aligned; what has several lines goes on below itself.
pub fn fields(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len() + 1).max().unwrap_or_default();
    let mut all = String::new();
    for (name, value) in rows {
        let value = value.trim_end().replace('\n', &format!("\n{:width$}  ", ""));
        all.push_str(&format!("{:width$}  {value}\n", format!("{name}:")));
    }
    all
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn app() -> App {
        read(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": "hello", "namespace": "org-acme", "labels": {"giantswarm.io/cluster": "demo"},
                "annotations": {"app-operator.giantswarm.io/depends-on": "cni,dns"}},
            "spec": {"catalog": "default", "name": "hello-world", "namespace": "web", "version": "1.1.0", "kubeConfig": {},
                "extraConfigs": [{"kind": "configMap", "name": "demo-cluster-values", "namespace": "org-acme", "priority": 1}],
                "userConfig": {"secret": {"name": "hello-user-secrets", "namespace": "org-acme"}}},
            "status": {"version": "1.0.0", "release": {"status": "failed", "reason": "no room\nat all"}},
        }))
    }

    #[test]
    fn an_app_is_told_with_its_release_its_layers_its_events_and_its_notes() {
        let catalog = read(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog", "metadata": {"name": "default"},
            "spec": {"title": "t", "description": "d", "logoURL": "", "storage": {"URL": "u", "type": "helm"},
                "config": {"configMap": {"name": "default-catalog", "namespace": "giantswarm"}}},
        }));
        let chart = read(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Chart",
            "metadata": {"name": "hello", "namespace": "giantswarm"},
            "spec": {"name": "hello", "namespace": "web", "tarballURL": "u", "version": "1.1.0"},
            "status": {"version": "1.0.0", "reason": "no room\nat all", "release": {"status": "failed", "revision": 2}},
        }));
        let release = read(json!({"name": "hello", "version": 2, "info": {
            "status": "failed", "description": "Upgrade failed: no room", "last_deployed": "2026-03-01T12:00:00Z",
            "notes": "\nIt is at:\n\n    http://hello/\n"}}));
        let event =
            read(json!({"metadata": {"name": "e"}, "involvedObject": {}, "type": "Normal", "reason": "AppUpdated",
            "message": "written", "lastTimestamp": "2026-03-01T12:00:00Z"}));
        let place = "the cluster of kubeconfig org-acme/demo-kubeconfig".to_owned();
        let seen = Seen {
            state: Ok(State::new(app(), catalog)),
            there: Ok(There { place, chart: Some(chart), release: Some(release) }),
            events: Ok(vec![event]),
            app: app(),
        };
        insta::assert_snapshot!(text(&seen, "2026-03-01T12:05:00Z".parse().unwrap()));
    }

    #[test]
    fn notes_are_told_as_they_are_but_for_what_is_not_for_a_terminal_and_empty_ones_not_at_all() {
        assert_eq!(notes("\n  a:\r\n\n\tb\u{1b}[31m\n\n"), "\nNotes:\n    a:\n\n  \tb[31m\n");
        assert_eq!((notes(""), notes(" \n")), (String::new(), String::new()));
    }

    #[test]
    fn what_cannot_be_seen_is_told_in_its_place() {
        let no = || "secrets \"demo-kubeconfig\" is forbidden".to_owned();
        let seen =
            Seen { state: Err("there is no catalog".into()), there: Err(no()), events: Ok(Vec::new()), app: app() };
        let text = text(&seen, Timestamp::UNIX_EPOCH);
        assert!(
            text.contains("Release:           not to be seen: secrets \"demo-kubeconfig\" is forbidden\n"),
            "{text}"
        );
        assert!(text.ends_with("\nValues: there is no catalog\n\nEvents: none\n"), "{text}");
    }
}
