//! A release as Helm 3 writes it. Source: helm.sh/helm/v3, pkg/release.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json};

/// Where a revision of a release stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Deployed,
    Uninstalled,
    Superseded,
    Failed,
    Uninstalling,
    PendingInstall,
    PendingUpgrade,
    PendingRollback,
    #[default]
    #[serde(other)]
    Unknown,
}

impl Status {
    /// As it is written, also in the label of the Secret.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Deployed => "deployed",
            Self::Uninstalled => "uninstalled",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::Uninstalling => "uninstalling",
            Self::PendingInstall => "pending-install",
            Self::PendingUpgrade => "pending-upgrade",
            Self::PendingRollback => "pending-rollback",
        }
    }

    pub fn of(text: &str) -> Self {
        serde_json::from_value(Json::String(text.to_owned())).unwrap_or_default()
    }

    pub fn is_pending(self) -> bool {
        matches!(self, Self::PendingInstall | Self::PendingUpgrade | Self::PendingRollback)
    }
}

/// One revision of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    pub name: String,
    pub info: Info,
    /// As Helm keeps charts: `metadata`, `templates`, `values`, `files`, without the charts that it depends on.
    pub chart: Json,
    /// The values that were set over the chart's.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Json>,
    /// The objects, in the order in which they are installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub manifest: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// The revision; the first is 1.
    pub version: i64,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    #[serde(with = "time")]
    pub first_deployed: Option<Timestamp>,
    #[serde(with = "time")]
    pub last_deployed: Option<Timestamp>,
    #[serde(with = "time")]
    pub deleted: Option<Timestamp>,
    pub description: String,
    pub status: Status,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub name: String,
    pub kind: String,
    /// The path of the template that it comes from.
    pub path: String,
    pub manifest: String,
    #[serde(deserialize_with = "lenient")]
    pub events: Vec<String>,
    pub last_run: Execution,
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: i64,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub delete_policies: Vec<String>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub output_log_policies: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The last time that a hook ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Execution {
    #[serde(with = "time")]
    pub started_at: Option<Timestamp>,
    #[serde(with = "time")]
    pub completed_at: Option<Timestamp>,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It never ran.
    #[default]
    #[serde(rename = "")]
    None,
    Running,
    Succeeded,
    Failed,
    #[serde(other)]
    Unknown,
}

/// Go writes empty lists and maps as null.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Times as Helm writes them: RFC 3339, and an empty text where there is none.
mod time {
    use serde::de::Error;

    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    #[expect(clippy::ref_option, reason = "serde asks for it")]
    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, into: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => into.collect_str(time),
            None => into.serialize_str(""),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?.unwrap_or_default();
        // Go's zero time is none.
        if text.is_empty() || text.starts_with("0001-01-01T00:00:00") {
            return Ok(None);
        }
        text.parse().map(Some).map_err(D::Error::custom)
    }
}
