//! What is to be written for a catalog: a pure function of its index, of what there is, and of the time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use api::{
    admission::labels,
    app::{AppCatalogEntry, AppCatalogEntrySpec, Catalog, CatalogRef, EntryChart, MANAGED_BY_LABEL},
    meta::Time,
};
use control::{EventType, Plan};
use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, core::ObjectMeta};

use super::{
    facts::{Facts, is_for},
    selection::{self, Chosen},
};
use crate::repository::{
    Entry, Index,
    grant::{self, CATALOG_LABEL},
};

pub const TYPE_LABEL: &str = "application.giantswarm.io/catalog-type";
/// A catalog of this type has more than is worth keeping: no entries are made of its index. Those that somebody else keeps of it stay,
/// and say nothing of what else there is.
pub const COMMUNITY: &str = "community";
pub const LATEST_LABEL: &str = "latest";
/// On an AppCatalogEntry: the namespace that the chart was tested in, for whoever has none in mind. Unlike a restriction it forbids no other.
pub const TESTED_NAMESPACE: &str = "delivery.skep.dev/tested-namespace";
const NAME_LABEL: &str = "app.kubernetes.io/name";
const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// As published, so that entries which are there are taken over.
pub const MANAGER: &str = "app-operator-unique";
/// Entries of one catalog. An index that would make more is not followed.
pub const ENTRIES_MAX: usize = 10_000;
/// Until an index is asked for again.
pub const POLL_S: u64 = 300;
/// Until an index that could not be had is tried again: doubled each time.
const RETRY_MIN_S: u64 = 10;
/// Until what is known of some versions only by now is asked for again.
const PENDING_S: u64 = 30;
/// Refusals that are told by name.
const NAMED_MAX: usize = 5;

/// Why an index is not followed; the reason of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub reason: &'static str,
    pub message: String,
}

/// What is known of a version by the file that its index points at.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Had(Box<Facts>),
    /// There is none.
    Absent,
    /// It could not be had yet, or not be read: what an entry has stays.
    Unknown(String),
}

pub struct Seen {
    pub catalog: Arc<Catalog>,
    /// All of the catalog's namespace: a name may be taken.
    pub entries: Vec<Arc<AppCatalogEntry>>,
    /// None: this catalog has no entries.
    pub index: Option<Result<Arc<Index>, Fault>>,
    /// By address.
    pub notes: HashMap<String, Note>,
    /// What the management cluster runs on, as in `compatibleProviders`.
    pub provider: String,
    /// How often the index could not be followed in a row, before this time.
    pub failures: u32,
    /// What was told of this catalog last.
    pub told: Option<String>,
    /// The same of the types of its repositories.
    pub mistyped: Option<String>,
}

/// What to do, and what is told by it.
#[derive(Debug, Default)]
pub struct Work {
    pub plan: Plan,
    pub told: Option<String>,
    pub mistyped: Option<String>,
    /// The index cannot be followed.
    pub failed: bool,
}

pub fn plan(seen: &Seen, now: Timestamp) -> Work {
    let mut plan = Plan::nothing();
    let catalog = seen.catalog.as_ref();
    let mistyped = mistyped(catalog);
    if let Some(message) = mistyped.as_ref().filter(|told| seen.mistyped.as_ref() != Some(told)) {
        plan.event(catalog, EventType::Warning, "RepositoryTypeWrong", message.as_str());
    }
    let Some(index) = &seen.index else { return Work { plan, mistyped, ..Work::default() } };
    let offer = index.as_ref().map_err(Fault::clone).and_then(|index| offer(seen, index, now));
    let offer = match offer {
        Ok(offer) => offer,
        Err(fault) => {
            plan.event(catalog, EventType::Warning, fault.reason, fault.message.as_str());
            plan.wait("the catalog's index", POLL_S.min(RETRY_MIN_S << seen.failures.min(10)));
            return Work { plan, told: Some(fault.message), mistyped, failed: true };
        }
    };
    let told = (!offer.refused.is_empty()).then(|| summary(&offer.refused));
    match &told {
        Some(told) if seen.told.as_ref() != Some(told) => {
            plan.event(catalog, EventType::Warning, "VersionsRefused", told.as_str());
        }
        None if seen.told.is_some() => {
            plan.event(catalog, EventType::Normal, "IndexFollowed", "all that the index offers is offered");
        }
        _ => {}
    }
    let existing = by_name(&seen.entries);
    for entry in &offer.entries {
        match existing.get(entry.metadata.name.as_deref().unwrap_or_default()) {
            Some(before) => plan.update(*before, entry),
            None => plan.create(entry),
        };
    }
    let kept: HashSet<&str> = offer.entries.iter().filter_map(|entry| entry.metadata.name.as_deref()).collect();
    let mut gone: Vec<&AppCatalogEntry> = existing
        .values()
        .copied()
        .filter(|entry| !kept.contains(entry.metadata.name.as_deref().unwrap_or_default()))
        .filter(|entry| is_own(entry, catalog) && entry.metadata.deletion_timestamp.is_none())
        .collect();
    gone.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    for entry in gone {
        plan.delete(entry);
    }
    let (on, after) = if offer.pending { ("metadata of apps", PENDING_S) } else { ("the catalog's index", POLL_S) };
    plan.wait(on, after);
    Work { plan, told, mistyped, failed: false }
}

