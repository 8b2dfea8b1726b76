//! Where a cluster's API is reached: a load balancer, a floating IP of the control plane node, or an address given.

use std::{collections::BTreeSet, time::Duration};

use api::{
    cluster::Endpoint,
    openstack_cluster::{
        LoadBalancerStatus, ManagedLoadBalancer, NetworkStatus, OpenStackCluster, OpenStackClusterSpec,
        OpenStackClusterStatus, SubnetStatus,
    },
};
use ipnet::IpNet;
use openstack::{
    Query, Reads,
    load_balancer::{
        Flavor, HealthMonitor, HealthMonitorDraft, Id, Listener, ListenerDraft, LoadBalancer, LoadBalancerDraft, Pool,
        PoolDraft, Provider,
    },
};
use serde_json::json;

use super::{
    find, floating, names, network,
    scope::Scope,
    stop::{Result, blocked, pace, wait},
};

pub const ROLE: &str = "kubeapi";
pub const DEFAULT_PORT: u16 = 6443;
const REASON: &str = "LoadBalancerError";
const NOT_READY: &str = "LoadBalancerNotReady";
/// Before a load balancer that could not be made is made anew.
const AGAIN_PAUSE: Duration = Duration::from_secs(10);

/// That of an endpoint that is given, else that of the API server, else 6443.
pub fn port(spec: &OpenStackClusterSpec) -> u16 {
    let given = spec.control_plane_endpoint.as_ref().filter(|e| is_valid(e)).and_then(|e| e.port);
    let asked = spec.api_server.as_ref().and_then(|a| a.port);
    let ports = [given, asked].into_iter().flatten().filter_map(|p| u16::try_from(p).ok());
    ports.into_iter().find(|p| *p > 0).unwrap_or(DEFAULT_PORT)
}

