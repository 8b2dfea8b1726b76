//! Labels, annotations, finalizers and object names that users and other programs rely on.
//!
//! Source: kubernetes-sigs/cluster-api, api/core/v1beta2/common_types.go and docs/book/src/reference/api.

pub const CLUSTER_LABEL: &str = "cluster.x-k8s.io/cluster-name";
pub const CONTROL_PLANE_LABEL: &str = "cluster.x-k8s.io/control-plane";
pub const CONTROL_PLANE_NAME_LABEL: &str = "cluster.x-k8s.io/control-plane-name";
pub const DEPLOYMENT_LABEL: &str = "cluster.x-k8s.io/deployment-name";
pub const SET_LABEL: &str = "cluster.x-k8s.io/set-name";
/// On the machines of a MachinePool, and on what the infrastructure makes for them.
pub const POOL_LABEL: &str = "cluster.x-k8s.io/pool-name";
/// On everything that a topology made.
pub const TOPOLOGY_OWNED_LABEL: &str = "topology.cluster.x-k8s.io/owned";
/// The name of workers in their topology.
pub const TOPOLOGY_DEPLOYMENT_LABEL: &str = "topology.cluster.x-k8s.io/deployment-name";
/// The same of workers that are a MachinePool.
pub const TOPOLOGY_POOL_LABEL: &str = "topology.cluster.x-k8s.io/pool-name";
pub const TEMPLATE_HASH_LABEL: &str = "machine-template-hash";
pub const PROVIDER_LABEL: &str = "cluster.x-k8s.io/provider";
pub const CONTRACT_LABEL: &str = "cluster.x-k8s.io/v1beta2";
/// The same of the contract before.
pub const OLD_CONTRACT_LABEL: &str = "cluster.x-k8s.io/v1beta1";
/// What is moved between management clusters with its namespace though it belongs to no cluster (clusterctl).
pub const MOVE_LABEL: &str = "clusterctl.cluster.x-k8s.io/move";
/// On definitions whose objects clusterctl looks at.
pub const INVENTORY_LABEL: &str = "clusterctl.cluster.x-k8s.io";
pub const WATCH_FILTER_LABEL: &str = "cluster.x-k8s.io/watch-filter";

