//! The steps of what is under way. Where a step ends stands in the release before the next one begins.

use jiff::Timestamp;

use super::{
    Engine, Outcome,
    operation::{Kind, Step},
};
use crate::release::{
    apply::{Applying, Owner, remove},
    cluster::Target,
    engine::Propagation,
    error::{Class, Error, Result},
    hooks::{Hooks, Progress, Stage},
    merge::Extent,
    object::{Id, objects},
    readiness::{Readiness, readiness},
    record::{Phase, Release, Status},
    storage::{Storage, Stored},
};

/// As much is kept of why something failed: some servers repeat the whole object.
const WHY_BYTES_MAX: usize = 2_000;

/// How an operation ended.
enum End {
    Told(Outcome),
    /// What undoes it has begun.
    Undone(Box<Stored>),
}

/// What one look at a step came to.
pub(super) enum Stand {
    Next,
    Waiting { on: String, object: Id },
    Failed(String),
}

impl Engine {
    /// Goes on with a revision as far as it is possible now.
    pub(super) async fn resume(&self, mut stored: Stored) -> Result<Outcome> {
        loop {
            let Some(operation) = &stored.operation else {
                return Err(Error::Busy(stored.release.name));
            };
            // Each step by itself: together they would take much of a stack.
            let stand = match operation.step {
                Step::Before | Step::After => Box::pin(self.hooks(&mut stored)).await,
                Step::Apply if operation.kind == Kind::Uninstall => Box::pin(self.delete_objects(&stored)).await,
                Step::Wait if operation.kind == Kind::Uninstall => Box::pin(self.wait_gone(&stored)).await,
                Step::Apply => Box::pin(self.apply(&stored.release, &operation.previous, &operation.options)).await,
                Step::Wait => Box::pin(self.wait(&stored)).await,
                Step::Finish if operation.kind == Kind::Uninstall => return Box::pin(self.purge(stored)).await,
                Step::Finish => {
                    Box::pin(self.finish(&mut stored)).await?;
                    continue;
                }
                Step::Fail => {
                    Box::pin(self.fail(&mut stored)).await?;
                    continue;
                }
                Step::Ended => match Box::pin(self.ended(stored)).await? {
                    End::Told(outcome) => return Ok(outcome),
                    End::Undone(begun) => {
                        stored = *begun;
                        continue;
                    }
                },
            };
            let now = self.clock.now();
            let Some(operation) = &mut stored.operation else { continue };
            match stand {
                Ok(Stand::Next) => {
                    operation.advance(&stored.release, now);
                    // What comes next is written by itself, in one with that it is done.
                    if operation.step != Step::Finish {
                        self.save(&mut stored).await?;
                    }
                }
                Ok(Stand::Waiting { on, object }) => {
                    return Ok(Outcome::Waiting { on, object: Some(object), since: operation.since });
                }
                Ok(Stand::Failed(why)) => self.note_failure(&mut stored, why).await?,
                Err(error) if error.class() == Class::Retry && !operation.is_late(now) => return Err(error),
                // What is stored is not ours any more, or cannot be written: the release can't tell.
                Err(error @ Error::Changed(_)) => return Err(error),
                Err(error) => self.note_failure(&mut stored, error.to_string()).await?,
            }
        }
    }

    async fn note_failure(&self, stored: &mut Stored, why: String) -> Result<()> {
        let why = shortened(why);
        let now = self.clock.now();
        if let Some(operation) = &mut stored.operation {
            let event = operation.event(operation.step);
            if let Some(event) = event {
                let order = crate::release::hooks::ordered(&stored.release, event, &[]);
                if let Some(hook) = order.get(operation.hooks.done).and_then(|at| stored.release.hooks.get_mut(*at)) {
                    (hook.last_run.completed_at, hook.last_run.phase) = (Some(now), Phase::Failed);
                }
                operation.failed_in = Some(operation.step);
            }
            operation.error = Some(match (event, operation.kind) {
                (Some(event), Kind::Upgrade) => format!("{event} hooks failed: {why}"),
                (Some(event), _) => format!("failed {event}: {why}"),
                (None, _) => why,
            });
            operation.step = Step::Fail;
        }
        self.save(stored).await
    }

    async fn hooks(&self, stored: &mut Stored) -> Result<Stand> {
        loop {
            let now = self.clock.now();
            let Some(operation) = &mut stored.operation else { return Ok(Stand::Next) };
            let Some(event) = operation.event(operation.step) else { return Ok(Stand::Next) };
            let is_late = operation.is_late(now);
            let hooks = Hooks { event, now, is_late, ..self.hooks_since(operation.begun) };
            let before = operation.hooks;
            match hooks.step(&mut stored.release, &mut operation.hooks).await? {
                Progress::Noted => {
                    // Each hook has its own time; that it was made begins it.
                    if operation.hooks.done != before.done || operation.hooks.stage != Stage::Watch {
                        operation.since = now;
                    }
                    self.save(stored).await?;
                }
                Progress::Waiting { on, object } => return Ok(Stand::Waiting { on, object }),
                Progress::Failed(why) => return Ok(Stand::Failed(why)),
                Progress::Done => return Ok(Stand::Next),
            }
        }
    }

