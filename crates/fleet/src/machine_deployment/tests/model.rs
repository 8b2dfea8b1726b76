//! Plans of a deployment carried out on sets and machines in memory.

use api::{
    condition::{self, Statement},
    machine::{MachineDeploymentSpec, MachineSetStatus, MachineSpec, MachineStatus, NodeRef, Rollout},
};
use control::Step;
use jiff::SignedDuration;
use serde_json::Value;

use super::super::*;

/// A machine of the simulation.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) set: String,
    pub(super) available: bool,
    pub(super) deleting: bool,
    /// Came from another set, and is not updated yet.
    pub(super) updating: bool,
    /// The deployment has not counted it.
    pub(super) uncounted: bool,
}

impl Unit {
    pub(super) fn serves(&self) -> bool {
        self.available && !self.deleting && !self.updating
    }
}

pub(super) struct World {
    pub(super) deployment: MachineDeployment,
    pub(super) sets: Vec<MachineSet>,
    pub(super) units: Vec<Unit>,
    pub(super) now: Timestamp,
    pub(super) made: usize,
    pub(super) named: usize,
    /// The machines of this set never become available.
    pub(super) stuck: Option<&'static str>,
    /// Machines that are deleted stay until [`World::reap`].
    pub(super) slow: bool,
    /// What is said about the sets, one line for each change.
    pub(super) text: Vec<String>,
    /// Whether the limits of the rollout are checked: not while the size itself changes.
    pub(super) strict: bool,
    /// An extension updates machines in place.
    pub(super) in_place: bool,
}

pub(super) fn rolling(surge: IntOrString, unavailable: IntOrString) -> RolloutStrategy {
    let update = RollingUpdate { max_surge: Some(surge), max_unavailable: Some(unavailable) };
    RolloutStrategy { rolling_update: Some(update), type_: RolloutStrategyType::RollingUpdate }
}

pub(super) fn count(number: i32) -> IntOrString {
    IntOrString::Int(number)
}

pub(super) fn percent(text: &str) -> IntOrString {
    IntOrString::String(text.into())
}

/// The RFC 7386 merge that the API server does with a plan's patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn patched<K: serde::Serialize + serde::de::DeserializeOwned>(object: &K, change: &control::Change) -> K {
    let mut value = serde_json::to_value(object).unwrap();
    for patch in [&change.main, &change.status].into_iter().flatten() {
        merge(&mut value, patch);
    }
    serde_json::from_value(value).unwrap()
}

impl World {
    /// A deployment whose first set has all its machines available.
    pub(super) fn new(replicas: i32, strategy: RolloutStrategy) -> Self {
        let template = MachineSpec { version: Some("v1".into()), cluster_name: "demo".into(), ..Default::default() };
        let spec = MachineDeploymentSpec {
            cluster_name: "demo".into(),
            replicas: Some(replicas),
            rollout: Some(Rollout { after: None, strategy: Some(strategy) }),
            template: MachineTemplate { metadata: None, spec: template },
            ..Default::default()
        };
        let mut deployment = MachineDeployment::new("md", spec);
        deployment.metadata.uid = Some("md".into());
        // What is kept is told by tests of its own.
        owner::annotate(&mut deployment.metadata, names::HISTORY_LIMIT_ANNOTATION, "0");
        deployment.metadata.finalizers = Some(vec![names::MACHINE_DEPLOYMENT_FINALIZER.into()]);
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (sets, units, text) = Default::default();
        let mut world = Self {
            deployment,
            sets,
            units,
            now,
            made: 0,
            named: 0,
            stuck: None,
            slow: false,
            text,
            strict: false,
            in_place: false,
        };
        world.settle();
        world.text.clear();
        world.strict = true;
        world
    }

    pub(super) fn wanted(&self) -> i32 {
        self.deployment.spec.replicas.unwrap()
    }

    pub(super) fn limits(&self) -> (i32, i32) {
        let strategy = self.deployment.spec.rollout.as_ref().unwrap().strategy.clone().unwrap();
        super::super::limits(strategy.rolling_update.as_ref(), self.wanted())
    }

    pub(super) fn release(&mut self, version: &str) {
        self.deployment.spec.template.spec.version = Some(version.into());
        self.text.push(format!("release {version}"));
    }

    pub(super) fn scale(&mut self, replicas: i32) {
        self.deployment.spec.replicas = Some(replicas);
        self.text.push(format!("scale {replicas}"));
    }

