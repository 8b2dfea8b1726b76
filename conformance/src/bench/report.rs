//! Both servers' figures side by side.

use std::{fmt::Write, time::Duration};

use serde_json::{Map, Value, json};

use super::{Run, load::Figure, process::Kind};

#[derive(Default)]
pub struct Report {
    judge: Option<Run>,
    subject: Option<Run>,
}

/// One line of the table. The ratio is how much better the subject is.
struct Row {
    name: String,
    judge: Option<f64>,
    subject: Option<f64>,
    unit: &'static str,
    more_is_better: bool,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let (judge, subject) = (self.judge?, self.subject?);
        let (better, worse) = if self.more_is_better { (subject, judge) } else { (judge, subject) };
        (worse > 0.0).then_some(better / worse)
    }
}

impl Report {
    pub fn add(&mut self, kind: Kind, run: Run) {
        match kind {
            Kind::KubeApiserver => self.judge = Some(run),
            Kind::Skep => self.subject = Some(run),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |name: String, unit, more_is_better, read: &dyn Fn(&Run) -> Option<f64>| {
            let (judge, subject) = (self.judge.as_ref().and_then(read), self.subject.as_ref().and_then(read));
            rows.push(Row { name, judge, subject, unit, more_is_better });
        };
        let any = self.judge.as_ref().or(self.subject.as_ref());
        add("start to ready, median".to_owned(), "s", false, &|run| median(&run.ready));
        for at in 0..any.map_or(0, |run| run.memory.len()) {
            let objects = any.and_then(|run| run.memory.get(at)).map_or(0, |memory| memory.0);
            add(format!("memory, {objects} objects"), "MiB", false, &|run| Some(run.memory.get(at)?.1));
        }
        for at in 0..any.map_or(0, |run| run.figures.len()) {
            let name = any.and_then(|run| run.figures.get(at)).map_or("", |figure| &figure.name);
            add(name.to_owned(), "/s", true, &|run| Some(per_second(run.figures.get(at)?)));
            add(format!("{name}, p50"), "ms", false, &|run| quantile_ms(run.figures.get(at)?, 0.5));
            add(format!("{name}, p99"), "ms", false, &|run| quantile_ms(run.figures.get(at)?, 0.99));
            add(format!("{name}, server CPU each"), "us", false, &|run| {
                let figure = run.figures.get(at)?;
                Some(figure.server_cpu_s * 1e6 / figure.count as f64)
            });
            add(format!("{name}, client CPU each"), "us", false, &|run| {
                let figure = run.figures.get(at)?;
                Some(figure.client_cpu_s * 1e6 / figure.count as f64)
            });
        }
        rows
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let head = ["", "kube-apiserver + etcd", "skep", "times better"];
        let _ = writeln!(out, "{:<48} {:>22} {:>14} {:>14}", head[0], head[1], head[2], head[3]);
        for row in self.rows() {
            let figure =
                |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{} {}", short(value), row.unit));
            // The client is the same program.
            let ratio = row.ratio().filter(|_| !row.name.contains("client"));
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.1}"));
            let (judge, subject) = (figure(row.judge), figure(row.subject));
            let _ = writeln!(out, "{:<48} {judge:>22} {subject:>14} {ratio:>14}", row.name);
        }
        out
    }

    /// For programs: each figure of both, and the ratio.
    pub fn json(&self) -> Value {
        let rows = self.rows();
        let entries = rows.iter().map(|row| {
            let ratio = row.ratio().map(|ratio| (ratio * 100.0).round() / 100.0);
            (format!("{} ({})", row.name, row.unit), json!([row.judge, row.subject, ratio]))
        });
        Value::Object(entries.collect::<Map<_, _>>())
    }
}

fn per_second(figure: &Figure) -> f64 {
    figure.count as f64 / figure.took.as_secs_f64()
}

fn quantile_ms(figure: &Figure, part: f64) -> Option<f64> {
    let last = figure.latencies.len().checked_sub(1)?;
    let at = (last as f64 * part).round() as usize;
    Some(figure.latencies.get(at)?.as_secs_f64() * 1e3)
}

fn median(times: &[Duration]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    Some(sorted.get(sorted.len() / 2)?.as_secs_f64())
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
