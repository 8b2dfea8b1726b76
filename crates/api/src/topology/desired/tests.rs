use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::names::{CLONED_FROM_NAME_ANNOTATION, TOPOLOGY_DEPLOYMENT_LABEL, TOPOLOGY_POOL_LABEL};

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
    let of = |group: Group| {
        wanted.workers.iter().filter(|one| one.group == group).map(|one| one.object.clone()).collect::<Vec<_>>()
    };
    (seen.deployments, seen.pools) = (of(Group::Deployments), of(Group::Pools));
    seen.machines = seen.deployments.iter().chain(&seen.pools).map(|one| json!({"metadata": {"labels": one["metadata"]["labels"]}, "spec": {"version": one["spec"]["template"]["spec"]["version"]}})).collect();
    seen.cluster["spec"]["controlPlaneRef"]["name"] = wanted.control_plane["metadata"]["name"].clone();
    seen.cluster["spec"]["infrastructureRef"]["name"] = wanted.infrastructure["metadata"]["name"].clone();
    seen
}

/// The same with a class of pools and two of them, the second of which steers nothing.
fn with_pools() -> Seen {
    let mut seen = seen();
    let machine = json!({"flavor": {"filter": {"name": "small"}}});
    let (infra, object) =
        template("infrastructure", "OpenStackMachinePoolTemplate", "pool", json!({"template": {"spec": machine}}));
    seen.templates.insert(infra.clone(), object);
    let workers = &mut seen.class["spec"]["workers"];
    workers["machinePools"] = json!([{
        "class": "servers", "infrastructure": reference(&infra), "metadata": {"labels": {"tier": "class", "pool": "class"}},
        "bootstrap": workers["machineDeployments"][0]["bootstrap"], "failureDomains": ["a", "b"], "minReadySeconds": 5,
        "deletion": {"nodeDrainTimeoutSeconds": 60, "nodeDeletionTimeoutSeconds": 90},
        "naming": {"template": "{{ .cluster.name }}-p-{{ .machinePool.topologyName }}"},
    }]);
    let change = |path: &str, from: Value| json!({"op": "add", "path": path, "valueFrom": from});
    seen.class["spec"]["patches"].as_array_mut().unwrap().push(json!({"name": "pools", "definitions": [{
        "selector": {"apiVersion": infra.api_version, "kind": infra.kind, "matchResources": {"machinePoolClass": {"names": ["serv*"]}}},
        "jsonPatches": [
            change("/spec/template/spec/template/spec/image", json!({"template": "filter: {name: 'k8s-{{ .builtin.machinePool.version }}'}"})),
            change("/spec/template/spec/template/spec/tags", json!({"template":
                "['{{ .builtin.machinePool.name }}', '{{ .builtin.machinePool.class }}', '{{ .builtin.machinePool.metadata.labels.tier }}', '{{ .builtin.machinePool.infrastructureRef.name }}', '{{ .flavor }}']"})),
        ],
    }]}));
    let own = |name: &str| json!({"class": "servers", "name": name, "replicas": 2});
    let mut first = own("mp-0");
    first["metadata"] =
        json!({"labels": {"tier": "own"}, "annotations": {"topology.cluster.x-k8s.io/defer-upgrade": "", "x": "y"}});
    first["deletion"] = json!({"nodeDrainTimeoutSeconds": 30});
    first["taints"] = json!([{"key": "k", "effect": "NoSchedule", "propagation": "Always"}]);
    first["variables"] = json!({"overrides": [{"name": "flavor", "value": "huge"}]});
    first.as_object_mut().unwrap().remove("replicas");
    seen.cluster["spec"]["topology"]["workers"]["machinePools"] = json!([first, own("mp-1")]);
    seen
}

