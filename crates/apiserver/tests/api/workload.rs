use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::EvictParams};
use serde_json::{Value, json};

use apiserver::{Logs, Options, Profile};

use crate::support::{client, delete, get, merge, post, server_with, workload_server};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

#[tokio::test]
async fn a_pod_is_completed_bound_once_and_given_time_to_end() {
    let server = workload_server().await;
    let made = post(&server, PODS, &pod("p")).await.json();
    assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(post(&server, &format!("{PODS}/p/binding"), &binding).await.code, 201);
    assert_eq!(post(&server, &format!("{PODS}/p/binding"), &binding).await.code, 409);
    let path = format!("{PODS}/p");
    let bound = get(&server, &format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.json();
    assert_eq!(bound["items"].as_array().unwrap().len(), 1);
    assert_eq!(merge(&server, &path, &json!({"spec": {"hostNetwork": true}})).await.code, 422);
    let running = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "n2"}});
    let running = merge(&server, &format!("{path}/status"), &running).await.json();
    assert_eq!((&running["status"]["phase"], &running["spec"]["nodeName"]), (&json!("Running"), &json!("n1")));
    let going = delete(&server, &path).await.json();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(get(&server, &path).await.code, 200);
    assert_eq!(delete(&server, &format!("{path}?gracePeriodSeconds=0")).await.code, 200);
    assert_eq!(get(&server, &path).await.code, 404);
    post(&server, PODS, &pod("q")).await;
    assert_eq!(delete(&server, &format!("{PODS}/q")).await.json()["kind"], "Pod");
}

#[tokio::test]
async fn an_eviction_asks_the_disruption_budget() {
    let server = workload_server().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    assert_eq!(post(&server, budgets, &budget).await.code, 201);
    for name in ["p", "q"] {
        post(&server, PODS, &pod(name)).await;
        merge(&server, &format!("{PODS}/{name}/status"), &json!({"status": {"phase": "Running"}})).await;
    }
    let pods: Api<Pod> = Api::default_namespaced(client(&server));
    let refused = pods.evict("p", &EvictParams::default()).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(status.code, 429);
    assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    merge(&server, &format!("{budgets}/b/status"), &json!({"status": {"disruptionsAllowed": 1}})).await;
    pods.evict("p", &EvictParams::default()).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
    let left = get(&server, &format!("{budgets}/b")).await.json();
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(left["status"]["disruptedPods"]["p"].is_string());
    assert!(pods.evict("q", &EvictParams::default()).await.is_err());
}

#[tokio::test]
async fn a_node_may_come_with_its_status() {
    let server = workload_server().await;
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"nodeInfo": {"kubeletVersion": "v1.36.0"}}});
    let made = post(&server, "/api/v1/nodes", &node).await.json();
    assert_eq!(made["status"]["nodeInfo"]["kubeletVersion"], "v1.36.0", "{made}");
    let changed = merge(
        &server,
        "/api/v1/nodes/n/status",
        &json!({"status": {"phase": "Running"}, "spec": {"unschedulable": true}}),
    )
    .await
    .json();
    assert_eq!((&changed["status"]["phase"], changed["spec"].get("unschedulable")), (&json!("Running"), None));
}

#[tokio::test]
async fn a_deployment_is_defaulted_counted_and_scaled() {
    let server = workload_server().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}},
        },
    });
    let made = post(&server, path, &deployment).await.json();
    assert_eq!((&made["spec"]["replicas"], &made["spec"]["strategy"]["type"]), (&json!(1), &json!("RollingUpdate")));
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    let scale = merge(&server, &format!("{path}/d/scale"), &json!({"spec": {"replicas": 3}})).await.json();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(3), &json!("a=b")));
    let counted = get(&server, &format!("{path}/d")).await.json();
    assert_eq!((&counted["metadata"]["generation"], &counted["spec"]["replicas"]), (&json!(2), &json!(3)));
    let moved = merge(&server, &format!("{path}/d"), &json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}})).await;
    assert_eq!(moved.code, 422);
}

