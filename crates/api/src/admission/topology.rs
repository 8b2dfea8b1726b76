//! Rules about `Cluster.spec.topology`, which need its ClusterClass.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks/cluster.go.

use serde_json::Value;

use super::{Problem, class, items, machines::rolling, numbers as version_numbers};
use crate::{
    names::{
        AUTOSCALER_MAX_ANNOTATION, AUTOSCALER_MIN_ANNOTATION, TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION,
        UNSAFE_CLASS_ANNOTATION, UNSAFE_VERSION_ANNOTATION,
    },
    topology::{
        desired::{self, Group},
        variables,
    },
};

/// What a Cluster's topology is judged by, besides itself.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// None: there is none, which is no error of a new Cluster: it may be made later.
    pub class: Option<Value>,
    /// Of the topology that stands so far, if that is another.
    pub old_class: Option<Value>,
    /// Why the version may not change now.
    pub busy: Option<String>,
}

/// The class that a Cluster's topology names: namespace and name.
pub fn class_of(cluster: &Value) -> Option<(&str, &str)> {
    let reference = cluster.pointer("/spec/topology/classRef")?;
    let own = cluster.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    Some((reference["namespace"].as_str().unwrap_or(own), reference["name"].as_str()?))
}

/// Puts a version's `v` before it.
pub fn version(cluster: &mut Value) {
    super::version(cluster, "/spec/topology/version");
}

/// Fills in the variables that the class has defaults for, and what is left out of those that are given.
pub fn default(cluster: &mut Value, class: &Value) {
    let definitions = variables::definitions(class);
    let given = variables::defaulted(&definitions, items(cluster, "/spec/topology/variables"), true);
    if !given.is_empty() {
        cluster["spec"]["topology"]["variables"] = given.into();
    }
    let complete = |part: &mut Value| {
        let overrides = items(part, "/variables/overrides");
        if !overrides.is_empty() {
            let complete = variables::defaulted(&definitions, overrides, false);
            part["variables"]["overrides"] = complete.into();
        }
    };
    if let Some(control_plane) = cluster.pointer_mut("/spec/topology/controlPlane") {
        complete(control_plane);
    }
    for list in WORKERS {
        let workers = cluster.pointer_mut(&format!("/spec/topology/workers/{list}")).and_then(Value::as_array_mut);
        workers.into_iter().flatten().for_each(complete);
    }
}

const WORKERS: [&str; 2] = ["machineDeployments", "machinePools"];

/// What is wrong with a topology.
pub fn validate(cluster: &Value, old: Option<&Value>, beside: &Beside) -> Vec<Problem> {
    let topology = &cluster["spec"]["topology"];
    let mut problems = Vec::new();
    let before = old.map(|old| &old["spec"]["topology"]).filter(|before| !before.is_null());
    if topology.is_null() {
        if before.is_some() {
            problems.push(Problem::forbidden("spec.topology", "cannot be removed from an existing Cluster"));
        }
        return problems;
    }
    alone(cluster, &mut problems);
    if let Some(class) = &beside.class {
        with_class(topology, before.unwrap_or(&Value::Null), class, &mut problems);
    }
    let annotated = |name: &str| cluster["metadata"]["annotations"].get(name).is_some();
    match before {
        Some(before) => {
            if !annotated(UNSAFE_VERSION_ANNOTATION) {
                version_change(topology, before, beside, &mut problems);
            }
            rebase(cluster, old.unwrap_or(&Value::Null), beside, &mut problems);
        }
        None if old.is_some() && !annotated(UNSAFE_CLASS_ANNOTATION) => {
            let detail = "classRef cannot be set on an existing Cluster";
            problems.push(Problem::forbidden("spec.topology.classRef", detail));
        }
        None => {}
    }
    problems
}

