//! One case against both servers, step by step.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use apiserver::protobuf;
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    case::{Case, Step, fill, fill_value},
    client::{Answer, Asked, PROTOBUF, Server},
    compare::{Difference, differences},
    identity::Authority,
    normal::{Normal, sort_events},
    report::{Outcome, Verdict},
};

/// What a step waits for must come in this time.
const UNTIL_TIMEOUT: Duration = Duration::from_secs(15);
const UNTIL_INTERVAL: Duration = Duration::from_millis(50);
/// Headers of every answer that are compared.
const HEADERS: [&str; 3] = ["content-type", "warning", "retry-after"];

/// Both servers.
pub struct Pair {
    judge: Server,
    subject: Server,
    now: Timestamp,
}

impl Pair {
    pub fn new(judge: &str, subject: &str, authority: &Authority) -> Result<Self> {
        let (judge, subject) = (Server::new(judge, authority)?, Server::new(subject, authority)?);
        Ok(Self { judge, subject, now: Timestamp::now() })
    }
}

/// One server's side of a case.
struct Side<'a> {
    server: &'a Server,
    vars: Map<String, Value>,
    normal: Normal,
}

pub async fn case(pair: &Pair, case: &Case) -> Outcome {
    let mut outcome = Outcome::default();
    match run(pair, case, &mut outcome).await {
        Ok(()) => {}
        Err(error) => outcome.fail(format!("{error:#}")),
    }
    outcome
}

async fn run(pair: &Pair, case: &Case, outcome: &mut Outcome) -> Result<()> {
    let side = |server: &'_ Server| (case.vars.clone(), Normal::new(&server.address, pair.now));
    let ((vars, normal), (our_vars, our_normal)) = (side(&pair.judge), side(&pair.subject));
    let mut judge = Side { server: &pair.judge, vars, normal };
    let mut ours = Side { server: &pair.subject, vars: our_vars, normal: our_normal };
    if case.wants_namespace() {
        let step = Step {
            request: "POST /api/v1/namespaces".to_owned(),
            body: Some(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "${ns}"}})),
            quiet: true,
            ..Step::default()
        };
        both(&step, &mut judge, &mut ours, outcome).await?;
    }
    for step in &case.steps {
        both(step, &mut judge, &mut ours, outcome).await?;
    }
    Ok(())
}

async fn both(step: &Step, judge: &mut Side<'_>, ours: &mut Side<'_>, outcome: &mut Outcome) -> Result<()> {
    let (theirs, our) = tokio::join!(judge.step(step), ours.step(step));
    let theirs = theirs.with_context(|| format!("kube-apiserver: {}", step.request))?;
    let our = our.with_context(|| format!("embedded server: {}", step.request));
    let (code, our_code) = (theirs["code"].as_u64().unwrap_or(0), our.as_ref().ok().and_then(|a| a["code"].as_u64()));
    let our = our.unwrap_or_else(|error| json!({"failure": format!("{error:#}")}));
    let mut found: Vec<Difference> = Vec::new();
    differences("", Some(&theirs), Some(&our), &mut found);
    if !found.is_empty() && outcome.verdict == Verdict::Same {
        let is_missing = code < 400 && matches!(our_code, Some(404 | 405 | 415 | 501));
        outcome.verdict = if is_missing { Verdict::Missing } else { Verdict::Different };
        outcome.place = format!("step {}: {}", outcome.transcript.len() + 1, step.request);
        outcome.differences = found;
    }
    outcome.transcript.push(json!({"do": step.request, "judge": theirs, "ours": our}));
    // Captures differ from server to server and are taken last, so that a step never compares them.
    judge.take(step).with_context(|| format!("kube-apiserver: {}", step.request))?;
    if let Err(error) = ours.take(step) {
        if outcome.verdict == Verdict::Same {
            return Err(error);
        }
        bail!("goes no further: {error:#}");
    }
    Ok(())
}

