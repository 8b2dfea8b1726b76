//! A controller's queue and the loop that works it off.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};
use tracing::{Instrument, debug, error, info_span, trace, warn};

use crate::{
    Cache, Cached, Class, Clock, Error, Key, Longest, Outcome, Reconcile, Result, Writer, pace::Pace,
    writer::holding_back,
};

/// Shortest and longest pause after failures in a row; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Pause after an error that only a change can mend (the change itself wakes the key at once).
const BLOCKED_PAUSE: Duration = Duration::from_secs(30);
/// A failing key that is changed runs no sooner than this, times its failures up to a limit.
const PACE: Duration = Duration::from_secs(1);
const PACE_MAX: u32 = 10;
/// A key that has been reconciled rests for so many times as long as a write takes, and what changes meanwhile is one reconcile:
/// the busier everything is, the more it pays to wait for the next part of a change.
const RESTS: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(1);
/// No key sleeps longer, whatever an outcome says: the timers hold no more than two years.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A failure to observe twice the same way is told again only this often, in failures.
const LOG_EVERY: u32 = 10;

/// The sending end: cheap to clone. Adding a key that waits already changes nothing, so what a queue holds is bounded
/// by the number of objects.
#[derive(Clone, Debug)]
pub struct Queue(mpsc::UnboundedSender<Key>);

impl Queue {
    pub fn add(&self, key: Key) {
        // A controller that has ended needs no work.
        let _ = self.0.send(key);
    }
}

/// Works a queue off with bounded concurrency; one key is never reconciled twice at the same time.
#[derive(Debug)]
pub struct Runner {
    queue: Queue,
    incoming: mpsc::UnboundedReceiver<Key>,
    concurrency: usize,
    clock: Clock,
    pace: Pace,
    longest: Longest,
    chosen: Option<Chosen>,
}

/// Which keys are acted upon.
#[derive(Clone)]
struct Chosen(Arc<dyn Fn(&Key) -> bool + Send + Sync>);

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chosen")
    }
}

impl Runner {
    /// Follows the clock of `writer`, and how long its writes take.
    pub fn new(concurrency: usize, writer: &Writer) -> Self {
        let (sender, incoming) = mpsc::unbounded_channel();
        let (clock, pace) = (writer.clock().clone(), writer.pace());
        let longest = Longest::default();
        Self { queue: Queue(sender), incoming, concurrency: concurrency.max(1), clock, pace, longest, chosen: None }
    }

    /// Of the objects of its kind, acts upon those alone that carry the label. What has gone is looked at as before, so that
    /// nothing is kept of it.
    #[must_use]
    pub fn only<K: Cached>(self, cache: &Arc<Cache<K>>, label: &'static str, value: &str) -> Self {
        let value = value.to_owned();
        let carries = move |object: &K| {
            kube::Resource::meta(object)
                .labels
                .as_ref()
                .and_then(|labels| labels.get(label))
                .is_some_and(|has| *has == value)
        };
        // Whatever else wakes the kind: one that gets the label is new here.
        let (weak, queue, is_new) = (Arc::downgrade(cache), self.queue(), carries.clone());
        let known: Mutex<HashSet<Key>> = Mutex::default();
        cache.on_change(move |object| {
            let key = Key::of(object.as_ref());
            let there = weak.upgrade().is_some_and(|cache| cache.get(&key).is_some());
            if !there || !is_new(object) {
                known.lock().remove(&key);
            } else if known.lock().insert(key.clone()) {
                queue.add(key);
            }
        });
        let cache = cache.clone();
        let chosen = move |key: &Key| cache.get(key).is_none_or(|object| carries(&object));
        Self { chosen: Some(Chosen(Arc::new(chosen))), ..self }
    }

