//! `cluster.x-k8s.io` Machine, MachineSet, MachineDeployment: one node, a set of equal ones, and their rollout.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::{
    Condition, ContractRef, DNS_SUBDOMAIN, Gate, LABEL_VALUE, LabelSelector, TAINT_KEY, TemplateMeta, Time,
};

/// Cluster: `status.controlPlane.versions`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionReplicas {
    #[schemars(range(min = 1))]
    pub replicas: Option<i32>,
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
}

/// Cluster: `spec.topology.controlPlane.deletion`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeletion {
    #[schemars(range(min = 0))]
    pub node_deletion_timeout_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub node_drain_timeout_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub node_volume_detach_timeout_seconds: Option<i32>,
}

/// Cluster: `spec.topology.controlPlane.taints.effect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    #[default]
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// Cluster: `spec.topology.controlPlane.taints.propagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintPropagation {
    #[default]
    Always,
    OnInitialization,
}

/// Cluster: `spec.topology.controlPlane.taints`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTaint {
    pub effect: TaintEffect,
    #[schemars(length(min = 1, max = 317), regex(pattern = TAINT_KEY))]
    pub key: String,
    pub propagation: TaintPropagation,
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_VALUE))]
    pub value: Option<String>,
}

/// Cluster: `spec.topology.workers.machineDeployments.deletion.order`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionOrder {
    #[default]
    Random,
    Newest,
    Oldest,
}

/// Cluster: `spec.topology.workers.machineDeployments.rollout.strategy.rollingUpdate`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RollingUpdate {
    pub max_surge: Option<IntOrString>,
    pub max_unavailable: Option<IntOrString>,
}

/// Cluster: `spec.topology.workers.machineDeployments.rollout.strategy.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategyType {
    #[default]
    RollingUpdate,
    OnDelete,
}

/// Cluster: `spec.topology.workers.machineDeployments.rollout.strategy`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RolloutStrategy {
    pub rolling_update: Option<RollingUpdate>,
    pub type_: RolloutStrategyType,
}

/// Cluster: `spec.topology.workers.machineDeployments.rollout`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Rollout {
    pub after: Option<Time>,
    pub strategy: Option<RolloutStrategy>,
}

/// Machine: `spec.bootstrap`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    pub config_ref: Option<ContractRef>,
    #[schemars(length(max = 253))]
    pub data_secret_name: Option<String>,
}

/// Machine: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "Machine",
    plural = "machines",
    namespaced,
    status = "MachineStatus",
    shortname = "ma",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".spec.clusterName", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.nodeRef.name", "name": "Node Name", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.providerID", "name": "Provider ID", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.failureDomain", "name": "Failure domain", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "name": "Ready", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Available\")].status", "name": "Available", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"UpToDate\")].status", "name": "Up-to-date", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.addresses[?(@.type==\"InternalIP\")].address", "name": "Internal-IP", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.addresses[?(@.type==\"ExternalIP\")].address", "name": "External-IP", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.nodeInfo.osImage", "name": "OS-Image", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.phase", "name": "Phase", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    printcolumn = r#"{"jsonPath": ".spec.version", "name": "Version", "type": "string"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    pub bootstrap: Bootstrap,
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    pub deletion: Option<MachineDeletion>,
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    pub infrastructure_ref: ContractRef,
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    #[serde(rename = "providerID")]
    #[schemars(length(min = 1, max = 512))]
    pub provider_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<Gate>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
}

/// Machine: `status.addresses.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    #[default]
    Hostname,
    ExternalIP,
    InternalIP,
    ExternalDNS,
    InternalDNS,
}

/// Machine: `status.addresses`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineAddress {
    #[schemars(length(min = 1, max = 256))]
    pub address: String,
    pub type_: AddressType,
}

/// Machine: `status.deletion`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeletionStatus {
    pub node_drain_start_time: Option<Time>,
    pub wait_for_node_volume_detach_start_time: Option<Time>,
    pub wait_for_pre_drain_hook_start_time: Option<Time>,
    pub wait_for_pre_terminate_hook_start_time: Option<Time>,
}

/// Machine: `status.initialization`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineInitialization {
    pub bootstrap_data_secret_created: Option<bool>,
    pub infrastructure_provisioned: Option<bool>,
}

/// Machine: `status.nodeInfo.swap`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSwap {
    pub capacity: Option<i64>,
}

