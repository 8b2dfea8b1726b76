//! The beginning of a store, its first reading, and the watch that goes on from there.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use super::{
    Inner, LAYOUT,
    client::{self, Pause},
    commit::{found, get, modified_at, put, read_mark},
    error_of,
    grpc::{CODE_OUT_OF_RANGE, Channel, Fault},
    wire,
};
use crate::{
    Error, KeyValue, Result, Revision,
    core::state::{Change, Entry, State},
    engine::Loaded,
};

/// Keys of the first page; later ones are made to have about so many bytes.
const PAGE_ITEMS: i64 = 200;
const PAGE_ITEMS_MAX: i64 = 20_000;
const PAGE_BYTES: usize = 8 << 20;

/// Why a watch came to its end.
enum End {
    Lost(Fault),
    /// What comes next is compacted.
    Behind,
}

impl Inner {
    /// Makes the store if there is none; its clock's revision.
    pub(super) async fn begin(&self, above: Revision) -> Result<Revision> {
        let keys = &self.keys;
        let until = self.deadline();
        // What etcd's revisions lack, once it is known that there is no store.
        let mut origin = None;
        loop {
            let make = wire::TxnRequest {
                compare: vec![modified_at(keys.clock.clone(), if origin.is_some() { 0 } else { -1 })],
                success: vec![
                    put(keys.clock.clone(), format!("{LAYOUT} {:016x} 0", self.writer).into()),
                    put(keys.fence.clone(), Bytes::new()),
                    put(keys.origin.clone(), origin.unwrap_or(0).to_string().into()),
                ],
                failure: vec![get(keys.clock.clone()), get(keys.fence.clone()), get(keys.origin.clone())],
            };
            let answer: wire::TxnResponse =
                self.client.repeat(client::TXN, &make, until).await.map_err(|fault| error_of(&fault))?;
            let revision = answer.header.map_or(0, |header| header.revision);
            if answer.succeeded {
                tracing::info!(prefix = self.prefix, "a new store was made in etcd");
                // Read back below, as every later server does.
                continue;
            }
            let mut found = found(answer).into_iter();
            let mut next = || found.next().flatten();
            let (Some(clock), fence, begins) = (next(), next(), next()) else {
                origin = Some(above.0.saturating_sub(u64::try_from(revision).unwrap_or(0)));
                continue;
            };
            let text = String::from_utf8_lossy(&clock.value).into_owned();
            let begins = begins.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse::<u64>().ok());
            let (Some(_), Some(fence), Some(begins)) = (read_mark(&clock.value), fence, begins) else {
                return Err(Error::Layout { prefix: self.prefix.clone(), found: text, expected: LAYOUT });
            };
            self.origin.store(begins, Ordering::Relaxed);
            self.fence.fetch_max(fence.mod_revision, Ordering::SeqCst);
            return Ok(self.ours(clock.mod_revision));
        }
    }

    /// Reads the state: `back` from where the last turn of compaction was, so that a server that has just started knows
    /// the history that a client of another one may ask for.
    pub(super) async fn load(&self, back: bool) -> Result<()> {
        let until = self.deadline();
        let keys = &self.keys;
        let look = wire::RangeRequest { key: keys.compact.clone(), ..wire::RangeRequest::default() };
        let answer: wire::RangeResponse =
            self.client.repeat(client::RANGE, &look, until).await.map_err(|fault| error_of(&fault))?;
        let now = answer.header.map_or(0, |header| header.revision);
        let kept = i64::try_from(self.shared.limits.history_commits).unwrap_or(i64::MAX);
        let turn = answer.kvs.first().and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse::<i64>().ok());
        let at = match turn {
            Some(turn) if back => turn.clamp(now.saturating_sub(kept).max(1), now.max(1)),
            _ => now,
        };
        let state = match self.read_all(at, until).await {
            Err(Fault::Status { code: CODE_OUT_OF_RANGE, .. }) if at != now => self.read_all(now, until).await,
            other => other,
        };
        let state = state.map_err(|fault| error_of(&fault))?;
        let (items, bytes) = (state.items.len(), state.items.iter().map(|item| item.value.len()).sum::<usize>());
        tracing::debug!(items, bytes, at, now, "etcd: the state was read");
        self.begin_anew(state);
        Ok(())
    }

    /// Goes on from what was read. Whatever commit was under way may be in it, without an event that says so.
    fn begin_anew(&self, state: Loaded) {
        // Before the state is visible: who settles a commit looks here once it is.
        self.resets.fetch_add(1, Ordering::SeqCst);
        self.shared.reset(State::new(state));
        self.wake();
    }

    async fn read_all(&self, revision: i64, until: Instant) -> Result<Loaded, Fault> {
        let (mut key, range_end) = self.keys.outer_range(&crate::Range::prefix(""));
        let mut loaded = Loaded { revision: self.ours(revision), items: Vec::new() };
        let mut limit = PAGE_ITEMS;
        loop {
            let request = wire::RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit,
                revision,
                count_only: false,
            };
            let page: wire::RangeResponse = self.client.repeat(client::RANGE, &request, until).await?;
            let bytes: usize = page.kvs.iter().map(|kv| kv.value.len()).sum();
            if bytes < PAGE_BYTES / 2 {
                limit = (limit * 2).min(PAGE_ITEMS_MAX);
            } else if bytes > PAGE_BYTES {
                limit = (limit / 2).max(1);
            }
            if let Some(last) = page.kvs.last() {
                let mut next = last.key.to_vec();
                next.push(0);
                key = next.into();
            }
            for kv in page.kvs {
                // Copied out of the answer, which would else be held as a whole by any of its values.
                let copied = wire::KeyValue { value: Bytes::copy_from_slice(&kv.value), ..kv };
                if let Some(key) = self.keys.inner(&copied.key) {
                    loaded.items.push(self.item(Bytes::copy_from_slice(&key), copied));
                }
            }
            if !page.more {
                return Ok(loaded);
            }
        }
    }

    /// Watches from where the core is, until that ends.
    async fn watch_on(&self, channel: &Channel) -> End {
        let Some(from) = self.theirs(self.revision()) else { return End::Behind };
        let all = &self.keys.all;
        let create = wire::WatchCreate {
            key: all.start.clone(),
            range_end: all.end.clone().unwrap_or_default(),
            start_revision: from + 1,
            fragment: true,
        };
        let request = wire::WatchRequest { ask: Some(wire::WatchAsk::Create(create)) };
        let stream = channel.stream(client::WATCH, &request, self.client.request_timeout).await;
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(fault) => return End::Lost(fault),
        };
        let lost = |why: &str| End::Lost(Fault::Lost { endpoint: channel.endpoint().to_owned(), why: why.to_owned() });
        let mut parts: Vec<wire::Event> = Vec::new();
        loop {
            let message = tokio::select! {
                message = stream.next(channel) => message,
                () = channel.retired.cancelled() => return lost("the connection is given up"),
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return lost("the watch ended"),
                Err(fault) => return End::Lost(fault),
            };
            let Ok(response) = wire::WatchResponse::decode(message) else { return lost("the watch cannot be read") };
            if response.compact_revision > 0 {
                return End::Behind;
            }
            if response.canceled {
                return lost(&response.cancel_reason);
            }
            parts.extend(response.events);
            if !response.fragment && !parts.is_empty() && !self.take_in(std::mem::take(&mut parts)) {
                return End::Behind;
            }
        }
    }

    /// Shows the events of one answer; false if they do not follow from what is here.
    fn take_in(&self, events: Vec<wire::Event>) -> bool {
        let before = self.revision();
        let mut batch =
            Batch { inner: self, overlay: HashMap::new(), entries: Vec::new(), open: Vec::new(), at: before };
        let mut made = Vec::new();
        for event in events {
            let Some(kv) = event.kv else { return false };
            let revision = self.ours(kv.mod_revision);
            if revision <= before {
                continue;
            }
            if revision < batch.at {
                return false;
            }
            batch.begin(revision);
            let deleted = event.kind == i32::from(wire::EventType::Delete);
            if let Some(key) = self.keys.inner(&kv.key) {
                if !batch.change(Bytes::copy_from_slice(&key), kv, deleted) {
                    return false;
                }
            } else if kv.key == self.keys.clock && !deleted {
                made.extend(read_mark(&kv.value).map(|(writer, number)| (writer, number, revision)));
            } else if kv.key == self.keys.fence && !deleted {
                self.fence.fetch_max(kv.mod_revision, Ordering::SeqCst);
            }
        }
        let upto = batch.at;
        batch.begin(Revision(u64::MAX));
        {
            // Before the revision is visible: who settles a commit looks here once it is.
            let mut under_way = self.under_way.lock();
            for (_, number, revision) in made.iter().filter(|(writer, ..)| *writer == self.writer) {
                if let Some(seen) = under_way.get_mut(number) {
                    *seen = Some(*revision);
                }
            }
        }
        self.shared.publish(batch.entries, upto);
        self.wake();
        self.shared.tidy();
        true
    }
}

