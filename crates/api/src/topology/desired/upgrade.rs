//! Which version each part is to have now: the control plane first, then the workers in their order, so many at a time.

use serde_json::Value;

use super::{Seen, TopologyError, items, text};
use crate::names::{
    TOPOLOGY_DEFER_UPGRADE_ANNOTATION, TOPOLOGY_DEPLOYMENT_LABEL, TOPOLOGY_HOLD_UPGRADE_ANNOTATION,
    TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION,
};

/// Annotations that steer upgrades and stay in the topology.
pub(super) const STEERING: [&str; 2] = [TOPOLOGY_DEFER_UPGRADE_ANNOTATION, TOPOLOGY_HOLD_UPGRADE_ANNOTATION];
/// A kubelet may be so many minor versions behind its API server (Kubernetes' version skew policy).
const SKEW_MAX: u64 = 3;

/// What does not have its version yet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    ControlPlane {
        from: String,
        to: String,
        on: String,
    },
    /// New workers.
    Create {
        topology: String,
        on: String,
    },
    Workers {
        topology: String,
        to: String,
        on: String,
    },
    Deferred {
        topology: String,
        to: String,
    },
}

/// The state of an upgrade.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The version that the control plane is to have now.
    pub control_plane: String,
    pub waiting: Vec<Waiting>,
    /// Parts that are on their way to the version that they are to have.
    pub upgrading: Vec<String>,
    /// What the workers may go to now.
    workers: Option<String>,
    room: usize,
    held: bool,
    wanted: String,
    steady: bool,
}

