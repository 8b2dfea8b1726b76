//! Signatures of JSON Web Tokens (RFC 7515, 7517, 7518): public keys in PEM and as JSON Web Keys, and what is signed with them.
//! Only asymmetric algorithms, which are those that Kubernetes takes.

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::{prelude::FromDer, public_key::PublicKey as Parsed, x509::SubjectPublicKeyInfo};

/// A token taken apart; nothing of it is checked.
pub(crate) struct Token<'a> {
    pub algorithm: String,
    pub key_id: String,
    input: &'a str,
    signature: Vec<u8>,
    pub claims: Value,
}

impl<'a> Token<'a> {
    /// None: this is no token of three parts with a header and claims.
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        let (input, signature) = token.rsplit_once('.')?;
        let (header, claims) = input.split_once('.')?;
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok() };
        let header = json(header)?;
        let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        // Extensions that must be understood are not (RFC 7515, section 4.1.11).
        if header.get("crit").is_some() {
            return None;
        }
        let claims = json(claims).filter(Value::is_object)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { algorithm: text("alg"), key_id: text("kid"), input, signature, claims })
    }

    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        let Some(method) = key.method(&self.algorithm) else { return false };
        if !key.id.is_empty() && !self.key_id.is_empty() && key.id != self.key_id {
            return false;
        }
        let Ok(key) = ParsedPublicKey::new(method, &key.der) else { return false };
        key.verify_sig(self.input.as_bytes(), &self.signature).is_ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point: 4, then both coordinates.
    Ec(Curve, Vec<u8>),
}

/// A key that signatures are checked with.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// Empty: any.
    pub id: String,
    shape: Shape,
    /// The only algorithm that it may be used with; empty: any that fits.
    algorithm: String,
    /// As the verifier wants it: PKCS#1 or a point.
    der: Vec<u8>,
}

impl Curve {
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }
}

/// DER of an unsigned number, which may begin with zeros.
fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let mut value = bytes[start..].to_vec();
    if value.first().is_none_or(|first| *first >= 0x80) {
        value.insert(0, 0);
    }
    der(0x02, &value)
}

fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(value.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let length = value.len().to_be_bytes();
            let start = length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1);
            out.push(0x80 | u8::try_from(length.len() - start).unwrap_or(0));
            out.extend_from_slice(&length[start..]);
        }
    }
    out.extend_from_slice(value);
    out
}

impl PublicKey {
    fn new(shape: Shape, id: String, algorithm: String) -> Self {
        let der = match &shape {
            Shape::Rsa { modulus, exponent } => der(0x30, &[der_integer(modulus), der_integer(exponent)].concat()),
            Shape::Ec(_, point) => point.clone(),
        };
        Self { id, shape, algorithm, der }
    }

