//! What a cluster has besides control plane and workers in some lives: a MachinePool, a bastion, a server and addresses of its own.
//!
//! Drawn from a stream of the seed's randomness that nothing else is drawn from: what else a seed means stays as it was.

use api::{
    condition,
    health_check::MachineHealthCheck,
    ip_address::{IPAddress, IPAddressClaim},
    machine_pool::{MachinePool, MachinePoolPhase},
    names,
    openstack_cluster::OpenStackCluster,
    openstack_image::Image,
    openstack_machine_pool::OpenStackMachinePool,
    openstack_pool::OpenStackFloatingIPPool,
    openstack_server::OpenStackServer,
};
use kube::{Resource, ResourceExt, core::NamespaceResourceScope};
use openstack::{Query, compute::Server, image::Image as Made};
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    NAME,
    shape::{self, Counts},
};
use crate::{CLOUD, World};

const POOL: &str = "demo-mp";
const SERVER: &str = "demo-aside";
const ADDRESSES: &str = "demo-addresses";
/// The pool that workers have their addresses from.
pub const WORKERS: &str = "demo-workers";
/// The image that workers are made of, in the API and in the cloud.
pub const IMAGE: &str = "demo-image";
/// Kinds of servers that a bastion can be.
const BASTIONS: [&str; 2] = ["m1.tiny", "m1.small"];

/// What there is to be now besides.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Replicas of a MachinePool.
    pub pool: Option<u32>,
    /// The kind of server of the bastion.
    pub bastion: Option<&'static str>,
    /// An OpenStackServer in the cluster's network.
    pub server: bool,
    /// IPAddressClaims of an OpenStackFloatingIPPool.
    pub addresses: Option<u32>,
    /// Workers have their addresses from a pool. Drawn later than the rest (`neighbour`).
    pub addressed: bool,
    /// Workers are made of an image that is made for them. Drawn later too.
    pub image: bool,
}

impl Beside {
    pub fn draw(rng: &mut StdRng, topology: bool) -> Self {
        let [pool, bastion, server, addresses] = [0.3, 0.25, 0.15, 0.15].map(|chance| rng.random_bool(chance));
        Self {
            pool: pool.then(|| rng.random_range(0..=2)),
            // A class decides about its clusters' bastions.
            bastion: (bastion && !topology).then_some(BASTIONS[0]),
            server,
            addresses: addresses.then(|| rng.random_range(0..=2)),
            addressed: false,
            image: false,
        }
    }

    /// What else changes in a step, and its description.
    pub fn change(&mut self, rng: &mut StdRng, topology: bool) -> String {
        let mut told = Vec::new();
        if rng.random_bool(0.4) {
            self.pool = self.pool.and_then(|_| rng.random_bool(0.8).then(|| rng.random_range(0..=3)));
            told.push(format!("pool {:?}", self.pool));
        }
        if rng.random_bool(0.4) && !topology {
            let others = [Some(BASTIONS[0]), Some(BASTIONS[1]), None];
            self.bastion = others[rng.random_range(0..others.len())];
            told.push(format!("bastion {:?}", self.bastion));
        }
        if rng.random_bool(0.2) {
            self.server = rng.random_bool(0.5);
            told.push(format!("server {:?}", self.server));
        }
        if self.addresses.is_some() && rng.random_bool(0.4) {
            self.addresses = rng.random_bool(0.8).then(|| rng.random_range(0..=3));
            told.push(format!("addresses {:?}", self.addresses));
        }
        if told.is_empty() { String::new() } else { format!("; besides {}", told.join(", ")) }
    }

    /// The cluster goes, and takes along what is its own.
    pub fn end(&mut self) {
        (self.server, self.addresses, self.addressed, self.image) = (false, None, false, false);
    }

    /// Servers in the cloud.
    pub fn servers(&self) -> u32 {
        self.machines() + u32::from(self.bastion.is_some()) + u32::from(self.server)
    }

    /// Machines of the cluster.
    pub fn machines(&self) -> u32 {
        self.pool.unwrap_or(0)
    }

    /// Adds to what the cloud holds when all is as wanted.
    pub fn in_cloud(&self, expected: &mut Counts) {
        let bastion = usize::from(self.bastion.is_some());
        for (what, count) in [
            ("servers", self.servers() as usize),
            ("ports", self.servers() as usize),
            ("server groups", usize::from(self.machines() > 0)),
            ("security groups", bastion),
            ("floating ips", bastion + self.addresses.unwrap_or(0) as usize),
        ] {
            *expected.entry(what).or_default() += count;
        }
    }

