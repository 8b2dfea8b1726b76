//! A cluster's network, subnets and router: found, or made.

use api::openstack_cluster::{
    ExternalNetwork, NetworkStatus, OpenStackClusterSpec, OpenStackClusterStatus, RouterStatus, SubnetStatus,
};
use ipnet::IpNet;
use openstack::{
    Query,
    network::{
        AllocationPool, FixedIp, GatewayDraft, Network, NetworkDraft, Port, Router, RouterDraft, Subnet, SubnetDraft,
    },
};
use serde_json::json;

use super::{
    find, names,
    scope::Scope,
    stop::{Result, blocked},
};

const REASON: &str = "DependencyFailed";

/// The status has no room for things without a name; those that people made may have none, and are called by their id.
fn called(name: &str, id: &str) -> String {
    if name.is_empty() { id.to_owned() } else { name.to_owned() }
}

/// Networks are ours to make where the spec says what subnets they shall have.
pub fn is_managed(spec: &OpenStackClusterSpec) -> bool {
    !spec.managed_subnets.is_empty()
}

/// The network that leads outside: the one named, or the only one there is.
pub async fn external(scope: &Scope, spec: &OpenStackClusterSpec, status: &mut OpenStackClusterStatus) -> Result<()> {
    if spec.enable_external_network == Some(false) {
        status.external_network = None;
        return Ok(());
    }
    let found = match &spec.external_network {
        Some(param) => Some(find::external_network(&scope.cloud, param).await?),
        None => {
            let mut all = scope.cloud.list::<Network>(&Query::new().with("router:external", true)).await?;
            if all.len() > 1 {
                let message =
                    format!("the cloud has {} external networks: name one in spec.externalNetwork", all.len());
                return blocked(REASON, message);
            }
            all.pop()
        }
    };
    status.external_network = found.map(|n| ExternalNetwork { name: called(&n.name, &n.id), id: n.id, tags: n.tags });
    Ok(())
}

/// The network and its subnets.
pub async fn network(scope: &Scope, spec: &OpenStackClusterSpec, status: &mut OpenStackClusterStatus) -> Result<()> {
    let known = status.network.as_ref().map(|n| n.id.clone());
    let network = match &spec.network {
        Some(param) => find::network(&scope.cloud, param, "network").await?,
        None if is_managed(spec) => managed_network(scope, spec, known.as_deref()).await?,
        None => match spec.subnets.first() {
            Some(param) => {
                let subnet = find::subnet(&scope.cloud, param, None, "subnets[0]").await?;
                scope.cloud.get::<Network>(&subnet.network_id).await?
            }
            None => return blocked(REASON, "the spec has neither managedSubnets nor network nor subnets"),
        },
    };
    // Written down at once: what comes next may fail.
    status.network = Some(shown(&network, Vec::new()));
    let subnets = if is_managed(spec) {
        managed_subnets(scope, spec, &network).await?
    } else if spec.subnets.is_empty() {
        let all = scope.cloud.list::<Subnet>(&Query::new().with("network_id", &network.id)).await?;
        if all.is_empty() {
            return blocked(REASON, format!("network {} has no subnet", network.name));
        }
        all
    } else {
        let mut found = Vec::new();
        for (index, param) in spec.subnets.iter().enumerate() {
            found.push(find::subnet(&scope.cloud, param, Some(&network.id), &format!("subnets[{index}]")).await?);
        }
        found
    };
    status.network = Some(shown(&network, subnets));
    Ok(())
}

/// A network with these of its subnets, as a status has it.
pub fn shown(network: &Network, subnets: Vec<Subnet>) -> NetworkStatus {
    let subnets = subnets.into_iter();
    NetworkStatus {
        id: network.id.clone(),
        name: called(&network.name, &network.id),
        tags: network.tags.clone(),
        subnets: subnets
            .map(|s| SubnetStatus { name: called(&s.name, &s.id), id: s.id, cidr: s.cidr, tags: s.tags })
            .collect(),
    }
}