/// What a topology says of itself.
fn alone(cluster: &Value, problems: &mut Vec<Problem>) {
    let topology = &cluster["spec"]["topology"];
    let version = &topology["version"];
    if version.as_str().and_then(version_numbers).is_none() {
        let detail = "must be a valid semantic version, e.g. v1.32.0";
        problems.push(Problem::invalid("spec.topology.version", version, detail));
    }
    let concurrency = &cluster["metadata"]["annotations"][TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION];
    if let Some(text) = concurrency.as_str() {
        let detail = match text.parse::<i64>() {
            Err(error) => Some(format!("could not parse the value of the annotation: {error}")),
            Ok(count) if count < 1 => Some("value cannot be less than 1".to_owned()),
            Ok(_) => None,
        };
        let path = format!("metadata.annotations.{TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION}");
        problems.extend(detail.map(|detail| Problem::invalid(&path, concurrency, detail)));
    }
    for list in WORKERS {
        let mut known = Vec::new();
        for (index, own) in items(topology, &format!("/workers/{list}")).iter().enumerate() {
            let path = format!("spec.topology.workers.{list}[{index}]");
            let name = own["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                problems.push(Problem::required(&format!("{path}.name"), "name must not be empty"));
            } else if known.contains(&name) {
                let detail = format!("name must be unique. Workers with name {name:?} are defined more than once");
                problems.push(Problem::invalid(&format!("{path}.name"), &own["name"], detail));
            }
            known.push(name);
            rolling(
                &own["rollout"]["strategy"]["rollingUpdate"],
                &format!("{path}.rollout.strategy.rollingUpdate"),
                problems,
            );
            class::health_check(&own["healthCheck"], &format!("{path}.healthCheck"), problems);
            class::marks(own, &path, "metadata", problems);
            if !own["replicas"].is_null() && is_autoscaled(own) {
                let detail = "cannot be set with the annotations of the autoscaler";
                problems.push(Problem::invalid(&format!("{path}.replicas"), &own["replicas"], detail));
            }
        }
    }
    let health_check = &topology["controlPlane"]["healthCheck"];
    class::health_check(health_check, "spec.topology.controlPlane.healthCheck", problems);
    class::marks(&topology["controlPlane"], "spec.topology.controlPlane", "metadata", problems);
}

/// Versions go up, one minor version at a time unless the class knows the way, and none begins before the last has ended.
fn version_change(topology: &Value, before: &Value, beside: &Beside, problems: &mut Vec<Problem>) {
    let version = &topology["version"];
    let read = |topology: &Value| topology["version"].as_str().and_then(version_numbers);
    let (Some(to), Some(from)) = (read(topology), read(before)) else { return };
    if *version == before["version"] {
        return;
    }
    let mut wrong = |detail: String| problems.push(Problem::invalid("spec.topology.version", version, detail));
    let knows_the_way = beside.class.as_ref().is_some_and(|class| {
        !items(class, "/spec/kubernetesVersions").is_empty() || desired::plan_extension(class).is_some()
    });
    if to < from {
        wrong(format!("version cannot be decreased from {} to {version}", before["version"]));
    } else if !knows_the_way && (to[0] != from[0] || to[1] > from[1] + 1) {
        let detail = format!("version cannot be increased from {} to {version}", before["version"]);
        wrong(format!("{detail}: one minor version at a time"));
    } else if let Some(busy) = &beside.busy {
        wrong(format!("version cannot be changed: {busy}"));
    }
}

/// Whether a cluster may go from its class to another.
fn rebase(cluster: &Value, old: &Value, beside: &Beside, problems: &mut Vec<Problem>) {
    let (from, to) = (class_of(old), class_of(cluster));
    if from == to {
        return;
    }
    let path = "spec.topology.classRef";
    match (&beside.old_class, &beside.class) {
        (Some(old_class), Some(class)) => problems.extend(class::compatible(old_class, class)),
        (None, _) => {
            let detail = format!("the ClusterClass {from:?} does not exist: the change to {to:?} cannot be validated");
            problems.push(Problem::forbidden(path, detail));
        }
        (_, None) => {
            problems.push(Problem::forbidden(path, format!("the ClusterClass {to:?} does not exist")));
        }
    }
}

