//! Fields that are accepted and stored, but that no controller acts upon yet: said once a generation, never ignored.

use control::{EventType, Plan};
use kube::Resource;
use serde::Serialize;

/// JSON pointers by kind. A line goes when the field is acted upon, and then stands in the table of the tests: every field
/// of every kind is in one of the two.
const FIELDS: &[(&str, &[&str])] = &[
    // No provider here takes the port of the API from the Cluster: theirs do (OpenStackCluster spec.apiServer.port).
    ("Cluster", &["/spec/clusterNetwork/apiServerPort"]),
];

/// The fields of the object that are set and not acted upon, as `spec.topology`.
fn set<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Vec<String> {
    let kind = K::kind(&());
    let fields = FIELDS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, fields)| fields);
    if fields.is_empty() {
        return Vec::new();
    }
    let value = serde_json::to_value(object).unwrap_or_default();
    let found = fields.iter().filter(|pointer| value.pointer(pointer).is_some_and(|field| !field.is_null()));
    found.map(|pointer| pointer.trim_start_matches('/').replace('/', ".")).collect()
}

/// Adds an event if the object has such fields and its present generation has not been observed before. `partly` are
/// fields that something else than their being set makes idle.
pub fn tell<K: Resource<DynamicType = ()> + Serialize>(
    object: &K,
    observed: Option<i64>,
    partly: Vec<String>,
    plan: &mut Plan,
) {
    if observed == object.meta().generation {
        return;
    }
    let mut fields = set(object);
    fields.extend(partly);
    say(object, fields, plan);
}

/// Adds an event that names the fields, if there are any.
pub fn say<K: Resource<DynamicType = ()>>(object: &K, fields: Vec<String>, plan: &mut Plan) {
    if !fields.is_empty() {
        let message = format!("Stored but not acted upon yet: {}", fields.join(", "));
        plan.event(object, EventType::Warning, "FieldNotActedUpon", message);
    }
}

#[cfg(test)]
mod tests;
