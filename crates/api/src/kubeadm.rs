//! `bootstrap.cluster.x-k8s.io` KubeadmConfig and its template: what a machine's first boot does.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cluster_configuration::ClusterConfiguration;
use crate::meta::{Condition, TemplateMeta};
use crate::node_configuration::{InitConfiguration, JoinConfiguration};

/// KubeadmConfig: `spec.diskSetup.filesystems`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Filesystem {
    #[schemars(length(min = 1, max = 256))]
    pub device: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_opts: Vec<String>,
    #[schemars(length(min = 1, max = 128))]
    pub filesystem: String,
    #[schemars(length(min = 1, max = 512))]
    pub label: Option<String>,
    pub overwrite: Option<bool>,
    #[schemars(length(min = 1, max = 128))]
    pub partition: Option<String>,
    #[serde(rename = "replaceFS")]
    #[schemars(length(min = 1, max = 128))]
    pub replace_fs: Option<String>,
}

/// KubeadmConfig: `spec.diskSetup.partitions.diskLayout`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionSpec {
    #[schemars(length(min = 1, max = 36))]
    pub partition_type: Option<String>,
    #[schemars(range(min = 1, max = 100))]
    pub percentage: i32,
}

/// KubeadmConfig: `spec.diskSetup.partitions.tableType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PartitionTable {
    #[default]
    #[serde(rename = "mbr")]
    Mbr,
    #[serde(rename = "gpt")]
    Gpt,
}

/// KubeadmConfig: `spec.diskSetup.partitions`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    #[schemars(length(min = 1, max = 256))]
    pub device: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub disk_layout: Vec<PartitionSpec>,
    pub layout: Option<bool>,
    pub overwrite: Option<bool>,
    pub table_type: Option<PartitionTable>,
}

/// KubeadmConfig: `spec.diskSetup`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct DiskSetup {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub filesystems: Vec<Filesystem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub partitions: Vec<Partition>,
}

/// KubeadmConfig: `spec.files.contentFormat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ContentFormat {
    #[default]
    Raw,
    Template,
}

/// KubeadmConfig: `spec.files.contentFrom.secret`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// KubeadmConfig: `spec.files.contentFrom`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    pub secret: SecretKey,
}

/// KubeadmConfig: `spec.files.encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FileEncoding {
    #[default]
    #[serde(rename = "base64")]
    Base64,
    #[serde(rename = "gzip")]
    Gzip,
    #[serde(rename = "gzip+base64")]
    GzipBase64,
}

/// KubeadmConfig: `spec.files`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    pub append: Option<bool>,
    #[schemars(length(min = 1, max = 10240))]
    pub content: Option<String>,
    pub content_format: Option<ContentFormat>,
    pub content_from: Option<SecretSource>,
    pub encoding: Option<FileEncoding>,
    #[schemars(length(min = 1, max = 256))]
    pub owner: Option<String>,
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    #[schemars(length(min = 1, max = 16))]
    pub permissions: Option<String>,
}

/// KubeadmConfig: `spec.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BootstrapFormat {
    #[default]
    #[serde(rename = "cloud-config")]
    CloudConfig,
    #[serde(rename = "ignition")]
    Ignition,
}

/// KubeadmConfig: `spec.ignition.containerLinuxConfig`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ContainerLinuxConfig {
    #[schemars(length(min = 1, max = 32768))]
    pub additional_config: Option<String>,
    pub strict: Option<bool>,
}

/// KubeadmConfig: `spec.ignition`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Ignition {
    pub container_linux_config: Option<ContainerLinuxConfig>,
}

/// KubeadmConfig: `spec.ntp`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Ntp {
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub servers: Vec<String>,
}

