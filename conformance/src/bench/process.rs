//! The servers as processes of their own: started in a folder that goes with them, and what they use.

use std::{
    fmt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{folder, load::Connector, until_ready};
use crate::{
    identity::{Authority, Pem},
    judge::{Judge, free_ports},
};

/// Clock ticks a second in proc(5); USER_HZ is 100 on every Linux that Rust knows.
const TICKS_PER_S: f64 = 100.0;
/// Memory is read once a server has been left alone for so long.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Skep,
    KubeApiserver,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skep => "skep",
            Self::KubeApiserver => "kube-apiserver + etcd",
        })
    }
}

/// A server that is being measured.
pub struct Contender {
    pub connector: Connector,
    /// From the start of the first process to its word that it is ready.
    pub ready: Duration,
    processes: Processes,
    _folder: tempfile::TempDir,
}

enum Processes {
    Skep(Child),
    KubeApiserver(Box<Judge>),
}

impl Contender {
    pub async fn skep(binary: &Path) -> Result<Self> {
        let work = tempfile::tempdir().context("make a folder")?;
        let [port] = free_ports()?;
        let address = format!("127.0.0.1:{port}");
        let log = std::fs::File::create(work.path().join("skep.log"))?;
        let state = folder(work.path(), "state")?;
        let start = Instant::now();
        let child = Command::new(binary)
            .args(["serve", "--no-controllers", "--listen", &address, "--state"])
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let connector = loop {
            let read = std::fs::read_to_string(state.join("kubeconfig")).ok();
            if let Some(connector) = read.and_then(|text| connector(&address, &text).ok()) {
                break connector;
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "skep writes no kubeconfig");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let ready = until_ready(&connector, start).await?;
        Ok(Self { connector, ready, processes: Processes::Skep(child), _folder: work })
    }

    pub async fn kube_apiserver(binary: &Path, etcd: &Path) -> Result<Self> {
        let work = tempfile::tempdir().context("make a folder")?;
        let authority = Authority::new()?;
        let start = Instant::now();
        let judge = Judge::start(work.path(), binary, etcd, &authority).await?;
        let connector =
            Connector::new(&judge.address, &authority.certificate(), &authority.client("bench", &["system:masters"])?)?;
        let ready = until_ready(&connector, start).await?;
        Ok(Self { connector, ready, processes: Processes::KubeApiserver(Box::new(judge)), _folder: work })
    }

    fn pids(&self) -> Vec<u32> {
        match &self.processes {
            Processes::Skep(child) => child.id().into_iter().collect(),
            Processes::KubeApiserver(judge) => judge.pids(),
        }
    }

    pub fn cpu_s(&self) -> Result<f64> {
        self.pids().into_iter().map(|pid| cpu_s(&pid.to_string())).sum()
    }

    /// Resident memory of all of its processes.
    pub async fn settled_memory_mib(&self) -> Result<f64> {
        tokio::time::sleep(SETTLE).await;
        self.pids().into_iter().map(resident_mib).sum()
    }

    pub async fn stop(self) -> Result<()> {
        match self.processes {
            Processes::Skep(mut child) => child.kill().await.context("stop skep"),
            Processes::KubeApiserver(judge) => {
                judge.stop().await;
                Ok(())
            }
        }
    }
}

/// As the administrator of a kubeconfig.
fn connector(address: &str, kubeconfig: &str) -> Result<Connector> {
    let file: Value = serde_saphyr::from_str(kubeconfig).context("read the kubeconfig")?;
    let text = |path: &str| -> Result<String> {
        let base64 = file.pointer(path).and_then(Value::as_str).with_context(|| format!("no {path}"))?;
        Ok(String::from_utf8(STANDARD.decode(base64)?)?)
    };
    let certificate = text("/users/0/user/client-certificate-data")?;
    let pem = Pem { certificate, key: text("/users/0/user/client-key-data")? };
    Connector::new(address, &text("/clusters/0/cluster/certificate-authority-data")?, &pem)
}

pub fn own_cpu_s() -> Result<f64> {
    cpu_s("self")
}

/// Of all threads (proc(5)).
fn cpu_s(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read a process's times")?;
    // The second field is a name in parentheses, and may have spaces; times are the 14th and 15th.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|text| text.parse::<f64>().ok()).context("a process without times");
    Ok((ticks()? + ticks()?) / TICKS_PER_S)
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process without memory")?;
    let kib = line.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    Ok(kib.context("a process without memory")? / 1024.0)
}
