//! A deployment whose rollout is paused: it is still as large as is asked for, and no set takes over from another.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machinedeployment (machinedeployment_sync.go).

use std::{cmp::Reverse, sync::Arc};

use api::{
    machine::{MachineSet, RolloutStrategyType},
    names,
};

use super::{Seen, in_place};
use crate::owner;

type Sizes = Vec<(Option<String>, i32)>;

/// Replicas of the sets that are to have others, by UID. What several sets share is scaled in proportion: a rollout would
/// otherwise go on by scaling. `surge`: machines that may be there besides.
pub fn scale(
    seen: &Seen,
    current: Option<&Arc<MachineSet>>,
    (wanted, surge): (i32, i32),
    strategy: RolloutStrategyType,
) -> Sizes {
    let sets: Vec<_> = seen.sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let is_current = |set: &MachineSet| current.is_some_and(|current| current.metadata.uid == set.metadata.uid);
    let size = |set: &MachineSet| {
        set.spec.replicas.unwrap_or(0) + if is_current(set) { in_place::came(seen, set).1 } else { 0 }
    };
    let to = |set: &MachineSet, replicas: i32| (set.metadata.uid.clone(), replicas);
    let active: Vec<_> = sets.iter().copied().filter(|set| size(set) > 0).collect();
    match active.as_slice() {
        [] => return current.or(sets.last().copied()).map(|set| to(set, wanted)).into_iter().collect(),
        [one] => return vec![to(one, wanted)],
        _ => {}
    }
    if current.is_some_and(|current| is_saturated(current, wanted)) {
        return active.into_iter().filter(|set| !is_current(set)).map(|set| to(set, 0)).collect();
    }
    if strategy == RolloutStrategyType::OnDelete {
        return Vec::new();
    }
    let active = active.into_iter().map(|set| (set, size(set))).collect();
    shares(active, (wanted, surge)).into_iter().map(|(set, replicas)| to(set, replicas)).collect()
}

/// All machines are of the set, and serve.
fn is_saturated(set: &MachineSet, wanted: i32) -> bool {
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    set.spec.replicas == Some(wanted)
        && number(set, names::DESIRED_REPLICAS_ANNOTATION) == Some(wanted)
        && available == wanted
}

fn number(set: &MachineSet, annotation: &str) -> Option<i32> {
    owner::annotation_of(&set.metadata, annotation)?.parse().ok()
}

/// What is to come or go, shared among sets as large as they are; the largest takes what does not divide.
fn shares(mut sets: Vec<(&Arc<MachineSet>, i32)>, (wanted, surge): (i32, i32)) -> Vec<(&Arc<MachineSet>, i32)> {
    let total = sets.iter().fold(0_i32, |total, (_, size)| total.saturating_add(*size));
    let allowed = if wanted > 0 { wanted.saturating_add(surge) } else { 0 };
    let missing = allowed.saturating_sub(total);
    let age = |set: &MachineSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if missing > 0 {
        sets.sort_by_key(|(set, size)| (Reverse(*size), Reverse(age(set))));
    } else {
        sets.sort_by_key(|(set, size)| (Reverse(*size), age(set)));
    }
    let mut left = missing;
    for (set, size) in &mut sets {
        let earlier = number(set, names::MAX_REPLICAS_ANNOTATION).filter(|earlier| *earlier > 0).unwrap_or(total);
        let share = rounded(i64::from(*size) * i64::from(allowed), i64::from(earlier)) - *size;
        let share = if missing > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        left -= share;
        *size = (*size + share).max(0);
    }
    if let Some((_, size)) = sets.first_mut() {
        *size = (*size + left).max(0);
    }
    sets
}

/// Halves up; nothing is negative here, and `by` is not zero.
fn rounded(product: i64, by: i64) -> i32 {
    let (product, by) = (i128::from(product), i128::from(by));
    i32::try_from((2 * product + by) / (2 * by)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_replicas_as_a_number_holds_are_shared_out() {
        let sets = [Arc::new(MachineSet::default()), Arc::new(MachineSet::default())];
        let sizes = sets.iter().map(|set| (set, i32::MAX)).collect();
        let all: Vec<i32> = shares(sizes, (i32::MAX, i32::MAX)).into_iter().map(|(_, size)| size).collect();
        assert_eq!(all, [i32::MAX, i32::MAX], "none is to go, as far as can be counted");
    }
}
