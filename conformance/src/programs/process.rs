//! Programs that run beside the steps.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use crate::judge::free_ports;

/// Lines of a program's log that are shown when it ended too early.
const TAIL_LINES: usize = 20;

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = std::fs::File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {:?}", command.as_std().get_program()))?;
        Ok(Self { child, log })
    }

    /// kube-controller-manager with these controllers and no others; `folder` has its kubeconfig, `controllers.yaml`.
    pub fn controller_manager(binary: &Path, folder: &Path, controllers: &[&str]) -> Result<Self> {
        let [port] = free_ports()?;
        let kubeconfig = folder.join("controllers.yaml");
        let mut command = Command::new(binary);
        command
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--authentication-kubeconfig")
            .arg(&kubeconfig)
            .arg("--authorization-kubeconfig")
            .arg(&kubeconfig)
            .arg(format!("--controllers={}", controllers.join(",")))
            .args(["--leader-elect=true", "--bind-address=127.0.0.1"])
            .arg(format!("--secure-port={port}"))
            .arg("--cert-dir")
            .arg(folder.join("certificates"));
        Self::start(&mut command, folder.join("kube-controller-manager.log"))
    }

    /// An error with the end of its log if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("it ended with {status}\n{}", self.tail()),
        }
    }

    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("end a program")
    }
}
