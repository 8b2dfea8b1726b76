//! kubeadm's own configuration documents, in the version that a Kubernetes release reads.
//!
//! Source: kubeadm API reference v1beta3 and v1beta4 (kubeadm.k8s.io).

use api::{
    cluster::Cluster,
    cluster_configuration::ClusterConfiguration,
    kubeadm::KubeadmConfigSpec,
    node_configuration::{FileDiscoveryKubeConfig, InitConfiguration, JoinConfiguration},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// The versions of kubeadm's API that a supported Kubernetes release reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeadmApi {
    /// Kubernetes 1.22 to 1.30.
    V1beta3,
    /// Kubernetes 1.31 and later.
    V1beta4,
}

impl KubeadmApi {
    /// For a Kubernetes version such as `v1.32.4`; `Err` says what is wrong with it.
    pub fn of(kubernetes: &str) -> Result<Self, String> {
        let minor = kubernetes
            .strip_prefix('v')
            .and_then(|text| text.strip_prefix("1."))
            .and_then(|text| text.split('.').next())
            .and_then(|text| text.parse::<u32>().ok());
        match minor {
            Some(minor) if minor >= 31 => Ok(Self::V1beta4),
            Some(minor) if minor >= 22 => Ok(Self::V1beta3),
            Some(_) => Err(format!("Kubernetes {kubernetes} is older than v1.22, which kubeadm v1beta3 begins with")),
            None => Err(format!("{kubernetes:?} is not a Kubernetes version such as v1.32.0")),
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::V1beta3 => "kubeadm.k8s.io/v1beta3",
            Self::V1beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }
}

/// ClusterConfiguration with what the Cluster and the Machine say filled in. `health_limit_s` is the timeout of the
/// InitConfiguration that v1beta3 has here.
pub fn cluster_configuration(
    api: KubeadmApi,
    configuration: &ClusterConfiguration,
    cluster: &Cluster,
    kubernetes: &str,
    health_limit_s: Option<i32>,
) -> Value {
    let mut document = to_map(configuration);
    for component in ["apiServer", "controllerManager", "scheduler"] {
        if let Some(Value::Object(component)) = document.get_mut(component) {
            component_args(api, component);
        }
    }
    if let Some(Value::Object(local)) = document.get_mut("etcd").and_then(|etcd| etcd.get_mut("local")) {
        component_args(api, local);
    }
    for (field, target) in [
        ("certificateValidityPeriodDays", "certificateValidityPeriod"),
        ("caCertificateValidityPeriodDays", "caCertificateValidityPeriod"),
    ] {
        if let Some(days) = document.remove(field).and_then(|days| days.as_i64())
            && api == KubeadmApi::V1beta4
        {
            document.insert(target.into(), format!("{}h0m0s", days * 24).into());
        }
    }
    if api == KubeadmApi::V1beta3 {
        document.remove("encryptionAlgorithm");
        if let Some(limit_s) = health_limit_s {
            let server = document.entry("apiServer").or_insert_with(|| json!({}));
            server["timeoutForControlPlane"] = format!("{limit_s}s").into();
        }
    }
    document.insert("clusterName".into(), cluster.metadata.name.clone().unwrap_or_default().into());
    if !document.contains_key("controlPlaneEndpoint")
        && let Some(endpoint) = super::endpoint(cluster)
    {
        document.insert("controlPlaneEndpoint".into(), endpoint.into());
    }
    document.insert("kubernetesVersion".into(), kubernetes.into());
    let network = cluster.spec.cluster_network.clone().unwrap_or_default();
    let ranges = |ranges: Option<api::cluster::NetworkRanges>| ranges.map(|ranges| ranges.cidr_blocks.join(","));
    let mut networking = Map::new();
    for (key, value) in [
        ("dnsDomain", network.service_domain),
        ("podSubnet", ranges(network.pods)),
        ("serviceSubnet", ranges(network.services)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            networking.insert(key.into(), value.into());
        }
    }
    if !networking.is_empty() {
        document.insert("networking".into(), networking.into());
    }
    headed(api, "ClusterConfiguration", document)
}

pub fn init_configuration(api: KubeadmApi, configuration: &InitConfiguration) -> Value {
    let mut document = to_map(configuration);
    node(api, &mut document);
    if let Some(Value::Array(tokens)) = document.get_mut("bootstrapTokens") {
        for token in tokens.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(seconds) = token.remove("ttlSeconds").and_then(|seconds| seconds.as_i64()) {
                token.insert("ttl".into(), format!("{seconds}s").into());
            }
        }
    }
    headed(api, "InitConfiguration", document)
}

