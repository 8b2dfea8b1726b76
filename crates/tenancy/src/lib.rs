//! What belongs to tenants and their clusters, besides the clusters themselves. `cluster_apps`: what the apps of a cluster are told of it.
//!
//! Left out so far: organizations, their roles, DNS.

mod cluster_apps;
mod figures;

use control::{Clock, Figures, Life, Longest, Runner, Writer};
use kube::Client;

pub use self::cluster_apps::Installation;

/// What the controllers need from their surroundings.
#[derive(Clone)]
pub struct Options {
    /// Of the management cluster, with the controllers' identity.
    pub client: Client,
    pub clock: Clock,
    pub installation: Installation,
    /// Where what is counted of clusters' apps can be read.
    pub figures: Figures,
    /// Reconciles at once, for each controller.
    pub concurrency: usize,
    /// Is told how long reconciles take.
    pub longest: Longest,
}

/// The running controllers.
pub struct Tenancy(Life);

impl Tenancy {
    /// Starts all controllers and returns at once; they begin to work when their caches are filled.
    pub fn start(options: Options) -> Self {
        let life = Life::default();
        let starting = life.clone();
        life.task(async move { launch(options, &starting).await });
        Self(life)
    }

    /// Lets the reconciles that are under way finish, and returns.
    pub async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

async fn launch(options: Options, life: &Life) {
    let writer = Writer::new(options.client.clone(), cluster_apps::MANAGER, options.clock.clone());
    let runner = Runner::new(options.concurrency, &writer).measured(&options.longest);
    let clusters = cluster_apps::Clusters::start(&options.client, writer, options.installation, &runner.queue());
    clusters.synced().await;
    options.figures.follow(clusters.dangling());
    life.spawn(runner, clusters);
}
