//! `skep app test`: the tests of an app's release in its cluster, as `helm test` runs them.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use delivery::release::{Class, Hook, Log, Outcome, Output, Phase, Selection, Testing};
use jiff::Timestamp;

use super::{Named, find, target::Target, told};
use crate::{
    Charts, DONE, FAILED, NOT_FOUND,
    output::{self, Colour},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    /// Run only some tests (name=TEST), or all others ('!name=TEST'); may be repeated
    #[arg(long = "filter", value_name = "FILTER", value_delimiter = ',')]
    filters: Vec<String>,
    /// Print what the pods of all tests have written, not only of those that ask for it (helm.sh/hook-output-log-policy)
    #[arg(long)]
    logs: bool,
    /// Wait no longer for a test, in seconds
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 300)]
    timeout_s: u64,
}

pub async fn run(arguments: Arguments, charts: Charts) -> Result<u8> {
    let selection = selection(&arguments.filters, arguments.timeout_s)?;
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let Target { release, namespace, place, engine, .. } = Target::reach(&client, &app, charts).await?;
    let (send, logs) = mpsc::channel();
    // Nobody listens any more when the command ends.
    let engine = engine.with_output(Output::new(arguments.logs, move |log| drop(send.send(log))));
    let (release, namespace) = (release.as_str(), namespace.as_str());
    if engine.last(release, namespace).await?.is_none() {
        output::progress(&format!("{} has no release in {place} so far", told(&app)));
        return Ok(NOT_FOUND);
    }
    let mut testing = engine.test(release, namespace, &selection).await?;
    if testing.tests().next().is_none() {
        output::progress(&format!("release {release} has no tests"));
        return Ok(DONE);
    }
    let why = finish(&mut testing).await.with_context(|| format!("test {} in {place}", told(&app)))?;
    let mut lines = output::table(&rows(testing.tests())).lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
    lines.next().iter().for_each(|head| output::line(head));
    for (line, (hook, ran)) in lines.zip(testing.tests()) {
        output::line(&output::coloured(&line, colour(hook, ran)));
    }
    logs.try_iter().for_each(print);
    match why {
        None => Ok(DONE),
        Some(why) => {
            output::progress(&format!("the tests of {} failed: {why}", told(&app)));
            Ok(FAILED)
        }
    }
}

fn print(Log { hook, pod, container, text }: Log) {
    match text {
        Ok(text) => {
            output::line(&output::coloured(&format!("--- {hook}: pod {pod}, container {container}"), Colour::Faint));
            output::text(&text);
        }
        Err(why) => output::progress(&format!("what {hook} has written cannot be read: {why}")),
    }
}

/// Runs them to their end; why one failed.
async fn finish(testing: &mut Testing<'_>) -> Result<Option<String>> {
    let (started, mut said) = (Instant::now(), String::new());
    loop {
        let word = match testing.proceed().await {
            Ok(Outcome::Waiting { on, object, .. }) => {
                object.map_or_else(|| on.clone(), |object| format!("{object}: {on}"))
            }
            Ok(Outcome::Failed { why, .. }) => return Ok(Some(why)),
            Ok(Outcome::Done(_) | Outcome::Gone) => return Ok(None),
            Err(error) if error.class() == Class::Retry => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if word != said {
            output::progress(&format!("  {:>4} s  waiting for {word}", started.elapsed().as_secs()));
            said = word;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Helm's filters.
fn selection(filters: &[String], timeout_s: u64) -> Result<Selection> {
    let mut selection = Selection { only: Vec::new(), without: Vec::new(), timeout_s };
    for filter in filters {
        let without = filter.strip_prefix('!').map(str::trim_start);
        match (without, without.unwrap_or(filter).strip_prefix("name=")) {
            (Some(_), Some(name)) => selection.without.push(name.to_owned()),
            (None, Some(name)) => selection.only.push(name.to_owned()),
            _ => bail!("--filter {filter}: tests are chosen by name=TEST or '!name=TEST'"),
        }
    }
    Ok(selection)
}

fn rows<'h>(tests: impl Iterator<Item = (&'h Hook, bool)>) -> Vec<Vec<String>> {
    let time = |at: Option<Timestamp>| at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
    let heads = ["TEST", "KIND", "PHASE", "STARTED", "COMPLETED"];
    let row = |(hook, ran): (&Hook, bool)| {
        // What an earlier run came to says nothing of this one.
        let (phase, run) =
            if ran { (word(hook.last_run.phase), hook.last_run.clone()) } else { ("not run", <_>::default()) };
        vec![hook.name.clone(), hook.kind.clone(), phase.to_owned(), time(run.started_at), time(run.completed_at)]
    };
    [heads.map(str::to_owned).to_vec()].into_iter().chain(tests.map(row)).collect()
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Running => "Running",
        Phase::None | Phase::Unknown => "Unknown",
    }
}

fn colour(hook: &Hook, ran: bool) -> Colour {
    match hook.last_run.phase {
        Phase::Succeeded if ran => Colour::Green,
        Phase::Failed if ran => Colour::Red,
        _ => Colour::Faint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_helm() {
        let read = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            selection(&filters, 1)
                .map(|selection| (selection.only, selection.without))
                .map_err(|error| error.to_string())
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(&["name=a", "!name=b", "! name=c"]), Ok((names(&["a"]), names(&["b", "c"]))));
        assert!(read(&["kind=Pod"]).unwrap_err().starts_with("--filter kind=Pod"));
    }

    #[test]
    fn what_did_not_run_this_time_has_no_phase() {
        let hook = |name: &str, phase: &str| -> Hook {
            let last_run =
                serde_json::json!({"started_at": "2026-01-01T00:00:00Z", "completed_at": "", "phase": phase});
            serde_json::from_value(serde_json::json!({"name": name, "kind": "Job", "last_run": last_run})).unwrap()
        };
        let (a, b) = (hook("a", "Failed"), hook("b", "Succeeded"));
        let rows = rows([(&a, true), (&b, false)].into_iter());
        assert_eq!(rows[1], ["a", "Job", "Failed", "2026-01-01T00:00:00Z", ""]);
        assert_eq!(rows[2], ["b", "Job", "not run", "", ""]);
    }
}
