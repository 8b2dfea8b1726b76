//! Requests over connections that stay open, each timed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::process;
use crate::identity::Pem;

/// Where a server is, and as whom it is asked.
#[derive(Clone)]
pub struct Connector {
    address: Arc<str>,
    tls: Arc<ClientConfig>,
}

pub struct Ask {
    pub method: Method,
    pub path: String,
    media: &'static str,
    body: Bytes,
}

/// How fast something went.
pub struct Figure {
    pub name: String,
    /// Answers, or events that reached a watcher.
    pub count: usize,
    pub took: Duration,
    /// Of each answer, sorted.
    pub latencies: Vec<Duration>,
    pub server_cpu_s: f64,
    pub client_cpu_s: f64,
}

pub type Sender = http1::SendRequest<Full<Bytes>>;

impl Connector {
    pub fn new(address: &str, authority: &str, pem: &Pem) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes())?;
        let tls =
            ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(vec![certificate], key)?;
        Ok(Self { address: address.into(), tls: Arc::new(tls) })
    }

    pub async fn open(&self) -> Result<Sender> {
        let tcp = TcpStream::connect(&*self.address).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").context("the server's name")?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.context("set up TLS")?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.context("set up HTTP")?;
        // It ends with its sender; what went wrong is told by the request that waited.
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl Ask {
    /// `body` null: none.
    pub fn new(method: Method, path: impl Into<String>, media: &'static str, body: Value) -> Self {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        Self { method, path: path.into(), media, body }
    }

    /// The answer's body, once its head said 2xx.
    pub async fn send(&self, sender: &mut Sender) -> Result<Incoming> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header("host", "127.0.0.1")
            .header("accept", "application/json");
        if !self.media.is_empty() {
            request = request.header("content-type", self.media);
        }
        sender.ready().await.context("wait for the connection")?;
        let answer = sender.send_request(request.body(Full::new(self.body.clone()))?).await;
        let answer = answer.with_context(|| format!("{} {}", self.method, self.path))?;
        let status = answer.status();
        if !status.is_success() {
            let text = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            bail!("{} {}: {status}: {}", self.method, self.path, String::from_utf8_lossy(&text));
        }
        Ok(answer.into_body())
    }
}

pub async fn once(connector: &Connector, ask: &Ask) -> Result<()> {
    drain(ask.send(&mut connector.open().await?).await?).await
}

async fn drain(mut body: Incoming) -> Result<()> {
    while let Some(frame) = body.frame().await {
        frame.context("read the answer")?;
    }
    Ok(())
}

/// Sends requests 0 to `count`, one at a time on each connection.
pub async fn run(
    connector: &Connector,
    name: &str,
    connections: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Result<Figure> {
    let ask = Arc::new(ask);
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = Vec::with_capacity(connections);
    for _ in 0..connections {
        senders.push(connector.open().await?);
    }
    let client_before = process::own_cpu_s()?;
    let start = Instant::now();
    let workers: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let (ask, next) = (Arc::clone(&ask), Arc::clone(&next));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    let ask = ask(n);
                    let sent = Instant::now();
                    drain(ask.send(&mut sender).await?).await?;
                    latencies.push(sent.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::with_capacity(count);
    for worker in workers {
        latencies.extend(worker.await.context("a worker")??);
    }
    let took = start.elapsed();
    latencies.sort_unstable();
    let client_cpu_s = process::own_cpu_s()? - client_before;
    Ok(Figure { name: name.to_owned(), count, took, latencies, server_cpu_s: 0.0, client_cpu_s })
}
