use serde_json::json;

use super::*;

/// The word that a stand begins with.
fn word(object: &Json) -> &'static str {
    match readiness(object) {
        Ready => "ready",
        InProgress(_) => "progress",
        Failed(_) => "failed",
        Terminating => "terminating",
    }
}

fn of(api_version: &str, kind: &str, spec: &Json, status: &Json) -> Json {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status})
}

fn conditions(list: &[(&str, &str, &str)]) -> Json {
    list.iter().map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason})).collect()
}

fn check(api_version: &str, kind: &str, table: &[(Json, Json, &str)]) {
    for (spec, status, wanted) in table {
        let object = of(api_version, kind, spec, status);
        assert_eq!(word(&object), *wanted, "{kind} {spec} {status}: {:?}", readiness(&object));
    }
}

#[test]
fn a_deployment_is_ready_when_its_new_pods_are_and_the_old_ones_are_gone() {
    let all = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
                     "conditions": conditions(&[("Available", "True", ""), ("Progressing", "True", "NewReplicaSetAvailable")])});
    let but = |change: Json| {
        let mut status = all.clone();
        status.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        (json!({"replicas": 2}), status)
    };
    let row = |change: Json, wanted: &'static str| {
        let (spec, status) = but(change);
        (spec, status, wanted)
    };
    check(
        "apps/v1",
        "Deployment",
        &[
            row(json!({}), "ready"),
            row(json!({"observedGeneration": 1}), "progress"),
            row(json!({"observedGeneration": null}), "progress"),
            row(json!({"updatedReplicas": 1}), "progress"),
            row(json!({"replicas": 3}), "progress"),
            row(json!({"availableReplicas": 1}), "progress"),
            row(json!({"readyReplicas": 1}), "progress"),
            row(json!({"conditions": conditions(&[("Progressing", "False", "ProgressDeadlineExceeded")])}), "failed"),
            row(json!({"conditions": conditions(&[("ReplicaFailure", "True", "quota")])}), "progress"),
            row(json!({"conditions": conditions(&[("Available", "False", "")])}), "progress"),
            (json!({}), json!({}), "progress"),
            (json!({"replicas": 0}), json!({"observedGeneration": 2}), "ready"),
        ],
    );
}

