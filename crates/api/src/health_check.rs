//! `cluster.x-k8s.io` MachineHealthCheck: which machines are sick, and when they may be replaced.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::{
    meta::{Condition, LabelSelector},
    topology::{ControlPlaneRemediation, HealthChecks},
};

/// Machines of a cluster that are looked after.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineHealthCheck",
    plural = "machinehealthchecks",
    namespaced,
    status = "MachineHealthCheckStatus",
    shortname = "mhc",
    shortname = "mhcs",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".spec.clusterName", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.expectedMachines", "name": "Replicas", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.currentHealthy", "name": "Healthy", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct MachineHealthCheckSpec {
    /// What makes a machine unhealthy.
    pub checks: Option<HealthChecks>,
    /// The cluster that the machines belong to; fixed.
    #[schemars(length(min = 1, max = 63))]
    pub cluster_name: String,
    /// When unhealthy machines are replaced, and by whom.
    pub remediation: Option<ControlPlaneRemediation>,
    /// Labels of the machines.
    pub selector: LabelSelector,
}

/// What the check has found.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct MachineHealthCheckStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[schemars(range(min = 0))]
    pub current_healthy: Option<i32>,
    #[schemars(range(min = 0))]
    pub expected_machines: Option<i32>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
    /// How many more may fall ill before nothing is replaced any more.
    #[schemars(range(min = 0))]
    pub remediations_allowed: Option<i32>,
    /// Names of the machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub targets: Vec<String>,
}