    /// Counts there how long reconciles take.
    #[must_use]
    pub fn measured(self, longest: &Longest) -> Self {
        Self { longest: longest.clone(), ..self }
    }

    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Runs until `stop`; reconciles that are under way then are finished. Dropping the future cuts them off.
    pub async fn run<R: Reconcile>(mut self, reconciler: Arc<R>, stop: CancellationToken) {
        let mut work = Work::default();
        let mut running = JoinSet::new();
        let mut keys = HashMap::new();
        loop {
            while running.len() < self.concurrency {
                let Some(key) = work.next() else { break };
                let (reconciler, clock, chosen) = (reconciler.clone(), self.clock.clone(), self.chosen.clone());
                let span = info_span!("reconcile", controller = R::NAME, %key);
                trace!(controller = R::NAME, %key, "begins");
                let task = {
                    let (key, longest) = (key.clone(), self.longest.clone());
                    async move {
                        // Asked now and not when it was woken: its label may have come or gone since.
                        if chosen.is_some_and(|Chosen(is)| !is(&key)) {
                            return Ok(Outcome::Settled);
                        }
                        let started = Instant::now();
                        let (done, held_back) = holding_back(once(&*reconciler, &key, &clock)).await;
                        longest.note(R::NAME, started.elapsed());
                        let again = |after| Outcome::Waiting { on: "the time to tell".to_owned(), after };
                        done.map(|outcome| held_back.map(again).into_iter().fold(outcome, Outcome::sooner))
                    }
                };
                keys.insert(running.spawn(task.instrument(span)).id(), key);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(key) = self.incoming.recv() => {
                    trace!(controller = R::NAME, %key, "woken");
                    work.add(key);
                }
                Some(expired) = work.delayed.next(), if !work.delayed.is_empty() => work.expired(expired.into_inner()),
                Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                    let (id, result) = match ended {
                        Ok((id, result)) => (id, result),
                        Err(panic) => (panic.id(), Err(Error::bug(format!("the reconcile panicked: {panic}")))),
                    };
                    if let Some(key) = keys.remove(&id) {
                        work.rest(&key, REST_MAX.min(self.pace.mean() * RESTS));
                        work.ended::<R>(key, result);
                    }
                }
            }
        }
        while running.join_next().await.is_some() {}
    }
}

/// One reconcile of one key.
async fn once<R: Reconcile>(reconciler: &R, key: &Key, clock: &Clock) -> Result<Outcome> {
    let Some(seen) = reconciler.observe(key).await? else { return Ok(Outcome::Gone) };
    let plan = reconciler.plan(&seen, clock.now());
    reconciler.act(key, &seen, plan).await
}

#[derive(Default)]
struct Work {
    ready: VecDeque<Key>,
    /// In `ready`.
    waiting: HashSet<Key>,
    running: HashSet<Key>,
    /// Changed while it ran: runs again as soon as it has ended.
    dirty: HashSet<Key>,
    delayed: DelayQueue<Key>,
    delays: HashMap<Key, delay_queue::Key>,
    failures: HashMap<Key, u32>,
    /// Until when keys rest, and in the order in which they began to.
    resting: HashMap<Key, Instant>,
    rests: VecDeque<(Instant, Key)>,
}

