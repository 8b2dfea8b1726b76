//! The versions of every key and the log of events, as readers see them.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use super::{Limits, held::Held};
use crate::{At, Error, Event, KeyValue, Page, Range, Result, Revision, engine};

#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub modified: Revision,
    pub created: Revision,
    /// None: deleted at `modified`.
    pub value: Held,
}

#[derive(Debug)]
struct Older(Vec<Version>);

/// All kept versions of one key; most keys have one, which needs no further allocation.
#[derive(Debug)]
struct Chain {
    latest: Version,
    /// Oldest first; none instead of empty.
    older: Option<Box<Older>>,
}

// There is one for each key.
const _: () = assert!(size_of::<Chain>() <= 40);

impl Chain {
    fn new(latest: Version) -> Self {
        Self { latest, older: None }
    }

    fn older(&self) -> &[Version] {
        self.older.as_ref().map_or(&[], |older| &older.0)
    }

    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.latest.modified <= revision {
            return Some(&self.latest);
        }
        self.older().iter().rev().find(|version| version.modified <= revision)
    }

    fn made_at(&mut self, revision: Revision) -> Option<&mut Version> {
        if self.latest.modified == revision {
            return Some(&mut self.latest);
        }
        self.older.as_mut()?.0.iter_mut().rev().find(|version| version.modified == revision)
    }

    fn push(&mut self, latest: Version) {
        let older = std::mem::replace(&mut self.latest, latest);
        self.older.get_or_insert_with(|| Box::new(Older(Vec::new()))).0.push(older);
    }
}

/// One key's part in a commit.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub key: Bytes,
    pub created: Revision,
    /// None: the key was deleted.
    pub value: Held,
    pub prev: Option<Version>,
}

impl Change {
    pub fn new(key: Bytes, created: Revision, value: Option<Bytes>, prev: Option<KeyValue>) -> Self {
        let prev =
            prev.map(|prev| Version { modified: prev.modified, created: prev.created, value: Some(prev.value).into() });
        Self { key, created, value: value.into(), prev }
    }
}

/// A commit, shared by the log and the queues of watchers.
#[derive(Debug)]
pub(crate) struct Entry {
    pub revision: Revision,
    pub changes: Box<[Change]>,
    /// What keys, values and previous values take.
    pub bytes: u64,
}

impl Entry {
    pub fn new(revision: Revision, changes: Vec<Change>) -> Self {
        let bytes = changes
            .iter()
            .map(|change| {
                let prev = change.prev.as_ref().map_or(0, |prev| prev.value.kept_bytes());
                (change.key.len() + change.value.kept_bytes() + prev) as u64
            })
            .sum();
        Self { revision, changes: changes.into(), bytes }
    }

    pub fn touches(&self, range: &Range) -> bool {
        self.changes.iter().any(|change| range.contains(&change.key))
    }

    pub fn event(&self, change: &Change) -> Option<Event> {
        let prev = change.prev.as_ref().and_then(|prev| visible(&change.key, prev));
        match (change.value.get(), prev) {
            (Some(value), prev) => Some(Event::Put {
                item: KeyValue { key: change.key.clone(), value, created: change.created, modified: self.revision },
                prev,
            }),
            (None, Some(prev)) => Some(Event::Delete { revision: self.revision, prev }),
            (None, None) => None,
        }
    }

    pub fn record(&self) -> engine::Record {
        let changes = self.changes.iter().map(|change| {
            let key = change.key.clone();
            let op = match change.value.get() {
                Some(value) => crate::Op::Put { key, value },
                None => crate::Op::Delete { key },
            };
            engine::Change { op, created: change.created }
        });
        engine::Record { revision: self.revision, changes: changes.collect() }
    }
}

/// A commit that is no longer new, and its values packed.
pub(crate) struct Settled {
    revision: Revision,
    values: Vec<Held>,
}

