//! Machines that an extension updates instead of their being replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::{
    condition,
    control_plane::KubeadmControlPlane,
    extension::ExtensionConfig,
    machine::{Machine, MachineDeployment, MachinePhase, MachineSet},
    openstack_machine::OpenStackMachine,
};
use axum::{Json, Router, extract::Path, routing::post};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::{Shape, World};

const VERSION: &str = "hooks.runtime.cluster.x-k8s.io/v1alpha1";
const HOOKS: [&str; 3] = ["CanUpdateMachine", "CanUpdateMachineSet", "UpdateMachine"];

/// How the extension answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    /// Says that it can do nothing of what is wanted.
    Nothing,
    /// Patches that do not make all of it.
    Half,
    Refuse,
    Silent,
}

#[derive(Default)]
struct State {
    moods: BTreeMap<&'static str, Mood>,
    /// Calls of `UpdateMachine` by machine.
    calls: BTreeMap<String, usize>,
    /// Machines that it has begun with and has not finished.
    busy: BTreeSet<String>,
    /// The most that were at once.
    most: usize,
    /// The last request of a hook.
    requests: BTreeMap<&'static str, Value>,
}

/// An extension that updates machines: each takes two calls.
#[derive(Clone, Default)]
struct Updater(Arc<Mutex<State>>);

impl Updater {
    fn router(&self) -> Router {
        let own = self.clone();
        Router::new().route(&format!("/{VERSION}/discovery"), post(async || Json(discovery()))).route(
            &format!("/{VERSION}/{{hook}}/{{handler}}"),
            post(move |Path((hook, _)): Path<(String, String)>, Json(request): Json<Value>| async move {
                Json(own.answer(&hook, request).await)
            }),
        )
    }

    async fn answer(&self, hook: &str, request: Value) -> Value {
        let name = HOOKS.into_iter().find(|name| name.to_lowercase() == hook).unwrap();
        assert_eq!(request["kind"], format!("{name}Request"));
        let mood = {
            let mut state = self.0.lock();
            state.requests.insert(name, request.clone());
            state.moods.get(name).copied().unwrap_or_default()
        };
        let mut response = json!({"apiVersion": VERSION, "kind": format!("{name}Response"), "status": "Success"});
        match mood {
            Mood::Well => {}
            Mood::Nothing if name != "UpdateMachine" => return response,
            Mood::Nothing | Mood::Half if name == "UpdateMachine" => {}
            Mood::Silent => tokio::time::sleep(Duration::from_secs(3600)).await,
            Mood::Refuse => {
                response["status"] = "Failure".into();
                response["message"] = "not today".into();
                return response;
            }
            _ => {}
        }
        if name == "UpdateMachine" {
            self.update(&request, &mut response);
        } else {
            patches(name, &request, mood == Mood::Half, &mut response);
        }
        response
    }

