//! Commits as transactions, and what becomes of one whose answer is lost.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;

use super::{
    Inner, LAYOUT, REACH,
    client::{self, Pause},
    error_of,
    grpc::{CODE_INVALID_ARGUMENT, CODE_RESOURCE_EXHAUSTED, Channel, Fault},
    wire,
};
use crate::{Commit, Error, Expect, Guard, KeyValue, Op, Result, Revision};

/// etcd's default (`--max-request-bytes`).
const REQUEST_BYTES_MAX: u64 = 1_536 << 10;

/// A commit on its way; the watch says when it has been made.
pub(super) struct Ticket<'a> {
    inner: &'a Inner,
    number: u64,
    resets: u64,
}

impl<'a> Ticket<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        let number = inner.next_commit.fetch_add(1, Ordering::Relaxed);
        inner.under_way.lock().insert(number, None);
        Self { inner, number, resets: inner.resets.load(Ordering::SeqCst) }
    }

    /// What the clock says of this commit.
    pub(super) fn mark(&self) -> Bytes {
        format!("{LAYOUT} {:016x} {}", self.inner.writer, self.number).into()
    }

    pub(super) fn seen(&self) -> Option<Revision> {
        self.inner.under_way.lock().get(&self.number).copied().flatten()
    }

    /// Whether it may have been made without the watch having shown it.
    pub(super) fn missed(&self) -> bool {
        self.inner.resets.load(Ordering::SeqCst) != self.resets
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.inner.under_way.lock().remove(&self.number);
    }
}

/// The writer and the commit's number in a clock's value.
pub(super) fn read_mark(value: &[u8]) -> Option<(u64, u64)> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    (words.next()? == LAYOUT).then_some(())?;
    Some((u64::from_str_radix(words.next()?, 16).ok()?, words.next()?.parse().ok()?))
}

pub(super) fn put(key: Bytes, value: Bytes) -> wire::RequestOp {
    wire::RequestOp { request: Some(wire::Request::Put(wire::PutRequest { key, value })) }
}

pub(super) fn get(key: Bytes) -> wire::RequestOp {
    let request = wire::RangeRequest { key, ..wire::RangeRequest::default() };
    wire::RequestOp { request: Some(wire::Request::Range(request)) }
}

/// Holds if the key was last written at etcd's `revision` (0: it is absent).
pub(super) fn modified_at(key: Bytes, revision: i64) -> wire::Compare {
    wire::Compare { target: wire::Target::Mod.into(), key, operand: Some(wire::Operand::Mod(revision)) }
}

/// What the read operations of a transaction found: a key, or none.
pub(super) fn found(answer: wire::TxnResponse) -> Vec<Option<wire::KeyValue>> {
    let reads = answer.responses.into_iter().filter_map(|response| match response.response {
        Some(wire::Response::Range(range)) => Some(range.kvs.into_iter().next()),
        _ => None,
    });
    reads.collect()
}

/// What became of one try.
enum Tried {
    Ended(Result<Commit>),
    /// It was not made, and can be tried again.
    Again,
    /// Nobody knows.
    Lost(Fault),
}

impl Inner {
    /// # Cancel safety
    /// Whoever drops this does not learn whether the commit was made.
    pub(super) async fn commit(&self, guard: Guard, ops: Vec<Op>) -> Result<Commit> {
        let until = self.deadline();
        let mut why = String::from("it is busy");
        // Set while a try may have been made without our knowing.
        let mut open = false;
        let ended = tokio::time::timeout_at(until, async {
            let _place = self.commits.acquire().await.map_err(|_| Error::Closed)?;
            let mut pause = Pause::default();
            loop {
                let channel = match self.client.channel().await {
                    Ok(channel) => channel,
                    Err(fault) => {
                        why = fault.to_string();
                        pause.wait().await;
                        continue;
                    }
                };
                let ticket = Ticket::new(self);
                let fence = self.fence.load(Ordering::SeqCst);
                open = true;
                match self.try_commit(&channel, &ticket, fence, &guard, &ops).await {
                    Tried::Ended(outcome) => return outcome,
                    Tried::Again => open = false,
                    Tried::Lost(fault) => {
                        why = fault.to_string();
                        if let Some(revision) = self.settle(&ticket, fence, &mut why).await? {
                            return Ok(Commit::Done(revision));
                        }
                        open = false;
                    }
                }
                pause.wait().await;
            }
        });
        match ended.await {
            Ok(outcome) => outcome,
            Err(_) if open => Err(Error::Unknown { why }),
            Err(_) => Err(Error::Unavailable { why }),
        }
    }

    async fn try_commit(&self, channel: &Channel, ticket: &Ticket<'_>, fence: i64, guard: &Guard, ops: &[Op]) -> Tried {
        let request = self.transaction(ticket, fence, guard, ops);
        let answer = channel.unary::<wire::TxnResponse>(client::TXN, &request, self.commit_timeout).await;
        match answer {
            Ok(answer) if answer.succeeded => {
                let made_at = answer.header.map_or(0, |header| header.revision);
                let revision = if ops.is_empty() {
                    found(answer).into_iter().flatten().next().map_or(0, |clock| clock.mod_revision)
                } else {
                    made_at
                };
                let revision = self.ours(revision);
                // Who has been told of a commit is to see it; if the watch is cut off just now, later reads wait for it.
                let _ = tokio::time::timeout(REACH, self.visible(revision)).await;
                Tried::Ended(Ok(Commit::Done(revision)))
            }
            Ok(answer) => self.refused(answer, fence, guard),
            Err(fault) if fault.is_certain() && fault.is_passing() => Tried::Again,
            Err(fault) if fault.is_certain() => Tried::Ended(Err(limit(&fault, request.encoded_len() as u64))),
            Err(fault) => {
                self.client.retire(channel, &fault);
                Tried::Lost(fault)
            }
        }
    }

