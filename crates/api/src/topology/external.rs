//! Patches that runtime extensions make, and their judgement of what came of all patches.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/topology/cluster/patches, api/runtime/hooks/v1alpha1.

use json_patch::PatchOperation;
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::{
    TopologyError,
    hooks::{Hook, Question, Runtime},
    patches::Draft,
    variables::INLINE,
};
use crate::names::digest;

/// Characters of an item's name in a request.
const ITEM_CHARS: usize = 13;
/// Operations of one JSON patch, and bytes that those which copy may add up to.
const OPERATIONS_MAX: usize = 10_000;
const COPIED_BYTES_MAX: usize = 3 << 20;
/// Levels that a path may have, and what is copied or moved.
const DEPTH_MAX: usize = 100;

/// Has an extension patch the drafts.
///
/// # Errors
/// It has to be asked first, or what it says is no patch.
pub(super) fn generate(
    patch: &Value,
    class: &Value,
    drafts: &mut [Draft],
    globals: &Map<String, Value>,
    runtime: &Runtime,
) -> Result<(), TopologyError> {
    let Some(handler) = handler(patch, "generatePatchesExtension") else { return Ok(()) };
    let response = runtime.answer(question(Hook::GeneratePatches, handler, patch, class, drafts, globals))?.clone();
    let failed = |why: String| TopologyError::Patch { patch: name(patch).to_owned(), why };
    for item in response["items"].as_array().into_iter().flatten() {
        let uid = item["uid"].as_str().unwrap_or_default();
        let draft = drafts.iter_mut().find(|draft| item_name(draft) == uid);
        let draft = draft.ok_or_else(|| failed(format!("the extension patches item {uid:?}, which is not there")))?;
        apply(item, draft).map_err(failed)?;
    }
    Ok(())
}

/// Has an extension judge what came of the patches.
///
/// # Errors
/// It has to be asked first, or it does not agree.
pub(super) fn validate(
    patch: &Value,
    class: &Value,
    drafts: &[Draft],
    globals: &Map<String, Value>,
    runtime: &Runtime,
) -> Result<(), TopologyError> {
    let Some(handler) = handler(patch, "validateTopologyExtension") else { return Ok(()) };
    let mut question = question(Hook::ValidateTopology, handler, patch, class, drafts, globals);
    for item in question.request["items"].as_array_mut().into_iter().flatten() {
        item.as_object_mut().map(|item| item.remove("uid"));
    }
    runtime.answer(question).map(drop)
}

fn name(patch: &Value) -> &str {
    patch["name"].as_str().unwrap_or_default()
}

fn handler<'a>(patch: &'a Value, field: &str) -> Option<&'a str> {
    patch["external"][field].as_str().filter(|name| !name.is_empty())
}

/// It follows from who holds the object, so that the same question is the same.
fn item_name(draft: &Draft) -> String {
    digest(&[&draft.holder.to_string()], ITEM_CHARS)
}

fn question(
    hook: Hook,
    handler: &str,
    patch: &Value,
    class: &Value,
    drafts: &[Draft],
    globals: &Map<String, Value>,
) -> Question {
    let known = of_patch(class, name(patch));
    let items = drafts.iter().map(|draft| {
        json!({
            "uid": item_name(draft), "holderReference": draft.holder, "object": draft.object,
            "variables": listed(&draft.variables, &known),
        })
    });
    let request = json!({"variables": listed(globals, &known), "items": items.collect::<Vec<_>>()});
    Question { hook, handler: Some(handler.to_owned()), request, settings: patch["external"]["settings"].clone() }
}

/// Names of the variables that are defined for a patch: an extension sees those that it has brought along.
fn of_patch(class: &Value, patch: &str) -> Vec<String> {
    let all = class.pointer("/status/variables").and_then(Value::as_array).into_iter().flatten();
    let is_of = |variable: &&Value| {
        let mut definitions = variable["definitions"].as_array().into_iter().flatten();
        definitions.any(|one| one["from"] == patch && one["from"] != INLINE)
    };
    all.filter(is_of).filter_map(|variable| variable["name"].as_str().map(str::to_owned)).collect()
}

