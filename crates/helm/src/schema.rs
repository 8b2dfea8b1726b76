//! `values.schema.json`: what values of a chart have to be, in JSON Schema of the drafts 4 to 2020-12. The words for what is wrong are
//! those of the library that Helm uses. Why no library is used here: docs/decisions/schemas.md.

mod document;
mod finding;
mod formats;
mod keywords;
mod validation;

use serde_json::Value as Json;

use self::document::Document;
use crate::{
    chart::Chart,
    error::{Error, Result},
    values::Table,
};

/// A schema may be so long, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Schemas that are applied to values in one check.
pub const STEPS_MAX: usize = 1_000_000;
/// Schemas may be applied so deep in one another.
pub const DEEP_MAX: usize = 1_000;
/// What is wrong may take so many bytes to tell, all that was found on the way included.
pub const FOUND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Patterns of one schema.
pub const PATTERNS_MAX: usize = 256;

/// Checks the values of a chart, and in them those of the charts that it depends on.
///
/// # Errors
/// All that is wrong, chart by chart, or that a limit was passed.
pub fn check(chart: &Chart, values: &Table) -> Result<()> {
    let mut told = String::new();
    collect(chart, values, &mut told)?;
    if told.is_empty() {
        return Ok(());
    }
    Err(Error::Values(format!(
        "values don't meet the specifications of the schema(s) in the following chart(s):\n{told}"
    )))
}

fn collect(chart: &Chart, values: &Table, told: &mut String) -> Result<()> {
    if let Some(schema) = &chart.schema
        && let Some(wrong) = one(schema, values)?
    {
        told.push_str(&format!("{}:\n{wrong}", chart.name()));
    }
    for inner in &chart.dependencies {
        match values.get(inner.name()) {
            None | Some(Json::Null) => {}
            Some(Json::Object(values)) => collect(inner, values, told)?,
            Some(other) => {
                let kind = go_type(other);
                told.push_str(&format!(
                    "{}:\ninvalid type for values: expected object (map), got {kind}\n",
                    inner.name()
                ));
            }
        }
    }
    Ok(())
}

fn go_type(value: &Json) -> &'static str {
    match value {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

/// What is wrong with values, or with the schema itself.
fn one(schema: &[u8], values: &Table) -> Result<Option<String>> {
    if schema.len() > SCHEMA_BYTES_MAX {
        return Err(Error::Limit(format!("values.schema.json has more than {SCHEMA_BYTES_MAX} bytes")));
    }
    let root: Json = match serde_json::from_slice(schema) {
        Ok(root) => root,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let document = match Document::of(&root) {
        Ok(document) => document,
        Err(document::Wrong::Schema(what)) => return Ok(Some(what)),
        Err(document::Wrong::Limit(what)) => return Err(Error::Limit(what)),
    };
    validation::check(&document, &Json::Object(values.clone()))
}
