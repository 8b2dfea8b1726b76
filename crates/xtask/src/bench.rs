//! Benchmarks of the whole binary: its figures as JSON on standard output, progress on standard error.

mod apps;
mod cloud;
mod helm;
mod upgrade;

use std::{
    borrow::Cow,
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use api::cluster::Cluster;
use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt, pin_mut, stream};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ListParams, ObjectMeta},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The name of the sandbox in its clouds.yaml.
const CLOUD: &str = "skep-sandbox";
/// Clusters whose objects are applied at once.
const APPLY_CONCURRENCY: usize = 8;
/// Pause between two lines of progress.
const WORD_EVERY: Duration = Duration::from_secs(5);
/// Nothing is going on any more if nothing was written for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(40);
/// Longest wait for the server to answer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for it to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Clock ticks a second in proc(5); USER_HZ is 100 on every Linux that Rust knows.
const TICKS_PER_S: f64 = 100.0;

#[derive(Subcommand)]
pub enum Bench {
    /// Apps in many clusters at once, and a change for all of them
    Apps(apps::Apps),
    /// Many small clusters at once, until all are Available
    Fleet(Fleet),
    /// A chart, by Helm and by ours
    Helm(helm::Helm),
    /// From nothing to the demo cluster, several times
    Up(Up),
    /// One cluster is upgraded while its API is asked and written to
    Upgrade(upgrade::Upgrade),
}

#[derive(Args)]
pub struct Which {
    /// Binary to measure (none: the release build of this source, which is built first)
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Args)]
pub struct Fleet {
    #[command(flatten)]
    which: Which,
    /// How many clusters
    #[arg(long, default_value_t = 200)]
    clusters: usize,
    /// Control plane machines of each
    #[arg(long, default_value_t = 1)]
    control_plane_machines: u32,
    /// Workers of each
    #[arg(long, default_value_t = 1)]
    worker_machines: u32,
    /// Longest wait, in seconds
    #[arg(long, default_value_t = 1800)]
    timeout_s: u64,
    /// After all are Available, stay for so many seconds and measure what they cost at rest
    #[arg(long, default_value_t = 0)]
    rest_s: u64,
    /// Delete all clusters in the end, and measure that too
    #[arg(long)]
    delete: bool,
}

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    which: Which,
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

pub fn run(bench: Bench) -> Result<()> {
    if let Bench::Helm(arguments) = &bench {
        print(&helm::helm(arguments)?);
        return Ok(());
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("TLS is set up twice");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    runtime.block_on(async {
        match bench {
            Bench::Apps(arguments) => apps::apps(arguments).await,
            Bench::Fleet(arguments) => fleet(arguments).await,
            Bench::Helm(_) => Ok(()),
            Bench::Up(arguments) => up(arguments).await,
            Bench::Upgrade(arguments) => upgrade::upgrade(arguments).await,
        }
    })
}

impl Which {
    /// Builds the release binary unless one is named.
    fn binary(&self) -> Result<PathBuf> {
        if let Some(binary) = &self.binary {
            return binary.canonicalize().with_context(|| format!("find {}", binary.display()));
        }
        built("skep")
    }
}

/// The binary of a package, built as it is released.
fn built(package: &str) -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["build", "--release", "-p", package, "--message-format", "json-render-diagnostics"];
    let output = std::process::Command::new(cargo).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.context("run cargo build")?;
    ensure!(output.status.success(), "cargo build --release -p {package} failed");
    let lines = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let executable = lines.filter_map(|line: Value| Some(PathBuf::from(line["executable"].as_str()?))).next_back();
    executable.context("cargo build names no executable")
}

/// A `skep up` without clusters, in a folder that goes with it.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    started: Instant,
}

/// What a process has used, from proc(5).
struct Usage {
    cpu_s: f64,
    rss_mib: u64,
    peak_mib: u64,
}

impl Server {
    async fn start(binary: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the state")?;
        let mut command = Command::new(binary);
        command.args(["up", "--no-cluster", "--port", "0", "--state"]).arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let stderr = child.stderr.take().context("standard error is not piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("Sandbox cloud") {
                    return Ok(());
                }
                eprintln!("{line}");
            }
            bail!("the server ended")
        };
        tokio::time::timeout(START_LIMIT, ready).await.context("the server does not answer")??;
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
            }
        });
        Ok(Self { child, folder, started })
    }

    async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.folder.path().join("kubeconfig")).context("read the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    fn usage(&self) -> Result<Usage> {
        let pid = self.child.id().context("the server has ended")?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the server's times")?;
        // The second field is a name in parentheses, and may have spaces; times are the 14th and 15th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the server's memory")?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let cpu_s = (ticks(14) + ticks(15)) / TICKS_PER_S;
        Ok(Usage { cpu_s, rss_mib: kib("VmRSS:") / 1024, peak_mib: kib("VmHWM:") / 1024 })
    }

    /// All databases with their logs.
    fn store_mib(&self) -> Result<f64> {
        let mut bytes = 0;
        for entry in fs::read_dir(self.folder.path()).context("read the state folder")? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(".db") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(round(bytes as f64 / 1024.0 / 1024.0))
    }

    async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().context("the server has ended")?;
        let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.context("run kill")?;
        ensure!(asked.success(), "cannot stop the server");
        let ended = tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.context("the server does not end")??;
        ensure!(ended.success(), "the server ended with {ended}");
        Ok(())
    }
}

