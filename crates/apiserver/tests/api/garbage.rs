use http::Method;
use serde_json::{Value, json};

use crate::support::{delete, eventually, get, merge, post, send, server};
use apiserver::{Options, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Makes a config map with owners; its uid.
async fn map(server: &Server, name: &str, owners: &[&Value], block: bool) -> Value {
    let reference = |owner: &&Value| {
        let metadata = &owner["metadata"];
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"],
            "blockOwnerDeletion": block,
        })
    };
    let owners: Vec<Value> = owners.iter().map(reference).collect();
    let made = post(server, MAPS, &json!({"metadata": {"name": name, "ownerReferences": owners}})).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    made.json()
}

async fn exists(server: &Server, name: &str) -> bool {
    get(server, &format!("{MAPS}/{name}")).await.code == 200
}

async fn delete_with(server: &Server, name: &str, policy: &str) {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}).to_string();
    assert_eq!(send(server, Method::DELETE, &format!("{MAPS}/{name}"), "application/json", body).await.code, 200);
}

#[tokio::test]
async fn dependents_go_when_their_owner_has_gone_and_theirs_after_them() {
    let server = server().await;
    let owner = map(&server, "owner", &[], false).await;
    let child = map(&server, "child", &[&owner], false).await;
    map(&server, "grandchild", &[&child], false).await;
    map(&server, "stranger", &[], false).await;
    delete(&server, &format!("{MAPS}/owner")).await;
    eventually(&server, "the grandchild goes", async || !exists(&server, "grandchild").await).await;
    assert!(!exists(&server, "child").await && exists(&server, "stranger").await);
}

