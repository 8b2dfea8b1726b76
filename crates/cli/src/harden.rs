//! What makes a control plane of the default template hard: secrets encrypted where they lie, an audit trail, pods held to a
//! standard, strong TLS, no profiling, and nobody anonymous but where Kubernetes itself needs it.
//!
//! Source: CIS Kubernetes Benchmark 1.2 to 1.4; Kubernetes documentation, "Encrypting Confidential Data at Rest", "Auditing",
//! "Pod Security Admission", "Authenticating" (anonymous requests).

use api::names::MOVE_LABEL;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A folder of our own, so that nothing of kubeadm's is covered.
const FOLDER: &str = "/etc/kubernetes/skep";
const AUDIT_FOLDER: &str = "/var/log/kubernetes/audit";
/// The first minor versions that read kubeadm v1beta4 (with it `encryptionAlgorithm`), and that limit where nobody has to say
/// who they are.
const KEYS_SINCE: u32 = 31;
const ANONYMOUS_SINCE: u32 = 32;
/// Suites of TLS 1.2 with forward secrecy and authenticated encryption; those of 1.3 are all like that.
const SUITES: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,\
TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256";

/// Metadata of everything that changes something, nothing of what only watches, and never the content of secrets.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ['/healthz*', '/livez*', '/readyz*', '/version', '/openapi/*']
- level: None
  users: ['system:kube-proxy', 'system:kube-scheduler', 'system:kube-controller-manager', 'system:apiserver']
  verbs: [get, list, watch]
- level: None
  userGroups: ['system:nodes']
  verbs: [get, list, watch]
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}, {group: '', resources: [events]}]
- level: Metadata
  resources:
  - {group: '', resources: [secrets, configmaps, serviceaccounts/token]}
  - {group: authentication.k8s.io, resources: [tokenreviews]}
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
  resources: [{group: rbac.authorization.k8s.io}, {group: admissionregistration.k8s.io}]
- level: Metadata
";

const ADMISSION: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults:
      enforce: baseline
      enforce-version: latest
      audit: restricted
      audit-version: latest
      warn: restricted
      warn-version: latest
    exemptions:
      namespaces: [kube-system]
";

/// Probes of the kubelet, and what a machine reads before it can say who it is.
const AUTHENTICATION: &str = "\
apiVersion: apiserver.config.k8s.io/v1beta1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
  - path: /api/v1/namespaces/kube-public/configmaps/cluster-info
";

/// Key of the Secret that holds the configuration with the encryption key.
const ENCRYPTION_KEY: &str = "encryption.yaml";

fn minor(version: &str) -> u32 {
    version.trim_start_matches('v').split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// Name of the Secret with the cluster's encryption key.
pub fn secret_name(cluster: &str) -> String {
    format!("{cluster}-encryption")
}

/// What the API server encrypts secrets with: 32 bytes of a key. What was written before stays readable.
pub fn encryption(key: &[u8; 32]) -> String {
    let key = STANDARD.encode(key);
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers:\n  - secretbox:\n      keys: [{{name: key1, secret: {key}}}]\n  - identity: {{}}\n"
    )
}

/// The Secret that moves with the cluster. It must never be made anew: what it encrypted could not be read any more.
pub fn secret(cluster: &str, namespace: &str, key: &[u8; 32]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": secret_name(cluster), "namespace": namespace,
            "labels": {MOVE_LABEL: "true"},
        },
        "immutable": true,
        "data": {ENCRYPTION_KEY: STANDARD.encode(encryption(key))},
    })
}

