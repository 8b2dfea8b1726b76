//! Conditions that sum up many objects.

use api::{
    condition::{self, Statement},
    meta::{Condition, ConditionStatus},
};

/// How many objects a message names before it only counts them.
const NAMED_MAX: usize = 3;

/// The reasons of a summing condition, in Cluster API's words.
#[derive(Clone, Copy, Debug)]
pub struct Reasons {
    pub all: &'static str,
    pub some_not: &'static str,
    pub some_unknown: &'static str,
    pub none: &'static str,
}

pub const READY: Reasons =
    Reasons { all: "Ready", some_not: "NotReady", some_unknown: "ReadyUnknown", none: "NoReplicas" };
pub const UP_TO_DATE: Reasons =
    Reasons { all: "UpToDate", some_not: "NotUpToDate", some_unknown: "UpToDateUnknown", none: "NoReplicas" };
pub const AVAILABLE: Reasons =
    Reasons { all: "Available", some_not: "NotAvailable", some_unknown: "AvailableUnknown", none: "NoWorkers" };

/// True if `part` is true of every object; says of which it is not, and why.
pub fn all<'a>(
    type_: &'static str,
    kind: &str,
    part: &str,
    reasons: Reasons,
    objects: impl IntoIterator<Item = (&'a str, &'a [Condition])>,
) -> Statement {
    let (mut total, mut bad, mut unknown) = (0_usize, Vec::new(), Vec::new());
    for (name, conditions) in objects {
        total += 1;
        match condition::get(conditions, part) {
            Some(found) if found.status == ConditionStatus::True => {}
            Some(found) if found.status == ConditionStatus::False => bad.push((name, told(found))),
            found => unknown.push((name, found.map_or_else(|| format!("{part} not yet reported"), told))),
        }
    }
    if total == 0 {
        return Statement::yes(type_, reasons.none);
    }
    if !bad.is_empty() {
        return Statement::no(type_, reasons.some_not, message(kind, &bad));
    }
    if !unknown.is_empty() {
        return Statement::unknown(type_, reasons.some_unknown, message(kind, &unknown));
    }
    Statement::yes(type_, reasons.all)
}

/// The condition's own message, or its reason.
fn told(condition: &Condition) -> String {
    if condition.message.is_empty() { condition.reason.clone() } else { condition.message.clone() }
}

fn message(kind: &str, parts: &[(&str, String)]) -> String {
    let mut lines: Vec<String> =
        parts.iter().take(NAMED_MAX).map(|(name, why)| format!("* {kind} {name}: {}", indented(why))).collect();
    if parts.len() > NAMED_MAX {
        lines.push(format!("* and {} {kind}s more", parts.len() - NAMED_MAX));
    }
    lines.join("\n")
}

/// Lists inside a list are moved in by one level.
fn indented(text: &str) -> String {
    if text.starts_with("* ") { format!("\n  {}", text.replace('\n', "\n  ")) } else { text.replace('\n', "\n  ") }
}

/// True if all of `parts` are true and all of `negative` are false; otherwise false (or unknown) with those that are not.
pub fn both(
    type_: &'static str,
    reasons: Reasons,
    conditions: &[Condition],
    parts: &[&str],
    negative: &[&str],
) -> Statement {
    let (mut bad, mut unknown) = (Vec::new(), Vec::new());
    let good = [(parts, ConditionStatus::True), (negative, ConditionStatus::False)];
    for (part, good) in good.iter().flat_map(|(parts, good)| parts.iter().map(move |part| (part, good))) {
        match condition::get(conditions, part) {
            Some(found) if found.status == *good => {}
            Some(found) if found.status != ConditionStatus::Unknown => {
                bad.push((*part, indented(&told(found))));
            }
            found => unknown.push((*part, found.map_or_else(|| "not yet reported".into(), told))),
        }
    }
    if !bad.is_empty() {
        bad.extend(unknown);
        return Statement::no(type_, reasons.some_not, grouped(&bad));
    }
    if !unknown.is_empty() {
        return Statement::unknown(type_, reasons.some_unknown, grouped(&unknown));
    }
    Statement::yes(type_, reasons.all)
}

/// A line for each condition, and one for all components of a control plane that say the same.
/// Source: Machine's spec.readinessGates in the API reference.
fn grouped(parts: &[(&str, String)]) -> String {
    let is_component = |(part, _): &&(&str, String)| {
        *part == "EtcdPodHealthy"
            || ["APIServer", "ControllerManager", "Scheduler"].iter().any(|prefix| part.starts_with(prefix))
    };
    let mut components = parts.iter().filter(is_component);
    let first = components.next();
    let alike = first.filter(|first| components.clone().all(|next| next.1 == first.1));
    let alike = alike.filter(|_| components.next().is_some());
    let line = |part: &(&str, String)| match alike {
        Some(first) if is_component(&part) => {
            (first.0 == part.0).then(|| format!("* Control plane components: {}", part.1))
        }
        _ => Some(format!("* {}: {}", part.0, part.1)),
    };
    parts.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_gate_holds_while_its_condition_is_false() {
        let with = |status| {
            let mut conditions = Vec::new();
            let stated = Statement { status, ..Statement::no("Broken", "Why", "") };
            condition::set(&mut conditions, stated, None, &api::meta::Time(jiff::Timestamp::UNIX_EPOCH));
            both("Available", AVAILABLE, &conditions, &[], &["Broken"])
        };
        assert_eq!(with(ConditionStatus::False).status, ConditionStatus::True);
        assert_eq!(with(ConditionStatus::Unknown).status, ConditionStatus::Unknown);
        let held = with(ConditionStatus::True);
        assert_eq!((held.status, held.message.as_str()), (ConditionStatus::False, "* Broken: Why"));
    }

    #[test]
    fn components_of_a_control_plane_that_say_the_same_take_one_line() {
        let with = |scheduler: &str| {
            let mut conditions = Vec::new();
            let why = [("APIServerPodHealthy", "down"), ("EtcdPodHealthy", "down"), ("SchedulerPodHealthy", scheduler)];
            for (type_, why) in why {
                let stated = Statement::no(type_, "Why", why);
                condition::set(&mut conditions, stated, None, &api::meta::Time(jiff::Timestamp::UNIX_EPOCH));
            }
            let parts = ["NodeHealthy", "APIServerPodHealthy", "SchedulerPodHealthy", "EtcdPodHealthy"];
            both("Ready", READY, &conditions, &parts, &[]).message
        };
        assert_eq!(with("down"), "* Control plane components: down\n* NodeHealthy: not yet reported");
        assert_eq!(
            with("slow"),
            "* APIServerPodHealthy: down\n* SchedulerPodHealthy: slow\n* EtcdPodHealthy: down\n\
             * NodeHealthy: not yet reported"
        );
        let one = both("Ready", READY, &[], &["SchedulerPodHealthy"], &[]);
        assert_eq!(one.message, "* SchedulerPodHealthy: not yet reported");
    }
}
