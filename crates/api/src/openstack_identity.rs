//! `infrastructure.cluster.x-k8s.io` OpenStackClusterIdentity: credentials that lie in one namespace and serve others. Its
//! schema is data (`published`).
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack api/v1alpha1/openstackclusteridentity_types.go.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::LabelSelector;

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "OpenStackClusterIdentity",
    plural = "openstackclusteridentities",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackClusterIdentitySpec {
    #[serde(default)]
    pub secret_ref: CredentialSecret,
    /// The namespaces that may use it; all if it is not said.
    pub namespace_selector: Option<LabelSelector>,
}

/// A Secret with `clouds.yaml` and perhaps `cacert`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CredentialSecret {
    pub name: String,
    pub namespace: String,
}
