//! What a reconcile is to do in the Management API, as data.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::ApiResource, core::ObjectMeta};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Event, EventType, Key, Outcome};

/// Steps in order, and how the reconcile ends when all of them are done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Step {
    Create {
        resource: ApiResource,
        key: Key,
        body: Value,
    },
    /// Merge patches against the observed resourceVersion: a write in between makes it a conflict, never a loss.
    Update(Change),
    /// With the UID as precondition, so that a namesake made since is left alone.
    Delete {
        resource: ApiResource,
        key: Key,
        uid: Option<String>,
    },
    Event(Event),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub resource: ApiResource,
    pub key: Key,
    pub version: Option<String>,
    /// For everything but the status; `None` if nothing differs.
    pub main: Option<Value>,
    pub status: Option<Value>,
    /// When the status is to be written.
    pub haste: Haste,
}

/// How long what is new in a status may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Others go on by it.
    Now,
    /// Conditions and counters: a sum of what stands elsewhere, which will change again with the next part of it.
    Soon,
    /// What conditions say in words.
    Later,
}

/// The fields of a status that sum up what stands elsewhere.
const SUMMARY: [&str; 10] = [
    "availableReplicas",
    "conditions",
    "controlPlane",
    "observedGeneration",
    "phase",
    "readyReplicas",
    "replicas",
    "upToDateReplicas",
    "versions",
    "workers",
];

impl Default for Plan {
    fn default() -> Self {
        Self { steps: Vec::new(), outcome: Outcome::Settled }
    }
}

impl Plan {
    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn waiting(on: impl Into<String>, after_s: u64) -> Self {
        Self { steps: Vec::new(), outcome: Outcome::waiting(on, after_s) }
    }

    /// Ends the plan sooner than it would.
    pub fn wait(&mut self, on: impl Into<String>, after_s: u64) -> &mut Self {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Settled);
        self.outcome = outcome.sooner(Outcome::waiting(on, after_s));
        self
    }

    pub fn create<K: Resource<DynamicType = ()> + Serialize>(&mut self, object: &K) -> &mut Self {
        self.create_external(&ApiResource::erase::<K>(&()), Key::of(object), to_value(object))
    }

    /// Creates the object, or makes the one that exists equal in all but its metadata.
    pub fn create_or_replace<K: Resource<DynamicType = ()> + Serialize + PartialEq + Clone>(
        &mut self,
        object: &K,
        existing: Option<&K>,
    ) -> &mut Self {
        let Some(existing) = existing else { return self.create(object) };
        let mut after = object.clone();
        *after.meta_mut() = existing.meta().clone();
        self.update(existing, &after)
    }

    /// Writes what differs between the object as it was observed and as it should be; nothing if it is the same.
    pub fn update<K: Resource<DynamicType = ()> + Serialize + PartialEq>(
        &mut self,
        before: &K,
        after: &K,
    ) -> &mut Self {
        if let Some(change) = Change::between(before, after) {
            self.steps.push(Step::Update(change));
        }
        self
    }

    pub fn delete<K: Resource<DynamicType = ()>>(&mut self, object: &K) -> &mut Self {
        self.steps.push(Step::Delete {
            resource: ApiResource::erase::<K>(&()),
            key: Key::of(object),
            uid: object.meta().uid.clone(),
        });
        self
    }

    /// As [`Plan::update`], for an object of which only the metadata is known and changed.
    pub fn update_metadata(&mut self, resource: &ApiResource, before: &ObjectMeta, after: &ObjectMeta) -> &mut Self {
        if let Some(metadata) = diff(&to_value(before), &to_value(after)) {
            self.steps.push(Step::Update(Change {
                resource: resource.clone(),
                key: key_of(before),
                version: before.resource_version.clone(),
                main: Some(serde_json::json!({ "metadata": metadata })),
                status: None,
                haste: Haste::Now,
            }));
        }
        self
    }

    /// As [`Plan::update`], for an object that is known by contract only; both are its JSON. The status is left alone.
    pub fn update_external(&mut self, resource: &ApiResource, before: &Value, after: &Value) -> &mut Self {
        let [old, new] = [before, after].map(|object| {
            let mut object = object.clone();
            object.as_object_mut().map(|fields| fields.remove("status"));
            object
        });
        let Some(main) = diff(&old, &new) else { return self };
        let text = |field: &str| before["metadata"][field].as_str().unwrap_or_default().to_owned();
        self.steps.push(Step::Update(Change {
            resource: resource.clone(),
            key: Key::new(text("namespace"), text("name")),
            version: Some(text("resourceVersion")).filter(|version| !version.is_empty()),
            main: Some(main),
            status: None,
            haste: Haste::Now,
        }));
        self
    }

    pub fn delete_external(&mut self, resource: &ApiResource, meta: &ObjectMeta) -> &mut Self {
        self.steps.push(Step::Delete { resource: resource.clone(), key: key_of(meta), uid: meta.uid.clone() });
        self
    }

    /// Creates an object that is known by contract only.
    pub fn create_external(&mut self, resource: &ApiResource, key: Key, mut body: Value) -> &mut Self {
        if let Value::Object(map) = &mut body {
            map.insert("apiVersion".into(), resource.api_version.clone().into());
            map.insert("kind".into(), resource.kind.clone().into());
        }
        self.steps.push(Step::Create { resource: resource.clone(), key, body });
        self
    }

    pub fn event<K: Resource<DynamicType = ()>>(
        &mut self,
        about: &K,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
    ) -> &mut Self {
        self.steps.push(Step::Event(Event {
            about: reference(about),
            type_,
            reason: reason.to_owned(),
            message: message.into(),
        }));
        self
    }
}

