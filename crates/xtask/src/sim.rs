//! Lives of clusters on clouds that fail, many seeds at once: builds testkit's `sim` for release, where a seed costs a tenth,
//! and runs it. Its last line is `N passed, N failed`.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Sim {
    /// What `sim` takes: see --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(sim: Sim) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--locked", "--release", "--package", "testkit", "--example", "sim", "--"]);
    let status = command.args(sim.arguments).status().context("run cargo")?;
    if status.success() { Ok(()) } else { bail!("not all seeds passed") }
}
