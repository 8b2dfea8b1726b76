use serde_json::{Value, json};

use super::*;

fn converted(object: &Value, version: &str) -> Value {
    convert(object, version).unwrap()
}

fn note(object: &Value) -> &Value {
    &object["metadata"]["annotations"][DATA_ANNOTATION]
}

fn cluster_spoke() -> Value {
    json!({
        "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": {"name": "a", "namespace": "org"},
        "spec": {
            "clusterNetwork": {"pods": {"cidrBlocks": ["192.168.0.0/16"]}, "serviceDomain": "cluster.local"},
            "controlPlaneRef": {"apiVersion": "controlplane.cluster.x-k8s.io/v1beta1", "kind": "KubeadmControlPlane", "name": "cp"},
            "infrastructureRef": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "OpenStackCluster", "name": "a"},
        },
    })
}

#[test]
fn a_cluster_of_v1beta1_is_one_of_v1beta2_with_nothing_to_keep() {
    let hub = converted(&cluster_spoke(), HUB);
    assert_eq!(hub["apiVersion"], "cluster.x-k8s.io/v1beta2");
    assert_eq!(hub["metadata"], json!({"name": "a", "namespace": "org"}));
    assert_eq!(
        hub["spec"]["controlPlaneRef"],
        json!({"apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": "cp"})
    );
    let shown = converted(&hub, SPOKE);
    // As v1beta1's own defaulting filled it in.
    assert_eq!(shown["spec"]["controlPlaneRef"]["namespace"], "org");
    assert_eq!(shown["spec"]["controlPlaneRef"]["apiVersion"], "controlplane.cluster.x-k8s.io/v1beta1");
    assert_eq!(converted(&shown, HUB), hub);
}

#[test]
fn the_state_of_a_cluster_is_told_in_the_words_of_v1beta1() {
    let mut hub = converted(&cluster_spoke(), HUB);
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "Because", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    hub["status"] = json!({
        "phase": "Provisioned", "initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true},
        "failureDomains": [{"name": "nova", "controlPlane": true}],
        "conditions": [condition("Available", "False"), condition("InfrastructureReady", "True")],
        "workers": {"replicas": 2},
    });
    let status = &converted(&hub, SPOKE)["status"];
    assert_eq!((&status["infrastructureReady"], &status["controlPlaneReady"]), (&json!(true), &json!(true)));
    assert_eq!(status["failureDomains"], json!({"nova": {"controlPlane": true}}));
    assert_eq!(status["v1beta2"]["conditions"], hub["status"]["conditions"]);
    assert_eq!(status["v1beta2"]["workers"], json!({"replicas": 2}));
    let ready = &status["conditions"][0];
    assert_eq!(
        (&ready["type"], &ready["status"], &ready["severity"]),
        (&json!("Ready"), &json!("False"), &json!("Info"))
    );
    assert_eq!(status["conditions"][1].get("reason"), None, "what is true needs no reason");
    assert_eq!(converted(&converted(&hub, SPOKE), HUB), hub);
}

