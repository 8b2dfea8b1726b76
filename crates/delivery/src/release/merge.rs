//! Three-way merge: what the last manifest said, what the new one says, and what is there, become what is to be there. Kinds that
//! Kubernetes brings have lists that are merged item by item (strategic merge patch); in all others lists are replaced.
//! Why not server-side apply: docs/decisions/releases.md.

use serde_json::{Map, Value as Json};

use super::object::Id;

/// Groups whose kinds are Kubernetes' own; others that end in `k8s.io` are custom resources.
const OWN_GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Where lists are merged: within what, the field, what lies in it (`-` where nothing more is merged), keys of its items, whether keys that are not
/// named go when anything changes. `protocol=TCP` is a key with its default. From the types' tags `patchStrategy` and `patchMergeKey`; a test
/// compares them with what an API server publishes. Two lists have one key more than published: two ports may have one number.
const FIELDS: &[(&str, &str, &str, &str, bool)] = &[
    ("*", "metadata", "Meta", "", false),
    ("Meta", "finalizers", "-", "*", false),
    ("Meta", "ownerReferences", "-", "uid", false),
    ("Pod", "spec", "PodSpec", "", false),
    ("PodTemplate", "template", "Template", "", false),
    ("Deployment", "spec", "DeploymentSpec", "", false),
    ("DeploymentSpec", "template", "Template", "", false),
    ("DeploymentSpec", "strategy", "-", "", true),
    ("ReplicaSet", "spec", "Workload", "", false),
    ("ReplicationController", "spec", "Workload", "", false),
    ("StatefulSet", "spec", "Workload", "", false),
    ("DaemonSet", "spec", "Workload", "", false),
    ("Job", "spec", "Workload", "", false),
    ("CronJob", "spec", "CronJobSpec", "", false),
    ("CronJobSpec", "jobTemplate", "JobTemplate", "", false),
    ("JobTemplate", "metadata", "Meta", "", false),
    ("JobTemplate", "spec", "Workload", "", false),
    ("Workload", "template", "Template", "", false),
    ("Template", "metadata", "Meta", "", false),
    ("Template", "spec", "PodSpec", "", false),
    ("PodSpec", "containers", "Container", "name", false),
    ("PodSpec", "initContainers", "Container", "name", false),
    ("PodSpec", "ephemeralContainers", "Container", "name", false),
    ("PodSpec", "hostAliases", "-", "ip", false),
    ("PodSpec", "imagePullSecrets", "-", "name", false),
    ("PodSpec", "resourceClaims", "-", "name", true),
    ("PodSpec", "schedulingGates", "-", "name", false),
    ("PodSpec", "topologySpreadConstraints", "-", "topologyKey,whenUnsatisfiable", false),
    ("PodSpec", "volumes", "Volume", "name", true),
    ("Volume", "ephemeral", "Ephemeral", "", false),
    ("Ephemeral", "volumeClaimTemplate", "Claim", "", false),
    ("Claim", "metadata", "Meta", "", false),
    ("Container", "env", "-", "name", false),
    ("Container", "ports", "-", "containerPort,protocol=TCP", false),
    ("Container", "volumeDevices", "-", "devicePath", false),
    ("Container", "volumeMounts", "-", "mountPath", false),
    ("Service", "spec", "ServiceSpec", "", false),
    ("ServiceSpec", "ports", "-", "port,protocol=TCP", false),
    ("ServiceAccount", "secrets", "-", "name", false),
    ("Node", "spec", "NodeSpec", "", false),
    ("NodeSpec", "podCIDRs", "-", "*", false),
    ("CSINode", "spec", "CSINodeSpec", "", false),
    ("CSINodeSpec", "drivers", "-", "name", false),
    ("MutatingWebhookConfiguration", "webhooks", "Webhook", "name", false),
    ("ValidatingWebhookConfiguration", "webhooks", "Webhook", "name", false),
    ("Webhook", "matchConditions", "-", "name", false),
    ("MutatingAdmissionPolicy", "spec", "Mutating", "", false),
    ("Mutating", "matchConditions", "-", "name", false),
    ("ValidatingAdmissionPolicy", "spec", "Validating", "", false),
    ("Validating", "matchConditions", "-", "name", false),
    ("Validating", "variables", "-", "name", false),
];

