//! Objects without a controller that an owner takes over instead of making others beside them: machines of a control plane or
//! of a set, sets of a deployment. So a cluster that comes back from a copy, or whose owner was deleted without its machines,
//! goes on with the machines that it has.
//!
//! Upstream a set or a deployment that is being deleted adopts too, and deletes what it has adopted. Here one that goes takes
//! no more with it than what it had.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane (adoptMachines),
//! core/reconcilers/machineset and core/reconcilers/machinedeployment (adoptOrphan).

use std::{fmt::Debug, sync::Arc};

use api::{cluster::Cluster, meta::LabelSelector};
use control::{Error, EventType, Key, Plan, Result};
use kube::{
    Api, Client, Resource,
    core::{NamespaceResourceScope, ObjectMeta},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::owner;

/// Those of `found` that nobody controls and that `fits` names, if `owner` may take them over now.
pub async fn orphans<O, K>(
    client: &Client,
    owner: &O,
    cluster: Option<&Cluster>,
    found: &[Arc<K>],
    fits: impl Fn(&ObjectMeta) -> bool,
) -> Result<Vec<Arc<K>>>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K: Resource,
{
    let meta = owner.meta();
    if meta.deletion_timestamp.is_some() || cluster.is_none() || owner::is_paused(cluster, meta) {
        return Ok(Vec::new());
    }
    let is_orphan = |object: &&Arc<K>| owner::controller(object.meta()).is_none() && fits(object.meta());
    let orphans: Vec<_> = found.iter().filter(is_orphan).cloned().collect();
    if orphans.is_empty() {
        return Ok(orphans);
    }
    // Read anew: a cache that is behind shows an owner that has just been deleted without what it owned.
    let key = Key::of(owner);
    let now = Api::<O>::namespaced(client.clone(), &key.namespace).get_metadata_opt(&key.name).await;
    let now = now.map_err(|error| Error::api("read before adoption", &key, error))?;
    let stays = now.is_some_and(|now| now.metadata.uid == meta.uid && now.metadata.deletion_timestamp.is_none());
    Ok(if stays { orphans } else { Vec::new() })
}

/// Whether the selector is for these labels. An empty one is for none: nobody means all machines of a namespace.
pub fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    !selector.is_empty() && selector.selects(meta.labels.as_ref())
}

/// Makes `owner` the controller of the object, which `mark` changes in what else its owners give it.
pub fn adopt<O, K>(owner: &O, orphan: &K, mark: impl FnOnce(&mut ObjectMeta), plan: &mut Plan)
where
    O: Resource<DynamicType = ()>,
    K: Resource<DynamicType = ()> + Serialize + PartialEq + Clone,
{
    let mut after = orphan.clone();
    owner::ensure(after.meta_mut(), owner::reference(owner, true));
    mark(after.meta_mut());
    plan.update(orphan, &after);
    let message = format!("Adopted {} {}", K::kind(&()), orphan.meta().name.as_deref().unwrap_or_default());
    plan.event(owner, EventType::Normal, "SuccessfulAdopt", message);
}
