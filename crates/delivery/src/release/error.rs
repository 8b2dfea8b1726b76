pub use control::Class;

/// What kept a request from being taken on, or from going on. What fails a release is not here: that is an outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster refused a call, or did not answer.
    #[error("cannot {operation} {object}: {}", told(source))]
    Api {
        operation: &'static str,
        object: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot {operation} {object}: the cluster does not answer within {limit_s} s")]
    Silent { operation: &'static str, object: String, limit_s: u64 },
    /// The chart cannot be rendered with these values.
    #[error(transparent)]
    Render(#[from] helm::Error),
    /// What the chart holds, or the request, cannot be carried out.
    #[error("{0}")]
    Invalid(String),
    /// Objects of the chart are another's.
    #[error("{0}")]
    Taken(String),
    #[error("release {0}: another operation (install/upgrade/rollback) is in progress")]
    Busy(String),
    #[error("release {0}: cannot re-use a name that is still in use")]
    NameInUse(String),
    #[error("release: not found: {0}")]
    NotFound(String),
    /// One of the limits was passed.
    #[error("{0}")]
    Limit(String),
    /// What is stored is no release.
    #[error("{secret} holds no release that can be read: {why}")]
    Unreadable { secret: String, why: String },
    /// Somebody else wrote what was to be written: begin again with what is there now.
    #[error("{0} was changed meanwhile")]
    Changed(String),
    /// It has to be gone before it can be made anew.
    #[error("{0} is being deleted")]
    Going(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An API's own words, without the codes around them.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

impl Error {
    pub(crate) fn api(operation: &'static str, object: impl ToString, source: kube::Error) -> Self {
        Self::Api { operation, object: object.to_string(), source: Box::new(source) }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if is_final(status.code) => Class::Blocked,
                _ => Class::Retry,
            },
            Self::Silent { .. } | Self::Changed(_) | Self::Going(_) => Class::Retry,
            Self::Render(_)
            | Self::Invalid(_)
            | Self::Taken(_)
            | Self::Busy(_)
            | Self::NameInUse(_)
            | Self::NotFound(_)
            | Self::Limit(_)
            | Self::Unreadable { .. } => Class::Blocked,
        }
    }

    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The same request gets the same answer again. Conflicts pass, and so does what a server says of itself.
fn is_final(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 408 | 409 | 429)
}
