//! Nova v2.1.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value, json};

use crate::{Client, Microversion, Query, Result, Service, query::encode, resource::Writes};

/// From here on a server group has one policy.
const ONE_POLICY: Microversion = Microversion(2, 64);

wire! {
    pub struct Server {
        pub id: String,
        pub name: String,
        /// `BUILD`, `ACTIVE`, `ERROR`, `DELETED`, `SHUTOFF`, ...
        pub status: String,
        pub tenant_id: String,
        pub user_id: String,
        pub addresses: BTreeMap<String, Vec<Address>>,
        pub metadata: BTreeMap<String, String>,
        pub tags: Vec<String>,
        /// Why the server is in `ERROR`.
        pub fault: Option<Fault>,
        pub key_name: String,
        pub created: String,
        pub updated: String,
        #[serde(rename = "OS-EXT-AZ:availability_zone")]
        pub availability_zone: String,
        #[serde(rename = "OS-EXT-STS:task_state")]
        pub task_state: Option<String>,
        #[serde(rename = "OS-EXT-STS:vm_state")]
        pub vm_state: String,
        /// Base64; administrators only.
        #[serde(rename = "OS-EXT-SRV-ATTR:user_data")]
        pub user_data: Option<String>,
        #[serde(rename = "OS-EXT-SRV-ATTR:hostname")]
        pub hostname: Option<String>,
        #[serde(rename = "os-extended-volumes:volumes_attached")]
        pub volumes_attached: Vec<AttachedVolume>,
        pub flavor: Value,
        /// An object with an id, or `""` for a server that boots from a volume.
        pub image: Value,
        pub security_groups: Vec<Value>,
    }

    pub struct Address {
        pub addr: String,
        pub version: u8,
        /// `fixed` or `floating`.
        #[serde(rename = "OS-EXT-IPS:type")]
        pub kind: String,
        #[serde(rename = "OS-EXT-IPS-MAC:mac_addr")]
        pub mac_address: String,
    }

    pub struct Fault {
        pub code: u16,
        pub message: String,
        pub details: String,
        pub created: String,
    }

    pub struct AttachedVolume {
        pub id: String,
        pub delete_on_termination: bool,
    }

    pub struct Flavor {
        pub id: String,
        pub name: String,
        pub vcpus: u32,
        /// MiB.
        pub ram: u64,
        /// GiB.
        pub disk: u64,
        /// GiB.
        #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
        pub ephemeral: u64,
        pub extra_specs: BTreeMap<String, String>,
    }

    pub struct Keypair {
        pub name: String,
        pub fingerprint: String,
        pub public_key: String,
    }

    pub struct AvailabilityZone {
        #[serde(rename = "zoneName")]
        pub name: String,
        #[serde(rename = "zoneState")]
        pub state: ZoneState,
    }

    pub struct ZoneState {
        pub available: bool,
    }

    pub struct ServerGroup {
        pub id: String,
        pub name: String,
        /// Since 2.64.
        pub policy: String,
        /// Before 2.64.
        pub policies: Vec<String>,
        pub members: Vec<String>,
    }

    pub struct Interface {
        pub port_id: String,
        pub net_id: String,
        pub mac_addr: String,
        pub port_state: String,
    }

    /// The project's limits and use; -1 is no limit.
    #[serde(rename_all = "camelCase")]
    pub struct Limits {
        pub max_total_instances: i64,
        pub total_instances_used: i64,
        pub max_total_cores: i64,
        pub total_cores_used: i64,
        /// MiB.
        #[serde(rename = "maxTotalRAMSize")]
        pub max_total_ram: i64,
        #[serde(rename = "totalRAMUsed")]
        pub total_ram_used: i64,
        pub max_server_groups: i64,
        pub total_server_groups_used: i64,
        pub max_total_keypairs: i64,
    }
}

resource!(Server, Compute, "servers", "server", "servers", list: "servers/detail");
resource!(Flavor, Compute, "flavors", "flavor", "flavors", list: "flavors/detail");
resource!(Keypair, Compute, "os-keypairs", "keypair", "keypairs", item: "keypair");
resource!(AvailabilityZone, Compute, "os-availability-zone", "availabilityZone", "availabilityZoneInfo");
resource!(ServerGroup, Compute, "os-server-groups", "server_group", "server_groups");
resource!(Interface, Compute, "servers/{}/os-interface", "interfaceAttachment", "interfaceAttachments");
named!(Server, Flavor, ServerGroup);

