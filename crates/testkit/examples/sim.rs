//! Many lives of clusters on clouds that fail: `cargo xtask sim`.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// `<first> <count> <at once> [tell]`.
#[expect(clippy::print_stdout, reason = "the count is the program's output")]
fn main() -> ExitCode {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [first, count, threads] = arguments[..] else {
        eprintln!("usage: sim <first seed> <seeds> <at once> [tell]");
        return ExitCode::from(2);
    };
    let tell = std::env::args().any(|argument| argument == "tell");
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let started = Instant::now();
                    match testkit::sim::run(seed) {
                        Ok(log) if tell => eprintln!("{log}seed {seed} passed in {:.1?}", started.elapsed()),
                        Ok(_) => eprintln!("seed {seed} passed in {:.1?}", started.elapsed()),
                        Err(why) => {
                            eprintln!("seed {seed} FAILED: {why}");
                            let line = why.lines().next().unwrap_or_default().to_owned();
                            failed.lock().expect("nobody panics with it").push((seed, line));
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("nobody panics with it");
    failed.sort();
    for (seed, why) in &failed {
        println!("seed {seed}: {why}");
    }
    println!("{} passed, {} failed", count - failed.len() as u64, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
