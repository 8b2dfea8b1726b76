//! The patches of RFC 6902 (JSON patch), RFC 7386 (merge patch) and Kubernetes' strategic merge patch, on plain values.
//! Server-side apply is [`crate::apply`].

mod strategic;

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

pub(crate) use strategic::printed;
pub use strategic::strategic_merge_patch;

/// Operations of one JSON patch (upstream: `apiserver/pkg/endpoints/handlers/patch.go`).
pub const OPERATIONS_LIMIT: usize = 10_000;
/// Bytes that the copy operations of one JSON patch may add up to.
pub const COPIED_LIMIT_BYTES: usize = 3 << 20;
/// Levels of nesting that a patched object may have: deeper ones could not be read again.
pub const DEPTH_LIMIT: usize = 100;
/// How often the depth is looked at while operations run; each can add few levels.
const DEPTH_CHECK_INTERVAL: usize = 64;

/// Why a patch does not apply. The object is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_LIMIT}, got {0}")]
    TooManyOperations(usize),
    #[error("the copy operations of the JSON patch make more than {COPIED_LIMIT_BYTES} bytes")]
    TooMuchCopied,
    #[error("the patched object is nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    #[error("error decoding patch: {0}")]
    Malformed(String),
    /// A `test` operation found something else.
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
    #[error("{operation} operation does not apply: doc is missing path: {path:?}: missing value")]
    MissingPath { operation: &'static str, path: String },
    /// A strategic merge patch that contradicts itself or the object's schema.
    #[error("{0}")]
    Strategic(String),
}

/// Runs all operations of a JSON patch, or none.
pub fn json_patch(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_LIMIT {
        return Err(PatchError::TooManyOperations(count));
    }
    let mut patch = patch.clone();
    lenient(&mut patch);
    for operation in patch.as_array_mut().into_iter().flatten() {
        let negative = operation["path"].as_str().filter(|path| path.contains("/-")).map(str::to_owned);
        if let Some(path) = negative.and_then(|path| from_the_end(object, &path)) {
            operation["path"] = path.into();
        }
    }
    let operations: Vec<PatchOperation> =
        serde_json::from_value(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut next = object.clone();
    let mut copied_bytes = 0;
    for (index, operation) in operations.iter().enumerate() {
        let operation = &as_done(&next, operation);
        if let PatchOperation::Copy(copy) = operation
            && let Some(source) = next.pointer(copy.from.as_str())
        {
            copied_bytes += source.to_string().len();
            if copied_bytes > COPIED_LIMIT_BYTES {
                return Err(PatchError::TooMuchCopied);
            }
        }
        json_patch::patch_unsafe(&mut next, std::slice::from_ref(operation)).map_err(|error| {
            let path = operation.path().as_str().to_owned();
            match (error.kind, operation) {
                (PatchErrorKind::TestFailed, _) => PatchError::TestFailed(path),
                (_, PatchOperation::Test(_)) => PatchError::TestFailed(path),
                (PatchErrorKind::InvalidFromPointer, PatchOperation::Copy(copy)) => {
                    PatchError::MissingPath { operation: "copy", path: copy.from.as_str().to_owned() }
                }
                (PatchErrorKind::InvalidFromPointer, PatchOperation::Move(from)) => {
                    PatchError::MissingPath { operation: "move", path: from.from.as_str().to_owned() }
                }
                _ => PatchError::MissingPath { operation: name(operation), path },
            }
        })?;
        if index % DEPTH_CHECK_INTERVAL == DEPTH_CHECK_INTERVAL - 1 {
            check_depth(&next)?;
        }
    }
    check_depth(&next)?;
    *object = next;
    Ok(())
}

/// What upstream's library lets pass: a value that is left out is null, and what stands before the first slash of a path is
/// nothing.
fn lenient(patch: &mut Value) {
    for operation in patch.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        let needs_value = matches!(operation.get("op").and_then(Value::as_str), Some("add" | "replace" | "test"));
        if needs_value && !operation.contains_key("value") {
            operation.insert("value".to_owned(), Value::Null);
        }
        for key in ["path", "from"] {
            if let Some(Value::String(path)) = operation.get_mut(key)
                && !path.starts_with('/')
                && let Some(slash) = path.find('/')
            {
                path.drain(..slash);
            }
        }
    }
}

/// Upstream's library counts from the end where an index is negative.
fn from_the_end(object: &Value, path: &str) -> Option<String> {
    let mut here = Some(object);
    let mut out = String::with_capacity(path.len());
    let mut changed = false;
    for step in path.split('/').skip(1) {
        let back = step.strip_prefix('-').and_then(|number| number.parse::<usize>().ok()).filter(|back| *back > 0);
        let index = here.and_then(Value::as_array).zip(back).and_then(|(list, back)| list.len().checked_sub(back));
        let step = index.map_or_else(|| step.to_owned(), |index| index.to_string());
        changed |= index.is_some();
        here = here.and_then(|value| value.pointer(&format!("/{step}")));
        out.push('/');
        out.push_str(&step);
    }
    changed.then_some(out)
}

