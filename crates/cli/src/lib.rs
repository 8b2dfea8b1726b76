//! What a person types: commands over the Kubernetes API of a management cluster, as a library.
//!
//! Commands speak the Kubernetes API and nothing else (`doctor` speaks to a cloud), so they work against any management
//! cluster. Left out: starting things, which is the binary's part.

mod adopt;
mod app;
mod catalog;
mod chart;
mod create;
mod delete;
mod describe;
mod doctor;
mod get;
mod harden;
mod moves;
mod orphans;
mod output;
mod rollout;
mod template;
mod topology;
mod upgrade;
mod wait;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use transport::Transport;

pub use self::{
    adopt::{Adopt, go as go_on_with_adopted},
    catalog::Serve as CatalogServe,
    create::{ClusterTemplate, apply},
    doctor::options as cloud_options,
    moves::Move,
    template::key as chart_key,
    wait::wait_for_cluster,
};

/// Exit codes that scripts can use, besides clap's 2 for wrong arguments.
pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const TIMED_OUT: u8 = 3;
pub const NOT_FOUND: u8 = 4;

#[derive(Subcommand)]
pub enum Command {
    /// Create a workload cluster
    Create(Box<Create>),
    /// List clusters or machines, or fetch a cluster's kubeconfig
    Get(Get),
    /// Show a cluster as a tree of objects with their conditions
    Describe(Describe),
    /// Delete a workload cluster
    Delete(Delete),
    /// Apps in clusters: install, upgrade, look at, roll back and remove them
    App(app::Apps),
    /// Catalogs that apps are installed from
    Catalog(catalog::Catalogs),
    /// Look into an OpenStack cloud
    Cloud(CloudCommand),
    /// Take over a kubeadm cluster that exists, without replacing a machine
    Adopt(Box<adopt::Arguments>),
    /// Move clusters to another management cluster
    Move(moves::Arguments),
    /// Watch, restart, pause, resume and undo rollouts of machines
    Rollout(rollout::Rollout),
    /// Print what a Helm chart becomes with some values, as helm template does
    Template(Box<template::Arguments>),
    /// Clusters that are made from a ClusterClass
    Topology(topology::Topology),
    /// Upgrades of Kubernetes
    Upgrade(upgrade::Upgrade),
    /// Check whether an OpenStack cloud can carry clusters
    Doctor(doctor::Arguments),
    /// Print a shell completion script
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version {
        #[arg(short, long, value_enum)]
        output: Option<Output>,
    },
}

impl Command {
    /// The charts that are to be served, if that is what is asked for: [`run`] binds no ports.
    pub fn served_catalog(&self) -> Option<&CatalogServe> {
        match self {
            Self::Catalog(catalogs) => catalogs.served(),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Yaml,
}

/// Which management cluster, and where in it.
#[derive(Args)]
pub struct Target {
    /// Kubeconfig of the management cluster [default: $KUBECONFIG, then ~/.skep/kubeconfig, then ~/.kube/config]
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// Namespace
    #[arg(short, long, global = true, default_value = "default")]
    namespace: String,
}

impl Target {
    async fn client(&self) -> Result<Client> {
        connect(self.kubeconfig.as_deref()).await
    }
}

/// The management cluster of this kubeconfig; without one, of the one that is found as [`Target`] says.
async fn connect(named: Option<&Path>) -> Result<Client> {
    let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".skep/kubeconfig"));
    let named = named.map(Path::to_owned).or_else(|| {
        let unset = std::env::var_os("KUBECONFIG").is_none_or(|value| value.is_empty());
        own.filter(|path| unset && path.exists())
    });
    let mut config = match named {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("read {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("find a kubeconfig: set KUBECONFIG or pass --kubeconfig")?,
    };
    reach_directly(&mut config);
    Ok(Client::try_from(config)?)
}

/// Proxies that the environment names are on the way to clouds, not to Kubernetes APIs: these are reached directly, unless their
/// kubeconfig says otherwise.
pub fn reach_directly(config: &mut Config) {
    let named = ["HTTPS_PROXY", "https_proxy"].into_iter().filter_map(|name| std::env::var(name).ok());
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    let told = config.proxy_url.as_ref().map(|url| plain(&url.to_string()));
    if named.into_iter().any(|url| Some(plain(&url)) == told) {
        config.proxy_url = None;
    }
}

#[derive(Args)]
pub struct Create {
    #[command(subcommand)]
    what: CreateWhat,
}

#[derive(Subcommand)]
enum CreateWhat {
    /// A cluster on OpenStack
    Cluster(create::Arguments),
}

#[derive(Args)]
pub struct Get {
    #[command(subcommand)]
    what: get::What,
}

#[derive(Args)]
pub struct Describe {
    #[command(subcommand)]
    what: DescribeWhat,
}

#[derive(Subcommand)]
enum DescribeWhat {
    /// A cluster and everything that belongs to it
    Cluster(describe::Arguments),
}

#[derive(Args)]
pub struct Delete {
    #[command(subcommand)]
    what: DeleteWhat,
}

#[derive(Subcommand)]
enum DeleteWhat {
    /// A cluster with its machines and everything in the cloud
    Cluster(delete::Arguments),
}

#[derive(Args)]
pub struct CloudCommand {
    #[command(subcommand)]
    what: CloudWhat,
}

#[derive(Subcommand)]
enum CloudWhat {
    /// List what carries the platform's marks and no object owns
    Orphans(orphans::Arguments),
}

/// How repositories of charts are reached, and those that are in the binary: made when it is needed.
pub type Charts = fn() -> Result<Arc<dyn Transport>>;

/// Runs a command; returns the process's exit code. `program` describes the whole command line, for completion.
pub async fn run(command: Command, mut program: clap::Command, charts: Charts) -> Result<u8> {
    match command {
        Command::Create(create) => match create.what {
            CreateWhat::Cluster(arguments) => create::run(arguments).await,
        },
        Command::Get(Get { what }) => get::run(what).await,
        Command::Describe(Describe { what: DescribeWhat::Cluster(arguments) }) => describe::run(arguments).await,
        Command::Delete(Delete { what: DeleteWhat::Cluster(arguments) }) => delete::run(arguments).await,
        Command::App(apps) => app::run(apps, charts).await,
        Command::Catalog(catalogs) => catalog::run(catalogs, charts).await,
        Command::Cloud(CloudCommand { what: CloudWhat::Orphans(arguments) }) => orphans::run(arguments).await,
        Command::Adopt(arguments) => adopt::run(*arguments).await,
        Command::Move(arguments) => moves::run(arguments).await,
        Command::Rollout(rollout) => rollout::run(rollout).await,
        Command::Template(arguments) => template::run(&arguments, charts).await,
        Command::Topology(topology) => topology::run(topology).await,
        Command::Upgrade(upgrade) => upgrade::run(upgrade).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut program, "skep", &mut std::io::stdout());
            Ok(DONE)
        }
        Command::Version { output } => {
            let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
            match output {
                None | Some(Output::Table) => output::line(&format!("skep {}", env!("CARGO_PKG_VERSION"))),
                Some(output) => output::document(&version, output)?,
            }
            Ok(DONE)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Subcommand;

    #[test]
    fn every_command_line_can_be_read() {
        let program = clap::Command::new("skep").version("1").propagate_version(true);
        super::Command::augment_subcommands(program).debug_assert();
    }
}
