//! The options of a request (meta/v1 ListOptions, CreateOptions, ...) checked as Kubernetes checks them, before anything else
//! is looked at (`apimachinery/pkg/apis/meta/v1/validation`, `meta/internalversion/validation`).

use serde_json::{Value, json};

use crate::{
    field::FieldError,
    path::{Query, Verb},
    status::{Error, Result},
};

/// A field manager's name.
pub(crate) const MANAGER_CHARS_MAX: usize = 128;
const GROUP: &str = "meta.k8s.io";

fn refuse(kind: &str, errors: &[FieldError]) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Error::invalid(GROUP, kind, "", errors)) }
}

/// Of list and deletecollection.
pub(crate) fn list(query: &Query) -> Result<()> {
    const MATCH: &str = "resourceVersionMatch";
    let mut errors = Vec::new();
    if let Some(matching) = query.text(MATCH) {
        let version = query.text("resourceVersion");
        if version.is_none() {
            let text = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(MATCH, text));
        }
        if query.text("continue").is_some() {
            errors.push(FieldError::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
        }
        match matching {
            "Exact" if version == Some("0") => {
                let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(MATCH, text));
            }
            "Exact" | "NotOlderThan" => {}
            other => errors.push(FieldError::not_supported(MATCH, other, &["Exact", "NotOlderThan", ""])),
        }
    }
    if query.optional_flag("sendInitialEvents").is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    refuse("ListOptions", &errors)
}

/// Of watch.
pub(crate) fn watch(query: &Query) -> Result<()> {
    const MATCH: &str = "resourceVersionMatch";
    let mut errors = Vec::new();
    let initial = query.optional_flag("sendInitialEvents").is_some();
    let matching = query.text(MATCH);
    if initial && matching != Some("NotOlderThan") {
        let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(MATCH, text));
    }
    if let Some(matching) = matching {
        if !initial {
            let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(MATCH, text));
        }
        if matching != "NotOlderThan" {
            errors.push(FieldError::not_supported(MATCH, matching, &["NotOlderThan"]));
        }
        if query.text("continue").is_some() {
            errors.push(FieldError::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    refuse("ListOptions", &errors)
}

/// Which options a write has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Create,
    Update,
    Patch { apply: bool },
}

/// Of create, update and patch.
pub(crate) fn write(query: &Query, write: Write) -> Result<()> {
    let mut errors = Vec::new();
    let manager = query.text("fieldManager").unwrap_or_default();
    if let Write::Patch { apply } = write {
        if apply && manager.is_empty() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        if !apply && query.optional_flag("force").is_some() {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
    }
    check_manager(manager, &mut errors);
    check_dry_run(&query.all("dryRun").collect::<Vec<_>>(), &mut errors);
    if let Some(validation) = query.text("fieldValidation")
        && !matches!(validation, "Ignore" | "Warn" | "Strict")
    {
        errors.push(FieldError::not_supported("fieldValidation", validation, &["", "Ignore", "Strict", "Warn"]));
    }
    let kind = match write {
        Write::Create => "CreateOptions",
        Write::Update => "UpdateOptions",
        Write::Patch { .. } => "PatchOptions",
    };
    refuse(kind, &errors)
}

fn check_manager(manager: &str, errors: &mut Vec<FieldError>) {
    if manager.len() > MANAGER_CHARS_MAX {
        errors.push(FieldError::too_long("fieldManager", MANAGER_CHARS_MAX));
    }
    for (at, character) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let text = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
        errors.push(FieldError::invalid("fieldManager", manager, text));
    }
}

fn check_dry_run(values: &[&str], errors: &mut Vec<FieldError>) {
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported("dryRun", json!(values), &["All"]));
    }
}

/// Of delete and deletecollection; `body` is DeleteOptions or null.
pub(crate) fn delete(body: &Value, query: &Query) -> Result<()> {
    let mut errors = Vec::new();
    let policy = body["propagationPolicy"].as_str().or(query.text("propagationPolicy"));
    let orphan = body["orphanDependents"].as_bool().or(query.optional_flag("orphanDependents"));
    if let (Some(policy), Some(_)) = (policy, orphan) {
        let text = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid("propagationPolicy", policy, text));
    }
    if let Some(policy) = policy
        && !matches!(policy, "Foreground" | "Background" | "Orphan")
    {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        errors.push(FieldError::not_supported("propagationPolicy", policy, &supported));
    }
    let mut dry_run: Vec<&str> = body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if body.is_null() {
        dry_run.extend(query.all("dryRun"));
    }
    check_dry_run(&dry_run, &mut errors);
    refuse("DeleteOptions", &errors)
}

/// The options of a write as admission sees them.
pub(crate) fn shown(verb: Verb, query: &Query) -> Value {
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        _ => return Value::Null,
    };
    let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if query.dry_run() {
        value["dryRun"] = json!(["All"]);
    }
    for key in ["fieldManager", "fieldValidation"] {
        if let Some(text) = query.text(key).filter(|text| !text.is_empty()) {
            value[key] = text.into();
        }
    }
    if verb == Verb::Patch
        && let Some(force) = query.optional_flag("force")
    {
        value["force"] = force.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).unwrap()
    }

    #[test]
    fn a_manager_of_one_character_too_many_is_refused() {
        let manager = |n: usize| query(&format!("fieldManager={}", "m".repeat(n)));
        assert!(write(&manager(MANAGER_CHARS_MAX), Write::Create).is_ok());
        let error = write(&manager(MANAGER_CHARS_MAX + 1), Write::Create).unwrap_err();
        assert_eq!(error.code(), 422);
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        for bad in ["resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=Exact", "sendInitialEvents=1"]
        {
            assert_eq!(list(&query(bad)).unwrap_err().code(), 422, "{bad}");
        }
        for bad in ["sendInitialEvents=1", "resourceVersionMatch=NotOlderThan"] {
            assert_eq!(watch(&query(bad)).unwrap_err().code(), 422, "{bad}");
        }
        assert!(write(&query("force=true"), Write::Patch { apply: false }).is_err());
        assert!(write(&query("force=true"), Write::Patch { apply: true }).is_err());
        assert!(delete(&Value::Null, &query("propagationPolicy=Sideways")).is_err());
        assert!(delete(&json!({"dryRun": ["All"]}), &query("")).is_ok());
    }
}
