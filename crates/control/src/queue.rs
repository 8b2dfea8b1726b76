//! A controller's queue and the loop that works it off.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};
use tracing::{Instrument, debug, error, info_span, trace, warn};

use crate::{Class, Clock, Error, Key, Longest, Outcome, Reconcile, Result};

/// Shortest and longest pause after failures in a row; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Pause after an error that only a change can mend (the change itself wakes the key at once).
const BLOCKED_PAUSE: Duration = Duration::from_secs(30);
/// A failing key that is changed runs no sooner than this, times its failures up to a limit.
const PACE: Duration = Duration::from_secs(1);
const PACE_MAX: u32 = 10;
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
    longest: Longest,
}

impl Runner {
    pub fn new(concurrency: usize, clock: Clock) -> Self {
        let (sender, incoming) = mpsc::unbounded_channel();
        Self { queue: Queue(sender), incoming, concurrency: concurrency.max(1), clock, longest: Longest::default() }
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
                let (reconciler, clock) = (reconciler.clone(), self.clock.clone());
                let span = info_span!("reconcile", controller = R::NAME, %key);
                trace!(controller = R::NAME, %key, "begins");
                let task = {
                    let (key, longest) = (key.clone(), self.longest.clone());
                    async move {
                        let started = Instant::now();
                        let done = once(&*reconciler, &key, &clock).await;
                        longest.note(R::NAME, started.elapsed());
                        done
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
            self.delayed.remove(delay);
            self.delays.remove(&key);
        }
        if self.running.contains(&key) {
            self.dirty.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
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
    async fn a_pause_beyond_what_timers_hold_is_cut() {
        let (mut work, key) = (Work::default(), Key::new("ns", "a"));
        let begun = Instant::now();
        work.delay(key.clone(), Duration::MAX);
        let expired = work.delayed.next().await.map(delay_queue::Expired::into_inner);
        assert_eq!(expired, Some(key));
        assert!(begun.elapsed() < PAUSE_MAX + Duration::from_secs(1));
    }
}
