//! Tables (meta.k8s.io/v1): what `kubectl get` prints. Columns are data: JSON paths, as CRDs have them, or small functions for
//! what Kubernetes computes of its built-in kinds.

mod builtin;
mod path;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::path::Path;

/// How much of each object a row carries (`includeObject` of the request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub type_: String,
    pub format: String,
    pub description: String,
    /// 0 is always shown, others with `-o wide`.
    pub priority: i32,
    pub source: Source,
}

/// Where a cell comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Path(Path),
    /// Computed; dates are already text.
    Function(fn(&Value, Timestamp) -> Value),
}

impl Column {
    /// A column of a CRD. A path that cannot be read gives empty cells; [`Path::parse`] tells why.
    pub fn new(name: &str, type_: &str, json_path: &str) -> Self {
        Self {
            name: name.to_owned(),
            type_: type_.to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            source: Source::Path(Path::parse(json_path).unwrap_or_default()),
        }
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let path = match &self.source {
            Source::Path(path) => path,
            Source::Function(compute) => return compute(object, now),
        };
        let Some(value) = path.find(object).into_iter().next() else { return Value::Null };
        match (self.type_.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("string", value) => printed(value).into(),
            ("integer", Value::Number(number)) if number.is_f64() => number.as_f64().map_or(Value::Null, |value| {
                #[expect(clippy::cast_possible_truncation, reason = "what upstream does to a fraction")]
                let whole = value.trunc() as i64;
                whole.into()
            }),
            ("integer" | "number", value @ Value::Number(_)) | ("boolean", value @ Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => since(text, now).unwrap_or_else(|| "<invalid>".to_owned()).into(),
            ("date", _) => "<invalid>".into(),
            _ => Value::Null,
        }
    }

    fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.type_, "format": self.format, "description": self.description,
            "priority": self.priority})
    }
}

/// The columns of a built-in kind, its name first where it has one. Empty for a kind that only has a name and an age.
pub fn builtin_columns(group: &str, kind: &str) -> Vec<Column> {
    builtin::columns(group, kind)
}

/// A table of objects. The column `Name` is put before the others, unless one of them has that name.
pub fn table(
    columns: &[Column],
    objects: &[&Value],
    include_object: IncludeObject,
    now: Timestamp,
    list_metadata: Value,
) -> Value {
    let name_first = columns.iter().all(|column| column.name != "Name");
    let name = name_first.then(|| {
        json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "The object's name, unique among its kind within the namespace."})
    });
    let rows: Vec<_> = objects
        .iter()
        .map(|object| {
            let first = name_first.then(|| object.pointer("/metadata/name").cloned().unwrap_or_default());
            let cells: Vec<_> =
                first.into_iter().chain(columns.iter().map(|column| column.cell(object, now))).collect();
            let mut row = json!({"cells": cells});
            match include_object {
                IncludeObject::None => row["object"] = Value::Null,
                IncludeObject::Metadata => {
                    row["object"] = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                        "metadata": object.get("metadata")});
                }
                IncludeObject::Object => row["object"] = Value::clone(object),
            }
            row
        })
        .collect();
    let definitions: Vec<_> = name.into_iter().chain(columns.iter().map(Column::definition)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata, "columnDefinitions": definitions,
        "rows": rows})
}

/// The age of a moment in RFC 3339, as kubectl prints ages; none if it is not a moment.
pub(crate) fn since(text: &str, now: Timestamp) -> Option<String> {
    let then: Timestamp = text.parse().ok()?;
    Some(age(now.as_second().saturating_sub(then.as_second())))
}

/// A duration in kubectl's words (upstream: `apimachinery/pkg/util/duration`, `HumanDuration`).
pub(crate) fn age(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, rest: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{rest}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A value as Go's default formatting prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let parts: Vec<_> = list.iter().map(printed).collect();
            format!("[{}]", parts.join(" "))
        }
        Value::Object(fields) => {
            let parts: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{}", printed(value))).collect();
            format!("map[{}]", parts.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let (m, h, d) = (60, 3600, 86_400);
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * m, "2m"),
            (3 * m + 12, "3m12s"),
            (10 * m + 5, "10m"),
            (179 * m, "179m"),
            (3 * h, "3h"),
            (7 * h + 5 * m, "7h5m"),
            (8 * h + 5 * m, "8h"),
            (47 * h, "47h"),
            (2 * d, "2d"),
            (5 * d + 3 * h, "5d3h"),
            (8 * d, "8d"),
            (729 * d, "729d"),
            (730 * d, "2y"),
            (800 * d, "2y70d"),
            (2920 * d, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(age(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_table_of_a_custom_kind_has_its_columns() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let mut wide = Column::new("Zone", "string", ".spec.zone");
        wide.priority = 1;
        let columns = [
            Column::new("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
            Column::new("Replicas", "integer", ".spec.replicas"),
            Column::new("Paused", "boolean", ".spec.paused"),
            Column::new("Age", "date", ".metadata.creationTimestamp"),
            Column::new("Tags", "string", ".spec.tags"),
            wide,
        ];
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:56:48Z"},
            "spec": {"replicas": 3, "paused": "no", "tags": ["a", "b"]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let table = table(&columns, &[&object], IncludeObject::Metadata, now, json!({"resourceVersion": "5"}));
        assert_eq!(table["rows"][0]["cells"], json!(["n", "True", 3, null, "3m12s", "[a b]", null]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(table["columnDefinitions"][6]["priority"], 1);
        assert_eq!(table["metadata"], json!({"resourceVersion": "5"}));
    }
}
