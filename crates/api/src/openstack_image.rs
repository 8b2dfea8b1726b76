//! `openstack.k-orc.cloud` Image: an image of the cloud that machines name by `image.imageRef`. The kind is that of the
//! OpenStack Resource Controller; its schema is data (`published`).
//!
//! Source: k-orc/openstack-resource-controller, api/v1alpha1.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

use crate::meta::{Condition, Time};

/// An image that exists and is imported, or one that is made and kept.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "openstack.k-orc.cloud",
    version = "v1alpha1",
    kind = "Image",
    plural = "images",
    namespaced,
    status = "ImageStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ImageSpec {
    /// An image that exists.
    pub import: Option<ImageImport>,
    /// The image that is to be.
    pub resource: Option<ImageResource>,
    pub management_policy: Option<ManagementPolicy>,
    pub managed_options: Option<ManagedOptions>,
    /// A Go duration; `0s`: never.
    pub resync_period: Option<String>,
    #[serde(default)]
    pub cloud_credentials_ref: CloudCredentialsRef,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManagementPolicy {
    #[default]
    Managed,
    Unmanaged,
}

/// What becomes of the image when its object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    #[default]
    Delete,
    Detach,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedOptions {
    pub on_delete: Option<OnDelete>,
}

/// A Secret with `clouds.yaml`, and the cloud's name in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudCredentialsRef {
    pub cloud_name: String,
    pub secret_name: String,
}

/// One of the two.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageImport {
    pub id: Option<String>,
    pub filter: Option<ImageFilter>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageFilter {
    pub name: Option<String>,
    pub visibility: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageResource {
    /// That of the object if it is not said.
    pub name: Option<String>,
    pub protected: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub visibility: Option<String>,
    pub properties: Option<ImageProperties>,
    pub content: Option<ImageContent>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageProperties {
    pub architecture: Option<String>,
    pub hypervisor_type: Option<String>,
    #[serde(rename = "minDiskGB")]
    pub min_disk_gb: Option<u64>,
    #[serde(rename = "minMemoryMB")]
    pub min_memory_mb: Option<u64>,
    /// Glance's `hw_*`, by their names in the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hardware: BTreeMap<String, Value>,
    /// Glance's `os_*`, by their names in the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operating_system: BTreeMap<String, Value>,
}

/// Names of an object's properties (`cdromBus`) as Glance has them (`cdrom_bus`).
fn snake(name: &str) -> String {
    let fixed = match name {
        "cpuSockets" => "cpu_sockets",
        "cpuCores" => "cpu_cores",
        "cpuThreads" => "cpu_threads",
        "cpuPolicy" => "cpu_policy",
        "cpuThreadPolicy" => "cpu_thread_policy",
        "cdromBus" => "cdrom_bus",
        "diskBus" => "disk_bus",
        "scsiModel" => "scsi_model",
        "vifModel" => "vif_model",
        "rngModel" => "rng_model",
        "qemuGuestAgent" => "qemu_guest_agent",
        other => other,
    };
    fixed.to_owned()
}

impl ImageProperties {
    /// As Glance takes them: texts by name.
    pub fn of_glance(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let hardware = self.hardware.iter().map(|(name, value)| (format!("hw_{}", snake(name)), text(value)));
        let system = self.operating_system.iter().map(|(name, value)| (format!("os_{name}"), text(value)));
        let own = [("architecture", &self.architecture), ("hypervisor_type", &self.hypervisor_type)];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        hardware.chain(system).chain(own).collect()
    }
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageContent {
    /// `bare` if it is not said.
    pub container_format: Option<String>,
    #[serde(default)]
    pub disk_format: String,
    pub download: Option<ImageDownload>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageDownload {
    pub url: String,
    /// `xz`, `gz` or `bz2`.
    pub decompress: Option<String>,
    pub hash: Option<ImageHash>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageHash {
    pub algorithm: String,
    pub value: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Of the image in the cloud.
    pub id: Option<String>,
    pub resource: Option<ImageResourceStatus>,
    pub last_sync_time: Option<Time>,
    pub download_attempts: Option<i32>,
}

/// The image as the cloud shows it.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageResourceStatus {
    pub name: Option<String>,
    pub status: Option<String>,
    pub protected: Option<bool>,
    pub visibility: Option<String>,
    pub hash: Option<ImageHash>,
    #[serde(rename = "sizeB")]
    pub size_b: Option<i64>,
    #[serde(rename = "virtualSizeB")]
    pub virtual_size_b: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn properties_have_glances_names() {
        let properties: ImageProperties = serde_json::from_value(json!({
            "architecture": "x86_64", "minDiskGB": 3,
            "hardware": {"cdromBus": "scsi", "cpuThreadPolicy": "prefer", "qemuGuestAgent": true}, "operatingSystem": {"distro": "ubuntu"},
        }))
        .unwrap();
        let found: Vec<String> = properties.of_glance().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "architecture=x86_64",
            "hw_cdrom_bus=scsi",
            "hw_cpu_thread_policy=prefer",
            "hw_qemu_guest_agent=true",
            "os_distro=ubuntu",
        ];
        assert_eq!(found, expected);
    }
}
