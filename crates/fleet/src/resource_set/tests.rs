//! What a cluster gets, and what is told of it.

use api::{
    cluster::ClusterSpec,
    condition,
    meta::LabelSelector,
    resource_set::{ClusterResourceSetSpec, FINALIZER},
};
use control::Step;
use serde_json::json;

use super::*;
use crate::machine_set::tests::{brief, now, placed};

fn config_map(name: &str) -> ResourceRef {
    ResourceRef { kind: ResourceKind::ConfigMap, name: name.into() }
}

fn set(name: &str, strategy: Strategy, resources: &[&str]) -> Arc<ClusterResourceSet> {
    let cluster_selector =
        LabelSelector { match_labels: [("cni".to_owned(), "x".to_owned())].into(), ..Default::default() };
    let resources = resources.iter().map(|name| config_map(name)).collect();
    let spec = ClusterResourceSetSpec { cluster_selector, resources, strategy: Some(strategy) };
    let mut set = placed(ClusterResourceSet::new(name, spec), name);
    set.metadata.finalizers = Some(vec![FINALIZER.into()]);
    Arc::new(set)
}

fn cluster() -> Arc<Cluster> {
    let mut cluster = placed(Cluster::new("demo", ClusterSpec::default()), "demo");
    owner::label(&mut cluster.metadata, "cni", "x");
    Arc::new(cluster)
}

fn seen(sets: Vec<Arc<ClusterResourceSet>>) -> Seen {
    Seen {
        name: Key::new("ns", "demo"),
        cluster: Some(cluster()),
        binding: None,
        existing: sets.iter().filter_map(|set| set.metadata.name.clone()).collect(),
        sets,
        hashes: HashMap::new(),
    }
}

fn pending(seen: &Seen) -> Vec<String> {
    let name = |set: &ClusterResourceSet| set.metadata.name.clone().unwrap();
    plan(seen).apply.iter().map(|(set, resource)| format!("{}/{}", name(set), resource.name)).collect()
}

type Done = (Key, ResourceRef, std::result::Result<String, String>);

fn done(set: &str, resource: &str, result: std::result::Result<&str, &str>) -> Done {
    (Key::new("ns", set), config_map(resource), result.map(str::to_owned).map_err(str::to_owned))
}

/// As after a reconcile that did these.
fn after(mut seen: Seen, results: &[Done]) -> Seen {
    seen.binding = bound(&seen, results, &now()).map(Arc::new);
    seen
}

#[test]
fn what_was_applied_once_is_not_applied_again_and_what_failed_is() {
    let sets = vec![set("a", Strategy::ApplyOnce, &["one", "two"]), set("b", Strategy::ApplyOnce, &["one"])];
    let seen = after(seen(sets), &[done("a", "one", Ok("h")), done("a", "two", Err("no")), done("b", "one", Ok("h"))]);
    assert_eq!(pending(&seen), ["a/two"]);
    let binding = seen.binding.as_ref().unwrap();
    assert_eq!(
        serde_json::to_value(&binding.spec).unwrap(),
        json!({"clusterName": "demo", "bindings": [
            {"clusterResourceSetName": "a", "resources": [
                {"applied": true, "hash": "h", "kind": "ConfigMap", "name": "one", "lastAppliedTime": "2026-01-01T00:00:00Z"},
                {"applied": false, "kind": "ConfigMap", "name": "two", "lastAppliedTime": "2026-01-01T00:00:00Z"},
            ]},
            {"clusterResourceSetName": "b", "resources": [
                {"applied": true, "hash": "h", "kind": "ConfigMap", "name": "one", "lastAppliedTime": "2026-01-01T00:00:00Z"},
            ]},
        ]})
    );
    assert_eq!(binding.metadata.owner_references.as_ref().unwrap().len(), 2);
    let later = Time(now().0 + jiff::SignedDuration::from_secs(60));
    let again = bound(&seen, &[done("a", "two", Err("no"))], &later);
    assert_eq!(again.as_ref(), Some(binding.as_ref()), "a failure that goes on is not written");
}

