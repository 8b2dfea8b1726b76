//! Inline patches of a ClusterClass: which template each is about, whether it is enabled, and what it makes of it.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/topology/cluster/patches.

use serde_json::{Map, Value};

use super::{TopologyError, desired::Group, external, hooks::Runtime, template};

/// What a template is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Infrastructure,
    ControlPlane,
    ControlPlaneMachines,
    /// Of workers: what they are made as, and their class.
    Workers(Group, String),
}

/// A template on its way.
#[derive(Clone, Debug)]
pub struct Draft {
    pub use_: Use,
    pub object: Value,
    /// Built-in variables and overrides that hold for this one, in the form of a map by name.
    pub variables: Map<String, Value>,
    /// What refers to it: `apiVersion`, `kind`, `namespace`, `name` and `fieldPath`.
    pub holder: Value,
}

/// Carries out the patches of a class, in their order, and has extensions judge what came of them.
///
/// # Errors
/// Which patch cannot be carried out, and why; what has to be asked first.
pub fn apply(
    class: &Value,
    drafts: &mut [Draft],
    globals: &Map<String, Value>,
    runtime: &Runtime,
) -> Result<(), TopologyError> {
    let patches = class.pointer("/spec/patches").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_external = |patch: &&Value| patch["external"].is_object();
    for patch in patches {
        let name = patch["name"].as_str().unwrap_or_default();
        let failed = |why: String| TopologyError::Patch { patch: name.to_owned(), why };
        if is_external(&patch) {
            external::generate(patch, class, drafts, globals, runtime)?;
            continue;
        }
        for draft in &mut *drafts {
            let all = patch["definitions"].as_array().into_iter().flatten();
            let definitions: Vec<&Value> = all.filter(|one| is_about(&one["selector"], draft)).collect();
            if definitions.is_empty() {
                continue;
            }
            let variables = merged(globals, &draft.variables);
            let enabled = match patch["enabledIf"].as_str().filter(|condition| !condition.is_empty()) {
                Some(condition) => rendered(condition, &variables).map_err(failed)? == Value::Bool(true),
                None => true,
            };
            if !enabled {
                continue;
            }
            for definition in definitions {
                for change in definition["jsonPatches"].as_array().into_iter().flatten() {
                    carry_out(change, &variables, &mut draft.object).map_err(failed)?;
                }
            }
        }
    }
    for patch in patches.iter().filter(is_external) {
        external::validate(patch, class, drafts, globals, runtime)?;
    }
    Ok(())
}

