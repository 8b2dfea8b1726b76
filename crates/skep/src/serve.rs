//! `skep serve`: a management cluster beside real clouds.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    plane::Plane,
    state::{self, State},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder that keeps the management cluster's state
    #[arg(long, env = "SKEP_STATE", default_value_os_t = state::default_folder())]
    state: PathBuf,
    /// Where the Management API listens
    #[arg(long, default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Further host names or addresses of the Management API, for its certificate
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Serve the API only, without controllers
    #[arg(long)]
    no_controllers: bool,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let state = State::open(&arguments.state, "management")?;
    let mut plane = Plane::start(&state, arguments.listen, &arguments.names).await?;
    if !arguments.no_controllers {
        plane.control().await?;
    }
    eprintln!("The Management API answers at https://{}", plane.address);
    eprintln!("  export KUBECONFIG={}", state.path("kubeconfig").display());
    until_signal().await?;
    plane.shutdown().await?;
    Ok(0)
}

/// Returns at SIGINT or SIGTERM.
pub async fn until_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for SIGINT"),
        _ = terminate.recv() => Ok(()),
    }
}