/// Events while they become commits.
struct Batch<'a> {
    inner: &'a Inner,
    /// What the commits of this batch did.
    overlay: HashMap<Bytes, Option<KeyValue>>,
    entries: Vec<Arc<Entry>>,
    /// The commit that is still coming.
    open: Vec<Change>,
    at: Revision,
}

impl Batch<'_> {
    /// Ends the open commit if `revision` is another one's.
    fn begin(&mut self, revision: Revision) {
        if revision != self.at {
            if !self.open.is_empty() {
                self.entries.push(Arc::new(Entry::new(self.at, std::mem::take(&mut self.open))));
            }
            self.at = revision;
        }
    }

    /// Whether the change follows from what is here.
    fn change(&mut self, key: Bytes, kv: wire::KeyValue, deleted: bool) -> bool {
        let prev = match self.overlay.get(&key) {
            Some(item) => item.clone(),
            None => self.inner.shared.state.read().latest(&key),
        };
        if deleted {
            let Some(prev) = prev else { return false };
            self.overlay.insert(key.clone(), None);
            self.open.push(Change::new(key, prev.created, None, Some(prev)));
            return true;
        }
        let created = self.inner.ours(kv.create_revision);
        // A key that was there has been made before, and by the same commit as we know.
        if prev.as_ref().map_or(self.at, |prev| prev.created) != created {
            return false;
        }
        let value = Bytes::copy_from_slice(&kv.value);
        let item = KeyValue { key: key.clone(), value: value.clone(), created, modified: self.at };
        self.overlay.insert(key.clone(), Some(item));
        self.open.push(Change::new(key, created, Some(value), prev));
        true
    }
}

