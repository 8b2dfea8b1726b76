//! The keys of an issuer: found by OpenID Connect Discovery, fetched over TLS, kept, and fetched anew when a token is signed
//! with one that is not known, but not more often than every few seconds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Mutex, time::Instant};
use tokio_rustls::TlsConnector;

use crate::jose::{PublicKey, Token};

/// A document that is longer is not read.
pub(super) const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Keys of one issuer; further ones are passed over.
const KEYS_MAX: usize = 256;
/// A fetch may take so long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two fetches lies at least this, whatever tokens come.
pub(super) const REFRESH_PAUSE: Duration = Duration::from_secs(10);
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

pub(super) struct KeySource {
    issuer: String,
    discovery: String,
    tls: Arc<ClientConfig>,
    known: RwLock<Arc<Vec<PublicKey>>>,
    /// When keys were last asked for, whether they came or not. Who holds it fetches.
    asked: Mutex<Option<Instant>>,
}

impl KeySource {
    /// `authority`: certificates in PEM; empty: those of the system.
    pub(super) fn new(issuer: &str, discovery: Option<&str>, authority: &str) -> Result<Self, String> {
        let discovery =
            discovery.map_or_else(|| format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')), str::to_owned);
        Ok(Self {
            issuer: issuer.to_owned(),
            discovery,
            tls: Arc::new(tls(authority)?),
            known: RwLock::default(),
            asked: Mutex::new(None),
        })
    }

    fn knows(&self, token: &Token<'_>) -> bool {
        let known = Arc::clone(&self.known.read());
        known.iter().any(|key| token.is_signed_by(key))
    }

    /// Whether one of the issuer's keys has signed the token.
    pub(super) async fn verify(&self, token: &Token<'_>) -> Result<(), String> {
        if self.knows(token) {
            return Ok(());
        }
        let unknown = || Err("failed to verify signature: failed to verify id token signature".to_owned());
        // A known key whose signature is wrong stays wrong.
        let known = Arc::clone(&self.known.read());
        if !token.key_id.is_empty() && known.iter().any(|key| key.id == token.key_id) {
            return unknown();
        }
        let mut asked = self.asked.lock().await;
        if self.knows(token) {
            return Ok(());
        }
        if asked.is_some_and(|last| last.elapsed() < REFRESH_PAUSE) {
            return unknown();
        }
        *asked = Some(Instant::now());
        let fetched = tokio::time::timeout(TIMEOUT, self.fetch()).await;
        let keys = fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())));
        let keys = keys.map_err(|why| {
            tracing::warn!(issuer = self.issuer, why, "the keys of an issuer could not be fetched");
            format!("fetching keys {why}")
        })?;
        tracing::info!(issuer = self.issuer, keys = keys.len(), "the keys of an issuer were fetched");
        *self.known.write() = Arc::new(keys);
        if self.knows(token) { Ok(()) } else { unknown() }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let document = get(&self.discovery, &self.tls).await?;
        let said = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if said != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {said:?}",
                self.issuer
            ));
        }
        let url = document.get("jwks_uri").and_then(Value::as_str).ok_or("provider did not return JWKS URL")?;
        let set = get(url, &self.tls).await?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("the key set has no keys")?;
        Ok(keys.iter().filter_map(PublicKey::from_jwk).take(KEYS_MAX).collect())
    }
}

/// A JSON document at an https URL; redirects are not followed.
async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Value, String> {
    let text = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| text(&error))?;
    if uri.scheme_str() != Some("https") {
        return Err(text(&"not an https URL"));
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await.map_err(|e| text(&e))?;
    let name = ServerName::try_from(host).map_err(|e| text(&e))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(|e| text(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let request = http::Request::get(uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        .header("host", uri.authority().map_or("", http::uri::Authority::as_str))
        .header("accept", "application/json")
        .body(Empty::new())
        .map_err(|e| text(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        if status != http::StatusCode::OK {
            return Err(text(&format!("the server answered {status}")));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| text(&format!("read the document: {error}")))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| text(&format!("the document is not JSON: {error}")))
    };
    // The connection lives no longer than the exchange.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(text(&error)),
        },
    }
}

fn tls(authority: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if authority.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("data does not contain any valid RSA or ECDSA certificates".to_owned());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
