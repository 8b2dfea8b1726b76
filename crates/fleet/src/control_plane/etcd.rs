//! The etcd that kubeadm runs beside each API server: asking its members, moving leadership, taking a member away.
//!
//! Spoken with a client certificate of the cluster's etcd authority, in the JSON form that etcd's own gateway serves on the
//! client port. How a stream to a member comes about is a seam ([`Dial`]): through the API server into the etcd pod here.
//! Source: etcd's rpc.proto (Cluster, Maintenance); kubernetes-sigs/cluster-api controlplane/kubeadm/pkg/etcd.

pub mod look;
pub mod quorum;
#[cfg(test)]
mod real;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use control::{Error, Result};
use futures::future::{BoxFuture, join_all};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::Portforwarder};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};

pub use self::look::{Look, Member};
use crate::certificates::Pair;

/// The port of kubeadm's etcd for clients.
const PORT: u16 = 2379;
/// All that one member is asked at once.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

const MEMBERS: &str = "/v3/cluster/member/list";
const REMOVE: &str = "/v3/cluster/member/remove";
const STATUS: &str = "/v3/maintenance/status";
const ALARM: &str = "/v3/maintenance/alarm";
const TRANSFER: &str = "/v3/maintenance/transfer-leadership";

/// A stream of bytes to a member.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream, and what says why it broke.
pub struct Line {
    pub stream: Box<dyn Stream>,
    pub failed: BoxFuture<'static, Option<String>>,
}

/// How the members of a cluster are reached.
pub trait Dial: Send + Sync {
    /// A stream to the client port of the member on `node`.
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, std::result::Result<Line, String>>;
}

/// Through the workload cluster's API into the etcd pods that kubeadm names after their nodes.
pub struct Forwarded(pub Client);

/// Ends the forwarding with the stream.
struct Held(Portforwarder);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Dial for Forwarded {
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, std::result::Result<Line, String>> {
        Box::pin(async move { forward(&self.0, &format!("etcd-{node}"), PORT).await })
    }
}

/// A stream to a port of a pod of the control plane.
pub async fn forward(client: &Client, pod: &str, port: u16) -> std::result::Result<Line, String> {
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    let forward = pods.portforward(pod, &[port]).await;
    let mut held = Held(forward.map_err(|error| error.to_string())?);
    let failed = held.0.take_error(port);
    let stream = held.0.take_stream(port).ok_or("there is no stream to the pod")?;
    let failed = async move {
        let _held = held;
        match failed {
            Some(failed) => failed.await,
            None => None,
        }
    };
    Ok(Line { stream: Box::new(stream), failed: Box::pin(failed) })
}

/// What is asked of etcd before a machine goes, or because one went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Leadership goes first: from the node that leads to the member that stays.
    pub leadership: Option<(String, u64)>,
    /// The member that is taken away.
    pub remove: Option<u64>,
    /// Nodes of members that stay: the first that answers is asked.
    pub via: Vec<String>,
}

/// Where the members of a cluster are, and what lets us in.
pub struct Access {
    dial: Box<dyn Dial>,
    tls: Arc<ClientConfig>,
}

/// What the members ask of a client, and what a client asks of them.
pub fn tls(authority_pem: &str, pair: &Pair) -> std::result::Result<Arc<ClientConfig>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let certificates = |pem: &str| -> std::result::Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| text(&error))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority_pem)? {
        roots.add(certificate).map_err(|error| text(&error))?;
    }
    let key = PrivateKeyDer::from_pem_slice(pair.private.as_bytes()).map_err(|error| text(&error))?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = config.with_client_auth_cert(certificates(&pair.public)?, key).map_err(|error| text(&error))?;
    Ok(Arc::new(config))
}

impl Access {
    pub fn new(dial: impl Dial + 'static, tls: Arc<ClientConfig>) -> Self {
        Self { dial: Box::new(dial), tls }
    }

    /// Asks the members on `nodes`, and those that they name besides; `Err` if no member has a leader.
    pub async fn look(&self, nodes: &[String]) -> std::result::Result<Look, String> {
        let ask = async |nodes: Vec<String>| {
            let asked = nodes.into_iter().map(async |node| {
                let view = self.view(&node).await;
                (node, view)
            });
            join_all(asked).await
        };
        let mut views: BTreeMap<_, _> = ask(nodes.to_vec()).await.into_iter().collect();
        let look = Look::of(views.clone())?;
        let strangers = look.members.iter().map(|member| member.name.clone());
        let strangers: Vec<_> = strangers.filter(|name| !name.is_empty() && !views.contains_key(name)).collect();
        if strangers.is_empty() {
            return Ok(look);
        }
        views.extend(ask(strangers).await);
        Look::of(views)
    }

