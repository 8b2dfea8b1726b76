//! Certificates that kubeadm makes on a machine, from the authorities that the machine was given.
//!
//! Source: kubeadm, "PKI certificates and requirements".

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::prelude::FromDer;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("error execution phase certs/{name}: failure loading {name} certificate or key: {what}")]
    Authority { name: &'static str, what: String },
    #[error("error execution phase certs/{name}: the certificate and the private key do not match")]
    Mismatch { name: &'static str },
    #[error("cannot sign a certificate for {subject}")]
    Sign {
        subject: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("the certificate request cannot be read: {0}")]
    Request(String),
}

/// An authority that signs.
pub struct Authority {
    pub certificate_pem: String,
    key_pem: String,
}

/// A key with its certificate, in PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// Checks, as kubeadm does, that certificate and key belong together.
    pub fn load(name: &'static str, certificate_pem: Option<&str>, key_pem: Option<&str>) -> Result<Self, Error> {
        let failed = |what: String| Error::Authority { name, what };
        let certificate_pem = certificate_pem.ok_or_else(|| failed("the certificate was not written".into()))?;
        let key_pem = key_pem.ok_or_else(|| failed("the key was not written".into()))?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| failed(error.to_string()))?;
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&pem.contents)
            .map_err(|error| failed(error.to_string()))?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(Error::Mismatch { name });
        }
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// A serving certificate for an API server.
    pub fn server(&self, names: &[String], now: Timestamp, validity_hours: i64) -> Result<Signed, Error> {
        let mut params = base(now, "kube-apiserver", &[]);
        let end = time::OffsetDateTime::from_unix_timestamp(now.as_second().saturating_add(validity_hours * 3600));
        params.not_after = end.unwrap_or(params.not_after);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => match name.as_str().try_into() {
                    Ok(name) => SanType::DnsName(name),
                    Err(_) => continue,
                },
            });
        }
        let failed = |source| Error::Sign { subject: "kube-apiserver".into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer().map_err(failed)?).map_err(failed)?;
        Ok(Signed { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs a request as the kubelet's client certificate: its subject, and client authentication only.
    pub fn sign_request(&self, request_pem: &str, now: Timestamp) -> Result<String, Error> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|error| Error::Request(error.to_string()))?;
        let subject = request.params.distinguished_name.clone();
        request.params = base(now, "", &[]);
        request.params.distinguished_name = subject;
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let failed = |source| Error::Sign { subject: "the kubelet".into(), source };
        let certificate = request.signed_by(&self.issuer().map_err(failed)?).map_err(failed)?;
        Ok(certificate.pem())
    }

    fn issuer(&self) -> Result<Issuer<'_, KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_pem(&self.certificate_pem, KeyPair::from_pem(&self.key_pem)?)
    }
}

/// A key and a request for it: what a kubelet sends when it joins.
pub fn request(name: &str, groups: &[&str], now: Timestamp) -> Result<(KeyPair, String), Error> {
    let failed = |source| Error::Sign { subject: name.to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let request = base(now, name, groups).serialize_request(&key).map_err(failed)?;
    let pem = request.pem().map_err(failed)?;
    Ok((key, pem))
}

/// Common name and organization of a request.
pub fn subject(request_pem: &[u8]) -> Option<(String, Vec<String>)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(request_pem).ok()?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    Some((name, groups))
}

/// `sha256:<hex>` of the certificate's public key: what `caCertHashes` pins.
pub fn public_key_hash(certificate_pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sha256:{hex}"))
}

/// Valid for a year from a little before now.
fn base(now: Timestamp, name: &str, groups: &[&str]) -> CertificateParams {
    const BACKDATED_S: i64 = 300;
    const LIFE_S: i64 = 365 * 86_400;
    let at =
        |second: i64| time::OffsetDateTime::from_unix_timestamp(second).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let mut params = CertificateParams::default();
    params.not_before = at(now.as_second() - BACKDATED_S);
    params.not_after = at(now.as_second() + LIFE_S);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params
}