async fn fleet(arguments: Fleet) -> Result<()> {
    let server = Server::start(&arguments.which.binary()?).await?;
    let client = server.client().await?;
    let clouds_yaml = fs::read_to_string(server.folder.path().join("clouds.yaml")).context("read clouds.yaml")?;
    let before = server.usage()?;
    let started = Instant::now();
    let cloud = cloud::Cloud::open(&clouds_yaml).await?;
    let template = cli::ClusterTemplate {
        control_plane_machines: arguments.control_plane_machines,
        worker_machines: arguments.worker_machines,
        ..cli::ClusterTemplate::sandbox()
    };
    let limit = Duration::from_secs(arguments.timeout_s);
    let applied_s = clusters(&server, &client, template, arguments.clusters, limit).await?;
    let after = server.usage()?;
    let mut figures = json!({
        "clusters": arguments.clusters,
        "seconds": seconds(started),
        "cpu_s": round(after.cpu_s - before.cpu_s),
        "rss_mib": after.rss_mib,
        "store_mib": server.store_mib()?,
        "applied_s": applied_s,
        "peak_mib": after.peak_mib,
    });
    if arguments.rest_s > 0 {
        settled(&client).await?;
        eprintln!("at rest for {} s", arguments.rest_s);
        let (before, at) = (server.usage()?, revision(&client).await?);
        cloud.count_calls().await?;
        tokio::time::sleep(Duration::from_secs(arguments.rest_s)).await;
        figures["rest_writes"] = (revision(&client).await? - at).into();
        figures["rest_cloud_calls"] = cloud.calls().await?.into();
        let used = server.usage()?.cpu_s - before.cpu_s;
        figures["rest_cores"] = round(used / arguments.rest_s as f64).into();
    }
    if arguments.delete {
        let (before, started) = (server.usage()?, Instant::now());
        delete(&client, arguments.clusters).await?;
        let none = |clusters: &Counted| clusters.all.is_empty();
        let waited = watch(&client, &server, arguments.clusters, none);
        tokio::time::timeout(limit, waited).await.with_context(|| format!("not all are gone after {limit:?}"))??;
        figures["deleted_s"] = seconds(started).into();
        figures["delete_cpu_s"] = round(server.usage()?.cpu_s - before.cpu_s).into();
    }
    server.stop().await?;
    print(&figures);
    Ok(())
}

/// Makes so many clusters, c0000 and on, and waits until all are Available; the seconds until all were applied.
async fn clusters(
    server: &Server,
    client: &Client,
    template: cli::ClusterTemplate,
    count: usize,
    limit: Duration,
) -> Result<f64> {
    let started = Instant::now();
    let clouds_yaml = fs::read_to_string(server.folder.path().join("clouds.yaml")).context("read clouds.yaml")?;
    let template = cli::ClusterTemplate { zones: Vec::new(), cloud: CLOUD.to_owned(), clouds_yaml, ..template };
    let applied = stream::iter(0..count)
        .map(|index| {
            let template = cli::ClusterTemplate { name: format!("c{index:04}"), ..template.clone() };
            let client = client.clone();
            async move { cli::apply(&client, template.objects()).await.map(drop) }
        })
        .buffer_unordered(APPLY_CONCURRENCY)
        .try_collect::<()>();
    let mut applied_s = 0.0;
    let work = async {
        applied.await.context("apply the clusters")?;
        applied_s = seconds(started);
        anyhow::Ok(())
    };
    let all = |clusters: &Counted| clusters.available.len() == count;
    let waited = watch(client, server, count, all);
    let both = async { tokio::try_join!(work, waited) };
    tokio::time::timeout(limit, both).await.with_context(|| format!("not all are Available after {limit:?}"))??;
    Ok(applied_s)
}

/// The revision of everything that the Management API keeps: each write is one more.
async fn revision(client: &Client) -> Result<u64> {
    let clusters = Api::<Cluster>::all(client.clone()).list(&ListParams::default().limit(1)).await?;
    clusters.metadata.resource_version.unwrap_or_default().parse().context("read the revision")
}

/// Returns when nothing has been written for a while: what is Available may still have to be told of.
async fn settled(client: &Client) -> Result<()> {
    let mut last = revision(client).await?;
    loop {
        tokio::time::sleep(SETTLED_AFTER).await;
        let now = revision(client).await?;
        if now == last {
            return Ok(());
        }
        last = now;
    }
}