#[tokio::test]
async fn a_dependent_stays_while_one_of_its_owners_stays() {
    let server = server().await;
    let one = map(&server, "one", &[], false).await;
    let two = map(&server, "two", &[], false).await;
    map(&server, "child", &[&one, &two], false).await;
    delete(&server, &format!("{MAPS}/one")).await;
    let owners = async || {
        let child = get(&server, &format!("{MAPS}/child")).await.json();
        child["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len)
    };
    eventually(&server, "the owner is forgotten", async || owners().await == 1).await;
    delete(&server, &format!("{MAPS}/two")).await;
    eventually(&server, "the child goes", async || !exists(&server, "child").await).await;
}

#[tokio::test]
async fn an_owner_that_never_was_is_no_owner_but_one_of_an_unknown_kind_may_be() {
    let server = server().await;
    let ghost = json!({"metadata": {"name": "ghost", "uid": "00000000-0000-0000-0000-000000000000"}});
    map(&server, "child", &[&ghost], false).await;
    let unknown = json!([{"apiVersion": "no.such.io/v1", "kind": "Thing", "name": "x", "uid": "1"}]);
    post(&server, MAPS, &json!({"metadata": {"name": "careful", "ownerReferences": unknown}})).await;
    eventually(&server, "the child goes", async || !exists(&server, "child").await).await;
    assert!(exists(&server, "careful").await);
}

#[tokio::test]
async fn in_the_foreground_the_owner_waits_for_those_that_block_it() {
    let server = server().await;
    let owner = map(&server, "owner", &[], false).await;
    map(&server, "blocking", &[&owner], true).await;
    merge(&server, &format!("{MAPS}/blocking"), &json!({"metadata": {"finalizers": ["a.io/hold"]}})).await;
    delete_with(&server, "owner", "Foreground").await;
    let going = async || {
        let child = get(&server, &format!("{MAPS}/blocking")).await.json();
        child["metadata"]["deletionTimestamp"].is_string()
    };
    eventually(&server, "the dependent is asked to go", going).await;
    let owner = get(&server, &format!("{MAPS}/owner")).await.json();
    assert_eq!(owner["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    merge(&server, &format!("{MAPS}/blocking"), &json!({"metadata": {"finalizers": null}})).await;
    eventually(&server, "the owner goes", async || !exists(&server, "owner").await).await;
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let server = server().await;
    let owner = map(&server, "owner", &[], false).await;
    map(&server, "child", &[&owner], true).await;
    delete_with(&server, "owner", "Orphan").await;
    eventually(&server, "the owner goes", async || !exists(&server, "owner").await).await;
    let child = get(&server, &format!("{MAPS}/child")).await.json();
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn a_namespace_goes_with_its_content_and_takes_nothing_new_meanwhile() {
    let server = server().await;
    assert_eq!(post(&server, "/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.code, 201);
    let maps = "/api/v1/namespaces/team/configmaps";
    post(&server, maps, &json!({"metadata": {"name": "free"}})).await;
    post(&server, maps, &json!({"metadata": {"name": "held", "finalizers": ["a.io/hold"]}})).await;
    let account = async || get(&server, "/api/v1/namespaces/team/serviceaccounts/default").await.code == 200;
    eventually(&server, "the default account is made", account).await;
    let going = delete(&server, "/api/v1/namespaces/team").await;
    assert_eq!(going.json()["status"]["phase"], "Terminating");
    let late = post(&server, maps, &json!({"metadata": {"name": "late"}})).await;
    assert_eq!(late.code, 403);
    assert_eq!(late.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let told = async || {
        let namespace = get(&server, "/api/v1/namespaces/team").await.json();
        let remain = |wanted: &str, text: &str| {
            let all = namespace["status"]["conditions"].as_array();
            all.is_some_and(|all| {
                all.iter().any(|c| c["type"] == wanted && c["status"] == "True" && c["message"] == text)
            })
        };
        remain("NamespaceContentRemaining", "Some resources are remaining: configmaps. has 1 resource instances")
            && remain(
                "NamespaceFinalizersRemaining",
                "Some content in the namespace has finalizers remaining: a.io/hold in 1 resource instances",
            )
    };
    eventually(&server, "the namespace says what holds it", told).await;
    assert_eq!(get(&server, &format!("{maps}/free")).await.code, 404);
    merge(&server, &format!("{maps}/held"), &json!({"metadata": {"finalizers": null}})).await;
    eventually(&server, "the namespace goes", async || get(&server, "/api/v1/namespaces/team").await.code == 404).await;
    assert_eq!(get(&server, "/api/v1/namespaces/team/serviceaccounts").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_graph_that_was_there_before_the_server_is_collected_too() {
    let store: store::SharedStore = std::sync::Arc::new(store::Embedded::memory(store::Limits::default()));
    let first = Server::start(store.clone(), apiserver::Options::default()).await.unwrap();
    let owner = map(&first, "owner", &[], false).await;
    map(&first, "child", &[&owner], false).await;
    first.shutdown().await;
    delete(&first, &format!("{MAPS}/owner")).await;
    let second = Server::start(store, apiserver::Options::default()).await.unwrap();
    eventually(&second, "the child goes", async || !exists(&second, "child").await).await;
}

#[tokio::test]
async fn what_another_is_to_do_the_server_leaves() {
    use apiserver::Controller;
    let disabled_controllers = vec![Controller::GarbageCollector, Controller::Namespace, Controller::ServiceAccount];
    let server = crate::support::server_with(Options { disabled_controllers, ..Options::default() }).await;
    let owner = map(&server, "owner", &[], false).await;
    let other = map(&server, "other", &[], false).await;
    map(&server, "child", &[&owner], false).await;
    delete_with(&server, "other", "Foreground").await;
    delete(&server, &format!("{MAPS}/owner")).await;
    post(&server, "/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await;
    delete(&server, "/api/v1/namespaces/team").await;
    // Its own work goes on, after all of that: a role that is the sum of others gets their rules.
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let selector = json!({"clusterRoleSelectors": [{"matchLabels": {"sum": "yes"}}]});
    post(&server, roles, &json!({"metadata": {"name": "sum"}, "aggregationRule": selector})).await;
    let rule = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    post(&server, roles, &json!({"metadata": {"name": "part", "labels": {"sum": "yes"}}, "rules": rule})).await;
    let summed = async || get(&server, &format!("{roles}/sum")).await.json()["rules"] == rule;
    eventually(&server, "the rules are summed up", summed).await;
    assert!(exists(&server, "child").await);
    let waiting = get(&server, &format!("{MAPS}/other")).await.json();
    assert_eq!(waiting["metadata"]["uid"], other["metadata"]["uid"]);
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(get(&server, "/api/v1/namespaces/team").await.json()["status"]["phase"], "Terminating");
    assert_eq!(get(&server, "/api/v1/namespaces/team/serviceaccounts").await.json()["items"], json!([]));
}

#[tokio::test]
async fn one_of_several_servers_collects_and_another_takes_over() {
    let store: store::SharedStore = std::sync::Arc::new(store::Embedded::memory(store::Limits::default()));
    let start = async || Server::start(std::sync::Arc::clone(&store), Options::default()).await.unwrap();
    let (one, two) = (start().await, start().await);
    one.collect(false);
    two.collect(false);
    let made = post(&one, MAPS, &json!({"metadata": {"name": "owner"}})).await.json();
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": made["metadata"]["uid"]});
    post(&two, MAPS, &json!({"metadata": {"name": "owned", "ownerReferences": [owner]}})).await;
    assert_eq!(delete(&one, &format!("{MAPS}/owner")).await.code, 200);
    let namespaces = "/api/v1/namespaces";
    post(&two, namespaces, &json!({"metadata": {"name": "going"}})).await;
    assert_eq!(delete(&two, &format!("{namespaces}/going")).await.code, 200);
    // Nobody works now.
    assert_eq!(get(&one, &format!("{MAPS}/owned")).await.code, 200);
    two.collect(true);
    eventually(&two, "the dependent goes", || async { get(&one, &format!("{MAPS}/owned")).await.code == 404 }).await;
    let gone = || async { get(&one, &format!("{namespaces}/going")).await.code == 404 };
    eventually(&two, "the namespace goes", gone).await;
    one.shutdown().await;
    two.shutdown().await;
}
