//! Quotas, limit ranges, and the other plugins of the server's own.

use std::sync::Arc;

use apiserver::{Options, Server};
use serde_json::{Value, json};

use crate::support::{delete, eventually, get, merge, post, server, workload_server};

const CORE: &str = "/api/v1/namespaces/default";

async fn quota(server: &Server, hard: Value) {
    let made =
        post(server, &format!("{CORE}/resourcequotas"), &json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}))
            .await;
    assert_eq!(made.code, 201, "{:?}", made.status());
}

async fn used(server: &Server) -> Value {
    get(server, &format!("{CORE}/resourcequotas/q")).await.json()["status"]["used"].clone()
}

async fn map(server: &Server, name: &str) -> crate::support::Answer {
    post(server, &format!("{CORE}/configmaps"), &json!({"metadata": {"name": name}})).await
}

#[tokio::test]
async fn a_quota_counts_objects_in_the_commit_that_makes_them() {
    let server = server().await;
    assert_eq!(map(&server, "before").await.code, 201);
    quota(&server, json!({"configmaps": "3", "count/configmaps": "10", "count/roles.rbac.authorization.k8s.io": "0"}))
        .await;
    eventually(&server, "the quota is counted", || async { used(&server).await["configmaps"] == "1" }).await;
    assert_eq!(map(&server, "a").await.code, 201);
    assert_eq!(
        used(&server).await,
        json!({"configmaps": "2", "count/configmaps": "2", "count/roles.rbac.authorization.k8s.io": "0"})
    );
    assert_eq!(map(&server, "b").await.code, 201);
    let text = "configmaps \"c\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3";
    assert_eq!(map(&server, "c").await.status(), (403, "Forbidden".into(), text.into()));
    let tried = post(&server, &format!("{CORE}/configmaps?dryRun=All"), &json!({"metadata": {"name": "d"}})).await;
    assert_eq!(tried.code, 403);
    assert_eq!(
        merge(&server, &format!("{CORE}/configmaps/a"), &json!({"data": {"k": "v"}})).await.code,
        200,
        "changes cost nothing"
    );
    assert_eq!(delete(&server, &format!("{CORE}/configmaps/a")).await.code, 200);
    assert_eq!(used(&server).await["configmaps"], "2");
    assert_eq!(map(&server, "c").await.code, 201);
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let refused = post(&server, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &role).await;
    assert!(
        refused.status().2.contains("requested: count/roles.rbac.authorization.k8s.io=1"),
        "{:?}",
        refused.status()
    );
    merge(&server, &format!("{CORE}/resourcequotas/q"), &json!({"spec": {"hard": {"secrets": "1"}}})).await;
    eventually(&server, "what is new in it is counted", || async { used(&server).await["secrets"] == "0" }).await;
    assert_eq!(delete(&server, &format!("{CORE}/resourcequotas/q")).await.code, 200);
    assert_eq!(map(&server, "d").await.code, 201);
}

#[tokio::test]
async fn many_at_once_do_not_get_more_than_there_is() {
    let server = server().await;
    quota(&server, json!({"configmaps": "10"})).await;
    let server = Arc::new(server);
    let asked = (0..40).map(|i| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { map(&server, &format!("m{i}")).await.code })
    });
    let mut codes = Vec::new();
    for one in asked.collect::<Vec<_>>() {
        codes.push(one.await.unwrap());
    }
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 30, "{codes:?}");
    assert_eq!(used(&server).await["configmaps"], "10");
}

#[tokio::test]
async fn services_claims_and_pods_are_measured() {
    let server = workload_server().await;
    quota(&server, json!({"services.nodeports": "1", "requests.storage": "3Gi", "pods": "5", "requests.cpu": "1", "limits.memory": "1Gi"})).await;
    eventually(&server, "the quota is counted", || async { used(&server).await["pods"] == "0" }).await;
    let service =
        |name: &str, ports: Value| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}});
    let path = format!("{CORE}/services");
    assert_eq!(post(&server, &path, &service("a", json!([{"port": 1}]))).await.code, 201);
    assert!(
        post(&server, &path, &service("b", json!([{"port": 1}])))
            .await
            .status()
            .2
            .contains("exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1")
    );
    let claim = |name: &str, size: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let path = format!("{CORE}/persistentvolumeclaims");
    assert_eq!(post(&server, &path, &claim("a", "2Gi")).await.code, 201);
    let text = "persistentvolumeclaims \"b\" is forbidden: exceeded quota: q, requested: requests.storage=1536Mi, used: requests.storage=2Gi, limited: requests.storage=3Gi";
    assert_eq!(post(&server, &path, &claim("b", "1.5Gi")).await.status().2, text);
    let pod = |name: &str, resources: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}});
    let path = format!("{CORE}/pods");
    let text = "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c";
    assert_eq!(post(&server, &path, &pod("a", json!({}))).await.status().2, text);
    let fits = json!({"requests": {"cpu": "600m"}, "limits": {"memory": "512Mi"}});
    assert_eq!(post(&server, &path, &pod("a", fits.clone())).await.code, 201);
    let text = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(post(&server, &path, &pod("b", fits)).await.status().2, text);
}

