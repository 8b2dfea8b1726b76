//! Events: what happened to an object, for `kubectl describe`.

use k8s_openapi::{
    api::core::v1::{Event as CoreEvent, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{Error, Result};

/// Longest message of an event, in bytes (core/v1 validation: 1,024).
const MESSAGE_MAX_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub about: ObjectReference,
    pub type_: EventType,
    pub reason: String,
    pub message: String,
}

impl Event {
    /// Equal events of one object share a name: the second raises the count of the first, so that a repeating event
    /// stays one object.
    fn name(&self) -> String {
        let mut hash = Fnv::default();
        let uid = self.about.uid.as_deref().unwrap_or_default();
        for part in [uid, &self.reason, self.type_.as_str(), &self.message] {
            hash.write(part.as_bytes());
        }
        let name: String = self.about.name.as_deref().unwrap_or_default().chars().take(200).collect();
        format!("{name}.{:016x}", hash.0)
    }

    pub(crate) async fn publish(&self, client: &Client, component: &str, now: Time) -> Result<()> {
        let namespace = self.about.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        let events = Api::<CoreEvent>::namespaced(client.clone(), namespace);
        let name = self.name();
        let mut message = self.message.clone();
        message.truncate(message.floor_char_boundary(MESSAGE_MAX_BYTES));
        let event = CoreEvent {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now.clone()),
            involved_object: self.about.clone(),
            message: Some(message),
            reason: Some(self.reason.clone()),
            reporting_component: Some(component.to_owned()),
            source: Some(EventSource { component: Some(component.to_owned()), host: None }),
            type_: Some(self.type_.as_str().to_owned()),
            ..CoreEvent::default()
        };
        let failed = |operation, source| Error::api(operation, format!("event {namespace}/{name}"), source);
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let old = events.get(&name).await.map_err(|source| failed("get", source))?;
                let patch = json!({"count": old.count.unwrap_or(1).saturating_add(1), "lastTimestamp": now});
                let patched = events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                patched.map(drop).map_err(|source| failed("patch", source))
            }
            Err(source) => Err(failed("create", source)),
        }
    }
}

/// FNV-1a: stable between releases, which the standard hasher is not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
