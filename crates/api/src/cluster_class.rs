//! `cluster.x-k8s.io` ClusterClass and `controlplane.cluster.x-k8s.io` KubeadmControlPlaneTemplate: what clusters are made
//! from. Their schemas are data (`published`), and so are their specs here: `topology::desired` reads them as they are.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_with::skip_serializing_none;

use crate::meta::Condition;

/// Templates of a cluster, with variables and patches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "cluster.x-k8s.io",
    version = "v1beta2",
    kind = "ClusterClass",
    plural = "clusterclasses",
    namespaced,
    status = "ClusterClassStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
pub struct ClusterClassSpec {
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// What the controller has made of a class.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterClassStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    pub observed_generation: Option<i64>,
    /// Each variable with where its definitions are from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Value>,
}

/// What control planes of a class are made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "controlplane.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "KubeadmControlPlaneTemplate",
    plural = "kubeadmcontrolplanetemplates",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
pub struct KubeadmControlPlaneTemplateSpec {
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