/// Upstream's library replaces what is not there in an object, and finds null there.
fn as_done(object: &Value, operation: &PatchOperation) -> PatchOperation {
    let lacks = |path: &str| {
        let parent = path.rsplit_once('/').map(|(parent, _)| parent);
        object.pointer(path).is_none() && parent.and_then(|at| object.pointer(at)).is_some_and(Value::is_object)
    };
    match operation {
        PatchOperation::Replace(replace) if lacks(replace.path.as_str()) => {
            PatchOperation::Add(json_patch::AddOperation { path: replace.path.clone(), value: replace.value.clone() })
        }
        PatchOperation::Test(test) if test.value.is_null() && lacks(test.path.as_str()) => {
            PatchOperation::Test(json_patch::TestOperation { path: Default::default(), value: object.clone() })
        }
        other => other.clone(),
    }
}

fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

/// Walks without recursion, for what it looks for is too much of it.
fn check_depth(value: &Value) -> Result<(), PatchError> {
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        if depth > DEPTH_LIMIT {
            return Err(PatchError::TooDeep);
        }
        match value {
            Value::Object(fields) => open.extend(fields.values().map(|value| (value, depth + 1))),
            Value::Array(list) => open.extend(list.iter().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

/// Merges maps field by field; null removes a field, and lists are replaced whole.
pub fn merge_patch(object: &mut Value, patch: &Value) {
    json_patch::merge(object, patch);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(object: Value, patch: Value) -> Result<Value, String> {
        let mut patched = object.clone();
        match json_patch(&mut patched, &patch) {
            Ok(()) => Ok(patched),
            Err(error) => {
                assert_eq!(patched, object, "a failed patch changes nothing");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn json_patches_apply_whole_or_not_at_all() {
        let object = json!({"a": {"b": [1, 2]}, "x~/y": 1});
        let patch = json!([
            {"op": "test", "path": "/a/b/0", "value": 1},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "replace", "path": "/x~0~1y", "value": null},
            {"op": "copy", "from": "/a/b", "path": "/c"},
            {"op": "move", "from": "/a", "path": "/d"},
            {"op": "remove", "path": "/d/b/0"},
        ]);
        assert_eq!(run(object.clone(), patch), Ok(json!({"x~/y": null, "c": [1, 2, 3], "d": {"b": [2, 3]}})));
        let cases = [
            (
                json!([{"op": "add", "path": "/n", "value": 1}, {"op": "test", "path": "/a/b/0", "value": 2}]),
                "testing value /a/b/0 failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/q"}]),
                "remove operation does not apply: doc is missing path: \"/q\": missing value",
            ),
            (
                json!([{"op": "copy", "from": "/q", "path": "/r"}]),
                "copy operation does not apply: doc is missing path: \"/q\": missing value",
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(run(object.clone(), patch), Err(expected.to_owned()));
        }
        assert!(
            run(object.clone(), json!([{"op": "none", "path": "/a"}])).unwrap_err().starts_with("error decoding patch")
        );
        assert!(run(object, json!({"a": 1})).unwrap_err().starts_with("error decoding patch"));
    }

    #[test]
    fn json_patches_have_limits() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        let many = |count: usize| Value::Array(vec![test.clone(); count]);
        assert!(run(json!({"a": 1}), many(OPERATIONS_LIMIT)).is_ok());
        let refused = run(json!({"a": 1}), many(OPERATIONS_LIMIT + 1));
        assert_eq!(refused.unwrap_err(), "The allowed maximum operations in a JSON patch is 10000, got 10001");

        let doubling: Vec<_> = (0..40).map(|n| json!({"op": "copy", "from": "", "path": format!("/{n}")})).collect();
        assert!(run(json!({"a": "x"}), doubling.into()).unwrap_err().contains("3145728 bytes"));

        let nest = |times: usize| {
            let mut operations = Vec::new();
            for n in 0..times {
                let (from, to) = if n % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
                operations.push(json!({"op": "add", "path": to, "value": {}}));
                operations.push(json!({"op": "move", "from": from, "path": format!("{to}/x")}));
            }
            run(json!({"a": {}}), operations.into())
        };
        assert!(nest(DEPTH_LIMIT - 2).is_ok());
        assert!(nest(DEPTH_LIMIT - 1).unwrap_err().contains("deeper than 100 levels"));
        assert!(nest(4_000).unwrap_err().contains("deeper than 100 levels"));
    }

    #[test]
    fn merge_patches_remove_with_null_and_replace_lists() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "gone": 1});
        merge_patch(&mut object, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3], "gone": null}));
        assert_eq!(object, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
    }
}
