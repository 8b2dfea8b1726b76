//! Images of the OpenStack Resource Controller: one that exists is found, one that is managed is made, downloaded by the cloud
//! itself and taken away again. Machines and bastions name them by `image.imageRef`.
//!
//! Not done: data that the cloud cannot fetch by itself (no `web-download`), data that is to be unpacked or whose hash is to
//! be compared; an object that asks for it says so. Where the controller of that project runs, this one does not.
//!
//! Source: k-orc/openstack-resource-controller internal/controllers/image.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    condition::{self, Statement},
    conversion::duration_s,
    meta::{ConditionStatus, Time},
    names::{OPENSTACK_IMAGE_FINALIZER, PROVIDER_LABEL},
    openstack_image::{
        Image, ImageDownload, ImageHash, ImageResource, ImageResourceStatus, ImageStatus, ManagementPolicy, OnDelete,
    },
    openstack_reference::IdentityRef,
};
use control::{Key, Outcome, Plan, Queue, Reconcile};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use openstack::{
    Class, Query,
    image::{Image as Found, ImageDraft},
};
use serde_json::{Value, json};

use super::{
    Shared,
    passes::Aim,
    scope::Scope,
    stop::{Result, Stop, blocked, pace, wait},
};
use crate::{Caches, owner};

/// The definition of the kind; whose controller keeps images is seen by its label.
pub const CRD: &str = "images.openstack.k-orc.cloud";
/// The user must change something.
const INVALID: &str = "InvalidConfiguration";
/// Nobody can mend it.
const LOST: &str = "UnrecoverableError";
const WAITING: &str = "Progressing";
/// Downloads that are begun for one image.
pub const DOWNLOADS_MAX: i32 = 5;
/// An image that is waited for is looked at so often: somebody else makes it.
const PAUSE: Duration = Duration::from_secs(15);
/// A machine waits so long for an image; its event comes sooner.
const IMAGE_PAUSE: Duration = Duration::from_secs(15);
/// An image that nothing is known against.
const LOOK_PAUSE_S: u64 = 30 * 60;
/// Before the definition is asked for again.
const ASK_PAUSE: Duration = Duration::from_secs(10);

pub struct Images(pub Arc<Shared>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    AddFinalizer,
    Ensure,
    Delete,
}

/// The id in the cloud of an image that a machine names.
pub fn of(scope: &Scope, name: &str) -> Result<String> {
    const REASON: &str = "DependencyFailed";
    let Some(image) = scope.images.get(&Key::new(scope.namespace.as_str(), name)) else {
        return wait(REASON, format!("Image {name} (image.imageRef), which does not exist"), IMAGE_PAUSE);
    };
    let status = image.status.clone().unwrap_or_default();
    let fresh = |type_: &str| {
        let found = condition::get(&status.conditions, type_);
        found.filter(|found| found.observed_generation == image.metadata.generation)
    };
    if let Some(failed) = fresh("Progressing").filter(|found| matches!(found.reason.as_str(), INVALID | LOST)) {
        return blocked(REASON, format!("Image {name} (image.imageRef): {}", failed.message));
    }
    match status.id.filter(|_| fresh("Available").is_some_and(|found| found.status == ConditionStatus::True)) {
        Some(id) => Ok(id),
        None => wait(REASON, format!("Image {name} (image.imageRef) to be available"), IMAGE_PAUSE),
    }
}

/// Images wake their controller, and the machines and clusters that name them.
pub fn feed(caches: &Arc<Caches>, images: &Queue, machines: &Queue, clusters: &Queue) {
    caches.images.feed(images);
    let (weak, machines, clusters) = (Arc::downgrade(caches), machines.clone(), clusters.clone());
    caches.images.on_change(move |image| {
        let Some(caches) = weak.upgrade() else { return };
        let key = Key::of(image.as_ref());
        let names = |param: &api::openstack_reference::ImageParam| {
            param.image_ref.as_ref().is_some_and(|reference| reference.name == key.name)
        };
        for machine in caches.openstack_machines.in_namespace(&key.namespace) {
            let made = machine.status.as_ref().is_some_and(|status| status.instance_id.is_some());
            if !made && names(&machine.spec.image) {
                machines.add(Key::of(machine.as_ref()));
            }
        }
        for cluster in caches.openstack_clusters.in_namespace(&key.namespace) {
            let bastion = cluster.spec.bastion.as_ref().and_then(|bastion| bastion.spec.as_ref());
            if bastion.is_some_and(|spec| names(&spec.image)) {
                clusters.add(Key::of(cluster.as_ref()));
            }
        }
    });
}

