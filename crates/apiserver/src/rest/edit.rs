//! The ways to say what an object is to become.

use serde_json::Value;

use super::scale;
use crate::{
    apply::{self, ApplyError, ApplyInput},
    object::{self, set_at, text_at},
    patch::{self, PatchError},
    status::{Cause, Error, Result},
    write::{FieldValidation, Scope, rfc3339},
};

pub(crate) enum Edit {
    /// PUT.
    Replace(Value),
    JsonPatch(Value),
    MergePatch(Value),
    StrategicMergePatch(Value),
    /// Server-side apply; `force` takes fields over from whoever owns them.
    Apply {
        config: Value,
        force: bool,
    },
    /// A pod is put on a node (the Binding's `target.name`).
    Bind {
        node: String,
        annotations: Value,
    },
}

impl Edit {
    pub(crate) fn may_create(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }

    /// Whether managedFields are part of the outcome.
    pub(crate) fn is_apply(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }

    /// What the object is to become.
    pub(crate) fn apply_to(&self, scope: &mut Scope, old: Option<&Value>) -> Result<Value> {
        let kind = std::sync::Arc::clone(&scope.kind);
        match (scope.subresource.as_str(), &kind.scale, old) {
            ("scale", Some(paths), Some(old)) => {
                let mut view = scale::view(paths, old);
                if let Self::Apply { config, .. } = self {
                    patch::merge_patch(&mut view, config);
                } else {
                    view = self.on(scope, &view)?;
                }
                scale::write_back(&scope.kind, paths, &view, old)
            }
            (_, _, Some(old)) => self.on(scope, old),
            (_, _, None) => self.make(scope),
        }
    }

    fn on(&self, scope: &mut Scope, old: &Value) -> Result<Value> {
        let mut object = old.clone();
        match self {
            Self::Replace(new) => object.clone_from(new),
            Self::JsonPatch(ops) => {
                patch::json_patch(&mut object, ops).map_err(|e| patch_error(&e))?;
            }
            Self::MergePatch(patch) => patch::merge_patch(&mut object, patch),
            Self::StrategicMergePatch(patch) => {
                let Some(schema) = scope.kind.schema() else { return Err(Error::no_such_path()) };
                patch::strategic_merge_patch(&mut object, patch, &schema).map_err(|e| patch_error(&e))?;
            }
            Self::Apply { config, force } => return run_apply(scope, Some(old), config, *force),
            Self::Bind { node, annotations } => {
                let bound = text_at(&object, &["spec", "nodeName"]);
                if !bound.is_empty() {
                    let text = format!("pod {} is already assigned to node \"{bound}\"", object::name(&object));
                    return Err(scope.conflict(&text));
                }
                if object::is_deleting(&object) {
                    let text = format!("pod {} is being deleted, cannot be assigned to a host", object::name(&object));
                    return Err(scope.conflict(&text));
                }
                set_at(&mut object, &["spec", "nodeName"], node.as_str().into());
                for (key, value) in annotations.as_object().into_iter().flatten() {
                    set_at(&mut object, &["metadata", "annotations", key], value.clone());
                }
            }
        }
        if !object.is_object() {
            return Err(Error::bad_request("the patch does not leave an object"));
        }
        scope.is_patch = matches!(self, Self::JsonPatch(_) | Self::MergePatch(_) | Self::StrategicMergePatch(_));
        let shown = scope.is_patch && scope.validation == FieldValidation::Strict;
        scope.patched = shown.then(|| self.printed(&object));
        let checked = crate::write::check_type(&mut object, text_at(old, &["apiVersion"]), text_at(old, &["kind"]));
        if !scope.is_patch || scope.subresource == "scale" {
            checked.map_err(|wrong| wrong.into_error(&scope.kind))?;
            return Ok(object);
        }
        checked.map_err(|wrong| Error::bad_patch(&self.printed(&object), &wrong.reason()))?;
        crate::write::fit(&scope.kind, &object).map_err(|why| Error::bad_patch(&self.printed(&object), &why))?;
        crate::decode::fill(&scope.kind, &mut object);
        crate::decode::drop_empty(&scope.kind, &mut object);
        Ok(object)
    }

