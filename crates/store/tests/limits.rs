//! What happens at the limits, and when an engine fails.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::join_all};
use parking_lot::Mutex;
use store::{
    At, Commit, Embedded, Error, Event, Expect, Guard, Limits, Op, Range, Revision, Store, WatchItem,
    engine::{self, Engine, Loaded, Memory, Record},
};

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Vec<Op> {
    vec![Op::Put { key: key.into(), value: value.into() }]
}

async fn write(store: &Embedded, ops: Vec<Op>) -> store::Result<Revision> {
    match store.commit(Guard::default(), ops).await? {
        Commit::Done(revision) => Ok(revision),
        Commit::Conflict { .. } => panic!("no guard, no conflict"),
    }
}

#[tokio::test]
async fn keys_values_and_commits_have_limits() {
    let limits = Limits { key_bytes: 4, value_bytes: 8, commit_ops: 2, ..Limits::default() };
    let store = Embedded::memory(limits);
    write(&store, put("1234", "12345678")).await.unwrap();
    for ops in [put("12345", ""), put("1", "123456789"), [put("1", ""), put("2", ""), put("3", "")].concat()] {
        assert!(matches!(write(&store, ops).await, Err(Error::TooLarge { .. })));
    }
    let conditions = vec![("a".into(), Expect::Absent); 3];
    let refused = store.commit(Guard(conditions), Vec::new()).await;
    assert!(matches!(refused, Err(Error::TooLarge { size: 3, limit: 2, .. })));
    assert_eq!(store.revision(), Revision(1));
}

#[tokio::test]
async fn a_full_store_takes_deletions_and_smaller_values_only() {
    let store = Embedded::memory(Limits { size_bytes: 20, history_commits: 0, ..Limits::default() });
    write(&store, put("a", "123456789")).await.unwrap();
    write(&store, put("b", "123456789")).await.unwrap();
    assert_eq!(store.size_bytes(), 20);
    assert!(matches!(write(&store, put("c", "")).await, Err(Error::Full { size_bytes: 21, limit_bytes: 20 })));
    write(&store, put("a", "12345678")).await.unwrap();
    write(&store, put("c", "")).await.unwrap();
    write(&store, vec![Op::Delete { key: "b".into() }]).await.unwrap();
    assert_eq!(store.size_bytes(), 10);
}

#[tokio::test]
async fn history_is_kept_up_to_its_limits() {
    let store = Embedded::memory(Limits { history_commits: 3, ..Limits::default() });
    for n in 0..5 {
        write(&store, put("a", n.to_string())).await.unwrap();
    }
    assert_eq!((store.revision(), store.compacted()), (Revision(5), Revision(2)));
    assert!(store.range(Range::key("a"), At::Exact(Revision(2)), 0).await.is_ok());
    assert!(matches!(store.range(Range::key("a"), At::Exact(Revision(1)), 0).await, Err(Error::Compacted { .. })));

    let store = Embedded::memory(Limits { history_bytes: 100, ..Limits::default() });
    for n in 0..5 {
        write(&store, put(format!("{n}"), vec![0; 49])).await.unwrap();
    }
    assert_eq!(store.compacted(), Revision(3), "two commits of 50 bytes fit");
}

#[tokio::test]
async fn a_slow_reader_gets_compacted_and_holds_nobody_up() {
    let limits = Limits { watch_backlog: 3, watch_backlog_bytes: 1_000, ..Limits::default() };
    let store = Embedded::memory(limits);
    let mut slow = store.watch(Range::prefix("a"), Revision(0)).unwrap();
    let mut other = store.watch(Range::prefix("b"), Revision(0)).unwrap();
    for n in 0..3 {
        write(&store, put("a", n.to_string())).await.unwrap();
    }
    assert!(matches!(slow.next().await, Some(WatchItem::Event(Event::Put { .. }))));
    for n in 0..3 {
        write(&store, put("a", n.to_string())).await.unwrap();
    }
    write(&store, put("b", "1")).await.unwrap();
    assert!(matches!(slow.next().await, Some(WatchItem::Compacted)));
    assert!(slow.next().await.is_none(), "it is the last item");
    assert!(matches!(other.next().await, Some(WatchItem::Event(_))));

    let mut heavy = store.watch(Range::prefix("a"), store.revision()).unwrap();
    write(&store, put("a", vec![0; 999])).await.unwrap();
    assert!(matches!(heavy.next().await, Some(WatchItem::Compacted)), "key, value and previous value are 1,001 bytes");
}

