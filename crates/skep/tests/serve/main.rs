//! `skep serve` with a configuration file: what is wrong is refused at start, and what is right is seen over TLS.

use std::{
    path::Path,
    process::{Command as Blocking, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: Metadata, \
                     resources: [{group: '', resources: [secrets]}]}\n- {level: None}\n";

fn encryption(name: &str, secret: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers: [{{aesgcm: {{keys: [{{name: {name}, secret: {secret}}}]}}}}, {{identity: {{}}}}]\n"
    )
}

const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// What `skep serve` says when it does not start.
fn refusal(folder: &Path, file: &str) -> Result<String> {
    let listen = if file.contains("listen:") { "" } else { "listen: 127.0.0.1:0\n" };
    std::fs::write(folder.join("skep.yaml"), format!("{listen}{file}"))?;
    let output = Blocking::new(env!("CARGO_BIN_EXE_skep"))
        .args(["serve", "--no-controllers", "--state"])
        .arg(folder.join("state"))
        .arg("--config")
        .arg(folder.join("skep.yaml"))
        .stdin(Stdio::null())
        .output()?;
    ensure!(!output.status.success(), "skep serve started with {file:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_wrong_is_refused_with_the_file_and_the_field() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]\n")?;
    write(
        "auth.yaml",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'http://x', audiences: [a]}}]\n",
    )?;
    write("keys.yaml", &encryption("a", "c2hvcnQ="))?;
    write(
        "anonymous.yaml",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true}\n",
    )?;
    write("empty.pem", "")?;
    write(
        "traces.yaml",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: https://a:1\n",
    )?;
    for (file, wanted) in [
        ("lissen: a", &["skep.yaml", "lissen"][..]),
        ("listen: nowhere", &["listen", "nowhere"]),
        ("audit-policy-file: audit.yaml", &["audit-policy-file and audit-log-path go together"]),
        (
            "audit-policy-file: audit.yaml\naudit-log-path: a.log",
            &["audit.yaml", "rules[0].level: Unsupported value: \"Loud\""],
        ),
        (
            "authentication-config: auth.yaml",
            &["auth.yaml", "jwt[0].issuer.url", "must be https", "claimMappings.username: Required value"],
        ),
        ("authentication-config: absent.yaml", &["absent.yaml"]),
        ("authentication-config: anonymous.yaml\nanonymous-auth: true", &["anonymous-auth", "one place"]),
        ("encryption-provider-config: keys.yaml", &["keys.yaml", "got 5, expected one of [16 24 32]"]),
        ("encryption-provider-config: env:SKEP_TEST_NO_SUCH_VARIABLE", &["env:SKEP_TEST_NO_SUCH_VARIABLE"]),
        ("tls-cert-file: empty.pem", &["go together"]),
        ("tls-cert-file: empty.pem\ntls-private-key-file: empty.pem", &["certificate"]),
        ("tls-min-version: VersionTLS10", &["tls-min-version", "VersionTLS10"]),
        ("service-account-key-file: [empty.pem]", &["service account keys", "no key in it"]),
        ("service-account-max-token-expiration: 1m", &["60 s", "an hour at least"]),
        ("shutdown-delay-duration: soon", &["shutdown-delay-duration", "soon"]),
        ("audit-webhook-config-file: keys.yaml", &["audit-webhook-config-file wants an audit-policy-file"]),
        ("authorization-config: auth.yaml", &["auth.yaml", "no apiserver.config.k8s.io/v1 AuthorizationConfiguration"]),
        ("tracing-config-file: traces.yaml", &["traces.yaml", "endpoint", "unsupported scheme: https"]),
        ("logging-format: xml", &["logging-format", "xml"]),
    ] {
        let said = refusal(folder.path(), file)?;
        for part in wanted {
            ensure!(said.contains(part), "{file:?}: {said}");
        }
        ensure!(!said.contains("c2hvcnQ"), "the key is shown: {said}");
    }
    Ok(())
}

