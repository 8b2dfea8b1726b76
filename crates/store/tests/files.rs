//! Store files from outside: backups of a store that is written to, and files that are damaged.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use store::{
    At, Commit, Embedded, Error, Guard, Limits, Op, Range, Revision, Snapshot, Store,
    engine::{examine, lock, read_file, write_file},
};

/// Of a log's header, and of a frame.
const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

async fn write(store: &Embedded, ops: Vec<Op>) -> Revision {
    match store.commit(Guard::default(), ops).await.unwrap() {
        Commit::Done(revision) => revision,
        Commit::Conflict { .. } => panic!("no guard, no conflict"),
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put { key: key.into(), value: value.into() }
}

fn text(error: &Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_store_is_of_one_revision_and_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("live.db"), folder.path().join("backup.skep"));
    let store = Arc::new(Embedded::open(&path, Limits::default()).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    write(&store, vec![put("left", "0"), put("right", "0")]).await;
    let (writer, ended) = (store.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut n = 0_u32;
        while !ended.load(Ordering::SeqCst) {
            n += 1;
            write(&writer, vec![put("left", n.to_string()), put("right", n.to_string()), put(format!("k{n}"), "x")])
                .await;
        }
        n
    });
    let mut last = Revision(0);
    while last < Revision(40) {
        let before = store.revision();
        let snapshot = read_file(&path).unwrap();
        assert!(snapshot.revision >= before && snapshot.revision >= last, "an acknowledged commit is in it");
        last = snapshot.revision;
        let value = |key: &str| snapshot.items.iter().find(|item| item.key == key).unwrap().value.clone();
        assert_eq!(value("left"), value("right"), "no commit is in it by half");
        assert_eq!(snapshot.problems(), Vec::<String>::new());
        tokio::task::yield_now().await;
    }
    let snapshot = read_file(&path).unwrap();
    stop.store(true, Ordering::SeqCst);
    assert!(writing.await.unwrap() > 10);
    write_file(&backup, &snapshot, snapshot.revision, Some("2026-11-21T00:00:00Z")).unwrap();
    assert_eq!(read_file(&backup).unwrap(), snapshot);
    let examined = examine(&backup);
    assert_eq!((examined.problems, examined.taken_at.as_deref()), (Vec::new(), Some("2026-11-21T00:00:00Z")));
    assert!(write_file(&backup, &snapshot, snapshot.revision, None).is_err(), "nothing is written over");
    let refused = Embedded::open(&backup, Limits::default()).err().unwrap();
    assert!(text(&refused).contains("skep store restore"), "{}", text(&refused));
    assert!(lock(&path).is_err(), "the live one is held by its store");

    let restored = folder.path().join("restored.db");
    let ahead = Revision(snapshot.revision.0 + 1_000_000);
    write_file(&restored, &snapshot, ahead, None).unwrap();
    let again = Embedded::open(&restored, Limits::default()).unwrap();
    assert_eq!((again.revision(), again.compacted()), (ahead, ahead));
    let taken = Snapshot::take(&again, At::Latest).await.unwrap();
    assert_eq!(taken.items, snapshot.items, "resource versions are those of the backup");
    assert!(matches!(again.watch(Range::prefix(""), store.revision()), Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_backup_that_was_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.skep");
    let store = Embedded::memory(Limits::default());
    write(&store, vec![put("a", "a-value-that-is-found")]).await;
    let snapshot = Snapshot::take(&store, At::Latest).await.unwrap();
    write_file(&backup, &snapshot, snapshot.revision, Some("now")).unwrap();
    let mut bytes = fs::read(&backup).unwrap();
    let at = bytes.windows(7).position(|window| window == b"a-value").unwrap();
    bytes[at] = b'b';
    fs::write(&backup, bytes).unwrap();
    let refused = read_file(&backup).err().unwrap().to_string();
    assert!(refused.contains("the seal does not hold"), "{refused}");
    assert!(examine(&backup).problems[0].contains("the seal does not hold"));
}

#[tokio::test]
async fn a_snapshot_is_written_into_an_empty_store_only() {
    let from = Embedded::memory(Limits::default());
    for n in 0..250 {
        write(&from, vec![put(format!("k{n}"), vec![b'x'; 9_000])]).await;
    }
    let snapshot = Snapshot::take(&from, At::Latest).await.unwrap();
    let to = Embedded::memory(Limits::default());
    assert!(snapshot.write_into(&to).await.unwrap().is_none());
    let copied = Snapshot::take(&to, At::Latest).await.unwrap();
    assert!(snapshot.difference(&copied).is_none());
    let refused = snapshot.write_into(&to).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
}

/// A store as a crash leaves it: the file, and a log of one commit for each of `k0`, `k1`, ...
async fn crashed(folder: &Path, commits: usize) -> (PathBuf, PathBuf, usize) {
    let path = folder.join("live.db");
    let store = Embedded::open(&path, Limits::default()).unwrap();
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    let empty = fs::metadata(log(&path)).unwrap().len();
    for n in 0..commits {
        write(&store, vec![put(format!("k{n}"), n.to_string())]).await;
    }
    let image = folder.join("image.db");
    fs::copy(&path, &image).unwrap();
    fs::copy(log(&path), log(&image)).unwrap();
    drop(store);
    let log = log(&image);
    (image, log, usize::try_from(empty).unwrap())
}

#[tokio::test]
async fn a_torn_end_of_the_log_costs_what_was_not_whole_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (image, log, before) = crashed(folder.path(), 8).await;
    let (whole, file) = (fs::read(&log).unwrap(), fs::read(&image).unwrap());
    assert_eq!((whole.len() - LOG_HEADER) % FRAME, 0);
    let mut opened = Vec::new();
    // At every 512 bytes, which is what a disk writes at once.
    for length in (before.max(LOG_HEADER)..=whole.len()).step_by(512).chain([whole.len()]) {
        fs::write(&image, &file).unwrap();
        fs::write(&log, &whole[..length]).unwrap();
        let examined = examine(&image);
        assert_eq!(examined.problems, Vec::<String>::new(), "at {length}");
        let store = Embedded::open(&image, Limits::default()).unwrap();
        let page = store.range(Range::prefix("k"), At::Latest, 0).await.unwrap();
        let held = store.revision().0;
        assert_eq!(page.items.len() as u64, held, "at {length}: a whole number of commits");
        let rest = length > before && examined.notes.is_empty();
        opened.push((held, rest));
        drop(store);
        let _ = fs::remove_file(&log);
    }
    assert!(opened.is_sorted_by_key(|(held, _)| *held), "{opened:?}");
    assert_eq!(opened.last(), Some(&(8, true)), "the whole log is all commits");
    assert!(opened.iter().any(|(_, whole)| !whole), "what was dropped is said");
}

#[tokio::test]
async fn a_log_that_is_damaged_before_its_end_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (image, log, _) = crashed(folder.path(), 8).await;
    let mut bytes = fs::read(&log).unwrap();
    let frames = (bytes.len() - LOG_HEADER) / FRAME;
    let at = LOG_HEADER + (frames / 2) * FRAME + 1_000;
    bytes[at] ^= 0xff;
    fs::write(&log, bytes).unwrap();
    let refused = text(&Embedded::open(&image, Limits::default()).err().unwrap());
    assert!(refused.contains("its log is damaged") && refused.contains("truncate"), "{refused}");
    let problems = examine(&image).problems;
    assert!(problems[0].contains("the log is damaged behind byte"), "{problems:?}");
    // What the message says to do, does.
    let bytes: u64 = refused.rsplit(" to ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(bytes).unwrap();
    let store = Embedded::open(&image, Limits::default()).unwrap();
    assert!(store.revision() >= Revision(2) && store.revision() < Revision(8), "{}", store.revision());
}

#[tokio::test]
async fn a_file_with_a_damaged_page_is_refused_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.db");
    let store = Embedded::open(&path, Limits::default()).unwrap();
    for n in 0..50 {
        write(&store, vec![put(format!("k{n:02}"), vec![b'x'; 2_000])]).await;
    }
    store.compact(store.revision()).await.unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    for page in pages / 2..pages / 2 + 4 {
        bytes[page * 4096..page * 4096 + 64].fill(0xaa);
    }
    fs::write(&path, bytes).unwrap();
    let problems = examine(&path).problems;
    assert!(!problems.is_empty());
    assert!(matches!(Embedded::open(&path, Limits::default()), Err(Error::Open { .. })), "{problems:?}");
    fs::write(&path, [0xaa; 100]).unwrap();
    assert!(examine(&path).problems[0].contains("cannot be read"));
}
