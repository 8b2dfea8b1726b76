//! How the OpenStack kinds point at things in the cloud: by id or by a filter that must match exactly one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::NO_COMMA;

/// OpenStackMachine: `status.initialization`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provisioned {
    pub provisioned: Option<bool>,
}

/// OpenStackMachine: `spec.flavor.filter`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct NameFilter {
    pub name: Option<String>,
}

/// OpenStackMachine: `spec.flavor`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 1))]
pub struct FlavorParam {
    pub filter: Option<NameFilter>,
    pub id: Option<String>,
}

/// OpenStackMachine: `spec.identityRef.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityType {
    #[default]
    Secret,
    ClusterIdentity,
}

/// The credentials: a Secret with clouds.yaml, and the cloud's name in it.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRef {
    /// Cloud in clouds.yaml.
    #[schemars(length(min = 1))]
    pub cloud_name: String,
    /// Name of the Secret.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Region; that of clouds.yaml if it is not said. Fixed.
    pub region: Option<String>,
    /// What the name names.
    #[schemars(extend("default" = "Secret"))]
    pub type_: Option<IdentityType>,
}

/// OpenStackMachine: `spec.image.filter`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ImageFilter {
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
}

/// OpenStackMachine: `spec.image.imageRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRef {
    #[schemars(length(min = 1))]
    pub name: String,
}

/// OpenStackMachine: `spec.image`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 1))]
pub struct ImageParam {
    pub filter: Option<ImageFilter>,
    #[schemars(extend("format" = "uuid"))]
    pub id: Option<String>,
    pub image_ref: Option<ImageRef>,
}

/// OpenStackMachine: `spec.ports.allowedAddressPairs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPair {
    #[schemars(length(min = 1))]
    pub ip_address: String,
    pub mac_address: Option<String>,
}

/// OpenStackMachine: `spec.ports.fixedIPs.subnet.filter`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Filter {
    pub cidr: Option<String>,
    pub description: Option<String>,
    #[serde(rename = "gatewayIP")]
    pub gateway_ip: Option<String>,
    pub ip_version: Option<i32>,
    pub ipv6_address_mode: Option<String>,
    #[serde(rename = "ipv6RAMode")]
    pub ipv6_ra_mode: Option<String>,
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub not_tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub not_tags_any: Vec<String>,
    #[serde(rename = "projectID")]
    pub project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub tags_any: Vec<String>,
}

/// OpenStackMachine: `spec.ports.fixedIPs.subnet`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 1))]
pub struct SubnetParam {
    pub filter: Option<Filter>,
    #[schemars(extend("format" = "uuid"))]
    pub id: Option<String>,
}

/// OpenStackMachine: `spec.ports.fixedIPs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FixedIp {
    pub ip_address: Option<String>,
    pub subnet: Option<SubnetParam>,
}

/// OpenStackMachine: `spec.ports.network.filter`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct NetworkFilter {
    pub description: Option<String>,
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub not_tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub not_tags_any: Vec<String>,
    #[serde(rename = "projectID")]
    pub project_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1), regex(pattern = NO_COMMA)), extend("x-kubernetes-list-type" = "set"))]
    pub tags_any: Vec<String>,
}

/// OpenStackMachine: `spec.ports.network`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 1))]
pub struct NetworkParam {
    pub filter: Option<NetworkFilter>,
    #[schemars(extend("format" = "uuid"))]
    pub id: Option<String>,
}

/// OpenStackMachine: `spec.ports.profile`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingProfile {
    #[serde(rename = "ovsHWOffload")]
    pub ovs_hw_offload: Option<bool>,
    #[serde(rename = "trustedVF")]
    pub trusted_vf: Option<bool>,
}

/// OpenStackMachine: `spec.ports.valueSpecs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueSpec {
    #[schemars(length(min = 1))]
    pub key: String,
    #[schemars(length(min = 1))]
    pub name: String,
    #[schemars(length(min = 1))]
    pub value: String,
}

/// A port of the server.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortOpts {
    pub admin_state_up: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_address_pairs: Vec<AddressPair>,
    pub description: Option<String>,
    pub enable_port_security: Option<bool>,
    #[serde(rename = "fixedIPs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub fixed_ips: Vec<FixedIp>,
    #[serde(rename = "hostID")]
    pub host_id: Option<String>,
    pub mac_address: Option<String>,
    pub name_suffix: Option<String>,
    pub network: Option<NetworkParam>,
    pub profile: Option<BindingProfile>,
    pub propagate_uplink_status: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub security_groups: Vec<NetworkParam>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    pub trunk: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub value_specs: Vec<ValueSpec>,
    pub vnic_type: Option<String>,
}

/// OpenStackMachine: `spec.serverGroup`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 1))]
pub struct ServerGroupParam {
    pub filter: Option<NameFilter>,
    #[schemars(extend("format" = "uuid"))]
    pub id: Option<String>,
}

/// OpenStackMachine: `status.resolved.ports.fixedIPs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedFixedIp {
    pub ip_address: Option<String>,
    pub subnet: Option<String>,
}

/// OpenStackMachine: `status.resolved.ports`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedPort {
    pub admin_state_up: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_address_pairs: Vec<AddressPair>,
    pub description: Option<String>,
    pub enable_port_security: Option<bool>,
    #[serde(rename = "fixedIPs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub fixed_ips: Vec<ResolvedFixedIp>,
    #[serde(rename = "hostID")]
    pub host_id: Option<String>,
    pub mac_address: Option<String>,
    #[schemars(length(min = 1))]
    pub name: String,
    #[serde(rename = "networkID")]
    #[schemars(length(min = 1))]
    pub network_id: String,
    pub profile: Option<BindingProfile>,
    pub propagate_uplink_status: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub security_groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    pub trunk: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub value_specs: Vec<ValueSpec>,
    pub vnic_type: Option<String>,
}