#[test]
fn a_set_that_follows_its_resources_applies_what_has_changed() {
    let mut seen = after(seen(vec![set("a", Strategy::Reconcile, &["one"])]), &[done("a", "one", Ok("old"))]);
    for (hash, wanted) in [(Some("old"), vec![]), (Some("new"), vec!["a/one"]), (None, vec![])] {
        seen.hashes = [(config_map("one"), hash.map(str::to_owned))].into();
        assert_eq!(pending(&seen), wanted, "{hash:?}");
    }
}

#[test]
fn a_binding_goes_with_its_cluster_and_forgets_sets_that_are_gone() {
    let sets = vec![set("a", Strategy::ApplyOnce, &["one"]), set("b", Strategy::ApplyOnce, &["one"])];
    let mut seen = after(seen(sets), &[done("a", "one", Ok("h")), done("b", "one", Ok("h"))]);
    seen.sets.remove(0);
    seen.existing.remove(0);
    let left = bound(&seen, &[], &now()).unwrap();
    assert_eq!(left.spec.bindings.iter().map(|of| of.cluster_resource_set_name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(left.metadata.owner_references.unwrap()[0].name, "b");
    let mut gone = Cluster::clone(seen.cluster.as_ref().unwrap());
    gone.metadata.deletion_timestamp = Some(now());
    seen.cluster = Some(Arc::new(gone));
    assert_eq!(brief(&plan(&seen).local), "delete ClusterResourceSetBinding demo\nsettled");
    assert!(bound(&seen, &[], &now()).is_none());
}

#[test]
fn an_empty_selector_selects_no_cluster() {
    let mut none = ClusterResourceSet::clone(&set("a", Strategy::ApplyOnce, &["one"]));
    assert!(selects(&none, &cluster()));
    none.spec.cluster_selector = LabelSelector::default();
    assert!(!selects(&none, &cluster()));
}

#[test]
fn a_set_tells_which_clusters_lack_something_and_why() {
    let one = after(seen(vec![set("a", Strategy::ApplyOnce, &["one"])]), &[done("a", "one", Ok("h"))]);
    let mut seen = sets::Seen {
        set: one.sets[0].clone(),
        clusters: vec![("demo".into(), one.binding.clone())],
        bound: true,
        resources: Vec::new(),
        failures: BTreeMap::new(),
    };
    let said = |seen: &sets::Seen| {
        let plan = sets::plan(seen, &now());
        let status = plan.steps.iter().find_map(|step| match step {
            Step::Update(change) => change.status.clone(),
            _ => None,
        });
        let conditions: Vec<api::meta::Condition> =
            serde_json::from_value(status.unwrap()["status"]["conditions"].clone()).unwrap();
        let found = condition::get(&conditions, "ResourcesApplied");
        found.map(|found| (found.reason.clone(), found.message.clone()))
    };
    assert_eq!(said(&seen), Some(("Applied".into(), String::new())));
    seen.clusters.push(("other".into(), None));
    assert_eq!(said(&seen), Some(("NotApplied".into(), "* Cluster other: not applied yet".into())));
    seen.failures.insert("other".into(), format!("Secret one: {}", manifests::WRONG_TYPE));
    assert_eq!(said(&seen).unwrap().0, "WrongSecretType");
    seen.clusters.clear();
    assert_eq!(said(&seen), None);
}

#[test]
fn a_set_goes_when_no_binding_names_it_any_more() {
    let mut gone = ClusterResourceSet::clone(&set("a", Strategy::ApplyOnce, &[]));
    gone.metadata.deletion_timestamp = Some(now());
    let mut seen = sets::Seen {
        set: Arc::new(gone),
        clusters: Vec::new(),
        bound: true,
        resources: Vec::new(),
        failures: BTreeMap::new(),
    };
    assert_eq!(sets::plan(&seen, &now()).to_string(), "waits 5 s: the bindings of clusters");
    seen.bound = false;
    assert!(brief(&sets::plan(&seen, &now())).contains("\"finalizers\":null"));
}
