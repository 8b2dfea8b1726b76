//! The versions of every key and the log of events, as readers see them.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use crate::{At, Error, Event, KeyValue, Page, Range, Result, Revision, engine};

#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub modified: Revision,
    pub created: Revision,
    /// None: deleted at `modified`.
    pub value: Option<Bytes>,
}

/// All kept versions of one key; most keys have one, which needs no allocation.
#[derive(Debug)]
struct Chain {
    latest: Version,
    /// Oldest first.
    older: Vec<Version>,
}

impl Chain {
    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.latest.modified <= revision {
            return Some(&self.latest);
        }
        self.older.iter().rev().find(|version| version.modified <= revision)
    }
}

/// One key's part in a commit.
#[derive(Debug)]
pub(crate) struct Change {
    pub key: Bytes,
    pub created: Revision,
    pub value: Option<Bytes>,
    pub prev: Option<KeyValue>,
}

/// A commit, shared by the log and the queues of watchers.
#[derive(Debug)]
pub(crate) struct Entry {
    pub revision: Revision,
    pub changes: Box<[Change]>,
    /// Keys, values and previous values.
    pub bytes: u64,
}

impl Entry {
    pub fn new(revision: Revision, changes: Vec<Change>) -> Self {
        let bytes = changes
            .iter()
            .map(|change| {
                let value = change.value.as_ref().map_or(0, Bytes::len);
                let prev = change.prev.as_ref().map_or(0, |prev| prev.value.len());
                (change.key.len() + value + prev) as u64
            })
            .sum();
        Self { revision, changes: changes.into(), bytes }
    }

    pub fn touches(&self, range: &Range) -> bool {
        self.changes.iter().any(|change| range.contains(&change.key))
    }

    pub fn event(&self, change: &Change) -> Option<Event> {
        match (&change.value, &change.prev) {
            (Some(value), prev) => Some(Event::Put {
                item: KeyValue {
                    key: change.key.clone(),
                    value: value.clone(),
                    created: change.created,
                    modified: self.revision,
                },
                prev: prev.clone(),
            }),
            (None, Some(prev)) => Some(Event::Delete { revision: self.revision, prev: prev.clone() }),
            (None, None) => None,
        }
    }

    pub fn record(&self) -> engine::Record {
        let changes = self.changes.iter().map(|change| {
            let key = change.key.clone();
            let op = match &change.value {
                Some(value) => crate::Op::Put { key, value: value.clone() },
                None => crate::Op::Delete { key },
            };
            engine::Change { op, created: change.created }
        });
        engine::Record { revision: self.revision, changes: changes.collect() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    chains: BTreeMap<Bytes, Chain>,
    /// Every commit after `compacted`, oldest first.
    log: VecDeque<Arc<Entry>>,
    log_bytes: u64,
    pub revision: Revision,
    pub compacted: Revision,
    pub size_bytes: u64,
}

fn version_bytes(key: &Bytes, version: &Version) -> u64 {
    (key.len() + version.value.as_ref().map_or(0, Bytes::len)) as u64
}

fn visible(key: &Bytes, version: &Version) -> Option<KeyValue> {
    let value = version.value.clone()?;
    Some(KeyValue { key: key.clone(), value, created: version.created, modified: version.modified })
}

impl State {
    pub fn new(loaded: engine::Loaded) -> Self {
        let mut state = Self { revision: loaded.revision, compacted: loaded.revision, ..Self::default() };
        for item in loaded.items {
            let latest = Version { modified: item.modified, created: item.created, value: Some(item.value) };
            state.size_bytes += version_bytes(&item.key, &latest);
            state.chains.insert(item.key, Chain { latest, older: Vec::new() });
        }
        state
    }

    pub fn latest(&self, key: &[u8]) -> Option<KeyValue> {
        let (key, chain) = self.chains.get_key_value(key)?;
        visible(key, &chain.latest)
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

    pub fn range(&self, range: &Range, at: At, limit: usize) -> Result<Page> {
        let revision = match at {
            At::Latest => self.revision,
            At::Exact(revision) => {
                self.check(revision)?;
                revision
            }
        };
        let mut page = Page { revision, ..Page::default() };
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(page);
        }
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, chain) in self.chains.range::<[u8], _>((Bound::Included(&range.start[..]), end)) {
            let Some(version) = chain.at(revision) else { continue };
            if limit != 0 && page.items.len() == limit {
                page.remaining += u64::from(version.value.is_some());
            } else {
                page.items.extend(visible(key, version));
            }
        }
        Ok(page)
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
            if let Some(chain) = self.chains.get_mut(&change.key) {
                let older = std::mem::replace(&mut chain.latest, version);
                chain.older.push(older);
            } else {
                self.chains.insert(change.key.clone(), Chain { latest: version, older: Vec::new() });
            }
        }
        self.revision = entry.revision;
        self.log_bytes += entry.bytes;
        self.log.push_back(entry);
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
        for change in &entry.changes {
            let Some(chain) = self.chains.get_mut(&change.key) else { continue };
            // Every version before the one made here is superseded at or below the new horizon; a deletion is then
            // the same as no version at all.
            let mut keep = chain.older.partition_point(|version| version.modified < entry.revision);
            if chain.older.get(keep).is_some_and(|version| version.value.is_none()) {
                keep += 1;
            }
            let freed: u64 = chain.older.drain(..keep).map(|version| version_bytes(&change.key, &version)).sum();
            self.size_bytes -= freed;
            if chain.older.is_empty() {
                chain.older = Vec::new();
                if chain.latest.modified == entry.revision && chain.latest.value.is_none() {
                    self.size_bytes -= version_bytes(&change.key, &chain.latest);
                    self.chains.remove(&change.key);
                }
            }
        }
    }
}
