//! The controllers that every server runs itself, and that kube-controller-manager can run in place of it.

use std::{fmt, str::FromStr};

use super::Work;

/// A controller of the server's own, named as kube-controller-manager names its (`cmd/kube-controller-manager/names`).
/// What a server does for CRDs, quotas and old events is the API server's own work in Kubernetes too, or nobody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// Deletes what has no owner any more, and finishes deletions in the foreground and those that orphan.
    GarbageCollector,
    /// Empties namespaces that are deleted.
    Namespace,
    /// Makes the service account `default` of each namespace.
    ServiceAccount,
    /// Fills in secrets of service account tokens, and deletes those of nobody.
    ServiceAccountToken,
    /// Writes the rules of cluster roles that are the sum of others'.
    ClusterRoleAggregation,
}

/// A name that is no controller's.
#[derive(Debug, thiserror::Error)]
#[error("there is no controller {0:?}; those of the server are {names}", names = Controller::ALL.map(|c| c.to_string()).join(", "))]
pub struct UnknownController(String);

impl Controller {
    pub const ALL: [Self; 5] = [
        Self::GarbageCollector,
        Self::Namespace,
        Self::ServiceAccount,
        Self::ServiceAccountToken,
        Self::ClusterRoleAggregation,
    ];

    /// Whose work it is; none: that of the server, whatever else runs.
    pub(super) fn of(work: &Work) -> Option<Self> {
        match work {
            Work::Dependent(_) | Work::Finalize(_) => Some(Self::GarbageCollector),
            Work::Namespace(_) => Some(Self::Namespace),
            Work::Account(_) => Some(Self::ServiceAccount),
            Work::Aggregate => Some(Self::ClusterRoleAggregation),
            Work::Token(..) | Work::Tokens(..) | Work::Unnamed(..) => Some(Self::ServiceAccountToken),
            Work::Crd(_) | Work::Names(_) | Work::Quota(..) | Work::Recount(..) | Work::Sweep => None,
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GarbageCollector => "garbage-collector-controller",
            Self::Namespace => "namespace-controller",
            Self::ServiceAccount => "serviceaccount-controller",
            Self::ServiceAccountToken => "serviceaccount-token-controller",
            Self::ClusterRoleAggregation => "clusterrole-aggregation-controller",
        })
    }
}

impl FromStr for Controller {
    type Err = UnknownController;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|controller| controller.to_string() == name);
        named.ok_or_else(|| UnknownController(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_refused() {
        for controller in Controller::ALL {
            assert_eq!(controller.to_string().parse::<Controller>().unwrap(), controller);
        }
        let error = "garbage".parse::<Controller>().unwrap_err().to_string();
        assert!(error.contains("\"garbage\"") && error.contains("namespace-controller"), "{error}");
    }
}