#[test]
fn what_a_version_has_no_field_for_is_kept_and_edits_win() {
    let hub = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment", "metadata": {"name": "md", "namespace": "org"},
        "spec": {"clusterName": "a", "replicas": 3, "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
            "template": {"spec": {"clusterName": "a", "bootstrap": {"dataSecretName": "b"},
                "infrastructureRef": {"apiGroup": "example.com", "kind": "Thing", "name": "t"}}}},
        "status": {"upToDateReplicas": 2, "replicas": 3, "availableReplicas": 1},
    });
    let spoke = converted(&hub, SPOKE);
    assert_eq!(note(&spoke), &Value::Null, "{spoke}");
    assert_eq!(spoke["spec"]["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}));
    assert_eq!((&spoke["status"]["updatedReplicas"], &spoke["status"]["unavailableReplicas"]), (&json!(2), &json!(2)));
    // v1beta1 has fields that v1beta2 has not.
    let mut spoke = spoke;
    spoke["spec"]["progressDeadlineSeconds"] = 600.into();
    spoke["spec"]["template"]["spec"]["nodeDrainTimeout"] = "1m30.5s".into();
    let mut hub = converted(&spoke, HUB);
    assert_eq!(hub["spec"]["template"]["spec"]["deletion"]["nodeDrainTimeoutSeconds"], 90);
    assert!(note(&hub).is_string());
    assert_eq!(converted(&hub, SPOKE), spoke);
    // What v1beta2 says since then is shown, and the rest is still there.
    hub["spec"]["template"]["spec"]["deletion"]["nodeDrainTimeoutSeconds"] = 120.into();
    hub["spec"]["replicas"] = 5.into();
    let shown = converted(&hub, SPOKE);
    assert_eq!(shown["spec"]["template"]["spec"]["nodeDrainTimeout"], "2m0s");
    assert_eq!(shown["spec"]["replicas"], 5);
    assert_eq!(shown["spec"]["progressDeadlineSeconds"], 600);
}

#[test]
fn an_edit_in_v1beta1_keeps_what_only_v1beta2_says() {
    let hub = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "metadata": {"name": "m", "namespace": "org", "annotations": {"mine": "x"}},
        "spec": {"clusterName": "a", "minReadySeconds": 30, "bootstrap": {"dataSecretName": "b"}, "deletion": {"nodeDrainTimeoutSeconds": 10},
            "infrastructureRef": {"apiGroup": "example.com", "kind": "Thing", "name": "t"}},
    });
    let mut spoke = converted(&hub, SPOKE);
    assert!(note(&spoke).is_string());
    assert_eq!(spoke["spec"].get("minReadySeconds"), None);
    assert_eq!(converted(&spoke, HUB), hub);
    spoke["spec"]["nodeDrainTimeout"] = "20s".into();
    let changed = converted(&spoke, HUB);
    assert_eq!(changed["spec"]["minReadySeconds"], 30);
    assert_eq!(changed["spec"]["deletion"]["nodeDrainTimeoutSeconds"], 20);
    assert_eq!(changed["metadata"]["annotations"], json!({"mine": "x"}));
}

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "Because", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn types(status: &Value) -> Vec<(&str, &str)> {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.map(|one| (one["type"].as_str().unwrap(), one["status"].as_str().unwrap())).collect()
}

#[test]
fn a_condition_of_others_is_kept_beside_those_that_are_made() {
    let mut hub = converted(&cluster_spoke(), HUB);
    hub["status"] = json!({"conditions": [condition("Available", "False"), condition("InfrastructureReady", "True")]});
    let mut spoke = converted(&hub, SPOKE);
    assert_eq!(types(&spoke["status"]), [("Ready", "False"), ("InfrastructureReady", "True")]);
    let own = json!({"type": "Backup", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    spoke["status"]["conditions"].as_array_mut().unwrap().insert(1, own.clone());
    spoke["status"]["failureReason"] = "CreateError".into();
    let mut hub = converted(&spoke, HUB);
    assert_eq!(note(&hub), &Value::Null);
    let words = json!({"conditions": [own], "failureReason": "CreateError"});
    assert_eq!(hub["status"]["deprecated"], json!({ "v1beta1": words }));
    assert_eq!(converted(&hub, SPOKE), spoke);
    // What is made goes on to tell how things are.
    hub["status"]["conditions"] = json!([condition("Available", "True")]);
    let shown = converted(&hub, SPOKE);
    assert_eq!(types(&shown["status"]), [("Ready", "True"), ("Backup", "True")]);
    assert_eq!(converted(&shown, HUB), hub);
    // What controllers that are gone have said hides nothing.
    hub["status"]["deprecated"]["v1beta1"]["conditions"][0]["type"] = "Ready".into();
    hub["status"]["deprecated"]["v1beta1"]["conditions"][0]["status"] = "False".into();
    let shown = converted(&hub, SPOKE);
    assert_eq!(types(&shown["status"]), [("Ready", "True")]);
    assert_eq!(converted(&shown, HUB), hub);
}

#[test]
fn counters_of_v1beta1_are_those_that_somebody_says_until_v1beta2_has_some() {
    let mut hub = json!({
        "apiVersion": "controlplane.cluster.x-k8s.io/v1beta2", "kind": "KubeadmControlPlane",
        "metadata": {"name": "cp", "namespace": "org"}, "status": {},
    });
    let mut spoke = converted(&hub, SPOKE);
    spoke["status"]["readyReplicas"] = 1.into();
    spoke["status"]["ready"] = true.into();
    hub["status"]["deprecated"] = json!({"v1beta1": {"readyReplicas": 1}});
    assert_eq!(converted(&spoke, HUB), hub);
    assert_eq!(converted(&hub, SPOKE), spoke);
    let counted = json!({"replicas": 3, "readyReplicas": 2, "availableReplicas": 1, "upToDateReplicas": 3});
    hub["status"].as_object_mut().unwrap().extend(counted.as_object().unwrap().clone());
    let mut spoke = converted(&hub, SPOKE);
    assert_eq!(
        spoke["status"],
        json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "unavailableReplicas": 2, "ready": true,
            "v1beta2": {"readyReplicas": 2, "availableReplicas": 1, "upToDateReplicas": 3}})
    );
    assert_eq!(converted(&spoke, HUB), hub);
    // What Go writes of a status in which nothing is counted yet is nobody's word.
    spoke["status"] = json!({"readyReplicas": 0, "updatedReplicas": 0, "unavailableReplicas": 0});
    spoke["metadata"]["annotations"] = Value::Null;
    let hub = converted(&spoke, HUB);
    assert_eq!(hub["status"].get("deprecated"), None);
    assert_eq!(converted(&hub, SPOKE)["status"], spoke["status"]);
}

