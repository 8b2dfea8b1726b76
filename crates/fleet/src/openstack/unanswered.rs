//! Calls that the cloud gave no answer to, and what it may yet make for them.

use std::{collections::HashMap, time::Duration};

use api::{
    condition,
    meta::{Condition, ConditionStatus, Time},
};
use control::Key;
use kube::core::ObjectMeta;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stop;

/// What a cloud makes that gave no answer in time, it has made by then.
const LATE: Duration = Duration::from_secs(90);

/// Objects for which something may yet be made in the cloud, or was made late: by calls that got no answer in time. What is deleted
/// waits for them, or they would leave something behind. Kept in memory only: see [`Self::meet`].
pub(crate) struct Unanswered {
    objects: Mutex<HashMap<(&'static str, Key), Late>>,
    start: (Instant, Time),
}

#[derive(Clone, Copy)]
enum Late {
    /// Something may be made until [`LATE`] after this.
    Since(Instant),
    /// Something may have been made twice.
    Made,
    /// It has been looked for.
    Nothing,
}

impl Late {
    fn left(self) -> Option<Duration> {
        match self {
            Self::Since(since) => Some(LATE.saturating_sub(since.elapsed())),
            Self::Made => Some(Duration::ZERO),
            Self::Nothing => None,
        }
    }
}

impl Unanswered {
    /// For controllers that begin now.
    pub fn since(now: Time) -> Self {
        Self { objects: Mutex::default(), start: (Instant::now(), now) }
    }

    /// Controllers that start anew do not know what was called before. So what they find is looked at once for what was made
    /// twice: at once, or later if it was not ready, or had just become so, when they began.
    pub fn meet(&self, kind: &'static str, key: &Key, meta: &ObjectMeta, conditions: &[Condition]) {
        let (start, time) = &self.start;
        if !is_older(meta, time) {
            return;
        }
        let late = || if may_have_called(meta, conditions, time) { Late::Since(*start) } else { Late::Made };
        self.objects.lock().entry((kind, key.clone())).or_insert_with(late);
    }

    /// Notes how a reconcile ended.
    pub fn note<T>(&self, kind: &'static str, key: &Key, done: &stop::Result<T>) {
        if let Err(stop::Stop::Cloud(error)) = done
            && error.may_yet_create()
        {
            self.objects.lock().insert((kind, key.clone()), Late::Since(Instant::now()));
        }
    }

    /// How long it takes until all that may yet be made has been made: none if there is nothing of the kind.
    pub fn left(&self, kind: &'static str, key: &Key) -> Option<Duration> {
        self.objects.lock().get(&(kind, key.clone()))?.left()
    }

    /// What was made late has been looked for.
    pub fn forget(&self, kind: &'static str, key: &Key) {
        self.objects.lock().insert((kind, key.clone()), Late::Nothing);
    }

    /// Waits if a call may still make something for what is deleted.
    pub fn wait(&self, kind: &'static str, key: &Key) -> stop::Result<()> {
        let mut objects = self.objects.lock();
        let entry = (kind, key.clone());
        match objects.get(&entry).and_then(|late| late.left()).filter(|left| !left.is_zero()) {
            Some(left) => stop::wait("WaitingForLateCalls", "calls that the cloud gave no answer to", left),
            None => {
                objects.remove(&entry);
                Ok(())
            }
        }
    }
}

/// It was there before. Creation is told in whole seconds: who is made in the second in which controllers begin is theirs.
fn is_older(meta: &ObjectMeta, start: &Time) -> bool {
    meta.creation_timestamp.as_ref().is_some_and(|creation| creation.0 + Duration::from_secs(1) <= start.0)
}

/// Whether somebody may have made a call for the object before `start` that was not done then. Nothing is made for what is being
/// deleted.
fn may_have_called(meta: &ObjectMeta, conditions: &[Condition], start: &Time) -> bool {
    let recent = |time: &Time| time.0 + LATE >= start.0;
    let deletion = meta.deletion_timestamp.as_ref();
    deletion.is_none_or(recent)
        && condition::get(conditions, "Ready").is_none_or(|ready| {
            let since = &ready.last_transition_time;
            match ready.status {
                ConditionStatus::True => recent(since),
                // What it says of a deletion is not what it said before.
                _ => deletion.is_none_or(|deletion| since.0 <= deletion.0),
            }
        })
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan};

    use super::*;

    const START: i64 = 1_000;

    fn at(second: i64) -> Time {
        Time(Timestamp::UNIX_EPOCH + second.seconds())
    }

    fn asked(deleted: Option<i64>, ready: Option<(ConditionStatus, i64)>) -> bool {
        let meta = ObjectMeta { deletion_timestamp: deleted.map(at), ..ObjectMeta::default() };
        let ready = ready.map(|(status, since)| Condition {
            last_transition_time: at(since),
            message: String::new(),
            observed_generation: None,
            reason: "Any".to_owned(),
            status,
            type_: "Ready".to_owned(),
        });
        may_have_called(&meta, ready.as_slice(), &at(START))
    }

    #[test]
    fn what_is_made_while_controllers_begin_is_theirs() {
        let older = |creation| {
            is_older(&ObjectMeta { creation_timestamp: Some(at(creation)), ..ObjectMeta::default() }, &at(START))
        };
        assert_eq!([START - 1, START, START + 1].map(older), [true, false, false]);
        assert!(!is_older(&ObjectMeta::default(), &at(START)));
    }

    #[test]
    fn what_was_being_made_when_controllers_ended_may_have_called() {
        use ConditionStatus::{False, True};
        assert!(asked(None, None), "nothing is known of it");
        assert!(asked(None, Some((False, 200))), "it has long been in trouble");
        assert!(asked(None, Some((True, 950))), "it has just become ready");
        assert!(asked(Some(990), Some((False, 910))), "it was deleted before it was ready");
        assert!(!asked(None, Some((True, 200))), "it has long been ready");
        assert!(!asked(Some(800), Some((False, 700))), "it has long been deleted");
        assert!(!asked(Some(901), Some((False, 905))), "deleting it is what it waits for");
    }
}
