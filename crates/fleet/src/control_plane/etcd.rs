//! The etcd that kubeadm runs beside each API server: who is a member, and taking one away.
//!
//! Spoken over a stream to the etcd pod, with a client certificate of the cluster's etcd authority, in the JSON form that
//! etcd's own gateway serves on the client port.
//! Source: etcd's rpc.proto (Cluster, Maintenance); kubernetes-sigs/cluster-api controlplane/kubeadm/pkg/etcd.

use std::time::Duration;

use bytes::Bytes;
use control::{Error, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore},
};

use crate::certificates::Pair;

/// The port of kubeadm's etcd for clients.
const PORT: u16 = 2379;
const CALL_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A member of the etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Of its node; empty until it has started.
    pub name: String,
    pub leads: bool,
}

/// What is asked of etcd before a machine may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub id: u64,
    /// The node of a member that stays: the call is made there.
    pub via: String,
    /// Leadership goes first, from the node that leads to the member that stays.
    pub from_leader: Option<(String, u64)>,
}

/// Where the etcd pods of a cluster are, and what lets us in.
pub struct Access {
    pub client: Client,
    /// The authority's certificate, and a client certificate of it.
    pub authority_pem: String,
    pub pair: Pair,
}

impl Access {
    /// The members, as the pod on `node` knows them.
    pub async fn members(&self, node: &str) -> Result<Vec<Member>> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(default)]
            members: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            #[serde(rename = "ID", default)]
            id: String,
            #[serde(default)]
            name: String,
        }
        let listed = self.call(node, "/v3/cluster/member/list", &json!({})).await?;
        let status = self.call(node, "/v3/maintenance/status", &json!({})).await?;
        let leader = status.get("leader").and_then(Value::as_str).unwrap_or_default().to_owned();
        let unreadable = |what: String| Error::Retry(format!("etcd on {node} answered what cannot be read: {what}"));
        let listed: Listed = serde_json::from_value(listed).map_err(|error| unreadable(error.to_string()))?;
        let read = |one: One| {
            let id = one.id.parse().map_err(|_| unreadable(format!("member id {:?}", one.id)))?;
            Ok(Member { id, leads: one.id == leader, name: one.name })
        };
        listed.members.into_iter().map(read).collect()
    }

    /// Takes the member away; done already is done.
    pub async fn remove(&self, removal: &Removal) -> Result<()> {
        if let Some((leader, target)) = &removal.from_leader {
            let body = json!({ "targetID": target.to_string() });
            self.call(leader, "/v3/maintenance/transfer-leadership", &body).await?;
        }
        let body = json!({ "ID": removal.id.to_string() });
        match self.call(&removal.via, "/v3/cluster/member/remove", &body).await {
            Err(Error::Retry(text)) if text.contains("member not found") => Ok(()),
            done => done.map(drop),
        }
    }

    async fn call(&self, node: &str, path: &str, body: &Value) -> Result<Value> {
        let called = tokio::time::timeout(CALL_LIMIT, self.try_call(node, path, body)).await;
        let called = called.map_err(|_| "no answer in time".to_owned()).flatten();
        called.map_err(|why| Error::Retry(format!("etcd on {node}: {path}: {why}")))
    }

    async fn try_call(&self, node: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let pods = Api::<Pod>::namespaced(self.client.clone(), "kube-system");
        let mut forward = pods.portforward(&format!("etcd-{node}"), &[PORT]).await.map_err(|error| text(&error))?;
        let failed = forward.take_error(PORT);
        let stream = forward.take_stream(PORT).ok_or("there is no stream to the pod")?;
        let talked = async {
            let stream = self.secured(stream).await?;
            let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = connected.map_err(|error| text(&error))?;
            let request = http::Request::post(path)
                .header(http::header::HOST, "localhost")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body.to_string())))
                .map_err(|error| text(&error))?;
            let answered = async {
                let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
                Ok::<_, String>((status, body.map_err(|error| text(&error))?.to_bytes()))
            };
            let (status, bytes) = tokio::select! {
                answered = answered => answered?,
                ended = connection => return Err(ended.err().map_or("the connection ended".into(), |error| text(&error))),
            };
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if status.is_success() {
                return Ok(value);
            }
            let said = value.get("message").or_else(|| value.get("error")).and_then(Value::as_str);
            Err(said.map_or_else(|| format!("status {status}"), str::to_owned))
        };
        let said = async {
            match failed {
                Some(failed) => failed.await,
                None => None,
            }
        };
        let done = tokio::select! {
            biased;
            done = talked => done,
            Some(why) = said => Err(why),
        };
        forward.abort();
        done
    }

    async fn secured(&self, stream: tokio::io::DuplexStream) -> Result<TlsStream<tokio::io::DuplexStream>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let certificates = |pem: &str| -> Result<Vec<CertificateDer<'static>>, String> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|error| text(&error))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority_pem)? {
            roots.add(certificate).map_err(|error| text(&error))?;
        }
        let key = PrivateKeyDer::from_pem_slice(self.pair.private.as_bytes()).map_err(|error| text(&error))?;
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config =
            config.with_client_auth_cert(certificates(&self.pair.public)?, key).map_err(|error| text(&error))?;
        // kubeadm's serving certificate names the node and localhost; the stream ends in the pod's own network.
        let name = ServerName::try_from("localhost").map_err(|error| text(&error))?;
        TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.map_err(|error| text(&error))
    }
}

/// What has to be asked so that the member of `node` goes; `None` if it is no member. `staying` are nodes whose machines
/// stay, the newest first.
pub fn removal(members: &[Member], node: &str, staying: &[String]) -> Result<Option<Removal>, String> {
    let Some(going) = members.iter().find(|member| member.name == node) else { return Ok(None) };
    let stays = |name: &&String| members.iter().any(|member| member.name == **name);
    let via = staying.iter().find(stays).ok_or("no etcd member stays that could be asked")?;
    let target = members.iter().find(|member| member.name == *via).map(|member| member.id).unwrap_or_default();
    let from_leader = going.leads.then(|| (going.name.clone(), target));
    Ok(Some(Removal { id: going.id, via: via.clone(), from_leader }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member> {
        let member = |id, name: &str, leads| Member { id, name: name.to_owned(), leads };
        vec![member(1, "a", true), member(2, "b", false), member(3, "c", false)]
    }

    #[test]
    fn a_leader_hands_over_before_it_goes() {
        let staying = ["c".to_owned(), "b".to_owned()];
        let from_leader = Some(("a".to_owned(), 3));
        assert_eq!(removal(&members(), "a", &staying), Ok(Some(Removal { id: 1, via: "c".to_owned(), from_leader })));
        let from_leader = None;
        assert_eq!(removal(&members(), "b", &staying), Ok(Some(Removal { id: 2, via: "c".to_owned(), from_leader })));
    }

    #[test]
    fn who_is_no_member_is_not_removed_and_the_last_one_stays() {
        assert_eq!(removal(&members(), "d", &["a".to_owned()]), Ok(None));
        assert!(removal(&members()[..1], "a", &["b".to_owned()]).is_err());
    }
}