    /// A SubjectPublicKeyInfo (RFC 5280); its id is the one that Kubernetes gives it.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, String> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|error| error.to_string())?;
        let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let id = URL_SAFE_NO_PAD.encode(id);
        let shape = match info.parsed().map_err(|error| error.to_string())? {
            Parsed::RSA(key) => {
                let trim = |bytes: &[u8]| {
                    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                    bytes[start..].to_vec()
                };
                Shape::Rsa { modulus: trim(key.modulus), exponent: trim(key.exponent) }
            }
            Parsed::EC(point) => {
                let point = point.data();
                let mut curves = [Curve::P256, Curve::P384, Curve::P521].into_iter();
                let curve = curves.find(|curve| point.len() == 2 * curve.bytes() + 1);
                Shape::Ec(curve.ok_or("a curve other than P-256, P-384 and P-521")?, point.to_vec())
            }
            _ => return Err("neither RSA nor EC".to_owned()),
        };
        let key = Self::new(shape, id, String::new());
        key.check()?;
        Ok(key)
    }

    /// A JSON Web Key; `None` if it is not one for checking signatures with that is known here.
    pub(crate) fn from_jwk(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name).trim_end_matches('=')).ok();
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let shape = match text("kty") {
            "RSA" => Shape::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
            "EC" => {
                let curve =
                    [Curve::P256, Curve::P384, Curve::P521].into_iter().find(|curve| curve.name() == text("crv"))?;
                let mut point = vec![4];
                for name in ["x", "y"] {
                    let value = bytes(name).filter(|value| value.len() <= curve.bytes())?;
                    point.extend(std::iter::repeat_n(0, curve.bytes() - value.len()));
                    point.extend(value);
                }
                Shape::Ec(curve, point)
            }
            _ => return None,
        };
        let key = Self::new(shape, text("kid").to_owned(), text("alg").to_owned());
        key.check().ok()?;
        Some(key)
    }

    /// Whether signatures can be checked with it.
    fn check(&self) -> Result<(), String> {
        let method = self.method(self.default_algorithm()).ok_or("no known algorithm")?;
        ParsedPublicKey::new(method, &self.der).map(drop).map_err(|error| error.to_string())
    }

    /// What a holder of the private key signs with.
    pub(crate) fn default_algorithm(&self) -> &str {
        match &self.shape {
            _ if !self.algorithm.is_empty() => &self.algorithm,
            Shape::Rsa { .. } => "RS256",
            Shape::Ec(Curve::P256, _) => "ES256",
            Shape::Ec(Curve::P384, _) => "ES384",
            Shape::Ec(Curve::P521, _) => "ES512",
        }
    }

    pub(crate) fn to_jwk(&self) -> Value {
        let mut key = match &self.shape {
            Shape::Rsa { modulus, exponent } => {
                json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent)})
            }
            Shape::Ec(curve, point) => {
                let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                json!({"kty": "EC", "crv": curve.name(), "x": x, "y": y})
            }
        };
        key["use"] = "sig".into();
        key["kid"] = self.id.as_str().into();
        key["alg"] = self.default_algorithm().into();
        key
    }

    /// How to check a signature of that algorithm; `None` if this key is not for it.
    fn method(&self, algorithm: &str) -> Option<&'static dyn VerificationAlgorithm> {
        if !self.algorithm.is_empty() && self.algorithm != algorithm {
            return None;
        }
        Some(match (&self.shape, algorithm) {
            (Shape::Rsa { .. }, "RS256") => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Shape::Rsa { .. }, "RS384") => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Shape::Rsa { .. }, "RS512") => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Shape::Rsa { .. }, "PS256") => &signature::RSA_PSS_2048_8192_SHA256,
            (Shape::Rsa { .. }, "PS384") => &signature::RSA_PSS_2048_8192_SHA384,
            (Shape::Rsa { .. }, "PS512") => &signature::RSA_PSS_2048_8192_SHA512,
            (Shape::Ec(Curve::P256, _), "ES256") => &signature::ECDSA_P256_SHA256_FIXED,
            (Shape::Ec(Curve::P384, _), "ES384") => &signature::ECDSA_P384_SHA384_FIXED,
            (Shape::Ec(Curve::P521, _), "ES512") => &signature::ECDSA_P521_SHA512_FIXED,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn a_key_is_the_same_from_pem_and_as_a_json_web_key() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let key = PublicKey::from_spki(&pair.subject_public_key_info()).unwrap();
            let again = PublicKey::from_jwk(&key.to_jwk()).unwrap();
            assert_eq!((&key.shape, &key.id, &key.der), (&again.shape, &again.id, &again.der));
        }
    }

    #[test]
    fn keys_that_are_not_for_signatures_are_passed_over() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut key = PublicKey::from_spki(&pair.subject_public_key_info()).unwrap().to_jwk();
        for (name, value) in [("use", "enc"), ("kty", "oct"), ("crv", "secp256k1"), ("x", "!"), ("x", "AAAA")] {
            let before = key[name].clone();
            key[name] = value.into();
            assert!(PublicKey::from_jwk(&key).is_none(), "{name}");
            key[name] = before;
        }
        key["alg"] = "RS256".into();
        assert!(PublicKey::from_jwk(&key).is_none());
    }
}
