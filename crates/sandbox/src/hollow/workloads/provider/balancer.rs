//! Load balancers of Octavia for Services.
//!
//! Source: kubernetes/cloud-provider-openstack pkg/openstack/loadbalancer.go (names, descriptions, order of what is made).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service, ServicePort, ServiceStatus};
use kube::ResourceExt;
use openstack::{
    Query,
    load_balancer::{Listener, ListenerDraft, LoadBalancer, LoadBalancerDraft, Member, MemberDraft, Pool, PoolDraft},
    network::{FloatingIp, FloatingIpDraft, Network, Port},
};
use serde_json::json;

use super::{COMPONENT, Outcome, Provider, STEPS_MAX, finalizers, targets};
use crate::hollow::workloads::{observed::Observed, plan::Plan};

const INTERNAL: &str = "service.beta.kubernetes.io/openstack-internal-load-balancer";
const BALANCER_ID: &str = "loadbalancer.openstack.org/load-balancer-id";
const NAME_BYTES_MAX: usize = 255;

/// What a Service asks for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    pub name: String,
    pub service: String,
    pub cluster: String,
    /// No address outside.
    pub internal: bool,
    pub allowed: Vec<String>,
    pub ports: Vec<ServicePort>,
    /// Name and address of each node.
    pub nodes: Vec<(String, String)>,
}

/// What there is of it.
#[derive(Debug, Default)]
pub struct Found {
    pub balancer: Option<LoadBalancer>,
    pub listeners: Vec<Listener>,
    pub pools: Vec<Pool>,
    /// By pool.
    pub members: BTreeMap<String, Vec<Member>>,
    pub address: Option<FloatingIp>,
}

/// The next thing to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    MakeBalancer,
    MakeListener(ListenerDraft),
    MakePool(PoolDraft),
    MakeMember(String, MemberDraft),
    DeleteMember(String, String),
    DeletePool(String),
    DeleteListener(String),
    DeleteBroken(String),
    MakeAddress(String),
    Wait,
    /// Reached at this address.
    Done(String),
}

pub fn address(node: &Node) -> Option<String> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.into_iter().find(|address| address.type_ == "InternalIP").map(|found| found.address.clone())
}

fn named(kind: &str, index: usize, balancer: &str) -> String {
    cut(format!("{kind}_{index}_{balancer}"))
}

fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

/// Whether a listener is that of a port.
fn is_of(listener: &Listener, port: &ServicePort) -> bool {
    i32::from(listener.protocol_port) == port.port && listener.protocol == protocol(port)
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())
}

/// What is missing, or too much: one thing at a time, since a load balancer takes no change while it is at one.
pub fn next(wanted: &Wanted, found: &Found) -> Step {
    let Some(balancer) = &found.balancer else { return Step::MakeBalancer };
    match balancer.provisioning_status.as_str() {
        "ACTIVE" => {}
        "ERROR" => return Step::DeleteBroken(balancer.id.clone()),
        _ => return Step::Wait,
    }
    for listener in &found.listeners {
        if !wanted.ports.iter().any(|port| is_of(listener, port)) {
            let pool = found.pools.iter().find(|pool| pool.id == listener.default_pool_id);
            return match pool {
                Some(pool) => Step::DeletePool(pool.id.clone()),
                None => Step::DeleteListener(listener.id.clone()),
            };
        }
    }
    for (index, port) in wanted.ports.iter().enumerate() {
        let Some(listener) = found.listeners.iter().find(|listener| is_of(listener, port)) else {
            return Step::MakeListener(ListenerDraft {
                name: named("listener", index, &wanted.name),
                loadbalancer_id: balancer.id.clone(),
                protocol: protocol(port),
                protocol_port: u16::try_from(port.port).ok(),
                allowed_cidrs: wanted.allowed.clone(),
                tags: vec![wanted.name.clone()],
                ..ListenerDraft::default()
            });
        };
        let Some(pool) = found.pools.iter().find(|pool| pool.listeners.iter().any(|own| own.id == listener.id)) else {
            return Step::MakePool(PoolDraft {
                name: named("pool", index, &wanted.name),
                listener_id: Some(listener.id.clone()),
                protocol: protocol(port),
                lb_algorithm: "ROUND_ROBIN".into(),
                tags: vec![wanted.name.clone()],
                ..PoolDraft::default()
            });
        };
        if let Some(step) = members(wanted, found, index, port, pool) {
            return step;
        }
    }
    match &found.address {
        _ if wanted.internal => Step::Done(balancer.vip_address.clone()),
        Some(address) => Step::Done(address.floating_ip_address.clone()),
        None => Step::MakeAddress(balancer.vip_port_id.clone()),
    }
}