/// Starts `skep serve`; returns when it answers, with its URL.
async fn start(folder: &Path) -> Result<(Child, String)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["serve", "--no-controllers", "--listen", "127.0.0.1:0", "--state"])
        .arg(folder.join("state"))
        .arg("--config")
        .arg(folder.join("skep.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("standard error")?).lines();
    let mut said = String::new();
    let url = tokio::time::timeout(LIMIT, async {
        while let Some(line) = lines.next_line().await? {
            if let Some(url) = line.strip_prefix("The Management API answers at ") {
                return Ok(url.to_owned());
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!("skep serve ended: {said}")
    });
    let url = url.await.context("skep serve did not start in time")??;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, url))
}

async fn stop(mut child: Child) -> Result<()> {
    let id = child.id().context("it ended")?;
    ensure!(Blocking::new("kill").args(["-TERM", &id.to_string()]).status()?.success());
    let ended = tokio::time::timeout(LIMIT, child.wait()).await.context("it does not end")??;
    ensure!(ended.success(), "it ended with {ended}");
    Ok(())
}

fn holds(folder: &Path, text: &str) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && std::fs::read(&path)?.windows(text.len()).any(|part| part == text.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A serving certificate of an authority of its own: chain and key.
struct Serving {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Serving {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &self.issuer)?;
        std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
        std::fs::write(folder.join("tls.crt"), certificate.pem())?;
        Ok(())
    }

    /// A client that trusts this authority alone, as administrator.
    async fn client(&self, folder: &Path) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(folder.join("state/kubeconfig"))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.root_cert = Some(vec![self.issuer.der().to_vec()]);
        Ok(Client::try_from(config)?)
    }
}

#[tokio::test]
async fn a_server_with_everything_on_encrypts_tells_and_takes_new_certificates() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    std::fs::write(folder.join("audit.yaml"), AUDIT)?;
    std::fs::write(folder.join("keys.yaml"), encryption("k1", KEY))?;
    let first = Serving::new()?;
    first.write(folder)?;
    let file = "audit-policy-file: audit.yaml\naudit-log-path: audit.log\nencryption-provider-config: keys.yaml\n\
                tls-cert-file: tls.crt\ntls-private-key-file: tls.key\ntls-min-version: VersionTLS13\nlogging-format: json\n";
    std::fs::write(folder.join("skep.yaml"), file)?;
    let (child, _) = start(folder).await?;
    let client = first.client(folder).await?;
    let secrets = Api::<Secret>::default_namespaced(client.clone());
    let data = [("password".to_owned(), ByteString(b"hunter2".to_vec()))].into();
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.metadata.name = Some("s".to_owned());
    secrets.create(&Default::default(), &secret).await?;
    ensure!(secrets.get("s").await?.data.is_some_and(|data| data["password"].0 == b"hunter2"));
    // Another authority's certificate, and connections that are made from then on have it.
    let second = Serving::new()?;
    second.write(folder)?;
    let mut reloaded = false;
    let limit = std::time::Instant::now() + LIMIT;
    while !reloaded && std::time::Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(200)).await;
        reloaded = second.client(folder).await?.apiserver_version().await.is_ok();
    }
    ensure!(reloaded, "the new certificate is not served");
    ensure!(first.client(folder).await?.apiserver_version().await.is_err(), "the old certificate is still served");
    stop(child).await?;
    let state = folder.join("state");
    ensure!(!holds(&state, "aHVudGVyMg")? && !holds(&state, "hunter2")?, "the secret lies open in the store");
    ensure!(holds(&state, "k8s:enc:aesgcm:v1:k1:")?, "nothing is encrypted in the store");
    let log = std::fs::read_to_string(folder.join("audit.log"))?;
    ensure!(log.contains("\"verb\":\"create\"") && log.contains("\"sourceIPs\":[\"127.0.0.1\"]"), "{log}");
    ensure!(log.contains("\"username\":\"skep-admin\"") && !log.contains("hunter2"), "{log}");
    Ok(())
}
