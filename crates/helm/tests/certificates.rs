//! Certificates that templates make, read by another library.

use std::sync::Arc;

use helm::{
    chart::{Chart, Files},
    release::{Capabilities, Release},
    render,
    values::Table,
    world::{KeyKind, World},
};
use jiff::Timestamp;
use rcgen::KeyPair;
use x509_parser::{extensions::GeneralName, pem::Pem};

fn made(template: &str) -> String {
    let files = [("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n"), ("templates/t", template)];
    let files: Files = files.into_iter().map(|(path, text)| (path.to_owned(), Arc::from(text.as_bytes()))).collect();
    let release = Release { name: "r".to_owned(), namespace: "ns".to_owned(), revision: 1, is_upgrade: false };
    let key = |kind| {
        let made = match kind {
            KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            _ => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
        };
        Ok(made.unwrap().serialize_der())
    };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let world = World::without_cluster(now, |bytes| bytes.fill(7), key);
    let chart = Chart::load(&files).unwrap();
    render(&chart, &Table::new(), &release, &Capabilities::of("v1.36.0", Vec::new()), world).unwrap()["c/templates/t"]
        .clone()
}

#[test]
fn a_certificate_is_signed_by_its_authority_and_has_the_names_that_are_asked_for() {
    let template = r#"{{ $ca := genCA "the-ca" 365 }}{{ $c := genSignedCert "me" (list "10.0.0.1") (list "a.b" "*.c") 10 $ca }}{{ $ca.Cert }}{{ $c.Cert }}"#;
    let text = made(template);
    let pems: Vec<Pem> = Pem::iter_from_buffer(text.as_bytes()).map(Result::unwrap).collect();
    let certificates: Vec<_> = pems.iter().map(|pem| pem.parse_x509().unwrap()).collect();
    let [authority, certificate] = &certificates[..] else { panic!("{text}") };
    assert!(authority.is_ca() && !certificate.is_ca());
    assert_eq!(certificate.issuer().to_string(), "CN=the-ca");
    assert_eq!(certificate.subject().to_string(), "CN=me");
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(
        names[..],
        [GeneralName::DNSName("a.b"), GeneralName::DNSName("*.c"), GeneralName::IPAddress(&[10, 0, 0, 1])]
    );
    let validity = certificate.validity();
    assert_eq!(validity.not_before.timestamp(), 1_800_000_000);
    assert_eq!(validity.not_after.timestamp(), 1_800_000_000 + 10 * 86_400);
}

#[test]
fn keys_that_templates_make_can_be_given_back() {
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let template = format!(
            r#"{{{{ $k := genPrivateKey "{kind}" }}}}{{{{ $ca := genCAWithKey "x" 1 $k }}}}{{{{ eq $ca.Key $k }}}} {{{{ (buildCustomCert (b64enc $ca.Cert) (b64enc $k)).Cert | eq $ca.Cert }}}}"#
        );
        assert_eq!(made(&template), "true true", "{kind}");
    }
}
