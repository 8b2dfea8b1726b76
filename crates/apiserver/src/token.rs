//! Service account tokens: JSON Web Tokens (RFC 7519) signed with RS256 or ES256, as Kubernetes' own.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    jose::{PublicKey, Token},
    server::ServiceAccountKeys,
};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key is not in PEM: {0}")]
    Pem(String),
    #[error("the key is neither RSA of at least 2048 bits nor EC P-256: {0}")]
    Kind(String),
    #[error("{found} keys are too many: the limit is {limit}")]
    TooMany { found: usize, limit: usize },
    #[error("tokens that live {0} s at most: it must be an hour at least, and 2^32 s at most")]
    Lifetime(i64),
}

enum Signer {
    Rsa(Box<rsa::KeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

/// The keys of service account tokens: one signs, all verify.
pub(crate) struct Keys {
    signer: Signer,
    /// The signing key's first.
    verifiers: Vec<PublicKey>,
    issuers: Vec<String>,
    pub audiences: Vec<String>,
    pub lifetime_s_max: i64,
    key_set_url: Option<String>,
}

/// Keys that verify, of one server.
pub const VERIFYING_KEYS_MAX: usize = 64;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    /// When its holder should have come back for another (seconds since 1970).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
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
        let mut verifiers = vec![PublicKey::from_spki(&signer.public()?).map_err(KeyError::Kind)?];
        for pem in &options.verifying_keys_pem {
            for key in public_keys(pem)? {
                if verifiers.iter().all(|known| known.id != key.id) {
                    verifiers.push(key);
                }
            }
        }
        if verifiers.len() > VERIFYING_KEYS_MAX {
            return Err(KeyError::TooMany { found: verifiers.len(), limit: VERIFYING_KEYS_MAX });
        }
        let mut issuers = vec![options.issuer.clone()];
        issuers.extend_from_slice(&options.further_issuers);
        let audiences = match options.audiences.is_empty() {
            true => vec![options.issuer.clone()],
            false => options.audiences.clone(),
        };
        let lifetime_s_max = options.token_lifetime_s_max.unwrap_or(LIFETIME_S_MAX);
        if !(LIFETIME_S_LEAST..=LIFETIME_S_MAX).contains(&lifetime_s_max) {
            return Err(KeyError::Lifetime(lifetime_s_max));
        }
        let key_set_url = options.key_set_url.clone();
        Ok(Self { signer, verifiers, issuers, audiences, lifetime_s_max, key_set_url })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuers[0]
    }

    /// Whether somebody else's token may be left to others.
    pub(crate) fn is_issuer(&self, issuer: &str) -> bool {
        issuer == LEGACY_ISSUER || self.issuers.iter().any(|own| own == issuer)
    }

