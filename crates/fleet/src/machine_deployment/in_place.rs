//! Rollouts whose machines stay: the old sets give them to the new one, which has an extension update them. As many as
//! possible go this way, and no more at once than may be unavailable.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machinedeployment (machinedeployment_rollout_rollingupdate.go,
//! machinedeployment_canupdatemachineset.go).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    in_place::{Objects, is_under_way},
    machine::{Machine, MachineSet, RolloutStrategyType},
    meta::{ContractRef, Time},
    names,
    topology::hooks::Hook,
};
use control::{Key, Result};

use super::{Seen, current, difference};
use crate::{
    Context, External,
    extension::Pass,
    external,
    in_place::{self, Verdict},
    machine_set::{first_to_go, in_place::is_movable},
    owner,
};

/// What extensions say about the old sets.
#[derive(Default)]
pub struct Asked {
    /// Somebody may say that machines can be updated, or it is not known who.
    pub handled: bool,
    /// By the set's name. Nothing is rolled while one is not known.
    pub verdicts: BTreeMap<String, Verdict>,
}

impl Asked {
    /// Sets whose machines can be updated.
    fn can(&self, set: &MachineSet) -> bool {
        set.metadata.name.as_ref().and_then(|name| self.verdicts.get(name)) == Some(&Verdict::Can)
    }

    /// Why nothing may be rolled now; the inner `None`: it is only asked yet.
    pub fn held(&self) -> Option<Option<String>> {
        let mut held = self.verdicts.iter().filter_map(|(set, verdict)| match verdict {
            Verdict::Can | Verdict::Cannot(_) => None,
            Verdict::Later => Some(None),
            Verdict::Unknown(why) => {
                Some(Some(format!("failed to determine if MachineSet {set} can be updated in-place: {why}")))
            }
        });
        held.next()
    }
}

