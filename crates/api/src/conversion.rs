//! Objects of v1beta1 (ExtensionConfigs: v1alpha1) as v1beta2 and back, without loss.
//!
//! What becomes of a field is a row of a table ([`rules`]). What a version has no field for is kept in the annotation
//! `cluster.x-k8s.io/conversion-data`, as the published conversions do it: `spec` and `status` of the object in the other
//! version. It is put down only where the way there and back would lose something. When an object that has it comes back,
//! what its user changed meanwhile wins over what was kept: three sides are merged, the third being what the kept object
//! would look like now.
//!
//! What v1beta1 tells in its status is made of what v1beta2 tells there. What is said in v1beta1 and v1beta2 says nothing of is
//! kept in `status.deprecated.v1beta1`, as published, and shown from there: failures, counters that nobody has counted, conditions
//! of other types. What published controllers have left there of theirs is hidden by what is made.
//!
//! One thing is filled in as v1beta1's own defaulting did: a reference without a namespace gets that of its object.
//!
//! Source: kubernetes-sigs/cluster-api, */webhooks/conversion and api/*/v1beta1/conversion.go; the OpenStack provider,
//! api/v1beta1/conversion.go.

mod clusters;
mod engine;
mod kubeadm;
mod merge;
mod openstack;
mod status;

use serde_json::{Map, Value, json};

pub use self::engine::duration_s;
use self::{
    engine::{Cx, Direction, Rule},
    merge::merge,
};

/// Holds what the object's version has no field for.
pub const DATA_ANNOTATION: &str = "cluster.x-k8s.io/conversion-data";
/// The version that is stored.
pub const HUB: &str = "v1beta2";
/// The older one of all kinds but those of [`spoke`].
pub const SPOKE: &str = "v1beta1";

/// The older version of a kind.
pub fn spoke(kind: &str) -> &'static str {
    if kind == "ExtensionConfig" { "v1alpha1" } else { SPOKE }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConversionError {
    #[error("{group} {kind} is not converted from {from} to {to}: ask for one of its served versions")]
    Unknown { group: String, kind: String, from: String, to: String },
}

/// The table of a kind that has two versions.
fn rules(group: &str, kind: &str) -> Option<&'static [Rule]> {
    Some(match (group, kind) {
        ("cluster.x-k8s.io", "Cluster") => clusters::CLUSTER,
        ("cluster.x-k8s.io", "Machine") => clusters::MACHINE,
        ("cluster.x-k8s.io", "MachineSet") => clusters::MACHINE_SET,
        ("cluster.x-k8s.io", "MachineDeployment") => clusters::MACHINE_DEPLOYMENT,
        ("cluster.x-k8s.io", "MachinePool") => clusters::MACHINE_POOL,
        ("cluster.x-k8s.io", "MachineHealthCheck") => clusters::HEALTH_CHECK,
        ("cluster.x-k8s.io", "MachineDrainRule") => clusters::DRAIN_RULE,
        ("cluster.x-k8s.io", "ClusterClass") => clusters::CLASS,
        ("runtime.cluster.x-k8s.io", "ExtensionConfig") => clusters::EXTENSION,
        ("addons.cluster.x-k8s.io", "ClusterResourceSet") => clusters::RESOURCE_SET,
        ("addons.cluster.x-k8s.io", "ClusterResourceSetBinding") => &[],
        ("ipam.cluster.x-k8s.io", "IPAddress") => &[],
        ("ipam.cluster.x-k8s.io", "IPAddressClaim") => clusters::ADDRESS_CLAIM,
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfig") => kubeadm::CONFIG,
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfigTemplate") => kubeadm::CONFIG_TEMPLATE,
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlane") => kubeadm::CONTROL_PLANE,
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlaneTemplate") => kubeadm::CONTROL_PLANE_TEMPLATE,
        ("infrastructure.cluster.x-k8s.io", "OpenStackCluster") => openstack::CLUSTER,
        ("infrastructure.cluster.x-k8s.io", "OpenStackClusterTemplate") => openstack::CLUSTER_TEMPLATE,
        ("infrastructure.cluster.x-k8s.io", "OpenStackMachine") => openstack::MACHINE,
        ("infrastructure.cluster.x-k8s.io", "OpenStackMachineTemplate") => openstack::MACHINE_TEMPLATE,
        _ => return None,
    })
}

