//! Helm, as a program that is asked in lines of JSON.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result};
use serde::Deserialize;

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
    error: String,
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
        let mut line = serde_json::to_vec(&case.request())?;
        line.push(b'\n');
        self.asked.write_all(&line).with_context(|| format!("ask the judge about {}", case.name))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let answer: Answer =
            serde_json::from_str(&answer).with_context(|| format!("read the answer about {}", case.name))?;
        Ok(if answer.error.is_empty() { Outcome::Files(answer.files) } else { Outcome::Error(answer.error) })
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
