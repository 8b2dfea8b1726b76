//! `runtime.cluster.x-k8s.io` ExtensionConfig: a server that takes part in what topologies do.
//!
//! Source: kubernetes-sigs/cluster-api api/runtime/v1beta2/extensionconfig_types.go. Served as v1alpha1 too.

pub mod call;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::{Condition, LabelSelector};

/// A Service in front of an extension's server.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReference {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Goes before the paths of hooks.
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// 443.
    pub port: Option<i32>,
}

/// Where a server is, and whom it is trusted by. Either `url` or `service`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ClientConfig {
    /// Certificates in PEM, in base64; the system's if it is not said.
    #[schemars(length(min = 1, max = 51200), extend("format" = "byte"))]
    pub ca_bundle: Option<String>,
    pub service: Option<ServiceReference>,
    /// `https://host:port/path`; the path goes before those of hooks.
    #[schemars(length(min = 1, max = 512))]
    pub url: Option<String>,
}

/// A server that takes part in what topologies do.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "runtime.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "ExtensionConfig",
    plural = "extensionconfigs",
    shortname = "ext",
    status = "ExtensionConfigStatus",
    category = "cluster-api",
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Paused\")].status", "name": "Paused", "priority": 10, "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".status.conditions[?(@.type==\"Discovered\")].status", "name": "Discovered", "type": "string"}"#,
    printcolumn = r#"{"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"}"#,
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionConfigSpec {
    pub client_config: ClientConfig,
    /// Namespaces whose clusters it is asked about; all, if it is empty.
    pub namespace_selector: Option<LabelSelector>,
    /// Sent with every request; a class may say otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// What happens when a handler cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    Ignore,
    #[default]
    Fail,
}

/// Hook and the version of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupVersionHook {
    #[schemars(length(min = 1, max = 512))]
    pub api_version: String,
    #[schemars(length(min = 1, max = 256))]
    pub hook: String,
}

/// What a server answers.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionHandler {
    pub failure_policy: Option<FailurePolicy>,
    /// The server's own name for it, a dot, and the ExtensionConfig's name.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
    pub request_hook: GroupVersionHook,
    /// 10.
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<i32>,
}

/// What is known of a server.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ExtensionConfigStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub handlers: Vec<ExtensionHandler>,
}
