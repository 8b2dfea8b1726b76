//! `controlplane.cluster.x-k8s.io` KubeadmControlPlane: the machines that serve a cluster's API.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::kubeadm::KubeadmConfigSpec;
use crate::machine::{MachineDeletion, MachineNaming, MachineTaint, VersionReplicas};
use crate::meta::{Condition, ContractRef, Gate, TemplateMeta, Time};

/// What a control plane machine is made from.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmControlPlaneMachineSpec {
    pub deletion: Option<MachineDeletion>,
    pub infrastructure_ref: ContractRef,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<Gate>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
}

/// What control plane machines are made from.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmControlPlaneMachineTemplate {
    pub metadata: Option<TemplateMeta>,
    pub spec: KubeadmControlPlaneMachineSpec,
}

/// KubeadmControlPlane: `spec.remediation`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeadmControlPlaneRemediation {
    pub max_retry: Option<i32>,
    #[schemars(range(min = 0))]
    pub min_healthy_period_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub retry_period_seconds: Option<i32>,
}

/// KubeadmControlPlane: `spec.rollout.before`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RolloutBefore {
    #[schemars(range(min = 7))]
    pub certificates_expiry_days: Option<i32>,
}

/// KubeadmControlPlane: `spec.rollout.strategy.rollingUpdate`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeadmControlPlaneRollingUpdate {
    pub max_surge: Option<IntOrString>,
}

/// KubeadmControlPlane: `spec.rollout.strategy.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KubeadmControlPlaneStrategyType {
    #[default]
    RollingUpdate,
}

/// KubeadmControlPlane: `spec.rollout.strategy`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeadmControlPlaneStrategy {
    pub rolling_update: Option<KubeadmControlPlaneRollingUpdate>,
    pub type_: KubeadmControlPlaneStrategyType,
}

/// KubeadmControlPlane: `spec.rollout`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeadmControlPlaneRollout {
    pub after: Option<Time>,
    pub before: Option<RolloutBefore>,
    pub strategy: Option<KubeadmControlPlaneStrategy>,
}

/// The machines that serve a cluster's API, set up by kubeadm.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "controlplane.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "KubeadmControlPlane",
    plural = "kubeadmcontrolplanes",
    namespaced,
    status = "KubeadmControlPlaneStatus",
    shortname = "kcp",
    category = "cluster-api",
    scale = r#"{"labelSelectorPath": ".status.selector", "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.labels['cluster\\.x-k8s\\.io/cluster-name']", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Available\")].status", "name": "Available", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.replicas", "name": "Desired", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.replicas", "name": "Current", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.readyReplicas", "name": "Ready", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.availableReplicas", "name": "Available", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.upToDateReplicas", "name": "Up-to-date", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.initialization.controlPlaneInitialized", "name": "Initialized", "type": "boolean"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    printcolumn = r#"{"jsonPath": ".spec.version", "name": "Version", "type": "string"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmControlPlaneSpec {
    /// The configuration of each machine; init or join as it comes.
    pub kubeadm_config_spec: Option<KubeadmConfigSpec>,
    /// How machines are named.
    pub machine_naming: Option<MachineNaming>,
    /// What machines are made from.
    pub machine_template: KubeadmControlPlaneMachineTemplate,
    /// How often, and how soon again, machines that are ill are replaced.
    pub remediation: Option<KubeadmControlPlaneRemediation>,
    /// How many machines: odd with etcd on them; 1 if it is not said.
    pub replicas: Option<i32>,
    /// When and how machines are replaced.
    pub rollout: Option<KubeadmControlPlaneRollout>,
    /// Kubernetes version, with its v; one minor version up at a time.
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
}

/// KubeadmControlPlane: `status.initialization`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmControlPlaneInitialization {
    pub control_plane_initialized: Option<bool>,
}

/// KubeadmControlPlane: `status.lastRemediation`.
#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRemediation {
    #[schemars(length(min = 1, max = 253))]
    pub machine: String,
    #[schemars(range(min = 0))]
    pub retry_count: i32,
    pub time: Time,
}

/// What the control plane is now.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmControlPlaneStatus {
    pub available_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub initialization: Option<KubeadmControlPlaneInitialization>,
    pub last_remediation: Option<LastRemediation>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    pub ready_replicas: Option<i32>,
    pub replicas: Option<i32>,
    #[schemars(length(min = 1, max = 4096))]
    pub selector: Option<String>,
    pub up_to_date_replicas: Option<i32>,
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["version"]))]
    pub versions: Vec<VersionReplicas>,
}