    /// Of no event, and late.
    pub(super) fn hooks_since(&self, begun: Timestamp) -> Hooks<'_> {
        let (cluster, output) = (&self.cluster, &self.output);
        Hooks { cluster, event: "", skipped: &[], begun, now: begun, is_late: true, output }
    }

    async fn apply(&self, release: &Release, previous: &[i64], options: &super::Options) -> Result<Stand> {
        let new = self.cluster.targets(objects(&release.manifest)?, &release.namespace).await?;
        let old = self.previous_targets(release, previous).await?;
        let applying = Applying {
            cluster: &self.cluster,
            owner: Owner { name: &release.name, namespace: &release.namespace },
            old: &old,
            new: &new,
            extent: Extent::Upgrade,
            force: options.force,
            take_ownership: options.take_ownership,
        };
        applying.carry_out().await.map(|()| Stand::Next)
    }

    async fn previous_targets(&self, release: &Release, versions: &[i64]) -> Result<Vec<Vec<Target>>> {
        self.targets_of(&self.revisions(&release.name, &release.namespace, versions).await?).await
    }

    async fn wait(&self, stored: &Stored) -> Result<Stand> {
        let Some(operation) = &stored.operation else { return Ok(Stand::Next) };
        let Release { manifest, namespace, .. } = &stored.release;
        let mut targets = self.cluster.targets(objects(manifest)?, namespace).await?;
        if !operation.options.wait_for_jobs {
            targets.retain(|target| !is_job(target.id()));
        }
        let live = self.cluster.get_all(&targets).await?;
        let mut waiting = None;
        for (target, live) in targets.iter().zip(live) {
            let stand = match live {
                // A job may be gone as soon as it is complete.
                None if is_job(target.id()) => Readiness::Ready,
                None => Readiness::InProgress("it is not there".to_owned()),
                Some(live) => readiness(&live),
            };
            match stand {
                Readiness::Ready => {}
                Readiness::Failed(why) => return Ok(Stand::Failed(format!("{}: {why}", target.id()))),
                Readiness::InProgress(on) => waiting = waiting.or_else(|| Some((on, target.id().clone()))),
                Readiness::Terminating => {
                    waiting = waiting.or_else(|| Some(("it is being deleted".to_owned(), target.id().clone())));
                }
            }
        }
        Ok(match waiting {
            None => Stand::Next,
            Some((on, object)) if operation.is_late(self.clock.now()) => {
                Stand::Failed(format!("{object}: timed out waiting for the condition: {on}"))
            }
            Some((on, object)) => Stand::Waiting { on, object },
        })
    }

    /// What was deployed before is superseded; then this is deployed.
    async fn finish(&self, stored: &mut Stored) -> Result<()> {
        let Release { name, namespace, version, .. } = &stored.release;
        let storage = Storage::new(&self.cluster, namespace);
        let heads = storage.heads(Some(name)).await?;
        for head in heads.iter().filter(|head| head.status == Status::Deployed && head.version != *version) {
            if let Some(mut other) = storage.get(name, head.version).await? {
                other.release.info.status = Status::Superseded;
                storage.update(&mut other, self.clock.now()).await?;
            }
        }
        let Some(operation) = &mut stored.operation else { return Ok(()) };
        operation.step = Step::Ended;
        let info = &mut stored.release.info;
        info.status = Status::Deployed;
        let wanted = &operation.options.description;
        match (operation.kind, wanted.is_empty()) {
            (_, false) if operation.cause.is_none() => info.description.clone_from(wanted),
            (Kind::Install, _) => "Install complete".clone_into(&mut info.description),
            (Kind::Upgrade, _) => "Upgrade complete".clone_into(&mut info.description),
            // That it is a rollback, and to what, is said already.
            (Kind::Rollback | Kind::Uninstall, _) => {}
        }
        self.save(stored).await
    }

    /// Tidies up and says that it failed.
    async fn fail(&self, stored: &mut Stored) -> Result<()> {
        let now = self.clock.now();
        let Some(operation) = stored.operation.clone() else { return Ok(()) };
        if let Some(event) = operation.failed_in.and_then(|step| operation.event(step)) {
            let hooks = Hooks { event, now, ..self.hooks_since(operation.begun) };
            lenient(hooks.tidy(&stored.release, operation.hooks).await)?;
        }
        let brings = matches!(operation.kind, Kind::Upgrade | Kind::Rollback);
        if brings && operation.options.cleanup_on_fail {
            lenient(self.clean_up(&stored.release, &operation.previous).await)?;
        }
        let error = operation.error.clone().unwrap_or_default();
        let name = &stored.release.name;
        let info = &mut stored.release.info;
        info.description = match operation.kind {
            Kind::Install => format!("Release {name:?} failed: {error}"),
            Kind::Upgrade => format!("Upgrade {name:?} failed: {error}"),
            Kind::Rollback => format!("Rollback {name:?} failed: {error}"),
            Kind::Uninstall => format!("Uninstall {name:?} failed: {error}"),
        };
        if operation.kind != Kind::Uninstall {
            info.status = Status::Failed;
        }
        if let Some(operation) = &mut stored.operation {
            operation.step = Step::Ended;
        }
        self.save(stored).await
    }

    /// Deletes what only this revision brought.
    async fn clean_up(&self, release: &Release, previous: &[i64]) -> Result<()> {
        let old = self.previous_targets(release, previous).await?;
        let owner = Owner { name: &release.name, namespace: &release.namespace };
        for target in self.known_targets(objects(&release.manifest)?, &release.namespace).await? {
            if !old.iter().flatten().any(|before| before.id() == target.id()) {
                remove(&self.cluster, &target, owner, Propagation::Background.into()).await?;
            }
        }
        Ok(())
    }

    /// How it ended; what is to be undone is.
    async fn ended(&self, stored: Stored) -> Result<End> {
        let Some(operation) = stored.operation.clone() else { return Err(Error::Busy(stored.release.name)) };
        let name = stored.release.name.clone();
        let status = stored.release.info.status;
        let Some(error) = operation.error else {
            return Ok(End::Told(match operation.cause {
                Some(cause) => {
                    let what = if operation.kind == Kind::Uninstall { Kind::Install } else { Kind::Upgrade };
                    Outcome::Failed { release: Box::new(stored.release), why: undone(&name, what, &cause) }
                }
                // Something else has been done with it since.
                None if status != Status::Deployed => return Err(Error::Changed(format!("release {name}"))),
                None => Outcome::Done(Box::new(stored.release)),
            }));
        };
        let why = match operation.cause {
            Some(cause) => format!("an error occurred while undoing it: {error}. original error: {cause}"),
            None if operation.options.atomic => return self.undo(stored, error).await,
            None => error,
        };
        Ok(End::Told(Outcome::Failed { release: Box::new(stored.release), why }))
    }

    /// Begins to take back what failed: an installation is removed, anything else is rolled back to what was last deployed.
    async fn undo(&self, stored: Stored, error: String) -> Result<End> {
        let Some(operation) = stored.operation.clone() else { return Err(Error::Busy(stored.release.name)) };
        let Release { name, namespace, version, .. } = &stored.release;
        let heads = Storage::new(&self.cluster, namespace).heads(Some(name)).await?;
        if operation.kind == Kind::Install {
            let begun = self.begin_removal(stored, &operation.options, Some(error)).await?;
            return Ok(End::Undone(Box::new(begun)));
        }
        let is_good = |status| matches!(status, Status::Superseded | Status::Deployed);
        let good = heads.iter().rev().find(|head| head.version < *version && is_good(head.status));
        let Some(good) = good.map(|head| head.version) else {
            let why = format!("there is no revision to roll back to. original error: {error}");
            return Ok(End::Told(Outcome::Failed { release: Box::new(stored.release), why }));
        };
        let options = super::Options { atomic: false, wait: true, description: String::new(), ..operation.options };
        let begun = self.begin_rollback(&heads, &stored, good, &options, operation.request, Some(error)).await?;
        Ok(End::Undone(Box::new(begun)))
    }
}

/// What is told of an installation, or an upgrade, that failed and is undone.
pub(super) fn undone(name: &str, what: Kind, cause: &str) -> String {
    let how = if what == Kind::Install { "uninstalled" } else { "rolled back" };
    format!("release {name} failed, and has been {how} due to atomic being set: {cause}")
}

fn is_job(id: &Id) -> bool {
    id.group == "batch" && id.kind == "Job"
}

/// What can't be tidied up does not keep a failure from being told; what may pass is tried again.
fn lenient(tidied: Result<()>) -> Result<()> {
    match tidied {
        Err(error) if error.class() == Class::Retry => Err(error),
        _ => Ok(()),
    }
}

fn shortened(mut why: String) -> String {
    if why.len() > WHY_BYTES_MAX {
        why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
        why.push('…');
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_failure_has_an_end() {
        let of = |bytes: usize| shortened("x".repeat(bytes));
        assert_eq!(of(WHY_BYTES_MAX), "x".repeat(WHY_BYTES_MAX));
        assert_eq!(of(WHY_BYTES_MAX + 1), format!("{}…", "x".repeat(WHY_BYTES_MAX)));
    }
}
