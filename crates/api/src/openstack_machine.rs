//! `infrastructure.cluster.x-k8s.io` OpenStackMachine: one server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::{Condition, NO_SPACE};
use crate::openstack_reference::{
    FlavorParam, IdentityRef, ImageParam, NetworkParam, PortOpts, Provisioned, ResolvedPort, ServerGroupParam,
};

/// OpenStackMachine: `spec.additionalBlockDevices.storage.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BlockDeviceType {
    #[default]
    Local,
    Volume,
}

/// OpenStackMachine: `spec.additionalBlockDevices.storage.volume.availabilityZone.from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeZoneSource {
    #[default]
    Name,
    Machine,
}

/// OpenStackMachine: `spec.additionalBlockDevices.storage.volume.availabilityZone`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeAvailabilityZone {
    #[schemars(extend("default" = "Name"))]
    pub from: Option<VolumeZoneSource>,
    #[schemars(length(min = 1), regex(pattern = NO_SPACE))]
    pub name: Option<String>,
}

/// OpenStackMachine: `spec.additionalBlockDevices.storage.volume`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockDeviceVolume {
    pub availability_zone: Option<VolumeAvailabilityZone>,
    pub type_: Option<String>,
}

/// OpenStackMachine: `spec.additionalBlockDevices.storage`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockDeviceStorage {
    pub type_: BlockDeviceType,
    pub volume: Option<BlockDeviceVolume>,
}

/// OpenStackMachine: `spec.additionalBlockDevices`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockDevice {
    #[schemars(length(min = 1))]
    pub name: String,
    #[schemars(range(min = 1))]
    pub size_gi_b: i32,
    pub storage: BlockDeviceStorage,
}

/// OpenStackMachine: `spec.floatingIPPoolRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct FloatingIpPoolRef {
    pub api_group: Option<String>,
    pub kind: String,
    pub name: String,
}

/// A volume that the server boots from.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootVolume {
    pub availability_zone: Option<VolumeAvailabilityZone>,
    #[schemars(range(min = 1))]
    pub size_gi_b: i32,
    pub type_: Option<String>,
}

/// OpenStackMachine: `spec.schedulerHintAdditionalProperties.value.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SchedulerHintType {
    #[default]
    Bool,
    String,
    Number,
}

/// OpenStackMachine: `spec.schedulerHintAdditionalProperties.value`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerHintValue {
    pub bool: Option<bool>,
    pub number: Option<i32>,
    #[schemars(length(min = 1, max = 255))]
    pub string: Option<String>,
    pub type_: SchedulerHintType,
}

/// OpenStackMachine: `spec.schedulerHintAdditionalProperties`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerHint {
    #[schemars(length(min = 1))]
    pub name: String,
    pub value: SchedulerHintValue,
}

/// OpenStackMachine: `spec.serverMetadata`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerMetadata {
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    #[schemars(length(min = 1, max = 255))]
    pub value: String,
}

/// One server: flavor, image, ports, volumes.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "OpenStackMachine",
    plural = "openstackmachines",
    namespaced,
    status = "OpenStackMachineStatus",
    shortname = "osm",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".metadata.labels.cluster\\.x-k8s\\.io/cluster-name", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.providerID", "name": "ProviderID", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.ownerReferences[?(@.kind==\"Machine\")].name", "name": "Machine", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachineSpec {
    /// Further disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub additional_block_devices: Vec<BlockDevice>,
    /// Give the server a config drive.
    pub config_drive: Option<bool>,
    /// The flavor, by id or name.
    pub flavor: FlavorParam,
    /// A pool to take a floating IP from. Not acted upon yet.
    #[serde(rename = "floatingIPPoolRef")]
    pub floating_ip_pool_ref: Option<FloatingIpPoolRef>,
    /// Credentials; the cluster's if it is not said.
    pub identity_ref: Option<IdentityRef>,
    /// The image, by id or filter.
    pub image: ImageParam,
    /// The server's ports; one in the cluster's network if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<PortOpts>,
    /// The server's name for Kubernetes; set by the provider.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    /// Boot from a volume.
    pub root_volume: Option<RootVolume>,
    /// Hints for Nova's scheduler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub scheduler_hint_additional_properties: Vec<SchedulerHint>,
    /// Further security groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub security_groups: Vec<NetworkParam>,
    /// The server group, by id or name.
    pub server_group: Option<ServerGroupParam>,
    /// Metadata of the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key"]))]
    pub server_metadata: Vec<ServerMetadata>,
    /// Key pair for SSH.
    pub ssh_key_name: Option<String>,
    /// Tags of the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    /// Make the ports trunks.
    pub trunk: Option<bool>,
}

/// OpenStackMachine: `status.addresses`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddress {
    pub address: String,
    pub type_: String,
}

/// OpenStackMachine: `status.resolved`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedMachine {
    #[serde(rename = "flavorID")]
    pub flavor_id: Option<String>,
    #[serde(rename = "imageID")]
    pub image_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<ResolvedPort>,
    #[serde(rename = "serverGroupID")]
    pub server_group_id: Option<String>,
}

/// OpenStackMachine: `status.resources.ports`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortResource {
    #[schemars(length(min = 1))]
    pub id: String,
}

/// OpenStackMachine: `status.resources`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineResources {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<PortResource>,
}

/// OpenStackMachine: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachineStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<NodeAddress>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub initialization: Option<Provisioned>,
    #[serde(rename = "instanceID")]
    pub instance_id: Option<String>,
    pub instance_state: Option<String>,
    pub resolved: Option<ResolvedMachine>,
    pub resources: Option<MachineResources>,
}

/// OpenStackMachineTemplate: `spec.template`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachineTemplateResource {
    pub spec: OpenStackMachineSpec,
}

/// OpenStackMachineTemplate: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "OpenStackMachineTemplate",
    plural = "openstackmachinetemplates",
    namespaced,
    status = "OpenStackMachineTemplateStatus",
    shortname = "osmt",
    category = "cluster-api",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachineTemplateSpec {
    pub template: OpenStackMachineTemplateResource,
}

/// OpenStackMachineTemplate: `status.nodeInfo`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateNodeInfo {
    pub operating_system: Option<String>,
}

/// OpenStackMachineTemplate: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachineTemplateStatus {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, IntOrString>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub node_info: Option<TemplateNodeInfo>,
}