impl Side<'_> {
    /// Asks, and answers with what is compared.
    async fn step(&mut self, step: &Step) -> Result<Value> {
        let asked = self.asked(step)?;
        self.normal.sends(&asked.path);
        self.normal.sends(&String::from_utf8_lossy(&asked.body));
        let start = Instant::now();
        let wanted_text = step.until_text.as_ref().map(|text| fill(text, &self.vars)).transpose()?;
        let answer = loop {
            let answer = self.server.ask(&asked).await?;
            let code = step.until.is_none_or(|code| code == answer.code);
            let text =
                wanted_text.as_ref().is_none_or(|text| String::from_utf8_lossy(&answer.body).contains(text.as_str()));
            if (code && text) || start.elapsed() > UNTIL_TIMEOUT {
                break answer;
            }
            tokio::time::sleep(UNTIL_INTERVAL).await;
        };
        let seen = parse(&answer, step);
        // Kept for captures; they see what the server really said.
        self.vars.insert(ANSWER.to_owned(), seen.clone());
        Ok(self.compared(step, &answer, seen))
    }

    fn asked(&self, step: &Step) -> Result<Asked> {
        let request = fill(&step.request, &self.vars)?;
        let (method, path) = request.split_once(' ').context("a request is a method and a path")?;
        let mut headers = Vec::new();
        let body: Bytes = match (&step.body, &step.raw) {
            (Some(value), None) => serde_json::to_vec(&fill_value(value, &self.vars)?)?.into(),
            (None, Some(raw)) => fill(raw, &self.vars)?.into(),
            (None, None) => Bytes::new(),
            _ => bail!("a step has a body or a raw body"),
        };
        let media = step.media.as_ref().map(|media| fill(media, &self.vars)).transpose()?;
        let media = match media.as_deref() {
            Some("merge") => Some("application/merge-patch+json"),
            Some("json") => Some("application/json-patch+json"),
            Some("strategic") => Some("application/strategic-merge-patch+json"),
            Some("apply") => Some("application/apply-patch+yaml"),
            Some("none") => None,
            Some(other) => Some(other),
            None if step.body.is_some() || step.raw.is_some() => Some("application/json"),
            None => None,
        };
        headers.extend(media.map(|media| ("content-type".to_owned(), media.to_owned())));
        let named = |name: &str| step.headers.keys().any(|key| key.eq_ignore_ascii_case(name));
        if !named("accept") {
            headers.push(("accept".to_owned(), "application/json".to_owned()));
        }
        if !named("user-agent") {
            headers.push(("user-agent".to_owned(), "conformance/1.0".to_owned()));
        }
        for (name, value) in &step.headers {
            // One header may be given several times, a line each.
            for line in fill(value, &self.vars)?.lines() {
                headers.push((name.clone(), line.to_owned()));
            }
        }
        Ok(Asked {
            user: step.user.clone().unwrap_or_else(|| "admin".to_owned()),
            method: method.parse::<Method>().context("read the method")?,
            path: path.replace(' ', "%20"),
            headers,
            body,
            lines: step.lines,
        })
    }

    fn compared(&mut self, step: &Step, answer: &Answer, seen: Value) -> Value {
        let code = answer.code;
        if step.quiet {
            self.normal.body(seen);
            return json!({"code": code});
        }
        let is_stream = step.lines.is_some() && code == 200;
        let body = match seen {
            Value::Array(lines) if is_stream => {
                let mut lines: Vec<Value> = lines.into_iter().map(|line| self.normal.body(line)).collect();
                if step.sorted {
                    sort_events(&mut lines);
                }
                Value::Array(lines)
            }
            other => self.normal.body(other),
        };
        if !step.only.is_empty() {
            let parts = step.only.iter().map(|at| (at.clone(), body.pointer(at).cloned().unwrap_or_default()));
            return json!({"code": code, "only": parts.collect::<Map<_, _>>()});
        }
        let further = step.compare.iter().map(String::as_str);
        let headers: Map<String, Value> = HEADERS
            .into_iter()
            .chain(further)
            .filter_map(|name| Some((name.to_owned(), self.header(&answer.headers, name)?)))
            .collect();
        json!({"code": code, "headers": headers, "body": body})
    }

    fn header(&mut self, headers: &HeaderMap, name: &str) -> Option<Value> {
        let values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|value| Value::String(self.normal.text(&String::from_utf8_lossy(value.as_bytes()))))
            .collect();
        match values.len() {
            0 => None,
            1 => values.into_iter().next(),
            _ => Some(Value::Array(values)),
        }
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        let answer = self.vars.remove(ANSWER).unwrap_or_default();
        for (name, at) in &step.capture {
            let found = answer.pointer(at).filter(|found| !found.is_null());
            let found = found.ok_or_else(|| anyhow!("{}: the answer has no {at} for {name}", step.request))?;
            self.vars.insert(name.clone(), found.clone());
        }
        Ok(())
    }
}

/// The variable that holds the last answer.
const ANSWER: &str = "the last answer";

/// The body as a value: lines of a watch as a list, YAML as what it says, anything else as text.
fn parse(answer: &Answer, step: &Step) -> Value {
    let media = answer.media();
    if media.starts_with(PROTOBUF) {
        let read = match step.lines {
            Some(_) if answer.code == 200 => protobuf::events(&answer.body).map(Value::from),
            _ => protobuf::parse(&answer.body),
        };
        return read.unwrap_or_else(Value::String);
    }
    if step.lines.is_some() && answer.code == 200 {
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        return lines.map(|line| serde_json::from_slice(line).unwrap_or_else(|_| text(line))).collect();
    }
    if media.contains("yaml") {
        let parsed = std::str::from_utf8(&answer.body).ok().and_then(|text| serde_saphyr::from_str(text).ok());
        return parsed.unwrap_or_else(|| text(&answer.body));
    }
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| text(&answer.body))
}

fn text(bytes: &[u8]) -> Value {
    // Of what is no text, the beginning says which form it has.
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => Value::String(format!("{:?}…", String::from_utf8_lossy(&bytes[..bytes.len().min(4)]))),
    }
}