impl Settled {
    pub fn new(entry: &Entry) -> Self {
        Self { revision: entry.revision, values: entry.changes.iter().map(|change| change.value.packed()).collect() }
    }
}

/// A part of a range as it was found, still packed.
#[derive(Debug, Default)]
pub(crate) struct Found {
    items: Vec<(Bytes, Version)>,
    revision: Revision,
    remaining: u64,
}

impl Found {
    /// Unpacks it: for those who hold no lock.
    pub fn into_page(self) -> Page {
        let items = self.items.iter().filter_map(|(key, version)| visible(key, version)).collect();
        Page { items, revision: self.revision, remaining: self.remaining }
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    chains: BTreeMap<Box<[u8]>, Chain>,
    /// Every commit after `compacted`, oldest first.
    log: VecDeque<Arc<Entry>>,
    log_bytes: u64,
    /// The log's commits from here on are not packed, and take so many bytes.
    new_from: usize,
    new_bytes: u64,
    pub revision: Revision,
    pub compacted: Revision,
    pub size_bytes: u64,
}

fn version_bytes(key: &[u8], version: &Version) -> u64 {
    (key.len() + version.value.len()) as u64
}

fn visible(key: &Bytes, version: &Version) -> Option<KeyValue> {
    let value = version.value.get()?;
    Some(KeyValue { key: key.clone(), value, created: version.created, modified: version.modified })
}

impl State {
    pub fn new(loaded: engine::Loaded) -> Self {
        let mut state = Self { revision: loaded.revision, compacted: loaded.revision, ..Self::default() };
        for item in loaded.items {
            let value = Held::from(Some(item.value)).packed();
            let latest = Version { modified: item.modified, created: item.created, value };
            state.size_bytes += version_bytes(&item.key, &latest);
            state.chains.insert(item.key[..].into(), Chain::new(latest));
        }
        state
    }

    pub fn latest(&self, key: &Bytes) -> Option<KeyValue> {
        visible(key, &self.chains.get(&key[..])?.latest)
    }

    /// When the key was last written; none: it is not there.
    pub fn modified(&self, key: &[u8]) -> Option<Revision> {
        self.chains.get(key).map(|chain| &chain.latest).filter(|latest| !latest.value.is_none()).map(|v| v.modified)
    }

    /// Whether history after `revision` is complete and `revision` has been reached.
    fn check(&self, revision: Revision) -> Result<()> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        Ok(())
    }

