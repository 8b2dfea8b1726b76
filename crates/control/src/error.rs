use thiserror::Error;

/// What the kit does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passing: try again, each time a little later.
    Retry,
    /// Stays until somebody changes something: try again slowly.
    Blocked,
    /// Ours: logged as an error, tried again slowly.
    Bug,
}

#[derive(Debug, Error)]
pub enum Error {
    #[error("{operation} {object}")]
    Api {
        operation: &'static str,
        object: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("{0}")]
    Retry(String),
    /// Carries the reason of the condition that tells the user.
    #[error("{reason}: {message}")]
    Blocked { reason: String, message: String },
    #[error("{what}")]
    Bug {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    pub fn api(operation: &'static str, object: impl ToString, source: kube::Error) -> Self {
        Self::Api { operation, object: object.to_string(), source: Box::new(source) }
    }

    pub fn blocked(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Blocked { reason: reason.into(), message: message.into() }
    }

    pub fn bug(what: impl Into<String>) -> Self {
        Self::Bug { what: what.into(), source: None }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                // What we sent is wrong, and will be the next time.
                kube::Error::Api(status) if matches!(status.code, 400 | 405 | 413 | 415 | 422) => Class::Bug,
                kube::Error::Api(status) if status.code == 403 => Class::Blocked,
                _ => Class::Retry,
            },
            Self::Retry(_) => Class::Retry,
            Self::Blocked { .. } => Class::Blocked,
            Self::Bug { .. } => Class::Bug,
        }
    }

    /// Somebody wrote the object since it was observed, or made it first: observe again, nothing is wrong.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409))
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404))
    }

    /// The message with those of its sources, for a log line or a condition.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
