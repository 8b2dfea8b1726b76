//! Key pairs and kubeconfigs of workload clusters.
//!
//! Source: kubernetes-sigs/cluster-api util/secret, util/certs, util/kubeconfig; kubeadm "PKI certificates and
//! requirements".

use api::{
    cluster_configuration::{ClusterConfiguration, EncryptionAlgorithm},
    names::Purpose,
};
use aws_lc_rs::digest;
use control::{Error, Result};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};
use serde_json::json;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The key pairs that a cluster needs before its first machine.
pub const PURPOSES: [Purpose; 4] = [Purpose::Ca, Purpose::Etcd, Purpose::FrontProxy, Purpose::ServiceAccount];

/// The pairs of a user's etcd, which are never made here: its authority (without a key) and a client certificate.
pub const EXTERNAL_ETCD: [Purpose; 2] = [Purpose::Etcd, Purpose::EtcdClient];

/// What a cluster of this configuration needs: the pairs that are made here, and those that the user brings.
pub fn needed(configuration: Option<&ClusterConfiguration>) -> (Vec<Purpose>, &'static [Purpose]) {
    if configuration.and_then(|found| found.etcd.as_ref()?.external.as_ref()).is_some() {
        let made = PURPOSES.into_iter().filter(|purpose| !EXTERNAL_ETCD.contains(purpose));
        (made.collect(), &EXTERNAL_ETCD)
    } else {
        (PURPOSES.into(), &[])
    }
}

/// Validity of an authority unless the user says otherwise, in days.
const CA_DAYS: i64 = 3650;
/// Validity of the administrator's certificate in a kubeconfig.
const ADMIN_DAYS: i64 = 365;
/// Validity of a certificate that is made for a few calls to etcd.
const ETCD_CLIENT_DAYS: i64 = 1;
/// Certificates begin a little in the past, for machines whose clocks are behind.
const BACKDATED_S: i64 = 300;

/// A pair in PEM: a certificate (or a public key, for service accounts) and its private key.
pub struct Pair {
    pub public: String,
    pub private: String,
}

/// Makes the key pair for a purpose. Costly (RSA): run it off the runtime's threads.
pub fn generate(
    purpose: Purpose,
    algorithm: Option<EncryptionAlgorithm>,
    ca_days: Option<i32>,
    now: Timestamp,
) -> Result<Pair> {
    let key = generate_key(algorithm.unwrap_or(EncryptionAlgorithm::RSA2048))?;
    let public = match purpose {
        Purpose::ServiceAccount => key.public_key_pem(),
        _ => {
            let mut params = CertificateParams::default();
            params.distinguished_name = common_name("kubernetes");
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages =
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
            valid(&mut params, now, ca_days.map_or(CA_DAYS, i64::from))?;
            params.self_signed(&key).map_err(|error| bug("sign an authority's certificate", error))?.pem()
        }
    };
    Ok(Pair { public, private: key.serialize_pem() })
}

fn generate_key(algorithm: EncryptionAlgorithm) -> Result<KeyPair> {
    let key = match algorithm {
        EncryptionAlgorithm::ECDSAP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        EncryptionAlgorithm::ECDSAP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        EncryptionAlgorithm::RSA2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        EncryptionAlgorithm::RSA3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        EncryptionAlgorithm::RSA4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    };
    key.map_err(|error| bug("make a key", error))
}

/// A kubeconfig for the cluster's administrator, signed by its authority.
pub fn kubeconfig(
    cluster: &str,
    endpoint: &str,
    ca: &Pair,
    algorithm: Option<EncryptionAlgorithm>,
    now: Timestamp,
) -> Result<String> {
    let unusable = |error: rcgen::Error| {
        Error::blocked(
            "CertificatesCorrupted",
            format!("the key pair in {} cannot sign: {error}", Purpose::Ca.secret_name(cluster)),
        )
    };
    let mut subject = common_name("kubernetes-admin");
    subject.push(DnType::OrganizationName, "system:masters");
    let admin = client(ca, subject, algorithm, ADMIN_DAYS, now)?.map_err(unusable)?;
    let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let (user, context) = (format!("{cluster}-admin"), format!("{cluster}-admin@{cluster}"));
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {
            "certificate-authority-data": encoded(&ca.public),
            "server": format!("https://{endpoint}"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encoded(&admin.public),
            "client-key-data": encoded(&admin.private),
        }}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
    });
    serde_saphyr::to_string(&document)
        .map_err(|error| Error::Bug { what: "write a kubeconfig".into(), source: Some(error.into()) })
}

