//! Writers whose every value is unique, and what a watch must have shown of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use store::{At, Commit, Error, Event, Guard, Op, Range, Revision, Store, WatchItem};

/// What a writer was told of one of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Made(Revision),
    NotMade,
    Unknown,
}

/// Writes unique values to a few keys, without conditions, until told to stop.
pub async fn write(
    store: Arc<dyn Store>,
    name: &'static str,
    writers: usize,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
) -> HashMap<String, Told> {
    let all = (0..writers).map(|writer| {
        let (store, stop, made) = (store.clone(), stop.clone(), made.clone());
        async move {
            let mut told = HashMap::new();
            for step in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let value = format!("{name}-{writer}-{step}");
                let key = Bytes::from(format!("h/{}", (writer * 7 + step) % 11));
                let outcome = store.commit(Guard::default(), vec![Op::Put { key, value: value.clone().into() }]).await;
                let outcome = match outcome {
                    Ok(Commit::Done(revision)) => {
                        made.fetch_add(1, Ordering::SeqCst);
                        Told::Made(revision)
                    }
                    Ok(Commit::Conflict { .. }) => panic!("no guard, no conflict"),
                    Err(Error::Unavailable { .. }) => Told::NotMade,
                    Err(Error::Unknown { .. }) => Told::Unknown,
                    Err(error) => panic!("{error}"),
                };
                told.insert(value, outcome);
            }
            told
        }
    });
    join_all(all).await.into_iter().flatten().collect()
}

/// Reads a watch up to what `store` holds now: every event in order of revisions, each with what was before it.
pub async fn read(store: &dyn Store, watch: &mut store::Watch) -> Vec<(String, Revision)> {
    let now = store.range(Range::prefix("h/"), At::Latest, 0).await.unwrap();
    watch.progress();
    let mut state: HashMap<Bytes, store::KeyValue> = HashMap::new();
    let mut seen = Vec::new();
    let mut last = Revision(0);
    loop {
        match watch.next().await.expect("the watch stays open") {
            WatchItem::Event(Event::Put { item, prev }) => {
                assert!(item.modified > last, "{} after {last}", item.modified);
                last = item.modified;
                assert_eq!(state.insert(item.key.clone(), item.clone()), prev, "an event is missing before {last}");
                seen.push((String::from_utf8(item.value.to_vec()).unwrap(), item.modified));
            }
            WatchItem::Event(event) => panic!("nothing was deleted: {event:?}"),
            WatchItem::Bookmark(at) if at >= now.revision => break,
            WatchItem::Bookmark(_) => watch.progress(),
            WatchItem::Compacted => panic!("events were lost"),
        }
    }
    for item in now.items {
        assert!(state.remove(&item.key).is_some_and(|held| held.modified >= item.modified), "{item:?} was not shown");
    }
    seen
}

/// What was acknowledged was shown once, at the revision that was told; what was refused was not shown; nothing else was.
pub fn check(seen: &[(String, Revision)], told: &HashMap<String, Told>) {
    let mut by_value: HashMap<&str, Vec<Revision>> = HashMap::new();
    for (value, revision) in seen {
        by_value.entry(value).or_default().push(*revision);
    }
    for (value, told) in told {
        let shown = by_value.remove(value.as_str()).unwrap_or_default();
        match told {
            Told::Made(revision) => assert_eq!(shown, [*revision], "{value} was acknowledged"),
            Told::NotMade => assert!(shown.is_empty(), "{value} was refused and made at {shown:?}"),
            Told::Unknown => assert!(shown.len() <= 1, "{value} was made twice: {shown:?}"),
        }
    }
    assert!(by_value.is_empty(), "nobody wrote {by_value:?}");
}