    /// Tells the API what there is to be.
    pub async fn apply(&self, world: &World, version: &str, health_checks: bool) {
        match self.pool {
            Some(replicas) => {
                for object in pool(replicas, version) {
                    world.apply(&object).await;
                }
                if health_checks {
                    world.apply(&shape::health_check("pool", names::POOL_LABEL, POOL)).await;
                }
            }
            None => {
                gone::<MachinePool>(world, POOL).await;
                gone::<MachineHealthCheck>(world, &format!("{NAME}-pool")).await;
            }
        }
        if self.server {
            world.apply(&server()).await;
        } else {
            gone::<OpenStackServer>(world, SERVER).await;
        }
        match self.addresses {
            Some(count) => {
                world.apply(&addresses(world, ADDRESSES)).await;
                for index in 0..count {
                    world.apply(&claim(index)).await;
                }
            }
            None => gone::<OpenStackFloatingIPPool>(world, ADDRESSES).await,
        }
        if self.addressed {
            world.apply(&addresses(world, WORKERS)).await;
        } else {
            gone::<OpenStackFloatingIPPool>(world, WORKERS).await;
        }
        if self.image {
            world.apply(&image()).await;
        } else {
            gone::<Image>(world, IMAGE).await;
        }
        for claim in claims(world, ADDRESSES).await {
            if (0..self.addresses.unwrap_or(0)).all(|index| claim.name_any() != claim_name(index)) {
                gone::<IPAddressClaim>(world, &claim.name_any()).await;
            }
        }
    }

    /// Tells a cluster that is there, and not of a class, what its bastion is to be.
    pub async fn apply_bastion(&self, world: &World) {
        let cluster = world.api::<OpenStackCluster>().get_opt(NAME).await.expect("read the cluster");
        let had = cluster.is_some_and(|cluster| cluster.spec.bastion.is_some());
        let bastion = match self.bastion {
            None if !had => return,
            None => json!({"enabled": false}),
            Some(flavor) => json!({"enabled": true, "spec": machine(flavor)}),
        };
        world.patch::<OpenStackCluster>(NAME, json!({"spec": {"bastion": bastion}})).await;
    }

    /// What a person does whose bastion or server is in error, stopped or gone: there is to be another.
    pub async fn look_after(&self, world: &World) -> Option<String> {
        let lost = |state: Option<&str>| matches!(state, Some("ERROR" | "SHUTOFF" | "DELETED"));
        let mut told = None;
        if self.server {
            let found = world.api::<OpenStackServer>().get_opt(SERVER).await.expect("read the server");
            let state = found.as_ref().map(|found| found.status.as_ref().and_then(|s| s.instance_state.as_deref()));
            match state {
                None => world.apply(&server()).await,
                Some(state) if lost(state) => {
                    told = Some(format!("the server {SERVER} is deleted: it is {state:?}"));
                    gone::<OpenStackServer>(world, SERVER).await;
                }
                Some(_) => {}
            }
        }
        if self.bastion.is_some() {
            let cluster = world.api::<OpenStackCluster>().get_opt(NAME).await.expect("read the cluster");
            let bastion = cluster.and_then(|cluster| cluster.status?.bastion).unwrap_or_default();
            if let Some(id) = bastion.id.filter(|_| lost(bastion.state.as_deref())) {
                let there = world.cloud.look::<Server>(&id).await.expect("look at a server");
                // What it was is told until the controller looks again.
                if there.is_some_and(|server| lost(Some(&server.status))) {
                    told = Some(format!("the bastion's server is deleted: it is {:?}", bastion.state));
                    let _ = world.cloud.remove::<Server>(&id).await;
                }
            }
        }
        told
    }

    /// What is not yet as wanted.
    pub async fn left(&self, world: &World, workers: u32) -> Option<String> {
        let pool = world.api::<MachinePool>().get_opt(POOL).await.expect("read the pool");
        match (self.pool, pool) {
            (None, None) => {}
            (Some(wanted), Some(pool)) => {
                let status = pool.status.unwrap_or_default();
                let count = i32::try_from(wanted).ok();
                let counts =
                    [status.replicas, status.ready_replicas, status.available_replicas, status.up_to_date_replicas];
                if counts != [count; 4] || status.phase != Some(MachinePoolPhase::Running) {
                    return Some(format!("the pool is {:?} with {counts:?} of {wanted}", status.phase));
                }
            }
            (wanted, found) => return Some(format!("pool {wanted:?} is there: {}", found.is_some())),
        }
        let infra = world.list_all::<OpenStackMachinePool>().await.len();
        if infra != usize::from(self.pool.is_some()) {
            return Some(format!("there are {infra} OpenStackMachinePools"));
        }
        let server = world.api::<OpenStackServer>().get_opt(SERVER).await.expect("read the server");
        let ready = |server: &OpenStackServer| server.status.as_ref().is_some_and(|status| status.ready);
        if server.is_some() != self.server || !server.as_ref().is_none_or(ready) {
            return Some(format!("the server {SERVER} is {:?}", server.map(|server| server.status)));
        }
        let images = world.list_all::<Image>().await;
        let ready = |image: &Image| {
            let conditions = image.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition::is_true(conditions, "Available")
        };
        let made = world.cloud.list::<Made>(&Query::by_name(IMAGE)).await.expect("list images in the cloud");
        if [images.len(), made.len()] != [usize::from(self.image); 2] || !images.iter().all(ready) {
            return Some(format!("the images are {images:?}, in the cloud {made:?}"));
        }
        let of_workers = if self.addressed { workers } else { 0 };
        for (pool, wanted) in [(ADDRESSES, self.addresses.unwrap_or(0)), (WORKERS, of_workers)] {
            let claims = claims(world, pool).await;
            let answered = |claim: &&IPAddressClaim| claim.status.as_ref().is_some_and(|s| s.address_ref.is_some());
            let addresses = world.list_all::<IPAddress>().await;
            let given = addresses.iter().filter(|address| address.spec.pool_ref.name == pool).count();
            let counts = [claims.len(), claims.iter().filter(answered).count(), given];
            if counts != [wanted as usize; 3] {
                return Some(format!("claims, answers and addresses of {pool} are {counts:?}, wanted {wanted}"));
            }
        }
        let pools = world.list_all::<OpenStackFloatingIPPool>().await;
        let ready = |pool: &OpenStackFloatingIPPool| {
            let conditions = pool.status.as_ref().map_or(&[][..], |status| &status.conditions);
            condition::is_true(conditions, "OpenstackFloatingIPPoolReadyCondition")
        };
        if pools.len() != usize::from(self.addresses.is_some()) + usize::from(self.addressed)
            || !pools.iter().all(ready)
        {
            return Some(format!("the pools of addresses are {pools:?}"));
        }
        None
    }
}