#[tokio::test]
async fn a_long_replay_does_not_count_against_the_reader() {
    let store = Embedded::memory(Limits { watch_backlog: 2, ..Limits::default() });
    for n in 0..10 {
        write(&store, put("a", n.to_string())).await.unwrap();
    }
    let watch = store.watch(Range::key("a"), Revision(0)).unwrap();
    for n in 0..2 {
        write(&store, put("a", n.to_string())).await.unwrap();
    }
    let revisions: Vec<_> = watch
        .take(12)
        .map(|item| match item {
            WatchItem::Event(event) => event.revision().0,
            other => panic!("{other:?}"),
        })
        .collect()
        .await;
    assert_eq!(revisions, (1..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn watchers_are_counted_and_leave_no_trace() {
    let store = Embedded::memory(Limits { watchers: 2, ..Limits::default() });
    let open = |range: Range| store.watch(range, Revision(0));
    let first = open(Range::prefix("a")).unwrap();
    let _second = open(Range { start: "a".into(), end: None }).unwrap();
    assert!(matches!(open(Range::key("b")), Err(Error::TooManyWatchers { limit: 2 })));
    drop(first);
    let mut third = open(Range::key("b")).unwrap();
    drop(store);
    assert!(third.next().await.is_none(), "a closed store ends its watches");
}

/// Memory that fails when told to.
#[derive(Default)]
struct Faulty {
    inner: Memory,
    batches: Arc<AtomicUsize>,
    /// Which append fails (counted from 1; 0 is none), and whether it keeps the records anyway.
    fail_at: Arc<AtomicUsize>,
    keep: bool,
    mute: bool,
    gate: Option<Arc<Mutex<()>>>,
}

impl Engine for Faulty {
    fn load(&mut self) -> Result<Loaded, engine::Error> {
        self.inner.load()
    }

    fn append(&mut self, records: &[Record]) -> Result<(), engine::Error> {
        if let Some(gate) = &self.gate {
            drop(gate.lock());
        }
        let batch = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = batch == self.fail_at.load(Ordering::SeqCst);
        if !fails || self.keep {
            self.inner.append(records)?;
        }
        if fails { Err("no space left on device".into()) } else { Ok(()) }
    }

    fn revision(&mut self) -> Result<Revision, engine::Error> {
        if self.mute { Err("input/output error".into()) } else { self.inner.revision() }
    }

    fn compact(&mut self) -> Result<(), engine::Error> {
        self.inner.compact()
    }
}

#[tokio::test]
async fn commits_that_wait_share_one_sync() {
    let gate = Arc::new(Mutex::new(()));
    let engine = Faulty { gate: Some(gate.clone()), ..Faulty::default() };
    let batches = engine.batches.clone();
    let store = Embedded::over(engine, Limits::default()).unwrap();
    let commits = (0..100).map(|n| write(&store, put(format!("{n}"), "1")));
    let all = join_all(commits);
    let mut all = Box::pin(all);
    {
        let _closed = gate.lock();
        // Every commit is handed in while the engine cannot finish its first append.
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(store.revision(), Revision(0), "nothing is visible before it is durable");
    }
    let revisions: Vec<u64> = all.await.into_iter().map(|revision| revision.unwrap().0).collect();
    assert_eq!(revisions, (1..=100).collect::<Vec<_>>());
    assert!(batches.load(Ordering::SeqCst) <= 3, "{batches:?} syncs for 100 commits");
}

#[tokio::test]
async fn a_failing_engine_fails_its_commits_and_no_others() {
    let engine = Faulty::default();
    let fail_at = engine.fail_at.clone();
    let store = Embedded::over(engine, Limits::default()).unwrap();
    let mut watch = store.watch(Range::prefix(""), Revision(0)).unwrap();
    write(&store, put("a", "1")).await.unwrap();
    fail_at.store(2, Ordering::SeqCst);
    let failed = write(&store, put("a", "2")).await;
    let Err(error @ Error::Append { .. }) = failed else { panic!("{failed:?}") };
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no space left on device");
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(write(&store, put("b", "1")).await.unwrap(), Revision(2), "the store goes on");
    let page = store.range(Range::key("a"), At::Latest, 0).await.unwrap();
    assert_eq!(page.items[0].value, "1");
    let keys: Vec<_> = watch.by_ref().take(2).collect().await;
    assert!(matches!(&keys[1], WatchItem::Event(event) if event.key() == "b"), "{keys:?}");
}

#[tokio::test]
async fn what_a_failing_engine_kept_is_visible() {
    let engine = Faulty { keep: true, ..Faulty::default() };
    engine.fail_at.store(1, Ordering::SeqCst);
    let store = Embedded::over(engine, Limits::default()).unwrap();
    assert_eq!(write(&store, put("a", "1")).await.unwrap(), Revision(1));
    assert_eq!(store.range(Range::key("a"), At::Latest, 0).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn an_engine_that_cannot_say_what_it_holds_ends_writing() {
    let engine = Faulty { mute: true, ..Faulty::default() };
    engine.fail_at.store(1, Ordering::SeqCst);
    let store = Embedded::over(engine, Limits::default()).unwrap();
    assert!(matches!(write(&store, put("a", "1")).await, Err(Error::Broken { .. })));
    assert!(matches!(write(&store, put("a", "1")).await, Err(Error::Broken { .. })));
    assert!(store.range(Range::prefix(""), At::Latest, 0).await.unwrap().items.is_empty(), "reads go on");
}

#[tokio::test]
async fn a_full_disk_fails_commits_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.db");
    let limits = Limits { file_bytes: 256 << 10, ..Limits::default() };
    let store = Embedded::open(&path, limits.clone()).unwrap();
    let written = AtomicU64::new(0);
    let error = loop {
        match write(&store, put(format!("{written:?}"), vec![7; 10_000])).await {
            Ok(_) => written.fetch_add(1, Ordering::SeqCst),
            Err(error) => break error,
        };
    };
    assert!(matches!(error, Error::Append { .. }), "{error:?}");
    let held = written.load(Ordering::SeqCst);
    assert!(held > 10);
    assert_eq!(store.revision(), Revision(held));
    drop(store);
    let store = Embedded::open(&path, limits).unwrap();
    assert_eq!(store.revision(), Revision(held), "the core agreed with the disk");
    assert_eq!(store.range(Range::prefix(""), At::Latest, 1).await.unwrap().remaining, held - 1);
    write(&store, vec![Op::Delete { key: "0".into() }, Op::Delete { key: "1".into() }]).await.unwrap();
    write(&store, put("0", vec![8; 10_000])).await.unwrap();
}

#[tokio::test]
async fn a_file_is_opened_by_one_and_only_if_it_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.db");
    let store = Embedded::open(&path, Limits::default()).unwrap();
    let second = Embedded::open(&path, Limits::default()).err().unwrap();
    assert!(matches!(second, Error::Open { .. }), "{second:?}");
    write(&store, put("a", "1")).await.unwrap();
    let last = write(&store, vec![Op::Delete { key: "a".into() }]).await.unwrap();
    drop(store);
    let store = Embedded::open(&path, Limits::default()).unwrap();
    assert_eq!((store.revision(), store.compacted()), (last, last));
    assert!(matches!(store.watch(Range::key("a"), Revision(1)), Err(Error::Compacted { .. })));
    assert!(store.watch(Range::key("a"), last).is_ok());

    let foreign = folder.path().join("foreign.db");
    std::fs::write(&foreign, vec![b'x'; 8192]).unwrap();
    assert!(matches!(Embedded::open(&foreign, Limits::default()), Err(Error::Open { .. })));
    let missing = folder.path().join("missing/file.db");
    assert!(matches!(Embedded::open(&missing, Limits::default()), Err(Error::Open { .. })));
}
