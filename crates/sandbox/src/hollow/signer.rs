//! Signatures of cluster-info: what tells a machine with a bootstrap token that it speaks to the right cluster.
//!
//! Source: Kubernetes documentation, "Authenticating with Bootstrap Tokens" (ConfigMap signing); RFC 7515 appendix F
//! (detached content); RFC 7518 3.2 (HS256).

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde_json::{Value, json};
use tracing::debug;

use super::cluster::Cluster;

/// Key of a signature in cluster-info, with the token's id after it.
pub const PREFIX: &str = "jws-kubeconfig-";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Tokens of one cluster that are signed for.
const TOKENS_MAX: u32 = 500;

/// The signature of a text by a token: a JWS in compact form whose content is left out.
pub fn signature(content: &str, token_id: &str, token_secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":{}}}"#, Value::from(token_id)));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, token_secret.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// Whether the signature is this token's, of this text.
pub fn is_valid(signature: &str, content: &str, token_id: &str, token_secret: &str) -> bool {
    let right = self::signature(content, token_id, token_secret);
    aws_lc_rs::constant_time::verify_slices_are_equal(right.as_bytes(), signature.as_bytes()).is_ok()
}

/// What kube-controller-manager's bootstrap signer does: a signature for each token, and none for others.
pub async fn run(cluster: std::sync::Weak<Cluster>) {
    let Some(client) = cluster.upgrade().map(|cluster| cluster.client.clone()) else { return };
    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
    let config = watcher::Config::default().fields(&format!("type={TOKEN_TYPE}"));
    let events = watcher(secrets, config).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let Some(cluster) = cluster.upgrade() else { return };
        let due = matches!(event, Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_)));
        if due && let Err(error) = sign(&client, (cluster.clock)()).await {
            debug!(cluster = cluster.id, %error, "cluster-info is not signed");
        }
    }
}

/// Brings the signatures in line with the tokens that there are; without a cluster-info there is nothing to sign.
pub async fn sign(client: &Client, now: Timestamp) -> Result<(), kube::Error> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-public");
    let Some(map) = maps.get_opt("cluster-info").await? else { return Ok(()) };
    let have = map.data.unwrap_or_default();
    let Some(content) = have.get("kubeconfig") else { return Ok(()) };
    let params = ListParams::default().fields(&format!("type={TOKEN_TYPE}")).limit(TOKENS_MAX);
    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system").list(&params).await?;
    let tokens = secrets.items.iter().filter_map(|secret| token(secret, now));
    let want: BTreeMap<String, String> =
        tokens.map(|(id, secret)| (format!("{PREFIX}{id}"), signature(content, &id, &secret))).collect();
    let mut changes = serde_json::Map::new();
    for key in have.keys().filter(|key| key.starts_with(PREFIX) && !want.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    for (key, value) in want.into_iter().filter(|(key, value)| have.get(key) != Some(value)) {
        changes.insert(key, value.into());
    }
    if !changes.is_empty() {
        let patch = Patch::Merge(json!({ "data": changes }));
        maps.patch("cluster-info", &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// Id and secret of a token that may sign and has not expired.
fn token(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let text = |key: &str| {
        let value = secret.data.as_ref()?.get(key)?;
        std::str::from_utf8(&value.0).ok()
    };
    let id = text("token-id")?;
    let named = secret.metadata.name.as_deref() == Some(&format!("bootstrap-token-{id}"));
    let lives = match text("expiration") {
        Some(end) => end.parse::<Timestamp>().ok()? > now,
        None => true,
    };
    let signs = text("usage-bootstrap-signing") == Some("true");
    (named && lives && signs).then(|| Some((id.to_owned(), text("token-secret")?.to_owned())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_a_detached_jws_that_only_the_token_makes() {
        let made = signature("content", "abcdef", "0123456789abcdef");
        // {"alg":"HS256","kid":"abcdef"}
        assert!(made.starts_with("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.."), "{made}");
        assert!(is_valid(&made, "content", "abcdef", "0123456789abcdef"));
        for (content, id, secret) in [
            ("content!", "abcdef", "0123456789abcdef"),
            ("content", "abcdeg", "0123456789abcdef"),
            ("content", "abcdef", "0123456789abcdeg"),
        ] {
            assert!(!is_valid(&made, content, id, secret));
        }
    }

    #[test]
    fn a_token_signs_while_it_lives_and_is_meant_to() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let with = |change: &[(&str, &str)]| {
            let mut data = BTreeMap::from([
                ("token-id", "abcdef"),
                ("token-secret", "0123456789abcdef"),
                ("usage-bootstrap-signing", "true"),
                ("expiration", "2026-01-01T00:15:00Z"),
            ]);
            data.extend(change.iter().copied());
            let bytes = |(key, value): (&str, &str)| (key.to_owned(), k8s_openapi::ByteString(value.into()));
            let mut secret = Secret { data: Some(data.into_iter().map(bytes).collect()), ..Secret::default() };
            secret.metadata.name = Some("bootstrap-token-abcdef".into());
            token(&secret, now).is_some()
        };
        assert!(with(&[]));
        assert!(!with(&[("usage-bootstrap-signing", "false")]));
        assert!(!with(&[("expiration", "2025-12-31T23:59:59Z")]));
        assert!(!with(&[("token-id", "zzzzzz")]));
    }
}
