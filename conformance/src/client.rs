//! Raw HTTP to one server, as one of the users.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow};
use apiserver::protobuf;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::identity::{Authority, Pem, USERS};

/// An answer must be there in this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What a watch sends after this is not waited for.
const LINES_TIMEOUT: Duration = Duration::from_secs(6);

pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// One server.
pub struct Server {
    /// `host:port`
    pub address: String,
    users: BTreeMap<&'static str, Http>,
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub struct Asked {
    pub user: String,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// A watch: how many lines are waited for.
    pub lines: Option<usize>,
}

impl Server {
    pub fn new(address: &str, authority: &Authority) -> Result<Self> {
        let mut users = BTreeMap::new();
        for (name, common_name, groups) in USERS {
            let pem = authority.client(common_name, groups)?;
            users.insert(*name, client(&authority.certificate(), Some(&pem))?);
        }
        users.insert("anonymous", client(&authority.certificate(), None)?);
        Ok(Self { address: address.to_owned(), users })
    }

    pub async fn ask(&self, asked: &Asked) -> Result<Answer> {
        let client = self.users.get(asked.user.as_str()).with_context(|| format!("no user {}", asked.user))?;
        let mut request =
            Request::builder().method(asked.method.clone()).uri(format!("https://{}{}", self.address, asked.path));
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(asked.body.clone())).context("make the request")?;
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, client.request(request)).await;
        let response = sent.map_err(|_| anyhow!("no answer"))?.map_err(|e| anyhow!("{e:?}"))?;
        let (parts, mut body) = response.into_parts();
        let is_protobuf = media(&parts.headers).starts_with(PROTOBUF);
        let bytes = match asked.lines {
            None => {
                tokio::time::timeout(ANSWER_TIMEOUT, body.collect()).await.map_err(|_| anyhow!("no end"))??.to_bytes()
            }
            Some(wanted) => {
                let mut read = Vec::new();
                let reading = async {
                    while end(&read, is_protobuf, wanted).is_none() {
                        let Some(frame) = body.frame().await else { break };
                        let Ok(frame) = frame else { break };
                        read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
                    }
                };
                let _ = tokio::time::timeout(LINES_TIMEOUT, reading).await;
                // One frame may hold more than was asked for.
                read.truncate(end(&read, is_protobuf, wanted).unwrap_or(read.len()));
                read.into()
            }
        };
        Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body: bytes })
    }
}

/// Where so many events of a watch end, if they are there.
fn end(bytes: &[u8], is_protobuf: bool, events: usize) -> Option<usize> {
    if !is_protobuf {
        let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        return ends.nth(events.checked_sub(1)?).map(|(at, _)| at + 1);
    }
    let mut rest = bytes;
    for _ in 0..events {
        rest = protobuf::frame(rest)?.1;
    }
    Some(bytes.len() - rest.len())
}

fn media(headers: &HeaderMap) -> &str {
    headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default()
}

impl Answer {
    pub fn media(&self) -> &str {
        media(&self.headers)
    }
}

fn client(authority: &str, pem: Option<&Pem>) -> Result<Http> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match pem {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes())?;
            config.with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_slice(pem.key.as_bytes())?)?
        }
    };
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let https =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).build(https))
}
