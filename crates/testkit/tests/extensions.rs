//! A cluster of a ClusterClass that extensions have a say in: from its creation over an upgrade to its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    cluster::Cluster, cluster_class::ClusterClass, condition, control_plane::KubeadmControlPlane,
    extension::ExtensionConfig, machine::MachineDeployment, openstack_machine::OpenStackMachineTemplate,
};
use axum::{Json, Router, extract::Path, http::StatusCode, response::IntoResponse, routing::post};
use k8s_openapi::{ByteString, api::core::v1::Namespace};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::{Shape, World};

const VERSION: &str = "hooks.runtime.cluster.x-k8s.io/v1alpha1";

/// How the server answers a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Pass,
    Block,
    /// Passes after a while.
    Slow,
    Silent,
    Rubbish,
    Refuse,
}

/// The extension: what it was asked, and how it is to answer.
#[derive(Clone, Default)]
struct Extension(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    asked: Vec<String>,
    /// The last request of a hook.
    requests: BTreeMap<String, Value>,
    moods: BTreeMap<String, Mood>,
}

const HOOKS: [&str; 12] = [
    "BeforeClusterCreate",
    "AfterControlPlaneInitialized",
    "BeforeClusterUpgrade",
    "BeforeControlPlaneUpgrade",
    "AfterControlPlaneUpgrade",
    "BeforeWorkersUpgrade",
    "AfterWorkersUpgrade",
    "AfterClusterUpgrade",
    "BeforeClusterDelete",
    "GeneratePatches",
    "ValidateTopology",
    "DiscoverVariables",
];

impl Extension {
    fn router(&self) -> Router {
        let (one, other) = (self.clone(), self.clone());
        let path = format!("/prefix/{VERSION}");
        Router::new().route(&format!("{path}/discovery"), post(move || async move { Json(one.discovery()) })).route(
            &format!("{path}/{{hook}}/{{handler}}"),
            post(move |Path((hook, handler)): Path<(String, String)>, Json(request): Json<Value>| async move {
                assert_eq!(hook, handler, "each handler is named as its hook");
                other.answer(&hook, request).await
            }),
        )
    }

    fn discovery(&self) -> Value {
        let handler = |hook: &&str| json!({"name": hook.to_lowercase(), "requestHook": {"apiVersion": VERSION, "hook": hook}, "timeoutSeconds": 5});
        let handlers: Vec<Value> = HOOKS.iter().map(handler).collect();
        json!({"apiVersion": VERSION, "kind": "DiscoveryResponse", "status": "Success", "handlers": handlers})
    }

    async fn answer(&self, hook: &str, request: Value) -> axum::response::Response {
        let name = HOOKS.iter().find(|name| name.to_lowercase() == hook).copied().unwrap_or_default();
        assert_eq!((&request["apiVersion"], &request["kind"]), (&json!(VERSION), &json!(format!("{name}Request"))));
        let mood = {
            let mut state = self.0.lock();
            if state.asked.last().is_none_or(|last| last != name) {
                state.asked.push(name.to_owned());
            }
            state.requests.insert(name.to_owned(), request.clone());
            state.moods.get(name).copied().unwrap_or(Mood::Pass)
        };
        let mut response = json!({"apiVersion": VERSION, "kind": format!("{name}Response"), "status": "Success"});
        match mood {
            Mood::Pass => {}
            Mood::Block => {
                response["retryAfterSeconds"] = 20.into();
                response["message"] = "not yet".into();
            }
            Mood::Slow => tokio::time::sleep(Duration::from_secs(4)).await,
            Mood::Silent => tokio::time::sleep(Duration::from_secs(3600)).await,
            Mood::Rubbish => return (StatusCode::OK, "rubbish").into_response(),
            Mood::Refuse => {
                response["status"] = "Failure".into();
                response["message"] = "it is not to be".into();
            }
        }
        if name == "DiscoverVariables" {
            response["variables"] = json!([{"name": "volume", "required": false,
                "schema": {"openAPIV3Schema": {"type": "integer", "default": 10, "maximum": 100}}}]);
        }
        if name == "GeneratePatches" {
            response["items"] = patches(&request);
        }
        Json(response).into_response()
    }

    fn set(&self, hook: &str, mood: Mood) {
        self.0.lock().moods.insert(hook.to_owned(), mood);
    }

    fn count(&self, hook: &str) -> usize {
        self.0.lock().asked.iter().filter(|asked| *asked == hook).count()
    }

    fn request(&self, hook: &str) -> Value {
        self.0.lock().requests.get(hook).cloned().unwrap_or_default()
    }
}

