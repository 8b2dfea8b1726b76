//! `skep move`: clusters go from one management cluster to another, with all that belongs to them.
//!
//! The order is that of `clusterctl move`: the cluster is paused, its objects are made in the target, owners first; then they are
//! deleted here without their finalizers, owners last; then the cluster goes on in the target, whose controllers find out the
//! status anew. Unlike there, a move that was cut off at any write is picked up by the same command: what was made carries
//! the UID that it had, a stranger of the same name is never touched, and nothing is deleted before all is there.
//!
//! Source: kubernetes-sigs/cluster-api cmd/clusterctl/client/cluster/mover.go, objectgraph.go; docs/book clusterctl provider
//! contract (labels and annotations).

mod carry;
mod discovery;
mod graph;

use std::path::PathBuf;

use anyhow::Result;
use kube::Client;

use self::graph::Graph;
use crate::{DONE, Target, output};

#[derive(clap::Args)]
pub struct Arguments {
    /// Kubeconfig of the management cluster that the clusters go to
    #[arg(long)]
    to_kubeconfig: PathBuf,
    /// Say what would be moved, and in which order, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Move this cluster only; what others may need too is copied and stays
    #[arg(long, value_name = "CLUSTER")]
    filter_cluster: Option<String>,
    /// Move the clusters of all namespaces, those with ClusterClasses first
    #[arg(short = 'A', long, conflicts_with = "filter_cluster")]
    all_namespaces: bool,
    #[command(flatten)]
    target: Target,
}

/// A move of the clusters of a namespace.
pub struct Move {
    pub from: Client,
    pub to: Client,
    pub namespace: String,
    /// This cluster only.
    pub cluster: Option<String>,
    pub dry_run: bool,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let from = arguments.target.client().await?;
    let namespace = arguments.target.namespace.clone();
    let target = Target { kubeconfig: Some(arguments.to_kubeconfig), namespace: namespace.clone() };
    let to = target.client().await?;
    let namespaces = if arguments.all_namespaces { discovery::namespaces(&from, &to).await? } else { vec![namespace] };
    for namespace in namespaces {
        let (from, to, cluster) = (from.clone(), to.clone(), arguments.filter_cluster.clone());
        let moving = Move { from, to, cluster, dry_run: arguments.dry_run, namespace };
        moving.run(&mut |word| output::line(word)).await?;
    }
    Ok(DONE)
}

impl Move {
    /// Moves, and says how far it is. After an error, or if it is cut off, the same move goes on where it was.
    pub async fn run(&self, say: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
        let ends = carry::Ends::of(self).await?;
        let graph = self.look().await?;
        if graph.is_empty() && !ends.has_unfinished().await? {
            say(&format!("there is nothing to move in namespace {}", self.namespace));
            return Ok(());
        }
        ends.check(&graph).await?;
        if self.dry_run {
            say(&told(&graph));
            return Ok(());
        }
        for cluster in graph.clusters() {
            say(&format!("Cluster {}/{cluster} is paused", self.namespace));
        }
        ends.pause(&graph).await?;
        // What was under way before the pause may have made something more.
        let mut graph = self.look().await?;
        ends.still(&graph).await?;
        let mut rounds = 0;
        loop {
            let made = ends.make(&graph).await?;
            let again = self.look().await?;
            if again.is_covered_by(&made) {
                graph = again;
                break;
            }
            rounds += 1;
            anyhow::ensure!(rounds < carry::ROUNDS_MAX, "new objects come all the time: is a controller not paused?");
            graph = again;
        }
        say(&format!("{} objects are in the target", graph.len()));
        let deleted = ends.delete(&graph).await?;
        say(&format!("{deleted} objects are deleted here"));
        for cluster in ends.resume().await? {
            say(&format!("Cluster {}/{cluster} goes on in the target", self.namespace));
        }
        Ok(())
    }

    async fn look(&self) -> Result<Graph> {
        let found = discovery::all(&self.from, &self.namespace).await?;
        let elsewhere = discovery::classes_used_elsewhere(&self.from, &self.namespace).await?;
        graph::build(found, self.cluster.as_deref(), &elsewhere)
    }
}

/// What a dry run says.
fn told(graph: &Graph) -> String {
    let mut lines = Vec::new();
    for (index, group) in graph.groups().enumerate() {
        for node in group {
            let after = if node.stays { "  (copied, stays here too)" } else { "" };
            lines.push(format!("{:>3}  {}{after}", index + 1, node.told()));
        }
    }
    lines.push(format!("{} objects would be moved; nothing was changed", graph.len()));
    lines.join("\n")
}