    /// What a patch has made of an object, as errors show it.
    fn printed(&self, object: &Value) -> String {
        match self {
            Self::StrategicMergePatch(patch) => patch::printed(patch),
            _ => object.to_string(),
        }
    }

    fn make(&self, scope: &mut Scope) -> Result<Value> {
        match self {
            Self::Apply { config, force } => run_apply(scope, None, config, *force),
            _ => Err(scope.not_found()),
        }
    }
}

fn patch_error(error: &PatchError) -> Error {
    match error {
        PatchError::TooManyOperations(_) => Error::patch_too_large(error),
        PatchError::Strategic(_) => Error::internal_plain(error),
        _ => Error::unprocessable(),
    }
}

fn run_apply(scope: &mut Scope, live: Option<&Value>, config: &Value, force: bool) -> Result<Value> {
    let kind = std::sync::Arc::clone(&scope.kind);
    let Some(schema) = kind.schema() else { return Err(Error::no_such_path()) };
    let mut draft = crate::write::Draft { object: config.clone() };
    if !config.is_object() && !config.is_null() {
        let found = match config {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            _ => "bool",
        };
        return Err(Error::bad_request(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value \
             of type map[string]interface {{}}"
        )));
    }
    let (said_version, said_kind) = (text_at(config, &["apiVersion"]), text_at(config, &["kind"]));
    if said_version != kind.api_version() || said_kind != kind.kind {
        let (group, version) = crate::kinds::split_api_version(said_version);
        return Err(Error::bad_request(format!("invalid object type: {group}/{version}, Kind={said_kind}")));
    }
    if object::meta(&draft.object).is_some_and(|m| m.contains_key("managedFields")) {
        return Err(Error::bad_request("metadata.managedFields must be nil"));
    }
    crate::decode::fill(&kind, &mut draft.object);
    let name = object::name(&draft.object);
    if name.is_empty() {
        return Err(Error::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            scope.name
        )));
    }
    if name != scope.name {
        return Err(Error::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            scope.name
        )));
    }
    if live.is_none() && !object::resource_version(&draft.object).is_empty() {
        object::meta_mut(&mut draft.object).remove("resourceVersion");
    }
    if live.is_none() && !object::uid(&draft.object).is_empty() {
        let uid = object::uid(&draft.object);
        let text = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(scope.conflict(&text));
    }
    // What is written through the object itself is not the status: its applier does not come to own it.
    if kind.status
        && scope.subresource.is_empty()
        && let Some(fields) = draft.object.as_object_mut()
    {
        fields.remove("status");
    }
    let now = rfc3339(scope.server.now());
    let input = ApplyInput {
        live,
        config: &draft.object,
        manager: &scope.manager,
        force,
        subresource: &scope.subresource,
        api_version: &kind.api_version(),
        now: &now,
        schema: &schema,
    };
    apply::apply(input).map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts.iter().map(|c| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: c.message(),
                field: c.path.clone(),
            });
            let causes: Vec<Cause> = causes.collect();
            Error::apply_conflict(ApplyError::Conflicts(conflicts).to_string(), causes)
        }
        faults @ ApplyError::Untyped(_) => {
            let (api_version, name) = (kind.api_version(), &scope.name);
            let full = if api_version.contains('/') { api_version } else { format!("/{api_version}") };
            let namespace = object::namespace(&draft.object);
            Error::internal_plain(format!(
                "failed to create typed patch object ({namespace}/{name}; {full}, Kind={}): {faults}",
                kind.kind
            ))
        }
    })
}

pub(crate) use scale::{view as scale_view, write_back as scale_write_back};
