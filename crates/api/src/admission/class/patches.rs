//! Patches of a class: their names, what they are about, and what they change.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Problem, items, template};
use crate::topology::{patches::fits, variables};

/// Built-in variables (`api/runtime/hooks/v1alpha1/topologymutation_variable_types.go`).
const BUILTIN: &[&str] = &[
    "builtin",
    "builtin.cluster",
    "builtin.cluster.name",
    "builtin.cluster.namespace",
    "builtin.cluster.uid",
    "builtin.cluster.metadata.labels",
    "builtin.cluster.metadata.annotations",
    "builtin.cluster.topology",
    "builtin.cluster.topology.classRef.name",
    "builtin.cluster.topology.classRef.namespace",
    "builtin.cluster.topology.class",
    "builtin.cluster.topology.classNamespace",
    "builtin.cluster.topology.version",
    "builtin.cluster.network",
    "builtin.cluster.network.serviceDomain",
    "builtin.cluster.network.services",
    "builtin.cluster.network.pods",
    "builtin.controlPlane",
    "builtin.controlPlane.name",
    "builtin.controlPlane.replicas",
    "builtin.controlPlane.version",
    "builtin.controlPlane.metadata.labels",
    "builtin.controlPlane.metadata.annotations",
    "builtin.controlPlane.machineTemplate.infrastructureRef.name",
    "builtin.machineDeployment",
    "builtin.machineDeployment.class",
    "builtin.machineDeployment.name",
    "builtin.machineDeployment.replicas",
    "builtin.machineDeployment.topologyName",
    "builtin.machineDeployment.version",
    "builtin.machineDeployment.metadata.labels",
    "builtin.machineDeployment.metadata.annotations",
    "builtin.machineDeployment.bootstrap.configRef.name",
    "builtin.machineDeployment.infrastructureRef.name",
    "builtin.machinePool",
    "builtin.machinePool.class",
    "builtin.machinePool.name",
    "builtin.machinePool.replicas",
    "builtin.machinePool.topologyName",
    "builtin.machinePool.version",
    "builtin.machinePool.metadata.labels",
    "builtin.machinePool.metadata.annotations",
    "builtin.machinePool.bootstrap.configRef.name",
    "builtin.machinePool.infrastructureRef.name",
];

pub(super) fn check(class: &Value, problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for (index, patch) in items(class, "/spec/patches").iter().enumerate() {
        let path = format!("spec.patches[{index}]");
        let name = patch["name"].as_str().unwrap_or_default();
        let at = format!("{path}.name");
        if name.is_empty() {
            problems.push(Problem::required(&at, "patch name must be defined"));
        } else if name == variables::INLINE {
            problems.push(Problem::required(&at, format!("{name:?} can not be used as the name of a patch")));
        }
        if !names.insert(name) {
            let detail = format!("patch names must be unique. Patch with name {name:?} is defined more than once");
            problems.push(Problem::invalid(&at, &patch["name"], detail));
        }
        definitions(class, patch, &path, problems);
    }
}

fn definitions(class: &Value, patch: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(text) = patch["enabledIf"].as_str()
        && let Err(error) = template::check(text)
    {
        let detail = format!("template can not be parsed: {error}");
        problems.push(Problem::invalid(&format!("{path}.enabledIf"), &patch["enabledIf"], detail));
    }
    let external = &patch["external"];
    match (patch["definitions"].is_null(), external.is_null()) {
        (true, true) => problems.push(Problem::required(path, "one of definitions or external must be defined")),
        (false, false) => {
            problems.push(Problem::invalid(path, patch, "only one of definitions or external can be defined"));
        }
        (true, false) => {
            let is_named = |field: &str| external[field].as_str().is_some_and(|name| !name.is_empty());
            if !is_named("generatePatchesExtension") && !is_named("validateTopologyExtension") {
                let detail = "one of validateTopologyExtension and generatePatchesExtension must be defined";
                problems.push(Problem::invalid(&format!("{path}.external"), external, detail));
            }
        }
        (false, true) => {}
    }
    for (index, definition) in items(patch, "/definitions").iter().enumerate() {
        let path = format!("{path}.definitions[{index}]");
        for (index, change) in items(definition, "/jsonPatches").iter().enumerate() {
            json_patch(class, change, &format!("{path}.jsonPatches[{index}]"), problems);
        }
        selector(class, &definition["selector"], &format!("{path}.selector"), problems);
    }
}

