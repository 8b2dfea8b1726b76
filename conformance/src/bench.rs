//! How fast the two servers are, side by side on one machine: the same program asks the same of `skep serve` and of
//! kube-apiserver with etcd, both writing durably.
//!
//! One after the other, in turns of whole runs, so that neither costs the other anything. The client has a part of the
//! machine as well: its own CPU seconds are told.

mod load;
mod process;
mod report;
mod watchers;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use self::{
    load::{Ask, Connector, Figure},
    process::{Contender, Kind},
    report::Report,
};

/// Its objects.
const NAMESPACE: &str = "bench";
/// In a namespace of its own, so that a list of the others stays what it is.
const WATCHED: &str = "watched";
const MANY: &str = "many";
/// Bytes of a ConfigMap's data: about 1 KiB with the rest.
const DATA_BYTES: usize = 700;

/// Compares how fast both servers are.
#[derive(Args)]
pub struct Arguments {
    /// kube-apiserver's binary.
    #[arg(long)]
    kube_apiserver: PathBuf,
    /// etcd's binary.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// The binary that is compared with them.
    #[arg(long)]
    skep: PathBuf,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Objects that are made, read, listed, patched and applied.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Objects in memory at the end; 0 leaves that part out.
    #[arg(long, default_value_t = 100_000)]
    many: usize,
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
    #[arg(long, default_value_t = 1_000)]
    events: usize,
    /// Starts of each server.
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Only this server: `skep` or `kube-apiserver`.
    #[arg(long)]
    only: Option<Kind>,
}

/// What is measured of one server.
pub struct Run {
    pub ready: Vec<Duration>,
    /// Objects in the server, and MiB.
    pub memory: Vec<(usize, f64)>,
    pub figures: Vec<Figure>,
}

pub async fn run(arguments: Arguments) -> Result<()> {
    let mut report = Report::default();
    for kind in [Kind::KubeApiserver, Kind::Skep] {
        if arguments.only.is_some_and(|only| only != kind) {
            continue;
        }
        eprintln!("{kind}: starts");
        let run = measure(kind, &arguments).await.with_context(|| format!("measure {kind}"))?;
        report.add(kind, run);
    }
    print!("{}", report.text());
    println!("{}", report.json());
    Ok(())
}

async fn measure(kind: Kind, arguments: &Arguments) -> Result<Run> {
    let mut ready = Vec::new();
    for _ in 1..arguments.starts {
        let contender = start(kind, arguments).await?;
        ready.push(contender.ready);
        contender.stop().await?;
    }
    let contender = start(kind, arguments).await?;
    ready.push(contender.ready);
    let connector = contender.connector.clone();
    for namespace in [NAMESPACE, WATCHED, MANY] {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        load::once(&connector, &Ask::new(Method::POST, "/api/v1/namespaces", "application/json", body)).await?;
    }
    let mut run = Run { ready, memory: vec![(0, contender.settled_memory_mib().await?)], figures: Vec::new() };
    let objects = arguments.objects;
    let asks: [(&str, usize, AskOf); 5] = [
        ("create", objects, |n| create(NAMESPACE, n)),
        ("get", objects * 2, |n| Ask::new(Method::GET, path(n), "", Value::Null)),
        ("merge patch", objects, |n| {
            let body = json!({"data": {"changed": n.to_string()}});
            Ask::new(Method::PATCH, path(n), "application/merge-patch+json", body)
        }),
        ("apply", objects, |n| {
            let path = format!("{}?fieldManager=bench&force=true", path(n));
            Ask::new(Method::PATCH, path, "application/apply-patch+yaml", applied(n, "one"))
        }),
        ("apply, nothing changes", objects, |n| {
            let path = format!("{}?fieldManager=bench&force=true", path(n));
            Ask::new(Method::PATCH, path, "application/apply-patch+yaml", applied(n, "one"))
        }),
    ];
    for (name, count, ask) in asks {
        eprintln!("{kind}: {name}, {count} times");
        let before = contender.cpu_s()?;
        let mut figure = load::run(&connector, name, arguments.connections, count, move |n| ask(n % objects)).await?;
        figure.server_cpu_s = contender.cpu_s()? - before;
        run.figures.push(figure);
        if name == "create" {
            run.memory.push((objects, contender.settled_memory_mib().await?));
        }
    }
    eprintln!("{kind}: lists of {objects}");
    let list = |_| Ask::new(Method::GET, format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), "", Value::Null);
    let before = contender.cpu_s()?;
    let mut figure = load::run(&connector, "list", 1, 10, list).await?;
    figure.server_cpu_s = contender.cpu_s()? - before;
    run.figures.push(figure);
    eprintln!("{kind}: {} events to {} watchers", arguments.events, arguments.watchers);
    let before = contender.cpu_s()?;
    let mut figure = watchers::run(&connector, arguments.watchers, arguments.events).await?;
    figure.server_cpu_s = contender.cpu_s()? - before;
    run.figures.push(figure);
    if arguments.many > objects {
        let more = arguments.many - objects;
        eprintln!("{kind}: {more} objects more");
        load::run(&connector, "fill", arguments.connections, more, |n| create(MANY, n)).await?;
        run.memory.push((arguments.many, contender.settled_memory_mib().await?));
    }
    contender.stop().await?;
    Ok(run)
}

type AskOf = fn(usize) -> Ask;

async fn start(kind: Kind, arguments: &Arguments) -> Result<Contender> {
    match kind {
        Kind::Skep => Contender::skep(&arguments.skep).await,
        Kind::KubeApiserver => Contender::kube_apiserver(&arguments.kube_apiserver, &arguments.etcd).await,
    }
}

fn path(n: usize) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps/object-{n}")
}

fn create(namespace: &str, n: usize) -> Ask {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("object-{n}"), "labels": {"app": "bench", "number": n.to_string()}},
        "data": {"text": text(n)},
    });
    Ask::new(Method::POST, format!("/api/v1/namespaces/{namespace}/configmaps"), "application/json", body)
}

/// Letters and digits without any order, others for each object: nobody is to win by what objects have in common in a test only.
fn text(n: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = (0..DATA_BYTES).map(|_| {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 58) as usize])
    });
    letters.collect()
}

fn applied(n: usize, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("object-{n}"), "labels": {"applied": value}},
        "data": {"applied": format!("{value}-{n}")},
    })
}

/// Waits until something answers, and says how long it took.
async fn until_ready(connector: &Connector, start: Instant) -> Result<Duration> {
    const TIMEOUT: Duration = Duration::from_secs(90);
    const PAUSE: Duration = Duration::from_millis(10);
    let ask = Ask::new(Method::GET, "/readyz", "", Value::Null);
    loop {
        match load::once(connector, &ask).await {
            Ok(()) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > TIMEOUT => return Err(error.context("it does not become ready")),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn folder(at: &Path, name: &str) -> Result<PathBuf> {
    let folder = at.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}