    pub fn find(&self, range: &Range, at: At, limit: usize) -> Result<Found> {
        let revision = match at {
            At::Latest => self.revision,
            At::Exact(revision) => {
                self.check(revision)?;
                revision
            }
        };
        let mut found = Found { revision, ..Found::default() };
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(found);
        }
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, chain) in self.chains.range::<[u8], _>((Bound::Included(&range.start[..]), end)) {
            let Some(version) = chain.at(revision).filter(|version| !version.value.is_none()) else { continue };
            if limit != 0 && found.items.len() == limit {
                found.remaining += 1;
            } else {
                found.items.push((Bytes::copy_from_slice(key), version.clone()));
            }
        }
        Ok(found)
    }

    /// The commits after `after` that touch `range`.
    pub fn replay(&self, range: &Range, after: Revision) -> Result<VecDeque<Arc<Entry>>> {
        self.check(after)?;
        let from = self.log.partition_point(|entry| entry.revision <= after);
        Ok(self.log.range(from..).filter(|entry| entry.touches(range)).cloned().collect())
    }

    /// Makes a commit visible.
    pub fn apply(&mut self, entry: Arc<Entry>) {
        for change in &entry.changes {
            let version = Version { modified: entry.revision, created: change.created, value: change.value.clone() };
            self.size_bytes += version_bytes(&change.key, &version);
            match self.chains.get_mut(&change.key[..]) {
                Some(chain) => chain.push(version),
                None => drop(self.chains.insert(change.key[..].into(), Chain::new(version))),
            }
        }
        self.revision = entry.revision;
        self.log_bytes += entry.bytes;
        self.new_bytes += entry.bytes;
        self.log.push_back(entry);
    }

    /// The commits that are no longer new.
    pub fn to_settle(&self, limits: &Limits) -> Vec<Arc<Entry>> {
        let (mut commits, mut bytes) = (self.log.len() - self.new_from, self.new_bytes);
        let mut found = Vec::new();
        for entry in self.log.range(self.new_from..) {
            if commits <= limits.new_commits && bytes <= limits.new_bytes {
                break;
            }
            commits -= 1;
            bytes -= entry.bytes;
            found.push(Arc::clone(entry));
        }
        found
    }

    /// Puts the packed values in the place of the others.
    pub fn settle(&mut self, settled: Vec<Settled>) {
        for Settled { revision, values } in settled {
            let Some(entry) = self.log.get(self.new_from).filter(|entry| entry.revision == revision) else { return };
            let entry = Arc::clone(entry);
            let mut changes = Vec::with_capacity(values.len());
            for (change, value) in entry.changes.iter().zip(values) {
                let mut change = change.clone();
                change.value = value;
                if let Some(chain) = self.chains.get_mut(&change.key[..]) {
                    if let Some(version) = chain.made_at(revision) {
                        version.value = change.value.clone();
                    }
                    // It is older, so it has been packed.
                    if let Some(prev) = &mut change.prev
                        && let Some(version) = chain.made_at(prev.modified)
                    {
                        prev.value = version.value.clone();
                    }
                }
                changes.push(change);
            }
            let packed = Entry::new(revision, changes);
            self.log_bytes = self.log_bytes - entry.bytes + packed.bytes;
            self.new_bytes -= entry.bytes;
            if let Some(place) = self.log.get_mut(self.new_from) {
                *place = Arc::new(packed);
            }
            self.new_from += 1;
        }
    }

    /// Nothing that is kept here was changed up to `revision`.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Forgets the oldest commits until the log is within its limits.
    pub fn trim(&mut self, commits: usize, bytes: u64) {
        while self.log.len() > commits || (self.log_bytes > bytes && !self.log.is_empty()) {
            self.forget();
        }
    }

    /// Forgets history up to and at `below`.
    pub fn compact(&mut self, below: Revision) -> Result<()> {
        if below > self.revision {
            return Err(Error::Future { requested: below, current: self.revision });
        }
        while self.log.front().is_some_and(|entry| entry.revision <= below) {
            self.forget();
        }
        self.compacted = self.compacted.max(below);
        Ok(())
    }

    /// Drops the log's oldest commit and the versions that it superseded.
    fn forget(&mut self) {
        let Some(entry) = self.log.pop_front() else { return };
        self.log_bytes -= entry.bytes;
        self.compacted = entry.revision;
        if self.new_from > 0 {
            self.new_from -= 1;
        } else {
            self.new_bytes -= entry.bytes;
        }
        for change in &entry.changes {
            let Some(chain) = self.chains.get_mut(&change.key[..]) else { continue };
            if let Some(version) = chain.made_at(entry.revision).filter(|version| version.value.is_plain()) {
                version.value = version.value.packed();
            }
            // Every version before the one made here is superseded at or below the new horizon; a deletion is then
            // the same as no version at all.
            if let Some(older) = chain.older.as_mut().map(|older| &mut older.0) {
                let mut keep = older.partition_point(|version| version.modified < entry.revision);
                if older.get(keep).is_some_and(|version| version.value.is_none()) {
                    keep += 1;
                }
                let freed: u64 = older.drain(..keep).map(|version| version_bytes(&change.key, &version)).sum();
                self.size_bytes -= freed;
                if !older.is_empty() {
                    continue;
                }
                chain.older = None;
            }
            if chain.latest.modified == entry.revision && chain.latest.value.is_none() {
                self.size_bytes -= version_bytes(&change.key, &chain.latest);
                self.chains.remove(&change.key[..]);
            }
        }
    }
}
