//! TLS of whoever calls a webhook: whom it trusts, and who it says it is.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::trust::Trust;

/// The authorities of the system; read once, when a webhook first needs them.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    tracing::debug!(taken, "the authorities of the system");
    Arc::new(roots)
});

#[derive(Default)]
pub(super) struct Caller {
    /// Whom it trusts, in PEM; empty: the system's authorities.
    pub authority: Vec<u8>,
    /// Chain and key of its certificate.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Caller {
    pub fn config(self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let config = if self.authority.is_empty() {
            config.with_root_certificates(Arc::clone(&SYSTEM))
        } else {
            let trust = Trust::of(&self.authority, &provider)?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(trust))
        };
        Ok(Arc::new(match self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?,
            None => config.with_no_client_auth(),
        }))
    }
}
