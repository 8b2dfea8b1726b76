//! The same of the core's kinds, of kubeadm's and of the add-ons'.
//!
//! Source of the cases: kubernetes-sigs/cluster-api core/webhooks/admission, bootstrap/kubeadm/webhooks/admission,
//! controlplane/kubeadm/webhooks/admission, and the limits and rules of config/crd/bases.

use super::*;

const CASES: &str = include_str!("core.txt");

/// Group, kind, and the smallest object.
fn smallest(kind: &str) -> (&'static str, &'static str, Value) {
    let reference =
        |group: &str, kind: &str| json!({"apiGroup": format!("{group}.cluster.x-k8s.io"), "kind": kind, "name": "a"});
    let machine = json!({
        "clusterName": "c", "version": "v1.34.0", "bootstrap": {"dataSecretName": "s"},
        "infrastructureRef": reference("infrastructure", "OpenStackMachine"),
    });
    let set = json!({"clusterName": "c", "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": machine,
    }});
    let selector = json!({"matchLabels": {"a": "b"}});
    let control_plane = json!({"replicas": 3, "version": "v1.34.0", "machineTemplate": {"spec": {
        "infrastructureRef": reference("infrastructure", "OpenStackMachineTemplate"),
    }}, "kubeadmConfigSpec": {"verbosity": 1}});
    let template = json!({"template": {"spec": {"kubeadmConfigSpec": {"verbosity": 1}}}});
    let pool = reference("ipam", "Pool");
    let (group, kind, spec) = match kind {
        "cluster" => ("", "Cluster", json!({"infrastructureRef": reference("infrastructure", "OpenStackCluster")})),
        "machine" => ("", "Machine", machine),
        "set" => ("", "MachineSet", set),
        "deployment" => ("", "MachineDeployment", set),
        "healthcheck" => ("", "MachineHealthCheck", json!({"clusterName": "c", "selector": selector})),
        "drainrule" => ("", "MachineDrainRule", json!({"drain": {"behavior": "Drain"}})),
        "config" => ("bootstrap.", "KubeadmConfig", json!({"verbosity": 1})),
        "configtemplate" => ("bootstrap.", "KubeadmConfigTemplate", json!({"template": {"spec": {"verbosity": 1}}})),
        "controlplane" => ("controlplane.", "KubeadmControlPlane", control_plane),
        "controlplanetemplate" => ("controlplane.", "KubeadmControlPlaneTemplate", template),
        "resourceset" => (
            "addons.",
            "ClusterResourceSet",
            json!({"clusterSelector": selector, "resources": [{"kind": "Secret", "name": "a"}]}),
        ),
        "binding" => ("addons.", "ClusterResourceSetBinding", json!({"clusterName": "c"})),
        "claim" => ("ipam.", "IPAddressClaim", json!({ "poolRef": pool })),
        "address" => (
            "ipam.",
            "IPAddress",
            json!({"claimRef": {"name": "a"}, "poolRef": pool, "address": "10.0.0.4", "prefix": 24}),
        ),
        other => panic!("no kind {other}"),
    };
    let rest = if group.is_empty() { "cluster.x-k8s.io" } else { group };
    let group = match rest {
        "bootstrap." => "bootstrap.cluster.x-k8s.io",
        "controlplane." => "controlplane.cluster.x-k8s.io",
        "addons." => "addons.cluster.x-k8s.io",
        "ipam." => "ipam.cluster.x-k8s.io",
        own => own,
    };
    (group, kind, spec)
}

/// Whether all of `part` is in `whole`; null stands for what is absent.
fn contains(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Object(part) => part.iter().all(|(name, value)| contains(&whole[name], value)),
        part => whole == part,
    }
}

/// What is stored of a case in the end; the message of a refusal.
async fn stored(client: &Client, kind: &str, parts: &[Value], name: String) -> Result<Value, String> {
    let (group, kind, spec) = smallest(kind);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1beta2", kind));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource);
    let mut object = json!({
        "apiVersion": format!("{group}/v1beta2"), "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    merge(&mut object, &parts[0]);
    let made = api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await;
    let Some(then) = parts.get(1) else {
        return made.map(|made| serde_json::to_value(made).unwrap()).map_err(|error| error.to_string());
    };
    let made = made.unwrap_or_else(|error| panic!("{name} is to be made: {error}"));
    let change = Patch::Merge(then);
    let changed = api.patch(made.metadata.name.as_deref().unwrap(), &PatchParams::default(), &change).await;
    changed.map(|made| serde_json::to_value(made).unwrap()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_cores_kinds_are_accepted_completed_and_refused_as_published() {
    let crds = api::crd::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let options = apiserver::Options { crds, admission: vec![Arc::new(Rules)], ..Default::default() };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let client = Client::new(server.service_as(User::master("test")), "default");
    let mut wrong = Vec::new();
    let lines = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (index, line) in lines.enumerate() {
        let mut parts = line.splitn(3, " | ");
        let (verdict, kind) = parts.next().unwrap().split_once(' ').unwrap();
        let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}"));
        let changes: Vec<Value> = parts.next().unwrap_or_else(|| panic!("{line}")).split(" => ").map(json).collect();
        let rest = parts.next().unwrap_or_default();
        match (verdict, stored(&client, kind, &changes, format!("core-{index}")).await) {
            ("+", Ok(_)) => {}
            ("=", Ok(object)) if contains(&object, &json(rest)) => {}
            ("=", Ok(object)) => wrong.push(format!("completed otherwise: {line}\n    {}", object["spec"])),
            ("-", Ok(_)) => wrong.push(format!("accepted: {line}")),
            ("-", Err(message)) if message.contains(rest) && !rest.is_empty() => {}
            ("-", Err(message)) => wrong.push(format!("refused with other words: {line}\n    {message}")),
            (_, Err(message)) => wrong.push(format!("refused: {line}\n    {message}")),
            (_, Ok(_)) => wrong.push(format!("no verdict: {line}")),
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    server.shutdown().await;
}
