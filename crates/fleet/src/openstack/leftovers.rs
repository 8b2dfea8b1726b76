//! What the workload cluster's own controllers have made in the cloud: load balancers, floating IPs and security groups of
//! the cloud controller manager, volumes of the CSI driver and snapshots of them. Nobody else takes them away when the cluster goes.
//!
//! They are known by their names, descriptions and metadata, and a load balancer also by the cluster's own network, in which
//! nobody else has a place. Of volumes and snapshots only those go that the cluster said are to go (`volumes`).
//!
//! Source: kubernetes/cloud-provider-openstack pkg/openstack/loadbalancer.go, pkg/util/util.go, pkg/csi/cinder.

use std::{collections::BTreeMap, time::Duration};

use api::{
    names::{LEFTOVERS_ANNOTATION, SNAPSHOTS_ANNOTATION, VOLUMES_ANNOTATION},
    openstack_cluster::OpenStackCluster,
};
use openstack::{
    Query,
    block_storage::{Snapshot, Volume},
    load_balancer::LoadBalancer,
    network::{FloatingIp, SecurityGroup},
};

use super::{
    names, network,
    scope::Scope,
    stop::{Result, blocked, pace, wait},
};
use crate::owner;

/// Metadata of the CSI driver's volumes and snapshots: the name of the cluster that it was started with.
const CSI_CLUSTER: &str = "cinder.csi.openstack.org/cluster";
/// Names in a message.
const NAMED_MAX: usize = 5;
const REASON: &str = "WaitingForLeftovers";

/// By which names the cluster may call itself in the cloud.
pub fn aliases(resource: &str, cluster: &str, alone: bool) -> Vec<String> {
    let mut aliases = vec![resource.to_owned()];
    // Two clusters of a name cannot be told apart by it.
    if alone {
        aliases.push(cluster.to_owned());
    }
    aliases
}

fn is_balancer(balancer: &LoadBalancer, aliases: &[String], network: Option<&str>) -> bool {
    let Some(rest) = balancer.name.strip_prefix("kube_service_") else { return false };
    let named = |alias: &String| rest.strip_prefix(alias.as_str()).is_some_and(|rest| rest.starts_with('_'));
    network.is_some_and(|network| balancer.vip_network_id == network) || aliases.iter().any(named)
}

/// Written by the cloud controller manager, for a Service of one of these clusters; of any if none is given.
fn is_address(address: &FloatingIp, aliases: Option<&[String]>) -> bool {
    let ours = address.description.starts_with("Floating IP for Kubernetes external service ");
    ours && aliases
        .is_none_or(|all| all.iter().any(|alias| address.description.ends_with(&format!(" from cluster {alias}"))))
}

fn is_group(group: &SecurityGroup, aliases: &[String]) -> bool {
    let described = |alias: &String| group.description.ends_with(&format!(" Service LoadBalancer in cluster {alias}"));
    group.name.starts_with("lb-sg-") && aliases.iter().any(described)
}

/// What the CSI driver has made, by its metadata.
fn is_of(metadata: &BTreeMap<String, String>, aliases: &[String]) -> bool {
    metadata.get(CSI_CLUSTER).is_some_and(|cluster| aliases.contains(cluster))
}

fn named<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = all.len();
    let mut text = all.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if count > NAMED_MAX {
        text.push_str(&format!(" and {} more", count - NAMED_MAX));
    }
    text
}

/// Removes what is left over, and returns what stays: sentences for the user. Ends when nothing more is to go.
pub async fn delete(scope: &Scope, infra: &OpenStackCluster, aliases: &[String], age: Duration) -> Result<Vec<String>> {
    let managed = infra.status.as_ref().and_then(|status| status.network.as_ref());
    let managed = managed.filter(|_| network::is_managed(&infra.spec)).map(|network| network.id.clone());
    if owner::annotation_of(&infra.metadata, LEFTOVERS_ANNOTATION) == Some("keep") {
        return keep(scope, aliases, managed.as_deref()).await;
    }
    balancers(scope, aliases, managed.as_deref(), age).await?;
    for address in scope.cloud.list::<FloatingIp>(&Query::new()).await? {
        if is_address(&address, Some(aliases)) {
            scope.cloud.remove::<FloatingIp>(&address.id).await?;
        }
    }
    for group in scope.cloud.list::<SecurityGroup>(&Query::new()).await? {
        if is_group(&group, aliases) {
            scope.cloud.remove::<SecurityGroup>(&group.id).await?;
        }
    }
    volumes(scope, infra, aliases, age).await
}

