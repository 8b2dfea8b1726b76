//! Charts: ours, Helm's library in one process, and `helm template`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

#[derive(Args)]
pub struct Helm {
    /// A folder that is a chart with all that it depends on
    #[arg(long, default_value = "bench/chart")]
    chart: PathBuf,
    /// How often each renders it; medians are told
    #[arg(long, default_value_t = 50)]
    renders: usize,
}

pub fn helm(arguments: &Helm) -> Result<Value> {
    let chart = arguments.chart.canonicalize().with_context(|| format!("find {}", arguments.chart.display()))?;
    let judge = said(Command::new("conformance/helm/build").arg("judge"))?;
    let helm = said(Command::new("conformance/helm/build").arg("helm"))?;
    let ours = super::built("conformance-helm")?;
    let renders = arguments.renders.to_string();
    let line = said(Command::new(ours).args(["--bench", &renders, &judge]).arg(&chart))?;
    let mut figures: Value = serde_json::from_str(&line).context("read the figures")?;
    let template_us = median_us(Path::new(&helm), &chart, arguments.renders)?;
    figures["helm_template_us"] = template_us.into();
    for (key, of) in [("cold_times_faster", "cold_us"), ("warm_times_faster", "warm_us")] {
        let ours_us = figures[of].as_f64().context("a figure is missing")?;
        figures[key] = ((template_us as f64 / ours_us * 10.0).round() / 10.0).into();
    }
    Ok(figures)
}

/// What a program writes, without the last line feed.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// Of the whole process, from its start to its end.
fn median_us(helm: &Path, chart: &Path, renders: usize) -> Result<u64> {
    let mut took = Vec::with_capacity(renders);
    for _ in 0..renders {
        let mut command = Command::new(helm);
        command.args(["template", "r"]).arg(chart).args(["--namespace", "ns", "--kube-version", "v1.36.0"]);
        let started = Instant::now();
        let status = command.stdout(Stdio::null()).status().context("run helm template")?;
        took.push(u64::try_from(started.elapsed().as_micros())?);
        ensure!(status.success(), "helm template ended with {status}");
    }
    took.sort_unstable();
    took.get(took.len() / 2).copied().context("at least one render is measured")
}