/// The repositories whose type contradicts their address.
pub(super) fn mistyped(catalog: &Catalog) -> Option<String> {
    let all = std::iter::once(&catalog.spec.storage).chain(&catalog.spec.repositories);
    let mut found = Vec::new();
    for repository in all {
        let wanted = if grant::is_registry(&repository.url) { "oci" } else { "helm" };
        let told = (&repository.url, &repository.type_);
        if repository.type_ != wanted && !repository.url.is_empty() && !found.contains(&told) {
            found.push(told);
        }
    }
    let more = found.len().saturating_sub(NAMED_MAX);
    let named = found.iter().take(NAMED_MAX).map(|(url, type_)| format!("{url} has the type {type_:?}"));
    let mut named: Vec<String> = named.collect();
    named.extend((more > 0).then(|| format!("and {more} more")));
    (!named.is_empty()).then(|| {
        let named = named.join(", ");
        format!("{named}: what begins with oci:// is of type oci, all else of type helm, and that is how it is asked")
    })
}

fn by_name(entries: &[Arc<AppCatalogEntry>]) -> HashMap<&str, &AppCatalogEntry> {
    entries.iter().filter_map(|entry| Some((entry.metadata.name.as_deref()?, entry.as_ref()))).collect()
}

/// Whether an entry is the catalog's, to change and to remove: not one that somebody else made, nor one of a catalog and an app whose
/// names make the same together.
fn is_own(entry: &AppCatalogEntry, catalog: &Catalog) -> bool {
    let label = |key: &str| entry.metadata.labels.as_ref()?.get(key);
    label(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGER) && label(CATALOG_LABEL) == catalog.metadata.name.as_ref()
}

#[derive(Default)]
struct Offer {
    entries: Vec<AppCatalogEntry>,
    refused: Vec<String>,
    /// Something of it is not known yet.
    pending: bool,
}

fn offer(seen: &Seen, index: &Index, now: Timestamp) -> Result<Offer, Fault> {
    if index.is_empty() {
        let message = "the index offers nothing: the entries stay as they are".to_owned();
        return Err(Fault { reason: "IndexEmpty", message });
    }
    let catalog = seen.catalog.metadata.name.as_deref().unwrap_or_default();
    let before = by_name(&seen.entries);
    let mut offer = Offer::default();
    let mut names = HashSet::new();
    for versions in index.entries.values() {
        let chosen = selection::choose(catalog, versions, &mut offer.refused);
        let mut made = Vec::with_capacity(chosen.len());
        let mut fits = true;
        for one in &chosen {
            let name = selection::name(catalog, one.entry);
            let old = before.get(name.as_str()).copied();
            let note = Facts::url(one.entry).and_then(|url| seen.notes.get(url));
            if let Some(Note::Unknown(why)) = note {
                offer.pending = true;
                offer.refused.push(format!("metadata of {} {}: {why}", one.entry.name, one.entry.version));
            }
            let own = old.filter(|old| is_own(old, &seen.catalog));
            let entry = desired(&seen.catalog, one, note, own, now);
            fits &= !one.latest || is_for(entry.spec.restrictions.as_ref(), &seen.provider);
            if old.is_some() && own.is_none() {
                offer.refused.push(format!("{name} is there already and is not the catalog's"));
            } else if names.insert(name) {
                made.push(entry);
            }
        }
        if fits {
            offer.entries.extend(made);
        }
        if offer.entries.len() > ENTRIES_MAX {
            let message = format!("the index would make more than {ENTRIES_MAX} entries: they stay as they are");
            return Err(Fault { reason: "IndexTooLarge", message });
        }
    }
    Ok(offer)
}

fn summary(refused: &[String]) -> String {
    let named = refused.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    match refused.len().saturating_sub(NAMED_MAX) {
        0 => format!("not offered as the index has it: {named}"),
        more => format!("not offered as the index has it: {named}; and {more} more"),
    }
}

/// What a catalog without an index of its own offers of a chart: the only version, made as those of an index are.
pub fn only(catalog: &Catalog, entry: &Entry, now: Timestamp) -> AppCatalogEntry {
    desired(catalog, &Chosen { entry, latest: true }, None, None, now)
}

