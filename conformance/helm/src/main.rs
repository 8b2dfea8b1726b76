//! The same charts to Helm and to ours, and what differs.
//!
//! `conformance-helm JUDGE CASES...`: JUDGE is the program of `main.go`; CASES are files of cases (YAML), or folders that are charts.
//! `conformance-helm --bench RENDERS JUDGE CASES...`: how long Helm's library and ours take for each, as lines of JSON.

#![expect(clippy::print_stdout, reason = "a report is what this program is for")]

mod bench;
mod case;
mod judge;

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, Result};

use self::{case::Case, judge::Judge};

/// What the binary has: docs/decisions/allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What became of a case: text by path, or what was wrong.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Files(BTreeMap<String, String>),
    Error(String),
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    const USAGE: &str = "usage: conformance-helm [--bench RENDERS] JUDGE CASES...";
    let mut judge = arguments.next().context(USAGE)?;
    let mut renders = None;
    if judge == "--bench" {
        renders = Some(arguments.next().context(USAGE)?.parse().context("RENDERS is a number")?);
        judge = arguments.next().context(USAGE)?;
    }
    let mut judge = Judge::start(&judge)?;
    if let Some(renders) = renders {
        for path in arguments {
            for case in case::read(Path::new(&path))? {
                println!("{}", bench::measured(&mut judge, &case, renders)?);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let known = known(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/known.yaml")))?;
    let (mut same, mut different, mut stale, mut new) = (0, 0, 0, 0);
    let (mut theirs_s, mut ours_s) = (0.0, 0.0);
    for path in arguments {
        for case in case::read(Path::new(&path))? {
            let (started, theirs) = (Instant::now(), judge.outcome(&case)?);
            theirs_s += started.elapsed().as_secs_f64();
            let (started, ours) = (Instant::now(), ours(&case));
            ours_s += started.elapsed().as_secs_f64();
            let equal = theirs == ours;
            let listed = known.get(&case.name);
            match (equal, listed) {
                (true, None) => same += 1,
                (true, Some(_)) => {
                    stale += 1;
                    println!("{}: is the same now: take it off known.yaml", case.name);
                }
                (false, Some(_)) => different += 1,
                (false, None) => {
                    different += 1;
                    new += 1;
                    println!("{}:", case.name);
                    tell(&theirs, &ours);
                }
            }
        }
    }
    eprintln!("Helm took {:.0} ms, ours {:.0} ms", theirs_s * 1000.0, ours_s * 1000.0);
    println!("{same} same, {different} different");
    Ok(if new > 0 || stale > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Differences that are known, by the name of the case, with why. The list may only get shorter.
fn known(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))
}

fn ours(case: &Case) -> Outcome {
    match case.render() {
        Ok(files) => Outcome::Files(files),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

fn tell(theirs: &Outcome, ours: &Outcome) {
    match (theirs, ours) {
        (Outcome::Files(theirs), Outcome::Files(ours)) => {
            for (path, text) in theirs {
                match ours.get(path) {
                    None => println!("  {path}: only Helm has it"),
                    Some(own) if own != text => tell_lines(path, text, own),
                    Some(_) => {}
                }
            }
            for path in ours.keys().filter(|path| !theirs.contains_key(*path)) {
                println!("  {path}: only ours has it");
            }
        }
        _ => {
            println!("  helm: {}", brief(theirs));
            println!("  ours: {}", brief(ours));
        }
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Error(error) => format!("error: {error}"),
        Outcome::Files(files) => {
            let text: String = files.values().cloned().collect();
            format!("{} files: {:?}", files.len(), text.chars().take(200).collect::<String>())
        }
    }
}

/// The first line that differs.
fn tell_lines(path: &str, theirs: &str, ours: &str) {
    let (mut left, mut right) = (theirs.split('\n'), ours.split('\n'));
    let mut number = 1;
    loop {
        match (left.next(), right.next()) {
            (left, right) if left == right && left.is_some() => number += 1,
            (left, right) => {
                println!("  {path}:{number}");
                println!("    helm: {left:?}");
                println!("    ours: {right:?}");
                return;
            }
        }
    }
}
