//! Files that tell programs where a server is and who they are.

use std::path::Path;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::identity::{Authority, Pem};

/// JSON is YAML.
pub fn write(path: &Path, address: &str, authority: &Authority, user: &Pem, namespace: &str) -> Result<()> {
    let base64 = |text: &str| STANDARD.encode(text);
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stand",
        "contexts": [{"name": "stand", "context": {"cluster": "stand", "user": "user", "namespace": namespace}}],
        "clusters": [{"name": "stand", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": base64(&authority.certificate()),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": base64(&user.certificate),
            "client-key-data": base64(&user.key),
        }}],
    });
    std::fs::write(path, file.to_string()).with_context(|| format!("write {}", path.display()))
}