/// The workers' machines get a root volume as large as the variable says.
fn patches(request: &Value) -> Value {
    let volume = request["variables"].as_array().into_iter().flatten().find(|one| one["name"] == "volume");
    let size = volume.map_or(Value::Null, |one| one["value"].clone());
    let items = request["items"].as_array().into_iter().flatten().filter(|item| {
        item["object"]["kind"] == "OpenStackMachineTemplate" && item["holderReference"]["kind"] == "MachineDeployment"
    });
    let patch = json!({"spec": {"template": {"spec": {"rootVolume": {"sizeGiB": size}}}}});
    let patch = ByteString(patch.to_string().into_bytes());
    items.map(|item| json!({"uid": item["uid"], "patchType": "JSONMergePatch", "patch": patch})).collect()
}

async fn told(world: &World) -> (String, String) {
    let Some(cluster) = world.api::<Cluster>().get_opt("topo").await.unwrap() else { return Default::default() };
    let conditions = cluster.status.unwrap_or_default().conditions;
    let found = condition::get(&conditions, "TopologyReconciled").cloned();
    found.map(|found| (found.reason, found.message)).unwrap_or_default()
}

async fn says(world: &World, reason: &str, text: &str) {
    let holds = async || {
        let (found, message) = told(world).await;
        found == reason && message.contains(text)
    };
    world.until(&format!("it is told: {reason} {text:?}"), holds).await;
}

fn config(host: &str, authority: &str) -> ExtensionConfig {
    let bundle = ByteString(authority.as_bytes().to_vec());
    serde_json::from_value(json!({
        "apiVersion": "runtime.cluster.x-k8s.io/v1beta2", "kind": "ExtensionConfig", "metadata": {"name": "ext"},
        "spec": {"clientConfig": {"url": format!("https://{host}:8443/prefix"), "caBundle": bundle}, "settings": {"a": "all"}},
    }))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn extensions_hold_back_and_patch() {
    let world = World::start(11).await;
    let extension = Extension::default();
    extension.set("BeforeClusterCreate", Mood::Block);
    let authority = world.extensions.serve("ext.test", extension.router());
    let configs = Api::<ExtensionConfig>::all(world.client.clone());
    // Another's certificate is not trusted.
    let strange = world.extensions.serve("other.test", extension.router());
    configs.create(&Default::default(), &config("ext.test", &strange)).await.unwrap();
    let discovered = async |wanted: bool| {
        let status = configs.get("ext").await.unwrap().status.unwrap_or_default();
        condition::get(&status.conditions, "Discovered").is_some()
            && condition::is_true(&status.conditions, "Discovered") == wanted
            && status.handlers.len() == if wanted { HOOKS.len() } else { 0 }
    };
    world.until("it is not trusted", async || discovered(false).await).await;
    let patch = json!({"spec": {"clientConfig": config("ext.test", &authority).spec.client_config}});
    configs.patch("ext", &Default::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
    world.until("it is found", async || discovered(true).await).await;

    let shape = Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() };
    let change = |object: &mut Value| {
        if object["kind"] == "ClusterClass" {
            object["spec"]["kubernetesVersions"] = json!(["v1.34.2", "v1.35.0", "v1.36.1"]);
            object["spec"]["patches"].as_array_mut().unwrap().push(json!({"name": "volumes", "external": {
                "generatePatchesExtension": "generatepatches.ext", "validateTopologyExtension": "validatetopology.ext",
                "discoverVariablesExtension": "discovervariables.ext", "settings": {"b": "patch"},
            }}));
        }
    };
    world.create_topology_with("topo", shape, change).await;
    says(
        &world,
        "ClusterCreating",
        "Following hooks are blocking Cluster topology creation: BeforeClusterCreate: not yet",
    )
    .await;
    assert!(world.machines().await.is_empty());
    let class = world.api::<ClusterClass>().get("base").await.unwrap().status.unwrap();
    let volume = class.variables.iter().find(|variable| variable["name"] == "volume").unwrap();
    assert_eq!(volume["definitions"][0]["from"], "volumes");

    // A handler that is silent, one that talks rubbish, and one that refuses: nothing is made, and it is told why.
    extension.set("BeforeClusterCreate", Mood::Pass);
    for (mood, text) in [
        (Mood::Silent, "no response within 5 s"),
        (Mood::Rubbish, "failed to decode response"),
        (Mood::Refuse, "got failure response with message: it is not to be"),
    ] {
        extension.set("ValidateTopology", mood);
        says(&world, "ReconcileFailed", text).await;
        assert!(world.machines().await.is_empty());
    }
    // Handlers that are slow one after the other: each reconcile ends with the first of them, the next goes on.
    for hook in ["GeneratePatches", "ValidateTopology", "BeforeClusterCreate", "AfterControlPlaneInitialized"] {
        extension.set(hook, Mood::Slow);
    }
    world.available("topo").await;
    says(&world, "ReconcileSucceeded", "").await;
    assert_eq!(extension.count("AfterControlPlaneInitialized"), 1);
    let settings = extension.request("GeneratePatches")["settings"].clone();
    assert_eq!(settings, json!({"a": "all", "b": "patch"}));
    let volumes = async |size: i64| {
        let own = ListParams::default().labels("topology.cluster.x-k8s.io/deployment-name");
        let templates = world.api::<OpenStackMachineTemplate>().list(&own).await.unwrap().items;
        templates.iter().any(|template| {
            let template = serde_json::to_value(template).unwrap();
            template.pointer("/spec/template/spec/rootVolume/sizeGiB") == Some(&json!(size))
        })
    };
    assert!(volumes(10).await, "the extension's own default");
    world
        .patch::<Cluster>("topo", json!({"spec": {"topology": {"variables": [{"name": "volume", "value": 20}]}}}))
        .await;
    world.until("the workers are patched anew", async || volumes(20).await).await;
    says(&world, "ReconcileSucceeded", "").await;

    upgrade(&world, &extension).await;

    // It is for namespaces with a label, once it says so.
    let selector = Patch::Merge(json!({"spec": {"namespaceSelector": {"matchLabels": {"team": "a"}}}}));
    configs.patch("ext", &PatchParams::default(), &selector).await.unwrap();
    says(&world, "ReconcileFailed", "is not for namespace default").await;
    let label = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}}));
    Api::<Namespace>::all(world.client.clone()).patch("default", &PatchParams::default(), &label).await.unwrap();
    says(&world, "ReconcileSucceeded", "").await;
    let older = GroupVersionKind::gvk("runtime.cluster.x-k8s.io", "v1alpha1", "ExtensionConfig");
    let older = Api::<DynamicObject>::all_with(world.client.clone(), &ApiResource::from_gvk(&older));
    let older = older.get("ext").await.unwrap().data;
    assert_eq!(older["status"]["conditions"][0]["type"], "Discovered");
    assert_eq!(older["spec"]["namespaceSelector"]["matchLabels"]["team"], "a");

    // It goes when the extension lets it.
    extension.set("BeforeClusterDelete", Mood::Block);
    world.delete("topo").await;
    says(&world, "Deleting", "Following hooks are blocking delete: BeforeClusterDelete: not yet").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.machines().await.len(), 2);
    extension.set("BeforeClusterDelete", Mood::Pass);
    world.until("it is gone", async || world.api::<Cluster>().get_opt("topo").await.unwrap().is_none()).await;
    let longest = world.longest_reconciles()["topology"];
    assert!(longest < Duration::from_secs(8), "no longer than the longest call: {longest:?}");
    world.shutdown().await;
}

