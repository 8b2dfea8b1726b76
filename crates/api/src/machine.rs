//! `cluster.x-k8s.io` Machine, MachineSet, MachineDeployment: one node, a set of equal ones, and their rollout.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::admission::NODE_DELETION_TIMEOUT_S;
use crate::meta::{
    Condition, ContractRef, DNS_SUBDOMAIN, Gate, LABEL_VALUE, LabelSelector, TAINT_KEY, TemplateMeta, Time,
};

/// How many machines run a version.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionReplicas {
    #[schemars(range(min = 1))]
    pub replicas: Option<i32>,
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
}

/// Time limits of the steps of a machine's deletion, in seconds; 0 is no limit.
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

impl MachineDeletion {
    /// What a machine gets of what its template says, as admission completes it.
    pub fn completed(own: Option<&Self>) -> Option<Self> {
        let mut deletion = own.cloned().unwrap_or_default();
        deletion.node_deletion_timeout_seconds.get_or_insert(NODE_DELETION_TIMEOUT_S);
        Some(deletion)
    }
}

/// What a taint does to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    #[default]
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// When a taint is carried to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintPropagation {
    #[default]
    Always,
    OnInitialization,
}

/// A taint that the machine's node gets.
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

/// Which machines go first when there are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionOrder {
    #[default]
    Random,
    Newest,
    Oldest,
}

/// How many machines may be added and missing during a rollout.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RollingUpdate {
    /// Machines above the wanted number during a rollout: a number or a percentage.
    pub max_surge: Option<IntOrString>,
    /// Machines that may be missing during a rollout: a number or a percentage.
    pub max_unavailable: Option<IntOrString>,
}

/// How machines are replaced when the template changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategyType {
    #[default]
    RollingUpdate,
    OnDelete,
}

/// How machines are replaced when the template changes.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RolloutStrategy {
    pub rolling_update: Option<RollingUpdate>,
    pub type_: RolloutStrategyType,
}

/// When and how machines are replaced.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Rollout {
    /// Machines made before this time are replaced once it has come.
    pub after: Option<Time>,
    /// How machines are replaced.
    pub strategy: Option<RolloutStrategy>,
}

/// Where the machine's user data comes from: a configuration, or a secret that is there.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    pub config_ref: Option<ContractRef>,
    #[schemars(length(max = 253))]
    pub data_secret_name: Option<String>,
}

/// What a machine is to be: one node of a cluster.
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
    /// Where user data comes from.
    pub bootstrap: Bootstrap,
    /// The cluster that the machine belongs to; fixed.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    /// Time limits of its deletion.
    pub deletion: Option<MachineDeletion>,
    /// The availability zone; chosen by the infrastructure if it is empty.
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    /// The object that makes the server.
    pub infrastructure_ref: ContractRef,
    /// How long the machine is ready before it counts as available, in seconds.
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    /// The cloud's name for the server, equal to the node's.
    #[serde(rename = "providerID")]
    #[schemars(length(min = 1, max = 512))]
    pub provider_id: Option<String>,
    /// Further conditions that must hold for the machine to be Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<Gate>,
    /// Taints that its node gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    /// Kubernetes version, with its v.
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
}

/// Kind of an address, as nodes have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressType {
    #[default]
    Hostname,
    ExternalIP,
    InternalIP,
    ExternalDNS,
    InternalDNS,
}

/// An address of the machine.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineAddress {
    #[schemars(length(min = 1, max = 256))]
    pub address: String,
    pub type_: AddressType,
}

/// When the steps of the deletion began.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeletionStatus {
    pub node_drain_start_time: Option<Time>,
    pub wait_for_node_volume_detach_start_time: Option<Time>,
    pub wait_for_pre_drain_hook_start_time: Option<Time>,
    pub wait_for_pre_terminate_hook_start_time: Option<Time>,
}

/// What has happened once and stays so.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineInitialization {
    pub bootstrap_data_secret_created: Option<bool>,
    pub infrastructure_provisioned: Option<bool>,
}

/// Swap space of the node, in bytes.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSwap {
    pub capacity: Option<i64>,
}

/// What the node says of its system.
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

/// The node that the machine became.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRef {
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// How far the machine is.
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

/// What the machine is now.
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

/// Which machines go first.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineSetDeletion {
    pub order: Option<DeletionOrder>,
}

/// How machines are named.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineNaming {
    #[schemars(length(min = 1, max = 256))]
    pub template: Option<String>,
}

/// What machines are made from.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplate {
    pub metadata: Option<TemplateMeta>,
    pub spec: MachineSpec,
}

/// A number of equal machines.
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
    /// The cluster that the machines belong to; fixed.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    /// Which machines go first.
    pub deletion: Option<MachineSetDeletion>,
    /// How machines are named.
    pub machine_naming: Option<MachineNaming>,
    /// How many machines; 1 if it is not said.
    pub replicas: Option<i32>,
    /// Labels of its machines. Fixed.
    pub selector: LabelSelector,
    /// What machines are made from.
    pub template: MachineTemplate,
}

/// What the set is now.
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

/// Limits of the replacement of unhealthy machines.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineDeploymentRemediation {
    pub max_in_flight: Option<IntOrString>,
}

/// Equal machines, and how they are replaced when their template changes.
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
    /// The cluster that the machines belong to; fixed.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    /// Which machines go first.
    pub deletion: Option<MachineSetDeletion>,
    /// How machines are named.
    pub machine_naming: Option<MachineNaming>,
    /// No rollout and no scaling.
    pub paused: Option<bool>,
    /// Limits of replacements. Stored, not acted upon yet.
    pub remediation: Option<MachineDeploymentRemediation>,
    /// How many machines; 1 if it is not said.
    pub replicas: Option<i32>,
    /// When and how machines are replaced.
    pub rollout: Option<Rollout>,
    /// Labels of its machines; its own name and cluster if it is empty. Fixed.
    pub selector: LabelSelector,
    /// What machines are made from: a change replaces them.
    pub template: MachineTemplate,
}

/// What the deployment is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachineDeploymentPhase {
    #[default]
    ScalingUp,
    ScalingDown,
    Running,
    Failed,
    Unknown,
}

/// What the deployment is now.
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