pub fn join_configuration(api: KubeadmApi, configuration: &JoinConfiguration) -> Value {
    let mut document = to_map(configuration);
    let bootstrap_limit_s = configuration.timeouts.as_ref().and_then(|timeouts| timeouts.tls_bootstrap_seconds);
    node(api, &mut document);
    if let Some(Value::Object(discovery)) = document.get_mut("discovery") {
        // A kubeconfig given in the API is written to a file; kubeadm gets the path.
        if let Some(Value::Object(file)) = discovery.get_mut("file") {
            file.remove("kubeConfig");
        }
        if let (KubeadmApi::V1beta3, Some(limit_s)) = (api, bootstrap_limit_s) {
            discovery.insert("timeout".into(), format!("{limit_s}s").into());
        }
        if discovery.get("bootstrapToken").is_some_and(|token| token.as_object().is_some_and(Map::is_empty)) {
            discovery.remove("bootstrapToken");
        }
    }
    headed(api, "JoinConfiguration", document)
}

/// Fields that are set and that kubeadm's API of this version does not have.
pub fn unread(api: KubeadmApi, spec: &KubeadmConfigSpec) -> Vec<String> {
    if api == KubeadmApi::V1beta4 {
        return Vec::new();
    }
    let document = serde_json::to_value(spec).expect("API types serialize to JSON: string keys only");
    let found = NOT_IN_V1BETA3.iter().filter(|pointer| document.pointer(pointer).is_some_and(|value| !value.is_null()));
    let name = |pointer: &&str| format!("spec{} (Kubernetes before v1.31)", pointer.replace('/', "."));
    found.map(name).collect()
}

/// What v1beta4 brought (kubeadm API reference, "Changes since v1beta3"), but for the two timeouts that have another place.
const NOT_IN_V1BETA3: [&str; 17] = [
    "/clusterConfiguration/apiServer/extraEnvs",
    "/clusterConfiguration/controllerManager/extraEnvs",
    "/clusterConfiguration/scheduler/extraEnvs",
    "/clusterConfiguration/etcd/local/extraEnvs",
    "/clusterConfiguration/certificateValidityPeriodDays",
    "/initConfiguration/nodeRegistration/imagePullSerial",
    "/initConfiguration/timeouts/discoverySeconds",
    "/initConfiguration/timeouts/etcdAPICallSeconds",
    "/initConfiguration/timeouts/kubeletHealthCheckSeconds",
    "/initConfiguration/timeouts/kubernetesAPICallSeconds",
    "/initConfiguration/timeouts/tlsBootstrapSeconds",
    "/joinConfiguration/nodeRegistration/imagePullSerial",
    "/joinConfiguration/timeouts/controlPlaneComponentHealthCheckSeconds",
    "/joinConfiguration/timeouts/discoverySeconds",
    "/joinConfiguration/timeouts/etcdAPICallSeconds",
    "/joinConfiguration/timeouts/kubeletHealthCheckSeconds",
    "/joinConfiguration/timeouts/kubernetesAPICallSeconds",
];