/// Two minor versions up, each step with its hooks.
async fn upgrade(world: &World, extension: &Extension) {
    let versions = async || {
        let plane = world.api::<KubeadmControlPlane>().list(&ListParams::default()).await.unwrap().items.remove(0);
        let workers = world.api::<MachineDeployment>().list(&ListParams::default()).await.unwrap().items.remove(0);
        (plane.spec.version, workers.spec.template.spec.version.unwrap_or_default())
    };
    let blocking = [
        ("BeforeClusterUpgrade", "v1.34.2", "v1.34.2"),
        ("BeforeControlPlaneUpgrade", "v1.34.2", "v1.34.2"),
        ("AfterControlPlaneUpgrade", "v1.35.0", "v1.34.2"),
        ("BeforeWorkersUpgrade", "v1.36.1", "v1.34.2"),
        ("AfterWorkersUpgrade", "v1.36.1", "v1.36.1"),
        ("AfterClusterUpgrade", "v1.36.1", "v1.36.1"),
    ];
    extension.0.lock().asked.clear();
    for (hook, ..) in blocking {
        extension.set(hook, Mood::Block);
    }
    world.patch::<Cluster>("topo", json!({"spec": {"topology": {"version": "v1.36.1"}}})).await;
    for (hook, plane, workers) in blocking {
        says(world, "ClusterUpgrading", &format!("Following hooks are blocking upgrade: {hook}: not yet")).await;
        assert_eq!(versions().await, (plane.to_owned(), workers.to_owned()), "{hook}");
        extension.set(hook, Mood::Pass);
    }
    says(world, "ReconcileSucceeded", "").await;
    let steps = extension.request("BeforeClusterUpgrade");
    assert_eq!(steps["controlPlaneUpgrades"], json!([{"version": "v1.35.0"}, {"version": "v1.36.1"}]));
    assert_eq!(steps["workersUpgrades"], json!([{"version": "v1.36.1"}]));
    for (hook, wanted) in [
        ("BeforeClusterUpgrade", 1),
        ("BeforeControlPlaneUpgrade", 2),
        ("AfterControlPlaneUpgrade", 2),
        ("BeforeWorkersUpgrade", 1),
        ("AfterWorkersUpgrade", 1),
        ("AfterClusterUpgrade", 1),
    ] {
        let runs = extension.0.lock().asked.iter().filter(|asked| *asked == hook).count();
        assert!(runs >= wanted, "{hook}: {runs} of {wanted}");
    }
    let cluster = world.api::<Cluster>().get("topo").await.unwrap();
    let annotations = cluster.metadata.annotations.unwrap_or_default();
    assert!(!annotations.keys().any(|key| key.contains("pending-hooks") || key.contains("upgrade-step")));
}
