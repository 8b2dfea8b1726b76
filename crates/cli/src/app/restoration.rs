//! What an app was at a revision, put in terms of what it is made of now.
//!
//! A release records the chart's version and all values, merged. Of these, what the other layers say now stays theirs; the rest
//! becomes the user's. A record does not tell what was secret: only what stands in a `ConfigMap` now is taken for open, and all else
//! goes to the user's `Secret`.

use anyhow::Result;
use api::app::ConfigKind;
use delivery::{app::values::Level, chart::decision};
use helm::values::Table;
use serde_json::Value as Json;

use super::state::State;

/// So many values are named.
const NAMED_MAX: usize = 10;

/// What is to be known of a restoration. Paths, as `a.b`.
#[derive(Debug, Default, PartialEq)]
pub struct Note {
    /// They went to the Secret since nobody says that they are not secret.
    pub hidden: Vec<String>,
    /// They cannot be what they were: other layers say otherwise.
    pub lost: Vec<String>,
}

impl Note {
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty()
    }

    pub fn lines(&self, revision: i64) -> Vec<String> {
        let named = |paths: &[String]| {
            let more = paths.len().saturating_sub(NAMED_MAX);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{}{more}", paths[..paths.len().min(NAMED_MAX)].join(", "))
        };
        let mut lines = Vec::new();
        if !self.hidden.is_empty() {
            lines.push(format!("in the user's Secret, since no ConfigMap has them now: {}", named(&self.hidden)));
        }
        if !self.lost.is_empty() {
            lines.push(format!(
                "revision {revision} cannot be gone back to: other layers than the user's have changed {} since; nothing was changed (see skep app values --layers)",
                named(&self.lost)
            ));
        }
        lines
    }
}

/// The app as it was: `version` of the chart, and `config`, all values that it got.
pub fn restored(now: &State, version: &str, config: &Table) -> Result<(State, Note)> {
    let mut after = now.clone();
    if after.app.chart_version() != version {
        version.clone_into(&mut after.app.spec.version);
    }
    let mut note = Note::default();
    // Nothing to be put back: what the user wrote stays as it is written.
    if now.values().is_ok_and(|values| values == *config) {
        return Ok((after, note));
    }
    let others = |kind| now.merged(kind, |layer| layer.level != Level::User);
    let below = decision::merged(others(ConfigKind::ConfigMap)?, others(ConfigKind::Secret)?);
    let open = now.merged(ConfigKind::ConfigMap, |_| true)?;
    let guarded = now.merged(ConfigKind::Secret, |_| true)?;
    let wanted = beyond(config, &below);
    let [mut plain, mut hidden] = [Table::new(), Table::new()];
    split(&wanted, (Some(&open), Some(&guarded)), "", (&mut plain, &mut hidden), &mut note.hidden);
    after.set_user(ConfigKind::ConfigMap, &plain)?;
    after.set_user(ConfigKind::Secret, &hidden)?;
    lost("", config, &after.values()?, &mut note.lost);
    Ok((after, note))
}

/// What of a table is not in another one.
fn beyond(table: &Table, below: &Table) -> Table {
    let mut rest = Table::new();
    for (key, value) in table {
        match (value, below.get(key)) {
            (value, Some(other)) if value == other => {}
            (Json::Object(inner), Some(Json::Object(other))) => {
                let inner = beyond(inner, other);
                if !inner.is_empty() {
                    rest.insert(key.clone(), inner.into());
                }
            }
            (value, _) => drop(rest.insert(key.clone(), value.clone())),
        }
    }
    rest
}

/// Parts what is known to be open from what may be secret.
fn split(
    table: &Table,
    (open, guarded): (Option<&Table>, Option<&Table>),
    path: &str,
    (plain, hidden): (&mut Table, &mut Table),
    told: &mut Vec<String>,
) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let (is_open, is_guarded) = (open.and_then(|open| open.get(key)), guarded.and_then(|all| all.get(key)));
        match value {
            Json::Object(inner) if !inner.is_empty() => {
                let mut parts = (Table::new(), Table::new());
                let sides = (is_open.and_then(Json::as_object), is_guarded.and_then(Json::as_object));
                split(inner, sides, &path, (&mut parts.0, &mut parts.1), told);
                for (part, all) in [(parts.0, &mut *plain), (parts.1, &mut *hidden)] {
                    if !part.is_empty() {
                        all.insert(key.clone(), part.into());
                    }
                }
            }
            value if is_open.is_some() && is_guarded.is_none() => drop(plain.insert(key.clone(), value.clone())),
            value => {
                hidden.insert(key.clone(), value.clone());
                if is_guarded.is_none() {
                    told.push(path);
                }
            }
        }
    }
}

