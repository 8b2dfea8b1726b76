//! Neutron v2.0.

use http::Method;
use serde_json::{Map, Value, json};

use crate::{Client, Query, Result, Service, query::encode, resource::Writes};

wire! {
    pub struct Network {
        pub id: String,
        pub name: String,
        pub description: String,
        pub project_id: String,
        pub status: String,
        pub admin_state_up: bool,
        pub mtu: Option<u32>,
        pub shared: bool,
        #[serde(rename = "router:external")]
        pub external: bool,
        pub is_default: bool,
        pub port_security_enabled: Option<bool>,
        pub subnets: Vec<String>,
        pub availability_zones: Vec<String>,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct Subnet {
        pub id: String,
        pub name: String,
        pub description: String,
        pub project_id: String,
        pub network_id: String,
        pub cidr: String,
        /// 4 or 6.
        pub ip_version: u8,
        pub gateway_ip: Option<String>,
        pub enable_dhcp: bool,
        pub dns_nameservers: Vec<String>,
        pub allocation_pools: Vec<AllocationPool>,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct AllocationPool {
        pub start: String,
        pub end: String,
    }

    pub struct Router {
        pub id: String,
        pub name: String,
        pub description: String,
        pub project_id: String,
        pub status: String,
        pub admin_state_up: bool,
        pub external_gateway_info: Option<GatewayInfo>,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct GatewayInfo {
        pub network_id: String,
        pub external_fixed_ips: Vec<FixedIp>,
    }

    pub struct FixedIp {
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subnet_id: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub ip_address: String,
    }

    pub struct Port {
        pub id: String,
        pub name: String,
        pub description: String,
        pub project_id: String,
        pub network_id: String,
        pub status: String,
        pub admin_state_up: bool,
        pub mac_address: String,
        pub fixed_ips: Vec<FixedIp>,
        /// `immediate`, `deferred` or `none`.
        pub ip_allocation: String,
        pub security_groups: Vec<String>,
        /// The server, router or load balancer that uses the port.
        pub device_id: String,
        /// `compute:<zone>`, `network:router_interface`, `Octavia`, ...
        pub device_owner: String,
        pub allowed_address_pairs: Vec<AddressPair>,
        pub port_security_enabled: Option<bool>,
        #[serde(rename = "binding:vnic_type")]
        pub vnic_type: String,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct AddressPair {
        pub ip_address: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub mac_address: String,
    }

    pub struct FloatingIp {
        pub id: String,
        pub description: String,
        pub project_id: String,
        /// `ACTIVE`, `DOWN`, `ERROR`.
        pub status: String,
        pub floating_network_id: String,
        pub floating_ip_address: String,
        pub fixed_ip_address: Option<String>,
        pub port_id: Option<String>,
        pub router_id: Option<String>,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct SecurityGroup {
        pub id: String,
        pub name: String,
        pub description: String,
        pub project_id: String,
        pub security_group_rules: Vec<SecurityGroupRule>,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct SecurityGroupRule {
        pub id: String,
        pub security_group_id: String,
        pub description: String,
        /// `ingress` or `egress`.
        pub direction: String,
        /// `IPv4` or `IPv6`.
        pub ethertype: String,
        pub protocol: Option<String>,
        pub port_range_min: Option<u16>,
        pub port_range_max: Option<u16>,
        pub remote_group_id: Option<String>,
        pub remote_ip_prefix: Option<String>,
    }

    pub struct Trunk {
        pub id: String,
        pub name: String,
        pub description: String,
        pub port_id: String,
        pub status: String,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct AvailabilityZone {
        pub name: String,
        /// `network` or `router`.
        pub resource: String,
        /// `available` or `unavailable`.
        pub state: String,
    }

    pub struct Extension {
        pub alias: String,
        pub name: String,
    }

    /// What a project may have and has, per resource: -1 is no limit.
    pub struct Usage {
        pub limit: i64,
        pub used: i64,
        pub reserved: i64,
    }
}

resource!(Network, Network, "networks", "network", "networks");
resource!(Subnet, Network, "subnets", "subnet", "subnets");
resource!(Router, Network, "routers", "router", "routers");
resource!(Port, Network, "ports", "port", "ports");
resource!(FloatingIp, Network, "floatingips", "floatingip", "floatingips");
resource!(SecurityGroup, Network, "security-groups", "security_group", "security_groups");
resource!(SecurityGroupRule, Network, "security-group-rules", "security_group_rule", "security_group_rules");
resource!(Trunk, Network, "trunks", "trunk", "trunks");
resource!(AvailabilityZone, Network, "availability_zones", "availability_zone", "availability_zones");
resource!(Extension, Network, "extensions", "extension", "extensions");
named!(Network, Subnet, Router, Port, SecurityGroup, Trunk);

draft! {
    pub struct NetworkDraft {
        pub name: String,
        pub description: String,
        pub admin_state_up: Option<bool>,
        pub mtu: Option<u32>,
        pub port_security_enabled: Option<bool>,
    }

    pub struct SubnetDraft {
        pub name: String,
        pub description: String,
        pub network_id: String,
        pub cidr: String,
        /// 4 or 6.
        pub ip_version: Option<u8>,
        pub gateway_ip: Option<String>,
        pub enable_dhcp: Option<bool>,
        pub dns_nameservers: Vec<String>,
        pub allocation_pools: Vec<AllocationPool>,
        pub ipv6_address_mode: Option<String>,
        pub ipv6_ra_mode: Option<String>,
    }

    pub struct RouterDraft {
        pub name: String,
        pub description: String,
        pub admin_state_up: Option<bool>,
        pub external_gateway_info: Option<GatewayDraft>,
    }

    pub struct GatewayDraft {
        pub network_id: String,
        pub external_fixed_ips: Vec<FixedIp>,
    }

    pub struct PortDraft {
        pub name: String,
        pub description: String,
        pub network_id: String,
        pub admin_state_up: Option<bool>,
        pub mac_address: Option<String>,
        pub fixed_ips: Vec<FixedIp>,
        /// `None`: the project's default group; an empty list: no group.
        pub security_groups: Option<Vec<String>>,
        pub allowed_address_pairs: Vec<AddressPair>,
        pub port_security_enabled: Option<bool>,
        #[serde(rename = "binding:host_id")]
        pub host_id: Option<String>,
        #[serde(rename = "binding:vnic_type")]
        pub vnic_type: Option<String>,
        #[serde(rename = "binding:profile")]
        pub binding_profile: Map<String, Value>,
        pub propagate_uplink_status: Option<bool>,
        /// Fields that only a certain plug-in knows.
        #[serde(flatten)]
        pub value_specs: std::collections::BTreeMap<String, String>,
    }

    pub struct FloatingIpDraft {
        pub description: String,
        pub floating_network_id: String,
        pub floating_ip_address: Option<String>,
        pub port_id: Option<String>,
    }

    pub struct SecurityGroupDraft {
        pub name: String,
        pub description: String,
    }

    pub struct SecurityGroupRuleDraft {
        pub security_group_id: String,
        pub description: String,
        pub direction: String,
        pub ethertype: String,
        pub protocol: Option<String>,
        pub port_range_min: Option<u16>,
        pub port_range_max: Option<u16>,
        pub remote_group_id: Option<String>,
        pub remote_ip_prefix: Option<String>,
    }

    pub struct TrunkDraft {
        pub name: String,
        pub description: String,
        pub port_id: String,
    }
}

impl Writes<Network> for NetworkDraft {}
impl Writes<Subnet> for SubnetDraft {}
impl Writes<Router> for RouterDraft {}
impl Writes<Port> for PortDraft {}
impl Writes<FloatingIp> for FloatingIpDraft {}
impl Writes<SecurityGroup> for SecurityGroupDraft {}
impl Writes<SecurityGroupRule> for SecurityGroupRuleDraft {}
impl Writes<Trunk> for TrunkDraft {}

impl Client {
    pub async fn add_router_interface(&self, router: &str, subnet: &str) -> Result<()> {
        self.router_interface(router, "add_router_interface", subnet).await
    }

    pub async fn remove_router_interface(&self, router: &str, subnet: &str) -> Result<()> {
        self.router_interface(router, "remove_router_interface", subnet).await
    }

    async fn router_interface(&self, router: &str, action: &str, subnet: &str) -> Result<()> {
        let path = format!("routers/{}/{action}", encode(router));
        let body = json!({ "subnet_id": subnet });
        self.raw(Service::Network, Method::PUT, &path, &Query::new(), Some(&body)).await.map(drop)
    }

    /// Ties a floating IP to a port, or frees it.
    pub async fn associate_floating_ip(&self, id: &str, port: Option<&str>) -> Result<FloatingIp> {
        self.update::<FloatingIp>(id, &json!({ "port_id": port })).await
    }

    /// Limits and usage of the token's project: `network`, `port`, `floatingip`, ... .
    pub async fn network_usage(&self) -> Result<std::collections::BTreeMap<String, Usage>> {
        let access = self.access().await?;
        let path = format!("quotas/{}/details.json", access.project_id.as_deref().unwrap_or_default());
        let body = self.raw(Service::Network, Method::GET, &path, &Query::new(), None).await?;
        Ok(serde_json::from_value(body.get("quota").cloned().unwrap_or_default()).unwrap_or_default())
    }
}
