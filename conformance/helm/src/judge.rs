//! Helm, as a program that is asked in lines of JSON.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{Outcome, case::Case};

pub struct Judge {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    manifests: Vec<Manifest>,
    #[serde(default)]
    hooks: Vec<Hook>,
    #[serde(default)]
    error: String,
    #[serde(default, rename = "coldUs")]
    cold_us: u64,
    #[serde(default, rename = "warmUs")]
    warm_us: u64,
}

#[derive(Deserialize)]
struct Manifest {
    name: String,
    content: String,
}

#[derive(Deserialize)]
struct Hook {
    name: String,
    path: String,
    manifest: String,
    #[serde(default)]
    events: Option<Vec<String>>,
    weight: i64,
    #[serde(default)]
    policies: Option<Vec<String>>,
    #[serde(default)]
    logs: Option<Vec<String>>,
}

impl Answer {
    /// Files, or what has been made of them, under names that say the order.
    fn outcome(self) -> Outcome {
        if !self.error.is_empty() {
            return Outcome::Error(self.error);
        }
        let mut files = self.files;
        for (place, object) in self.manifests.into_iter().enumerate() {
            files.insert(format!("{place:03} {}", object.name), object.content);
        }
        for (place, hook) in self.hooks.into_iter().enumerate() {
            let (events, policies) = (hook.events.unwrap_or_default(), hook.policies.unwrap_or_default());
            let logs = hook.logs.unwrap_or_default();
            let told = format!("{} {events:?} {} {policies:?} {logs:?}\n{}", hook.name, hook.weight, hook.manifest);
            files.insert(format!("hook {place:03} {}", hook.path), told);
        }
        Outcome::Files(files)
    }
}

impl Judge {
    pub fn start(program: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let asked = child.stdin.take().context("the judge has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the judge has no output")?);
        Ok(Self { child, asked, answers })
    }

    pub fn outcome(&mut self, case: &Case) -> Result<Outcome> {
        Ok(self.asked(case, case.request())?.outcome())
    }

    /// Medians in microseconds, cold and warm, of so many renders.
    pub fn timed(&mut self, case: &Case, renders: usize) -> Result<(u64, u64)> {
        let mut request = case.request();
        request["renders"] = renders.into();
        let answer = self.asked(case, request)?;
        ensure!(answer.error.is_empty(), "{}: {}", case.name, answer.error);
        Ok((answer.cold_us, answer.warm_us))
    }

    fn asked(&mut self, case: &Case, request: Value) -> Result<Answer> {
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.asked.write_all(&line).with_context(|| format!("ask the judge about {}", case.name))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("read the answer about {}", case.name))
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
