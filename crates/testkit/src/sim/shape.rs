//! What a cluster is to be, drawn from a seed: its objects, and what of it is in the cloud.

use std::collections::BTreeMap;

use api::{cluster::Cluster, control_plane::KubeadmControlPlane, machine::MachineDeployment};
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    NAME, VERSIONS,
    beside::{self, Beside},
};
use crate::{Shape, World};

/// What a cluster is to be now.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub control_plane: u32,
    pub workers: u32,
    pub version: usize,
    pub zones: u8,
    pub balancer: bool,
    pub root_volume: bool,
    pub trunk: bool,
    /// Of a ClusterClass.
    pub topology: bool,
    /// MachineHealthChecks look after its machines.
    pub health_checks: bool,
    pub beside: Beside,
}

impl Wanted {
    pub fn draw(rng: &mut StdRng) -> Self {
        let topology = rng.random_bool(0.25);
        let balancer = topology || rng.random_bool(0.7);
        Self {
            // Without a load balancer there is one address for one machine.
            control_plane: if balancer && rng.random_bool(0.5) { 3 } else { 1 },
            workers: rng.random_range(0..=4),
            version: 0,
            zones: if rng.random_bool(0.6) { 3 } else { 1 },
            balancer,
            root_volume: !topology && rng.random_bool(0.25),
            trunk: !topology && rng.random_bool(0.2),
            topology,
            health_checks: rng.random_bool(0.4),
            beside: Beside::default(),
        }
    }

    pub fn version(&self) -> &'static str {
        VERSIONS[self.version]
    }

    pub fn machines(&self) -> u32 {
        self.control_plane + self.workers + self.beside.machines()
    }

    pub fn servers(&self) -> u32 {
        self.control_plane + self.workers + self.beside.servers()
    }

    /// Adds to what the cloud holds when all is as wanted.
    pub fn in_cloud(&self, expected: &mut Counts) {
        let Self { balancer, root_volume, trunk, .. } = *self;
        let parts = Parts { machines: (self.control_plane + self.workers) as usize, balancer, root_volume, trunk };
        parts.in_cloud(expected);
        if self.beside.addressed {
            *expected.entry("floating ips").or_default() += self.workers as usize;
        }
        self.beside.in_cloud(expected);
    }
}

/// How many of what the cloud holds, in the words of `World::in_cloud`.
pub type Counts = BTreeMap<&'static str, usize>;

/// What decides which things a cluster has in the cloud.
pub struct Parts {
    pub machines: usize,
    pub balancer: bool,
    pub root_volume: bool,
    pub trunk: bool,
}

impl Parts {
    /// Adds what such a cluster has.
    pub fn in_cloud(&self, expected: &mut Counts) {
        let each = |is: bool| if is { self.machines } else { 0 };
        let balancer = usize::from(self.balancer);
        for (what, count) in [
            ("floating ips", 1),
            ("load balancers", balancer),
            ("networks", 1),
            // Of machines, the router and the load balancer.
            ("ports", self.machines + 1 + balancer),
            ("routers", 1),
            ("security groups", 2),
            ("servers", self.machines),
            ("trunks", each(self.trunk)),
            ("volumes", each(self.root_volume)),
        ] {
            *expected.entry(what).or_default() += count;
        }
    }
}

pub async fn create(world: &World, wanted: &Wanted) {
    let shape = Shape { control_plane: wanted.control_plane, workers: wanted.workers, version: VERSIONS[0].to_owned() };
    if wanted.topology {
        world.create_topology_with(NAME, shape, |object| change_class(object, wanted)).await;
        return;
    }
    world.create_with(NAME, shape, |object| change_object(object, wanted)).await;
    if wanted.health_checks {
        let selectors = [
            ("workers", "cluster.x-k8s.io/deployment-name", format!("{NAME}-md")),
            ("control-plane", api::names::CONTROL_PLANE_LABEL, String::new()),
        ];
        for (name, label, value) in selectors {
            world.apply(&health_check(name, label, &value)).await;
        }
    }
}

/// Of the machines with a label.
pub fn health_check(name: &str, label: &str, value: &str) -> Value {
    json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck", "metadata": {"name": format!("{NAME}-{name}")},
        "spec": {"clusterName": NAME, "selector": {"matchLabels": {label: value}}, "checks": checks()},
    })
}

/// What makes a machine unhealthy.
fn checks() -> Value {
    json!({
        "nodeStartupTimeoutSeconds": 300,
        "unhealthyNodeConditions": [
            {"type": "Ready", "status": "Unknown", "timeoutSeconds": 60}, {"type": "Ready", "status": "False", "timeoutSeconds": 300},
        ],
    })
}

/// RSA keys would be most of the work.
pub fn keys() -> Value {
    json!({"encryptionAlgorithm": "ECDSA-P256"})
}

fn change_object(object: &mut Value, wanted: &Wanted) {
    match object["kind"].as_str() {
        Some("OpenStackCluster") if !wanted.balancer => {
            object["spec"].as_object_mut().expect("a spec is an object").remove("apiServer");
        }
        Some("OpenStackMachineTemplate") => {
            let workers = object["metadata"]["name"] == format!("{NAME}-md");
            let spec = &mut object["spec"]["template"]["spec"];
            if wanted.beside.image && workers {
                spec["image"] = json!({"imageRef": {"name": beside::IMAGE}});
            }
            if wanted.beside.addressed && workers {
                spec["floatingIPPoolRef"] = json!({
                    "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackFloatingIPPool", "name": beside::WORKERS,
                });
            }
            if wanted.root_volume {
                spec["rootVolume"] = json!({"sizeGiB": 20});
            }
            if wanted.trunk {
                spec["trunk"] = json!(true);
            }
        }
        Some("KubeadmControlPlane") => object["spec"]["kubeadmConfigSpec"]["clusterConfiguration"] = keys(),
        _ => {}
    }
}

fn change_class(object: &mut Value, wanted: &Wanted) {
    match object["kind"].as_str() {
        Some("KubeadmControlPlaneTemplate") => {
            object["spec"]["template"]["spec"]["kubeadmConfigSpec"]["clusterConfiguration"] = keys();
        }
        Some("ClusterClass") => {
            let workers = &mut object["spec"]["workers"]["machineDeployments"][0];
            if wanted.health_checks {
                workers["healthCheck"] = json!({ "checks": checks() });
                object["spec"]["controlPlane"]["healthCheck"] = json!({ "checks": checks() });
            }
        }
        _ => {}
    }
}

/// Tells the cluster's objects what it is to be now.
pub async fn change(world: &World, wanted: &Wanted) {
    let version = wanted.version();
    if wanted.topology {
        let workers = json!([{"class": "worker", "name": "md-0", "replicas": wanted.workers}]);
        let topology = json!({
            "version": version, "controlPlane": {"replicas": wanted.control_plane}, "workers": {"machineDeployments": workers},
        });
        return world.patch::<Cluster>(NAME, json!({"spec": {"topology": topology}})).await;
    }
    let control_plane = json!({"spec": {"replicas": wanted.control_plane, "version": version}});
    world.patch::<KubeadmControlPlane>(&format!("{NAME}-cp"), control_plane).await;
    let workers = json!({"spec": {"replicas": wanted.workers, "template": {"spec": {"version": version}}}});
    world.patch::<MachineDeployment>(&format!("{NAME}-md"), workers).await;
}
