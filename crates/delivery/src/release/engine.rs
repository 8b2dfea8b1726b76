//! What is asked of releases: to install, upgrade, roll back, uninstall. A request with the same content is carried out once, however
//! often it is asked for and by whomever; asking again goes on where it stands, or tells how it ended.

mod operation;
mod preparation;
mod progress;
mod removal;
mod testing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use control::Clock;
use helm::{Prepared, values::Table};
use jiff::Timestamp;
use kube::{Client, api::PropagationPolicy};
use serde::{Deserialize, Serialize};

pub use self::{
    operation::Operation,
    testing::{Selection, Testing},
};
use super::{
    cluster::Cluster,
    error::{Error, Result},
    logs::Output,
    object::Id,
    record::{Release, Status},
    rendering::Chance,
    storage::{Head, Storage, Stored},
};

/// As long as Helm's: names of Secrets and labels are made of it.
const NAME_BYTES_MAX: usize = 53;

/// What an engine does at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One call to the cluster.
    pub call: Duration,
    /// Calls at once.
    pub parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_secs(20), parallel: 8 }
    }
}

/// How a request is carried out; most are flags of `helm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Done when the objects are ready, not when they are made.
    pub wait: bool,
    /// The same for jobs that are no hooks. Only with `wait`.
    pub wait_for_jobs: bool,
    /// So long may each step and each hook take.
    pub timeout_s: u64,
    pub no_hooks: bool,
    pub skip_crds: bool,
    /// So many revisions are kept; 0: all.
    pub history_max: usize,
    /// The namespace is made with these labels and annotations if it is not there, and gets them if it is.
    pub namespace: Option<Namespace>,
    /// Objects are replaced, not merged.
    pub force: bool,
    /// Objects that are there already become the release's, whosever they were.
    pub take_ownership: bool,
    /// What fails is undone. Implies `wait`.
    pub atomic: bool,
    /// When an upgrade or a rollback fails, what only it brought is deleted.
    pub cleanup_on_fail: bool,
    /// An upgrade of what is not installed installs it.
    pub install: bool,
    /// What is uninstalled keeps its history, also an installation that `atomic` undoes: so the same request is known to have failed.
    pub keep_history: bool,
    /// How what objects own is deleted when they are uninstalled.
    pub propagation: Propagation,
    /// Labels of the release's Secret.
    pub labels: BTreeMap<String, String>,
    /// What the history says when all went well.
    pub description: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wait: false,
            wait_for_jobs: false,
            timeout_s: 300,
            no_hooks: false,
            skip_crds: false,
            history_max: 10,
            namespace: None,
            force: false,
            take_ownership: false,
            atomic: false,
            cleanup_on_fail: false,
            install: false,
            keep_history: false,
            propagation: Propagation::Background,
            labels: BTreeMap::new(),
            description: String::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

impl From<Propagation> for PropagationPolicy {
    fn from(from: Propagation) -> Self {
        match from {
            Propagation::Background => Self::Background,
            Propagation::Foreground => Self::Foreground,
            Propagation::Orphan => Self::Orphan,
        }
    }
}

/// What is to be installed, or to become of what is.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub name: &'r str,
    pub namespace: &'r str,
    /// Who keeps it for the next request spares reading its templates anew.
    pub chart: &'r Arc<Prepared>,
    /// What is set over the chart's values: all of it, nothing is taken from the last revision.
    pub values: &'r Table,
    pub options: &'r Options,
    /// Tells requests apart whose chart and values are the same: another token makes it another request, so another revision. A retry
    /// of what failed needs one.
    pub token: &'r str,
}

/// How far a request is.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done(Box<Release>),
    /// There is no release of that name any more.
    Gone,
    /// Ask again later.
    Waiting {
        on: String,
        object: Option<Id>,
        /// When the step that waits began.
        since: Timestamp,
    },
    /// It failed, and the release says so. The same request fails in the same way; one with another token is another.
    Failed {
        release: Box<Release>,
        why: String,
    },
}

/// Carries requests out in one cluster. Cheap to make; it remembers nothing but which kinds the cluster serves.
pub struct Engine {
    cluster: Cluster,
    clock: Clock,
    chance: Chance,
    output: Output,
}

impl Engine {
    pub fn new(client: Client, clock: Clock, chance: Chance, limits: Limits) -> Self {
        let cluster = Cluster::new(client, limits.call, limits.parallel);
        Self { cluster, clock, chance, output: Output::default() }
    }

    /// Tells the logs of hooks, which nobody hears otherwise.
    #[must_use]
    pub fn with_output(self, output: Output) -> Self {
        Self { output, ..self }
    }

    /// Installs a chart under a name that is not in use.
    ///
    /// # Errors
    /// Nothing is recorded of what is told here: the request cannot be taken on, or a call to the cluster failed and may succeed
    /// later (see [`Error::class`]).
    pub async fn install(&self, request: &Request<'_>) -> Result<Outcome> {
        self.deploy(request, false).await
    }

