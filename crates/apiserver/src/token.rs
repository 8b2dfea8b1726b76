//! Service account tokens: JSON Web Tokens (RFC 7519) signed with RS256 or ES256, as Kubernetes' own.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    rsa,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::server::ServiceAccountKeys;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key is not in PEM: {0}")]
    Pem(String),
    #[error("the key is neither RSA of at least 2048 bits nor EC P-256: {0}")]
    Kind(String),
}

enum Signer {
    Rsa(Box<rsa::KeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

struct Verifier {
    /// `RS256` or `ES256`.
    algorithm: &'static str,
    key: ParsedPublicKey,
}

pub(crate) struct Keys {
    signer: Signer,
    /// Of the signing key, in the tokens' headers.
    id: String,
    verifiers: Vec<Verifier>,
    issuer: String,
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub sub: String,
}

/// The objects that a token dies with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub name: String,
    pub uid: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

impl Keys {
    pub(crate) fn new(options: &ServiceAccountKeys) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(options.signing_key_pem.as_bytes())
            .map_err(|e| KeyError::Pem(e.to_string()))?;
        let signer = Signer::read(&der)?;
        let (algorithm, public) = signer.public();
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &public));
        let mut verifiers = vec![Verifier::read(algorithm, &public)?];
        for pem in &options.verifying_keys_pem {
            let der =
                SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|e| KeyError::Pem(e.to_string()))?;
            let verifier = Verifier::read("RS256", &der).or_else(|_| Verifier::read("ES256", &der))?;
            verifiers.push(verifier);
        }
        Ok(Self { signer, id, verifiers, issuer: options.issuer.clone() })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// OpenID Connect's discovery document.
    pub(crate) fn discovery(&self, key_set_url: &str) -> Value {
        json!({
            "issuer": self.issuer, "jwks_uri": key_set_url, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": [self.signer.public().0],
        })
    }

    /// The public key that tokens are signed with (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        let mut key = match &self.signer {
            Signer::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
                    "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Signer::Ec(pair) => {
                // An uncompressed point: 4, then both coordinates.
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
                json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
            }
        };
        key["use"] = "sig".into();
        key["kid"] = self.id.as_str().into();
        key["alg"] = self.signer.public().0.into();
        json!({"keys": [key]})
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, aws_lc_rs::error::Unspecified> {
        let (algorithm, _) = self.signer.public();
        let header = json!({"alg": algorithm, "kid": self.id});
        let claims = serde_json::to_vec(claims).map_err(|_| aws_lc_rs::error::Unspecified)?;
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signer.sign(input.as_bytes())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that one of our keys has signed; its times and audiences are for the caller to check.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let (input, signature) = token.rsplit_once('.')?;
        let (header, claims) = input.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let algorithm = header.get("alg")?.as_str()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let signed = |v: &&Verifier| v.algorithm == algorithm && v.key.verify_sig(input.as_bytes(), &signature).is_ok();
        self.verifiers.iter().find(signed)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (claims.iss == self.issuer).then_some(claims)
    }
}

impl Signer {
    fn read(der: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let fail = |e: aws_lc_rs::error::KeyRejected| KeyError::Kind(e.to_string());
        let ec = &ECDSA_P256_SHA256_FIXED_SIGNING;
        match der {
            PrivateKeyDer::Pkcs1(der) => {
                Ok(Self::Rsa(Box::new(rsa::KeyPair::from_der(der.secret_pkcs1_der()).map_err(fail)?)))
            }
            PrivateKeyDer::Sec1(der) => {
                let pair = EcdsaKeyPair::from_private_key_der(ec, der.secret_sec1_der()).map_err(fail)?;
                Ok(Self::Ec(Box::new(pair)))
            }
            PrivateKeyDer::Pkcs8(der) => match rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()) {
                Ok(pair) => Ok(Self::Rsa(Box::new(pair))),
                Err(_) => Ok(Self::Ec(Box::new(EcdsaKeyPair::from_pkcs8(ec, der.secret_pkcs8_der()).map_err(fail)?))),
            },
            _ => Err(KeyError::Kind("an unknown form of private key".to_owned())),
        }
    }

    fn public(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Rsa(pair) => ("RS256", pair.public_key().as_ref().to_vec()),
            Self::Ec(pair) => ("ES256", pair.public_key().as_ref().to_vec()),
        }
    }

    fn sign(&self, input: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature)?;
                Ok(signature)
            }
            Self::Ec(pair) => Ok(pair.sign(&random, input)?.as_ref().to_vec()),
        }
    }
}

impl Verifier {
    fn read(algorithm: &'static str, key: &[u8]) -> Result<Self, KeyError> {
        let method: &'static dyn signature::VerificationAlgorithm = match algorithm {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            _ => &ECDSA_P256_SHA256_FIXED,
        };
        let key = ParsedPublicKey::new(method, key).map_err(|e| KeyError::Kind(e.to_string()))?;
        Ok(Self { algorithm, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let reference = Reference { name: "a".into(), uid: "u".into() };
        Claims {
            aud: vec!["us".into()],
            exp: 2,
            iat: 1,
            iss: "us".into(),
            jti: "j".into(),
            kubernetes: Bound { namespace: "n".into(), pod: None, secret: None, serviceaccount: reference },
            nbf: None,
            sub: "system:serviceaccount:n:a".into(),
        }
    }

    fn keys(issuer: &str, further: Vec<String>) -> (Keys, String) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let options = ServiceAccountKeys {
            signing_key_pem: pair.serialize_pem(),
            verifying_keys_pem: further,
            issuer: issuer.to_owned(),
        };
        (Keys::new(&options).unwrap(), pair.public_key_pem())
    }

    #[test]
    fn what_one_signs_the_holder_of_the_public_key_believes_and_others_do_not() {
        let (ours, public) = keys("us", vec![]);
        let token = ours.sign(&claims()).unwrap();
        assert_eq!(ours.verify(&token).unwrap().sub, "system:serviceaccount:n:a");
        let (friend, _) = keys("us", vec![public.clone()]);
        assert!(friend.verify(&token).is_some());
        let (stranger, _) = keys("us", vec![]);
        assert!(stranger.verify(&token).is_none());
        let (other_issuer, _) = keys("them", vec![public]);
        assert!(other_issuer.verify(&token).is_none());
    }

    #[test]
    fn a_changed_token_is_worth_nothing() {
        let (ours, _) = keys("us", vec![]);
        let token = ours.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let mut other = claims();
        other.sub = "system:serviceaccount:n:root".into();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
        assert!(ours.verify(&format!("{}.{forged}.{}", parts[0], parts[2])).is_none());
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
        assert!(ours.verify(&format!("{none}.{}.", parts[1])).is_none());
        for bad in ["", ".", "..", "a.b.c", &token[..token.len() - 2]] {
            assert!(ours.verify(bad).is_none());
        }
    }

    #[test]
    fn an_rsa_key_signs_too() {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let options = ServiceAccountKeys { signing_key_pem: pem, verifying_keys_pem: vec![], issuer: "us".into() };
        let keys = Keys::new(&options).unwrap();
        assert!(keys.verify(&keys.sign(&claims()).unwrap()).is_some());
    }
}
