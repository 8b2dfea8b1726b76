//! A real etcd of one or three members on loopback, with certificates of its own.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use store::etcd::{Address, Etcd, Options, Tls};

/// The program; another one is named by the environment.
fn program() -> PathBuf {
    std::env::var_os("SKEP_ETCD").map_or_else(|| "etcd".into(), PathBuf::from)
}

struct Member {
    name: String,
    client: u16,
    peer: u16,
    child: Mutex<Option<Child>>,
}

pub struct Cluster {
    host: Ipv4Addr,
    members: Vec<Member>,
    folder: tempfile::TempDir,
    tls: Option<Tls>,
    arguments: Vec<String>,
}

/// An address of the loopback network that nothing else has: a member that is killed finds its ports free when it comes back,
/// which a port of 127.0.0.1 that some connection may be given is not.
fn own_host() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + COUNT.fetch_add(1, Ordering::Relaxed), high, low)
}

fn sign(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, host: Ipv4Addr) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    // Connections within the loopback network come from 127.0.0.1, which etcd looks for in certificates of peers.
    let mut params = CertificateParams::new(vec![host.to_string(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

impl Cluster {
    /// None, and a word about it, if there is no etcd on this machine.
    pub async fn start(members: usize, secured: bool, arguments: &[&str]) -> Option<Arc<Self>> {
        if Command::new(program()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!(
                "SKIPPED: THERE IS NO etcd ON THIS MACHINE, SO NOTHING WAS TRIED WITH IT (apt install etcd-server)"
            );
            return None;
        }
        let (host, folder) = (own_host(), tempfile::tempdir().unwrap());
        let tls = secured.then(|| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "etcd-ca");
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let (certificate, key) = sign(&ca, "member", host);
            for (name, text) in [("ca.crt", ca.pem()), ("member.crt", certificate), ("member.key", key)] {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Tls { ca_pem: ca.pem(), client: Some(sign(&ca, "skep", host)) }
        });
        let members = (0_u16..).take(members).map(|i| Member {
            name: format!("m{i}"),
            client: 2379 + 10 * i,
            peer: 2380 + 10 * i,
            child: Mutex::new(None),
        });
        let cluster = Self {
            host,
            members: members.collect(),
            folder,
            tls,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        for i in 0..cluster.members.len() {
            cluster.start_member(i);
        }
        Some(Arc::new(cluster))
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.folder.path()).join(name).display().to_string()
    }

    pub fn start_member(&self, i: usize) {
        let member = &self.members[i];
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let peers: Vec<_> =
            self.members.iter().map(|m| format!("{}={scheme}://{}:{}", m.name, self.host, m.peer)).collect();
        let (client, peer) = (
            format!("{scheme}://{}:{}", self.host, member.client),
            format!("{scheme}://{}:{}", self.host, member.peer),
        );
        let mut command = Command::new(program());
        command
            .args(["--name", &member.name, "--data-dir", &self.path(&member.name)])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &peers.join(","), "--initial-cluster-token", "test"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "error"])
            .args(["--logger", "zap"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.tls.is_some() {
            let (ca, certificate, key) = (self.path("ca.crt"), self.path("member.crt"), self.path("member.key"));
            command
                .args(["--client-cert-auth", "--trusted-ca-file", &ca, "--cert-file", &certificate, "--key-file", &key])
                .args(["--peer-client-cert-auth", "--peer-trusted-ca-file", &ca])
                .args(["--peer-cert-file", &certificate, "--peer-key-file", &key]);
        }
        *member.child.lock() = Some(command.spawn().unwrap());
    }

    /// SIGKILL.
    pub fn kill_member(&self, i: usize) {
        if let Some(mut child) = self.members[i].child.lock().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT: it keeps its connections and does nothing.
    pub fn signal_member(&self, i: usize, signal: &str) {
        let id = self.members[i].child.lock().as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub fn endpoint(&self, i: usize) -> String {
        format!("{}:{}", self.host, self.members[i].client)
    }

    pub fn options(&self, prefix: &str) -> Options {
        let endpoints = (0..self.members.len()).map(|i| self.endpoint(i)).collect();
        let address = Address { endpoints, prefix: prefix.to_owned() };
        let mut options = Options::new(address, self.tls.clone());
        options.compact_interval = None;
        options
    }

    pub async fn open(&self, prefix: &str) -> Etcd {
        Etcd::open(self.options(prefix)).await.unwrap()
    }

    /// Which member leads.
    pub async fn leader(&self, store: &Etcd) -> usize {
        let (members, _) = store.members().await;
        members.iter().position(|(_, member)| member.as_ref().is_ok_and(|member| member.leads)).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for i in 0..self.members.len() {
            self.kill_member(i);
        }
    }
}
