//! Many lives of clusters on clouds that fail: `cargo xtask sim`.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;

#[derive(Parser)]
struct Sim {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this one, and tell its whole life
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Lives at once (none: one for each core)
    #[arg(long)]
    jobs: Option<usize>,
}

#[expect(clippy::print_stdout, reason = "the count is the program's output")]
fn main() -> ExitCode {
    let sim = Sim::parse();
    let tell = sim.seed.is_some();
    let (first, count) = sim.seed.map_or((sim.from, sim.seeds), |seed| (seed, 1));
    let threads = sim.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
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