pub const PAUSED_ANNOTATION: &str = "cluster.x-k8s.io/paused";
pub const MANAGED_BY_ANNOTATION: &str = "cluster.x-k8s.io/managed-by";
/// On nodes that the cloud may take away at any time.
pub const INTERRUPTIBLE_LABEL: &str = "cluster.x-k8s.io/interruptible";
/// How few and how many machines the autoscaler may make of it (kubernetes/autoscaler, cloud provider clusterapi).
pub const AUTOSCALER_MIN_ANNOTATION: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size";
pub const AUTOSCALER_MAX_ANNOTATION: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size";
/// On a MachinePool: somebody else decides how many machines it has; `false` means nobody.
pub const REPLICAS_MANAGED_BY_ANNOTATION: &str = "cluster.x-k8s.io/replicas-managed-by";
/// Labels, and annotations, that the object has from the template or the owner that it is made from, with commas between them.
pub const LABELS_FROM_OWNER_ANNOTATION: &str = "cluster.x-k8s.io/labels-from-owner";
pub const ANNOTATIONS_FROM_OWNER_ANNOTATION: &str = "cluster.x-k8s.io/annotations-from-owner";
pub const DELETE_MACHINE_ANNOTATION: &str = "cluster.x-k8s.io/delete-machine";
pub const DISABLE_MACHINE_CREATE_ANNOTATION: &str = "cluster.x-k8s.io/disable-machine-create";
/// On a MachineSet, its MachineDeployment or its bootstrap template: checks that hold back no machines, with commas between them.
pub const SKIP_PREFLIGHT_ANNOTATION: &str = "machineset.cluster.x-k8s.io/skip-preflight-checks";
pub const CLONED_FROM_NAME_ANNOTATION: &str = "cluster.x-k8s.io/cloned-from-name";
pub const CLONED_FROM_KIND_ANNOTATION: &str = "cluster.x-k8s.io/cloned-from-groupkind";
pub const CLUSTER_NAME_ANNOTATION: &str = "cluster.x-k8s.io/cluster-name";
pub const CLUSTER_NAMESPACE_ANNOTATION: &str = "cluster.x-k8s.io/cluster-namespace";
pub const MACHINE_ANNOTATION: &str = "cluster.x-k8s.io/machine";
pub const OWNER_KIND_ANNOTATION: &str = "cluster.x-k8s.io/owner-kind";
pub const OWNER_NAME_ANNOTATION: &str = "cluster.x-k8s.io/owner-name";
pub const EXCLUDE_DRAIN_ANNOTATION: &str = "machine.cluster.x-k8s.io/exclude-node-draining";
pub const SKIP_COREDNS_ANNOTATION: &str = "controlplane.cluster.x-k8s.io/skip-coredns";
pub const SKIP_KUBE_PROXY_ANNOTATION: &str = "controlplane.cluster.x-k8s.io/skip-kube-proxy";
pub const CERTIFICATES_EXPIRY_ANNOTATION: &str = "machine.cluster.x-k8s.io/certificates-expiry";
pub const REMEDIATE_ANNOTATION: &str = "cluster.x-k8s.io/remediate-machine";
pub const SKIP_REMEDIATION_ANNOTATION: &str = "cluster.x-k8s.io/skip-remediation";
/// Pods with it are not evicted by a drain: `skip` leaves them, `wait-completed` waits for them.
pub const DRAIN_LABEL: &str = "cluster.x-k8s.io/drain";
pub const EXCLUDE_DETACH_ANNOTATION: &str = "machine.cluster.x-k8s.io/exclude-wait-for-node-volume-detach";
pub const PRE_DRAIN_HOOK_PREFIX: &str = "pre-drain.delete.hook.machine.cluster.x-k8s.io";
pub const PRE_TERMINATE_HOOK_PREFIX: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io";
/// On an OpenStackCluster: `keep` leaves in the cloud what the workload cluster's own controllers made there.
pub const LEFTOVERS_ANNOTATION: &str = "openstackcluster.infrastructure.cluster.x-k8s.io/leftovers";
/// On an OpenStackCluster: the policy of the server groups that are made for its machines, as Nova names it. On an
/// OpenStackMachine of a pool: that of the pool's.
pub const SERVER_GROUPS_ANNOTATION: &str = "openstackcluster.infrastructure.cluster.x-k8s.io/server-groups";
/// On an OpenStackCluster: volumes whose PersistentVolume says Delete, by id, as its cluster told last.
pub const VOLUMES_ANNOTATION: &str = "openstackcluster.infrastructure.cluster.x-k8s.io/volumes-to-delete";
/// The same of snapshots whose VolumeSnapshotContent says Delete.
pub const SNAPSHOTS_ANNOTATION: &str = "openstackcluster.infrastructure.cluster.x-k8s.io/snapshots-to-delete";
pub const REVISION_ANNOTATION: &str = "machinedeployment.clusters.x-k8s.io/revision";
/// On a MachineDeployment: so many sets without machines are kept, to go back to; 1.
pub const HISTORY_LIMIT_ANNOTATION: &str = "machinedeployment.clusters.x-k8s.io/revision-history-limit";
pub const DESIRED_REPLICAS_ANNOTATION: &str = "machinedeployment.clusters.x-k8s.io/desired-replicas";
pub const MAX_REPLICAS_ANNOTATION: &str = "machinedeployment.clusters.x-k8s.io/max-replicas";
pub const KUBEADM_CLUSTER_CONFIGURATION_ANNOTATION: &str =
    "controlplane.cluster.x-k8s.io/kubeadm-cluster-configuration";

pub const TOPOLOGY_DEFER_UPGRADE_ANNOTATION: &str = "topology.cluster.x-k8s.io/defer-upgrade";
pub const TOPOLOGY_HOLD_UPGRADE_ANNOTATION: &str = "topology.cluster.x-k8s.io/hold-upgrade-sequence";
/// So many MachineDeployments, and so many MachinePools, may be upgraded at a time; 1.
pub const TOPOLOGY_UPGRADE_CONCURRENCY_ANNOTATION: &str = "topology.cluster.x-k8s.io/upgrade-concurrency";
/// On a Cluster: its topology may get a class, or its version change, as it would not be let otherwise.
pub const UNSAFE_CLASS_ANNOTATION: &str = "unsafe.topology.cluster.x-k8s.io/disable-update-class-name-check";
pub const UNSAFE_VERSION_ANNOTATION: &str = "unsafe.topology.cluster.x-k8s.io/disable-update-version-check";
/// On a Cluster: a key that begins so holds back an upgrade that has not begun.
pub const BEFORE_UPGRADE_HOOK_PREFIX: &str = "before-upgrade.hook.cluster.cluster.x-k8s.io";
/// On a Cluster: the version of the step that an upgrade of several is at.
pub const TOPOLOGY_UPGRADE_STEP_ANNOTATION: &str = "topology.internal.cluster.x-k8s.io/upgrade-step";
/// Hooks of runtime extensions that are to be called yet, with commas between them.
pub const PENDING_HOOKS_ANNOTATION: &str = "runtime.cluster.x-k8s.io/pending-hooks";
/// On a Machine, its infrastructure and its bootstrap configuration while an extension updates the machine in place. This
/// and the next four are between controllers.
pub const UPDATE_IN_PROGRESS_ANNOTATION: &str = "in-place-updates.internal.cluster.x-k8s.io/update-in-progress";
/// On a Machine that came from another set: its MachineDeployment has not counted it yet.
pub const PENDING_ACKNOWLEDGE_MOVE_ANNOTATION: &str =
    "in-place-updates.internal.cluster.x-k8s.io/pending-acknowledge-move";