async fn balancers(scope: &Scope, aliases: &[String], network: Option<&str>, age: Duration) -> Result<()> {
    if !scope.cloud.has(openstack::Service::LoadBalancer).await? {
        return Ok(());
    }
    let mut left = scope.cloud.list::<LoadBalancer>(&Query::new()).await?;
    left.retain(|balancer| is_balancer(balancer, aliases, network));
    for balancer in &left {
        let at = Query::new().with("port_id", &balancer.vip_port_id);
        for address in scope.cloud.list::<FloatingIp>(&at).await? {
            // Others were given to the Service by hand, and are only freed.
            if is_address(&address, None) {
                scope.cloud.remove::<FloatingIp>(&address.id).await?;
            }
        }
        if balancer.is_mutable() {
            let cascade = Query::new().with("cascade", true);
            match scope.cloud.delete_with::<LoadBalancer>(&balancer.id, &cascade).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    let names = named(left.iter().map(|balancer| balancer.name.as_str()));
    wait(REASON, format!("load balancers of the cluster's Services to be gone: {names}"), pace(age))
}

async fn volumes(scope: &Scope, infra: &OpenStackCluster, aliases: &[String], age: Duration) -> Result<Vec<String>> {
    if !scope.cloud.has(openstack::Service::BlockStorage).await? {
        return Ok(Vec::new());
    }
    let go = owner::annotation_of(&infra.metadata, VOLUMES_ANNOTATION).unwrap_or_default();
    let go: Vec<&str> = go.split(',').collect();
    let mut sentences = Vec::new();
    let copied = snapshots(scope, infra, aliases, age, &mut sentences).await?;
    let (mut stay, mut busy) = (Vec::new(), Vec::new());
    for volume in scope.cloud.list::<Volume>(&Query::new()).await? {
        let goes = go.contains(&volume.id.as_str());
        if goes && copied.contains(&volume.id) {
            // Cinder keeps it for as long as there is a snapshot of it.
            stay.push(volume.name);
        } else if goes {
            match volume.status.as_str() {
                "available" | "error" | "error_deleting" => drop(scope.cloud.remove::<Volume>(&volume.id).await?),
                "deleting" => {}
                other => busy.push(format!("{} (it is {other})", volume.name)),
            }
        } else if is_of(&volume.metadata, aliases) {
            stay.push(volume.name);
        }
    }
    if !busy.is_empty() {
        let names = named(busy.iter().map(String::as_str));
        return wait(REASON, format!("volumes of the cluster to be free: {names}"), pace(age));
    }
    if !stay.is_empty() {
        let names = named(stay.iter().map(String::as_str));
        let why = "volumes whose PersistentVolume does not say Delete, or was not seen, or whose snapshots stay";
        sentences.push(format!("{why}: {names}"));
    }
    Ok(sentences)
}

/// Takes away the snapshots that are to go, and returns the volumes that are held by those that stay.
async fn snapshots(
    scope: &Scope,
    infra: &OpenStackCluster,
    aliases: &[String],
    age: Duration,
    sentences: &mut Vec<String>,
) -> Result<Vec<String>> {
    let go = owner::annotation_of(&infra.metadata, SNAPSHOTS_ANNOTATION).unwrap_or_default();
    let go: Vec<&str> = go.split(',').collect();
    let (mut stay, mut busy, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for snapshot in scope.cloud.list::<Snapshot>(&Query::new()).await? {
        if !go.contains(&snapshot.id.as_str()) {
            if is_of(&snapshot.metadata, aliases) {
                stay.push(snapshot.name);
            }
            held.push(snapshot.volume_id);
            continue;
        }
        if matches!(snapshot.status.as_str(), "available" | "error" | "error_deleting") {
            scope.cloud.remove::<Snapshot>(&snapshot.id).await?;
        }
        busy.push(format!("{} (it is {})", snapshot.name, snapshot.status));
    }
    if !busy.is_empty() {
        let names = named(busy.iter().map(String::as_str));
        return wait(REASON, format!("snapshots of the cluster to be gone: {names}"), pace(age));
    }
    if !stay.is_empty() {
        let names = named(stay.iter().map(String::as_str));
        sentences.push(format!("snapshots whose VolumeSnapshotContent does not say Delete, or was not seen: {names}"));
    }
    Ok(held)
}

/// What the user wants to keep. Load balancers in the cluster's own network cannot stay when it goes.
async fn keep(scope: &Scope, aliases: &[String], network: Option<&str>) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    let mut tell = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            kept.push(format!("{what}: {}", named(names.iter().map(String::as_str))));
        }
    };
    if scope.cloud.has(openstack::Service::LoadBalancer).await? {
        let mut all = scope.cloud.list::<LoadBalancer>(&Query::new()).await?;
        all.retain(|balancer| is_balancer(balancer, aliases, network));
        let inside = all.iter().filter(|balancer| network == Some(balancer.vip_network_id.as_str()));
        let inside: Vec<&str> = inside.map(|balancer| balancer.name.as_str()).collect();
        if !inside.is_empty() {
            let names = named(inside.into_iter());
            let message = format!(
                "load balancers are to be kept ({LEFTOVERS_ANNOTATION}), but stand in the cluster's network: {names}. Delete them, or remove the annotation"
            );
            return blocked(REASON, message);
        }
        tell("load balancers", all.into_iter().map(|balancer| balancer.name).collect());
    }
    let addresses = scope.cloud.list::<FloatingIp>(&Query::new()).await?.into_iter();
    let addresses = addresses.filter(|address| is_address(address, Some(aliases)));
    tell("floating IPs", addresses.map(|address| address.floating_ip_address).collect());
    let groups = scope.cloud.list::<SecurityGroup>(&Query::new()).await?.into_iter();
    tell("security groups", groups.filter(|group| is_group(group, aliases)).map(|group| group.name).collect());
    if scope.cloud.has(openstack::Service::BlockStorage).await? {
        let volumes = scope.cloud.list::<Volume>(&Query::new()).await?.into_iter();
        tell("volumes", volumes.filter(|volume| is_of(&volume.metadata, aliases)).map(|volume| volume.name).collect());
        let all = scope.cloud.list::<Snapshot>(&Query::new()).await?.into_iter();
        tell("snapshots", all.filter(|one| is_of(&one.metadata, aliases)).map(|one| one.name).collect());
    }
    Ok(kept)
}

