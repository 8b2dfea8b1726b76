//! What there is of the cluster: its nodes and configuration, and what stands behind them in the cloud.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Node},
};
use kube::{Api, api::ListParams};
use openstack::{
    Client, Query,
    block_storage::Volume,
    compute::{Flavor, Server},
    load_balancer::LoadBalancer,
    network::{FloatingIp, Network, Port, Router, SecurityGroup, Subnet},
};
use serde_json::Value;

use super::Adopt;

/// A node with its server.
#[derive(Clone, Debug)]
pub struct Member {
    pub node: String,
    pub provider_id: String,
    /// Of the kubelet, with its v.
    pub version: String,
    pub control_plane: bool,
    pub server: Option<Server>,
    /// Name of the server's flavour.
    pub flavor: String,
    pub ports: Vec<Port>,
    /// The volume that the server boots from.
    pub root: Option<Volume>,
}

impl Member {
    /// The image that its disk was made of.
    pub fn image(&self) -> Option<&str> {
        match &self.root {
            Some(root) => root.volume_image_metadata.get("image_id").map(String::as_str),
            None => self.server.as_ref()?.image["id"].as_str(),
        }
    }
}

pub struct Seen {
    pub members: Vec<Member>,
    /// Of kubeadm.
    pub configuration: Value,
    /// Nodes get their provider ID from a cloud controller manager.
    pub cloud_controller: bool,
    pub network: Option<Network>,
    pub subnets: Vec<Subnet>,
    pub router: Option<Router>,
    /// By id.
    pub groups: BTreeMap<String, SecurityGroup>,
    pub balancers: Vec<LoadBalancer>,
    pub floating_ips: Vec<FloatingIp>,
}

pub async fn all(adopt: &Adopt) -> Result<Seen> {
    let nodes = Api::<Node>::all(adopt.workload.clone()).list(&ListParams::default()).await;
    let nodes = nodes.context("list the nodes of the cluster")?.items;
    let maps = Api::<ConfigMap>::namespaced(adopt.workload.clone(), "kube-system");
    let map =
        maps.get("kubeadm-config").await.context("read ConfigMap kube-system/kubeadm-config: kubeadm makes it")?;
    let text = map.data.unwrap_or_default().remove("ClusterConfiguration").unwrap_or_default();
    let configuration: Value = serde_saphyr::from_str(&text).context("read kubeadm's ClusterConfiguration")?;
    let daemons = Api::<DaemonSet>::namespaced(adopt.workload.clone(), "kube-system");
    let daemons = daemons.list(&ListParams::default()).await.context("list DaemonSets of kube-system")?;
    let cloud_controller = daemons
        .items
        .iter()
        .any(|daemon| daemon.metadata.name.as_deref().is_some_and(|name| name.contains("cloud-controller-manager")));
    let cloud = &adopt.cloud;
    let flavors = list::<Flavor>(cloud, "flavors").await?;
    let ports = list::<Port>(cloud, "ports").await?;
    let mut members = Vec::new();
    for node in nodes {
        members.push(member(cloud, node, &flavors, &ports).await?);
    }
    members.sort_by(|a, b| a.node.cmp(&b.node));
    roots(cloud, &mut members).await?;
    let home = members.iter().find(|member| member.control_plane).and_then(|member| member.ports.first());
    let home = home.map(|port| port.network_id.clone()).unwrap_or_default();
    let mut subnets = list::<Subnet>(cloud, "subnets").await?;
    subnets.retain(|subnet| subnet.network_id == home);
    let way_out = ports.iter().find(|port| port.network_id == home && port.device_owner.starts_with("network:router"));
    let router = match way_out {
        Some(port) => cloud.look::<Router>(&port.device_id).await.context("read the router")?,
        None => None,
    };
    let groups = list::<SecurityGroup>(cloud, "security groups").await?;
    Ok(Seen {
        network: cloud.look::<Network>(&home).await.context("read the network")?,
        groups: groups.into_iter().map(|group| (group.id.clone(), group)).collect(),
        // A cloud may have no load balancers.
        balancers: cloud.list::<LoadBalancer>(&Query::new()).await.unwrap_or_default(),
        floating_ips: list::<FloatingIp>(cloud, "floating IPs").await?,
        members,
        configuration,
        cloud_controller,
        subnets,
        router,
    })
}

async fn list<R: openstack::Resource>(cloud: &Client, what: &str) -> Result<Vec<R>> {
    cloud.list::<R>(&Query::new()).await.with_context(|| format!("list {what} of the cloud"))
}

/// Finds what servers without an image boot from: the first of their volumes that can be booted from.
async fn roots(cloud: &Client, members: &mut [Member]) -> Result<()> {
    let without: Vec<&mut Member> = members.iter_mut().filter(|m| m.server.is_some() && m.image().is_none()).collect();
    if without.is_empty() {
        return Ok(());
    }
    let volumes = list::<Volume>(cloud, "volumes").await?;
    for member in without {
        let id = member.server.as_ref().map(|server| server.id.as_str()).unwrap_or_default();
        let device = |volume: &&Volume| {
            let attached = volume.attachments.iter().find(|attachment| attachment.server_id == id);
            attached.map(|attachment| attachment.device.clone())
        };
        let bootable = volumes.iter().filter(|volume| volume.bootable == "true" && device(volume).is_some());
        member.root = bootable.min_by_key(device).cloned();
    }
    Ok(())
}

async fn member(cloud: &Client, node: Node, flavors: &[Flavor], ports: &[Port]) -> Result<Member> {
    let labels = node.metadata.labels.unwrap_or_default();
    let provider_id = node.spec.and_then(|spec| spec.provider_id).unwrap_or_default();
    let id = provider_id.rsplit('/').next().unwrap_or_default().to_owned();
    let name = node.metadata.name.unwrap_or_default();
    let server = match id.as_str() {
        "" => None,
        id => cloud.look::<Server>(id).await.with_context(|| format!("read the server of node {name}"))?,
    };
    let flavor = server.as_ref().map(|server| {
        let text = |key: &str| server.flavor[key].as_str().unwrap_or_default().to_owned();
        let known = flavors.iter().find(|flavor| flavor.id == text("id")).map(|flavor| flavor.name.clone());
        known.unwrap_or_else(|| text("original_name"))
    });
    let info = node.status.and_then(|status| status.node_info);
    Ok(Member {
        control_plane: labels.contains_key("node-role.kubernetes.io/control-plane"),
        version: info.map(|info| info.kubelet_version).unwrap_or_default(),
        ports: ports.iter().filter(|port| !id.is_empty() && port.device_id == id).cloned().collect(),
        flavor: flavor.unwrap_or_default(),
        root: None,
        node: name,
        provider_id,
        server,
    })
}
