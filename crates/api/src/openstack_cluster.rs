//! `infrastructure.cluster.x-k8s.io` OpenStackCluster: a cluster's network, security groups and API endpoint in OpenStack.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cluster::{Endpoint, FailureDomain};
use crate::meta::{Condition, TemplateMeta};
use crate::openstack_machine::{MachineResources, OpenStackMachineSpec, ResolvedMachine};
use crate::openstack_reference::{IdentityRef, NetworkParam, Provisioned, SubnetParam};

/// OpenStackCluster: `spec.apiServer.managedLoadBalancer.monitor`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerMonitor {
    #[schemars(range(min = 0))]
    pub delay: Option<i32>,
    #[schemars(range(min = 0, max = 10))]
    pub max_retries: Option<i32>,
    #[schemars(range(min = 1, max = 10))]
    pub max_retries_down: Option<i32>,
    #[schemars(range(min = 0))]
    pub timeout: Option<i32>,
}

/// The Octavia load balancer of the API.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedLoadBalancer {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub additional_ports: Vec<i32>,
    #[serde(rename = "allowedCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_cidrs: Vec<String>,
    pub availability_zone: Option<String>,
    #[schemars(extend("default" = true))]
    pub enabled: Option<bool>,
    pub flavor: Option<String>,
    pub monitor: Option<LoadBalancerMonitor>,
    pub network: Option<NetworkParam>,
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub subnets: Vec<SubnetParam>,
}

/// How the API is reached.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServerAccess {
    /// Give the API a floating IP; true if it is not said.
    #[serde(rename = "enableFloatingIP")]
    pub enable_floating_ip: Option<bool>,
    /// Address in the network where there is no floating IP.
    #[serde(rename = "fixedIP")]
    pub fixed_ip: Option<String>,
    /// A floating IP that exists; it is kept on deletion.
    #[serde(rename = "floatingIP")]
    pub floating_ip: Option<String>,
    /// A load balancer in front of the API.
    pub managed_load_balancer: Option<ManagedLoadBalancer>,
    /// TCP port of the API; 6443 if it is not said.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<i32>,
}

/// A machine to reach the others by SSH.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bastion {
    pub availability_zone: Option<String>,
    #[schemars(extend("default" = true))]
    pub enabled: Option<bool>,
    #[serde(rename = "floatingIP")]
    #[schemars(extend("format" = "ipv4"))]
    pub floating_ip: Option<String>,
    pub spec: Option<OpenStackMachineSpec>,
}

/// OpenStackCluster: `spec.managedNetwork`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedNetwork {
    pub enable_port_security: Option<bool>,
    pub mtu: Option<i32>,
}

/// OpenStackCluster: `spec.managedRouter.externalIPs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRouterIp {
    #[serde(rename = "fixedIP")]
    pub fixed_ip: Option<String>,
    pub subnet: SubnetParam,
}

/// OpenStackCluster: `spec.managedRouter`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedRouter {
    #[serde(rename = "externalIPs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub external_ips: Vec<ExternalRouterIp>,
}

/// OpenStackCluster: `spec.managedSecurityGroups.clusterNodesSecurityGroupRules.direction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RuleDirection {
    #[default]
    #[serde(rename = "ingress")]
    Ingress,
    #[serde(rename = "egress")]
    Egress,
}

/// OpenStackCluster: `spec.managedSecurityGroups.clusterNodesSecurityGroupRules.etherType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EtherType {
    #[default]
    IPv4,
    IPv6,
}

/// OpenStackCluster: `spec.managedSecurityGroups.clusterNodesSecurityGroupRules.remoteManagedGroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManagedGroup {
    #[default]
    #[serde(rename = "bastion")]
    Bastion,
    #[serde(rename = "controlplane")]
    Controlplane,
    #[serde(rename = "worker")]
    Worker,
}

/// A rule of a security group; at most one remote.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupRule {
    pub description: Option<String>,
    pub direction: RuleDirection,
    pub ether_type: Option<EtherType>,
    #[schemars(length(min = 1))]
    pub name: String,
    pub port_range_max: Option<i32>,
    pub port_range_min: Option<i32>,
    pub protocol: Option<String>,
    #[serde(rename = "remoteGroupID")]
    pub remote_group_id: Option<String>,
    #[serde(rename = "remoteIPPrefix")]
    pub remote_ip_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub remote_managed_groups: Vec<ManagedGroup>,
}

/// The security groups that the provider makes and keeps.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecurityGroups {
    #[schemars(extend("default" = false))]
    pub allow_all_in_cluster_traffic: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub cluster_nodes_security_group_rules: Vec<SecurityGroupRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub control_plane_nodes_security_group_rules: Vec<SecurityGroupRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub worker_nodes_security_group_rules: Vec<SecurityGroupRule>,
}

/// OpenStackCluster: `spec.managedSubnets.allocationPools`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllocationPool {
    #[schemars(length(min = 1))]
    pub end: String,
    #[schemars(length(min = 1))]
    pub start: String,
}

