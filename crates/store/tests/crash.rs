//! A process that writes is killed at random moments; what it said was done must be there, and nothing half done.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use store::{At, Commit, Embedded, Guard, Limits, Op, Range, Revision, SharedStore, Store};

const ROUNDS: usize = 200;
const WRITERS: usize = 4;
const FILE: &str = "STORE_CRASH_FILE";

/// What a writer's step does: every fourth one deletes its two keys, the others write the step's number to both.
fn ops(writer: usize, step: u64) -> Vec<Op> {
    ["left", "right"]
        .into_iter()
        .map(|side| {
            let key = Bytes::from(format!("{writer}/{side}"));
            if step % 4 == 3 { Op::Delete { key } } else { Op::Put { key, value: step.to_string().into() } }
        })
        .collect()
}

/// The step that a writer's two keys stand at; none if they are absent. They must agree.
async fn stands_at(store: &dyn Store, writer: usize) -> Option<u64> {
    let page = store.range(Range::prefix(format!("{writer}/")), At::Latest, 0).await.unwrap();
    let steps: Vec<u64> =
        page.items.iter().map(|item| std::str::from_utf8(&item.value).unwrap().parse().unwrap()).collect();
    match steps[..] {
        [] => None,
        [left, right] if left == right => Some(left),
        _ => panic!("writer {writer}: a torn commit: {:?}", page.items),
    }
}

/// The child: runs only when the parent test says where to write.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Ok(file) = std::env::var(FILE) else { return };
    let first: u64 = std::env::var("STORE_CRASH_STEP").unwrap().parse().unwrap();
    let store: SharedStore = Arc::new(Embedded::open(Path::new(&file), Limits::default()).unwrap());
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        async move {
            for step in first.. {
                let Commit::Done(revision) = store.commit(Guard::default(), ops(writer, step)).await.unwrap() else {
                    panic!("no guard, no conflict");
                };
                // One write call a line: a line is there whole or not at all.
                let line = format!("ack {writer} {step} {revision}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        }
    });
    join_all(writers).await;
}

fn spawn(file: &Path, step: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_writes_until_it_is_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .env("STORE_CRASH_STEP", step.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs one child, kills it after `lines` acknowledgements, and returns each writer's last one, and the last revision.
fn round(file: &Path, first: u64, lines: usize) -> ([Option<u64>; WRITERS], Revision) {
    let mut child = spawn(file, first);
    let mut acknowledged = [None; WRITERS];
    let mut last = Revision(0);
    let mut count = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(rest) = line.find("ack ").and_then(|at| line.get(at + 4..)) else { continue };
        let numbers: Vec<u64> = rest.split(' ').map(|number| number.parse().unwrap()).collect();
        let [writer, step, revision] = numbers[..] else { panic!("{line}") };
        acknowledged[usize::try_from(writer).unwrap()] = Some(step);
        last = last.max(Revision(revision));
        count += 1;
        if count == lines {
            // SIGKILL; what is already in the pipe is still read.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= lines, "the child ended by itself after {count} lines");
    (acknowledged, last)
}

#[tokio::test]
async fn a_killed_process_leaves_every_acknowledged_commit_and_no_torn_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crash.db");
    let mut random = StdRng::seed_from_u64(7);
    let mut first = 0;
    for round_number in 0..ROUNDS {
        let lines = random.random_range(1..40);
        let (acknowledged, last) = round(&file, first, lines);
        let store = Embedded::open(&file, Limits::default()).unwrap();
        assert!(store.revision() >= last, "round {round_number}: revision {} < {last}", store.revision());
        for (writer, step) in acknowledged.into_iter().enumerate() {
            let held = stands_at(&store, writer).await;
            let expect = |step: u64| (step % 4 != 3).then_some(step);
            // At most one commit of a writer was under way, or acknowledged without the line getting out.
            let allowed = match step {
                Some(step) => held == expect(step) || held == expect(step + 1),
                None => held == expect(first) || held.is_none_or(|held| held < first),
            };
            assert!(allowed, "round {round_number}: writer {writer} acknowledged {step:?}, but stands at {held:?}");
            first = first.max(step.unwrap_or(0) + 2).next_multiple_of(4);
        }
    }
}
