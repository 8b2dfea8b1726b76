//! The project's own chores: `cargo run -p xtask -- arrows`.

mod arrows;
mod bench;
mod sim;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Chores of the project")]
enum Chore {
    /// Check that crates use only the crates that they may
    Arrows,
    /// Measure the whole binary
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Lives of clusters on clouds that fail, by seed
    Sim(sim::Sim),
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Arrows => arrows::check(),
        Chore::Bench(bench) => bench::run(bench),
        Chore::Sim(sim) => sim::run(sim),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