/// The names of a cluster in its cloud, as far as they tell it from the other clusters that are managed here.
pub fn names_of(caches: &crate::Caches, namespace: &str, cluster: &str) -> Vec<String> {
    let alone = !caches.clusters.keys().iter().any(|key| key.name == cluster && key.namespace != namespace);
    aliases(&names::resource(namespace, cluster), cluster, alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases_of(alone: bool) -> Vec<String> {
        aliases("default-demo", "demo", alone)
    }

    #[test]
    fn load_balancers_are_known_by_name_or_network() {
        let balancer = |name: &str, network: &str| LoadBalancer {
            name: name.into(),
            vip_network_id: network.into(),
            ..Default::default()
        };
        for (name, network, alone, want) in [
            ("kube_service_demo_default_web", "elsewhere", true, true),
            ("kube_service_demo_default_web", "elsewhere", false, false),
            ("kube_service_default-demo_default_web", "elsewhere", false, true),
            ("kube_service_demo-2_default_web", "elsewhere", true, false),
            ("kube_service_kubernetes_default_web", "ours", true, true),
            ("kube_service_kubernetes_default_web", "elsewhere", true, false),
            ("somebody's", "ours", true, false),
        ] {
            assert_eq!(
                is_balancer(&balancer(name, network), &aliases_of(alone), Some("ours")),
                want,
                "{name} {network}"
            );
        }
    }

    #[test]
    fn addresses_groups_and_volumes_are_known_by_what_is_written_on_them() {
        let all = aliases_of(true);
        let address = |text: &str| FloatingIp { description: text.into(), ..Default::default() };
        let ours = address("Floating IP for Kubernetes external service default/web from cluster demo");
        assert!(is_address(&ours, Some(&all)) && is_address(&ours, None));
        let other = address("Floating IP for Kubernetes external service default/web from cluster other");
        assert!(!is_address(&other, Some(&all)) && !is_address(&address("mine"), None));
        let group = |name: &str, cluster: &str| SecurityGroup {
            name: name.into(),
            description: format!("Security Group for default/web Service LoadBalancer in cluster {cluster}"),
            ..Default::default()
        };
        assert!(is_group(&group("lb-sg-1-default-web", "demo"), &all));
        assert!(!is_group(&group("lb-sg-1-default-web", "other"), &all) && !is_group(&group("web", "demo"), &all));
        let volume = |cluster: &str| Volume {
            metadata: [(CSI_CLUSTER.to_owned(), cluster.to_owned())].into(),
            ..Default::default()
        };
        let is_volume = |cluster: &str| is_of(&volume(cluster).metadata, &all);
        assert!(is_volume("demo") && !is_volume("kubernetes"));
    }
}
