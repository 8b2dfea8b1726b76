//! The life of a cluster on a cloud that fails, chosen by a seed: its shape, what is done with it, and what goes wrong
//! meanwhile. After each step the faults stop, and within a time everything has to be as wanted; in the end nothing may be
//! left in the cloud.
//!
//! A person who looks after the cluster is part of it: machines whose server is in error, stopped or gone are deleted, as a
//! MachineHealthCheck would.

mod chaos;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    machine::{Machine, MachineDeployment},
    meta::ConditionStatus,
    openstack_machine::OpenStackMachine,
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sandbox::cloud::{End, Faults};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Shape, World, now};

const NAME: &str = "demo";
/// Everything has settled so long after faults have ended, on the world's clock.
const SETTLES_WITHIN: Duration = Duration::from_secs(20 * 60);
/// Versions that a cluster goes through.
const VERSIONS: [&str; 3] = ["v1.34.2", "v1.35.0", "v1.36.0"];
/// A machine that waits says for what after this long, in seconds.
const SPEAKS_AFTER_S: i64 = 30;
/// Between two looks, while faults are on: at least and at most, in milliseconds.
const LOOKS_MS: (u64, u64) = (300, 4000);
/// How long faults stay on in a step, in seconds.
const FAULTS_S: (u64, u64) = (5, 150);

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Workers(u32),
    ControlPlane(u32),
    Upgrade,
    /// A server of a control plane machine, or else of a worker, vanishes.
    Lose {
        control_plane: bool,
    },
    Delete,
}

/// Runs the life of a seed in a runtime of its own: what happened, or what went wrong and what happened until then.
pub fn run(seed: u64) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("start a runtime: {error}"))?;
    let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(seed))));
    // What is still blocked is nobody's concern any more.
    runtime.shutdown_background();
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default()))
    })
}

/// The life of a seed, on a paused clock: what happened.
pub async fn live(seed: u64) -> Result<String, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let wanted = wanted(&mut rng);
    let zones = wanted.zones;
    let world = World::start_with(seed, |options| options.zones = zones).await;
    let mut life = Life { world, rng, wanted, log: String::new(), deleting: false };
    let steps = life.steps();
    life.note(&format!("seed {seed}: {:?}", life.wanted));
    for step in steps {
        if let Err(why) = life.step(step).await {
            return Err(format!("{why}\n{}{}", life.log, life.world.told().await));
        }
    }
    life.world.shutdown().await;
    Ok(life.log)
}

fn wanted(rng: &mut StdRng) -> Wanted {
    let balancer = rng.random_bool(0.75);
    Wanted {
        // Without a load balancer there is one address for one machine.
        control_plane: if balancer && rng.random_bool(0.5) { 3 } else { 1 },
        workers: rng.random_range(0..=4),
        version: 0,
        zones: if rng.random_bool(0.6) { 3 } else { 1 },
        balancer,
        root_volume: rng.random_bool(0.25),
        trunk: rng.random_bool(0.2),
    }
}

struct Life {
    world: World,
    rng: StdRng,
    wanted: Wanted,
    log: String,
    deleting: bool,
}

impl Life {
    fn note(&mut self, text: &str) {
        let at = self.world.elapsed().as_secs_f64();
        let _ = writeln!(self.log, "{at:9.1} s  {text}");
    }

