//! Machines that go over to the new set of their MachineDeployment instead of being deleted, and are updated there.
//!
//! Two sets have to agree on it: the old one says where its machines go, the new one whose it takes. The old set gives the
//! machine away; the deployment counts it as the new set's; then the new set writes what it is to become.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machineset (startMoveMachines, triggerInPlaceUpdate,
//! completeMoveMachine).

use std::{collections::BTreeSet, sync::Arc};

use api::{
    in_place::{expect, is_marked, is_pending, is_under_way, mark},
    machine::{Machine, MachineSet},
    names,
};
use control::{EventType, Plan};
use serde_json::Value;

use super::{Seen, first_to_go, remediation};
use crate::{External, in_place, owner};

/// What belongs to a machine that is to be updated: its infrastructure and its bootstrap configuration.
pub type Parts = (Option<External>, Option<External>);

/// Machines of the set that change hands, by name.
#[derive(Default)]
pub struct Moves {
    /// They go to the set that is named.
    pub away: BTreeSet<String>,
    /// They came, or stay, and are to become what the set's templates say.
    pub begin: BTreeSet<String>,
}

fn name_of(machine: &Machine) -> &str {
    machine.metadata.name.as_deref().unwrap_or_default()
}

/// The set that gets the machines that are too many.
pub fn target_of(set: &MachineSet) -> Option<&str> {
    owner::annotation_of(&set.metadata, names::MOVE_MACHINES_ANNOTATION).filter(|name| !name.is_empty())
}

