//! Which version each part is to have now: the control plane first, then MachineDeployments and MachinePools in their
//! order, so many of each at a time.

use serde_json::{Value, json};

use super::{
    Group, Seen, TopologyError, items,
    plan::{self, Plan},
    text,
};
use crate::{
    names::{
        BEFORE_UPGRADE_HOOK_PREFIX, TOPOLOGY_DEFER_UPGRADE_ANNOTATION, TOPOLOGY_HOLD_UPGRADE_ANNOTATION,
        TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION, UPDATE_IN_PROGRESS_ANNOTATION,
    },
    topology::hooks::{Blocking, Calls, Hook},
    version::numbers,
};

/// Annotations that steer upgrades and stay in the topology.
pub(super) const STEERING: [&str; 2] = [TOPOLOGY_DEFER_UPGRADE_ANNOTATION, TOPOLOGY_HOLD_UPGRADE_ANNOTATION];
/// An annotation that holds back an upgrade wakes when it changes; this is for the record.
const ANNOTATION_RETRY_S: u64 = 20 * 60;

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
        group: Group,
        topology: String,
        on: String,
    },
    /// `name`: of the object, which there is; `topology`: as the topology calls them.
    Workers {
        group: Group,
        topology: String,
        name: String,
        to: String,
        on: String,
    },
    Deferred {
        group: Group,
        topology: String,
        name: String,
        to: String,
    },
}

/// How far the workers of a group are.
#[derive(Clone, Debug, Default)]
struct Turn {
    /// So many more may go to another version now.
    room: usize,
    /// Those that follow in the list wait, because a user said so.
    held: bool,
}

/// The state of an upgrade.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// The version that the control plane is to have now.
    pub control_plane: String,
    pub plan: Plan,
    pub waiting: Vec<Waiting>,
    /// Objects that are on their way to the version that they are to have; no group: the control plane.
    pub upgrading: Vec<(Option<Group>, String)>,
    /// What the workers may go to now.
    workers: Option<String>,
    deployments: Turn,
    pools: Turn,
    wanted: String,
    /// The control plane is what it is to be, and nothing holds its workers back.
    steady: bool,
}

/// The lowest version that a control plane's machines have; none before the first.
pub fn lowest_version(control_plane: &Value) -> Option<String> {
    let versions = items(control_plane, "/status/versions").iter().filter_map(|one| one["version"].as_str());
    let lowest = versions.min_by_key(|version| numbers(version));
    lowest.or_else(|| control_plane.pointer("/status/version").and_then(Value::as_str)).map(str::to_owned)
}

/// Whether workers have machines of another version than they are to have, or that only become such.
pub fn is_upgrading(machines: &[Value], workers: &Value, group: Group) -> bool {
    let (version, own) = (text(workers, "/spec/template/spec/version"), group.of(workers));
    let mut machines = machines.iter().filter(|machine| group.of(machine) == own);
    let updates = |machine: &Value| !machine["metadata"]["annotations"][UPDATE_IN_PROGRESS_ANNOTATION].is_null();
    machines.any(|machine| text(machine, "/spec/version") != version || updates(machine))
}

impl Upgrade {
    pub(super) fn of(seen: &Seen, calls: &mut Calls<'_>) -> Result<Self, TopologyError> {
        let topology = &seen.cluster["spec"]["topology"];
        let wanted = text(topology, "/version").to_owned();
        let concurrency = seen.cluster["metadata"]["annotations"][TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION].as_str();
        let concurrency = concurrency.and_then(|text| text.parse().ok()).filter(|count| *count > 0).unwrap_or(1_usize);
        let mut upgrading = Vec::new();
        let mut turn = |group: Group| {
            let moving = seen.workers(group).iter().filter(|workers| is_upgrading(&seen.machines, workers, group));
            let before = upgrading.len();
            upgrading.extend(moving.map(|workers| (Some(group), text(workers, "/metadata/name").to_owned())));
            Turn { room: concurrency.saturating_sub(upgrading.len() - before), held: false }
        };
        let (deployments, pools) = (turn(Group::Deployments), turn(Group::Pools));
        let mut upgrade = Self {
            control_plane: wanted.clone(),
            plan: Plan::default(),
            waiting: Vec::new(),
            deployments,
            pools,
            upgrading,
            workers: None,
            wanted: wanted.clone(),
            steady: true,
        };
        let Some(control_plane) = &seen.control_plane else { return Ok(upgrade) };
        let current = text(control_plane, "/spec/version").to_owned();
        if current.is_empty() {
            return Ok(upgrade);
        }
        upgrade.plan = plan::plan(seen, &wanted, &current, calls)?;
        upgrade.control_plane.clone_from(&current);
        if let Some(on) = upgrade.choose(seen, control_plane, &current, calls)?
            && current != wanted
        {
            upgrade.waiting.push(Waiting::ControlPlane { from: current, to: wanted, on });
        }
        Ok(upgrade)
    }