async fn delete(client: &Client, clusters: usize) -> Result<()> {
    let api = Api::<Cluster>::default_namespaced(client.clone());
    let parameters = kube::api::DeleteParams::background();
    stream::iter(0..clusters)
        .map(|index| {
            let (api, parameters) = (api.clone(), parameters.clone());
            async move { api.delete(&format!("c{index:04}"), &parameters).await.map(drop) }
        })
        .buffer_unordered(APPLY_CONCURRENCY)
        .try_collect::<()>()
        .await
        .context("delete the clusters")
}

/// Names of clusters.
#[derive(Default)]
struct Counted {
    all: HashSet<String>,
    available: HashSet<String>,
}

/// What is read of a Cluster here: who measures should not take the machine from what is measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Read")]
struct Glance {
    metadata: ObjectMeta,
    available: bool,
}

#[derive(Deserialize)]
struct Read {
    metadata: ReadMeta,
    status: Option<ReadStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadMeta {
    name: String,
    namespace: String,
    resource_version: String,
}

#[derive(Deserialize)]
struct ReadStatus {
    #[serde(default)]
    conditions: Vec<ReadCondition>,
}

#[derive(Deserialize)]
struct ReadCondition {
    r#type: String,
    status: String,
}

impl From<Read> for Glance {
    fn from(read: Read) -> Self {
        let metadata = ObjectMeta {
            name: Some(read.metadata.name),
            namespace: Some(read.metadata.namespace),
            resource_version: Some(read.metadata.resource_version),
            ..ObjectMeta::default()
        };
        let mut conditions = read.status.into_iter().flat_map(|status| status.conditions);
        let available = conditions.any(|condition| condition.r#type == "Available" && condition.status == "True");
        Self { metadata, available }
    }
}

impl Resource for Glance {
    type DynamicType = ();
    type Scope = <Cluster as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Cluster::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Cluster::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Cluster::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Cluster::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Watches all clusters until they are as wanted, with a word on it now and then.
async fn watch(client: &Client, server: &Server, wanted: usize, done: impl Fn(&Counted) -> bool) -> Result<()> {
    let events = watcher(Api::<Glance>::all(client.clone()), watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut counted = Counted::default();
    let mut complete = false;
    let mut word = tokio::time::interval(WORD_EVERY);
    loop {
        tokio::select! {
            event = events.next() => match event.context("the watch of clusters ended")? {
                Ok(Event::Apply(cluster) | Event::InitApply(cluster)) => {
                    let name = cluster.name_any();
                    if cluster.available {
                        counted.available.insert(name.clone());
                    } else {
                        counted.available.remove(&name);
                    }
                    counted.all.insert(name);
                }
                Ok(Event::Delete(cluster)) => {
                    counted.all.remove(&cluster.name_any());
                    counted.available.remove(&cluster.name_any());
                }
                Ok(Event::Init) => (counted, complete) = (Counted::default(), false),
                Ok(Event::InitDone) => complete = true,
                Err(error) => eprintln!("watch clusters: {error}"),
            },
            _ = word.tick() => {
                let usage = server.usage()?;
                eprintln!(
                    "{:>6.0} s  {:>4} of {wanted} clusters, {:>4} Available  {:>7.1} CPU s  {:>5} MiB",
                    server.started.elapsed().as_secs_f64(), counted.all.len(), counted.available.len(), usage.cpu_s, usage.rss_mib,
                );
            }
        }
        if complete && done(&counted) {
            return Ok(());
        }
    }
}

async fn up(arguments: Up) -> Result<()> {
    let binary = arguments.which.binary()?;
    let mut runs: Vec<Value> = Vec::new();
    for number in 1..=arguments.runs {
        let folder = tempfile::tempdir().context("make a folder for the state")?;
        let mut command = Command::new(&binary);
        command.args(["up", "--until-ready", "--port", "0", "--state"]).arg(folder.path());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("run skep up")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "skep up ended with {}:\n{said}", output.status);
        let text = String::from_utf8(output.stdout).context("read the figures")?;
        let figures = serde_json::from_str(text.lines().last().unwrap_or_default()).context("read the figures")?;
        eprintln!("{number} of {}: {figures}", arguments.runs);
        runs.push(figures);
    }
    let mut figures = json!({ "median_of": runs.len() });
    for key in ["api_ready_s", "cluster_ready_s", "rss_mib"] {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        figures[key] = values.get(values.len() / 2).copied().into();
    }
    for run in &runs {
        print(run);
    }
    print(&figures);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are the command's output")]
fn print(figures: &Value) {
    println!("{figures}");
}

fn seconds(since: Instant) -> f64 {
    round(since.elapsed().as_secs_f64())
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
