//! Processes of the binary under test, and what they said.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

/// Longest wait for a word of a process that starts.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Lines of standard error that are kept, of all lives of a process together.
const LINES: usize = 60;

/// The last lines that a process and the ones after it wrote to standard error.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    pub fn add(&self, line: &str) {
        let mut lines = self.0.lock().unwrap();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    pub fn text(&self) -> String {
        self.0.lock().unwrap().iter().map(|line| format!("    {line}\n")).collect()
    }
}

struct Life {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

/// A server of ours with its state folder: started, killed and started again.
pub struct Process {
    pub state: PathBuf,
    arguments: Vec<String>,
    pub log: Log,
    life: Option<Life>,
}

impl Process {
    /// `arguments` without `--state`.
    pub fn new(state: &Path, arguments: &[&str], log: &Log) -> Self {
        let mut process = Self { state: state.to_owned(), arguments: Vec::new(), log: log.clone(), life: None };
        process.change(arguments);
        process
    }

    /// Other arguments from the next start on.
    pub fn change(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Starts it, and waits for nothing.
    pub fn start(&mut self) -> Result<()> {
        self.log.add(&format!("[start: {}]", self.arguments.join(" ")));
        let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
        command.args(&self.arguments).arg("--state").arg(&self.state).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().context("start skep")?;
        let stderr = child.stderr.take().context("standard error is not piped")?;
        let (told, lines) = mpsc::unbounded_channel();
        let log = self.log.clone();
        tokio::spawn(async move {
            let mut read = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = read.next_line().await {
                log.add(&line);
                // Nobody need listen.
                let _ = told.send(line);
            }
        });
        self.life = Some(Life { child, lines });
        Ok(())
    }

    /// Waits until it has written a line that begins so.
    pub async fn says(&mut self, beginning: &str) -> Result<()> {
        let life = self.life.as_mut().context("the process does not run")?;
        let said = async {
            while let Some(line) = life.lines.recv().await {
                if line.starts_with(beginning) {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(START_LIMIT, said).await {
            Ok(true) => Ok(()),
            Ok(false) => bail!("skep {} ended before it said {beginning:?}", self.arguments.join(" ")),
            Err(_) => bail!("skep {} did not say {beginning:?} in {START_LIMIT:?}", self.arguments.join(" ")),
        }
    }

    /// SIGKILL; returns when the process is gone. It must have been alive until then.
    pub async fn kill(&mut self) -> Result<()> {
        let mut life = self.life.take().context("the process does not run")?;
        if let Some(status) = life.child.try_wait().context("look at the process")? {
            bail!("skep {} ended by itself: {status}", self.arguments.join(" "));
        }
        life.child.kill().await.context("kill the process")?;
        self.log.add("[killed]");
        Ok(())
    }

    /// A client of its Management API, as administrator.
    pub async fn client(&self) -> Result<Client> {
        let path = self.state.join("kubeconfig");
        let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("read {}", path.display()))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// What `skep describe cluster` prints, for a report.
    pub async fn describe(&self, cluster: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
        command.args(["describe", "cluster", cluster, "--kubeconfig"]).arg(self.state.join("kubeconfig"));
        match command.stdin(Stdio::null()).output().await {
            Ok(output) => {
                String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
            }
            Err(error) => format!("cannot describe cluster {cluster}: {error}"),
        }
    }
}
