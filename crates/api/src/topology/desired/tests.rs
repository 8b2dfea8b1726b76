use serde_json::json;

use super::*;

fn template(group: &str, kind: &str, name: &str, spec: Value) -> (Reference, Value) {
    let api_version = format!("{group}.cluster.x-k8s.io/v1beta2");
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "org"}, "spec": {"template": {"spec": spec}}});
    (Reference { api_version, kind: kind.to_owned(), name: name.to_owned() }, object)
}

fn reference(reference: &Reference) -> Value {
    json!({"templateRef": {"apiVersion": reference.api_version, "kind": reference.kind, "name": reference.name}})
}

/// A class with a variable that patches the flavour of workers, and a cluster of it.
fn seen() -> Seen {
    let (infra, infra_object) = template(
        "infrastructure",
        "OpenStackClusterTemplate",
        "net",
        json!({"managedSubnets": [{"cidr": "10.0.0.0/24"}]}),
    );
    let (plane, plane_object) = template(
        "controlplane",
        "KubeadmControlPlaneTemplate",
        "plane",
        json!({"kubeadmConfigSpec": {"format": "cloud-config"}}),
    );
    let (machine, machine_object) = template(
        "infrastructure",
        "OpenStackMachineTemplate",
        "machine",
        json!({"flavor": {"filter": {"name": "small"}}}),
    );
    let (boot, boot_object) = template("bootstrap", "KubeadmConfigTemplate", "boot", json!({"joinConfiguration": {}}));
    let class = json!({
        "metadata": {"name": "base", "namespace": "org"},
        "spec": {
            "infrastructure": reference(&infra),
            "controlPlane": {"templateRef": reference(&plane)["templateRef"], "machineInfrastructure": reference(&machine), "deletion": {"nodeDrainTimeoutSeconds": 60},
                "healthCheck": {"checks": {"nodeStartupTimeoutSeconds": 300}}},
            "workers": {"machineDeployments": [{"class": "worker", "bootstrap": reference(&boot), "infrastructure": reference(&machine), "metadata": {"labels": {"tier": "class", "pool": "class"}}}]},
            "variables": [{"name": "flavor", "required": false, "schema": {"openAPIV3Schema": {"type": "string", "default": "medium"}}}],
            "patches": [{"name": "flavor", "definitions": [{
                "selector": {"apiVersion": machine.api_version, "kind": machine.kind, "matchResources": {"machineDeploymentClass": {"names": ["worker"]}}},
                "jsonPatches": [{"op": "replace", "path": "/spec/template/spec/flavor/filter/name", "valueFrom": {"variable": "flavor"}}],
            }]}],
        },
    });
    let cluster = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "a", "namespace": "org", "uid": "u-1"},
        "spec": {"topology": {"classRef": {"name": "base"}, "version": "v1.34.2", "controlPlane": {"replicas": 3},
            "workers": {"machineDeployments": [{"class": "worker", "name": "md-0", "replicas": 2, "metadata": {"labels": {"tier": "own"}}}]}}},
    });
    let templates = [(infra, infra_object), (plane, plane_object), (machine, machine_object), (boot, boot_object)];
    Seen { cluster, class, templates: templates.into_iter().collect(), ..Seen::default() }
}

/// As if everything had been applied and had become what it should.
fn settled(mut seen: Seen) -> Seen {
    let wanted = desired(&seen).unwrap();
    let version = wanted.control_plane["spec"]["version"].clone();
    let mut control_plane = wanted.control_plane.clone();
    control_plane["status"] =
        json!({"initialization": {"controlPlaneInitialized": true}, "versions": [{"version": version, "replicas": 3}]});
    seen.control_plane = Some(control_plane);
    seen.deployments = wanted.workers.iter().map(|workers| workers.deployment.clone()).collect();
    seen.machines = seen.deployments.iter().map(|one| json!({"metadata": {"labels": one["metadata"]["labels"]}, "spec": {"version": one["spec"]["template"]["spec"]["version"]}})).collect();
    seen.cluster["spec"]["controlPlaneRef"]["name"] = wanted.control_plane["metadata"]["name"].clone();
    seen.cluster["spec"]["infrastructureRef"]["name"] = wanted.infrastructure["metadata"]["name"].clone();
    seen
}

