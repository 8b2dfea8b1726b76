use api::{cluster_class::ClusterClass, meta::Time};
use jiff::Timestamp;
use serde_json::json;

use super::*;

fn now() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

fn seen(topology: Value) -> Seen {
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "a", "namespace": "org", "uid": "u"},
        "spec": {"topology": topology},
    }))
    .unwrap();
    let template = |group: &str, kind: &str| {
        let api_version = format!("{group}.cluster.x-k8s.io/v1beta2");
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "t"}, "spec": {"template": {"spec": {}}}});
        (Reference { api_version, kind: kind.to_owned(), name: "t".to_owned() }, object)
    };
    let templates = [
        template("infrastructure", "OpenStackClusterTemplate"),
        template("controlplane", "KubeadmControlPlaneTemplate"),
    ];
    let named = |reference: &Reference| json!({"apiVersion": reference.api_version, "kind": reference.kind, "name": reference.name});
    let class = json!({"spec": {
        "infrastructure": {"templateRef": named(&templates[0].0)}, "controlPlane": {"templateRef": named(&templates[1].0)},
    }});
    let state = desired::Seen {
        cluster: serde_json::to_value(&cluster).unwrap(),
        class: class.clone(),
        templates: templates.into_iter().collect(),
        ..Default::default()
    };
    Seen {
        cluster: Arc::new(cluster),
        class: Some(class),
        state,
        there: HashMap::new(),
        owned: Vec::new(),
        used: HashSet::new(),
        held: false,
        unreached: false,
    }
}

fn told(doing: &Doing) -> String {
    let applied = doing.apply.iter().map(|object| format!("apply {} {}\n", text(object, "kind"), name(object)));
    format!("{}{}", applied.collect::<String>(), doing.plan)
}

#[test]
fn references_come_before_the_rest() {
    let first = told(&plan(&seen(json!({"classRef": {"name": "c"}, "version": "v1.34.2"})), &now()));
    let lines: Vec<_> = first.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["apply OpenStackCluster", "apply KubeadmControlPlane", "update Cluster", "settled"]);
    assert!(first.contains("infrastructureRef") && first.contains("topology.cluster.x-k8s.io/owned"), "{first}");
}

#[test]
fn what_hinders_is_told_in_the_condition() {
    let mut none = seen(json!({"classRef": {"name": "c"}, "version": "v1.34.2"}));
    none.class = None;
    assert!(told(&plan(&none, &now())).contains("ClusterClassNotReconciled"));
    let mut wrong = seen(json!({"classRef": {"name": "c"}, "version": "v1.34.2"}));
    wrong.state.templates.clear();
    let said = told(&plan(&wrong, &now()));
    assert!(said.contains("ReconcileFailed") && said.contains("does not exist"), "{said}");
    let mut paused = seen(json!({"classRef": {"name": "c"}, "version": "v1.34.2"}));
    Arc::make_mut(&mut paused.cluster).spec.paused = Some(true);
    let said = told(&plan(&paused, &now()));
    assert!(said.contains("\"reason\":\"Paused\"") && !said.contains("apply"), "{said}");
}

#[test]
fn what_waits_for_an_extension_goes_on() {
    let mut of = seen(json!({"classRef": {"name": "c"}, "version": "v1.34.2"}));
    let wanted = desired::desired(&of.state).unwrap();
    let cluster = Arc::make_mut(&mut of.cluster);
    cluster.spec.infrastructure_ref = Some(reference(&wanted.infrastructure));
    cluster.spec.control_plane_ref = Some(reference(&wanted.control_plane));
    let labels = [(names::CLUSTER_LABEL, "a"), (names::TOPOLOGY_OWNED_LABEL, "")];
    labels.into_iter().for_each(|(name, value)| owner::label(&mut cluster.metadata, name, value));
    of.state.cluster = serde_json::to_value(&*cluster).unwrap();
    assert!(told(&plan(&of, &now())).ends_with("settled"));
    of.unreached = true;
    assert!(told(&plan(&of, &now())).contains("waits 120 s: a runtime extension that was not reached"));
    of.state.runtime.handled.insert(hooks::Hook::BeforeClusterCreate);
    of.state.class["spec"]["patches"] = json!([{"name": "p", "external": {"generatePatchesExtension": "a.ext"}}]);
    assert_eq!(told(&plan(&of, &now())), "waits 1 s: a runtime extension", "put off is no failure");
}

#[test]
fn an_object_covers_what_is_wanted_of_it() {
    let owners = json!([{"uid": "1"}, {"uid": "2", "name": "n"}]);
    let there = json!({"a": 1, "list": [{"x": 1, "y": 2}], "more": true, "ownerReferences": owners});
    for (wanted, covered) in [
        (json!({"a": 1}), true),
        (json!({"list": [{"x": 1}]}), true),
        (json!({"list": [{"x": 2}]}), false),
        (json!({"list": []}), false),
        (json!({"gone": [], "empty": {}, "none": null}), true),
        (json!({"b": 1}), false),
        (json!({"ownerReferences": [{"uid": "2"}]}), true),
        (json!({"ownerReferences": [{"uid": "3"}]}), false),
    ] {
        assert_eq!(covers(&wanted, Some(&there)), covered, "{wanted}");
    }
}

