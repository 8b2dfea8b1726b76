//! Shell steps against several servers at once; the first server is the judge.

use std::{fmt::Write, time::Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Deserialize;

use super::{
    Arguments, Tally,
    side::{Printed, Side},
};

/// Lines of a difference that are shown of each side.
const SHOWN_MAX: usize = 14;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    /// For bash; `kubectl` is the release, `work` the namespace, `$HOME` a folder of this server's.
    run: String,
    /// It must fail, on both sides.
    #[serde(default)]
    fails: bool,
    /// It runs whenever another does.
    #[serde(default)]
    always: bool,
    /// Only what it comes to is compared, not what it prints; and why.
    #[serde(default)]
    quiet: Option<String>,
}

/// Runs the steps of a file one after another and tallies those that came to the same on all sides.
pub async fn play(
    program: &str,
    file: &str,
    arguments: &Arguments,
    sides: &mut [Side],
    tally: &mut Tally,
) -> Result<()> {
    let path = arguments.folder.join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let steps: Vec<Step> = serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let start = Instant::now();
    let is_asked = |step: &Step| format!("{program}: {}", step.name).contains(&arguments.only);
    if !steps.iter().any(is_asked) {
        return Ok(());
    }
    for step in steps.iter().filter(|step| step.always || is_asked(step)) {
        let printed = try_join_all(sides.iter_mut().map(|side| side.run(&step.run))).await?;
        let name = format!("{program}: {}", step.name);
        let [judge, others @ ..] = &printed[..] else { continue };
        let mut fault = String::new();
        if judge.code.is_none_or(|code| (code != 0) != step.fails) {
            let _ = writeln!(fault, "kube-apiserver: {}", whole(judge));
        }
        for (side, ours) in sides.iter().skip(1).zip(others) {
            difference(&mut fault, side.name, judge, ours, step.quiet.is_some());
        }
        tally.take(&name, (!fault.is_empty()).then_some(fault.as_str()));
        if arguments.verbose {
            println!("{}", whole(judge));
        }
    }
    println!("      {program}: {} s", start.elapsed().as_secs());
    Ok(())
}

fn whole(printed: &Printed) -> String {
    format!("exit code {:?}\n{}{}", printed.code, printed.out, printed.err)
}

fn difference(fault: &mut String, name: &str, judge: &Printed, ours: &Printed, quiet: bool) {
    if judge.code != ours.code {
        let _ = writeln!(fault, "{name}: exit code {:?}, of kube-apiserver {:?}", ours.code, judge.code);
    }
    if quiet && judge.code == ours.code {
        return;
    }
    for (what, theirs, our) in [("output", &judge.out, &ours.out), ("errors", &judge.err, &ours.err)] {
        if theirs != our {
            let _ = writeln!(fault, "{name}: {what} (-: of kube-apiserver, +: of {name})");
            changed(fault, theirs, our);
        }
    }
}

/// The lines between what both begin and end with.
fn changed(fault: &mut String, theirs: &str, ours: &str) {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let head = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
    let rest = |lines: &[&str]| lines.len() - head;
    let tail = theirs.iter().rev().zip(ours.iter().rev()).take_while(|(a, b)| a == b).count();
    let tail = tail.min(rest(&theirs)).min(rest(&ours));
    for (sign, lines) in [('-', theirs), ('+', ours)] {
        let lines = &lines[head..lines.len() - tail];
        for line in lines.iter().take(SHOWN_MAX) {
            let _ = writeln!(fault, "{sign} {line}");
        }
        if lines.len() > SHOWN_MAX {
            let _ = writeln!(fault, "{sign} and {} lines more", lines.len() - SHOWN_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_differs() {
        let mut fault = String::new();
        changed(&mut fault, "a\nb\nc\nd", "a\nx\nd");
        assert_eq!(fault, "- b\n- c\n+ x\n");
        fault.clear();
        changed(&mut fault, "a", "a\na");
        assert_eq!(fault, "+ a\n");
    }
}
