//! Hooks: objects that are made when something happens to a release, and waited for. Each is begun once, whoever goes on: that it is
//! begun stands in the release before it is made, and the object itself says for which revision and event it was made.

use jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{
    apply::is_going,
    cluster::{Cluster, Mode, Target},
    error::{Error, Result},
    logs::Output,
    object::{self, Id},
    readiness::{Readiness, readiness},
    record::{Execution, Hook, Phase, Release},
};

const RUN: &str = "delivery.skep.dev/hook-run";
const BEFORE_CREATION: &str = "before-hook-creation";
const SUCCEEDED: &str = "hook-succeeded";
const FAILED: &str = "hook-failed";

/// How far the hooks of an event are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// So many are done.
    pub done: usize,
    pub stage: Stage,
}

/// How far one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// What an earlier run left is deleted.
    #[default]
    Clear,
    /// It is noted that it runs.
    Make,
    /// It was made: if it is gone, it is done.
    Watch,
}

/// What one look at the hooks came to.
pub enum Progress {
    /// The release says more than before: write it, and go on.
    Noted,
    Waiting {
        on: String,
        object: Id,
    },
    /// Note that it failed, then tidy up and fail.
    Failed(String),
    Done,
}

/// The hooks of an event in the order in which they run, by their place in the release, without some by their names.
pub fn ordered(release: &Release, event: &str, skipped: &[String]) -> Vec<usize> {
    let is_of = |hook: &Hook| hook.events.iter().any(|known| known == event) && !skipped.contains(&hook.name);
    let mut found: Vec<usize> = (0..release.hooks.len()).filter(|at| is_of(&release.hooks[*at])).collect();
    found.sort_by(|left, right| {
        let (left, right) = (&release.hooks[*left], &release.hooks[*right]);
        (left.weight, &left.name).cmp(&(right.weight, &right.name))
    });
    found
}

/// The hooks of one event of a release.
pub struct Hooks<'h> {
    pub cluster: &'h Cluster,
    pub event: &'static str,
    /// Names of hooks that do not run.
    pub skipped: &'h [String],
    /// When what they belong to began.
    pub begun: Timestamp,
    pub now: Timestamp,
    /// Whether what is waited for has taken too long.
    pub is_late: bool,
    pub output: &'h Output,
}

