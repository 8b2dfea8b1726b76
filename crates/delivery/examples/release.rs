//! Releases by hand: `cargo run -p delivery --example release -- KUBECONFIG OPERATION NAME NAMESPACE [CHART] [KEY=VALUE | --FLAG]…`
//! Operations: install, upgrade, rollback, uninstall, diff, drift, correct. A chart is a folder or an archive. `--kill N` ends the process before
//! its Nth write. The last line says what came of it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use control::Clock;
use delivery::release::{Chance, Difference, Engine, Limits, Namespace, Options, Outcome, Request};
use helm::{
    Prepared,
    chart::{Chart, Files, archive, ignore},
    values::Table,
    world::KeyKind,
};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use rand::RngCore;
use rcgen::KeyPair;
use tower::layer::layer_fn;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "a TLS provider is set already")?;
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("say {what}"));
    let (kubeconfig, operation) = (next("the kubeconfig")?, next("the operation")?);
    let (name, namespace) = (next("the release")?, next("the namespace")?);
    let rest: Vec<String> = arguments.collect();
    let flag = |name: &str| rest.iter().any(|word| word == name);
    let number =
        |name: &str| rest.iter().skip_while(|word| *word != name).nth(1).and_then(|word| word.parse::<i64>().ok());
    let chart = match rest.first().filter(|_| ["install", "upgrade", "diff"].contains(&operation.as_str())) {
        Some(path) => Some(Arc::new(Prepared::new(read(Path::new(path))?))),
        None => None,
    };
    let mut values = Table::new();
    for word in rest.iter().filter(|word| word.contains('=')) {
        helm::setting::set(&mut values, word, &helm::setting::Kind::Typed)?;
    }
    let kills_after = number("--kill").and_then(|count| usize::try_from(count).ok());
    let engine = Engine::new(connect(&kubeconfig, kills_after).await?, Clock::system(), chance(), Limits::default());
    let options = Options {
        wait: flag("--wait"),
        wait_for_jobs: flag("--wait-for-jobs"),
        atomic: flag("--atomic"),
        install: flag("--install"),
        keep_history: flag("--keep-history"),
        no_hooks: flag("--no-hooks"),
        take_ownership: flag("--take-ownership"),
        timeout_s: number("--timeout").and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30),
        namespace: flag("--create-namespace").then(Namespace::default),
        ..Options::default()
    };
    let token = number("--token").unwrap_or_default().to_string();
    let wanted = || chart.as_ref().ok_or("say the chart");
    loop {
        let outcome = match operation.as_str() {
            "install" | "upgrade" => {
                let (name, namespace) = (name.as_str(), namespace.as_str());
                let request =
                    Request { name, namespace, chart: wanted()?, values: &values, options: &options, token: &token };
                if operation == "install" { engine.install(&request).await? } else { engine.upgrade(&request).await? }
            }
            "diff" => {
                let (name, namespace) = (name.as_str(), namespace.as_str());
                let request =
                    Request { name, namespace, chart: wanted()?, values: &values, options: &options, token: &token };
                return tell(&engine.diff(&request).await?);
            }
            "rollback" => engine.rollback(&name, &namespace, number("--to"), &options, &token).await?,
            "uninstall" => engine.uninstall(&name, &namespace, &options).await?,
            "drift" => return tell(&engine.drift(&name, &namespace).await?),
            "correct" => {
                engine.correct(&name, &namespace).await?;
                return say("corrected");
            }
            other => return Err(format!("{other}: no such operation").into()),
        };
        match outcome {
            Outcome::Done(release) => {
                return say(&format!("done: revision {}, {}", release.version, release.info.status.text()));
            }
            Outcome::Gone => return say("gone"),
            Outcome::Failed { why, .. } => return Err(format!("failed: {why}").into()),
            Outcome::Waiting { on, object, .. } => {
                say(&format!("waiting: {}: {on}", object.map_or_else(String::new, |object| object.to_string())))?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what this program does")]
fn say(text: &str) -> Result<(), Failure> {
    println!("{text}");
    Ok(())
}

fn tell(differences: &[Difference]) -> Result<(), Failure> {
    for one in differences {
        let paths: Vec<&str> = one.changes.iter().map(|change| change.path.as_str()).collect();
        say(&format!("{:?} {} {}", one.verdict, one.id, paths.join(" ")))?;
    }
    Ok(())
}

/// With a process that ends before its Nth write, if that is wished.
async fn connect(kubeconfig: &str, kills_after: Option<usize>) -> Result<Client, Failure> {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
    let Some(kills_after) = kills_after else { return Ok(Client::try_from(config)?) };
    let writes = Arc::new(AtomicUsize::new(0));
    let counting = layer_fn(move |inner| {
        let writes = Arc::clone(&writes);
        tower::util::MapRequest::new(inner, move |request: http::Request<kube::client::Body>| {
            if request.method() != http::Method::GET && writes.fetch_add(1, Ordering::SeqCst) + 1 >= kills_after {
                // Nothing is tidied up: as with kill -9.
                std::process::abort();
            }
            request
        })
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&counting).build())
}

fn chance() -> Chance {
    Chance {
        random: Arc::new(|bytes| rand::rng().fill_bytes(bytes)),
        key: Arc::new(|kind| {
            let made = match kind {
                KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
                KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
                KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
                KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096),
            };
            made.map(|key| key.serialize_der()).map_err(|error| error.to_string())
        }),
    }
}

fn read(path: &Path) -> Result<Chart, Failure> {
    if path.is_file() {
        return Ok(Chart::load(&archive::unpack(&std::fs::read(path)?)?)?);
    }
    let (mut files, mut folders) = (Files::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let found = entry?.path();
            if found.is_dir() {
                folders.push(found);
            } else {
                let inner = found.strip_prefix(path)?.to_string_lossy().into_owned();
                files.insert(inner, Arc::from(std::fs::read(&found)?));
            }
        }
    }
    Ok(Chart::load(&ignore::kept(&files)?)?)
}
