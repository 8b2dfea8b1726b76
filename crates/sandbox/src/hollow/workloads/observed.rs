//! What a hollow cluster has, as its controllers see it at one time.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service},
        discovery::v1::EndpointSlice,
        policy::v1::PodDisruptionBudget,
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde::de::DeserializeOwned;
use store::{At, Range, SharedStore};
use tracing::debug;

use crate::hollow::kubeadm::ClusterConfiguration;

/// Where the API server keeps objects.
pub const ROOT: &str = "/registry/";
/// Where kubeadm leaves its configuration.
const CONFIGURATION: &str = "core/configmaps/kube-system/kubeadm-config";
/// Where the cluster's own access to its cloud lies.
pub const CLOUD_CONFIG: &str = "core/secrets/kube-system/cloud-config";
/// Of pods in a cluster whose configuration names none.
const POD_NETWORK: &str = "10.244.0.0/16";
/// Of a cluster that is not told its own (kubeadm's default).
const CLUSTER_NAME: &str = "kubernetes";

#[derive(Debug, thiserror::Error)]
#[error("read {what} of a hollow cluster")]
pub struct Error {
    what: String,
    #[source]
    source: store::Error,
}

/// Lists of objects, by the group and plural that their keys begin with.
macro_rules! observed {
    ($($field:ident: $kind:ty = $resource:literal,)*) => {
        pub struct Observed {
            /// In whole seconds, as objects have times.
            pub now: Timestamp,
            pub pod_network: IpNet,
            /// As kubeadm was told.
            pub cluster_name: String,
            pub cloud_config: Option<Secret>,
            /// What the API said when objects were last to be made: by the UID of the controller that they are of.
            pub refused: BTreeMap<String, String>,
            owned: HashMap<String, Vec<usize>>,
            $(pub $field: Vec<$kind>,)*
        }

        /// What wakes the controllers.
        pub const RESOURCES: &[&str] = &[$($resource),*];

        impl Observed {
            pub fn new(now: Timestamp) -> Self {
                let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
                let pod_network = POD_NETWORK.parse().expect("it is a network");
                Self {
                    now,
                    pod_network,
                    cluster_name: CLUSTER_NAME.to_owned(),
                    cloud_config: None,
                    refused: BTreeMap::new(),
                    owned: HashMap::new(), $($field: Vec::new(),)* }
            }

            fn take(&mut self, resource: &str, bytes: &[u8]) -> serde_json::Result<()> {
                match resource {
                    $($resource => self.$field.push(read(bytes)?),)*
                    _ => {}
                }
                Ok(())
            }
        }
    };
}

observed! {
    namespaces: Namespace = "core/namespaces",
    nodes: Node = "core/nodes",
    pods: Pod = "core/pods",
    deployments: Deployment = "apps/deployments",
    replica_sets: ReplicaSet = "apps/replicasets",
    daemon_sets: DaemonSet = "apps/daemonsets",
    stateful_sets: StatefulSet = "apps/statefulsets",
    jobs: Job = "batch/jobs",
    cron_jobs: CronJob = "batch/cronjobs",
    revisions: ControllerRevision = "apps/controllerrevisions",
    services: Service = "core/services",
    slices: EndpointSlice = "discovery.k8s.io/endpointslices",
    budgets: PodDisruptionBudget = "policy/poddisruptionbudgets",
    autoscalers: HorizontalPodAutoscaler = "autoscaling/horizontalpodautoscalers",
    claims: PersistentVolumeClaim = "core/persistentvolumeclaims",
    volumes: PersistentVolume = "core/persistentvolumes",
    classes: StorageClass = "storage.k8s.io/storageclasses",
}

/// Who owns which field is nobody's business here, and more than half of many an object.
fn read<T: DeserializeOwned + Resource>(bytes: &[u8]) -> serde_json::Result<T> {
    let mut object: T = serde_json::from_slice(bytes)?;
    object.meta_mut().managed_fields = None;
    Ok(object)
}

impl Observed {
    pub async fn load(store: &SharedStore, now: Timestamp) -> Result<Self, Error> {
        let mut seen = Self::new(now);
        for resource in RESOURCES {
            let range = Range::prefix(format!("{ROOT}{resource}/"));
            let page = store.range(range, At::Latest, 0).await;
            let page = page.map_err(|source| Error { what: (*resource).to_owned(), source })?;
            for item in page.items {
                // One object that is not of its kind's form does not keep the others from being looked at.
                if let Err(error) = seen.take(resource, &item.value) {
                    debug!(key = %String::from_utf8_lossy(&item.key), %error, "an object of a hollow cluster is not read");
                }
            }
        }
        if let Some(configuration) = one(store, CONFIGURATION).await?.and_then(|value| configuration(&value)) {
            seen.configure(&configuration);
        }
        let secret = one(store, CLOUD_CONFIG).await?;
        seen.cloud_config = secret.and_then(|value| read(&value).ok());
        seen.index();
        Ok(seen)
    }

    fn configure(&mut self, configuration: &ClusterConfiguration) {
        let network = configuration.networking.pod_subnet.split(',').next().and_then(|text| text.trim().parse().ok());
        self.pod_network = network.unwrap_or(self.pod_network);
        if !configuration.cluster_name.is_empty() {
            self.cluster_name = configuration.cluster_name.clone();
        }
    }

    fn index(&mut self) {
        self.owned.clear();
        for (at, pod) in self.pods.iter().enumerate() {
            if let Some(owner) = controller_of(&pod.metadata) {
                self.owned.entry(owner.uid.clone()).or_default().push(at);
            }
        }
    }

    /// The pods whose controller has this UID.
    pub fn pods_of<'a>(&'a self, owner: &ObjectMeta) -> impl Iterator<Item = &'a Pod> {
        let own = owner.uid.as_ref().and_then(|uid| self.owned.get(uid));
        own.into_iter().flatten().filter_map(|at| self.pods.get(*at))
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))
    }
}

pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    owner.uid.is_some() && controller_of(meta).map(|found| &found.uid) == owner.uid.as_ref()
}

/// The object behind one key.
async fn one(store: &SharedStore, key: &str) -> Result<Option<Bytes>, Error> {
    let page = store.range(Range::key(format!("{ROOT}{key}")), At::Latest, 1).await;
    let page = page.map_err(|source| Error { what: key.to_owned(), source })?;
    Ok(page.items.into_iter().next().map(|item| item.value))
}

fn configuration(config_map: &[u8]) -> Option<ClusterConfiguration> {
    let map: ConfigMap = serde_json::from_slice(config_map).ok()?;
    serde_saphyr::from_str(&map.data?.remove("ClusterConfiguration")?).ok()
}

#[cfg(test)]
impl Observed {
    /// A cluster that has these objects.
    pub fn of(now: &str, objects: &[serde_json::Value]) -> Self {
        let mut seen = Self::new(now.parse().unwrap());
        for object in objects {
            seen.add(object);
        }
        seen.index();
        seen
    }

    fn add(&mut self, object: &serde_json::Value) {
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let plural = if kind.ends_with('s') { format!("{kind}es") } else { format!("{kind}s") };
        let resource = RESOURCES.iter().find(|resource| resource.ends_with(&format!("/{plural}")));
        self.take(resource.unwrap(), object.to_string().as_bytes()).unwrap();
    }
}
