//! What a manifest says is put into the cluster: made, merged into what is there, or deleted where no manifest says it any more.

use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use serde_json::{Value as Json, json};

use super::{
    cluster::{Cluster, Mode, Target},
    error::{Class, Error, Result},
    merge::{self, Extent},
    object::{self, Id},
};

pub const NAME: &str = "meta.helm.sh/release-name";
pub const NAMESPACE: &str = "meta.helm.sh/release-namespace";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const HELM: &str = "Helm";
const POLICY: &str = "helm.sh/resource-policy";
/// Somebody who writes at the same time makes us read again, so many times in one call.
pub const CONFLICTS_MAX: usize = 4;

/// The release that objects belong to.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'o> {
    pub name: &'o str,
    pub namespace: &'o str,
}

impl Owner<'_> {
    /// Marks an object as this release's, as Helm does.
    pub fn mark(self, object: &mut Json) {
        let Some(metadata) = object::table(object, "metadata") else { return };
        let mut metadata = Json::Object(std::mem::take(metadata));
        let marks = [
            ("labels", MANAGED_BY, HELM),
            ("annotations", NAME, self.name),
            ("annotations", NAMESPACE, self.namespace),
        ];
        for (table, key, value) in marks {
            if let Some(table) = object::table(&mut metadata, table) {
                table.insert(key.to_owned(), json!(value));
            }
        }
        object["metadata"] = metadata;
    }

    /// Why an object is not this release's, in Helm's words.
    fn disowns(self, live: &Json) -> Option<String> {
        let wanted = [
            ("label", "labels", MANAGED_BY, HELM),
            ("annotation", "annotations", NAME, self.name),
            ("annotation", "annotations", NAMESPACE, self.namespace),
        ];
        let wrong = wanted.iter().filter_map(|(what, table, key, value)| {
            match live["metadata"][table].get(key).and_then(Json::as_str) {
                None => Some(format!("; {what} validation error: missing key {key:?}: must be set to {value:?}")),
                Some(found) if found != *value => Some(format!(
                    "; {what} validation error: key {key:?} must equal {value:?}: current value is {found:?}"
                )),
                Some(_) => None,
            }
        });
        let wrong: String = wrong.collect();
        (!wrong.is_empty()).then(|| format!("invalid ownership metadata{wrong}"))
    }

    /// Whether an object says that it is another release's.
    fn is_anothers(self, live: &Json) -> bool {
        let said = |key: &str| live["metadata"]["annotations"].get(key).and_then(Json::as_str);
        said(NAME).is_some_and(|name| name != self.name) || said(NAMESPACE).is_some_and(|found| found != self.namespace)
    }
}

/// A manifest on its way into a cluster.
pub struct Applying<'a> {
    pub cluster: &'a Cluster,
    pub owner: Owner<'a>,
    /// What the manifests said that the cluster may hold objects of, the oldest first: of what is deployed, and of what failed since.
    pub old: &'a [Vec<Target>],
    pub new: &'a [Target],
    pub extent: Extent,
    /// Objects are replaced, not merged.
    pub force: bool,
    /// What is there already becomes this release's, whosever it was.
    pub take_ownership: bool,
}

impl<'a> Applying<'a> {
    /// Makes and changes objects in the order of the manifest, those of one kind together, then deletes what is in no manifest any more.
    ///
    /// # Errors
    /// Of the first kind that cannot be applied, all that is wrong with it.
    pub async fn carry_out(&self) -> Result<()> {
        for batch in self.new.chunk_by(|left, right| left.id().kind == right.id().kind) {
            all(self.cluster.each(batch.iter().map(|target| self.put(target)).collect()).await)?;
        }
        let gone = self.gone();
        all(self.cluster.each(gone.iter().map(|target| self.remove(target)).collect()).await)
    }

    /// Refuses a manifest with objects that are not this release's, before anything is done.
    pub async fn check(&self) -> Result<()> {
        if self.take_ownership {
            return Ok(());
        }
        let added: Vec<Target> = self.new.iter().filter(|target| !self.is_known(target.id())).cloned().collect();
        let live = self.cluster.get_all(&added).await?;
        for (target, live) in added.iter().zip(live) {
            if let Some(live) = live {
                self.owned(target, &live)?;
            }
        }
        Ok(())
    }

