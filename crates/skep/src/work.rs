//! The controllers of a process: the fleet's, those of apps and those of tenants.

use std::sync::Arc;

use anyhow::{Context, Result};
use control::{Clock, Direct, Figures, Life};
use delivery::{
    TENANT_ACCOUNT,
    release::Chance,
    target::{Act, Surroundings},
};
use kube::Client;
use rand::RngCore;
use tenancy::{Automation, Installation};
use transport::{Https, Tls, Transport};

use crate::{catalogs, chart_folder::ChartFolder, rights, settings::Fleet};

/// Reconciles at once, for each controller.
const CONCURRENCY: usize = 10;
/// What restrictions of catalogs call the infrastructure.
pub const PROVIDER: &str = "openstack";

/// What controllers work with; they can be started any number of times.
#[derive(Clone)]
pub struct Means {
    /// With the controllers' identity.
    pub client: Client,
    pub act: Act,
    pub fleet: Fleet,
    /// How clouds are reached.
    pub clouds: openstack::Options,
    /// How repositories of charts are reached.
    pub charts: Arc<dyn Transport>,
    pub installation: Installation,
    pub figures: Figures,
}

/// The running controllers.
pub struct Work {
    fleet: Life,
    delivery: Life,
    tenancy: Life,
}

impl Work {
    pub fn start(means: Means) -> Self {
        let Means { client, act, fleet, clouds, charts, installation, figures } = means;
        let (clock, connect) = (Clock::system(), Arc::new(Direct));
        let delivery = delivery::start(delivery::Options {
            with: Surroundings {
                client: client.clone(),
                act,
                connect: connect.clone(),
                clock: clock.clone(),
                chance: Chance {
                    random: Arc::new(|bytes| rand::rng().fill_bytes(bytes)),
                    key: Arc::new(cli::chart_key),
                },
            },
            transport: charts,
            provider: PROVIDER.to_owned(),
            figures: figures.clone(),
            concurrency: CONCURRENCY,
            longest: Default::default(),
        });
        let tenancy = tenancy::start(tenancy::Options {
            client: client.clone(),
            clock: clock.clone(),
            installation,
            automation: Automation { account: TENANT_ACCOUNT.to_owned(), role: rights::ORGANIZATION_APPS.to_owned() },
            figures,
            concurrency: CONCURRENCY,
            longest: Default::default(),
        });
        let fleet = fleet::start(fleet::Options {
            client,
            clock,
            connect,
            clouds: Arc::new(fleet::openstack::Network(clouds)),
            extensions: Arc::new(fleet::extension::Network),
            concurrency: CONCURRENCY,
            random: Arc::new(rand::random),
            longest: Default::default(),
            deletion_rules: fleet.deletion_rules,
            synced: fleet.synced,
            watch_filter: fleet.watch_filter,
        });
        Self { fleet, delivery, tenancy }
    }

    /// Lets what is under way finish.
    pub async fn shutdown(self) {
        tokio::join!(self.fleet.shutdown(), self.delivery.shutdown(), self.tenancy.shutdown());
    }
}

/// How repositories of charts are reached: as clouds are, with the machine's own trust; and those that are in this binary,
/// or in these folders.
pub fn charts(clouds: &openstack::Options, folders: &[ChartFolder]) -> Result<Arc<dyn Transport>> {
    let https = Https::new(&Tls::default(), clouds.proxies.clone()).context("prepare to fetch charts")?;
    catalogs::beside(folders, Arc::new(https))
}
