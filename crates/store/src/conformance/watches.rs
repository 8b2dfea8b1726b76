use futures::{FutureExt, StreamExt};

use super::{delete, item, next_event, put, write};
use crate::{Error, Event, Range, Revision, SharedStore, WatchItem};

pub async fn events_come_in_order_with_what_was_before(store: &SharedStore) {
    let mut watch = store.watch(Range::prefix("a"), store.revision()).expect("watch");
    assert!(watch.next().now_or_never().is_none(), "nothing happened yet");
    let first = write(store, vec![put("a", "1")]).await;
    let second = write(store, vec![put("a", "2")]).await;
    let third = write(store, vec![delete("a")]).await;
    let made = item("a", "1", first, first);
    let changed = item("a", "2", first, second);
    assert_eq!(next_event(&mut watch).await, Event::Put { item: made.clone(), prev: None });
    assert_eq!(next_event(&mut watch).await, Event::Put { item: changed.clone(), prev: Some(made) });
    let gone = next_event(&mut watch).await;
    assert_eq!((gone.revision(), &gone.key()[..]), (third, &b"a"[..]));
    assert_eq!(gone, Event::Delete { revision: third, prev: changed });
}

pub async fn a_watch_replays_what_it_missed(store: &SharedStore) {
    let first = write(store, vec![put("a", "1")]).await;
    let second = write(store, vec![put("b", "1")]).await;
    let third = write(store, vec![delete("a")]).await;
    let mut watch = store.watch(Range::prefix(""), first).expect("watch");
    assert_eq!(next_event(&mut watch).await.revision(), second);
    assert_eq!(next_event(&mut watch).await.revision(), third);
    let fourth = write(store, vec![put("a", "2")]).await;
    assert_eq!(next_event(&mut watch).await.revision(), fourth);
}

pub async fn a_watch_sees_its_range_only(store: &SharedStore) {
    let after = store.revision();
    let open = |range| store.watch(range, after).expect("watch");
    let interval = Range { start: "a".into(), end: Some("ab".into()) };
    let mut watches = [
        (open(Range::key("aa")), vec!["aa"]),
        (open(Range::prefix("a")), vec!["a", "aa", "ab"]),
        (open(interval), vec!["a", "aa"]),
        (open(Range { start: "aa".into(), end: None }), vec!["aa", "ab", "b"]),
    ];
    write(store, vec![put("a", "1")]).await;
    write(store, vec![put("b", "1"), put("aa", "1")]).await;
    write(store, vec![put("ab", "1"), put("A", "1")]).await;
    for (watch, expected) in &mut watches {
        let mut seen = Vec::new();
        for _ in 0..expected.len() {
            seen.push(String::from_utf8_lossy(next_event(watch).await.key()).into_owned());
        }
        seen.sort();
        assert_eq!(seen, *expected);
        assert!(watch.next().now_or_never().is_none());
    }
}

pub async fn a_commit_has_one_revision(store: &SharedStore) {
    let mut watch = store.watch(Range::prefix(""), store.revision()).expect("watch");
    let made = write(store, vec![put("a", "1"), put("b", "1"), put("c", "1")]).await;
    for _ in 0..3 {
        assert_eq!(next_event(&mut watch).await.revision(), made);
    }
    let conflict = crate::Guard(vec![("a".into(), crate::Expect::Absent)]);
    store.commit(conflict, vec![put("d", "1")]).await.expect("a conflict");
    write(store, vec![delete("e")]).await;
    assert!(watch.next().now_or_never().is_none(), "what changed nothing has no event");
}

pub async fn a_watch_from_compacted_history_is_refused(store: &SharedStore) {
    let first = write(store, vec![put("a", "1")]).await;
    let second = write(store, vec![put("a", "2")]).await;
    let third = write(store, vec![put("a", "3")]).await;
    store.compact(second).await.expect("compact");
    let refused = store.watch(Range::key("a"), first);
    assert!(matches!(refused, Err(Error::Compacted { .. })), "{refused:?}");
    let mut watch = store.watch(Range::key("a"), second).expect("what comes after the horizon is kept");
    assert_eq!(next_event(&mut watch).await.revision(), third);
}

pub async fn a_watch_from_the_future_is_refused(store: &SharedStore) {
    let refused = store.watch(Range::key("a"), Revision(store.revision().0 + 1_000_000));
    assert!(matches!(refused, Err(Error::Future { .. })), "{refused:?}");
}

pub async fn a_bookmark_follows_the_events(store: &SharedStore) {
    let mut watch = store.watch(Range::key("a"), store.revision()).expect("watch");
    let seen = write(store, vec![put("a", "1")]).await;
    let other = write(store, vec![put("b", "1")]).await;
    watch.progress();
    watch.progress();
    assert_eq!(next_event(&mut watch).await.revision(), seen);
    match watch.next().await {
        Some(WatchItem::Bookmark(at)) => assert!(at >= other),
        item => panic!("a bookmark was due, not {item:?}"),
    }
    let next = write(store, vec![put("a", "2")]).await;
    assert_eq!(next_event(&mut watch).await.revision(), next, "two requests are one bookmark");
}
