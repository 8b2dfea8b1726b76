//! The embedded server, as the binary runs it: over SQLite, on a TLS socket.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use apiserver::{Controller, Options, Profile, RequestLimits, Server, ServiceAccountKeys};
use store::{Embedded, Limits};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::Authority,
    judge::{ISSUER, SERVICE_RANGE},
};

/// More than the cases ask at once.
const REQUESTS: usize = 10_000;

pub struct Subject {
    pub address: String,
    server: Server,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), apiserver::ListenError>>,
}

impl Subject {
    /// `disabled`: controllers that something else runs in place of the server.
    pub async fn start(
        work: &Path,
        database: &str,
        disabled_controllers: Vec<Controller>,
        authority: &Authority,
    ) -> Result<Self> {
        let store = Embedded::open(&work.join(database), Limits::default()).context("open the store")?;
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
        let server = Server::start(Arc::new(store), options).await.context("start the embedded server")?;
        let own = authority.server()?;
        let tls = apiserver::server_tls(&own.certificate, &own.key, Some(&authority.certificate()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr()?.to_string();
        let stop = CancellationToken::new();
        let (running, stopping) = (server.clone(), stop.clone());
        let serving = tokio::spawn(async move { running.serve(listener, tls, stopping).await });
        Ok(Self { address, server, stop, serving })
    }

    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.serving.await.context("serve")?.context("serve")?;
        self.server.shutdown().await;
        Ok(())
    }
}