impl Reconcile for Images {
    const NAME: &'static str = "image";
    type Seen = Arc<Image>;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Arc<Image>>> {
        Ok(self.0.caches.images.get(key))
    }

    fn plan(&self, seen: &Arc<Image>, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Arc<Image>, work: Work) -> control::Result<Outcome> {
        let now = Time(self.0.writer.clock().now());
        let mut after = Image::clone(seen);
        let doubts = match work {
            Work::Ensure => self.0.begin(Self::NAME, key, Aim::Ensure),
            Work::Delete => self.0.begin(Self::NAME, key, Aim::Delete),
            _ => false,
        };
        let done = match work {
            Work::Nothing => return Ok(Outcome::Settled),
            Work::AddFinalizer => {
                owner::add_finalizer(&mut after.metadata, OPENSTACK_IMAGE_FINALIZER);
                let mut plan = Plan::nothing();
                plan.update(seen.as_ref(), &after);
                return self.0.writer.execute(plan).await;
            }
            Work::Ensure => self.ensure(key, &mut after, &now).await,
            Work::Delete => self.delete(key, seen).await,
        };
        self.0.end(Self::NAME, key, &done, doubts);
        let done = match (work, done) {
            (Work::Delete, Ok(())) => self.0.unanswered.wait(Self::NAME, key),
            (_, done) => done,
        };
        if work == Work::Delete && done.is_ok() {
            owner::remove_finalizer(&mut after.metadata, OPENSTACK_IMAGE_FINALIZER);
        } else {
            let generation = after.metadata.generation;
            let status = after.status.get_or_insert_default();
            state(status, &done, work == Work::Delete, generation, &now);
            if seen.status.as_ref() != Some(status) {
                status.last_sync_time = Some(now);
            }
        }
        let mut plan = Plan::nothing();
        plan.update(seen.as_ref(), &after);
        let written = self.0.writer.execute(plan).await?;
        match done {
            Ok(()) if work == Work::Ensure => Ok(written.sooner(next_look(seen))),
            Ok(()) => Ok(written),
            Err(stop) => stop.outcome(),
        }
    }
}

/// When an image that is as it should be is looked at again.
fn next_look(image: &Image) -> Outcome {
    match image.spec.resync_period.as_deref().and_then(duration_s) {
        Some(0) => Outcome::Settled,
        asked => {
            let pause = asked.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(LOOK_PAUSE_S);
            Outcome::waiting("the next look at the image", pause)
        }
    }
}

pub fn plan(image: &Image) -> Work {
    let has_finalizer = owner::has_finalizer(&image.metadata, OPENSTACK_IMAGE_FINALIZER);
    match (image.metadata.deletion_timestamp.is_some(), has_finalizer) {
        (true, true) => Work::Delete,
        (true, false) => Work::Nothing,
        (false, false) => Work::AddFinalizer,
        (false, true) => Work::Ensure,
    }
}

fn state(status: &mut ImageStatus, done: &Result<()>, deleting: bool, generation: Option<i64>, now: &Time) {
    if matches!(done, Err(stop) if stop.found_nothing() && condition::is_true(&status.conditions, "Available")) {
        return;
    }
    let (available, progressing) = match done {
        Ok(()) => (Statement::yes("Available", "Success"), Statement::no("Progressing", "Success", "")),
        Err(stop) => {
            let (reason, message) = stop.told();
            let refused =
                matches!(stop, Stop::Cloud(error) if matches!(error.class(), Class::Invalid | Class::Forbidden));
            let reason = match reason {
                INVALID | LOST | WAITING => reason,
                _ if refused => INVALID,
                _ => "TransientError",
            };
            let progressing = Statement::no("Progressing", reason, message.clone());
            let over = matches!(reason, INVALID | LOST);
            let going = Statement { status: ConditionStatus::True, ..progressing.clone() };
            (Statement::no("Available", reason, message), if over { progressing } else { going })
        }
    };
    if !deleting {
        condition::set(&mut status.conditions, available, generation, now);
    }
    condition::set(&mut status.conditions, progressing, generation, now);
}