/// Where two tables differ.
fn lost(path: &str, one: &Table, other: &Table, into: &mut Vec<String>) {
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (one.get(key), other.get(key)) {
            (one, other) if one == other => {}
            (Some(Json::Object(one)), Some(Json::Object(other))) => lost(&path, one, other, into),
            _ => into.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::app::{App, AppSpec, Catalog};
    use serde_json::json;

    use super::*;

    fn table(value: &Json) -> Table {
        value.as_object().unwrap().clone()
    }

    /// An app whose user says this, in the open and hidden, over the app's own values.
    fn state(own: &Json, user: &Json, secrets: &Json) -> State {
        let mut app = App::new("hello", AppSpec { version: "1.1.0".into(), ..AppSpec::default() });
        app.metadata.namespace = Some("org-acme".into());
        let mut state = State::new(app, Catalog::default());
        // What the user's object is made to hold becomes the app's.
        state.set_user(ConfigKind::ConfigMap, &table(own)).unwrap();
        state.app.spec.config = state.app.spec.user_config.take().map(|mut refs| {
            refs.config_map.as_mut().unwrap().name = "own".into();
            refs
        });
        state.rename(ConfigKind::ConfigMap, "hello-user-values", "own");
        state.set_user(ConfigKind::ConfigMap, &table(user)).unwrap();
        state.set_user(ConfigKind::Secret, &table(secrets)).unwrap();
        state
    }

    fn back(now: &State, config: &Json) -> (String, [Json; 2], Note) {
        let (after, note) = restored(now, "1.0.0", &table(config)).unwrap();
        let user = [ConfigKind::ConfigMap, ConfigKind::Secret].map(|kind| after.user(kind).unwrap().into());
        (after.app.spec.version, user, note)
    }

    #[test]
    fn the_version_goes_back_and_values_that_are_the_same_stay_as_they_are_written() {
        let now = state(&json!({"a": 1}), &json!({"b": 2}), &json!({}));
        let (version, user, note) = back(&now, &json!({"a": 1, "b": 2}));
        assert_eq!((version.as_str(), user), ("1.0.0", [json!({"b": 2.0}), json!({})]));
        assert_eq!(note, Note::default());
    }

    #[test]
    fn what_is_open_now_goes_back_in_the_open_and_what_is_hidden_stays_hidden() {
        let now =
            state(&json!({"a": "x"}), &json!({"b": {"c": "new"}, "added": "y"}), &json!({"db": {"password": "new"}}));
        let (_, user, note) = back(&now, &json!({"a": "x", "b": {"c": "old"}, "db": {"password": "old"}}));
        assert_eq!(user, [json!({"b": {"c": "old"}}), json!({"db": {"password": "old"}})]);
        assert_eq!(note, Note::default());
    }

    #[test]
    fn what_nobody_has_now_may_have_been_secret() {
        let now = state(&json!({}), &json!({"open": "x"}), &json!({}));
        let (_, user, note) = back(&now, &json!({"open": "x", "db": {"password": "old"}}));
        assert_eq!(user, [json!({"open": "x"}), json!({"db": {"password": "old"}})]);
        assert_eq!((note.hidden.as_slice(), note.is_whole()), (&["db.password".to_owned()][..], true));
    }

    #[test]
    fn what_other_layers_have_added_since_is_told() {
        let now = state(&json!({"a": {"new": "x"}}), &json!({"b": "2"}), &json!({}));
        let (_, _, note) = back(&now, &json!({"b": "1"}));
        assert_eq!(note.lost, ["a"]);
        assert!(note.lines(3)[0].starts_with("revision 3 cannot be gone back to"), "{note:?}");
    }
}
