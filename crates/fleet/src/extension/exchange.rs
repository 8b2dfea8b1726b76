//! One exchange with an extension's server.

use std::{io, sync::Arc, time::Duration};

use api::extension::{
    ExtensionConfig,
    call::{Place, RESPONSE_BYTES_MAX, envelope, path, place},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig as Tls, RootCertStore},
};

use super::Extensions;

/// Of a response that is an error, so much is told.
const SHOWN_CHARS_MAX: usize = 512;

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How extensions' servers are reached.
pub trait Dial: Send + Sync + 'static {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

impl Dial for Network {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Over TCP.
#[derive(Clone, Copy, Debug)]
pub struct Network;

pub(super) enum CallError {
    /// Nothing that could be read came back: the failure policy says what becomes of it.
    Exchange(String),
    /// There is nobody to be called.
    Config(String),
}

impl Extensions {
    /// Sends a request to a handler and reads the response.
    pub(super) async fn post(
        &self,
        config: &ExtensionConfig,
        hook: &str,
        handler: &str,
        request: Value,
        timeout: Duration,
    ) -> Result<Value, CallError> {
        let request = envelope(hook, request);
        let place = place(&config.spec.client_config).map_err(CallError::Config)?;
        let tls = self.tls(config.spec.client_config.ca_bundle.as_deref()).map_err(CallError::Config)?;
        let target = path(&place.path, hook, handler, timeout.as_secs());
        let exchanged = tokio::time::timeout(timeout, self.exchange(&place, tls, &target, request));
        let exchanged = exchanged.await.map_err(|_| format!("no response within {} s", timeout.as_secs()));
        exchanged
            .and_then(|exchanged| exchanged)
            .map_err(|why| CallError::Exchange(format!("Post \"https://{}{target}\": {why}", place.authority)))
    }

    async fn exchange(&self, place: &Place, tls: Arc<Tls>, target: &str, request: Value) -> Result<Value, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let host = self.host(place).await?;
        let stream = self.dial.dial(&host, place.port).await.map_err(|error| text(&error))?;
        let name = ServerName::try_from(place.name.clone()).map_err(|error| text(&error))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| text(&error))?;
        let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|error| text(&error))?;
        let request = http::Request::post(target)
            .header(http::header::HOST, &place.authority)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(request.to_string())))
            .map_err(|error| text(&error))?;
        let asked = async {
            let response = sender.send_request(request).await.map_err(|error| text(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
            let body = body.map_err(|error| text(&error))?.to_bytes();
            if status != http::StatusCode::OK {
                let said: String = String::from_utf8_lossy(&body).chars().take(SHOWN_CHARS_MAX).collect();
                return Err(format!("got response with status code {} != 200: {said:?}", status.as_u16()));
            }
            let response: Value =
                serde_json::from_slice(&body).map_err(|error| format!("failed to decode response: {error}"))?;
            if !response.is_object() {
                return Err("failed to decode response: it is no object".to_owned());
            }
            Ok(response)
        };
        tokio::pin!(asked, connection);
        tokio::select! {
            biased;
            said = &mut asked => said,
            ended = &mut connection => match ended {
                Err(error) => Err(text(&error)),
                // What was read before the end is still there.
                Ok(()) => asked.await,
            },
        }
    }

    /// What to connect to. A Service that stands for a name outside is that name.
    async fn host(&self, place: &Place) -> Result<String, String> {
        let Some((namespace, name)) = &place.service else { return Ok(place.name.clone()) };
        let found = Api::<Service>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        let found = found.map_err(|error| format!("get Service {namespace}/{name}: {error}"))?;
        let spec = found.ok_or_else(|| format!("Service {namespace}/{name} does not exist"))?.spec.unwrap_or_default();
        let external = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName"));
        Ok(external.unwrap_or_else(|| place.name.clone()))
    }

    fn tls(&self, bundle: Option<&str>) -> Result<Arc<Tls>, String> {
        let roots = match bundle.filter(|bundle| !bundle.is_empty()) {
            None => self.tls.get_or_init(|| Arc::new(system())).clone(),
            Some(bundle) => {
                let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle is not base64: {error}"))?;
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let added = certificate.map_err(|error| error.to_string());
                    let added = added.and_then(|found| roots.add(found).map_err(|error| error.to_string()));
                    added.map_err(|error| format!("caBundle cannot be read: {error}"))?;
                }
                if roots.is_empty() {
                    return Err("caBundle has no certificate in PEM".to_owned());
                }
                Arc::new(roots)
            }
        };
        Ok(Arc::new(Tls::builder().with_root_certificates(roots).with_no_client_auth()))
    }
}

/// The authorities of the system.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