fn listed(set: &MachineSet, annotation: &str) -> BTreeSet<String> {
    let text = owner::annotation_of(&set.metadata, annotation).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn receives(set: &MachineSet) -> bool {
    !listed(set, names::RECEIVE_MACHINES_ANNOTATION).is_empty()
}

fn is_uncounted(machine: &Machine) -> bool {
    owner::annotation_of(&machine.metadata, names::PENDING_ACKNOWLEDGE_MOVE_ANNOTATION).is_some()
}

/// Machines that came and that `spec.replicas` does not count yet: there are not too many of them.
pub fn uncounted(set: &MachineSet, machines: &[Arc<Machine>]) -> usize {
    if receives(set) { machines.iter().filter(|machine| is_uncounted(machine)).count() } else { 0 }
}

/// Whether what belongs to the machine has to be looked up: its set is to write it.
pub fn is_unwritten(machine: &Machine) -> bool {
    let meta = &machine.metadata;
    is_marked(meta) && !is_pending(meta) && meta.deletion_timestamp.is_none()
}

/// The machines that are to become what the set's templates say.
pub fn beginning(seen: &Seen) -> BTreeSet<String> {
    let (receives, counted) = (receives(&seen.set), listed(&seen.set, names::ACKNOWLEDGED_MOVE_ANNOTATION));
    let mine = seen.machines.iter().filter(|machine| is_unwritten(machine));
    // Where no machines are taken any more, one that came stays like any other.
    let due = mine.filter(|machine| !is_uncounted(machine) || !receives || counted.contains(name_of(machine)));
    due.map(|machine| name_of(machine).to_owned()).collect()
}

/// Gives away so many machines; those that are to be replaced anyway are deleted.
pub fn give_away(seen: &Seen, surplus: usize, plan: &mut Plan, moves: &mut Moves) -> Result<(), String> {
    let own = seen.set.metadata.name.as_deref().unwrap_or_default();
    let target = receiver(seen)?;
    let name = target.metadata.name.as_deref().unwrap_or_default();
    let sources = listed(target, names::RECEIVE_MACHINES_ANNOTATION);
    if !sources.contains(own) {
        let sources: Vec<_> = sources.into_iter().collect();
        return Err(format!(
            "MachineSet {own} is set to move replicas to {name}, but {name} only accepts Machines from {:?}",
            sources.join(",")
        ));
    }
    let order = seen.set.spec.deletion.as_ref().and_then(|deletion| deletion.order).unwrap_or_default();
    let mut left = surplus;
    for machine in first_to_go(&seen.machines, order) {
        if left == 0 {
            break;
        }
        if machine.metadata.deletion_timestamp.is_some() {
            left -= 1;
        } else if remediation::is_due(machine) {
            left -= 1;
            plan.delete(machine.as_ref());
        } else if is_movable(machine) {
            left -= 1;
            moves.away.insert(name_of(machine).to_owned());
        }
    }
    Ok(())
}

/// It has a node, and is not being updated for another set.
pub fn is_movable(machine: &Machine) -> bool {
    !is_under_way(&machine.metadata) && machine.status.as_ref().is_some_and(|status| status.node_ref.is_some())
}

fn receiver(seen: &Seen) -> Result<&MachineSet, String> {
    let name = target_of(&seen.set).unwrap_or_default();
    let target = seen.target.as_deref().filter(|target| target.metadata.deletion_timestamp.is_none());
    target.ok_or_else(|| format!("MachineSet {name}, which is to take Machines of this one, does not exist"))
}

/// Makes the machine the other set's.
pub fn leave(seen: &Seen, after: &mut Machine) {
    let Ok(target) = receiver(seen) else { return };
    owner::hand_over(&mut after.metadata, owner::reference(target, true), "MachineSet");
    carry_labels(target, &mut after.metadata.labels);
    mark(&mut after.metadata, true);
    owner::annotate(&mut after.metadata, names::PENDING_ACKNOWLEDGE_MOVE_ANNOTATION, "");
}

/// The labels that say whose machine it is.
fn carry_labels(set: &MachineSet, labels: &mut Option<std::collections::BTreeMap<String, String>>) {
    let labels = labels.get_or_insert_default();
    let own = set.spec.template.metadata.iter().flat_map(|meta| &meta.labels);
    if let Some((key, hash)) = own.into_iter().find(|(key, _)| *key == names::TEMPLATE_HASH_LABEL) {
        labels.insert(key.clone(), hash.clone());
    }
    labels.insert(names::SET_LABEL.to_owned(), set.metadata.name.clone().unwrap_or_default());
}

/// Writes what the machine is to become: first what belongs to it, so that its controller finds all when it begins. `Err`
/// says what is missing.
pub fn begin(seen: &Seen, after: &mut Machine, plan: &mut Plan) -> Result<(), String> {
    let missing = |what: &str| format!("In-place update cannot begin: there is no {what}");
    let (infrastructure, bootstrap) = seen.moved.get(name_of(after)).cloned().unwrap_or_default();
    let infrastructure = infrastructure.ok_or_else(|| missing("infrastructure machine"))?;
    let template = seen.infrastructure_template.as_ref().ok_or_else(|| missing("infrastructure template"))?;
    let mut wanted = vec![(in_place::desired_infrastructure(&infrastructure, template), infrastructure)];
    if after.spec.bootstrap.config_ref.is_some() {
        let bootstrap = bootstrap.ok_or_else(|| missing("bootstrap configuration"))?;
        let template = seen.bootstrap_template.as_ref().ok_or_else(|| missing("bootstrap template"))?;
        wanted.push((in_place::desired_bootstrap(&bootstrap, template), bootstrap));
    }
    for (mut object, current) in wanted {
        let mut labels = current.meta.labels.clone();
        carry_labels(&seen.set, &mut labels);
        object["metadata"]["labels"] = serde_json::to_value(labels).unwrap_or(Value::Null);
        in_place::write(&current, &object, plan);
    }
    let template = &seen.set.spec.template.spec;
    after.spec.version = template.version.clone();
    after.spec.failure_domain = template.failure_domain.clone();
    carry_labels(&seen.set, &mut after.metadata.labels);
    if let Some(annotations) = &mut after.metadata.annotations {
        annotations.remove(names::PENDING_ACKNOWLEDGE_MOVE_ANNOTATION);
    }
    expect(&mut after.metadata, true);
    plan.event(after, EventType::Normal, "SuccessfulStartInPlaceUpdate", "Machine starting in-place update");
    Ok(())
}
