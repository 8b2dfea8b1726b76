//! The objects that kubeadm and a kubelet leave in a cluster.
//!
//! Source: kubeadm implementation details (phases upload-config, bootstrap-token, addon, mark-control-plane); kubelet
//! node registration.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::kubeadm::{ClusterConfiguration, NodeRegistration, Taint, Token};

/// Text in the conditions and pods that a hollow machine reports: nothing runs behind them.
const HOLLOW: &str = "hollow machine: reported, not run";
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

/// What a machine is, for its node object.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub name: String,
    pub id: String,
    pub address: String,
    pub zone: String,
    pub region: String,
    /// Name of the server's flavor.
    pub flavor: String,
    pub kubelet_version: String,
    pub control_plane: bool,
    pub vcpus: u32,
    pub ram_mib: u32,
}

pub fn node(host: &Host, registration: &NodeRegistration, now: &str) -> (Value, Value) {
    let mut labels = json!({
        "kubernetes.io/hostname": host.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
    });
    // As the cloud controller manager labels nodes.
    for (key, value) in [
        ("topology.kubernetes.io/zone", &host.zone),
        ("topology.kubernetes.io/region", &host.region),
        ("node.kubernetes.io/instance-type", &host.flavor),
    ] {
        if !value.is_empty() {
            labels[key] = value.as_str().into();
        }
    }
    for pair in registration.kubelet_arg("node-labels").unwrap_or_default().split(',') {
        if let Some((key, value)) = pair.split_once('=') {
            labels[key] = value.into();
        }
    }
    let mut taints = registration.taints.clone().unwrap_or_default();
    if host.control_plane {
        labels[CONTROL_PLANE_LABEL] = "".into();
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = "".into();
        // kubeadm taints a control plane unless the list is given, even an empty one.
        if registration.taints.is_none() {
            taints.push(Taint { key: CONTROL_PLANE_LABEL.into(), value: None, effect: "NoSchedule".into() });
        }
    }
    let taints: Vec<Value> = taints
        .iter()
        .map(|taint| match &taint.value {
            Some(value) => json!({"key": taint.key, "value": value, "effect": taint.effect}),
            None => json!({"key": taint.key, "effect": taint.effect}),
        })
        .collect();
    let mut spec = json!({});
    if !taints.is_empty() {
        spec["taints"] = taints.into();
    }
    if let Some(id) = registration.kubelet_arg("provider-id") {
        spec["providerID"] = id.into();
    } else if registration.kubelet_arg("cloud-provider").as_deref() == Some("external") && !host.id.is_empty() {
        spec["providerID"] = format!("openstack:///{}", host.id).into();
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": host.name, "labels": labels}, "spec": spec,
    });
    (object, node_status(host, now))
}

fn node_status(host: &Host, now: &str) -> Value {
    let capacity = json!({
        "cpu": host.vcpus.max(1).to_string(), "memory": format!("{}Mi", host.ram_mib.max(512)), "pods": "110",
    });
    let version = &host.kubelet_version;
    json!({"status": {
        "capacity": capacity, "allocatable": capacity,
        "addresses": [{"type": "InternalIP", "address": host.address}, {"type": "Hostname", "address": host.name}],
        "conditions": well(now),
        "nodeInfo": {
            "machineID": host.id.replace('-', ""), "systemUUID": host.id, "bootID": host.id, "kernelVersion": "hollow",
            "osImage": "hollow machine", "containerRuntimeVersion": "hollow://0", "kubeletVersion": version,
            "kubeProxyVersion": version, "operatingSystem": "linux", "architecture": "amd64",
        },
    }})
}

/// What a kubelet says of a node that runs.
fn well(now: &str) -> Value {
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({"type": type_, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    json!([
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", HOLLOW),
    ])
}

/// What a node says when its machine runs again.
pub fn found(now: &str) -> Value {
    json!({"status": {"conditions": well(now)}})
}

/// What a node says when its machine is gone, as the node lifecycle controller writes it.
pub fn lost(now: &str) -> Value {
    let conditions: Vec<Value> = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
        .into_iter()
        .map(|type_| {
            json!({"type": type_, "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": now,
                   "lastHeartbeatTime": now, "message": "Kubelet stopped posting node status."})
        })
        .collect();
    json!({"status": {"conditions": conditions}})
}

/// Mirror pods of the control plane's static pods.
pub fn static_pods(host: &Host, node_uid: &str) -> Vec<Value> {
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        .into_iter()
        .map(|component| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{component}-{}", host.name), "namespace": "kube-system",
                    "labels": {"component": component, "tier": "control-plane"},
                    "annotations": {"kubernetes.io/config.mirror": host.id, "kubernetes.io/config.source": "file"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": host.name, "uid": node_uid, "controller": true}],
                },
                "spec": {
                    "nodeName": host.name, "hostNetwork": true, "priorityClassName": "system-node-critical",
                    "containers": [{"name": component, "image": format!("registry.k8s.io/{component}:{}", host.kubelet_version)}],
                },
            })
        })
        .collect()
}