#[test]
fn a_pool_names_objects_that_are_made_from_the_templates_of_its_class() {
    let wanted = desired(&with_pools()).unwrap();
    insta::assert_snapshot!(names(&wanted)[7..].join("\n"), @r"
    KubeadmConfig a-mp-0-j9shcb6mkm
    OpenStackMachinePool a-mp-0-msgv6
    MachinePool a-p-mp-0
    KubeadmConfig a-mp-1-tddbztpthn
    OpenStackMachinePool a-mp-1-xfjjs
    MachinePool a-p-mp-1
    ");
    let pool = &wanted.workers[1];
    let owners = |object: &Value| object["metadata"]["ownerReferences"][0]["controller"].clone();
    assert_eq!(
        [&pool.bootstrap, &pool.infrastructure, &pool.object].map(owners),
        [Value::Null, Value::Null, json!(false)]
    );
    for object in [&pool.bootstrap, &pool.infrastructure, &pool.object] {
        assert_eq!(object["metadata"]["labels"][TOPOLOGY_POOL_LABEL], "mp-0");
    }
    let servers = &pool.infrastructure["spec"]["template"]["spec"];
    assert_eq!(servers["image"]["filter"]["name"], "k8s-v1.34.2");
    let name = pool.infrastructure["metadata"]["name"].clone();
    assert_eq!(servers["tags"], json!(["a-p-mp-0", "servers", "own", name, "huge"]));
    let spec = &pool.object["spec"];
    assert_eq!((&spec["replicas"], &spec["failureDomains"]), (&Value::Null, &json!(["a", "b"])));
    let machine = &spec["template"]["spec"];
    assert_eq!(machine["deletion"], json!({"nodeDrainTimeoutSeconds": 30, "nodeDeletionTimeoutSeconds": 90}));
    assert_eq!((&machine["minReadySeconds"], &machine["taints"][0]["key"]), (&json!(5), &json!("k")));
    assert_eq!(machine["bootstrap"]["configRef"]["name"], pool.bootstrap["metadata"]["name"]);
    assert_eq!(
        machine["infrastructureRef"],
        json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackMachinePool", "name": name})
    );
    assert_eq!(pool.object["metadata"]["annotations"], json!({"x": "y"}), "what steers upgrades stays in the topology");
    assert_eq!(wanted.workers[2].object["spec"]["replicas"], 2);

    // It is the same again; what its machines boot with makes another configuration, what its servers are the same object.
    let mut seen = settled(with_pools());
    assert_eq!(desired(&seen).unwrap().objects(), wanted.objects());
    seen.cluster["spec"]["topology"]["workers"]["machinePools"][0]["variables"]["overrides"][0]["value"] =
        "tiny".into();
    let boot = seen.templates.iter_mut().find(|(reference, _)| reference.name == "boot").unwrap().1;
    boot["spec"]["template"]["spec"]["verbosity"] = 4.into();
    let changed = desired(&seen).unwrap();
    let after = &changed.workers[1];
    assert_eq!(after.infrastructure["metadata"]["name"], name);
    assert_ne!(after.bootstrap["metadata"]["name"], pool.bootstrap["metadata"]["name"]);
    seen.cluster["spec"]["topology"]["workers"]["machinePools"].as_array_mut().unwrap().remove(0);
    assert_eq!(desired(&seen).unwrap().removed, [(Group::Pools, "a-p-mp-0".to_owned())]);
}

#[test]
fn no_two_clusters_and_no_two_workers_make_templates_of_one_name() {
    let made = |cluster: &str, workers: &str| {
        let mut seen = with_pools();
        seen.cluster["metadata"]["name"] = cluster.into();
        let topology = &mut seen.cluster["spec"]["topology"]["workers"];
        topology["machinePools"].as_array_mut().unwrap().truncate(1);
        for group in Group::ALL {
            topology[group.list()][0]["name"] = workers.into();
        }
        let wanted = desired(&seen).unwrap();
        let parts = wanted.workers.iter().flat_map(|one| [&one.bootstrap, &one.infrastructure]);
        let name = |object: &Value| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
        parts.map(name).collect::<BTreeSet<String>>()
    };
    let (one, other) = (made("a", "b-c"), made("a-b", "c"));
    assert!(one.len() == 4 && one.is_disjoint(&other), "{one:?} {other:?}");
    // Long names are cut.
    let long = |end: &str| made("a", &format!("{}{end}", "x".repeat(62)));
    let (one, other) = (long("y"), long("z"));
    assert!(one.is_disjoint(&other), "{one:?} {other:?}");
}

#[test]
fn pools_go_to_another_version_as_deployments_do_and_beside_them() {
    let mut seen = settled(with_pools());
    seen.cluster["spec"]["topology"]["version"] = "v1.35.0".into();
    assert_eq!(versions(&seen), ("v1.35.0".into(), vec!["v1.34.2".into(); 3]));
    let plane = seen.control_plane.as_mut().unwrap();
    plane["spec"]["version"] = "v1.35.0".into();
    plane["status"]["versions"] = json!([{"version": "v1.35.0"}]);
    let workers = |seen: &Seen| versions(seen).1.join(" ");
    assert_eq!(workers(&seen), "v1.35.0 v1.34.2 v1.35.0", "the first pool is deferred");
    let topology = &mut seen.cluster["spec"]["topology"];
    topology["workers"]["machinePools"][0]["metadata"] = Value::Null;
    assert_eq!(workers(&seen), "v1.35.0 v1.35.0 v1.34.2", "one of each at a time");
    // While machines of the first are of the old version, the second waits.
    seen.pools[0]["spec"]["template"]["spec"]["version"] = "v1.35.0".into();
    seen.deployments[0]["spec"]["template"]["spec"]["version"] = "v1.35.0".into();
    seen.machines[0]["spec"]["version"] = "v1.35.0".into();
    let still = desired(&seen).unwrap();
    assert_eq!(still.upgrade.upgrading, [(Some(Group::Pools), "a-p-mp-0".to_owned())]);
    assert!(
        matches!(&still.upgrade.waiting[..], [Waiting::Workers { group: Group::Pools, topology, .. }] if topology == "mp-1")
    );
    assert_eq!(still.upgrade.plan.workers, ["v1.35.0"]);
    seen.machines[1]["spec"]["version"] = "v1.35.0".into();
    // One that is being updated in place is of the old one.
    seen.machines[1]["metadata"]["annotations"] = json!({crate::names::UPDATE_IN_PROGRESS_ANNOTATION: ""});
    assert_eq!(workers(&seen), "v1.35.0 v1.35.0 v1.34.2");
    seen.machines[1]["metadata"]["annotations"] = Value::Null;
    assert_eq!(workers(&seen), "v1.35.0 v1.35.0 v1.35.0");
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
    let workers = desired.workers.iter().map(|one| text(&one.object, "/spec/template/spec/version").to_owned());
    (text(&desired.control_plane, "/spec/version").to_owned(), workers.collect())
}

#[test]
fn a_topology_becomes_the_objects_of_a_cluster() {
    let desired = desired(&seen()).unwrap();
    insta::assert_snapshot!(names(&desired).join("\n"), @r"
    OpenStackCluster a-bs8dt
    OpenStackMachineTemplate a-c72cdwkfsz
    KubeadmControlPlane a-p4jfq
    MachineHealthCheck a-p4jfq
    KubeadmConfigTemplate a-md-0-v82r7qzlb4
    OpenStackMachineTemplate a-md-0-svtrf887j2
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
    let labels = &workers.object["metadata"]["labels"];
    assert_eq!((&labels["tier"], &labels["pool"]), (&json!("own"), &json!("class")));
    assert_eq!(workers.object["spec"]["selector"]["matchLabels"][TOPOLOGY_DEPLOYMENT_LABEL], "md-0");
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
        new.object["spec"]["template"]["spec"]["infrastructureRef"]["name"],
        new.infrastructure["metadata"]["name"]
    );
    assert_eq!(old.object["metadata"], new.object["metadata"]);
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
    let annotations = &desired(&deferred).unwrap().workers[0].object["metadata"]["annotations"];
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
    let gone = text(&seen.deployments[0], "/metadata/name").to_owned();
    assert_eq!(desired.removed, [(Group::Deployments, gone)]);
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

/// The hooks that are asked, one after the other, each let through.
fn asked(seen: &mut Seen) -> Vec<String> {
    let mut asked = Vec::new();
    while let Err(TopologyError::Ask(question)) = desired(seen) {
        asked.push(question.hook.name().to_owned());
        seen.runtime.answers.insert(question.key(), Ok(json!({"status": "Success"})));
    }
    seen.runtime.answers.clear();
    asked
}

#[test]
fn hooks_are_asked_in_their_order_and_hold_back() {
    let mut seen = seen();
    seen.runtime.any = true;
    seen.runtime.handled = Hook::ALL.into_iter().collect();
    let blocked = |seen: &Seen, hook: Hook| {
        let mut seen = seen.clone();
        for other in Hook::ALL {
            seen.runtime.answers.insert(other.name().to_owned(), Ok(json!({})));
        }
        let response = json!({"retryAfterSeconds": 5, "message": "not yet"});
        seen.runtime.answers.insert(hook.name().to_owned(), Ok(response));
        seen
    };
    let error = desired(&blocked(&seen, Hook::BeforeClusterCreate)).unwrap_err().to_string();
    assert_eq!(error, "Following hooks are blocking Cluster topology creation: BeforeClusterCreate: not yet");
    assert_eq!(asked(&mut seen), ["BeforeClusterCreate"]);
    seen.runtime.answers.insert("BeforeClusterCreate".to_owned(), Ok(json!({})));
    assert_eq!(desired(&seen).unwrap().hooks.noted.as_deref(), Some("AfterControlPlaneInitialized"));

    let mut seen = settled(seen);
    seen.runtime.answers.clear();
    let note = |seen: &mut Seen, noted: Option<&str>| {
        seen.cluster["metadata"]["annotations"] = json!({crate::names::PENDING_HOOKS_ANNOTATION: noted});
    };
    note(&mut seen, Some("AfterControlPlaneInitialized"));
    assert_eq!(asked(&mut seen), Vec::<String>::new(), "it is not initialized");
    seen.cluster["status"] = json!({"conditions": [{"type": "ControlPlaneInitialized", "status": "True"}]});
    assert_eq!(asked(&mut seen), ["AfterControlPlaneInitialized"]);

    // An upgrade: nothing goes on while a hook holds it back.
    note(&mut seen, None);
    seen.cluster["spec"]["topology"]["version"] = "v1.35.0".into();
    for hook in [Hook::BeforeClusterUpgrade, Hook::BeforeControlPlaneUpgrade] {
        let held = desired(&blocked(&seen, hook)).unwrap();
        assert_eq!((held.upgrade.control_plane.as_str(), held.hooks.blocking[0].hook), ("v1.34.2", hook));
        assert_eq!(held.upgrade.step(), Some("v1.34.2"), "the control plane is not held up by a version to come");
    }
    assert_eq!(asked(&mut seen), ["BeforeClusterUpgrade", "BeforeControlPlaneUpgrade"]);
    let begun = desired(&blocked(&seen, Hook::BeforeClusterDelete)).unwrap();
    let noted = "AfterClusterUpgrade,AfterControlPlaneUpgrade,AfterWorkersUpgrade,BeforeWorkersUpgrade";
    assert_eq!((begun.upgrade.control_plane.as_str(), begun.hooks.noted.as_deref()), ("v1.35.0", Some(noted)));
    note(&mut seen, Some(noted));
    let plane = |version: &str| {
        Some(json!({"metadata": {"name": "cp"}, "spec": {"version": "v1.35.0"},
        "status": {"initialization": {"controlPlaneInitialized": true}, "versions": [{"version": version}]}}))
    };
    seen.control_plane = plane("v1.34.2");
    assert_eq!(asked(&mut seen), Vec::<String>::new(), "the control plane is on its way");
    seen.control_plane = plane("v1.35.0");
    for hook in [Hook::AfterControlPlaneUpgrade, Hook::BeforeWorkersUpgrade] {
        let held = desired(&blocked(&seen, hook)).unwrap();
        assert_eq!(held.workers[0].object["spec"]["template"]["spec"]["version"], "v1.34.2", "{hook:?}");
    }
    assert_eq!(asked(&mut seen), ["AfterControlPlaneUpgrade", "BeforeWorkersUpgrade"]);
    let moving = desired(&blocked(&seen, Hook::BeforeClusterDelete)).unwrap();
    assert_eq!(moving.workers[0].object["spec"]["template"]["spec"]["version"], "v1.35.0");
    assert_eq!(moving.hooks.noted.as_deref(), Some("AfterClusterUpgrade,AfterWorkersUpgrade"));
    note(&mut seen, moving.hooks.noted.as_deref());
    seen.deployments = vec![moving.workers[0].object.clone()];
    seen.machines[0]["spec"]["version"] = "v1.35.0".into();
    assert_eq!(asked(&mut seen), ["AfterWorkersUpgrade", "AfterClusterUpgrade"]);
    assert_eq!(desired(&blocked(&seen, Hook::BeforeClusterDelete)).unwrap().hooks.noted, None);
}

#[test]
fn an_annotation_holds_back_an_upgrade() {
    let mut seen = settled(seen());
    seen.cluster["spec"]["topology"]["version"] = "v1.35.0".into();
    seen.cluster["metadata"]["annotations"] = json!({"before-upgrade.hook.cluster.cluster.x-k8s.io/backup": ""});
    let held = desired(&seen).unwrap();
    assert_eq!(held.upgrade.control_plane, "v1.34.2");
    assert!(held.hooks.blocking[0].message.contains("/backup is set"));
}

#[test]
fn extensions_patch_and_judge() {
    let mut seen = seen();
    seen.class["spec"]["patches"] = json!([{"name": "ext", "external": {
        "generatePatchesExtension": "patch.ext", "validateTopologyExtension": "judge.ext", "settings": {"a": "b"},
    }}]);
    let Err(TopologyError::Ask(question)) = desired(&seen) else { panic!("it is asked") };
    assert_eq!((question.hook, question.handler.as_deref()), (Hook::GeneratePatches, Some("patch.ext")));
    assert_eq!(question.settings, json!({"a": "b"}));
    let items = question.request["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 5);
    assert_eq!(items[0]["holderReference"]["fieldPath"], "spec.infrastructureRef");
    let variables = items[4]["variables"].as_array().unwrap();
    assert_eq!((variables.len(), &variables[0]["name"]), (1, &json!("builtin")), "no other is defined for it");
    let patch = |uid: &Value, type_: &str, patch: Value| {
        let bytes = k8s_openapi::ByteString(patch.to_string().into_bytes());
        json!({"uid": uid, "patchType": type_, "patch": bytes})
    };
    let merge = json!({"metadata": {"name": "other"}, "spec": {"template": {"spec": {"managedSubnets": [{"cidr": "10.9.0.0/24"}]}}}});
    let replace = json!([{"op": "replace", "path": "/spec/template/spec/flavor/filter/name", "value": "huge"}]);
    let response = json!({"items": [patch(&items[0]["uid"], "JSONMergePatch", merge), patch(&items[4]["uid"], "JSONPatch", replace)]});
    seen.runtime.answers.insert(question.key(), Ok(response));
    let Err(TopologyError::Ask(judged)) = desired(&seen) else { panic!("it is judged") };
    assert_eq!(judged.hook, Hook::ValidateTopology);
    assert_eq!(judged.request["items"][4]["object"]["spec"]["template"]["spec"]["flavor"]["filter"]["name"], "huge");
    seen.runtime.answers.insert(judged.key(), Ok(json!({})));
    let made = desired(&seen).unwrap();
    assert_eq!(made.infrastructure["spec"]["managedSubnets"][0]["cidr"], "10.9.0.0/24");
    seen.runtime.answers.insert(judged.key(), Err("it is too large".to_owned()));
    assert_eq!(desired(&seen).unwrap_err().to_string(), "it is too large");
    let rubbish = patch(&items[0]["uid"], "JSONPatch", json!("rubbish"));
    seen.runtime.answers.insert(question.key(), Ok(json!({"items": [rubbish]})));
    assert!(desired(&seen).unwrap_err().to_string().contains("no JSON patch"));
}

#[test]
fn extensions_see_what_pools_are_made_from() {
    let mut seen = with_pools();
    seen.class["spec"]["patches"] = json!([{"name": "ext", "external": {"generatePatchesExtension": "patch.ext"}}]);
    let Err(TopologyError::Ask(question)) = desired(&seen) else { panic!("it is asked") };
    let items = question.request["items"].as_array().unwrap();
    let of_pools: Vec<&Value> = items.iter().filter(|item| item["holderReference"]["kind"] == "MachinePool").collect();
    assert_eq!(of_pools.len(), 4);
    let servers = of_pools[1];
    assert_eq!(servers["object"]["kind"], "OpenStackMachinePoolTemplate");
    assert_eq!(servers["holderReference"]["fieldPath"], "spec.template.spec.infrastructureRef");
    let builtin = &servers["variables"][0]["value"]["machinePool"];
    assert_eq!((&builtin["class"], &builtin["topologyName"]), (&json!("servers"), &json!("mp-0")));
}
