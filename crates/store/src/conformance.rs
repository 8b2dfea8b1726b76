//! What every [`Store`](crate::Store) must do, as checks that panic. Run by the tests of each implementation; a new one
//! calls [`suite`] with a way to make empty stores (or views of a store that others write to: only differences between
//! revisions are relied on).

mod commits;
mod races;
mod reads;
mod watches;

use bytes::Bytes;
use futures::StreamExt;

use crate::{Commit, Event, Guard, KeyValue, Op, Revision, SharedStore, Watch, WatchItem};

/// Runs every check, each on a store of its own.
///
/// # Panics
/// When the implementation does not keep the contract; the message says where.
pub async fn suite(make: impl AsyncFn() -> SharedStore) {
    commits::a_put_is_read_back(&make().await).await;
    commits::created_stays_and_modified_moves(&make().await).await;
    commits::deleting_what_is_absent_changes_nothing(&make().await).await;
    commits::a_guard_that_does_not_hold_changes_nothing(&make().await).await;
    commits::guards_tell_absent_from_modified(&make().await).await;
    commits::a_key_twice_in_a_commit_is_refused(&make().await).await;
    commits::any_bytes_are_kept(&make().await).await;
    reads::pages_are_consistent_while_others_write(&make().await).await;
    reads::ranges_are_half_open(&make().await).await;
    reads::history_is_read_until_it_is_compacted(&make().await).await;
    reads::compaction_keeps_the_latest(&make().await).await;
    watches::events_come_in_order_with_what_was_before(&make().await).await;
    watches::a_watch_replays_what_it_missed(&make().await).await;
    watches::a_watch_sees_its_range_only(&make().await).await;
    watches::a_commit_has_one_revision(&make().await).await;
    watches::a_watch_from_compacted_history_is_refused(&make().await).await;
    watches::a_watch_from_the_future_is_refused(&make().await).await;
    watches::a_bookmark_follows_the_events(&make().await).await;
    races::no_update_is_lost(&make().await).await;
    races::a_list_and_a_watch_add_up_to_the_state(&make().await).await;
}

fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
}

fn delete(key: &'static str) -> Op {
    Op::Delete { key: Bytes::from_static(key.as_bytes()) }
}

/// Commits without a guard.
async fn write(store: &SharedStore, ops: Vec<Op>) -> Revision {
    match store.commit(Guard::default(), ops).await.expect("a commit without a guard") {
        Commit::Done(revision) => revision,
        Commit::Conflict { key, .. } => panic!("a commit without a guard conflicts at {key:?}"),
    }
}

fn item(key: &'static str, value: &'static str, created: Revision, modified: Revision) -> KeyValue {
    KeyValue { key: key.into(), value: value.into(), created, modified }
}

async fn next_event(watch: &mut Watch) -> Event {
    match watch.next().await {
        Some(WatchItem::Event(event)) => event,
        other => panic!("an event was due, not {other:?}"),
    }
}
