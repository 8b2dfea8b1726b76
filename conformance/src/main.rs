//! Runs the same cases against the embedded API server and against kube-apiserver, and prints where they differ.
//!
//! The judge is kube-apiserver: a case says what is asked, never what is to be answered. `conformance/README.md` says what
//! is compared and what is not. Left out: what needs a kubelet, and anything that lasts longer than some seconds.

#![allow(clippy::print_stdout, reason = "its output is a report for people")]

mod bench;
mod case;
mod client;
mod compare;
mod identity;
mod judge;
mod known;
mod normal;
mod programs;
mod report;
mod run;
mod subject;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use futures::StreamExt;

use crate::{
    identity::Authority,
    report::{Outcome, Report},
    run::Pair,
};

/// kube-apiserver is the judge of the embedded API server.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Asks both the same and prints where the answers differ
    Compare(Compare),
    /// Measures both
    Bench(bench::Arguments),
    /// Runs programs of others against both
    Programs(programs::Arguments),
}

#[derive(Args)]
struct Compare {
    /// Where cases and known differences are.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR")))]
    folder: PathBuf,
    /// The judge's binary.
    #[arg(long)]
    kube_apiserver: PathBuf,
    /// etcd's binary.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Where the embedded server keeps its objects.
    #[arg(long, value_enum, default_value_t = StoreKind::File)]
    store: StoreKind,
    /// Only cases whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Cases at once.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// Shows known differences as well.
    #[arg(long)]
    all: bool,
    /// Writes requests and both answers of each case here, a file each.
    #[arg(long)]
    transcripts: Option<PathBuf>,
    /// Only lists the cases.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StoreKind {
    File,
    Etcd,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match arguments.command {
        Command::Compare(arguments) => compare(arguments).await,
        Command::Bench(arguments) => bench::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Programs(arguments) => {
            programs::run(arguments).await.map(|holds| if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn compare(args: Compare) -> Result<ExitCode> {
    let mut cases = case::load(&args.folder.join("cases"))?;
    cases.retain(|case| case.name.contains(&args.only));
    if args.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        println!("{} cases", cases.len());
        return Ok(ExitCode::SUCCESS);
    }
    let known = known::load(&args.folder.join("known.yaml"))?;
    let work = tempfile::tempdir().context("make a folder for both servers")?;
    let authority = Authority::new()?;
    let judge = judge::Judge::start(work.path(), &args.kube_apiserver, &args.etcd, &authority).await?;
    let etcd = (args.store == StoreKind::Etcd).then_some(args.etcd.as_path());
    let subject = subject::Subject::start(work.path(), "subject.db", etcd, Vec::new(), &authority).await?;
    let pair = Arc::new(Pair::new(&judge.address, &subject.address, &authority)?);
    let total = cases.len();
    let ran = futures::stream::iter(cases).map(|case| {
        let pair = Arc::clone(&pair);
        tokio::spawn(async move {
            let outcome = run::case(&pair, &case).await;
            (case.name, outcome)
        })
    });
    let mut outcomes: Vec<(String, Outcome)> = Vec::with_capacity(total);
    let mut ran = ran.buffer_unordered(args.jobs);
    while let Some(done) = ran.next().await {
        outcomes.push(done.context("run a case")?);
    }
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(folder) = &args.transcripts {
        report::transcripts(folder, &outcomes)?;
    }
    let partial = !args.only.is_empty();
    let report = Report::new(outcomes, &known, partial);
    print!("{}", report.text(args.all));
    subject.stop().await?;
    judge.stop().await;
    Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