    /// OpenID Connect's discovery document.
    pub(crate) fn discovery(&self, key_set_url: &str) -> Value {
        let url = self.key_set_url.as_deref().unwrap_or(key_set_url);
        let mut algorithms: Vec<&str> = self.verifiers.iter().map(PublicKey::default_algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer(), "jwks_uri": url, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The public keys that tokens may be signed with (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        json!({"keys": self.verifiers.iter().map(PublicKey::to_jwk).collect::<Vec<_>>()})
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, aws_lc_rs::error::Unspecified> {
        self.sign_bytes(&serde_json::to_vec(claims).map_err(|_| aws_lc_rs::error::Unspecified)?)
    }

    /// A token that lies in a secret.
    pub(crate) fn sign_legacy(&self, claims: &Legacy) -> Result<String, aws_lc_rs::error::Unspecified> {
        let mut claims = serde_json::to_value(claims).map_err(|_| aws_lc_rs::error::Unspecified)?;
        claims["iss"] = LEGACY_ISSUER.into();
        self.sign_bytes(claims.to_string().as_bytes())
    }

    fn sign_bytes(&self, claims: &[u8]) -> Result<String, aws_lc_rs::error::Unspecified> {
        let key = &self.verifiers[0];
        let header = json!({"alg": key.default_algorithm(), "kid": key.id});
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signer.sign(input.as_bytes())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that one of our keys has signed; its times and audiences are for the caller to check.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Option<Issued> {
        let issuer = token.claims.get("iss").and_then(Value::as_str)?;
        if !self.is_issuer(issuer) || !self.verifiers.iter().any(|key| token.is_signed_by(key)) {
            return None;
        }
        if issuer == LEGACY_ISSUER {
            return serde_json::from_value(token.claims.clone()).ok().map(Issued::Legacy);
        }
        serde_json::from_value(token.claims.clone()).ok().map(Box::new).map(Issued::Bound)
    }
}

/// The `iss` of tokens that lie in secrets (`legacy.go`).
pub(crate) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// No token is asked for with a longer life.
pub(crate) const LIFETIME_S_MAX: i64 = 1 << 32;
/// The least that may be set as the longest life.
const LIFETIME_S_LEAST: i64 = 3600;

/// What a token is.
pub(crate) enum Issued {
    Bound(Box<Claims>),
    Legacy(Legacy),
}

/// A token that lies in a secret and lives as long as that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
}

/// The public keys in a PEM: of public keys, of private ones, of certificates.
fn public_keys(pem: &str) -> Result<Vec<PublicKey>, KeyError> {
    use rustls_pki_types::pem::SectionKind as Kind;
    let mut found = Vec::new();
    let mut rest = pem.as_bytes();
    while let Some((kind, der)) =
        rustls_pki_types::pem::from_buf(&mut rest).map_err(|e| KeyError::Pem(format!("{e:?}")))?
    {
        let key = match kind {
            Kind::PublicKey => PublicKey::from_spki(&der).map_err(KeyError::Kind)?,
            Kind::PrivateKey | Kind::RsaPrivateKey | Kind::EcPrivateKey => {
                let block = match kind {
                    Kind::PrivateKey => PrivateKeyDer::Pkcs8(der.into()),
                    Kind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
                    _ => PrivateKeyDer::Sec1(der.into()),
                };
                PublicKey::from_spki(&Signer::read(&block)?.public()?).map_err(KeyError::Kind)?
            }
            Kind::Certificate => {
                let (_, certificate) =
                    x509_parser::parse_x509_certificate(&der).map_err(|e| KeyError::Kind(e.to_string()))?;
                PublicKey::from_spki(certificate.public_key().raw).map_err(KeyError::Kind)?
            }
            _ => continue,
        };
        found.push(key);
    }
    if found.is_empty() {
        return Err(KeyError::Pem("there is no key in it".to_owned()));
    }
    Ok(found)
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

    /// As SubjectPublicKeyInfo.
    fn public(&self) -> Result<Vec<u8>, KeyError> {
        let fail = |_| KeyError::Kind("its public half cannot be written".to_owned());
        Ok(match self {
            Self::Rsa(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(fail)?.as_ref().to_vec()
            }
            Self::Ec(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(fail)?.as_ref().to_vec(),
        })
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
            kubernetes: Bound {
                namespace: "n".into(),
                pod: None,
                node: None,
                secret: None,
                serviceaccount: reference,
                warnafter: None,
            },
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
            ..ServiceAccountKeys::default()
        };
        (Keys::new(&options).unwrap(), pair.public_key_pem())
    }

    fn read(keys: &Keys, token: &str) -> Option<Claims> {
        match keys.verify(&Token::parse(token)?)? {
            Issued::Bound(claims) => Some(*claims),
            Issued::Legacy(_) => None,
        }
    }

    #[test]
    fn what_one_signs_the_holder_of_the_public_key_believes_and_others_do_not() {
        let (ours, public) = keys("us", vec![]);
        let token = ours.sign(&claims()).unwrap();
        assert_eq!(read(&ours, &token).unwrap().sub, "system:serviceaccount:n:a");
        let (friend, _) = keys("us", vec![public.clone()]);
        assert!(read(&friend, &token).is_some());
        let (stranger, _) = keys("us", vec![]);
        assert!(read(&stranger, &token).is_none());
        let (other_issuer, _) = keys("them", vec![public]);
        assert!(read(&other_issuer, &token).is_none());
    }

    #[test]
    fn a_key_too_many_is_refused_and_a_file_may_hold_several() {
        let pem = |count: usize| {
            let keys = (0..count).map(|_| rcgen::KeyPair::generate().unwrap().public_key_pem());
            vec![keys.collect::<String>()]
        };
        let keys = |verifying_keys_pem| {
            let signing_key_pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
            Keys::new(&ServiceAccountKeys {
                signing_key_pem,
                verifying_keys_pem,
                issuer: "us".into(),
                ..Default::default()
            })
        };
        let most = keys(pem(VERIFYING_KEYS_MAX - 1)).unwrap();
        assert_eq!(most.key_set()["keys"].as_array().unwrap().len(), VERIFYING_KEYS_MAX);
        assert!(matches!(keys(pem(VERIFYING_KEYS_MAX)), Err(KeyError::TooMany { .. })));
    }

    #[test]
    fn a_changed_token_is_worth_nothing() {
        let (ours, _) = keys("us", vec![]);
        let token = ours.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let mut other = claims();
        other.sub = "system:serviceaccount:n:root".into();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
        assert!(read(&ours, &format!("{}.{forged}.{}", parts[0], parts[2])).is_none());
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
        assert!(read(&ours, &format!("{none}.{}.", parts[1])).is_none());
        for bad in ["", ".", "..", "a.b.c", &token[..token.len() - 2]] {
            assert!(read(&ours, bad).is_none());
        }
    }

    #[test]
    fn an_rsa_key_signs_too() {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let options = ServiceAccountKeys { signing_key_pem: pem, issuer: "us".into(), ..Default::default() };
        let keys = Keys::new(&options).unwrap();
        assert!(read(&keys, &keys.sign(&claims()).unwrap()).is_some());
    }
}
