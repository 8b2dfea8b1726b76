//! `cluster.x-k8s.io` Cluster: one Kubernetes cluster, its network, endpoint and what carries it.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::machine::VersionReplicas;
use crate::meta::{Condition, ContractRef, Gate};
use crate::topology::Topology;

/// Cluster: `spec.clusterNetwork.pods`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 43)), extend("x-kubernetes-list-type" = "atomic"))]
    pub cidr_blocks: Vec<String>,
}

/// Cluster: `spec.clusterNetwork`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterNetwork {
    #[schemars(range(min = 1, max = 65535))]
    pub api_server_port: Option<i32>,
    pub pods: Option<NetworkRanges>,
    #[schemars(length(min = 1, max = 253))]
    pub service_domain: Option<String>,
    pub services: Option<NetworkRanges>,
}

/// Cluster: `spec.controlPlaneEndpoint`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Endpoint {
    #[schemars(length(min = 1, max = 512))]
    pub host: Option<String>,
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// Cluster: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "Cluster",
    plural = "clusters",
    namespaced,
    status = "ClusterStatus",
    shortname = "cl",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".spec.topology.classRef.name", "name": "ClusterClass", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Available\")].status", "name": "Available", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.controlPlane.desiredReplicas", "name": "CP Desired", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.controlPlane.replicas", "name": "CP Current", "priority": 10, "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.controlPlane.readyReplicas", "name": "CP Ready", "priority": 10, "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.controlPlane.availableReplicas", "name": "CP Available", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.controlPlane.upToDateReplicas", "name": "CP Up-to-date", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.workers.desiredReplicas", "name": "W Desired", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.workers.replicas", "name": "W Current", "priority": 10, "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.workers.readyReplicas", "name": "W Ready", "priority": 10, "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.workers.availableReplicas", "name": "W Available", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.workers.upToDateReplicas", "name": "W Up-to-date", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.phase", "name": "Phase", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    printcolumn = r#"{"jsonPath": ".spec.topology.version", "name": "Version", "type": "string"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterSpec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub availability_gates: Vec<Gate>,
    pub cluster_network: Option<ClusterNetwork>,
    pub control_plane_endpoint: Option<Endpoint>,
    pub control_plane_ref: Option<ContractRef>,
    pub infrastructure_ref: Option<ContractRef>,
    pub paused: Option<bool>,
    pub topology: Option<Topology>,
}

/// Cluster: `status.controlPlane.upgradePlan`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStep {
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
}

/// Cluster: `status.controlPlane`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    pub available_replicas: Option<i32>,
    pub desired_replicas: Option<i32>,
    pub ready_replicas: Option<i32>,
    pub replicas: Option<i32>,
    pub up_to_date_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub upgrade_plan: Vec<UpgradeStep>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub versions: Vec<VersionReplicas>,
}

/// Cluster: `status.failureDomains`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureDomain {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    pub control_plane: Option<bool>,
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
}

/// Cluster: `status.initialization`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInitialization {
    pub control_plane_initialized: Option<bool>,
    pub infrastructure_provisioned: Option<bool>,
}

/// Cluster: `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterPhase {
    #[default]
    Pending,
    Provisioning,
    Provisioned,
    Deleting,
    Failed,
    Unknown,
}

/// Cluster: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    pub control_plane: Option<ReplicaStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub failure_domains: Vec<FailureDomain>,
    pub initialization: Option<ClusterInitialization>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    pub phase: Option<ClusterPhase>,
    pub workers: Option<ReplicaStatus>,
}