    fn transaction(&self, ticket: &Ticket<'_>, fence: i64, guard: &Guard, ops: &[Op]) -> wire::TxnRequest {
        let mut compare = vec![modified_at(self.keys.fence.clone(), fence)];
        let mut failure = vec![get(self.keys.fence.clone())];
        for (key, expect) in &guard.0 {
            let key = self.keys.outer(key);
            failure.push(get(key.clone()));
            compare.push(match expect {
                Expect::Absent => modified_at(key, 0),
                Expect::ModifiedAt(revision) => match self.theirs(*revision).filter(|revision| *revision > 0) {
                    Some(revision) => modified_at(key, revision),
                    // Never holds: no version is negative.
                    None => wire::Compare {
                        target: wire::Target::Version.into(),
                        key,
                        operand: Some(wire::Operand::Version(-1)),
                    },
                },
            });
        }
        let mut success: Vec<_> = ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value } => put(self.keys.outer(key), value.clone()),
                Op::Delete { key } => {
                    let request = wire::DeleteRequest { key: self.keys.outer(key), range_end: Bytes::new() };
                    wire::RequestOp { request: Some(wire::Request::Delete(request)) }
                }
            })
            .collect();
        let clock = self.keys.clock.clone();
        success.push(if ops.is_empty() { get(clock) } else { put(clock, ticket.mark()) });
        wire::TxnRequest { compare, success, failure }
    }

    /// Which condition did not hold; ours, or that of the fence.
    fn refused(&self, answer: wire::TxnResponse, fence: i64, guard: &Guard) -> Tried {
        let mut found = found(answer).into_iter();
        let now = found.next().flatten().map_or(0, |fence| fence.mod_revision);
        for ((key, expect), current) in guard.0.iter().zip(found) {
            let current = current.map(|kv| self.item(key.clone(), kv));
            let holds = match expect {
                Expect::Absent => current.is_none(),
                Expect::ModifiedAt(revision) => current.as_ref().is_some_and(|item| item.modified == *revision),
            };
            if !holds {
                return Tried::Ended(Ok(Commit::Conflict { key: key.clone(), current }));
            }
        }
        self.fence.fetch_max(now, Ordering::SeqCst);
        if now == fence {
            let message = "etcd refused a commit all of whose conditions hold".to_owned();
            return Tried::Ended(Err(Error::Refused { message }));
        }
        if now == 0 {
            let message = format!("the store under {} in etcd was removed: start again", self.prefix);
            return Tried::Ended(Err(Error::Refused { message }));
        }
        Tried::Again
    }

    pub(super) fn item(&self, key: Bytes, kv: wire::KeyValue) -> KeyValue {
        KeyValue { key, value: kv.value, created: self.ours(kv.create_revision), modified: self.ours(kv.mod_revision) }
    }

    /// Finds out whether a commit that depends on `fence` was made: after the fence has moved it cannot be any more, and
    /// what was before has been seen when the move has.
    async fn settle(&self, ticket: &Ticket<'_>, fence: i64, why: &mut String) -> Result<Option<Revision>> {
        let key = &self.keys.fence;
        let request = wire::TxnRequest {
            compare: vec![modified_at(key.clone(), fence)],
            success: vec![put(key.clone(), format!("{:016x}", self.writer).into())],
            failure: vec![get(key.clone())],
        };
        let mut pause = Pause::default();
        let moved_at = loop {
            let moved = self.fence.load(Ordering::SeqCst);
            if moved > fence {
                break moved;
            }
            match self.client.call::<wire::TxnResponse>(client::TXN, &request, self.commit_timeout).await {
                Ok(answer) if answer.succeeded => break answer.header.map_or(0, |header| header.revision),
                Ok(answer) => break found(answer).into_iter().flatten().next().map_or(0, |kv| kv.mod_revision),
                Err(fault) if fault.is_passing() => *why = fault.to_string(),
                Err(fault) => return Err(Error::Unknown { why: fault.to_string() }),
            }
            pause.wait().await;
        };
        self.fence.fetch_max(moved_at, Ordering::SeqCst);
        self.visible(self.ours(moved_at)).await;
        let seen = ticket.seen();
        if seen.is_none() && ticket.missed() {
            return Err(Error::Unknown { why: "its history was compacted meanwhile".to_owned() });
        }
        tracing::info!(made = seen.is_some(), why, "etcd: a commit whose answer was lost is settled");
        Ok(seen)
    }
}

/// etcd's own limits.
fn limit(fault: &Fault, size: u64) -> Error {
    if let Fault::Status { code, message } = fault {
        let large = *code == CODE_INVALID_ARGUMENT && message.contains("request is too large")
            || *code == CODE_RESOURCE_EXHAUSTED && message.contains("larger than max");
        if large {
            return Error::TooLarge { what: "bytes of a commit", size, limit: REQUEST_BYTES_MAX };
        }
        if message.contains("too many operations") {
            let limit = super::COMMIT_OPS_MAX as u64;
            return Error::TooLarge { what: "operations of a commit (etcd's --max-txn-ops is below 128)", size, limit };
        }
    }
    error_of(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_the_clock_are_read_back() {
        assert_eq!(read_mark(b"skep-1 00000000000000ff 42"), Some((255, 42)));
        for bad in [&b""[..], b"skep-1", b"skep-2 ff 1", b"skep-1 x 1", b"skep-1 ff", b"\xff"] {
            assert_eq!(read_mark(bad), None);
        }
    }
}