    /// What the control plane waits for, if it does not go on now.
    fn choose(
        &mut self,
        seen: &Seen,
        control_plane: &Value,
        current: &str,
        calls: &mut Calls<'_>,
    ) -> Result<Option<String>, TopologyError> {
        let name = text(control_plane, "/metadata/name");
        let started =
            control_plane.pointer("/status/initialization/controlPlaneInitialized") == Some(&Value::Bool(true));
        if !started {
            self.steady = current == self.wanted;
            return Ok(Some("the control plane is not initialized yet".to_owned()));
        }
        if lowest_version(control_plane).is_some_and(|lowest| lowest != current) {
            self.steady = false;
            self.upgrading.push((None, name.to_owned()));
            return Ok(Some(format!("the control plane is still being upgraded to {current}")));
        }
        let held = |hook: Hook| Ok(Some(format!("the hook {} holds it back", hook.name())));
        let steps = self.steps();
        let after = with(&steps, json!({ "kubernetesVersion": current }));
        if !calls.passes_if_noted(Hook::AfterControlPlaneUpgrade, after.clone())? {
            self.steady = false;
            return held(Hook::AfterControlPlaneUpgrade);
        }
        let workers = plan::lowest_worker(seen).unwrap_or_default();
        let before = with(&steps, json!({"fromKubernetesVersion": workers, "toKubernetesVersion": current}));
        if !calls.passes_if_noted(Hook::BeforeWorkersUpgrade, before)? {
            self.steady = false;
            return held(Hook::BeforeWorkersUpgrade);
        }
        if self.plan.workers.first().is_some_and(|first| first == current) {
            self.workers = Some(current.to_owned());
            return Ok(Some(format!("workers have to be of {current} first")));
        }
        if !self.upgrading.is_empty() {
            let names: Vec<&str> = self.upgrading.iter().map(|(_, name)| name.as_str()).collect();
            return Ok(Some(format!("{} is still being upgraded", names.join(", "))));
        }
        if !calls.passes_if_noted(Hook::AfterWorkersUpgrade, after)? {
            return held(Hook::AfterWorkersUpgrade);
        }
        if current == self.wanted {
            return Ok(None);
        }
        self.begin(seen, name, current, calls)
    }

    /// Lets the control plane go to the next version, unless a hook holds it back.
    fn begin(
        &mut self,
        seen: &Seen,
        name: &str,
        current: &str,
        calls: &mut Calls<'_>,
    ) -> Result<Option<String>, TopologyError> {
        let held = |hook: Hook| Ok(Some(format!("the hook {} holds it back", hook.name())));
        let steps = self.steps();
        let between = |to: &str| with(&steps, json!({"fromKubernetesVersion": current, "toKubernetesVersion": to}));
        if !calls.is_pending(Hook::AfterClusterUpgrade) {
            if let Some(message) = annotations_that_hold(&seen.cluster) {
                let hook = Hook::BeforeClusterUpgrade;
                calls.blocking.push(Blocking { hook, message, retry_after_s: ANNOTATION_RETRY_S });
                return held(hook);
            }
            if !calls.passes(Hook::BeforeClusterUpgrade, between(&self.wanted))? {
                return held(Hook::BeforeClusterUpgrade);
            }
        }
        calls.expect(&[Hook::AfterClusterUpgrade]);
        let Some(next) = self.plan.control_plane.first().cloned() else {
            return Ok(Some("there is no plan for it".to_owned()));
        };
        if !calls.passes(Hook::BeforeControlPlaneUpgrade, between(&next))? {
            return held(Hook::BeforeControlPlaneUpgrade);
        }
        calls.expect(&[Hook::AfterControlPlaneUpgrade]);
        if self.plan.workers.first() == Some(&next) {
            calls.expect(&[Hook::BeforeWorkersUpgrade, Hook::AfterWorkersUpgrade]);
        }
        self.control_plane = next;
        self.steady = false;
        self.upgrading.push((None, name.to_owned()));
        Ok(None)
    }

