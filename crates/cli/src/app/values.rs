//! `skep app values`: the user's own, all that the chart gets, or layer by layer.

use anyhow::{Context, Result};
use api::app::ConfigKind;
use delivery::{
    app::values::{Contents, Level},
    chart::decision,
};
use helm::values::Table;
use serde_json::{Value as Json, json};

use super::{
    Named, find,
    state::{State, layer_told},
    told,
};
use crate::{DONE, NOT_FOUND, Output, output};

pub const HIDDEN: &str = "(hidden)";

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    /// All values that the chart gets, merged, instead of the user's own
    #[arg(long, conflicts_with = "layers")]
    all: bool,
    /// Each layer by itself, the lowest first
    #[arg(long)]
    layers: bool,
    /// Show what Secrets hold
    #[arg(long)]
    show_secrets: bool,
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Output,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let state = State::read(&client, app).await?;
    if arguments.layers {
        output::text(&layers(&state, arguments.show_secrets)?);
        return Ok(DONE);
    }
    let table = together(&state, arguments.all, arguments.show_secrets)?;
    output::document(
        &Json::Object(table),
        if arguments.output == Output::Table { Output::Yaml } else { arguments.output },
    )?;
    Ok(DONE)
}

fn together(state: &State, all: bool, show: bool) -> Result<Table> {
    let of = |kind| {
        let table = if all { state.merged(kind, |_| true) } else { state.user(kind) };
        table.with_context(|| format!("put the values of {} together", told(&state.app)))
    };
    let (plain, mut hidden) = (of(ConfigKind::ConfigMap)?, of(ConfigKind::Secret)?);
    if !show {
        hide(&mut hidden);
    }
    Ok(decision::merged(plain, hidden))
}

/// Leaves the keys.
fn hide(table: &mut Table) {
    for value in table.values_mut() {
        match value {
            Json::Object(inner) => hide(inner),
            other => *other = json!(HIDDEN),
        }
    }
}

fn layers(state: &State, show: bool) -> Result<String> {
    let mut text = String::new();
    for (kind, layer) in state.layers() {
        let held = state.held(kind, &layer);
        if held.is_none() && layer.level == Level::CatalogApp {
            continue;
        }
        text.push_str(&format!("--- # {}\n", layer_told(kind, &layer)));
        match held {
            None => text.push_str("# it is not there\n"),
            Some(held) => text.push_str(&shown(kind, held, show)?),
        }
    }
    Ok(text)
}

/// As it is written; of Secrets, the keys.
fn shown(kind: ConfigKind, held: &Contents, show: bool) -> Result<String> {
    let mut all = String::new();
    for (key, text) in held {
        if held.len() > 1 {
            all.push_str(&format!("# {key}\n"));
        }
        let text = match kind {
            ConfigKind::Secret if !show => match helm::values::read(text) {
                Ok(mut table) => {
                    hide(&mut table);
                    delivery::app::values::text(&table)?
                }
                Err(_) => "# no YAML map\n".to_owned(),
            },
            _ => text.clone(),
        };
        all.push_str(text.trim_end());
        all.push('\n');
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut app = api::app::App::new("hello", api::app::AppSpec::default());
        app.metadata.namespace = Some("org-acme".into());
        let mut state = State::new(app, api::app::Catalog::default());
        let table = |value: Json| value.as_object().unwrap().clone();
        state.set_user(ConfigKind::ConfigMap, &table(json!({"replicas": 2, "db": {"host": "h"}}))).unwrap();
        state.set_user(ConfigKind::Secret, &table(json!({"db": {"password": "s3cret"}, "keys": ["s3cret"]}))).unwrap();
        state
    }

    #[test]
    fn secrets_go_over_the_others_and_are_hidden_unless_they_are_asked_for() {
        let values = |show| Json::Object(together(&state(), true, show).unwrap());
        let hidden = json!({"replicas": 2, "db": {"host": "h", "password": HIDDEN}, "keys": HIDDEN});
        assert_eq!(values(false), hidden);
        assert_eq!(values(true)["db"]["password"], json!("s3cret"));
        let text = layers(&state(), false).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(layers(&state(), true).unwrap().contains("s3cret"));
        insta::assert_snapshot!(text);
    }
}
