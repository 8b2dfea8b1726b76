//! The tests of a release (`helm test`): hooks that run whenever somebody asks, with what is deployed.
//!
//! Only whoever runs them knows how far they are. Who begins anew begins with the first; what came of each stands in the release,
//! where the stock `helm` reads it.

use jiff::Timestamp;

use super::{Engine, Outcome, valid};
use crate::release::{
    error::{Class, Error, Result},
    hooks::{Hooks, Place, Progress, Stage, ordered},
    record::{Hook, Phase, Release, Status},
    storage::Stored,
};

const EVENT: &str = "test";

/// Which tests are run, and for how long.
#[derive(Clone, Debug)]
pub struct Selection {
    /// These by name; none: all.
    pub only: Vec<String>,
    pub without: Vec<String>,
    /// So long may each take.
    pub timeout_s: u64,
}

/// Tests that are being run.
pub struct Testing<'e> {
    engine: &'e Engine,
    stored: Stored,
    skipped: Vec<String>,
    timeout_s: u64,
    begun: Timestamp,
    /// When the hook that is waited for was made.
    since: Timestamp,
    place: Place,
}

impl Engine {
    /// Begins the tests of the newest revision; [`Testing::proceed`] runs them.
    ///
    /// # Errors
    /// There is no release, something is under way with it, or it has no test of a name that is asked for.
    pub async fn test(&self, name: &str, namespace: &str, selection: &Selection) -> Result<Testing<'_>> {
        valid(name, namespace)?;
        let Some(stored) = self.latest(name, namespace).await?.1 else { return Err(Error::NotFound(name.to_owned())) };
        let status = stored.release.info.status;
        if status.is_pending() || status == Status::Uninstalling {
            return Err(Error::Busy(name.to_owned()));
        }
        let tests: Vec<&str> = tests(&stored.release).map(|hook| hook.name.as_str()).collect();
        for wanted in selection.only.iter().chain(&selection.without) {
            if !tests.contains(&wanted.as_str()) {
                let known = if tests.is_empty() { "none".to_owned() } else { tests.join(", ") };
                return Err(Error::Invalid(format!("release {name} has no test {wanted:?}; its tests: {known}")));
            }
        }
        let is_skipped = |name: &str| {
            let named = |list: &[String]| list.iter().any(|known| known == name);
            named(&selection.without) || (!selection.only.is_empty() && !named(&selection.only))
        };
        let skipped = tests.into_iter().filter(|name| is_skipped(name)).map(str::to_owned).collect();
        let now = self.clock.now();
        let (begun, since, place, timeout_s) = (now, now, Place::default(), selection.timeout_s);
        Ok(Testing { engine: self, stored, skipped, timeout_s, begun, since, place })
    }
}

/// In the order in which they run.
fn tests(release: &Release) -> impl Iterator<Item = &Hook> {
    ordered(release, EVENT, &[]).into_iter().filter_map(|at| release.hooks.get(at))
}

fn hooks<'h>(engine: &'h Engine, skipped: &'h [String], begun: Timestamp, now: Timestamp, is_late: bool) -> Hooks<'h> {
    Hooks { event: EVENT, skipped, now, is_late, ..engine.hooks_since(begun) }
}

impl Testing<'_> {
    /// The tests that are run, in their order, and whether each has run so far.
    pub fn tests(&self) -> impl Iterator<Item = (&Hook, bool)> {
        let chosen = tests(&self.stored.release).filter(|hook| !self.skipped.contains(&hook.name));
        chosen.map(|hook| (hook, hook.last_run.started_at.is_some_and(|at| at >= self.begun)))
    }

    /// Makes the progress that is possible; to be called again while it waits. The first test that fails is the last one.
    ///
    /// # Errors
    /// A call to the cluster failed, and may succeed when this is called again (see [`Error::class`]).
    pub async fn proceed(&mut self) -> Result<Outcome> {
        loop {
            let now = self.engine.clock.now();
            let limit = i64::try_from(self.timeout_s).unwrap_or(i64::MAX);
            let is_late = now.as_second().saturating_sub(self.since.as_second()) >= limit;
            let hooks = hooks(self.engine, &self.skipped, self.begun, now, is_late);
            let before = self.place;
            let mut place = before;
            let stepped = hooks.step(&mut self.stored.release, &mut place).await;
            self.place = place;
            match stepped {
                Ok(Progress::Noted) => {
                    if place.done != before.done || place.stage != Stage::Watch {
                        self.since = now;
                    }
                    self.engine.save(&mut self.stored).await?;
                }
                Ok(Progress::Waiting { on, object }) => {
                    return Ok(Outcome::Waiting { on, object: Some(object), since: self.since });
                }
                Ok(Progress::Failed(why)) => return self.fail(why, now).await,
                Ok(Progress::Done) => return Ok(Outcome::Done(Box::new(self.stored.release.clone()))),
                Err(error) if error.class() == Class::Retry && !is_late => return Err(error),
                // The release is not as it was read: nothing can be noted in it.
                Err(error @ Error::Changed(_)) => return Err(error),
                Err(error) => return self.fail(error.to_string(), now).await,
            }
        }
    }

    async fn fail(&mut self, why: String, now: Timestamp) -> Result<Outcome> {
        let order = ordered(&self.stored.release, EVENT, &self.skipped);
        if let Some(hook) = order.get(self.place.done).and_then(|at| self.stored.release.hooks.get_mut(*at)) {
            (hook.last_run.completed_at, hook.last_run.phase) = (Some(now), Phase::Failed);
        }
        self.engine.save(&mut self.stored).await?;
        let hooks = hooks(self.engine, &self.skipped, self.begun, now, true);
        hooks.tidy(&self.stored.release, self.place).await?;
        Ok(Outcome::Failed { release: Box::new(self.stored.release.clone()), why })
    }
}