/// An entry as it should be: its labels, annotations and owners are the catalog's alone, as published.
fn desired(
    catalog: &Catalog,
    chosen: &Chosen<'_>,
    note: Option<&Note>,
    before: Option<&AppCatalogEntry>,
    now: Timestamp,
) -> AppCatalogEntry {
    let Chosen { entry, latest } = *chosen;
    let facts = match note {
        Some(Note::Had(facts)) => facts.as_ref().clone().over(Facts::told(entry)),
        _ => Facts::told(entry),
    };
    let mut made = before.cloned().unwrap_or_default();
    label(&mut made.metadata, catalog, entry, latest);
    let known = before.filter(|_| matches!(note, Some(Note::Unknown(_))));
    let spec = spec(catalog, entry, &facts, before, now);
    made.spec = match known {
        None => {
            made.metadata.annotations = annotations(entry, &facts);
            spec
        }
        Some(known) => {
            let api_version = known.spec.chart.as_ref().map(|chart| chart.api_version.clone());
            let upstream = known.spec.chart.as_ref().and_then(|chart| chart.upstream_chart_version.clone());
            let chart = spec.chart.map(|chart| EntryChart {
                api_version: api_version.unwrap_or_default(),
                upstream_chart_version: upstream,
                ..chart
            });
            let (date_created, date_updated) = (known.spec.date_created.clone(), known.spec.date_updated.clone());
            AppCatalogEntrySpec {
                chart,
                restrictions: known.spec.restrictions.clone(),
                date_created,
                date_updated,
                ..spec
            }
        }
    };
    made
}

fn label(meta: &mut ObjectMeta, catalog: &Catalog, entry: &Entry, latest: bool) {
    let own = &catalog.metadata;
    let name = own.name.clone().unwrap_or_default();
    let kind = own.labels.as_ref().and_then(|labels| labels.get(TYPE_LABEL)).cloned().unwrap_or_default();
    meta.name = Some(selection::name(&name, entry));
    meta.namespace.clone_from(&own.namespace);
    let labels = [
        (NAME_LABEL, entry.name.clone()),
        (VERSION_LABEL, entry.version.clone()),
        (CATALOG_LABEL, name.clone()),
        (TYPE_LABEL, kind),
        (LATEST_LABEL, latest.to_string()),
        (MANAGED_BY_LABEL, MANAGER.to_owned()),
    ];
    meta.labels = Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    meta.owner_references = Some(vec![OwnerReference {
        api_version: Catalog::api_version(&()).into_owned(),
        block_owner_deletion: Some(true),
        controller: None,
        kind: Catalog::kind(&()).into_owned(),
        name,
        uid: own.uid.clone().unwrap_or_default(),
    }]);
}

/// Those that an object may bear: charts have keys with two slashes, which it may not. They are read all the same.
fn annotations(entry: &Entry, facts: &Facts) -> Option<BTreeMap<String, String>> {
    let all = entry.annotations.iter().chain(&facts.annotations);
    let borne = all.filter(|(key, _)| labels::key(key).is_empty());
    let all: BTreeMap<String, String> = borne.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!all.is_empty()).then_some(all)
}

fn spec(
    catalog: &Catalog,
    entry: &Entry,
    facts: &Facts,
    before: Option<&AppCatalogEntry>,
    now: Timestamp,
) -> AppCatalogEntrySpec {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let own = &catalog.metadata;
    // Whoever does not say when it was made was made when it was first seen. Objects keep no parts of a second.
    let first = before.and_then(|before| before.spec.date_created.as_ref()).map_or(now, |time| time.0);
    let created = facts.created().or(entry.created()).unwrap_or(first);
    let created = Time(created.round(Unit::Second).unwrap_or(created));
    let api_version = if facts.chart_api_version.is_empty() { "v1" } else { facts.chart_api_version.as_str() };
    AppCatalogEntrySpec {
        app_name: entry.name.clone(),
        app_version: entry.app_version.clone(),
        catalog: CatalogRef {
            name: own.name.clone().unwrap_or_default(),
            namespace: own.namespace.clone().unwrap_or_default(),
        },
        chart: Some(EntryChart {
            api_version: api_version.to_owned(),
            description: text(&entry.description),
            home: text(&entry.home),
            icon: text(&entry.icon),
            keywords: Some(entry.keywords.clone()).filter(|keywords| !keywords.is_empty()),
            upstream_chart_version: facts.upstream_chart_version.clone(),
        }),
        date_created: Some(created.clone()),
        date_updated: Some(created),
        restrictions: facts.restrictions.clone(),
        version: entry.version.clone(),
    }
}
