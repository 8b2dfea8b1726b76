//! Updates of machines that stay: what is asked of runtime extensions, and whether what they say is enough. Pure.
//!
//! An update is noted on the Machine, its infrastructure and its bootstrap configuration, so that whoever goes on finds it.
//!
//! Source: kubernetes-sigs/cluster-api docs/proposals/20240807-in-place-updates.md, api/runtime/hooks/v1alpha1
//! (inplaceupdate_types.go), internal/util/inplace.

use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::{
    admission::first_difference,
    names::{PENDING_HOOKS_ANNOTATION, UPDATE_IN_PROGRESS_ANNOTATION},
    topology::{
        external::patched,
        hooks::{Hook, Question},
    },
};

/// Of a Machine's spec: what never changes, and what changes on a machine without anybody's help.
const CARRIED: [&str; 7] =
    ["bootstrap", "clusterName", "infrastructureRef", "minReadySeconds", "providerID", "readinessGates", "taints"];
/// The same below its `deletion`.
const CARRIED_LIMITS: [&str; 3] =
    ["nodeDeletionTimeoutSeconds", "nodeDrainTimeoutSeconds", "nodeVolumeDetachTimeoutSeconds"];

/// An object of a request.
struct Part {
    field: &'static str,
    /// Of the response: what the extension would change.
    patch: &'static str,
    /// Only what lies here counts.
    at: &'static str,
    is_machine: bool,
}

const fn part(field: &'static str, patch: &'static str, at: &'static str, is_machine: bool) -> Part {
    Part { field, patch, at, is_machine }
}

const OF_MACHINE: [Part; 3] = [
    part("machine", "machinePatch", "/spec", true),
    part("infrastructureMachine", "infrastructureMachinePatch", "/spec", false),
    part("bootstrapConfig", "bootstrapConfigPatch", "/spec", false),
];
const OF_SET: [Part; 3] = [
    part("machineSet", "machineSetPatch", "/spec/template/spec", true),
    part("infrastructureMachineTemplate", "infrastructureMachineTemplatePatch", "/spec/template/spec", false),
    part("bootstrapConfigTemplate", "bootstrapConfigTemplatePatch", "/spec/template/spec", false),
];

/// A machine or a set, its infrastructure, and its bootstrap configuration if it has one.
#[derive(Clone, Debug)]
pub struct Objects<'a> {
    pub main: &'a Value,
    pub infrastructure: &'a Value,
    pub bootstrap: Option<&'a Value>,
}

impl Objects<'_> {
    fn shown(&self, parts: &[Part; 3]) -> Value {
        let objects = [Some(self.main), Some(self.infrastructure), self.bootstrap];
        let fields =
            parts.iter().zip(objects).filter_map(|(part, object)| Some((part.field.to_owned(), shown(object?))));
        fields.collect::<Map<_, _>>().into()
    }
}

/// An object as extensions see it: what it is, its labels and annotations, and its spec.
fn shown(object: &Value) -> Value {
    let metadata = ["name", "namespace", "labels", "annotations"].into_iter().filter_map(|field| {
        let value = object["metadata"].get(field).filter(|value| !value.is_null())?;
        Some((field.to_owned(), value.clone()))
    });
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": metadata.collect::<Map<_, _>>(), "spec": object["spec"],
    })
}

fn parts(hook: Hook) -> &'static [Part; 3] {
    if hook == Hook::CanUpdateMachineSet { &OF_SET } else { &OF_MACHINE }
}

/// Whether a handler of `CanUpdateMachine` or `CanUpdateMachineSet` can make the one of the other.
pub fn can_update(hook: Hook, handler: &str, current: &Objects<'_>, desired: &Objects<'_>) -> Question {
    let request = json!({"current": current.shown(parts(hook)), "desired": desired.shown(parts(hook))});
    Question { hook, handler: Some(handler.to_owned()), request, settings: Value::Null }
}

/// Has the handler of `UpdateMachine` make a machine what it is to be.
pub fn update(handler: &str, desired: &Objects<'_>) -> Question {
    let request = json!({"desired": desired.shown(&OF_MACHINE)});
    Question { hook: Hook::UpdateMachine, handler: Some(handler.to_owned()), request, settings: Value::Null }
}

/// Whether the answer to [`can_update`] covers all that differs; the inner `Err` says what it does not.
///
/// # Errors
/// The answer has a patch that cannot be carried out.
pub fn covers(question: &Question, response: &Value) -> Result<Result<(), String>, String> {
    let mut reasons = Vec::new();
    for part in parts(question.hook) {
        let [current, desired] = ["current", "desired"].map(|side| &question.request[side][part.field]);
        if current.is_null() || desired.is_null() {
            continue;
        }
        let changed = match &response[part.patch] {
            Value::Null => current.clone(),
            patch => patched(current, patch, part.at).map_err(|why| format!("{}: {why}", part.patch))?,
        };
        let [changed, wanted] = [&changed, desired].map(|object| compared(object, part));
        let path = part.at.trim_start_matches('/').replace('/', ".");
        if let Some(at) = first_difference(&path, &changed, &wanted) {
            let kind = desired["kind"].as_str().unwrap_or(part.field);
            reasons.push(format!("{kind} cannot be updated in-place: {at} differs"));
        }
    }
    Ok(if reasons.is_empty() { Ok(()) } else { Err(reasons.join(", ")) })
}

fn compared(object: &Value, part: &Part) -> Value {
    let mut spec = object.pointer(part.at).cloned().unwrap_or_default();
    if let Some(fields) = spec.as_object_mut().filter(|_| part.is_machine) {
        CARRIED.iter().for_each(|field| drop(fields.remove(*field)));
        if let Some(limits) = fields.get_mut("deletion").and_then(Value::as_object_mut) {
            CARRIED_LIMITS.iter().for_each(|field| drop(limits.remove(*field)));
            if limits.is_empty() {
                fields.remove("deletion");
            }
        }
    }
    spec
}

