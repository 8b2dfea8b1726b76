//! How releases go.

use kube::api::PropagationPolicy;

use super::{
    Engine, Options, Outcome,
    operation::{Kind, Operation, Step},
    progress::{Stand, undone},
};
use crate::release::{
    apply::{Owner, is_kept, remove},
    cluster::Target,
    error::{Error, Result},
    object::removed,
    record::{Release, Status},
    storage::{Head, Storage, Stored},
};

impl Engine {
    pub(super) async fn remove(&self, heads: &[Head], stored: Stored, options: &Options) -> Result<Outcome> {
        if stored.release.info.status == Status::Uninstalled {
            if options.keep_history {
                return Ok(Outcome::Done(Box::new(stored.release)));
            }
            self.purge_history(heads, &stored.release).await?;
            return Ok(Outcome::Gone);
        }
        let goes = stored.operation.as_ref().is_some_and(|operation| {
            operation.kind == Kind::Uninstall && operation.step != Step::Ended && operation.cause.is_none()
        });
        let stored = if goes { stored } else { self.begin_removal(stored, options, None).await? };
        self.resume(stored).await
    }

    /// A removal that is under way, or that failed, before what is asked for next.
    pub(super) async fn go_on_removing(&self, stored: Stored) -> Result<Outcome> {
        let stored = match stored.operation.clone() {
            Some(operation) if operation.kind != Kind::Uninstall || operation.step == Step::Ended => {
                self.begin_removal(stored, &operation.options, operation.cause).await?
            }
            _ => stored,
        };
        self.resume(stored).await
    }

    /// A removal that failed begins anew.
    pub(super) async fn begin_removal(
        &self,
        mut stored: Stored,
        options: &Options,
        cause: Option<String>,
    ) -> Result<Stored> {
        let now = self.clock.now();
        let request = match (&cause, &stored.operation) {
            (Some(_), Some(operation)) => operation.request.clone(),
            _ => String::new(),
        };
        let options = Options { atomic: false, ..options.clone() };
        let mut operation = Operation::new(Kind::Uninstall, request, options, &stored.release, now);
        operation.cause = cause;
        stored.operation = Some(operation);
        let info = &mut stored.release.info;
        (info.status, info.deleted) = (Status::Uninstalling, Some(now));
        "Deletion in progress (or silently failed)".clone_into(&mut info.description);
        self.save(&mut stored).await?;
        Ok(stored)
    }

    /// In the order of removal, those of one kind together.
    pub(super) async fn delete_objects(&self, stored: &Stored) -> Result<Stand> {
        let Some(operation) = &stored.operation else { return Ok(Stand::Next) };
        let Release { name, namespace, .. } = &stored.release;
        let owner = Owner { name, namespace };
        let targets = self.going(&stored.release).await?;
        for batch in targets.chunk_by(|left, right| left.id().kind == right.id().kind) {
            let propagation = operation.options.propagation;
            let removal = |target| remove(&self.cluster, target, owner, PropagationPolicy::from(propagation));
            let removals: Vec<_> = batch.iter().map(removal).collect();
            let deleted = self.cluster.each(removals).await;
            deleted.into_iter().collect::<Result<Vec<bool>>>()?;
        }
        Ok(Stand::Next)
    }

    pub(super) async fn wait_gone(&self, stored: &Stored) -> Result<Stand> {
        let Some(operation) = &stored.operation else { return Ok(Stand::Next) };
        let Release { name, namespace, .. } = &stored.release;
        let targets = self.going(&stored.release).await?;
        for target in targets {
            // What is kept or has become another's is not waited for.
            let owner = Owner { name, namespace };
            let is_there = self.cluster.get(&target).await?.is_some();
            if is_there && remove(&self.cluster, &target, owner, operation.options.propagation.into()).await? {
                let object = target.id().clone();
                if operation.is_late(self.clock.now()) {
                    return Ok(Stand::Failed(format!("{object}: timed out waiting for it to be gone")));
                }
                return Ok(Stand::Waiting { on: "is to be gone".to_owned(), object });
            }
        }
        Ok(Stand::Next)
    }

    /// What is to be deleted.
    async fn going(&self, release: &Release) -> Result<Vec<Target>> {
        let mut objects = removed(&release.manifest)?;
        objects.retain(|object| !is_kept(&object.json));
        self.known_targets(objects, &release.namespace).await
    }

    pub(super) async fn purge(&self, mut stored: Stored) -> Result<Outcome> {
        let Some(operation) = stored.operation.clone() else { return Err(Error::Busy(stored.release.name)) };
        let Release { name, namespace, version, .. } = stored.release.clone();
        let storage = Storage::new(&self.cluster, &namespace);
        let heads = storage.heads(Some(&name)).await?;
        if operation.options.keep_history {
            for head in heads.iter().filter(|head| head.status == Status::Deployed && head.version != version) {
                if let Some(mut other) = storage.get(&name, head.version).await? {
                    other.release.info.status = Status::Superseded;
                    storage.update(&mut other, self.clock.now()).await?;
                }
            }
            let info = &mut stored.release.info;
            info.status = Status::Uninstalled;
            info.description = match operation.options.description {
                text if text.is_empty() => "Uninstallation complete".to_owned(),
                text => text,
            };
            if let Some(operation) = &mut stored.operation {
                operation.step = Step::Ended;
            }
            self.save(&mut stored).await?;
        } else {
            self.purge_history(&heads, &stored.release).await?;
        }
        let release = Box::new(stored.release);
        Ok(match (operation.cause, operation.options.keep_history) {
            (Some(cause), _) => Outcome::Failed { why: undone(&release.name, Kind::Install, &cause), release },
            (None, true) => Outcome::Done(release),
            (None, false) => Outcome::Gone,
        })
    }

    /// The newest goes last: it says what is under way.
    async fn purge_history(&self, heads: &[Head], release: &Release) -> Result<()> {
        let storage = Storage::new(&self.cluster, &release.namespace);
        for head in heads.iter().filter(|head| head.version != release.version) {
            storage.delete(&head.name, head.version).await?;
        }
        storage.delete(&release.name, release.version).await
    }
}
