use super::*;
use crate::names::AUTOSCALER_MIN_ANNOTATION;

fn reference(kind: &str) -> Value {
    json!({"templateRef": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": kind, "name": "t"}})
}

fn class() -> Value {
    let worker = json!({"class": "worker", "bootstrap": reference("ConfigTemplate"), "infrastructure": reference("MachineTemplate")});
    json!({"metadata": {"name": "c"}, "spec": {
        "infrastructure": reference("ClusterTemplate"),
        "controlPlane": {"templateRef": reference("PlaneTemplate")["templateRef"], "machineInfrastructure": reference("MachineTemplate")},
        "workers": {"machineDeployments": [worker]},
        "variables": [{"name": "size", "required": true, "schema": {"openAPIV3Schema": {"type": "integer", "default": 3, "maximum": 9}}}],
        "patches": [{"name": "size", "enabledIf": "{{ gt .size 1 }}", "definitions": [{
            "selector": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "MachineTemplate",
                "matchResources": {"controlPlane": true, "machineDeploymentClass": {"names": ["work*"]}}},
            "jsonPatches": [{"op": "add", "path": "/spec/template/spec/size", "valueFrom": {"variable": "size"}}],
        }]}],
    }})
}

/// The class with something else at a place, and what is said to it.
fn told(pointer: &str, value: Value) -> String {
    let mut changed = class();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap()[last] = value;
    let problems = validate(&changed, None).into_iter().map(|one| format!("{}: {}", one.path, one.detail));
    problems.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_class_is_checked_as_published() {
    assert_eq!(validate(&class(), Some(&class())), []);
    let patch = "/spec/patches/0/definitions/0/jsonPatches/0";
    let selector = "/spec/patches/0/definitions/0/selector";
    let at = |place: &str, rest: &str| format!("{place}/{rest}");
    let twice = json!([
        class()["spec"]["workers"]["machineDeployments"][0],
        class()["spec"]["workers"]["machineDeployments"][0]
    ]);
    for (pointer, value, wanted) in [
        ("/spec/infrastructure/templateRef/kind".to_owned(), json!("Cluster"), "must be of form"),
        ("/spec/infrastructure/templateRef/name".to_owned(), json!(""), "template name must be defined"),
        ("/spec/workers/machineDeployments".to_owned(), twice, "must be unique"),
        ("/spec/variables/0/name".to_owned(), json!("builtin"), "reserved variable name"),
        ("/spec/variables/0/name".to_owned(), json!("a.b"), "cannot contain"),
        ("/spec/variables/0/schema/openAPIV3Schema/type".to_owned(), json!("int"), "supported values"),
        ("/spec/variables/0/schema/openAPIV3Schema/default".to_owned(), json!(10), "less than or equal to 9"),
        (
            "/spec/variables/0/schema/openAPIV3Schema/x-kubernetes-validations".to_owned(),
            json!([{"rule": "self < 3"}]),
            "failed rule: self < 3",
        ),
        (
            "/spec/variables/0/schema/openAPIV3Schema/x-kubernetes-validations".to_owned(),
            json!([{"rule": "self"}]),
            "must evaluate to a bool",
        ),
        ("/spec/patches/0/name".to_owned(), json!("inline"), "can not be used"),
        ("/spec/patches/0/enabledIf".to_owned(), json!("{{ if }}"), "can not be parsed"),
        (
            "/spec/patches/0/external".to_owned(),
            json!({"generatePatchesExtension": "x"}),
            "only one of definitions or external",
        ),
        (at(patch, "op"), json!("test"), "supported values"),
        (at(patch, "path"), json!("/metadata/labels"), "must start with \"/spec\""),
        (at(patch, "path"), json!("/spec/list/1"), "prepend"),
        (at(patch, "value"), json!(1), "can not define both"),
        (at(patch, "valueFrom"), json!({}), "must set either"),
        (at(patch, "valueFrom/variable"), json!("none"), "cannot be found"),
        (at(patch, "valueFrom/variable"), json!("builtin.cluster.none"), "not a defined builtin"),
        (at(patch, "valueFrom"), json!({"template": "{{ nosuch }}"}), "not defined"),
        (at(selector, "matchResources"), json!({}), "no selector enabled"),
        (at(selector, "matchResources/infrastructureCluster"), json!(true), "does not match the infrastructure ref"),
        (
            at(selector, "matchResources/machineDeploymentClass/names"),
            json!(["other"]),
            "matches neither the bootstrap",
        ),
        (at(selector, "matchResources/machineDeploymentClass/names"), json!(["w*r"]), "beginning, or ending"),
        ("/spec/infrastructure/naming".to_owned(), json!({"template": "{{ .cluster.name }}_x"}), "RFC 1123"),
        ("/spec/infrastructure/naming".to_owned(), json!({"template": "{{ .cluster.name.x }}"}), "name template"),
        ("/spec/kubernetesVersions".to_owned(), json!(["v1.33.0", "v1.32.0"]), "must be greater than v1.33.0"),
        ("/spec/kubernetesVersions".to_owned(), json!(["v1.31.0", "v1.33.0"]), "with minor 31 or 32"),
        (
            "/spec/controlPlane/healthCheck".to_owned(),
            json!({"checks": {"nodeStartupTimeoutSeconds": 29}}),
            "at least 30s",
        ),
    ] {
        let found = told(&pointer, value);
        assert!(found.contains(wanted), "{pointer} {wanted}: {found}");
    }
}

#[test]
fn marks_that_machines_cannot_have_are_refused() {
    let mut class = class();
    class["spec"]["controlPlane"]["metadata"] = json!({"labels": {"a": "b c"}});
    class["spec"]["workers"]["machineDeployments"][0]["taints"] = json!([{"key": "node-role.kubernetes.io/master"}]);
    let paths: Vec<_> = validate(&class, None).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["spec.controlPlane.metadata.labels", "spec.workers.machineDeployments[worker].taints[0].key"]);
}

#[test]
fn a_version_beyond_counting_is_none() {
    let mut class = class();
    class["spec"]["kubernetesVersions"] =
        json!([format!("v1.{}.0", u64::MAX), "v1.34.0", format!("v1.34.{}", u64::MAX)]);
    let problems = validate(&class, None);
    let told: Vec<_> = problems.iter().map(|one| (one.path.as_str(), one.detail.as_str())).collect();
    let wanted = "version must be a valid semantic version";
    assert_eq!(told, [("spec.kubernetesVersions[0]", wanted), ("spec.kubernetesVersions[2]", wanted)]);
}

#[test]
fn a_class_in_use_changes_so_that_its_clusters_live_on() {
    let mut other = class();
    other["spec"]["infrastructure"]["templateRef"]["kind"] = "OtherTemplate".into();
    assert_eq!(validate(&other, Some(&class()))[0].path, "spec.infrastructure.templateRef.kind");
    let cluster = json!({"metadata": {"name": "a", "namespace": "org"}, "spec": {"topology": {
        "version": "v1.34.0", "controlPlane": {"healthCheck": {"enabled": true}},
        "workers": {"machineDeployments": [{"class": "worker", "name": "md", "replicas": 1}]},
    }}});
    let told = |change: &dyn Fn(&mut Value)| {
        let mut old = class();
        old["spec"]["controlPlane"]["healthCheck"] = json!({"checks": {"nodeStartupTimeoutSeconds": 60}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let problems = for_clusters(&new, &old, std::slice::from_ref(&cluster));
        problems.into_iter().map(|one| one.path).collect::<Vec<_>>()
    };
    assert!(told(&|_| {}).is_empty());
    assert_eq!(told(&|spec| spec["workers"] = json!({})), ["spec.workers.machineDeployments"]);
    assert_eq!(told(&|spec| spec["kubernetesVersions"] = json!(["v1.33.0"])), ["spec.kubernetesVersions"]);
    assert_eq!(told(&|spec| spec["controlPlane"]["healthCheck"] = Value::Null), ["spec.controlPlane.healthCheck"]);
    let scaled = json!({"annotations": {AUTOSCALER_MIN_ANNOTATION: "1"}});
    let found = told(&|spec| spec["workers"]["machineDeployments"][0]["metadata"] = scaled.clone());
    assert_eq!(found, ["spec.topology.workers.machineDeployments[0].replicas"]);
    assert_eq!(in_use(&[]), None);
    let many = vec![cluster; SHOWN_MAX + 1];
    assert!(in_use(&many).is_some_and(|why| why.ends_with("org/a, org/a, org/a, ... (1 more)")));
}
