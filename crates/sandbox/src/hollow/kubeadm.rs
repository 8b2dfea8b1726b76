//! kubeadm's configuration as kubeadm reads it.
//!
//! Source: kubeadm API reference v1beta3 and v1beta4.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::user_data::first_line;

/// What kubeadm takes if it is not told.
const SERVICE_SUBNET: &str = "10.96.0.0/12";
const VERSIONS: [&str; 2] = ["kubeadm.k8s.io/v1beta3", "kubeadm.k8s.io/v1beta4"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("error reading the configuration {path}: it was not written")]
    Missing { path: String },
    #[error("error unmarshaling configuration {path}: {what}")]
    Unreadable { path: String, what: String },
    #[error("no kind {kind:?} is registered for version {version:?} in kubeadm")]
    Unknown { kind: String, version: String },
    #[error("invalid configuration: {0}")]
    Invalid(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterConfiguration {
    pub cluster_name: String,
    pub control_plane_endpoint: String,
    pub kubernetes_version: String,
    pub networking: Networking,
    pub api_server: ApiServer,
    pub certificates_dir: String,
    /// As Go writes durations; empty: a year.
    pub certificate_validity_period: String,
    pub etcd: Etcd,
    pub image_repository: String,
    pub dns: Dns,
    pub proxy: Proxy,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    pub image_repository: String,
    pub image_tag: String,
    pub disabled: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    pub disabled: bool,
}

impl ClusterConfiguration {
    /// For how long certificates are good, in hours; those that kubeadm makes, not the authorities.
    pub fn validity_hours(&self) -> i64 {
        const YEAR: i64 = 365 * 24;
        self.certificate_validity_period.split_once('h').and_then(|(hours, _)| hours.parse().ok()).unwrap_or(YEAR)
    }

    /// What Services get their addresses from; of two, the first.
    pub fn service_subnet(&self) -> &str {
        let first = self.networking.service_subnet.split(',').next().map(str::trim);
        first.filter(|subnet| !subnet.is_empty()).unwrap_or(SERVICE_SUBNET)
    }

    /// Where a key or certificate lies, by its path in the folder of certificates.
    pub fn pki(&self, name: &str) -> String {
        let folder = if self.certificates_dir.is_empty() { "/etc/kubernetes/pki" } else { &self.certificates_dir };
        format!("{}/{name}", folder.trim_end_matches('/'))
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Etcd {
    pub external: Option<ExternalEtcd>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalEtcd {
    pub ca_file: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Networking {
    pub dns_domain: String,
    pub pod_subnet: String,
    pub service_subnet: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServer {
    #[serde(rename = "certSANs")]
    pub cert_sans: Vec<String>,
    /// A list of name and value in v1beta4, a map in v1beta3.
    pub extra_args: Value,
    pub extra_volumes: Vec<Volume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub host_path: String,
    pub mount_path: String,
}

/// Flags of an API server that name a file which has to be there.
const FILE_FLAGS: [&str; 5] = [
    "admission-control-config-file",
    "audit-policy-file",
    "audit-webhook-config-file",
    "authentication-config",
    "encryption-provider-config",
];

impl ApiServer {
    fn args(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match &self.extra_args {
            Value::Array(list) => list.iter().map(|arg| (text(&arg["name"]), text(&arg["value"]))).collect(),
            Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            _ => Vec::new(),
        }
    }

    /// An API server that does not find a file which a flag names does not start. `written` says whether a file is on the
    /// machine.
    pub fn check(&self, written: impl Fn(&str) -> bool) -> Result<(), Error> {
        for (flag, path) in self.args().into_iter().filter(|(flag, _)| FILE_FLAGS.contains(&flag.as_str())) {
            // kubeadm mounts this folder itself, and nothing else that is the user's.
            let mounts = self.extra_volumes.iter().map(|volume| (&*volume.mount_path, &*volume.host_path));
            let mut mounts = mounts.chain([("/etc/kubernetes/pki", "/etc/kubernetes/pki")]);
            let on_host = mounts.find_map(|(inside, outside)| {
                let rest = path.strip_prefix(inside).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
                Some(format!("{outside}{rest}"))
            });
            if !on_host.is_some_and(|path| written(&path)) {
                return Err(Error::Invalid(format!(
                    "the API server does not start: --{flag}: open {path}: no such file or directory"
                )));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRegistration {
    pub name: String,
    pub taints: Option<Vec<Taint>>,
    pub kubelet_extra_args: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

impl NodeRegistration {
    /// A kubelet flag: a list of name and value in v1beta4, a map in v1beta3. Quotes are the shell's, as the kubelet's
    /// environment file is read by one.
    pub fn kubelet_arg(&self, name: &str) -> Option<String> {
        let raw = match &self.kubelet_extra_args {
            Value::Array(args) => args.iter().rev().find(|arg| arg["name"] == name)?["value"].as_str()?,
            Value::Object(args) => args.get(name)?.as_str()?,
            _ => return None,
        };
        Some(unquoted(raw))
    }
}

/// Removes shell quotes; what is between them stays.
fn unquoted(text: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            _ => out.push(letter),
        }
    }
    out
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    pub advertise_address: String,
    pub bind_port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitConfiguration {
    pub node_registration: NodeRegistration,
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: Endpoint,
    pub bootstrap_tokens: Vec<Token>,
    pub skip_phases: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Token {
    pub token: String,
    pub description: String,
    pub expires: Option<Timestamp>,
    /// As Go writes durations; kubeadm's default is a day.
    pub ttl: Option<String>,
    pub usages: Vec<String>,
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinConfiguration {
    pub node_registration: NodeRegistration,
    pub discovery: Discovery,
    pub control_plane: Option<ControlPlane>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlPlane {
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: Endpoint,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Discovery {
    pub bootstrap_token: Option<BootstrapToken>,
    pub file: Option<FileDiscovery>,
    pub tls_bootstrap_token: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileDiscovery {
    pub kube_config_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootstrapToken {
    pub token: String,
    pub api_server_endpoint: String,
    pub ca_cert_hashes: Vec<String>,
    #[serde(rename = "unsafeSkipCAVerification")]
    pub unsafe_skip_ca_verification: bool,
}

/// The documents of `kubeadm init --config`.
pub fn init(path: &str, text: Option<&str>) -> Result<(ClusterConfiguration, InitConfiguration), Error> {
    let (mut cluster, mut init) = (None, None);
    for (kind, document) in documents(path, text)? {
        match kind.as_str() {
            "ClusterConfiguration" => cluster = Some(parsed(path, document)?),
            "InitConfiguration" => init = Some(parsed(path, document)?),
            // Components' own configuration goes along; nothing here runs them.
            _ => {}
        }
    }
    let cluster: ClusterConfiguration = cluster.unwrap_or_default();
    if !cluster.kubernetes_version.starts_with('v') {
        return Err(Error::Invalid(format!("kubernetesVersion {:?} is not a version", cluster.kubernetes_version)));
    }
    if cluster.control_plane_endpoint.is_empty() {
        return Err(Error::Invalid("controlPlaneEndpoint is empty: a cluster of several members needs one".into()));
    }
    Ok((cluster, init.unwrap_or_default()))
}

/// The document of `kubeadm join --config`.
pub fn join(path: &str, text: Option<&str>) -> Result<JoinConfiguration, Error> {
    for (kind, document) in documents(path, text)? {
        if kind == "JoinConfiguration" {
            return parsed(path, document);
        }
    }
    Err(Error::Invalid(format!("no JoinConfiguration found in config file {path}")))
}

/// Each document with its kind; kubeadm's own must be of a version that it knows.
fn documents(path: &str, text: Option<&str>) -> Result<Vec<(String, Value)>, Error> {
    let text = text.ok_or_else(|| Error::Missing { path: path.to_owned() })?;
    let mut found = Vec::new();
    let mut part = String::new();
    for line in text.lines().chain(["---"]) {
        if line.trim_end() != "---" {
            part.push_str(line);
            part.push('\n');
            continue;
        }
        if !part.trim().is_empty() {
            let unreadable = |what: String| Error::Unreadable { path: path.to_owned(), what };
            let document: Value = serde_saphyr::from_str(&part).map_err(|error| unreadable(first_line(&error)))?;
            let of = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
            let (kind, version) = (of("kind"), of("apiVersion"));
            let component = matches!(kind.as_str(), "KubeletConfiguration" | "KubeProxyConfiguration");
            if !component && !VERSIONS.contains(&version.as_str()) {
                return Err(Error::Unknown { kind, version });
            }
            found.push((kind, document));
        }
        part.clear();
    }
    Ok(found)
}

fn parsed<T: serde::de::DeserializeOwned>(path: &str, document: Value) -> Result<T, Error> {
    serde_json::from_value(document)
        .map_err(|error| Error::Unreadable { path: path.to_owned(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n  \
                        - name: provider-id\n    value: openstack:///'6a0e'\n";

    #[test]
    fn a_kubelet_argument_loses_the_shells_quotes() {
        let join = join("/x", Some(JOIN)).unwrap();
        assert_eq!(join.node_registration.kubelet_arg("provider-id").as_deref(), Some("openstack:///6a0e"));
    }

    #[test]
    fn a_version_that_kubeadm_does_not_know_is_an_error() {
        let text = JOIN.replace("v1beta4", "v1alpha1");
        assert!(matches!(join("/x", Some(&text)), Err(Error::Unknown { .. })));
        assert!(matches!(join("/x", None), Err(Error::Missing { .. })));
        assert!(matches!(join("/x", Some("a: [")), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn an_api_server_starts_only_with_the_files_that_its_flags_name() {
        let server = |mount: &str| -> ApiServer {
            serde_json::from_value(serde_json::json!({
                "extraArgs": [{"name": "audit-policy-file", "value": "/etc/k/policy.yaml"}, {"name": "v", "value": "2"}],
                "extraVolumes": [{"name": "k", "hostPath": "/srv/k", "mountPath": mount}],
            }))
            .unwrap()
        };
        assert!(server("/etc/k").check(|path| path == "/srv/k/policy.yaml").is_ok());
        assert!(server("/etc/k").check(|_| false).unwrap_err().to_string().contains("/etc/k/policy.yaml"));
        assert!(server("/etc/other").check(|_| true).is_err(), "not mounted");
        assert!(ApiServer::default().check(|_| false).is_ok());
    }

    #[test]
    fn init_wants_a_version_and_an_endpoint() {
        let text = |endpoint: &str| {
            format!(
                "---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nkubernetesVersion: v1.30.0\ncontrolPlaneEndpoint: '{endpoint}'\n"
            )
        };
        assert!(init("/x", Some(&text("a:6443"))).is_ok());
        assert!(matches!(init("/x", Some(&text(""))), Err(Error::Invalid(_))));
    }
}
