//! Tokens of foreign issuers (OpenID Connect), by AuthenticationConfiguration (apiserver.config.k8s.io/v1): whose keys sign them,
//! whom they are for, and which user they make somebody.
//!
//! Only asymmetric signatures are believed. Left out: distributed claims and egress selectors, which are refused.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use policy::User;
use serde_json::Value;

use crate::jose::Token;

mod claims;
mod config;
mod expression;
mod keys;

pub use config::AuthenticationError;

use self::{claims::Mapping, config::Configured, keys::KeySource};

/// Issuers of one configuration.
pub(crate) const ISSUERS_MAX: usize = 64;
/// How much later than now a token may begin (go-oidc), in seconds.
const NOT_BEFORE_LEEWAY_S: f64 = 300.0;

/// Who goes on as `system:anonymous` without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody: 401.
    Refused,
    /// Requests for just these paths.
    Paths(Vec<String>),
    /// Everybody; what they may do RBAC says.
    Everywhere,
}

impl Anonymous {
    /// For those who look whether a server is alive, and nobody else.
    pub fn health() -> Self {
        Self::Paths(["/healthz", "/livez", "/readyz"].map(str::to_owned).to_vec())
    }

    pub(crate) fn allows(&self, path: &str) -> bool {
        match self {
            Self::Refused => false,
            Self::Paths(paths) => paths.iter().any(|own| own == path),
            Self::Everywhere => true,
        }
    }
}

/// One issuer.
struct Issuer {
    url: String,
    audiences: Vec<String>,
    keys: KeySource,
    mapping: Mapping,
}

/// The issuers of a server; may be replaced while it runs.
pub struct Authentication {
    /// Issuers that none of these may be: the server's own.
    reserved: Vec<String>,
    current: RwLock<Arc<Configured>>,
}

impl Authentication {
    /// `config`: YAML or JSON of an AuthenticationConfiguration. `reserved`: the issuers of the server's own tokens.
    pub fn new(config: &str, reserved: &[String]) -> Result<Arc<Self>, AuthenticationError> {
        let current = RwLock::new(Arc::new(config::parse(config, reserved)?));
        Ok(Arc::new(Self { reserved: reserved.to_vec(), current }))
    }

    /// Takes a new configuration; the old one stays if that is wrong. Keys are fetched anew.
    pub fn replace(&self, config: &str) -> Result<(), AuthenticationError> {
        let new = Arc::new(config::parse(config, &self.reserved)?);
        *self.current.write() = new;
        Ok(())
    }

    /// What the configuration says of those without credentials.
    pub(crate) fn anonymous(&self) -> Option<Anonymous> {
        self.current.read().anonymous.clone()
    }

    /// Whether the configuration says something of those without credentials, which a flag then may not.
    pub fn decides_anonymous(&self) -> bool {
        self.anonymous().is_some()
    }

    /// Who a token makes somebody; none: it is no issuer's of these. The error says why it is not believed.
    pub(crate) async fn user(&self, token: &str, now: Timestamp) -> Result<Option<User>, String> {
        let Some(parsed) = Token::parse(token) else { return Ok(None) };
        let said = parsed.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let current = Arc::clone(&self.current.read());
        let Some(issuer) = current.issuers.iter().find(|issuer| issuer.url == said) else { return Ok(None) };
        issuer.user(&parsed, now).await.map(Some)
    }
}

impl Issuer {
    async fn user(&self, token: &Token<'_>, now: Timestamp) -> Result<User, String> {
        let claims = &token.claims;
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|own| audiences.contains(&own.as_str())) {
            return Err(format!(
                "oidc: verify token: oidc: expected audience in {:?} got {audiences:?}",
                self.audiences
            ));
        }
        let now_s = seconds(now);
        let time = |name: &str| claims.get(name).and_then(Value::as_f64);
        match time("exp") {
            Some(end) if end >= now_s => {}
            _ => return Err("oidc: verify token: oidc: token is expired".to_owned()),
        }
        if time("nbf").is_some_and(|begin| begin > now_s + NOT_BEFORE_LEEWAY_S) {
            return Err("oidc: verify token: oidc: current time is before the nbf (not before) time".to_owned());
        }
        self.keys.verify(token).await.map_err(|why| format!("oidc: verify token: {why}"))?;
        self.mapping.user(claims)
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
