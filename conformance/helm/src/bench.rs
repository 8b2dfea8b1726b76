//! How long a chart takes, by Helm's library in one process and by ours. Cold: from its files. Warm: from what is kept of it, which for
//! Helm's library is a chart whose templates are still to be read, since it keeps no others.

use std::{hint::black_box, time::Instant};

use anyhow::{Result, ensure};
use helm::{Prepared, chart::Chart};
use serde_json::{Value, json};

use crate::{Outcome, case::Case, judge::Judge};

/// Medians in microseconds.
pub fn measured(judge: &mut Judge, case: &Case, renders: usize) -> Result<Value> {
    ensure!(renders > 0, "at least one render is measured");
    let theirs = judge.outcome(case)?;
    let rendered = case.render();
    let (files, bytes) = match &rendered {
        Ok(files) => (files.len(), files.values().map(String::len).sum::<usize>()),
        Err(error) => anyhow::bail!("{}: {error}", case.name),
    };
    ensure!(
        theirs == rendered.map_or_else(|error| Outcome::Error(error.to_string()), Outcome::Files),
        "{} differs",
        case.name
    );
    let (their_cold, their_warm) = judge.timed(case, renders)?;
    let cold = median(renders, || Ok(case.render()?))?;
    let prepared = Prepared::new(Chart::load(case.kept()?.as_ref())?);
    black_box(case.render_prepared(&prepared)?);
    let warm = median(renders, || Ok(case.render_prepared(&prepared)?))?;
    Ok(json!({
        "chart": case.name,
        "files": files,
        "bytes": bytes,
        "renders": renders,
        "cold_us": cold,
        "warm_us": warm,
        "helm_library_cold_us": their_cold,
        "helm_library_warm_us": their_warm,
    }))
}

fn median<T>(renders: usize, mut render: impl FnMut() -> Result<T>) -> Result<u64> {
    let mut took = Vec::with_capacity(renders);
    for _ in 0..renders {
        let started = Instant::now();
        black_box(render()?);
        took.push(u64::try_from(started.elapsed().as_micros())?);
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}
