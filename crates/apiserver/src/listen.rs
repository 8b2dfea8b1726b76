//! The API over TLS sockets.

mod linger;

use std::{net::IpAddr, sync::Arc};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::linger::Lingering;
use crate::{audit::PeerAddress, authn::PeerCertificates, server::Server};

/// A TLS handshake, and a request's headers, must be through in this time.
const HANDSHAKE_S: u64 = 10;
const HEADERS_S: u64 = 30;
/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 10_000;
/// How long open requests may go on when the listener is told to end.
const DRAIN_S: u64 = 5;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("read the {what} in PEM: {why}")]
    Pem { what: &'static str, why: String },
    #[error("use the certificate and the key")]
    Tls(#[source] rustls::Error),
    #[error("trust the authority of client certificates: {0}")]
    ClientAuthority(String),
    #[error("accept a connection")]
    Accept(#[source] std::io::Error),
}

/// TLS for a listener: HTTP/2 and HTTP/1.1, client certificates of `client_ca_pem` asked for but not required.
pub fn server_tls(
    cert_chain_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, ListenError> {
    server_tls_from(cert_chain_pem, key_pem, client_ca_pem, &[&rustls::version::TLS13, &rustls::version::TLS12])
}

/// The same with TLS 1.3 alone.
pub fn server_tls13(
    cert_chain_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, ListenError> {
    server_tls_from(cert_chain_pem, key_pem, client_ca_pem, &[&rustls::version::TLS13])
}

fn server_tls_from(
    cert_chain_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, ListenError> {
    let chain = certificates("certificate chain", cert_chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|e| ListenError::Pem { what: "key", why: e.to_string() })?;
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let builder = match client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client authority", pem)? {
                roots.add(certificate).map_err(|e| ListenError::ClientAuthority(e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|e| ListenError::ClientAuthority(e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(ListenError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(ListenError::Pem { what, why: "there is no certificate in it".to_owned() }),
        Err(e) => Err(ListenError::Pem { what, why: e.to_string() }),
    }
}

/// What connections are taken with: may change while the listener is open, for those that come after.
pub struct Tls(watch::Receiver<Arc<ServerConfig>>);

impl From<Arc<ServerConfig>> for Tls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self(watch::channel(config).1)
    }
}

impl From<watch::Receiver<Arc<ServerConfig>>> for Tls {
    fn from(configs: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Self(configs)
    }
}

impl Server {
    /// Serves the listener until `shutdown`; then no connection is accepted, watches end, and open requests have a few
    /// seconds.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: impl Into<Tls>,
        shutdown: CancellationToken,
    ) -> Result<(), ListenError> {
        let tls: Tls = tls.into();
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
                () = self.state().stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                // The peer went away again, or there are no file handles: neither is the listener's end.
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => return Err(ListenError::Accept(error)),
            };
            if connections.len() >= CONNECTIONS_MAX {
                tracing::warn!(limit = CONNECTIONS_MAX, "a connection was refused: too many are open");
                continue;
            }
            // Without this, small answers wait for the peer's acknowledgement.
            let _ = stream.set_nodelay(true);
            let (server, tls, shutdown) = (self.clone(), Arc::clone(&tls.0.borrow()), shutdown.clone());
            connections.spawn(async move { server.connection(stream, Some(peer), tls, shutdown).await });
        }
        connections.close();
        let drained = tokio::time::timeout(std::time::Duration::from_secs(DRAIN_S), connections.wait()).await;
        if drained.is_err() {
            tracing::warn!(open = connections.len(), "connections were cut off");
        }
        Ok(())
    }

    /// Serves one connection to its end: for callers that accept connections themselves.
    pub async fn serve_connection<I>(&self, io: I, tls: Arc<ServerConfig>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connection(io, None, tls, CancellationToken::new()).await;
    }

    async fn connection<I>(&self, io: I, address: Option<IpAddr>, tls: Arc<ServerConfig>, shutdown: CancellationToken)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = TlsAcceptor::from(tls).accept(io);
        let stream = match tokio::time::timeout(std::time::Duration::from_secs(HANDSHAKE_S), handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.state().metrics.handshake_failed();
                return tracing::debug!(%error, "a TLS handshake failed");
            }
            Err(_) => {
                self.state().metrics.handshake_failed();
                return tracing::debug!("a TLS handshake took too long");
            }
        };
        let peer = stream.get_ref().1.peer_certificates();
        let peer = peer.map(|list| PeerCertificates(list.iter().map(|c| c.clone().into_owned()).collect()));
        let service = with_extensions(self.router(), peer, address, Draining(shutdown.clone()));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(std::time::Duration::from_secs(HEADERS_S))
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .keep_alive_interval(Some(std::time::Duration::from_secs(30)));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let stop = self.state().stop.clone();
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = async { tokio::select! { () = shutdown.cancelled() => {}, () = stop.cancelled() => {} } } => {
                connection.as_mut().graceful_shutdown();
                let rest = std::time::Duration::from_secs(DRAIN_S);
                tokio::time::timeout(rest, connection.as_mut()).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// Ends the watches of a connection whose listener ends; an extension of each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Draining(pub CancellationToken);

fn with_extensions(
    router: Router,
    peer: Option<PeerCertificates>,
    address: Option<IpAddr>,
    draining: Draining,
) -> TowerToHyperService<
    impl tower::Service<
        http::Request<hyper::body::Incoming>,
        Response = axum::response::Response,
        Error = std::convert::Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static,
> {
    TowerToHyperService::new(router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(draining.clone());
        if let Some(address) = address {
            request.extensions_mut().insert(PeerAddress(address));
        }
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        let asked = request.headers().contains_key(http::header::EXPECT);
        request.map(|body| axum::body::Body::new(Lingering::new(body, asked)))
    }))
}

fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | WouldBlock)
        // EMFILE, ENFILE
        || matches!(error.raw_os_error(), Some(23 | 24))
}