/// Follows the prefix for as long as the store lives.
pub(super) async fn follow(inner: Arc<Inner>) {
    let mut pause = Pause::default();
    loop {
        let before = inner.revision();
        match inner.client.channel().await {
            Ok(channel) => match inner.watch_on(&channel).await {
                End::Lost(fault) => inner.client.retire(&channel, &fault),
                End::Behind => {
                    tracing::warn!(revision = %inner.revision(), "etcd: history is missing; everything is read anew");
                    if let Err(error) = inner.load(false).await {
                        tracing::warn!(%error, "etcd: the state could not be read");
                    }
                }
            },
            Err(fault) => tracing::warn!(%fault, "etcd is not reached"),
        }
        if inner.revision() > before {
            pause = Pause::default();
        }
        pause.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{Address, Options, commit::Ticket};

    fn inner() -> Arc<Inner> {
        let address = Address { endpoints: vec!["127.0.0.1:0".to_owned()], prefix: "/test".to_owned() };
        Arc::new(Inner::new(&Options::new(address, None)).unwrap().0)
    }

    fn event(key: Bytes, value: Bytes, revision: i64) -> wire::Event {
        let kv = wire::KeyValue { key, value, create_revision: revision, mod_revision: revision };
        wire::Event { kind: wire::EventType::Put.into(), kv: Some(kv) }
    }

    #[test]
    fn whoever_sees_a_revision_sees_which_commit_it_was() {
        let inner = inner();
        for revision in 1..=500 {
            let ticket = Ticket::new(&inner);
            let data = Bytes::from(format!("/test/data/{revision}"));
            let events = vec![
                event(inner.keys.clock.clone(), ticket.mark(), revision),
                event(data, Bytes::from_static(b"x"), revision),
            ];
            let other = Arc::clone(&inner);
            let taking = std::thread::spawn(move || assert!(other.take_in(events)));
            while inner.revision() < inner.ours(revision) {
                std::thread::yield_now();
            }
            let seen = ticket.seen();
            taking.join().unwrap();
            assert_eq!(seen, Some(inner.ours(revision)), "as if it had not been made");
        }
    }

    #[test]
    fn a_commit_that_was_under_way_while_everything_was_read_is_not_called_undone() {
        let inner = inner();
        let ticket = Ticket::new(&inner);
        assert!(!ticket.missed());
        inner.begin_anew(Loaded { revision: Revision(7), items: Vec::new() });
        assert!(ticket.missed());
        assert!(!Ticket::new(&inner).missed(), "what begins afterwards is seen by the watch");
    }
}
