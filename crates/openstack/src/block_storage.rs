//! Cinder v3.

use std::collections::BTreeMap;

use crate::resource::Writes;

wire! {
    pub struct Volume {
        pub id: String,
        pub name: String,
        pub description: String,
        /// `creating`, `available`, `reserved`, `attaching`, `in-use`, `deleting`, `error`, `error_deleting`, ...
        pub status: String,
        /// GiB.
        pub size: u64,
        pub volume_type: String,
        pub availability_zone: String,
        pub bootable: String,
        pub metadata: BTreeMap<String, String>,
        /// Of the image that it was made of: `image_id`, `image_name`, ...
        pub volume_image_metadata: BTreeMap<String, String>,
        pub attachments: Vec<Attachment>,
        pub created_at: String,
    }

    pub struct Attachment {
        pub server_id: String,
        pub attachment_id: String,
        pub device: String,
    }

    /// A copy of a volume as it was; a volume does not go for as long as it has one.
    pub struct Snapshot {
        pub id: String,
        pub name: String,
        pub description: String,
        /// `creating`, `available`, `deleting`, `error`, `error_deleting`, ...
        pub status: String,
        pub volume_id: String,
        /// GiB.
        pub size: u64,
        pub metadata: BTreeMap<String, String>,
        pub created_at: String,
    }

    pub struct VolumeType {
        pub id: String,
        pub name: String,
        pub description: String,
        pub is_public: Option<bool>,
    }
}

resource!(Volume, BlockStorage, "volumes", "volume", "volumes", list: "volumes/detail");
resource!(Snapshot, BlockStorage, "snapshots", "snapshot", "snapshots", list: "snapshots/detail");
resource!(VolumeType, BlockStorage, "types", "volume_type", "volume_types");
named!(Volume, Snapshot, VolumeType);

draft! {
    pub struct VolumeDraft {
        pub name: String,
        pub description: String,
        /// GiB.
        pub size: Option<u64>,
        #[serde(rename = "imageRef")]
        pub image_ref: Option<String>,
        pub volume_type: Option<String>,
        pub availability_zone: Option<String>,
        pub metadata: BTreeMap<String, String>,
    }
}

impl Writes<Volume> for VolumeDraft {}

draft! {
    pub struct SnapshotDraft {
        pub name: String,
        pub description: String,
        pub volume_id: String,
        /// Also of a volume that a server has.
        pub force: Option<bool>,
        pub metadata: BTreeMap<String, String>,
    }
}

impl Writes<Snapshot> for SnapshotDraft {}
