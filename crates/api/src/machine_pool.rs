//! `cluster.x-k8s.io` MachinePool: equal machines that the infrastructure makes as one.
//!
//! Source: kubernetes-sigs/cluster-api api/core/v1beta2/machinepool_types.go.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::{
    machine::{MachineInitialization, MachineTemplate, VersionReplicas},
    meta::Condition,
};

/// Equal machines of one object of the infrastructure.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachinePool",
    plural = "machinepools",
    namespaced,
    status = "MachinePoolStatus",
    shortname = "mp",
    category = "cluster-api",
    scale = r#"{"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}"#,
    printcolumn = r#"{"jsonPath": ".spec.clusterName", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.replicas", "name": "Desired", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.replicas", "name": "Current", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.readyReplicas", "name": "Ready", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.availableReplicas", "name": "Available", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.upToDateReplicas", "name": "Up-to-date", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.phase", "name": "Phase", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    printcolumn = r#"{"jsonPath": ".spec.template.spec.version", "name": "Version", "type": "string"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct MachinePoolSpec {
    /// The cluster that the machines belong to; fixed.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    /// Availability zones that its machines are spread over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub failure_domains: Vec<String>,
    /// The cloud's names of its servers; set by the controllers.
    #[serde(rename = "providerIDList", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub provider_id_list: Vec<String>,
    /// How many machines; 1 if it is not said.
    pub replicas: Option<i32>,
    /// What machines are made from: a change replaces them.
    pub template: MachineTemplate,
}

/// What the pool is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachinePoolPhase {
    #[default]
    Pending,
    Provisioning,
    Provisioned,
    Running,
    ScalingUp,
    ScalingDown,
    Scaling,
    Deleting,
    Failed,
    Unknown,
}

/// What the pool is now.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachinePoolStatus {
    pub available_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub initialization: Option<MachineInitialization>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_refs: Vec<ObjectReference>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    pub phase: Option<MachinePoolPhase>,
    pub ready_replicas: Option<i32>,
    pub replicas: Option<i32>,
    pub up_to_date_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["version"]))]
    pub versions: Vec<VersionReplicas>,
}
