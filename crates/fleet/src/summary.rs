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
                bad.push(format!("* {part}: {}", indented(&told(found))));
            }
            found => unknown.push(format!("* {part}: {}", found.map_or_else(|| "not yet reported".into(), told))),
        }
    }
    if !bad.is_empty() {
        bad.extend(unknown);
        return Statement::no(type_, reasons.some_not, bad.join("\n"));
    }
    if !unknown.is_empty() {
        return Statement::unknown(type_, reasons.some_unknown, unknown.join("\n"));
    }
    Statement::yes(type_, reasons.all)
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
}
