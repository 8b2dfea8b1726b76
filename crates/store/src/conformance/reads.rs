use super::{delete, item, put, write};
use crate::{At, Error, Page, Range, Revision, SharedStore};

fn keys(page: &Page) -> Vec<&[u8]> {
    page.items.iter().map(|item| &item.key[..]).collect()
}

pub async fn pages_are_consistent_while_others_write(store: &SharedStore) {
    write(store, vec![put("p/a", "1"), put("p/b", "1"), put("p/c", "1"), put("p/d", "1"), put("q", "1")]).await;
    let first = store.range(Range::prefix("p/"), At::Latest, 2).await.expect("the first page");
    assert_eq!(keys(&first), [b"p/a", b"p/b"]);
    assert_eq!(first.remaining, 2);
    write(store, vec![delete("p/c"), put("p/d", "2"), put("p/e", "2")]).await;
    let mut rest = Range::prefix("p/");
    rest.start = "p/b\0".into();
    let second = store.range(rest, At::Exact(first.revision), 2).await.expect("the second page");
    assert_eq!(keys(&second), [b"p/c", b"p/d"]);
    assert_eq!(second.items[1].value, "1");
    assert_eq!((second.remaining, second.revision), (0, first.revision));
    let now = store.range(Range::prefix("p/"), At::Latest, 0).await.expect("all of it");
    assert_eq!(keys(&now), [b"p/a", b"p/b", b"p/d", b"p/e"]);
    assert!(now.revision > first.revision);
}

pub async fn ranges_are_half_open(store: &SharedStore) {
    write(store, vec![put("a", "1"), put("a\0", "1"), put("b", "1"), put("c", "1")]).await;
    let read = async |start: &'static str, end: Option<&'static str>| {
        let range = Range { start: start.into(), end: end.map(Into::into) };
        let page = store.range(range, At::Latest, 0).await.expect("read a range");
        page.items.into_iter().map(|item| String::from_utf8_lossy(&item.key).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read("a", Some("c")).await, ["a", "a\0", "b"]);
    assert_eq!(read("a\0", None).await, ["a\0", "b", "c"]);
    assert_eq!(read("", None).await, ["a", "a\0", "b", "c"]);
    assert!(read("c", Some("a")).await.is_empty(), "an inverted range is empty");
    assert!(read("b", Some("b")).await.is_empty());
    let page = store.range(Range::key("a"), At::Latest, 0).await.expect("read a key");
    assert_eq!(keys(&page), [b"a"]);
}

pub async fn history_is_read_until_it_is_compacted(store: &SharedStore) {
    let first = write(store, vec![put("a", "1")]).await;
    let second = write(store, vec![put("a", "2"), put("b", "2")]).await;
    let third = write(store, vec![delete("a")]).await;
    let read = async |at| store.range(Range::prefix(""), At::Exact(at), 0).await.map(|page| page.items);
    assert_eq!(read(first).await.expect("history"), [item("a", "1", first, first)]);
    assert_eq!(read(second).await.expect("history"), [item("a", "2", first, second), item("b", "2", second, second)]);
    assert_eq!(read(third).await.expect("history"), [item("b", "2", second, second)]);
    let future = read(Revision(store.revision().0 + 1_000_000)).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
    store.compact(second).await.expect("compact");
    assert!(store.compacted() >= second);
    let compacted = read(first).await;
    assert!(matches!(compacted, Err(Error::Compacted { .. })), "{compacted:?}");
    assert_eq!(read(second).await.expect("the horizon itself is kept").len(), 2);
    store.compact(first).await.expect("compacting what is compacted does nothing");
    assert!(store.compacted() >= second);
}

pub async fn compaction_keeps_the_latest(store: &SharedStore) {
    let made = write(store, vec![put("a", "1")]).await;
    let before_bytes = store.size_bytes();
    let mut last = write(store, vec![put("b", "1")]).await;
    for _ in 0..10 {
        last = write(store, vec![put("a", "2")]).await;
    }
    let deleted = write(store, vec![delete("b")]).await;
    store.compact(deleted).await.expect("compact");
    let page = store.range(Range::prefix(""), At::Latest, 0).await.expect("read all");
    assert_eq!(page.items, [item("a", "2", made, last)]);
    assert_eq!(store.size_bytes(), before_bytes, "superseded versions and deletions take no room");
    let future = store.compact(Revision(store.revision().0 + 1_000_000)).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
}