fn listed(variables: &Map<String, Value>, known: &[String]) -> Vec<Value> {
    let seen = variables.iter().filter(|(name, _)| *name == "builtin" || known.contains(name));
    seen.map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn apply(item: &Value, draft: &mut Draft) -> Result<(), String> {
    draft.object = patched(&draft.object, item, "/spec")?;
    Ok(())
}

/// The object after `patch` of an extension (`patchType`, and `patch` in base64). What the object is stays: only what it
/// says at `at`, a JSON pointer, is an extension's.
///
/// # Errors
/// It is no patch, cannot be carried out, or leaves nothing at `at`.
pub(crate) fn patched(object: &Value, patch: &Value, at: &str) -> Result<Value, String> {
    let text: ByteString = match &patch["patch"] {
        Value::Null => ByteString::default(),
        text => serde_json::from_value(text.clone()).map_err(|error| format!("the patch is not base64: {error}"))?,
    };
    let mut object = object.clone();
    if text.0.is_empty() {
        return Ok(object);
    }
    let mut changed = object.clone();
    match patch["patchType"].as_str().unwrap_or_default() {
        "JSONPatch" => {
            let patch: json_patch::Patch =
                serde_json::from_slice(&text.0).map_err(|error| format!("no JSON patch (RFC 6902): {error}"))?;
            carry_out(&patch, &mut changed)?;
        }
        "JSONMergePatch" => {
            let patch: Value =
                serde_json::from_slice(&text.0).map_err(|error| format!("no JSON merge patch (RFC 7386): {error}"))?;
            json_patch::merge(&mut changed, &patch);
        }
        other => return Err(format!("patch type {other:?} is not known")),
    }
    let left = changed.pointer_mut(at).filter(|part| part.is_object());
    let left = left.ok_or_else(|| format!("the patch leaves no {}", at.trim_start_matches('/').replace('/', ".")))?;
    let left = left.take();
    let mut place = &mut object;
    for name in at.split('/').skip(1) {
        let fields = place.as_object_mut().ok_or_else(|| format!("there is no object around {name}"))?;
        place = fields.entry(name).or_insert_with(|| Map::new().into());
    }
    *place = left;
    Ok(object)
}

/// The operations one by one: none may grow what it is done to beyond measure.
fn carry_out(patch: &json_patch::Patch, patched: &mut Value) -> Result<(), String> {
    if patch.0.len() > OPERATIONS_MAX {
        return Err(format!("the JSON patch has more than {OPERATIONS_MAX} operations"));
    }
    let mut copied_bytes = 0;
    for operation in &patch.0 {
        let source = match operation {
            PatchOperation::Copy(copy) => patched.pointer(copy.from.as_str()),
            PatchOperation::Move(from) => patched.pointer(from.from.as_str()),
            _ => None,
        };
        let levels = operation.path().as_str().matches('/').count();
        if levels > DEPTH_MAX || source.is_some_and(|source| !is_shallow(source, DEPTH_MAX)) {
            return Err(format!("the JSON patch goes deeper than {DEPTH_MAX} levels"));
        }
        if let (PatchOperation::Copy(_), Some(source)) = (operation, source) {
            copied_bytes += source.to_string().len();
            if copied_bytes > COPIED_BYTES_MAX {
                return Err(format!("the JSON patch copies more than {COPIED_BYTES_MAX} bytes"));
            }
        }
        json_patch::patch_unsafe(patched, std::slice::from_ref(operation))
            .map_err(|error| format!("the JSON patch fails: {error}"))?;
    }
    Ok(())
}

fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return !value.is_object() && !value.is_array() };
    match value {
        Value::Object(fields) => fields.values().all(|value| is_shallow(value, below)),
        Value::Array(items) => items.iter().all(|value| is_shallow(value, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::patches::Use;

    fn patched(kind: &str, patch: &Value) -> Result<Value, String> {
        let object = json!({"kind": "T", "metadata": {"name": "t"}, "spec": {"a": "x".repeat(1024)}});
        let mut draft = Draft { use_: Use::Infrastructure, object, variables: Map::new(), holder: json!({}) };
        let patch = ByteString(patch.to_string().into_bytes());
        apply(&json!({"patchType": kind, "patch": patch}), &mut draft)?;
        Ok(draft.object)
    }

    #[test]
    fn an_extension_changes_the_spec_and_nothing_else() {
        let made = patched("JSONMergePatch", &json!({"kind": "U", "metadata": null, "spec": {"a": 1}})).unwrap();
        assert_eq!(made, json!({"kind": "T", "metadata": {"name": "t"}, "spec": {"a": 1}}));
    }

    #[test]
    fn a_patch_that_leaves_no_object_is_refused() {
        for patch in [json!("x"), json!([1]), json!(7), json!(null), json!({"spec": null}), json!({"spec": "x"})] {
            assert_eq!(patched("JSONMergePatch", &patch).unwrap_err(), "the patch leaves no spec", "{patch}");
        }
        let root = json!([{"op": "replace", "path": "", "value": "x"}]);
        assert_eq!(patched("JSONPatch", &root).unwrap_err(), "the patch leaves no spec");
    }

    #[test]
    fn json_patches_have_limits() {
        let test = json!({"op": "test", "path": "/kind", "value": "T"});
        assert!(patched("JSONPatch", &vec![test.clone(); OPERATIONS_MAX].into()).is_ok());
        assert!(patched("JSONPatch", &vec![test; OPERATIONS_MAX + 1].into()).unwrap_err().contains("operations"));
        let copy = |number: usize| json!({"op": "copy", "from": "/spec", "path": format!("/spec/{number}")});
        let grown = patched("JSONPatch", &(0..40).map(copy).collect());
        assert!(grown.unwrap_err().contains("copies more than"));
        let deep = json!([{"op": "add", "path": "/a".repeat(DEPTH_MAX + 1), "value": 1}]);
        assert!(patched("JSONPatch", &deep).unwrap_err().contains("deeper"));
        let nest = |_| json!({"op": "move", "from": "/spec", "path": "/spec"});
        assert!(patched("JSONPatch", &(0..3).map(nest).collect()).is_ok());
    }
}
