//! The embedded server, as the binary runs it: over SQLite or an etcd, on a TLS socket.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use apiserver::{Controller, Options, Profile, RequestLimits, Server, ServiceAccountKeys};
use store::{Embedded, Limits, SharedStore, etcd::Etcd};
use tokio::{net::TcpListener, process::Child, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::Authority,
    judge::{ISSUER, SERVICE_RANGE, free_ports, start_etcd},
};

/// More than the cases ask at once.
const REQUESTS: usize = 10_000;

pub struct Subject {
    pub address: String,
    server: Server,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), apiserver::ListenError>>,
    etcd: Option<Child>,
}

impl Subject {
    /// `etcd`: the binary of the one that it keeps its objects in; none: they are in the file `database`. `disabled`: controllers
    /// that something else runs in place of the server.
    pub async fn start(
        work: &Path,
        database: &str,
        etcd: Option<&Path>,
        disabled_controllers: Vec<Controller>,
        authority: &Authority,
    ) -> Result<Self> {
        let (store, etcd): (SharedStore, Option<Child>) = match etcd {
            None => {
                let store = Embedded::open(&work.join(database), Limits::default()).context("open the store")?;
                (Arc::new(store), None)
            }
            Some(binary) => {
                let ports = free_ports()?;
                let etcd = start_etcd(work, binary, "subject", ports)?;
                let address = format!("etcd://127.0.0.1:{}/skep", ports[0]).parse()?;
                let store = Etcd::open(store::etcd::Options::new(address, None)).await.context("open the store")?;
                (Arc::new(store), Some(etcd))
            }
        };
        let options = Options {
            profile: Profile::Workload,
            client_ca_pem: Some(authority.certificate()),
            service_account: Some(ServiceAccountKeys {
                signing_key_pem: authority.service_account_key.clone(),
                verifying_keys_pem: Vec::new(),
                issuer: ISSUER.to_owned(),
                ..ServiceAccountKeys::default()
            }),
            node_authorizer: true,
            disabled_controllers,
            // The judge has no limits either.
            limits: RequestLimits { reads: REQUESTS, writes: REQUESTS },
            service_range: Some(SERVICE_RANGE.parse()?),
            ..Options::default()
        };
        let server = Server::start(store, options).await.context("start the embedded server")?;
        let own = authority.server()?;
        let tls = apiserver::server_tls(&own.certificate, &own.key, Some(&authority.certificate()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr()?.to_string();
        let stop = CancellationToken::new();
        let (running, stopping) = (server.clone(), stop.clone());
        let serving = tokio::spawn(async move { running.serve(listener, tls, stopping).await });
        Ok(Self { address, server, stop, serving, etcd })
    }

    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.serving.await.context("serve")?.context("serve")?;
        self.server.shutdown().await;
        if let Some(mut etcd) = self.etcd {
            etcd.kill().await.context("end etcd")?;
        }
        Ok(())
    }
}
