//! The store in a real etcd: skipped, loudly, where there is none.

mod cluster;
mod history;
mod proxy;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use store::{
    At, Commit, Error, Etcd, Event, Expect, Guard, Op, Range, Revision, SharedStore, Store, WatchItem, conformance,
};

use self::{cluster::Cluster, proxy::Proxy};

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put { key: key.into(), value: value.into() }
}

async fn write(store: &dyn Store, ops: Vec<Op>) -> Revision {
    match store.commit(Guard::default(), ops).await.unwrap() {
        Commit::Done(revision) => revision,
        Commit::Conflict { .. } => panic!("no guard, no conflict"),
    }
}

async fn read(store: &dyn Store, key: &str) -> Option<Bytes> {
    let page = store.range(Range::key(key.to_owned()), At::Latest, 0).await.unwrap();
    page.items.into_iter().next().map(|item| item.value)
}

/// Waits until `count` is beyond `more` than it is: what has to come does come, or the test hangs and says where.
async fn until_more(count: &AtomicU64, more: u64) {
    let goal = count.load(Ordering::SeqCst) + more;
    while count.load(Ordering::SeqCst) < goal {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_keep_the_contract() {
    let Some(cluster) = Cluster::start(3, true, &[]).await else { return };
    let count = AtomicU32::new(0);
    conformance::suite(async || {
        let prefix = format!("/suite/{}", count.fetch_add(1, Ordering::Relaxed));
        Arc::new(cluster.open(&prefix).await) as SharedStore
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_commits_the_others_read_at_once() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let (a, b) = (cluster.open("/two").await, cluster.open("/two").await);
    let mut watch = b.watch(Range::prefix("k"), b.revision()).unwrap();
    for n in 0..200 {
        let value = n.to_string();
        let made = write(&a, vec![put("k", value.clone())]).await;
        assert_eq!(read(&b, "k").await, Some(value.into()), "no read is older than a commit that was answered");
        b.reach(made).await.unwrap();
        let Some(WatchItem::Event(Event::Put { item, .. })) = watch.next().await else { panic!() };
        assert_eq!(item.modified, made, "revisions are the same for all");
    }
    let other = cluster.open("/other").await;
    write(&other, vec![put("k", "other's")]).await;
    assert_eq!(read(&a, "k").await, Some("199".into()));
    let conflict = b.commit(Guard(vec![("k".into(), Expect::Absent)]), vec![put("k", "x")]).await.unwrap();
    assert!(matches!(conflict, Commit::Conflict { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_knows_the_history_since_the_last_turn_of_compaction() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let mut options = cluster.options("/turns");
    options.compact_interval = Some(Duration::from_millis(300));
    let first = Etcd::open(options.clone()).await.unwrap();
    write(&first, vec![put("k", "0")]).await;
    // A second server without memory: what it still has of the past is what etcd has.
    options.compact_interval = None;
    options.limits.history_commits = 0;
    let witness = Etcd::open(options.clone()).await.unwrap();
    options.limits.history_commits = 10_000;
    let mut old = witness.revision();
    for _ in 0..2 {
        while witness.range(Range::key("k"), At::Exact(old), 0).await.is_ok() {
            write(&first, vec![put("k", "again")]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        old = witness.revision();
    }
    drop(first);
    let first = Etcd::open(options.clone()).await.unwrap();
    let before = write(&first, vec![put("k", "before")]).await;
    let after = write(&first, vec![put("k", "after")]).await;
    drop(first);
    let second = Etcd::open(options).await.unwrap();
    let mut watch = second.watch(Range::key("k"), before).expect("a client comes from another server");
    let Some(WatchItem::Event(event)) = watch.next().await else { panic!() };
    assert_eq!(event.revision(), after);
    let page = second.range(Range::key("k"), At::Exact(before), 0).await.unwrap();
    assert_eq!(page.items[0].value, "before");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_etcd_are_said_clearly() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let store = cluster.open("/limits").await;
    let ops = |count: usize| (0..count).map(|n| put(format!("{n}"), "")).collect::<Vec<_>>();
    let limit = store::etcd::COMMIT_OPS_MAX;
    write(&store, ops(limit)).await;
    let refused = store.commit(Guard::default(), ops(limit + 1)).await;
    assert!(matches!(refused, Err(Error::TooLarge { size: 127, limit: 126, .. })), "{refused:?}");
    let guard = |count: usize| Guard((0..count).map(|n| (format!("x{n}").into(), Expect::Absent)).collect());
    assert!(matches!(store.commit(guard(limit), ops(1)).await, Ok(Commit::Done(_))));
    assert!(matches!(store.commit(guard(limit + 1), ops(1)).await, Err(Error::TooLarge { .. })));
    write(&store, vec![put("large", vec![b'x'; 1_500_000])]).await;
    let refused = store.commit(Guard::default(), vec![put("large", vec![b'x'; 3_000_000])]).await;
    assert!(matches!(refused, Err(Error::TooLarge { limit: 1_572_864, .. })), "{refused:?}");
    assert_eq!(read(&store, "large").await.map(|value| value.len()), Some(1_500_000));
    let future = store.reach(Revision(store.revision().0 + 10)).await;
    assert!(matches!(future, Err(Error::Future { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_refuses_and_says_so() {
    let Some(cluster) = Cluster::start(1, false, &["--quota-backend-bytes", "4000000"]).await else { return };
    let store = cluster.open("/full").await;
    let error = loop {
        if let Err(error) = store.commit(Guard::default(), vec![put("k", vec![7; 400_000])]).await {
            break error;
        }
    };
    let Error::Refused { message } = &error else { panic!("{error:?}") };
    assert!(message.contains("database space exceeded"), "{message}");
    assert!(read(&store, "k").await.is_some(), "reads go on");
    let (_, alarms) = store.members().await;
    assert!(alarms.unwrap()[0].contains("NOSPACE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_is_not_ours_is_refused() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let outer = cluster.open("/a").await;
    // Where another store's clock would be.
    write(&outer, vec![put("/clock", "skep-99 x")]).await;
    let refused = Etcd::open(cluster.options("/a/data")).await.err().unwrap();
    assert!(matches!(refused, Error::Layout { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_begin_above_what_was_before() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let mut options = cluster.options("/above");
    options.above = Revision(5_000_000);
    let store = Etcd::open(options.clone()).await.unwrap();
    assert!(store.revision() > Revision(5_000_000));
    let made = write(&store, vec![put("k", "1")]).await;
    let guard = Guard(vec![("k".into(), Expect::ModifiedAt(made))]);
    assert!(matches!(store.commit(guard, vec![put("k", "2")]).await, Ok(Commit::Done(at)) if at > made));
    assert!(matches!(store.watch(Range::key("k"), Revision(4_999_999)), Err(Error::Compacted { .. })));
    let past = store.range(Range::key("k"), At::Exact(Revision(7)), 0).await;
    assert!(matches!(past, Err(Error::Compacted { .. })), "{past:?}");
    drop(store);
    options.above = Revision(0);
    let again = Etcd::open(options).await.unwrap();
    assert!(again.revision() > made, "it stays so");
    let page = again.range(Range::key("k"), At::Exact(made), 0).await.unwrap();
    assert_eq!(page.items[0].value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_made_once_or_not_at_all() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let proxy = Proxy::to(cluster.endpoint(0)).await;
    let mut options = cluster.options("/lost");
    options.address.endpoints = vec![proxy.endpoint.clone()];
    let store: Arc<dyn Store> = Arc::new(Etcd::open(options).await.unwrap());
    let witness = cluster.open("/lost").await;
    let mut watches =
        [store.watch(Range::prefix("h/"), store.revision()), witness.watch(Range::prefix("h/"), witness.revision())]
            .map(Result::unwrap);
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn(history::write(store.clone(), "w", 16, stop.clone(), made.clone()));
    for _ in 0..60 {
        until_more(&made, 20).await;
        proxy.cut();
    }
    stop.store(true, Ordering::SeqCst);
    let told = writing.await.unwrap();
    for (watch, reader) in watches.iter_mut().zip([&*store, &witness as &dyn Store]) {
        let seen = history::read(reader, watch).await;
        history::check(&seen, &told);
    }
    let made = told.values().filter(|told| matches!(told, history::Told::Made(_))).count();
    eprintln!("{made} commits over {} cut connections, all told apart", proxy.cuts.load(Ordering::SeqCst));
    assert_eq!(made, told.len(), "etcd was there all the time, so every commit was settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_loses_nothing() {
    let Some(cluster) = Cluster::start(3, true, &[]).await else { return };
    let stores = [cluster.open("/leader").await, cluster.open("/leader").await].map(Arc::new);
    let mut watches = stores.each_ref().map(|store| store.watch(Range::prefix("h/"), store.revision()).unwrap());
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = ["a", "b"]
        .into_iter()
        .zip(&stores)
        .map(|(name, store)| tokio::spawn(history::write(store.clone(), name, 8, stop.clone(), made.clone())));
    let writing: Vec<_> = writing.collect();
    for _ in 0..3 {
        until_more(&made, 200).await;
        let leader = cluster.leader(&stores[0]).await;
        let began = Instant::now();
        cluster.kill_member(leader);
        until_more(&made, 1).await;
        eprintln!("member {leader} led and was killed; the next commit after {} ms", began.elapsed().as_millis());
        until_more(&made, 200).await;
        cluster.start_member(leader);
    }
    stop.store(true, Ordering::SeqCst);
    let mut told = std::collections::HashMap::new();
    for writing in writing {
        told.extend(writing.await.unwrap());
    }
    for (watch, store) in watches.iter_mut().zip(&stores) {
        let seen = history::read(&**store, watch).await;
        history::check(&seen, &told);
    }
    eprintln!("{} commits, three leaders killed", told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_when_history_was_compacted_while_etcd_was_not_reached() {
    let Some(cluster) = Cluster::start(1, false, &[]).await else { return };
    let proxy = Proxy::to(cluster.endpoint(0)).await;
    let mut options = cluster.options("/behind");
    options.address.endpoints = vec![proxy.endpoint.clone()];
    options.patience = Duration::from_secs(2);
    let cut_off = Etcd::open(options).await.unwrap();
    let other = cluster.open("/behind").await;
    write(&other, vec![put("a", "1"), put("b", "1")]).await;
    assert_eq!(read(&cut_off, "a").await, Some("1".into()));
    let mut watch = cut_off.watch(Range::prefix(""), cut_off.revision()).unwrap();
    proxy.closed.store(true, Ordering::SeqCst);
    proxy.cut();
    let refused = cut_off.commit(Guard::default(), vec![put("c", "1")]).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. } | Error::Unknown { .. })), "{refused:?}");
    assert!(matches!(cut_off.range(Range::key("a"), At::Latest, 0).await, Err(Error::Unavailable { .. })));
    write(&other, vec![put("a", "2"), Op::Delete { key: "b".into() }]).await;
    let last = write(&other, vec![put("a", "3")]).await;
    other.compact(last).await.unwrap();
    proxy.closed.store(false, Ordering::SeqCst);
    assert_eq!(watch.next().await, Some(WatchItem::Compacted));
    assert_eq!(read(&cut_off, "a").await, Some("3".into()));
    assert_eq!(read(&cut_off, "b").await, None);
    let mut watch = cut_off.watch(Range::prefix(""), cut_off.revision()).unwrap();
    let made = write(&cut_off, vec![put("b", "2")]).await;
    let Some(WatchItem::Event(event)) = watch.next().await else { panic!() };
    assert_eq!(event.revision(), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_left_behind() {
    let Some(cluster) = Cluster::start(3, true, &[]).await else { return };
    let store = Arc::new(cluster.open("/hangs").await);
    let mut watch = store.watch(Range::prefix("h/"), store.revision()).unwrap();
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn(history::write(store.clone(), "w", 8, stop.clone(), made.clone()));
    until_more(&made, 100).await;
    let leader = cluster.leader(&store).await;
    cluster.signal_member(leader, "-STOP");
    let began = Instant::now();
    until_more(&made, 20).await;
    let (writes_after, began) = (began.elapsed(), Instant::now());
    store.range(Range::prefix("h/"), At::Latest, 0).await.unwrap();
    eprintln!(
        "member {leader} led and hung; twenty commits after {writes_after:?}, then a read in {:?}",
        began.elapsed()
    );
    until_more(&made, 100).await;
    cluster.signal_member(leader, "-CONT");
    until_more(&made, 100).await;
    stop.store(true, Ordering::SeqCst);
    let told = writing.await.unwrap();
    let seen = history::read(&*store, &mut watch).await;
    history::check(&seen, &told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_lost_as_a_whole_is_taken_up_where_it_was() {
    let Some(cluster) = Cluster::start(3, false, &[]).await else { return };
    let mut options = cluster.options("/whole");
    options.patience = Duration::from_secs(3);
    let store = Arc::new(Etcd::open(options).await.unwrap());
    let mut watch = store.watch(Range::prefix("h/"), store.revision()).unwrap();
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn(history::write(store.clone(), "w", 8, stop.clone(), made.clone()));
    until_more(&made, 100).await;
    for i in 0..3 {
        cluster.kill_member(i);
    }
    let read = store.range(Range::prefix("h/"), At::Latest, 0).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "a read is not answered out of memory: {read:?}");
    for i in 0..3 {
        cluster.start_member(i);
    }
    until_more(&made, 100).await;
    stop.store(true, Ordering::SeqCst);
    let told = writing.await.unwrap();
    let seen = history::read(&*store, &mut watch).await;
    history::check(&seen, &told);
    let count = |what| told.values().filter(|told| **told == what).count();
    eprintln!("{} refused, {} unknown of {}", count(history::Told::NotMade), count(history::Told::Unknown), told.len());
}

/// Run it by name, with `--release --ignored --nocapture`: it measures.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn figures() {
    const TASKS: usize = 64;
    let Some(cluster) = Cluster::start(3, true, &[]).await else { return };
    let store = Arc::new(cluster.open("/figures").await);
    let value = Bytes::from(vec![b'x'; 1024]);
    for what in ["commits", "reads"] {
        let (began, count) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let tasks = (0..TASKS).map(|task| {
            let (store, value, count) = (store.clone(), value.clone(), count.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                for n in 0.. {
                    let call = Instant::now();
                    if began.elapsed() > Duration::from_secs(5) {
                        break;
                    }
                    let key = format!("{task}/{n}");
                    if what == "commits" {
                        write(&*store, vec![put(key, value.clone())]).await;
                    } else {
                        read(&*store, &format!("{task}/0")).await.unwrap();
                    }
                    slowest = slowest.max(call.elapsed());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                slowest
            })
        });
        let slowest = futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).max();
        eprintln!("{} {what}/s of 1 KiB by {TASKS} tasks, the slowest {slowest:?}", count.load(Ordering::Relaxed) / 5);
    }
}
