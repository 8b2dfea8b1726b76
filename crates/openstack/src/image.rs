//! Glance v2.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use crate::{Client, Query, Result, Service, query::encode, resource::Writes};

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
        pub virtual_size: Option<u64>,
        pub protected: bool,
        pub os_hash_algo: String,
        pub os_hash_value: String,
        pub disk_format: String,
        pub container_format: String,
        pub os_type: String,
        pub os_hidden: bool,
        pub created_at: String,
        pub updated_at: String,
        /// A property: the object that the image was made for, as `namespace/name`.
        pub k_orc_object: String,
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
        pub protected: Option<bool>,
        pub tags: Vec<String>,
        pub min_disk: Option<u64>,
        pub min_ram: Option<u64>,
        /// Properties, side by side with the fields, as Glance has them.
        #[serde(flatten)]
        pub properties: BTreeMap<String, Value>,
    }
}

impl Writes<Image> for ImageDraft {}

impl Client {
    /// How the cloud can come to an image's data by itself, such as `web-download`.
    pub async fn image_import_methods(&self) -> Result<Vec<String>> {
        let found = self.raw(Service::Image, Method::GET, "info/import", &Query::new(), None).await?;
        let methods = found.pointer("/import-methods/value").and_then(Value::as_array).into_iter().flatten();
        Ok(methods.filter_map(|method| method.as_str().map(str::to_owned)).collect())
    }

    /// Has the cloud fetch the data of an image that has none.
    pub async fn download_image(&self, id: &str, url: &str) -> Result<()> {
        let path = format!("images/{}/import", encode(id));
        let body = json!({"method": {"name": "web-download", "uri": url}});
        self.raw(Service::Image, Method::POST, &path, &Query::new(), Some(&body)).await.map(drop)
    }

    /// Replaces fields of an image, by name.
    pub async fn replace_in_image(&self, id: &str, fields: &[(&str, Value)]) -> Result<()> {
        let path = format!("images/{}", encode(id));
        let change =
            |(name, value): &(&str, Value)| json!({"op": "replace", "path": format!("/{name}"), "value": value});
        let body: Value = fields.iter().map(change).collect();
        self.raw(Service::Image, Method::PATCH, &path, &Query::new(), Some(&body)).await.map(drop)
    }
}
