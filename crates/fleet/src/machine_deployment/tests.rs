//! Rollouts, step by step: plans are carried out on sets and machines in memory.

mod paused;
mod updates;

use api::{
    condition::{self, Statement},
    machine::{MachineDeploymentSpec, MachineSetStatus, MachineSpec, MachineStatus, NodeRef, Rollout},
};
use control::Step;
use jiff::SignedDuration;
use serde_json::Value;

use super::*;

/// A machine of the simulation.
#[derive(Clone, Debug)]
struct Unit {
    name: String,
    set: String,
    available: bool,
    deleting: bool,
    /// Came from another set, and is not updated yet.
    updating: bool,
    /// The deployment has not counted it.
    uncounted: bool,
}

impl Unit {
    fn serves(&self) -> bool {
        self.available && !self.deleting && !self.updating
    }
}

struct World {
    deployment: MachineDeployment,
    sets: Vec<MachineSet>,
    units: Vec<Unit>,
    now: Timestamp,
    made: usize,
    named: usize,
    /// The machines of this set never become available.
    stuck: Option<&'static str>,
    /// Machines that are deleted stay until [`World::reap`].
    slow: bool,
    /// What is said about the sets, one line for each change.
    text: Vec<String>,
    /// Whether the limits of the rollout are checked: not while the size itself changes.
    strict: bool,
    /// An extension updates machines in place.
    in_place: bool,
}

fn rolling(surge: IntOrString, unavailable: IntOrString) -> RolloutStrategy {
    let update = RollingUpdate { max_surge: Some(surge), max_unavailable: Some(unavailable) };
    RolloutStrategy { rolling_update: Some(update), type_: RolloutStrategyType::RollingUpdate }
}

fn count(number: i32) -> IntOrString {
    IntOrString::Int(number)
}