#[tokio::test]
async fn limit_ranges_complete_and_check() {
    let server = workload_server().await;
    let limits = json!([
        {"type": "Container", "max": {"memory": "1Gi"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"}, "min": {"cpu": "100m"}},
        {"type": "Pod", "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}},
    ]);
    let made =
        post(&server, &format!("{CORE}/limitranges"), &json!({"metadata": {"name": "l"}, "spec": {"limits": limits}}))
            .await;
    assert_eq!(
        made.json()["spec"]["limits"][0]["default"],
        json!({"cpu": "500m", "memory": "1Gi"}),
        "{:?}",
        made.status()
    );
    let pod = |name: &str, resources: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}});
    let path = format!("{CORE}/pods");
    let made = post(&server, &path, &pod("a", json!({}))).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    let made = made.json();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "250m", "memory": "1Gi"}})
    );
    let text = "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c";
    assert_eq!(made["metadata"]["annotations"]["kubernetes.io/limit-ranger"], text);
    let cases = [
        (json!({"requests": {"cpu": "50m"}}), "minimum cpu usage per Container is 100m, but request is 50m"),
        (
            json!({"limits": {"memory": "2Gi"}, "requests": {"memory": "1Mi"}}),
            "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        ),
        (json!({"limits": {"cpu": "2"}}), "maximum cpu usage per Pod is 1, but limit is 2"),
    ];
    for (resources, text) in cases {
        let refused = post(&server, &path, &pod("b", resources)).await;
        assert_eq!(refused.status(), (403, "Forbidden".into(), format!("pods \"b\" is forbidden: {text}")));
    }
    let claim = json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let refused = post(&server, &format!("{CORE}/persistentvolumeclaims"), &claim).await;
    assert!(
        refused.status().2.ends_with("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        "{:?}",
        refused.status()
    );
}

#[tokio::test]
async fn priorities_and_storage_classes_are_filled_in() {
    let server = workload_server().await;
    let class = json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"});
    assert_eq!(post(&server, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.code, 201);
    let pod = |name: &str, class: &str| json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "containers": [{"name": "c", "image": "i:1"}]}});
    let path = format!("{CORE}/pods");
    let made = post(&server, &path, &pod("a", "high")).await.json();
    assert_eq!((&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]), (&json!(7), &json!("Never")));
    let text = "pods \"b\" is forbidden: no PriorityClass with name low was found";
    assert_eq!(post(&server, &path, &pod("b", "low")).await.status().2, text);
    assert_eq!(post(&server, &path, &pod("b", "system-node-critical")).await.json()["spec"]["priority"], 2_000_001_000);
    let storage = json!({"metadata": {"name": "std", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "x/y"});
    assert_eq!(post(&server, "/apis/storage.k8s.io/v1/storageclasses", &storage).await.code, 201);
    let claim = json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    let made = post(&server, &format!("{CORE}/persistentvolumeclaims"), &claim).await.json();
    assert_eq!(made["spec"]["storageClassName"], "std");
}

#[tokio::test]
async fn what_was_written_in_ignorance_of_a_quota_is_counted_after_all() {
    let store: store::SharedStore = Arc::new(store::Embedded::memory(store::Limits::default()));
    let start = async || Server::start(Arc::clone(&store), Options::default()).await.unwrap();
    let (one, two) = (start().await, start().await);
    quota(&one, json!({"configmaps": "3"})).await;
    // The other has not heard of it yet.
    assert_eq!(map(&two, "early").await.code, 201);
    eventually(&two, "it is counted", || async { used(&one).await["configmaps"] == "1" }).await;
    assert_eq!(map(&two, "late").await.code, 201);
    assert_eq!(used(&one).await["configmaps"], "2");
    one.shutdown().await;
    two.shutdown().await;
}
