//! The life of a cluster on a cloud that fails, chosen by a seed: its shape, what is done with it, and what goes wrong
//! meanwhile. After each step the faults stop, and within a time everything has to be as wanted; in the end nothing may be
//! left in the cloud.
//!
//! A person who looks after the cluster is part of it: machines whose server is in error, stopped or gone are deleted. Some clusters
//! have MachineHealthChecks in their place; then the person sees to control plane machines only, and late.
//!
//! What came later is drawn from a second stream of the seed's randomness: what a cluster has besides its machines ([`beside`]), and
//! what goes wrong with its etcd ([`etcd`]). A third has another cluster beside it ([`neighbour`]), workers whose addresses are from a
//! pool and whose image is made for them, and an etcd without quorum. So a seed that was kept goes on being the life that it was ([`run_bare`], [`run_alone`]).

mod beside;
mod chaos;
mod etcd;
mod looks;
mod neighbour;
mod shape;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use api::{machine::Machine, openstack_machine::OpenStackMachine};
use kube::ResourceExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sandbox::cloud::{End, Faults};
use tokio::time::Instant;

use self::{
    beside::Beside,
    neighbour::Neighbour,
    shape::{Counts, Wanted},
};
use crate::{Shares, World};

const NAME: &str = "demo";
/// Everything has settled so long after faults have ended, on the world's clock.
const SETTLES_WITHIN: Duration = Duration::from_secs(20 * 60);
/// Versions that a cluster goes through.
const VERSIONS: [&str; 3] = ["v1.34.2", "v1.35.0", "v1.36.0"];
/// No reconcile takes longer than one call to the cloud may (its client's time-out), and the pauses between what it does.
const RECONCILE_LIMIT: Duration = Duration::from_secs(31);
/// A person sees to a control plane machine without a server after this long, where a health check should have.
const PERSON_AFTER: Duration = Duration::from_secs(8 * 60);
/// Between two looks, while faults are on: at least and at most, in milliseconds.
const LOOKS_MS: (u64, u64) = (300, 4000);
/// How long faults stay on in a step, in seconds.
const FAULTS_S: (u64, u64) = (5, 150);

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
    /// The cluster beside it is deleted when it is gone itself.
    DeleteNeighbour,
}

/// How many streams of a seed's randomness a life is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Drawn {
    Bare,
    Alone,
    All,
}

/// Runs the life of a seed in a runtime of its own: what happened, or what went wrong and what happened until then.
pub fn run(seed: u64) -> Result<String, String> {
    run_with(seed, Drawn::All)
}

/// The same, with nothing of what is drawn from the third stream.
pub fn run_alone(seed: u64) -> Result<String, String> {
    run_with(seed, Drawn::Alone)
}

/// The same, with nothing of what is drawn from the second and the third stream.
pub fn run_bare(seed: u64) -> Result<String, String> {
    run_with(seed, Drawn::Bare)
}

fn run_with(seed: u64, drawn: Drawn) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("start a runtime: {error}"))?;
    let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(seed, drawn))));
    // What is still blocked is nobody's concern any more.
    runtime.shutdown_background();
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default()))
    })
}