/// The kubeconfig that a machine discovers its cluster with: as given, and with the cluster's own endpoint and authority
/// where nothing is.
pub fn discovery_kubeconfig(given: &FileDiscoveryKubeConfig, endpoint: Option<&str>, authority: &str) -> Value {
    let mut cluster = given.cluster.as_ref().map(to_map).unwrap_or_default();
    for (ours, theirs) in [
        ("insecureSkipTLSVerify", "insecure-skip-tls-verify"),
        ("proxyURL", "proxy-url"),
        ("tlsServerName", "tls-server-name"),
    ] {
        if let Some(value) = cluster.remove(ours) {
            cluster.insert(theirs.into(), value);
        }
    }
    let authority_given = cluster.remove("certificateAuthorityData");
    if !cluster.contains_key("server")
        && let Some(endpoint) = endpoint
    {
        cluster.insert("server".into(), format!("https://{endpoint}").into());
    }
    let encoded = || STANDARD.encode(authority).into();
    cluster.insert("certificate-authority-data".into(), authority_given.unwrap_or_else(encoded));
    let mut user = Map::new();
    if let Some(provider) = &given.user.auth_provider {
        user.insert("auth-provider".into(), Value::Object(to_map(provider)));
    }
    if let Some(exec) = &given.user.exec {
        let mut exec = to_map(exec);
        exec.entry("apiVersion").or_insert_with(|| "client.authentication.k8s.io/v1".into());
        exec.insert("interactiveMode".into(), "Never".into());
        exec.entry("provideClusterInfo").or_insert_with(|| false.into());
        user.insert("exec".into(), exec.into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": cluster}],
        "users": [{"name": "default", "user": user}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "current-context": "default",
    })
}

/// The part that init and join share.
fn node(api: KubeadmApi, document: &mut Map<String, Value>) {
    if let (KubeadmApi::V1beta3, Some(Value::Object(registration))) = (api, document.get_mut("nodeRegistration")) {
        registration.remove("imagePullSerial");
        to_arg_map(registration, "kubeletExtraArgs");
    }
    let timeouts = document.remove("timeouts");
    if let (KubeadmApi::V1beta4, Some(Value::Object(timeouts))) = (api, timeouts) {
        let durations: Map<_, _> = timeouts
            .into_iter()
            .filter_map(|(key, seconds)| {
                let key = match key.strip_suffix("Seconds")? {
                    "controlPlaneComponentHealthCheck" => "controlPlaneComponentHealthCheck",
                    "discovery" => "discovery",
                    "etcdAPICall" => "etcdAPICall",
                    "kubeletHealthCheck" => "kubeletHealthCheck",
                    "kubernetesAPICall" => "kubernetesAPICall",
                    "tlsBootstrap" => "tlsBootstrap",
                    _ => return None,
                };
                Some((key.to_owned(), Value::from(format!("{}s", seconds.as_i64()?))))
            })
            .collect();
        document.insert("timeouts".into(), durations.into());
    }
}

fn component_args(api: KubeadmApi, component: &mut Map<String, Value>) {
    if api == KubeadmApi::V1beta3 {
        component.remove("extraEnvs");
        to_arg_map(component, "extraArgs");
    }
}

/// v1beta3 has arguments as a map.
fn to_arg_map(parent: &mut Map<String, Value>, field: &str) {
    let Some(Value::Array(args)) = parent.get(field) else { return };
    let map: Map<String, Value> = args
        .iter()
        .filter_map(|arg| Some((arg.get("name")?.as_str()?.to_owned(), arg.get("value")?.clone())))
        .collect();
    parent.insert(field.into(), map.into());
}

fn to_map(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn headed(api: KubeadmApi, kind: &str, mut document: Map<String, Value>) -> Value {
    let head = json!({"apiVersion": api.version(), "kind": kind});
    if let Value::Object(head) = head {
        document.extend(head);
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use api::cluster_configuration::{Arg, ControlPlaneComponent};

    use super::*;

    fn arguments() -> ClusterConfiguration {
        let args = vec![Arg { name: "cloud-provider".into(), value: "external".into() }];
        let manager = ControlPlaneComponent { extra_args: args, ..Default::default() };
        ClusterConfiguration {
            controller_manager: Some(manager),
            certificate_validity_period_days: Some(30),
            ..Default::default()
        }
    }

    #[test]
    fn arguments_are_a_list_for_new_releases_and_a_map_for_old_ones() {
        let cluster = Cluster::new("demo", Default::default());
        let new = cluster_configuration(KubeadmApi::of("v1.31.0").unwrap(), &arguments(), &cluster, "v1.31.0", None);
        assert_eq!(new["controllerManager"]["extraArgs"][0]["name"], "cloud-provider");
        assert_eq!(new["certificateValidityPeriod"], "720h0m0s");
        let old =
            cluster_configuration(KubeadmApi::of("v1.30.9").unwrap(), &arguments(), &cluster, "v1.30.9", Some(90));
        assert_eq!(old["controllerManager"]["extraArgs"]["cloud-provider"], "external");
        assert_eq!(
            (&old["apiVersion"], old.get("certificateValidityPeriod")),
            (&json!("kubeadm.k8s.io/v1beta3"), None)
        );
    }

    #[test]
    fn a_version_that_is_none_is_refused() {
        for text in ["", "1.30.0", "v1", "v2.0.0", "v1.21.0"] {
            assert!(KubeadmApi::of(text).is_err(), "{text}");
        }
    }
}
