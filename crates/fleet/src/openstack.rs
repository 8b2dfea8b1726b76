//! The OpenStack infrastructure provider.

use std::sync::Arc;

use control::Writer;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Caches, Options};

/// Makes clients of clouds: over the network, or of a cloud in the same process.
pub trait Clouds: Send + Sync + 'static {
    fn client(&self, cloud: openstack::Cloud) -> openstack::Result<openstack::Client>;
}

/// Over the network.
#[derive(Clone, Copy, Debug)]
pub struct Network;

impl Clouds for Network {
    fn client(&self, cloud: openstack::Cloud) -> openstack::Result<openstack::Client> {
        openstack::Client::connect(cloud, openstack::Options::default())
    }
}

/// The provider's controllers, before they run.
pub struct Provider;

impl Provider {
    pub fn new(_: &Options, _: &Arc<Caches>, _: &Writer) -> Self {
        Self
    }

    /// Connects the caches to the controllers' queues; called before the caches are synced.
    pub fn feed(&self) {}

    pub fn spawn(self, _: &TaskTracker, _: &CancellationToken) {}
}
