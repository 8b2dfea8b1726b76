//! `skep describe cluster`: a tree of objects with their conditions, in the manner of `clusterctl describe`.

use anyhow::{Context, Result};
use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    machine::{Machine, MachineDeployment},
    machine_pool::MachinePool,
    meta::{Condition, ConditionStatus},
    names::CLUSTER_LABEL,
    openstack_cluster::OpenStackCluster,
};
use kube::{Api, Client, Resource, api::ListParams, core::ObjectMeta};
use serde_json::{Value, json};

use crate::{
    DONE, NOT_FOUND, Output, Target,
    output::{self, Colour},
};

#[derive(clap::Args)]
pub struct Arguments {
    name: String,
    #[command(flatten)]
    target: Target,
    /// Show every condition of every object
    #[arg(long)]
    show_conditions: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// One object of the tree; a group has no conditions.
struct Branch {
    name: String,
    replicas: Option<(i32, i32)>,
    conditions: Vec<Condition>,
    /// The condition that sums it up.
    summary: &'static str,
    children: Vec<Branch>,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let client = arguments.target.client().await?;
    let (namespace, name) = (&arguments.target.namespace, &arguments.name);
    let cluster = Api::<Cluster>::namespaced(client.clone(), namespace).get_opt(name).await;
    let Some(cluster) = cluster.with_context(|| format!("read cluster {namespace}/{name}"))? else {
        output::progress(&format!("there is no cluster {name} in namespace {namespace}"));
        return Ok(NOT_FOUND);
    };
    let tree = tree(&client, namespace, cluster).await?;
    match arguments.output {
        Output::Table => {
            let heads = ["NAME", "REPLICAS", "READY", "STATUS", "REASON", "SINCE", "MESSAGE"];
            let mut rows = vec![heads.map(str::to_owned).to_vec()];
            draw(&tree, "", "", arguments.show_conditions, &mut rows);
            output::line(&coloured(&output::table(&rows)));
        }
        form => output::document(&document(&tree), form)?,
    }
    Ok(DONE)
}

async fn tree(client: &Client, namespace: &str, cluster: Cluster) -> Result<Branch> {
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let params = ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"));
    let infrastructures = Api::<OpenStackCluster>::namespaced(client.clone(), namespace).list(&params).await?;
    let control_planes = Api::<KubeadmControlPlane>::namespaced(client.clone(), namespace).list(&params).await?;
    let deployments = Api::<MachineDeployment>::namespaced(client.clone(), namespace).list(&params).await?;
    let machines = Api::<Machine>::namespaced(client.clone(), namespace).list(&params).await?;
    let mut left: Vec<Machine> = machines.items;
    let mut children = Vec::new();
    for infrastructure in infrastructures.items {
        let conditions = infrastructure.status.map(|status| status.conditions).unwrap_or_default();
        children.push(leaf("ClusterInfrastructure - OpenStackCluster", &infrastructure.metadata, conditions, "Ready"));
    }
    for control_plane in control_planes.items {
        let status = control_plane.status.unwrap_or_default();
        let mine = take(&mut left, |machine| owned_by(&machine.metadata, control_plane.metadata.uid.as_deref()));
        children.push(Branch {
            replicas: Some((status.ready_replicas.unwrap_or(0), control_plane.spec.replicas.unwrap_or(0))),
            children: mine.into_iter().map(machine).collect(),
            ..leaf("ControlPlane - KubeadmControlPlane", &control_plane.metadata, status.conditions, "Available")
        });
    }
    let mut workers = group("Workers");
    for deployment in deployments.items {
        let own = deployment.metadata.name.clone().unwrap_or_default();
        let status = deployment.status.unwrap_or_default();
        let mine = take(&mut left, |machine| {
            machine.metadata.labels.as_ref().and_then(|labels| labels.get(api::names::DEPLOYMENT_LABEL)) == Some(&own)
        });
        workers.children.push(Branch {
            replicas: Some((status.ready_replicas.unwrap_or(0), deployment.spec.replicas.unwrap_or(0))),
            children: mine.into_iter().map(machine).collect(),
            ..leaf("MachineDeployment", &deployment.metadata, status.conditions, "Available")
        });
    }
    let pools = Api::<MachinePool>::namespaced(client.clone(), namespace).list(&params).await?;
    for pool in pools.items {
        let status = pool.status.unwrap_or_default();
        let mine = take(&mut left, |machine| owned_by(&machine.metadata, pool.metadata.uid.as_deref()));
        workers.children.push(Branch {
            replicas: Some((status.ready_replicas.unwrap_or(0), pool.spec.replicas.unwrap_or(0))),
            children: mine.into_iter().map(machine).collect(),
            ..leaf("MachinePool", &pool.metadata, status.conditions, "Available")
        });
    }
    if !workers.children.is_empty() {
        children.push(workers);
    }
    if !left.is_empty() {
        let mut others = group("Other");
        others.children = left.into_iter().map(machine).collect();
        children.push(others);
    }
    let conditions = cluster.status.map(|status| status.conditions).unwrap_or_default();
    Ok(Branch { children, ..leaf("Cluster", &cluster.metadata, conditions, "Available") })
}

fn take(machines: &mut Vec<Machine>, wanted: impl Fn(&Machine) -> bool) -> Vec<Machine> {
    let (mut mine, others): (Vec<_>, Vec<_>) = std::mem::take(machines).into_iter().partition(wanted);
    *machines = others;
    mine.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    mine
}

fn owned_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    meta.owner_references.iter().flatten().any(|owner| Some(owner.uid.as_str()) == uid)
}