#[test]
fn words_that_are_none_survive_and_hide_nothing_else() {
    for words in [
        json!("x"),
        json!({}),
        json!({"v1beta1": 5}),
        json!({"v1beta1": {"conditions": "x", "phase": 1}}),
        json!({"v1beta1": {"conditions": [1, {}]}}),
    ] {
        let mut hub = converted(&cluster_spoke(), HUB);
        hub["status"] =
            json!({"phase": "Provisioned", "conditions": [condition("Available", "True")], "deprecated": words});
        let spoke = converted(&hub, SPOKE);
        assert_eq!(spoke["status"]["phase"], "Provisioned", "{words}");
        assert_eq!(converted(&spoke, HUB), hub, "{words}");
    }
    let mut spoke = cluster_spoke();
    for conditions in [json!("x"), json!([]), json!([null, {"type": 5}])] {
        spoke["status"] = json!({"conditions": conditions, "phase": "Provisioned"});
        let again = converted(&converted(&spoke, HUB), SPOKE);
        assert_eq!(again["status"], spoke["status"]);
    }
}

#[test]
fn texts_of_conditions_fit_v1beta1() {
    let mut hub = converted(&cluster_spoke(), HUB);
    let mut long = condition("Available", "False");
    long["message"] = "\u{e9}".repeat(10_241).into();
    let mut empty = condition("InfrastructureReady", "False");
    empty["message"] = "".into();
    hub["status"] = json!({"conditions": [long, empty]});
    let shown = converted(&hub, SPOKE);
    let conditions = &shown["status"]["conditions"];
    assert_eq!(conditions[0]["message"].as_str().unwrap().chars().count(), 10_240);
    assert_eq!(conditions[1].get("message"), None);
    assert_eq!(converted(&shown, HUB), hub);
}

#[test]
fn the_provider_s_names_are_those_of_each_version() {
    let spoke = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "OpenStackCluster", "metadata": {"name": "a", "namespace": "org"},
        "spec": {"apiServerLoadBalancer": {"enabled": true}, "disableAPIServerFloatingIP": true, "networkMTU": 1400, "disablePortSecurity": false,
            "identityRef": {"name": "s", "cloudName": "c", "type": "Secret"},
            "managedSecurityGroups": {"allowAllInClusterTraffic": false, "allNodesSecurityGroupRules": [{"name": "bgp", "direction": "ingress"}]},
            "bastion": {"enabled": true, "spec": {"flavor": "small", "ports": [{"disablePortSecurity": true}]}}},
    });
    let hub = converted(&spoke, HUB);
    let spec = &hub["spec"];
    assert_eq!(spec["apiServer"], json!({"managedLoadBalancer": {"enabled": true}, "enableFloatingIP": false}));
    assert_eq!(spec["managedNetwork"], json!({"mtu": 1400, "enablePortSecurity": true}));
    assert_eq!(spec["managedSecurityGroups"]["clusterNodesSecurityGroupRules"][0]["name"], "bgp");
    assert_eq!(
        spec["bastion"]["spec"],
        json!({"flavor": {"filter": {"name": "small"}}, "ports": [{"enablePortSecurity": false}]})
    );
    assert_eq!(note(&hub), &Value::Null);
    assert_eq!(converted(&hub, SPOKE), spoke);
}

#[test]
fn what_is_kept_and_cannot_be_read_leaves() {
    let mut spoke = cluster_spoke();
    spoke["metadata"]["annotations"] = json!({DATA_ANNOTATION: "{not json"});
    assert_eq!(converted(&spoke, HUB), converted(&cluster_spoke(), HUB));
}

#[test]
fn versions_and_kinds_that_are_not_known_are_named() {
    let mut other = cluster_spoke();
    other["apiVersion"] = "cluster.x-k8s.io/v1alpha4".into();
    assert!(convert(&other, HUB).unwrap_err().to_string().contains("v1alpha4"));
    other["kind"] = "Thing".into();
    assert!(convert(&other, HUB).is_err());
}
