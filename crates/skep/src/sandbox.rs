//! `skep sandbox`: the sandbox cloud and its hollow machines, in a process of their own or within `skep up`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ::sandbox::{
    cloud::{Cloud, Options},
    hollow::{self, Hollow},
};
use anyhow::{Context, Result};
use store::{Embedded, Limits, Prefixed, SharedStore};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::state::{self, State};

/// The name of the sandbox in its clouds.yaml.
pub const CLOUD: &str = "skep-sandbox";
/// Hollow machines hear of changes; this is only a fallback.
const POLL: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder that keeps the cloud's state
    #[arg(long, env = "SKEP_STATE", default_value_os_t = state::default_folder())]
    state: PathBuf,
    /// Port of the cloud's APIs on 127.0.0.1 (0: any; the first one is kept)
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Do not stand in for the servers: they stay empty
    #[arg(long)]
    no_machines: bool,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let state = State::open(&arguments.state, "sandbox")?;
    let sandbox = Sandbox::start(&state, arguments.port, !arguments.no_machines).await?;
    eprintln!("The sandbox cloud answers at {}", sandbox.url);
    eprintln!("  export OS_CLIENT_CONFIG_FILE={} OS_CLOUD={CLOUD}", state.path("clouds.yaml").display());
    crate::serve::until_signal().await?;
    sandbox.shutdown().await;
    Ok(0)
}

pub struct Sandbox {
    pub url: String,
    pub clouds_yaml: String,
    pub external_network: String,
    hollow: Option<Arc<Hollow>>,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

impl Sandbox {
    /// Starts the cloud at its port on 127.0.0.1 and writes its clouds.yaml into the state folder.
    pub async fn start(state: &State, port: u16, machines: bool) -> Result<Self> {
        let wanted: SocketAddr = ([127, 0, 0, 1], port).into();
        // The first port that was got is kept: catalog, clouds.yaml and secrets have it.
        let known = state.path("sandbox.json").exists();
        let (listener, settings) = if known {
            let settings = state.sandbox(port)?;
            let address: SocketAddr = ([127, 0, 0, 1], settings.port).into();
            (bind(address).await?, settings)
        } else {
            let listener = bind(wanted).await?;
            let port = listener.local_addr().context("read the listener's address")?.port();
            (listener, state.sandbox(port)?)
        };
        let path = state.database("sandbox.db")?;
        let store = Embedded::open(&path, Limits::default()).with_context(|| format!("open {}", path.display()))?;
        let store: SharedStore = Arc::new(store);
        let url = format!("http://127.0.0.1:{}", settings.port);
        let mut options = Options {
            public_url: url.clone(),
            floating_pool: settings.floating_pool.parse().context("read the pool of floating IPs in sandbox.json")?,
            ..Options::default()
        };
        options.tenant.password = settings.tenant_password;
        options.admin.password = settings.admin_password;
        let region = options.region.clone();
        // The cloud and what is inside its servers share one file, and know nothing of each other.
        let cloud: SharedStore = Arc::new(Prefixed::new(store.clone(), "cloud/"));
        let cloud = Cloud::open(cloud, options).await.context("open the sandbox cloud")?;
        let clouds_yaml = cloud.clouds_yaml(CLOUD);
        state.write("clouds.yaml", &clouds_yaml)?;
        let stop = CancellationToken::new();
        let (router, stopping) = (cloud.router(), stop.clone());
        let serving = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the sandbox cloud does not answer any more");
            }
        });
        let hollow = if machines { Some(start_machines(&cloud, store, region)?) } else { None };
        Ok(Self { url, clouds_yaml, external_network: cloud.external_network(), hollow, serving, stop })
    }

    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Some(hollow) = self.hollow {
            hollow.shutdown().await;
        }
        // Open connections of clients do not hold the process.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.serving).await;
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen at {address}"))
}

fn start_machines(cloud: &Cloud, store: SharedStore, region: String) -> Result<Arc<Hollow>> {
    let yaml = cloud.clouds_yaml(CLOUD);
    let admin = openstack::Cloud::from_yaml(yaml.as_bytes(), Some(&format!("{CLOUD}-admin")), None)?;
    let transport = openstack::Local::shared::<axum::body::Body, _>(cloud.router());
    let client = openstack::Client::new(admin, transport, openstack::Options::default());
    let console = cloud.clone();
    Ok(Hollow::start(hollow::Options {
        cloud: client,
        region,
        store,
        clock: Arc::new(jiff::Timestamp::now),
        console: Arc::new(move |server, text| console.set_console(server, text)),
        changed: Some(cloud.changed()),
        poll: POLL,
    }))
}