#[test]
fn a_class_tells_its_variables_once() {
    let class: ClusterClass = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "ClusterClass", "metadata": {"name": "c", "generation": 2},
        "spec": {"variables": [{"name": "v", "required": true, "schema": {"openAPIV3Schema": {"type": "string"}}}]},
    }))
    .unwrap();
    let of = |class: &ClusterClass, found: Vec<Value>, unreached: bool| {
        let found = vec![("ext".to_owned(), Ok(found))];
        class::Seen { class: Arc::new(class.clone()), found, put_off: false, unreached }
    };
    let mut seen = of(&class, Vec::new(), false);
    seen.found.clear();
    let planned = class::plan(&seen, &now()).to_string();
    assert!(planned.contains("\"definitionsConflict\":false") && planned.contains("VariablesReady"), "{planned}");

    // What a patch brought along stays while its extension is not reached.
    let brought = json!({"name": "w", "required": false, "schema": {"openAPIV3Schema": {"type": "integer"}}});
    let mut class = class;
    let variables =
        api::topology::discovery::all(&crate::external::value(&class), &of(&class, vec![brought.clone()], false).found);
    class.status = Some(api::cluster_class::ClusterClassStatus { variables, ..Default::default() });
    assert_eq!((class::known(&class, "ext"), class::known(&class, "other")), (vec![brought.clone()], Vec::new()));
    let planned = class::plan(&of(&class, class::known(&class, "ext"), true), &now()).to_string();
    assert!(!planned.contains("\"variables\""), "{planned}");
    assert!(planned.contains("waits 120 s: a runtime extension that was not reached"), "{planned}");
}

#[test]
fn what_an_upgrade_waits_for_is_told_as_published() {
    use desired::{Group, Waiting};
    let of = seen(json!({"classRef": {"name": "c"}, "version": "v1.36.1"}));
    let mut wanted = desired::desired(&of.state).unwrap();
    let told = |wanted: &desired::Desired| {
        let statement = told::reconciled(&of.cluster, "KubeadmControlPlane", wanted);
        (statement.reason.clone(), statement.message.clone())
    };
    assert_eq!(told(&wanted).0, "ReconcileSucceeded");
    let steps = |all: &[&str]| all.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    wanted.control_plane["spec"]["version"] = "v1.35.0".into();
    wanted.upgrade.plan = desired::Plan { control_plane: steps(&["v1.36.1"]), workers: steps(&["v1.35.0", "v1.36.1"]) };
    let (topology, to, on) = ("t".to_owned(), "v1.36.1".to_owned(), "it is not its turn".to_owned());
    let waits = |group: Group, name: &str| Waiting::Workers {
        group,
        topology: topology.clone(),
        name: name.to_owned(),
        to: to.clone(),
        on: on.clone(),
    };
    // It goes on while machines of the version before are there: it is told once.
    wanted.upgrade.upgrading = vec![(Some(Group::Pools), "p-1".to_owned()); 2];
    wanted.upgrade.waiting =
        vec![Waiting::ControlPlane { from: "v1.35.0".into(), to: to.clone(), on: "workers come first".into() }];
    wanted.upgrade.waiting.extend(["e", "d", "c", "b", "a"].map(|name| waits(Group::Deployments, name)));
    wanted.upgrade.waiting.push(waits(Group::Pools, "p-1"));
    wanted.upgrade.waiting.push(Waiting::Create { group: Group::Pools, topology: "new".into(), on: on.clone() });
    let (reason, message) = told(&wanted);
    assert_eq!(reason, "ClusterUpgrading");
    insta::assert_snapshot!(message, @r"
    Cluster is upgrading to v1.36.1
      * KubeadmControlPlane pending upgrade to version v1.36.1: workers come first
      * MachineDeployments a, b, c, ... (2 more) pending upgrade to version v1.35.0, v1.36.1: it is not its turn
      * MachinePool p-1 upgrading to version v1.35.0 (v1.36.1 pending)
      * MachinePool new creation deferred while control plane upgrade is in progress
    ");
    wanted.upgrade.upgrading.clear();
    wanted.upgrade.waiting = vec![Waiting::Deferred { group: Group::Pools, topology, name: "p-1".into(), to }];
    let (reason, message) = told(&wanted);
    assert_eq!(reason, "MachinePoolsUpgradeDeferred");
    let deferred = "MachinePool p-1 upgrade to version v1.35.0 deferred using topology.cluster.x-k8s.io/defer-upgrade";
    assert!(message.contains(deferred), "{message}");
    let mut plan = Plan::nothing();
    settle(&of, &wanted, Statement::yes("TopologyReconciled", "x"), &now(), &mut plan);
    assert!(
        plan.to_string().contains(r#""workers":{"upgradePlan":[{"version":"v1.35.0"},{"version":"v1.36.1"}]}"#),
        "{plan}"
    );
}

#[test]
fn what_was_applied_is_forgotten_with_its_cluster() {
    let (applied, key) = (Applied::default(), Key::new("org", "a"));
    let own = ("KubeadmConfig".to_owned(), "a-md-0-x".to_owned());
    applied.note(&key, own.clone(), 1);
    applied.note(&Key::new("org", "b"), own.clone(), 2);
    assert!(applied.has(&key, &own, 1) && !applied.has(&key, &own, 2));
    applied.forget(&key);
    assert!(!applied.has(&key, &own, 1) && applied.has(&Key::new("org", "b"), &own, 2));
    assert_eq!(applied.0.lock().len(), 1);
}
