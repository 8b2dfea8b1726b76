//! Replaces machines that failed a health check: as many at once as the deployment allows, the newest first.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machineset (reconcileUnhealthyMachines).

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use api::{
    condition::{self, Statement},
    machine::Machine,
    meta::Condition,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Seen, preflight};
use crate::machine_deployment::{resolve, revision};

const TYPE: &str = "OwnerRemediated";
const DELETING: &str = "MachineDeleting";

/// What is said about machines by name, `None` if nothing is any more, and those that go.
#[derive(Default)]
pub struct Remediation {
    pub statements: BTreeMap<String, Option<Statement>>,
    pub delete: Vec<Arc<Machine>>,
    /// Some wait for others, or for the control plane.
    pub deferred: bool,
}

/// Failed its health check, and is to be replaced by its owner.
pub fn is_due(machine: &Machine) -> bool {
    let conditions = conditions(machine);
    condition::is_false(conditions, "HealthCheckSucceeded") && condition::is_false(conditions, TYPE)
}

fn conditions(machine: &Machine) -> &[Condition] {
    machine.status.as_ref().map_or(&[], |status| &status.conditions)
}

pub fn decide(seen: &Seen) -> Remediation {
    let mut remediation = Remediation::default();
    let alive = || seen.machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_none());
    let mut say = |machine: &Machine, statement: Option<Statement>| {
        remediation.statements.insert(machine.metadata.name.clone().unwrap_or_default(), statement);
    };
    for machine in alive() {
        let conditions = conditions(machine);
        if condition::is_true(conditions, "HealthCheckSucceeded") && condition::is_false(conditions, TYPE) {
            say(machine, None);
        }
    }
    let mut due: Vec<_> = alive().filter(|machine| is_due(machine)).collect();
    if due.is_empty() {
        return remediation;
    }
    due.sort_by_key(|machine| {
        let created = machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(created), machine.metadata.name.clone())
    });
    if seen.deployment.as_ref().is_some_and(|deployment| revision(deployment.as_ref()) != revision(seen.set.as_ref())) {
        let why = "Machine won't be remediated because it is pending removal due to rollout";
        due.iter().for_each(|machine| say(machine, Some(Statement::no(TYPE, "CannotBeRemediated", why))));
        return remediation;
    }
    let limit = seen.deployment.as_ref().and_then(|deployment| {
        let limit = deployment.spec.remediation.as_ref()?.max_in_flight.clone()?;
        Some((resolve(&limit, deployment.spec.replicas.unwrap_or(1), true), limit))
    });
    let room = limit.as_ref().map_or(due.len(), |(count, _)| {
        let going = |machine: &&Arc<Machine>| {
            let why = condition::get(conditions(machine), TYPE).map(|found| found.reason.as_str());
            machine.metadata.deletion_timestamp.is_some() && why == Some(DELETING)
        };
        usize::try_from(*count).unwrap_or(0).saturating_sub(seen.machines.iter().filter(going).count())
    });
    let (now, later) = due.split_at(room.min(due.len()));
    for machine in later {
        let limit = match limit.as_ref().map(|(_, limit)| limit) {
            Some(IntOrString::Int(count)) => count.to_string(),
            Some(IntOrString::String(text)) => text.clone(),
            None => String::new(),
        };
        let why = format!(
            "Waiting because there are already too many remediations in progress (spec.strategy.remediation.maxInFlight is {limit})"
        );
        say(machine, Some(Statement::no(TYPE, "RemediationDeferred", why)));
    }
    let mut deferred = !later.is_empty();
    match preflight::check(seen) {
        Err(why) => {
            deferred |= !now.is_empty();
            let statement = Statement::no(TYPE, "RemediationDeferred", format!("* {why}"));
            now.iter().for_each(|machine| say(machine, Some(statement.clone())));
        }
        Ok(()) => {
            let statement = Statement::no(TYPE, DELETING, "Machine is deleting");
            now.iter().for_each(|machine| say(machine, Some(statement.clone())));
            remediation.delete = now.iter().map(|machine| Arc::clone(machine)).collect();
        }
    }
    remediation.deferred = deferred;
    remediation
}

/// The Remediating condition of whoever owns the machines.
pub fn remediating<'a>(machines: impl IntoIterator<Item = &'a Arc<Machine>>) -> Statement {
    let mut due = Vec::new();
    let mut sick = Vec::new();
    for machine in machines {
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        let conditions = conditions(machine);
        if is_due(machine) {
            let message = condition::get(conditions, TYPE).map_or("", |found| found.message.as_str());
            due.push(format!("* Machine {name}: {message}"));
        } else if condition::is_false(conditions, "HealthCheckSucceeded") {
            sick.push(name);
        }
    }
    if !due.is_empty() {
        return Statement { message: due.join("\n"), ..Statement::yes("Remediating", "Remediating") };
    }
    let message = match sick.as_slice() {
        [] => String::new(),
        [one] => format!("Machine {one} is not healthy (not to be remediated)"),
        many => format!("Machines {} are not healthy (not to be remediated)", many.join(", ")),
    };
    Statement::no("Remediating", "NotRemediating", message)
}

