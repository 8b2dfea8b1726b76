use std::{path::PathBuf, sync::Arc};

use crate::{Revision, engine};

/// Why the store did not do what was asked. Nothing was changed unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("revision {requested} is no longer kept: history begins after {compacted}; read the latest state again")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} has not been made yet: the last commit is {current}")]
    Future { requested: Revision, current: Revision },
    /// `what` is the thing measured ("key", "value", "operations of a commit", "conditions of a guard").
    #[error("{what}: {size} is over the limit of {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("key {key:?} occurs twice in one commit")]
    DuplicateKey { key: String },
    #[error(
        "the store is full: {size_bytes} bytes with this commit, the limit is {limit_bytes}; delete something first"
    )]
    Full { size_bytes: u64, limit_bytes: u64 },
    #[error("{limit} watchers are open, which is the limit")]
    TooManyWatchers { limit: usize },
    #[error("open the store in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Arc<engine::Error>,
    },
    #[error("make a commit durable")]
    Append {
        #[source]
        source: Arc<engine::Error>,
    },
    #[error("free the space of old versions")]
    Compact {
        #[source]
        source: Arc<engine::Error>,
    },
    /// The engine failed, and could not say what it holds: whether the last commits are durable shows when the store is
    /// opened again.
    #[error("the store takes no more commits since its engine failed; open it again")]
    Broken {
        #[source]
        source: Arc<engine::Error>,
    },
    /// Nothing was changed.
    #[error("etcd does not answer: {why}")]
    Unavailable { why: String },
    /// The one error after which something may have been changed.
    #[error("it is not known whether the commit was made, for etcd does not answer any more ({why}): read and see")]
    Unknown { why: String },
    #[error("{message}")]
    Refused { message: String },
    #[error("what lies under {prefix} in etcd has layout {found:?}, this program reads {expected:?}")]
    Layout { prefix: String, found: String, expected: &'static str },
    #[error(transparent)]
    Options(#[from] crate::etcd::Invalid),
    /// A layer above the engine could not make anything of what lies there.
    #[error("the value of {key:?} cannot be read: {why}")]
    Unreadable { key: String, why: String },
    #[error("the store was closed")]
    Closed,
}
