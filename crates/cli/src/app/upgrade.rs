//! `skep app upgrade`: another version, other values of the user.

use std::path::PathBuf;

use anyhow::Result;
use api::app::{App, ConfigKind};
use helm::values::{self, Table};
use kube::Client;

use super::{
    Named, diff, find, install,
    state::State,
    target::Target,
    told,
    wait::{Waiting, until_deployed},
};
use crate::{Charts, DONE, NOT_FOUND, chart::Values, output};

/// What is to be otherwise.
#[derive(clap::Args)]
pub struct Edit {
    /// Version of the chart to go to [default: as it is]
    #[arg(long)]
    version: Option<String>,
    #[command(flatten)]
    values: Values,
    /// A file of values (YAML) that go into a Secret; later ones go over earlier ones
    #[arg(long, value_name = "FILE")]
    secret_values: Vec<PathBuf>,
    /// Forget the user's values and secret values of before; else new ones go over them
    #[arg(long)]
    reset_values: bool,
}

// Its own --version takes the place of that of every command.
#[derive(clap::Args)]
#[command(disable_version_flag = true)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    edit: Edit,
    /// Show what would change in the cluster, and change nothing
    #[arg(long)]
    diff: bool,
    /// With --diff: then do it
    #[arg(long, requires = "diff")]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

impl Edit {
    pub fn is_empty(&self) -> bool {
        self.version.is_none() && self.values.is_empty() && self.secret_values.is_empty() && !self.reset_values
    }

    /// The app with what is to be otherwise.
    pub async fn applied(&self, client: &Client, before: &State) -> Result<State> {
        let mut after = before.clone();
        if let Some(version) = &self.version {
            let offered = install::offered(client, &before.catalog).await?;
            install::pick(&before.app.spec.catalog, &before.app.spec.name, Some(version), &offered)?;
            after.app.spec.version.clone_from(version);
        }
        change(&mut after, self.reset_values, self.values.read()?, install::secrets(&self.secret_values)?)?;
        Ok(after)
    }
}

/// Puts values over the user's own. What is given in the open is no secret any more: as one it would go over what is given.
fn change(state: &mut State, reset: bool, given: Table, secrets: Table) -> Result<()> {
    let before = |kind| if reset { Ok(Table::new()) } else { state.user(kind) };
    let (mut plain, mut hidden) = (before(ConfigKind::ConfigMap)?, before(ConfigKind::Secret)?);
    without(&mut hidden, &given);
    values::overlay(&mut plain, given);
    values::overlay(&mut hidden, secrets);
    for (kind, table) in [(ConfigKind::ConfigMap, &plain), (ConfigKind::Secret, &hidden)] {
        // What says the same stays as it was written, with its comments.
        if *table != state.user(kind)? {
            state.set_user(kind, table)?;
        }
    }
    Ok(())
}

/// Takes out of a table what another one has.
fn without(table: &mut Table, taken: &Table) {
    for (key, value) in taken {
        match (table.get_mut(key), value) {
            (Some(serde_json::Value::Object(inner)), serde_json::Value::Object(taken)) => {
                without(inner, taken);
                if inner.is_empty() {
                    table.remove(key);
                }
            }
            _ => drop(table.remove(key)),
        }
    }
}

pub async fn run(arguments: Arguments, charts: Charts) -> Result<u8> {
    if arguments.edit.is_empty() {
        anyhow::bail!("nothing is to be changed: pass --version, -f, --set, --secret-values or --reset-values");
    }
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let before = State::read(&client, app).await?;
    let after = arguments.edit.applied(&client, &before).await?;
    if arguments.diff {
        let target = Target::reach(&client, &after.app, charts).await?;
        diff::print(&target.diff(&client, &after).await?, "as it would be");
        if !arguments.yes {
            output::progress("nothing was changed: add --yes to do it");
            return Ok(DONE);
        }
    }
    carry_out(&client, &before, &after, &arguments.waiting).await
}

/// Writes what differs, and waits for it.
pub async fn carry_out(client: &Client, before: &State, after: &State, waiting: &Waiting) -> Result<u8> {
    if after.is_same(before) {
        output::line(&format!("{} is to be like that already: nothing was changed", told(&before.app)));
        return Ok(DONE);
    }
    let is_felt = before.app.spec.version != after.app.spec.version
        || !matches!((before.values(), after.values()), (Ok(before), Ok(after)) if before == after);
    settle(&before.app).await;
    after.write(client, before).await?;
    let (from, to) = (&before.app.spec.version, &after.app.spec.version);
    let how = if from == to { "other values".to_owned() } else { format!("version {from} -> {to}") };
    output::progress(&format!("{} changed: {how}", told(&after.app)));
    if !is_felt {
        output::line(
            "the chart gets the same values as before: other layers go over what was changed (see skep app values --layers)",
        );
        return Ok(DONE);
    }
    if !waiting.is_asked() {
        return Ok(DONE);
    }
    until_deployed(client, &after.app, before.app.status.as_ref(), waiting).await
}

/// Statuses tell seconds: what is deployed twice within one looks as if it were once.
async fn settle(app: &App) {
    let last = app.status.as_ref().and_then(|status| status.release.last_deployed.as_ref());
    if last.is_some_and(|last| last.0.as_second() == jiff::Timestamp::now().as_second()) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn table(value: &Value) -> Table {
        value.as_object().unwrap().clone()
    }

    /// The user's values and secrets, from those of before.
    fn changed(before: [&Value; 2], reset: bool, given: &Value, secrets: &Value) -> [Value; 2] {
        let mut app = App::new("hello", api::app::AppSpec::default());
        app.metadata.namespace = Some("org-acme".into());
        let mut state = State::new(app, api::app::Catalog::default());
        let kinds = [ConfigKind::ConfigMap, ConfigKind::Secret];
        for (kind, values) in kinds.into_iter().zip(before) {
            state.set_user(kind, &table(values)).unwrap();
        }
        change(&mut state, reset, table(given), table(secrets)).unwrap();
        kinds.map(|kind| state.user(kind).unwrap().into())
    }

    #[test]
    fn new_values_go_over_those_of_before_or_in_their_place() {
        let before = [&json!({"a": "x", "b": {"c": true}}), &json!({"p": "s"})];
        let given = json!({"b": {"d": "y"}});
        let over = [json!({"a": "x", "b": {"c": true, "d": "y"}}), json!({"p": "s"})];
        assert_eq!(changed(before, false, &given, &json!({})), over);
        assert_eq!(changed(before, true, &given, &json!({"q": "t"})), [given, json!({"q": "t"})]);
    }

    #[test]
    fn what_is_given_in_the_open_takes_the_place_of_what_was_hidden() {
        let before = [&json!({}), &json!({"db": {"user": "u", "password": "p"}, "token": {"value": "t"}})];
        let given = json!({"db": {"user": "v"}, "token": {"value": "w"}});
        let after = changed(before, false, &given, &json!({}));
        assert_eq!(after, [given, json!({"db": {"password": "p"}})]);
    }
}