    pub(super) fn seen(&self) -> Seen {
        let machine = |unit: &Unit| {
            let set = self.sets.iter().find(|set| set.metadata.uid.as_ref() == Some(&unit.set)).unwrap();
            let mut machine = Machine::new(&unit.name, MachineSpec::default());
            machine.metadata.owner_references = Some(vec![owner::reference(set, true)]);
            machine.metadata.deletion_timestamp = unit.deleting.then_some(Time(self.now));
            let mut status = MachineStatus { node_ref: Some(NodeRef { name: "n".into() }), ..Default::default() };
            let available = Statement::of("Available", unit.available, ("Available", "NotReady"), "");
            condition::set(&mut status.conditions, available, None, &Time(self.now));
            machine.status = Some(status);
            api::in_place::mark(&mut machine.metadata, unit.updating);
            if unit.uncounted {
                owner::annotate(&mut machine.metadata, names::PENDING_ACKNOWLEDGE_MOVE_ANNOTATION, "");
            }
            Arc::new(machine)
        };
        let template = &self.deployment.spec.template;
        let old = self.sets.iter().filter(|set| self.in_place && difference(template, &set.spec.template).is_some());
        let verdicts = old.map(|set| (set.metadata.name.clone().unwrap(), crate::in_place::Verdict::Can)).collect();
        Seen {
            deployment: Arc::new(self.deployment.clone()),
            cluster: None,
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            orphans: Vec::new(),
            machines: self.units.iter().map(machine).collect(),
            suffixes: Suffixes::seeded(self.made as u64),
            in_place: in_place::Asked { handled: self.in_place, verdicts },
        }
    }

    pub(super) fn plan(&self) -> Plan {
        super::super::plan(&self.seen(), &Time(self.now))
    }

    /// Carries out one plan.
    pub(super) fn step(&mut self) {
        let plan = self.plan();
        for step in &plan.steps {
            match step {
                Step::Create { body, .. } => {
                    let mut set: MachineSet = serde_json::from_value(body.clone()).unwrap();
                    set.metadata.uid = Some(format!("{}", char::from(b'a' + u8::try_from(self.made).unwrap())));
                    set.metadata.creation_timestamp = Some(Time(self.now));
                    self.made += 1;
                    self.sets.push(set);
                }
                Step::Update(change) if change.resource.kind == "MachineDeployment" => {
                    self.deployment = patched(&self.deployment, change);
                }
                Step::Update(change) => {
                    let set = self.sets.iter_mut().find(|set| Key::of(*set) == change.key).unwrap();
                    *set = patched(set, change);
                }
                Step::Delete { uid, .. } => {
                    self.sets.retain(|set| {
                        let is = set.metadata.uid == *uid;
                        assert!(
                            !is || !self.units.iter().any(|unit| Some(&unit.set) == uid.as_ref()),
                            "machines are lost"
                        );
                        !is
                    });
                }
                Step::Event(_) => {}
            }
        }
        self.now += SignedDuration::from_secs(1);
        self.note();
    }

    /// What the sets' own controller does: makes and removes machines, and counts them.
    pub(super) fn sets_act(&mut self) {
        for index in 0..self.sets.len() {
            let set = &self.sets[index];
            let uid = set.metadata.uid.clone().unwrap();
            let wanted = usize::try_from(set.spec.replicas.unwrap()).unwrap();
            let disabled =
                owner::annotation_of(&set.metadata, names::DISABLE_MACHINE_CREATE_ANNOTATION) == Some("true");
            let mine = |unit: &&mut Unit| unit.set == uid;
            let have = self.units.iter().filter(|unit| unit.set == uid).count();
            if self.give(index, have.saturating_sub(wanted)) {
                continue;
            }
            for _ in have..wanted {
                assert!(!disabled, "set {uid} is to make machines and may not");
                self.named += 1;
                let (name, set) = (format!("m{}", self.named), uid.clone());
                let none = Unit { name, set, available: false, deleting: false, updating: false, uncounted: false };
                self.units.push(none);
                let (surge, _) = self.limits();
                let total = i32::try_from(self.units.len()).unwrap();
                assert!(!self.strict || total <= self.wanted() + surge, "{total} machines: {:?}", self.text);
            }
            let mut order: Vec<&mut Unit> = self.units.iter_mut().filter(mine).collect();
            order.sort_by_key(|unit| (!unit.deleting, !unit.updating, unit.available));
            let uncounted = order.iter().filter(|unit| unit.uncounted).count();
            for unit in order.into_iter().take(have.saturating_sub(wanted).saturating_sub(uncounted)) {
                unit.deleting = true;
            }
            let (_, unavailable) = self.limits();
            let serving = i32::try_from(self.units.iter().filter(|unit| unit.serves()).count());
            let least = self.wanted() - unavailable;
            assert!(!self.strict || serving.unwrap() >= least, "less than {least} available: {:?}", self.text);
            if !self.slow {
                self.units.retain(|unit| !unit.deleting);
            }
        }
        self.count();
    }

