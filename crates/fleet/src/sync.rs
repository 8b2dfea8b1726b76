//! What nodes get of their Machines' labels and annotations.
//!
//! Source: kubernetes-sigs/cluster-api docs/book/src/reference/api/metadata-propagation.md, the manager's flags
//! `--additional-sync-machine-labels` and `--additional-sync-machine-annotations`.

use regex::RegexSet;

/// Labels of these go to nodes always.
const ROLE_PREFIX: &str = "node-role.kubernetes.io";
const LABEL_DOMAINS: [&str; 2] = ["node-restriction.kubernetes.io", NODE_DOMAIN];
/// Annotations of this one too.
const NODE_DOMAIN: &str = "node.cluster.x-k8s.io";

/// Keys that go to nodes beside the usual ones: those in which one of the expressions is found.
#[derive(Clone, Debug, Default)]
pub struct Synced {
    labels: RegexSet,
    annotations: RegexSet,
}

#[derive(Debug, thiserror::Error)]
#[error("--{flag}: what is given is no regular expression")]
pub struct SyncedError {
    flag: &'static str,
    #[source]
    source: regex::Error,
}

impl Synced {
    pub fn read(labels: &[String], annotations: &[String]) -> Result<Self, SyncedError> {
        let set = |flag, all: &[String]| RegexSet::new(all).map_err(|source| SyncedError { flag, source });
        Ok(Self {
            labels: set("additional-sync-machine-labels", labels)?,
            annotations: set("additional-sync-machine-annotations", annotations)?,
        })
    }

    pub(crate) fn label(&self, key: &str) -> bool {
        let domain = domain(key);
        domain == Some(ROLE_PREFIX) || LABEL_DOMAINS.iter().any(|of| is_in(domain, of)) || self.labels.is_match(key)
    }

    pub(crate) fn annotation(&self, key: &str) -> bool {
        is_in(domain(key), NODE_DOMAIN) || self.annotations.is_match(key)
    }
}

fn domain(key: &str) -> Option<&str> {
    key.split_once('/').map(|(domain, _)| domain)
}

fn is_in(domain: Option<&str>, of: &str) -> bool {
    domain.and_then(|domain| domain.strip_suffix(of)).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_keys_and_those_that_match_go_to_nodes() {
        let none = Synced::default();
        for key in ["node-role.kubernetes.io/a", "node-restriction.kubernetes.io/a", "x.node.cluster.x-k8s.io/a"] {
            assert!(none.label(key), "{key}");
        }
        for key in ["team", "x.node-role.kubernetes.io/a", "xnode.cluster.x-k8s.io/a", "node.cluster.x-k8s.io"] {
            assert!(!none.label(key), "{key}");
        }
        assert!(none.annotation("node.cluster.x-k8s.io/a") && !none.annotation("node-role.kubernetes.io/a"));
        let some = Synced::read(&["^team$".into(), "example\\.com/".into()], &["^note".into()]).unwrap();
        assert!(some.label("team") && some.label("a.example.com/b") && !some.label("teams"));
        assert!(some.annotation("notes") && !some.annotation("team"));
    }
}