/// On a MachineSet: machines that came from other sets and have been counted, by name.
pub const ACKNOWLEDGED_MOVE_ANNOTATION: &str = "in-place-updates.internal.cluster.x-k8s.io/acknowledged-move";
/// On a MachineSet: the one that gets the machines that are too many here.
pub const MOVE_MACHINES_ANNOTATION: &str = "in-place-updates.internal.cluster.x-k8s.io/move-machines-to-machineset";
/// On a MachineSet: those that it takes machines from.
pub const RECEIVE_MACHINES_ANNOTATION: &str =
    "in-place-updates.internal.cluster.x-k8s.io/receive-machines-from-machinesets";
/// The hooks before the deletion of a Cluster have let it go.
pub const OK_TO_DELETE_ANNOTATION: &str = "runtime.cluster.x-k8s.io/ok-to-delete";
/// On an ExtensionConfig: `namespace/name` of the Secret whose `ca.crt` is to be its authority.
pub const INJECT_CA_ANNOTATION: &str = "runtime.cluster.x-k8s.io/inject-ca-from-secret";

pub const CLUSTER_FINALIZER: &str = "cluster.cluster.x-k8s.io";
pub const MACHINE_FINALIZER: &str = "machine.cluster.x-k8s.io";
pub const MACHINE_SET_FINALIZER: &str = "cluster.x-k8s.io/machineset";
pub const MACHINE_DEPLOYMENT_FINALIZER: &str = "cluster.x-k8s.io/machinedeployment";
pub const MACHINE_POOL_FINALIZER: &str = "machinepool.cluster.x-k8s.io";
pub const CONTROL_PLANE_FINALIZER: &str = "kubeadm.controlplane.cluster.x-k8s.io";
pub const OPENSTACK_CLUSTER_FINALIZER: &str = "openstackcluster.infrastructure.cluster.x-k8s.io";
pub const OPENSTACK_MACHINE_POOL_FINALIZER: &str = "openstackmachinepool.infrastructure.cluster.x-k8s.io";
pub const OPENSTACK_SERVER_FINALIZER: &str = "openstackserver.infrastructure.cluster.x-k8s.io";
pub const OPENSTACK_POOL_FINALIZER: &str = "openstackfloatingippool.infrastructure.cluster.x-k8s.io";
/// On an IPAddress, until its floating IP has gone back to the pool.
pub const FLOATING_IP_FINALIZER: &str = "openstackfloatingippool.infrastructure.cluster.x-k8s.io/delete-floating-ip";
/// That of the OpenStack Resource Controller.
pub const OPENSTACK_IMAGE_FINALIZER: &str = "openstack.k-orc.cloud/image";
pub const OPENSTACK_MACHINE_FINALIZER: &str = "openstackmachine.infrastructure.cluster.x-k8s.io";

/// Taint that a worker registers with until its labels and taints are in place.
pub const UNINITIALIZED_TAINT: &str = "node.cluster.x-k8s.io/uninitialized";
/// Taint on nodes of an old revision during a rollout, so that new pods prefer new nodes.
pub const OUTDATED_TAINT: &str = "node.cluster.x-k8s.io/outdated-revision";

/// Type of the secrets that hold a cluster's certificates, kubeconfig and bootstrap data.
pub const SECRET_TYPE: &str = "cluster.x-k8s.io/secret";

/// Secrets that hold a cluster's key pairs and kubeconfig are named `<cluster>-<purpose>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Ca,
    Etcd,
    FrontProxy,
    ServiceAccount,
    /// The API server's client certificate for an etcd outside the cluster; the user's.
    EtcdClient,
    Kubeconfig,
}

impl Purpose {
    pub fn secret_name(self, cluster: &str) -> String {
        let suffix = match self {
            Self::Ca => "ca",
            Self::Etcd => "etcd",
            Self::FrontProxy => "proxy",
            Self::ServiceAccount => "sa",
            Self::EtcdClient => "apiserver-etcd-client",
            Self::Kubeconfig => "kubeconfig",
        };
        format!("{cluster}-{suffix}")
    }
}

/// Letters and digits that cannot be taken for one another or form words (apimachinery `util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// So many letters and digits for a name; near numbers give others. A number has room for 13 of them.
pub fn suffix(number: u64, chars: usize) -> String {
    // SplitMix64's finish.
    let mut x = number;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let mut text = String::with_capacity(chars);
    for _ in 0..chars {
        let letters = ALPHABET.len() as u64;
        text.push(char::from(ALPHABET[(x % letters) as usize]));
        x /= letters;
    }
    text
}

/// The same for what decides the name.
pub fn digest(parts: &[&str], chars: usize) -> String {
    // FNV-1a.
    let mut x = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        x = (x ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    suffix(x, chars)
}