/// Whether objects of this kind are converted here.
pub fn converts(group: &str, kind: &str) -> bool {
    rules(group, kind).is_some()
}

/// The object in the version that is asked for, `v1beta2` or the older one. Its metadata stay as they are, but for the
/// annotation that holds what is kept.
pub fn convert(object: &Value, version: &str) -> Result<Value, ConversionError> {
    let (group, from) = object["apiVersion"].as_str().unwrap_or_default().split_once('/').unwrap_or_default();
    if from == version {
        return Ok(object.clone());
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    let unknown = || ConversionError::Unknown {
        group: group.to_owned(),
        kind: kind.to_owned(),
        from: from.to_owned(),
        to: version.to_owned(),
    };
    let rules = rules(group, kind).ok_or_else(unknown)?;
    let cx = Cx { namespace: object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default() };
    let pair = Pair { rules, cx };
    let (body, note) = taken_apart(object);
    let (body, note) = match (from, version) {
        (older, HUB) if older == spoke(kind) => pair.up(&body, note),
        (HUB, older) if older == spoke(kind) => pair.down(&body, note.as_ref()),
        _ => return Err(unknown()),
    };
    Ok(put_together(object, &format!("{group}/{version}"), body, note.as_ref()))
}

/// The two versions of one object. A body is what is besides apiVersion, kind and metadata.
struct Pair<'a> {
    rules: &'static [Rule],
    cx: Cx<'a>,
}

impl Pair<'_> {
    fn map(&self, direction: Direction, body: &Value) -> Value {
        engine::run(self.rules, body, direction, &self.cx)
    }

    /// What a v1beta2 object looks like in v1beta1, given what was kept of the v1beta1 object that it once was.
    fn shown(&self, hub: &Value, kept: Option<&Value>) -> Value {
        let shown = self.map(Direction::Down, hub);
        match kept {
            Some(kept) => {
                let base = self.map(Direction::Down, &self.map(Direction::Up, kept));
                merge(&base, &shown, kept)
            }
            None => shown,
        }
    }

    /// From v1beta1: the v1beta2 object, and what is to be kept of the v1beta1 one.
    fn up(&self, spoke: &Value, kept: Option<Value>) -> (Value, Option<Value>) {
        let spoke = self.map(Direction::Tidy, spoke);
        let mapped = self.map(Direction::Up, &spoke);
        let hub = match kept {
            None => mapped,
            Some(kept) if self.shown(&kept, Some(&spoke)) == spoke => kept,
            Some(kept) => {
                let base = self.map(Direction::Up, &self.map(Direction::Down, &kept));
                merge(&base, &mapped, &kept)
            }
        };
        let lost = self.map(Direction::Down, &hub) != spoke;
        (hub, lost.then_some(spoke))
    }

    /// From v1beta2: the v1beta1 object, and what is to be kept of the v1beta2 one.
    fn down(&self, hub: &Value, kept: Option<&Value>) -> (Value, Option<Value>) {
        let spoke = self.shown(hub, kept);
        let lost = self.map(Direction::Up, &spoke) != *hub;
        (spoke, lost.then(|| hub.clone()))
    }
}

/// The body of an object, and what is kept with it. What cannot be read is not ours and leaves.
fn taken_apart(object: &Value) -> (Value, Option<Value>) {
    let note = object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(DATA_ANNOTATION));
    let note = note.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).filter(Value::is_object);
    (body(object), note.as_ref().map(body))
}

fn body(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let own = fields.filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    Value::Object(own.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn put_together(object: &Value, api_version: &str, body: Value, note: Option<&Value>) -> Value {
    let mut metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(DATA_ANNOTATION);
        if annotations.is_empty() && note.is_none() && object["metadata"]["annotations"][DATA_ANNOTATION].is_string() {
            drop(metadata.as_object_mut().and_then(|fields| fields.remove("annotations")));
        }
    }
    if let Some(note) = note {
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][DATA_ANNOTATION] = note.to_string().into();
    }
    let mut fields = Map::new();
    fields.insert("apiVersion".into(), api_version.into());
    fields.insert("kind".into(), object["kind"].clone());
    fields.insert("metadata".into(), metadata);
    if let Value::Object(body) = body {
        fields.extend(body);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests;
