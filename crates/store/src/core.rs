//! The core behind every embedded store: versions, events, watchers and the order of commits, over an engine.

mod held;
pub(crate) mod hub;
pub(crate) mod state;
mod writer;

use std::{collections::HashSet, path::Path, sync::Arc, task::Waker, thread};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use self::{
    hub::Hub,
    state::{Entry, Settled, State},
    writer::{Request, Writer},
};
use crate::{
    At, Commit, Error, Guard, Op, Page, Range, Result, Revision, Store, Watch,
    engine::{self, Engine},
};

/// What one store holds and accepts at most.
#[derive(Clone, Debug)]
pub struct Limits {
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Operations of one commit, and conditions of its guard.
    pub commit_ops: usize,
    /// Keys and values, history included; deletions are always accepted.
    pub size_bytes: u64,
    /// Commits that can still be replayed to a watcher and read at their revision.
    pub history_commits: usize,
    /// Bytes that those commits take: keys, values and previous values.
    pub history_bytes: u64,
    /// The last commits, whose values are kept as they are; older ones are packed.
    pub new_commits: usize,
    /// Bytes of those commits.
    pub new_bytes: u64,
    pub watchers: usize,
    /// Commits that may wait for one watcher's reader.
    pub watch_backlog: usize,
    /// Bytes of those commits (they are shared between watchers, and with the history).
    pub watch_backlog_bytes: u64,
    /// Commits that may wait for the engine; further callers wait for a place.
    pub pending_commits: usize,
    /// Commits that one sync of the engine pays for.
    pub batch_commits: usize,
    pub batch_bytes: u64,
    /// The size of the engine's file.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 2 << 10,
            value_bytes: 4 << 20,
            commit_ops: 512,
            size_bytes: 8 << 30,
            history_commits: 10_000,
            history_bytes: 64 << 20,
            new_commits: 1_024,
            new_bytes: 4 << 20,
            watchers: 20_000,
            watch_backlog: 4_096,
            watch_backlog_bytes: 32 << 20,
            pending_commits: 4_096,
            batch_commits: 1_024,
            batch_bytes: 16 << 20,
            file_bytes: 64 << 30,
        }
    }
}

impl Limits {
    /// Whether a commit is within these limits.
    pub(crate) fn check(&self, guard: &Guard, ops: &[Op]) -> Result<()> {
        let within = |what, size: usize, limit: usize| {
            if size > limit {
                return Err(Error::TooLarge { what, size: size as u64, limit: limit as u64 });
            }
            Ok(())
        };
        within("conditions of a guard", guard.0.len(), self.commit_ops)?;
        within("operations of a commit", ops.len(), self.commit_ops)?;
        let mut seen = HashSet::new();
        for op in ops {
            let key = match op {
                Op::Put { key, value } => {
                    within("bytes of a value", value.len(), self.value_bytes)?;
                    key
                }
                Op::Delete { key } => key,
            };
            within("bytes of a key", key.len(), self.key_bytes)?;
            if ops.len() > 1 && !seen.insert(key) {
                return Err(Error::DuplicateKey { key: String::from_utf8_lossy(key).into_owned() });
            }
        }
        Ok(())
    }
}

/// What readers, watchers and the writer share. Locks are taken in the order of the fields.
pub(crate) struct Shared {
    pub limits: Limits,
    pub state: RwLock<State>,
    pub hub: Mutex<Hub>,
}