fn name_of(set: &MachineSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

fn running(set: &MachineSet) -> i32 {
    set.status.as_ref().and_then(|status| status.replicas).unwrap_or(0)
}

fn spec(set: &MachineSet) -> i32 {
    set.spec.replicas.unwrap_or(0)
}

/// Asks about the sets that have machines to give.
pub async fn ask(context: &Context, seen: &mut Seen, now: &Time) -> Result<()> {
    let hook = Hook::CanUpdateMachineSet;
    let deployment = seen.deployment.clone();
    let strategy = deployment.spec.rollout.as_ref().and_then(|rollout| rollout.strategy.as_ref());
    let rolls = strategy.is_none_or(|strategy| strategy.type_ == RolloutStrategyType::RollingUpdate);
    if !context.extensions.handles(hook) || !rolls || deployment.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    let handler = in_place::handler(&context.extensions, hook, &namespace).await;
    if handler == Ok(None) {
        return Ok(());
    }
    seen.in_place.handled = true;
    let Some(current) = current(seen, now) else { return Ok(()) };
    let wanted = deployment.spec.replicas.unwrap_or(1).max(0);
    if spec(&current) + came(seen, &current).1 >= wanted {
        return Ok(());
    }
    let pass = Pass::begin();
    let old = seen.sets.iter().filter(|set| set.metadata.uid != current.metadata.uid && is_eligible(seen, set, now));
    let mut verdicts = BTreeMap::new();
    for set in old {
        let verdict = match &handler {
            Ok(handler) => about(context, seen, (set, &current), handler.as_deref().unwrap_or_default(), &pass).await?,
            Err(why) => Verdict::Unknown(why.clone()),
        };
        verdicts.insert(name_of(set).to_owned(), verdict);
    }
    seen.in_place.verdicts = verdicts;
    Ok(())
}

/// It has machines that are not as declared, and not only too old.
fn is_eligible(seen: &Seen, set: &MachineSet, now: &Time) -> bool {
    let after = seen.deployment.spec.rollout.as_ref().and_then(|rollout| rollout.after.as_ref());
    let made = set.metadata.creation_timestamp.as_ref();
    let expired = after.is_some_and(|after| after.0 <= now.0 && made.is_some_and(|made| made.0 < after.0));
    running(set) > 0 && !expired && difference(&seen.deployment.spec.template, &set.spec.template).is_some()
}

async fn about(
    context: &Context,
    seen: &Seen,
    (old, new): (&Arc<MachineSet>, &Arc<MachineSet>),
    handler: &str,
    pass: &Pass,
) -> Result<Verdict> {
    let namespace = old.metadata.namespace.clone().unwrap_or_default();
    let find = |reference: Option<&ContractRef>| context.caches.external(&namespace, reference);
    let infrastructure = |set: &MachineSet| find(Some(&set.spec.template.spec.infrastructure_ref));
    let config = |set: &MachineSet| find(set.spec.template.spec.bootstrap.config_ref.as_ref());
    let (Some(present), Some(wanted)) = (infrastructure(old), infrastructure(new)) else {
        return Ok(Verdict::Cannot("an infrastructure template does not exist".to_owned()));
    };
    let has_config = |set: &MachineSet| set.spec.template.spec.bootstrap.config_ref.is_some();
    let configs = (config(old), config(new));
    if has_config(old) != has_config(new) || has_config(old) && (configs.0.is_none() || configs.1.is_none()) {
        return Ok(Verdict::Cannot("a bootstrap template does not exist".to_owned()));
    }
    let sets = [old, new].map(|set| external::value(set.as_ref()));
    let current =
        Objects { main: &sets[0], infrastructure: present.value(), bootstrap: configs.0.as_ref().map(External::value) };
    let desired =
        Objects { main: &sets[1], infrastructure: wanted.value(), bootstrap: configs.1.as_ref().map(External::value) };
    let hook = Hook::CanUpdateMachineSet;
    let verdict = in_place::ask(context, &Key::of(old.as_ref()), (hook, handler), &current, &desired, pass).await;
    if verdict != Verdict::Can {
        return Ok(verdict);
    }
    // A provider whose machines cannot change must not get as far as to refuse it.
    let mut own = seen.machines.iter().filter(|machine| owner::is_controlled_by(&machine.metadata, &old.metadata));
    let Some(clone) = own.find_map(|machine| find(Some(&machine.spec.infrastructure_ref))) else { return Ok(verdict) };
    let wanted = in_place::desired_infrastructure(&clone, &wanted);
    let tried = in_place::tried(context.writer.client(), &clone, &wanted).await?;
    Ok(tried.map_or_else(Verdict::Cannot, |_| verdict))
}

/// Machines that came to the current set and that its size does not count for ever yet, by name; and how many of them it
/// does not count at all.
pub fn came(seen: &Seen, current: &MachineSet) -> (BTreeSet<String>, i32) {
    let pending = |machine: &&Arc<Machine>| {
        owner::is_controlled_by(&machine.metadata, &current.metadata)
            && owner::annotation_of(&machine.metadata, names::PENDING_ACKNOWLEDGE_MOVE_ANNOTATION).is_some()
    };
    let all: BTreeSet<String> =
        seen.machines.iter().filter(pending).filter_map(|machine| machine.metadata.name.clone()).collect();
    let counted = owner::annotation_of(&current.metadata, names::ACKNOWLEDGED_MOVE_ANNOTATION).unwrap_or_default();
    let fresh = all.iter().filter(|name| !counted.split(',').any(|counted| counted == *name)).count();
    (all, i32::try_from(fresh).unwrap_or(i32::MAX))
}

/// Machines of an old set that may go and are not missed: what does not serve. One that gives its machines away gives them
/// in an order of its own, and only those before the first that serves are not missed.
pub fn idle(seen: &Seen, set: &MachineSet, replicas: i32, available: i32) -> i32 {
    if !seen.in_place.can(set) {
        return (replicas - available).max(0);
    }
    let own = seen.machines.iter().filter(|machine| owner::is_controlled_by(&machine.metadata, &set.metadata));
    let order = set.spec.deletion.as_ref().and_then(|deletion| deletion.order).unwrap_or_default();
    let serves = |machine: &Machine| {
        let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
        machine.metadata.deletion_timestamp.is_none() && api::condition::is_true(conditions, "Available")
    };
    let goes = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_some() || is_movable(machine);
    let first = first_to_go(own, order).into_iter().filter(goes).take_while(|machine| !serves(machine));
    i32::try_from(first.count()).unwrap_or(i32::MAX).min(replicas)
}

/// Machines that are on their way from old sets, and serve perhaps for the last moment.
pub fn leaving(seen: &Seen, old: &[&Arc<MachineSet>]) -> i32 {
    old.iter().filter(|set| seen.in_place.can(set)).map(|set| (running(set) - spec(set)).max(0)).sum()
}

/// Who gives machines to whom in the next step.
#[derive(Default)]
pub struct Intent {
    pub from: BTreeSet<String>,
    pub to: Option<String>,
    /// Machines that came and are counted.
    pub counted: BTreeSet<String>,
}

impl Intent {
    /// Writes it on a set; what is not meant any more goes.
    pub fn write(&self, set: &mut MachineSet) {
        let name = name_of(set).to_owned();
        let joined = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let is_target = self.to.as_ref() == Some(&name);
        let to = self.to.clone().filter(|_| self.from.contains(&name));
        let wanted = [
            (names::MOVE_MACHINES_ANNOTATION, to.unwrap_or_default()),
            (names::RECEIVE_MACHINES_ANNOTATION, if is_target { joined(&self.from) } else { String::new() }),
        ];
        for (key, value) in wanted {
            put(set, key, value);
        }
    }

    /// The same of the current set, whether it takes any more or not.
    pub fn count(&self, set: &mut MachineSet) {
        let counted = self.counted.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        put(set, names::ACKNOWLEDGED_MOVE_ANNOTATION, counted);
    }
}

fn put(set: &mut MachineSet, key: &str, value: String) {
    if !value.is_empty() {
        owner::annotate(&mut set.metadata, key, value);
    } else if let Some(annotations) = &mut set.metadata.annotations {
        annotations.remove(key);
    }
}

/// Decides who gives machines away. A surge is not needed then, but for one machine where nothing else would go on.
/// `targets`: replicas of each set by UID, the current one first; `have`: what the current set has.
pub fn intent(
    seen: &Seen,
    current: &MachineSet,
    old: &[&Arc<MachineSet>],
    (have, wanted): (i32, i32),
    targets: &mut [(Option<String>, i32)],
) -> Intent {
    let counted = came(seen, current).0;
    let can = old.iter().filter(|set| seen.in_place.can(set) && running(set) > 0);
    let from: BTreeSet<String> = can.map(|set| name_of(set).to_owned()).collect();
    if have >= wanted || from.is_empty() {
        return Intent { counted, ..Intent::default() };
    }
    let target = |set: &MachineSet| targets.iter().find(|(uid, _)| *uid == set.metadata.uid).map_or(0, |(_, to)| *to);
    let up = target(current) - have;
    if up > 0 {
        let all = old.iter().map(|set| target(set).max(running(set))).sum::<i32>();
        let all = all + target(current).max(running(current));
        let surged = up.min((all - wanted).max(0));
        let left = if surged == up && !is_busy(seen, current, old, have, &target) { 1 } else { up - surged };
        if let Some((_, to)) = targets.iter_mut().find(|(uid, _)| *uid == current.metadata.uid) {
            *to = have + left;
        }
    }
    Intent { from, to: Some(name_of(current).to_owned()), counted }
}

/// Something goes on that ends, so that there will be room without another machine.
fn is_busy(
    seen: &Seen,
    current: &MachineSet,
    old: &[&Arc<MachineSet>],
    have: i32,
    target: &impl Fn(&MachineSet) -> i32,
) -> bool {
    let status = current.status.clone().unwrap_or_default();
    let counts = [status.replicas, status.up_to_date_replicas, status.available_replicas];
    counts.iter().any(|count| count.unwrap_or(0) != have)
        || old.iter().any(|set| spec(set) < running(set) || target(set) < spec(set))
        || seen.machines.iter().any(|machine| is_under_way(&machine.metadata))
}
