//! `infrastructure.cluster.x-k8s.io` OpenStackMachinePool: equal servers of a MachinePool, in a server group of their own; and
//! OpenStackMachinePoolTemplate, what a ClusterClass makes them from.
//!
//! The published provider has nothing of the kind; the fields that the core reads are those of the contract
//! (docs/decisions/machine-pools.md).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::{
    machine::{MachineSetDeletion, RolloutStrategy},
    meta::{Condition, TemplateMeta},
    openstack_machine::{OpenStackMachineTemplateResource, TemplateNodeInfo},
    openstack_reference::Provisioned,
};

/// How the servers of a group lie to one another, as Nova names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerGroupPolicy {
    #[default]
    SoftAntiAffinity,
    AntiAffinity,
    SoftAffinity,
    Affinity,
}

impl ServerGroupPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SoftAntiAffinity => "soft-anti-affinity",
            Self::AntiAffinity => "anti-affinity",
            Self::SoftAffinity => "soft-affinity",
            Self::Affinity => "affinity",
        }
    }
}

/// The group that the pool's servers are in.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolServerGroup {
    pub policy: ServerGroupPolicy,
}

/// The servers of a MachinePool, which says how many.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "OpenStackMachinePool",
    plural = "openstackmachinepools",
    namespaced,
    status = "OpenStackMachinePoolStatus",
    shortname = "osmp",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".metadata.labels.cluster\\.x-k8s\\.io/cluster-name", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.replicas", "name": "Replicas", "type": "integer"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "name": "Ready", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.ownerReferences[?(@.kind==\"MachinePool\")].name", "name": "MachinePool", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachinePoolSpec {
    /// Which machines go first.
    pub deletion: Option<MachineSetDeletion>,
    /// The cloud's names of the servers; set by the controller.
    #[serde(rename = "providerIDList", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub provider_id_list: Vec<String>,
    /// The group that is made for the servers, kept apart softly if it is not said; none if the template names a group.
    pub server_group: Option<PoolServerGroup>,
    /// How machines are replaced when the template, the version or the bootstrap data changes: one more at a time if it is
    /// not said.
    pub strategy: Option<RolloutStrategy>,
    /// What servers are made from: a change replaces them.
    pub template: OpenStackMachineTemplateResource,
}

/// What the pool is now.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachinePoolStatus {
    /// What a machine of the pool has, for an autoscaler: of the flavour and the root volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, IntOrString>,
    /// Of what `capacity` and `nodeInfo` were looked up for.
    pub capacity_template_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Of what machines made now carry in the label `machine-template-hash`.
    pub current_template_hash: Option<String>,
    /// `OpenStackMachine`: each server is one, and has a Machine.
    pub infrastructure_machine_kind: Option<String>,
    pub initialization: Option<Provisioned>,
    pub node_info: Option<TemplateNodeInfo>,
    pub observed_generation: Option<i64>,
    pub replicas: Option<i32>,
}

/// OpenStackMachinePoolTemplate: `spec.template`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachinePoolTemplateResource {
    pub metadata: Option<TemplateMeta>,
    pub spec: OpenStackMachinePoolSpec,
}

/// What pools of a ClusterClass are made from.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "OpenStackMachinePoolTemplate",
    plural = "openstackmachinepooltemplates",
    namespaced,
    shortname = "osmpt",
    category = "cluster-api",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackMachinePoolTemplateSpec {
    pub template: OpenStackMachinePoolTemplateResource,
}