/// What the API server alone writes.
const SERVERS_OWN: &[&str] =
    &["creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// How much of a manifest is put upon what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Of Kubernetes' own kinds everything, of custom resources what the manifest has changed: their controllers fill fields in.
    /// So does Helm.
    Upgrade,
    /// Everything.
    Whole,
}

/// What is to be there.
pub fn merged(id: &Id, old: Option<&Json>, new: &Json, live: &Json, extent: Extent) -> Json {
    let empty = Map::new();
    let (Some(new), Some(live)) = (new.as_object(), live.as_object()) else { return new.clone() };
    let is_own = OWN_GROUPS.contains(&id.group.as_str());
    let changes_only = !is_own && extent == Extent::Upgrade && old.is_some();
    let old = old.and_then(Json::as_object).unwrap_or(&empty);
    let mut result = Merge { is_own, changes_only }.table(&id.kind, true, old, new, live);
    keep_servers_own(&mut result, live, is_own);
    Json::Object(result)
}

/// What only the server writes stays as it is there, whatever a manifest says.
pub fn keep_servers_own(result: &mut Map<String, Json>, live: &Map<String, Json>, is_own: bool) {
    let put_back = |into: &mut Map<String, Json>, from: Option<&Map<String, Json>>, key: &str| {
        match from.and_then(|from| from.get(key)) {
            Some(value) => into.insert(key.to_owned(), value.clone()),
            None => into.remove(key),
        };
    };
    if is_own {
        put_back(result, Some(live), "status");
    }
    for key in ["apiVersion", "kind"] {
        put_back(result, Some(live), key);
    }
    let of_live = live.get("metadata").and_then(Json::as_object);
    if let Some(metadata) = result.get_mut("metadata").and_then(Json::as_object_mut) {
        for key in SERVERS_OWN {
            put_back(metadata, of_live, key);
        }
    }
}

struct Merge {
    is_own: bool,
    changes_only: bool,
}

#[derive(Clone, Copy)]
struct Field {
    inner: &'static str,
    keys: &'static str,
    retain: bool,
}

const PLAIN: Field = Field { inner: "-", keys: "", retain: false };

impl Merge {
    fn field(&self, within: &str, is_root: bool, name: &str) -> Field {
        if !self.is_own {
            return PLAIN;
        }
        let found = FIELDS.iter().find(|(of, field, ..)| *field == name && (*of == within || (is_root && *of == "*")));
        found.map_or(PLAIN, |(_, _, inner, keys, retain)| Field { inner, keys, retain: *retain })
    }

    fn table(
        &self,
        within: &str,
        is_root: bool,
        old: &Map<String, Json>,
        new: &Map<String, Json>,
        live: &Map<String, Json>,
    ) -> Map<String, Json> {
        let mut result = live.clone();
        for (key, was) in old {
            // What is null in a manifest was never put there.
            if !new.contains_key(key) && !was.is_null() {
                result.remove(key);
            }
        }
        for (key, wanted) in new {
            let was = old.get(key);
            if self.changes_only && was == Some(wanted) {
                continue;
            }
            if wanted.is_null() {
                result.remove(key);
                continue;
            }
            let value = match live.get(key) {
                Some(there) => self.value(self.field(within, is_root, key), was, wanted, there),
                None => wanted.clone(),
            };
            result.insert(key.clone(), value);
        }
        result
    }

