//! The bastion: one server with a floating IP, for SSH into the cluster's network.

use std::time::Duration;

use api::{
    openstack_cluster::{BastionStatus, OpenStackClusterSpec, OpenStackClusterStatus},
    openstack_machine::OpenStackMachineSpec,
};
use openstack::compute::Server;

use super::{
    floating, member, names,
    scope::Scope,
    security,
    server::{self, Wanted},
    stop::{Result, blocked, pace, wait},
};

const ROLE: &str = "bastion";
/// Between two looks at a server that goes.
const PAUSE: Duration = Duration::from_secs(1);

pub async fn ensure(
    scope: &Scope,
    cluster: &api::openstack_cluster::OpenStackCluster,
    status: &mut OpenStackClusterStatus,
    age: Duration,
) -> Result<()> {
    let Some(bastion) = cluster.spec.bastion.as_ref().filter(|b| b.enabled != Some(false)) else {
        remove(scope, &cluster.spec, status, age).await?;
        // Nobody else is in it. That it was made may not have been written down.
        let managed = cluster.spec.managed_security_groups.is_some() && cluster.spec.bastion.is_some();
        if managed || status.bastion_security_group.is_some() {
            security::remove(scope, ROLE).await?;
            status.bastion_security_group = None;
        }
        return Ok(());
    };
    let Some(spec) = &bastion.spec else {
        return blocked("BastionError", "bastion.spec is missing");
    };
    if spec.floating_ip_pool_ref.is_some() {
        return blocked(
            "BastionError",
            "bastion.spec.floatingIPPoolRef: a bastion has a floating IP of its own (bastion.floatingIP)",
        );
    }
    let name = names::bastion(&scope.resource);
    let made_from = fingerprint(spec, bastion.availability_zone.as_deref());
    let known = status.bastion.as_ref().and_then(|b| b.id.clone());
    let found = server::find(scope, known.as_deref(), &name).await?;
    if let Some(old) = &found
        && old.metadata.get(names::BASTION_KEY).is_some_and(|from| *from != made_from)
    {
        // A server cannot be changed into another: this one goes, and its successor is made when it is gone.
        if old.task_state.as_deref() != Some("deleting") {
            scope.cloud.remove::<Server>(&old.id).await?;
        }
        return wait("BastionNotReady", format!("the bastion's server {name} of the old spec to be gone"), PAUSE);
    }
    if let Some(gone) = known.filter(|known| found.as_ref().is_none_or(|found| found.id != *known)) {
        let had = status.bastion.as_ref().and_then(|b| b.resources.as_ref());
        let ids: Vec<String> = had.iter().flat_map(|r| &r.ports).map(|p| p.id.clone()).collect();
        server::delete_ports_of(scope, &gone, &ids).await?;
        // Not before: a port that goes late would be taken for the successor's, which has its name.
        status.bastion = None;
    }
    let mut shown = status.bastion.take().unwrap_or_default();
    let (mut resolved, mut resources) =
        (shown.resolved.take().unwrap_or_default(), shown.resources.take().unwrap_or_default());
    let group = status.bastion_security_group.as_ref().map(|g| g.id.clone());
    let wanted = Wanted {
        name: &name,
        spec,
        cluster: status,
        primary_subnet: cluster.spec.primary_subnet.as_ref(),
        metadata: [(names::BASTION_KEY.to_owned(), made_from)].into(),
        zone: bastion.availability_zone.as_deref(),
        groups: group.into_iter().collect(),
        user_data: None,
        age,
    };
    let made = match found {
        Some(server) => Ok(server),
        None => server::ensure(scope, &wanted, &mut resolved, &mut resources).await,
    };
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
    if scope.doubts {
        let resources = status.bastion.as_ref().and_then(|bastion| bastion.resources.as_ref());
        let ports = resources.map_or(&[][..], |resources| &resources.ports);
        server::delete_doubles(scope, &server, spec, ports).await?;
    }
    Ok(())
}

/// Equal for equal specs.
fn fingerprint(spec: &OpenStackMachineSpec, zone: Option<&str>) -> String {
    let text = serde_json::to_vec(&(spec, zone)).expect("API types serialize to JSON: string keys only");
    // FNV-1a, 64 bits: stable between releases.
    let hash = text
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
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
