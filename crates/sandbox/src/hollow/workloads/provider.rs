//! What a hollow cluster's own parts make in the cloud: load balancers for Services, as the OpenStack cloud controller manager
//! does, and volumes for claims, as the Cinder CSI driver does. Both have the credentials that the cluster has: the
//! Secret `cloud-config` in kube-system. Without it Services and claims wait, as in life.
//!
//! Source: kubernetes/cloud-provider-openstack docs/openstack-cloud-controller-manager, docs/cinder-csi-plugin (the
//! configuration, names and annotations).

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Secret, Service};
use kube::ResourceExt;
use openstack::{Client, Cloud};
use serde_json::{Value, json};

use super::{
    observed::Observed,
    plan::{Plan, value},
    pods, volumes,
};

mod balancer;
mod volume;

pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const COMPONENT: &str = "service-controller";
/// Longest cloud.conf that is read.
const CONFIGURATION_BYTES_MAX: usize = 64 * 1024;
/// Calls to the cloud for one Service or claim in a pass: more follow in the next one.
const STEPS_MAX: usize = 100;

/// The cloud as a cluster's cloud.conf says.
#[derive(Debug, Default, PartialEq)]
pub struct Configuration {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Configuration {
    /// An INI file: sections in brackets, `key = value`, quotes around values, comments.
    pub fn read(text: &str) -> Self {
        let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut section = String::new();
        for line in text.chars().take(CONFIGURATION_BYTES_MAX).collect::<String>().lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim().to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"').to_owned();
                sections.entry(section.clone()).or_default().insert(key.trim().to_owned(), value);
            }
        }
        Self { sections }
    }

    fn of(secret: &Secret) -> Option<Self> {
        let bytes = &secret.data.as_ref()?.get("cloud.conf")?.0;
        Some(Self::read(&String::from_utf8_lossy(bytes)))
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(section)?.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn global(&self, key: &str) -> Option<&str> {
        self.get("Global", key)
    }

    /// The same as a clouds.yaml says it.
    fn cloud(&self) -> Result<Cloud, String> {
        let mut auth = serde_json::Map::new();
        let mut set = |key: &str, names: &[&str]| {
            if let Some(text) = names.iter().find_map(|name| self.global(name)) {
                auth.insert(key.to_owned(), text.into());
            }
        };
        set("auth_url", &["auth-url"]);
        set("application_credential_id", &["application-credential-id"]);
        set("application_credential_name", &["application-credential-name"]);
        set("application_credential_secret", &["application-credential-secret"]);
        set("username", &["username"]);
        set("user_id", &["user-id"]);
        set("password", &["password"]);
        set("project_id", &["tenant-id"]);
        set("project_name", &["tenant-name"]);
        set("project_domain_id", &["tenant-domain-id", "domain-id"]);
        set("project_domain_name", &["tenant-domain-name", "domain-name"]);
        set("user_domain_id", &["user-domain-id", "domain-id"]);
        set("user_domain_name", &["user-domain-name", "domain-name"]);
        let secret = auth.contains_key("application_credential_secret");
        let kind = if secret { "v3applicationcredential" } else { "password" };
        let cloud = json!({"auth_type": kind, "region_name": self.global("region"), "auth": auth});
        let yaml = json!({"clouds": {"cluster": cloud}}).to_string();
        Cloud::from_yaml(yaml.as_bytes(), None, None).map_err(|error| error.to_string())
    }
}

/// The cluster's own access to the cloud.
pub struct Provider {
    cloud: Client,
    cluster: String,
    /// Where load balancers and their addresses come from, if the configuration says so.
    subnet: Option<String>,
    network: Option<String>,
    floating_network: Option<String>,
    /// Volumes' zones are not nodes'.
    ignore_zones: bool,
}

impl Provider {
    /// None if the cluster has no credentials; an error if they are not for the cloud that its machines are in.
    pub fn of(seen: &Observed, machines: &Client) -> Option<Result<Self, String>> {
        let configuration = Configuration::of(seen.cloud_config.as_ref()?)?;
        Some(Self::new(&configuration, seen, machines))
    }

