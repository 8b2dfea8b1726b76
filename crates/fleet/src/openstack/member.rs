//! How the API reaches a control plane machine: its place behind the load balancer, or the cluster's floating IP.

use std::time::Duration;

use api::openstack_cluster::OpenStackCluster;
use openstack::{
    Query,
    load_balancer::{LoadBalancer, Member, MemberDraft},
    network::Port,
};

use super::{
    endpoint, floating, names,
    scope::Scope,
    stop::{Result, blocked, pace, wait},
};

pub const REASON: &str = "LoadBalancerMemberError";
/// The member is there, and Octavia has not put it to work yet.
pub const NOT_READY: &str = "LoadBalancerMemberNotReady";

/// Puts the machine behind the API's endpoint.
pub async fn ensure(
    scope: &Scope,
    cluster: &OpenStackCluster,
    machine: &str,
    address: &str,
    port: &str,
    age: Duration,
) -> Result<()> {
    let status = cluster.status.clone().unwrap_or_default();
    if endpoint::balancer(&cluster.spec).is_none() {
        if !endpoint::is_on_node(cluster) {
            return Ok(());
        }
        let host = cluster.spec.control_plane_endpoint.as_ref().and_then(|e| e.host.clone());
        let external = status.external_network.map(|n| n.id).unwrap_or_default();
        let ip = floating::ensure(scope, endpoint::ROLE, &external, host.as_deref()).await?;
        // It leads to one machine at a time; when that goes, another one takes it.
        if ip.port_id.as_deref().is_some_and(|port| !port.is_empty()) {
            return Ok(());
        }
        return floating::attach(scope, &ip, port).await;
    }
    let Some(balancer) = status.api_server_managed_load_balancer else {
        return wait(REASON, "the load balancer", pace(age));
    };
    let mut pending = None;
    for number in endpoint::ports(&cluster.spec) {
        let name = names::member(&scope.resource, number, machine);
        let Some(pool) = endpoint::pool(scope, &balancer.id, number).await? else {
            return wait(REASON, format!("the load balancer's pool for port {number}"), pace(age));
        };
        let members = scope.cloud.list_in::<Member>(&pool.id, &Query::new()).await?;
        if let Some(member) = members.iter().find(|m| m.name == name) {
            if member.address == address {
                match member.provisioning_status.as_str() {
                    "ACTIVE" => {}
                    "ERROR" => {
                        let message = format!("load balancer member {name} is in ERROR: delete it and it is made anew");
                        return blocked(REASON, message);
                    }
                    other => pending = Some(format!("load balancer member {name} to be ACTIVE (it is {other})")),
                }
                continue;
            }
            // A namesake of before, at another address.
            change(scope.cloud.delete_in::<Member>(&pool.id, &member.id).await, age)?;
            return wait(REASON, "an old member to be gone", pace(age));
        }
        let draft = MemberDraft {
            name: name.clone(),
            address: address.to_owned(),
            protocol_port: Some(number),
            tags: scope.tags.clone(),
            ..Default::default()
        };
        change(scope.cloud.create_in::<Member>(&pool.id, &draft).await.map(drop), age)?;
        pending = Some(format!("load balancer member {name} to be ACTIVE"));
    }
    match pending {
        Some(on) => wait(NOT_READY, on, pace(age)),
        None => Ok(()),
    }
}

/// While another change is under way the load balancer takes none: that is waiting, not an error.
fn change(done: openstack::Result<()>, age: Duration) -> Result<()> {
    match done {
        Err(error) if error.is_conflict() => {
            wait(REASON, format!("the load balancer ({})", error.message()), pace(age))
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Takes the machine from behind the load balancer.
pub async fn delete(scope: &Scope, cluster: &OpenStackCluster, machine: &str, age: Duration) -> Result<()> {
    let status = cluster.status.clone().unwrap_or_default();
    let Some(balancer) = status.api_server_managed_load_balancer else { return Ok(()) };
    if endpoint::balancer(&cluster.spec).is_none() {
        return Ok(());
    }
    match scope.cloud.look::<LoadBalancer>(&balancer.id).await? {
        Some(found) if found.provisioning_status != "PENDING_DELETE" => {}
        _ => return Ok(()),
    }
    for number in endpoint::ports(&cluster.spec) {
        let name = names::member(&scope.resource, number, machine);
        let Some(pool) = endpoint::pool(scope, &balancer.id, number).await? else { continue };
        let members = scope.cloud.list_in::<Member>(&pool.id, &Query::new()).await?;
        for member in members.iter().filter(|m| m.name == name && m.provisioning_status != "PENDING_DELETE") {
            change(scope.cloud.delete_in::<Member>(&pool.id, &member.id).await, age)?;
        }
    }
    Ok(())
}

/// The port of a server that the API is reached at: the one on the cluster's network, else the first.
pub async fn port_of(scope: &Scope, cluster: &OpenStackCluster, server: &str) -> Result<(String, String)> {
    let ports = scope.cloud.list::<Port>(&Query::new().with("device_id", server)).await?;
    let home = cluster.status.as_ref().and_then(|s| s.network.as_ref()).map(|n| n.id.clone()).unwrap_or_default();
    let port = ports.iter().find(|p| p.network_id == home).or(ports.first());
    let address = port.and_then(|p| {
        let four = p.fixed_ips.iter().find(|f| !f.ip_address.contains(':'));
        Some((p.id.clone(), four.or(p.fixed_ips.first())?.ip_address.clone()))
    });
    match address {
        Some(found) => Ok(found),
        None => blocked(REASON, format!("server {server} has no port with an address")),
    }
}
