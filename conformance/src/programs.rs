//! Programs as others have written them, against both servers: kubectl of two releases, kube-controller-manager in place of
//! the server's own controllers, and a manager on controller-runtime (`conformance/programs`, README.md).

mod kubeconfig;
mod manager;
mod process;
mod side;
mod steps;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use apiserver::Controller;

use self::{process::Process, side::Side};
use crate::{identity::Authority, judge::Judge, subject::Subject};

/// What kube-controller-manager does for kube-apiserver, by its own names.
const OF_THE_SERVER: [&str; 3] = ["garbage-collector-controller", "namespace-controller", "serviceaccount-controller"];
/// What nobody but kube-controller-manager does.
const OF_WORKLOADS: [&str; 2] = ["deployment-controller", "replicaset-controller"];

/// The folders of kube-apiserver, of the embedded server as it is run otherwise, and of that without controllers of its own.
const NAMES: [&str; 3] = ["judge", "own", "bare"];

/// What `conformance programs` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where the steps are.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR")))]
    folder: PathBuf,
    #[arg(long)]
    kube_apiserver: PathBuf,
    #[arg(long)]
    etcd: PathBuf,
    #[arg(long)]
    kube_controller_manager: PathBuf,
    /// A release and its binary, as in v1.36.3=/path; several times.
    #[arg(long, required = true, value_name = "RELEASE=PATH")]
    kubectl: Vec<Release>,
    /// The manager's binary.
    #[arg(long)]
    manager: PathBuf,
    /// Only steps whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only starts the servers and says how they are reached, until it is interrupted.
    #[arg(long)]
    stand: bool,
    /// Prints what each step printed.
    #[arg(long)]
    verbose: bool,
}

/// A release of kubectl.
#[derive(Clone)]
pub struct Release {
    pub name: String,
    pub binary: PathBuf,
}

impl std::str::FromStr for Release {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, path)) = text.split_once('=') else { bail!("{text:?} is not RELEASE=PATH") };
        Ok(Self { name: name.to_owned(), binary: path.into() })
    }
}

/// What holds and what does not.
#[derive(Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    /// Prints a line for something that holds, or a line and why for something that does not.
    pub fn take(&mut self, name: &str, fault: Option<&str>) {
        match fault {
            None => {
                self.passed += 1;
                println!("ok    {name}");
            }
            Some(fault) => {
                self.failed += 1;
                println!("FAIL  {name}");
                fault.lines().for_each(|line| println!("        {line}"));
            }
        }
    }
}

/// True if all holds.
pub async fn run(arguments: Arguments) -> Result<bool> {
    let work = tempfile::tempdir().context("make a folder for the servers")?;
    let authority = Authority::new()?;
    let mut stand = Stand::start(work.path(), &arguments, &authority).await?;
    if arguments.stand {
        for name in NAMES {
            println!("export KUBECONFIG={}", work.path().join(name).join("controllers.yaml").display());
        }
        tokio::signal::ctrl_c().await.context("wait for an interrupt")?;
        stand.stop().await?;
        return Ok(true);
    }
    let mut tally = Tally::default();
    let played = play(&arguments, work.path(), &stand, &authority, &mut tally).await;
    for (name, manager) in NAMES.iter().zip(&mut stand.managers) {
        if let Err(ended) = manager.check() {
            tally.take(&format!("kube-controller-manager beside {name}"), Some(&ended.to_string()));
        }
    }
    stand.stop().await?;
    played?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0 && tally.passed > 0)
}

/// The servers, and the controllers beside each.
struct Stand {
    judge: Judge,
    /// As it is run otherwise.
    own: Subject,
    /// With kube-controller-manager in place of its own controllers.
    bare: Subject,
    managers: Vec<Process>,
}

impl Stand {
    async fn start(work: &Path, arguments: &Arguments, authority: &Authority) -> Result<Self> {
        let disabled = OF_THE_SERVER.iter().map(|name| name.parse()).collect::<Result<Vec<Controller>, _>>()?;
        let judge = Judge::start(work, &arguments.kube_apiserver, &arguments.etcd, authority).await?;
        let own = Subject::start(work, "own.db", None, Vec::new(), authority).await?;
        let bare = Subject::start(work, "bare.db", None, disabled, authority).await?;
        let all: Vec<&str> = OF_THE_SERVER.into_iter().chain(OF_WORKLOADS).collect();
        let mut managers = Vec::new();
        let of = [(&judge.address, &all[..]), (&own.address, &OF_WORKLOADS[..]), (&bare.address, &all[..])];
        for (name, (address, controllers)) in NAMES.into_iter().zip(of) {
            let folder = work.join(name);
            std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            let admin = authority.client("kube-controller-manager", &["system:masters"])?;
            let kubeconfig = folder.join("controllers.yaml");
            kubeconfig::write(&kubeconfig, address, authority, &admin, "default")?;
            managers.push(Process::controller_manager(&arguments.kube_controller_manager, &folder, controllers)?);
        }
        Ok(Self { judge, own, bare, managers })
    }

    async fn stop(self) -> Result<()> {
        for manager in self.managers {
            manager.kill().await?;
        }
        self.own.stop().await?;
        self.bare.stop().await?;
        self.judge.stop().await;
        Ok(())
    }
}

/// The manager has a namespace and a kind of its own, and runs beside the steps of kubectl.
async fn play(
    arguments: &Arguments,
    work: &Path,
    stand: &Stand,
    authority: &Authority,
    tally: &mut Tally,
) -> Result<()> {
    let servers = [("kube-apiserver", stand.judge.address.as_str()), ("skep", stand.own.address.as_str())];
    let mut managers = Tally::default();
    let (played, managed) = tokio::join!(
        kubectl(arguments, work, stand, authority, tally),
        manager::play(arguments, work, &servers, authority, &mut managers),
    );
    tally.passed += managers.passed;
    tally.failed += managers.failed;
    played.and(managed)
}

async fn kubectl(
    arguments: &Arguments,
    work: &Path,
    stand: &Stand,
    authority: &Authority,
    tally: &mut Tally,
) -> Result<()> {
    let side = |name: &'static str, address: &str, release: &Release| {
        let folder = work.join(name).join(&release.name);
        Side::new(name, address, folder, release, authority, arguments)
    };
    for release in &arguments.kubectl {
        let mut sides =
            [side("kube-apiserver", &stand.judge.address, release)?, side("skep", &stand.own.address, release)?];
        steps::play(&format!("kubectl {}", release.name), "kubectl/steps.yaml", arguments, &mut sides, tally).await?;
    }
    let [newest, ..] = &arguments.kubectl[..] else { bail!("no kubectl") };
    let mut sides = [
        side("kube-apiserver", &stand.judge.address, newest)?,
        side("skep", &stand.own.address, newest)?,
        side("skep with kube-controller-manager", &stand.bare.address, newest)?,
    ];
    steps::play("deletion", "kubectl/deletion.yaml", arguments, &mut sides, tally).await
}