async fn managed_network(scope: &Scope, spec: &OpenStackClusterSpec, known: Option<&str>) -> Result<Network> {
    let name = names::network(&scope.resource);
    let found = scope.known::<Network>(known, &name, Query::new()).await?;
    let network = match found {
        Some(network) => network,
        None => {
            let managed = spec.managed_network.clone().unwrap_or_default();
            let draft = NetworkDraft {
                name,
                description: scope.description(),
                admin_state_up: Some(true),
                mtu: managed.mtu.and_then(|m| u32::try_from(m).ok()).filter(|m| *m > 0),
                port_security_enabled: managed.enable_port_security,
            };
            scope.cloud.create(&draft).await?
        }
    };
    scope.tag::<Network>(&network.id, &network.tags, &[]).await?;
    Ok(network)
}

async fn managed_subnets(scope: &Scope, spec: &OpenStackClusterSpec, network: &Network) -> Result<Vec<Subnet>> {
    let mut subnets = Vec::new();
    for (index, wanted) in spec.managed_subnets.iter().enumerate() {
        let name = match index {
            0 => names::network(&scope.resource),
            n => format!("{}-{n}", names::network(&scope.resource)),
        };
        let net: IpNet = match wanted.cidr.parse() {
            Ok(net) => net,
            Err(_) => return blocked(REASON, format!("managedSubnets[{index}].cidr {:?} is not a CIDR", wanted.cidr)),
        };
        let found = scope.own::<Subnet>(&name, Query::new().with("network_id", &network.id)).await?;
        let subnet = match found {
            Some(subnet) if subnet.dns_nameservers != wanted.dns_nameservers => {
                let dns = json!({ "dns_nameservers": wanted.dns_nameservers });
                scope.cloud.update::<Subnet>(&subnet.id, &dns).await?
            }
            Some(subnet) => subnet,
            None => {
                let six = matches!(net, IpNet::V6(_));
                let pool = |p: &api::openstack_cluster::AllocationPool| AllocationPool {
                    start: p.start.clone(),
                    end: p.end.clone(),
                };
                let draft = SubnetDraft {
                    name,
                    description: scope.description(),
                    network_id: network.id.clone(),
                    cidr: net.trunc().to_string(),
                    ip_version: Some(if six { 6 } else { 4 }),
                    dns_nameservers: wanted.dns_nameservers.clone(),
                    allocation_pools: wanted.allocation_pools.iter().map(pool).collect(),
                    ipv6_address_mode: six.then(|| "slaac".to_owned()),
                    ipv6_ra_mode: six.then(|| "slaac".to_owned()),
                    ..Default::default()
                };
                scope.cloud.create(&draft).await?
            }
        };
        scope.tag::<Subnet>(&subnet.id, &subnet.tags, &[]).await?;
        subnets.push(subnet);
    }
    Ok(subnets)
}

/// The router between the network and the outside, where both are there.
pub async fn router(scope: &Scope, spec: &OpenStackClusterSpec, status: &mut OpenStackClusterStatus) -> Result<()> {
    let (Some(network), true) = (status.network.clone(), is_managed(spec)) else { return Ok(()) };
    let router = match (&spec.router, &status.external_network) {
        (Some(param), _) => find::router(&scope.cloud, param).await?,
        (None, Some(external)) => managed_router(scope, spec, status, &external.id).await?,
        (None, None) => return Ok(()),
    };
    let gateway = router.external_gateway_info.clone().unwrap_or_default();
    status.router = Some(RouterStatus {
        id: router.id.clone(),
        name: called(&router.name, &router.id),
        tags: router.tags.clone(),
        ips: gateway.external_fixed_ips.into_iter().map(|f| f.ip_address).filter(|ip| !ip.is_empty()).collect(),
    });
    let query = Query::new().with("device_id", &router.id).with("network_id", &network.id);
    let ports = scope.cloud.list::<Port>(&query).await?;
    for subnet in &network.subnets {
        let there = ports.iter().any(|p| p.fixed_ips.iter().any(|f| f.subnet_id == subnet.id));
        if !there {
            scope.cloud.add_router_interface(&router.id, &subnet.id).await?;
        }
    }
    Ok(())
}