/// As the image's property has it: whose it is.
fn mark(key: &Key) -> String {
    format!("{}/{}", key.namespace, key.name)
}

impl Images {
    /// Whether this controller is the one for images here: not where somebody else has brought the kind. Asks until it knows.
    pub async fn is_ours(&self) -> bool {
        let definitions = Api::<CustomResourceDefinition>::all(self.0.writer.client().clone());
        loop {
            match definitions.get_opt(CRD).await {
                Ok(None) => return true,
                Ok(Some(found)) => {
                    let ours = owner::label_of(&found.metadata, PROVIDER_LABEL).is_some();
                    if !ours {
                        tracing::info!("{CRD} is not Skep's: its own controller keeps images");
                    }
                    return ours;
                }
                Err(error) => {
                    tracing::info!(%error, "whose {CRD} is, is not known yet");
                    tokio::time::sleep(ASK_PAUSE).await;
                }
            }
        }
    }

    async fn scope(&self, key: &Key, image: &Image) -> Result<Scope> {
        let reference = &image.spec.cloud_credentials_ref;
        let identity = IdentityRef {
            cloud_name: reference.cloud_name.clone(),
            name: reference.secret_name.clone(),
            ..IdentityRef::default()
        };
        let scope = self.0.scopes.open(&key.namespace, &identity, mark(key), Vec::new()).await?;
        Ok(self.0.during(Self::NAME, key, scope))
    }

    async fn ensure(&self, key: &Key, after: &mut Image, now: &Time) -> Result<()> {
        let scope = self.scope(key, after).await?;
        let mut status = after.status.clone().unwrap_or_default();
        let managed = after.spec.management_policy.unwrap_or_default() == ManagementPolicy::Managed;
        let done = async {
            let known = status.id.clone();
            let found = match &known {
                Some(id) => scope.cloud.look::<Found>(id).await?.filter(|image| image.status != "deleted"),
                None if managed => own(&scope, &name_of(key, after), &mark(key)).await?,
                None => Some(imported(&scope, after).await?),
            };
            let found = match found {
                Some(found) => found,
                None if known.is_some() => {
                    return blocked(LOST, "the image has been deleted from OpenStack");
                }
                None => make(&scope, key, after).await?,
            };
            status.id = Some(found.id.clone());
            let resource = after.spec.resource.as_ref().filter(|_| managed);
            if let Some(resource) = resource {
                align(&scope, &found, &name_of(key, after), resource).await?;
            }
            status.resource = Some(shown(&found));
            let download = resource.and_then(|resource| resource.content.as_ref()?.download.as_ref());
            filled(&scope, &found, download, &mut status, super::age(&after.metadata, now)).await
        }
        .await;
        after.status = Some(status);
        done
    }

    async fn delete(&self, key: &Key, image: &Image) -> Result<()> {
        let options = image.spec.managed_options.as_ref();
        let kept = options.and_then(|options| options.on_delete) == Some(OnDelete::Detach);
        if kept || image.spec.management_policy == Some(ManagementPolicy::Unmanaged) {
            return Ok(());
        }
        let known = image.status.as_ref().and_then(|status| status.id.clone());
        let scope = match self.scope(key, image).await {
            // Nothing was ever made without credentials.
            Err(Stop::Blocked { .. }) if known.is_none() => return Ok(()),
            other => other?,
        };
        let id = match known {
            Some(id) => Some(id),
            None => own(&scope, &name_of(key, image), &mark(key)).await?.map(|found| found.id),
        };
        if let Some(id) = id {
            scope.cloud.remove::<Found>(&id).await?;
        }
        Ok(())
    }
}

