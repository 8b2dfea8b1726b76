//! Volumes of Cinder for claims.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;
use openstack::{
    Query,
    block_storage::{Volume, VolumeDraft},
};
use serde_json::json;

use super::{Outcome, Provider, volumes};
use crate::hollow::workloads::{observed::Observed, plan::Plan, pods, quantity, scheduler::storage};

pub const DRIVER: &str = "cinder.csi.openstack.org";
/// Metadata of the driver's volumes: the name of the cluster.
const CLUSTER: &str = "cinder.csi.openstack.org/cluster";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const ZONE: &str = "topology.kubernetes.io/zone";
const GIB_MILLI: i128 = 1000 << 30;

/// A claim of the driver's that has no volume, and is due to get one.
pub fn is_wanted(seen: &Observed, claim: &PersistentVolumeClaim) -> bool {
    let ours = volumes::class_of(seen, claim).is_some_and(|class| class.provisioner == DRIVER);
    let due = !storage::waits_for_pod(seen, claim) || claim.annotations().contains_key(storage::SELECTED_NODE);
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()).is_some();
    let free = !volumes::is_bound(claim) && !named && volumes::volume_of(seen, claim).is_none();
    ours && due && free && !pods::is_deleted(claim)
}

/// A volume of the driver's whose claim is gone, and that is to go with it.
pub fn is_over(volume: &PersistentVolume) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
    let ours = spec.csi.as_ref().is_some_and(|csi| csi.driver == DRIVER);
    let deletes = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    let made = volume.annotations().get(PROVISIONED_BY).map(String::as_str) == Some(DRIVER);
    released && ours && deletes && made && !pods::is_deleted(volume)
}

/// What a claim asks for, in GiB, rounded up.
fn size_gib(claim: &PersistentVolumeClaim) -> u64 {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let asked = quantity::amounts(requests).remove("storage").unwrap_or(0);
    u64::try_from((asked + GIB_MILLI - 1) / GIB_MILLI).unwrap_or(u64::MAX).max(1)
}

impl Provider {
    pub async fn provision(
        &self,
        seen: &Observed,
        claim: &PersistentVolumeClaim,
        plan: &mut Plan,
    ) -> openstack::Result<Outcome> {
        let name = format!("pvc-{}", claim.uid().unwrap_or_default());
        // Not by name alone: a list is in order, and who came first is known.
        let mut found = self.cloud.list::<Volume>(&Query::new().with("name", &name)).await?;
        found.retain(|volume| volume.name == name);
        let Some(volume) = found.first() else {
            self.cloud.create::<Volume>(&self.volume_draft(seen, claim, name)).await?;
            return Ok(Outcome::Waits);
        };
        match volume.status.as_str() {
            "available" => {
                plan.writes.push(super::super::plan::Write::Create(self.persistent(seen, claim, volume)));
                let message = format!("Successfully provisioned volume {}", volume.name);
                plan.event(claim, seen.now, (DRIVER, "Normal", "ProvisioningSucceeded"), message);
                Ok(Outcome::Done)
            }
            "error" => {
                // As the driver does: it is taken away, and made again.
                self.cloud.remove::<Volume>(&volume.id).await?;
                Ok(Outcome::Waits)
            }
            _ => Ok(Outcome::Waits),
        }
    }

    fn zone<'a>(&self, seen: &'a Observed, claim: &PersistentVolumeClaim) -> Option<&'a String> {
        let node = claim.annotations().get(storage::SELECTED_NODE).and_then(|name| seen.node(name));
        node?.labels().get(ZONE).filter(|_| !self.ignore_zones)
    }

    fn volume_draft(&self, seen: &Observed, claim: &PersistentVolumeClaim, name: String) -> VolumeDraft {
        let parameters = volumes::class_of(seen, claim).and_then(|class| class.parameters.clone()).unwrap_or_default();
        let zone = parameters.get("availability").or_else(|| self.zone(seen, claim));
        VolumeDraft {
            name,
            description: "Created by OpenStack Cinder CSI driver".into(),
            size: Some(size_gib(claim)),
            volume_type: parameters.get("type").cloned(),
            availability_zone: zone.cloned(),
            metadata: BTreeMap::from([(CLUSTER.to_owned(), self.cluster.clone())]),
            ..VolumeDraft::default()
        }
    }

    fn persistent(&self, seen: &Observed, claim: &PersistentVolumeClaim, volume: &Volume) -> serde_json::Value {
        let class = volumes::class_of(seen, claim);
        let spec = claim.spec.clone().unwrap_or_default();
        let policy = class.and_then(|class| class.reclaim_policy.clone()).unwrap_or_else(|| "Delete".to_owned());
        let kind = class.and_then(|class| class.parameters.as_ref()?.get("csi.storage.k8s.io/fstype").cloned());
        let zone = volume.availability_zone.as_str();
        let zoned =
            !self.ignore_zones && seen.nodes.iter().any(|node| node.labels().get(ZONE).is_some_and(|own| own == zone));
        let affinity = zoned.then(|| {
            let terms = json!([{"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}]);
            json!({"required": {"nodeSelectorTerms": terms}})
        });
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {
                "name": volume.name, "annotations": {PROVISIONED_BY: DRIVER},
            },
            "spec": {
                "accessModes": spec.access_modes, "capacity": {"storage": Quantity(format!("{}Gi", volume.size))},
                "persistentVolumeReclaimPolicy": policy, "storageClassName": spec.storage_class_name,
                "volumeMode": spec.volume_mode, "nodeAffinity": affinity,
                "mountOptions": class.and_then(|class| class.mount_options.clone()),
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                    "name": claim.name_any(), "uid": claim.uid()},
                "csi": {"driver": DRIVER, "volumeHandle": volume.id, "fsType": kind.unwrap_or_else(|| "ext4".to_owned())},
            },
        })
    }

    pub async fn reclaim(&self, volume: &PersistentVolume, plan: &mut Plan) -> openstack::Result<Outcome> {
        let handle = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).map(|csi| csi.volume_handle.clone());
        let handle = handle.unwrap_or_default();
        match self.cloud.look::<Volume>(&handle).await? {
            None => {
                plan.delete(volume);
                Ok(Outcome::Done)
            }
            Some(found) => {
                if found.status != "deleting" {
                    self.cloud.remove::<Volume>(&handle).await?;
                }
                Ok(Outcome::Waits)
            }
        }
    }
}
