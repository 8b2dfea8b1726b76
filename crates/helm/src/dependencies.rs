//! Which of the charts that a chart brings are rendered: conditions, tags, aliases; and what is imported from their values.

use serde_json::Value as Json;

use crate::{
    chart::{Chart, Dependency},
    data,
    error::Result,
    template::format,
    values::{Nulls, Table, coalesced, fill, table_at, value_at},
    version::is_in_range,
};

/// The chart as it is rendered with these values: without what is switched off, with what is imported.
///
/// # Errors
/// That values cannot be merged.
pub fn resolved(chart: &Chart, values: &Table) -> Result<Chart> {
    let mut chart = chart.clone();
    enable(&mut chart, values, "")?;
    import(&mut chart)?;
    Ok(chart)
}

fn enable(chart: &mut Chart, values: &Table, path: &str) -> Result<()> {
    if chart.metadata.dependencies.is_empty() {
        return Ok(());
    }
    let named = |inner: &Chart, dependency: &Dependency| {
        inner.name() == dependency.name && is_in_range(&dependency.version, &inner.metadata.version)
    };
    let declared = &chart.metadata.dependencies;
    let brought = std::mem::take(&mut chart.dependencies);
    let mut kept: Vec<Chart> =
        brought.iter().filter(|inner| !declared.iter().any(|dependency| named(inner, dependency))).cloned().collect();
    for dependency in declared {
        if let Some(inner) = brought.iter().find(|inner| named(inner, dependency)) {
            let mut inner = inner.clone();
            inner.metadata.name = dependency.key().to_owned();
            kept.push(inner);
        }
    }
    for dependency in &mut chart.metadata.dependencies {
        dependency.name = dependency.key().to_owned();
    }
    chart.dependencies = kept;
    let values = coalesced(chart, values, Nulls::Delete)?;
    let (on, off): (Vec<_>, Vec<_>) =
        chart.metadata.dependencies.drain(..).partition(|dependency| is_enabled(dependency, &values, path));
    chart.metadata.dependencies = on;
    chart.dependencies.retain(|inner| !off.iter().any(|dependency| dependency.name == inner.name()));
    for inner in &mut chart.dependencies {
        let path = format!("{path}{}.", inner.name());
        enable(inner, &values, &path)?;
    }
    Ok(())
}

/// The first condition that is a truth value decides, else the tags.
fn is_enabled(dependency: &Dependency, values: &Table, path: &str) -> bool {
    for condition in dependency.condition.trim().split(',').filter(|condition| !condition.is_empty()) {
        if let Some(Json::Bool(enabled)) = value_at(values, &format!("{path}{condition}")) {
            return *enabled;
        }
    }
    let Some(tags) = table_at(values, "tags") else { return true };
    let flags: Vec<bool> = dependency.tags.iter().filter_map(|tag| tags.get(tag)?.as_bool()).collect();
    flags.is_empty() || flags.contains(&true)
}

/// `import-values`, innermost charts first.
fn import(chart: &mut Chart) -> Result<()> {
    for inner in &mut chart.dependencies {
        import(inner)?;
    }
    if chart.metadata.dependencies.is_empty() {
        return Ok(());
    }
    let mut values = coalesced(chart, &Table::new(), Nulls::Keep)?;
    let mut imported = Table::new();
    for dependency in &chart.metadata.dependencies {
        for wanted in &dependency.import_values {
            let (child, parent) = match wanted {
                Json::String(name) => (format!("exports.{name}"), ".".to_owned()),
                Json::Object(pair) => (shown(pair.get("child")), shown(pair.get("parent"))),
                _ => continue,
            };
            if let Some(table) = table_at(&values, &format!("{}.{child}", dependency.name)) {
                fill(&mut imported, at_path(&parent, table.clone()), Nulls::Keep);
            }
        }
    }
    fill(&mut values, imported, Nulls::Keep);
    chart.values = values;
    Ok(())
}

fn shown(value: Option<&Json>) -> String {
    let value = value.map_or(crate::template::value::Value::Nil, data::of_json);
    format::shown(&value).unwrap_or_default()
}

fn at_path(path: &str, table: Table) -> Table {
    if path == "." {
        return table;
    }
    path.rsplit('.').fold(table, |table, key| Table::from_iter([(key.to_owned(), Json::Object(table))]))
}
