//! The one binary: reads its settings, puts the parts together, and nothing else.

mod admission;
mod catalog_server;
mod catalogs;
mod chart_folder;
mod controllers;
mod identity;
mod install;
mod machines;
mod metrics;
mod place;
mod plane;
mod rights;
mod sandbox;
mod security;
mod serve;
mod settings;
mod state;
mod storage;
mod telemetry;
mod up;
mod webhooks;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// docs/decisions/allocator.md
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit codes: 0 done, 1 failed, 2 wrong arguments (clap's own), 3 not ready in time.
const FAILED: u8 = 1;

#[derive(Parser)]
#[command(name = "skep", version, about = "A fleet of Kubernetes clusters from one binary", propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine: management cluster, sandbox cloud, and a demo cluster
    Up(up::Arguments),
    /// Start a management cluster: its API and the controllers
    Serve(Box<serve::Arguments>),
    /// Put Skep's kinds, rights and webhooks into a Kubernetes of your own
    Install(install::Arguments),
    /// Start the controllers beside a Kubernetes of your own
    Controllers(controllers::Arguments),
    /// Start the sandbox cloud: an OpenStack-compatible cloud with hollow machines
    Sandbox(sandbox::Arguments),
    /// Stand in for the servers of a cloud whose servers do not boot (for tests)
    Machines(machines::Arguments),
    /// Check, back up, restore or move what a management cluster keeps
    #[command(subcommand)]
    Store(storage::Command),
    #[command(flatten)]
    User(cli::Command),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = match &arguments.command {
        Command::Serve(arguments) => match arguments.logs_json() {
            Ok(json) => json,
            Err(error) => {
                eprintln!("skep: {error:#}");
                return ExitCode::from(FAILED);
            }
        },
        _ => false,
    };
    telemetry::start(json);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("skep: TLS is set up twice");
        return ExitCode::from(FAILED);
    }
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("skep: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let ended = runtime.block_on(async {
        match arguments.command {
            Command::Up(arguments) => up::run(arguments).await,
            Command::Serve(arguments) => serve::run(*arguments).await,
            Command::Install(arguments) => install::run(arguments).await,
            Command::Controllers(arguments) => controllers::run(arguments).await,
            Command::Sandbox(arguments) => sandbox::run(arguments).await,
            Command::Machines(arguments) => machines::run(arguments).await,
            Command::Store(command) => storage::run(command).await,
            Command::User(command) => {
                if let Some(arguments) = command.served_catalog() {
                    return catalog_server::run(arguments).await;
                }
                use clap::CommandFactory;
                cli::run(command, Arguments::command(), || work::charts(&cli::cloud_options()?, &[])).await
            }
        }
    });
    // Tasks that nobody waits for must not hold the process.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("skep: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Each workload cluster is a few connections: the usual soft limit of 1024 files is soon reached.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(1 << 20) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}
