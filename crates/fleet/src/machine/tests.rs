//! What a machine says while its node does not come.

use api::{
    cluster::{ClusterInitialization, ClusterSpec, ClusterStatus},
    condition,
    machine::MachineSpec,
    meta::{Condition, ConditionStatus},
};
use control::Step;
use serde_json::json;

use super::*;
use crate::machine_set::tests::{external, now, placed};

fn seen(boot: Option<(&str, &str)>) -> Seen {
    let mut machine = placed(Machine::new("m", MachineSpec::default()), "u-m");
    machine.metadata.finalizers = Some(vec![names::MACHINE_FINALIZER.into()]);
    machine.spec.provider_id = Some("openstack:///6a0e".into());
    let mut cluster = placed(Cluster::new("demo", ClusterSpec::default()), "u-demo");
    let initialization =
        ClusterInitialization { infrastructure_provisioned: Some(true), control_plane_initialized: Some(true) };
    cluster.status = Some(ClusterStatus { initialization: Some(initialization), ..Default::default() });
    let condition = |type_: &str, status: &str, message: &str| json!({"type": type_, "status": status, "reason": "X", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut conditions = vec![condition("Ready", "True", "")];
    conditions.extend(boot.map(|(status, message)| condition("BootSucceeded", status, message)));
    Seen {
        machine: Arc::new(machine),
        cluster: Some(Arc::new(cluster)),
        bootstrap: None,
        infrastructure: Some(external("Infra", "m", json!({"status": {"conditions": conditions}}))),
        node: None,
        synced: Synced::default(),
        outdated: false,
        connected: true,
        reachable: true,
        last_of_control_plane: false,
        update: None,
        load: Ok(Load::default()),
        drain_rules: Vec::new(),
        node_deletion: None,
    }
}

fn conditions(seen: &Seen) -> Vec<Condition> {
    let plan = plan(seen, &now());
    let change = plan.local.steps.into_iter().rev().find_map(|step| match step {
        Step::Update(change) if change.resource.kind == "Machine" => change.status,
        _ => None,
    });
    serde_json::from_value(change.unwrap()["status"]["conditions"].clone()).unwrap()
}

#[test]
fn a_boot_that_failed_is_the_reason_why_there_is_no_node() {
    let found = conditions(&seen(Some(("False", "error execution phase preflight: no"))));
    for type_ in ["NodeReady", "NodeHealthy"] {
        let found = condition::get(&found, type_).unwrap();
        assert_eq!((found.status, found.reason.as_str()), (ConditionStatus::False, "BootFailed"));
        assert_eq!(found.message, "error execution phase preflight: no");
    }
    let ready = condition::get(&found, "Ready").unwrap();
    assert!(ready.message.contains("* NodeHealthy: error execution phase preflight: no"), "{}", ready.message);
}

#[test]
fn the_first_control_plane_machine_says_it_too() {
    let mut seen = seen(Some(("False", "no")));
    Arc::make_mut(seen.cluster.as_mut().unwrap()).status = None;
    let found = conditions(&seen);
    assert_eq!(condition::get(&found, "NodeHealthy").unwrap().reason, "BootFailed");
}

#[test]
fn a_boot_that_succeeded_or_is_not_known_says_nothing() {
    for boot in [None, Some(("True", "")), Some(("Unknown", "no console"))] {
        let found = conditions(&seen(boot));
        assert_eq!(condition::get(&found, "NodeHealthy").unwrap().reason, "NodeDoesNotExist");
    }
}

#[test]
fn a_node_that_is_there_speaks_for_itself() {
    let mut seen = seen(Some(("False", "no")));
    seen.node = Some(Arc::new(Node::default()));
    assert_eq!(condition::get(&conditions(&seen), "NodeHealthy").unwrap().reason, "NodeNotHealthy");
}

#[test]
fn a_node_of_an_earlier_revision_carries_the_taint_until_its_revision_is_the_newest() {
    let mut seen = seen(None);
    let mut node = Node::default();
    node.metadata.name = Some("n".into());
    let taint = |seen: &Seen| {
        let patch = plan(seen, &now()).remote.into_iter().find_map(|remote| match remote {
            Remote::Patch { patch, .. } => Some(patch),
            _ => None,
        });
        patch.and_then(|patch| patch.pointer("/spec/taints").cloned())
    };
    seen.node = Some(Arc::new(node.clone()));
    assert_eq!(taint(&seen), None);
    seen.outdated = true;
    let wanted = json!([{"key": "node.cluster.x-k8s.io/outdated-revision", "effect": "PreferNoSchedule"}]);
    assert_eq!(taint(&seen), Some(wanted.clone()));
    node.spec.get_or_insert_default().taints = serde_json::from_value(wanted).unwrap();
    seen.node = Some(Arc::new(node));
    assert_eq!(taint(&seen), None, "once");
    seen.outdated = false;
    assert_eq!(taint(&seen), Some(json!([])));
}

/// The node's taints, `key=value:effect`, and the record of those of the machine, once what is planned has been done.
fn taints(seen: &mut Seen) -> (String, Option<String>) {
    let patch = plan(seen, &now()).remote.into_iter().find_map(|remote| match remote {
        Remote::Patch { patch, .. } => Some(patch),
        _ => None,
    });
    let node = Arc::make_mut(seen.node.as_mut().unwrap());
    for (key, value) in patch.iter().flat_map(|patch| patch["metadata"]["annotations"].as_object().unwrap()) {
        owner::annotate(&mut node.metadata, key, value.as_str().unwrap());
    }
    if let Some(taints) = patch.as_ref().and_then(|patch| patch.pointer("/spec/taints")) {
        node.spec.get_or_insert_default().taints = serde_json::from_value(taints.clone()).unwrap();
    }
    let found = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let told = found.iter().map(|taint| {
        let value = taint.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
        format!("{}{value}:{}", taint.key, taint.effect)
    });
    let record = owner::annotation_of(&node.metadata, "cluster.x-k8s.io/taints-from-machine").map(str::to_owned);
    (told.collect::<Vec<_>>().join(" "), record)
}

fn declare(seen: &mut Seen, taints: serde_json::Value) {
    Arc::make_mut(&mut seen.machine).spec.taints = serde_json::from_value(taints).unwrap();
}

fn registered(taints: serde_json::Value) -> Arc<Node> {
    let node = json!({"metadata": {"name": "n"}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(node).unwrap())
}

#[test]
fn a_taint_that_leaves_the_machine_leaves_the_node_and_those_of_others_stay() {
    let mut seen = seen(None);
    seen.node = Some(registered(json!([{"key": "theirs", "effect": "NoSchedule"}])));
    let always =
        |key: &str, value: &str| json!({"key": key, "value": value, "effect": "NoSchedule", "propagation": "Always"});
    declare(&mut seen, json!([always("b", "1"), always("a", "1")]));
    let record = |text: &str| Some(text.to_owned());
    let both = "theirs:NoSchedule b=1:NoSchedule a=1:NoSchedule";
    assert_eq!(taints(&mut seen), (both.into(), record("a:NoSchedule,b:NoSchedule")));
    assert!(plan(&seen, &now()).remote.is_empty(), "settled");
    declare(&mut seen, json!([always("b", "2")]));
    assert_eq!(taints(&mut seen), ("theirs:NoSchedule b=2:NoSchedule".into(), record("b:NoSchedule")));
    let node = Arc::make_mut(seen.node.as_mut().unwrap());
    node.spec.as_mut().unwrap().taints.as_mut().unwrap().remove(1);
    assert_eq!(taints(&mut seen).0, "theirs:NoSchedule b=2:NoSchedule", "it comes back");
    declare(&mut seen, json!([]));
    assert_eq!(taints(&mut seen), ("theirs:NoSchedule".into(), record("")));
    assert!(plan(&seen, &now()).remote.is_empty(), "settled");
}

#[test]
fn a_taint_for_the_start_is_set_once_with_or_without_a_first_taint_and_is_nobodys_then() {
    let first = json!([{"key": names::UNINITIALIZED_TAINT, "effect": "NoSchedule"}]);
    let start = json!([{"key": "a", "effect": "NoExecute", "propagation": "OnInitialization"}]);
    for at_first in [first, json!([])] {
        let mut seen = seen(None);
        seen.node = Some(registered(at_first));
        declare(&mut seen, start.clone());
        assert_eq!(taints(&mut seen), ("a:NoExecute".into(), Some(String::new())));
        declare(&mut seen, json!([]));
        assert_eq!(taints(&mut seen).0, "a:NoExecute", "it stays when the machine says it no more");
        declare(&mut seen, start.clone());
        Arc::make_mut(seen.node.as_mut().unwrap()).spec = None;
        assert_eq!(taints(&mut seen).0, "", "and does not come back");
    }
    let mut seen = seen(None);
    seen.node = Some(registered(json!([])));
    let always = json!([{"key": "a", "effect": "NoExecute", "propagation": "Always"}]);
    declare(&mut seen, always);
    taints(&mut seen);
    declare(&mut seen, start);
    assert_eq!(taints(&mut seen), ("a:NoExecute".into(), Some(String::new())), "one that was for always stays");
}

#[test]
fn a_node_that_was_in_line_before_taints_were_noted_is_not_written_for_that() {
    let mut seen = seen(None);
    seen.node = Some(registered(json!([])));
    taints(&mut seen);
    let node = Arc::make_mut(seen.node.as_mut().unwrap());
    node.metadata.annotations.as_mut().unwrap().remove("cluster.x-k8s.io/taints-from-machine");
    assert!(plan(&seen, &now()).remote.is_empty());
    declare(&mut seen, json!([{"key": "a", "effect": "NoExecute", "propagation": "OnInitialization"}]));
    assert!(plan(&seen, &now()).remote.is_empty(), "its start is over");
}

/// The node with what is planned for its metadata; whether anything is, and the events.
fn in_line(seen: &mut Seen) -> (bool, Vec<String>) {
    let plan = plan(seen, &now());
    let events = plan.local.steps.iter().filter_map(|step| match step {
        Step::Event(event) => Some(event.reason.clone()),
        _ => None,
    });
    let events = events.collect();
    let patch = plan.remote.into_iter().find_map(|remote| match remote {
        Remote::Patch { patch, .. } => Some(patch),
        _ => None,
    });
    let meta = &mut Arc::make_mut(seen.node.as_mut().unwrap()).metadata;
    for (part, has) in [("labels", &mut meta.labels), ("annotations", &mut meta.annotations)] {
        for (key, value) in patch.iter().flat_map(|patch| patch["metadata"][part].as_object().unwrap()) {
            match value.as_str() {
                Some(value) => drop(has.get_or_insert_default().insert(key.clone(), value.to_owned())),
                None => drop(has.get_or_insert_default().remove(key)),
            }
        }
    }
    (patch.is_some(), events)
}

#[test]
fn what_matches_goes_to_the_node_leaves_it_with_its_machine_s_word_and_what_others_say_stays() {
    let mut seen = seen(None);
    let mut node = Node::default();
    node.metadata.name = Some("n".into());
    node.metadata.annotations = Some(BTreeMap::from([("theirs".into(), "1".into())]));
    seen.node = Some(Arc::new(node));
    let annotate = |seen: &mut Seen, annotations: serde_json::Value| {
        Arc::make_mut(&mut seen.machine).metadata.annotations = serde_json::from_value(annotations).unwrap();
    };
    annotate(&mut seen, json!({"note": "a", "theirs": "2", "node.cluster.x-k8s.io/b": "c"}));
    in_line(&mut seen);
    let told = |seen: &Seen, key: &str| {
        owner::annotation_of(&seen.node.as_ref().unwrap().metadata, key).unwrap_or("-").to_owned()
    };
    let record = "cluster.x-k8s.io/annotations-from-machine";
    assert_eq!([told(&seen, "note"), told(&seen, "theirs")], ["-", "1"]);
    assert_eq!([told(&seen, "node.cluster.x-k8s.io/b"), told(&seen, record)], ["c", "node.cluster.x-k8s.io/b"]);

    seen.synced = Synced::read(&["^team$".into()], &["^note$".into(), "machine".into()]).unwrap();
    owner::label(&mut Arc::make_mut(&mut seen.machine).metadata, "team", "a");
    annotate(&mut seen, json!({"note": "a", "cluster.x-k8s.io/machine": "another"}));
    assert!(in_line(&mut seen).0);
    assert_eq!([told(&seen, "note"), told(&seen, "node.cluster.x-k8s.io/b"), told(&seen, record)], ["a", "-", "note"]);
    assert_eq!(told(&seen, "cluster.x-k8s.io/machine"), "m", "what the node says of itself is not copied");
    assert_eq!(owner::label_of(&seen.node.as_ref().unwrap().metadata, "team"), Some("a"));
    assert!(!in_line(&mut seen).0, "settled");

    seen.synced = Synced::default();
    assert!(in_line(&mut seen).0);
    assert_eq!([told(&seen, "note"), told(&seen, "theirs"), told(&seen, record)], ["-", "1", ""]);
    assert_eq!(owner::label_of(&seen.node.as_ref().unwrap().metadata, "team"), None);
    assert!(!in_line(&mut seen).0, "settled");
}

#[test]
fn a_node_whose_machine_has_no_annotation_for_it_gets_no_record_of_such() {
    let mut seen = seen(None);
    seen.node = Some(registered(json!([])));
    in_line(&mut seen);
    let record = "cluster.x-k8s.io/annotations-from-machine";
    assert_eq!(owner::annotation_of(&seen.node.as_ref().unwrap().metadata, record), None);
    assert!(!in_line(&mut seen).0);
}

#[test]
fn the_node_of_a_machine_that_may_be_taken_away_says_so_and_tells_it_once() {
    let mut seen = seen(None);
    seen.node = Some(registered(json!([])));
    let tell = |seen: &mut Seen, interruptible: bool| {
        seen.infrastructure = Some(external("Infra", "m", json!({"status": {"interruptible": interruptible}})));
    };
    let label = |seen: &Seen| {
        owner::label_of(&seen.node.as_ref().unwrap().metadata, names::INTERRUPTIBLE_LABEL).map(str::to_owned)
    };
    let event = "SuccessfulSetInterruptibleNodeLabel".to_owned();
    tell(&mut seen, false);
    assert!(!in_line(&mut seen).1.contains(&event));
    assert_eq!(label(&seen), None);
    tell(&mut seen, true);
    assert_eq!(in_line(&mut seen), (true, vec![event]));
    assert_eq!(label(&seen).as_deref(), Some(""));
    assert_eq!(in_line(&mut seen), (false, Vec::new()), "settled");
    tell(&mut seen, false);
    in_line(&mut seen);
    assert_eq!(label(&seen), None);
}

#[test]
fn an_update_ends_with_the_machines_own_mark_and_then_with_those_of_its_parts() {
    let mut seen = seen(None);
    let meta = |seen: &mut Seen| Arc::make_mut(&mut seen.machine).metadata.clone();
    let mut marked = meta(&mut seen);
    api::in_place::mark(&mut marked, true);
    api::in_place::expect(&mut marked, true);
    Arc::make_mut(&mut seen.machine).metadata = marked.clone();
    api::in_place::mark(&mut seen.infrastructure.as_mut().unwrap().meta, true);
    seen.update = Some(in_place::Update::Done);
    let gone = |seen: &Seen| {
        let plan = plan(seen, &now());
        let of = plan.local.steps.iter().filter_map(|step| match step {
            Step::Update(change) => {
                let annotations = change.main.as_ref()?.pointer("/metadata/annotations")?;
                let gone = |key: &str| annotations.get(key).is_some_and(serde_json::Value::is_null);
                let mark = annotations.is_null() || gone(names::UPDATE_IN_PROGRESS_ANNOTATION);
                let note = annotations.is_null() || gone(names::PENDING_HOOKS_ANNOTATION);
                Some(format!("{} mark:{mark} note:{note}", change.resource.kind))
            }
            _ => None,
        });
        of.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(gone(&seen), "Machine mark:true note:false");
    let updating = |seen: &Seen| condition::is_true(&conditions(seen), "Updating");
    assert!(updating(&seen));

    api::in_place::mark(&mut marked, false);
    Arc::make_mut(&mut seen.machine).metadata = marked;
    seen.update = None;
    assert_eq!(gone(&seen), "Infra mark:true note:true", "that of its infrastructure was its only annotation");
    assert!(updating(&seen));

    api::in_place::mark(&mut seen.infrastructure.as_mut().unwrap().meta, false);
    assert_eq!(gone(&seen), "Machine mark:true note:true");
    assert!(!updating(&seen));
}
