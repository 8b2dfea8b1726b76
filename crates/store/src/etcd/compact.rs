//! Compaction: asked for, or by one of the servers at regular intervals.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Inner, client,
    commit::{found, get, modified_at, put},
    error_of,
    grpc::{CODE_OUT_OF_RANGE, Fault},
    wire,
};
use crate::{Error, Result, Revision};

impl Inner {
    pub(super) async fn compact(&self, below: Revision) -> Result<()> {
        let current = self.current().await?;
        if below > current {
            return Err(Error::Future { requested: below, current });
        }
        if let Some(revision) = self.theirs(below).filter(|revision| *revision > 0) {
            self.compact_etcd(revision).await?;
        }
        self.shared.state.write().compact(below)
    }

    async fn compact_etcd(&self, revision: i64) -> Result<()> {
        let request = wire::CompactionRequest { revision };
        let answer = self.client.repeat::<wire::CompactionResponse>(client::COMPACT, &request, self.deadline()).await;
        match answer {
            Ok(_) => Ok(()),
            Err(Fault::Status { code: CODE_OUT_OF_RANGE, message }) if message.contains("compacted") => Ok(()),
            Err(fault) => Err(error_of(&fault)),
        }
    }

    /// One turn: the server whose turn comes first compacts to where the last turn was, and says where this one is. Gives
    /// the revision of the agreement, which the next turn depends on.
    async fn take_turn(&self, last: i64) -> Result<i64> {
        let key = &self.keys.compact;
        let now = self.theirs(self.current().await?).unwrap_or(0);
        let request = wire::TxnRequest {
            compare: vec![modified_at(key.clone(), last)],
            success: vec![get(key.clone()), put(key.clone(), Bytes::from(now.to_string()))],
            failure: vec![get(key.clone())],
        };
        // Not repeated: whether a turn was taken that we do not know of makes no difference.
        let answer = self.client.call::<wire::TxnResponse>(client::TXN, &request, self.client.request_timeout).await;
        let answer = answer.map_err(|fault| error_of(&fault))?;
        let (ours, at) = (answer.succeeded, answer.header.map_or(0, |header| header.revision));
        let before = found(answer).into_iter().flatten().next();
        if !ours {
            return Ok(before.map_or(0, |kv| kv.mod_revision));
        }
        let below = before.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse::<i64>().ok());
        if let Some(below) = below.filter(|below| *below > 0) {
            self.compact_etcd(below).await?;
            tracing::debug!(below, "etcd: compacted");
        }
        Ok(at)
    }
}

/// Takes a turn at each interval.
pub(super) async fn regularly(inner: Arc<Inner>, interval: Duration) {
    // What stands before the first turn is nobody's turn yet.
    let mut last = -1;
    loop {
        match inner.take_turn(last).await {
            Ok(at) => last = at,
            Err(error) => tracing::warn!(%error, "etcd was not compacted"),
        }
        tokio::time::sleep(interval).await;
    }
}