fn key_of(meta: &ObjectMeta) -> Key {
    Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// What an event or a condition points at.
fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        ..Default::default()
    }
}

impl Change {
    pub fn between<K: Resource<DynamicType = ()> + Serialize + PartialEq>(before: &K, after: &K) -> Option<Self> {
        if before == after {
            return None;
        }
        let (mut old, mut new) = (to_value(before), to_value(after));
        let [old_status, mut new_status] = [&mut old, &mut new]
            .map(|value| value.as_object_mut().and_then(|map| map.remove("status")).unwrap_or(Value::Null));
        let main = diff(&old, &new);
        if let (Some(Value::Object(parts)), Some(generation)) = (&main, before.meta().generation)
            && parts.keys().any(|part| part != "metadata")
        {
            // A change of the spec makes the next generation, and whoever makes it has observed it.
            advance(&mut new_status, generation);
        }
        let status = diff(&old_status, &new_status);
        (main.is_some() || status.is_some()).then(|| Self {
            resource: ApiResource::erase::<K>(&()),
            key: Key::of(before),
            version: before.meta().resource_version.clone(),
            haste: haste(&old_status, &new_status),
            main,
            status: status.map(|status| serde_json::json!({ "status": status })),
        })
    }
}

/// Makes what was observed at `generation` observed at the next one.
fn advance(status: &mut Value, generation: i64) {
    let Some(status) = status.as_object_mut() else { return };
    let observed = |map: &mut Map<String, Value>| {
        if let Some(observed) = map.get_mut("observedGeneration")
            && observed.as_i64() == Some(generation)
        {
            *observed = (generation + 1).into();
        }
    };
    observed(status);
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    conditions.into_iter().flatten().filter_map(Value::as_object_mut).for_each(observed);
}

fn haste(old: &Value, new: &Value) -> Haste {
    let nothing = Map::new();
    let [before, after] = [old, new].map(|status| status.as_object().unwrap_or(&nothing));
    let mut keys = before.keys().chain(after.keys()).map(String::as_str).filter(|key| !SUMMARY.contains(key));
    if keys.any(|key| before.get(key) != after.get(key)) {
        Haste::Now
    } else if differs_in_words_only(old, new) {
        Haste::Later
    } else {
        Haste::Soon
    }
}

/// Whether two statuses say the same but for why a condition is not true.
fn differs_in_words_only(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let same = |a: &Map<String, Value>, b: &Map<String, Value>, but: &[&str]| {
        a.len() == b.len() && a.iter().all(|(key, value)| but.contains(&key.as_str()) || b.get(key) == Some(value))
    };
    let untrue = |condition: &Map<String, Value>| condition.get("status").is_some_and(|status| status != "True");
    let (Some(Value::Array(before)), Some(Value::Array(after))) = (old.get("conditions"), new.get("conditions")) else {
        return false;
    };
    let conditions = before.len() == after.len()
        && before.iter().zip(after).all(|pair| match pair {
            (Value::Object(a), Value::Object(b)) if untrue(a) && untrue(b) => {
                same(a, b, &["status", "reason", "message", "lastTransitionTime"])
            }
            (Value::Object(a), Value::Object(b)) => same(a, b, &["reason", "message"]),
            _ => false,
        });
    conditions && same(old, new, &["conditions"])
}

