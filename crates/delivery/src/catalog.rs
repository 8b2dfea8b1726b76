//! What catalogs offer: an AppCatalogEntry for each version that users may pick, kept as the catalog's index says.
//!
//! Source: giantswarm/app-operator service/controller/catalog. Other than there, a registry that lists what it has is an index too,
//! mirrors are asked when the storage does not answer, an index that offers nothing takes nothing away, and restrictions are read
//! from the index's annotations as well. `status.helmRepositoryList` is left alone: it names objects of Flux, and none are made
//! here. What is wrong is told by events of the Catalog, since the published kind has no conditions.

mod facts;
mod plan;
mod selection;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use api::app::{AppCatalogEntry, Catalog};
use control::{Cache, Key, Outcome, Plan, Queue, Reconcile, Result, Writer};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use parking_lot::Mutex;
use transport::Transport;

use self::{
    facts::Facts,
    plan::{Fault, Note, Seen, Work},
};
pub use self::{
    plan::{COMMUNITY, ENTRIES_MAX, LATEST_LABEL, MANAGER, POLL_S, TESTED_NAMESPACE, TYPE_LABEL, only},
    selection::{ENTRY_BYTES_MAX, VERSIONS_MAX},
};
use crate::{
    controllers::{Caches, Context},
    repository::{
        Access, Class, Entry, Index, Repositories,
        grant::{self, CATALOG_LABEL},
    },
};

/// Places that a catalog's index is looked for at.
const PLACES_MAX: usize = 4;
/// For files that an index points at, in one reconcile: those that were not had by then are asked for in the next one.
const NOTES_TIME: Duration = Duration::from_secs(20);
const NOTES_AT_ONCE: usize = 8;
/// Writes in one reconcile, and how many at once.
const WRITES_MAX: usize = 500;
const WRITES_AT_ONCE: usize = 8;

/// The controller: [`crate::Delivery`] starts it with the others.
///
/// Its identity needs to get, list and watch `catalogs`; to do all with `appcatalogentries`; to update `catalogs/finalizers` (owner
/// references that block); to create, get and patch events; to list and watch secrets.
pub struct Catalogs {
    writer: Writer,
    catalogs: Arc<Cache<Catalog>>,
    entries: Arc<Cache<AppCatalogEntry>>,
    /// Those that bear a catalog's name.
    secrets: Arc<Cache<Secret>>,
    /// Shared with those who fetch archives.
    repositories: Arc<Repositories>,
    transport: Arc<dyn Transport>,
    /// What the management cluster runs on, as charts name it in `compatibleProviders`: `openstack`, say.
    provider: String,
    /// Lost with the process, and found out again.
    past: Mutex<HashMap<Key, Past>>,
}

#[derive(Clone, Default)]
struct Past {
    failures: u32,
    told: Option<String>,
    mistyped: Option<String>,
}

/// Which change wakes which catalog.
pub fn feed(caches: &Caches, queue: &Queue) {
    caches.catalogs.feed(queue);
    caches.entries.feed_owner("application.giantswarm.io", "Catalog", queue);
    let queue = queue.clone();
    caches.credentials.on_change(move |secret| {
        if let Some(catalog) = label_of(secret.as_ref(), CATALOG_LABEL) {
            queue.add(Key::new(secret.metadata.namespace.clone().unwrap_or_default(), catalog));
        }
    });
}

impl Catalogs {
    pub fn new(context: &Context) -> Self {
        Self {
            writer: context.writer.clone(),
            catalogs: context.caches.catalogs.clone(),
            entries: context.caches.entries.clone(),
            secrets: context.caches.credentials.clone(),
            repositories: context.repositories.clone(),
            transport: context.transport.clone(),
            provider: context.provider.clone(),
            past: Mutex::default(),
        }
    }

    /// The index of the first place that has one, and how that place is reached.
    async fn index(&self, key: &Key, catalog: &Catalog) -> Result<(Arc<Index>, Access, String), Fault> {
        let secret = self.secrets.get(&Key::new(key.namespace.as_str(), grant::secret_name(&key.name)));
        let mut faults = Vec::new();
        for url in places(catalog) {
            let access = grant::access(self.transport.clone(), catalog, secret.as_deref(), url);
            let access = access.map_err(|message| Fault { reason: "CredentialsInvalid", message })?;
            match self.repositories.index(&access, url).await {
                Ok(index) => return Ok((index, access, url.to_owned())),
                Err(error) => faults.push(error.to_string()),
            }
        }
        if faults.is_empty() {
            faults.push("the catalog names no repository: set spec.storage.URL".to_owned());
        }
        Err(Fault { reason: "IndexUnavailable", message: faults.join("; ") })
    }