    fn steps(&mut self) -> Vec<Step> {
        let mut steps = vec![Step::Create];
        for _ in 0..self.rng.random_range(1..=3) {
            let lose = Step::Lose { control_plane: self.rng.random_bool(0.5) };
            let step = match self.rng.random_range(0..5) {
                0 => Step::Workers(self.rng.random_range(0..=4)),
                1 if self.wanted.balancer => Step::ControlPlane(if self.rng.random_bool(0.7) { 3 } else { 1 }),
                2 | 3 => Step::Upgrade,
                _ => lose,
            };
            steps.push(step);
        }
        steps.push(Step::Delete);
        steps
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        let (faults, told) = chaos::draw(&mut self.rng, &self.wanted);
        self.note(&format!("{step:?}, with {told}"));
        self.set(faults);
        self.begin(step).await;
        self.deleting = step == Step::Delete;
        let seconds = self.rng.random_range(FAULTS_S.0..=FAULTS_S.1);
        let end = Instant::now() + Duration::from_secs(seconds);
        let restarts = self.rng.random_bool(0.3);
        while Instant::now() < end {
            let pause = self.rng.random_range(LOOKS_MS.0..=LOOKS_MS.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.look().await?;
            if restarts && self.rng.random_bool(0.2) {
                self.world.restart_controllers().await;
            }
        }
        self.set(Faults::default());
        self.note("faults end");
        self.settles().await.map_err(|why| format!("{step:?}: {why}"))?;
        self.note("settled");
        Ok(())
    }

    fn set(&self, faults: Faults) {
        self.world.sandbox.set_faults(faults).expect("the faults that are drawn are valid");
    }

    async fn begin(&mut self, step: Step) {
        let (cp, md) = (format!("{NAME}-cp"), format!("{NAME}-md"));
        match step {
            Step::Create => self.create().await,
            Step::Workers(count) => {
                self.wanted.workers = count;
                self.world.patch::<MachineDeployment>(&md, json!({"spec": {"replicas": count}})).await;
            }
            Step::ControlPlane(count) => {
                self.wanted.control_plane = count;
                self.world.patch::<KubeadmControlPlane>(&cp, json!({"spec": {"replicas": count}})).await;
            }
            Step::Upgrade => {
                self.wanted.version = (self.wanted.version + 1).min(VERSIONS.len() - 1);
                let version = VERSIONS[self.wanted.version];
                self.world.patch::<KubeadmControlPlane>(&cp, json!({"spec": {"version": version}})).await;
                let workers = json!({"spec": {"template": {"spec": {"version": version}}}});
                self.world.patch::<MachineDeployment>(&md, workers).await;
            }
            Step::Lose { control_plane } => self.lose(control_plane).await,
            Step::Delete => self.world.delete(NAME).await,
        }
    }

    async fn create(&self) {
        let Wanted { control_plane, workers, balancer, root_volume, trunk, .. } = self.wanted.clone();
        let shape = Shape { control_plane, workers, version: VERSIONS[0].to_owned() };
        let change = |object: &mut Value| match object["kind"].as_str() {
            Some("OpenStackCluster") if !balancer => {
                object["spec"].as_object_mut().expect("a spec is an object").remove("apiServer");
            }
            Some("OpenStackMachineTemplate") => {
                let spec = &mut object["spec"]["template"]["spec"];
                if root_volume {
                    spec["rootVolume"] = json!({"sizeGiB": 20});
                }
                if trunk {
                    spec["trunk"] = json!(true);
                }
            }
            Some("KubeadmControlPlane") => {
                // RSA keys would be most of the work.
                object["spec"]["kubeadmConfigSpec"]["clusterConfiguration"] =
                    json!({"encryptionAlgorithm": "ECDSA-P256"});
            }
            _ => {}
        };
        self.world.create_with(NAME, shape, change).await;
    }

    /// Ends the server of one machine: of the control plane only if that leaves a majority.
    async fn lose(&mut self, control_plane: bool) {
        let machines = self.world.machines().await;
        let of = |wanted: bool| -> Vec<Machine> {
            let is = |machine: &&Machine| machine.labels().contains_key(api::names::CONTROL_PLANE_LABEL) == wanted;
            machines.iter().filter(is).cloned().collect()
        };
        let (masters, workers) = (of(true), of(false));
        let candidates = if control_plane && masters.len() >= 3 { masters } else { workers };
        if candidates.is_empty() {
            return;
        }
        let chosen = &candidates[self.rng.random_range(0..candidates.len())];
        let end = [End::Vanish, End::Error, End::Shutoff][self.rng.random_range(0..3)];
        // What hollow machines do when their server is stopped is nothing: it is lost only if it is gone.
        let end = if control_plane { End::Vanish } else { end };
        let id = chosen.spec.provider_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap_or_default();
        let ended = self.world.sandbox.end_server(id, end);
        self.note(&format!("the server of {} ends: {end:?} ({ended})", chosen.name_any()));
    }

    /// What must hold at any moment; and what a person does who looks at the cluster.
    async fn look(&mut self) -> Result<(), String> {
        if !self.deleting {
            for quorum in self.world.hollow.quorums() {
                if quorum.members > 0 && quorum.alive * 2 <= quorum.members {
                    return Err(format!("etcd has lost its quorum: {quorum:?}"));
                }
            }
        }
        let machines = self.world.machines().await;
        let infra: BTreeMap<String, OpenStackMachine> =
            self.world.list_all::<OpenStackMachine>().await.into_iter().map(|one| (one.name_any(), one)).collect();
        for machine in &machines {
            silent(machine)?;
        }
        for machine in &machines {
            let Some(infra) = infra.get(&machine.spec.infrastructure_ref.name) else { continue };
            if machine.metadata.deletion_timestamp.is_none() && is_lost(infra) {
                self.note(&format!("{} is deleted: its server is lost", machine.name_any()));
                let _ = self.world.api::<Machine>().delete(&machine.name_any(), &Default::default()).await;
            }
        }
        Ok(())
    }

    async fn settles(&mut self) -> Result<(), String> {
        let end = Instant::now() + SETTLES_WITHIN;
        loop {
            self.look().await?;
            let left = self.left().await;
            let Some(left) = left else { return Ok(()) };
            if Instant::now() > end {
                return Err(format!("not settled within {SETTLES_WITHIN:?}: {left}"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What is not yet as wanted.
    async fn left(&self) -> Option<String> {
        let cluster = self.world.api::<Cluster>().get_opt(NAME).await.expect("read the cluster");
        let machines = self.world.machines().await;
        if self.deleting {
            if cluster.is_some() || !machines.is_empty() {
                return Some(format!("the cluster and {} machines are there", machines.len()));
            }
            let left = self.world.in_cloud().await;
            return (left.values().any(|count| *count > 0)).then(|| format!("in the cloud is left {left:?}"));
        }
        let wanted = self.wanted.control_plane + self.wanted.workers;
        let version = VERSIONS[self.wanted.version];
        let ready = |machine: &&Machine| {
            let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
            machine.metadata.deletion_timestamp.is_none()
                && machine.spec.version.as_deref() == Some(version)
                && condition::is_true(conditions, "Ready")
        };
        let count = machines.iter().filter(ready).count();
        if count != machines.len() || count != wanted as usize {
            return Some(format!("{count} of {} machines are ready and of {version}, {wanted} wanted", machines.len()));
        }
        let available = cluster.and_then(|cluster| cluster.status).map(|status| status.conditions).unwrap_or_default();
        if !condition::is_true(&available, "Available") {
            return Some("the cluster is not Available".to_owned());
        }
        let nodes = Api::<Node>::all(self.world.workload(NAME).await).list(&ListParams::default()).await;
        match nodes {
            Err(error) => return Some(format!("the nodes cannot be read: {error}")),
            Ok(nodes) if nodes.items.len() != wanted as usize => {
                return Some(format!("there are {} nodes for {wanted} machines", nodes.items.len()));
            }
            Ok(_) => {}
        }
        let (there, expected) = (self.world.in_cloud().await, self.expected());
        (there != expected).then(|| format!("in the cloud is {there:?} instead of {expected:?}"))
    }

    /// What the cloud holds when all is as wanted.
    fn expected(&self) -> BTreeMap<&'static str, usize> {
        let machines = (self.wanted.control_plane + self.wanted.workers) as usize;
        let when = |is: bool, count: usize| if is { count } else { 0 };
        let balancer = when(self.wanted.balancer, 1);
        let mut expected = BTreeMap::from([
            ("floating ips", 1),
            ("load balancers", balancer),
            ("networks", 1),
            // Of machines, the router and the load balancer.
            ("ports", machines + 1 + balancer),
            ("routers", 1),
            ("security groups", 2),
            ("servers", machines),
            ("trunks", when(self.wanted.trunk, machines)),
            ("volumes", when(self.wanted.root_volume, machines)),
        ]);
        expected.retain(|_, count| *count > 0);
        expected
    }
}

/// A machine that is not ready and does not say why.
fn silent(machine: &Machine) -> Result<(), String> {
    let age = machine.metadata.creation_timestamp.as_ref().map_or(0, |since| now().duration_since(since.0).as_secs());
    if age < SPEAKS_AFTER_S {
        return Ok(());
    }
    let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
    match condition::get(conditions, "Ready") {
        Some(ready) if ready.status == ConditionStatus::True => Ok(()),
        Some(ready) if !ready.reason.is_empty() && !ready.message.is_empty() => Ok(()),
        other => Err(format!("machine {} is not ready and does not say why: {other:?}", machine.name_any())),
    }
}

/// Its server is in error, stopped, or gone.
fn is_lost(infra: &OpenStackMachine) -> bool {
    let Some(status) = &infra.status else { return false };
    matches!(status.instance_state.as_deref(), Some("ERROR" | "SHUTOFF" | "DELETED"))
        && !condition::is_true(&status.conditions, "InstanceReady")
}
