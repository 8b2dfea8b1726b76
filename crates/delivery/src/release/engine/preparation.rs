//! From a request to a release that is stored and that nothing has been applied of yet.

use std::collections::BTreeMap;

use helm::manifests;
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    Engine, Namespace, Options, Outcome, Request,
    operation::{Kind, Operation, digest},
    valid,
};
use crate::release::{
    apply::{Applying, Owner},
    chart,
    cluster::{Mode, Target},
    error::{Error, Result},
    merge::Extent,
    object::{Object, objects, read},
    readiness::{Readiness, readiness},
    record::{Execution, Info, Release, Status},
    rendering::{self, Page},
    storage::{Head, Storage, Stored},
};

/// What a new revision is made of and what it takes the place of.
pub struct Prepared {
    pub release: Release,
    pub previous: Vec<Release>,
    pub new: Vec<Target>,
    /// Those of each previous one.
    pub old: Vec<Vec<Target>>,
}

impl Engine {
    pub(super) async fn deploy(&self, request: &Request<'_>, upgrades: bool) -> Result<Outcome> {
        valid(request.name, request.namespace)?;
        let digest = digest(request);
        let (heads, last) = self.latest(request.name, request.namespace).await?;
        if let Some(last) = &last
            && last.operation.as_ref().is_some_and(|operation| operation.is_of(&digest))
        {
            return self.resume(last.clone()).await;
        }
        if let Some(last) = &last
            && last.release.info.status == Status::Uninstalling
            && last.operation.is_some()
        {
            let outcome = self.go_on_removing(last.clone()).await?;
            let is_left = self.latest(request.name, request.namespace).await?.1;
            if is_left.is_some_and(|left| left.release.info.status == Status::Uninstalling) {
                return Ok(outcome);
            }
            return Box::pin(self.deploy(request, upgrades)).await;
        }
        let mut last = match last {
            Some(last) => Some(self.settled(last).await?),
            None => None,
        };
        let is_there = last.as_ref().is_some_and(|last| last.release.info.status != Status::Uninstalled);
        if is_there && !upgrades {
            return Err(Error::NameInUse(request.name.to_owned()));
        }
        if !is_there && upgrades && !request.options.install {
            return Err(Error::NotFound(format!("{:?} has no deployed releases", request.name)));
        }
        chart::complete(request.chart.chart())?;
        if !is_there
            && !request.options.skip_crds
            && let Some(waiting) = self.define(request).await?
        {
            return Ok(waiting);
        }
        self.cluster.discover().await?;
        let prepared = self.prepare(request, &heads, last.as_ref()).await?;
        let kind = if is_there { Kind::Upgrade } else { Kind::Install };
        self.applying(&prepared, request.options).check().await.map_err(|error| match error {
            Error::Taken(why) if is_there => Error::Taken(format!("Unable to continue with update: {why}")),
            Error::Taken(why) => Error::Taken(format!("Unable to continue with install: {why}")),
            other => other,
        })?;
        if let Some(namespace) = &request.options.namespace
            && !is_there
            && let Some(waiting) = self.ensure_namespace(request.namespace, namespace).await?
        {
            return Ok(waiting);
        }
        let labels = last.take().map(|last| last.labels).unwrap_or_default();
        let mut operation = Operation::new(kind, digest, request.options.clone(), &prepared.release, self.clock.now());
        operation.previous = prepared.previous.iter().map(|previous| previous.version).collect();
        let begun = self.begin(&heads, prepared.release, operation, labels).await?;
        self.resume(begun).await
    }