/// Machine: `status.nodeInfo`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    pub architecture: String,
    #[serde(rename = "bootID")]
    pub boot_id: String,
    pub container_runtime_version: String,
    pub kernel_version: String,
    pub kube_proxy_version: String,
    pub kubelet_version: String,
    #[serde(rename = "machineID")]
    pub machine_id: String,
    pub operating_system: String,
    pub os_image: String,
    pub swap: Option<NodeSwap>,
    #[serde(rename = "systemUUID")]
    pub system_uuid: String,
}

/// Machine: `status.nodeRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRef {
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// Machine: `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachinePhase {
    #[default]
    Pending,
    Provisioning,
    Provisioned,
    Running,
    Updating,
    Deleting,
    Deleted,
    Failed,
    Unknown,
}

/// Machine: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<MachineAddress>,
    pub certificates_expiry_date: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub deletion: Option<MachineDeletionStatus>,
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    pub initialization: Option<MachineInitialization>,
    pub last_updated: Option<Time>,
    pub node_info: Option<NodeInfo>,
    pub node_ref: Option<NodeRef>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    pub phase: Option<MachinePhase>,
}

/// MachineSet: `spec.deletion`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineSetDeletion {
    pub order: Option<DeletionOrder>,
}

/// MachineSet: `spec.machineNaming`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineNaming {
    #[schemars(length(min = 1, max = 256))]
    pub template: Option<String>,
}

/// MachineSet: `spec.template`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplate {
    pub metadata: Option<TemplateMeta>,
    pub spec: MachineSpec,
}

/// MachineSet: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineSet",
    plural = "machinesets",
    namespaced,
    status = "MachineSetStatus",
    shortname = "ms",
    category = "cluster-api",
    scale = r#"{"labelSelectorPath": ".status.selector", "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}"#,
    printcolumn = r#"{"jsonPath": ".spec.clusterName", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.replicas", "name": "Desired", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.replicas", "name": "Current", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.readyReplicas", "name": "Ready", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.availableReplicas", "name": "Available", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.upToDateReplicas", "name": "Up-to-date", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    printcolumn = r#"{"jsonPath": ".spec.template.spec.version", "name": "Version", "type": "string"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct MachineSetSpec {
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    pub deletion: Option<MachineSetDeletion>,
    pub machine_naming: Option<MachineNaming>,
    pub replicas: Option<i32>,
    pub selector: LabelSelector,
    pub template: MachineTemplate,
}

/// MachineSet: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineSetStatus {
    pub available_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    pub ready_replicas: Option<i32>,
    pub replicas: Option<i32>,
    #[schemars(length(min = 1, max = 4096))]
    pub selector: Option<String>,
    pub up_to_date_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["version"]))]
    pub versions: Vec<VersionReplicas>,
}

/// MachineDeployment: `spec.remediation`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentRemediation {
    pub max_in_flight: Option<IntOrString>,
}

/// MachineDeployment: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineDeployment",
    plural = "machinedeployments",
    namespaced,
    status = "MachineDeploymentStatus",
    shortname = "md",
    category = "cluster-api",
    scale = r#"{"labelSelectorPath": ".status.selector", "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}"#,
    printcolumn = r#"{"jsonPath": ".spec.clusterName", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Available\")].status", "name": "Available", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.replicas", "name": "Desired", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.replicas", "name": "Current", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.readyReplicas", "name": "Ready", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.availableReplicas", "name": "Available", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.upToDateReplicas", "name": "Up-to-date", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.phase", "name": "Phase", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    printcolumn = r#"{"jsonPath": ".spec.template.spec.version", "name": "Version", "type": "string"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeploymentSpec {
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    pub deletion: Option<MachineSetDeletion>,
    pub machine_naming: Option<MachineNaming>,
    pub paused: Option<bool>,
    pub remediation: Option<MachineDeploymentRemediation>,
    pub replicas: Option<i32>,
    pub rollout: Option<Rollout>,
    pub selector: LabelSelector,
    pub template: MachineTemplate,
}

/// MachineDeployment: `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachineDeploymentPhase {
    #[default]
    ScalingUp,
    ScalingDown,
    Running,
    Failed,
    Unknown,
}

/// MachineDeployment: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeploymentStatus {
    pub available_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    pub phase: Option<MachineDeploymentPhase>,
    pub ready_replicas: Option<i32>,
    pub replicas: Option<i32>,
    #[schemars(length(min = 1, max = 4096))]
    pub selector: Option<String>,
    pub up_to_date_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["version"]))]
    pub versions: Vec<VersionReplicas>,
}
