//! One cluster is upgraded by a minor version, while somebody asks its API all the time and others write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::{control_plane::KubeadmControlPlane, machine::MachineDeployment};
use clap::Args;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Server, Which, round, seconds};

const NAME: &str = "demo";
const FROM: &str = "v1.34.2";
const TO: &str = "v1.35.0";
/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A question that has no answer by then has failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Clients that write meanwhile, as fast as they are answered.
const WRITERS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Args)]
pub struct Upgrade {
    #[command(flatten)]
    which: Which,
    #[arg(long, default_value_t = 3)]
    control_plane_machines: u32,
    #[arg(long, default_value_t = 5)]
    worker_machines: u32,
    /// Longest wait for each part, in seconds
    #[arg(long, default_value_t = 600)]
    timeout_s: u64,
}

/// What the one who asks has seen.
#[derive(Default)]
struct Asked {
    answers: u64,
    failures: u64,
    longest_gap: Duration,
    last_failure: String,
}

pub async fn upgrade(arguments: Upgrade) -> Result<()> {
    let server = Server::start(&arguments.which.binary()?).await?;
    let client = server.client().await?;
    let template = cli::ClusterTemplate {
        name: NAME.to_owned(),
        kubernetes_version: FROM.to_owned(),
        zones: Vec::new(),
        cloud: super::CLOUD.to_owned(),
        control_plane_machines: arguments.control_plane_machines,
        worker_machines: arguments.worker_machines,
        clouds_yaml: std::fs::read_to_string(server.folder.path().join("clouds.yaml")).context("read clouds.yaml")?,
        ..cli::ClusterTemplate::sandbox()
    };
    cli::apply(&client, template.objects()).await.context("apply the cluster")?;
    let limit = Duration::from_secs(arguments.timeout_s);
    let machines = i32::try_from(arguments.control_plane_machines + arguments.worker_machines)?;
    until(limit, "all machines run", async || Ok(ready(&client, FROM).await? == machines)).await?;

    let kubeconfig = kubeconfig(&client).await?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let asking = tokio::spawn(ask(kubeconfig.clone(), stop.clone()));
    for number in 0..WRITERS {
        let (kubeconfig, stop) = (kubeconfig.clone(), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(write(kubeconfig, number)).await });
    }
    let started = Instant::now();
    let patch = |version: serde_json::Value| Patch::Merge(version);
    let control_planes = Api::<KubeadmControlPlane>::default_namespaced(client.clone());
    for one in control_planes.list(&ListParams::default()).await?.items {
        let version = patch(json!({"spec": {"version": TO}}));
        control_planes
            .patch(&one.name_any(), &PatchParams::default(), &version)
            .await
            .context("upgrade the control plane")?;
    }
    let deployments = Api::<MachineDeployment>::default_namespaced(client.clone());
    for one in deployments.list(&ListParams::default()).await?.items {
        let version = patch(json!({"spec": {"template": {"spec": {"version": TO}}}}));
        deployments.patch(&one.name_any(), &PatchParams::default(), &version).await.context("upgrade the workers")?;
    }
    until(limit, "all machines run the new version", async || Ok(ready(&client, TO).await? == machines)).await?;
    let took = seconds(started);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let asked = asking.await.context("ask")?;
    if asked.failures > 0 {
        eprintln!("the last failure: {}", asked.last_failure);
    }
    server.stop().await?;
    super::print(&json!({
        "control_plane_machines": arguments.control_plane_machines,
        "worker_machines": arguments.worker_machines,
        "seconds": took,
        "answers": asked.answers,
        "failures": asked.failures,
        "longest_gap_ms": round(asked.longest_gap.as_secs_f64() * 1000.0),
    }));
    Ok(())
}

async fn until(limit: Duration, what: &str, holds: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds().await? {
        if Instant::now() > end {
            bail!("not within {limit:?}: {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    eprintln!("{what}");
    Ok(())
}

/// How many machines are ready and of the version; none if some are of another or go.
async fn ready(client: &Client, version: &str) -> Result<i32> {
    let machines =
        Api::<api::machine::Machine>::default_namespaced(client.clone()).list(&ListParams::default()).await?;
    let mut count = 0;
    for machine in &machines.items {
        let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
        if machine.spec.version.as_deref() != Some(version) || machine.metadata.deletion_timestamp.is_some() {
            return Ok(0);
        }
        count += i32::from(api::condition::is_true(conditions, "Ready"));
    }
    Ok(count)
}

async fn kubeconfig(client: &Client) -> Result<Kubeconfig> {
    let secret = Api::<Secret>::default_namespaced(client.clone()).get(&format!("{NAME}-kubeconfig")).await?;
    let value = secret.data.and_then(|mut data| data.remove("value")).context("the kubeconfig's Secret is empty")?;
    Ok(Kubeconfig::from_yaml(&String::from_utf8(value.0)?)?)
}

async fn connect(kubeconfig: &Kubeconfig) -> Result<Client> {
    let mut config = Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(ANSWER_LIMIT);
    Ok(Client::try_from(config)?)
}

/// Asks on a connection of its own each time, as a new user does.
async fn ask(kubeconfig: Kubeconfig, stop: CancellationToken) -> Asked {
    let mut asked = Asked::default();
    let mut last = Instant::now();
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return asked,
        }
        let answer = async { Ok::<_, anyhow::Error>(connect(&kubeconfig).await?.apiserver_version().await?) };
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(_)) => {
                asked.answers += 1;
                asked.longest_gap = asked.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            Ok(Err(error)) => {
                asked.failures += 1;
                asked.last_failure = format!("{error:#}");
            }
            Err(_) => {
                asked.failures += 1;
                asked.last_failure = format!("no answer within {ANSWER_LIMIT:?}");
            }
        }
    }
}

/// Changes one object again and again; what fails is tried again.
async fn write(kubeconfig: Kubeconfig, number: usize) {
    let name = format!("writer-{number}");
    let Ok(client) = connect(&kubeconfig).await else { return };
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    let params = PatchParams::apply("bench").force();
    for count in 0_u64.. {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"count": count.to_string()},
        });
        let patch = Patch::Apply(&map);
        let written = maps.patch(&name, &params, &patch);
        if !matches!(tokio::time::timeout(ANSWER_LIMIT, written).await, Ok(Ok(_))) {
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
