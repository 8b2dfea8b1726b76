//! What a chart's values become: its own under those that are set, those of the charts it depends on, and what is global.

use serde_json::{Map, Value as Json};

use crate::{
    chart::Chart,
    data,
    error::{Error, Result},
};

pub type Table = Map<String, Json>;

/// The key whose values all charts see.
const GLOBAL: &str = "global";

/// How nulls are taken: they delete what is below them, or are kept for a later merge that deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    Delete,
    Keep,
}

/// What a file of values holds; all its numbers are floats.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Table> {
    match data::yaml::read_map(text) {
        Ok(entries) => Ok(data::json_map(&entries)),
        Err(error) => Err(Error::Values(format!("failed to parse values: {error}"))),
    }
}

/// A file of values over another: tables are merged, all else replaced.
pub fn overlay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Json::Object(below)), Json::Object(table)) => overlay(below, table),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// The values that a chart and its dependencies are rendered with.
///
/// # Errors
/// That there is something else than a table where a dependency's values are to be.
pub fn coalesced(chart: &Chart, set: &Table, nulls: Nulls) -> Result<Table> {
    let mut values = set.clone();
    coalesce(chart, &mut values, nulls)?;
    Ok(values)
}

fn coalesce(chart: &Chart, into: &mut Table, nulls: Nulls) -> Result<()> {
    coalesce_own(chart, into, nulls);
    for inner in &chart.dependencies {
        let key = inner.name().to_owned();
        let mut table = match into.remove(&key) {
            None => Table::new(),
            Some(Json::Object(table)) => table,
            Some(other) => {
                return Err(Error::Values(format!("type mismatch on {key}: {}", flag(&other))));
            }
        };
        share_globals(&mut table, into);
        coalesce(inner, &mut table, nulls)?;
        into.insert(key, Json::Object(table));
    }
    Ok(())
}

/// Go's `%t` of what is no truth value.
fn flag(value: &Json) -> String {
    match value {
        Json::Bool(truth) => truth.to_string(),
        Json::String(text) => format!("%!t(string={text})"),
        Json::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            format!("%!t(float64={})", crate::template::text::float_text(number, 'g', None))
        }
        _ => "%!t(<nil>)".to_owned(),
    }
}

fn coalesce_own(chart: &Chart, into: &mut Table, nulls: Nulls) {
    for (key, value) in &chart.values {
        match into.get_mut(key) {
            None => {
                into.insert(key.clone(), value.clone());
            }
            Some(Json::Null) if nulls == Nulls::Delete => {
                into.remove(key);
            }
            Some(Json::Object(table)) => {
                if let Json::Object(below) = value {
                    let of_chart = chart.dependencies.iter().any(|inner| inner.name() == key);
                    fill(table, below.clone(), if of_chart { Nulls::Keep } else { nulls });
                }
            }
            Some(_) => {}
        }
    }
}

/// Puts into `into` what is only in `from`.
pub fn fill(into: &mut Table, mut from: Table, nulls: Nulls) {
    let given: Vec<String> = from.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.clone()).collect();
    for (key, value) in into.iter() {
        if value.is_null() {
            from.insert(key.clone(), Json::Null);
        }
    }
    for (key, value) in from {
        match into.get_mut(&key) {
            Some(Json::Null) if nulls == Nulls::Delete && given.contains(&key) => {
                into.remove(&key);
            }
            None => {
                into.insert(key, value);
            }
            Some(Json::Object(table)) => {
                if let Json::Object(below) = value {
                    fill(table, below, nulls);
                }
            }
            Some(_) => {}
        }
    }
}

/// What is global in `from` goes over what is global in `into`.
fn share_globals(into: &mut Table, from: &Table) {
    let mut own = match into.get(GLOBAL) {
        None => Table::new(),
        Some(Json::Object(own)) => own.clone(),
        Some(_) => return,
    };
    let empty = Table::new();
    let shared = match from.get(GLOBAL) {
        None => &empty,
        Some(Json::Object(shared)) => shared,
        Some(_) => return,
    };
    for (key, value) in shared {
        match (value, own.get(key)) {
            (Json::Object(table), Some(Json::Object(below))) => {
                let mut table = table.clone();
                fill(&mut table, below.clone(), Nulls::Keep);
                own.insert(key.clone(), Json::Object(table));
            }
            (Json::Object(_), Some(_)) | (_, Some(Json::Object(_))) => {}
            (value, _) => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    into.insert(GLOBAL.to_owned(), Json::Object(own));
}

/// The table at a path of keys.
pub fn table_at<'t>(values: &'t Table, path: &str) -> Option<&'t Table> {
    path.split('.').try_fold(values, |table, key| table.get(key)?.as_object())
}

/// The value at a path of keys, if it is no table.
pub fn value_at<'t>(values: &'t Table, path: &str) -> Option<&'t Json> {
    let (table, key) = match path.rsplit_once('.') {
        Some((before, key)) => (table_at(values, before)?, key),
        None => (values, path),
    };
    table.get(key).filter(|value| !value.is_object())
}
