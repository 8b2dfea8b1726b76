//! `skep app diff`: object by object, as text. What would be is what the target cluster itself answers to a dry run.

use anyhow::Result;
use delivery::release::{Difference, Id, Verdict};
use serde_json::Value as Json;
use similar::TextDiff;

use super::{Named, find, state::State, target::Target, upgrade::Edit};
use crate::{
    Charts, DONE, NOT_FOUND,
    output::{self, Colour},
};

/// Lines around a change.
const CONTEXT: usize = 3;
/// Lines of one object's difference; the rest is counted.
const LINES_MAX: usize = 500;

// Its own --version takes the place of that of every command.
#[derive(clap::Args)]
#[command(disable_version_flag = true)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    edit: Edit,
    /// Show what others have changed in the cluster since it was deployed
    #[arg(long, conflicts_with_all = ["version", "files", "set", "set_string", "set_json", "set_file", "set_literal", "secret_values", "reset_values"])]
    live: bool,
}

pub async fn run(arguments: Arguments, charts: Charts) -> Result<u8> {
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let target = Target::reach(&client, &app, charts).await?;
    if arguments.live {
        let found = target.engine.drift(&target.release, &target.namespace).await?;
        print(&found, "as it was deployed");
        return Ok(DONE);
    }
    let before = State::read(&client, app).await?;
    let after = arguments.edit.applied(&client, &before).await?;
    print(&target.diff(&client, &after).await?, "as it would be");
    Ok(DONE)
}

pub fn print(differences: &[Difference], side: &str) {
    for line in text(differences, side).lines() {
        let colour = match line.as_bytes().first() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") || line.starts_with("@@") => Some(Colour::Faint),
            Some(b'+') => Some(Colour::Green),
            Some(b'-') => Some(Colour::Red),
            _ => None,
        };
        output::line(&colour.map_or_else(|| line.to_owned(), |colour| output::coloured(line, colour)));
    }
}

/// What differs, and a last line that counts. `side` says what the lines with `+` are.
fn text(differences: &[Difference], side: &str) -> String {
    let mut all = String::new();
    for difference in differences {
        let name = name(&difference.id);
        let (head, before, after) = match difference.verdict {
            Verdict::Same => continue,
            Verdict::Kept => {
                all.push_str(&format!("{name} is in no manifest any more, and is kept as its annotation says\n\n"));
                continue;
            }
            Verdict::Made => (format!("{name} is made"), "", &*yaml(difference.after.as_ref())),
            Verdict::Deleted => (format!("{name} is deleted"), &*yaml(difference.before.as_ref()), ""),
            Verdict::Changed => {
                let head = format!("{name} is changed");
                (head, &*yaml(difference.before.as_ref()), &*yaml(difference.after.as_ref()))
            }
        };
        all.push_str(&format!("{head}\n{}\n", unified(before, after, side)));
    }
    let count = |verdict| differences.iter().filter(|one| one.verdict == verdict).count();
    let [made, changed, deleted, same] = [Verdict::Made, Verdict::Changed, Verdict::Deleted, Verdict::Same].map(count);
    all.push_str(&format!("{made} made, {changed} changed, {deleted} deleted, {same} the same\n"));
    all
}

fn unified(before: &str, after: &str, side: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let text = diff.unified_diff().context_radius(CONTEXT).header("as it is", side).to_string();
    let lines: Vec<&str> = text.lines().collect();
    let mut kept = lines.iter().take(LINES_MAX).map(|line| format!("{line}\n")).collect::<String>();
    if lines.len() > LINES_MAX {
        kept.push_str(&format!("... and {} lines more\n", lines.len() - LINES_MAX));
    }
    kept
}

fn yaml(object: Option<&Json>) -> String {
    let text = object.map(|object| helm::data::yaml::text(&helm::data::of_json(object)));
    text.and_then(Result::ok).unwrap_or_default()
}

/// As in `Deployment.apps web/hello`.
fn name(id: &Id) -> String {
    let group = if id.group.is_empty() { String::new() } else { format!(".{}", id.group) };
    let place = if id.namespace.is_empty() { String::new() } else { format!("{}/", id.namespace) };
    format!("{}{group} {place}{}", id.kind, id.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn difference(kind: &str, verdict: Verdict, before: &Json, after: &Json) -> Difference {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let id = Id { group: group.into(), kind: kind.into(), namespace: "web".into(), name: "hello".into() };
        let side = |json: &Json| Some(json.clone()).filter(|json| !json.is_null());
        Difference { id, verdict, changes: Vec::new(), before: side(before), after: side(after) }
    }

    fn object(kind: &str, replicas: i64) -> Json {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "hello", "labels": {"app": "hello", "of": "web"}},
            "spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate"}, "paused": false}})
    }

    #[test]
    fn each_object_is_told_with_the_lines_that_change() {
        let all = [
            difference("Deployment", Verdict::Changed, &object("Deployment", 1), &object("Deployment", 3)),
            difference("ConfigMap", Verdict::Made, &Json::Null, &json!({"kind": "ConfigMap", "data": {"a": "b"}})),
            difference("Service", Verdict::Deleted, &json!({"kind": "Service"}), &Json::Null),
            difference("Secret", Verdict::Kept, &json!({"kind": "Secret"}), &Json::Null),
            difference("Pod", Verdict::Same, &json!({}), &json!({})),
        ];
        insta::assert_snapshot!(text(&all, "as it would be"));
    }

    #[test]
    fn a_long_difference_is_cut_and_what_is_left_out_is_counted() {
        let lines = |count: usize| (0..count).map(|number| format!("{number}\n")).collect::<String>();
        // Two lines name the sides, one the place.
        assert!(!unified("", &lines(LINES_MAX - 3), "s").contains("more"));
        assert!(unified("", &lines(LINES_MAX - 2), "s").ends_with("... and 1 lines more\n"));
    }
}
