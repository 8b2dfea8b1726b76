//! The ClusterConfiguration that kubeadm keeps in the workload cluster. A machine that joins reads it, so it has to say
//! what is declared before the first machine of a rollout is made.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane/update.go.

use api::{
    cluster::Cluster,
    cluster_configuration::{ClusterConfiguration, Dns},
    control_plane::KubeadmControlPlane,
    version,
};
use control::{Error, Key, Result};
use serde_json::{Map, Value};

use crate::{bootstrap::kubeadm, workload::Workloads};

/// What a rollout may change. The rest was settled when the cluster was made.
const DECLARED: [&str; 10] = [
    "apiVersion",
    "apiServer",
    "certificateValidityPeriod",
    "controllerManager",
    "encryptionAlgorithm",
    "etcd",
    "featureGates",
    "imageRepository",
    "kubernetesVersion",
    "scheduler",
];

/// kubeadm's feature gate by which the kubelet of a control plane machine speaks to the API server of its own machine.
const LOCAL_MODE: &str = "ControlPlaneKubeletLocalMode";

/// Opens the gate unless the user decides, where kubeadm has it (1.31 to 1.35; it is always open from 1.36 on). Without it a
/// kubelet of the new version may ask an API server of the old one for what that does not know (fields of 1.31).
///
/// Source: kubernetes-sigs/cluster-api controlplane/kubeadm/pkg/desiredstate/desired_state.go, DefaultFeatureGates.
pub fn open_gates(configuration: &mut Option<ClusterConfiguration>, kubernetes: &str) {
    let has_gate = version::parse(kubernetes).is_some_and(|it| it.major == 1 && (31..36).contains(&it.minor));
    if has_gate {
        let gates = &mut configuration.get_or_insert_default().feature_gates;
        gates.entry(LOCAL_MODE.to_owned()).or_insert(true);
    }
}

/// Writes what is declared into the workload cluster; nothing if it is there.
pub async fn publish(workloads: &Workloads, cluster: &Cluster, control_plane: &KubeadmControlPlane) -> Result<()> {
    let invalid = |message: String| Error::blocked("InvalidConfiguration", message);
    let wanted = wanted(cluster, control_plane).map_err(invalid)?;
    workloads.edit_cluster_configuration(&Key::of(cluster), |current| merged(current, &wanted)).await
}

/// Writes where CoreDNS comes from.
pub async fn publish_dns(workloads: &Workloads, cluster: &Key, dns: Option<&Dns>) -> Result<()> {
    let dns = serde_json::to_value(dns.cloned().unwrap_or_default()).unwrap_or_default();
    workloads.edit_cluster_configuration(cluster, |current| with_dns(current, &dns)).await
}

fn with_dns(current: &str, dns: &Value) -> Result<Option<String>, String> {
    let before: Map<String, Value> = serde_saphyr::from_str(current).map_err(|error| error.to_string())?;
    let mut after = before.clone();
    let fields = after.entry("dns").or_insert_with(|| Value::Object(Map::new()));
    for key in ["imageRepository", "imageTag"] {
        match (fields.as_object_mut(), dns.get(key)) {
            (Some(fields), Some(value)) => drop(fields.insert(key.to_owned(), value.clone())),
            (Some(fields), None) => drop(fields.remove(key)),
            (None, _) => return Err("dns is no object".to_owned()),
        }
    }
    if after == before {
        return Ok(None);
    }
    serde_saphyr::to_string(&after).map(Some).map_err(|error| error.to_string())
}

fn wanted(cluster: &Cluster, control_plane: &KubeadmControlPlane) -> Result<Value, String> {
    let version = &control_plane.spec.version;
    let api = kubeadm::KubeadmApi::of(version)?;
    let spec = control_plane.spec.kubeadm_config_spec.clone().unwrap_or_default();
    let limits = spec.init_configuration.and_then(|init| init.timeouts);
    let health_s = limits.and_then(|limits| limits.control_plane_component_health_check_seconds);
    let mut configuration = spec.cluster_configuration;
    open_gates(&mut configuration, version);
    let configuration = configuration.unwrap_or_default();
    Ok(kubeadm::cluster_configuration(api, &configuration, cluster, version, health_s))
}

