//! The one place that decides commits. It plans a batch (guards against the latest state and what the batch did before),
//! lets the engine make all of it durable at once, then shows it to readers and watchers, then answers.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Shared,
    state::{Change, Entry, State},
};
use crate::{
    Commit, Error, Expect, Guard, KeyValue, Op, Result, Revision,
    engine::{self, Engine},
};

/// What a caller wants of the writer, with the way back.
pub(super) enum Request {
    Commit { guard: Guard, ops: Vec<Op>, reply: oneshot::Sender<Result<Commit>> },
    Compact { below: Revision, reply: oneshot::Sender<Result<()>> },
}

pub(super) struct Writer {
    pub engine: Box<dyn Engine>,
    pub shared: Arc<Shared>,
    /// Set when the engine failed and could not say what it holds.
    pub broken: Option<Arc<engine::Error>>,
}

/// A batch while it is made: what the commits before this one did, not yet durable.
struct Plan<'a> {
    state: &'a State,
    limit_bytes: u64,
    overlay: HashMap<Bytes, Option<KeyValue>>,
    entries: Vec<Arc<Entry>>,
    revision: Revision,
    size_bytes: u64,
}

impl Plan<'_> {
    fn latest(&self, key: &Bytes) -> Option<KeyValue> {
        if !self.overlay.is_empty()
            && let Some(item) = self.overlay.get(key)
        {
            return item.clone();
        }
        self.state.latest(key)
    }

    fn modified(&self, key: &Bytes) -> Option<Revision> {
        match self.overlay.get(key) {
            Some(item) => item.as_ref().map(|item| item.modified),
            None => self.state.modified(key),
        }
    }

    fn commit(&mut self, guard: &Guard, ops: Vec<Op>) -> Result<Commit> {
        for (key, expect) in &guard.0 {
            let expected = match expect {
                Expect::Absent => None,
                Expect::ModifiedAt(revision) => Some(*revision),
            };
            if self.modified(key) != expected {
                return Ok(Commit::Conflict { key: key.clone(), current: self.latest(key) });
            }
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::with_capacity(ops.len());
        let mut added_bytes = 0;
        for op in ops {
            match op {
                Op::Put { key, value } => {
                    let prev = self.latest(&key);
                    let created = prev.as_ref().map_or(revision, |item| item.created);
                    let replaced = prev.as_ref().map_or(0, |item| item.key.len() + item.value.len());
                    let written = key.len() + value.len();
                    added_bytes += written.saturating_sub(replaced) as u64;
                    changes.push(Change::new(key, created, Some(value), prev));
                }
                Op::Delete { key } => {
                    if let Some(prev) = self.latest(&key) {
                        changes.push(Change::new(key, prev.created, None, Some(prev)));
                    }
                }
            }
        }
        let size_bytes = self.size_bytes + added_bytes;
        if added_bytes > 0 && size_bytes > self.limit_bytes {
            return Err(Error::Full { size_bytes, limit_bytes: self.limit_bytes });
        }
        if changes.is_empty() {
            return Ok(Commit::Done(self.revision));
        }
        self.size_bytes = size_bytes;
        self.revision = revision;
        for change in &changes {
            let item = change.value.get().map(|value| KeyValue {
                key: change.key.clone(),
                value,
                created: change.created,
                modified: revision,
            });
            self.overlay.insert(change.key.clone(), item);
        }
        self.entries.push(Arc::new(Entry::new(revision, changes)));
        Ok(Commit::Done(revision))
    }
}

impl Writer {
    /// Decides one commit at once; for engines that do not wait for a disk.
    pub fn commit(&mut self, guard: &Guard, ops: Vec<Op>) -> Result<Commit> {
        let (entries, mut outcomes) = self.plan(vec![(guard, ops)]);
        self.append(entries)?;
        self.shared.tidy();
        outcomes.pop().unwrap_or(Err(Error::Closed))
    }