    fn value(&self, field: Field, old: Option<&Json>, new: &Json, live: &Json) -> Json {
        match (new, live) {
            (Json::Object(new), Json::Object(live)) => {
                let empty = Map::new();
                let old = old.and_then(Json::as_object).unwrap_or(&empty);
                let mut result = self.table(field.inner, false, old, new, live);
                if field.retain && field.keys.is_empty() {
                    retain(&mut result, new, live);
                }
                Json::Object(result)
            }
            (Json::Array(new), Json::Array(live)) if !field.keys.is_empty() => {
                let empty = Vec::new();
                let old = old.and_then(Json::as_array).unwrap_or(&empty);
                Json::Array(self.list(field, old, new, live))
            }
            (new, _) => new.clone(),
        }
    }

    fn list(&self, field: Field, old: &[Json], new: &[Json], live: &[Json]) -> Vec<Json> {
        let (Some(new_keys), Some(live_keys), Some(old_keys)) =
            (keys(field.keys, new), keys(field.keys, live), keys(field.keys, old))
        else {
            // Items that cannot be told apart cannot be merged.
            return new.to_vec();
        };
        let at = |keys: &[String], key: &str| keys.iter().position(|known| known == key);
        let mut result: Vec<(&str, Json)> = Vec::with_capacity(new.len());
        for (key, wanted) in new_keys.iter().zip(new) {
            let was = at(&old_keys, key).map(|at| &old[at]);
            let item = match (wanted, at(&live_keys, key).map(|at| &live[at])) {
                (Json::Object(wanted), Some(Json::Object(there))) => {
                    let empty = Map::new();
                    let was = was.and_then(Json::as_object).unwrap_or(&empty);
                    let mut item = self.table(field.inner, false, was, wanted, there);
                    if field.retain {
                        retain(&mut item, wanted, there);
                    }
                    Json::Object(item)
                }
                _ => wanted.clone(),
            };
            result.push((key, item));
        }
        // What others put there stays behind what it stood behind.
        let mut before: Option<&str> = None;
        for (key, there) in live_keys.iter().zip(live) {
            if at(&new_keys, key).is_none() {
                if at(&old_keys, key).is_some() {
                    continue;
                }
                let place = before.and_then(|before| result.iter().position(|(known, _)| *known == before));
                result.insert(place.map_or(0, |place| place + 1), (key, there.clone()));
            }
            before = Some(key);
        }
        result.into_iter().map(|(_, item)| item).collect()
    }
}

/// A union: when anything in it changes, what is not named goes.
fn retain(result: &mut Map<String, Json>, new: &Map<String, Json>, live: &Map<String, Json>) {
    if result != live {
        result.retain(|key, _| new.contains_key(key));
    }
}

/// What tells the items of a list apart; nothing where it doesn't.
fn keys(names: &str, items: &[Json]) -> Option<Vec<String>> {
    let mut keys = Vec::with_capacity(items.len());
    for item in items {
        let key = if names == "*" { item.to_string() } else { key(names, item)? };
        if keys.contains(&key) {
            return None;
        }
        keys.push(key);
    }
    Some(keys)
}

fn key(names: &str, item: &Json) -> Option<String> {
    let mut key = String::new();
    for name in names.split(',') {
        let (name, default) = name.split_once('=').unwrap_or((name, ""));
        match item.get(name) {
            Some(value) if !value.is_null() => key.push_str(value.to_string().trim_matches('"')),
            _ if default.is_empty() => return None,
            _ => key.push_str(default),
        }
        key.push('\n');
    }
    Some(key)
}

/// The JSON merge patch that makes one of the other.
pub fn patch(from: &Json, to: &Json) -> Json {
    let (Json::Object(from), Json::Object(to)) = (from, to) else { return to.clone() };
    let mut changes = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        changes.insert(key.clone(), Json::Null);
    }
    for (key, value) in to {
        match from.get(key) {
            Some(was) if was == value => {}
            Some(was @ Json::Object(_)) if value.is_object() => {
                changes.insert(key.clone(), patch(was, value));
            }
            _ => {
                changes.insert(key.clone(), value.clone());
            }
        }
    }
    Json::Object(changes)
}

#[cfg(test)]
mod tests;
