//! What a hollow cluster has, as its controllers see it at one time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use store::{At, KeyValue, Range, Revision, SharedStore};
use tracing::debug;

use super::{kubelet::needs, pods};
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
            /// ConfigMaps and Secrets that pods wait for, by their keys below the root.
            pub missing: BTreeSet<String>,
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
                    missing: BTreeSet::new(),
                    refused: BTreeMap::new(),
                    owned: HashMap::new(), $($field: Vec::new(),)* }
            }

            fn take(&mut self, resource: &str, bytes: &[u8], version: Revision) -> serde_json::Result<()> {
                match resource {
                    $($resource => self.$field.push(read(bytes, version)?),)*
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
    api_services: APIService = "apiregistration.k8s.io/apiservices",
    budgets: PodDisruptionBudget = "policy/poddisruptionbudgets",
    autoscalers: HorizontalPodAutoscaler = "autoscaling/horizontalpodautoscalers",
    claims: PersistentVolumeClaim = "core/persistentvolumeclaims",
    volumes: PersistentVolume = "core/persistentvolumes",
    classes: StorageClass = "storage.k8s.io/storageclasses",
}

/// Who owns which field is nobody's business here, and more than half of many an object.
/// An object is kept without its version: that is the commit's.
pub fn read<T: DeserializeOwned + Resource>(bytes: &[u8], version: Revision) -> serde_json::Result<T> {
    let mut object: T = serde_json::from_slice(bytes)?;
    object.meta_mut().resource_version = Some(version.to_string());
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
                if let Err(error) = seen.take(resource, &item.value, item.modified) {
                    debug!(key = %String::from_utf8_lossy(&item.key), %error, "an object of a hollow cluster is not read");
                }
            }
        }
        if let Some(configuration) = one(store, CONFIGURATION).await?.and_then(|item| configuration(&item.value)) {
            seen.configure(&configuration);
        }
        let secret = one(store, CLOUD_CONFIG).await?;
        seen.cloud_config = secret.and_then(|item| read(&item.value, item.modified).ok());
        seen.missing = seen.lacking(store).await?;
        seen.index();
        Ok(seen)
    }

    /// Which of the ConfigMaps and Secrets are not there that pods need to start.
    async fn lacking(&self, store: &SharedStore) -> Result<BTreeSet<String>, Error> {
        let starting =
            |pod: &&Pod| pods::node(pod).is_some() && pods::phase(pod) == "Pending" && !pods::is_deleted(*pod);
        let needs = self.pods.iter().filter(starting).flat_map(|pod| {
            let namespace = pod.namespace().unwrap_or_default();
            let needs = pod.spec.as_ref().map(needs::all).unwrap_or_default();
            needs.into_iter().map(move |need| need.key(&namespace))
        });
        let mut missing: BTreeSet<String> = needs.collect();
        for key in missing.clone() {
            if one(store, &key).await?.is_some() {
                missing.remove(&key);
            }
        }
        Ok(missing)
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
async fn one(store: &SharedStore, key: &str) -> Result<Option<KeyValue>, Error> {
    let page = store.range(Range::key(format!("{ROOT}{key}")), At::Latest, 1).await;
    let page = page.map_err(|source| Error { what: key.to_owned(), source })?;
    Ok(page.items.into_iter().next())
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
        self.take(resource.unwrap(), object.to_string().as_bytes(), Revision(7)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use store::{Commit, Embedded, Guard, Limits, Op};

    use super::*;

    async fn put(store: &SharedStore, key: &str, value: serde_json::Value) -> Revision {
        let op = Op::Put { key: format!("{ROOT}{key}").into(), value: value.to_string().into() };
        match store.commit(Guard::default(), vec![op]).await.unwrap() {
            Commit::Done(revision) => revision,
            conflict @ Commit::Conflict { .. } => panic!("{conflict:?}"),
        }
    }

    #[tokio::test]
    async fn objects_are_read_at_their_version_with_what_they_lack_and_one_that_is_none_is_left_out() {
        let store: SharedStore = Arc::new(Embedded::memory(Limits::default()));
        let env = |name: &str| json!({"configMapRef": {"name": name}});
        let pod = json!({"metadata": {"name": "p", "namespace": "default", "managedFields": []},
            "spec": {"nodeName": "w", "containers": [{"name": "a", "envFrom": [env("there"), env("not")]}]},
            "status": {"phase": "Pending"}});
        let version = put(&store, "core/pods/default/p", pod).await;
        put(&store, "core/pods/default/broken", json!({"spec": "nonsense"})).await;
        put(&store, "core/configmaps/default/there", json!({})).await;
        let configuration = "clusterName: demo\nnetworking: {podSubnet: '10.9.0.0/24,fd00::/64'}\n";
        put(&store, CONFIGURATION, json!({"metadata": {}, "data": {"ClusterConfiguration": configuration}})).await;
        let seen = Observed::load(&store, Timestamp::UNIX_EPOCH).await.unwrap();
        let [pod] = &seen.pods[..] else { panic!("{:?}", seen.pods) };
        assert_eq!(pod.resource_version(), Some(version.to_string()));
        assert!(pod.metadata.managed_fields.is_none());
        assert_eq!(seen.missing.iter().collect::<Vec<_>>(), ["core/configmaps/default/not"]);
        assert_eq!((seen.cluster_name.as_str(), seen.pod_network.to_string()), ("demo", "10.9.0.0/24".to_owned()));
    }
}