draft! {
    pub struct ServerDraft {
        pub name: String,
        #[serde(rename = "flavorRef")]
        pub flavor_ref: String,
        /// Left out when the server boots from a volume.
        #[serde(rename = "imageRef")]
        pub image_ref: Option<String>,
        pub key_name: Option<String>,
        /// Base64, 64 KiB at most.
        pub user_data: Option<String>,
        pub availability_zone: Option<String>,
        pub networks: Vec<ServerNetwork>,
        pub metadata: BTreeMap<String, String>,
        /// Needs 2.52.
        pub tags: Vec<String>,
        pub config_drive: Option<bool>,
        pub block_device_mapping_v2: Vec<BlockDevice>,
        /// `os:scheduler_hints`, beside the server in the body: `group`, and whatever a cloud's filters read.
        #[serde(skip)]
        pub scheduler_hints: Map<String, Value>,
    }

    pub struct ServerNetwork {
        pub port: Option<String>,
        pub uuid: Option<String>,
    }

    pub struct BlockDevice {
        /// `image`, `volume`, `snapshot`, `blank`.
        pub source_type: String,
        /// `local` or `volume`.
        pub destination_type: String,
        pub uuid: Option<String>,
        pub boot_index: Option<i32>,
        /// GiB.
        pub volume_size: Option<u64>,
        /// Needs 2.67.
        pub volume_type: Option<String>,
        pub delete_on_termination: Option<bool>,
        /// Shown to the guest in its metadata; needs 2.42.
        pub tag: Option<String>,
        pub guest_format: Option<String>,
    }

    pub struct KeypairDraft {
        pub name: String,
        pub public_key: Option<String>,
    }

    pub struct ServerGroupDraft {
        pub name: String,
        /// `affinity`, `anti-affinity`, `soft-affinity`, `soft-anti-affinity`.
        pub policy: String,
        /// The same, as it was said before 2.64.
        pub policies: Vec<String>,
    }
}

impl Writes<Server> for ServerDraft {
    fn needs(&self) -> Microversion {
        let bdm = |f: fn(&BlockDevice) -> bool| self.block_device_mapping_v2.iter().any(f);
        if bdm(|b| b.volume_type.is_some()) {
            Microversion(2, 67)
        } else if !self.tags.is_empty() {
            Microversion(2, 52)
        } else if bdm(|b| b.tag.is_some()) {
            Microversion(2, 42)
        } else {
            Microversion(2, 1)
        }
    }

    fn beside(&self) -> Map<String, Value> {
        if self.scheduler_hints.is_empty() {
            return Map::new();
        }
        Map::from_iter([("os:scheduler_hints".to_owned(), Value::Object(self.scheduler_hints.clone()))])
    }
}

impl Writes<Keypair> for KeypairDraft {}

impl Writes<ServerGroup> for ServerGroupDraft {
    fn needs(&self) -> Microversion {
        if !self.policy.is_empty() {
            ONE_POLICY
        } else if self.policies.iter().any(|policy| policy.starts_with("soft-")) {
            Microversion(2, 15)
        } else {
            Microversion(2, 1)
        }
    }
}

impl ServerGroupDraft {
    /// As a Nova that knows `version` wants to be told.
    pub fn new(name: String, policy: String, version: Microversion) -> Self {
        match version < ONE_POLICY {
            true => Self { name, policies: vec![policy], ..Self::default() },
            false => Self { name, policy, ..Self::default() },
        }
    }
}

impl Server {
    /// The id of the image, unless the server boots from a volume.
    pub fn image_id(&self) -> Option<&str> {
        self.image.get("id")?.as_str()
    }

    /// The flavor's name (since 2.47) or id (before).
    pub fn flavor_name(&self) -> Option<&str> {
        self.flavor.get("original_name").or_else(|| self.flavor.get("id"))?.as_str()
    }
}

impl Client {
    /// The project's absolute limits and their use.
    pub async fn compute_limits(&self) -> Result<Limits> {
        let body = self.raw(Service::Compute, Method::GET, "limits", &Query::new(), None).await?;
        let absolute = body.get("limits").and_then(|l| l.get("absolute")).cloned().unwrap_or_default();
        Ok(serde_json::from_value(absolute).unwrap_or_default())
    }

    /// The last lines that the server wrote to its console.
    pub async fn console_log(&self, server: &str, lines: u32) -> Result<String> {
        let path = format!("servers/{}/action", encode(server));
        let body = json!({ "os-getConsoleOutput": { "length": lines } });
        let answer = self.raw(Service::Compute, Method::POST, &path, &Query::new(), Some(&body)).await?;
        Ok(answer.get("output").and_then(Value::as_str).unwrap_or_default().to_owned())
    }
}
