//! `cluster.x-k8s.io` Cluster: one Kubernetes cluster, its network, endpoint and what carries it.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::machine::VersionReplicas;
use crate::meta::{Condition, ContractRef, Gate};
use crate::topology::Topology;

/// Address ranges in CIDR notation.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 43)), extend("x-kubernetes-list-type" = "atomic"))]
    pub cidr_blocks: Vec<String>,
}

/// The cluster's own networks: pods, services, DNS domain.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterNetwork {
    /// Port of the API on the machines. Stored, not acted upon: OpenStackCluster has a field of its own for it.
    #[schemars(range(min = 1, max = 65535))]
    pub api_server_port: Option<i32>,
    /// Where pods get their addresses from.
    pub pods: Option<NetworkRanges>,
    /// The DNS domain, usually cluster.local.
    #[schemars(length(min = 1, max = 253))]
    pub service_domain: Option<String>,
    /// Where services get their addresses from.
    pub services: Option<NetworkRanges>,
}

/// Where the cluster's API is reached.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Endpoint {
    /// Name or address.
    #[schemars(length(min = 1, max = 512))]
    pub host: Option<String>,
    /// TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// What a cluster is to be: its network, its endpoint, and the objects that carry it.
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
    /// Further conditions that must hold for the cluster to be Available.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["conditionType"]))]
    pub availability_gates: Vec<Gate>,
    /// Ranges of pods and services, and the DNS domain.
    pub cluster_network: Option<ClusterNetwork>,
    /// Where the API is reached; set by the infrastructure if it is empty, then fixed.
    pub control_plane_endpoint: Option<Endpoint>,
    /// The object that makes the control plane, such as a KubeadmControlPlane.
    pub control_plane_ref: Option<ContractRef>,
    /// The object that makes network and endpoint, such as an OpenStackCluster.
    pub infrastructure_ref: Option<ContractRef>,
    /// Controllers leave the cluster and everything in it alone.
    pub paused: Option<bool>,
    /// A ClusterClass and its variables. Stored, not acted upon yet.
    pub topology: Option<Topology>,
}

/// A version on the way of an upgrade.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStep {
    #[schemars(length(min = 1, max = 256))]
    pub version: String,
}

/// Counters of machines.
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

/// A domain that fails on its own: an availability zone.
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

/// What has happened once and stays so.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInitialization {
    pub control_plane_initialized: Option<bool>,
    pub infrastructure_provisioned: Option<bool>,
}

/// How far the cluster is.
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

/// What the cluster is now.
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
