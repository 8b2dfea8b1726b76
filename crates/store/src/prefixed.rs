use std::{
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::Stream;

use crate::{
    At, Commit, Event, Guard, KeyValue, Op, Page, Range, Result, Revision, SharedStore, Store, Watch, WatchItem, watch,
};

/// The keys of a store under a prefix, as a store of their own; many can share one durable file.
///
/// The clock is the whole store's: revisions also advance by what others commit, `compact` forgets their history as well,
/// and `size_bytes` counts everything. Prefixes of different views must not be prefixes of each other.
#[derive(Clone)]
pub struct Prefixed {
    store: SharedStore,
    prefix: Bytes,
}

impl Prefixed {
    pub fn new(store: SharedStore, prefix: impl Into<Bytes>) -> Self {
        Self { store, prefix: prefix.into() }
    }

    fn outer(&self, key: &Bytes) -> Bytes {
        let mut outer = BytesMut::with_capacity(self.prefix.len() + key.len());
        outer.extend_from_slice(&self.prefix);
        outer.extend_from_slice(key);
        outer.freeze()
    }

    fn outer_range(&self, range: &Range) -> Range {
        let end = match &range.end {
            Some(end) => Some(self.outer(end)),
            None => Range::prefix(self.prefix.clone()).end,
        };
        Range { start: self.outer(&range.start), end }
    }
}

/// What lies behind the prefix, without a copy.
fn inner(prefix: usize, key: &Bytes) -> Bytes {
    key.slice(prefix.min(key.len())..)
}

fn inner_item(prefix: usize, mut item: KeyValue) -> KeyValue {
    item.key = inner(prefix, &item.key);
    item
}

#[async_trait]
impl Store for Prefixed {
    async fn range(&self, range: Range, at: At, limit: usize) -> Result<Page> {
        let mut page = self.store.range(self.outer_range(&range), at, limit).await?;
        for item in &mut page.items {
            item.key = inner(self.prefix.len(), &item.key);
        }
        Ok(page)
    }

    async fn commit(&self, guard: Guard, ops: Vec<Op>) -> Result<Commit> {
        let guard = Guard(guard.0.iter().map(|(key, expect)| (self.outer(key), *expect)).collect());
        let ops = ops
            .into_iter()
            .map(|op| match op {
                Op::Put { key, value } => Op::Put { key: self.outer(&key), value },
                Op::Delete { key } => Op::Delete { key: self.outer(&key) },
            })
            .collect();
        let length = self.prefix.len();
        Ok(match self.store.commit(guard, ops).await? {
            Commit::Conflict { key, current } => {
                Commit::Conflict { key: inner(length, &key), current: current.map(|item| inner_item(length, item)) }
            }
            done @ Commit::Done(_) => done,
        })
    }

    fn watch(&self, range: Range, after: Revision) -> Result<Watch> {
        let watch = self.store.watch(self.outer_range(&range), after)?;
        Ok(Watch::new(Reader { watch, prefix: self.prefix.len() }))
    }

    async fn compact(&self, below: Revision) -> Result<()> {
        self.store.compact(below).await
    }

    async fn reach(&self, revision: Revision) -> Result<()> {
        self.store.reach(revision).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

struct Reader {
    watch: Watch,
    prefix: usize,
}

impl watch::Source for Reader {
    fn progress(&self) {
        self.watch.progress();
    }
}

impl Stream for Reader {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        let prefix = self.prefix;
        Pin::new(&mut self.watch).poll_next(cx).map(|item| {
            item.map(|item| match item {
                WatchItem::Event(Event::Put { item, prev }) => WatchItem::Event(Event::Put {
                    item: inner_item(prefix, item),
                    prev: prev.map(|prev| inner_item(prefix, prev)),
                }),
                WatchItem::Event(Event::Delete { revision, prev }) => {
                    WatchItem::Event(Event::Delete { revision, prev: inner_item(prefix, prev) })
                }
                other => other,
            })
        })
    }
}