/// A pod's status as a kubelet would report it.
pub fn running(pod: &Value, address: &str, now: &str) -> Value {
    let condition =
        |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": now, "lastProbeTime": null});
    let containers: Vec<Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "hollow", "containerID": "hollow://0",
                "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    json!({"status": {
        "phase": "Running", "hostIP": address, "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "message": HOLLOW,
        "conditions": [condition("PodScheduled"), condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        "containerStatuses": containers,
    }})
}

/// The Secret of a bootstrap token that `kubeadm init` is told to make; `None` if its form is not that of a token.
pub fn token(token: &Token, now: Timestamp) -> Option<Value> {
    const DAY_S: i64 = 86_400;
    let (id, secret) = token.token.split_once('.').filter(|(id, secret)| id.len() == 6 && secret.len() == 16)?;
    let life_s = token.ttl.as_deref().and_then(|ttl| ttl.strip_suffix('s')?.parse::<i64>().ok());
    let end = match (token.expires, life_s) {
        (Some(end), _) => Some(end),
        // kubeadm: 0 is for ever.
        (None, Some(0)) => None,
        (None, life_s) => Some(now + SignedDuration::from_secs(life_s.unwrap_or(DAY_S))),
    };
    let or = |given: &[String], default: &[&str]| -> Vec<String> {
        if given.is_empty() { default.iter().map(|text| (*text).to_owned()).collect() } else { given.to_vec() }
    };
    let groups = or(&token.groups, &["system:bootstrappers:kubeadm:default-node-token"]);
    let mut data = json!({"token-id": id, "token-secret": secret, "auth-extra-groups": groups.join(",")});
    for usage in or(&token.usages, &["signing", "authentication"]) {
        data[format!("usage-bootstrap-{usage}")] = "true".into();
    }
    if let Some(end) = end {
        data["expiration"] = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    }
    if !token.description.is_empty() {
        data["description"] = token.description.as_str().into();
    }
    Some(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "stringData": data,
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
    }))
}

/// ConfigMaps, roles and bindings that `kubeadm init` makes.
pub fn kubeadm(configuration: &ClusterConfiguration, raw: &str, ca_pem: &str) -> Vec<Value> {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "contexts": null, "current-context": "", "users": null,
        "clusters": [{"name": "", "cluster": {
            "server": format!("https://{}", configuration.control_plane_endpoint),
            "certificate-authority-data":
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca_pem),
        }}],
    });
    let token_group = "system:bootstrappers:kubeadm:default-node-token";
    let group = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name});
    let rbac = "rbac.authorization.k8s.io";
    let cluster_binding = |name: &str, role: &str, subject: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
               "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role}, "subjects": [subject]})
    };
    let cluster_role = |name: &str, rules: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let role = |namespace: &str, name: &str, map: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name, "namespace": namespace},
               "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [map], "verbs": ["get"]}]})
    };
    let binding = |namespace: &str, name: &str, subjects: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
               "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name}, "subjects": subjects})
    };
    let map = |namespace: &str, name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data});
    let anonymous = json!([{"apiGroup": rbac, "kind": "User", "name": "system:anonymous"}]);
    let nodes = json!([group(token_group), group("system:nodes")]);
    let node_rules = json!([
        {"apiGroups": [""], "resources": ["nodes", "nodes/status"], "verbs": ["create", "get", "list", "watch", "patch", "update"]},
        {"apiGroups": [""], "resources": ["pods", "pods/status", "services", "configmaps", "secrets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "patch", "update"]},
    ]);
    let request_rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create", "get", "list", "watch"]},
    ]);
    vec![
        map("kube-public", "cluster-info", json!({"kubeconfig": kubeconfig.to_string()})),
        role("kube-public", "kubeadm:bootstrap-signer-clusterinfo", "cluster-info"),
        binding("kube-public", "kubeadm:bootstrap-signer-clusterinfo", anonymous),
        role("kube-system", "kubeadm:nodes-kubeadm-config", "kubeadm-config"),
        binding("kube-system", "kubeadm:nodes-kubeadm-config", nodes),
        cluster_role("kubeadm:kubelet-bootstrap", request_rules),
        cluster_binding("kubeadm:kubelet-bootstrap", "kubeadm:kubelet-bootstrap", group(token_group)),
        cluster_role("kubeadm:get-nodes", json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}])),
        cluster_binding("kubeadm:get-nodes", "kubeadm:get-nodes", group(token_group)),
        cluster_role("kubeadm:kubelet", node_rules),
        cluster_binding("kubeadm:kubelet", "kubeadm:kubelet", group("system:nodes")),
        cluster_binding("kubeadm:cluster-admins", "cluster-admin", group("kubeadm:cluster-admins")),
        // Last: this is what others take for the end of the initialization.
        map("kube-system", "kubeadm-config", json!({"ClusterConfiguration": raw})),
    ]
}
