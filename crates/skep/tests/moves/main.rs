//! `skep move` between two API servers, cut off at each of its writes: the same command goes on where it was.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use apiserver::{Options, Server, User};
use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use store::{Embedded, Limits};

async fn server() -> Server {
    let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap());
    let options = Options { crds: crds.collect(), ..Options::default() };
    Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap()
}

/// Where a move ends early.
#[derive(Clone)]
struct End {
    /// Writes that are left.
    left: Arc<AtomicI64>,
    /// Whether the last one is done: its answer is lost.
    done: bool,
}

async fn cut_off(State(end): State<End>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match end.left.fetch_sub(1, Ordering::SeqCst) {
        ..=0 => StatusCode::BAD_GATEWAY.into_response(),
        1 if end.done => {
            next.run(request).await;
            StatusCode::BAD_GATEWAY.into_response()
        }
        1 => StatusCode::BAD_GATEWAY.into_response(),
        _ => next.run(request).await,
    }
}

fn client(server: &Server, end: Option<End>) -> Client {
    let service = server.service_as(User::master("admin"));
    match end {
        Some(end) => Client::new(service.layer(middleware::from_fn_with_state(end, cut_off)), "default"),
        None => Client::new(service, "default"),
    }
}

fn api(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

const CORE: &str = "cluster.x-k8s.io/v1beta2";
const INFRA: &str = "infrastructure.cluster.x-k8s.io/v1beta2";
const KINDS: [(&str, &str); 6] = [
    (CORE, "Cluster"),
    (CORE, "MachineSet"),
    (CORE, "Machine"),
    (INFRA, "OpenStackMachine"),
    (INFRA, "OpenStackMachineTemplate"),
    ("v1", "Secret"),
];

/// Creates an object with its status; returns its UID.
async fn put(client: &Client, namespace: &str, mut object: Value, owner: Option<(&str, &str, &str)>) -> String {
    if let Some((kind, name, uid)) = owner {
        object["metadata"]["ownerReferences"] =
            json!([{"apiVersion": CORE, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    }
    let api = api(client, namespace, object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let made = api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.unwrap();
    let name = made.metadata.name.unwrap();
    if object["status"].is_object() {
        let status = Patch::Merge(json!({"status": object["status"]}));
        api.patch_status(&name, &PatchParams::default(), &status).await.unwrap();
    }
    made.metadata.uid.unwrap()
}

/// A cluster with a machine, and things that have nothing to do with it.
async fn fill(client: &Client, namespace: &str) {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    put(client, "", space, None).await;
    let meta = |name: &str| json!({"name": name, "finalizers": ["test.example/held"]});
    let reference = |kind: &str| json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": kind, "name": "m"});
    let machine = json!({
        "clusterName": "demo", "bootstrap": {"dataSecretName": "m"}, "infrastructureRef": reference("OpenStackMachine"),
    });
    let cluster = json!({
        "apiVersion": CORE, "kind": "Cluster", "metadata": meta("demo"),
        "spec": {"controlPlaneEndpoint": {"host": "203.0.113.5", "port": 6443}},
        "status": {"initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true}},
    });
    let cluster = put(client, namespace, cluster, None).await;
    let own = Some(("Cluster", "demo", cluster.as_str()));
    let server = json!({"flavor": {"filter": {"name": "m1"}}, "image": {"filter": {"name": "i"}}});
    let template = json!({
        "apiVersion": INFRA, "kind": "OpenStackMachineTemplate", "metadata": {"name": "m"},
        "spec": {"template": {"spec": server}},
    });
    put(client, namespace, template, own).await;
    let set = json!({
        "apiVersion": CORE, "kind": "MachineSet", "metadata": meta("s"),
        "spec": {
            "clusterName": "demo", "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": machine},
        },
    });
    let set = put(client, namespace, set, own).await;
    let machine = json!({
        "apiVersion": CORE, "kind": "Machine", "metadata": meta("m"), "spec": machine,
        "status": {"nodeRef": {"name": "m"}},
    });
    let machine = put(client, namespace, machine, Some(("MachineSet", "s", &set))).await;
    let infra = json!({"apiVersion": INFRA, "kind": "OpenStackMachine", "metadata": meta("m"), "spec": server});
    put(client, namespace, infra, Some(("Machine", "m", &machine))).await;
    let secret = |name: &str, labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "stringData": {"value": name},
        })
    };
    put(client, namespace, secret("demo-ca", json!({})), None).await;
    put(client, namespace, secret("cloud", json!({"clusterctl.cluster.x-k8s.io/move": "true"})), None).await;
    put(client, namespace, secret("stranger", json!({})), None).await;
}

/// Objects by kind and name, with the kinds and names of their owners: `Machine/m < MachineSet/s`.
async fn there(client: &Client, namespace: &str) -> (Vec<String>, BTreeMap<String, DynamicObject>) {
    let mut objects = BTreeMap::new();
    for (api_version, kind) in KINDS {
        for object in api(client, namespace, api_version, kind).list(&ListParams::default()).await.unwrap().items {
            objects.insert(format!("{kind}/{}", object.metadata.name.clone().unwrap()), object);
        }
    }
    let by_uid: BTreeMap<_, _> = objects.iter().map(|(name, one)| (one.metadata.uid.clone().unwrap(), name)).collect();
    let told = |(name, object): (&String, &DynamicObject)| {
        let owners = object.metadata.owner_references.iter().flatten();
        let owners = owners.map(|owner| by_uid.get(&owner.uid).map_or("nobody", |name| name.as_str()));
        owners.fold(name.clone(), |told, owner| format!("{told} < {owner}"))
    };
    (objects.iter().map(told).collect(), objects)
}

const MOVED: [&str; 7] = [
    "Cluster/demo",
    "Machine/m < MachineSet/s",
    "MachineSet/s < Cluster/demo",
    "OpenStackMachine/m < Machine/m",
    "OpenStackMachineTemplate/m < Cluster/demo",
    "Secret/cloud",
    "Secret/demo-ca",
];

async fn go(from: Client, to: Client, namespace: &str) -> anyhow::Result<Vec<String>> {
    let moving = cli::Move { from, to, namespace: namespace.to_owned(), cluster: None, dry_run: false };
    let mut said = Vec::new();
    moving.run(&mut |word| said.push(word.to_owned())).await?;
    Ok(said)
}

async fn moved(source: &Client, target: &Client, namespace: &str) {
    let (told, objects) = there(target, namespace).await;
    assert_eq!(told, MOVED, "in the target, {namespace}");
    let cluster = &objects["Cluster/demo"];
    assert!(cluster.data["spec"]["paused"].is_null(), "it goes on");
    assert_eq!(cluster.metadata.finalizers.as_deref().unwrap_or_default(), ["test.example/held"]);
    let annotations = cluster.metadata.annotations.as_ref().unwrap();
    assert!(!annotations.keys().any(|key| key.ends_with("/from") || key.ends_with("/to")), "{annotations:?}");
    assert_eq!(there(source, namespace).await.0, ["Secret/stranger"], "in the source, {namespace}");
}

#[tokio::test]
async fn a_move_that_is_cut_off_at_any_write_is_picked_up_by_the_same_command() {
    let (source, target) = (server().await, server().await);
    let (from, to) = (client(&source, None), client(&target, None));
    let mut writes = 0;
    for round in 1.. {
        let namespace = format!("n{round}");
        fill(&from, &namespace).await;
        let end = End { left: Arc::new(AtomicI64::new(round)), done: round % 2 == 0 };
        let cut = go(client(&source, Some(end.clone())), client(&target, Some(end.clone())), &namespace).await;
        if end.left.load(Ordering::SeqCst) > 0 {
            cut.unwrap();
            writes = round - end.left.load(Ordering::SeqCst);
            moved(&from, &to, &namespace).await;
            break;
        }
        assert!(cut.is_err(), "cut off at write {round}, it says that all is well");
        if !there(&from, &namespace).await.0.iter().any(|name| name == "Cluster/demo") {
            let here = there(&to, &namespace).await.0;
            assert_eq!(here, MOVED, "deleted at write {round} before all was there");
        }
        go(from.clone(), to.clone(), &namespace).await.unwrap();
        moved(&from, &to, &namespace).await;
    }
    assert!(writes > 20, "{writes} writes only: is anything moved at all?");
    let said = go(from.clone(), to.clone(), "n1").await.unwrap();
    assert_eq!(said, ["there is nothing to move in namespace n1"]);
}

#[tokio::test]
async fn a_namesake_in_the_target_is_not_touched_and_what_is_not_ready_does_not_move() {
    let (source, target) = (server().await, server().await);
    let (from, to) = (client(&source, None), client(&target, None));
    fill(&from, "a").await;
    fill(&to, "a").await;
    let before = there(&to, "a").await.1;
    let error = go(from.clone(), to.clone(), "a").await.unwrap_err().to_string();
    assert!(error.contains("is in the target already, and is another one"), "{error}");
    let after = there(&to, "a").await.1;
    assert_eq!(serde_json::to_value(before).unwrap(), serde_json::to_value(after).unwrap());
    assert_eq!(there(&from, "a").await.0.len(), MOVED.len() + 1, "nothing is deleted");

    fill(&from, "b").await;
    let machines = api(&from, "b", CORE, "Machine");
    let no_node = Patch::Merge(json!({"status": {"nodeRef": null}}));
    machines.patch_status("m", &PatchParams::default(), &no_node).await.unwrap();
    let clusters = api(&from, "b", CORE, "Cluster");
    clusters.patch("demo", &PatchParams::default(), &Patch::Merge(json!({"spec": {"paused": true}}))).await.unwrap();
    let error = go(from.clone(), to.clone(), "b").await.unwrap_err().to_string();
    assert!(error.contains("Machine/m has no node yet") && error.contains("Cluster/demo is paused"), "{error}");
    let error = go(from.clone(), from.clone(), "b").await.unwrap_err().to_string();
    assert_eq!(error, "source and target are the same management cluster");
}

#[tokio::test]
async fn a_dry_run_says_the_order_and_writes_nothing() {
    let (source, target) = (server().await, server().await);
    let (from, to) = (client(&source, None), client(&target, None));
    fill(&from, "a").await;
    let end = End { left: Arc::new(AtomicI64::new(0)), done: false };
    let (from_only, to_only) = (client(&source, Some(end.clone())), client(&target, Some(end)));
    let moving = cli::Move { from: from_only, to: to_only, namespace: "a".into(), cluster: None, dry_run: true };
    let mut said = String::new();
    moving.run(&mut |word| said.push_str(word)).await.unwrap();
    assert!(said.contains("  1  Cluster/demo") && said.contains("7 objects would be moved"), "{said}");
    assert_eq!(there(&to, "a").await.0, [] as [&str; 0]);
}
