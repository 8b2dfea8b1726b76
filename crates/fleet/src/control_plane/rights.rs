//! What newer versions of kubeadm grant in the workload cluster, before machines of such a version come.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/pkg/workload_cluster_rbac.go.

use api::version;
use control::{Error, Key, Result, bounded};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::{Api, api::PostParams, core::ObjectMeta};

use crate::workload::Workloads;

const BINDING: &str = "kubeadm:apiserver-kubelet-client";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Lets the API server's own client speak to kubelets: kubeadm 1.37 no longer makes it an administrator, and grants this at
/// `init` and `upgrade`, of which a rollout runs neither. From 1.38 on it was granted on the way; whoever took it away then
/// meant it.
pub async fn grant(workloads: &Workloads, cluster: &Key, kubernetes: &str) -> Result<()> {
    if version::parse(kubernetes).is_none_or(|it| (it.major, it.minor) >= (1, 38)) {
        return Ok(());
    }
    let api = Api::<ClusterRoleBinding>::all(workloads.try_client(cluster).await?);
    let failed = |verb| move |source| Error::api(verb, format!("ClusterRoleBinding {BINDING} of {cluster}"), source);
    if bounded(cluster, api.get_metadata_opt(BINDING)).await?.map_err(failed("get"))?.is_some() {
        return Ok(());
    }
    match bounded(cluster, api.create(&PostParams::default(), &binding())).await? {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(drop).map_err(failed("create")),
    }
}

fn binding() -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(BINDING.to_owned()), ..ObjectMeta::default() },
        role_ref: RoleRef {
            api_group: Some(GROUP.to_owned()),
            kind: "ClusterRole".to_owned(),
            name: "system:kubelet-api-admin".to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(GROUP.to_owned()),
            kind: "User".to_owned(),
            name: "kube-apiserver-kubelet-client".to_owned(),
            namespace: None,
        }]),
    }
}
