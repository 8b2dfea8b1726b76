//! The members of a cluster, and a connection to one of them at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost::Message;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{sync::Mutex, time::Instant};

use super::{
    grpc::{Channel, Fault},
    options::{Invalid, Tls},
    wire,
};

/// The pause before a call is made again; it doubles up to the second.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

pub const RANGE: &str = "etcdserverpb.KV/Range";
pub const TXN: &str = "etcdserverpb.KV/Txn";
pub const DELETE: &str = "etcdserverpb.KV/DeleteRange";
pub const COMPACT: &str = "etcdserverpb.KV/Compact";
pub const WATCH: &str = "etcdserverpb.Watch/Watch";
const STATUS: &str = "etcdserverpb.Maintenance/Status";
const ALARM: &str = "etcdserverpb.Maintenance/Alarm";

pub struct Client {
    endpoints: Vec<String>,
    tls: Option<Arc<ClientConfig>>,
    /// Which endpoint is tried first.
    next: AtomicUsize,
    current: Mutex<Option<Arc<Channel>>>,
    pub request_timeout: Duration,
}

impl Client {
    pub fn new(endpoints: Vec<String>, tls: Option<&Tls>, request_timeout: Duration) -> Result<Self, Invalid> {
        let tls = tls.map(config).transpose()?;
        Ok(Self { endpoints, tls, next: AtomicUsize::new(0), current: Mutex::new(None), request_timeout })
    }

    /// The connection that stands, or a new one to the first member that takes it.
    pub async fn channel(&self) -> Result<Arc<Channel>, Fault> {
        let mut current = self.current.lock().await;
        if let Some(channel) = current.as_ref().filter(|channel| channel.is_open()) {
            return Ok(channel.clone());
        }
        if let Some(old) = current.take() {
            old.retired.cancel();
            self.next.fetch_add(1, Ordering::Relaxed);
        }
        let first = self.next.load(Ordering::Relaxed);
        let mut faults = Vec::new();
        for i in 0..self.endpoints.len() {
            let position = (first + i) % self.endpoints.len();
            let Some(endpoint) = self.endpoints.get(position) else { continue };
            match Channel::connect(endpoint, self.tls.as_ref()).await {
                Ok(channel) => {
                    tracing::debug!(endpoint, "connected to etcd");
                    self.next.store(position, Ordering::Relaxed);
                    let channel = Arc::new(channel);
                    *current = Some(channel.clone());
                    return Ok(channel);
                }
                Err(fault) => faults.push(fault.to_string()),
            }
        }
        Err(Fault::Connect { endpoint: "no member of etcd is reached".to_owned(), why: faults.join("; ") })
    }

    /// Lets a connection go that did not do: the next call goes to the next member.
    pub fn retire(&self, channel: &Channel, why: &Fault) {
        if !channel.retired.is_cancelled() {
            tracing::warn!(endpoint = channel.endpoint(), %why, "etcd: trying the next member");
            channel.retired.cancel();
        }
    }

    /// Lets go of the connection that stands, whatever it is, because nothing comes of it.
    pub async fn move_on(&self, why: &str) {
        let current = self.current.lock().await.clone();
        if let Some(channel) = current {
            self.retire(&channel, &Fault::Lost { endpoint: channel.endpoint().to_owned(), why: why.to_owned() });
        }
    }

    /// One call to whichever member is connected.
    pub async fn call<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        timeout: Duration,
    ) -> Result<A, Fault> {
        let channel = self.channel().await?;
        let answer = channel.unary(path, request, timeout).await;
        if let Err(fault) = &answer
            && fault.is_passing()
        {
            self.retire(&channel, fault);
        }
        answer
    }

    /// A call that does no harm when it is made twice, until it is answered or `until` has come.
    pub async fn repeat<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        until: Instant,
    ) -> Result<A, Fault> {
        self.repeat_within(path, request, until, self.request_timeout).await
    }

    /// The same, where a member that takes longer than `timeout` is left for the next one.
    pub async fn repeat_within<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        until: Instant,
        timeout: Duration,
    ) -> Result<A, Fault> {
        let mut pause = Pause::default();
        loop {
            match self.call(path, request, timeout).await {
                Err(fault) if fault.is_passing() && Instant::now() < until => pause.wait().await,
                answer => return answer,
            }
        }
    }

    /// What each member says of itself.
    pub async fn status(&self) -> Vec<(String, Result<wire::StatusResponse, Fault>)> {
        let mut all = Vec::new();
        for endpoint in &self.endpoints {
            let status = async {
                let channel = Channel::connect(endpoint, self.tls.as_ref()).await?;
                channel.unary(STATUS, &wire::StatusRequest {}, self.request_timeout).await
            };
            all.push((endpoint.clone(), status.await));
        }
        all
    }

    pub async fn alarms(&self) -> Result<wire::AlarmResponse, Fault> {
        self.call(ALARM, &wire::AlarmRequest {}, self.request_timeout).await
    }
}

/// Longer with each time.
pub struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE)
    }
}

impl Pause {
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

fn config(tls: &Tls) -> Result<Arc<ClientConfig>, Invalid> {
    let pem =
        |what: &'static str| move |error: rustls_pki_types::pem::Error| Invalid::Pem { what, why: error.to_string() };
    let rustls = |what: &'static str| move |error: rustls::Error| Invalid::Pem { what, why: error.to_string() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.ca_pem.as_bytes()) {
        roots.add(certificate.map_err(pem("authority"))?).map_err(rustls("authority"))?;
    }
    if roots.is_empty() {
        return Err(Invalid::Pem { what: "authority", why: "there is no certificate in it".to_owned() });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(rustls("authority"))?.with_root_certificates(roots);
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem("client key"))?;
            let chain = chain.map_err(pem("client certificate"))?;
            builder.with_client_auth_cert(chain, key).map_err(rustls("client certificate and key"))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
