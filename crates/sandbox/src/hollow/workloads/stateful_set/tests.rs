use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn set(image: &str, replicas: u32, change: impl FnOnce(&mut Value)) -> Value {
    let mut set = json!({
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default", "uid": "s", "generation": 1},
        "spec": {
            "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "a", "image": image}]}},
        },
    });
    change(&mut set);
    set
}

fn revision(image: &str, number: i64) -> Value {
    let set: StatefulSet = serde_json::from_value(set(image, 1, |_| ())).unwrap();
    let mut template = value(&set.spec.unwrap().template);
    template["$patch"] = "replace".into();
    json!({"kind": "ControllerRevision", "revision": number, "data": {"spec": {"template": template}}, "metadata": {
        "name": format!("db-{image}"), "namespace": "default", "uid": image, "labels": {history::HASH_LABEL: image},
        "ownerReferences": owner()}})
}

fn owner() -> Value {
    json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true}])
}

fn pod(ordinal: u32, image: &str, ready: bool) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": format!("db-{ordinal}"), "namespace": "default", "uid": format!("p{ordinal}"),
            "ownerReferences": owner(), "labels": {"app": "db", history::HASH_LABEL: format!("db-{image}")}},
        "spec": {"nodeName": "w", "containers": [{"name": "a", "image": image}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

fn first(objects: &[Value]) -> String {
    planned(objects).told().first().cloned().unwrap_or_default()
}

#[test]
fn pods_come_one_after_the_other_and_go_in_the_other_order() {
    assert!(first(&[set("a", 2, |_| ())]).starts_with("create ControllerRevision db-"));
    let with =
        |replicas: u32, pods: &[Value]| [vec![set("a", replicas, |_| ()), revision("a", 1)], pods.to_vec()].concat();
    assert_eq!(first(&with(2, &[])), "create Pod db-0");
    assert_eq!(first(&with(2, &[pod(0, "a", false)])), "status StatefulSet db");
    assert_eq!(first(&with(2, &[pod(0, "a", true)])), "create Pod db-1");
    let three = [pod(0, "a", true), pod(1, "a", true), pod(2, "a", true)];
    assert_eq!(planned(&with(1, &three)).told(), ["delete Pod db-2", "status StatefulSet db"]);
    let mut parallel = with(3, &[]);
    parallel[0]["spec"]["podManagementPolicy"] = "Parallel".into();
    assert_eq!(planned(&parallel).told()[..3], ["create Pod db-0", "create Pod db-1", "create Pod db-2"]);
    let mut failed = pod(0, "a", false);
    failed["status"]["phase"] = "Failed".into();
    assert_eq!(first(&with(1, &[failed])), "delete Pod db-0");
}

#[test]
fn a_pod_has_its_name_in_labels_host_and_claims() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]);
    let plan = planned(&[set("a", 1, |set| set["spec"]["volumeClaimTemplates"] = claims), revision("a", 1)]);
    assert_eq!(plan.told()[..2], ["create PersistentVolumeClaim data-db-0", "create Pod db-0"]);
    let super::super::plan::Write::Create(pod) = &plan.writes[1] else { panic!() };
    assert_eq!(pod["metadata"]["labels"][NAME_LABEL], "db-0");
    assert_eq!(pod["metadata"]["labels"][history::HASH_LABEL], "db-a");
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-0"), &json!("db")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-0");
}

#[test]
fn a_new_template_replaces_the_highest_pod_first_down_to_the_partition() {
    let with = |partition: u32, pods: &[Value]| {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
        let set = set("b", 2, |set| {
            set["spec"]["updateStrategy"] = strategy;
            set["status"] = json!({"replicas": 2, "currentRevision": "db-a", "currentReplicas": 2});
        });
        [vec![set, revision("a", 1), revision("b", 2)], pods.to_vec()].concat()
    };
    let old = [pod(0, "a", true), pod(1, "a", true)];
    assert_eq!(first(&with(0, &old)), "delete Pod db-1");
    assert_eq!(first(&with(0, &[pod(0, "a", true), pod(1, "b", false)])), "status StatefulSet db");
    assert_eq!(first(&with(0, &[pod(0, "a", true), pod(1, "b", true)])), "delete Pod db-0");
    let parted = planned(&with(1, &[pod(0, "a", true), pod(1, "b", true)]));
    assert_eq!(parted.told(), ["status StatefulSet db"]);
    let status = parted.status_of("StatefulSet");
    assert_eq!((&status["currentRevision"], &status["updateRevision"]), (&json!("db-a"), &json!("db-b")));
    assert_eq!((&status["currentReplicas"], &status["updatedReplicas"]), (&json!(1), &json!(1)));
    let done = planned(&with(0, &[pod(0, "b", true), pod(1, "b", true)])).status_of("StatefulSet");
    assert_eq!((&done["currentRevision"], &done["currentReplicas"]), (&json!("db-b"), &json!(2)));
    // One below the partition is made anew as it was.
    let plan = planned(&with(1, &[pod(1, "b", true)]));
    let super::super::plan::Write::Create(made) = &plan.writes[0] else { panic!() };
    assert_eq!(made["metadata"]["labels"][history::HASH_LABEL], "db-a");
    let mut on_delete = with(0, &old);
    on_delete[0]["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    assert_eq!(first(&on_delete), "status StatefulSet db");
}

#[test]
fn claims_stay_unless_the_set_says_that_they_go() {
    let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data-db-1", "namespace": "default"}});
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let with = |policy: Value| {
        let set = set("a", 1, |set| {
            set["spec"]["volumeClaimTemplates"] = claims.clone();
            set["spec"]["persistentVolumeClaimRetentionPolicy"] = policy;
        });
        planned(&[set, revision("a", 1), pod(0, "a", true), claim.clone()]).told()
    };
    let retained = with(json!({"whenScaled": "Retain", "whenDeleted": "Retain"}));
    assert_eq!(retained, ["status StatefulSet db"]);
    let scaled = with(json!({"whenScaled": "Delete", "whenDeleted": "Retain"}));
    assert_eq!(scaled[0], "delete PersistentVolumeClaim data-db-1");
    let deleted = with(json!({"whenScaled": "Retain", "whenDeleted": "Delete"}));
    assert!(
        deleted[0].starts_with("patch PersistentVolumeClaim data-db-1 {\"metadata\":{\"ownerReferences\""),
        "{deleted:?}"
    );
}
