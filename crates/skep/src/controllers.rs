//! `skep controllers`: the controllers and the webhooks beside a Kubernetes that is not ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use control::{Clock, Election, Figures, Timing};
use kube::{Client, Config};
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Rules,
    catalogs,
    chart_folder::ChartFolder,
    install::{self, NAMESPACE, PORT, Target},
    metrics::Metrics,
    plane::{LEASE, identity},
    settings::Common,
    state::Credential,
    webhooks,
    work::{self, Means, Work},
};

/// The webhooks' certificate is made anew so often: it is valid for a year.
const RENEWAL: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Where the webhooks and `/metrics` listen
    #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
    listen: SocketAddr,
    /// Folder of charts on this machine, for Catalogs with the address http://catalog.skep.local/NAME/ (docs/guides/catalogs.md)
    #[arg(long, value_name = "NAME=FOLDER")]
    chart_folder: Vec<ChartFolder>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let fleet = arguments.common.fleet()?;
    let app_security = arguments.common.app_security()?;
    let clouds = cli::cloud_options()?;
    let config = arguments.target.config().await?;
    let client = install::client(config.clone())?;
    let (authority, names) = install::installed(&client).await?;
    let listener =
        TcpListener::bind(arguments.listen).await.with_context(|| format!("listen at {}", arguments.listen))?;
    let address = listener.local_addr().context("read the listener's address")?;
    let (tls, renewed) = watch::channel(serving(&authority, &names)?);
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(renew(authority, names, tls)));
    let rules = Arc::new(Rules { app_security, ..Rules::default() });
    let _ = rules.client.set(client.clone());
    let figures = Figures::default();
    let metrics = Metrics::new(client.clone(), figures.clone());
    let serving = tokio::spawn(webhooks::serve(listener, renewed, rules, metrics, stop.clone()));
    let means = Means {
        client: client.clone(),
        act: Arc::new(move |namespace, name| acting(config.clone(), namespace, name).ok()),
        charts: work::charts(&clouds, &arguments.chart_folder)?,
        fleet,
        clouds,
        installation: arguments.common.installation(),
        figures,
    };
    let election = Election {
        client: client.clone(),
        clock: Clock::system(),
        namespace: NAMESPACE.to_owned(),
        name: LEASE.to_owned(),
        identity: identity(),
        timing: Timing::default(),
    };
    eprintln!("The webhooks answer at https://{address}");
    let leading = tokio::spawn(election.lead(stop.clone(), move |lost| {
        let means = means.clone();
        async move {
            if let Err(error) = catalogs::install(&means.client).await {
                tracing::warn!(error = format!("{error:#}"), "the catalogs were not written");
            }
            eprintln!("The controllers work.");
            let work = Work::start(means);
            lost.cancelled().await;
            work.shutdown().await;
        }
    }));
    let mut leading = leading;
    tokio::select! {
        asked = crate::serve::until_signal() => asked?,
        led = &mut leading => {
            // Another process' controllers begin now: ours must not be there then.
            led.context("lead the controllers")??;
        }
    }
    stop.cancel();
    if !leading.is_finished() {
        leading.await.context("end the controllers")??;
    }
    serving.await.context("serve the webhooks")?.context("serve the webhooks")?;
    Ok(0)
}

/// A client with the rights of a service account; the API server asks whether we may act as it.
fn acting(mut config: Config, namespace: &str, name: &str) -> Result<Client> {
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{name}"));
    install::client(config)
}

fn serving(authority: &Credential, names: &[String]) -> Result<Arc<ServerConfig>> {
    let certificate = authority.server(names)?;
    apiserver::server_tls(&certificate.certificate, &certificate.key, None).context("use the webhooks' certificate")
}

async fn renew(authority: Credential, names: Vec<String>, tls: watch::Sender<Arc<ServerConfig>>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match serving(&authority, &names) {
            Ok(fresh) => drop(tls.send_replace(fresh)),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the webhooks' certificate was not renewed"),
        }
    }
}