/// The subnet that the provider makes.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSubnet {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub allocation_pools: Vec<AllocationPool>,
    #[schemars(length(min = 1))]
    pub cidr: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub dns_nameservers: Vec<String>,
}

/// What a cluster gets in OpenStack: network, security groups, API endpoint, bastion.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "OpenStackCluster",
    plural = "openstackclusters",
    namespaced,
    status = "OpenStackClusterStatus",
    shortname = "osc",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".metadata.labels.cluster\\.x-k8s\\.io/cluster-name", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.network.id", "name": "Network", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.controlPlaneEndpoint.host", "name": "Endpoint", "priority": 1, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.bastion.floatingIP", "name": "Bastion IP", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackClusterSpec {
    /// How the API is reached.
    pub api_server: Option<ApiServerAccess>,
    /// A machine to reach the others by SSH.
    pub bastion: Option<Bastion>,
    /// Zones for control plane machines; all if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub control_plane_availability_zones: Vec<String>,
    /// Where the API is reached; set by the provider if it is empty, then fixed.
    pub control_plane_endpoint: Option<Endpoint>,
    /// Let Nova choose the zones of control plane machines.
    pub control_plane_omit_availability_zone: Option<bool>,
    /// Use an external network; true if it is not said.
    pub enable_external_network: Option<bool>,
    /// The network of floating IPs; the cloud's only one if it is not said.
    pub external_network: Option<NetworkParam>,
    /// The credentials.
    pub identity_ref: IdentityRef,
    /// Settings of the network that the provider makes.
    pub managed_network: Option<ManagedNetwork>,
    /// Settings of the router that the provider makes.
    pub managed_router: Option<ManagedRouter>,
    /// Security groups that the provider makes; none if it is not said.
    pub managed_security_groups: Option<ManagedSecurityGroups>,
    /// The subnets that the provider makes, one for each IP version (the published provider takes one in all); none: such
    /// that exist are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub managed_subnets: Vec<ManagedSubnet>,
    /// A network that exists.
    pub network: Option<NetworkParam>,
    /// The subnet of the API's address where there are several.
    pub primary_subnet: Option<SubnetParam>,
    /// A router that exists.
    pub router: Option<NetworkParam>,
    /// Subnets that exist: one for each IP version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub subnets: Vec<SubnetParam>,
    /// Tags of everything that the provider makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackCluster: `status.apiServerManagedLoadBalancer.loadBalancerNetwork.subnets`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetStatus {
    #[schemars(length(min = 1))]
    pub cidr: String,
    #[schemars(length(min = 1))]
    pub id: String,
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackCluster: `status.apiServerManagedLoadBalancer.loadBalancerNetwork`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    #[schemars(length(min = 1))]
    pub id: String,
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub subnets: Vec<SubnetStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackCluster: `status.apiServerManagedLoadBalancer`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    #[serde(rename = "allowedCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_cidrs: Vec<String>,
    #[schemars(length(min = 1))]
    pub id: String,
    #[serde(rename = "internalIP")]
    #[schemars(length(min = 1))]
    pub internal_ip: String,
    #[schemars(length(min = 1))]
    pub ip: String,
    pub load_balancer_network: Option<NetworkStatus>,
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackCluster: `status.bastion`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BastionStatus {
    #[serde(rename = "floatingIP")]
    pub floating_ip: Option<String>,
    pub id: Option<String>,
    pub ip: Option<String>,
    pub name: Option<String>,
    pub resolved: Option<ResolvedMachine>,
    pub resources: Option<MachineResources>,
    pub ssh_key_name: Option<String>,
    pub state: Option<String>,
}

/// OpenStackCluster: `status.bastionSecurityGroup`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedResource {
    #[schemars(length(min = 1))]
    pub id: String,
    #[schemars(length(min = 1))]
    pub name: String,
}

/// OpenStackCluster: `status.externalNetwork`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalNetwork {
    #[schemars(length(min = 1))]
    pub id: String,
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackCluster: `status.router`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouterStatus {
    #[schemars(length(min = 1))]
    pub id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub ips: Vec<String>,
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackCluster: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackClusterStatus {
    pub api_server_managed_load_balancer: Option<LoadBalancerStatus>,
    pub bastion: Option<BastionStatus>,
    pub bastion_security_group: Option<NamedResource>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub control_plane_security_group: Option<NamedResource>,
    pub external_network: Option<ExternalNetwork>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub failure_domains: Vec<FailureDomain>,
    pub initialization: Option<Provisioned>,
    pub network: Option<NetworkStatus>,
    pub router: Option<RouterStatus>,
    pub worker_security_group: Option<NamedResource>,
}

/// OpenStackClusterTemplate: `spec.template`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackClusterTemplateResource {
    pub metadata: Option<TemplateMeta>,
    pub spec: OpenStackClusterSpec,
}

/// OpenStackClusterTemplate: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "OpenStackClusterTemplate",
    plural = "openstackclustertemplates",
    namespaced,
    shortname = "osct",
    category = "cluster-api",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackClusterTemplateSpec {
    pub template: OpenStackClusterTemplateResource,
}