fn percent(text: &str) -> IntOrString {
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
    fn new(replicas: i32, strategy: RolloutStrategy) -> Self {
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

    fn wanted(&self) -> i32 {
        self.deployment.spec.replicas.unwrap()
    }

    fn limits(&self) -> (i32, i32) {
        let strategy = self.deployment.spec.rollout.as_ref().unwrap().strategy.clone().unwrap();
        super::limits(strategy.rolling_update.as_ref(), self.wanted())
    }

    fn release(&mut self, version: &str) {
        self.deployment.spec.template.spec.version = Some(version.into());
        self.text.push(format!("release {version}"));
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.replicas = Some(replicas);
        self.text.push(format!("scale {replicas}"));
    }

    fn seen(&self) -> Seen {
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

    fn plan(&self) -> Plan {
        super::plan(&self.seen(), &Time(self.now))
    }

    /// Carries out one plan.
    fn step(&mut self) {
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
    fn sets_act(&mut self) {
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
    fn give(&mut self, index: usize, surplus: usize) -> bool {
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

    fn count(&mut self) {
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

    fn become_available(&mut self, most: usize) {
        let stuck = self.stuck;
        let may =
            |unit: &&mut Unit| !unit.serves() && !unit.deleting && !unit.uncounted && stuck != Some(unit.set.as_str());
        let waiting = self.units.iter_mut().filter(may);
        waiting.take(most).for_each(|unit| (unit.available, unit.updating) = (true, false));
        self.count();
        self.note();
    }

    fn reap(&mut self) {
        self.units.retain(|unit| !unit.deleting);
        self.count();
        self.note();
    }

    /// `a 3/2`: set a is to have three machines, two are available.
    fn note(&mut self) {
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
    fn settle(&mut self) {
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

    fn text(&self) -> String {
        self.text.join("\n")
    }
}

/// The story of a rollout from v1 to v2.
fn story(replicas: i32, strategy: RolloutStrategy) -> String {
    let mut world = World::new(replicas, strategy);
    world.release("v2");
    world.settle();
    world.text()
}

#[test]
fn with_a_surge_of_one_a_new_machine_comes_before_an_old_one_goes() {
    assert_eq!(
        story(3, rolling(count(1), count(0))),
        "\
release v2\n\
a 3/3  b 1/0\n\
a 3/3  b 1/1\n\
a 2/3  b 1/1\n\
a 2/2  b 1/1\n\
a 2/2  b 2/1\n\
a 2/2  b 2/2\n\
a 1/2  b 2/2\n\
a 1/1  b 2/2\n\
a 1/1  b 3/2\n\
a 1/1  b 3/3\n\
a 0/1  b 3/3\n\
a 0/0  b 3/3\n\
b 3/3"
    );
}

#[test]
fn without_a_surge_an_old_machine_goes_before_a_new_one_comes() {
    assert_eq!(
        story(3, rolling(count(0), count(1))),
        "\
release v2\n\
a 3/3  b 0/0\n\
a 2/3  b 0/0\n\
a 2/2  b 0/0\n\
a 2/2  b 1/0\n\
a 2/2  b 1/1\n\
a 1/2  b 1/1\n\
a 1/1  b 1/1\n\
a 1/1  b 2/1\n\
a 1/1  b 2/2\n\
a 0/1  b 2/2\n\
a 0/0  b 2/2\n\
b 3/2\n\
b 3/3"
    );
}

#[test]
fn percentages_round_the_surge_up_and_the_unavailable_down() {
    let limits = |surge, unavailable| {
        super::limits(Some(&RollingUpdate { max_surge: Some(surge), max_unavailable: Some(unavailable) }), 5)
    };
    assert_eq!(limits(percent("25%"), percent("25%")), (2, 1));
    assert_eq!(limits(percent("0%"), percent("10%")), (0, 1), "both zero would never move");
    assert_eq!(limits(count(0), count(9)), (0, 5));
    assert_eq!(super::limits(None, 5), (1, 0));
    assert_eq!(
        story(5, rolling(percent("25%"), percent("25%"))),
        "\
release v2\n\
a 5/5  b 2/0\n\
a 5/5  b 2/1\n\
a 3/5  b 2/1\n\
a 3/3  b 2/1\n\
a 3/3  b 2/2\n\
a 2/3  b 4/2\n\
a 2/2  b 4/2\n\
a 2/2  b 4/3\n\
a 1/2  b 5/3\n\
a 1/1  b 5/3\n\
a 1/1  b 5/4\n\
a 0/1  b 5/4\n\
a 0/0  b 5/4\n\
a 0/0  b 5/5\n\
b 5/5"
    );
}

#[test]
fn machines_that_never_become_available_hold_the_rollout_and_then_go_first() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.stuck = Some("b");
    world.release("v2");
    for _ in 0..4 {
        world.step();
        world.sets_act();
        world.become_available(1);
    }
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0"
    );
    world.release("v3");
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0\n\
release v3\n\
a 3/3  b 1/0  c 0/0\n\
a 3/3  b 0/0  c 0/0\n\
a 3/3  c 1/0\n\
a 3/3  c 1/1\n\
a 2/3  c 1/1\n\
a 2/2  c 1/1\n\
a 2/2  c 2/1\n\
a 2/2  c 2/2\n\
a 1/2  c 2/2\n\
a 1/1  c 2/2\n\
a 1/1  c 3/2\n\
a 1/1  c 3/3\n\
a 0/1  c 3/3\n\
a 0/0  c 3/3\n\
c 3/3"
    );
}

#[test]
fn machines_that_are_still_being_deleted_count_for_the_surge() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.slow = true;
    world.release("v2");
    for _ in 0..6 {
        world.step();
        world.sets_act();
        world.become_available(1);
    }
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0\n\
a 3/3  b 1/1\n\
a 2/3  b 1/1\n\
a 2/2  b 1/1"
    );
    assert_eq!(world.units.len(), 4, "one surges, whatever is being deleted");
    world.slow = false;
    world.reap();
    world.settle();
    assert_eq!(world.sets.len(), 1);
}

#[test]
fn a_deployment_is_scaled_in_the_middle_of_a_rollout() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.release("v2");
    world.step();
    world.sets_act();
    world.become_available(1);
    // The new size is not there at once.
    world.strict = false;
    world.scale(5);
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0\n\
a 3/3  b 1/1\n\
scale 5\n\
a 3/3  b 3/1\n\
a 3/3  b 3/2\n\
a 3/3  b 3/3\n\
a 2/3  b 3/3\n\
a 2/2  b 3/3\n\
a 2/2  b 4/3\n\
a 2/2  b 4/4\n\
a 1/2  b 4/4\n\
a 1/1  b 4/4\n\
a 1/1  b 5/4\n\
a 1/1  b 5/5\n\
a 0/1  b 5/5\n\
a 0/0  b 5/5\n\
b 5/5"
    );
    world.text.clear();
    world.release("v3");
    world.step();
    world.sets_act();
    world.scale(2);
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v3\n\
b 5/5  c 1/0\n\
scale 2\n\
b 2/5  c 1/0\n\
b 2/2  c 1/0\n\
b 2/2  c 1/1\n\
b 1/2  c 1/1\n\
b 1/1  c 1/1\n\
b 1/1  c 2/1\n\
b 1/1  c 2/2\n\
b 0/1  c 2/2\n\
b 0/0  c 2/2\n\
c 2/2"
    );
}

