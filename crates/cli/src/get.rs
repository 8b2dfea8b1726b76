//! `skep get clusters|machines|kubeconfig`.

use anyhow::{Context, Result};
use api::{
    cluster::Cluster,
    condition,
    machine::Machine,
    names::{CLUSTER_LABEL, CONTROL_PLANE_LABEL, Purpose},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Resource, api::ListParams};

use crate::{DONE, NOT_FOUND, Output, Target, output};

#[derive(clap::Subcommand)]
pub enum What {
    /// Clusters with their state
    #[command(visible_alias = "cluster")]
    Clusters(List),
    /// Machines with their nodes
    #[command(visible_alias = "machine")]
    Machines {
        #[command(flatten)]
        list: List,
        /// Of this cluster only
        #[arg(long)]
        cluster: Option<String>,
    },
    /// The administrator's kubeconfig of a cluster
    Kubeconfig {
        cluster: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    target: Target,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub async fn run(what: What) -> Result<u8> {
    match what {
        What::Clusters(list) => {
            let found = fetch::<Cluster>(&list, ListParams::default()).await?;
            let heads = ["NAME", "PHASE", "AVAILABLE", "CONTROL PLANE", "WORKERS", "ENDPOINT", "AGE"];
            print(&list, "ClusterList", &found, &heads, cluster_row)
        }
        What::Machines { list, cluster } => {
            let mut params = ListParams::default();
            if let Some(cluster) = cluster {
                params = params.labels(&format!("{CLUSTER_LABEL}={cluster}"));
            }
            let found = fetch::<Machine>(&list, params).await?;
            let heads = ["NAME", "CLUSTER", "ROLE", "PHASE", "READY", "ZONE", "NODE", "VERSION", "AGE"];
            print(&list, "MachineList", &found, &heads, machine_row)
        }
        What::Kubeconfig { cluster, target } => {
            let client = target.client().await?;
            let name = Purpose::Kubeconfig.secret_name(&cluster);
            let secret = Api::<Secret>::namespaced(client, &target.namespace).get_opt(&name).await;
            let secret = secret.with_context(|| format!("read secret {}/{name}", target.namespace))?;
            let Some(value) = secret.and_then(|secret| secret.data?.remove("value")) else {
                output::progress(&format!(
                    "cluster {cluster} has no kubeconfig yet (secret {}/{name})",
                    target.namespace
                ));
                return Ok(NOT_FOUND);
            };
            output::line(String::from_utf8(value.0).context("the kubeconfig is not text")?.trim_end());
            Ok(DONE)
        }
    }
}

async fn fetch<K>(list: &List, params: ListParams) -> Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let client: Client = list.target.client().await?;
    let api = if list.all_namespaces { Api::<K>::all(client) } else { Api::namespaced(client, &list.target.namespace) };
    let found = api.list(&params).await.with_context(|| format!("list {}", K::plural(&())))?;
    Ok(found.items)
}

fn print<K: Resource<DynamicType = ()> + serde::Serialize>(
    list: &List,
    kind: &str,
    items: &[K],
    heads: &[&str],
    row: fn(&K) -> Vec<String>,
) -> Result<u8> {
    if list.output != Output::Table {
        let document = serde_json::json!({"apiVersion": K::api_version(&()), "kind": kind, "items": items});
        output::document(&document, list.output)?;
        return Ok(DONE);
    }
    if items.is_empty() {
        output::progress("No resources found.");
        return Ok(DONE);
    }
    let mut rows = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(row));
    if list.all_namespaces {
        rows[0].insert(0, "NAMESPACE".to_owned());
        for (cells, item) in rows[1..].iter_mut().zip(items) {
            cells.insert(0, item.meta().namespace.clone().unwrap_or_default());
        }
    }
    output::line(&output::table(&rows));
    Ok(DONE)
}

fn age(object: &impl Resource) -> String {
    let made = object.meta().creation_timestamp.as_ref().map(|time| time.0);
    made.map_or_else(
        || "<unknown>".to_owned(),
        |made| output::age(jiff::Timestamp::now().duration_since(made).as_secs()),
    )
}

fn cluster_row(cluster: &Cluster) -> Vec<String> {
    let status = cluster.status.clone().unwrap_or_default();
    let counts = |counts: Option<api::cluster::ReplicaStatus>| {
        let counts = counts.unwrap_or_default();
        format!("{}/{}", counts.ready_replicas.unwrap_or(0), counts.desired_replicas.unwrap_or(0))
    };
    let available = condition::get(&status.conditions, "Available");
    let endpoint = cluster.spec.control_plane_endpoint.clone().unwrap_or_default();
    let endpoint = match (endpoint.host, endpoint.port) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "-".to_owned(),
    };
    vec![
        cluster.metadata.name.clone().unwrap_or_default(),
        status.phase.map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}")),
        available.map_or_else(|| "Unknown".to_owned(), |found| format!("{:?}", found.status)),
        counts(status.control_plane),
        counts(status.workers),
        endpoint,
        age(cluster),
    ]
}

fn machine_row(machine: &Machine) -> Vec<String> {
    let status = machine.status.clone().unwrap_or_default();
    let role = machine.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE_LABEL));
    let ready = condition::get(&status.conditions, "Ready");
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        machine.metadata.name.clone().unwrap_or_default(),
        machine.spec.cluster_name.clone(),
        if role { "control-plane" } else { "worker" }.to_owned(),
        status.phase.map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}")),
        ready.map_or_else(|| "Unknown".to_owned(), |found| format!("{:?}", found.status)),
        text(status.failure_domain.or_else(|| machine.spec.failure_domain.clone())),
        text(status.node_ref.map(|node| node.name)),
        text(machine.spec.version.clone()),
        age(machine),
    ]
}
