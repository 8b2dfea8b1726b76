//! Who watches what. A commit costs a watcher nothing unless it touches the watcher's range (but for the few ranges that
//! are neither a key nor a prefix, which are compared one by one).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;

use super::{Shared, state::Entry};
use crate::{Error, Range, Result, Revision, WatchItem, watch};

#[derive(Debug)]
enum Queued {
    Commit(Arc<Entry>),
    Bookmark(Revision),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Fell behind; `Compacted` is still to be delivered.
    Lagged,
    Closed,
}

#[derive(Debug)]
struct Queue {
    items: VecDeque<Queued>,
    /// How many items may wait: what was replayed at first does not count against the reader.
    limit: usize,
    bytes: u64,
    limit_bytes: u64,
    end: Option<End>,
    waker: Option<Waker>,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    range: Range,
    queue: Mutex<Queue>,
}

impl Watcher {
    /// Queues a commit; the waker, if any, is for the caller to wake once it holds no lock.
    fn push(&self, entry: &Arc<Entry>) -> Option<Waker> {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return None;
        }
        // A commit that touches the range with several keys arrives several times.
        if matches!(queue.items.back(), Some(Queued::Commit(last)) if last.revision == entry.revision) {
            return None;
        }
        if queue.items.len() >= queue.limit || queue.bytes + entry.bytes > queue.limit_bytes {
            queue.items = VecDeque::new();
            queue.bytes = 0;
            queue.end = Some(End::Lagged);
        } else {
            queue.bytes += entry.bytes;
            queue.items.push_back(Queued::Commit(entry.clone()));
        }
        queue.waker.take()
    }

    fn bookmark(&self, revision: Revision) -> Option<Waker> {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return None;
        }
        if matches!(queue.items.back(), Some(Queued::Bookmark(_))) {
            queue.items.pop_back();
        }
        queue.items.push_back(Queued::Bookmark(revision));
        queue.waker.take()
    }

    fn end(&self, end: End) -> Option<Waker> {
        let mut queue = self.queue.lock();
        queue.end = queue.end.or(Some(end));
        queue.waker.take()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Watchers of one key or of a prefix, by that key or prefix.
    by_prefix: HashMap<Bytes, Vec<Arc<Watcher>>>,
    /// How many different entries `by_prefix` has of each length.
    lengths: BTreeMap<usize, usize>,
    others: Vec<Arc<Watcher>>,
    count: usize,
}

fn is_prefix_like(range: &Range) -> bool {
    range.end == Range::prefix(range.start.clone()).end || range.end == Range::key(range.start.clone()).end
}

impl Hub {
    fn insert(&mut self, watcher: Arc<Watcher>) {
        self.count += 1;
        if is_prefix_like(&watcher.range) {
            let list = self.by_prefix.entry(watcher.range.start.clone()).or_default();
            if list.is_empty() {
                *self.lengths.entry(watcher.range.start.len()).or_default() += 1;
            }
            list.push(watcher);
        } else {
            self.others.push(watcher);
        }
    }

    fn remove(&mut self, watcher: &Arc<Watcher>) {
        let start = &watcher.range.start;
        let list = match self.by_prefix.get_mut(start) {
            Some(list) if is_prefix_like(&watcher.range) => list,
            _ => &mut self.others,
        };
        let Some(position) = list.iter().position(|other| Arc::ptr_eq(other, watcher)) else { return };
        list.swap_remove(position);
        self.count -= 1;
        if self.by_prefix.get(start).is_some_and(Vec::is_empty) {
            self.by_prefix.remove(start);
            if let Some(count) = self.lengths.get_mut(&start.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&start.len());
                }
            }
        }
    }

    /// Hands a commit to the watchers it concerns, and collects those to wake.
    pub fn publish(&self, entry: &Arc<Entry>, wakers: &mut Vec<Waker>) {
        if self.count == 0 {
            return;
        }
        for change in &entry.changes {
            for &length in self.lengths.keys() {
                let Some(prefix) = change.key.get(..length) else { break };
                for watcher in self.by_prefix.get(prefix).into_iter().flatten() {
                    if watcher.range.contains(&change.key) {
                        wakers.extend(watcher.push(entry));
                    }
                }
            }
            for watcher in &self.others {
                if watcher.range.contains(&change.key) {
                    wakers.extend(watcher.push(entry));
                }
            }
        }
    }

    /// Ends every watch.
    pub fn close(&mut self) -> Vec<Waker> {
        let hub = std::mem::take(self);
        hub.by_prefix.into_values().flatten().chain(hub.others).filter_map(|watcher| watcher.end(End::Closed)).collect()
    }

    /// Tells every reader, behind what it has not read yet, that events were lost.
    pub fn lose(&self) -> Vec<Waker> {
        let all = self.by_prefix.values().flatten().chain(&self.others);
        all.filter_map(|watcher| watcher.end(End::Lagged)).collect()
    }
}

/// One reader's stream.
pub(crate) struct Reader {
    watcher: Arc<Watcher>,
    shared: Weak<Shared>,
    current: Option<(Arc<Entry>, usize)>,
}

/// Opens a watch; the state is held so that no commit falls between the replay and the first live one.
pub(crate) fn open(shared: &Arc<Shared>, range: Range, after: Revision) -> Result<Reader> {
    let limits = &shared.limits;
    let state = shared.state.read();
    let replay = state.replay(&range, after)?;
    let mut hub = shared.hub.lock();
    if hub.count >= limits.watchers {
        return Err(Error::TooManyWatchers { limit: limits.watchers });
    }
    let bytes: u64 = replay.iter().map(|entry| entry.bytes).sum();
    let queue = Queue {
        limit: replay.len() + limits.watch_backlog,
        limit_bytes: bytes + limits.watch_backlog_bytes,
        bytes,
        items: replay.into_iter().map(Queued::Commit).collect(),
        end: None,
        waker: None,
    };
    let watcher = Arc::new(Watcher { range, queue: Mutex::new(queue) });
    hub.insert(watcher.clone());
    Ok(Reader { watcher, shared: Arc::downgrade(shared), current: None })
}

impl watch::Source for Reader {
    fn progress(&self) {
        if let Some(shared) = self.shared.upgrade() {
            // Held while queueing: a commit that is visible is already in the queue, and none can overtake the bookmark.
            let state = shared.state.read();
            let waker = self.watcher.bookmark(state.revision);
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Stream for Reader {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        loop {
            if let Some((entry, position)) = self.current.take()
                && let Some(change) = entry.changes.get(position)
            {
                let event = if self.watcher.range.contains(&change.key) { entry.event(change) } else { None };
                self.current = Some((entry, position + 1));
                match event {
                    Some(event) => return Poll::Ready(Some(WatchItem::Event(event))),
                    None => continue,
                }
            }
            let watcher = self.watcher.clone();
            let mut queue = watcher.queue.lock();
            match queue.items.pop_front() {
                Some(Queued::Commit(entry)) => {
                    queue.bytes -= entry.bytes;
                    self.current = Some((entry, 0));
                }
                Some(Queued::Bookmark(revision)) => return Poll::Ready(Some(WatchItem::Bookmark(revision))),
                None => match queue.end {
                    Some(End::Lagged) => {
                        queue.end = Some(End::Closed);
                        return Poll::Ready(Some(WatchItem::Compacted));
                    }
                    Some(End::Closed) => return Poll::Ready(None),
                    None => {
                        queue.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                },
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.hub.lock().remove(&self.watcher);
        }
    }
}
