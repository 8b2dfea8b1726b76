//! Why a stage of a reconcile went no further, and what that means for conditions and for the queue.

use std::time::Duration;

use control::{Error, Outcome};
use openstack::Class;

/// Between two passes of one reconcile: others have their turn.
const NEXT_PASS: Duration = Duration::from_millis(10);

pub type Result<T, E = Stop> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Stop {
    /// Something outside has to happen first.
    Wait { reason: &'static str, on: String, after: Duration },
    /// Nothing will happen until a person changes something.
    Blocked { reason: &'static str, message: String },
    /// The cloud refused or failed.
    Cloud(openstack::Error),
    /// The Management API refused or failed.
    Api(Error),
    /// What is wanted is there; something beside it failed, and is tried again.
    Aside(Box<Stop>),
}

impl From<openstack::Error> for Stop {
    fn from(error: openstack::Error) -> Self {
        Self::Cloud(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Api(error)
    }
}

pub fn blocked<T>(reason: &'static str, message: impl Into<String>) -> Result<T> {
    Err(Stop::Blocked { reason, message: message.into() })
}

pub fn wait<T>(reason: &'static str, on: impl Into<String>, after: Duration) -> Result<T> {
    Err(Stop::Wait { reason, on: on.into(), after })
}

impl Stop {
    /// Reason and message of the condition that tells the user.
    pub fn told(&self) -> (&'static str, String) {
        match self {
            Self::Wait { reason, on, .. } => (reason, format!("Waiting for {on}")),
            Self::Blocked { reason, message } => (reason, message.clone()),
            Self::Cloud(error) if error.is_put_off() => {
                ("CloudAnswersSlowly", "Waiting for the cloud, which answers slowly".to_owned())
            }
            // Without the request's id: a message that differs each time would be written, and wake, each time.
            Self::Cloud(error) => ("OpenStackError", format!("{}: {}", error.service(), error.message())),
            Self::Api(error) => ("DependencyFailed", error.chain()),
            Self::Aside(stop) => stop.told(),
        }
    }

    /// The reconcile goes on at once, with what it has seen.
    pub fn is_put_off(&self) -> bool {
        match self {
            Self::Cloud(error) => error.is_put_off(),
            Self::Aside(stop) => stop.is_put_off(),
            _ => false,
        }
    }

    /// What is true of the object stays so: nothing else was found, only that the cloud can't be asked now, or that something
    /// beside it failed. An object that is not ready is told it all the same.
    pub fn found_nothing(&self) -> bool {
        match self {
            Self::Cloud(error) => error.is_put_off() || (error.is_of_a_read() && error.class().is_transient()),
            Self::Aside(_) => true,
            _ => false,
        }
    }

    /// How the reconcile ends: waiting comes back by itself, failures are paced by the queue.
    pub fn outcome(self) -> control::Result<Outcome> {
        if self.is_put_off() {
            return Ok(Outcome::Waiting { on: "the cloud, which answers slowly".to_owned(), after: NEXT_PASS });
        }
        if let Self::Cloud(error) = &self {
            tracing::info!(%error, "the cloud did not do as asked");
        }
        match self {
            Self::Wait { on, after, .. } => Ok(Outcome::Waiting { on, after }),
            Self::Blocked { reason, message } => Err(Error::blocked(reason, message)),
            Self::Api(error) => Err(error),
            Self::Aside(stop) => stop.outcome(),
            Self::Cloud(error) => match (error.class(), error.retry_after()) {
                (_, Some(after)) => Ok(Outcome::Waiting { on: error.to_string(), after }),
                // Busy or in use: the cloud says that it passes.
                (Class::Conflict, None) => {
                    Ok(Outcome::Waiting { on: error.to_string(), after: Duration::from_secs(2) })
                }
                (class, None) if class.is_transient() || class == Class::NotFound => {
                    Err(Error::Retry(error.to_string()))
                }
                _ => Err(Error::blocked("OpenStackError", error.to_string())),
            },
        }
    }
}

/// How long to wait before the next look at something that has been under way for `age`: soon at first, then less often.
pub fn pace(age: Duration) -> Duration {
    match age.as_secs() {
        0..15 => Duration::from_millis(400),
        15..60 => Duration::from_secs(2),
        60..300 => Duration::from_secs(5),
        _ => Duration::from_secs(15),
    }
}