/// The life of a seed, on a paused clock: what happened.
async fn live(seed: u64, drawn: Drawn) -> Result<String, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut wanted = Wanted::draw(&mut rng);
    let mut more = (drawn >= Drawn::Alone).then(|| StdRng::seed_from_u64(seed.rotate_left(41)));
    let mut third = (drawn == Drawn::All).then(|| StdRng::seed_from_u64(seed.rotate_left(23)));
    if let Some(more) = &mut more {
        wanted.beside = Beside::draw(more, wanted.topology);
    }
    if let Some(third) = &mut third {
        // What machines of a class are is the class's.
        wanted.beside.addressed = third.random_bool(0.3) && !wanted.topology;
        wanted.beside.image = third.random_bool(0.3) && !wanted.topology;
    }
    let zones = wanted.zones;
    let world = World::start_with(seed, |options| options.zones = zones).await;
    let (log, lost, etcd) = (String::new(), BTreeMap::new(), etcd::Faults::default());
    let (neighbour, lasting) = (None, BTreeMap::new());
    let mut life = Life { world, rng, more, third, wanted, neighbour, lasting, etcd, log, deleting: false, lost };
    let steps = life.steps();
    life.note(&format!("seed {seed}: {:?}, {:?}", life.wanted, life.neighbour));
    let api = life.world.api_faults.clone();
    let all = async {
        for (index, step) in steps.into_iter().enumerate() {
            life.step(index, step).await?;
        }
        Ok(())
    };
    let lived = tokio::select! {
        lived = all => lived,
        why = api.storm() => Err(why),
    };
    if let Err(why) = lived {
        return Err(format!("{why}\n{}{}", life.log, life.world.told().await));
    }
    let longest = life.world.longest_reconciles();
    life.note(&format!("longest reconciles: {longest:?}"));
    if let Some((controller, took)) = longest.iter().find(|(_, took)| **took > RECONCILE_LIMIT) {
        return Err(format!("a reconcile of {controller} took {took:?}\n{}", life.log));
    }
    life.world.shutdown().await;
    Ok(life.log)
}

