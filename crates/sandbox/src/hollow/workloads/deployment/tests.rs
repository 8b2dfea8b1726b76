use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn deployment(change: impl FnOnce(&mut Value)) -> Value {
    let mut deployment = json!({
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1,
            "annotations": {"deployment.kubernetes.io/revision": "2", "note": "kept"}},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": template("new", None),
        },
    });
    change(&mut deployment);
    deployment
}

fn template(image: &str, hash: Option<&str>) -> Value {
    let mut labels = json!({"app": "web"});
    if let Some(hash) = hash {
        labels[HASH_LABEL] = hash.into();
    }
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": image}]}})
}

/// A set of so many pods, of which so many are available.
fn set(image: &str, revision: u32, size: i32, available: i32) -> Value {
    json!({
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("web-{image}"), "namespace": "default", "uid": image, "generation": 1,
            "creationTimestamp": format!("2025-01-0{revision}T00:00:00Z"),
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string(), "note": "kept",
                "deployment.kubernetes.io/desired-replicas": "4", "deployment.kubernetes.io/max-replicas": "5"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}],
        },
        "spec": {"replicas": size, "selector": {"matchLabels": {"app": "web"}}, "template": template(image, Some(image))},
        "status": {"replicas": size, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
    })
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

/// New sizes of sets, by image.
fn sizes(objects: &[Value]) -> Vec<(String, i64)> {
    let size = |write: &Write| match write {
        Write::Patch { target, patch } if target.kind == "ReplicaSet" => {
            Some((target.name.trim_start_matches("web-").to_owned(), patch.pointer("/spec/replicas")?.as_i64()?))
        }
        _ => None,
    };
    planned(objects).writes.iter().filter_map(size).collect()
}

#[test]
fn a_new_template_gets_a_set_with_the_hash_in_name_labels_and_selector() {
    let plan = planned(&[deployment(|_| ()), set("old", 1, 4, 4)]);
    let created = plan.writes.iter().find_map(|write| match write {
        Write::Create(object) if object["kind"] == "ReplicaSet" => Some(object.clone()),
        _ => None,
    });
    let created = created.unwrap();
    let hash = created["metadata"]["labels"][HASH_LABEL].as_str().unwrap();
    assert_eq!(created["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(created["spec"]["selector"]["matchLabels"][HASH_LABEL], hash);
    assert_eq!(created["spec"]["template"]["metadata"]["labels"][HASH_LABEL], hash);
    assert_eq!(created["spec"]["replicas"], 1, "no more than the surge");
    let annotations = &created["metadata"]["annotations"];
    assert_eq!((&annotations[REVISION], &annotations["note"]), (&json!("2"), &json!("kept")));
    assert_eq!((&annotations[DESIRED], &annotations[MAX]), (&json!("4"), &json!("5")));
    assert_eq!(plan.events(), ["ScalingReplicaSet"]);
}

#[test]
fn a_rollout_goes_on_within_surge_and_unavailability() {
    for (new, old, want) in [
        // All old ones are there: one may be missing.
        (set("new", 2, 1, 0), set("old", 1, 4, 4), vec![("old", 3)]),
        (set("new", 2, 1, 0), set("old", 1, 3, 3), vec![("new", 2)]),
        (set("new", 2, 2, 0), set("old", 1, 3, 3), vec![]),
        (set("new", 2, 2, 2), set("old", 1, 3, 3), vec![("old", 1)]),
        (set("new", 2, 4, 4), set("old", 1, 1, 1), vec![("old", 0)]),
        // What does not run goes first.
        (set("new", 2, 1, 0), set("old", 1, 4, 3), vec![("old", 3)]),
        (set("new", 2, 4, 4), set("old", 1, 0, 0), vec![]),
    ] {
        let want: Vec<_> = want.into_iter().map(|(name, size)| (String::from(name), i64::from(size))).collect();
        assert_eq!(sizes(&[deployment(|_| ()), new.clone(), old.clone()]), want, "{} {}", new["spec"], old["spec"]);
    }
}

#[test]
fn all_old_pods_go_before_new_ones_come_if_it_is_to_be_made_anew() {
    let recreate = || deployment(|object| object["spec"]["strategy"] = json!({"type": "Recreate"}));
    assert_eq!(sizes(&[recreate(), set("old", 1, 4, 4)]), [("old".to_owned(), 0)]);
    let pod = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "default", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-old", "uid": "old", "controller": true}]},
        "status": {"phase": "Running"}});
    let ends = planned(&[recreate(), set("old", 1, 0, 0), pod]).told();
    assert_eq!(ends, ["status Deployment web"]);
    let told = planned(&[recreate(), set("old", 1, 0, 0)]).told();
    assert!(told[0].starts_with("create ReplicaSet web-"), "{told:?}");
}

