//! Many clusters with apps in each: how long they take, what a change of the lowest layer costs, what they take of memory, and how many
//! settled apps are looked at in a second of CPU.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use api::app::{App, Catalog};
use clap::Args;
use futures::{StreamExt, TryStreamExt, pin_mut, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde_json::json;

use super::{APPLY_CONCURRENCY, Server, Which, clusters, print, round, seconds, settled};

const CATALOG: &str = "bench";
const CHART: &str = "hello-world";
const VERSION: &str = "0.1.0";
/// The charts of the binary itself.
const REPOSITORY: &str = "http://catalog.skep.local/";
/// Servers that are asked for their metrics at once.
const ASKED_AT_ONCE: usize = 16;
/// After a touch, everything has been looked at by then.
const TOUCH: Duration = Duration::from_secs(15);

#[derive(Args)]
pub struct Apps {
    #[command(flatten)]
    which: Which,
    /// How many clusters
    #[arg(long, default_value_t = 100)]
    clusters: usize,
    /// Apps in each
    #[arg(long, default_value_t = 10)]
    apps: usize,
    /// Longest wait for each part, in seconds
    #[arg(long, default_value_t = 1800)]
    timeout_s: u64,
}

pub async fn apps(arguments: Apps) -> Result<()> {
    let server = Server::start(&arguments.which.binary()?).await?;
    let client = server.client().await?;
    let limit = Duration::from_secs(arguments.timeout_s);
    let template =
        cli::ClusterTemplate { control_plane_machines: 1, worker_machines: 1, ..cli::ClusterTemplate::sandbox() };
    clusters(&server, &client, template, arguments.clusters, limit).await?;
    settled(&client).await?;
    let (bare, wanted) = (server.usage()?, arguments.clusters * arguments.apps);

    catalog(&client).await?;
    let started = Instant::now();
    let names = (0..arguments.clusters).flat_map(|cluster| (0..arguments.apps).map(move |app| (cluster, app)));
    stream::iter(names)
        .map(|(cluster, app)| install(&client, format!("c{cluster:04}"), app))
        .buffer_unordered(APPLY_CONCURRENCY)
        .try_collect::<()>()
        .await?;
    let before = tokio::time::timeout(limit, deployed(&client, wanted, &HashMap::new()))
        .await
        .context("not all apps are deployed")??;
    let installed_s = seconds(started);
    let used = server.usage()?;
    let mut figures = json!({
        "clusters": arguments.clusters,
        "apps": wanted,
        "installed_s": installed_s,
        "install_cpu_s": round(used.cpu_s - bare.cpu_s),
    });

    settled(&client).await?;
    let full = server.usage()?;
    figures["rss_mib"] = full.rss_mib.into();
    figures["rss_kib_per_cluster"] =
        (full.rss_mib.saturating_sub(bare.rss_mib) * 1024 / arguments.clusters.max(1) as u64).into();
    let workloads = workloads(&client, arguments.clusters).await?;
    let calls = (requests(&client).await?, all_requests(&workloads).await?);
    let (begun, started) = (server.usage()?, Instant::now());
    values(&client, 2).await?;
    tokio::time::timeout(limit, deployed(&client, wanted, &before)).await.context("not all apps are changed")??;
    figures["rolled_s"] = seconds(started).into();
    figures["rolled_cpu_s"] = round(server.usage()?.cpu_s - begun.cpu_s).into();
    figures["rolled_calls"] = (requests(&client).await? - calls.0).into();
    figures["rolled_workload_calls"] = (all_requests(&workloads).await? - calls.1).into();

    settled(&client).await?;
    let idle = server.usage()?;
    tokio::time::sleep(TOUCH).await;
    let touched = server.usage()?;
    touch(&client).await?;
    tokio::time::sleep(TOUCH).await;
    let looked = (server.usage()?.cpu_s - touched.cpu_s) - (touched.cpu_s - idle.cpu_s);
    figures["settled_reconciles_per_cpu_s"] = round(wanted as f64 / looked.max(0.01)).into();
    server.stop().await?;
    print(&figures);
    Ok(())
}

async fn catalog(client: &Client) -> Result<()> {
    values(client, 1).await?;
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    // Apps outside of organizations have the namespace's for the cluster's.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "default-cluster-values"}, "data": {"values": "{}"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map)?).await.context("write the clusters' values")?;
    let repository = json!({"type": "helm", "URL": REPOSITORY});
    let catalog = json!({
        "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog", "metadata": {"name": CATALOG},
        "spec": {"title": CATALOG, "description": "What is measured.", "logoURL": "", "storage": repository, "repositories": [repository],
            "config": {"configMap": {"name": CATALOG, "namespace": "default"}}},
    });
    let catalogs = Api::<Catalog>::default_namespaced(client.clone());
    catalogs.create(&PostParams::default(), &serde_json::from_value(catalog)?).await.context("write the catalog")?;
    Ok(())
}

/// The lowest layer of all apps.
async fn values(client: &Client, replicas: u32) -> Result<()> {
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CATALOG}, "data": {"values": format!("replicas: {replicas}\n")}});
    maps.patch(CATALOG, &PatchParams::apply("bench"), &Patch::Apply(map))
        .await
        .context("write the catalog's values")?;
    Ok(())
}