/// Deletes it if it is there.
async fn gone<K>(world: &World, name: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    match world.api::<K>().delete(name, &Default::default()).await {
        Ok(_) => {}
        Err(error) if matches!(&error, kube::Error::Api(status) if status.code == 404) => {}
        Err(error) => panic!("delete {} {name}: {error}", K::kind(&())),
    }
}

fn machine(flavor: &str) -> Value {
    json!({"flavor": {"filter": {"name": flavor}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}})
}

fn identity() -> Value {
    json!({"name": format!("{NAME}-cloud-config"), "cloudName": CLOUD})
}

/// The machines' configuration, the servers, and the MachinePool.
fn pool(replicas: u32, version: &str) -> [Value; 3] {
    let object = |group: &str, kind: &str, spec: Value| json!({"apiVersion": format!("{group}/v1beta2"), "kind": kind, "metadata": {"name": POOL}, "spec": spec});
    let reference = |group: &str, kind: &str| json!({"apiGroup": group, "kind": kind, "name": POOL});
    let (infrastructure, bootstrap) = ("infrastructure.cluster.x-k8s.io", "bootstrap.cluster.x-k8s.io");
    let provider = json!([{"name": "provider-id", "value": "openstack:///'{{ ds.meta_data.instance_id }}'"}]);
    let registration = json!({"name": "{{ local_hostname }}", "kubeletExtraArgs": provider});
    [
        object(bootstrap, "KubeadmConfig", json!({"joinConfiguration": {"nodeRegistration": registration}})),
        object(infrastructure, "OpenStackMachinePool", json!({"template": {"spec": machine("m1.medium")}})),
        object(
            "cluster.x-k8s.io",
            "MachinePool",
            json!({
                "clusterName": NAME, "replicas": replicas,
                "template": {"spec": {
                    "clusterName": NAME, "version": version,
                    "bootstrap": {"configRef": reference(bootstrap, "KubeadmConfig")},
                    "infrastructureRef": reference(infrastructure, "OpenStackMachinePool"),
                }},
            }),
        ),
    ]
}

fn server() -> Value {
    let network = format!("k8s-clusterapi-cluster-default-{NAME}");
    json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "OpenStackServer", "metadata": {"name": SERVER},
        "spec": {
            "identityRef": identity(), "sshKeyName": "", "ports": [{"network": {"filter": {"name": network}}}],
            "flavor": "m1.small", "image": {"filter": {"name": "ubuntu-2404-kube"}},
        },
    })
}

/// Of a pool.
async fn claims(world: &World, pool: &str) -> Vec<IPAddressClaim> {
    let all = world.list_all::<IPAddressClaim>().await;
    all.into_iter().filter(|claim| claim.spec.pool_ref.name == pool).collect()
}

fn addresses(world: &World, name: &str) -> Value {
    json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "OpenStackFloatingIPPool",
        "metadata": {"name": name},
        "spec": {"identityRef": identity(), "reclaimPolicy": "Delete", "floatingIPNetwork": {"id": world.external_network}},
    })
}

fn image() -> Value {
    let content = json!({"diskFormat": "qcow2", "download": {"url": "https://images.test/node.qcow2"}});
    json!({
        "apiVersion": "openstack.k-orc.cloud/v1alpha1", "kind": "Image", "metadata": {"name": IMAGE},
        "spec": {
            "managementPolicy": "managed", "resource": {"name": IMAGE, "content": content},
            "cloudCredentialsRef": {"secretName": format!("{NAME}-cloud-config"), "cloudName": CLOUD},
        },
    })
}

fn claim_name(index: u32) -> String {
    format!("{NAME}-claim-{index}")
}

fn claim(index: u32) -> Value {
    let reference =
        json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackFloatingIPPool", "name": ADDRESSES});
    json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "metadata": {"name": claim_name(index)},
        "spec": {"poolRef": reference},
    })
}