#[tokio::test]
async fn each_service_has_an_address_of_its_own_and_gives_it_back() {
    let range = "10.96.0.0/27".parse().unwrap();
    let options = Options { profile: Profile::Workload, service_range: Some(range), ..Options::default() };
    let server = server_with(options).await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, extra: Value| {
        let mut spec = json!({"ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let dns = post(&server, path, &service("dns", json!({"clusterIP": "10.96.0.10"}))).await;
    assert_eq!(dns.code, 201, "{:?}", dns.status());
    let again = post(&server, path, &service("dns2", json!({"clusterIP": "10.96.0.10"}))).await;
    assert!(again.status().2.contains("failed to allocate IP 10.96.0.10: provided IP is already allocated"));
    assert_eq!(post(&server, path, &service("far", json!({"clusterIP": "10.97.0.1"}))).await.code, 422);
    let headless = post(&server, path, &service("headless", json!({"clusterIP": "None"}))).await.json();
    assert_eq!(headless["spec"]["clusterIP"], "None");
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..10 {
        let made = post(&server, path, &service(&format!("s{i}"), json!({}))).await.json();
        assert_eq!(made["spec"]["ports"][0]["targetPort"], 80);
        assert!(seen.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()), "{made}");
    }
    let taken = get(&server, "/apis/networking.k8s.io/v1/ipaddresses").await.json();
    assert_eq!(taken["items"].as_array().unwrap().len(), 11);
    let moved = merge(&server, &format!("{path}/s0"), &json!({"spec": {"clusterIP": "10.96.0.2"}})).await;
    assert_eq!(moved.code, 422);
    assert_eq!(delete(&server, &format!("{path}/dns")).await.code, 200);
    assert_eq!(post(&server, path, &service("dns2", json!({"clusterIP": "10.96.0.10"}))).await.code, 201);
}

/// Says whose log it is, in two lines.
struct Echo;

impl Logs for Echo {
    fn of(&self, pod: &Value, container: &str) -> String {
        format!("{}\n{container}\n", pod["metadata"]["name"].as_str().unwrap())
    }
}

#[tokio::test]
async fn what_a_container_has_written_is_read_as_soon_as_it_has_begun() {
    let options = Options { profile: Profile::Workload, logs: Some(std::sync::Arc::new(Echo)), ..Options::default() };
    let server = server_with(options).await;
    let log = async |query: &str| {
        let answer = get(&server, &format!("{PODS}/p/log{query}")).await;
        (answer.code, String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(log("").await.0, 404);
    let mut two = pod("p");
    two["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "d", "image": "nginx"}));
    post(&server, PODS, &two).await;
    let (code, text) = log("").await;
    assert!(
        code == 400 && text.contains("a container name must be specified for pod p, choose one of: [c d]"),
        "{text}"
    );
    assert!(log("?container=e").await.1.contains("container e is not valid for pod p"));
    assert_eq!(log("?container=d").await, (200, String::new()), "it has no node");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    post(&server, &format!("{PODS}/p/binding"), &binding).await;
    assert!(log("?container=d").await.1.contains("is waiting to start: ContainerCreating"));
    let running = |restarts: i32| json!({"status": {"containerStatuses": [{"name": "d", "restartCount": restarts, "state": {"running": {}}}]}});
    merge(&server, &format!("{PODS}/p/status"), &running(0)).await;
    assert_eq!(log("?container=d").await, (200, "p\nd\n".to_owned()));
    assert_eq!(log("?container=d&tailLines=1").await, (200, "d\n".to_owned()));
    assert_eq!(log("?container=d&limitBytes=1").await, (200, "p".to_owned()));
    assert_eq!(log("?container=d&limitBytes=0").await.0, 422);
    assert_eq!(log("?container=d&sinceSeconds=5").await.0, 400, "what is not acted upon is refused");
    assert_eq!(log("?container=d&previous=true").await.0, 400);
    merge(&server, &format!("{PODS}/p/status"), &running(1)).await;
    assert_eq!(log("?container=d&previous=true").await.0, 200);
    assert_eq!(post(&server, &format!("{PODS}/p/log"), &json!({})).await.code, 405);
}