#[cfg(test)]
mod tests {
    use api::{
        machine::{MachineDeployment, MachineDeploymentRemediation, MachineDeploymentSpec},
        names,
    };
    use control::{Outcome, Step};

    use super::{super::tests::*, *};
    use crate::owner;

    /// A set of three machines, of which these failed their health check.
    fn sick(names: &[&str]) -> Seen {
        let mut seen = seen(3);
        for (name, minutes) in [("old", 30), ("mid", 20), ("new", 10)] {
            machine(&mut seen, name, minutes, true);
            if names.contains(&name) {
                state(&mut seen, name, Statement::no("HealthCheckSucceeded", "NodeDeleted", ""));
                state(&mut seen, name, Statement::no(TYPE, "WaitingForRemediation", "Waiting for remediation"));
            }
        }
        seen
    }

    fn state(seen: &mut Seen, name: &str, statement: Statement) {
        let conditions = &mut machine_of(seen, name).status.get_or_insert_default().conditions;
        condition::set(conditions, statement, None, &now());
    }

    fn deployment(seen: &mut Seen, max_in_flight: IntOrString) {
        let remediation = Some(MachineDeploymentRemediation { max_in_flight: Some(max_in_flight) });
        let spec = MachineDeploymentSpec {
            cluster_name: "demo".into(),
            replicas: Some(3),
            template: seen.set.spec.template.clone(),
            remediation,
            ..Default::default()
        };
        seen.deployment = Some(Arc::new(placed(MachineDeployment::new("md", spec), "u-md")));
    }

    /// What is said of the remediation of a machine.
    fn said(seen: &Seen, name: &str) -> String {
        decide(seen).statements.get(name).map_or("nothing".into(), |statement| match statement {
            Some(statement) => format!("{}: {}", statement.reason, statement.message),
            None => "no more".into(),
        })
    }

    #[test]
    fn a_machine_says_why_it_goes_before_it_does() {
        let seen = sick(&["mid"]);
        let plan = super::super::plan(&seen, &now());
        let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted);
        let said = at(
            |step| matches!(step, Step::Update(change) if format!("{step}").contains("MachineDeleting") && change.key.name == "mid"),
        );
        let gone = at(|step| matches!(step, Step::Delete { key, .. } if key.name == "mid"));
        assert!(said.is_some() && said < gone, "{plan}");
        assert!(!text(&seen).contains("delete Machine new"));
    }

    #[test]
    fn the_newest_go_first_and_no_more_at_once_than_the_deployment_allows() {
        let mut seen = sick(&["old", "mid", "new"]);
        deployment(&mut seen, IntOrString::String("34%".into()));
        assert_eq!(decide(&seen).delete.len(), 2, "a third of three, rounded up");
        assert_eq!(said(&seen, "new"), "MachineDeleting: Machine is deleting");
        assert!(said(&seen, "old").starts_with("RemediationDeferred: Waiting because"), "{}", said(&seen, "old"));
        deployment(&mut seen, IntOrString::Int(1));
        state(&mut seen, "new", Statement::no(TYPE, DELETING, "Machine is deleting"));
        machine_of(&mut seen, "new").metadata.deletion_timestamp = Some(now());
        assert_eq!(decide(&seen).delete.len(), 0, "one is under way");
        assert!(said(&seen, "mid").ends_with("(spec.strategy.remediation.maxInFlight is 1)"));
        assert!(matches!(super::super::plan(&seen, &now()).outcome, Outcome::Waiting { .. }));
    }

    #[test]
    fn machines_of_an_old_revision_are_left_to_the_rollout() {
        let mut seen = sick(&["old"]);
        deployment(&mut seen, IntOrString::Int(1));
        owner::annotate(&mut set_of(&mut seen).metadata, names::REVISION_ANNOTATION, "1");
        let deployment = Arc::get_mut(seen.deployment.as_mut().unwrap()).unwrap();
        owner::annotate(&mut deployment.metadata, names::REVISION_ANNOTATION, "2");
        assert!(said(&seen, "old").starts_with("CannotBeRemediated: "));
        assert!(decide(&seen).delete.is_empty());
    }

    #[test]
    fn a_machine_that_is_well_again_is_left_alone() {
        let mut seen = sick(&["old"]);
        state(&mut seen, "old", Statement::yes("HealthCheckSucceeded", "HealthCheckSucceeded"));
        assert_eq!(said(&seen, "old"), "no more");
        assert!(decide(&seen).delete.is_empty());
    }

    #[test]
    fn the_owner_tells_what_it_replaces_and_what_it_does_not() {
        let mut seen = sick(&["old"]);
        let told = remediating(&seen.machines);
        assert_eq!(
            (told.reason.as_str(), told.message.as_str()),
            ("Remediating", "* Machine old: Waiting for remediation")
        );
        condition::remove(&mut machine_of(&mut seen, "old").status.as_mut().unwrap().conditions, TYPE);
        let told = remediating(&seen.machines);
        assert_eq!(told.message, "Machine old is not healthy (not to be remediated)");
    }
}