fn args(pairs: &[(&str, &str)]) -> Vec<Value> {
    pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// The files of a control plane machine.
pub fn files(cluster: &str, version: &str) -> Vec<Value> {
    let file = |name: &str, content: &str| json!({"path": format!("{FOLDER}/{name}"), "owner": "root:root", "permissions": "0600", "content": content});
    let mut files = vec![
        json!({
            "path": format!("{FOLDER}/encryption.yaml"), "owner": "root:root", "permissions": "0600",
            "contentFrom": {"secret": {"name": secret_name(cluster), "key": ENCRYPTION_KEY}},
        }),
        file("audit-policy.yaml", AUDIT_POLICY),
        file("admission.yaml", ADMISSION),
    ];
    if minor(version) >= ANONYMOUS_SINCE {
        files.push(file("authentication.yaml", AUTHENTICATION));
    }
    files
}

/// kubeadm's ClusterConfiguration.
pub fn cluster_configuration(version: &str) -> Value {
    let at = |name: &str| format!("{FOLDER}/{name}");
    let tls = [("profiling", "false"), ("tls-min-version", "VersionTLS12"), ("tls-cipher-suites", SUITES)];
    let mut server = args(&tls);
    server.extend(args(&[
        ("encryption-provider-config", &at("encryption.yaml")),
        ("audit-policy-file", &at("audit-policy.yaml")),
        ("audit-log-path", &format!("{AUDIT_FOLDER}/audit.log")),
        ("audit-log-maxage", "30"),
        ("audit-log-maxbackup", "10"),
        ("audit-log-maxsize", "100"),
        ("admission-control-config-file", &at("admission.yaml")),
        ("service-account-lookup", "true"),
    ]));
    if minor(version) >= ANONYMOUS_SINCE {
        server.extend(args(&[("authentication-config", &at("authentication.yaml"))]));
    }
    let mut manager = args(&tls);
    manager.extend(args(&[("cloud-provider", "external"), ("terminated-pod-gc-threshold", "1000")]));
    let mut etcd = args(&[("cipher-suites", SUITES)]);
    etcd.extend(args(&[("tls-min-version", "TLS1.2")]));
    let mut configuration = json!({
        "apiServer": {
            "extraArgs": server,
            "extraVolumes": [
                {"name": "skep", "hostPath": FOLDER, "mountPath": FOLDER, "readOnly": true, "pathType": "Directory"},
                {"name": "audit", "hostPath": AUDIT_FOLDER, "mountPath": AUDIT_FOLDER, "readOnly": false,
                 "pathType": "DirectoryOrCreate"},
            ],
        },
        "controllerManager": {"extraArgs": manager},
        "scheduler": {"extraArgs": args(&tls)},
        "etcd": {"local": {"extraArgs": etcd}},
    });
    if minor(version) >= KEYS_SINCE {
        configuration["encryptionAlgorithm"] = "ECDSA-P256".into();
    }
    configuration
}

/// Flags of every kubelet.
pub fn kubelet() -> Vec<Value> {
    args(&[("tls-min-version", "VersionTLS12"), ("tls-cipher-suites", SUITES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn documents_are_yaml_and_every_file_that_a_flag_names_is_written() {
        for text in [AUDIT_POLICY, ADMISSION, AUTHENTICATION, &encryption(&[7; 32])] {
            assert!(value(text)["kind"].is_string());
        }
        let secret =
            value(&encryption(&[7; 32]))["resources"][0]["providers"][0]["secretbox"]["keys"][0]["secret"].clone();
        assert_eq!(STANDARD.decode(secret.as_str().unwrap()).unwrap(), [7; 32]);
        for version in ["v1.30.2", "v1.34.2"] {
            let files = files("demo", version);
            let written: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
            let configuration = cluster_configuration(version);
            for argument in configuration["apiServer"]["extraArgs"].as_array().unwrap() {
                let path = argument["value"].as_str().unwrap();
                assert!(!path.starts_with(FOLDER) || written.contains(&path), "{version}: {path}");
            }
            assert_eq!(configuration["encryptionAlgorithm"].is_null(), version == "v1.30.2");
            assert_eq!(written.iter().any(|path| path.ends_with("authentication.yaml")), version == "v1.34.2");
        }
    }
}
