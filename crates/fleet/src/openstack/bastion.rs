//! The bastion: one server with a floating IP, for SSH into the cluster's network.

use std::time::Duration;

use api::openstack_cluster::{BastionStatus, OpenStackClusterSpec, OpenStackClusterStatus};

use super::{
    floating, member, names,
    scope::Scope,
    server::{self, Wanted},
    stop::{Result, blocked, pace, wait},
};

const ROLE: &str = "bastion";

pub async fn ensure(
    scope: &Scope,
    cluster: &api::openstack_cluster::OpenStackCluster,
    status: &mut OpenStackClusterStatus,
    age: Duration,
) -> Result<()> {
    let Some(bastion) = cluster.spec.bastion.as_ref().filter(|b| b.enabled != Some(false)) else {
        return remove(scope, &cluster.spec, status, age).await;
    };
    let Some(spec) = &bastion.spec else {
        return blocked("BastionError", "bastion.spec is missing");
    };
    let name = names::bastion(&scope.resource);
    let mut shown = status.bastion.take().unwrap_or_default();
    let (mut resolved, mut resources) =
        (shown.resolved.take().unwrap_or_default(), shown.resources.take().unwrap_or_default());
    let group = status.bastion_security_group.as_ref().map(|g| g.id.clone());
    let wanted = Wanted {
        name: &name,
        spec,
        cluster: status,
        zone: bastion.availability_zone.as_deref(),
        groups: group.into_iter().collect(),
        user_data: None,
        age,
    };
    let made = server::ensure(scope, &wanted, &mut resolved, &mut resources).await;
    shown = BastionStatus {
        name: Some(name.clone()),
        ssh_key_name: spec.ssh_key_name.clone(),
        resolved: Some(resolved),
        resources: Some(resources),
        ..shown
    };
    let server = match made {
        Ok(server) => server,
        Err(stop) => {
            status.bastion = Some(shown);
            return Err(stop);
        }
    };
    shown.id = Some(server.id.clone());
    shown.state = Some(server.status.clone());
    status.bastion = Some(shown);
    match server.status.as_str() {
        "ACTIVE" => {}
        "ERROR" => {
            let fault = server.fault.map(|f| f.message).unwrap_or_default();
            return blocked("BastionError", format!("the bastion's server {name} is in ERROR: {fault}"));
        }
        other => {
            return wait(
                "BastionNotReady",
                format!("the bastion's server {name} to be ACTIVE (it is {other})"),
                pace(age),
            );
        }
    }
    let (port, address) = member::port_of(scope, cluster, &server.id).await?;
    let external = status.external_network.as_ref().map(|n| n.id.clone());
    let mut floating_ip = None;
    if let Some(external) = external {
        let ip = floating::ensure(scope, ROLE, &external, bastion.floating_ip.as_deref()).await?;
        floating::attach(scope, &ip, &port).await?;
        floating_ip = Some(ip.floating_ip_address);
    }
    if let Some(shown) = &mut status.bastion {
        shown.ip = Some(address);
        shown.floating_ip = floating_ip;
    }
    Ok(())
}

/// Takes the bastion away, if there is or may be one.
pub async fn remove(
    scope: &Scope,
    spec: &OpenStackClusterSpec,
    status: &mut OpenStackClusterStatus,
    age: Duration,
) -> Result<()> {
    if status.bastion.is_none() && spec.bastion.is_none() {
        return Ok(());
    }
    let given = spec.bastion.as_ref().is_some_and(|b| b.floating_ip.is_some());
    if !given {
        floating::delete(scope, ROLE).await?;
    }
    let machine = spec.bastion.as_ref().and_then(|b| b.spec.clone()).unwrap_or_default();
    let id = status.bastion.as_ref().and_then(|b| b.id.clone());
    server::delete(scope, id.as_deref(), &names::bastion(&scope.resource), &machine, age).await?;
    status.bastion = None;
    Ok(())
}