/// Why the version of a topology cannot change while what is made of it is on its way to the one before. `workers`: of
/// each group those that are there, with the machines of all.
pub fn busy(
    old: &Value,
    control_plane: Option<&Value>,
    workers: &[(Group, Vec<Value>)],
    machines: &[Value],
) -> Option<String> {
    let wanted = old.pointer("/spec/topology/version").and_then(Value::as_str).unwrap_or_default();
    let hooks = old["metadata"]["annotations"][crate::names::PENDING_HOOKS_ANNOTATION].as_str().unwrap_or_default();
    if hooks.split(',').any(|hook| hook == "AfterClusterUpgrade") {
        return Some("the \"AfterClusterUpgrade\" hook is still blocking".to_owned());
    }
    let Some(control_plane) = control_plane else {
        return Some("failed to check if control plane is upgrading: there is no control plane object".to_owned());
    };
    let has = control_plane.pointer("/spec/version").and_then(Value::as_str).unwrap_or_default();
    if has != wanted {
        return Some(format!(
            "Cluster.spec.topology.version {wanted} was not propagated to control plane yet (control plane version {has})"
        ));
    }
    match desired::lowest_version(control_plane) {
        None => return Some("control plane is currently provisioning".to_owned()),
        Some(lowest) if lowest != has => {
            return Some("control plane is still completing a previous upgrade".to_owned());
        }
        Some(_) => {}
    }
    workers.iter().find_map(|(group, all)| {
        let late = all.iter().filter(|one| {
            let version = one.pointer("/spec/template/spec/version").and_then(Value::as_str).unwrap_or_default();
            version != wanted || desired::is_upgrading(machines, one, *group)
        });
        let late: Vec<&str> = late.filter_map(|one| one.pointer("/metadata/name")?.as_str()).collect();
        let told = || format!("there are still {}s completing a previous upgrade: [{}]", group.kind(), late.join(", "));
        (!late.is_empty()).then(told)
    })
}

/// Whether an autoscaler has the say about replicas: two masters would scale for ever.
pub(super) fn is_autoscaled(part: &Value) -> bool {
    let annotations = &part["metadata"]["annotations"];
    [AUTOSCALER_MIN_ANNOTATION, AUTOSCALER_MAX_ANNOTATION].iter().any(|key| !annotations[*key].is_null())
}

/// `before`: the topology that stands so far.
fn with_class(topology: &Value, before: &Value, class: &Value, problems: &mut Vec<Problem>) {
    let definitions = variables::definitions(class);
    let mut check = |part: &Value, old: &Value, pointer: &str, path: String| {
        let all = pointer == "/variables";
        problems.extend(variables::validate(&definitions, items(part, pointer), items(old, pointer), all, &path));
    };
    check(topology, before, "/variables", "spec.topology.variables".to_owned());
    let path = "spec.topology.controlPlane.variables.overrides".to_owned();
    check(&topology["controlPlane"], &before["controlPlane"], "/variables/overrides", path);
    for list in WORKERS {
        for (index, own) in items(topology, &format!("/workers/{list}")).iter().enumerate() {
            let mut all = items(before, &format!("/workers/{list}")).iter();
            let old = all.find(|old| old["name"] == own["name"]).unwrap_or(&Value::Null);
            let path = format!("spec.topology.workers.{list}[{index}].variables.overrides");
            check(own, old, "/variables/overrides", path);
        }
    }
    let offered = items(class, "/spec/kubernetesVersions");
    if !offered.is_empty() && !offered.contains(&topology["version"]) {
        let detail = "version must match one of the versions defined in the ClusterClass";
        problems.push(Problem::invalid("spec.topology.version", &topology["version"], detail));
    }
    let control_plane = &class["spec"]["controlPlane"];
    let own = &topology["controlPlane"]["healthCheck"];
    let path = "spec.topology.controlPlane.healthCheck";
    if class::is_defined(own) && control_plane["machineInfrastructure"]["templateRef"].is_null() {
        let detail = "can be only set if spec.controlPlane.machineInfrastructure is set in ClusterClass";
        problems.push(Problem::forbidden(path, detail));
    }
    enabled(own, &control_plane["healthCheck"], path, problems);
    for (list, kind) in [(WORKERS[0], "MachineDeploymentClass"), (WORKERS[1], "MachinePoolClass")] {
        for (index, own) in items(topology, &format!("/workers/{list}")).iter().enumerate() {
            let path = format!("spec.topology.workers.{list}[{index}]");
            let mut classes = items(class, &format!("/spec/workers/{list}")).iter();
            let Some(of) = classes.find(|class| class["class"] == own["class"]) else {
                let name = class["metadata"]["name"].as_str().unwrap_or_default();
                let detail = format!("{kind} with name {} does not exist in ClusterClass {name:?}", own["class"]);
                problems.push(Problem::invalid(&format!("{path}.class"), &own["class"], detail));
                continue;
            };
            enabled(&own["healthCheck"], &of["healthCheck"], &format!("{path}.healthCheck"), problems);
            if !own["replicas"].is_null() && is_autoscaled(of) {
                let detail = "cannot be set with the annotations of the autoscaler in the class";
                problems.push(Problem::invalid(&format!("{path}.replicas"), &own["replicas"], detail));
            }
        }
    }
}

