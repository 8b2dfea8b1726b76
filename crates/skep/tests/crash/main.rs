//! SIGKILL at any moment of a cluster's creation or deletion, then start again: the cluster becomes Available, nothing in
//! the cloud is there twice, and nothing is left of it in the end.
//!
//! What "nothing twice" means is learnt from clusters of the same shapes that nobody disturbs. `SKEP_CRASH_SEED` repeats
//! the moments of an earlier run, as far as the machine's pace allows.

mod fleet;
mod inventory;
mod process;

use std::{
    cell::Cell,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleet::{Shape, delete, gone, settled, together, within};
use futures::{StreamExt, future};
use inventory::{Counts, Inventory, differences, surplus, tenant};
use kube::Client;
use openstack::network::{Network, NetworkDraft};
use process::{Log, Process};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The sandbox's name in its clouds.yaml.
const CLOUD: &str = "skep-sandbox";
const SEED: u64 = 20_261_121;
/// Longest wait for clusters to be Available or gone, once nobody kills any more.
const LIMIT: Duration = Duration::from_secs(90);
/// How often a kill comes while the process starts.
const EARLY: f64 = 0.2;
/// How often, of the others, a kill comes by the clock, and not after so many changes.
const BY_CLOCK: f64 = 0.4;
/// Longest time from a change to the kill after it, in milliseconds.
const AFTER_CHANGE_MS: u64 = 40;

/// A cluster of `skep up`.
const DEMO: Shape = Shape {
    name: "demo",
    control_plane: 3,
    workers: 3,
    zones: &["az1", "az2", "az3"],
    load_balancer: true,
    bastion: false,
};
const SHAPES: [Shape; 3] = [
    Shape { name: "wide", ..DEMO },
    Shape { name: "small", control_plane: 1, workers: 1, zones: &[], load_balancer: false, bastion: false },
    Shape { name: "guarded", control_plane: 1, workers: 2, zones: &["az2"], load_balancer: true, bastion: true },
];

/// What an undisturbed cluster of a shape is made of.
struct Reference {
    shape: Shape,
    cloud: Counts,
    so_far: Counts,
    objects: Counts,
}

/// How long something takes.
#[derive(Clone, Copy, Default)]
struct Pace {
    time_ms: u64,
    /// Of objects in the Management API.
    changes: usize,
}

/// A management cluster that is killed again and again, and the cloud that it works on.
struct Trial {
    plane: Process,
    /// The line after which its API answers.
    ready: &'static str,
    /// Credentials of a cloud in another process; none if the process brings its own cloud and cluster.
    clouds_yaml: Option<String>,
    cloud: openstack::Client,
    references: Vec<Reference>,
    rng: StdRng,
    /// How long the last undisturbed start took, in milliseconds.
    start_ms: u64,
    /// What the creation of the references took.
    creation: Pace,
    /// Clusters whose creation is under way.
    growing: Vec<Named>,
    /// Kills within a creation.
    kills: usize,
    /// How many objects of the growing clusters were in the cloud at the kills.
    moments: Vec<usize>,
}

type Named = (String, Shape);

impl Trial {
    fn new(plane: Process, ready: &'static str, clouds_yaml: Option<String>, cloud: openstack::Client) -> Self {
        let seed = std::env::var("SKEP_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
        plane.log.add(&format!("[SKEP_CRASH_SEED={seed}]"));
        let rng = StdRng::seed_from_u64(seed);
        Self {
            plane,
            ready,
            clouds_yaml,
            cloud,
            references: Vec::new(),
            rng,
            start_ms: 0,
            creation: Pace::default(),
            growing: Vec::new(),
            kills: 0,
            moments: Vec::new(),
        }
    }

    async fn start(&mut self) -> Result<Client> {
        let started = Instant::now();
        self.plane.start()?;
        self.plane.says(self.ready).await?;
        self.start_ms = milliseconds(started);
        if !self.is_cloud_apart() {
            self.look().await?;
        }
        self.plane.client().await
    }

    async fn kill(&mut self) -> Result<()> {
        self.plane.kill().await?;
        if self.is_cloud_apart() { self.look().await } else { Ok(()) }
    }

    fn is_cloud_apart(&self) -> bool {
        self.clouds_yaml.is_some()
    }

    /// At no moment is there more of anything than in the end.
    async fn look(&mut self) -> Result<()> {
        if self.growing.is_empty() {
            return Ok(());
        }
        let inventory = Inventory::read(&self.cloud).await?;
        let mut all = 0;
        for (name, shape) in &self.growing {
            let found = inventory.so_far(name);
            let more = surplus(&self.reference(shape)?.so_far, &found);
            ensure!(more.is_empty(), "cluster {name} has too much:\n{}", more.join("\n"));
            all += found.values().sum::<usize>();
        }
        self.moments.push(all);
        Ok(())
    }

    /// Makes clusters that nobody disturbs, and learns what they are made of. The process goes on running.
    async fn learn(&mut self, client: &Client, clusters: &[Named]) -> Result<()> {
        let started = Instant::now();
        let mut changes = 0;
        let work = async {
            apply(client, clusters, self.clouds_yaml.as_deref()).await?;
            settle(client, clusters).await
        };
        let counted = fleet::changes(client).for_each(|()| {
            changes += 1;
            future::ready(())
        });
        let both = async {
            tokio::select! {
                done = work => done,
                () = counted => Ok(()),
            }
        };
        self.finish("clusters to be Available", clusters, both).await?;
        self.creation = Pace { time_ms: milliseconds(started), changes };
        let inventory = Inventory::at_rest(&self.cloud).await?;
        for (name, shape) in clusters {
            let (cloud, so_far) = (inventory.of(name), inventory.so_far(name));
            ensure!(cloud.values().sum::<usize>() > 20, "cluster {name} has hardly anything: {cloud:#?}");
            let objects = fleet::objects(client, name).await?;
            self.references.push(Reference { shape: *shape, cloud, so_far, objects });
        }
        Ok(())
    }

    /// Work that nobody disturbs. If it fails, the error says what the clusters look like.
    async fn finish(&self, what: &str, clusters: &[Named], work: impl Future<Output = Result<()>>) -> Result<()> {
        let Err(mut error) = within(LIMIT, what, work).await else { return Ok(()) };
        for (name, _) in clusters {
            error = error.context(self.plane.describe(name).await);
        }
        Err(error)
    }

    /// Starts the process, and kills it at a random moment, or when `work` is done. Returns whether it was done.
    async fn life(&mut self, longest: Pace, work: impl AsyncFnOnce(Client) -> Result<()>) -> Result<bool> {
        let done = if self.rng.random_bool(EARLY) {
            self.plane.start()?;
            let moment = self.rng.random_range(1..=self.start_ms.max(2));
            tokio::time::sleep(Duration::from_millis(moment)).await;
            false
        } else {
            let client = self.start().await?;
            let by_clock = self.rng.random_bool(BY_CLOCK);
            let (changes, time_ms) = match by_clock {
                true => (0, self.rng.random_range(2..=longest.time_ms.max(3))),
                false => (self.rng.random_range(1..=longest.changes.max(2)), self.rng.random_range(0..AFTER_CHANGE_MS)),
            };
            let moment = async {
                fleet::changed(&client, changes).await;
                tokio::time::sleep(Duration::from_millis(time_ms)).await;
            };
            tokio::select! {
                () = moment => false,
                done = work(client.clone()) => {
                    done?;
                    true
                }
            }
        };
        self.kill().await?;
        Ok(done)
    }

    /// Creates clusters while killing up to `kills` times; all is as it should be in the end. The process goes on running.
    async fn create(&mut self, clusters: &[Named], kills: usize) -> Result<Client> {
        let Pace { time_ms, changes } = self.creation;
        let longest = Pace { time_ms: 3 * time_ms / 2 / kills as u64, changes: 3 * changes / 2 / kills };
        let (applied, clouds_yaml) = (Cell::new(false), self.clouds_yaml.clone());
        self.growing = clusters.to_vec();
        for _ in 0..kills {
            let done = self.life(longest, async |client| {
                if !applied.get() {
                    apply(&client, clusters, clouds_yaml.as_deref()).await?;
                    applied.set(true);
                }
                settle(&client, clusters).await
            });
            if done.await? {
                break;
            }
            self.kills += 1;
        }
        let client = self.start().await?;
        apply(&client, clusters, clouds_yaml.as_deref()).await?;
        self.finish("clusters to be Available", clusters, settle(&client, clusters)).await?;
        self.growing.clear();
        self.check(&client, clusters).await?;
        Ok(client)
    }

    /// Deletes clusters while killing up to `kills` times; nothing is left in the end. The process goes on running.
    async fn delete(&mut self, clusters: &[Named], kills: usize) -> Result<Client> {
        let work = async |client: Client| {
            together(clusters.iter().map(|(name, _)| delete(&client, name))).await?;
            together(clusters.iter().map(|(name, _)| gone(&client, name))).await
        };
        let Pace { time_ms, changes } = self.creation;
        let longest = Pace { time_ms: time_ms / 2 / kills as u64, changes: changes / 2 / kills };
        for _ in 0..kills {
            if self.life(longest, work).await? {
                break;
            }
        }
        let client = self.start().await?;
        self.finish("clusters to be gone", clusters, work(client.clone())).await?;
        let inventory = Inventory::read(&self.cloud).await?;
        for (name, _) in clusters {
            let left = inventory.of(name);
            ensure!(left.is_empty(), "of cluster {name} is left in the cloud:\n{left:#?}");
        }
        Ok(client)
    }

    fn reference(&self, shape: &Shape) -> Result<&Reference> {
        self.references.iter().find(|r| r.shape.name == shape.name).context("there is no reference of the shape")
    }

    async fn check(&self, client: &Client, clusters: &[Named]) -> Result<()> {
        let inventory = Inventory::at_rest(&self.cloud).await?;
        for (name, shape) in clusters {
            let reference = self.reference(shape)?;
            let mut wrong = differences(&reference.cloud, &inventory.of(name));
            wrong.extend(differences(&reference.objects, &fleet::objects(client, name).await?));
            ensure!(wrong.is_empty(), "cluster {name} is not as an undisturbed one:\n{}", wrong.join("\n"));
        }
        Ok(())
    }

    /// Doubles a network by hand: what the other checks rest on would see it.
    async fn check_that_a_double_is_seen(&self, (name, shape): &Named) -> Result<()> {
        let draft = NetworkDraft { name: format!("k8s-clusterapi-cluster-default-{name}"), ..NetworkDraft::default() };
        let double: Network = self.cloud.create(&draft).await?;
        let found = Inventory::read(&self.cloud).await?;
        let reference = self.reference(shape)?;
        let seen = [surplus(&reference.so_far, &found.so_far(name)), differences(&reference.cloud, &found.of(name))];
        self.cloud.remove::<Network>(&double.id).await?;
        ensure!(seen.iter().all(|lines| lines.len() == 1), "of a network that was doubled is seen: {seen:#?}");
        Ok(())
    }

    /// Nothing is in the cloud but what was there before.
    async fn check_empty(&self, before: &Counts) -> Result<()> {
        let wrong = differences(before, &Inventory::read(&self.cloud).await?.all());
        ensure!(wrong.is_empty(), "the cloud is not as it was before:\n{}", wrong.join("\n"));
        Ok(())
    }
}

/// Applies the clusters' objects, if the process does not do so itself.
async fn apply(client: &Client, clusters: &[Named], clouds_yaml: Option<&str>) -> Result<()> {
    let Some(clouds_yaml) = clouds_yaml else { return Ok(()) };
    for (name, shape) in clusters {
        cli::apply(client, shape.objects(name, CLOUD, clouds_yaml)).await?;
    }
    Ok(())
}

async fn settle(client: &Client, clusters: &[Named]) -> Result<()> {
    together(clusters.iter().map(|(name, shape)| settled(client, name, shape))).await
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// `word` and the shape's name, of each shape.
fn named(word: &str, shapes: &[Shape]) -> Vec<Named> {
    shapes.iter().map(|shape| (format!("{word}-{}", shape.name), *shape)).collect()
}

/// Runs a trial in a folder of its own; a failure shows what the processes said last.
async fn run(trial: impl AsyncFnOnce(&Path, &Log) -> Result<()>) {
    // Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let log = Log::default();
    if let Err(error) = trial(folder.path(), &log).await {
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        panic!("{}\nlast lines on standard error:\n{}", causes.join("\n"), log.text());
    }
}

#[tokio::test]
async fn controllers_that_are_killed_while_they_create_and_delete_double_nothing_and_leave_nothing() {
    run(async |folder, log| {
        let mut sandbox = Process::new(&folder.join("sandbox"), &["sandbox", "--port", "0"], log);
        sandbox.start()?;
        sandbox.says("The sandbox cloud answers at").await?;
        let path = sandbox.state.join("clouds.yaml");
        let cloud = tenant(&path, CLOUD)?;
        let before = Inventory::read(&cloud).await?.all();
        let plane = Process::new(&folder.join("management"), &["serve", "--listen", "127.0.0.1:0"], log);
        let clouds_yaml = std::fs::read_to_string(&path)?;
        let mut trial = Trial::new(plane, "The Management API answers at", Some(clouds_yaml), cloud);
        let client = trial.start().await?;
        let quiet = named("quiet", &SHAPES);
        trial.learn(&client, &quiet).await?;
        trial.check_that_a_double_is_seen(&quiet[0]).await?;
        trial.plane.kill().await?;
        let mut clusters = quiet.clone();
        for round in 0.. {
            let fresh = named(&format!("round{round}"), &SHAPES);
            let client = trial.create(&fresh, 15).await?;
            // Those that were there before come to no harm.
            trial.check(&client, &quiet).await?;
            trial.plane.kill().await?;
            clusters.extend(fresh);
            if trial.kills >= 30 {
                break;
            }
            trial.delete(&clusters.split_off(quiet.len()), 3).await?;
            trial.plane.kill().await?;
        }
        trial.delete(&clusters, 5).await?;
        trial.check_empty(&before).await?;
        eprintln!("{} kills; objects in the cloud: {:?}", trial.kills, trial.moments);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_whole_process_killed_while_it_creates_and_deletes_doubles_nothing_and_leaves_nothing() {
    run(async |folder, log| {
        let mut plane = Process::new(&folder.join("state"), &["up", "--port", "0", "--no-cluster"], log);
        plane.start()?;
        plane.says("Sandbox cloud").await?;
        let cloud = tenant(&plane.state.join("clouds.yaml"), CLOUD)?;
        let before = Inventory::read(&cloud).await?.all();
        plane.kill().await?;
        let mut trial = Trial::new(plane, "Sandbox cloud", None, cloud);
        trial.plane.change(&["up", "--port", "0", "--cluster", "quiet"]);
        let client = trial.start().await?;
        let quiet = [("quiet".to_owned(), DEMO)];
        trial.learn(&client, &quiet).await?;
        trial.plane.kill().await?;
        let mut clusters = quiet.to_vec();
        for round in 0.. {
            let name = format!("round{round}");
            trial.plane.change(&["up", "--port", "0", "--cluster", &name]);
            let fresh = [(name, DEMO)];
            let client = trial.create(&fresh, 13).await?;
            trial.check(&client, &quiet).await?;
            trial.plane.kill().await?;
            clusters.extend(fresh);
            trial.plane.change(&["up", "--port", "0", "--no-cluster"]);
            if trial.kills >= 20 {
                break;
            }
            trial.delete(&clusters.split_off(quiet.len()), 3).await?;
            trial.plane.kill().await?;
        }
        trial.delete(&clusters, 5).await?;
        trial.check_empty(&before).await?;
        eprintln!("{} kills; objects in the cloud: {:?}", trial.kills, trial.moments);
        Ok(())
    })
    .await;
}
