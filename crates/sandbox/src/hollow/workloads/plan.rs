//! What controllers want written, as data.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

/// One object, as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    pub uid: Option<String>,
    pub version: Option<String>,
}

impl Target {
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
            uid: object.uid(),
            version: object.resource_version(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Create(Value),
    /// The status of an object, in place of that of the version that it carries.
    Status(Value),
    /// A merge patch.
    Patch {
        target: Target,
        patch: Value,
    },
    Bind {
        pod: Target,
        node: String,
    },
    /// `now`: without a period of grace.
    Delete {
        target: Target,
        now: bool,
    },
}

/// What controllers want, and when they want to be asked again though nothing changes.
#[derive(Debug, Default)]
pub struct Plan {
    pub writes: Vec<Write>,
    pub wake: Option<Timestamp>,
    /// UIDs of those who are about to get more pods: what they lack is known when they have them.
    pub adopting: BTreeSet<String>,
}

impl Plan {
    pub fn create(&mut self, object: &impl Serialize) {
        self.writes.push(Write::Create(value(object)));
    }

    /// The object with its new status.
    pub fn status(&mut self, object: &impl Serialize) {
        self.writes.push(Write::Status(value(object)));
    }

    pub fn patch<K: Resource<DynamicType = ()>>(&mut self, object: &K, patch: Value) {
        self.writes.push(Write::Patch { target: Target::of(object), patch });
    }

    /// Unless somebody has.
    pub fn delete<K: Resource<DynamicType = ()>>(&mut self, object: &K) {
        if object.meta().deletion_timestamp.is_none() {
            self.writes.push(Write::Delete { target: Target::of(object), now: false });
        }
    }

    /// Without grace, unless it only waits for its finalizers.
    pub fn delete_now<K: Resource<DynamicType = ()>>(&mut self, object: &K) {
        if object.meta().deletion_grace_period_seconds != Some(0) {
            self.writes.push(Write::Delete { target: Target::of(object), now: true });
        }
    }

    pub fn is_adopting(&self, owner: &impl ResourceExt) -> bool {
        owner.uid().is_some_and(|uid| self.adopting.contains(&uid))
    }

    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// An event; the same one is told once for an object. `of` is a name for what came of the object, or nothing.
    pub fn event<K: Resource<DynamicType = ()>>(
        &mut self,
        about: &K,
        now: Timestamp,
        (component, type_, reason): (&str, &str, &str),
        message: impl Into<String>,
    ) {
        let (target, message) = (Target::of(about), message.into());
        let said = format!("{}/{reason}/{message}", target.uid.as_deref().unwrap_or_default());
        let said = digest::digest(&digest::SHA256, said.as_bytes());
        let suffix: String = said.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let namespace = target.namespace.clone().unwrap_or_else(|| "default".to_owned());
        self.writes.push(Write::Create(json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{suffix}", target.name), "namespace": namespace},
            "involvedObject": {
                "apiVersion": target.api_version, "kind": target.kind, "namespace": target.namespace, "name": target.name,
                "uid": target.uid,
            },
            "type": type_, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(),
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        })));
    }
}

/// Objects of the API are maps with keys of text: they are always JSON.
pub fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
impl Plan {
    /// The writes in short, without events.
    pub fn told(&self) -> Vec<String> {
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
            format!("{} {name}", object["kind"].as_str().unwrap_or_default())
        };
        let told = |write: &Write| match write {
            Write::Create(object) if object["kind"] == "Event" => None,
            Write::Create(object) => Some(format!("create {}", name(object))),
            Write::Status(object) => Some(format!("status {}", name(object))),
            Write::Patch { target, patch } => Some(format!("patch {} {} {patch}", target.kind, target.name)),
            Write::Bind { pod, node } => Some(format!("bind {} {node}", pod.name)),
            Write::Delete { target, now } => {
                Some(format!("delete {} {}{}", target.kind, target.name, if *now { " now" } else { "" }))
            }
        };
        self.writes.iter().filter_map(told).collect()
    }

    /// The status that is written of an object of a kind.
    pub fn status_of(&self, kind: &str) -> Value {
        let found = self.writes.iter().find_map(|write| match write {
            Write::Status(object) if object["kind"] == kind => Some(object["status"].clone()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// Reasons of the events.
    pub fn events(&self) -> Vec<String> {
        let event = |write: &Write| match write {
            Write::Create(object) if object["kind"] == "Event" => object["reason"].as_str().map(str::to_owned),
            _ => None,
        };
        self.writes.iter().filter_map(event).collect()
    }
}