fn numbers(version: &str) -> Option<[u64; 3]> {
    let core = version.strip_prefix('v').unwrap_or(version).split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn minor(version: &str) -> Option<u64> {
    numbers(version).map(|[_, minor, _]| minor)
}

/// The next version on the way: one minor version at a time, by those that the class offers.
fn next(from: &str, to: &str, offered: &[Value]) -> Result<String, TopologyError> {
    let (Some(here), Some(there)) = (minor(from), minor(to)) else { return Ok(to.to_owned()) };
    if there <= here + 1 || offered.is_empty() {
        return Ok(to.to_owned());
    }
    let versions = offered.iter().filter_map(Value::as_str).filter(|version| minor(version) == Some(here + 1));
    let best = versions.max_by_key(|version| numbers(version));
    best.map(str::to_owned).ok_or_else(|| {
        TopologyError::Version(format!(
            "there is no way from {from} to {to}: the ClusterClass offers no version v1.{}",
            here + 1
        ))
    })
}

/// The lowest version that a control plane's machines have; none before the first.
fn lowest(control_plane: &Value) -> Option<String> {
    let versions = items(control_plane, "/status/versions").iter().filter_map(|one| one["version"].as_str());
    let lowest = versions.min_by_key(|version| numbers(version));
    lowest.or_else(|| control_plane.pointer("/status/version").and_then(Value::as_str)).map(str::to_owned)
}

fn is_upgrading(seen: &Seen, deployment: &Value) -> bool {
    let version = text(deployment, "/spec/template/spec/version");
    let own = &deployment["metadata"]["labels"][TOPOLOGY_DEPLOYMENT_LABEL];
    let mut machines =
        seen.machines.iter().filter(|machine| machine["metadata"]["labels"][TOPOLOGY_DEPLOYMENT_LABEL] == *own);
    machines.any(|machine| text(machine, "/spec/version") != version)
}

impl Upgrade {
    pub(super) fn of(seen: &Seen) -> Result<Self, TopologyError> {
        let topology = &seen.cluster["spec"]["topology"];
        let wanted = text(topology, "/version").to_owned();
        let concurrency = seen.cluster["metadata"]["annotations"][TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION].as_str();
        let concurrency = concurrency.and_then(|text| text.parse().ok()).filter(|count| *count > 0).unwrap_or(1_usize);
        let upgrading: Vec<String> = seen
            .deployments
            .iter()
            .filter(|deployment| is_upgrading(seen, deployment))
            .map(|deployment| text(deployment, "/metadata/name").to_owned())
            .collect();
        let mut upgrade = Self {
            control_plane: wanted.clone(),
            waiting: Vec::new(),
            room: concurrency.saturating_sub(upgrading.len()),
            upgrading,
            workers: None,
            held: false,
            wanted: wanted.clone(),
            steady: true,
        };
        let Some(control_plane) = &seen.control_plane else { return Ok(upgrade) };
        let current = text(control_plane, "/spec/version").to_owned();
        if current.is_empty() {
            return Ok(upgrade);
        }
        upgrade.choose(seen, control_plane, current)?;
        Ok(upgrade)
    }

    fn choose(&mut self, seen: &Seen, control_plane: &Value, current: String) -> Result<(), TopologyError> {
        let wanted = self.wanted.clone();
        let started =
            control_plane.pointer("/status/initialization/controlPlaneInitialized") == Some(&Value::Bool(true));
        let moving = started && lowest(control_plane).is_some_and(|lowest| lowest != current);
        self.control_plane = current.clone();
        let mut waits = |on: String| {
            if current != wanted {
                self.waiting.push(Waiting::ControlPlane { from: current.clone(), to: wanted.clone(), on });
            }
        };
        if !started {
            self.steady = current == wanted;
            waits("the control plane is not initialized yet".to_owned());
            return Ok(());
        }
        if moving {
            self.steady = false;
            waits(format!("the control plane is still being upgraded to {current}"));
            self.upgrading.push(text(control_plane, "/metadata/name").to_owned());
            return Ok(());
        }
        if current == wanted {
            self.workers = Some(wanted);
            return Ok(());
        }
        let next = next(&current, &wanted, items(&seen.class, "/spec/kubernetesVersions"))?;
        let oldest = seen.deployments.iter().filter_map(|one| minor(text(one, "/spec/template/spec/version"))).min();
        let behind = oldest.zip(minor(&next)).is_some_and(|(oldest, next)| next > oldest + SKEW_MAX);
        if behind {
            waits(format!("workers have to be of {current} first: they would be too far behind {next}"));
            self.workers = Some(current);
        } else if !self.upgrading.is_empty() {
            waits(format!("{} is still being upgraded", self.upgrading.join(", ")));
        } else {
            self.control_plane = next;
            self.steady = false;
            self.upgrading.push(text(control_plane, "/metadata/name").to_owned());
        }
        Ok(())
    }

    /// The version of workers; none: they are not to be made yet. Call it for each, in their order.
    pub(super) fn workers_version(&mut self, seen: &Seen, own: &Value) -> Option<String> {
        let topology = text(own, "/name").to_owned();
        let steered = |name: &str| own.pointer("/metadata/annotations").is_some_and(|all| all.get(name).is_some());
        let deferred =
            self.held || steered(TOPOLOGY_DEFER_UPGRADE_ANNOTATION) || steered(TOPOLOGY_HOLD_UPGRADE_ANNOTATION);
        let found =
            seen.deployments.iter().find(|one| one["metadata"]["labels"][TOPOLOGY_DEPLOYMENT_LABEL] == *topology);
        let Some(current) = found.map(|one| text(one, "/spec/template/spec/version").to_owned()) else {
            if self.steady && self.control_plane == self.wanted {
                return Some(self.wanted.clone());
            }
            let on = "the control plane is being upgraded".to_owned();
            self.waiting.push(Waiting::Create { topology, on });
            return None;
        };
        if current == self.wanted {
            return Some(current);
        }
        let to = self.wanted.clone();
        if deferred {
            self.held |= steered(TOPOLOGY_HOLD_UPGRADE_ANNOTATION);
            self.waiting.push(Waiting::Deferred { topology, to });
            return Some(current);
        }
        let on = match &self.workers {
            Some(version) if *version == current => "the control plane has to go on first".to_owned(),
            Some(version) if self.room > 0 => {
                self.room -= 1;
                self.upgrading.push(topology);
                return Some(version.clone());
            }
            Some(_) => "other workers are being upgraded".to_owned(),
            None => "the control plane comes first".to_owned(),
        };
        self.waiting.push(Waiting::Workers { topology, to, on });
        Some(current)
    }
}
