//! Glance v2.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::resource::Writes;

wire! {
    pub struct Image {
        pub id: String,
        pub name: String,
        /// `queued`, `saving`, `importing`, `active`, `deactivated`, `killed`, `deleted`.
        pub status: String,
        pub visibility: String,
        pub owner: String,
        pub tags: Vec<String>,
        pub min_disk: u64,
        pub min_ram: u64,
        pub size: Option<u64>,
        pub disk_format: String,
        pub container_format: String,
        pub os_type: String,
        pub os_hidden: bool,
        pub created_at: String,
        pub updated_at: String,
    }
}

resource!(Image, Image, "images", "", "images");
named!(Image);

draft! {
    pub struct ImageDraft {
        pub name: String,
        pub disk_format: String,
        pub container_format: String,
        pub visibility: Option<String>,
        pub tags: Vec<String>,
        pub min_disk: Option<u64>,
        pub min_ram: Option<u64>,
        /// Properties, side by side with the fields, as Glance has them.
        #[serde(flatten)]
        pub properties: BTreeMap<String, Value>,
    }
}

impl Writes<Image> for ImageDraft {}
