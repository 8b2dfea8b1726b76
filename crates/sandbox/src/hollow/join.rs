//! `kubeadm join`, over the network and with the machine's own credentials: discovery, token, certificate request.
//!
//! Source: kubeadm implementation details (phases preflight, kubelet-start, control-plane-join).

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
        core::v1::ConfigMap,
    },
};
use kube::{Api, Client, Config, api::PostParams, core::ObjectMeta};
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use super::{
    kubeadm::{BootstrapToken, ClusterConfiguration, JoinConfiguration},
    network::Network,
    pki, signer,
    user_data::CloudConfig,
};

/// One call; kubeadm itself goes on for minutes, which is the caller's loop.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a signed certificate is waited for, and the pause between two looks.
const CERTIFICATE_LIMIT: Duration = Duration::from_secs(30);
const CERTIFICATE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API is not there yet, or broke off: kubeadm tries again.
    #[error("couldn't reach the API server at {endpoint}: {what}")]
    Unreachable { endpoint: String, what: String },
    /// The signer may not have come to it yet; it never will if no such token is in the cluster.
    #[error(
        "couldn't validate the identity of the API Server: could not find a JWS signature in the cluster-info ConfigMap for token ID \"{id}\": the bootstrap token is wrong or has expired"
    )]
    Unsigned { id: String },
    /// Trying again changes nothing.
    #[error("{0}")]
    Refused(String),
}

/// What a machine has after it joined: a client with the kubelet's certificate, and the cluster's configuration.
pub struct Joined {
    pub client: Client,
    pub configuration: ClusterConfiguration,
}

/// How a machine finds its cluster and proves who it is.
pub enum Discovery<'a> {
    /// By a token that has signed cluster-info; with the token of the certificate request.
    Token(&'a BootstrapToken, &'a str),
    /// By a kubeconfig that was written to the machine.
    File(FromFile),
}

/// What a kubeconfig file says.
pub struct FromFile {
    endpoint: String,
    ca_pem: String,
    bearer: String,
}

impl<'a> Discovery<'a> {
    pub fn of(join: &'a JoinConfiguration, machine: &CloudConfig) -> Result<Self, Error> {
        let bearer = join.discovery.tls_bootstrap_token.as_str();
        match (&join.discovery.bootstrap_token, &join.discovery.file) {
            (Some(token), _) => {
                if token.token.split_once('.').is_none_or(|(id, secret)| id.len() != 6 || secret.len() != 16) {
                    return Err(Error::Refused(
                        "discovery.bootstrapToken.token: the bootstrap token is invalid".into(),
                    ));
                }
                Ok(Self::Token(token, if bearer.is_empty() { &token.token } else { bearer }))
            }
            (None, Some(file)) => Ok(Self::File(FromFile::read(&file.kube_config_path, bearer, machine)?)),
            (None, None) => {
                Err(Error::Refused("discovery: Invalid value: \"\": bootstrapToken or file must be set".into()))
            }
        }
    }

    /// `host:port` of the API server.
    pub fn endpoint(&self) -> &str {
        match self {
            Self::Token(token, _) => &token.api_server_endpoint,
            Self::File(file) => &file.endpoint,
        }
    }
}

impl FromFile {
    fn read(path: &str, bearer: &str, machine: &CloudConfig) -> Result<Self, Error> {
        let refused = |what: &str| Error::Refused(format!("discovery.file {path}: {what}"));
        let text = machine.text(path).ok_or_else(|| refused("it was not written"))?;
        // Not what the parser quotes: a kubeconfig holds secrets, and consoles are shown to many.
        let document: Value = serde_saphyr::from_str(text).map_err(|_| refused("it is not a kubeconfig"))?;
        let at = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let server = at("/clusters/0/cluster/server").ok_or_else(|| refused("it names no server"))?;
        let endpoint = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/').to_owned();
        let ca_pem = match (
            at("/clusters/0/cluster/certificate-authority-data"),
            at("/clusters/0/cluster/certificate-authority"),
        ) {
            (Some(data), _) => STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
            (None, Some(path)) => machine.text(path).map(str::to_owned),
            (None, None) => None,
        };
        let ca_pem = ca_pem.ok_or_else(|| refused("it has no certificate authority"))?;
        let bearer = if bearer.is_empty() { at("/users/0/user/token").unwrap_or_default() } else { bearer };
        if bearer.is_empty() {
            return Err(refused(
                "it has no token and tlsBootstrapToken is empty; a hollow machine runs no credential plugins",
            ));
        }
        Ok(Self { endpoint, ca_pem, bearer: bearer.to_owned() })
    }
}

