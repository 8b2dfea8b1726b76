//! Charts as releases keep them, and what of a chart is installed apart from its templates.

use base64::{Engine, engine::general_purpose::STANDARD};
use helm::chart::{Chart, Dependency, File, Metadata};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// `chart.Chart` of Helm as JSON. The charts that it depends on are not kept, as Helm doesn't.
pub fn recorded(chart: &Chart) -> Json {
    json!({
        "metadata": metadata(&chart.metadata),
        "lock": null,
        "templates": files(&chart.templates),
        "values": chart.values,
        "schema": chart.schema.as_ref().map(|schema| STANDARD.encode(schema)),
        "files": files(&chart.files),
    })
}

fn files(files: &[File]) -> Json {
    files.iter().map(|file| json!({"name": file.name, "data": STANDARD.encode(&file.data)})).collect()
}

fn metadata(from: &Metadata) -> Json {
    let people = from
        .maintainers
        .iter()
        .map(|[name, email, url]| filled([("name", json!(name)), ("email", json!(email)), ("url", json!(url))]));
    filled([
        ("name", json!(from.name)),
        ("home", json!(from.home)),
        ("sources", json!(from.sources)),
        ("version", json!(from.version)),
        ("description", json!(from.description)),
        ("keywords", json!(from.keywords)),
        ("maintainers", people.collect()),
        ("icon", json!(from.icon)),
        ("apiVersion", json!(from.api_version)),
        ("condition", json!(from.condition)),
        ("tags", json!(from.tags)),
        ("appVersion", json!(from.app_version)),
        ("deprecated", json!(from.deprecated)),
        ("annotations", json!(from.annotations)),
        ("kubeVersion", json!(from.kube_version)),
        ("dependencies", from.dependencies.iter().map(dependency).collect()),
        ("type", json!(from.kind)),
    ])
}

fn dependency(from: &Dependency) -> Json {
    let mut told = filled([
        ("version", json!(from.version)),
        ("condition", json!(from.condition)),
        ("tags", json!(from.tags)),
        ("import-values", json!(from.import_values)),
        ("alias", json!(from.alias)),
    ]);
    told["name"] = json!(from.name);
    told["repository"] = json!(from.repository);
    told
}

/// What is not empty, as Go writes it.
fn filled<const N: usize>(fields: [(&str, Json); N]) -> Json {
    let is_empty = |value: &Json| match value {
        Json::Null | Json::Bool(false) => true,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(entries) => entries.is_empty(),
        _ => false,
    };
    let kept = fields.into_iter().filter(|(_, value)| !is_empty(value));
    Json::Object(kept.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

/// Refuses a chart without those that it says it depends on, as Helm does, in its words.
pub fn complete(chart: &Chart) -> Result<()> {
    let is_missing = |wanted: &&Dependency| !chart.dependencies.iter().any(|inner| inner.name() == wanted.name);
    let missing: Vec<&str> =
        chart.metadata.dependencies.iter().filter(is_missing).map(|wanted| wanted.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::Invalid(format!(
        "chart {}: found in Chart.yaml, but missing in charts/ directory: {missing}: take the chart as it is published, or run `helm dependency build` in its folder",
        chart.name()
    )))
}

/// Says of two charts whether they are the same, with all that they bring.
pub fn sum(chart: &Chart, into: &mut Sha256) {
    let mut put = |bytes: &[u8]| {
        into.update(bytes.len().to_le_bytes());
        into.update(bytes);
    };
    put(metadata(&chart.metadata).to_string().as_bytes());
    put(Json::Object(chart.values.clone()).to_string().as_bytes());
    put(chart.schema.as_deref().unwrap_or_default());
    for file in chart.templates.iter().chain(&chart.files) {
        put(file.name.as_bytes());
        put(&file.data);
    }
    put(&chart.dependencies.len().to_le_bytes());
    for inner in &chart.dependencies {
        sum(inner, into);
    }
}