    /// Makes a new revision of what is installed.
    ///
    /// # Errors
    /// As of [`Engine::install`].
    pub async fn upgrade(&self, request: &Request<'_>) -> Result<Outcome> {
        self.deploy(request, true).await
    }

    /// Makes a new revision of an old one; without one, of the last but one.
    ///
    /// # Errors
    /// As of [`Engine::install`].
    pub async fn rollback(
        &self,
        name: &str,
        namespace: &str,
        to: Option<i64>,
        options: &Options,
        token: &str,
    ) -> Result<Outcome> {
        valid(name, namespace)?;
        let digest = operation::rollback_digest(name, namespace, to, token);
        let (heads, last) = self.latest(name, namespace).await?;
        let Some(last) = last else { return Err(Error::NotFound(name.to_owned())) };
        if last.operation.as_ref().is_some_and(|operation| operation.is_of(&digest)) {
            return self.resume(last).await;
        }
        let last = self.settled(last).await?;
        let to = to.unwrap_or(last.release.version - 1);
        let begun = self.begin_rollback(&heads, &last, to, options, digest, None).await?;
        self.resume(begun).await
    }

    /// Removes a release with its objects. What is not there is gone.
    ///
    /// # Errors
    /// As of [`Engine::install`].
    pub async fn uninstall(&self, name: &str, namespace: &str, options: &Options) -> Result<Outcome> {
        valid(name, namespace)?;
        let (heads, last) = self.latest(name, namespace).await?;
        match last {
            None => Ok(Outcome::Gone),
            Some(last) => self.remove(&heads, last, options).await,
        }
    }

    /// Ends what somebody else began and does not go on with: its first revision failed, and of a later one nothing is known.
    ///
    /// # Errors
    /// That the cluster does not say, or that the release was changed meanwhile.
    pub async fn give_up(&self, name: &str, namespace: &str, why: &str) -> Result<()> {
        valid(name, namespace)?;
        let Some(mut last) = self.latest(name, namespace).await?.1 else { return Ok(()) };
        let status = last.release.info.status;
        if last.operation.is_some() || !(status.is_pending() || status == Status::Uninstalling) {
            return Ok(());
        }
        last.release.info.status = if last.release.version == 1 { Status::Failed } else { Status::Unknown };
        why.clone_into(&mut last.release.info.description);
        self.save(&mut last).await
    }

    /// The newest revision of a release.
    ///
    /// # Errors
    /// That the cluster does not say, or that it cannot be read.
    pub async fn last(&self, name: &str, namespace: &str) -> Result<Option<Release>> {
        valid(name, namespace)?;
        Ok(self.latest(name, namespace).await?.1.map(|stored| stored.release))
    }

    /// One revision of a release; none if it is not kept.
    ///
    /// # Errors
    /// As of [`Engine::last`].
    pub async fn revision(&self, name: &str, namespace: &str, version: i64) -> Result<Option<Release>> {
        valid(name, namespace)?;
        Ok(self.revisions(name, namespace, &[version]).await?.pop())
    }

    /// The revisions of a release, or of all in a namespace, the oldest first.
    ///
    /// # Errors
    /// That the cluster does not say.
    pub async fn history(&self, namespace: &str, name: Option<&str>) -> Result<Vec<Head>> {
        Storage::new(&self.cluster, namespace).heads(name).await
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) async fn latest(&self, name: &str, namespace: &str) -> Result<(Vec<Head>, Option<Stored>)> {
        let storage = Storage::new(&self.cluster, namespace);
        let heads = storage.heads(Some(name)).await?;
        let last = match heads.last() {
            Some(head) => storage.get(name, head.version).await?,
            None => None,
        };
        Ok((heads, last))
    }

    /// A release that nothing is under way with. What is under way and was ours gives way to the newer request.
    async fn settled(&self, mut last: Stored) -> Result<Stored> {
        let status = last.release.info.status;
        if !status.is_pending() && status != Status::Uninstalling {
            return Ok(last);
        }
        if last.operation.is_none() || status == Status::Uninstalling {
            return Err(Error::Busy(last.release.name));
        }
        last.release.info.status = Status::Failed;
        "given up for a newer request".clone_into(&mut last.release.info.description);
        // Nothing goes on with it.
        last.operation = None;
        self.save(&mut last).await?;
        Ok(last)
    }

    async fn save(&self, stored: &mut Stored) -> Result<()> {
        let namespace = stored.release.namespace.clone();
        Storage::new(&self.cluster, &namespace).update(stored, self.clock.now()).await
    }
}

/// Helm's rule for names.
fn valid(name: &str, namespace: &str) -> Result<()> {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(Error::Invalid(format!(
            "release name {name:?}: invalid release name, must be lower case letters, digits, '-' and '.', and have at most {NAME_BYTES_MAX} characters"
        )));
    }
    if !is_label(namespace) || namespace.len() > 63 {
        return Err(Error::Invalid(format!("release {name}: {namespace:?} is no name of a namespace")));
    }
    Ok(())
}