    fn update(&self, request: &Value, response: &mut Value) {
        let machine = request["desired"]["machine"]["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(request["desired"]["machine"].get("status").is_none());
        let mut state = self.0.lock();
        let calls = state.calls.entry(machine.clone()).or_default();
        *calls += 1;
        if *calls % 2 == 1 {
            response["retryAfterSeconds"] = 15.into();
            response["message"] = "half of it is done".into();
            state.busy.insert(machine);
        } else {
            state.busy.remove(&machine);
        }
        state.most = state.most.max(state.busy.len());
    }

    fn set(&self, hook: &'static str, mood: Mood) {
        self.0.lock().moods.insert(hook, mood);
    }

    fn request(&self, hook: &str) -> Value {
        self.0.lock().requests.get(hook).cloned().unwrap_or_default()
    }
}

fn discovery() -> Value {
    let handler = |hook: &str| json!({"name": hook.to_lowercase(), "requestHook": {"apiVersion": VERSION, "hook": hook}, "timeoutSeconds": 5});
    json!({"apiVersion": VERSION, "kind": "DiscoveryResponse", "status": "Success", "handlers": HOOKS.map(handler)})
}

/// Patches that make of each current spec the desired one; of the first object only if `half`.
fn patches(hook: &str, request: &Value, half: bool, response: &mut Value) {
    let parts = match hook {
        "CanUpdateMachine" => ["machine", "infrastructureMachine", "bootstrapConfig"],
        _ => ["machineSet", "infrastructureMachineTemplate", "bootstrapConfigTemplate"],
    };
    for part in parts.into_iter().take(if half { 1 } else { 3 }) {
        let patch = json!([{"op": "replace", "path": "/spec", "value": request["desired"][part]["spec"]}]);
        let patch = ByteString(patch.to_string().into_bytes());
        response[format!("{part}Patch")] = json!({"patchType": "JSONPatch", "patch": patch});
    }
}

async fn start(seed: u64, name: &str) -> (World, Updater) {
    let world = World::start(seed).await;
    let updater = Updater::default();
    register(&world, &updater, name).await;
    (world, updater)
}

async fn register(world: &World, updater: &Updater, name: &str) {
    let host = format!("{name}.test");
    let authority = ByteString(world.extensions.serve(&host, updater.router()).into_bytes());
    let configs = Api::<ExtensionConfig>::all(world.client.clone());
    let config: ExtensionConfig = serde_json::from_value(json!({
        "apiVersion": "runtime.cluster.x-k8s.io/v1beta2", "kind": "ExtensionConfig", "metadata": {"name": name},
        "spec": {"clientConfig": {"url": format!("https://{host}"), "caBundle": authority}},
    }))
    .unwrap();
    configs.create(&Default::default(), &config).await.unwrap();
    let found = async || {
        let status = configs.get(name).await.unwrap().status.unwrap_or_default();
        condition::is_true(&status.conditions, "Discovered")
    };
    world.until("the extension is found", found).await;
}

/// Machines with their servers.
async fn servers(world: &World) -> BTreeMap<String, String> {
    let machines = world.machines().await.into_iter();
    machines.map(|machine| (machine.name_any(), machine.spec.provider_id.unwrap_or_default())).collect()
}

fn is(machine: &Machine, type_: &str) -> bool {
    machine.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, type_))
}

async fn at(world: &World, version: &str) -> usize {
    let machines = world.machines().await;
    let of = |machine: &&Machine| {
        machine.spec.version.as_deref() == Some(version) && is(machine, "Ready") && is(machine, "UpToDate")
    };
    machines.iter().filter(of).count()
}

fn is_worker(machine: &Machine) -> bool {
    machine.labels().contains_key("cluster.x-k8s.io/set-name")
}

/// Nothing is left of an update on any object.
async fn is_clean(world: &World) -> bool {
    let traces = |annotations: &BTreeMap<String, String>| {
        annotations.keys().any(|key| key.starts_with("in-place-updates.") || key.ends_with("/pending-hooks"))
    };
    let infrastructures = world.api::<OpenStackMachine>().list(&Default::default()).await.unwrap().items;
    let sets = world.api::<MachineSet>().list(&Default::default()).await.unwrap().items;
    let configs = world.api::<api::kubeadm::KubeadmConfig>().list(&Default::default()).await.unwrap().items;
    !world.machines().await.iter().any(|machine| traces(machine.annotations()))
        && !infrastructures.iter().any(|one| traces(one.annotations()))
        && !configs.iter().any(|one| traces(one.annotations()))
        && !sets.iter().any(|one| traces(one.annotations()))
}

fn to(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"version": version}}}})
}

