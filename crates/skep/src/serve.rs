//! `skep serve`: a management cluster beside real clouds.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    identity,
    place::{EtcdArguments, FILE, Place},
    plane::Plane,
    settings::Settings,
    state::{self, State},
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder that keeps the management cluster's state
    #[arg(long, env = "SKEP_STATE", default_value_os_t = state::default_folder())]
    state: PathBuf,
    /// Where the objects are kept: a file, or etcd://HOST:PORT[,HOST:PORT...][/PREFIX] for several servers (default: management.db in
    /// the state folder)
    #[arg(long, value_name = "STORE", env = "SKEP_STORE")]
    store: Option<Place>,
    #[command(flatten)]
    etcd: EtcdArguments,
    /// Make the keys of this state folder those of the installation whose etcd this is
    #[arg(long)]
    replace_identity: bool,
    /// YAML file with the names of the flags below as keys; a flag wins over the file
    #[arg(long, env = "SKEP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve the API only, without controllers
    #[arg(long)]
    no_controllers: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    fn settings(&self) -> Result<Settings> {
        match &self.config {
            Some(path) => self.settings.clone().over(path),
            None => Ok(self.settings.clone()),
        }
    }

    /// Whether logs are to be JSON.
    pub fn logs_json(&self) -> Result<bool> {
        self.settings()?.logs_json()
    }
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let settings = arguments.settings()?;
    let state = State::open(&arguments.state, "management")?;
    let place = match (arguments.store, &settings.store) {
        (Some(place), _) => place,
        (None, Some(place)) => place.parse()?,
        (None, None) => Place::File(state.database(FILE)?),
    };
    let store = place.open(&arguments.etcd.over(&settings)).await?;
    if place.is_shared() {
        let own_key = settings.service_account_signing_key_file.is_none();
        identity::check(&store, &state, own_key, arguments.replace_identity).await?;
    }
    let listen: SocketAddr = settings.listen()?;
    let mut plane = Plane::start(&state, store, listen, &settings.name, &settings).await?;
    match (arguments.no_controllers, place.is_shared()) {
        (true, _) => {}
        (false, true) => plane.control_by_lease().await?,
        (false, false) => plane.control().await?,
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
