//! Another cluster in the same cloud and namespace, in some lives: it comes in one step and goes in a later one, also with the
//! first or after it. What is one's is not the other's, whatever they are called.

use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    NAME, VERSIONS, looks,
    shape::{self, Counts, Parts},
};
use crate::{Shape, World};

/// Names that begin as the first's does, that the first's begins with, or that are those of its parts.
const NAMES: [&str; 3] = ["demo-1", "dem", "demo-cp"];

#[derive(Clone, Debug)]
pub struct Neighbour {
    pub name: &'static str,
    control_plane: u32,
    workers: u32,
    balancer: bool,
    root_volume: bool,
    /// Steps of the first's life: in which it is made, and in which it is deleted.
    from: usize,
    pub until: usize,
    pub there: bool,
}

impl Neighbour {
    /// For a life of so many steps, the last of which deletes the first cluster.
    pub fn draw(rng: &mut StdRng, steps: usize) -> Option<Self> {
        if rng.random_bool(0.5) {
            return None;
        }
        let balancer = rng.random_bool(0.7);
        let from = rng.random_range(0..steps - 1);
        Some(Self {
            name: NAMES[rng.random_range(0..NAMES.len())],
            control_plane: if balancer && rng.random_bool(0.3) { 3 } else { 1 },
            workers: rng.random_range(0..=2),
            balancer,
            root_volume: rng.random_bool(0.3),
            from,
            until: rng.random_range(from + 1..=steps),
            there: false,
        })
    }

    /// What becomes of it in a step, and its description.
    pub async fn step(&mut self, world: &World, index: usize) -> Option<String> {
        if index == self.from {
            let shape =
                Shape { control_plane: self.control_plane, workers: self.workers, version: VERSIONS[0].to_owned() };
            world.create_with(self.name, shape, |object| self.change(object)).await;
            self.there = true;
            return Some(format!("{} is made beside {NAME}", self.name));
        }
        if index == self.until {
            world.delete(self.name).await;
            self.there = false;
            return Some(format!("{} is deleted", self.name));
        }
        None
    }

    fn change(&self, object: &mut Value) {
        match object["kind"].as_str() {
            Some("OpenStackCluster") if !self.balancer => {
                object["spec"].as_object_mut().expect("a spec is an object").remove("apiServer");
            }
            Some("OpenStackMachineTemplate") if self.root_volume => {
                object["spec"]["template"]["spec"]["rootVolume"] = json!({"sizeGiB": 20});
            }
            Some("KubeadmControlPlane") => {
                object["spec"]["kubeadmConfigSpec"]["clusterConfiguration"] = shape::keys();
            }
            _ => {}
        }
    }

    /// Adds to what the cloud holds when all is as wanted.
    pub fn in_cloud(&self, expected: &mut Counts) {
        if self.there {
            let Self { balancer, root_volume, .. } = *self;
            Parts { machines: self.machines() as usize, balancer, root_volume, trunk: false }.in_cloud(expected);
        }
    }

    fn machines(&self) -> u32 {
        self.control_plane + self.workers
    }

    /// What is not yet as wanted.
    pub async fn left(&self, world: &World) -> Option<String> {
        if self.there {
            let left = looks::unlike(world, self.name, VERSIONS[0], self.machines(), self.control_plane).await;
            return left.map(|left| format!("{}: {left}", self.name));
        }
        looks::rest(world, self.name).await
    }
}