fn selector(class: &Value, selector: &Value, path: &str, problems: &mut Vec<Problem>) {
    let resources = &selector["matchResources"];
    let is_about = |reference: &Value| {
        !reference.is_null()
            && selector["kind"] == reference["kind"]
            && selector["apiVersion"] == reference["apiVersion"]
    };
    let spec = &class["spec"];
    let names = |field: &str| items(resources, &format!("/{field}/names")).to_vec();
    let (deployments, pools) = (names("machineDeploymentClass"), names("machinePoolClass"));
    let on = |field: &str| resources[field] == true;
    if !on("infrastructureCluster") && !on("controlPlane") && deployments.is_empty() && pools.is_empty() {
        problems.push(Problem::invalid(path, selector, "no selector enabled"));
        return;
    }
    if on("infrastructureCluster") && !is_about(&spec["infrastructure"]["templateRef"]) {
        let detail = "selector is enabled but does not match the infrastructure ref";
        let path = format!("{path}.matchResources.infrastructureCluster");
        problems.push(Problem::invalid(&path, &true.into(), detail));
    }
    let control_plane = &spec["controlPlane"];
    let of_control_plane = [&control_plane["templateRef"], &control_plane["machineInfrastructure"]["templateRef"]];
    if on("controlPlane") && !of_control_plane.into_iter().any(is_about) {
        let detail = "selector is enabled but matches neither the controlPlane ref nor the controlPlane machineInfrastructure ref";
        problems.push(Problem::invalid(&format!("{path}.matchResources.controlPlane"), &true.into(), detail));
    }
    for (field, list, kind, names) in [
        ("machineDeploymentClass", "machineDeployments", "MachineDeployment", deployments),
        ("machinePoolClass", "machinePools", "MachinePool", pools),
    ] {
        for (index, name) in names.iter().enumerate() {
            let path = format!("{path}.matchResources.{field}.names[{index}]");
            let text = name.as_str().unwrap_or_default();
            if let Some(detail) = star(text) {
                problems.push(Problem::invalid(&path, name, detail));
                break;
            }
            let matches = items(spec, &format!("/workers/{list}")).iter().any(|own| {
                fits(text, super::name(own))
                    && (is_about(&own["infrastructure"]["templateRef"]) || is_about(&own["bootstrap"]["templateRef"]))
            });
            if !matches {
                let detail = format!(
                    "selector is enabled but matches neither the bootstrap ref nor the infrastructure ref of a {kind} class"
                );
                problems.push(Problem::invalid(&path, name, detail));
            }
        }
    }
}

/// What is wrong with where the star of a name stands.
fn star(name: &str) -> Option<&'static str> {
    match name.matches('*').count() {
        0 => None,
        1 if name.starts_with('*') || name.ends_with('*') => None,
        1 => Some("\"*\" rune can only appear at the beginning, or ending of the selector"),
        _ => Some("selector can at most contain a single \"*\" rune"),
    }
}

fn json_patch(class: &Value, change: &Value, path: &str, problems: &mut Vec<Problem>) {
    let operation = change["op"].as_str().unwrap_or_default();
    if !["add", "replace", "remove"].contains(&operation) {
        let detail = "supported values: \"add\", \"remove\", \"replace\"";
        problems.push(Problem::invalid(&format!("{path}.op"), &change["op"], detail));
    }
    let target = change["path"].as_str().unwrap_or_default();
    let at = format!("{path}.path");
    if target != "/spec" && !target.starts_with("/spec/") {
        problems.push(Problem::invalid(&at, &change["path"], "jsonPatch path must start with \"/spec\""));
    }
    if let Some(detail) = index(operation, target) {
        problems.push(Problem::invalid(&at, &change["path"], detail));
    }
    if ["add", "replace"].contains(&operation) {
        value(class, change, path, problems);
    }
}

/// Items of lists are put first or last, and nothing else: others' patches move them.
fn index(operation: &str, path: &str) -> Option<String> {
    let mut numbers = path.split('/').filter_map(|part| part.parse::<i64>().ok());
    match operation {
        "add" if numbers.any(|index| index != 0) => {
            Some("arrays can only be accessed using \"0\" (prepend) or \"-\" (append)".to_owned())
        }
        "replace" | "remove" if numbers.next().is_some() => {
            Some(format!("elements in arrays can not be accessed in a {operation} operation"))
        }
        _ => None,
    }
}

fn value(class: &Value, change: &Value, path: &str, problems: &mut Vec<Problem>) {
    let from = &change["valueFrom"];
    match (change.get("value").is_some(), from.is_null()) {
        (false, true) => {
            problems.push(Problem::invalid(path, change, "jsonPatch must define one of value or valueFrom"));
        }
        (true, false) => {
            problems.push(Problem::invalid(path, change, "jsonPatch can not define both value and valueFrom"));
        }
        _ => {}
    }
    if from.is_null() {
        return;
    }
    let text = |field: &str| from[field].as_str().filter(|text| !text.is_empty());
    let at = format!("{path}.valueFrom");
    match (text("template"), text("variable")) {
        (None, None) => problems.push(Problem::invalid(&at, from, "valueFrom must set either template or variable")),
        (Some(_), Some(_)) => {
            problems.push(Problem::invalid(&at, from, "valueFrom can not set both template and variable"));
        }
        _ => {}
    }
    if let Some(text) = text("template")
        && let Err(error) = template::check(text)
    {
        let detail = format!("template can not be parsed: {error}");
        problems.push(Problem::invalid(&format!("{at}.template"), &from["template"], detail));
    }
    let Some(variable) = text("variable") else { return };
    let at = format!("{at}.variable");
    let name = variable.split(['[', '.']).find(|part| !part.is_empty()).unwrap_or_default();
    if name == "builtin" {
        // A place in a list is one of the list.
        let plain = variable.split('[').next().unwrap_or_default();
        if !BUILTIN.contains(&plain) {
            problems.push(Problem::invalid(&at, &from["variable"], "not a defined builtin variable"));
        }
    } else if !items(class, "/spec/variables").iter().any(|known| known["name"] == name) {
        let detail = format!("variable with name {variable} cannot be found");
        problems.push(Problem::invalid(&at, &from["variable"], detail));
    }
}
