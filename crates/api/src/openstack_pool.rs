//! `infrastructure.cluster.x-k8s.io` OpenStackFloatingIPPool: where claims of addresses get floating IPs from. Its schema is
//! data (`published`).
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack api/v1alpha1/openstackfloatingippool_types.go.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::{
    meta::Condition,
    openstack_cluster::NetworkStatus,
    openstack_reference::{IdentityRef, NetworkParam},
};

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "OpenStackFloatingIPPool",
    plural = "openstackfloatingippools",
    namespaced,
    status = "OpenStackFloatingIPPoolStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackFloatingIPPoolSpec {
    /// Floating IPs that exist: taken first, and never deleted.
    #[serde(rename = "preAllocatedFloatingIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub pre_allocated_floating_ips: Vec<String>,
    /// So many may be claimed; no limit if it is not said.
    #[serde(rename = "maxIPs")]
    pub max_ips: Option<i64>,
    #[serde(default)]
    pub identity_ref: IdentityRef,
    /// The external network; the cloud's only one if it is not said.
    #[serde(rename = "floatingIPNetwork")]
    pub floating_ip_network: Option<NetworkParam>,
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

/// What becomes of a floating IP that nobody claims any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimPolicy {
    /// The next claim gets it.
    #[default]
    Retain,
    Delete,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackFloatingIPPoolStatus {
    #[serde(rename = "claimedIPs", default)]
    pub claimed_ips: Vec<String>,
    #[serde(rename = "availableIPs", default)]
    pub available_ips: Vec<String>,
    /// Named in the spec, and not in the cloud.
    #[serde(rename = "failedIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub failed_ips: Vec<String>,
    #[serde(rename = "floatingIPNetwork")]
    pub floating_ip_network: Option<NetworkStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