pub async fn join(
    network: &dyn Network,
    discovery: &Discovery<'_>,
    node: &str,
    now: Timestamp,
) -> Result<Joined, Error> {
    let endpoint = discovery.endpoint();
    let (ca_pem, bearer) = match discovery {
        Discovery::Token(token, bearer) => (discover(network, token).await?, (*bearer).to_owned()),
        Discovery::File(file) => (file.ca_pem.clone(), file.bearer.clone()),
    };
    let mut config = base(endpoint)?;
    config.root_cert = Some(vec![der(&ca_pem, endpoint)?]);
    let mut with_token = config.clone();
    with_token.auth_info.token = Some(bearer.into());
    let client = client(network, with_token, endpoint)?;
    let map = Api::<ConfigMap>::namespaced(client.clone(), "kube-system").get("kubeadm-config").await;
    let map = map.map_err(|error| failed(endpoint, "failed to get config map kubeadm-config", error))?;
    let text = map.data.and_then(|mut data| data.remove("ClusterConfiguration")).unwrap_or_default();
    let cluster: ClusterConfiguration = serde_saphyr::from_str(&text)
        .map_err(|error| Error::Refused(format!("the cluster's kubeadm-config cannot be read: {error}")))?;
    let (certificate, key) = request(&client, endpoint, node, now).await?;
    config.auth_info.client_certificate_data = Some(STANDARD.encode(certificate));
    config.auth_info.client_key_data = Some(STANDARD.encode(key).into());
    Ok(Joined { client: self::client(network, config, endpoint)?, configuration: cluster })
}

/// Reads cluster-info without trust, and checks the token's signature of it and its authority against the pinned hashes.
async fn discover(network: &dyn Network, token: &BootstrapToken) -> Result<String, Error> {
    let endpoint = &token.api_server_endpoint;
    let mut config = base(endpoint)?;
    config.accept_invalid_certs = true;
    // Nobody is trusted yet: the authorities of this machine, which are read from files otherwise, do not matter.
    config.root_cert = Some(Vec::new());
    let map = Api::<ConfigMap>::namespaced(client(network, config, endpoint)?, "kube-public").get("cluster-info").await;
    let map = map.map_err(|error| failed(endpoint, "failed to request the cluster-info ConfigMap", error))?;
    let data = map.data.unwrap_or_default();
    let text = signed(&data, token)?;
    let kubeconfig: Value = serde_saphyr::from_str(text).map_err(|error| {
        Error::Refused(format!("couldn't parse the kubeconfig file in the cluster-info ConfigMap: {error}"))
    })?;
    let data = kubeconfig.pointer("/clusters/0/cluster/certificate-authority-data").and_then(Value::as_str);
    let pem = data.and_then(|data| STANDARD.decode(data).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
    let pem =
        pem.ok_or_else(|| Error::Refused("the cluster-info ConfigMap has no certificate-authority-data".into()))?;
    if token.unsafe_skip_ca_verification {
        return Ok(pem);
    }
    let hash = pki::public_key_hash(&pem).unwrap_or_default();
    if token.ca_cert_hashes.contains(&hash) {
        return Ok(pem);
    }
    Err(Error::Refused(format!(
        "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys \"{hash}\" are pinned"
    )))
}

/// The kubeconfig in cluster-info, if the token has signed it.
fn signed<'a>(data: &'a BTreeMap<String, String>, token: &BootstrapToken) -> Result<&'a str, Error> {
    let refused = |why: &str| Error::Refused(format!("couldn't validate the identity of the API Server: {why}"));
    let Some(text) = data.get("kubeconfig").filter(|text| !text.is_empty()) else {
        return Err(refused(
            "there is no kubeconfig key in the cluster-info ConfigMap. This API Server isn't set up for token bootstrapping, can't connect",
        ));
    };
    let (id, secret) = token.token.split_once('.').unwrap_or_default();
    let signature = data.get(&format!("{}{id}", signer::PREFIX));
    let signature = signature.ok_or_else(|| Error::Unsigned { id: id.to_owned() })?;
    if !signer::is_valid(signature, text, id, secret) {
        return Err(refused(
            "failed to verify JWS signature of received cluster info object, can't trust this API Server: the bootstrap token is wrong",
        ));
    }
    Ok(text)
}

