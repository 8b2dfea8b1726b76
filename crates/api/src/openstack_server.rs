//! `infrastructure.cluster.x-k8s.io` OpenStackServer: one server that is no machine of a cluster, or need not be one. Its
//! schema is data (`published`).
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack api/v1alpha1/openstackserver_types.go.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::{
    meta::Condition,
    openstack_machine::{
        BlockDevice, FloatingIpPoolRef, MachineResources, NodeAddress, OpenStackMachineSpec, ResolvedMachine,
        RootVolume, SchedulerHint, ServerMetadata,
    },
    openstack_reference::{FlavorParam, IdentityRef, ImageParam, NameFilter, NetworkParam, PortOpts, ServerGroupParam},
};

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "infrastructure.cluster.x-k8s.io",
    version = "v1alpha1",
    kind = "OpenStackServer",
    plural = "openstackservers",
    namespaced,
    status = "OpenStackServerStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackServerSpec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_block_devices: Vec<BlockDevice>,
    pub availability_zone: Option<String>,
    pub config_drive: Option<bool>,
    /// By name.
    pub flavor: Option<String>,
    /// Goes before the name.
    #[serde(rename = "flavorID")]
    pub flavor_id: Option<String>,
    #[serde(rename = "floatingIPPoolRef")]
    pub floating_ip_pool_ref: Option<FloatingIpPoolRef>,
    #[serde(default)]
    pub identity_ref: IdentityRef,
    #[serde(default)]
    pub image: ImageParam,
    #[serde(default)]
    pub ports: Vec<PortOpts>,
    pub root_volume: Option<RootVolume>,
    #[serde(default)]
    pub ssh_key_name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<NetworkParam>,
    pub server_group: Option<ServerGroupParam>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_metadata: Vec<ServerMetadata>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub trunk: Option<bool>,
    /// A Secret whose `value` is the user data.
    pub user_data_ref: Option<UserDataRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_hint_additional_properties: Vec<SchedulerHint>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserDataRef {
    #[serde(default)]
    pub name: String,
}

impl OpenStackServerSpec {
    /// The same as a machine's, which servers are made of.
    pub fn as_machine(&self) -> OpenStackMachineSpec {
        let by_name = self.flavor.clone().filter(|_| self.flavor_id.is_none());
        OpenStackMachineSpec {
            additional_block_devices: self.additional_block_devices.clone(),
            config_drive: self.config_drive,
            flavor: FlavorParam {
                filter: by_name.map(|name| NameFilter { name: Some(name) }),
                id: self.flavor_id.clone(),
            },
            floating_ip_pool_ref: self.floating_ip_pool_ref.clone(),
            identity_ref: Some(self.identity_ref.clone()),
            image: self.image.clone(),
            ports: self.ports.clone(),
            provider_id: None,
            root_volume: self.root_volume.clone(),
            scheduler_hint_additional_properties: self.scheduler_hint_additional_properties.clone(),
            security_groups: self.security_groups.clone(),
            server_group: self.server_group.clone(),
            server_metadata: self.server_metadata.clone(),
            ssh_key_name: Some(self.ssh_key_name.clone()),
            tags: self.tags.clone(),
            trunk: self.trunk,
        }
    }
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenStackServerStatus {
    #[serde(default)]
    pub ready: bool,
    #[serde(rename = "instanceID")]
    pub instance_id: Option<String>,
    pub instance_state: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    pub resolved: Option<ResolvedMachine>,
    pub resources: Option<MachineResources>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
