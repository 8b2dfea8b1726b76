//! Signatures as cosign keeps them: beside an artefact, under a tag made of its digest.
//!
//! Source: sigstore/cosign specs/SIGNATURE_SPEC.md. Keys only: no certificates, no transparency log.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::Value;
use x509_parser::prelude::FromDer;

use super::oci::Layer;

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Signatures of one artefact that are looked at.
pub const SIGNATURES_MAX: usize = 32;
/// What is signed: a few lines.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Where the signatures of an artefact of this digest are.
pub fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// The layers that are signed payloads, with their signatures in base64.
pub(super) fn candidates(layers: &[Layer]) -> impl Iterator<Item = (&Layer, &str)> {
    let signed = layers.iter().filter(|layer| layer.media_type == PAYLOAD);
    let told = signed.filter_map(|layer| Some((layer, layer.annotations.get(SIGNATURE)?.as_str())));
    told.take(SIGNATURES_MAX)
}

/// Whether a payload speaks of the artefact of this digest.
pub fn is_of(payload: &[u8], digest: &str) -> bool {
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else { return false };
    payload["critical"]["image"]["docker-manifest-digest"] == digest
        && payload["critical"]["type"] == "cosign container image signature"
}

/// Whether the signature (base64) of the payload is by this public key (PEM).
pub fn verifies(key_pem: &str, payload: &[u8], signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    let Some((algorithm, key)) = read(key_pem) else { return false };
    UnparsedPublicKey::new(algorithm, key).verify(payload, &signature).is_ok()
}

/// Whether a text is a public key that signatures can be checked with.
pub fn is_key(key_pem: &str) -> bool {
    read(key_pem).is_some()
}

/// How a public key signs, and its bytes as aws-lc takes them.
fn read(key_pem: &str) -> Option<(&'static dyn VerificationAlgorithm, Vec<u8>)> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(key_pem.as_bytes()).ok()?;
    let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&der).ok()?;
    let curve = || info.algorithm.parameters.as_ref()?.as_oid().ok().map(|oid| oid.to_id_string());
    let algorithm: &'static dyn VerificationAlgorithm = match info.algorithm.algorithm.to_id_string().as_str() {
        // id-ecPublicKey, with prime256v1 or secp384r1
        "1.2.840.10045.2.1" => match curve()?.as_str() {
            "1.2.840.10045.3.1.7" => &ECDSA_P256_SHA256_ASN1,
            "1.3.132.0.34" => &ECDSA_P384_SHA384_ASN1,
            _ => return None,
        },
        // rsaEncryption
        "1.2.840.113549.1.1.1" => &RSA_PKCS1_2048_8192_SHA256,
        // id-Ed25519
        "1.3.101.112" => &ED25519,
        _ => return None,
    };
    Some((algorithm, info.subject_public_key.data.to_vec()))
}