fn machine(machine: Machine) -> Branch {
    let conditions = machine.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    leaf("Machine", machine.meta(), conditions, "Ready")
}

fn leaf(kind: &str, meta: &ObjectMeta, conditions: Vec<Condition>, summary: &'static str) -> Branch {
    let name = format!("{kind}/{}", meta.name.as_deref().unwrap_or_default());
    Branch { name, replicas: None, conditions, summary, children: Vec::new() }
}

fn group(name: &str) -> Branch {
    Branch { name: name.to_owned(), replicas: None, conditions: Vec::new(), summary: "", children: Vec::new() }
}

fn draw(branch: &Branch, head: &str, tail: &str, all: bool, rows: &mut Vec<Vec<String>>) {
    let summary = condition::get(&branch.conditions, branch.summary);
    let ready = branch.replicas.map(|(ready, wanted)| (wanted.to_string(), ready.to_string())).unwrap_or_default();
    let mut row = vec![format!("{head}{}", branch.name), ready.0, ready.1];
    row.extend(cells(branch.summary, summary));
    rows.push(row);
    let more: Vec<&Condition> = if all { branch.conditions.iter().collect() } else { Vec::new() };
    let total = more.len() + branch.children.len();
    for (index, condition) in more.into_iter().enumerate() {
        let last = index + 1 == total;
        let mark = if last { "└─" } else { "├─" };
        let mut row = vec![format!("{tail}{mark}{}", condition.type_), String::new(), String::new()];
        row.extend(cells(&condition.type_, Some(condition)));
        rows.push(row);
    }
    for (index, child) in branch.children.iter().enumerate() {
        let last = index + 1 == branch.children.len();
        let (mark, bar) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        draw(child, &format!("{tail}{mark}"), &format!("{tail}{bar}"), all, rows);
    }
}

/// Status, reason, since and the first line of the message.
fn cells(type_: &str, condition: Option<&Condition>) -> [String; 4] {
    let Some(condition) = condition else { return Default::default() };
    let since = jiff::Timestamp::now().duration_since(condition.last_transition_time.0).as_secs();
    let mut lines = condition.message.lines();
    let mut message = lines.next().unwrap_or_default().trim_start_matches("* ").to_owned();
    if lines.next().is_some() {
        message.push_str(" ...");
    }
    [format!("{type_}: {:?}", condition.status), condition.reason.clone(), output::age(since), message]
}

fn coloured(table: &str) -> String {
    let paint = |line: &str| {
        let colour = [(": True", Colour::Green), (": False", Colour::Red), (": Unknown", Colour::Yellow)];
        let found = colour.into_iter().find(|(mark, _)| line.contains(&format!("{mark} ")) || line.ends_with(mark));
        match found {
            Some((mark, colour)) => line.replacen(mark, &format!(": {}", output::coloured(&mark[2..], colour)), 1),
            None => line.to_owned(),
        }
    };
    table.lines().map(paint).collect::<Vec<_>>().join("\n")
}

fn document(branch: &Branch) -> Value {
    let status = |status: ConditionStatus| format!("{status:?}");
    let summary = condition::get(&branch.conditions, branch.summary);
    json!({
        "name": branch.name,
        "status": summary.map(|found| status(found.status)),
        "reason": summary.map(|found| &found.reason),
        "message": summary.map(|found| &found.message),
        "replicas": branch.replicas.map(|(_, wanted)| wanted),
        "readyReplicas": branch.replicas.map(|(ready, _)| ready),
        "conditions": branch.conditions,
        "children": branch.children.iter().map(document).collect::<Vec<_>>(),
    })
}
