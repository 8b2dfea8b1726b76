//! Whom a webhook's `caBundle` trusts: what its authorities have signed, and a certificate that is itself in the bundle. The
//! latter is how Go's `crypto/x509` reads a pool of roots, and how many webhooks bring their own certificate, which is often
//! marked as an authority; webpki refuses such a one at the end of a chain.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

#[derive(Debug)]
pub(super) struct Trust {
    bundle: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Trust {
    /// Of certificates in PEM, at least one; what is wrong with them is told as Kubernetes' client tells it.
    pub fn of(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let load = |error: &dyn std::fmt::Display| format!("unable to load root certificates: {error}");
        let (mut bundle, mut roots) = (Vec::new(), RootCertStore::empty());
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| load(&error))?;
            roots.add(certificate.clone()).map_err(|error| load(&error))?;
            bundle.push(certificate);
        }
        if roots.is_empty() {
            return Err(load(&"unable to parse bytes as PEM block"));
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        Ok(Self { bundle, authorities: authorities.map_err(|error| load(&error))? })
    }
}

/// A certificate that is trusted as it is must still be of this time, for servers, and of this name.
fn check(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).map_err(|_| CertificateError::Expired)?;
    let now = ASN1Time::from_timestamp(seconds).map_err(|_| CertificateError::Expired)?;
    if now < parsed.validity().not_before {
        return Err(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after {
        return Err(CertificateError::Expired);
    }
    let usage = parsed.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Err(CertificateError::InvalidPurpose);
    }
    let named = ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, name));
    named.map_err(|error| match error {
        Error::InvalidCertificate(error) => error,
        _ => CertificateError::NotValidForName,
    })
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.bundle.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            check(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    const NAME: &str = "hook.example.com";

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn trusted(certificate: &CertificateDer<'static>, name: &str, day: u64) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        let trust = Trust::of(pem.as_bytes(), &provider).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(day * 24 * 3600));
        trust.verify_server_cert(certificate, &[], &name, &[], now).map(drop)
    }

    #[test]
    fn an_authority_may_serve_itself_in_its_time_and_by_its_name() {
        // In days since 1970.
        const WITHIN: u64 = 20_200;
        let own = certificate(|_| {});
        assert!(trusted(&own, NAME, WITHIN).is_ok());
        assert!(trusted(&own, "other.example.com", WITHIN).is_err());
        assert_eq!(trusted(&own, NAME, 20_088).unwrap_err(), CertificateError::NotValidYet.into());
        assert_eq!(trusted(&own, NAME, 20_455).unwrap_err(), CertificateError::Expired.into());
        let client = certificate(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(trusted(&client, NAME, WITHIN).unwrap_err(), CertificateError::InvalidPurpose.into());
        let server = certificate(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert!(trusted(&server, NAME, WITHIN).is_ok());
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        assert!(Trust::of(b"nothing", &provider).is_err());
    }
}