fn name_of(key: &Key, image: &Image) -> String {
    image.spec.resource.as_ref().and_then(|resource| resource.name.clone()).unwrap_or_else(|| key.name.clone())
}

/// The image that was made for the object.
async fn own(scope: &Scope, name: &str, mark: &str) -> Result<Option<Found>> {
    let found = scope.cloud.list::<Found>(&Query::by_name(name)).await?;
    Ok(found.into_iter().find(|image| image.name == name && image.k_orc_object == mark))
}

/// The one image that the object imports.
async fn imported(scope: &Scope, image: &Image) -> Result<Found> {
    let import = image.spec.import.clone().unwrap_or_default();
    if let Some(id) = &import.id {
        return match scope.cloud.look::<Found>(id).await? {
            Some(found) => Ok(found),
            None => blocked(LOST, format!("image {id} (spec.import.id) does not exist in OpenStack")),
        };
    }
    let filter = import.filter.unwrap_or_default();
    let query =
        Query::new().with_some("name", filter.name.as_ref()).with_some("visibility", filter.visibility.as_ref());
    let query = filter.tags.iter().fold(query, |query, tag| query.with("tag", tag));
    let mut found = scope.cloud.list::<Found>(&query).await?;
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => wait(WAITING, "an image that matches spec.import.filter", PAUSE),
        (Some(_), more) => blocked(INVALID, format!("{} images match spec.import.filter: one must", more + 1)),
    }
}

/// Makes the image, still without its data.
async fn make(scope: &Scope, key: &Key, image: &Image) -> Result<Found> {
    let Some((resource, content)) =
        image.spec.resource.as_ref().and_then(|resource| Some((resource, resource.content.as_ref()?)))
    else {
        return blocked(INVALID, "spec.resource.content says what the image is made of, and is missing");
    };
    fetchable(scope, content.download.as_ref()).await?;
    let asked = resource.properties.clone().unwrap_or_default();
    let mut properties: BTreeMap<String, Value> =
        asked.of_glance().into_iter().map(|(name, value)| (name, value.into())).collect();
    properties.insert("k_orc_object".to_owned(), mark(key).into());
    let draft = ImageDraft {
        name: name_of(key, image),
        disk_format: content.disk_format.clone(),
        container_format: content.container_format.clone().unwrap_or_else(|| "bare".to_owned()),
        visibility: resource.visibility.clone(),
        protected: resource.protected,
        tags: resource.tags.clone(),
        min_disk: asked.min_disk_gb,
        min_ram: asked.min_memory_mb,
        properties,
    };
    Ok(scope.cloud.create(&draft).await?)
}

/// Whether the cloud can fetch the data by itself.
async fn fetchable(scope: &Scope, download: Option<&ImageDownload>) -> Result<()> {
    let Some(download) = download else {
        return blocked(INVALID, "spec.resource.content.download says where the data is, and is missing");
    };
    let idle = [("decompress", download.decompress.is_some()), ("hash", download.hash.is_some())];
    if let Some((field, _)) = idle.iter().find(|(_, set)| *set) {
        let message = format!(
            "spec.resource.content.download.{field} is not supported: the cloud downloads the data by itself; upload the image and import it"
        );
        return blocked(INVALID, message);
    }
    if !scope.cloud.image_import_methods().await?.iter().any(|method| method == "web-download") {
        let message = "the cloud cannot download images (Glance has no import method web-download): upload the image and import it";
        return blocked(INVALID, message);
    }
    Ok(())
}

