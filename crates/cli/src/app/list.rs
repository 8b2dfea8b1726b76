//! `skep app list`.

use anyhow::{Context, Result};
use api::app::{App, CLUSTER_LABEL};
use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt, api::ListParams};

use super::{Place, state::plain};
use crate::{
    DONE, Output,
    output::{self, Colour},
};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// In all namespaces, as without -n
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// For this workload cluster only
    #[arg(long)]
    cluster: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Table,
    Wide,
    Json,
    Yaml,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let client = arguments.place.client().await?;
    let params = match &arguments.cluster {
        Some(cluster) => ListParams::default().labels(&format!("{CLUSTER_LABEL}={cluster}")),
        None => ListParams::default(),
    };
    let found = match arguments.place.namespace.as_deref().filter(|_| !arguments.all_namespaces) {
        Some(namespace) => Api::<App>::namespaced(client, namespace).list(&params).await,
        None => Api::<App>::all(client).list(&params).await,
    };
    let mut apps = found.map_err(plain).context("list apps (-n NAMESPACE lists those of one namespace)")?.items;
    apps.sort_by_key(|app| (app.namespace(), app.name_any()));
    let form = match arguments.output {
        Form::Json => Output::Json,
        Form::Yaml => Output::Yaml,
        form => {
            if apps.is_empty() {
                output::progress("No apps found.");
            } else {
                output::line(&coloured(&table(&apps, form == Form::Wide, Timestamp::now())));
            }
            return Ok(DONE);
        }
    };
    let list = serde_json::json!({"apiVersion": App::api_version(&()), "kind": "AppList", "items": apps});
    output::document(&list, form)?;
    Ok(DONE)
}

fn table(apps: &[App], is_wide: bool, now: Timestamp) -> String {
    let mut heads = vec!["NAMESPACE", "NAME", "CLUSTER", "CHART", "VERSION", "STATUS", "DEPLOYED"];
    if is_wide {
        heads.extend(["APP VERSION", "CATALOG", "TARGET NAMESPACE", "REASON"]);
    }
    let mut rows = vec![heads.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(apps.iter().map(|app| row(app, is_wide, now)));
    output::table(&rows)
}

fn row(app: &App, is_wide: bool, now: Timestamp) -> Vec<String> {
    let status = app.status.clone().unwrap_or_default();
    let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    let ago = status.release.last_deployed.as_ref().map(|at| output::age(now.duration_since(at.0).as_secs()));
    let mut row = vec![
        app.namespace().unwrap_or_default(),
        app.name_any(),
        if app.spec.kube_config.in_cluster { "(management)".to_owned() } else { or_dash(app.cluster()) },
        app.spec.name.clone(),
        version(app),
        word(app),
        ago.unwrap_or_else(|| "-".to_owned()),
    ];
    if is_wide {
        let reason = status.release.reason.unwrap_or_default();
        let first = reason.lines().next().unwrap_or_default();
        row.extend([
            or_dash(&status.app_version),
            app.spec.catalog.clone(),
            app.spec.namespace.clone(),
            or_dash(first),
        ]);
    }
    row
}

/// What is there, and what is to be there if that is something else.
fn version(app: &App) -> String {
    let there = app.status.as_ref().map(|status| status.version.as_str()).unwrap_or_default();
    match (there, app.chart_version()) {
        ("", wanted) => format!("-> {wanted}"),
        (there, wanted) if there.trim_start_matches('v') == wanted => there.to_owned(),
        (there, wanted) => format!("{there} -> {wanted}"),
    }
}

/// Of its release, or why there is none.
pub fn word(app: &App) -> String {
    if app.metadata.deletion_timestamp.is_some() {
        return "deleting".to_owned();
    }
    let word = app.status.as_ref().map(|status| status.release.status.clone()).unwrap_or_default();
    if word.is_empty() { "(not acted upon)".to_owned() } else { word }
}

fn coloured(table: &str) -> String {
    table.replace(" deployed ", &format!(" {} ", output::coloured("deployed", Colour::Green)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn app(name: &str, labels: &Value, in_cluster: bool, status: &Value) -> App {
        serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": name, "namespace": "org-acme", "labels": labels},
            "spec": {"catalog": "default", "name": "hello-world", "namespace": "web", "version": "v1.1.0",
                "kubeConfig": {"inCluster": in_cluster}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_table_tells_what_is_there_what_is_to_be_and_why_it_is_not() {
        let at = "2026-03-01T12:00:00Z";
        let release = |word: &str, reason: &str| json!({"status": word, "reason": reason, "lastDeployed": at});
        let of = json!({"giantswarm.io/cluster": "demo"});
        let apps = [
            app("a", &of, false, &json!({"version": "1.1.0", "appVersion": "7", "release": release("deployed", "")})),
            app("b", &of, false, &json!({"version": "1.0.0", "release": release("failed", "no room\nat all")})),
            app("c", &json!({}), true, &json!(null)),
        ];
        insta::assert_snapshot!(table(&apps, true, "2026-03-01T12:05:00Z".parse().unwrap()));
    }
}
