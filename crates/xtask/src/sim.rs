//! Lives of clusters on clouds that fail, many seeds at once: builds testkit's `sim` and runs it. Its last line is
//! `N passed, N failed`.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

#[derive(Args)]
pub struct Sim {
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
    /// Build for release first: pays from some hundred seeds on
    #[arg(long)]
    release: bool,
}

pub fn run(sim: Sim) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--package", "testkit", "--example", "sim"]);
    if sim.release {
        command.arg("--release");
    }
    let (from, seeds) = sim.seed.map_or((sim.from, sim.seeds), |seed| (seed, 1));
    command.args(["--", &from.to_string(), &seeds.to_string(), &sim.jobs.unwrap_or(cores).to_string()]);
    if sim.seed.is_some() {
        command.arg("tell");
    }
    let status = command.status().context("run cargo")?;
    if status.success() { Ok(()) } else { bail!("not all seeds passed") }
}