fn rolling(surge: i32, unavailable: i32) -> Value {
    json!({"spec": {"rollout": {"strategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}})
}

async fn rolling_out<K>(world: &World, name: &str) -> String
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object = serde_json::to_value(world.api::<K>().get(name).await.unwrap()).unwrap();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "RollingOut").cloned().unwrap_or_default();
    found["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn workers_are_updated_one_at_a_time_and_keep_their_servers() {
    let (world, updater) = start(71, "updater").await;
    world.create("demo", Shape { control_plane: 1, workers: 3, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    world.patch::<MachineDeployment>("demo-md", rolling(0, 1)).await;
    let before = servers(&world).await;
    world.patch::<MachineDeployment>("demo-md", to("v1.34.1")).await;
    let seen = async || {
        let machines = world.machines().await;
        let updating = machines.iter().filter(|machine| is(machine, "Updating"));
        let shown = |machine: &&Machine| {
            let status = machine.status.clone().unwrap_or_default();
            let told = condition::get(&status.conditions, "Updating").unwrap();
            status.phase == Some(MachinePhase::Updating)
                && told.message == "In-place update in progress: half of it is done"
                && condition::is_false(&status.conditions, "Ready")
                && condition::is_false(&status.conditions, "UpToDate")
        };
        updating.clone().count() == 1 && updating.clone().all(|machine| shown(&machine))
    };
    world.until("one is seen being updated", seen).await;
    world.until("all workers are new", async || at(&world, "v1.34.1").await == 3).await;
    world.until("nothing is left of it", async || is_clean(&world).await).await;
    assert_eq!(servers(&world).await, before);
    {
        let state = updater.0.lock();
        assert_eq!(state.most, 1);
        // One call that says when to come again, and one that says that it is done.
        assert_eq!(state.calls.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    }
    let asked = updater.request("CanUpdateMachineSet");
    assert_eq!(asked["current"]["machineSet"]["spec"]["template"]["spec"]["version"], "v1.34.2");
    assert_eq!(asked["desired"]["infrastructureMachineTemplate"]["kind"], "OpenStackMachineTemplate");
    let desired = updater.request("UpdateMachine")["desired"].clone();
    assert_eq!(desired["machine"]["spec"]["version"], "v1.34.1");
    assert_eq!(desired["bootstrapConfig"]["kind"], "KubeadmConfig");
    // They belong to the new set, and all that is theirs.
    let machines = world.machines().await;
    let sets: BTreeSet<_> = machines.iter().filter_map(|one| one.labels().get("cluster.x-k8s.io/set-name")).collect();
    assert_eq!(sets.len(), 1);
    for machine in machines.iter().filter(|machine| is_worker(machine)) {
        let infrastructure = world.api::<OpenStackMachine>().get(&machine.name_any()).await.unwrap();
        assert!(sets.contains(&infrastructure.labels()["cluster.x-k8s.io/set-name"]));
    }
    world.delete("demo").await;
    world.until("nothing is left", async || world.machines().await.is_empty()).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn control_plane_machines_are_updated_one_at_a_time_and_keep_their_servers() {
    let (world, updater) = start(72, "updater").await;
    world.create("demo", Shape { control_plane: 3, workers: 0, version: "v1.34.2".into() }).await;
    let strategy =
        json!({"spec": {"rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}}}});
    world.patch::<KubeadmControlPlane>("demo-cp", strategy).await;
    world.available("demo").await;
    world.until("all are up", async || at(&world, "v1.34.2").await == 3).await;
    let before = servers(&world).await;
    let change = json!({"spec": {"version": "v1.35.0", "kubeadmConfigSpec": {
        "clusterConfiguration": {"controllerManager": {"extraArgs": [{"name": "v", "value": "2"}]}}, "verbosity": 3}}});
    world.patch::<KubeadmControlPlane>("demo-cp", change).await;
    world.until("all are new", async || at(&world, "v1.35.0").await == 3).await;
    world.until("nothing is left of it", async || is_clean(&world).await).await;
    assert_eq!(servers(&world).await, before);
    {
        let state = updater.0.lock();
        assert_eq!((state.most, state.calls.values().copied().collect::<Vec<_>>()), (1, vec![2, 2, 2]));
    }
    let asked = updater.request("CanUpdateMachine");
    assert!(!asked.to_string().contains("\"token\""), "a token is nobody's: {asked}");
    for config in world.api::<api::kubeadm::KubeadmConfig>().list(&Default::default()).await.unwrap().items {
        assert_eq!(config.spec.verbosity, Some(3));
        // The one that initialized the cluster counts as one that has joined.
        assert!(config.spec.init_configuration.is_none() && config.spec.join_configuration.is_some());
    }
    let status = world.api::<KubeadmControlPlane>().get("demo-cp").await.unwrap().status.unwrap();
    assert_eq!((status.up_to_date_replicas, status.version.as_deref()), (Some(3), Some("v1.35.0")));
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_extension_cannot_update_is_replaced() {
    let (world, updater) = start(73, "updater").await;
    world.create("demo", Shape { control_plane: 1, workers: 2, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let mut version = 2;
    for mood in [Mood::Nothing, Mood::Half] {
        for hook in ["CanUpdateMachineSet", "CanUpdateMachine"] {
            updater.set(hook, mood);
        }
        let before = servers(&world).await;
        version += 1;
        let wanted = format!("v1.34.{version}");
        // More than the version changes, which one half does not cover.
        let name = format!("demo-md-{version}");
        let template = world.api::<api::kubeadm::KubeadmConfigTemplate>().get("demo-md").await.unwrap();
        let mut template = serde_json::to_value(template).unwrap();
        template["metadata"] = json!({"name": name, "namespace": "default"});
        template["spec"]["template"]["spec"]["verbosity"] = version.into();
        world.apply(&template).await;
        let mut change = to(&wanted);
        change["spec"]["template"]["spec"]["bootstrap"]["configRef"]["name"] = name.into();
        world.patch::<MachineDeployment>("demo-md", change).await;
        world.until("all workers are new", async || at(&world, &wanted).await == 2).await;
        world.until("the old ones are gone", async || world.machines().await.len() == 3).await;
        let after = servers(&world).await;
        assert_eq!(after.keys().filter(|name| before.contains_key(*name)).count(), 1, "{mood:?}");
    }
    let version = json!({"spec": {"version": "v1.35.0"}});
    let before = servers(&world).await;
    world.patch::<KubeadmControlPlane>("demo-cp", version).await;
    world.until("the control plane is new", async || at(&world, "v1.35.0").await == 1).await;
    world.until("the old one is gone", async || world.machines().await.len() == 3).await;
    assert_eq!(servers(&world).await.keys().filter(|name| before.contains_key(*name)).count(), 2);
    assert!(updater.0.lock().calls.is_empty());
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_fails_or_is_away_holds_the_rollout_until_it_is_back() {
    let (mut world, updater) = start(74, "updater").await;
    world.create("demo", Shape { control_plane: 1, workers: 2, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    world.patch::<MachineDeployment>("demo-md", rolling(0, 1)).await;
    let before = servers(&world).await;
    updater.set("CanUpdateMachineSet", Mood::Silent);
    world.patch::<MachineDeployment>("demo-md", to("v1.34.1")).await;
    let told = async |text: &str| rolling_out::<MachineDeployment>(&world, "demo-md").await.contains(text);
    world.until("it is told that it is silent", async || told("no response within 5 s").await).await;
    updater.set("CanUpdateMachineSet", Mood::Refuse);
    world.until("it is told that it refuses", async || told("not today").await).await;
    assert_eq!((at(&world, "v1.34.2").await, servers(&world).await), (3, before.clone()));

    updater.set("UpdateMachine", Mood::Refuse);
    updater.set("CanUpdateMachineSet", Mood::Well);
    let failed = async || {
        let machines = world.machines().await;
        let mut told = machines.iter().filter_map(|machine| {
            let status = machine.status.as_ref()?;
            let told = condition::get(&status.conditions, "Updating")?;
            (told.reason == "InPlaceUpdateFailed").then(|| told.message.contains("not today"))
        });
        told.next() == Some(true) && told.next().is_none()
    };
    world.until("one has failed", failed).await;
    // It waits there: nothing else is touched, also by those who begin anew.
    world.restart_controllers().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(failed_once(&world).await);
    assert_eq!(servers(&world).await, before);
    updater.set("UpdateMachine", Mood::Well);
    world.until("all workers are new", async || at(&world, "v1.34.1").await == 2).await;
    world.until("nothing is left of it", async || is_clean(&world).await).await;
    assert_eq!(servers(&world).await, before);

    // With two that would do it, it is not known which.
    register(&world, &updater, "other").await;
    world.patch::<MachineDeployment>("demo-md", to("v1.34.3")).await;
    let text = "found multiple CanUpdateMachineSet hooks (canupdatemachineset.other,canupdatemachineset.updater)";
    let told = async || rolling_out::<MachineDeployment>(&world, "demo-md").await.contains(text);
    world.until("it is told that there are two", told).await;
    Api::<ExtensionConfig>::all(world.client.clone()).delete("other", &Default::default()).await.unwrap();
    world.until("all workers are new again", async || at(&world, "v1.34.3").await == 2).await;
    assert_eq!(servers(&world).await, before);
    world.shutdown().await;
}

async fn failed_once(world: &World) -> bool {
    world.machines().await.iter().filter(|machine| is(machine, "Updating")).count() == 1
}

#[tokio::test(start_paused = true)]
async fn controllers_that_are_cut_off_anywhere_finish_what_was_begun() {
    let (mut world, updater) = start(75, "updater").await;
    world.create("demo", Shape { control_plane: 3, workers: 3, version: "v1.34.2".into() }).await;
    let strategy =
        json!({"spec": {"rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}}}});
    world.patch::<KubeadmControlPlane>("demo-cp", strategy).await;
    world.available("demo").await;
    world.until("all are up", async || at(&world, "v1.34.2").await == 6).await;
    world.patch::<MachineDeployment>("demo-md", rolling(0, 2)).await;
    let before = servers(&world).await;
    world.patch::<KubeadmControlPlane>("demo-cp", json!({"spec": {"version": "v1.35.0"}})).await;
    world.until("the control plane is half-way", async || !updater.0.lock().calls.is_empty()).await;
    for pause_ms in (0..24).map(|turn| 700 + 130 * turn) {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        world.crash_controllers().await;
    }
    world.until("the control plane is new", async || at(&world, "v1.35.0").await == 3).await;
    world.patch::<MachineDeployment>("demo-md", to("v1.35.0")).await;
    for pause_ms in (0..24).map(|turn| 300 + 70 * turn) {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        world.crash_controllers().await;
    }
    world.until("the workers are new", async || at(&world, "v1.35.0").await == 6).await;
    world.until("nothing is left of it", async || is_clean(&world).await).await;
    assert_eq!(servers(&world).await, before);
    assert!(updater.0.lock().most <= 2);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_machines_cannot_change_has_them_replaced() {
    let (world, updater) = start(76, "updater").await;
    world.create("demo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    world.patch::<MachineDeployment>("demo-md", rolling(0, 1)).await;
    let flavor = async |name: &str, flavor: &str| {
        world
            .apply(&json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "OpenStackMachineTemplate",
                "metadata": {"name": name, "namespace": "default"}, "spec": {"template": {"spec": {
                    "flavor": {"filter": {"name": flavor}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}}}}}))
            .await;
        let change = json!({"spec": {"template": {"spec": {"infrastructureRef": {"name": name}}}}});
        world.patch::<MachineDeployment>("demo-md", change).await;
    };
    let worker = async || world.machines().await.into_iter().find(is_worker).unwrap();
    let before = servers(&world).await;
    flavor("large", "m1.large").await;
    let updated = async || {
        let infrastructure = world.api::<OpenStackMachine>().get(&worker().await.name_any()).await.unwrap();
        infrastructure.annotations()["cluster.x-k8s.io/cloned-from-name"] == "large" && is_clean(&world).await
    };
    world.until("the worker is updated", updated).await;
    assert_eq!(servers(&world).await, before);
    let infrastructure = world.api::<OpenStackMachine>().get(&worker().await.name_any()).await.unwrap();
    assert_eq!(serde_json::to_value(&infrastructure.spec).unwrap()["flavor"]["filter"]["name"], "m1.large");
    assert!(infrastructure.spec.provider_id.is_some());

    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "fixed"},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["infrastructure.cluster.x-k8s.io"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": ["openstackmachines"]}]},
            "validations": [{"expression": "object.spec.flavor == oldObject.spec.flavor", "message": "it is fixed"}],
        },
    }))
    .unwrap();
    Api::all(world.client.clone()).create(&Default::default(), &policy).await.unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "fixed"}, "spec": {"policyName": "fixed", "validationActions": ["Deny"]},
    }))
    .unwrap();
    Api::all(world.client.clone()).create(&Default::default(), &binding).await.unwrap();
    updater.0.lock().calls.clear();
    flavor("small", "m1.small").await;
    let replaced = async || {
        let machines = world.machines().await;
        machines.len() == 2
            && machines.iter().all(|machine| is(machine, "Ready"))
            && machines.iter().any(|machine| is_worker(machine) && !before.contains_key(&machine.name_any()))
    };
    world.until("the worker is replaced", replaced).await;
    assert!(updater.0.lock().calls.is_empty());
    world.shutdown().await;
}
