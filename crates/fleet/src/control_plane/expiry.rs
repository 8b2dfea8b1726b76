//! When the certificates of the API servers end: read once from each, noted on its KubeadmConfig, and a reason to replace
//! the machine in time if the user wants that.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane, reconcileCertificateExpiries.

use std::sync::Arc;

use api::{kubeadm::KubeadmConfig, machine::Machine, meta::Time, names};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Seen, etcd, machines, rollout::name_of};
use crate::owner;

/// The port of an API server unless its configuration says otherwise.
const PORT: u16 = 6443;
/// For how long kubeadm's certificates are good unless the configuration says otherwise, in days.
const VALIDITY_DAYS: i32 = 365;

/// An API server whose certificate has not been looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Unread {
    pub config: Arc<KubeadmConfig>,
    pub node: String,
    port: u16,
}

/// Those that run and were never looked at: their certificates do not change.
pub fn unread(seen: &Seen) -> Vec<Unread> {
    if !seen.initialized || seen.pods.is_err() {
        return Vec::new();
    }
    let of = |machine: &Arc<Machine>| {
        let config = seen.configs.get(name_of(machine))?;
        let known = owner::annotation_of(&config.metadata, names::CERTIFICATES_EXPIRY_ANNOTATION).is_some();
        if known || machine.metadata.deletion_timestamp.is_some() || !machines::runs(seen, machine) {
            return None;
        }
        let node = machine.status.as_ref()?.node_ref.as_ref()?.name.clone();
        let init = config.spec.init_configuration.as_ref().and_then(|init| init.local_api_endpoint.as_ref());
        let join = config.spec.join_configuration.as_ref().and_then(|join| join.control_plane.as_ref());
        let port =
            join.and_then(|join| join.local_api_endpoint.as_ref()).or(init).and_then(|endpoint| endpoint.bind_port);
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
        Some(Unread { config: config.clone(), node, port })
    };
    seen.machines.iter().filter_map(of).collect()
}

/// Asks the API server on the node for its certificate, and reads when that ends.
pub async fn read(client: &Client, unread: &Unread, authority_pem: &str) -> Result<Timestamp, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| text(&error))?).map_err(|error| text(&error))?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let pod = format!("kube-apiserver-{}", unread.node);
    let asked = async {
        let line = etcd::forward(client, &pod, unread.port).await?;
        let name = ServerName::try_from("kubernetes").map_err(|error| text(&error))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, line.stream).await;
        let stream = stream.map_err(|error| text(&error))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let (_, certificate) =
            X509Certificate::from_der(shown.ok_or("it shows no certificate")?).map_err(|error| text(&error))?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).map_err(|error| text(&error))
    };
    let asked = tokio::time::timeout(etcd::CALL_LIMIT, asked).await;
    asked.map_err(|_| "no answer in time".to_owned())?
}

/// The configuration with the end of its machine's certificates noted.
pub fn noted(config: &KubeadmConfig, end: Timestamp) -> KubeadmConfig {
    let mut after = config.clone();
    let text = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    owner::annotate(&mut after.metadata, names::CERTIFICATES_EXPIRY_ANNOTATION, text);
    after
}

/// When the certificates of the machine end, once that is known.
pub fn of(seen: &Seen, machine: &Machine) -> Option<Time> {
    let config = seen.configs.get(name_of(machine))?;
    let text = owner::annotation_of(&config.metadata, names::CERTIFICATES_EXPIRY_ANNOTATION)?;
    text.parse().ok().map(Time)
}

/// They end sooner than the user wants a machine to be replaced. Certificates that are good for less time than that from
/// the beginning are no reason: those of the next machine would be none better.
pub fn is_near(seen: &Seen, machine: &Machine, now: &Time) -> bool {
    let spec = &seen.control_plane.spec;
    let before = spec.rollout.as_ref().and_then(|rollout| rollout.before.as_ref()?.certificates_expiry_days);
    let validity = super::cluster_configuration(&seen.control_plane);
    let validity = validity.and_then(|found| found.certificate_validity_period_days).unwrap_or(VALIDITY_DAYS);
    let Some(days) = before.filter(|days| *days < validity) else { return false };
    of(seen, machine).is_some_and(|end| end.0.duration_since(now.0) < SignedDuration::from_hours(24 * i64::from(days)))
}
