//! `addons.cluster.x-k8s.io` ClusterResourceSet and its binding: what every cluster with some labels gets.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::{Condition, LabelSelector, Time};

/// Type of the Secrets whose values are applied to clusters.
pub const SECRET_TYPE: &str = "addons.cluster.x-k8s.io/resource-set";
pub const FINALIZER: &str = "addons.cluster.x-k8s.io";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ResourceKind {
    #[default]
    Secret,
    ConfigMap,
}

/// A Secret or ConfigMap of the set's namespace. Its values are manifests in YAML or JSON.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    pub kind: ResourceKind,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Whether a cluster follows later changes of the manifests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// What exists in the cluster is left alone.
    #[default]
    ApplyOnce,
    /// Objects are made what the manifests say whenever these change.
    Reconcile,
}

/// Manifests for clusters.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "addons.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "ClusterResourceSet",
    plural = "clusterresourcesets",
    namespaced,
    status = "ClusterResourceSetStatus",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"ResourcesApplied\")].status", "name": "Applied", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceSetSpec {
    /// Labels of the clusters; fixed. An empty selector selects none.
    pub cluster_selector: LabelSelector,
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<ResourceRef>,
    /// Fixed.
    pub strategy: Option<Strategy>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterResourceSetStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
}

/// How far one resource of a set is in a cluster.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceBinding {
    pub applied: bool,
    /// Of the manifests that were applied: `sha256:` and hexadecimal digits.
    #[schemars(length(min = 1, max = 256))]
    pub hash: Option<String>,
    pub kind: ResourceKind,
    pub last_applied_time: Option<Time>,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a cluster has of a set.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSetBinding {
    #[schemars(length(min = 1, max = 253))]
    pub cluster_resource_set_name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<ResourceBinding>,
}

/// What a cluster has of all sets; its name is the cluster's.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "addons.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "ClusterResourceSetBinding",
    plural = "clusterresourcesetbindings",
    namespaced,
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".spec.clusterName", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceSetBindingSpec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub bindings: Vec<ResourceSetBinding>,
    /// Fixed.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
}
