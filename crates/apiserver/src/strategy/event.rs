//! Events, which two groups show: stored as core/v1, served as events.k8s.io/v1 too (`pkg/apis/events/v1` conversion).

use serde_json::Value;

use super::{Strategy, plain};
use crate::object::{default_at, set_at};

pub(crate) static EVENT: Strategy = Strategy {
    create_on_update: true,
    fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    prepare: |_, event| {
        default_at(event, &["reportingComponent"], "".into());
        default_at(event, &["reportingInstance"], "".into());
        if event.get("eventTime").is_none() {
            set_at(event, &["eventTime"], Value::Null);
        }
    },
    ..plain()
};

pub(crate) static EVENT_V1: Strategy = Strategy { fields: EVENT.fields, create_on_update: true, ..plain() };

/// The field of core/v1, the field of events.k8s.io/v1.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(crate) fn from_core(event: &mut Value) {
    rename(event, RENAMED.iter().map(|(core, new)| (*core, *new)));
    if let Some(fields) = event.as_object_mut() {
        fields.retain(|name, value| {
            !(matches!(name.as_str(), "reportingController" | "reportingInstance") && value == "")
        });
    }
}

pub(crate) fn to_core(event: &mut Value) {
    rename(event, RENAMED.iter().map(|(core, new)| (*new, *core)));
}

fn rename<'a>(event: &mut Value, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = event.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}