#[test]
fn a_size_that_changes_in_the_middle_of_a_rollout_is_shared_out() {
    let ten = deployment(|object| object["spec"]["replicas"] = 10.into());
    let sizes = sizes(&[ten, set("new", 2, 2, 2), set("old", 1, 3, 3)]);
    let total: i64 = sizes.iter().map(|(_, size)| size).sum();
    assert_eq!((total, sizes.len()), (13, 2), "{sizes:?}");
    assert!(sizes.contains(&("old".to_owned(), 8)), "{sizes:?}");
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled() {
    let paused = deployment(|object| object["spec"]["paused"] = true.into());
    let plan = planned(&[paused.clone(), set("old", 1, 4, 4)]);
    assert_eq!(plan.told(), ["status Deployment web"]);
    let reasons = plan.status_of("Deployment")["conditions"].clone();
    assert!(reasons.to_string().contains("DeploymentPaused"), "{reasons}");
    let mut more = paused;
    more["spec"]["replicas"] = 6.into();
    assert_eq!(sizes(&[more, set("old", 1, 4, 4)]), [("old".to_owned(), 6)]);
}

#[test]
fn a_template_that_comes_back_gets_the_next_revision_and_old_sets_go() {
    let back = planned(&[deployment(|_| ()), set("new", 1, 4, 4), set("other", 2, 0, 0)]);
    let told = back.told().join("\n");
    assert!(told.contains(r#"patch ReplicaSet web-new {"metadata":{"annotations""#), "{told}");
    assert!(
        told.contains(r#"patch Deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3"}}}"#)
    );
    let short = deployment(|object| object["spec"]["revisionHistoryLimit"] = 1.into());
    let told = planned(&[short, set("new", 3, 4, 4), set("b", 2, 0, 0), set("a", 1, 0, 0)]).told();
    assert!(
        told.contains(&"delete ReplicaSet web-a".to_owned())
            && !told.iter().any(|one| one.contains("delete ReplicaSet web-b")),
        "{told:?}"
    );
}

#[test]
fn the_status_tells_of_availability_and_progress() {
    let condition = |status: &Value, type_: &str| {
        let found = status["conditions"].as_array().unwrap().iter().find(|found| found["type"] == type_);
        let found = found.unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    let done = planned(&[deployment(|_| ()), set("new", 2, 4, 4)]).status_of("Deployment");
    assert_eq!(
        (&done["replicas"], &done["updatedReplicas"], &done["availableReplicas"]),
        (&json!(4), &json!(4), &json!(4))
    );
    assert_eq!(done["unavailableReplicas"], Value::Null);
    assert_eq!(condition(&done, "Available"), is("True", "MinimumReplicasAvailable"));
    assert_eq!(condition(&done, "Progressing"), is("True", "NewReplicaSetAvailable"));
    let begun = planned(&[deployment(|_| ()), set("new", 2, 4, 0)]).status_of("Deployment");
    assert_eq!(begun["unavailableReplicas"], 4);
    assert_eq!(condition(&begun, "Available"), is("False", "MinimumReplicasUnavailable"));
    assert_eq!(condition(&begun, "Progressing"), is("True", "ReplicaSetUpdated"));
    let stuck = |since: &str| {
        let mut object = deployment(|_| ());
        object["status"] = begun.clone();
        for condition in object["status"]["conditions"].as_array_mut().unwrap() {
            condition["lastUpdateTime"] = since.into();
        }
        planned(&[object, set("new", 2, 4, 0)])
    };
    let waits = stuck("2025-12-31T23:51:00Z");
    assert_eq!(waits.wake.unwrap().to_string(), "2026-01-01T00:01:00Z");
    let late = stuck("2025-12-31T23:50:00Z").status_of("Deployment");
    assert_eq!(condition(&late, "Progressing"), is("False", "ProgressDeadlineExceeded"));
}