#[test]
fn a_new_template_in_the_middle_rolls_over_all_older_sets_and_an_old_one_comes_back() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    world.release("v2");
    world.step();
    world.sets_act();
    world.become_available(1);
    world.release("v3");
    world.step();
    world.sets_act();
    world.become_available(1);
    world.release("v1");
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 2/2  b 1/0\n\
a 2/2  b 1/1\n\
release v3\n\
a 2/2  b 1/1  c 0/0\n\
release v1\n\
a 2/2  b 0/1\n\
a 2/2  b 0/0\n\
a 2/2"
    );
    assert_eq!(world.sets[0].metadata.uid.as_deref(), Some("a"), "its own set is taken again");
    assert_eq!(revision(&world.sets[0]), 4, "and is the newest revision");
    assert_eq!(owner::annotation_of(&world.deployment.metadata, names::REVISION_ANNOTATION), Some("4"));
}

#[test]
fn on_delete_replaces_what_somebody_deletes_and_a_set_that_is_current_again_may_make_machines() {
    let mut world = World::new(2, RolloutStrategy { type_: RolloutStrategyType::OnDelete, rolling_update: None });
    world.strict = false;
    world.release("v2");
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 2/2  b 0/0"
    );
    world.text.clear();
    world.units[0].deleting = true;
    world.settle();
    assert_eq!(
        world.text(),
        "\
a 1/2  b 1/0\n\
a 1/1  b 1/0\n\
a 1/1  b 1/1"
    );
    world.text.clear();
    world.release("v1");
    world.step();
    world.units.iter_mut().for_each(|unit| unit.deleting = true);
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v1\n\
a 1/1  b 1/1\n\
a 2/1  b 0/1\n\
a 2/0  b 0/0\n\
a 2/1  b 0/0\n\
a 2/1\n\
a 2/2"
    );
}

#[test]
fn rollout_after_waits_for_its_time_and_then_replaces_all_machines_once() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    let due = world.now + SignedDuration::from_secs(90);
    world.deployment.spec.rollout.as_mut().unwrap().after = Some(Time(due));
    assert_eq!(world.plan().to_string(), "waits 90 s: the time of the rollout");
    world.now = due;
    world.settle();
    assert_eq!(
        world.text(),
        "\
a 2/2  b 1/0\n\
a 2/2  b 1/1\n\
a 1/2  b 1/1\n\
a 1/1  b 1/1\n\
a 1/1  b 2/1\n\
a 1/1  b 2/2\n\
a 0/1  b 2/2\n\
a 0/0  b 2/2\n\
b 2/2"
    );
    let hash = |set: &MachineSet| owner::label_of(&set.metadata, names::TEMPLATE_HASH_LABEL).unwrap().to_owned();
    assert!(hash(&world.sets[0]).ends_with("-2"), "a second set of one template has a hash of its own");
    world.text.clear();
    world.settle();
    assert_eq!(world.sets.len(), 1);
}

#[test]
fn a_settled_deployment_is_not_written_and_what_changes_in_place_makes_no_machine() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    assert_eq!(world.plan().to_string(), "settled");
    let template = &mut world.deployment.spec.template;
    template.metadata.get_or_insert_default().labels.insert("tier".into(), "web".into());
    template.spec.min_ready_seconds = Some(7);
    world.settle();
    assert_eq!((world.sets.len(), world.made), (1, 1));
    let template = &world.sets[0].spec.template;
    assert_eq!(template.metadata.as_ref().unwrap().labels["tier"], "web");
    assert_eq!(template.spec.min_ready_seconds, Some(7));
}