    /// The cluster as the member on `node` sees it.
    async fn view(&self, node: &str) -> std::result::Result<look::View, String> {
        // Every version tells the list by consensus then; before 3.5 it always did so, and had no such field.
        let list = json!({ "linearizable": true });
        let calls = [(MEMBERS, list), (STATUS, json!({})), (ALARM, json!({"action": "GET"}))];
        let mut said = self.calls(node, &calls).await?.into_iter();
        let mut next = || said.next().unwrap_or_else(|| Err("no answer".to_owned()));
        let members = match next() {
            Err(why) if why.contains("unknown field") => {
                self.calls(node, &[(MEMBERS, json!({}))]).await?.into_iter().next().unwrap_or(Err(why))
            }
            said => said,
        };
        look::View::read(&members?, &next()?, &next()?)
    }

    /// Carries the change out; done already is done. That leadership does not move holds nothing up: a member that leads
    /// and is removed steps down after the removal is agreed upon.
    pub async fn change(&self, change: &Change) -> Result<()> {
        if let Some((leader, target)) = &change.leadership {
            let moved = self.call(leader, TRANSFER, json!({ "targetID": target.to_string() })).await;
            if let Err(why) = moved {
                tracing::info!(node = leader, why, "etcd leadership does not move");
            }
        }
        let Some(id) = change.remove else { return Ok(()) };
        let mut last = "no etcd member stays that could be asked".to_owned();
        for node in &change.via {
            match self.call(node, REMOVE, json!({ "ID": id.to_string() })).await {
                Ok(_) => return Ok(()),
                Err(why) if why.contains("member not found") => return Ok(()),
                Err(why) => last = format!("etcd on {node}: {why}"),
            }
        }
        Err(Error::Retry(format!("removing etcd member {id:x}: {last}")))
    }

    async fn call(&self, node: &str, path: &'static str, body: Value) -> std::result::Result<Value, String> {
        self.calls(node, &[(path, body)]).await?.pop().unwrap_or_else(|| Err("no answer".to_owned()))
    }

    /// Asks the member on `node` one thing after the other, over one connection.
    async fn calls(
        &self,
        node: &str,
        calls: &[(&'static str, Value)],
    ) -> std::result::Result<Vec<std::result::Result<Value, String>>, String> {
        let called = tokio::time::timeout(CALL_LIMIT, self.try_calls(node, calls)).await;
        called.map_err(|_| format!("no answer within {} s", CALL_LIMIT.as_secs()))?
    }

    async fn try_calls(
        &self,
        node: &str,
        calls: &[(&'static str, Value)],
    ) -> std::result::Result<Vec<std::result::Result<Value, String>>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let Line { stream, failed } = self.dial.dial(node).await?;
        let talked = async {
            // kubeadm's serving certificate names the node and localhost; the stream ends in the pod's own network.
            let name = ServerName::try_from("localhost").map_err(|error| text(&error))?;
            let stream =
                TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|error| text(&error))?;
            let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = connected.map_err(|error| text(&error))?;
            let asked = async {
                let mut said = Vec::with_capacity(calls.len());
                for (path, body) in calls {
                    said.push(ask(&mut sender, path, body).await?);
                }
                Ok::<_, String>(said)
            };
            tokio::select! {
                said = asked => said,
                ended = connection => Err(ended.err().map_or("the connection ended".into(), |error| text(&error))),
            }
        };
        // A stream that ends without a word is told by who reads it.
        let failed = async {
            match failed.await {
                Some(why) => why,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            said = talked => said,
            why = failed => Err(why),
        }
    }
}

/// One call; the inner error is the member's own.
async fn ask(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    path: &str,
    body: &Value,
) -> std::result::Result<std::result::Result<Value, String>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let request = http::Request::post(path)
        .header(http::header::HOST, "localhost")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| text(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let value: Value = serde_json::from_slice(&body.map_err(|error| text(&error))?.to_bytes()).unwrap_or_default();
    if status.is_success() {
        return Ok(Ok(value));
    }
    let said = value.get("message").or_else(|| value.get("error")).and_then(Value::as_str);
    Ok(Err(said.map_or_else(|| format!("status {status}"), str::to_owned)))
}