/// The document as it should be; `None` if it is so already.
fn merged(current: &str, wanted: &Value) -> Result<Option<String>, String> {
    let before: Map<String, Value> = serde_saphyr::from_str(current).map_err(|error| error.to_string())?;
    let mut after = before.clone();
    for key in DECLARED {
        match wanted.get(key) {
            Some(value) => after.insert(key.to_owned(), value.clone()),
            None => after.remove(key),
        };
    }
    if after == before {
        return Ok(None);
    }
    serde_saphyr::to_string(&after).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use api::{cluster::ClusterSpec, control_plane::KubeadmControlPlaneSpec, kubeadm::KubeadmConfigSpec};

    use super::*;

    const CURRENT: &str = "\
apiVersion: kubeadm.k8s.io/v1beta3
certificatesDir: /etc/kubernetes/pki
controlPlaneEndpoint: 127.24.4.9:6443
imageRepository: old.example
kind: ClusterConfiguration
kubernetesVersion: v1.30.2
networking:
  podSubnet: 192.168.0.0/16
";

    #[test]
    fn a_rollout_says_what_is_declared_and_keeps_the_rest() {
        let configuration = ClusterConfiguration { image_repository: Some("new.example".into()), ..Default::default() };
        let spec = KubeadmControlPlaneSpec {
            version: "v1.31.0".into(),
            kubeadm_config_spec: Some(KubeadmConfigSpec {
                cluster_configuration: Some(configuration),
                ..Default::default()
            }),
            ..Default::default()
        };
        let wanted = wanted(&Cluster::new("demo", ClusterSpec::default()), &KubeadmControlPlane::new("cp", spec));
        let after = merged(CURRENT, &wanted.unwrap()).unwrap().unwrap();
        assert_eq!(
            after,
            "\
apiVersion: kubeadm.k8s.io/v1beta4
certificatesDir: /etc/kubernetes/pki
controlPlaneEndpoint: 127.24.4.9:6443
featureGates:
  ControlPlaneKubeletLocalMode: true
imageRepository: new.example
kind: ClusterConfiguration
kubernetesVersion: v1.31.0
networking:
  podSubnet: 192.168.0.0/16
"
        );
    }

    #[test]
    fn kubelets_of_the_control_plane_speak_to_their_own_server_where_kubeadm_has_a_gate_for_it() {
        let gate = |kubernetes: &str, users: Option<bool>| {
            let users = users.map(|open| [(LOCAL_MODE.to_owned(), open)].into());
            let mut configuration =
                users.map(|feature_gates| ClusterConfiguration { feature_gates, ..ClusterConfiguration::default() });
            open_gates(&mut configuration, kubernetes);
            configuration.and_then(|configuration| configuration.feature_gates.get(LOCAL_MODE).copied())
        };
        for kubernetes in ["v1.31.0", "v1.31.0-alpha.1", "v1.32.9", "v1.35.4"] {
            assert_eq!(gate(kubernetes, None), Some(true), "{kubernetes}");
        }
        for kubernetes in ["v1.30.9", "v1.36.0-rc.0", "v1.37.1"] {
            assert_eq!(gate(kubernetes, None), None, "{kubernetes}");
        }
        assert_eq!(gate("v1.32.0", Some(false)), Some(false));
        assert_eq!(gate("v1.30.0", Some(false)), Some(false), "what the user says is theirs to answer for");
    }

    #[test]
    fn the_source_of_coredns_is_told_and_the_rest_of_it_kept() {
        let told = with_dns("dns:\n  disabled: true\n  imageTag: v1\n", &serde_json::json!({"imageRepository": "r"}));
        assert_eq!(told.unwrap().unwrap(), "dns:\n  disabled: true\n  imageRepository: r\n");
        assert_eq!(with_dns("dns:\n  imageTag: v1\n", &serde_json::json!({"imageTag": "v1"})), Ok(None));
    }

    #[test]
    fn what_is_said_already_is_not_written() {
        let wanted = serde_json::json!({"apiVersion": "kubeadm.k8s.io/v1beta3", "imageRepository": "old.example",
                                        "kubernetesVersion": "v1.30.2"});
        assert_eq!(merged(CURRENT, &wanted), Ok(None));
        assert!(merged("- not a map", &wanted).is_err());
    }
}
