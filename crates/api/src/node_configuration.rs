//! kubeadm's InitConfiguration and JoinConfiguration as the bootstrap API carries them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cluster_configuration::Arg;
use crate::meta::Time;

/// KubeadmConfig: `spec.initConfiguration.bootstrapTokens`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapToken {
    #[schemars(length(min = 1, max = 512))]
    pub description: Option<String>,
    pub expires: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<String>,
    #[schemars(length(min = 1, max = 23))]
    pub token: String,
    #[schemars(range(min = 0))]
    pub ttl_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub usages: Vec<String>,
}

/// KubeadmConfig: `spec.initConfiguration.localAPIEndpoint`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct LocalApiEndpoint {
    #[schemars(length(min = 1, max = 39))]
    pub advertise_address: Option<String>,
    #[schemars(range(min = 1))]
    pub bind_port: Option<i32>,
}

/// KubeadmConfig: `spec.initConfiguration.nodeRegistration.imagePullPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    #[default]
    Always,
    IfNotPresent,
    Never,
}

/// KubeadmConfig: `spec.initConfiguration.nodeRegistration.taints`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTaint {
    pub effect: String,
    pub key: String,
    pub time_added: Option<Time>,
    pub value: Option<String>,
}

/// KubeadmConfig: `spec.initConfiguration.nodeRegistration`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct NodeRegistration {
    #[schemars(length(min = 1, max = 512))]
    pub cri_socket: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ignore_preflight_errors: Vec<String>,
    pub image_pull_policy: Option<ImagePullPolicy>,
    pub image_pull_serial: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name", "value"]))]
    pub kubelet_extra_args: Vec<Arg>,
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// An empty list takes from a control plane the taint that it has without one.
    #[schemars(length(min = 0, max = 100))]
    pub taints: Option<Vec<NodeTaint>>,
}

/// KubeadmConfig: `spec.initConfiguration.patches`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Patches {
    #[schemars(length(min = 1, max = 512))]
    pub directory: Option<String>,
}

/// KubeadmConfig: `spec.initConfiguration.timeouts`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Timeouts {
    #[schemars(range(min = 0))]
    pub control_plane_component_health_check_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub discovery_seconds: Option<i32>,
    #[serde(rename = "etcdAPICallSeconds")]
    #[schemars(range(min = 0))]
    pub etcd_api_call_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub kubelet_health_check_seconds: Option<i32>,
    #[serde(rename = "kubernetesAPICallSeconds")]
    #[schemars(range(min = 0))]
    pub kubernetes_api_call_seconds: Option<i32>,
    #[schemars(range(min = 0))]
    pub tls_bootstrap_seconds: Option<i32>,
}

/// KubeadmConfig: `spec.initConfiguration`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct InitConfiguration {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub bootstrap_tokens: Vec<BootstrapToken>,
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: Option<LocalApiEndpoint>,
    pub node_registration: Option<NodeRegistration>,
    pub patches: Option<Patches>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub skip_phases: Vec<String>,
    pub timeouts: Option<Timeouts>,
}

/// KubeadmConfig: `spec.joinConfiguration.controlPlane`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinControlPlane {
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: Option<LocalApiEndpoint>,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.bootstrapToken`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct BootstrapTokenDiscovery {
    #[schemars(length(min = 1, max = 512))]
    pub api_server_endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ca_cert_hashes: Vec<String>,
    #[schemars(length(min = 1, max = 512))]
    pub token: Option<String>,
    #[serde(rename = "unsafeSkipCAVerification")]
    pub unsafe_skip_ca_verification: Option<bool>,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file.kubeConfig.cluster`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeConfigCluster {
    #[schemars(length(min = 1, max = 51200), extend("format" = "byte"))]
    pub certificate_authority_data: Option<String>,
    #[serde(rename = "insecureSkipTLSVerify")]
    pub insecure_skip_tls_verify: Option<bool>,
    #[serde(rename = "proxyURL")]
    #[schemars(length(min = 1, max = 512))]
    pub proxy_url: Option<String>,
    #[schemars(length(min = 1, max = 512))]
    pub server: Option<String>,
    #[schemars(length(min = 1, max = 512))]
    pub tls_server_name: Option<String>,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file.kubeConfig.user.authProvider`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfigAuthProvider {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file.kubeConfig.user.exec.env`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfigExecEnv {
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    #[schemars(length(min = 1, max = 512))]
    pub value: String,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file.kubeConfig.user.exec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfigExec {
    #[schemars(length(min = 1, max = 512))]
    pub api_version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    #[schemars(length(min = 1, max = 1024))]
    pub command: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub env: Vec<KubeConfigExecEnv>,
    pub provide_cluster_info: Option<bool>,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file.kubeConfig.user`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeConfigUser {
    pub auth_provider: Option<KubeConfigAuthProvider>,
    pub exec: Option<KubeConfigExec>,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file.kubeConfig`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileDiscoveryKubeConfig {
    pub cluster: Option<KubeConfigCluster>,
    pub user: KubeConfigUser,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery.file`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileDiscovery {
    pub kube_config: Option<FileDiscoveryKubeConfig>,
    #[schemars(length(min = 1, max = 512))]
    pub kube_config_path: String,
}

/// KubeadmConfig: `spec.joinConfiguration.discovery`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Discovery {
    pub bootstrap_token: Option<BootstrapTokenDiscovery>,
    pub file: Option<FileDiscovery>,
    #[schemars(length(min = 1, max = 512))]
    pub tls_bootstrap_token: Option<String>,
}

/// KubeadmConfig: `spec.joinConfiguration`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct JoinConfiguration {
    #[schemars(length(min = 1, max = 512))]
    pub ca_cert_path: Option<String>,
    pub control_plane: Option<JoinControlPlane>,
    pub discovery: Option<Discovery>,
    pub node_registration: Option<NodeRegistration>,
    pub patches: Option<Patches>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub skip_phases: Vec<String>,
    pub timeouts: Option<Timeouts>,
}
