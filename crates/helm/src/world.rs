//! What a chart may learn of the world: all of it is given by who renders.

use jiff::Timestamp;
use serde_json::Value as Json;

/// Finds an object of the cluster, or a list of them where the name is empty: apiVersion, kind, namespace, name. Nothing where there
/// is none.
pub type Lookup = dyn FnMut(&str, &str, &str, &str) -> Result<Option<Json>, String>;

/// Fills with bytes that nobody can guess.
pub type Random = dyn FnMut(&mut [u8]);

/// The time, a source of randomness, and what `lookup` finds.
pub struct World {
    pub now: Timestamp,
    /// Passwords are made of it.
    pub random: Box<Random>,
    pub lookup: Box<Lookup>,
}

impl World {
    /// One in which nothing is found.
    pub fn without_cluster(now: Timestamp, random: impl FnMut(&mut [u8]) + 'static) -> Self {
        Self { now, random: Box::new(random), lookup: Box::new(|_, _, _, _| Ok(None)) }
    }
}
