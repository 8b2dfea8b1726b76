//! Rules about `Cluster.spec.topology`, which need its ClusterClass.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks/cluster.go.

use serde_json::Value;

use super::{Problem, numbers};
use crate::{
    names::{AUTOSCALER_MAX_ANNOTATION, AUTOSCALER_MIN_ANNOTATION},
    topology::variables,
};

/// The class that a Cluster's topology names: namespace and name.
pub fn class_of(cluster: &Value) -> Option<(&str, &str)> {
    let reference = cluster.pointer("/spec/topology/classRef")?;
    let own = cluster.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    Some((reference["namespace"].as_str().unwrap_or(own), reference["name"].as_str()?))
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Puts a version's `v` before it.
pub fn version(cluster: &mut Value) {
    super::version(cluster, "/spec/topology/version");
}

/// Fills in the variables that the class has defaults for, and what is left out of those that are given.
pub fn default(cluster: &mut Value, class: &Value) {
    let definitions = items(class, "/spec/variables");
    let given = variables::defaulted(definitions, items(cluster, "/spec/topology/variables"), true);
    if !given.is_empty() {
        cluster["spec"]["topology"]["variables"] = given.into();
    }
    let complete = |part: &mut Value| {
        let overrides = items(part, "/variables/overrides");
        if !overrides.is_empty() {
            let complete = variables::defaulted(definitions, overrides, false);
            part["variables"]["overrides"] = complete.into();
        }
    };
    if let Some(control_plane) = cluster.pointer_mut("/spec/topology/controlPlane") {
        complete(control_plane);
    }
    let workers = cluster.pointer_mut("/spec/topology/workers/machineDeployments").and_then(Value::as_array_mut);
    workers.into_iter().flatten().for_each(complete);
}

/// What is wrong with a topology. `class`: none if there is none, which is no error: it may be made later.
pub fn validate(cluster: &Value, old: Option<&Value>, class: Option<&Value>) -> Vec<Problem> {
    let topology = &cluster["spec"]["topology"];
    let mut problems = Vec::new();
    if topology.is_null() {
        if old.is_some_and(|old| !old["spec"]["topology"].is_null()) {
            problems.push(Problem::forbidden("spec.topology", "cannot be removed from an existing Cluster"));
        }
        return problems;
    }
    let version = &topology["version"];
    let wanted = version.as_str().and_then(numbers);
    if wanted.is_none() {
        let detail = "must be a valid semantic version, e.g. v1.32.0";
        problems.push(Problem::invalid("spec.topology.version", version, detail));
    }
    let before = old.and_then(|old| old.pointer("/spec/topology/version")).and_then(Value::as_str);
    if let (Some(wanted), Some(before)) = (wanted, before.and_then(numbers)) {
        if wanted < before {
            let detail = "version cannot be decreased";
            problems.push(Problem::invalid("spec.topology.version", version, detail));
        }
        let offers = class.is_some_and(|class| !items(class, "/spec/kubernetesVersions").is_empty());
        if !offers && (wanted[0] != before[0] || wanted[1] > before[1] + 1) {
            let detail = "version cannot be increased by more than one minor version at a time";
            problems.push(Problem::invalid("spec.topology.version", version, detail));
        }
    }
    for (index, own) in items(topology, "/workers/machineDeployments").iter().enumerate() {
        let mut offered = class.map_or(&[][..], |class| items(class, "/spec/workers/machineDeployments")).iter();
        let of = offered.find(|offered| offered["class"] == own["class"]).unwrap_or(&Value::Null);
        if !own["replicas"].is_null() && (is_autoscaled(own) || is_autoscaled(of)) {
            let path = format!("spec.topology.workers.machineDeployments[{index}].replicas");
            let detail = "cannot be set with the annotations of the autoscaler, here or in the MachineDeploymentClass";
            problems.push(Problem::invalid(&path, &own["replicas"], detail));
        }
    }
    if let Some(class) = class {
        with_class(topology, class, &mut problems);
    }
    problems
}

/// Whether an autoscaler has the say about replicas: two masters would scale for ever.
fn is_autoscaled(part: &Value) -> bool {
    let annotations = &part["metadata"]["annotations"];
    [AUTOSCALER_MIN_ANNOTATION, AUTOSCALER_MAX_ANNOTATION].iter().any(|key| !annotations[*key].is_null())
}

fn with_class(topology: &Value, class: &Value, problems: &mut Vec<Problem>) {
    let definitions = items(class, "/spec/variables");
    problems.extend(variables::validate(definitions, items(topology, "/variables"), true, "spec.topology.variables"));
    let path = "spec.topology.controlPlane.variables.overrides";
    let overrides = items(topology, "/controlPlane/variables/overrides");
    problems.extend(variables::validate(definitions, overrides, false, path));
    let offered = items(class, "/spec/kubernetesVersions");
    if !offered.is_empty() && !offered.contains(&topology["version"]) {
        let detail = "must be one of spec.kubernetesVersions of the ClusterClass";
        problems.push(Problem::invalid("spec.topology.version", &topology["version"], detail));
    }
    for (index, own) in items(topology, "/workers/machineDeployments").iter().enumerate() {
        let path = format!("spec.topology.workers.machineDeployments[{index}]");
        let mut classes = items(class, "/spec/workers/machineDeployments").iter();
        if !classes.any(|class| class["class"] == own["class"]) {
            let detail = "the ClusterClass has no MachineDeploymentClass of this name";
            problems.push(Problem::invalid(&format!("{path}.class"), &own["class"], detail));
        }
        let overrides = items(own, "/variables/overrides");
        problems.extend(variables::validate(definitions, overrides, false, &format!("{path}.variables.overrides")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class() -> Value {
        json!({"spec": {
            "workers": {"machineDeployments": [{"class": "worker"}]},
            "variables": [
                {"name": "size", "required": true, "schema": {"openAPIV3Schema": {"type": "integer", "maximum": 9}}},
                {"name": "zone", "required": false, "schema": {"openAPIV3Schema": {"type": "string", "default": "a"}}},
            ],
        }})
    }

    fn cluster(version: &str, variables: Value, class: &str) -> Value {
        json!({"metadata": {"name": "c", "namespace": "org"}, "spec": {"topology": {
            "classRef": {"name": "base"}, "version": version, "variables": variables,
            "workers": {"machineDeployments": [{"class": class, "name": "md"}]},
        }}})
    }

    #[test]
    fn variables_are_filled_in_and_checked() {
        let mut given = cluster("v1.34.2", json!([{"name": "size", "value": 3}]), "worker");
        default(&mut given, &class());
        assert_eq!(given["spec"]["topology"]["variables"][1], json!({"name": "zone", "value": "a"}));
        assert_eq!(validate(&given, None, Some(&class())), []);
        assert_eq!(class_of(&given), Some(("org", "base")));
        for (version, variables, of, wanted) in [
            ("v1.34.2", json!([{"name": "size", "value": 10}]), "worker", "spec.topology.variables[size]"),
            ("v1.34.2", json!([]), "worker", "spec.topology.variables[size]"),
            (
                "v1.34.2",
                json!([{"name": "size", "value": 1}]),
                "none",
                "spec.topology.workers.machineDeployments[0].class",
            ),
            ("latest", json!([{"name": "size", "value": 1}]), "worker", "spec.topology.version"),
        ] {
            let problems = validate(&cluster(version, variables, of), None, Some(&class()));
            assert_eq!(problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>(), [wanted]);
        }
        // A class may come later.
        assert_eq!(validate(&cluster("v1.34.2", json!([]), "none"), None, None), []);
    }

    #[test]
    fn versions_go_up_one_by_one_and_a_topology_stays() {
        let with = |version: &str| cluster(version, json!([{"name": "size", "value": 1}]), "worker");
        let count = |new: &str, class: &Value| validate(&with(new), Some(&with("v1.34.2")), Some(class)).len();
        assert_eq!((count("v1.35.0", &class()), count("v1.34.1", &class()), count("v1.36.0", &class())), (0, 1, 1));
        let mut offers = class();
        offers["spec"]["kubernetesVersions"] = json!(["v1.34.2", "v1.35.1", "v1.36.0"]);
        assert_eq!((count("v1.36.0", &offers), count("v1.35.0", &offers)), (0, 1));
        assert_eq!(validate(&json!({"spec": {}}), Some(&with("v1.34.2")), None).len(), 1);
    }

    #[test]
    fn replicas_are_the_users_or_the_autoscalers() {
        let workers = |annotated: bool, replicas: Option<i64>| {
            let mut cluster = cluster("v1.34.2", json!([{"name": "size", "value": 1}]), "worker");
            let own = &mut cluster["spec"]["topology"]["workers"]["machineDeployments"][0];
            own["replicas"] = json!(replicas);
            if annotated {
                own["metadata"] = json!({"annotations": {AUTOSCALER_MIN_ANNOTATION: "1"}});
            }
            cluster
        };
        let mut scaled = class();
        let annotations = json!({"annotations": {AUTOSCALER_MAX_ANNOTATION: "5"}});
        scaled["spec"]["workers"]["machineDeployments"][0]["metadata"] = annotations;
        let count = |cluster: Value, class: &Value| validate(&cluster, None, Some(class)).len();
        assert_eq!((count(workers(true, None), &class()), count(workers(false, Some(1)), &class())), (0, 0));
        assert_eq!((count(workers(true, Some(1)), &class()), count(workers(false, Some(1)), &scaled)), (1, 1));
    }
}
