//! `metadata.managedFields` (KEP-555; upstream: `apimachinery/pkg/util/managedfields`).

use serde_json::{Map, Value, json};

use super::set::Set;

/// Managers with operation Update; beyond, the oldest are merged into one.
pub const UPDATE_MANAGERS_LIMIT: usize = 10;
const ANCIENT: &str = "ancient-changes";
pub(super) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who owns what, and since when.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager {
    pub name: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339; empty if it is not known.
    pub time: String,
    pub fields: Set,
}

impl Manager {
    pub fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
            time: String::new(),
            fields: Set::default(),
        }
    }

    /// Whether both are one manager. An applier stays the same in every version.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    pub fn described(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match entry.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = match entry.get("fieldsV1") {
            Some(fields) if text("fieldsType") == "FieldsV1" => Set::from_fields(fields)?,
            _ => return None,
        };
        Some(Self {
            name: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields,
        })
    }

    fn write(&self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = json!({"manager": self.name, "operation": operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_fields()});
        for (name, value) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                entry[name] = json!(value);
            }
        }
        entry
    }
}

fn entries(object: &Value) -> &[Value] {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The managers of an object. None: there are none, or they cannot be read.
pub(super) fn read(object: &Value) -> Option<Vec<Manager>> {
    let list = entries(object);
    let managers: Option<Vec<_>> = list.iter().map(Manager::read).collect();
    managers.filter(|managers| !managers.is_empty())
}

/// Whether an update asks to forget all managers: a list of one empty entry, or of none.
pub(super) fn asks_for_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(only)]) => only.is_empty(),
        Some([]) => true,
        _ => false,
    }
}

pub(super) fn write(object: &mut Value, managers: &[Manager]) {
    let Some(metadata) = object
        .as_object_mut()
        .and_then(|object| object.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut())
    else {
        return;
    };
    if managers.is_empty() {
        metadata.remove("managedFields");
        return;
    }
    let mut sorted: Vec<_> = managers.iter().collect();
    sorted.sort_by(|a, b| {
        let order =
            |m: &Manager| (m.operation, m.time.clone(), m.name.clone(), m.api_version.clone(), m.subresource.clone());
        order(a).cmp(&order(b))
    });
    metadata.insert("managedFields".to_owned(), sorted.into_iter().map(Manager::write).collect());
}

/// Drops managers that own nothing, and merges the oldest updaters when there are too many.
pub(super) fn tidy(managers: &mut Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    let mut updaters: Vec<_> =
        managers.iter().filter(|manager| manager.operation == Operation::Update).cloned().collect();
    if updaters.len() <= UPDATE_MANAGERS_LIMIT {
        return;
    }
    managers.retain(|manager| manager.operation == Operation::Apply);
    updaters.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
    let surplus = updaters.len() - UPDATE_MANAGERS_LIMIT + 1;
    let recent = updaters.split_off(surplus);
    for old in updaters {
        let found = managers.iter_mut().find(|manager| {
            manager.name == ANCIENT && manager.operation == Operation::Update && manager.api_version == old.api_version
        });
        if let Some(ancient) = found {
            ancient.fields.union(&old.fields);
            ancient.time = old.time;
        } else {
            managers.push(Manager { name: ANCIENT.to_owned(), subresource: String::new(), ..old });
        }
    }
    managers.extend(recent);
}

/// What belongs to the system, and is owned by nobody.
pub(super) fn strip(fields: &mut Set) {
    fields.remove_field(&["apiVersion"]);
    fields.remove_field(&["kind"]);
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        fields.remove_field(&["metadata", name]);
    }
    fields.unmark_field("metadata");
}
