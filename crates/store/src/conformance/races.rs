use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};

use super::{put, write};
use crate::{At, Commit, Event, Expect, Guard, Op, Range, SharedStore, WatchItem};

const WRITERS: u64 = 8;
const ROUNDS: u64 = 25;

/// Adds one to the number at the key, as often as it takes.
async fn increment(store: &SharedStore, key: &'static str) {
    loop {
        let page = store.range(Range::key(key), At::Latest, 0).await.expect("read");
        let item = page.items.first().expect("the counter exists");
        let value: u64 = std::str::from_utf8(&item.value).expect("text").parse().expect("a number");
        let guard = Guard(vec![(key.into(), Expect::ModifiedAt(item.modified))]);
        let ops = vec![Op::Put { key: key.into(), value: (value + 1).to_string().into() }];
        if let Commit::Done(_) = store.commit(guard, ops).await.expect("a commit") {
            return;
        }
    }
}

pub async fn no_update_is_lost(store: &SharedStore) {
    write(store, vec![put("n", "0")]).await;
    let writers = (0..WRITERS).map(|_| async {
        for _ in 0..ROUNDS {
            increment(store, "n").await;
        }
    });
    join_all(writers).await;
    let page = store.range(Range::key("n"), At::Latest, 0).await.expect("read");
    assert_eq!(page.items[0].value, (WRITERS * ROUNDS).to_string());
}

pub async fn a_list_and_a_watch_add_up_to_the_state(store: &SharedStore) {
    let mut writers: FuturesUnordered<_> = (0..WRITERS)
        .map(|writer| async move {
            for round in 0..ROUNDS {
                let key = Bytes::from(format!("k{}", (writer + round) % 5));
                let op = match (writer * 7 + round) % 3 {
                    0 => Op::Delete { key },
                    _ => Op::Put { key, value: format!("{writer}-{round}").into() },
                };
                write(store, vec![op]).await;
            }
        })
        .collect();
    // The list is taken somewhere in the middle of the writes.
    writers.next().await;
    let page = store.range(Range::prefix("k"), At::Latest, 0).await.expect("list");
    let mut watch = store.watch(Range::prefix("k"), page.revision).expect("watch");
    while writers.next().await.is_some() {}
    watch.progress();
    let mut seen: BTreeMap<Bytes, _> = page.items.into_iter().map(|item| (item.key.clone(), item)).collect();
    let mut last = page.revision;
    loop {
        match watch.next().await.expect("the watch stays open") {
            WatchItem::Event(event) => {
                assert!(event.revision() > last, "one key a commit, so revisions rise");
                last = event.revision();
                let before = match &event {
                    Event::Put { item, prev } => {
                        let before = seen.insert(item.key.clone(), item.clone());
                        assert_eq!(before, *prev);
                        continue;
                    }
                    Event::Delete { prev, .. } => prev,
                };
                assert_eq!(seen.remove(&before.key).as_ref(), Some(before));
            }
            WatchItem::Bookmark(_) => break,
            WatchItem::Compacted => panic!("the reader kept up"),
        }
    }
    let now = store.range(Range::prefix("k"), At::Latest, 0).await.expect("list");
    assert_eq!(seen.into_values().collect::<Vec<_>>(), now.items);
}
