//! The suite on every store of this crate.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use store::{Embedded, Guard, Limits, Op, Prefixed, SharedStore, conformance};

#[tokio::test]
async fn memory_keeps_the_contract() {
    conformance::suite(async || Arc::new(Embedded::memory(Limits::default())) as SharedStore).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    conformance::suite(async || {
        let path = folder.path().join(format!("{}.db", count.fetch_add(1, Ordering::Relaxed)));
        Arc::new(Embedded::open(&path, Limits::default()).unwrap()) as SharedStore
    })
    .await;
}

#[tokio::test]
async fn a_view_among_others_keeps_the_contract() {
    conformance::suite(async || {
        let whole: SharedStore = Arc::new(Embedded::memory(Limits::default()));
        for (key, value) in [("view", "x"), ("view0", "x"), ("view/", "x")] {
            whole.commit(Guard::default(), vec![Op::Put { key: key.into(), value: value.into() }]).await.unwrap();
        }
        whole.commit(Guard::default(), vec![Op::Delete { key: "view/".into() }]).await.unwrap();
        whole.compact(whole.revision()).await.unwrap();
        Arc::new(Prefixed::new(whole, "view/")) as SharedStore
    })
    .await;
}
