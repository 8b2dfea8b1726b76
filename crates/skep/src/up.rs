//! `skep up`: everything on this machine, ending with a workload cluster that is Available.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    chart_folder::ChartFolder,
    place::{EtcdArguments, FILE, Place},
    plane::Plane,
    sandbox::{CLOUD, Sandbox},
    settings::Settings,
    state::{self, State},
};

/// Exit code when the demo cluster is not ready in time.
const NOT_READY: u8 = 3;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder that keeps all state
    #[arg(long, env = "SKEP_STATE", default_value_os_t = state::default_folder())]
    state: PathBuf,
    /// Port of the Management API on 127.0.0.1 (0: any)
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Exit once the demo cluster is Available; the last line on standard output is a JSON object with the figures
    #[arg(long)]
    until_ready: bool,
    /// Longest wait for the demo cluster, in seconds
    #[arg(long, default_value_t = 300)]
    timeout_s: u64,
    /// Name of the demo cluster
    #[arg(long, default_value = "demo")]
    cluster: String,
    /// Start no demo cluster
    #[arg(long)]
    no_cluster: bool,
    /// Folder of charts on this machine, for Catalogs with the address http://catalog.skep.local/NAME/ (docs/guides/catalogs.md)
    #[arg(long, value_name = "NAME=FOLDER")]
    chart_folder: Vec<ChartFolder>,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let started = Instant::now();
    let state = State::open(&arguments.state, "management")?;
    let address: SocketAddr = ([127, 0, 0, 1], arguments.port).into();
    let store = Place::File(state.database(FILE)?).open(&EtcdArguments::default()).await?;
    let settings = Settings { chart_folder: arguments.chart_folder.clone(), ..Settings::default() };
    let mut plane = Plane::start(&state, store, address, &[], &settings).await?;
    let api_ready_s = started.elapsed().as_secs_f64();
    eprintln!("Management API   https://{}  ({api_ready_s:.2} s)", plane.address);
    let _sandbox_state = State::open(&arguments.state, "sandbox")?;
    let sandbox = Sandbox::start(&state, 0, true).await?;
    eprintln!("Sandbox cloud    {}  (cloud name {CLOUD})", sandbox.url);
    plane.control().await?;
    let mut code = 0;
    if !arguments.no_cluster {
        let template = cli::ClusterTemplate {
            name: arguments.cluster.clone(),
            cloud: CLOUD.to_owned(),
            clouds_yaml: sandbox.clouds_yaml.clone(),
            external_network: Some(sandbox.external_network.clone()),
            ..cli::ClusterTemplate::sandbox()
        };
        let fresh = cli::apply(&plane.client, template.objects()).await.context("create the demo cluster")?;
        let what = if fresh { "is created" } else { "is there already" };
        eprintln!("Cluster {}     {what}: 3 control plane machines, 3 workers in 3 zones", arguments.cluster);
        let limit = Duration::from_secs(arguments.timeout_s);
        let waited = cli::wait_for_cluster(&plane.client, "default", &arguments.cluster, limit);
        tokio::select! {
            ready = waited => {
                let ready = ready?;
                if ready {
                    eprintln!("Cluster {} is Available  ({:.1} s since the start)", arguments.cluster, started.elapsed().as_secs_f64());
                } else {
                    eprintln!("Cluster {} is not Available after {} s; see: skep describe cluster {}",
                        arguments.cluster, arguments.timeout_s, arguments.cluster);
                    code = NOT_READY;
                }
            }
            stopped = crate::serve::until_signal() => {
                stopped?;
                return finish(plane, sandbox, 0).await;
            }
        }
    }
    if arguments.until_ready {
        print_figures(api_ready_s, started.elapsed().as_secs_f64());
        return finish(plane, sandbox, code).await;
    }
    let program = std::env::current_exe().map_or_else(|_| "skep".into(), |path| path.display().to_string());
    eprintln!();
    eprintln!("  export KUBECONFIG={}", state.path("kubeconfig").display());
    eprintln!("  export OS_CLIENT_CONFIG_FILE={} OS_CLOUD={CLOUD}", state.path("clouds.yaml").display());
    eprintln!("  kubectl get clusters,machines -A -o wide");
    if !arguments.no_cluster {
        eprintln!(
            "  {program} get kubeconfig {0} > {0}.kubeconfig && kubectl --kubeconfig {0}.kubeconfig get nodes",
            arguments.cluster
        );
    }
    eprintln!();
    eprintln!("Stop with Ctrl-C; what was made is kept in {}.", arguments.state.display());
    crate::serve::until_signal().await?;
    finish(plane, sandbox, code).await
}

#[expect(clippy::print_stdout, reason = "the figures are the command's output")]
fn print_figures(api_ready_s: f64, cluster_ready_s: f64) {
    let round = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
    let figures = json!({
        "api_ready_s": round(api_ready_s), "cluster_ready_s": round(cluster_ready_s), "rss_mib": resident_mib(),
    });
    println!("{figures}");
}

/// Resident memory of this process (proc(5), VmRSS).
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

async fn finish(plane: Plane, sandbox: Sandbox, code: u8) -> Result<u8> {
    plane.shutdown().await?;
    sandbox.shutdown().await;
    Ok(code)
}
