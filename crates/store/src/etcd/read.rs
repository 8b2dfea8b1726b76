//! Reads: from the core when it is as far as the last commit anywhere, from etcd for history that the core does not have.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Inner, REACH, Reader, client, error_of,
    grpc::{CODE_OUT_OF_RANGE, Fault},
    wire,
};
use crate::{At, Error, Page, Range, Result, Revision};

/// Reads that one question to etcd answers at most.
const READERS_MAX: usize = 4096;

impl Inner {
    pub(super) async fn range(&self, range: Range, at: At, limit: usize) -> Result<Page> {
        match at {
            At::Latest => {
                self.current().await?;
                self.shared.range(&range, at, limit)
            }
            At::Exact(revision) => {
                self.reach(revision).await?;
                let kept = self.shared.range(&range, at, limit);
                match kept {
                    Err(Error::Compacted { requested, compacted }) => {
                        self.past(&range, requested, compacted, limit).await
                    }
                    kept => kept,
                }
            }
        }
    }

    /// Returns when the core shows everything that was committed, by whomever, before this was called.
    pub(super) async fn current(&self) -> Result<Revision> {
        let (reply, answer) = oneshot::channel();
        self.readers.send(reply).map_err(|_| Error::Closed)?;
        let revision = answer.await.map_err(|_| Error::Closed)??;
        let until = self.deadline();
        while Instant::now() < until {
            if tokio::time::timeout(self.client.request_timeout, self.visible(revision)).await.is_ok() {
                return Ok(revision);
            }
            self.client.move_on("the watch does not come to the last commit").await;
        }
        Err(Error::Unavailable { why: "the watch does not come to the last commit".to_owned() })
    }

    pub(super) async fn reach(&self, revision: Revision) -> Result<()> {
        match tokio::time::timeout(REACH, self.visible(revision)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::Future { requested: revision, current: self.revision() }),
        }
    }

    /// What etcd still has of a revision that the core has forgotten, or never had.
    async fn past(&self, range: &Range, at: Revision, compacted: Revision, limit: usize) -> Result<Page> {
        let gone = || Error::Compacted { requested: at, compacted };
        let revision = self.theirs(at).filter(|revision| *revision > 0).ok_or_else(gone)?;
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(Page { revision: at, ..Page::default() });
        }
        let (key, range_end) = self.keys.outer_range(range);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let request = wire::RangeRequest { key, range_end, limit, revision, count_only: false };
        let answer = self.client.repeat::<wire::RangeResponse>(client::RANGE, &request, self.deadline()).await;
        match answer {
            Ok(answer) => {
                let count = u64::try_from(answer.count).unwrap_or(0);
                let items: Vec<_> =
                    answer.kvs.into_iter().filter_map(|kv| Some(self.item(self.keys.inner(&kv.key)?, kv))).collect();
                let remaining = count.saturating_sub(items.len() as u64);
                Ok(Page { items, revision: at, remaining })
            }
            Err(Fault::Status { code: CODE_OUT_OF_RANGE, message }) if message.contains("compacted") => Err(gone()),
            Err(fault) => Err(error_of(&fault)),
        }
    }

    /// The clock's revision: that of the last commit, by whomever.
    pub(super) async fn clock(&self) -> Result<Revision> {
        let request = wire::RangeRequest { key: self.keys.clock.clone(), ..wire::RangeRequest::default() };
        let (until, timeout) = (self.deadline(), self.commit_timeout);
        let answer = self.client.repeat_within::<wire::RangeResponse>(client::RANGE, &request, until, timeout).await;
        let answer = answer.map_err(|fault| error_of(&fault))?;
        match answer.kvs.first() {
            Some(clock) => Ok(self.ours(clock.mod_revision)),
            None => Err(Error::Refused {
                message: format!("the store under {} in etcd was removed: start again", self.prefix),
            }),
        }
    }
}

/// Asks for the clock once for all who wait: who comes while the question is under way waits for the next one.
pub(super) async fn answer(inner: Arc<Inner>, mut queue: mpsc::UnboundedReceiver<Reader>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, READERS_MAX).await > 0 {
        let clock = inner.clock().await;
        for reply in waiting.drain(..) {
            // Who has gone needs no answer.
            let _ = reply.send(clock.clone());
        }
    }
}
