//! The client against three real etcd processes, with certificates as kubeadm makes them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use api::names::Purpose;
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use tokio::net::TcpStream;

use super::{look::Trouble, *};
use crate::certificates;

const NAMES: [&str; 3] = ["n0", "n1", "n2"];
/// Longest wait for what etcd does by itself: start, elect.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address of the loopback network that no other test has.
fn host() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 131, high, low)
}

fn address(index: u16) -> SocketAddr {
    (host(), PORT + 10 * index).into()
}

/// The members' own addresses, in place of a stream through an API server.
struct Direct;

impl Dial for Direct {
    fn dial<'a>(&'a self, node: &'a str) -> BoxFuture<'a, std::result::Result<Line, String>> {
        Box::pin(async move {
            let index = (0..).zip(NAMES).find(|(_, name)| *name == node).map(|(index, _)| index);
            let stream = TcpStream::connect(address(index.ok_or("no such node")?)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            Ok(Line { stream: Box::new(stream), failed: Box::pin(async { None }) })
        })
    }
}

struct Cluster {
    children: Vec<Option<Child>>,
    folder: tempfile::TempDir,
    access: Access,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.children.iter_mut().flatten().for_each(end);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn program() -> PathBuf {
    std::env::var_os("SKEP_ETCD").map_or_else(|| "etcd".into(), PathBuf::from)
}

impl Cluster {
    /// None, and a word about it, if there is no etcd on this machine.
    fn start() -> Option<Self> {
        if Command::new(program()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!(
                "SKIPPED: THERE IS NO etcd ON THIS MACHINE, SO NOTHING WAS TRIED WITH IT (apt install etcd-server)"
            );
            return None;
        }
        let _ = rustls_provider();
        let now = Timestamp::now();
        let ca = certificates::generate(Purpose::Etcd, None, None, now).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), &ca.public).unwrap();
        let pair = certificates::etcd_client("demo", &ca, now).unwrap();
        let access = Access::new(Direct, tls(&ca.public, &pair).unwrap());
        let mut cluster = Self { children: Vec::new(), folder, access };
        for name in NAMES {
            cluster.sign(&ca, name);
        }
        for index in 0..3 {
            let child = cluster.run(index);
            cluster.children.push(Some(child));
        }
        Some(cluster)
    }

    /// What `kubeadm init phase certs etcd-server` and `etcd-peer` make, in one.
    fn sign(&self, ca: &Pair, name: &str) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), host().to_string(), name.to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_ca_cert_pem(&ca.public, KeyPair::from_pem(&ca.private).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn run(&self, index: u16) -> Child {
        let name = NAMES[usize::from(index)];
        let path = |file: &str| self.folder.path().join(file).display().to_string();
        let peer = |index: u16| format!("https://{}:{}", host(), address(index).port() + 1);
        let client = format!("https://{}", address(index));
        let all: Vec<_> = (0..).zip(NAMES).map(|(index, name)| format!("{name}={}", peer(index))).collect();
        let mut command = Command::new(program());
        command.args(["--name", name, "--data-dir", &path(name), "--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer(index), "--initial-advertise-peer-urls", &peer(index)]);
        for prefix in ["", "peer-"] {
            command.arg(format!("--{prefix}client-cert-auth"));
            for (flag, file) in [
                ("trusted-ca-file", "ca.crt"),
                ("cert-file", &format!("{name}.crt")),
                ("key-file", &format!("{name}.key")),
            ] {
                command.args([format!("--{prefix}{flag}"), path(file)]);
            }
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Changes the membership, which etcd refuses while its members have just found one another.
    async fn change(&self, change: &Change) {
        let begun = Instant::now();
        while let Err(error) = self.access.change(change).await {
            assert!(error.to_string().contains("unhealthy cluster") && begun.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Looks until what is seen is as wanted.
    async fn until(&self, what: &str, holds: impl Fn(&Look) -> bool) -> Look {
        let begun = Instant::now();
        loop {
            let look = self.access.look(&NAMES.map(str::to_owned)).await;
            match look {
                Ok(look) if holds(&look) => return look,
                look => assert!(begun.elapsed() < PATIENCE, "waiting until {what}: {look:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn rustls_provider() -> std::result::Result<(), Arc<tokio_rustls::rustls::crypto::CryptoProvider>> {
    tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default()
}

fn nodes(look: &Look, but_for: &str) -> Vec<String> {
    look.members.iter().map(|member| member.name.clone()).filter(|name| name != but_for).collect()
}

#[tokio::test]
async fn a_real_etcd_is_looked_at_led_elsewhere_and_made_smaller() {
    let Some(mut cluster) = Cluster::start() else { return };
    let well = |look: &Look| look.members.len() == 3 && NAMES.iter().all(|name| look.trouble(name).is_none());
    let look = cluster.until("all members are well", well).await;
    assert_eq!(look.members[0].hosts, [host().to_string()]);
    assert!(look.keeps_quorum(Some(look.leader), false) && look.keeps_quorum(None, true));

    let leader = look.members.iter().find(|member| member.id == look.leader).unwrap().clone();
    let leadership = look.handover(&leader, &nodes(&look, &leader.name)).unwrap();
    cluster.access.change(&Change { leadership: Some(leadership.clone()), ..Change::default() }).await.unwrap();
    let look = cluster.until("another one leads", |look| look.leader == leadership.1).await;

    let alarm = json!({"action": "ACTIVATE", "memberID": leader.id.to_string(), "alarm": "NOSPACE"});
    cluster.access.call(&leader.name, ALARM, alarm.clone()).await.unwrap();
    let alarmed = Some(Trouble::Unwell("Etcd reports alarms: NOSPACE".to_owned()));
    cluster.until("the alarm is told", |look| look.trouble(&leader.name) == alarmed).await;
    let mut quiet = alarm;
    quiet["action"] = "DEACTIVATE".into();
    cluster.access.call(&leader.name, ALARM, quiet).await.unwrap();

    // A member that dies is one that may go; the others may not any more.
    let leading = look.members.iter().find(|member| member.id == look.leader).unwrap().clone();
    let dead = look.members.iter().find(|member| member.id != leader.id && member.id != leading.id).unwrap().clone();
    let place = NAMES.iter().position(|name| *name == dead.name).unwrap();
    end(cluster.children[place].as_mut().unwrap());
    let unreached = |look: &Look| matches!(look.trouble(&dead.name), Some(Trouble::Unreached(_)));
    let look = cluster.until("the dead one is not reached", unreached).await;
    assert!(look.removal(&leader, &nodes(&look, &leader.name)).unwrap_err().contains("quorum"));
    assert!(!look.keeps_quorum(None, true));
    let change = look.removal(&dead, &nodes(&look, &dead.name)).unwrap();
    cluster.change(&change).await;
    cluster.access.change(&change).await.expect("what is done is done");
    let look = cluster.until("two are left", |look| look.members.len() == 2).await;

    // The leader itself goes: another one leads before.
    let change = look.removal(&leading, &nodes(&look, &leading.name)).unwrap();
    assert_eq!(change.leadership, Some((leading.name.clone(), leader.id)));
    cluster.change(&change).await;
    let alone = |look: &Look| look.members.len() == 1 && look.leader == leader.id;
    let look = cluster.until("one is left", alone).await;
    assert!(look.removal(&look.members[0], &nodes(&look, "")).is_err(), "the last one stays");
}
