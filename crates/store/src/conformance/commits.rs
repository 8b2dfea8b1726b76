use bytes::Bytes;

use super::{delete, item, put, write};
use crate::{At, Commit, Error, Expect, Guard, Op, Range, Revision, SharedStore};

async fn read(store: &SharedStore, key: &'static str) -> Option<crate::KeyValue> {
    store.range(Range::key(key), At::Latest, 0).await.expect("read a key").items.pop()
}

pub async fn a_put_is_read_back(store: &SharedStore) {
    assert_eq!(read(store, "a").await, None);
    let before = store.revision();
    let made = write(store, vec![put("a", "1")]).await;
    assert!(made > before, "a commit takes a new revision");
    assert_eq!(read(store, "a").await, Some(item("a", "1", made, made)));
    assert!(store.revision() >= made);
    assert!(store.size_bytes() >= 2);
}

pub async fn created_stays_and_modified_moves(store: &SharedStore) {
    let made = write(store, vec![put("a", "1")]).await;
    let changed = write(store, vec![put("a", "2")]).await;
    assert!(changed > made);
    assert_eq!(read(store, "a").await, Some(item("a", "2", made, changed)));
    let same = write(store, vec![put("a", "2")]).await;
    assert!(same > changed, "writing an equal value is a change");
    write(store, vec![delete("a")]).await;
    assert_eq!(read(store, "a").await, None);
    let again = write(store, vec![put("a", "3")]).await;
    assert_eq!(read(store, "a").await, Some(item("a", "3", again, again)));
}

pub async fn deleting_what_is_absent_changes_nothing(store: &SharedStore) {
    let made = write(store, vec![put("a", "1")]).await;
    let nothing = write(store, vec![delete("b")]).await;
    let empty = write(store, Vec::new()).await;
    assert!(nothing >= made && empty >= nothing);
    let both = write(store, vec![delete("b"), put("c", "1")]).await;
    assert_eq!(read(store, "c").await, Some(item("c", "1", both, both)));
    assert_eq!(read(store, "a").await, Some(item("a", "1", made, made)));
}

pub async fn a_guard_that_does_not_hold_changes_nothing(store: &SharedStore) {
    let made = write(store, vec![put("a", "1"), put("b", "1")]).await;
    let guard = Guard(vec![("a".into(), Expect::ModifiedAt(made)), ("b".into(), Expect::Absent)]);
    let outcome = store.commit(guard, vec![put("a", "2"), delete("b"), put("c", "1")]).await.expect("a conflict");
    assert_eq!(outcome, Commit::Conflict { key: "b".into(), current: Some(item("b", "1", made, made)) });
    assert_eq!(read(store, "a").await, Some(item("a", "1", made, made)));
    assert_eq!(read(store, "b").await, Some(item("b", "1", made, made)));
    assert_eq!(read(store, "c").await, None);
}

pub async fn guards_tell_absent_from_modified(store: &SharedStore) {
    let absent = || Guard(vec![("a".into(), Expect::Absent)]);
    let at = |revision| Guard(vec![("a".into(), Expect::ModifiedAt(revision))]);
    let outcome = store.commit(at(Revision(1)), vec![put("a", "1")]).await.expect("a conflict");
    assert_eq!(outcome, Commit::Conflict { key: "a".into(), current: None });
    let Commit::Done(made) = store.commit(absent(), vec![put("a", "1")]).await.expect("a commit") else {
        panic!("an absent key is absent");
    };
    let outcome = store.commit(absent(), vec![put("a", "2")]).await.expect("a conflict");
    assert_eq!(outcome, Commit::Conflict { key: "a".into(), current: Some(item("a", "1", made, made)) });
    let Commit::Done(changed) = store.commit(at(made), vec![put("a", "2")]).await.expect("a commit") else {
        panic!("the key was last written at {made}");
    };
    let outcome = store.commit(at(made), vec![delete("a")]).await.expect("a conflict");
    assert_eq!(outcome, Commit::Conflict { key: "a".into(), current: Some(item("a", "2", made, changed)) });
    let outcome = store.commit(at(changed), vec![delete("a")]).await.expect("a commit");
    assert!(matches!(outcome, Commit::Done(_)));
    let outcome = store.commit(absent(), vec![put("a", "3")]).await.expect("a commit");
    assert!(matches!(outcome, Commit::Done(_)), "a deleted key is absent");
}

pub async fn a_key_twice_in_a_commit_is_refused(store: &SharedStore) {
    let refused = store.commit(Guard::default(), vec![put("a", "1"), delete("a")]).await;
    assert!(matches!(refused, Err(Error::DuplicateKey { .. })), "{refused:?}");
    assert_eq!(read(store, "a").await, None);
}

pub async fn any_bytes_are_kept(store: &SharedStore) {
    let key = Bytes::from((0..=255).collect::<Vec<u8>>());
    let value = Bytes::from((0..=255).rev().cycle().take(100_000).collect::<Vec<u8>>());
    let ops = vec![
        Op::Put { key: key.clone(), value: value.clone() },
        Op::Put { key: Bytes::from_static(b"\xff\xff"), value: Bytes::new() },
    ];
    write(store, ops).await;
    let page = store.range(Range::key(key.clone()), At::Latest, 0).await.expect("read a key");
    assert_eq!(page.items.len(), 1);
    assert_eq!((&page.items[0].key, &page.items[0].value), (&key, &value));
    let page = store.range(Range::prefix(&b"\xff"[..]), At::Latest, 0).await.expect("read a prefix without an end");
    assert_eq!(page.items.len(), 1);
    assert!(page.items[0].value.is_empty());
}
