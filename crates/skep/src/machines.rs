//! `skep machines`: hollow machines beside a cloud whose servers do not boot.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ::sandbox::hollow::{self, Hollow};
use anyhow::{Context, Result};
use store::{Embedded, Limits, SharedStore};

use crate::state::{self, State};

/// Pause between two looks at the cloud's servers: such a cloud tells nobody of changes.
const POLL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder that keeps the machines' state
    #[arg(long, env = "SKEP_STATE", default_value_os_t = state::default_folder())]
    state: PathBuf,
    /// Cloud in clouds.yaml, with an administrator's credentials: user data is shown to nobody else
    #[arg(long, env = "OS_CLOUD")]
    cloud: String,
    #[arg(long, env = "OS_CLIENT_CONFIG_FILE", default_value = "clouds.yaml")]
    clouds_yaml: PathBuf,
    /// Region that the machines say they are in
    #[arg(long, default_value = "RegionOne")]
    region: String,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let state = State::open(&arguments.state, "machines")?;
    let path = &arguments.clouds_yaml;
    let yaml = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let cloud = openstack::Cloud::from_yaml(&yaml, Some(&arguments.cloud), None)?;
    let client = openstack::Client::connect(cloud, cli::cloud_options()?)?;
    let path = state.database("machines.db")?;
    let store = Embedded::open(&path, Limits::default()).with_context(|| format!("open {}", path.display()))?;
    let store: SharedStore = Arc::new(store);
    let hollow = Hollow::start(hollow::Options {
        cloud: client,
        region: arguments.region,
        store,
        clock: Arc::new(jiff::Timestamp::now),
        // Such a cloud has a console of its own making; what a machine says goes to the log.
        console: Arc::new(|server, text| {
            tracing::info!(server, line = text.lines().next_back().unwrap_or_default(), "console");
        }),
        changed: None,
        poll: POLL,
    });
    eprintln!("Hollow machines stand in for the servers of cloud {}", arguments.cloud);
    crate::serve::until_signal().await?;
    hollow.shutdown().await;
    Ok(0)
}
