//! `ipam.cluster.x-k8s.io` IPAddressClaim and IPAddress: who asks a pool for an address, and which one it got. Their schemas
//! are data (`published`).
//!
//! Source: kubernetes-sigs/cluster-api api/ipam/v1beta2, docs/book/src/developer/providers/contracts/ipam.md.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::{Condition, ContractRef};

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "ipam.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "IPAddressClaim",
    plural = "ipaddressclaims",
    namespaced,
    status = "IPAddressClaimStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressClaimSpec {
    pub cluster_name: Option<String>,
    #[serde(default)]
    pub pool_ref: ContractRef,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NameRef {
    pub name: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressClaimStatus {
    pub address_ref: Option<NameRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "ipam.cluster.x-k8s.io",
    version = "v1beta2",
    kind = "IPAddress",
    plural = "ipaddresses",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressSpec {
    pub address: String,
    #[serde(default)]
    pub claim_ref: NameRef,
    pub gateway: Option<String>,
    #[serde(default)]
    pub pool_ref: ContractRef,
    /// Length of the network's prefix.
    #[serde(default)]
    pub prefix: i32,
}
