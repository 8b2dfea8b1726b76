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
fn an_object_covers_what_is_wanted_of_it() {
    let there = json!({"a": 1, "list": [{"x": 1, "y": 2}], "more": true});
    for (wanted, covered) in [
        (json!({"a": 1}), true),
        (json!({"list": [{"x": 1}]}), true),
        (json!({"list": [{"x": 2}]}), false),
        (json!({"list": []}), false),
        (json!({"gone": [], "empty": {}, "none": null}), true),
        (json!({"b": 1}), false),
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
    let planned = class::plan(&class, &now()).to_string();
    assert!(planned.contains("\"definitionsConflict\":false") && planned.contains("VariablesReady"), "{planned}");
}
