//! What a chart is rendered for: the release, and the cluster's capabilities.

/// What templates see as `.Release`.
#[derive(Clone, Debug)]
pub struct Release {
    pub name: String,
    pub namespace: String,
    pub revision: i64,
    pub is_upgrade: bool,
}

/// What templates see as `.Capabilities`.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// As `v1.36.0`.
    pub kube_version: String,
    pub major: String,
    pub minor: String,
    /// As `apps/v1`, and `apps/v1/Deployment`.
    pub api_versions: Vec<String>,
    /// The version of Helm that charts are told.
    pub helm_version: String,
}

/// The Helm whose ways are followed.
pub const HELM_VERSION: &str = "v3.22.0";

impl Capabilities {
    /// Of a cluster of that version.
    pub fn of(kube_version: &str, api_versions: Vec<String>) -> Self {
        let plain = kube_version.trim().trim_start_matches('v');
        let number = |part: Option<&str>| -> String {
            part.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect()
        };
        let mut parts = plain.split('.');
        let (major, minor) = (number(parts.next()), number(parts.next()));
        Self { kube_version: format!("v{plain}"), major, minor, api_versions, helm_version: HELM_VERSION.to_owned() }
    }
}