    /// The plan as requests have it.
    fn steps(&self) -> Value {
        let steps = |all: &[String]| all.iter().map(|version| json!({ "version": version })).collect::<Vec<_>>();
        json!({"controlPlaneUpgrades": steps(&self.plan.control_plane), "workersUpgrades": steps(&self.plan.workers)})
    }

    /// Whether everything has the wanted version, and nothing is on its way.
    pub(super) fn is_over(&self) -> bool {
        self.steady && self.control_plane == self.wanted && self.waiting.is_empty() && self.upgrading.is_empty()
    }

    /// The version of the step that the control plane is at, if more are to follow.
    pub fn step(&self) -> Option<&str> {
        (self.control_plane != self.wanted).then_some(self.control_plane.as_str())
    }

    fn turn(&mut self, group: Group) -> &mut Turn {
        match group {
            Group::Deployments => &mut self.deployments,
            Group::Pools => &mut self.pools,
        }
    }

    /// The version of workers; none: they are not to be made yet. Call it for each of a group, in their order.
    pub(super) fn workers_version(&mut self, seen: &Seen, group: Group, own: &Value) -> Option<String> {
        let topology = text(own, "/name").to_owned();
        let steered = |name: &str| own.pointer("/metadata/annotations").is_some_and(|all| all.get(name).is_some());
        let holds = steered(TOPOLOGY_HOLD_UPGRADE_ANNOTATION);
        let deferred = self.turn(group).held || steered(TOPOLOGY_DEFER_UPGRADE_ANNOTATION) || holds;
        let Some(found) = seen.made(group, &topology) else {
            if self.steady && self.control_plane == self.wanted {
                return Some(self.wanted.clone());
            }
            let on = "the control plane is being upgraded".to_owned();
            self.waiting.push(Waiting::Create { group, topology, on });
            return None;
        };
        let current = text(found, "/spec/template/spec/version").to_owned();
        if current == self.wanted {
            return Some(current);
        }
        let name = text(found, "/metadata/name").to_owned();
        let to = self.wanted.clone();
        if deferred {
            self.turn(group).held |= holds;
            self.waiting.push(Waiting::Deferred { group, topology, name, to });
            return Some(current);
        }
        let has_room = self.turn(group).room > 0;
        let on = match &self.workers {
            Some(version) if *version == current => "the control plane has to go on first".to_owned(),
            Some(version) if has_room => {
                let version = version.clone();
                self.turn(group).room -= 1;
                self.upgrading.push((Some(group), name));
                return Some(version);
            }
            Some(_) => "other workers are being upgraded".to_owned(),
            None => "the control plane comes first".to_owned(),
        };
        self.waiting.push(Waiting::Workers { group, topology, name, to, on });
        Some(current)
    }
}

fn with(steps: &Value, mut fields: Value) -> Value {
    if let (Some(all), Some(steps)) = (fields.as_object_mut(), steps.as_object()) {
        all.extend(steps.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    fields
}

/// What the user holds back an upgrade with.
fn annotations_that_hold(cluster: &Value) -> Option<String> {
    let all = cluster["metadata"]["annotations"].as_object()?;
    let keys: Vec<&str> =
        all.keys().map(String::as_str).filter(|key| key.starts_with(BEFORE_UPGRADE_HOOK_PREFIX)).collect();
    match keys[..] {
        [] => None,
        [one] => Some(format!("annotation {one} is set")),
        _ => Some(format!("annotations {} are set", keys.join(", "))),
    }
}
