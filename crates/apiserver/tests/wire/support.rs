//! A server on a socket with its own authority, and `kubectl` with a kubeconfig for it.

use std::{path::Path, process::Stdio, sync::Arc};

use apiserver::{Options, Profile, Server, ServiceAccountKeys, server_tls};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use store::{Embedded, Limits};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    pub server: Server,
    pub url: String,
    ca: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    task: tokio::sync::Mutex<Option<tokio::task::JoinHandle<bool>>>,
}

/// None, and a word about it, if there is no `kubectl`.
pub async fn cluster(profile: Profile) -> Option<Cluster> {
    let found = Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no kubectl on this machine, so nothing was tried with it");
        return None;
    }
    let cluster = listening(profile).await;
    cluster.user("admin", &["system:masters"]);
    Some(cluster)
}

/// A server that listens.
pub async fn listening(profile: Profile) -> Cluster {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving = params.signed_by(&key, &ca).unwrap();
    let keys = ServiceAccountKeys {
        signing_key_pem: KeyPair::generate().unwrap().serialize_pem(),
        verifying_keys_pem: Vec::new(),
        issuer: "https://kubernetes.default.svc".to_owned(),
        ..ServiceAccountKeys::default()
    };
    let options = Options { profile, service_account: Some(keys), client_ca_pem: Some(ca.pem()), ..Options::default() };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let tls = server_tls(&serving.pem(), &key.serialize_pem(), Some(&ca.pem())).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let (served, end) = (server.clone(), shutdown.clone());
    let task = tokio::spawn(async move { served.serve(listener, tls, end).await.is_ok() });
    let task = tokio::sync::Mutex::new(Some(task));
    Cluster { server, url, ca, folder: tempfile::tempdir().unwrap(), shutdown, task }
}

pub struct Output {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Cluster {
    /// A client certificate and its key.
    pub fn certificate(&self, name: &str, groups: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        (params.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem())
    }

    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// A kubeconfig `<name>` with a client certificate.
    pub fn user(&self, name: &str, groups: &[&str]) {
        let (certificate, key) = self.certificate(name, groups);
        let credentials = format!(
            "client-certificate-data: {}, client-key-data: {}",
            STANDARD.encode(certificate),
            STANDARD.encode(key)
        );
        self.config(name, &credentials);
    }

    /// A kubeconfig `<name>` with a bearer token.
    pub fn token(&self, name: &str, token: &str) {
        self.config(name, &format!("token: {token}"));
    }

    fn config(&self, name: &str, credentials: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {}}}}}]\n\
             users: [{{name: u, user: {{{credentials}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.url,
            STANDARD.encode(self.ca.pem())
        );
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub async fn run(&self, user: &str, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.folder.path().join(user))
            .env("HOME", self.folder.path())
            .env("KUBE_EDITOR", "sed -i s/before/after/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(std::time::Duration::from_secs(60), child.wait_with_output());
        let output = output.await.unwrap_or_else(|_| panic!("kubectl {arguments:?} does not end")).unwrap();
        Output {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            err: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }

    /// What a command prints; it must succeed and warn of nothing.
    pub async fn ok(&self, command: &str) -> String {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let output = self.run("admin", &arguments, "").await;
        assert!(output.ok, "kubectl {command}: {}", output.err);
        output.out
    }

    /// What a command complains of; it must fail.
    pub async fn fails(&self, command: &str) -> String {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        let output = self.run("admin", &arguments, "").await;
        assert!(!output.ok, "kubectl {command}: {}", output.out);
        output.err
    }

    /// `kubectl apply` of a manifest, with further arguments.
    pub async fn apply(&self, manifest: &str, arguments: &str) -> Output {
        let mut all = vec!["apply", "-f", "-"];
        all.extend(arguments.split_whitespace());
        // What begins with a brace would be read as JSON.
        self.run("admin", &all, &format!("---\n{manifest}")).await
    }

    /// Ends the listener; whether it ended well.
    pub async fn stop_listening(&self) -> bool {
        self.shutdown.cancel();
        self.task.lock().await.take().unwrap().await.unwrap()
    }

    pub async fn end(self) {
        assert!(self.stop_listening().await);
        self.server.shutdown().await;
    }
}