/// KubeadmConfig: `spec.users`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[schemars(length(min = 1, max = 256))]
    pub gecos: Option<String>,
    #[schemars(length(min = 1, max = 256))]
    pub groups: Option<String>,
    #[schemars(length(min = 1, max = 256))]
    pub home_dir: Option<String>,
    pub inactive: Option<bool>,
    pub lock_password: Option<bool>,
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    #[schemars(length(min = 1, max = 256))]
    pub passwd: Option<String>,
    pub passwd_from: Option<SecretSource>,
    #[schemars(length(min = 1, max = 256))]
    pub primary_group: Option<String>,
    #[schemars(length(min = 1, max = 256))]
    pub shell: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 2048)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ssh_authorized_keys: Vec<String>,
    #[schemars(length(min = 1, max = 256))]
    pub sudo: Option<String>,
}

/// What a machine's first boot does: files, commands, and kubeadm's configuration.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "bootstrap.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "KubeadmConfig",
    plural = "kubeadmconfigs",
    namespaced,
    status = "KubeadmConfigStatus",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".metadata.labels['cluster\\.x-k8s\\.io/cluster-name']", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.initialization.dataSecretCreated", "name": "Data secret created", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq",
    attr = "cfg_attr(all(), serde(default))"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeadmConfigSpec {
    /// Shell lines early in each boot (cloud-init bootcmd).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 10240)), extend("x-kubernetes-list-type" = "atomic"))]
    pub boot_commands: Vec<String>,
    /// kubeadm's ClusterConfiguration.
    pub cluster_configuration: Option<ClusterConfiguration>,
    /// Partitions and file systems.
    pub disk_setup: Option<DiskSetup>,
    /// Files that are written before any command runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 200), extend("x-kubernetes-list-type" = "atomic"))]
    pub files: Vec<File>,
    /// Form of the user data.
    pub format: Option<BootstrapFormat>,
    /// What is appended to user data in Ignition's form.
    pub ignition: Option<Ignition>,
    /// kubeadm's InitConfiguration, for the first machine.
    pub init_configuration: Option<InitConfiguration>,
    /// kubeadm's JoinConfiguration, for all others.
    pub join_configuration: Option<JoinConfiguration>,
    /// Lines of fstab.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 100), inner(length(min = 1, max = 512))), extend("x-kubernetes-list-type" = "atomic"))]
    pub mounts: Vec<Vec<String>>,
    /// Time servers.
    pub ntp: Option<Ntp>,
    /// Shell lines after kubeadm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 10240)), extend("x-kubernetes-list-type" = "atomic"))]
    pub post_kubeadm_commands: Vec<String>,
    /// Shell lines before kubeadm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 10240)), extend("x-kubernetes-list-type" = "atomic"))]
    pub pre_kubeadm_commands: Vec<String>,
    /// Users that the machine gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub users: Vec<User>,
    /// kubeadm's -v.
    pub verbosity: Option<i32>,
}

/// KubeadmConfig: `status.initialization`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmConfigInitialization {
    pub data_secret_created: Option<bool>,
}

/// KubeadmConfig: `status`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmConfigStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[schemars(length(min = 1, max = 253))]
    pub data_secret_name: Option<String>,
    pub initialization: Option<KubeadmConfigInitialization>,
    #[schemars(range(min = 1))]
    pub observed_generation: Option<i64>,
}

/// KubeadmConfigTemplate: `spec.template`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct KubeadmConfigTemplateResource {
    pub metadata: Option<TemplateMeta>,
    /// One that says nothing is none: what is made of it has to have a field.
    #[serde(skip_serializing_if = "says_nothing")]
    pub spec: Option<KubeadmConfigSpec>,
}

fn says_nothing(spec: &Option<KubeadmConfigSpec>) -> bool {
    spec.as_ref().is_none_or(|spec| *spec == KubeadmConfigSpec::default())
}

/// KubeadmConfigTemplate: `spec`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "bootstrap.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "KubeadmConfigTemplate",
    plural = "kubeadmconfigtemplates",
    namespaced,
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".metadata.ownerReferences[?(@.kind==\"ClusterClass\")].name", "name": "ClusterClass", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.ownerReferences[?(@.kind==\"Cluster\")].name", "name": "Cluster", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmConfigTemplateSpec {
    pub template: KubeadmConfigTemplateResource,
}
