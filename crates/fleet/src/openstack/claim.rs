//! The floating IP that a server has from a pool: claimed, waited for, and tied to its port.
//!
//! Any pool of the field's contract does: who answers the claim is not this module's business.
//!
//! Source: kubernetes-sigs/cluster-api docs/book/src/developer/providers/contracts/ipam.md; the OpenStack provider's
//! controllers/openstackserver_controller.go.

use std::{sync::Arc, time::Duration};

use api::{
    ip_address::{IPAddressClaim, IPAddressClaimSpec},
    meta::ContractRef,
    names::CLUSTER_LABEL,
    openstack_machine::{FloatingIpPoolRef, NodeAddress},
};
use control::{Cached, Key, Plan, Queue};
use openstack::{
    Query,
    network::{FloatingIp, Port},
};

use super::{
    Shared, floating,
    scope::Scope,
    stop::{Result, blocked, wait},
};
use crate::{Caches, owner};

pub const CONDITION: &str = "FloatingAddressFromPoolReady";
const WAITING: &str = "WaitingForIPAMProvider";
const REASON: &str = "FloatingAddressFromPoolError";
/// While a pool is waited for; its event comes sooner.
const PAUSE: Duration = Duration::from_secs(15);

pub fn is_about(reason: &str) -> bool {
    matches!(reason, WAITING | REASON)
}

/// Of the claim that belongs to a server.
pub fn name(server: &str) -> String {
    format!("{server}-floating-ip-address")
}

/// The server's floating IP, tied to its first port; what is not there yet is waited for.
pub async fn ensure<K: Cached>(
    shared: &Shared,
    owner: &K,
    pool: &FloatingIpPoolRef,
    scope: &Scope,
    server: &str,
) -> Result<String> {
    let of = Key::of(owner);
    let key = Key::new(of.namespace.as_str(), name(&of.name));
    let Some(claim) = shared.caches.claims.get(&key) else {
        let mut plan = Plan::nothing();
        plan.create(&draft(owner, pool, &key));
        shared.writer.execute(plan).await?;
        return wait(WAITING, format!("an address for IPAddressClaim {}", key.name), PAUSE);
    };
    if owner::controller(&claim.metadata).map(|found| &found.uid) != owner.meta().uid.as_ref() {
        return blocked(REASON, format!("IPAddressClaim {} belongs to somebody else", key.name));
    }
    let address = claim.status.as_ref().and_then(|status| status.address_ref.as_ref());
    let address =
        address.and_then(|found| shared.caches.addresses.get(&Key::new(key.namespace.as_str(), &*found.name)));
    let Some(address) = address.filter(|address| address.metadata.deletion_timestamp.is_none()) else {
        return wait(WAITING, format!("an address for IPAddressClaim {}", key.name), PAUSE);
    };
    let address = address.spec.address.clone();
    let query = Query::new().with("floating_ip_address", &address);
    let Some(ip) = scope.cloud.list::<FloatingIp>(&query).await?.into_iter().next() else {
        return blocked(
            REASON,
            format!("floating IP {address} of IPAddressClaim {} does not exist in the cloud", key.name),
        );
    };
    let ports = scope.cloud.list::<Port>(&Query::new().with("device_id", server)).await?;
    let tied = ip.port_id.as_ref().filter(|port| !port.is_empty());
    if tied.is_none_or(|tied| !ports.iter().any(|port| port.id == *tied)) {
        let Some(port) = ports.iter().min_by(|a, b| a.name.cmp(&b.name)) else {
            return blocked(REASON, format!("server {server} has no port that floating IP {address} could be tied to"));
        };
        if let Some(other) = tied {
            return blocked(REASON, format!("floating IP {address} is in use by port {other}"));
        }
        floating::attach(scope, &ip, &port.id).await?;
    }
    Ok(address)
}

/// Puts the address among those of a server.
pub fn show(addresses: &mut Vec<NodeAddress>, address: &str) {
    if !addresses.iter().any(|known| known.address == address) {
        let at = addresses.iter().position(|known| known.type_ == "InternalDNS").unwrap_or(addresses.len());
        addresses.insert(at, NodeAddress { address: address.to_owned(), type_: "ExternalIP".to_owned() });
    }
}

fn draft<K: Cached>(owner: &K, pool: &FloatingIpPoolRef, key: &Key) -> IPAddressClaim {
    let cluster = owner::label_of(owner.meta(), CLUSTER_LABEL).map(str::to_owned);
    let mut claim = IPAddressClaim::new(
        &key.name,
        IPAddressClaimSpec {
            cluster_name: cluster.clone(),
            pool_ref: ContractRef {
                api_group: pool.api_group.clone().unwrap_or_default(),
                kind: pool.kind.clone(),
                name: pool.name.clone(),
            },
        },
    );
    claim.metadata.namespace = Some(key.namespace.clone());
    if let Some(cluster) = cluster {
        owner::label(&mut claim.metadata, CLUSTER_LABEL, cluster);
    }
    owner::ensure(&mut claim.metadata, owner::reference(owner, true));
    claim
}

/// Gives the server's address back.
pub async fn delete(shared: &Shared, server: &Key) -> Result<()> {
    let key = Key::new(server.namespace.as_str(), name(&server.name));
    if let Some(claim) = shared.caches.claims.get(&key).filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
        let mut plan = Plan::nothing();
        plan.delete(claim.as_ref());
        shared.writer.execute(plan).await?;
    }
    Ok(())
}

/// Claims that got their address wake who made them.
pub fn feed(caches: &Arc<Caches>, machines: &Queue, servers: &Queue) {
    let group = "infrastructure.cluster.x-k8s.io";
    caches.claims.feed_owner(group, "OpenStackMachine", machines);
    caches.claims.feed_owner(group, "OpenStackServer", servers);
}
