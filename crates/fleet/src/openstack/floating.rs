//! Floating IPs: each is found by what its description says it is for, so that none is ever allocated twice.

use openstack::{
    Query,
    network::{FloatingIp, FloatingIpDraft},
};

use super::{
    names,
    scope::Scope,
    stop::{Result, blocked},
};

/// The floating IP for a role of the cluster, if it has been made; the one of that address, if there are several.
pub async fn own(scope: &Scope, role: &str, address: Option<&str>) -> Result<Option<FloatingIp>> {
    let mark = names::floating_description(&scope.resource, role);
    let mut found = scope.cloud.list::<FloatingIp>(&Query::new().with("description", &mark)).await?;
    found.retain(|f| f.description == mark);
    // One that was made late, by a call that was given up, is not needed.
    let free = |ip: &FloatingIp| ip.port_id.as_deref().unwrap_or_default().is_empty();
    let other = |ip: &FloatingIp| address.is_some_and(|address| ip.floating_ip_address != address);
    found.sort_by(|a, b| (other(a), free(a), &a.created_at, &a.id).cmp(&(other(b), free(b), &b.created_at, &b.id)));
    let mut found = found.into_iter();
    let first = found.next();
    for double in found.filter(free) {
        scope.cloud.remove::<FloatingIp>(&double.id).await?;
    }
    Ok(first)
}

/// The address that the spec names, or the cluster's own for the role, made if it is missing.
pub async fn ensure(scope: &Scope, role: &str, external: &str, address: Option<&str>) -> Result<FloatingIp> {
    if let Some(address) = address.filter(|a| !a.is_empty()) {
        let query = Query::new().with("floating_ip_address", address);
        if let Some(found) = scope.cloud.list::<FloatingIp>(&query).await?.into_iter().next() {
            return Ok(found);
        }
    }
    if let Some(own) = own(scope, role, address).await? {
        scope.tag::<FloatingIp>(&own.id, &own.tags, &[]).await?;
        return Ok(own);
    }
    let draft = FloatingIpDraft {
        description: names::floating_description(&scope.resource, role),
        floating_network_id: external.to_owned(),
        floating_ip_address: address.filter(|a| !a.is_empty()).map(str::to_owned),
        port_id: None,
    };
    let made: FloatingIp = scope.cloud.create(&draft).await?;
    scope.tag::<FloatingIp>(&made.id, &made.tags, &[]).await?;
    Ok(made)
}

/// Ties it to the port. One that serves another port is left alone.
pub async fn attach(scope: &Scope, ip: &FloatingIp, port: &str) -> Result<()> {
    match ip.port_id.as_deref().filter(|p| !p.is_empty()) {
        Some(now) if now == port => Ok(()),
        Some(now) => {
            let message = format!("floating IP {} is in use by port {now}", ip.floating_ip_address);
            blocked("FloatingIPError", message)
        }
        None => {
            scope.cloud.associate_floating_ip(&ip.id, Some(port)).await?;
            Ok(())
        }
    }
}

/// Deletes the cluster's own floating IP for a role; one that the spec names is only freed by what used it.
pub async fn delete(scope: &Scope, role: &str) -> Result<()> {
    while let Some(ip) = own(scope, role, None).await? {
        if !scope.cloud.remove::<FloatingIp>(&ip.id).await? {
            break;
        }
    }
    Ok(())
}