/// The API's port and the load balancer's further ones, each once.
pub fn ports(spec: &OpenStackClusterSpec) -> Vec<u16> {
    let more = balancer(spec).into_iter().flat_map(|b| &b.additional_ports).filter_map(|p| u16::try_from(*p).ok());
    let mut ports = vec![port(spec)];
    for port in more {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// The load balancer that the spec asks for.
pub fn balancer(spec: &OpenStackClusterSpec) -> Option<&ManagedLoadBalancer> {
    spec.api_server.as_ref()?.managed_load_balancer.as_ref().filter(|b| b.enabled != Some(false))
}

fn wants_floating_ip(spec: &OpenStackClusterSpec) -> bool {
    spec.api_server.as_ref().and_then(|a| a.enable_floating_ip) != Some(false)
}

fn given_floating_ip(spec: &OpenStackClusterSpec) -> Option<&str> {
    spec.api_server.as_ref()?.floating_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// The floating IP that the API is to have: the one named, else the endpoint's address.
fn wanted_floating_ip(spec: &OpenStackClusterSpec) -> Option<&str> {
    given_floating_ip(spec).or_else(|| given_host(spec))
}

fn fixed_ip(spec: &OpenStackClusterSpec) -> Option<&str> {
    spec.api_server.as_ref()?.fixed_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// The load balancer's own address: the one named, else the endpoint's address where no floating IP stands before it.
fn wanted_vip(spec: &OpenStackClusterSpec) -> Option<&str> {
    fixed_ip(spec).or_else(|| given_host(spec).filter(|_| !wants_floating_ip(spec)))
}

/// The endpoint's host, if it is an address: names lead where their owner lets them lead.
fn given_host(spec: &OpenStackClusterSpec) -> Option<&str> {
    let host = spec.control_plane_endpoint.as_ref().filter(|e| is_valid(e))?.host.as_deref()?;
    host.parse::<std::net::IpAddr>().is_ok().then_some(host)
}

/// The spec's fields that are acted upon in part only.
pub fn partly(spec: &OpenStackClusterSpec) -> Vec<String> {
    let more = balancer(spec).is_some_and(|b| b.subnets.len() > 1);
    if more { vec!["spec.apiServer.managedLoadBalancer.subnets after the first".to_owned()] } else { Vec::new() }
}

fn is_valid(endpoint: &Endpoint) -> bool {
    endpoint.host.as_deref().is_some_and(|h| !h.is_empty()) && endpoint.port.is_some_and(|p| p > 0)
}

/// Whether the control plane node itself carries the floating IP of the endpoint.
pub fn is_on_node(cluster: &OpenStackCluster) -> bool {
    let external = cluster.status.as_ref().is_some_and(|status| status.external_network.is_some());
    balancer(&cluster.spec).is_none() && wants_floating_ip(&cluster.spec) && external
}

/// Makes the endpoint and writes it into the spec. `age` is the cluster's, for the pace of waiting.
pub async fn ensure(
    scope: &Scope,
    spec: &mut OpenStackClusterSpec,
    status: &mut OpenStackClusterStatus,
    age: Duration,
) -> Result<()> {
    let port = port(spec);
    let host = if let Some(wanted) = balancer(spec).cloned() {
        load_balancer(scope, spec, &wanted, status, age).await?
    } else if let Some(known) = spec.control_plane_endpoint.as_ref().filter(|endpoint| is_valid(endpoint)) {
        if scope.doubts && wants_floating_ip(spec) {
            floating::own(scope, ROLE, known.host.as_deref()).await?;
        }
        return Ok(());
    } else if let Some(external) = status.external_network.as_ref().filter(|_| wants_floating_ip(spec)) {
        floating::ensure(scope, ROLE, &external.id, wanted_floating_ip(spec)).await?.floating_ip_address
    } else if let Some(ip) = fixed_ip(spec) {
        ip.to_owned()
    } else {
        let message = "nothing says where the API is: enable apiServer.managedLoadBalancer, or a floating IP with an external network, or set apiServer.fixedIP or controlPlaneEndpoint";
        return blocked("APIEndpointNotReady", message);
    };
    if !spec.control_plane_endpoint.as_ref().is_some_and(is_valid) {
        spec.control_plane_endpoint = Some(Endpoint { host: Some(host), port: Some(i32::from(port)) });
    }
    Ok(())
}

async fn load_balancer(
    scope: &Scope,
    spec: &OpenStackClusterSpec,
    wanted: &ManagedLoadBalancer,
    status: &mut OpenStackClusterStatus,
    age: Duration,
) -> Result<String> {
    let name = names::load_balancer(&scope.resource);
    let known = status.api_server_managed_load_balancer.as_ref().map(|b| b.id.clone());
    let found = scope.known::<LoadBalancer>(known.as_deref(), &name, Query::new()).await?;
    let balancer = match found {
        Some(balancer) => balancer,
        None => create(scope, spec, wanted, status, &name).await?,
    };
    let mut shown = status.api_server_managed_load_balancer.take().unwrap_or_default();
    shown = LoadBalancerStatus {
        id: balancer.id.clone(),
        name: balancer.name.clone(),
        internal_ip: balancer.vip_address.clone(),
        ip: if shown.ip.is_empty() { balancer.vip_address.clone() } else { shown.ip },
        tags: balancer.tags.clone(),
        load_balancer_network: home(scope, wanted, status, shown.load_balancer_network.take()).await?,
        ..shown
    };
    status.api_server_managed_load_balancer = Some(shown.clone());
    let provisioned = status.initialization.as_ref().and_then(|i| i.provisioned) == Some(true);
    if balancer.provisioning_status == "ERROR" && !provisioned {
        // Nobody uses it yet: it goes, and is made anew.
        scope.cloud.delete_with::<LoadBalancer>(&balancer.id, &Query::new().with("cascade", true)).await?;
        let on = format!("load balancer {name} to be made anew: Octavia could not make it");
        return wait(REASON, on, AGAIN_PAUSE);
    }
    ready(&balancer, age)?;
    let mut host = balancer.vip_address.clone();
    if let Some(external) = status.external_network.clone().filter(|_| wants_floating_ip(spec)) {
        let ip = floating::ensure(scope, ROLE, &external.id, wanted_floating_ip(spec)).await?;
        host.clone_from(&ip.floating_ip_address);
        shown.ip.clone_from(&host);
        // Written down before it is tied to the port.
        status.api_server_managed_load_balancer = Some(shown.clone());
        floating::attach(scope, &ip, &balancer.vip_port_id).await?;
    }
    let cidrs = allowed_cidrs(wanted, status)?;
    for port in ports(spec) {
        listener(scope, wanted, &balancer, port, &cidrs, age).await?;
    }
    shown.allowed_cidrs = cidrs;
    status.api_server_managed_load_balancer = Some(shown);
    Ok(host)
}

/// The network that the load balancer stands in, and those of its subnets that are asked for. One that is named is looked for
/// once: it does not change.
async fn home(
    scope: &Scope,
    wanted: &ManagedLoadBalancer,
    status: &OpenStackClusterStatus,
    known: Option<NetworkStatus>,
) -> Result<Option<NetworkStatus>> {
    let Some(param) = &wanted.network else {
        return Ok(status.network.clone().map(|network| NetworkStatus { tags: Vec::new(), ..network }));
    };
    if known.is_some() {
        return Ok(known);
    }
    let network = find::network(&scope.cloud, param, "managedLoadBalancer.network").await?;
    let mut subnets = Vec::new();
    for (index, param) in wanted.subnets.iter().enumerate() {
        let field = format!("managedLoadBalancer.subnets[{index}]");
        subnets.push(find::subnet(&scope.cloud, param, Some(&network.id), &field).await?);
    }
    Ok(Some(network::shown(&network, subnets)))
}

fn ready(balancer: &LoadBalancer, age: Duration) -> Result<()> {
    match balancer.provisioning_status.as_str() {
        // Busy with a change of a machine's, perhaps: that stops nobody who has nothing to change.
        "ACTIVE" | "PENDING_UPDATE" => Ok(()),
        "ERROR" => blocked(
            REASON,
            format!(
                "load balancer {} is in ERROR: see the cloud's log, or delete it and it is made anew",
                balancer.name
            ),
        ),
        other => wait(NOT_READY, format!("load balancer {} to be ACTIVE (it is {other})", balancer.name), pace(age)),
    }
}

async fn create(
    scope: &Scope,
    spec: &OpenStackClusterSpec,
    wanted: &ManagedLoadBalancer,
    status: &OpenStackClusterStatus,
    name: &str,
) -> Result<LoadBalancer> {
    let subnets: Vec<SubnetStatus> = status.network.iter().flat_map(|n| n.subnets.clone()).collect();
    let subnet = if let Some(param) = wanted.subnets.first() {
        let network = match &wanted.network {
            Some(network) => Some(find::network(&scope.cloud, network, "managedLoadBalancer.network").await?.id),
            None => status.network.as_ref().map(|n| n.id.clone()),
        };
        Some(find::subnet(&scope.cloud, param, network.as_deref(), "managedLoadBalancer.subnets[0]").await?.id)
    } else if let (Some(param), None) = (&spec.primary_subnet, &wanted.network) {
        let home = status.network.as_ref().map(|n| n.id.as_str());
        Some(find::subnet(&scope.cloud, param, home, "primarySubnet").await?.id)
    } else if wanted.network.is_none() {
        subnets.first().map(|s| s.id.clone())
    } else {
        None
    };
    let network = match (&wanted.network, &subnet) {
        (Some(param), None) => Some(find::network(&scope.cloud, param, "managedLoadBalancer.network").await?.id),
        _ => None,
    };
    if let Some(provider) = &wanted.provider {
        let all = scope.cloud.list::<Provider>(&Query::new()).await?;
        if !all.iter().any(|p| p.name == *provider) {
            let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
            return blocked(
                REASON,
                format!("load balancer provider {provider:?} does not exist; there are {}", names.join(", ")),
            );
        }
    }
    let flavor_id = match &wanted.flavor {
        None => None,
        Some(flavor) => {
            let all = scope.cloud.list::<Flavor>(&Query::new()).await?;
            let Some(found) = all.into_iter().find(|f| f.name == *flavor || f.id == *flavor) else {
                return blocked(REASON, format!("load balancer flavor {flavor:?} does not exist"));
            };
            Some(found.id)
        }
    };
    let draft = LoadBalancerDraft {
        name: name.to_owned(),
        description: scope.description(),
        vip_subnet_id: subnet,
        vip_network_id: network,
        vip_address: wanted_vip(spec).map(str::to_owned),
        provider: wanted.provider.clone(),
        flavor_id,
        availability_zone: wanted.availability_zone.clone(),
        tags: scope.tags.clone(),
    };
    Ok(scope.cloud.create(&draft).await?)
}

/// The CIDRs that may reach the API: those asked for, and the cluster's own, without which it could not reach itself.
fn allowed_cidrs(wanted: &ManagedLoadBalancer, status: &OpenStackClusterStatus) -> Result<Vec<String>> {
    if wanted.allowed_cidrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = BTreeSet::new();
    for text in &wanted.allowed_cidrs {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        let Some(net) = net else {
            return blocked(REASON, format!("managedLoadBalancer.allowedCIDRs: {text:?} is not a CIDR"));
        };
        all.insert(net.trunc().to_string());
    }
    let router = status.router.iter().flat_map(|r| r.ips.clone());
    let bastion = status.bastion.iter().flat_map(|b| [b.floating_ip.clone(), b.ip.clone()]).flatten();
    let hosts = router
        .chain(bastion)
        .filter_map(|ip| ip.parse::<std::net::IpAddr>().ok())
        .map(|ip| IpNet::from(ip).to_string());
    all.extend(hosts);
    all.extend(status.network.iter().flat_map(|n| n.subnets.iter().map(|s| s.cidr.clone())));
    Ok(all.into_iter().collect())
}

/// The object of that name which belongs to the load balancer.
async fn below<R: Reads>(scope: &Scope, name: &str, balancer: &str, of: fn(&R) -> &[Id]) -> Result<Option<R>> {
    let found = scope.cloud.list::<R>(&Query::by_name(name)).await?;
    Ok(found.into_iter().find(|r| r.name() == name && of(r).iter().any(|b| b.id == balancer)))
}

/// The pool of a port of the cluster's load balancer.
pub async fn pool(scope: &Scope, balancer: &str, port: u16) -> Result<Option<Pool>> {
    below::<Pool>(scope, &names::listener(&scope.resource, port), balancer, |p| &p.loadbalancers).await
}

/// While another change is under way the load balancer takes none: that is waiting, not an error.
fn changed<T>(done: openstack::Result<T>, age: Duration) -> Result<T> {
    match done {
        Err(error) if error.is_conflict() => {
            wait(NOT_READY, format!("the load balancer ({})", error.message()), pace(age))
        }
        other => Ok(other?),
    }
}

/// Listener, pool and monitor of a port: one change at a time, since each makes the load balancer busy.
async fn listener(
    scope: &Scope,
    wanted: &ManagedLoadBalancer,
    balancer: &LoadBalancer,
    port: u16,
    cidrs: &[String],
    age: Duration,
) -> Result<()> {
    let name = names::listener(&scope.resource, port);
    let busy = |what: &str| wait(NOT_READY, format!("{what} {name} to be ACTIVE"), pace(age));
    let found = below::<Listener>(scope, &name, &balancer.id, |l| &l.loadbalancers).await?;
    let Some(listener) = found else {
        let draft = ListenerDraft {
            name: name.clone(),
            description: scope.description(),
            loadbalancer_id: balancer.id.clone(),
            protocol: "TCP".to_owned(),
            protocol_port: Some(port),
            allowed_cidrs: cidrs.to_vec(),
            tags: scope.tags.clone(),
            ..Default::default()
        };
        changed(scope.cloud.create::<Listener>(&draft).await, age)?;
        return busy("listener");
    };
    let mut have = listener.allowed_cidrs.clone();
    have.sort();
    if have != cidrs {
        let fields = json!({ "allowed_cidrs": if cidrs.is_empty() { None } else { Some(cidrs) } });
        changed(scope.cloud.update::<Listener>(&listener.id, &fields).await, age)?;
        return busy("listener");
    }
    let Some(pool) = pool(scope, &balancer.id, port).await? else {
        // OVN's provider knows no other algorithm.
        let algorithm = if balancer.provider == "ovn" { "SOURCE_IP_PORT" } else { "ROUND_ROBIN" };
        let draft = PoolDraft {
            name: name.clone(),
            description: scope.description(),
            listener_id: Some(listener.id.clone()),
            protocol: "TCP".to_owned(),
            lb_algorithm: algorithm.to_owned(),
            tags: scope.tags.clone(),
            ..Default::default()
        };
        changed(scope.cloud.create::<Pool>(&draft).await, age)?;
        return busy("pool");
    };
    monitor(scope, wanted, &pool, name, age).await
}

/// The pool's health monitor, with the times that are asked for now.
async fn monitor(scope: &Scope, wanted: &ManagedLoadBalancer, pool: &Pool, name: String, age: Duration) -> Result<()> {
    let asked = wanted.monitor.clone().unwrap_or_default();
    let number = |value: Option<i32>, default: u32| {
        value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
    };
    let (delay, timeout) = (number(asked.delay, 10), number(asked.timeout, 5));
    let (max_retries, max_retries_down) = (number(asked.max_retries, 5), number(asked.max_retries_down, 3));
    let busy = |name: &str| wait(NOT_READY, format!("health monitor {name} to be ACTIVE"), pace(age));
    if pool.healthmonitor_id.is_empty() {
        let draft = HealthMonitorDraft {
            name: name.clone(),
            pool_id: pool.id.clone(),
            kind: "TCP".to_owned(),
            delay: Some(delay),
            timeout: Some(timeout),
            max_retries: Some(max_retries),
            max_retries_down: Some(max_retries_down),
            tags: scope.tags.clone(),
        };
        changed(scope.cloud.create::<HealthMonitor>(&draft).await, age)?;
        return busy(&name);
    }
    let Some(have) = scope.cloud.look::<HealthMonitor>(&pool.healthmonitor_id).await? else { return busy(&name) };
    if (have.delay, have.timeout, have.max_retries, have.max_retries_down)
        != (delay, timeout, max_retries, max_retries_down)
    {
        let fields = json!({
            "delay": delay, "timeout": timeout, "max_retries": max_retries, "max_retries_down": max_retries_down,
        });
        changed(scope.cloud.update::<HealthMonitor>(&have.id, &fields).await, age)?;
        return busy(&name);
    }
    Ok(())
}

/// Takes the load balancer away with all below it, and the cluster's floating IP.
pub async fn delete(scope: &Scope, spec: &OpenStackClusterSpec, age: Duration) -> Result<()> {
    if scope.cloud.has(openstack::Service::LoadBalancer).await? {
        let name = names::load_balancer(&scope.resource);
        if let Some(balancer) = scope.own::<LoadBalancer>(&name, Query::new()).await? {
            if balancer.is_mutable() {
                let cascade = Query::new().with("cascade", true);
                match scope.cloud.delete_with::<LoadBalancer>(&balancer.id, &cascade).await {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
            return wait(NOT_READY, format!("load balancer {name} to be gone"), pace(age));
        }
    }
    if given_floating_ip(spec).is_none() {
        floating::delete(scope, ROLE).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_once() {
        let mut spec = OpenStackClusterSpec::default();
        assert_eq!(ports(&spec), [6443]);
        let balancer = ManagedLoadBalancer { additional_ports: vec![8443, 22, 8443], ..Default::default() };
        spec.api_server = Some(api::openstack_cluster::ApiServerAccess {
            port: Some(8443),
            managed_load_balancer: Some(balancer),
            ..Default::default()
        });
        assert_eq!(ports(&spec), [8443, 22]);
    }

    #[test]
    fn an_endpoint_that_is_given_decides_address_and_port() {
        let endpoint = |host: &str| Some(Endpoint { host: Some(host.into()), port: Some(443) });
        let mut spec = OpenStackClusterSpec { control_plane_endpoint: endpoint("203.0.113.7"), ..Default::default() };
        spec.api_server.get_or_insert_default().port = Some(8443);
        assert_eq!((port(&spec), wanted_floating_ip(&spec), wanted_vip(&spec)), (443, Some("203.0.113.7"), None));
        spec.api_server.get_or_insert_default().enable_floating_ip = Some(false);
        assert_eq!(wanted_vip(&spec), Some("203.0.113.7"));
        spec.api_server.get_or_insert_default().floating_ip = Some("203.0.113.8".into());
        assert_eq!(wanted_floating_ip(&spec), Some("203.0.113.8"));
        spec.control_plane_endpoint = endpoint("api.example");
        assert_eq!((wanted_vip(&spec), port(&spec)), (None, 443));
    }

    #[test]
    fn allowed_cidrs_are_canonical_and_include_the_cluster_itself() {
        let wanted = ManagedLoadBalancer {
            allowed_cidrs: vec!["192.0.2.77/24".into(), "fd00::1/64".into(), "198.51.100.1".into()],
            ..Default::default()
        };
        let mut status = OpenStackClusterStatus::default();
        status.network.get_or_insert_default().subnets =
            vec![SubnetStatus { cidr: "10.6.0.0/24".into(), ..Default::default() }];
        status.router.get_or_insert_default().ips = vec!["203.0.113.9".into()];
        let all = allowed_cidrs(&wanted, &status).unwrap();
        assert_eq!(all, ["10.6.0.0/24", "192.0.2.0/24", "198.51.100.1/32", "203.0.113.9/32", "fd00::/64"]);
        let bad = ManagedLoadBalancer { allowed_cidrs: vec!["everywhere".into()], ..Default::default() };
        assert!(allowed_cidrs(&bad, &status).is_err());
    }
}