    fn plan(&self, commits: Vec<(&Guard, Vec<Op>)>) -> (Vec<Arc<Entry>>, Vec<Result<Commit>>) {
        let state = self.shared.state.read();
        let mut plan = Plan {
            limit_bytes: self.shared.limits.size_bytes,
            overlay: HashMap::new(),
            entries: Vec::with_capacity(commits.len()),
            revision: state.revision,
            size_bytes: state.size_bytes,
            state: &state,
        };
        let outcomes = commits.into_iter().map(|(guard, ops)| plan.commit(guard, ops)).collect();
        (plan.entries, outcomes)
    }

    /// Makes the entries durable, then visible.
    fn append(&mut self, entries: Vec<Arc<Entry>>) -> Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        if let Some(source) = &self.broken {
            return Err(Error::Broken { source: source.clone() });
        }
        let upto = last.revision;
        let records: Vec<_> = entries.iter().map(|entry| entry.record()).collect();
        if let Err(error) = self.engine.append(&records) {
            let source = Arc::new(error);
            match self.engine.revision() {
                // The engine did keep them: what is durable must be visible.
                Ok(held) if held == last.revision => {
                    tracing::warn!(error = %source, "the engine kept a batch although it failed");
                }
                Ok(held) if held.0 + 1 == first.revision.0 => return Err(Error::Append { source }),
                _ => {
                    self.broken = Some(source.clone());
                    return Err(Error::Broken { source });
                }
            }
        }
        self.shared.publish(entries, upto);
        Ok(())
    }

    /// The engine's own thread: commits that arrive while a sync is under way are paid by the next one.
    pub fn run(mut self, mut requests: tokio::sync::mpsc::Receiver<Request>) {
        let limit = self.shared.limits.batch_commits.max(1);
        let mut batch = Vec::new();
        while requests.blocking_recv_many(&mut batch, limit) > 0 {
            // Where all processors are busy, those who would commit next have their turn first, and share the sync.
            std::thread::yield_now();
            batch.extend(std::iter::from_fn(|| requests.try_recv().ok()).take(limit - batch.len()));
            let mut commits = Vec::new();
            let mut bytes = 0;
            for request in batch.drain(..) {
                match request {
                    Request::Commit { guard, ops, reply } => {
                        bytes += ops.iter().map(size_bytes).sum::<u64>();
                        commits.push((guard, ops, reply));
                        if bytes >= self.shared.limits.batch_bytes {
                            bytes = 0;
                            self.settle(std::mem::take(&mut commits));
                        }
                    }
                    Request::Compact { below, reply } => {
                        self.settle(std::mem::take(&mut commits));
                        // A caller that has gone needs no answer.
                        let _ = reply.send(self.compact(below));
                    }
                }
            }
            self.settle(commits);
        }
    }

    fn settle(&mut self, commits: Vec<(Guard, Vec<Op>, oneshot::Sender<Result<Commit>>)>) {
        if commits.is_empty() {
            return;
        }
        let mut guards = Vec::with_capacity(commits.len());
        let mut ops = Vec::with_capacity(commits.len());
        let mut replies = Vec::with_capacity(commits.len());
        for (guard, list, reply) in commits {
            guards.push(guard);
            ops.push(list);
            replies.push(reply);
        }
        let (entries, outcomes) = self.plan(guards.iter().zip(ops).collect());
        let appended = self.append(entries);
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A conflict may have been seen in a commit that then failed, so it fails as well.
            let answer = match (&appended, outcome) {
                (Err(error), Ok(_)) => Err(error.clone()),
                (_, outcome) => outcome,
            };
            let _ = reply.send(answer);
        }
        self.shared.tidy();
    }

    pub fn compact(&mut self, below: Revision) -> Result<()> {
        self.shared.state.write().compact(below)?;
        self.engine.compact().map_err(|error| Error::Compact { source: Arc::new(error) })
    }
}

pub(super) fn size_bytes(op: &Op) -> u64 {
    match op {
        Op::Put { key, value } => (key.len() + value.len()) as u64,
        Op::Delete { key } => key.len() as u64,
    }
}
