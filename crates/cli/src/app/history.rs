//! `skep app history` and `skep app rollback`: revisions of the release in the target cluster, as Helm keeps them.
//!
//! The App says what is to be, so a release that is rolled back by itself would be brought forward again. What is rolled back is
//! the App: its version, and the user's values so far as they make the difference.

use anyhow::{Result, bail};
use api::app::ConfigKind;
use delivery::release::{Release, Status};
use serde_json::json;

use super::{
    Named, diff, find,
    restoration::restored,
    state::{State, word},
    target::Target,
    told, upgrade,
    wait::Waiting,
};
use crate::{Charts, DONE, FAILED, NOT_FOUND, Output, output};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Args)]
pub struct Rollback {
    #[command(flatten)]
    named: Named,
    /// Revision to go back to [default: the last one before the present that was deployed]
    revision: Option<i64>,
    /// Show what would change in the cluster, and change nothing
    #[arg(long)]
    diff: bool,
    /// With --diff: then do it
    #[arg(long, requires = "diff")]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub async fn run(arguments: Arguments, charts: Charts) -> Result<u8> {
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let target = Target::reach(&client, &app, charts).await?;
    let all = target.revisions().await?;
    if all.is_empty() {
        output::progress(&format!("{} has no release in {} so far", told(&app), target.place));
        return Ok(NOT_FOUND);
    }
    if arguments.output != Output::Table {
        let object = |release: &Release| {
            let [_, updated, status, chart, app_version, description] = facts(release);
            json!({"revision": release.version, "updated": updated, "status": status, "chart": chart,
                "app_version": app_version, "description": description})
        };
        output::document(&all.iter().map(object).collect::<Vec<_>>(), arguments.output)?;
        return Ok(DONE);
    }
    let heads = ["REVISION", "UPDATED", "STATUS", "CHART", "APP VERSION", "DESCRIPTION"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(
        all.iter()
            .map(facts)
            .map(|facts| facts.map(|fact| fact.lines().next().unwrap_or_default().to_owned()).to_vec()),
    );
    output::line(&output::table(&rows));
    Ok(DONE)
}

fn of_chart(release: &Release, field: &str) -> String {
    release.chart["metadata"][field].as_str().unwrap_or_default().to_owned()
}

fn facts(release: &Release) -> [String; 6] {
    let at = release.info.last_deployed.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    [
        release.version.to_string(),
        at.unwrap_or_default(),
        release.info.status.text().to_owned(),
        format!("{}-{}", of_chart(release, "name"), of_chart(release, "version")),
        of_chart(release, "appVersion"),
        release.info.description.clone(),
    ]
}

/// The revision that is gone back to.
fn chosen(all: &[Release], wanted: Option<i64>) -> Result<&Release> {
    let Some((last, earlier)) = all.split_last() else { bail!("there is no release so far") };
    let kept = || all.iter().map(|release| release.version.to_string()).collect::<Vec<_>>().join(", ");
    match wanted {
        Some(wanted) => match all.iter().find(|release| release.version == wanted) {
            Some(found) => Ok(found),
            None => bail!("revision {wanted} is not kept: there are {}", kept()),
        },
        None => {
            let was_good = |release: &&Release| matches!(release.info.status, Status::Deployed | Status::Superseded);
            match earlier.iter().rfind(was_good) {
                Some(found) => Ok(found),
                None => bail!("no revision before {} was ever deployed: there are {}", last.version, kept()),
            }
        }
    }
}

pub async fn roll_back(arguments: Rollback, charts: Charts) -> Result<u8> {
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let target = Target::reach(&client, &app, charts).await?;
    let all = target.revisions().await?;
    let revision = chosen(&all, arguments.revision)?;
    if of_chart(revision, "name") != app.spec.name {
        bail!(
            "revision {} is of chart {}, and {} of {}",
            revision.version,
            of_chart(revision, "name"),
            told(&app),
            app.spec.name
        );
    }
    let before = State::read(&client, app).await?;
    let (after, note) = restored(&before, &of_chart(revision, "version"), &revision.config)?;
    for line in note.lines(revision.version) {
        output::progress(&line);
    }
    if !note.is_whole() {
        return Ok(FAILED);
    }
    let (from, to) = (&before.app.spec.version, &after.app.spec.version);
    let values = [ConfigKind::ConfigMap, ConfigKind::Secret].into_iter().filter(|kind| {
        after.user_object(*kind) != before.user_object(*kind) || after.user(*kind).ok() != before.user(*kind).ok()
    });
    let values: Vec<String> =
        values.filter_map(|kind| Some(format!("{} {}", word(kind), after.user_object(kind)?.name))).collect();
    let values =
        if values.is_empty() { "the values stay".to_owned() } else { format!("values in {}", values.join(" and ")) };
    let version = if from == to { format!("version {to} stays") } else { format!("version {from} -> {to}") };
    output::progress(&format!("{} goes back to revision {}: {version}, {values}", told(&before.app), revision.version));
    if arguments.diff {
        diff::print(&target.diff(&client, &after).await?, "as it would be");
        if !arguments.yes {
            output::progress("nothing was changed: add --yes to do it");
            return Ok(DONE);
        }
    }
    upgrade::carry_out(&client, &before, &after, &arguments.waiting).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: i64, status: &str) -> Release {
        serde_json::from_value(json!({"name": "hello", "version": version, "info": {"status": status}})).unwrap()
    }

    #[test]
    fn what_is_gone_back_to_was_deployed_unless_it_is_named() {
        let all = [release(2, "superseded"), release(3, "failed"), release(4, "deployed"), release(5, "failed")];
        let chosen = |all: &[Release], wanted| {
            super::chosen(all, wanted).map(|release| release.version).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(&all, None), Ok(4));
        assert_eq!(chosen(&all[..3], None), Ok(2));
        assert_eq!(chosen(&all, Some(3)), Ok(3));
        assert_eq!(chosen(&all, Some(1)).unwrap_err(), "revision 1 is not kept: there are 2, 3, 4, 5");
        let error = "no revision before 2 was ever deployed: there are 2";
        assert_eq!(chosen(&all[..1], None).unwrap_err(), error);
        assert!(chosen(&[], None).is_err());
    }
}
