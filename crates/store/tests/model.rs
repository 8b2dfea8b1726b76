//! Random operations on each store and on a plain map: they must agree at every revision that is kept.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use store::{
    At, Commit, Embedded, Error, Event, Expect, Guard, KeyValue, Limits, Op, Prefixed, Range, Revision, SharedStore,
    WatchItem,
};

#[derive(Clone, Debug)]
enum Step {
    Commit { guard: Option<(u8, Held)>, puts: BTreeMap<u8, Option<u8>> },
    Compact { back: u64 },
    Read { back: u64, start: u8, end: Option<u8>, limit: usize },
    Reopen,
}

/// Which condition is put on a key: one that holds, or one that may not.
#[derive(Clone, Copy, Debug)]
enum Held {
    Absent,
    Current,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let held = prop_oneof![Just(Held::Absent), Just(Held::Current), Just(Held::Stale)];
    let puts = prop::collection::btree_map(0..8u8, prop::option::weighted(0.7, any::<u8>()), 0..4);
    let commit = (prop::option::of((0..8u8, held)), puts).prop_map(|(guard, puts)| Step::Commit { guard, puts });
    let read = (0..12u64, 0..8u8, prop::option::of(0..9u8), 0..4usize)
        .prop_map(|(back, start, end, limit)| Step::Read { back, start, end, limit });
    let compact = (0..8u64).prop_map(|back| Step::Compact { back });
    prop::collection::vec(prop_oneof![8 => commit, 4 => read, 1 => compact, 1 => Just(Step::Reopen)], 1..60)
}

fn key(n: u8) -> Bytes {
    Bytes::from(format!("k{n}"))
}

type State = BTreeMap<Bytes, KeyValue>;

/// Every state there ever was, and the events between them.
#[derive(Default)]
struct Model {
    states: Vec<State>,
    events: Vec<Event>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn latest(&self) -> &State {
        self.states.last().expect("the empty state is first")
    }

    fn commit(&mut self, puts: &BTreeMap<u8, Option<u8>>) {
        let mut next = self.latest().clone();
        let revision = Revision(self.revision() + 1);
        let mut changed = false;
        for (n, value) in puts {
            let prev = next.get(&key(*n)).cloned();
            if let Some(value) = value {
                let created = prev.as_ref().map_or(revision, |item| item.created);
                let item = KeyValue { key: key(*n), value: vec![*value].into(), created, modified: revision };
                next.insert(key(*n), item.clone());
                self.events.push(Event::Put { item, prev });
                changed = true;
            } else if let Some(prev) = prev {
                next.remove(&key(*n));
                self.events.push(Event::Delete { revision, prev });
                changed = true;
            }
        }
        if changed {
            self.states.push(next);
        }
    }
}

async fn check_watch(store: &SharedStore, model: &Model, after: u64) {
    let mut watch = store.watch(Range::prefix("k"), Revision(after)).expect("kept history can be watched");
    watch.progress();
    let mut seen = Vec::new();
    while let Some(WatchItem::Event(event)) = watch.next().await {
        seen.push(event);
    }
    let expected: Vec<_> = model.events.iter().filter(|event| event.revision().0 > after).cloned().collect();
    assert_eq!(seen, expected);
}

async fn check_read(store: &SharedStore, model: &Model, back: u64, start: u8, end: Option<u8>, limit: usize) {
    let Some(at) = model.revision().checked_sub(back) else { return };
    let range = Range { start: key(start), end: end.map(key) };
    let got = store.range(range.clone(), At::Exact(Revision(at)), limit).await;
    if at < model.compacted {
        assert!(matches!(got, Err(Error::Compacted { .. })), "{got:?}");
        return;
    }
    let page = got.expect("kept history can be read");
    let state = model.states.get(usize::try_from(at).expect("small")).expect("a revision that was made");
    let mut expected: Vec<_> = state.values().filter(|item| range.contains(&item.key)).cloned().collect();
    let cut = if limit == 0 { expected.len() } else { expected.len().min(limit) };
    assert_eq!(page.remaining, (expected.len() - cut) as u64);
    expected.truncate(cut);
    assert_eq!(page.items, expected);
}

async fn run(steps: Vec<Step>, open: impl Fn() -> SharedStore, durable: bool) {
    let mut store = open();
    let mut model = Model { states: vec![State::new()], ..Model::default() };
    for step in steps {
        match step {
            Step::Commit { guard, puts } => {
                let condition = guard.map(|(n, held)| {
                    let current = model.latest().get(&key(n)).map(|item| item.modified);
                    let expect = match (held, current) {
                        (Held::Absent, _) => Expect::Absent,
                        (Held::Current, Some(at)) => Expect::ModifiedAt(at),
                        (Held::Current, None) => Expect::ModifiedAt(Revision(1)),
                        (Held::Stale, at) => Expect::ModifiedAt(Revision(at.map_or(0, |at| at.0 - 1))),
                    };
                    let holds = current.map_or(expect == Expect::Absent, |at| expect == Expect::ModifiedAt(at));
                    (key(n), expect, holds)
                });
                let ops = puts.iter().map(|(n, value)| match value {
                    Some(value) => Op::Put { key: key(*n), value: vec![*value].into() },
                    None => Op::Delete { key: key(*n) },
                });
                let guard = Guard(condition.iter().map(|(key, expect, _)| (key.clone(), *expect)).collect());
                let outcome = store.commit(guard, ops.collect()).await.expect("an engine that works");
                let expected = match condition {
                    Some((key, _, false)) => Commit::Conflict { current: model.latest().get(&key).cloned(), key },
                    _ => {
                        model.commit(&puts);
                        Commit::Done(Revision(model.revision()))
                    }
                };
                assert_eq!(outcome, expected);
            }
            Step::Compact { back } => {
                let below = model.revision().saturating_sub(back);
                store.compact(Revision(below)).await.expect("compact");
                model.compacted = model.compacted.max(below);
            }
            Step::Read { back, start, end, limit } => check_read(&store, &model, back, start, end, limit).await,
            Step::Reopen if durable => {
                drop(store);
                store = open();
                model.compacted = model.revision();
            }
            Step::Reopen => {}
        }
        assert_eq!(store.revision(), Revision(model.revision()));
        assert_eq!(store.compacted(), Revision(model.compacted));
    }
    check_watch(&store, &model, model.compacted).await;
    store.compact(store.revision()).await.expect("compact");
    let bytes: usize = model.latest().values().map(|item| item.key.len() + item.value.len()).sum();
    if durable {
        assert_eq!(store.size_bytes(), bytes as u64);
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn memory_agrees_with_a_map(steps in steps()) {
        block_on(run(steps, || Arc::new(Embedded::memory(Limits::default())), false));
    }

    #[test]
    fn packed_values_agree_with_a_map(steps in steps(), new_commits in 0..4_usize) {
        let limits = || Limits { new_commits, ..Limits::default() };
        block_on(run(steps, || Arc::new(Embedded::memory(limits())), false));
    }

    #[test]
    fn a_view_agrees_with_a_map(steps in steps()) {
        block_on(run(steps, || {
            let whole: SharedStore = Arc::new(Embedded::memory(Limits::default()));
            Arc::new(Prefixed::new(whole, "a/long/prefix/"))
        }, false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_agrees_with_a_map(steps in steps()) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.db");
        block_on(run(steps, || Arc::new(Embedded::open(&path, Limits::default()).expect("open")), true));
    }
}
