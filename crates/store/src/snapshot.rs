//! All that a store holds at one revision: what backups, restores and moves are made of.

use std::{collections::BTreeMap, fmt::Write as _};

use aws_lc_rs::digest;
use bytes::Bytes;

use crate::{At, Commit, Error, Expect, Guard, KeyValue, Op, Range, Result, Revision, Store};

/// Keys that are read at once, and what one commit of a restore holds at most.
const PAGE_ITEMS: usize = 2_000;
const COMMIT_OPS: usize = 100;
const COMMIT_BYTES: usize = 1 << 20;

/// Stands in a store while a snapshot is written into it: what has it is not whole.
pub const UNFINISHED: &str = "/skep/unfinished";

/// A state, in the order of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: Revision,
    pub items: Vec<KeyValue>,
}

/// How two states differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub missing: Vec<Bytes>,
    pub added: Vec<Bytes>,
    pub changed: Vec<Bytes>,
}

impl Difference {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Snapshot {
    /// Reads a store, page by page, all at one revision.
    pub async fn take(store: &dyn Store, at: At) -> Result<Self> {
        let mut range = Range::prefix("");
        let mut at = at;
        let mut items = Vec::new();
        loop {
            let page = store.range(range.clone(), at, PAGE_ITEMS).await?;
            at = At::Exact(page.revision);
            items.extend(page.items);
            match items.last() {
                Some(last) if page.remaining > 0 => {
                    let mut next = last.key.to_vec();
                    next.push(0);
                    range.start = next.into();
                }
                _ => return Ok(Self { revision: page.revision, items }),
            }
        }
    }

    /// SHA-256 (hexadecimal) over the revision and all items: lengths and numbers as 8 bytes, big-endian.
    pub fn sha256(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut number = |number: u64, bytes: &[u8]| {
            context.update(&number.to_be_bytes());
            context.update(bytes);
        };
        number(self.revision.0, b"");
        for item in &self.items {
            number(item.created.0, b"");
            number(item.modified.0, b"");
            number(item.key.len() as u64, &item.key);
            number(item.value.len() as u64, &item.value);
        }
        hex(context.finish().as_ref())
    }

    /// Keys and values, compared one by one; revisions are not.
    pub fn difference(&self, other: &Self) -> Difference {
        let mut others: BTreeMap<_, _> = other.items.iter().map(|item| (&item.key, &item.value)).collect();
        let mut found = Difference::default();
        for item in &self.items {
            match others.remove(&item.key) {
                None => found.missing.push(item.key.clone()),
                Some(value) if *value != item.value => found.changed.push(item.key.clone()),
                Some(_) => {}
            }
        }
        found.added = others.into_keys().cloned().collect();
        found
    }

    /// Revisions that cannot be, and keys that are out of order.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut last: Option<&Bytes> = None;
        for item in &self.items {
            let key = item.key.escape_ascii();
            if item.created.0 == 0 || item.created > item.modified {
                found.push(format!("{key}: made at revision {}, changed at {}", item.created, item.modified));
            }
            if item.modified > self.revision {
                found.push(format!(
                    "{key}: changed at revision {}, after the last one, {}",
                    item.modified, self.revision
                ));
            }
            if last.is_some_and(|last| *last >= item.key) {
                found.push(format!("{key}: out of order"));
            }
            last = Some(&item.key);
        }
        found
    }

    /// Writes all items into an empty store, which gives them revisions of its own, and reads everything back.
    pub async fn write_into(&self, store: &dyn Store) -> Result<Difference> {
        let mark = Bytes::from_static(UNFINISHED.as_bytes());
        let items = self.items.iter().filter(|item| item.key != mark);
        commit(store, vec![Op::Put { key: mark.clone(), value: Bytes::from_static(b"{}") }]).await?;
        let (mut ops, mut bytes) = (Vec::new(), 0);
        for item in items {
            let size = item.key.len() + item.value.len();
            if !ops.is_empty() && (ops.len() == COMMIT_OPS || bytes + size > COMMIT_BYTES) {
                commit(store, std::mem::take(&mut ops)).await?;
                bytes = 0;
            }
            bytes += size;
            ops.push(Op::Put { key: item.key.clone(), value: item.value.clone() });
        }
        if !ops.is_empty() {
            commit(store, ops).await?;
        }
        let mut written = Self::take(store, At::Latest).await?;
        written.items.retain(|item| item.key != mark);
        let difference = self.difference(&written);
        if difference.is_none() {
            store.commit(Guard::default(), vec![Op::Delete { key: mark }]).await?;
        }
        Ok(difference)
    }
}

async fn commit(store: &dyn Store, ops: Vec<Op>) -> Result<()> {
    let absent = |op: &Op| match op {
        Op::Put { key, .. } | Op::Delete { key } => (key.clone(), Expect::Absent),
    };
    match store.commit(Guard(ops.iter().map(absent).collect()), ops).await? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict { key, .. } => {
            let message = format!("{} is there already, where an empty store was to be filled", key.escape_ascii());
            Err(Error::Refused { message })
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &'static str, value: &'static str, created: u64, modified: u64) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), created: Revision(created), modified: Revision(modified) }
    }

    #[test]
    fn differences_and_problems_are_named() {
        let a = Snapshot { revision: Revision(9), items: vec![item("a", "1", 1, 1), item("b", "1", 2, 3)] };
        let b = Snapshot { revision: Revision(9), items: vec![item("b", "2", 2, 4), item("c", "1", 5, 5)] };
        assert!(a.difference(&a).is_none() && a.problems().is_empty());
        let found = a.difference(&b);
        assert_eq!((found.missing, found.changed, found.added), (vec!["a".into()], vec!["b".into()], vec!["c".into()]));
        assert_ne!(a.sha256(), b.sha256());
        let wrong = vec![item("b", "", 3, 2), item("a", "", 0, 1), item("c", "", 1, 10)];
        assert_eq!(Snapshot { revision: Revision(9), items: wrong }.problems().len(), 4);
    }
}
