use api::{
    drain_rule::{Drain as RuleDrain, DrainedMachines, DrainedPods, MachineDrainRuleSpec},
    machine::MachineSpec,
};
use serde_json::json;

use super::*;
use crate::machine_set::tests::now;

fn pod(name: &str, extra: serde_json::Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": []}});
    json_patch(&mut pod, &extra);
    serde_json::from_value(pod).unwrap()
}

fn json_patch(value: &mut serde_json::Value, patch: &serde_json::Value) {
    match patch.as_object() {
        Some(fields) => fields.iter().for_each(|(key, field)| json_patch(&mut value[key], field)),
        None => *value = patch.clone(),
    }
}

fn labelled(name: &str, app: &str) -> Pod {
    pod(name, json!({"metadata": {"labels": {"app": app}}}))
}

fn node(ready: &str) -> Node {
    serde_json::from_value(json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}})).unwrap()
}

fn rule(name: &str, app: &str, behavior: DrainBehavior, order: Option<i32>) -> Arc<MachineDrainRule> {
    let selector = LabelSelector { match_labels: [("app".to_owned(), app.to_owned())].into(), ..Default::default() };
    let pods = vec![DrainedPods { selector: Some(selector), namespace_selector: None }];
    let spec = MachineDrainRuleSpec { drain: RuleDrain { behavior, order }, machines: Vec::new(), pods };
    Arc::new(MachineDrainRule::new(name, spec))
}

fn load(pods: Vec<Pod>) -> Load {
    Load { pods, daemon_sets: [("ns".to_owned(), "proxy".to_owned())].into(), ..Load::default() }
}

fn evicted(drain: &Drain) -> Vec<String> {
    drain.evict.iter().map(name).collect()
}

#[test]
fn pods_that_would_come_back_or_are_told_to_stay_are_left() {
    let of_set = |set: &str| json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": set, "uid": "u", "controller": true}]}});
    let pods = vec![
        pod("of-set", of_set("proxy")),
        pod("orphan", of_set("gone")),
        pod("static", json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}})),
        pod("skipped", json!({"metadata": {"labels": {(names::DRAIN_LABEL): "Skip"}}})),
        pod("finished", json!({"status": {"phase": "Succeeded"}})),
        pod("plain", json!({})),
    ];
    let drain = decide(&load(pods), &[], &node("True"), &now());
    assert_eq!(evicted(&drain), ["ns/finished", "ns/orphan", "ns/plain"]);
    assert_eq!(drain.grace_s, None);
}

#[test]
fn pods_of_the_lowest_order_go_first_and_the_others_when_they_are_gone() {
    let rules = [
        rule("a", "db", DrainBehavior::Drain, Some(10)),
        rule("b", "cache", DrainBehavior::Drain, Some(-5)),
        rule("c", "db", DrainBehavior::Skip, None),
    ];
    let mut all = vec![labelled("db", "db"), labelled("cache", "cache"), labelled("web", "web")];
    let drain = decide(&load(all.clone()), &rules, &node("True"), &now());
    assert_eq!(
        (evicted(&drain), drain.later),
        (vec!["ns/cache".to_owned()], vec!["ns/db".to_owned(), "ns/web".to_owned()])
    );
    all.remove(1);
    assert_eq!(evicted(&decide(&load(all.clone()), &rules, &node("True"), &now())), ["ns/web"]);
    all.remove(1);
    assert_eq!(
        evicted(&decide(&load(all), &rules, &node("True"), &now())),
        ["ns/db"],
        "the first rule that fits counts"
    );
}

#[test]
fn what_completes_by_itself_is_waited_for_and_then_left() {
    let rules =
        [rule("a", "job", DrainBehavior::WaitCompleted, None), rule("b", "first", DrainBehavior::Drain, Some(-1))];
    let running = labelled("run", "job");
    let mut drain = decide(&load(vec![running.clone()]), &rules, &node("True"), &now());
    assert!(!drain.is_done() && drain.evict.is_empty());
    assert!(drain.message(&BTreeMap::new(), &now()).ends_with("* Pod ns/run: waiting for completion"));
    drain = decide(&load(vec![running, labelled("one", "first")]), &rules, &node("True"), &now());
    assert!(
        drain
            .message(&BTreeMap::new(), &now())
            .ends_with("waiting for the following Pods to complete without eviction: ns/run")
    );
    let done = pod("run", json!({"metadata": {"labels": {"app": "job"}}, "status": {"phase": "Succeeded"}}));
    assert!(decide(&load(vec![done]), &rules, &node("True"), &now()).is_done());
}

