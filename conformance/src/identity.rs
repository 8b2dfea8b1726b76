//! Who the two servers are and who calls them: one authority, so that both know the same users.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

/// Users of cases: name, common name, groups.
pub const USERS: &[(&str, &str, &[&str])] = &[
    ("admin", "admin", &["system:masters"]),
    ("alice", "alice", &["dev"]),
    ("bob", "bob", &["ops"]),
    ("carol", "carol", &[]),
];

/// A certificate and its key, in PEM.
pub struct Pem {
    pub certificate: String,
    pub key: String,
}

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What signs service account tokens, in PEM.
    pub service_account_key: String,
    pub service_account_public_key: String,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "conformance");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("make the authority")?;
        let signing = KeyPair::generate()?;
        Ok(Self {
            issuer,
            service_account_key: signing.serialize_pem(),
            service_account_public_key: signing.public_key_pem(),
        })
    }

    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    pub fn server(&self) -> Result<Pem> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.subject_alt_names.push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pem> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        // rcgen keeps one value for each attribute; a user of several groups has its first only.
        if let Some(group) = groups.first() {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Pem> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).context("sign a certificate")?;
        Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