#[test]
fn sets_are_ready_when_all_their_pods_are() {
    check(
        "apps/v1",
        "StatefulSet",
        &[
            (json!({"replicas": 2}), json!({}), "progress"),
            (json!({"replicas": 2}), json!({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1}), "progress"),
            (json!({"replicas": 2}), json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 1}), "progress"),
            (json!({"replicas": 1}), json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 2}), "progress"),
            (
                json!({"replicas": 1}),
                json!({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "b"}),
                "progress",
            ),
            (
                json!({"replicas": 1}),
                json!({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "currentRevision": "b", "updateRevision": "b"}),
                "ready",
            ),
            (
                json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 1}}}),
                json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1}),
                "progress",
            ),
            (
                json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 1}}}),
                json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 2}),
                "ready",
            ),
            (json!({"updateStrategy": {"type": "OnDelete"}}), json!({}), "ready"),
        ],
    );
    let all = json!({"observedGeneration": 2, "desiredNumberScheduled": 1, "currentNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1, "numberReady": 1});
    let mut old = all.clone();
    old["updatedNumberScheduled"] = json!(0);
    let mut unready = all.clone();
    unready["numberReady"] = json!(0);
    check(
        "apps/v1",
        "DaemonSet",
        &[
            (json!({}), json!({}), "progress"),
            (json!({}), all, "ready"),
            (json!({}), old.clone(), "progress"),
            (json!({"updateStrategy": {"type": "OnDelete"}}), old, "ready"),
            (json!({}), unready, "progress"),
        ],
    );
    let all = json!({"observedGeneration": 2, "replicas": 1, "fullyLabeledReplicas": 1, "availableReplicas": 1, "readyReplicas": 1});
    check(
        "apps/v1",
        "ReplicaSet",
        &[
            (json!({}), all.clone(), "ready"),
            (json!({"replicas": 0}), all.clone(), "progress"),
            (json!({"replicas": 2}), all, "progress"),
            (json!({}), json!({"conditions": conditions(&[("ReplicaFailure", "True", "")])}), "progress"),
        ],
    );
}

#[test]
fn jobs_and_pods_are_told_by_how_they_end() {
    check(
        "batch/v1",
        "Job",
        &[
            (json!({}), json!({}), "progress"),
            (json!({}), json!({"active": 1}), "progress"),
            (json!({}), json!({"conditions": conditions(&[("Complete", "True", "")])}), "ready"),
            (json!({}), json!({"conditions": conditions(&[("Failed", "True", "BackoffLimitExceeded")])}), "failed"),
        ],
    );
    let waiting = |reason: &str| json!([{"state": {"waiting": {"reason": reason}}}]);
    check(
        "v1",
        "Pod",
        &[
            (json!({}), json!({}), "progress"),
            (
                json!({}),
                json!({"phase": "Pending", "conditions": conditions(&[("PodScheduled", "False", "Unschedulable")])}),
                "progress",
            ),
            (json!({}), json!({"phase": "Running"}), "progress"),
            (json!({}), json!({"phase": "Running", "containerStatuses": waiting("CrashLoopBackOff")}), "failed"),
            (json!({}), json!({"phase": "Running", "conditions": conditions(&[("Ready", "True", "")])}), "ready"),
            (json!({}), json!({"phase": "Succeeded"}), "ready"),
            (json!({}), json!({"phase": "Failed"}), "failed"),
        ],
    );
}

#[test]
fn other_kinds_are_told_by_what_they_say_of_themselves() {
    check(
        "v1",
        "PersistentVolumeClaim",
        &[(json!({}), json!({"phase": "Pending"}), "progress"), (json!({}), json!({"phase": "Bound"}), "ready")],
    );
    check(
        "v1",
        "Service",
        &[
            (json!({"type": "ClusterIP"}), json!({}), "ready"),
            (json!({"type": "LoadBalancer"}), json!({}), "progress"),
            (json!({"type": "LoadBalancer"}), json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}), "ready"),
            (json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.1"]}), json!({}), "ready"),
        ],
    );
    check(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        &[
            (json!({}), json!({}), "progress"),
            (json!({}), json!({"conditions": conditions(&[("NamesAccepted", "False", "ListKindConflict")])}), "failed"),
            (
                json!({}),
                json!({"conditions": conditions(&[("NamesAccepted", "True", ""), ("Established", "True", "")])}),
                "ready",
            ),
        ],
    );
    check(
        "apiregistration.k8s.io/v1",
        "APIService",
        &[
            (json!({}), json!({}), "progress"),
            (json!({}), json!({"conditions": conditions(&[("Available", "True", "")])}), "ready"),
        ],
    );
    check("networking.k8s.io/v1", "Ingress", &[(json!({}), json!({}), "ready")]);
    check(
        "example.dev/v1",
        "Thing",
        &[
            (json!({}), json!({}), "ready"),
            (json!({}), json!({"observedGeneration": 1}), "progress"),
            (json!({}), json!({"observedGeneration": 2, "conditions": conditions(&[("Ready", "True", "")])}), "ready"),
            (json!({}), json!({"conditions": conditions(&[("Ready", "False", "")])}), "progress"),
            (json!({}), json!({"conditions": conditions(&[("Ready", "Unknown", "")])}), "progress"),
            (json!({}), json!({"conditions": conditions(&[("Reconciling", "True", "")])}), "progress"),
            (json!({}), json!({"conditions": conditions(&[("Stalled", "True", "")])}), "failed"),
        ],
    );
}

#[test]
fn what_is_being_deleted_is_terminating_and_why_is_told() {
    let mut object = of("v1", "ConfigMap", &json!({}), &json!({}));
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(word(&object), "terminating");
    let object = of(
        "example.dev/v1",
        "Thing",
        &json!({}),
        &json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Making", "message": "two of three"}]}),
    );
    assert_eq!(readiness(&object), InProgress("Making: two of three".to_owned()));
}