#[test]
fn pods_of_a_node_that_is_not_reached_are_given_up_soon() {
    let gone =
        |second: u32| pod("gone", json!({"metadata": {"deletionTimestamp": format!("2025-12-31T23:59:{second}Z")}}));
    let drain = decide(&load(vec![gone(58)]), &[], &node("Unknown"), &now());
    assert!(drain.is_done());
    assert_eq!(drain.grace_s, Some(1));
    assert!(!decide(&load(vec![gone(59)]), &[], &node("Unknown"), &now()).is_done());
    assert!(!decide(&load(vec![gone(10)]), &[], &node("True"), &now()).is_done());
}

#[test]
fn a_rule_is_for_the_machines_and_namespaces_that_it_names() {
    let of = |text: &str| {
        let (key, value) = text.split_once('=').unwrap();
        Some(LabelSelector { match_labels: [(key.to_owned(), value.to_owned())].into(), ..Default::default() })
    };
    let mut rule = MachineDrainRule::clone(&rule("a", "db", DrainBehavior::Skip, None));
    rule.spec.machines = vec![DrainedMachines { selector: of("pool=a"), cluster_selector: of("env=prod") }];
    rule.spec.pods[0].namespace_selector = of("team=x");
    let mut machine = Machine::new("m", MachineSpec::default());
    let mut cluster = Cluster::new("c", api::cluster::ClusterSpec::default());
    let rules = [Arc::new(rule)];
    assert!(rules_of(&rules, &machine, Some(&cluster)).is_empty());
    owner::label(&mut machine.metadata, "pool", "a");
    assert!(rules_of(&rules, &machine, Some(&cluster)).is_empty());
    owner::label(&mut cluster.metadata, "env", "prod");
    assert_eq!(rules_of(&rules, &machine, Some(&cluster)).len(), 1);
    let mut load = load(vec![labelled("db", "db")]);
    assert!(!decide(&load, &rules, &node("True"), &now()).is_done());
    load.namespaces.insert("ns".into(), [("team".to_owned(), "x".to_owned())].into());
    assert!(decide(&load, &rules, &node("True"), &now()).is_done());
}

#[test]
fn the_message_says_what_holds_the_drain() {
    let leaving = pod("z", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let all = ["a", "b", "c", "d", "e"].map(|name| pod(name, json!({}))).to_vec();
    let drain = decide(&load([all, vec![leaving]].concat()), &[], &node("True"), &now());
    let budget = "cannot evict pod as it would violate the pod's disruption budget. The disruption budget x needs 3 healthy pods and has 3 currently";
    let refused = [(budget.to_owned(), ["ns/a", "ns/b", "ns/c", "ns/d", "ns/gone"].map(str::to_owned).to_vec())].into();
    assert_eq!(
        drain.message(&refused, &now()),
        format!(
            "Drain not completed yet (started at 2026-01-01T00:00:00Z):\n\
             * Pod ns/z: deletionTimestamp set, but still not removed from the Node\n\
             * Pods ns/a, ns/b, ns/c, ... (1 more): {budget}\n\
             * Pod ns/e: eviction is asked for"
        )
    );
}

#[test]
fn volumes_of_pods_that_stay_are_not_waited_for() {
    let claim =
        |name: &str| json!({"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}});
    let mut kept = claim("kept");
    json_patch(&mut kept, &json!({"metadata": {"labels": {(names::DRAIN_LABEL): "skip"}}}));
    let drain = decide(&load(vec![pod("a", kept)]), &[], &node("True"), &now());
    assert!(drain.is_done());
    let volume = |name: &str, claim: Option<&str>| Volume {
        name: name.into(),
        claim: claim.map(|claim| ("ns".into(), claim.into())),
    };
    let volumes = [volume("pv-1", Some("kept")), volume("pv-2", Some("other")), volume("pv-3", None)];
    let waits = drain.waits_for(&volumes);
    assert_eq!(
        volumes_message(&waits, &now()),
        "Waiting for Node volumes to be detached (started at 2026-01-01T00:00:00Z)\n\
         * PersistentVolumeClaims: ns/other\n\
         * Volumes without a PersistentVolumeClaim: pv-3"
    );
}
