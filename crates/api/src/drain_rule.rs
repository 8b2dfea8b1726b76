//! `cluster.x-k8s.io` MachineDrainRule: which pods a drain evicts, leaves or waits for, and in which order.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::LabelSelector;

/// What a drain does with a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainBehavior {
    /// It is evicted.
    #[default]
    Drain,
    /// It is left alone.
    Skip,
    /// It is waited for until it has completed.
    WaitCompleted,
}

/// MachineDrainRule: `spec.drain`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    pub behavior: DrainBehavior,
    /// Pods of a lower order go first; 0 if it is not said. With `Drain` only.
    pub order: Option<i32>,
}

/// MachineDrainRule: `spec.machines`. What is absent selects everything.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct DrainedMachines {
    /// Labels of the machines' cluster.
    pub cluster_selector: Option<LabelSelector>,
    /// Labels of the machines.
    pub selector: Option<LabelSelector>,
}

/// MachineDrainRule: `spec.pods`. What is absent selects everything.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct DrainedPods {
    /// Labels of the pods' namespace in the workload cluster.
    pub namespace_selector: Option<LabelSelector>,
    /// Labels of the pods.
    pub selector: Option<LabelSelector>,
}

/// How pods leave the nodes of machines that are deleted. The first rule that fits a pod counts, in the order of names.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "MachineDrainRule",
    plural = "machinedrainrules",
    namespaced,
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".spec.drain.behavior", "name": "Behavior", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".spec.drain.order", "name": "Order", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct MachineDrainRuleSpec {
    /// What happens to the pods.
    pub drain: Drain,
    /// The machines that the rule is for; all of the namespace if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub machines: Vec<DrainedMachines>,
    /// The pods that the rule is for; all if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub pods: Vec<DrainedPods>,
}