/// Has all apps looked at, with nothing to do.
async fn touch(client: &Client) -> Result<()> {
    let annotations = Patch::Merge(json!({"metadata": {"annotations": {"bench": "touched"}}}));
    let catalogs = Api::<Catalog>::default_namespaced(client.clone());
    catalogs.patch(CATALOG, &PatchParams::default(), &annotations).await.context("touch the catalog")?;
    Ok(())
}

async fn install(client: &Client, cluster: String, number: usize) -> Result<()> {
    let secret = json!({"name": format!("{cluster}-kubeconfig"), "namespace": "default"});
    let app = json!({
        "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
        "metadata": {"name": format!("{cluster}-hello-{number}"),
            "labels": {"giantswarm.io/cluster": cluster, "app-operator.giantswarm.io/version": "6.0.0"}},
        "spec": {"catalog": CATALOG, "name": CHART, "namespace": format!("hello-{number}"), "version": VERSION,
            "kubeConfig": {"inCluster": false, "secret": secret}},
    });
    let apps = Api::<App>::default_namespaced(client.clone());
    apps.create(&PostParams::default(), &serde_json::from_value(app)?).await.context("create an app")?;
    Ok(())
}

/// When each app was deployed last; returns once all are, and at another time than before.
async fn deployed(client: &Client, wanted: usize, before: &HashMap<String, String>) -> Result<HashMap<String, String>> {
    let events = watcher(Api::<App>::all(client.clone()), watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let (mut times, mut others) = (HashMap::new(), BTreeMap::<String, usize>::new());
    let mut word = tokio::time::interval(super::WORD_EVERY);
    let mut told: HashMap<String, String> = HashMap::new();
    loop {
        tokio::select! {
            event = events.next() => match event.context("the watch of apps ended")? {
                Ok(Event::Apply(app) | Event::InitApply(app)) => {
                    let name = app.name_any();
                    let release = app.status.unwrap_or_default().release;
                    if let Some(old) = told.insert(name.clone(), release.status.clone()) {
                        others.entry(old).and_modify(|count| *count -= 1);
                    }
                    *others.entry(release.status.clone()).or_default() += 1;
                    let at = release.last_deployed.map(|at| at.0.to_string()).unwrap_or_default();
                    if release.status == "deployed" && before.get(&name) != Some(&at) {
                        times.insert(name, at);
                    }
                }
                Ok(_) => {}
                Err(error) => eprintln!("watch apps: {error}"),
            },
            _ = word.tick() => eprintln!("{:>6} of {wanted} apps  {others:?}", times.len()),
        }
        if times.len() >= wanted {
            return Ok(times);
        }
    }
}

async fn workloads(client: &Client, count: usize) -> Result<Vec<Client>> {
    let secrets = Api::<Secret>::default_namespaced(client.clone());
    let mut all = Vec::new();
    for secret in secrets.list(&ListParams::default()).await?.items {
        let text = secret.data.as_ref().and_then(|data| data.get("value"));
        let Some(text) = text.filter(|_| secret.name_any().ends_with("-kubeconfig")) else { continue };
        let kubeconfig = Kubeconfig::from_yaml(std::str::from_utf8(&text.0)?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        all.push(Client::try_from(config)?);
    }
    if all.len() != count {
        bail!("{} kubeconfigs of {count} clusters", all.len());
    }
    Ok(all)
}

/// How many requests a server has answered, without those that only look at it.
async fn requests(client: &Client) -> Result<u64> {
    let text =
        client.request_text(http::Request::get("/metrics").body(Vec::new())?).await.context("read the metrics")?;
    let counted =
        text.lines().filter(|line| line.starts_with("apiserver_request_total{") && !line.contains("verb=\"WATCH\""));
    Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

async fn all_requests(clients: &[Client]) -> Result<u64> {
    let asked = stream::iter(clients).map(requests).buffer_unordered(ASKED_AT_ONCE);
    asked.try_fold(0, |sum, one| async move { Ok(sum + one) }).await
}