fn to_value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("API types serialize to JSON: string keys only")
}

/// The merge patch (RFC 7386) that turns `old` into `new`; `None` if they are equal.
fn diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => {
                        if let Some(change) = diff(before, value) {
                            patch.insert(key.clone(), change);
                        }
                    }
                    None => {
                        patch.insert(key.clone(), value.clone());
                    }
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ => (old != new).then(|| new.clone()),
    }
}

/// One line a step: what goldens compare and a log can show.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        match &self.outcome {
            Outcome::Settled => write!(f, "settled"),
            Outcome::Waiting { on, after } => write!(f, "waits {} s: {on}", after.as_secs_f32()),
            Outcome::Gone => write!(f, "gone"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { resource, key, .. } => write!(f, "create {} {key}", resource.kind),
            Self::Update(change) => {
                write!(f, "update {} {}", change.resource.kind, change.key)?;
                for part in [&change.main, &change.status].into_iter().flatten() {
                    write!(f, " {part}")?;
                }
                Ok(())
            }
            Self::Delete { resource, key, .. } => write!(f, "delete {} {key}", resource.kind),
            Self::Event(event) => write!(f, "event {} {}: {}", event.type_.as_str(), event.reason, event.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_turns_the_old_object_into_the_new_one() {
        let old = json!({"a": 1, "b": {"c": 2, "d": [1, 2]}, "gone": true});
        let new = json!({"a": 1, "b": {"c": 3, "d": [1]}, "fresh": {"x": 1}});
        assert_eq!(diff(&old, &new), Some(json!({"b": {"c": 3, "d": [1]}, "fresh": {"x": 1}, "gone": null})));
        assert_eq!(diff(&new, &new), None);
    }

    #[test]
    fn a_change_of_the_spec_is_observed_by_who_makes_it() {
        let machine = |provider: Option<&str>| -> api::machine::Machine {
            serde_json::from_value(json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
                "metadata": {"name": "a", "generation": 3},
                "spec": {"clusterName": "c", "providerID": provider, "bootstrap": {},
                    "infrastructureRef": {"apiGroup": "x.example", "kind": "X", "name": "a"}},
                "status": {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                    "observedGeneration": 3, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        let change = Change::between(&machine(None), &machine(Some("x://1"))).unwrap();
        assert_eq!(change.main, Some(json!({"spec": {"providerID": "x://1"}})));
        let status = &change.status.unwrap()["status"];
        assert_eq!(
            (&status["observedGeneration"], &status["conditions"][0]["observedGeneration"]),
            (&json!(4), &json!(4))
        );
        let mut labelled = machine(None);
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(Change::between(&machine(None), &labelled).unwrap().status, None);
    }

    #[test]
    fn conditions_and_counters_may_wait_and_words_longer() {
        let status = |status: &str, message: &str, replicas: u32| json!({"replicas": replicas, "conditions": [{"type": "Ready", "status": status, "message": message}]});
        let old = status("False", "Waiting for a server", 1);
        for (new, expected) in [
            (status("False", "Waiting for a port", 1), Haste::Later),
            (status("Unknown", "Waiting for a port", 1), Haste::Later),
            (status("True", "", 1), Haste::Soon),
            (status("False", "Waiting for a port", 2), Haste::Soon),
            (json!({"replicas": 1, "conditions": []}), Haste::Soon),
            (json!({"replicas": 1}), Haste::Soon),
            (json!({"replicas": 1, "initialization": {"provisioned": true}}), Haste::Now),
        ] {
            assert_eq!(haste(&old, &new), expected, "{new}");
        }
        assert_eq!(haste(&Value::Null, &old), Haste::Soon);
    }

    #[test]
    fn an_object_that_is_as_it_should_be_is_not_written() {
        let map = ConfigMap { data: Some([("a".to_owned(), "b".to_owned())].into()), ..Default::default() };
        let mut plan = Plan::nothing();
        plan.update(&map, &map.clone());
        assert!(plan.steps.is_empty());
    }
}
