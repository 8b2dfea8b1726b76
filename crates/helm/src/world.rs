//! What a chart may learn of the world: all of it is given by who renders.

use jiff::Timestamp;
use serde_json::Value as Json;

/// Finds an object of the cluster, or a list of them where the name is empty: apiVersion, kind, namespace, name. Nothing where there
/// is none.
pub type Lookup = dyn FnMut(&str, &str, &str, &str) -> Result<Option<Json>, String>;

/// Fills with bytes that nobody can guess.
pub type Random = dyn FnMut(&mut [u8]);

/// Of which kind a key is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Rsa2048,
    Rsa4096,
    P256,
    Ed25519,
}

/// Makes a private key: PKCS #8 in DER.
pub type Keys = dyn FnMut(KeyKind) -> Result<Vec<u8>, String>;

/// The time, a source of randomness, and what `lookup` finds.
pub struct World {
    pub now: Timestamp,
    /// Passwords are made of it.
    pub random: Box<Random>,
    pub key: Box<Keys>,
    pub lookup: Box<Lookup>,
}

impl World {
    /// One in which nothing is found.
    ///
    pub fn without_cluster(
        now: Timestamp,
        random: impl FnMut(&mut [u8]) + 'static,
        key: impl FnMut(KeyKind) -> Result<Vec<u8>, String> + 'static,
    ) -> Self {
        Self { now, random: Box::new(random), key: Box::new(key), lookup: Box::new(|_, _, _, _| Ok(None)) }
    }
}