struct Life {
    world: World,
    rng: StdRng,
    /// None in a life without what came later.
    more: Option<StdRng>,
    third: Option<StdRng>,
    wanted: Wanted,
    neighbour: Option<Neighbour>,
    /// What clusters had in the cloud when all had settled, and are to have until they are deleted.
    lasting: BTreeMap<&'static str, BTreeSet<String>>,
    etcd: etcd::Faults,
    log: String,
    deleting: bool,
    /// Since when machines of the control plane are seen without their server.
    lost: BTreeMap<String, Instant>,
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
        self.neighbour = self.third.as_mut().and_then(|third| Neighbour::draw(third, steps.len()));
        if self.neighbour.as_ref().is_some_and(|neighbour| neighbour.until == steps.len()) {
            steps.push(Step::DeleteNeighbour);
        }
        steps
    }

    async fn step(&mut self, index: usize, step: Step) -> Result<(), String> {
        let victims = if step == (Step::Lose { control_plane: true }) { Vec::new() } else { self.victims().await };
        let (faults, told) = chaos::draw(&mut self.rng, &self.wanted, &victims);
        let (shares, api) = chaos::api(&mut self.rng);
        let servers_end = faults.zones_down.iter().any(|zone| zone.running.is_some());
        let whole = !servers_end && step != (Step::Lose { control_plane: true });
        let more = self.draw_more(step, whole).await;
        self.note(&format!("{step:?}, with {told}{api}{more}"));
        self.set(faults);
        if servers_end || self.etcd.takes_a_member() {
            // Their machines end with them, and not while a member of etcd is taken away that nobody knew to be the last but one.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.world.api_faults.set(shares);
        self.begin(step).await;
        if let Some(neighbour) = &mut self.neighbour
            && let Some(told) = neighbour.step(&self.world, index).await
        {
            self.note(&told);
        }
        self.deleting |= step == Step::Delete;
        let seconds = self.rng.random_range(FAULTS_S.0..=FAULTS_S.1);
        let end = Instant::now() + Duration::from_secs(seconds);
        let restarts = self.rng.random_bool(0.3);
        while Instant::now() < end {
            let pause = self.rng.random_range(LOOKS_MS.0..=LOOKS_MS.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.look().await?;
            if restarts && self.rng.random_bool(0.2) {
                if self.rng.random_bool(0.5) {
                    self.note("the controllers start anew");
                    self.world.restart_controllers().await;
                } else {
                    self.note("the controllers crash");
                    self.world.crash_controllers().await;
                }
            }
        }
        self.set(Faults::default());
        self.world.api_faults.set(Shares::default());
        let masters = self.masters().await;
        self.etcd.end(&self.world, &masters).await;
        self.note("faults end");
        self.settles().await.map_err(|why| format!("{step:?}: {why}"))?;
        self.note("settled");
        self.lasts().await.map_err(|why| format!("{step:?}: {why}"))
    }

    fn set(&self, faults: Faults) {
        self.world.sandbox.set_faults(faults).expect("the faults that are drawn are valid");
    }

    /// What the second stream has for a step, and its description: faults of etcd, and what changes besides.
    async fn draw_more(&mut self, step: Step, whole: bool) -> String {
        let masters = self.masters().await;
        let Some(more) = &mut self.more else { return String::new() };
        let (faults, mut told) = etcd::Faults::draw(more, &masters, whole);
        self.etcd = faults;
        if let Some(third) = &mut self.third {
            told += &self.etcd.draw_most(third, &masters, whole);
        }
        self.etcd.begin(&self.world).await;
        self.etcd.set(&self.world, &masters);
        match step {
            Step::Create => {}
            Step::Delete | Step::DeleteNeighbour => self.wanted.beside.end(),
            _ => told += &self.wanted.beside.change(more, self.wanted.topology),
        }
        told
    }

    /// The nodes of the control plane.
    async fn masters(&self) -> Vec<String> {
        let machines = looks::of(&self.world, NAME).await;
        machines.iter().filter(|machine| is_control_plane(machine)).map(ResourceExt::name_any).collect()
    }

    async fn begin(&mut self, step: Step) {
        match step {
            Step::Create => shape::create(&self.world, &self.wanted).await,
            Step::Workers(count) => self.wanted.workers = count,
            Step::ControlPlane(count) => self.wanted.control_plane = count,
            Step::Upgrade => self.wanted.version = (self.wanted.version + 1).min(VERSIONS.len() - 1),
            Step::Lose { control_plane } => self.lose(control_plane).await,
            Step::Delete | Step::DeleteNeighbour => {}
        }
        if matches!(step, Step::Workers(_) | Step::ControlPlane(_) | Step::Upgrade) {
            shape::change(&self.world, &self.wanted).await;
        }
        let (beside, world) = (&self.wanted.beside, &self.world);
        if self.more.is_some() && step != Step::DeleteNeighbour {
            beside.apply(world, self.wanted.version(), self.wanted.health_checks).await;
            if !self.wanted.topology {
                beside.apply_bastion(world).await;
            }
        }
        if step == Step::Delete {
            self.world.delete(NAME).await;
            self.wanted.beside = Beside::default();
        }
    }

    /// Zones that may go down with their servers: most of etcd stays.
    async fn victims(&self) -> Vec<String> {
        let machines = self.world.machines().await;
        let mut clusters: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
        for machine in machines.iter().filter(|machine| is_control_plane(machine)) {
            clusters.entry(&machine.spec.cluster_name).or_default().push(machine);
        }
        let keeps = |masters: &Vec<&Machine>, zone: &String| {
            let spare = if masters.len() >= 3 { 1 } else { 0 };
            masters.iter().filter(|machine| machine.spec.failure_domain.as_ref() == Some(zone)).count() <= spare
        };
        let fits = |zone: &String| clusters.values().all(|masters| keeps(masters, zone));
        (1..=self.wanted.zones).map(|zone| format!("az{zone}")).filter(fits).collect()
    }

    /// Ends the server of one machine: of the control plane only if that leaves a majority.
    async fn lose(&mut self, control_plane: bool) {
        let machines = looks::of(&self.world, NAME).await;
        let of = |wanted: bool| -> Vec<Machine> {
            machines.iter().filter(|machine| is_control_plane(machine) == wanted).cloned().collect()
        };
        let (masters, workers) = (of(true), of(false));
        let candidates = if control_plane && masters.len() >= 3 { masters } else { workers };
        if candidates.is_empty() {
            return;
        }
        let chosen = &candidates[self.rng.random_range(0..candidates.len())];
        let end = [End::Vanish, End::Error, End::Shutoff][self.rng.random_range(0..3)];
        let id = chosen.spec.provider_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap_or_default();
        let ended = self.world.sandbox.end_server(id, end);
        self.note(&format!("the server of {} ends: {end:?} ({ended})", chosen.name_any()));
    }

    /// What must hold at any moment; and what a person does who looks at the cluster.
    async fn look(&mut self) -> Result<(), String> {
        if !self.deleting || self.neighbour.is_some() {
            looks::quorum(&self.world, self.etcd.takes_most().then_some(NAME)).await?;
        }
        looks::silent(&self.world).await?;
        let machines = self.world.machines().await;
        if self.etcd != etcd::Faults::default() {
            self.etcd.set(&self.world, &self.masters().await);
        }
        if let Some(told) = self.wanted.beside.look_after(&self.world).await {
            self.note(&told);
        }
        let infra: BTreeMap<String, OpenStackMachine> =
            self.world.list_all::<OpenStackMachine>().await.into_iter().map(|one| (one.name_any(), one)).collect();
        for machine in &machines {
            let Some(infra) = infra.get(&machine.spec.infrastructure_ref.name) else { continue };
            if machine.metadata.deletion_timestamp.is_none() && looks::is_lost(infra) && self.person_acts(machine) {
                self.note(&format!("{} is deleted: its server is lost", machine.name_any()));
                let _ = self.world.api::<Machine>().delete(&machine.name_any(), &Default::default()).await;
            }
        }
        Ok(())
    }

    /// At once, or where there are health checks, only to the control plane, and late: a health check must do without.
    fn person_acts(&mut self, machine: &Machine) -> bool {
        // The other cluster has none.
        if !self.wanted.health_checks || machine.spec.cluster_name != NAME {
            return true;
        }
        let since = *self.lost.entry(machine.name_any()).or_insert_with(Instant::now);
        is_control_plane(machine) && since.elapsed() > PERSON_AFTER
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
        let left = if self.deleting { looks::rest(&self.world, NAME).await } else { self.unlike().await };
        if left.is_some() {
            return left;
        }
        if let Some(left) = self.wanted.beside.left(&self.world, self.wanted.workers).await {
            return Some(left);
        }
        let mut expected = Counts::new();
        if !self.deleting {
            self.wanted.in_cloud(&mut expected);
        }
        if let Some(neighbour) = &self.neighbour {
            if let Some(left) = neighbour.left(&self.world).await {
                return Some(left);
            }
            neighbour.in_cloud(&mut expected);
        }
        expected.retain(|_, count| *count > 0);
        let mut there = self.world.in_cloud().await;
        if self.wanted.beside.pool == Some(0) {
            // Its group comes with its first server, and goes with the pool.
            there.remove("server groups");
        }
        (there != expected).then(|| format!("in the cloud is {there:?} instead of {expected:?}"))
    }

    async fn unlike(&self) -> Option<String> {
        let wanted = &self.wanted;
        looks::unlike(&self.world, NAME, wanted.version(), wanted.machines(), wanted.control_plane).await
    }

    /// What clusters have in the cloud from beginning to end is what it was: nobody has taken it away, and nobody made it anew.
    async fn lasts(&mut self) -> Result<(), String> {
        let own = (!self.deleting).then_some(NAME);
        let other = self.neighbour.as_ref().filter(|neighbour| neighbour.there).map(|neighbour| neighbour.name);
        let mut now = BTreeMap::new();
        for cluster in own.into_iter().chain(other) {
            let things = looks::lasting(&self.world, cluster).await;
            if let Some(before) = self.lasting.get(cluster).filter(|before| **before != things) {
                return Err(format!("{cluster} has {things:?} in the cloud, and had {before:?}"));
            }
            now.insert(cluster, things);
        }
        self.lasting = now;
        Ok(())
    }
}

fn is_control_plane(machine: &Machine) -> bool {
    machine.labels().contains_key(api::names::CONTROL_PLANE_LABEL)
}