/// Brings what may change in an image in line with the object.
async fn align(scope: &Scope, found: &Found, name: &str, resource: &ImageResource) -> Result<()> {
    let sorted = |tags: &[String]| {
        let mut tags = tags.to_vec();
        tags.sort();
        tags
    };
    let mut changes: Vec<(&str, Value)> = Vec::new();
    if found.name != name {
        changes.push(("name", name.into()));
    }
    if let Some(visibility) = resource.visibility.as_ref().filter(|wanted| **wanted != found.visibility) {
        changes.push(("visibility", visibility.as_str().into()));
    }
    if found.protected != resource.protected.unwrap_or_default() {
        changes.push(("protected", (!found.protected).into()));
    }
    if sorted(&found.tags) != sorted(&resource.tags) {
        changes.push(("tags", json!(sorted(&resource.tags))));
    }
    if changes.is_empty() {
        return Ok(());
    }
    scope.cloud.replace_in_image(&found.id, &changes).await?;
    wait(WAITING, "the image to be as it was changed", Duration::ZERO)
}

fn shown(found: &Found) -> ImageResourceStatus {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let bytes = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let hash = ImageHash { algorithm: found.os_hash_algo.clone(), value: found.os_hash_value.clone() };
    ImageResourceStatus {
        name: text(&found.name),
        status: text(&found.status),
        protected: Some(found.protected),
        visibility: text(&found.visibility),
        hash: Some(hash).filter(|hash| !hash.algorithm.is_empty() && !hash.value.is_empty()),
        size_b: bytes(found.size),
        virtual_size_b: bytes(found.virtual_size),
        tags: found.tags.clone(),
    }
}

/// The image has its data, or gets it.
async fn filled(
    scope: &Scope,
    found: &Found,
    download: Option<&ImageDownload>,
    status: &mut ImageStatus,
    age: Duration,
) -> Result<()> {
    match (found.status.as_str(), download) {
        ("active", _) => Ok(()),
        ("importing" | "saving", _) => wait(WAITING, "the cloud to download the image", pace(age)),
        ("queued", None) => wait(WAITING, "somebody to upload the image's data", PAUSE),
        ("queued", Some(download)) => {
            let begun = status.download_attempts.unwrap_or_default();
            if begun >= DOWNLOADS_MAX {
                return blocked(INVALID, format!("the cloud could not download {} in {begun} attempts", download.url));
            }
            fetchable(scope, Some(download)).await?;
            match scope.cloud.download_image(&found.id, &download.url).await {
                // It is on its way, and the image does not tell so yet.
                Err(error) if error.is_conflict() => {}
                done => {
                    done?;
                    status.download_attempts = Some(begun + 1);
                }
            }
            wait(WAITING, "the cloud to download the image", pace(age))
        }
        ("killed", _) => blocked(LOST, "Glance could not save the image's data"),
        ("deactivated", _) => blocked(INVALID, "the image is deactivated"),
        (other, _) => wait(WAITING, format!("the image to be active (it is {other})"), PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_going_is_let_go_once() {
        let mut image = Image::default();
        assert_eq!(plan(&image), Work::AddFinalizer);
        owner::add_finalizer(&mut image.metadata, OPENSTACK_IMAGE_FINALIZER);
        assert_eq!(plan(&image), Work::Ensure);
        image.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&image), Work::Delete);
        image.metadata.finalizers = None;
        assert_eq!(plan(&image), Work::Nothing);
    }

    #[test]
    fn what_a_person_must_mend_is_not_progress() {
        let conditions = |done: &Result<()>| {
            let mut status = ImageStatus::default();
            state(&mut status, done, false, Some(1), &Time(Timestamp::UNIX_EPOCH));
            let told = |c: &api::meta::Condition| format!("{} {:?} {}", c.type_, c.status, c.reason);
            status.conditions.iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(conditions(&Ok(())), ["Available True Success", "Progressing False Success"]);
        let waits = wait(WAITING, "data", PAUSE);
        assert_eq!(conditions(&waits), ["Available False Progressing", "Progressing True Progressing"]);
        let wrong = blocked(INVALID, "two");
        assert_eq!(
            conditions(&wrong),
            ["Available False InvalidConfiguration", "Progressing False InvalidConfiguration"]
        );
        let refused = blocked("OpenStackAuthenticationFailed", "no Secret");
        assert_eq!(conditions(&refused), ["Available False TransientError", "Progressing True TransientError"]);
    }
}
