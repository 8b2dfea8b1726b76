//! `skep cloud orphans`: what carries the platform's marks in a cloud, and no object of the management cluster owns.
//!
//! What other management clusters made in the same project looks the same: the command lists, and deletes nothing.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use api::{
    names::CLUSTER_LABEL, openstack_cluster::OpenStackCluster, openstack_machine::OpenStackMachine,
    openstack_pool::OpenStackFloatingIPPool, openstack_server::OpenStackServer,
};
use kube::{Api, Client as Kubernetes, ResourceExt, api::ListParams};
use openstack::{
    Client, Query, Service,
    block_storage::{Snapshot, Volume},
    compute::{Server, ServerGroup},
    image::Image,
    load_balancer::LoadBalancer,
    network::{FloatingIp, Network, Port, Router, SecurityGroup, Subnet, Trunk},
};
use serde_json::json;

use crate::{
    DONE, Output, Target,
    doctor::{self, Place},
    output,
};

/// What the provider writes into descriptions, followed by `<namespace>-<cluster>`.
const MARK: &str = "Created by cluster-api-provider-openstack cluster ";
/// The same as metadata of servers and volumes.
const OWNER_KEY: &str = "k8s-clusterapi-cluster";
/// Names of server groups, followed by `<namespace>-<cluster>/`.
const GROUP_PREFIX: &str = "k8s-clusterapi-cluster-";
/// What cloud controllers and CSI drivers of workload clusters write.
const BALANCER_PREFIX: &str = "kube_service_";
const SERVICE_GROUP_PREFIX: &str = "lb-sg-";
const CSI_CLUSTER: &str = "cinder.csi.openstack.org/cluster";

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    target: Target,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Something in the cloud with a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marked {
    kind: &'static str,
    id: String,
    name: String,
    /// `<namespace>-<cluster>` of the provider's mark, or what a workload cluster calls itself; of an image `<namespace>/<name>` of
    /// its object.
    cluster: String,
    of: Of,
}

/// What an orphan has no owner among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Cluster,
    /// Its name begins with that of the machine that it was made for.
    Machine,
    /// Made by a workload cluster's own controllers, which call clusters by their names alone.
    Inside,
    /// Made for an Image, which is of no cluster.
    Image,
}

/// What the management cluster has.
#[derive(Default)]
struct Known {
    /// `<namespace>-<cluster>`.
    clusters: BTreeSet<String>,
    /// Names of clusters alone.
    names: BTreeSet<String>,
    machines: BTreeSet<String>,
    /// `<namespace>/<name>`.
    images: BTreeSet<String>,
}

impl Known {
    /// Why nothing owns it; none if something may.
    fn why(&self, marked: &Marked) -> Option<String> {
        let known = self.clusters.contains(&marked.cluster);
        if marked.of == Of::Image {
            return (!self.images.contains(&marked.cluster)).then(|| format!("no Image is named {}", marked.cluster));
        }
        if marked.of == Of::Inside {
            let may = known || self.names.contains(&marked.cluster);
            return (!may).then(|| format!("no cluster is named {}", marked.cluster));
        }
        if !known {
            return Some(format!("no OpenStackCluster is of {}", marked.cluster));
        }
        let bastion = format!("{}-bastion", marked.cluster);
        let owner = |machine: &String| {
            marked.name == *machine
                || marked.name.strip_prefix(machine.as_str()).is_some_and(|rest| rest.starts_with('-'))
        };
        let owned = self.machines.iter().chain([&bastion]).any(owner);
        (marked.of == Of::Machine && !owned).then(|| "no OpenStackMachine is of that name".to_owned())
    }
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let cloud = doctor::cloud(&arguments.place)?;
    let client = Client::connect(cloud, doctor::options()?).context("set up a client of the cloud")?;
    // First what is in the cloud: what is made meanwhile has an object before it is there.
    let marked = marked(&client).await?;
    let known = known(&arguments.target.client().await?).await?;
    let orphans: Vec<(Marked, String)> =
        marked.into_iter().filter_map(|one| known.why(&one).map(|why| (one, why))).collect();
    if arguments.output != Output::Table {
        let row = |(one, why): &(Marked, String)| json!({"kind": one.kind, "id": one.id, "name": one.name, "cluster": one.cluster, "why": why});
        output::document(&json!({"orphans": orphans.iter().map(row).collect::<Vec<_>>()}), arguments.output)?;
        return Ok(DONE);
    }
    if orphans.is_empty() {
        output::line("Nothing in this cloud is without an owner.");
        return Ok(DONE);
    }
    let mut rows = vec![["KIND", "ID", "NAME", "CLUSTER", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(orphans.into_iter().map(|(one, why)| vec![one.kind.to_owned(), one.id, one.name, one.cluster, why]));
    output::line(&output::table(&rows));
    Ok(DONE)
}

async fn known(client: &Kubernetes) -> Result<Known> {
    let mut known = Known::default();
    let clusters = Api::<OpenStackCluster>::all(client.clone()).list(&ListParams::default()).await;
    for infra in clusters.context("list OpenStackClusters")?.items {
        let namespace = infra.namespace().unwrap_or_default();
        let name = infra.labels().get(CLUSTER_LABEL).cloned().unwrap_or_else(|| infra.name_any());
        known.clusters.insert(format!("{namespace}-{name}"));
        known.names.insert(name);
    }
    let machines = Api::<OpenStackMachine>::all(client.clone()).list(&ListParams::default()).await;
    known.machines = machines.context("list OpenStackMachines")?.items.iter().map(ResourceExt::name_any).collect();
    // What a server or a pool of its own has bears the same mark, with its name where others have their cluster's.
    let servers = Api::<OpenStackServer>::all(client.clone()).list(&ListParams::default()).await;
    for server in servers.context("list OpenStackServers")?.items {
        let name = server.labels().get(CLUSTER_LABEL).cloned().unwrap_or_else(|| server.name_any());
        known.clusters.insert(format!("{}-{name}", server.namespace().unwrap_or_default()));
        known.machines.insert(server.name_any());
    }
    let pools = Api::<OpenStackFloatingIPPool>::all(client.clone()).list(&ListParams::default()).await;
    for pool in pools.context("list OpenStackFloatingIPPools")?.items {
        known.clusters.insert(format!("{}-{}", pool.namespace().unwrap_or_default(), pool.name_any()));
    }
    let images = Api::<api::openstack_image::Image>::all(client.clone()).list(&ListParams::default()).await;
    match images {
        Ok(images) => {
            let names =
                images.items.iter().map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any()));
            known.images = names.collect();
        }
        // Not every management cluster has the kind.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("list Images"),
    }
    Ok(known)
}