impl Work {
    fn add(&mut self, key: Key) {
        if let Some(delay) = self.delays.get(&key) {
            // A key that fails often writes what it failed with, which wakes it again: it stays paced.
            if let Some(failures) = self.failures.get(&key) {
                let soon = Instant::now() + PACE * (*failures).min(PACE_MAX);
                if self.delayed.deadline(delay) > soon {
                    self.delayed.reset_at(delay, soon);
                }
                return;
            }
        }
        if self.running.contains(&key) {
            self.dirty.insert(key);
            return;
        }
        let now = Instant::now();
        if let Some(until) = self.resting.get(&key).copied().filter(|until| *until > now) {
            match self.delays.get(&key) {
                Some(delay) if self.delayed.deadline(delay) <= until => {}
                Some(delay) => self.delayed.reset_at(delay, until),
                None => self.delay(key, until - now),
            }
            return;
        }
        if let Some(delay) = self.delays.remove(&key) {
            self.delayed.remove(&delay);
        }
        if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn rest(&mut self, key: &Key, time: Duration) {
        let now = Instant::now();
        while let Some((until, key)) = self.rests.front().filter(|(until, _)| *until <= now) {
            if self.resting.get(key) == Some(until) {
                self.resting.remove(key);
            }
            self.rests.pop_front();
        }
        if !time.is_zero() {
            self.resting.insert(key.clone(), now + time);
            self.rests.push_back((now + time, key.clone()));
        }
    }

    fn next(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn expired(&mut self, key: Key) {
        self.delays.remove(&key);
        self.add(key);
    }

    fn ended<R: Reconcile>(&mut self, key: Key, result: Result<Outcome>) {
        self.running.remove(&key);
        let again = match result {
            Ok(outcome) => {
                self.failures.remove(&key);
                match outcome {
                    Outcome::Settled | Outcome::Gone => {
                        trace!(controller = R::NAME, %key, "settled");
                        None
                    }
                    Outcome::Waiting { on, after } => {
                        debug!(controller = R::NAME, %key, on, after_s = after.as_secs_f32(), "waits");
                        Some(after)
                    }
                }
            }
            Err(error) if error.is_conflict() => Some(RETRY_MIN),
            Err(error) => Some(self.failed::<R>(&key, &error)),
        };
        if self.dirty.remove(&key) {
            // A failing key keeps its pace however often it is changed.
            match again {
                Some(pause) if self.failures.contains_key(&key) => self.delay(key, pause.min(RETRY_MAX)),
                _ => self.add(key),
            }
        } else if let Some(pause) = again {
            self.delay(key, pause);
        }
    }

    fn failed<R: Reconcile>(&mut self, key: &Key, error: &Error) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        let pause = RETRY_MAX.min(RETRY_MIN.saturating_mul(1 << (*failures - 1).min(16)));
        let (message, failures) = (error.chain(), *failures);
        match error.class() {
            Class::Bug => error!(controller = R::NAME, %key, failures, "{message}"),
            _ if failures == 1 || failures.is_multiple_of(LOG_EVERY) => {
                warn!(controller = R::NAME, %key, failures, "{message}");
            }
            _ => debug!(controller = R::NAME, %key, failures, "{message}"),
        }
        match error.class() {
            Class::Retry => pause,
            Class::Blocked | Class::Bug => pause.max(BLOCKED_PAUSE.min(pause * 4)),
        }
    }

    fn delay(&mut self, key: Key, pause: Duration) {
        let delay = self.delayed.insert(key.clone(), pause.min(PAUSE_MAX));
        if let Some(earlier) = self.delays.insert(key, delay) {
            self.delayed.try_remove(&earlier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_rests_is_not_forgotten_and_waits_no_longer_than_it_must() {
        let (mut work, key) = (Work::default(), Key::new("ns", "a"));
        let begun = Instant::now();
        let mut run = async |woken: u64, rest: u64| {
            for _ in 0..woken {
                work.add(key.clone());
            }
            while work.ready.is_empty() {
                let expired = work.delayed.next().await.unwrap().into_inner();
                work.expired(expired);
            }
            assert_eq!((work.next().as_ref(), work.next()), (Some(&key), None));
            work.rest(&key, Duration::from_millis(rest));
            work.running.remove(&key);
            begun.elapsed().as_millis()
        };
        assert_eq!(run(1, 100).await, 0);
        assert_eq!(run(3, 200).await, 100, "woken while it rests, it runs once afterwards");
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(run(1, 0).await, 300);
        assert_eq!(run(1, 0).await, 300, "without a rest it runs at once");
        assert!(work.rests.is_empty() && work.resting.is_empty());
        work.rest(&key, Duration::from_millis(100));
        work.delay(key.clone(), Duration::from_millis(50));
        work.add(key.clone());
        work.delayed.next().await.unwrap();
        assert_eq!(begun.elapsed().as_millis(), 350, "what it waited for anyway is not put off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_beyond_what_timers_hold_is_cut() {
        let (mut work, key) = (Work::default(), Key::new("ns", "a"));
        let begun = Instant::now();
        work.delay(key.clone(), Duration::MAX);
        let expired = work.delayed.next().await.map(delay_queue::Expired::into_inner);
        assert_eq!(expired, Some(key));
        assert!(begun.elapsed() < PAUSE_MAX + Duration::from_secs(1));
    }
}
