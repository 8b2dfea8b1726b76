//! kubeadm's ClusterConfiguration as the bootstrap API carries it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraArgs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraEnvs.valueFrom.configMapKeyRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct KeySelector {
    pub key: String,
    #[schemars(extend("default" = ""))]
    pub name: Option<String>,
    pub optional: Option<bool>,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraEnvs.valueFrom.fieldRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct FieldRef {
    pub api_version: Option<String>,
    pub field_path: String,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraEnvs.valueFrom.fileKeyRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct FileKeyRef {
    pub key: String,
    #[schemars(extend("default" = false))]
    pub optional: Option<bool>,
    pub path: String,
    pub volume_name: String,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraEnvs.valueFrom.resourceFieldRef`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ResourceFieldRef {
    pub container_name: Option<String>,
    pub divisor: Option<IntOrString>,
    pub resource: String,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraEnvs.valueFrom`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSource {
    pub config_map_key_ref: Option<KeySelector>,
    pub field_ref: Option<FieldRef>,
    pub file_key_ref: Option<FileKeyRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub secret_key_ref: Option<KeySelector>,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraEnvs`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<EnvVarSource>,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer.extraVolumes`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostPathMount {
    #[schemars(length(min = 1, max = 512))]
    pub host_path: String,
    #[schemars(length(min = 1, max = 512))]
    pub mount_path: String,
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    pub path_type: Option<String>,
    pub read_only: Option<bool>,
}

/// KubeadmConfig: `spec.clusterConfiguration.apiServer`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ApiServer {
    #[serde(rename = "certSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub cert_sans: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name", "value"]))]
    pub extra_args: Vec<Arg>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_envs: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_volumes: Vec<HostPathMount>,
}

/// KubeadmConfig: `spec.clusterConfiguration.controllerManager`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ControlPlaneComponent {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name", "value"]))]
    pub extra_args: Vec<Arg>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_envs: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_volumes: Vec<HostPathMount>,
}

/// KubeadmConfig: `spec.clusterConfiguration.dns`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Dns {
    #[schemars(length(min = 1, max = 512))]
    pub image_repository: Option<String>,
    #[schemars(length(min = 1, max = 256))]
    pub image_tag: Option<String>,
}

/// KubeadmConfig: `spec.clusterConfiguration.encryptionAlgorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EncryptionAlgorithm {
    #[default]
    #[serde(rename = "ECDSA-P256")]
    ECDSAP256,
    #[serde(rename = "ECDSA-P384")]
    ECDSAP384,
    #[serde(rename = "RSA-2048")]
    RSA2048,
    #[serde(rename = "RSA-3072")]
    RSA3072,
    #[serde(rename = "RSA-4096")]
    RSA4096,
}

/// KubeadmConfig: `spec.clusterConfiguration.etcd.external`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEtcd {
    #[schemars(length(min = 1, max = 512))]
    pub ca_file: String,
    #[schemars(length(min = 1, max = 512))]
    pub cert_file: String,
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<String>,
    #[schemars(length(min = 1, max = 512))]
    pub key_file: String,
}

/// KubeadmConfig: `spec.clusterConfiguration.etcd.local`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct LocalEtcd {
    #[schemars(length(min = 1, max = 512))]
    pub data_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name", "value"]))]
    pub extra_args: Vec<Arg>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_envs: Vec<EnvVar>,
    #[schemars(length(min = 1, max = 512))]
    pub image_repository: Option<String>,
    #[schemars(length(min = 1, max = 256))]
    pub image_tag: Option<String>,
    #[serde(rename = "peerCertSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub peer_cert_sans: Vec<String>,
    #[serde(rename = "serverCertSANs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub server_cert_sans: Vec<String>,
}

/// KubeadmConfig: `spec.clusterConfiguration.etcd`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Etcd {
    pub external: Option<ExternalEtcd>,
    pub local: Option<LocalEtcd>,
}

/// KubeadmConfig: `spec.clusterConfiguration`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClusterConfiguration {
    pub api_server: Option<ApiServer>,
    #[schemars(range(min = 1, max = 36500))]
    pub ca_certificate_validity_period_days: Option<i32>,
    #[schemars(range(min = 1, max = 1095))]
    pub certificate_validity_period_days: Option<i32>,
    #[schemars(length(min = 1, max = 512))]
    pub certificates_dir: Option<String>,
    #[schemars(length(min = 1, max = 512))]
    pub control_plane_endpoint: Option<String>,
    pub controller_manager: Option<ControlPlaneComponent>,
    pub dns: Option<Dns>,
    pub encryption_algorithm: Option<EncryptionAlgorithm>,
    pub etcd: Option<Etcd>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    #[schemars(length(min = 1, max = 512))]
    pub image_repository: Option<String>,
    pub scheduler: Option<ControlPlaneComponent>,
}
