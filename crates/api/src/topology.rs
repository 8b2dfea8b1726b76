//! `Cluster.spec.topology`: a cluster described by a ClusterClass.

pub mod desired;
pub mod discovery;
pub(crate) mod external;
pub mod hooks;
pub mod patches;
pub(crate) mod rules;
pub mod template;
pub mod variables;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_with::skip_serializing_none;

use crate::machine::{DeletionOrder, MachineDeletion, MachineTaint, Rollout};
use crate::meta::{
    ConditionStatus, DNS_LABEL, DNS_SUBDOMAIN, GROUP_VERSION, Gate, KIND, QUALIFIED_NAME, TemplateMeta, Time,
    UNHEALTHY_RANGE,
};

/// Why there is no telling what a topology consists of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    #[error("patch {patch} of the ClusterClass cannot be carried out: {why}")]
    Patch { patch: String, why: String },
    #[error("variable {0}")]
    Variable(String),
    #[error("{0}")]
    Template(String),
    #[error("{0}")]
    Version(String),
    /// A runtime extension has to be asked before there is more to tell.
    #[error("{} has to be asked of {} first", .0.hook.name(), .0.handler.as_deref().unwrap_or("runtime extensions"))]
    Ask(Box<hooks::Question>),
    #[error("{0}")]
    Extension(String),
    /// Hooks hold back that anything is made.
    #[error("{}", hooks::told(.0, "Cluster topology creation"))]
    Blocked(Vec<hooks::Blocking>),
}

/// Cluster: `spec.topology.classRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassRef {
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.checks.unhealthyMachineConditions`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyMachineCondition {
    pub status: ConditionStatus,
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
    #[schemars(length(min = 1, max = 316), regex(pattern = QUALIFIED_NAME))]
    pub type_: String,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.checks.unhealthyNodeConditions`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyNodeCondition {
    #[schemars(length(min = 1))]
    pub status: String,
    #[schemars(range(min = 0))]
    pub timeout_seconds: i32,
    #[schemars(length(min = 1))]
    pub type_: String,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.checks`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct HealthChecks {
    #[schemars(range(min = 0))]
    pub node_startup_timeout_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unhealthy_machine_conditions: Vec<UnhealthyMachineCondition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub unhealthy_node_conditions: Vec<UnhealthyNodeCondition>,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.remediation.templateRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemediationTemplateRef {
    #[schemars(length(min = 1, max = 317), regex(pattern = GROUP_VERSION))]
    pub api_version: String,
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND))]
    pub kind: String,
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.remediation.triggerIf`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RemediationTrigger {
    #[schemars(length(min = 1, max = 32), regex(pattern = UNHEALTHY_RANGE))]
    pub unhealthy_in_range: Option<String>,
    pub unhealthy_less_than_or_equal_to: Option<IntOrString>,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.remediation`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneRemediation {
    pub template_ref: Option<RemediationTemplateRef>,
    pub trigger_if: Option<RemediationTrigger>,
}

/// Cluster: `spec.topology.controlPlane.healthCheck`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneHealthCheck {
    pub checks: Option<HealthChecks>,
    pub enabled: Option<bool>,
    pub remediation: Option<ControlPlaneRemediation>,
}

/// Cluster: `spec.topology.controlPlane.rollout`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct RolloutAfter {
    pub after: Option<Time>,
}

/// Cluster: `spec.topology.controlPlane.variables.overrides`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub value: Json,
}

/// Cluster: `spec.topology.controlPlane.variables`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct VariableOverrides {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub overrides: Vec<Variable>,
}

/// Cluster: `spec.topology.controlPlane`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneTopology {
    pub deletion: Option<MachineDeletion>,
    pub health_check: Option<ControlPlaneHealthCheck>,
    pub metadata: Option<TemplateMeta>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<Gate>,
    pub replicas: Option<i32>,
    pub rollout: Option<RolloutAfter>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    pub variables: Option<VariableOverrides>,
}

/// Cluster: `spec.topology.workers.machineDeployments.deletion`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct TopologyDeletion {
    #[schemars(range(min = 0))]
    pub node_deletion_timeout_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub node_drain_timeout_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub node_volume_detach_timeout_seconds: Option<i32>,
    pub order: Option<DeletionOrder>,
}

/// Cluster: `spec.topology.workers.machineDeployments.healthCheck.remediation`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct WorkerRemediation {
    pub max_in_flight: Option<IntOrString>,
    pub template_ref: Option<RemediationTemplateRef>,
    pub trigger_if: Option<RemediationTrigger>,
}

/// Cluster: `spec.topology.workers.machineDeployments.healthCheck`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct WorkerHealthCheck {
    pub checks: Option<HealthChecks>,
    pub enabled: Option<bool>,
    pub remediation: Option<WorkerRemediation>,
}

/// Cluster: `spec.topology.workers.machineDeployments`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeploymentTopology {
    #[schemars(length(min = 1, max = 256))]
    pub class: String,
    pub deletion: Option<TopologyDeletion>,
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    pub health_check: Option<WorkerHealthCheck>,
    pub metadata: Option<TemplateMeta>,
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub readiness_gates: Vec<Gate>,
    pub replicas: Option<i32>,
    pub rollout: Option<Rollout>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    pub variables: Option<VariableOverrides>,
}

/// Cluster: `spec.topology.workers.machinePools`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachinePoolTopology {
    #[schemars(length(min = 1, max = 256))]
    pub class: String,
    pub deletion: Option<MachineDeletion>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub failure_domains: Vec<String>,
    pub metadata: Option<TemplateMeta>,
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    pub replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<MachineTaint>,
    pub variables: Option<VariableOverrides>,
}

/// Cluster: `spec.topology.workers`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct WorkersTopology {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2000), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub machine_deployments: Vec<MachineDeploymentTopology>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2000), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub machine_pools: Vec<MachinePoolTopology>,
}

/// Cluster: `spec.topology`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    pub class_ref: ClassRef,
    pub control_plane: Option<ControlPlaneTopology>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub variables: Vec<Variable>,
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
    pub workers: Option<WorkersTopology>,
}