impl Shared {
    pub fn new(state: State, limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: RwLock::new(state), hub: Mutex::default() })
    }

    /// Begins anew with another state, whose history is not that of the old one: every reader is told.
    pub fn reset(&self, new: State) {
        let wakers = {
            let mut state = self.state.write();
            *state = new;
            self.hub.lock().lose()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends every watch.
    pub fn close(&self) {
        let wakers = self.hub.lock().close();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A part of a range; it is unpacked without holding up writers.
    pub fn range(&self, range: &Range, at: At, limit: usize) -> Result<Page> {
        let found = self.state.read().find(range, at, limit)?;
        Ok(found.into_page())
    }

    /// Shows commits, in order; nothing else that is kept here was changed up to `upto`. [`Self::tidy`] follows once nobody waits.
    pub fn publish(&self, entries: Vec<Arc<Entry>>, upto: Revision) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.write();
            let hub = self.hub.lock();
            for entry in entries {
                hub.publish(&entry, &mut wakers);
                state.apply(entry);
            }
            state.advance(upto);
            state.trim(self.limits.history_commits, self.limits.history_bytes);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Packs what is no longer new; for whoever publishes.
    pub fn tidy(&self) {
        let due = self.state.read().to_settle(&self.limits);
        if !due.is_empty() {
            let settled = due.iter().map(|entry| Settled::new(entry)).collect();
            self.state.write().settle(settled);
        }
    }
}

enum Writing {
    /// Decided in the caller: nothing to wait for.
    Inline(Mutex<Writer>),
    /// Decided on the engine's thread.
    Thread {
        requests: mpsc::Sender<Request>,
        thread: thread::JoinHandle<()>,
    },
    Closed,
}

/// A store inside this process. Dropping it ends its watches and waits for the commits that were handed in.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Writing,
}

impl Embedded {
    /// A store that lives as long as the value. It has no thread, and costs a few hundred bytes while empty.
    pub fn memory(limits: Limits) -> Self {
        let shared = Shared::new(State::default(), limits);
        let writer = Writer { engine: Box::<engine::Memory>::default(), shared: shared.clone(), broken: None };
        Self { shared, writer: Writing::Inline(Mutex::new(writer)) }
    }

    /// A durable store in one SQLite file, which is made if it is absent. Blocks while it reads the file.
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let fail = |error| Error::Open { path: path.to_owned(), source: Arc::new(error) };
        let options = engine::Options { file_bytes: limits.file_bytes };
        let engine = engine::Sqlite::open(path, options).map_err(fail)?;
        Self::over(engine, limits).map_err(fail)
    }

    /// A durable store over any engine, which gets a thread of its own.
    pub fn over(mut engine: impl Engine, limits: Limits) -> Result<Self, engine::Error> {
        let state = State::new(engine.load()?);
        let (requests, queue) = mpsc::channel(limits.pending_commits.max(1));
        let shared = Shared::new(state, limits);
        let writer = Writer { engine: Box::new(engine), shared: shared.clone(), broken: None };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(queue))?;
        Ok(Self { shared, writer: Writing::Thread { requests, thread } })
    }
}

#[async_trait]
impl Store for Embedded {
    async fn range(&self, range: Range, at: At, limit: usize) -> Result<Page> {
        self.shared.range(&range, at, limit)
    }

    async fn commit(&self, guard: Guard, ops: Vec<Op>) -> Result<Commit> {
        self.shared.limits.check(&guard, &ops)?;
        match &self.writer {
            Writing::Inline(writer) => writer.lock().commit(&guard, ops),
            Writing::Thread { requests, .. } => {
                let (reply, answer) = oneshot::channel();
                requests.send(Request::Commit { guard, ops, reply }).await.map_err(|_| Error::Closed)?;
                answer.await.map_err(|_| Error::Closed)?
            }
            Writing::Closed => Err(Error::Closed),
        }
    }

    fn watch(&self, range: Range, after: Revision) -> Result<Watch> {
        hub::open(&self.shared, range, after).map(Watch::new)
    }

    async fn compact(&self, below: Revision) -> Result<()> {
        match &self.writer {
            Writing::Inline(writer) => writer.lock().compact(below),
            Writing::Thread { requests, .. } => {
                let (reply, answer) = oneshot::channel();
                requests.send(Request::Compact { below, reply }).await.map_err(|_| Error::Closed)?;
                answer.await.map_err(|_| Error::Closed)?
            }
            Writing::Closed => Err(Error::Closed),
        }
    }

    async fn reach(&self, revision: Revision) -> Result<()> {
        let current = self.revision();
        if revision > current {
            return Err(Error::Future { requested: revision, current });
        }
        Ok(())
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().revision
    }

    fn compacted(&self) -> Revision {
        self.shared.state.read().compacted
    }

    fn size_bytes(&self) -> u64 {
        self.shared.state.read().size_bytes
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Writing::Thread { requests, thread } = std::mem::replace(&mut self.writer, Writing::Closed) {
            drop(requests);
            if thread.join().is_err() {
                tracing::error!("the store's thread panicked");
            }
        }
        self.shared.close();
    }
}