impl Hooks<'_> {
    /// Goes one step.
    pub async fn step(&self, release: &mut Release, place: &mut Place) -> Result<Progress> {
        let order = ordered(release, self.event, self.skipped);
        let Some(at) = order.get(place.done).copied() else {
            for at in order.into_iter().rev() {
                self.tell_logs(release, at, SUCCEEDED).await;
                self.delete_by(release, at, SUCCEEDED).await?;
            }
            return Ok(Progress::Done);
        };
        let mark = self.mark(release);
        let targets = self.targets(release, at).await?;
        let live = self.cluster.get_all(&targets).await?;
        let is_ours = |live: &Json| run(live) == Some(&mark);
        match place.stage {
            Stage::Clear => {
                // What has begun is not cleared away: somebody else goes on with it.
                if let Some((target, _)) =
                    targets.iter().zip(&live).find(|(_, live)| live.as_ref().is_some_and(is_ours))
                {
                    return Err(Error::Changed(target.id().to_string()));
                }
                if has_policy(&release.hooks[at], BEFORE_CREATION)
                    && let Some(waiting) = self.clear(&targets, &live).await?
                {
                    return Ok(waiting);
                }
                release.hooks[at].last_run =
                    Execution { started_at: Some(self.now), completed_at: None, phase: Phase::Running };
                place.stage = Stage::Make;
                Ok(Progress::Noted)
            }
            Stage::Make => {
                for (target, live) in targets.iter().zip(&live) {
                    match live {
                        Some(live) if is_ours(live) => {}
                        Some(live) if is_going(live) => return Ok(self.waits(target, "is to be gone")),
                        Some(_) => return Ok(Progress::Failed(format!("{} already exists", target.id()))),
                        None => self.make(target, &mark).await?,
                    }
                }
                if targets.iter().any(|target| is_watched(target.id())) {
                    place.stage = Stage::Watch;
                } else {
                    self.succeed(release, at, place);
                }
                Ok(Progress::Noted)
            }
            Stage::Watch => {
                for (target, live) in targets.iter().zip(live) {
                    match live.map_or(Readiness::Ready, |live| ended(target.id(), &live)) {
                        Readiness::Ready => {}
                        Readiness::Failed(why) => return Ok(Progress::Failed(why)),
                        Readiness::InProgress(why) => return Ok(self.waits(target, &why)),
                        Readiness::Terminating => return Ok(self.waits(target, "is being deleted")),
                    }
                }
                self.succeed(release, at, place);
                Ok(Progress::Noted)
            }
        }
    }

    /// What says of an object for which run it was made.
    fn mark(&self, release: &Release) -> String {
        format!("{}.{}.{}", release.version, self.event, self.begun)
    }

    fn succeed(&self, release: &mut Release, at: usize, place: &mut Place) {
        let last_run = &mut release.hooks[at].last_run;
        (last_run.completed_at, last_run.phase) = (Some(self.now), Phase::Succeeded);
        *place = Place { done: place.done + 1, stage: Stage::Clear };
    }

    fn waits(&self, target: &Target, why: &str) -> Progress {
        if self.is_late {
            return Progress::Failed(format!("{}: timed out waiting for the condition: {why}", target.id()));
        }
        Progress::Waiting { on: why.to_owned(), object: target.id().clone() }
    }

    async fn make(&self, target: &Target, mark: &str) -> Result<()> {
        let mut json = target.object.json.clone();
        if let Some(metadata) = object::table(&mut json, "metadata") {
            let mut inner = Json::Object(std::mem::take(metadata));
            if let Some(annotations) = object::table(&mut inner, "annotations") {
                annotations.insert(RUN.to_owned(), json!(mark));
            }
            json["metadata"] = inner;
        }
        self.cluster.create(target, &json, Mode::Real).await.map(|_| ())
    }

    /// Deletes what is there; says what is still waited for.
    async fn clear(&self, targets: &[Target], live: &[Option<Json>]) -> Result<Option<Progress>> {
        for (target, live) in targets.iter().zip(live) {
            let Some(live) = live else { continue };
            if target.id().kind == "CustomResourceDefinition" {
                continue;
            }
            if !is_going(live) {
                self.cluster.delete(target, &only(live)).await?;
            }
            if self.cluster.get(target).await?.is_some() {
                return Ok(Some(self.waits(target, "is to be gone")));
            }
        }
        Ok(None)
    }

    /// What is deleted when a hook has failed: it, and those that succeeded before, as their policies say.
    pub async fn tidy(&self, release: &Release, place: Place) -> Result<()> {
        let order = ordered(release, self.event, self.skipped);
        if let Some(failed) = order.get(place.done) {
            self.tell_logs(release, *failed, FAILED).await;
            self.delete_by(release, *failed, FAILED).await?;
        }
        for at in order.into_iter().take(place.done) {
            if self.output.all {
                self.tell_logs(release, at, SUCCEEDED).await;
            }
            self.delete_by(release, at, SUCCEEDED).await?;
        }
        Ok(())
    }

    /// Tells what a hook has written, if its policy says so. That it cannot be had keeps nothing from being done.
    async fn tell_logs(&self, release: &Release, at: usize, policy: &str) {
        let hook = &release.hooks[at];
        if self.output.all || hook.output_log_policies.iter().any(|known| known == policy) {
            let mut objects = Vec::new();
            let read = object::read(&hook.manifest, &hook.path, &mut objects);
            let own = objects.first().filter(|_| read.is_ok()).map(|object| object.id.namespace.as_str());
            let namespace = own.filter(|own| !own.is_empty()).unwrap_or(&release.namespace);
            self.output.tell(self.cluster, hook, namespace).await;
        }
    }

    async fn delete_by(&self, release: &Release, at: usize, policy: &str) -> Result<()> {
        let hook = &release.hooks[at];
        if !has_policy(hook, policy) || hook.kind == "CustomResourceDefinition" {
            return Ok(());
        }
        let mark = self.mark(release);
        for target in self.targets(release, at).await? {
            match self.cluster.get(&target).await? {
                Some(live) if run(&live) == Some(&mark) => self.cluster.delete(&target, &only(&live)).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn targets(&self, release: &Release, at: usize) -> Result<Vec<Target>> {
        let hook = &release.hooks[at];
        let mut objects = Vec::new();
        object::read(&hook.manifest, &hook.path, &mut objects)?;
        self.cluster.targets(objects, &release.namespace).await.map_err(|error| match error {
            Error::Invalid(why) => Error::Invalid(format!(
                "unable to build kubernetes object for {} hook {}: {why}",
                self.event, hook.path
            )),
            other => other,
        })
    }
}

/// For which run an object was made.
fn run(live: &Json) -> Option<&str> {
    live["metadata"]["annotations"].get(RUN)?.as_str()
}

/// Deletes the object that was seen and none that has come in its place.
fn only(live: &Json) -> DeleteParams {
    let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
    DeleteParams { preconditions: Some(Preconditions { uid, resource_version: None }), ..DeleteParams::background() }
}

/// Without a policy, what an earlier run left is deleted before.
fn has_policy(hook: &Hook, policy: &str) -> bool {
    if hook.delete_policies.is_empty() {
        policy == BEFORE_CREATION
    } else {
        hook.delete_policies.iter().any(|known| known == policy)
    }
}

/// Kinds that end; all others are done when they are there.
fn is_watched(id: &Id) -> bool {
    matches!((id.group.as_str(), id.kind.as_str()), ("batch", "Job") | ("", "Pod"))
}

/// Whether a hook has come to its end.
fn ended(id: &Id, live: &Json) -> Readiness {
    match id.kind.as_str() {
        "Job" => match readiness(live) {
            Readiness::Failed(why) => Readiness::Failed(format!("job {} failed: {why}", id.name)),
            // A job that is being deleted when it is complete is complete.
            Readiness::Terminating => {
                let mut kept = live.clone();
                if let Some(metadata) = kept.get_mut("metadata").and_then(Json::as_object_mut) {
                    metadata.remove("deletionTimestamp");
                }
                match readiness(&kept) {
                    Readiness::Ready => Readiness::Ready,
                    _ => Readiness::Terminating,
                }
            }
            other => other,
        },
        "Pod" => match live["status"]["phase"].as_str() {
            Some("Succeeded") => Readiness::Ready,
            Some("Failed") => Readiness::Failed(format!("pod {} failed", id.name)),
            phase => Readiness::InProgress(format!("the pod is {}", phase.unwrap_or("not seen by a kubelet"))),
        },
        _ => Readiness::Ready,
    }
}