    /// Renders, and finds what is there.
    pub(in crate::release) async fn prepare(
        &self,
        request: &Request<'_>,
        heads: &[Head],
        last: Option<&Stored>,
    ) -> Result<Prepared> {
        let now = self.clock.now();
        let previous = self.revisions(request.name, request.namespace, &live_revisions(heads)).await?;
        let version = last.map_or(0, |last| last.release.version) + 1;
        let of = helm::release::Release {
            name: request.name.to_owned(),
            namespace: request.namespace.to_owned(),
            revision: version,
            is_upgrade: !previous.is_empty(),
        };
        let page = rendering::rendered(&self.cluster, &self.chance, now, request.chart, request.values, &of).await?;
        let Page { manifest, hooks, notes } = page;
        let new = self.cluster.targets(objects(&manifest)?, request.namespace).await.map_err(|error| match error {
            Error::Invalid(why) => {
                Error::Invalid(format!("unable to build kubernetes objects from release manifest: {why}"))
            }
            other => other,
        })?;
        let old = self.targets_of(&previous).await?;
        let release = Release {
            name: request.name.to_owned(),
            namespace: request.namespace.to_owned(),
            info: Info {
                first_deployed: previous.first().and_then(|previous| previous.info.first_deployed).or(Some(now)),
                last_deployed: Some(now),
                notes,
                ..Info::default()
            },
            chart: chart::recorded(request.chart.chart()),
            config: request.values.clone(),
            manifest,
            hooks,
            version,
        };
        Ok(Prepared { release, previous, new, old })
    }

    pub(in crate::release) fn applying<'a>(&'a self, prepared: &'a Prepared, options: &Options) -> Applying<'a> {
        Applying {
            cluster: &self.cluster,
            owner: Owner { name: &prepared.release.name, namespace: &prepared.release.namespace },
            old: &prepared.old,
            new: &prepared.new,
            extent: Extent::Upgrade,
            force: options.force,
            take_ownership: options.take_ownership,
        }
    }

    pub(super) async fn revisions(&self, name: &str, namespace: &str, versions: &[i64]) -> Result<Vec<Release>> {
        let storage = Storage::new(&self.cluster, namespace);
        let mut found = Vec::new();
        for version in versions {
            found.extend(storage.get(name, *version).await?.map(|stored| stored.release));
        }
        Ok(found)
    }

    pub(super) async fn targets_of(&self, revisions: &[Release]) -> Result<Vec<Vec<Target>>> {
        let mut found = Vec::new();
        for revision in revisions {
            found.push(self.known_targets(objects(&revision.manifest)?, &revision.namespace).await?);
        }
        Ok(found)
    }

