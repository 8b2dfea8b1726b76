//! What belongs to tenants and their clusters, besides the clusters themselves. `cluster_apps`: what the apps of a cluster are told of it;
//! `organizations`: whose rights an organization's releases in the management cluster have.
//!
//! Left out so far: the Organization kind, users' roles, DNS.

mod cluster_apps;
mod figures;
mod organizations;

use control::{Clock, Figures, Life, Longest, Runner, Writer};
use kube::Client;

use self::{cluster_apps::Clusters, organizations::Organizations};

pub use self::{cluster_apps::Installation, organizations::Automation};

/// What the controllers need from their surroundings.
#[derive(Clone)]
pub struct Options {
    /// Of the management cluster, with the controllers' identity.
    pub client: Client,
    pub clock: Clock,
    pub installation: Installation,
    pub automation: Automation,
    /// Where what is counted of clusters' apps can be read.
    pub figures: Figures,
    /// Reconciles at once, for each controller.
    pub concurrency: usize,
    /// Is told how long reconciles take.
    pub longest: Longest,
}

/// Starts all controllers and returns at once; they begin to work when their caches are filled.
pub fn start(options: Options) -> Life {
    Life::begin(|life| launch(options, life))
}

async fn launch(options: Options, life: Life) {
    let writer = Writer::new(options.client.clone(), cluster_apps::MANAGER, options.clock.clone());
    let runner = || Runner::new(options.concurrency, &writer).measured(&options.longest);
    let (clusters, organizations) = (runner(), runner());
    let queue = organizations.queue();
    let tenants = Organizations::start(&options.client, writer.clone(), options.automation, &queue);
    let queue = clusters.queue();
    let apps = Clusters::start(&options.client, writer.clone(), options.installation, &queue);
    apps.follow_sources(&life, &queue);
    tenants.synced().await;
    life.spawn(organizations, tenants);
    apps.synced().await;
    options.figures.follow(apps.dangling());
    life.spawn(clusters, apps);
}