fn members(wanted: &Wanted, found: &Found, index: usize, port: &ServicePort, pool: &Pool) -> Option<Step> {
    let node_port = u16::try_from(port.node_port?).ok()?;
    let have = found.members.get(&pool.id).map(Vec::as_slice).unwrap_or_default();
    let is = |member: &Member, address: &str| member.address == address && member.protocol_port == node_port;
    for (node, address) in &wanted.nodes {
        if !have.iter().any(|member| is(member, address)) {
            let draft = MemberDraft {
                name: cut(format!("member_{index}_{node}")),
                address: address.clone(),
                protocol_port: Some(node_port),
                ..MemberDraft::default()
            };
            return Some(Step::MakeMember(pool.id.clone(), draft));
        }
    }
    let stale = have.iter().find(|member| !wanted.nodes.iter().any(|(_, address)| is(member, address)));
    stale.map(|member| Step::DeleteMember(pool.id.clone(), member.id.clone()))
}

fn name(cluster: &str, service: &Service) -> String {
    cut(format!("kube_service_{cluster}_{}_{}", service.namespace().unwrap_or_default(), service.name_any()))
}

impl Provider {
    fn wanted(&self, seen: &Observed, service: &Service) -> Wanted {
        let spec = service.spec.clone().unwrap_or_default();
        let nodes = targets(seen).into_iter().filter_map(|node| Some((node.name_any(), address(node)?)));
        Wanted {
            name: name(&self.cluster, service),
            service: format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any()),
            cluster: self.cluster.clone(),
            internal: service.annotations().get(INTERNAL).map(String::as_str) == Some("true"),
            allowed: spec.load_balancer_source_ranges.unwrap_or_default(),
            ports: spec.ports.unwrap_or_default(),
            nodes: nodes.collect(),
        }
    }

    async fn balancer_named(&self, name: &str) -> openstack::Result<Option<LoadBalancer>> {
        let all = self.cloud.list::<LoadBalancer>(&Query::new().with("name", name)).await?;
        Ok(all.into_iter().find(|balancer| balancer.name == name))
    }

    async fn found(&self, name: &str) -> openstack::Result<Found> {
        let Some(balancer) = self.balancer_named(name).await? else { return Ok(Found::default()) };
        let of = Query::new().with("loadbalancer_id", &balancer.id);
        let listeners = self.cloud.list::<Listener>(&of).await?;
        let pools = self.cloud.list::<Pool>(&of).await?;
        let mut members = BTreeMap::new();
        for pool in &pools {
            members.insert(pool.id.clone(), self.cloud.list_in::<Member>(&pool.id, &Query::new()).await?);
        }
        let at = Query::new().with("port_id", &balancer.vip_port_id);
        let address = self.cloud.list::<FloatingIp>(&at).await?.into_iter().next();
        Ok(Found { balancer: Some(balancer), listeners, pools, members, address })
    }

    pub async fn balance(&self, seen: &Observed, service: &Service, plan: &mut Plan) -> openstack::Result<Outcome> {
        // First of all: from now on the Service does not go before its load balancer.
        if !service.finalizers().iter().any(|name| name == super::FINALIZER) {
            plan.patch(service, finalizers(service, true));
            plan.event(service, seen.now, (COMPONENT, "Normal", "EnsuringLoadBalancer"), "Ensuring load balancer");
            return Ok(Outcome::Waits);
        }
        let wanted = self.wanted(seen, service);
        if wanted.ports.iter().any(|port| port.node_port.unwrap_or(0) == 0) {
            return Ok(Outcome::Waits);
        }
        for _ in 0..STEPS_MAX {
            let found = self.found(&wanted.name).await?;
            match next(&wanted, &found) {
                Step::Wait => return Ok(Outcome::Waits),
                Step::Done(ip) => {
                    let id = found.balancer.map(|balancer| balancer.id).unwrap_or_default();
                    tell(seen, service, &id, ip, plan);
                    return Ok(Outcome::Done);
                }
                step => self.take(seen, &wanted, step).await?,
            }
        }
        Ok(Outcome::Waits)
    }

    async fn take(&self, seen: &Observed, wanted: &Wanted, step: Step) -> openstack::Result<()> {
        match step {
            Step::MakeBalancer => {
                let draft = self.balancer_draft(seen, wanted).await?;
                self.cloud.create::<LoadBalancer>(&draft).await?;
            }
            Step::MakeListener(draft) => drop(self.cloud.create::<Listener>(&draft).await?),
            Step::MakePool(draft) => drop(self.cloud.create::<Pool>(&draft).await?),
            Step::MakeMember(pool, draft) => drop(self.cloud.create_in::<Member>(&pool, &draft).await?),
            Step::DeleteMember(pool, id) => self.cloud.delete_in::<Member>(&pool, &id).await?,
            Step::DeletePool(id) => drop(self.cloud.remove::<Pool>(&id).await?),
            Step::DeleteListener(id) => drop(self.cloud.remove::<Listener>(&id).await?),
            Step::DeleteBroken(id) => {
                self.cloud.delete_with::<LoadBalancer>(&id, &Query::new().with("cascade", true)).await?;
            }
            Step::MakeAddress(port) => {
                let draft = FloatingIpDraft {
                    description: format!(
                        "Floating IP for Kubernetes external service {} from cluster {}",
                        wanted.service, wanted.cluster
                    ),
                    floating_network_id: self.outside().await?,
                    port_id: Some(port),
                    ..FloatingIpDraft::default()
                };
                self.cloud.create::<FloatingIp>(&draft).await?;
            }
            Step::Wait | Step::Done(_) => {}
        }
        Ok(())
    }

    /// The network that addresses come from: that of the configuration, or the only one that leads outside.
    async fn outside(&self) -> openstack::Result<String> {
        if let Some(id) = &self.floating_network {
            return Ok(id.clone());
        }
        let all = self.cloud.list::<Network>(&Query::new().with("router:external", true)).await?;
        Ok(all.into_iter().next().map(|network| network.id).unwrap_or_default())
    }

    async fn balancer_draft(&self, seen: &Observed, wanted: &Wanted) -> openstack::Result<LoadBalancerDraft> {
        let mut subnet = self.subnet.clone();
        if subnet.is_none() && self.network.is_none() {
            // The nodes' own: by the port of one of them.
            let node = targets(seen)
                .into_iter()
                .chain(&seen.nodes)
                .find_map(|node| node.spec.as_ref()?.provider_id.as_ref()?.rsplit('/').next().map(str::to_owned));
            let ports = self.cloud.list::<Port>(&Query::new().with("device_id", node.unwrap_or_default())).await?;
            subnet = ports.into_iter().flat_map(|port| port.fixed_ips).map(|ip| ip.subnet_id).next();
        }
        Ok(LoadBalancerDraft {
            name: wanted.name.clone(),
            description: format!("Kubernetes external service {} from cluster {}", wanted.service, wanted.cluster),
            vip_network_id: self.network.clone().filter(|_| subnet.is_none()),
            vip_subnet_id: subnet,
            tags: vec![wanted.name.clone()],
            ..LoadBalancerDraft::default()
        })
    }

    pub async fn free(&self, service: &Service, plan: &mut Plan) -> openstack::Result<Outcome> {
        let found = self.balancer_named(&name(&self.cluster, service)).await?;
        let Some(balancer) = found else {
            plan.patch(service, finalizers(service, false));
            return Ok(Outcome::Done);
        };
        let at = Query::new().with("port_id", &balancer.vip_port_id);
        for address in self.cloud.list::<FloatingIp>(&at).await? {
            // Others were given to the Service by hand, and are only freed.
            if address.description.starts_with("Floating IP for Kubernetes external service ") {
                self.cloud.remove::<FloatingIp>(&address.id).await?;
            }
        }
        if balancer.is_mutable() {
            let cascade = Query::new().with("cascade", true);
            match self.cloud.delete_with::<LoadBalancer>(&balancer.id, &cascade).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(Outcome::Waits)
    }
}

/// Writes the address, unless the Service has it.
fn tell(seen: &Observed, service: &Service, id: &str, ip: String, plan: &mut Plan) {
    if service.annotations().get(BALANCER_ID).map(String::as_str) != Some(id) {
        plan.patch(service, json!({"metadata": {"annotations": {BALANCER_ID: id}}}));
        return;
    }
    let ingress = LoadBalancerIngress { ip: Some(ip), ip_mode: Some("VIP".into()), ..LoadBalancerIngress::default() };
    let old = service.status.clone().unwrap_or_default();
    let balancer = LoadBalancerStatus { ingress: Some(vec![ingress]) };
    let status = ServiceStatus { load_balancer: Some(balancer), ..old };
    if service.status.as_ref() != Some(&status) {
        plan.status(&Service { status: Some(status), ..service.clone() });
        plan.event(service, seen.now, (COMPONENT, "Normal", "EnsuredLoadBalancer"), "Ensured load balancer");
    }
}

#[cfg(test)]
mod tests;