    fn new(configuration: &Configuration, seen: &Observed, machines: &Client) -> Result<Self, String> {
        let cloud = configuration.cloud()?;
        let (own, there) = (cloud.auth_url.trim_end_matches('/'), machines.cloud().auth_url.trim_end_matches('/'));
        // Whoever writes the Secret does not choose whom this process calls.
        if own.trim_end_matches("/v3") != there.trim_end_matches("/v3") {
            return Err(format!(
                "auth-url {own:?} is not that of the cloud that the cluster's machines are in, {there:?}"
            ));
        }
        let balancing = |key: &str| configuration.get("LoadBalancer", key).map(str::to_owned);
        Ok(Self {
            cloud: machines.beside(cloud),
            cluster: seen.cluster_name.clone(),
            subnet: balancing("subnet-id"),
            network: balancing("network-id"),
            floating_network: balancing("floating-network-id"),
            ignore_zones: configuration.get("BlockStorage", "ignore-volume-az") == Some("true"),
        })
    }
}

/// What is to be done in the cloud.
#[derive(Debug)]
pub enum Task<'a> {
    Balance {
        service: &'a Service,
        digest: u64,
    },
    /// The Service is going, or is to have none any more.
    Free {
        service: &'a Service,
    },
    Provision {
        claim: &'a PersistentVolumeClaim,
    },
    Reclaim {
        volume: &'a PersistentVolume,
    },
}

/// What came of a task.
pub enum Outcome {
    Done,
    /// The cloud is at it.
    Waits,
}

fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
        // One of a class is somebody else's.
        && spec.and_then(|spec| spec.load_balancer_class.as_ref()).is_none()
}

/// The nodes behind load balancers.
fn targets(seen: &Observed) -> Vec<&Node> {
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
    let takes = |node: &&Node| {
        super::nodes::is_heard(node) && !node.labels().contains_key(excluded) && !pods::is_deleted(*node)
    };
    seen.nodes.iter().filter(takes).collect()
}

/// What a load balancer follows from, in short.
fn digest(seen: &Observed, service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    value(&service.spec).to_string().hash(&mut hasher);
    service.annotations().hash(&mut hasher);
    value(&service.status).to_string().hash(&mut hasher);
    for node in targets(seen) {
        node.name_any().hash(&mut hasher);
        balancer::address(node).hash(&mut hasher);
    }
    hasher.finish()
}

/// What is to be done in the cloud; `balanced` has what Services' load balancers were last brought in line with, by UID.
pub fn tasks<'a>(seen: &'a Observed, balanced: &BTreeMap<String, u64>) -> Vec<Task<'a>> {
    let mut tasks = Vec::new();
    for service in &seen.services {
        let held = service.finalizers().iter().any(|name| name == FINALIZER);
        if is_balanced(service) && !pods::is_deleted(service) {
            let digest = digest(seen, service);
            if balanced.get(&service.uid().unwrap_or_default()) != Some(&digest) {
                tasks.push(Task::Balance { service, digest });
            }
        } else if held {
            tasks.push(Task::Free { service });
        }
    }
    for claim in seen.claims.iter().filter(|claim| volume::is_wanted(seen, claim)) {
        tasks.push(Task::Provision { claim });
    }
    for volume in seen.volumes.iter().filter(|one| volume::is_over(one)) {
        tasks.push(Task::Reclaim { volume });
    }
    tasks
}

impl Provider {
    /// Goes on with a task, as far as the cloud lets it; what is to be written in the cluster is added to the plan.
    pub async fn carry_out(&self, seen: &Observed, task: &Task<'_>, plan: &mut Plan) -> openstack::Result<Outcome> {
        match task {
            Task::Balance { service, .. } => self.balance(seen, service, plan).await,
            Task::Free { service } => self.free(service, plan).await,
            Task::Provision { claim } => self.provision(seen, claim, plan).await,
            Task::Reclaim { volume } => self.reclaim(volume, plan).await,
        }
    }
}

impl Task<'_> {
    /// Tells of a task that failed.
    pub fn fail(&self, seen: &Observed, why: &str, plan: &mut Plan) {
        let (now, warning) = (seen.now, "Warning");
        match self {
            Self::Balance { service, .. } | Self::Free { service } => {
                let message = format!("Error syncing load balancer: {why}");
                plan.event(*service, now, (COMPONENT, warning, "SyncLoadBalancerFailed"), message);
            }
            Self::Provision { claim } => {
                let message = format!("failed to provision volume with StorageClass: {why}");
                plan.event(*claim, now, (volume::DRIVER, warning, "ProvisioningFailed"), message);
            }
            Self::Reclaim { volume } => plan.event(*volume, now, (volume::DRIVER, warning, "VolumeFailedDelete"), why),
        }
    }
}

fn finalizers(service: &Service, with: bool) -> Value {
    let mut names: Vec<String> = service.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    if with {
        names.push(FINALIZER.to_owned());
    }
    json!({"metadata": {"finalizers": names, "resourceVersion": service.resource_version()}})
}

#[cfg(test)]
mod tests;