/// Variables of a template win over those of the cluster; built-in ones are merged.
fn merged(globals: &Map<String, Value>, own: &Map<String, Value>) -> Value {
    let mut all = globals.clone();
    for (name, value) in own {
        match (all.get_mut(name), value) {
            (Some(Value::Object(there)), Value::Object(value)) if name == "builtin" => {
                there.extend(value.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            _ => drop(all.insert(name.clone(), value.clone())),
        }
    }
    all.into()
}

fn is_about(selector: &Value, draft: &Draft) -> bool {
    if selector["apiVersion"] != draft.object["apiVersion"] || selector["kind"] != draft.object["kind"] {
        return false;
    }
    let resources = &selector["matchResources"];
    match &draft.use_ {
        Use::Infrastructure => resources["infrastructureCluster"] == true,
        Use::ControlPlane | Use::ControlPlaneMachines => resources["controlPlane"] == true,
        Use::Workers(group, class) => {
            let field = match group {
                Group::Deployments => "machineDeploymentClass",
                Group::Pools => "machinePoolClass",
            };
            let names = resources[field]["names"].as_array().into_iter().flatten();
            names.filter_map(Value::as_str).any(|name| fits(name, class))
        }
    }
}

/// A name may have a star at its start or its end.
pub(crate) fn fits(name: &str, class: &str) -> bool {
    name == class
        || name.strip_prefix('*').is_some_and(|end| class.ends_with(end))
        || name.strip_suffix('*').is_some_and(|start| class.starts_with(start))
}

/// What a template makes, read as YAML.
fn rendered(text: &str, variables: &Value) -> Result<Value, String> {
    let text = template::render(text, variables).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(&text).map_err(|error| format!("what a template makes is no YAML: {error}"))
}

/// The value of a variable such as `builtin.cluster.name` or `subnets[0].id`.
pub fn variable<'a>(variables: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = variables;
    for part in path.split('.') {
        let (name, indices) = part.split_once('[').map_or((part, None), |(name, rest)| (name, Some(rest)));
        value = value.get(name)?;
        for index in indices.into_iter().flat_map(|rest| rest.split('[')) {
            value = value.get(index.strip_suffix(']')?.parse::<usize>().ok()?)?;
        }
    }
    Some(value)
}

fn carry_out(change: &Value, variables: &Value, object: &mut Value) -> Result<(), String> {
    let path = change["path"].as_str().unwrap_or_default();
    if path != "/spec" && !path.starts_with("/spec/") {
        return Err(format!("path {path:?} is not below /spec"));
    }
    let from = &change["valueFrom"];
    let value = match (change.get("value"), from["variable"].as_str(), from["template"].as_str()) {
        (Some(value), _, _) => value.clone(),
        (None, Some(name), _) => {
            variable(variables, name).cloned().ok_or_else(|| format!("variable {name:?} has no value"))?
        }
        (None, None, Some(text)) => rendered(text, variables)?,
        (None, None, None) if change["op"] == "remove" => Value::Null,
        (None, None, None) => return Err(format!("the change of {path} has no value")),
    };
    edit(object, change["op"].as_str().unwrap_or_default(), path, value)
}

/// One operation of RFC 6902.
fn edit(object: &mut Value, operation: &str, path: &str, value: Value) -> Result<(), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is no path"))?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let missing = || format!("cannot {operation} {path}: it does not exist");
    match object.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(fields) => match operation {
            "add" => drop(fields.insert(last, value)),
            "replace" => *fields.get_mut(&last).ok_or_else(missing)? = value,
            "remove" => drop(fields.remove(&last).ok_or_else(missing)?),
            _ => return Err(format!("operation {operation:?} is not known")),
        },
        Value::Array(items) => {
            let index = if last == "-" { Some(items.len()) } else { last.parse::<usize>().ok() };
            let index = index.ok_or_else(|| format!("{last:?} is no place in a list"))?;
            match operation {
                "add" if index <= items.len() => items.insert(index, value),
                "replace" if index < items.len() => items[index] = value,
                "remove" if index < items.len() => drop(items.remove(index)),
                "add" | "replace" | "remove" => return Err(missing()),
                _ => return Err(format!("operation {operation:?} is not known")),
            }
        }
        _ => return Err(missing()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft(use_: Use, kind: &str) -> Draft {
        let object =
            json!({"apiVersion": "x/v1", "kind": kind, "spec": {"template": {"spec": {"a": 1, "list": ["x"]}}}});
        let variables = json!({"builtin": {"controlPlane": {"version": "v1.34.2"}}});
        Draft { use_, object, variables: variables.as_object().cloned().unwrap(), holder: json!({"kind": kind}) }
    }

    fn globals() -> Map<String, Value> {
        let globals =
            json!({"image": "ubuntu", "on": true, "list": [{"id": "7"}], "builtin": {"cluster": {"name": "c"}}});
        globals.as_object().cloned().unwrap()
    }

    fn patch(selector: Value, changes: Value) -> Value {
        json!({"name": "p", "definitions": [{"selector": {"apiVersion": "x/v1", "kind": "T", "matchResources": selector}, "jsonPatches": changes}]})
    }

    fn patched(patch: Value, use_: Use) -> Result<Value, String> {
        let mut drafts = [draft(use_, "T")];
        let class = json!({"spec": {"patches": [patch]}});
        apply(&class, &mut drafts, &globals(), &Runtime::default()).map_err(|error| error.to_string())?;
        Ok(drafts[0].object["spec"]["template"]["spec"].clone())
    }

    #[test]
    fn a_patch_changes_the_templates_that_it_selects() {
        let change = json!([
            {"op": "add", "path": "/spec/template/spec/b", "valueFrom": {"template": "name: {{ .image }}-{{ .builtin.controlPlane.version }}"}},
            {"op": "replace", "path": "/spec/template/spec/a", "valueFrom": {"variable": "list[0].id"}},
            {"op": "add", "path": "/spec/template/spec/list/-", "value": "y"},
            {"op": "add", "path": "/spec/template/spec/cluster", "valueFrom": {"variable": "builtin.cluster.name"}},
        ]);
        let wanted = json!({"a": "7", "b": {"name": "ubuntu-v1.34.2"}, "list": ["x", "y"], "cluster": "c"});
        let control_plane = json!({"controlPlane": true});
        assert_eq!(patched(patch(control_plane.clone(), change.clone()), Use::ControlPlaneMachines), Ok(wanted));
        let same = json!({"a": 1, "list": ["x"]});
        assert_eq!(patched(patch(control_plane, change.clone()), Use::Infrastructure), Ok(same.clone()));
        let workers = json!({"machineDeploymentClass": {"names": ["small", "gpu-*"]}});
        let remove = json!([{"op": "remove", "path": "/spec/template/spec/a"}]);
        assert_eq!(
            patched(patch(workers.clone(), remove.clone()), Use::Workers(Group::Deployments, "gpu-a".into())),
            Ok(json!({"list": ["x"]}))
        );
        let large = || Use::Workers(Group::Deployments, "large".into());
        assert_eq!(patched(patch(workers.clone(), remove.clone()), large()), Ok(same.clone()));
        let pool = || Use::Workers(Group::Pools, "small".into());
        assert_eq!(patched(patch(workers, remove.clone()), pool()), Ok(same), "a pool is no deployment");
        let pools = json!({"machinePoolClass": {"names": ["*all"]}});
        assert_eq!(patched(patch(pools, remove), pool()), Ok(json!({"list": ["x"]})));
    }

    #[test]
    fn a_condition_enables_a_patch_when_it_is_true() {
        let change = json!([{"op": "remove", "path": "/spec/template/spec/a"}]);
        for (condition, enabled) in
            [("{{ .on }}", true), ("{{ if .absent }}true{{ end }}", false), ("maybe", false), ("", true)]
        {
            let mut patch = patch(json!({"infrastructureCluster": true}), change.clone());
            patch["enabledIf"] = condition.into();
            assert_eq!(patched(patch, Use::Infrastructure).unwrap().get("a").is_none(), enabled, "{condition}");
        }
    }

    #[test]
    fn a_patch_that_cannot_be_carried_out_is_named() {
        for (change, wanted) in [
            (json!({"op": "remove", "path": "/spec/template/spec/none"}), "does not exist"),
            (json!({"op": "add", "path": "/metadata/labels", "value": 1}), "not below /spec"),
            (json!({"op": "add", "path": "/spec/a", "valueFrom": {"variable": "nothing"}}), "nothing"),
            (json!({"op": "add", "path": "/spec/template/spec/list/9", "value": 1}), "does not exist"),
            (json!({"op": "add", "path": "/spec/a", "valueFrom": {"template": "{{ fail \"no\" }}"}}), "no"),
        ] {
            let error = patched(patch(json!({"infrastructureCluster": true}), json!([change])), Use::Infrastructure)
                .unwrap_err();
            assert!(error.contains("patch p") && error.contains(wanted), "{error}");
        }
    }
}
