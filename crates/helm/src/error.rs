//! What can go wrong between a chart and its manifests.

/// The words are Helm's where Helm has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The files are no chart.
    #[error("{0}")]
    Chart(String),
    /// The values cannot be read, or not be merged.
    #[error("{0}")]
    Values(String),
    /// A template cannot be read or carried out.
    #[error("{0}")]
    Template(String),
    /// One of this crate's limits was passed.
    #[error("{0}")]
    Limit(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
