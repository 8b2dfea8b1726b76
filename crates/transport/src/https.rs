//! hyper and rustls: `http://` and `https://`, HTTP/1.1, pooled connections.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use super::{
    Transport, TransportError, collect,
    proxy::{Proxies, Through},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections kept open to one host while idle.
const IDLE_PER_HOST: usize = 8;
/// Certificates that one CA bundle may hold.
const CA_LIMIT: usize = 1024;
/// Bundles of certificates whose connections are kept.
const TRUSTING_MAX: usize = 64;

/// Whom to trust. The default is the machine's own certificate store.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM; trusted beside the machine's own store.
    pub ca_pem: Option<Vec<u8>>,
    /// Accept any certificate. Only where a user asks for it (`verify: false` in a clouds.yaml), and only when the caller allows it.
    pub accept_any_certificate: bool,
}

pub struct Https {
    client: Client<HttpsConnector<Through>, Full<Bytes>>,
    tls: Tls,
    proxies: Proxies,
    /// By what they trust besides.
    trusting: Mutex<HashMap<Vec<u8>, Arc<Self>>>,
}

impl Https {
    pub fn new(tls: &Tls, proxies: Proxies) -> Result<Self, TransportError> {
        Self::with(tls, tls, proxies)
    }

    /// `of_proxies`: whom to trust on the way.
    fn with(tls: &Tls, of_proxies: &Tls, proxies: Proxies) -> Result<Self, TransportError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // Whoever takes any certificate for a server's does not for a proxy's.
        let trust = Tls { accept_any_certificate: false, ..of_proxies.clone() };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config(&trust)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http.clone());
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config(tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Through { http, https, proxies: proxies.clone() });
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(connector);
        Ok(Self { client, tls: tls.clone(), proxies, trusting: Mutex::default() })
    }
}

#[async_trait]
impl Transport for Https {
    async fn send(&self, mut request: Request<Bytes>, limit_bytes: usize) -> Result<Response<Bytes>, TransportError> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        if let Some(authorization) = self.proxies.authorization(request.uri()) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        let response = self
            .client
            .request(request.map(Full::new))
            .await
            .map_err(|e| TransportError::Connect { authority: authority.clone(), source: e.into() })?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, collect(body, limit_bytes, &authority).await?))
    }

    fn trusting(&self, ca_pem: &[u8]) -> Result<Arc<dyn Transport>, TransportError> {
        if let Some(known) = self.trusting.lock().get(ca_pem) {
            return Ok(known.clone());
        }
        let both = [self.tls.ca_pem.as_deref().unwrap_or_default(), ca_pem].join(&b'\n');
        let tls = Tls { ca_pem: Some(both), ..self.tls.clone() };
        let made = Arc::new(Self::with(&tls, &self.tls, self.proxies.clone())?);
        let mut all = self.trusting.lock();
        if all.len() >= TRUSTING_MAX {
            all.clear();
        }
        all.insert(ca_pem.to_vec(), made.clone());
        Ok(made)
    }
}

fn config(tls: &Tls) -> Result<ClientConfig, TransportError> {
    let failed = |what: String| TransportError::Tls { what };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?;
    if tls.accept_any_certificate {
        let verifier = Arc::new(AcceptAny { provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    // A machine without a certificate store can still speak to a server with its own CA, or over plain HTTP.
    roots.add_parsable_certificates(native_certificates());
    if let Some(pem) = &tls.ca_pem {
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| failed(format!("the CA bundle is not PEM: {e}")))?;
            count += 1;
            if count > CA_LIMIT {
                return Err(failed(format!("the CA bundle holds more than {CA_LIMIT} certificates")));
            }
            roots.add(certificate).map_err(|e| failed(format!("the CA bundle's certificate {count}: {e}")))?;
        }
        if count == 0 {
            return Err(failed("the CA bundle holds no certificate (expected PEM)".to_owned()));
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn native_certificates() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a part of the machine's certificate store cannot be read");
    }
    found.certs
}

#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