#[test]
fn what_changes_in_place_reaches_the_sets_that_are_rolled_out() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    world.release("v2");
    world.step();
    assert_eq!(world.sets.len(), 2);
    let template = &mut world.deployment.spec.template;
    template.metadata.get_or_insert_default().labels.insert("tier".into(), "web".into());
    template.spec.deletion.get_or_insert_default().node_drain_timeout_seconds = Some(1);
    world.step();
    for set in &world.sets {
        let template = &set.spec.template;
        assert_eq!(template.spec.deletion.as_ref().and_then(|found| found.node_drain_timeout_seconds), Some(1));
        assert_eq!(template.metadata.as_ref().unwrap().labels["tier"], "web");
        assert_eq!(owner::label_of(&set.metadata, "tier"), Some("web"));
    }
    assert_ne!(world.sets[0].spec.template.spec.version, world.sets[1].spec.template.spec.version);
}

#[test]
fn a_deployments_annotations_are_its_sets_but_for_those_about_itself() {
    let mut world = World::new(1, rolling(count(1), count(0)));
    let skip = "machineset.cluster.x-k8s.io/skip-preflight-checks";
    for (key, value) in [
        (skip, "All"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ("cluster.x-k8s.io/conversion-data", "{}"),
        ("machinedeployment.clusters.x-k8s.io/revision-history", "1"),
    ] {
        owner::annotate(&mut world.deployment.metadata, key, value);
    }
    world.settle();
    let expected = [
        ("cluster.x-k8s.io/annotations-from-owner", skip),
        (names::DESIRED_REPLICAS_ANNOTATION, "1"),
        (names::MAX_REPLICAS_ANNOTATION, "2"),
        (names::REVISION_ANNOTATION, "1"),
        (skip, "All"),
    ];
    let found = |world: &World| world.sets[0].metadata.annotations.clone().unwrap_or_default();
    let entries = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(found(&world), entries(&expected));
    owner::annotate(&mut world.sets[0].metadata, "theirs", "1");
    world.deployment.metadata.annotations.as_mut().unwrap().remove(skip);
    world.settle();
    let left = [expected[1], expected[2], expected[3], ("theirs", "1")];
    assert_eq!(found(&world), entries(&left), "another's annotation stays");
    owner::annotate(&mut world.deployment.metadata, skip, "All");
    world.release("v2");
    world.step();
    let newest = world.sets.last().unwrap();
    assert_eq!(owner::annotation_of(&newest.metadata, skip), Some("All"), "a set is made with them");
}

#[test]
fn as_many_sets_without_machines_stay_as_are_to_be_kept_and_the_oldest_go_first() {
    let mut world = World::new(1, rolling(count(1), count(0)));
    let revisions = |world: &World| world.sets.iter().map(revision).collect::<Vec<_>>();
    let keep = |world: &mut World, limit: Option<&str>| {
        let annotations = world.deployment.metadata.annotations.as_mut().unwrap();
        annotations.remove(names::HISTORY_LIMIT_ANNOTATION);
        if let Some(limit) = limit {
            annotations.insert(names::HISTORY_LIMIT_ANNOTATION.into(), limit.into());
        }
    };
    keep(&mut world, Some("2"));
    for version in ["v2", "v3", "v4", "v5"] {
        world.release(version);
        world.settle();
    }
    assert_eq!(revisions(&world), [3, 4, 5]);
    keep(&mut world, None);
    world.settle();
    assert_eq!(revisions(&world), [4, 5], "one where nothing is said");
    // Back: the set of v4 is taken again, and v5 is what one could go back to.
    world.release("v4");
    world.settle();
    assert_eq!(revisions(&world), [6, 5]);
    keep(&mut world, None);
    owner::label(&mut world.deployment.metadata, names::TOPOLOGY_OWNED_LABEL, "");
    world.settle();
    assert_eq!(revisions(&world), [6], "a topology has its own word");
}

#[test]
fn no_more_sets_are_kept_than_the_limit_whatever_the_annotation_says() {
    let mut world = World::new(0, rolling(count(1), count(0)));
    owner::annotate(&mut world.deployment.metadata, names::HISTORY_LIMIT_ANNOTATION, "1000000");
    let set = |revision: usize| {
        let mut set = MachineSet::new("set", MachineSetSpec::default());
        (set.metadata.uid, set.spec.replicas) = (Some(format!("{revision:03}")), Some(0));
        owner::annotate(&mut set.metadata, names::REVISION_ANNOTATION, revision.to_string());
        Arc::new(set)
    };
    let sets: Vec<_> = (1..=101).map(set).collect();
    let kept = history::kept(&world.deployment, &sets.iter().collect::<Vec<_>>());
    assert_eq!((kept.len(), kept.first()), (100, Some(&Some("002".to_owned()))));
}