    /// What was said of an object before.
    fn before(&self, id: &Id) -> impl Iterator<Item = &'a Json> {
        self.old.iter().flatten().filter(move |target| target.id() == id).map(|target| &target.object.json)
    }

    fn is_known(&self, id: &Id) -> bool {
        self.before(id).next().is_some()
    }

    /// What is in no manifest any more, the last made first.
    pub fn gone(&self) -> Vec<Target> {
        let mut gone: Vec<Target> = Vec::new();
        for target in self.old.iter().rev().flat_map(|manifest| manifest.iter().rev()) {
            let is_in = |targets: &[Target]| targets.iter().any(|other| other.id() == target.id());
            if !is_in(self.new) && !is_in(&gone) {
                gone.push(target.clone());
            }
        }
        gone
    }

    fn owned(&self, target: &Target, live: &Json) -> Result<()> {
        match self.owner.disowns(live) {
            Some(why) if !self.take_ownership && !self.is_known(target.id()) => Err(Error::Taken(format!(
                "{} exists and cannot be imported into the current release: {why}",
                target.id()
            ))),
            _ => Ok(()),
        }
    }

    /// What an object is to become.
    ///
    /// # Errors
    /// That it is another's.
    pub fn wanted(&self, target: &Target, live: &Json) -> Result<Json> {
        self.owned(target, live)?;
        let new = self.marked(target);
        if !self.is_known(target.id()) {
            return Ok(merge::merged(target.id(), None, &new, live, self.extent));
        }
        // What failed may have got as far as this object or not: what any of them said and this one doesn't goes.
        let merge = |live, old| merge::merged(target.id(), Some(old), &new, &live, self.extent);
        Ok(self.before(target.id()).fold(live.clone(), merge))
    }

    pub fn marked(&self, target: &Target) -> Json {
        let mut new = target.object.json.clone();
        self.owner.mark(&mut new);
        new
    }

    pub async fn put(&self, target: &Target) -> Result<()> {
        let mut last = Error::Changed(target.id().to_string());
        for _ in 0..CONFLICTS_MAX {
            let tried = match self.cluster.get(target).await? {
                None => self.cluster.create(target, &self.marked(target), Mode::Real).await,
                // What is being deleted would take our change along.
                Some(live) if is_going(&live) => return Err(Error::Going(target.id().to_string())),
                Some(live) if self.force => {
                    self.owned(target, &live)?;
                    let mut new = self.marked(target);
                    new["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
                    self.cluster.replace(target, &new).await
                }
                Some(live) => {
                    let wanted = self.wanted(target, &live)?;
                    if wanted == live {
                        return Ok(());
                    }
                    self.cluster.merge(target, &guarded(&live, &wanted), Mode::Real).await
                }
            };
            match tried {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some(409) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn remove(&self, target: &Target) -> Result<()> {
        remove(self.cluster, target, self.owner, PropagationPolicy::Background).await.map(|_| ())
    }
}

/// The patch from what is there to what is to be, for nothing but that.
pub fn guarded(live: &Json, wanted: &Json) -> Json {
    let mut patch = merge::patch(live, wanted);
    if let Some(metadata) = object::table(&mut patch, "metadata") {
        metadata.insert("resourceVersion".to_owned(), live["metadata"]["resourceVersion"].clone());
    }
    patch
}

pub fn is_going(live: &Json) -> bool {
    !live["metadata"]["deletionTimestamp"].is_null()
}

/// Whether an object is to stay when its release does not want it any more.
pub fn is_kept(object: &Json) -> bool {
    object["metadata"]["annotations"].get(POLICY).and_then(Json::as_str).is_some_and(|policy| policy.trim() == "keep")
}

/// Deletes an object of a release, unless it is to be kept or has become another release's. Whether it is, or will be, gone.
pub async fn remove(
    cluster: &Cluster,
    target: &Target,
    owner: Owner<'_>,
    propagation: PropagationPolicy,
) -> Result<bool> {
    let Some(live) = cluster.get(target).await? else { return Ok(true) };
    if is_kept(&live) || owner.is_anothers(&live) {
        return Ok(false);
    }
    if is_going(&live) {
        return Ok(true);
    }
    let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
    let params = DeleteParams {
        propagation_policy: Some(propagation),
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    match cluster.delete(target, &params).await {
        // Another of that name has come: it is not ours.
        Err(error) if error.code() == Some(409) => Ok(false),
        other => other.map(|()| true),
    }
}

/// All that went wrong. What stays wrong is told before what may pass.
pub fn all(results: Vec<Result<()>>) -> Result<()> {
    let mut errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let is_final = |error: &Error| error.class() != Class::Retry;
    if errors.len() > 1 && errors.iter().any(is_final) {
        let told: Vec<String> = errors.iter().filter(|error| is_final(error)).map(ToString::to_string).collect();
        return Err(Error::Invalid(told.join(" && ")));
    }
    Err(errors.swap_remove(0))
}
