//! `skep delete cluster`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::{cluster::Cluster, condition};
use kube::{Api, api::DeleteParams};

use crate::{DONE, NOT_FOUND, TIMED_OUT, Target, output};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Arguments {
    name: String,
    #[command(flatten)]
    target: Target,
    /// Return at once instead of waiting until everything is gone
    #[arg(long)]
    no_wait: bool,
    #[arg(long, default_value_t = 1800)]
    timeout_s: u64,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let client = arguments.target.client().await?;
    let (namespace, name) = (&arguments.target.namespace, &arguments.name);
    let clusters = Api::<Cluster>::namespaced(client, namespace);
    match clusters.delete(name, &DeleteParams::foreground()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            output::progress(&format!("there is no cluster {name} in namespace {namespace}"));
            return Ok(NOT_FOUND);
        }
        Err(error) => return Err(error).with_context(|| format!("delete cluster {namespace}/{name}")),
    }
    if arguments.no_wait {
        output::line(&format!("cluster {name} is being deleted"));
        return Ok(DONE);
    }
    let started = Instant::now();
    let mut told = String::new();
    while let Some(cluster) =
        clusters.get_opt(name).await.with_context(|| format!("read cluster {namespace}/{name}"))?
    {
        if started.elapsed().as_secs() >= arguments.timeout_s {
            output::progress(&format!("cluster {name} is not gone after {} s: {told}", arguments.timeout_s));
            return Ok(TIMED_OUT);
        }
        let conditions = cluster.status.map(|status| status.conditions).unwrap_or_default();
        let word = condition::get(&conditions, "Deleting").map(|found| found.reason.clone()).unwrap_or_default();
        if word != told && word != "NotDeleting" {
            output::progress(&format!("  {:>4} s  {word}", started.elapsed().as_secs()));
            told = word;
        }
        tokio::time::sleep(PAUSE).await;
    }
    output::line(&format!("cluster {name} deleted"));
    Ok(DONE)
}