fn names(desired: &Desired) -> Vec<String> {
    desired
        .objects()
        .iter()
        .map(|object| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name")))
        .collect()
}

fn versions(seen: &Seen) -> (String, Vec<String>) {
    let desired = desired(seen).unwrap();
    let workers = desired.workers.iter().map(|one| text(&one.deployment, "/spec/template/spec/version").to_owned());
    (text(&desired.control_plane, "/spec/version").to_owned(), workers.collect())
}

#[test]
fn a_topology_becomes_the_objects_of_a_cluster() {
    let desired = desired(&seen()).unwrap();
    insta::assert_snapshot!(names(&desired).join("\n"), @r"
    OpenStackCluster a-bs8dt
    OpenStackMachineTemplate a-jgngrnq9g7
    KubeadmControlPlane a-p4jfq
    MachineHealthCheck a-p4jfq
    KubeadmConfigTemplate a-md-0-k5px88q7rj
    OpenStackMachineTemplate a-md-0-997qkd4lbs
    MachineDeployment a-md-0-54nkx
    ");
    let plane = &desired.control_plane["spec"];
    assert_eq!((&plane["replicas"], &plane["version"]), (&json!(3), &json!("v1.34.2")));
    assert_eq!(plane["machineTemplate"]["spec"]["deletion"]["nodeDrainTimeoutSeconds"], 60);
    assert_eq!(
        plane["machineTemplate"]["spec"]["infrastructureRef"]["name"],
        desired.control_plane_machines.as_ref().unwrap()["metadata"]["name"]
    );
    let workers = &desired.workers[0];
    assert_eq!(workers.infrastructure["spec"]["template"]["spec"]["flavor"]["filter"]["name"], "medium");
    let labels = &workers.deployment["metadata"]["labels"];
    assert_eq!((&labels["tier"], &labels["pool"]), (&json!("own"), &json!("class")));
    assert_eq!(workers.deployment["spec"]["selector"]["matchLabels"][TOPOLOGY_DEPLOYMENT_LABEL], "md-0");
    assert_eq!(desired.control_plane["metadata"]["annotations"][CLONED_FROM_NAME_ANNOTATION], "plane");
}

#[test]
fn the_same_again_is_the_same() {
    let first = desired(&seen()).unwrap();
    let again = desired(&settled(seen())).unwrap();
    assert_eq!(first.objects(), again.objects());
    assert!(again.upgrade.waiting.is_empty() && again.upgrade.upgrading.is_empty());
}

#[test]
fn a_variable_that_changes_makes_another_template() {
    let before = desired(&seen()).unwrap();
    let mut changed = settled(seen());
    changed.cluster["spec"]["topology"]["variables"] = json!([{"name": "flavor", "value": "large"}]);
    let after = desired(&changed).unwrap();
    let (old, new) = (&before.workers[0], &after.workers[0]);
    assert_ne!(old.infrastructure["metadata"]["name"], new.infrastructure["metadata"]["name"]);
    assert_eq!(old.bootstrap, new.bootstrap);
    assert_eq!(before.control_plane, after.control_plane);
    assert_eq!(
        new.deployment["spec"]["template"]["spec"]["infrastructureRef"]["name"],
        new.infrastructure["metadata"]["name"]
    );
    assert_eq!(old.deployment["metadata"], new.deployment["metadata"]);
}

#[test]
fn the_control_plane_goes_to_another_version_before_the_workers() {
    let mut seen = settled(seen());
    seen.cluster["spec"]["topology"]["version"] = "v1.35.0".into();
    assert_eq!(versions(&seen), ("v1.35.0".into(), vec!["v1.34.2".into()]));
    let plane = seen.control_plane.as_mut().unwrap();
    plane["spec"]["version"] = "v1.35.0".into();
    // One of its machines is still of the old version.
    plane["status"]["versions"] = json!([{"version": "v1.34.2"}, {"version": "v1.35.0"}]);
    assert_eq!(versions(&seen), ("v1.35.0".into(), vec!["v1.34.2".into()]));
    seen.control_plane.as_mut().unwrap()["status"]["versions"] = json!([{"version": "v1.35.0"}]);
    assert_eq!(versions(&seen), ("v1.35.0".into(), vec!["v1.35.0".into()]));
}

#[test]
fn workers_follow_in_their_order_and_may_be_held_back() {
    let mut seen = seen();
    let own = |name: &str| json!({"class": "worker", "name": name, "replicas": 1});
    seen.cluster["spec"]["topology"]["workers"]["machineDeployments"] = json!([own("a"), own("b"), own("c")]);
    let mut seen = settled(seen);
    seen.cluster["spec"]["topology"]["version"] = "v1.35.0".into();
    let plane = seen.control_plane.as_mut().unwrap();
    plane["spec"]["version"] = "v1.35.0".into();
    plane["status"]["versions"] = json!([{"version": "v1.35.0"}]);
    let workers = |seen: &Seen| versions(seen).1.join(" ");
    assert_eq!(workers(&seen), "v1.35.0 v1.34.2 v1.34.2");
    let mut many = seen.clone();
    many.cluster["metadata"]["annotations"] = json!({"topology.cluster.x-k8s.io/upgrade-concurrency": "2"});
    assert_eq!(workers(&many), "v1.35.0 v1.35.0 v1.34.2");
    let mut deferred = many.clone();
    let pools = &mut deferred.cluster["spec"]["topology"]["workers"]["machineDeployments"];
    pools[0]["metadata"] = json!({"annotations": {"topology.cluster.x-k8s.io/defer-upgrade": ""}});
    assert_eq!(workers(&deferred), "v1.34.2 v1.35.0 v1.35.0");
    let annotations = &desired(&deferred).unwrap().workers[0].deployment["metadata"]["annotations"];
    assert!(annotations.is_null(), "what steers upgrades stays in the topology");
    let mut held = many.clone();
    let pools = &mut held.cluster["spec"]["topology"]["workers"]["machineDeployments"];
    pools[1]["metadata"] = json!({"annotations": {"topology.cluster.x-k8s.io/hold-upgrade-sequence": ""}});
    assert_eq!(workers(&held), "v1.35.0 v1.34.2 v1.34.2");
    // While one is upgraded, the next waits.
    seen.deployments[0]["spec"]["template"]["spec"]["version"] = "v1.35.0".into();
    assert_eq!(workers(&seen), "v1.35.0 v1.34.2 v1.34.2");
    seen.machines[0]["spec"]["version"] = "v1.35.0".into();
    assert_eq!(workers(&seen), "v1.35.0 v1.35.0 v1.34.2");
}

#[test]
fn several_minor_versions_are_gone_one_by_one() {
    let mut seen = settled(seen());
    seen.cluster["spec"]["topology"]["version"] = "v1.36.1".into();
    seen.class["spec"]["kubernetesVersions"] = json!(["v1.34.2", "v1.35.0", "v1.35.3", "v1.36.1"]);
    assert_eq!(versions(&seen).0, "v1.35.3");
    seen.class["spec"]["kubernetesVersions"] = json!(["v1.34.2", "v1.36.1"]);
    assert!(desired(&seen).unwrap_err().to_string().contains("v1.35"));
}

#[test]
fn new_workers_wait_for_an_upgrade_and_old_ones_go() {
    let mut seen = settled(seen());
    seen.cluster["spec"]["topology"]["version"] = "v1.35.0".into();
    seen.cluster["spec"]["topology"]["workers"]["machineDeployments"] = json!([{"class": "worker", "name": "other"}]);
    let desired = desired(&seen).unwrap();
    assert!(desired.workers.is_empty());
    assert!(matches!(&desired.upgrade.waiting[..], [Waiting::Create { topology, .. }] if topology == "other"));
    assert_eq!(desired.removed, [text(&seen.deployments[0], "/metadata/name")]);
}

#[test]
fn what_is_wrong_is_named() {
    let mut missing = seen();
    missing.templates.retain(|reference, _| reference.name != "boot");
    assert!(desired(&missing).unwrap_err().to_string().contains("KubeadmConfigTemplate boot"));
    let mut wrong = seen();
    wrong.cluster["spec"]["topology"]["variables"] = json!([{"name": "flavor", "value": 7}]);
    assert!(desired(&wrong).unwrap_err().to_string().contains("spec.topology.variables[flavor]"));
    let mut unknown = seen();
    unknown.cluster["spec"]["topology"]["workers"]["machineDeployments"][0]["class"] = "none".into();
    assert!(desired(&unknown).unwrap_err().to_string().contains("none"));
}