    /// Objects of an old revision, without those of kinds that are not served any more: they are gone.
    pub(in crate::release) async fn known_targets(&self, objects: Vec<Object>, namespace: &str) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        let mut unknown = None;
        for object in objects {
            if unknown.as_ref() == Some(&(object.api_version.clone(), object.id.kind.clone())) {
                continue;
            }
            let kind = (object.api_version.clone(), object.id.kind.clone());
            match self.cluster.targets(vec![object], namespace).await {
                Ok(found) => targets.extend(found),
                Err(Error::Invalid(_)) => unknown = Some(kind),
                Err(error) => return Err(error),
            }
        }
        Ok(targets)
    }

    /// Stores a revision that begins.
    pub(super) async fn begin(
        &self,
        heads: &[Head],
        mut release: Release,
        operation: Operation,
        mut labels: BTreeMap<String, String>,
    ) -> Result<Stored> {
        release.info.status = operation.pending();
        release.info.description = match operation.kind {
            Kind::Install => "Initial install underway".to_owned(),
            Kind::Upgrade => "Preparing upgrade".to_owned(),
            Kind::Rollback | Kind::Uninstall => release.info.description,
        };
        labels.extend(operation.options.labels.clone());
        let namespace = release.namespace.clone();
        let storage = Storage::new(&self.cluster, &namespace);
        storage.prune(heads, operation.options.history_max).await?;
        let mut begun = Stored::new(release, operation, labels);
        storage.create(&mut begun, self.clock.now()).await?;
        Ok(begun)
    }

    pub(super) async fn begin_rollback(
        &self,
        heads: &[Head],
        last: &Stored,
        to: i64,
        options: &Options,
        request: String,
        cause: Option<String>,
    ) -> Result<Stored> {
        let now = self.clock.now();
        let Release { name, namespace, .. } = &last.release;
        let found = Storage::new(&self.cluster, namespace).get(name, to).await?;
        let Some(target) = found else {
            return Err(Error::NotFound(format!("release {name} has no {to} version")));
        };
        let mut release = target.release;
        release.version = last.release.version + 1;
        release.info = Info {
            first_deployed: last.release.info.first_deployed,
            last_deployed: Some(now),
            description: format!("Rollback to {to}"),
            notes: release.info.notes,
            ..Info::default()
        };
        for hook in &mut release.hooks {
            hook.last_run = Execution::default();
        }
        let mut operation = Operation::new(Kind::Rollback, request, options.clone(), &release, now);
        (operation.previous, operation.cause) = (live_revisions(heads), cause);
        self.begin(heads, release, operation, target.labels).await
    }

    /// Makes the definitions in `crds/` that are not there, and waits for them.
    async fn define(&self, request: &Request<'_>) -> Result<Option<Outcome>> {
        let mut definitions = Vec::new();
        for file in helm::crds(request.chart.chart(), request.values)? {
            let text = String::from_utf8_lossy(&file.data).into_owned();
            for manifest in manifests::sorted(&[(file.name.clone(), text)].into())?.objects {
                read(&manifest.content, &file.name, &mut definitions)?;
            }
        }
        if definitions.is_empty() {
            return Ok(None);
        }
        let targets = self.cluster.targets(definitions, request.namespace).await?;
        for target in &targets {
            let live = match self.cluster.get(target).await? {
                Some(live) => live,
                None => match self.cluster.create(target, &target.object.json, Mode::Real).await {
                    Err(error) if error.code() == Some(409) => continue,
                    made => {
                        made?;
                        self.cluster.get(target).await?.unwrap_or_default()
                    }
                },
            };
            match readiness(&live) {
                Readiness::Ready => {}
                Readiness::Failed(why) => return Err(Error::Invalid(format!("{}: {why}", target.id()))),
                Readiness::InProgress(_) | Readiness::Terminating => {
                    let since = live["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse().ok());
                    return Ok(Some(Outcome::Waiting {
                        on: "the definition is to be established".to_owned(),
                        object: Some(target.id().clone()),
                        since: since.unwrap_or_else(|| self.clock.now()),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Makes a namespace, or gives the one that is there what it is to have. What somebody else gave it stays.
    ///
    /// # Errors
    /// That the cluster refuses it, or does not say.
    pub async fn ensure_namespace(&self, name: &str, wanted: &Namespace) -> Result<Option<Outcome>> {
        let api: Api<NamespaceObject> = Api::all(self.cluster.client().clone());
        let place = format!("Namespace {name:?}");
        let Some(live) = self.cluster.call("get", &place, api.get_opt(name)).await? else {
            let mut labels = wanted.labels.clone();
            // As Helm's.
            labels.entry("name".to_owned()).or_insert_with(|| name.to_owned());
            let namespace = NamespaceObject {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    labels: Some(labels),
                    annotations: Some(wanted.annotations.clone()),
                    ..ObjectMeta::default()
                },
                ..NamespaceObject::default()
            };
            self.cluster.call("create", &place, api.create(&PostParams::default(), &namespace)).await?;
            return Ok(None);
        };
        if live.metadata.deletion_timestamp.is_some() {
            return Ok(Some(Outcome::Waiting {
                on: format!("{place} is being deleted"),
                object: None,
                since: self.clock.now(),
            }));
        }
        let has = |there: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(key, value)| there.and_then(|there| there.get(key)) == Some(value))
        };
        if !has(live.metadata.labels.as_ref(), &wanted.labels)
            || !has(live.metadata.annotations.as_ref(), &wanted.annotations)
        {
            let patch = json!({"metadata": {"labels": wanted.labels, "annotations": wanted.annotations}});
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            self.cluster.call("patch", &place, api.patch(name, &params, &patch)).await?;
        }
        Ok(None)
    }
}

/// The revisions that the cluster may hold objects of: what is deployed, and what was tried since.
fn live_revisions(heads: &[Head]) -> Vec<i64> {
    let last = |status| heads.iter().rposition(|head| head.status == status);
    let from = last(Status::Deployed).or_else(|| last(Status::Superseded)).unwrap_or(0);
    let from = from.max(last(Status::Uninstalled).map_or(0, |gone| gone + 1));
    heads.iter().skip(from).map(|head| head.version).collect()
}