/// The cluster that a description names; a person's own text may stand before it, and a role after it.
fn cluster_of(description: &str) -> Option<String> {
    let (_, rest) = description.split_once(MARK)?;
    let name = rest.split([':', ')', ' ']).next().unwrap_or(rest);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The cluster of whose Service the security group is (cloud-provider-openstack pkg/openstack/loadbalancer.go).
fn service_of(group: &SecurityGroup) -> Option<String> {
    let (_, cluster) = group.description.split_once(" Service LoadBalancer in cluster ")?;
    group.name.starts_with(SERVICE_GROUP_PREFIX).then(|| cluster.to_owned())
}

async fn marked(cloud: &Client) -> Result<Vec<Marked>> {
    let all = Query::new();
    let mut found = Vec::new();
    macro_rules! described {
        ($($kind:ty, $what:literal, $of:ident;)*) => {$(
            for one in cloud.list::<$kind>(&all).await.context(concat!("list the cloud's ", $what, "s"))? {
                if let Some(cluster) = cluster_of(&one.description) {
                    found.push(Marked { kind: $what, id: one.id, name: one.name, cluster, of: Of::$of });
                }
            }
        )*};
    }
    for server in cloud.list::<Server>(&all).await.context("list the cloud's servers")? {
        if let Some(cluster) = server.metadata.get(OWNER_KEY).cloned() {
            let (id, name) = (server.id, server.name);
            found.push(Marked { kind: "server", id, name, cluster, of: Of::Machine });
        }
    }
    for group in cloud.list::<ServerGroup>(&all).await.context("list the cloud's server groups")? {
        let cluster = group.name.strip_prefix(GROUP_PREFIX).and_then(|rest| rest.split_once('/'));
        if let Some(cluster) = cluster.map(|(cluster, _)| cluster.to_owned()) {
            let (id, name) = (group.id, group.name);
            found.push(Marked { kind: "server group", id, name, cluster, of: Of::Cluster });
        }
    }
    if cloud.has(Service::BlockStorage).await? {
        for volume in cloud.list::<Volume>(&all).await.context("list the cloud's volumes")? {
            let ours = volume.metadata.get(OWNER_KEY).cloned();
            let of = if ours.is_some() { Of::Machine } else { Of::Inside };
            if let Some(cluster) = ours.or_else(|| volume.metadata.get(CSI_CLUSTER).cloned()) {
                let (id, name) = (volume.id, volume.name);
                found.push(Marked { kind: "volume", id, name, cluster, of });
            }
        }
    }
    if cloud.has(Service::BlockStorage).await? {
        for snapshot in cloud.list::<Snapshot>(&all).await.context("list the cloud's snapshots")? {
            if let Some(cluster) = snapshot.metadata.get(CSI_CLUSTER).cloned() {
                let (id, name) = (snapshot.id, snapshot.name);
                found.push(Marked { kind: "snapshot", id, name, cluster, of: Of::Inside });
            }
        }
    }
    if cloud.has(Service::LoadBalancer).await? {
        for balancer in cloud.list::<LoadBalancer>(&all).await.context("list the cloud's load balancers")? {
            let ours = cluster_of(&balancer.description);
            let of = if ours.is_some() { Of::Cluster } else { Of::Inside };
            let service = || balancer.name.strip_prefix(BALANCER_PREFIX)?.split('_').next().map(str::to_owned);
            if let Some(cluster) = ours.or_else(service) {
                let (id, name) = (balancer.id, balancer.name);
                found.push(Marked { kind: "load balancer", id, name, cluster, of });
            }
        }
    }
    for address in cloud.list::<FloatingIp>(&all).await.context("list the cloud's floating IPs")? {
        let ours = cluster_of(&address.description);
        let of = if ours.is_some() { Of::Cluster } else { Of::Inside };
        let service = || {
            let text = address.description.strip_prefix("Floating IP for Kubernetes external service ")?;
            text.rsplit_once(" from cluster ").map(|(_, cluster)| cluster.to_owned())
        };
        if let Some(cluster) = ours.or_else(service) {
            let (id, name) = (address.id, address.floating_ip_address);
            found.push(Marked { kind: "floating IP", id, name, cluster, of });
        }
    }
    described! {
        Trunk, "trunk", Machine;
        Port, "port", Machine;
        Router, "router", Cluster;
        Subnet, "subnet", Cluster;
        Network, "network", Cluster;
    }
    for group in cloud.list::<SecurityGroup>(&all).await.context("list the cloud's security groups")? {
        let ours = cluster_of(&group.description);
        let of = if ours.is_some() { Of::Cluster } else { Of::Inside };
        if let Some(cluster) = ours.or_else(|| service_of(&group)) {
            found.push(Marked { kind: "security group", id: group.id, name: group.name, cluster, of });
        }
    }
    if cloud.has(Service::Image).await? {
        for image in cloud.list::<Image>(&all).await.context("list the cloud's images")? {
            if !image.k_orc_object.is_empty() {
                let (id, name, cluster) = (image.id, image.name, image.k_orc_object);
                found.push(Marked { kind: "image", id, name, cluster, of: Of::Image });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, cluster: &str, of: Of) -> Marked {
        Marked { kind: "x", id: "id".into(), name: name.into(), cluster: cluster.into(), of }
    }

    #[test]
    fn descriptions_name_their_cluster() {
        assert_eq!(cluster_of(&format!("{MARK}default-demo")).as_deref(), Some("default-demo"));
        assert_eq!(cluster_of(&format!("{MARK}default-demo: kubeapi")).as_deref(), Some("default-demo"));
        assert_eq!(cluster_of(&format!("first port ({MARK}default-demo)")).as_deref(), Some("default-demo"));
        assert_eq!(cluster_of("somebody's"), None);
    }

    #[test]
    fn security_groups_of_services_name_their_cluster() {
        let group = |name: &str, description: &str| SecurityGroup {
            name: name.into(),
            description: description.into(),
            ..Default::default()
        };
        let text = "Security Group for default/web Service LoadBalancer in cluster demo";
        assert_eq!(service_of(&group("lb-sg-1-default-web", text)).as_deref(), Some("demo"));
        assert_eq!(service_of(&group("web", text)), None);
        assert_eq!(service_of(&group("lb-sg-1-default-web", "mine")), None);
    }

    #[test]
    fn what_has_no_object_is_an_orphan_and_says_why() {
        let known = Known {
            clusters: ["default-demo".to_owned()].into(),
            names: ["demo".to_owned()].into(),
            machines: ["demo-cp-x".to_owned()].into(),
            images: ["default/ubuntu".to_owned()].into(),
        };
        for (marked, orphan) in [
            (one("net", "default-demo", Of::Cluster), false),
            (one("net", "default-gone", Of::Cluster), true),
            (one("demo-cp-x", "default-demo", Of::Machine), false),
            (one("demo-cp-x-0", "default-demo", Of::Machine), false),
            (one("demo-cp-xy", "default-demo", Of::Machine), true),
            (one("default-demo-bastion-0", "default-demo", Of::Machine), false),
            (one("kube_service_demo_default_web", "demo", Of::Inside), false),
            (one("kube_service_gone_default_web", "gone", Of::Inside), true),
            (one("lb-sg-1-default-web", "default-demo", Of::Inside), false),
            (one("ubuntu", "default/ubuntu", Of::Image), false),
            (one("ubuntu", "default/gone", Of::Image), true),
        ] {
            assert_eq!(known.why(&marked).is_some(), orphan, "{marked:?}");
        }
    }
}
