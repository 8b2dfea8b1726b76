//! The management cluster: store, API and controllers in one process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use apiserver::{Options, Profile, Server, User};
use axum::{BoxError, Router, response::Response};
use control::{Clock, Election, Figures, Timing};
use http::Request;
use kube::{Client, client::Body};
use store::SharedStore;
use tenancy::Installation;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use transport::Transport;

use crate::{
    admission::{Rules, Versions},
    catalogs, rights,
    security::Security,
    settings::{Fleet, Settings},
    state::{self, State},
    work::{self, Means, Work},
};

/// The Lease of the process whose controllers work, where there are several.
pub const LEASE: &str = "skep-controllers";

pub struct Plane {
    /// As administrator.
    pub client: Client,
    pub address: SocketAddr,
    server: Server,
    controllers: Controllers,
    serving: JoinHandle<Result<(), apiserver::ListenError>>,
    stop: CancellationToken,
    /// How long the server says that it is ending before it does.
    drain_delay: Duration,
    means: Means,
}

/// The controllers of this process.
enum Controllers {
    None,
    Working(Work),
    /// They work while a lease is held.
    Elected {
        stop: CancellationToken,
        task: JoinHandle<()>,
    },
}

impl Plane {
    /// Starts the API at `address` and writes the administrator's kubeconfig into the state folder.
    pub async fn start(
        state: &State,
        store: SharedStore,
        address: SocketAddr,
        names: &[String],
        settings: &Settings,
    ) -> Result<Self> {
        let authority = state.authority()?;
        let common = &settings.common;
        let fleet = common.fleet()?;
        let clouds = cli::cloud_options()?;
        let charts = work::charts(&clouds, &settings.chart_folder)?;
        let mut security = Security::open(settings, state, &authority.certificate)?;
        let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).map_err(Into::into));
        let rules = Arc::new(Rules { app_security: common.app_security()?, ..Rules::default() });
        let figures = Figures::default();
        let counted = figures.clone();
        let options = Options {
            profile: Profile::Management,
            client_ca_pem: Some(security.client_authorities()?),
            service_account: Some(security.accounts.clone()),
            authentication: security.authentication.clone(),
            authorization: security.authorization.clone(),
            anonymous: security.anonymous.clone(),
            audit: security.audit.clone(),
            encryption: security.encryption.clone(),
            tracing: security.tracing.clone(),
            limits: settings.limits(),
            disabled_controllers: settings.disabled_controllers()?,
            admission: vec![rules.clone()],
            crds: crds.collect::<Result<_>>()?,
            conversion: Some(Arc::new(Versions)),
            figures: vec![Arc::new(move || counted.text())],
            ..Options::default()
        };
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen at {address}"))?;
        let address = listener.local_addr().context("read the listener's address")?;
        let mut hosts: Vec<String> =
            ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"].map(str::to_owned).to_vec();
        if !address.ip().is_unspecified() {
            hosts.push(address.ip().to_string());
        }
        hosts.extend_from_slice(names);
        hosts.sort();
        hosts.dedup();
        let serving = authority.server(&hosts)?;
        let tls = security.serve_with(serving)?;
        let server = Server::start(store, options).await.context("start the Management API")?;
        // The rules ask the server that asks them.
        let _ = rules.client.set(Client::new(apart(server.service_as(User::master("skep-rules"))), "default"));
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(security.follow()));
        let (running, stopping) = (server.clone(), stop.clone());
        let serving = tokio::spawn(async move { running.serve(listener, tls, stopping).await });
        let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        let url = format!("https://{host}:{}", address.port());
        let admin = authority.client("skep-admin", "system:masters")?;
        state.write("kubeconfig", &state::kubeconfig("skep", &url, &authority.certificate, &admin)?)?;
        let client = Client::new(server.service_as(User::master("skep-admin")), "default");
        let drain_delay = settings.shutdown_delay()?;
        let controllers = Controllers::None;
        let means = means(&server, fleet, clouds, charts, common.installation(), figures)?;
        Ok(Self { client, address, server, controllers, serving, stop, drain_delay, means })
    }

    /// What the controllers need to find.
    async fn grant(&self) -> Result<()> {
        rights::grant(&self.client, None, &self.means.fleet.deletion_rules)
            .await
            .context("grant the controllers their rights")?;
        catalogs::install(&self.client).await
    }

    /// Starts the controllers, with their own identity and no more rights than they need.
    pub async fn control(&mut self) -> Result<()> {
        self.grant().await?;
        self.controllers = Controllers::Working(Work::start(self.means.clone()));
        Ok(())
    }

    /// Starts the controllers whenever this process is the one of several that is to run them.
    pub async fn control_by_lease(&mut self) -> Result<()> {
        self.grant().await?;
        let election = Election {
            client: self.client.clone(),
            clock: Clock::system(),
            namespace: "kube-system".to_owned(),
            name: LEASE.to_owned(),
            identity: identity(),
            timing: Timing::default(),
        };
        let (server, stop) = (self.server.clone(), CancellationToken::new());
        let means = self.means.clone();
        // So does the garbage collector.
        server.collect(false);
        let leading = election.lead(stop.clone(), move |lost| {
            let (server, means) = (server.clone(), means.clone());
            async move {
                server.collect(true);
                let work = Work::start(means);
                lost.cancelled().await;
                server.collect(false);
                work.shutdown().await;
            }
        });
        let task = tokio::spawn(async move {
            if let Err(overrun) = leading.await {
                // Another process' controllers begin now: ours must not be there then.
                tracing::error!(%overrun, "the process ends");
                std::process::exit(1);
            }
        });
        self.controllers = Controllers::Elected { stop, task };
        Ok(())
    }

    pub async fn shutdown(self) -> Result<()> {
        self.server.announce_end();
        tokio::time::sleep(self.drain_delay).await;
        match self.controllers {
            Controllers::None => {}
            Controllers::Working(work) => work.shutdown().await,
            Controllers::Elected { stop, task } => {
                stop.cancel();
                task.await.context("end the controllers")?;
            }
        }
        self.stop.cancel();
        let served = self.serving.await.context("serve the Management API")?;
        self.server.shutdown().await;
        served.context("serve the Management API")
    }
}

/// Each request is a task of its own: one that is asked while another is answered, or deep in what makes a release, would stand on top
/// of that stack, and the first of a kind has its rules compiled there.
fn apart(server: Router) -> impl Service<Request<Body>, Response = Response, Error = BoxError, Future: Send> + Clone {
    tower::service_fn(move |request| {
        let server = server.clone();
        async move {
            match tokio::spawn(server.oneshot(request)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(never)) => match never {},
                Err(ended) => Err(BoxError::from(ended)),
            }
        }
    })
}

/// What the controllers work with beside this server.
fn means(
    server: &Server,
    fleet: Fleet,
    clouds: openstack::Options,
    charts: Arc<dyn Transport>,
    installation: Installation,
    figures: Figures,
) -> Result<Means> {
    let user = User::new("system:skep:controllers", [rights::CONTROLLERS]);
    let acting = server.clone();
    Ok(Means {
        client: Client::new(server.service_as(user), "default"),
        act: Arc::new(move |namespace, name| {
            let of = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
            let account = User::new(format!("system:serviceaccount:{namespace}:{name}"), of);
            Some(Client::new(apart(acting.service_as(account)), "default"))
        }),
        charts,
        fleet,
        clouds,
        installation,
        figures,
    })
}

/// Who this process is among candidates: the machine, and a number of its own.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}", host.trim(), rand::random::<u64>())
}
