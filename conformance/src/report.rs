//! What came of it, for people: a table of topics, then each difference.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    compare::Difference,
    known::{ROWS_MAX, Row, covers},
};

/// Differences of one case that are shown.
const SHOWN_MAX: usize = 12;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Same,
    Different,
    /// The embedded server does not have what was asked for.
    Missing,
}

/// What came of one case.
#[derive(Debug, Default)]
pub struct Outcome {
    pub verdict: Verdict,
    /// The first step that differs.
    pub place: String,
    pub differences: Vec<Difference>,
    /// The case could not be run as it is written.
    pub failure: Option<String>,
    pub transcript: Vec<Value>,
}

impl Outcome {
    pub fn fail(&mut self, why: String) {
        if self.verdict == Verdict::Same {
            self.verdict = Verdict::Different;
        }
        self.failure = Some(why);
    }
}

pub struct Report {
    outcomes: Vec<(String, Outcome)>,
    /// For each case, the row that knows it.
    known: Vec<Option<Row>>,
    /// Patterns that cover no difference any more.
    idle: Vec<String>,
    rows: usize,
}

impl Report {
    /// `partial`: not all cases ran, so that idle rows say nothing.
    pub fn new(outcomes: Vec<(String, Outcome)>, rows: &[Row], partial: bool) -> Self {
        let known: Vec<Option<Row>> =
            outcomes.iter().map(|(name, _)| rows.iter().find(|row| row.covers(name)).cloned()).collect();
        let is_idle = |pattern: &&String| {
            let mut covered = outcomes.iter().filter(|(name, _)| covers(pattern, name));
            !partial && !covered.any(|(_, outcome)| outcome.verdict != Verdict::Same)
        };
        let idle = rows.iter().flat_map(|row| &row.cases).filter(is_idle).cloned().collect();
        Self { outcomes, known, idle, rows: rows.len() }
    }

    pub fn passes(&self) -> bool {
        self.rows < ROWS_MAX && self.idle.is_empty() && self.unlisted().next().is_none()
    }

    fn unlisted(&self) -> impl Iterator<Item = &(String, Outcome)> {
        let pairs = self.outcomes.iter().zip(&self.known);
        pairs.filter(|((_, o), row)| o.verdict != Verdict::Same && row.is_none()).map(|(outcome, _)| outcome)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| outcome.verdict == verdict).count()
    }

    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        for ((name, outcome), row) in self.outcomes.iter().zip(&self.known) {
            if outcome.verdict != Verdict::Same && (all || row.is_none()) {
                describe(&mut out, name, outcome, row.as_ref());
            }
        }
        self.table(&mut out);
        for pattern in &self.idle {
            let _ = writeln!(out, "known.yaml: {pattern} is the same now (or no case): take it out");
        }
        let listed = self.count(Verdict::Different) + self.count(Verdict::Missing) - self.unlisted().count();
        let _ = writeln!(out, "{listed} of the differences are known, in {} rows", self.rows);
        let (same, different, missing) =
            (self.count(Verdict::Same), self.count(Verdict::Different), self.count(Verdict::Missing));
        let _ = writeln!(out, "{same} same, {different} different, {missing} missing");
        out
    }

    fn table(&self, out: &mut String) {
        let mut topics: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for (name, outcome) in &self.outcomes {
            let topic = name.split('/').next().unwrap_or_default();
            topics.entry(topic).or_default()[outcome.verdict as usize] += 1;
        }
        let _ = writeln!(out, "{:<24}{:>8}{:>12}{:>10}", "topic", "same", "different", "missing");
        for (topic, [same, different, missing]) in topics {
            let _ = writeln!(out, "{topic:<24}{same:>8}{different:>12}{missing:>10}");
        }
    }
}

fn describe(out: &mut String, name: &str, outcome: &Outcome, row: Option<&Row>) {
    let what = if outcome.verdict == Verdict::Missing { "missing" } else { "different" };
    let _ = writeln!(out, "--- {name}: {what}");
    if let Some(row) = row {
        let _ = writeln!(out, "    known: {}", row.reason.trim());
    }
    if !outcome.place.is_empty() {
        let _ = writeln!(out, "    {}", outcome.place);
    }
    for difference in outcome.differences.iter().take(SHOWN_MAX) {
        let _ = writeln!(out, "      {}", difference.place);
        let _ = writeln!(out, "        kube-apiserver {}", difference.judge);
        let _ = writeln!(out, "        embedded       {}", difference.ours);
    }
    if outcome.differences.len() > SHOWN_MAX {
        let _ = writeln!(out, "      and {} more", outcome.differences.len() - SHOWN_MAX);
    }
    if let Some(failure) = &outcome.failure {
        let _ = writeln!(out, "    {failure}");
    }
}

/// Requests and both answers, a file for each case.
pub fn transcripts(folder: &Path, outcomes: &[(String, Outcome)]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for (name, outcome) in outcomes {
        let path = folder.join(format!("{}.json", name.replace('/', "__")));
        let text = serde_json::to_string_pretty(&outcome.transcript)?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