/// Asks for a kubelet's client certificate and waits until it is signed.
async fn request(client: &Client, endpoint: &str, node: &str, now: Timestamp) -> Result<(String, String), Error> {
    let (key, pem) = pki::request(&format!("system:node:{node}"), &["system:nodes"], now)
        .map_err(|error| Error::Refused(error.to_string()))?;
    let requests = Api::<CertificateSigningRequest>::all(client.clone());
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: "kubernetes.io/kube-apiserver-client-kubelet".into(),
            usages: Some(vec!["digital signature".into(), "client auth".into()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let created = requests.create(&PostParams::default(), &object).await;
    let created = created.map_err(|error| failed(endpoint, "cannot create certificate signing request", error))?;
    let name = created.metadata.name.unwrap_or_default();
    let signed = async {
        loop {
            let found = requests.get(&name).await;
            let found = found.map_err(|error| failed(endpoint, "cannot read certificate signing request", error))?;
            if let Some(certificate) = found.status.and_then(|status| status.certificate) {
                return Ok(String::from_utf8_lossy(&certificate.0).into_owned());
            }
            tokio::time::sleep(CERTIFICATE_PAUSE).await;
        }
    };
    let certificate = tokio::time::timeout(CERTIFICATE_LIMIT, signed).await.map_err(|_| Error::Unreachable {
        endpoint: endpoint.to_owned(),
        what: format!("certificate signing request {name} was not signed in time"),
    })??;
    Ok((certificate, key.serialize_pem()))
}

fn base(endpoint: &str) -> Result<Config, Error> {
    let url = format!("https://{endpoint}").parse();
    let mut config =
        Config::new(url.map_err(|_| Error::Refused(format!("API server endpoint {endpoint:?} is not host:port")))?);
    config.connect_timeout = Some(CALL_LIMIT);
    config.read_timeout = Some(CALL_LIMIT);
    config.default_namespace = "default".into();
    Ok(config)
}

fn client(network: &dyn Network, config: Config, endpoint: &str) -> Result<Client, Error> {
    network.client(config).map_err(|error| Error::Refused(format!("cannot set up a client of {endpoint}: {error}")))
}

fn der(pem: &str, endpoint: &str) -> Result<Vec<u8>, Error> {
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .map(|der| der.to_vec())
        .map_err(|error| Error::Refused(format!("the authority of {endpoint} is not PEM: {error:?}")))
}

/// An answer is final when it says that these credentials will not do.
fn failed(endpoint: &str, what: &str, error: kube::Error) -> Error {
    match &error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            Error::Refused(format!("{what}: {} (the bootstrap token is wrong or has expired)", status.message))
        }
        kube::Error::Api(status) => {
            Error::Unreachable { endpoint: endpoint.to_owned(), what: format!("{what}: {}", status.message) }
        }
        _ => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            Error::Unreachable { endpoint: endpoint.to_owned(), what: format!("{what}: {text}") }
        }
    }
}
