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
    /// The same, if those who were here before made such a call.
    Perhaps(Instant),
    /// Something may have been made twice.
    Made,
    /// It has been looked for.
    Nothing,
}

impl Late {
    fn left(self) -> Option<Duration> {
        match self {
            Self::Since(since) | Self::Perhaps(since) => Some(LATE.saturating_sub(since.elapsed())),
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
    /// twice: at once, or later if it was not ready, or had just become so, when they began. Deletions wait for what they know
    /// of only: each restart would hold all of them else.
    pub fn meet(&self, kind: &'static str, key: &Key, meta: &ObjectMeta, conditions: &[Condition]) {
        let (start, time) = &self.start;
        if !is_older(meta, time) {
            return;
        }
        let late = || if may_have_called(conditions, time) { Late::Perhaps(*start) } else { Late::Made };
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
        if let Some(Late::Since(since)) = objects.get(&entry)
            && since.elapsed() < LATE
        {
            let left = LATE.saturating_sub(since.elapsed());
            return stop::wait("WaitingForLateCalls", "calls that the cloud gave no answer to", left);
        }
        objects.remove(&entry);
        Ok(())
    }
}

/// It was there before. Creation is told in whole seconds: who is made in the second in which controllers begin is theirs.
fn is_older(meta: &ObjectMeta, start: &Time) -> bool {
    meta.creation_timestamp.as_ref().is_some_and(|creation| creation.0 + Duration::from_secs(1) <= start.0)
}

/// Whether somebody may have made a call shortly before `start` that was not done then.
fn may_have_called(conditions: &[Condition], start: &Time) -> bool {
    condition::get(conditions, "Ready")
        .is_none_or(|ready| ready.status != ConditionStatus::True || ready.last_transition_time.0 + LATE >= start.0)
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan};

    use super::*;

    const START: i64 = 1_000;

    fn at(second: i64) -> Time {
        Time(Timestamp::UNIX_EPOCH + second.seconds())
    }

    fn asked(ready: Option<(ConditionStatus, i64)>) -> bool {
        let ready = ready.map(|(status, since)| Condition {
            last_transition_time: at(since),
            message: String::new(),
            observed_generation: None,
            reason: "Any".to_owned(),
            status,
            type_: "Ready".to_owned(),
        });
        may_have_called(ready.as_slice(), &at(START))
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
        assert!(asked(None), "nothing is known of it");
        assert!(asked(Some((False, 200))), "it has long been in trouble");
        assert!(asked(Some((True, 950))), "it has just become ready");
        assert!(!asked(Some((True, 200))), "it has long been ready");
    }

    #[test]
    fn deletions_wait_for_calls_of_these_controllers_alone() {
        let known = Unanswered::since(at(START));
        let (mine, theirs) = (Key::new("a", "mine"), Key::new("a", "theirs"));
        let meta = ObjectMeta { creation_timestamp: Some(at(1)), ..ObjectMeta::default() };
        known.meet("k", &theirs, &meta, &[]);
        known.objects.lock().insert(("k", mine.clone()), Late::Since(Instant::now()));
        assert!(known.left("k", &theirs).is_some_and(|left| !left.is_zero()));
        assert!(known.wait("k", &theirs).is_ok());
        assert!(known.wait("k", &mine).is_err());
    }
}
