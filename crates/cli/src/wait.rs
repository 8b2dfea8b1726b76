//! Waiting for a cluster, with a word on what is waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::{cluster::Cluster, condition, machine::Machine, names::CLUSTER_LABEL};
use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use crate::output;

/// A word at least this often while nothing changes.
const WORD_EVERY: Duration = Duration::from_secs(10);

/// Waits until the cluster is Available; false when `limit` has passed.
pub async fn wait_for_cluster(client: &Client, namespace: &str, name: &str, limit: Duration) -> Result<bool> {
    let clusters = Api::<Cluster>::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(clusters, config).default_backoff().applied_objects();
    pin_mut!(events);
    let started = Instant::now();
    let mut told = String::new();
    let mut last = None::<Cluster>;
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        match tokio::time::timeout(left.min(WORD_EVERY), events.next()).await {
            Ok(Some(Ok(cluster))) => last = Some(cluster),
            // The watcher starts again by itself.
            Ok(Some(Err(_))) => continue,
            Ok(None) => anyhow::bail!("the watch of cluster {namespace}/{name} ended"),
            Err(_) => told.clear(),
        }
        let Some(cluster) = &last else { continue };
        let conditions = cluster.status.as_ref().map_or(&[][..], |status| &status.conditions);
        if condition::is_true(conditions, "Available") {
            return Ok(true);
        }
        let word = waiting_for(client, cluster).await?;
        if word != told {
            output::progress(&format!("  {:>4} s  waiting for {word}", started.elapsed().as_secs()));
            told = word;
        }
    }
}

/// The first thing that is missing, in the order in which a cluster comes up.
async fn waiting_for(client: &Client, cluster: &Cluster) -> Result<String> {
    let status = cluster.status.clone().unwrap_or_default();
    let started = status.initialization.clone().unwrap_or_default();
    if started.infrastructure_provisioned != Some(true) {
        let why = condition::get(&status.conditions, "InfrastructureReady").map(|found| found.message.clone());
        let why = why.and_then(|text| text.lines().next().map(|line| format!(": {line}"))).unwrap_or_default();
        return Ok(format!("the network and the load balancer{why}"));
    }
    if started.control_plane_initialized != Some(true) {
        return Ok("the first control plane machine".to_owned());
    }
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let machines =
        Api::<Machine>::namespaced(client.clone(), cluster.metadata.namespace.as_deref().unwrap_or("default"));
    let machines = machines.list(&ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"))).await;
    let machines = machines.context("list the cluster's machines")?;
    let ready = machines
        .items
        .iter()
        .filter(|machine| machine.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready")))
        .count();
    let wanted =
        |counts: Option<api::cluster::ReplicaStatus>| counts.and_then(|counts| counts.desired_replicas).unwrap_or(0);
    let wanted = wanted(status.control_plane) + wanted(status.workers);
    Ok(format!("machines: {ready} of {wanted} ready"))
}
