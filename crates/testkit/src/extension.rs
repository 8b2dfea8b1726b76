//! Servers of runtime extensions: real ones over TLS and HTTP, on pipes instead of sockets.

use std::{collections::HashMap, io, sync::Arc};

use axum::Router;
use fleet::extension::{Dial, Stream};
use futures::future::BoxFuture;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use parking_lot::Mutex;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Bytes on their way through a pipe.
const PIPE_BYTES: usize = 64 * 1024;

/// Servers by host.
#[derive(Clone, Default)]
pub struct Extensions(Arc<Mutex<HashMap<String, Server>>>);

#[derive(Clone)]
struct Server {
    router: Router,
    tls: Arc<ServerConfig>,
}

impl Extensions {
    /// Serves at a host, on any port. The authority that its certificate is to be checked by, in PEM.
    pub fn serve(&self, host: &str, router: Router) -> String {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("make a certificate");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let tls = Arc::new(tls.expect("use the certificate"));
        self.0.lock().insert(host.to_owned(), Server { router, tls });
        made.cert.pem()
    }
}

impl Dial for Extensions {
    fn dial<'a>(&'a self, host: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let found = self.0.lock().get(host).cloned();
            let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
            let Server { router, tls } = found.ok_or_else(refused)?;
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(async move {
                // A client that goes away or does not trust it is the client's matter.
                if let Ok(stream) = TlsAcceptor::from(tls).accept(theirs).await {
                    let service = TowerToHyperService::new(router);
                    let served =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = served.await;
                }
            });
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}
