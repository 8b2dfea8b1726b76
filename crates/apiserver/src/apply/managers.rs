//! `metadata.managedFields` (KEP-555; upstream: `apimachinery/pkg/util/managedfields`).

use serde_json::{Map, Value, json};

use super::set::Set;

/// Managers with operation Update; beyond, the oldest are merged into one.
pub const UPDATE_MANAGERS_LIMIT: usize = 10;
/// What of an entry says which fields.
const FIELDS: &str = "fieldsV1";
const ANCIENT: &str = "ancient-changes";
pub(super) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
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

    /// The same manager as one who applies.
    pub fn as_applier(&self) -> Self {
        Self { operation: Operation::Apply, ..self.clone() }
    }

    /// Whether an entry of managedFields is about this manager.
    pub fn is_entry(&self, entry: &Value) -> bool {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        text("manager") == self.name
            && text("operation") == self.operation.as_str()
            && text("subresource") == self.subresource
            && (self.operation == Operation::Apply || text("apiVersion") == self.api_version)
    }

    pub fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match entry.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = match entry.get(FIELDS) {
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

    pub fn write(&self) -> Value {
        let mut entry = json!({"manager": self.name, "operation": self.operation.as_str(), "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", FIELDS: self.fields.to_fields()});
        for (name, value) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                entry[name] = json!(value);
            }
        }
        entry
    }
}

pub(super) fn entries(object: &Value) -> &[Value] {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Takes the entries out of an object.
pub(super) fn take(object: &mut Value) -> Option<Vec<Value>> {
    match object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")? {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

/// The managers that entries are about. None: there are none, or they cannot be read.
pub(super) fn read(entries: &[Value]) -> Option<Vec<Manager>> {
    let managers: Option<Vec<_>> = entries.iter().map(Manager::read).collect();
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

/// Takes paths from an entry, as [`Set::subtract`] does. True: it had some of them. Most writes touch nothing that a given entry
/// is about, and it is not read then.
pub(super) fn subtract(entry: &mut Value, paths: &Set) -> bool {
    let Some(fields) = entry.get_mut(FIELDS) else { return false };
    if !paths.children().any(|(element, _)| fields.get(element.serialize()).is_some()) {
        return false;
    }
    let Some(before) = Set::from_fields(fields) else { return false };
    let mut after = before.clone();
    after.subtract(paths);
    let changed = after != before;
    if changed {
        *fields = after.to_fields();
    }
    changed
}

/// Puts entries into an object, in the order that upstream gives them.
pub(super) fn put(object: &mut Value, mut entries: Vec<Value>) {
    let Some(metadata) = object
        .as_object_mut()
        .and_then(|object| object.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut())
    else {
        return;
    };
    if entries.is_empty() {
        metadata.remove("managedFields");
        return;
    }
    let order = |entry: &Value| {
        ["operation", "time", "manager", "apiVersion", "subresource"]
            .map(|name| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned())
    };
    entries.sort_by_cached_key(order);
    metadata.insert("managedFields".to_owned(), entries.into());
}

/// Drops managers that own nothing, and merges the oldest updaters when there are too many.
pub(super) fn tidy(entries: &mut Vec<Value>) {
    entries.retain(|entry| entry.get(FIELDS).and_then(Value::as_object).is_some_and(|fields| !fields.is_empty()));
    let update = Value::from(Operation::Update.as_str());
    if entries.iter().filter(|entry| entry.get("operation") == Some(&update)).count() <= UPDATE_MANAGERS_LIMIT {
        return;
    }
    let Some(managers) = read(entries) else { return };
    let (mut managers, mut updaters): (Vec<_>, Vec<_>) =
        managers.into_iter().partition(|manager| manager.operation == Operation::Apply);
    updaters.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
    let recent = updaters.split_off(updaters.len() - UPDATE_MANAGERS_LIMIT + 1);
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
    *entries = managers.iter().map(Manager::write).collect();
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