    /// Gives machines to another set, as the two of them have to agree on; and goes on with those that have come.
    pub(super) fn give(&mut self, index: usize, surplus: usize) -> bool {
        let own = self.sets[index].clone();
        let of = |set: &MachineSet, key: &str| owner::annotation_of(&set.metadata, key).unwrap_or_default().to_owned();
        let lists = |text: &str, name: &str| text.split(',').any(|one| one == name);
        let counted = of(&own, names::ACKNOWLEDGED_MOVE_ANNOTATION);
        let receives = !of(&own, names::RECEIVE_MACHINES_ANNOTATION).is_empty();
        for unit in self.units.iter_mut().filter(|unit| Some(&unit.set) == own.metadata.uid.as_ref()) {
            unit.uncounted &= receives && !lists(&counted, &unit.name);
        }
        let to = of(&own, names::MOVE_MACHINES_ANNOTATION);
        let Some(target) = self.sets.iter().find(|set| set.metadata.name.as_deref() == Some(&to)) else { return false };
        assert!(lists(&of(target, names::RECEIVE_MACHINES_ANNOTATION), own.metadata.name.as_deref().unwrap()));
        let movable = |unit: &&mut Unit| Some(&unit.set) == own.metadata.uid.as_ref() && !unit.updating;
        for unit in self.units.iter_mut().filter(movable).take(surplus) {
            unit.set = target.metadata.uid.clone().unwrap();
            (unit.updating, unit.uncounted) = (true, true);
        }
        let (_, unavailable) = self.limits();
        let serving = i32::try_from(self.units.iter().filter(|unit| unit.serves()).count()).unwrap();
        assert!(!self.strict || serving >= self.wanted() - unavailable, "{serving} available: {:?}", self.text);
        true
    }

    pub(super) fn count(&mut self) {
        for set in &mut self.sets {
            let uid = set.metadata.uid.clone().unwrap();
            let of = |keep: fn(&Unit) -> bool| {
                i32::try_from(self.units.iter().filter(|unit| unit.set == uid && keep(unit)).count()).ok()
            };
            let status = MachineSetStatus {
                replicas: of(|_| true),
                available_replicas: of(Unit::serves),
                up_to_date_replicas: of(|unit| !unit.updating),
                ..Default::default()
            };
            set.status = Some(status);
        }
    }

    pub(super) fn become_available(&mut self, most: usize) {
        let stuck = self.stuck;
        let may =
            |unit: &&mut Unit| !unit.serves() && !unit.deleting && !unit.uncounted && stuck != Some(unit.set.as_str());
        let waiting = self.units.iter_mut().filter(may);
        waiting.take(most).for_each(|unit| (unit.available, unit.updating) = (true, false));
        self.count();
        self.note();
    }

    pub(super) fn reap(&mut self) {
        self.units.retain(|unit| !unit.deleting);
        self.count();
        self.note();
    }

    /// `a 3/2`: set a is to have three machines, two are available.
    pub(super) fn note(&mut self) {
        let sets = self.sets.iter().map(|set| {
            let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
            format!("{} {}/{available}", set.metadata.uid.as_deref().unwrap(), set.spec.replicas.unwrap())
        });
        let line = sets.collect::<Vec<_>>().join("  ");
        if self.text.last() != Some(&line) {
            self.text.push(line);
        }
    }

    /// Until nothing happens any more; one machine at a time becomes available.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            self.step();
            self.sets_act();
            self.reap();
            self.become_available(1);
            let waiting = self.units.iter().any(|unit| !unit.serves());
            if !waiting && self.plan().steps.is_empty() {
                return;
            }
        }
        panic!("never settles: {:#?}", self.text);
    }

    pub(super) fn text(&self) -> String {
        self.text.join("\n")
    }
}