async fn managed_router(
    scope: &Scope,
    spec: &OpenStackClusterSpec,
    status: &OpenStackClusterStatus,
    external: &str,
) -> Result<Router> {
    let name = names::network(&scope.resource);
    let known = status.router.as_ref().map(|r| r.id.as_str());
    let router = match scope.known::<Router>(known, &name, Query::new()).await? {
        Some(router) if router.external_gateway_info.is_none() => {
            let gateway = json!({"external_gateway_info": {"network_id": external}});
            scope.cloud.update::<Router>(&router.id, &gateway).await?
        }
        Some(router) => router,
        None => {
            let mut fixed = Vec::new();
            for (index, ip) in spec.managed_router.iter().flat_map(|m| &m.external_ips).enumerate() {
                let field = format!("managedRouter.externalIPs[{index}].subnet");
                let subnet = find::subnet(&scope.cloud, &ip.subnet, Some(external), &field).await?;
                fixed.push(FixedIp { subnet_id: subnet.id, ip_address: ip.fixed_ip.clone().unwrap_or_default() });
            }
            let gateway = GatewayDraft { network_id: external.to_owned(), external_fixed_ips: fixed };
            let draft = RouterDraft {
                name,
                description: scope.description(),
                external_gateway_info: Some(gateway),
                ..Default::default()
            };
            scope.cloud.create(&draft).await?
        }
    };
    scope.tag::<Router>(&router.id, &router.tags, &[]).await?;
    Ok(router)
}

/// Takes away what was made here; what was only found stays.
pub async fn delete(scope: &Scope, spec: &OpenStackClusterSpec, status: &OpenStackClusterStatus) -> Result<()> {
    if !is_managed(spec) {
        return Ok(());
    }
    let name = names::network(&scope.resource);
    let network = match &spec.network {
        Some(param) => match param.id.as_deref().or(status.network.as_ref().map(|n| n.id.as_str())) {
            Some(id) => scope.cloud.look::<Network>(id).await?,
            None => None,
        },
        None => scope.own::<Network>(&name, Query::new()).await?,
    };
    let subnets = match &network {
        Some(network) => {
            let all = scope.cloud.list::<Subnet>(&Query::new().with("network_id", &network.id)).await?;
            all.into_iter().filter(|s| s.description == scope.description()).collect()
        }
        None => Vec::new(),
    };
    delete_router(scope, spec, &subnets).await?;
    let Some(network) = network else { return Ok(()) };
    for port in scope.cloud.list::<Port>(&Query::new().with("network_id", &network.id)).await? {
        if port.device_owner.is_empty() && port.description == scope.description() {
            scope.cloud.remove::<Port>(&port.id).await?;
        }
    }
    for subnet in &subnets {
        scope.cloud.remove::<Subnet>(&subnet.id).await?;
    }
    if spec.network.is_none() {
        scope.cloud.remove::<Network>(&network.id).await?;
    }
    Ok(())
}

async fn delete_router(scope: &Scope, spec: &OpenStackClusterSpec, subnets: &[Subnet]) -> Result<()> {
    let own = scope.own::<Router>(&names::network(&scope.resource), Query::new()).await?;
    let router = match (&spec.router, own) {
        (Some(param), _) => match find::router(&scope.cloud, param).await {
            Ok(router) => router,
            // Somebody else's, and gone already.
            Err(super::stop::Stop::Blocked { .. }) => return Ok(()),
            Err(stop) => return Err(stop),
        },
        (None, Some(own)) => own,
        (None, None) => return Ok(()),
    };
    for subnet in subnets {
        match scope.cloud.remove_router_interface(&router.id, &subnet.id).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    if spec.router.is_none() {
        scope.cloud.remove::<Router>(&router.id).await?;
    }
    Ok(())
}