    /// What is known of the versions that are to be offered.
    async fn notes(&self, key: &Key, index: &Index, access: &Access, repository: &str) -> HashMap<String, Note> {
        let mut urls = HashSet::new();
        let pointing = |versions: &&Vec<Entry>| versions.iter().any(|entry| Facts::url(entry).is_some());
        for versions in index.entries.values().filter(pointing) {
            let chosen = selection::choose(&key.name, versions, &mut Vec::new());
            urls.extend(chosen.iter().filter_map(|one| Facts::url(one.entry)).map(str::to_owned));
        }
        let late = || Note::Unknown("it was not asked for yet".to_owned());
        let mut notes: HashMap<String, Note> = urls.iter().map(|url| (url.clone(), late())).collect();
        let asked = futures::stream::iter(urls).map(|url| async move {
            let note = match self.repositories.note(access, repository, &url).await {
                Ok(text) => match Facts::parse(&text) {
                    Ok(facts) => Note::Had(Box::new(facts)),
                    Err(why) => Note::Unknown(format!("{url}: {why}")),
                },
                Err(error) if error.class == Class::Missing => Note::Absent,
                Err(error) => Note::Unknown(error.to_string()),
            };
            (url, note)
        });
        let mut asked = std::pin::pin!(asked.buffer_unordered(NOTES_AT_ONCE));
        let all = async {
            while let Some((url, note)) = asked.next().await {
                notes.insert(url, note);
            }
        };
        // Those that are had by now are kept, and the others asked for again.
        let _ = tokio::time::timeout(NOTES_TIME, all).await;
        notes
    }
}

/// The storage, as published, and then its mirrors.
fn places(catalog: &Catalog) -> Vec<&str> {
    let mut places: Vec<&str> = Vec::new();
    let all = std::iter::once(&catalog.spec.storage).chain(&catalog.spec.repositories);
    for url in all.map(|place| place.url.as_str()).filter(|url| !url.is_empty()) {
        if !places.contains(&url) && places.len() < PLACES_MAX {
            places.push(url);
        }
    }
    places
}

fn label_of<'a>(object: &'a impl Resource, key: &str) -> Option<&'a str> {
    object.meta().labels.as_ref()?.get(key).map(String::as_str)
}

impl Reconcile for Catalogs {
    const NAME: &'static str = "catalog";
    type Seen = Seen;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        // Entries of a catalog that is gone are removed by the garbage collection.
        let Some(catalog) = self.catalogs.get(key).filter(|catalog| catalog.metadata.deletion_timestamp.is_none())
        else {
            self.past.lock().remove(key);
            return Ok(None);
        };
        let past = self.past.lock().get(key).cloned().unwrap_or_default();
        let mut seen = Seen {
            entries: self.entries.in_namespace(&key.namespace),
            index: None,
            notes: HashMap::new(),
            provider: self.provider.clone(),
            failures: past.failures,
            told: past.told,
            mistyped: past.mistyped,
            catalog,
        };
        if label_of(seen.catalog.as_ref(), TYPE_LABEL) == Some(COMMUNITY) {
            return Ok(Some(seen));
        }
        match self.index(key, &seen.catalog).await {
            Ok((index, access, url)) => {
                seen.notes = self.notes(key, &index, &access, &url).await;
                seen.index = Some(Ok(index));
            }
            Err(fault) => seen.index = Some(Err(fault)),
        }
        Ok(Some(seen))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Work {
        plan::plan(seen, now)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> Result<Outcome> {
        let failures = if work.failed { seen.failures.saturating_add(1) } else { 0 };
        self.past.lock().insert(key.clone(), Past { failures, told: work.told, mistyped: work.mistyped });
        let Plan { mut steps, outcome } = work.plan;
        let outcome = if steps.len() > WRITES_MAX { Outcome::waiting("the rest of the entries", 0) } else { outcome };
        steps.truncate(WRITES_MAX);
        // One that is refused is no reason to leave out the others.
        let each = steps.into_iter().map(|step| Plan { steps: vec![step], outcome: Outcome::Settled });
        let written = futures::stream::iter(each).map(|one| self.writer.execute(one));
        let written: Vec<_> = written.buffer_unordered(WRITES_AT_ONCE).collect().await;
        match written.into_iter().find_map(std::result::Result::err) {
            Some(error) => Err(error),
            None => Ok(outcome),
        }
    }
}

#[cfg(test)]
mod tests;
