//! Reading and setting conditions: an update that changes nothing keeps its transition time, so that a settled object
//! is never written again.
//!
//! Source: apimachinery `meta.SetStatusCondition`; KEP-1623.

use crate::meta::{Condition, ConditionStatus, Time};

/// A condition as a controller states it; the time is added when it is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub type_: &'static str,
    pub status: ConditionStatus,
    pub reason: String,
    pub message: String,
}

impl Statement {
    pub fn yes(type_: &'static str, reason: impl Into<String>) -> Self {
        Self { type_, status: ConditionStatus::True, reason: reason.into(), message: String::new() }
    }

    pub fn no(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { type_, status: ConditionStatus::False, reason: reason.into(), message: message.into() }
    }

    pub fn unknown(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { type_, status: ConditionStatus::Unknown, reason: reason.into(), message: message.into() }
    }

    /// True or false with one reason each, the message only for false.
    pub fn of(type_: &'static str, holds: bool, reasons: (&str, &str), message: impl Into<String>) -> Self {
        if holds { Self::yes(type_, reasons.0) } else { Self::no(type_, reasons.1, message) }
    }
}

/// Longest message that a condition may carry, in characters (apimachinery `metav1.Condition`).
pub const MESSAGE_MAX_CHARS: usize = 32_768;

pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::True)
}

pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::False)
}

/// Sets one condition; its transition time moves only when its status changes. Conditions stay sorted by type.
pub fn set(conditions: &mut Vec<Condition>, statement: Statement, generation: Option<i64>, now: &Time) {
    let mut message = statement.message;
    if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX_CHARS) {
        message.truncate(end);
    }
    let fresh = Condition {
        last_transition_time: now.clone(),
        message,
        observed_generation: generation,
        reason: statement.reason,
        status: statement.status,
        type_: statement.type_.to_owned(),
    };
    match conditions.binary_search_by(|condition| condition.type_.as_str().cmp(statement.type_)) {
        Ok(index) => {
            let old = &mut conditions[index];
            let since = if old.status == fresh.status { old.last_transition_time.clone() } else { now.clone() };
            *old = Condition { last_transition_time: since, ..fresh };
        }
        Err(index) => match conditions.iter().position(|condition| condition.type_ == statement.type_) {
            // Written by somebody who does not sort: replace it in its place.
            Some(found) => conditions[found] = fresh,
            None => conditions.insert(index, fresh),
        },
    }
}

pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_changes() {
        let mut conditions = vec![];
        set(&mut conditions, Statement::no("Ready", "Waiting", "a"), Some(1), &at(1));
        set(&mut conditions, Statement::no("Ready", "Waiting", "b"), Some(2), &at(2));
        assert_eq!((&conditions[0].last_transition_time, conditions[0].message.as_str()), (&at(1), "b"));
        set(&mut conditions, Statement::yes("Ready", "Ready"), Some(2), &at(3));
        assert_eq!(conditions[0].last_transition_time, at(3));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_message_is_cut_at_its_limit() {
        let mut conditions = vec![];
        set(&mut conditions, Statement::no("Ready", "Long", "é".repeat(MESSAGE_MAX_CHARS + 1)), None, &at(1));
        assert_eq!(conditions[0].message.chars().count(), MESSAGE_MAX_CHARS);
    }
}
