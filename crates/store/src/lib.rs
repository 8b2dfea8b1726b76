//! A multi-version key-value store that can be watched: what a Kubernetes API server needs of etcd, and no more.
//!
//! The crate knows nothing of Kubernetes: keys and values are bytes. One core keeps the versions and the order of
//! events; an [`engine`] below it makes commits durable, or [`etcd`] does and tells what all its clients commit. Left out on purpose: leases, transactions over more than a
//! guard and a list of operations, and any form of replication of our own: many machines use [`etcd`] behind the same contract.

pub mod conformance;
mod core;
pub mod engine;
mod error;
pub mod etcd;
mod prefixed;
pub mod snapshot;
pub mod watch;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::{
    core::{Embedded, Limits},
    error::Error,
    etcd::Etcd,
    prefixed::Prefixed,
    snapshot::Snapshot,
    watch::{Event, Watch, WatchItem},
};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The store's logical clock: each commit that changes something takes the next one. 0 is before the first commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key as it stood at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// The commit that made the key (after its last deletion).
    pub created: Revision,
    /// The commit that last wrote it.
    pub modified: Revision,
}

/// A half-open interval of keys, in byte order: `start <= key < end`; `end` of `None` is unbounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: Bytes,
    pub end: Option<Bytes>,
}

impl Range {
    /// Exactly one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = start.to_vec();
        end.push(0);
        Self { start, end: Some(end.into()) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.last_mut() {
            if *last < u8::MAX {
                *last += 1;
                return Self { start, end: Some(end.into()) };
            }
            end.pop();
        }
        Self { start, end: None }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && self.end.as_ref().is_none_or(|end| key < end)
    }
}

/// Which state of the store a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Latest,
    /// Exactly this revision; [`Error::Compacted`] if it is no longer kept, [`Error::Future`] if it has not been made.
    Exact(Revision),
}

/// A part of a range, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<KeyValue>,
    /// The revision that the page was read at: pass it as [`At::Exact`] to read the next page consistently.
    pub revision: Revision,
    /// How many keys of the range lie behind the last item.
    pub remaining: u64,
}

/// What must be true of a key for a commit to take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// The key exists and was last written at this revision.
    ModifiedAt(Revision),
}

/// The conditions of a commit; all must hold.
#[derive(Clone, Debug, Default)]
pub struct Guard(pub Vec<(Bytes, Expect)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
    },
    /// Deleting a key that is absent changes nothing.
    Delete {
        key: Bytes,
    },
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Durable. All operations carry this revision; the store's current one if nothing changed.
    Done(Revision),
    /// The first condition of the guard that did not hold, and the key as it stands now.
    Conflict { key: Bytes, current: Option<KeyValue> },
}

/// The contract; [`conformance::suite`] checks that an implementation keeps it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads at most `limit` keys of `range` (0: no limit).
    async fn range(&self, range: Range, at: At, limit: usize) -> Result<Page>;

    /// Applies all operations or none, and returns when they are durable. Readers and watchers see the commit no earlier.
    async fn commit(&self, guard: Guard, ops: Vec<Op>) -> Result<Commit>;

    /// Every change to `range` after the revision `after`, in order, none missing. [`Error::Compacted`] here or later
    /// as the stream's last item if the changes are no longer kept or the reader fell too far behind.
    fn watch(&self, range: Range, after: Revision) -> Result<Watch>;

    /// Forgets superseded versions and events at and below `below`; the latest version of each key stays.
    async fn compact(&self, below: Revision) -> Result<()>;

    /// Returns when reads and watches show `revision` (that another server over the same store may have made), or
    /// [`Error::Future`] when that does not come to pass.
    async fn reach(&self, revision: Revision) -> Result<()>;

    /// The last commit's.
    fn revision(&self) -> Revision;

    /// The one up to which history is forgotten.
    fn compacted(&self) -> Revision;

    /// Bytes of keys and values held, history included.
    fn size_bytes(&self) -> u64;
}

pub type SharedStore = Arc<dyn Store>;
