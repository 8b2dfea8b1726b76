//! Why a chart could not be had.

use std::fmt;

/// What was wrong, for those who choose a status by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The address is none that charts can be at.
    Address,
    /// The repository does not answer, or says that it cannot now: try again.
    Unreachable,
    /// The repository does not let us in.
    Denied,
    /// There is nothing of that name.
    Missing,
    /// What came is not what it should be, or more than is taken.
    Unusable,
    /// What came is not what was signed or promised.
    Untrusted,
}

/// `Display` says which address it was, and what happened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub class: Class,
    pub url: String,
    pub what: String,
}

impl Error {
    pub(super) fn new(class: Class, url: impl Into<String>, what: impl Into<String>) -> Self {
        Self { class, url: url.into(), what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.url, self.what)
    }
}

impl std::error::Error for Error {}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where a text is not what it should be. Not what stands there: it may be a secret, or the answer of a host that whoever named its
/// address cannot ask himself.
fn place(line: impl fmt::Display, column: impl fmt::Display) -> String {
    format!("line {line}, column {column} is not what is expected there")
}

pub fn of_json(error: &serde_json::Error) -> String {
    place(error.line(), error.column())
}

pub fn of_yaml(error: &serde_saphyr::Error) -> String {
    match (error, error.location()) {
        (serde_saphyr::Error::Budget { .. }, _) => "it has more parts, or lies deeper, than is taken".to_owned(),
        (_, Some(at)) => place(at.line(), at.column()),
        (_, None) => "it is not what is expected".to_owned(),
    }
}
