//! kube-apiserver with an etcd of its own, on loopback.

use std::{net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::{
    client::{Asked, Server},
    identity::Authority,
};

/// It must be ready in this time.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// From which services get their addresses, on both sides.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Who issues service account tokens, on both sides.
pub const ISSUER: &str = "https://kubernetes.default.svc";

pub struct Judge {
    pub address: String,
    server: Child,
    etcd: Child,
}

/// Ports that are free now.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<_> =
        (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("find free ports")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// An etcd of one member that keeps its data in the folder `name`; `ports`: for clients, for peers.
pub fn start_etcd(work: &Path, binary: &Path, name: &str, [clients, peers]: [u16; 2]) -> Result<Child> {
    let log = format!("{name}.log");
    let log = std::fs::File::create(work.join(&log)).with_context(|| format!("make {log}"))?;
    Command::new(binary)
        .arg("--data-dir")
        .arg(work.join(name))
        .arg(format!("--listen-client-urls=http://127.0.0.1:{clients}"))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{clients}"))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{peers}"))
        .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"))
        .arg(format!("--initial-cluster=default=http://127.0.0.1:{peers}"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start etcd")
}

impl Judge {
    pub async fn start(work: &Path, binary: &Path, etcd: &Path, authority: &Authority) -> Result<Self> {
        let [clients, peers, port] = free_ports()?;
        let log = |name: &str| std::fs::File::create(work.join(name)).with_context(|| format!("make {name}"));
        let etcd = start_etcd(work, etcd, "etcd", [clients, peers])?;
        let files = Files::write(work, authority)?;
        let server_log = log("kube-apiserver.log")?;
        let server = Command::new(binary)
            .args(files.arguments(port, clients))
            .stdout(server_log.try_clone()?)
            .stderr(server_log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut judge = Self { address: format!("127.0.0.1:{port}"), server, etcd };
        judge.wait(work, authority).await?;
        Ok(judge)
    }

    async fn wait(&mut self, work: &Path, authority: &Authority) -> Result<()> {
        let client = Server::new(&self.address, authority)?;
        let asked = Asked {
            user: "admin".to_owned(),
            method: http::Method::GET,
            path: "/readyz".to_owned(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
            lines: None,
        };
        let start = std::time::Instant::now();
        loop {
            if client.ask(&asked).await.is_ok_and(|answer| answer.code == 200) {
                return Ok(());
            }
            let ended = self.server.try_wait()?.is_some() || self.etcd.try_wait()?.is_some();
            if ended || start.elapsed() > READY_TIMEOUT {
                let tail = |name: &str| {
                    let text = std::fs::read_to_string(work.join(name)).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    lines[lines.len().saturating_sub(15)..].join("\n")
                };
                bail!("kube-apiserver did not become ready\n{}\n{}", tail("etcd.log"), tail("kube-apiserver.log"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn pids(&self) -> Vec<u32> {
        self.server.id().into_iter().chain(self.etcd.id()).collect()
    }

    pub async fn stop(mut self) {
        let _ = self.server.kill().await;
        let _ = self.etcd.kill().await;
    }
}

/// What kube-apiserver reads.
struct Files(std::path::PathBuf);

impl Files {
    fn write(work: &Path, authority: &Authority) -> Result<Self> {
        let server = authority.server()?;
        let texts = [
            ("ca.crt", authority.certificate()),
            ("server.crt", server.certificate),
            ("server.key", server.key),
            ("sa.key", authority.service_account_key.clone()),
            ("sa.pub", authority.service_account_public_key.clone()),
        ];
        for (name, text) in texts {
            std::fs::write(work.join(name), text).with_context(|| format!("write {name}"))?;
        }
        Ok(Self(work.to_owned()))
    }

    fn arguments(&self, port: u16, etcd: u16) -> Vec<String> {
        let at = |name: &str| self.0.join(name).display().to_string();
        vec![
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--client-ca-file={}", at("ca.crt")),
            format!("--tls-cert-file={}", at("server.crt")),
            format!("--tls-private-key-file={}", at("server.key")),
            format!("--service-account-key-file={}", at("sa.pub")),
            format!("--service-account-signing-key-file={}", at("sa.key")),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            // Nobody makes the service accounts that it wants pods to have.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--max-requests-inflight=0".to_owned(),
            "--max-mutating-requests-inflight=0".to_owned(),
            "--enable-priority-and-fairness=false".to_owned(),
        ]
    }
}