/// The object is part of an update.
pub fn is_marked(meta: &ObjectMeta) -> bool {
    meta.annotations.as_ref().is_some_and(|all| all.contains_key(UPDATE_IN_PROGRESS_ANNOTATION))
}

/// The extension is to be called for the machine: all that it is to become has been written.
pub fn is_pending(meta: &ObjectMeta) -> bool {
    let text = meta.annotations.as_ref().and_then(|all| all.get(PENDING_HOOKS_ANNOTATION));
    text.is_some_and(|text| text.split(',').any(|name| name == Hook::UpdateMachine.name()))
}

/// A machine's update has begun, or not ended completely.
pub fn is_under_way(meta: &ObjectMeta) -> bool {
    is_marked(meta) || is_pending(meta)
}

/// Makes the object part of an update, or no longer.
pub fn mark(meta: &mut ObjectMeta, marked: bool) {
    if marked {
        meta.annotations.get_or_insert_default().insert(UPDATE_IN_PROGRESS_ANNOTATION.to_owned(), String::new());
    } else {
        remove(meta, UPDATE_IN_PROGRESS_ANNOTATION);
    }
}

/// Notes that the extension is to be called, or that it has been.
pub fn expect(meta: &mut ObjectMeta, pending: bool) {
    let own = Hook::UpdateMachine.name();
    let noted = meta.annotations.as_ref().and_then(|all| all.get(PENDING_HOOKS_ANNOTATION));
    let mut names: Vec<&str> = noted.iter().flat_map(|text| text.split(',')).filter(|name| !name.is_empty()).collect();
    names.retain(|name| *name != own);
    names.extend(pending.then_some(own));
    names.sort_unstable();
    let text = names.join(",");
    if text.is_empty() {
        remove(meta, PENDING_HOOKS_ANNOTATION);
    } else {
        meta.annotations.get_or_insert_default().insert(PENDING_HOOKS_ANNOTATION.to_owned(), text);
    }
}

fn remove(meta: &mut ObjectMeta, key: &str) {
    let gone = meta.annotations.as_mut().is_some_and(|all| all.remove(key).is_some() && all.is_empty());
    if gone {
        meta.annotations = None;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn machine(spec: Value) -> Value {
        json!({"apiVersion": "a/v1", "kind": "Machine", "metadata": {"name": "m", "uid": "u"}, "spec": spec, "status": {"x": 1}})
    }

    fn question(current: Value, desired: Value) -> Question {
        let infrastructure = json!({"kind": "Infra", "spec": {"size": 1}});
        let (current, desired) = (machine(current), machine(desired));
        let objects = |main| Objects { main, infrastructure: &infrastructure, bootstrap: None };
        can_update(Hook::CanUpdateMachine, "h", &objects(&current), &objects(&desired))
    }

    fn patch(kind: &str, patch: Value) -> Value {
        json!({"patchType": kind, "patch": ByteString(patch.to_string().into_bytes())})
    }

    #[test]
    fn extensions_see_neither_status_nor_what_the_server_keeps() {
        let asked = question(json!({"version": "v1"}), json!({"version": "v2"})).request;
        let wanted =
            json!({"apiVersion": "a/v1", "kind": "Machine", "metadata": {"name": "m"}, "spec": {"version": "v1"}});
        assert_eq!(asked["current"]["machine"], wanted);
        assert_eq!(asked["current"].get("bootstrapConfig"), None);
    }

    #[test]
    fn what_no_patch_covers_stands_in_the_way() {
        let question = question(json!({"version": "v1"}), json!({"version": "v2"}));
        let none = covers(&question, &json!({})).unwrap();
        assert_eq!(none.unwrap_err(), "Machine cannot be updated in-place: spec.version differs");
        for patch in [
            patch("JSONMergePatch", json!({"spec": {"version": "v2"}, "kind": "Other"})),
            patch("JSONPatch", json!([{"op": "replace", "path": "/spec/version", "value": "v2"}])),
        ] {
            assert_eq!(covers(&question, &json!({ "machinePatch": patch })).unwrap(), Ok(()), "{patch}");
        }
        let other = json!({"machinePatch": patch("JSONMergePatch", json!({"spec": {"version": "v3"}}))});
        assert!(covers(&question, &other).unwrap().is_err());
        let wrong = json!({"machinePatch": patch("JSONMergePatch", json!({"spec": null}))});
        assert_eq!(covers(&question, &wrong).unwrap_err(), "machinePatch: the patch leaves no spec");
    }

    #[test]
    fn what_changes_without_help_needs_none() {
        let current = json!({"version": "v1", "taints": [1], "deletion": {"nodeDrainTimeoutSeconds": 1}});
        let question = question(current, json!({"version": "v1", "minReadySeconds": 3}));
        assert_eq!(covers(&question, &json!({})).unwrap(), Ok(()));
    }

    #[test]
    fn other_hooks_that_are_pending_stay() {
        let mut meta = ObjectMeta::default();
        expect(&mut meta, true);
        mark(&mut meta, true);
        assert!(is_pending(&meta) && is_marked(&meta));
        let noted = || "Other,UpdateMachine".to_owned();
        meta.annotations.as_mut().unwrap().insert(PENDING_HOOKS_ANNOTATION.into(), noted());
        expect(&mut meta, true);
        assert_eq!(meta.annotations.as_ref().unwrap()[PENDING_HOOKS_ANNOTATION], noted());
        expect(&mut meta, false);
        mark(&mut meta, false);
        assert_eq!(meta.annotations.unwrap()[PENDING_HOOKS_ANNOTATION], "Other");
    }
}