/// A client certificate for calls to etcd, signed by the cluster's etcd authority.
pub fn etcd_client(cluster: &str, ca: &Pair, now: Timestamp) -> Result<Pair> {
    let pair = client(ca, common_name("skep"), None, ETCD_CLIENT_DAYS, now)?;
    pair.map_err(|error| {
        let name = Purpose::Etcd.secret_name(cluster);
        Error::blocked("CertificatesCorrupted", format!("the key pair in {name} cannot sign: {error}"))
    })
}

/// The inner error: the authority cannot sign.
fn client(
    ca: &Pair,
    subject: DistinguishedName,
    algorithm: Option<EncryptionAlgorithm>,
    days: i64,
    now: Timestamp,
) -> Result<std::result::Result<Pair, rcgen::Error>> {
    let key = generate_key(algorithm.unwrap_or(EncryptionAlgorithm::ECDSAP256))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    valid(&mut params, now, days)?;
    let issuer = KeyPair::from_pem(&ca.private).and_then(|authority| Issuer::from_ca_cert_pem(&ca.public, authority));
    let certificate = issuer.and_then(|issuer| params.signed_by(&key, &issuer));
    Ok(certificate.map(|certificate| Pair { public: certificate.pem(), private: key.serialize_pem() }))
}

/// Whether less than half of the life of a kubeconfig's certificate is left, or it cannot be read.
pub fn is_stale(kubeconfig: &str, now: Timestamp) -> bool {
    let end = || -> Option<Timestamp> {
        let document: serde_json::Value = serde_saphyr::from_str(kubeconfig).ok()?;
        let data = document.pointer("/users/0/user/client-certificate-data")?.as_str()?;
        let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        let certificate = pem.parse_x509().ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    };
    end().is_none_or(|end| end.duration_since(now) < SignedDuration::from_hours(ADMIN_DAYS * 12))
}

/// What kubeadm calls `caCertHashes`: `sha256:<hex>` of each certificate's public key (RFC 7469).
pub fn public_key_hashes(pem: &str) -> Result<Vec<String>> {
    let corrupted = |what: String| Error::blocked("CertificatesCorrupted", format!("the cluster's authority: {what}"));
    let mut hashes = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| corrupted(error.to_string()))?;
        let (_, certificate) =
            X509Certificate::from_der(&block.contents).map_err(|error| corrupted(error.to_string()))?;
        let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        hashes.push(format!("sha256:{hex}"));
    }
    if hashes.is_empty() { Err(corrupted("no certificate in tls.crt".into())) } else { Ok(hashes) }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn valid(params: &mut CertificateParams, now: Timestamp, days: i64) -> Result<()> {
    let at = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| Error::Bug {
            what: "a certificate's validity is out of range".into(),
            source: Some(error.into()),
        })
    };
    params.not_before = at(now.as_second() - BACKDATED_S)?;
    params.not_after = at(now.as_second() + days * 86_400)?;
    Ok(())
}

fn bug(what: &str, error: rcgen::Error) -> Error {
    Error::Bug { what: format!("cannot {what}"), source: Some(error.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_kubeconfig_is_stale_after_half_its_life() {
        let ca = generate(Purpose::Ca, Some(EncryptionAlgorithm::ECDSAP256), None, now()).unwrap();
        let text = kubeconfig("demo", "127.0.0.1:6443", &ca, None, now()).unwrap();
        assert!(text.contains("https://127.0.0.1:6443") && text.contains("demo-admin@demo"));
        assert!(!is_stale(&text, now()));
        assert!(is_stale(&text, now() + SignedDuration::from_hours(24 * 200)));
        assert!(is_stale("rubbish", now()));
    }

    #[test]
    fn the_hash_of_an_authority_is_that_of_its_public_key() {
        let ca = generate(Purpose::Ca, Some(EncryptionAlgorithm::ECDSAP256), None, now()).unwrap();
        let hashes = public_key_hashes(&ca.public).unwrap();
        assert_eq!((hashes.len(), hashes[0].len()), (1, "sha256:".len() + 64));
        assert!(public_key_hashes("no pem").is_err());
    }

    #[test]
    fn service_accounts_get_a_public_key_and_no_certificate() {
        let pair = generate(Purpose::ServiceAccount, None, None, now()).unwrap();
        assert!(pair.public.starts_with("-----BEGIN PUBLIC KEY-----"));
    }
}