/// A check that is switched on has to be described, here or in the class.
fn enabled(own: &Value, of: &Value, path: &str, problems: &mut Vec<Problem>) {
    if own["enabled"] == true && !class::is_defined(own) && !class::is_defined(of) {
        let detail = "cannot be set to true as healthCheck definition is not available in the Cluster topology or the ClusterClass";
        problems.push(Problem::forbidden(&format!("{path}.enabled"), detail));
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

    fn with(class: Value) -> Beside {
        Beside { class: Some(class), ..Beside::default() }
    }

    #[test]
    fn a_cluster_goes_to_a_class_that_fits() {
        let of = |class: &str| {
            let mut cluster = cluster("v1.34.2", json!([{"name": "size", "value": 1}]), "worker");
            cluster["spec"]["topology"]["classRef"]["name"] = class.into();
            cluster
        };
        let with_kind = |kind: &str| {
            let mut class = class();
            class["spec"]["infrastructure"] = json!({"templateRef": {"apiVersion": "g/v1", "kind": kind, "name": "t"}});
            class
        };
        let told = |old_class: Option<Value>, class: Value| {
            let beside = Beside { class: Some(class), old_class, busy: None };
            let problems = validate(&of("other"), Some(&of("base")), &beside);
            problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        assert!(told(Some(with_kind("ATemplate")), with_kind("ATemplate")).is_empty());
        assert_eq!(
            told(Some(with_kind("ATemplate")), with_kind("BTemplate")),
            ["spec.infrastructure.templateRef.kind"]
        );
        assert_eq!(told(None, with_kind("ATemplate")), ["spec.topology.classRef"]);
        let added = validate(&of("base"), Some(&json!({"spec": {}})), &with(class()));
        assert_eq!(added[0].detail, "classRef cannot be set on an existing Cluster");
    }

    #[test]
    fn a_version_waits_for_the_one_before() {
        let cluster = cluster("v1.34.2", json!([]), "worker");
        let plane = |version: &str, lowest: &str| json!({"spec": {"version": version}, "status": {"version": lowest}});
        let workers =
            |version: &str| [json!({"metadata": {"name": "md"}, "spec": {"template": {"spec": {"version": version}}}})];
        let told = |plane: Option<Value>, deployments: &[Value]| {
            busy(&cluster, plane.as_ref(), &[(Group::Deployments, deployments.to_vec())], &[])
        };
        let pools = [(Group::Deployments, Vec::new()), (Group::Pools, workers("v1.34.2").to_vec())];
        let machine = json!({"metadata": {"labels": {}}, "spec": {"version": "v1.33.0"}});
        let late = busy(&cluster, Some(&plane("v1.34.2", "v1.34.2")), &pools, &[machine]).unwrap();
        assert!(late.contains("MachinePools completing a previous upgrade: [md]"), "{late}");
        let ready = plane("v1.34.2", "v1.34.2");
        assert_eq!(told(Some(ready.clone()), &workers("v1.34.2")), None);
        for (plane, deployments, wanted) in [
            (None, workers("v1.34.2"), "no control plane"),
            (Some(plane("v1.33.0", "v1.33.0")), workers("v1.34.2"), "not propagated"),
            (Some(plane("v1.34.2", "v1.33.0")), workers("v1.34.2"), "completing a previous upgrade"),
            (Some(json!({"spec": {"version": "v1.34.2"}})), workers("v1.34.2"), "provisioning"),
            (Some(ready), workers("v1.33.0"), "[md]"),
        ] {
            assert!(told(plane, &deployments).is_some_and(|why| why.contains(wanted)), "{wanted}");
        }
    }

    #[test]
    fn variables_are_filled_in_and_checked() {
        let mut given = cluster("v1.34.2", json!([{"name": "size", "value": 3}]), "worker");
        default(&mut given, &class());
        assert_eq!(given["spec"]["topology"]["variables"][1], json!({"name": "zone", "value": "a"}));
        assert_eq!(validate(&given, None, &with(class())), []);
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
            let problems = validate(&cluster(version, variables, of), None, &with(class()));
            assert_eq!(problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>(), [wanted]);
        }
        // A class may come later.
        assert_eq!(validate(&cluster("v1.34.2", json!([]), "none"), None, &Beside::default()), []);
    }

    #[test]
    fn marks_that_machines_cannot_have_are_refused() {
        let mut given = cluster("v1.34.2", json!([{"name": "size", "value": 1}]), "worker");
        let topology = &mut given["spec"]["topology"];
        topology["controlPlane"] = json!({"metadata": {"labels": {"a b": "c"}}});
        topology["workers"]["machineDeployments"][0]["taints"] = json!([{"key": "node.kubernetes.io/not-ready"}]);
        let problems = validate(&given, None, &with(class()));
        let paths: Vec<_> = problems.into_iter().map(|problem| problem.path).collect();
        assert_eq!(
            paths,
            ["spec.topology.workers.machineDeployments[0].taints[0].key", "spec.topology.controlPlane.metadata.labels"]
        );
    }

    #[test]
    fn versions_go_up_one_by_one_and_a_topology_stays() {
        let of = |version: &str| cluster(version, json!([{"name": "size", "value": 1}]), "worker");
        let count = |new: &str, class: &Value| validate(&of(new), Some(&of("v1.34.2")), &with(class.clone())).len();
        assert_eq!((count("v1.35.0", &class()), count("v1.34.1", &class()), count("v1.36.0", &class())), (0, 1, 1));
        let mut offers = class();
        offers["spec"]["kubernetesVersions"] = json!(["v1.34.2", "v1.35.1", "v1.36.0"]);
        assert_eq!((count("v1.36.0", &offers), count("v1.35.0", &offers)), (0, 1));
        assert_eq!(validate(&json!({"spec": {}}), Some(&of("v1.34.2")), &with(class())).len(), 1);
        let mut late = with(class());
        late.busy = Some("not now".to_owned());
        assert_eq!(
            validate(&of("v1.34.3"), Some(&of("v1.34.2")), &late)[0].detail,
            "version cannot be changed: not now"
        );
        let mut unsafely = of("v1.33.0");
        unsafely["metadata"]["annotations"] = json!({UNSAFE_VERSION_ANNOTATION: ""});
        assert_eq!(validate(&unsafely, Some(&of("v1.34.2")), &late), []);
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
        let count = |cluster: Value, class: &Value| validate(&cluster, None, &with(class.clone())).len();
        assert_eq!((count(workers(true, None), &class()), count(workers(false, Some(1)), &class())), (0, 0));
        assert_eq!((count(workers(true, Some(1)), &class()), count(workers(false, Some(1)), &scaled)), (1, 1));
    }
}
