//! Which volumes and snapshots of a cluster's CSI driver go with the cluster: those whose PersistentVolume says so (reclaim policy
//! Delete), and those whose VolumeSnapshotContent does (deletion policy Delete). Only the cluster's API tells, so they are noted on
//! the OpenStackCluster every few minutes while it answers, and once more when the cluster is to go: one whose API is dead by then
//! leaves only what was made since. `leftovers` takes them away.
//!
//! Source: kubernetes/cloud-provider-openstack pkg/csi/cinder.

use std::{collections::HashMap, sync::Arc};

use api::{
    names::{MANAGED_BY_ANNOTATION, OPENSTACK_CLUSTER_FINALIZER, SNAPSHOTS_ANNOTATION, VOLUMES_ANNOTATION},
    openstack_cluster::OpenStackCluster,
};
use control::{Key, Outcome, Plan, Reconcile, bounded};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    core::{GroupVersionKind, ObjectMeta},
};
use parking_lot::Mutex;

use super::Shared;
use crate::owner;

const CSI_DRIVER: &str = "cinder.csi.openstack.org";
/// Volumes whose fate is noted; of more than these the rest stays.
const VOLUMES_LIMIT: usize = 1000;
/// An id of these, as Cinder has them with room to spare: what is longer is none, and there is no end to it.
const ID_BYTES_MAX: usize = 64;
/// Between two looks at a cluster's volumes.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(LOOK_EVERY_S as i64);
const LOOK_EVERY_S: u64 = 5 * 60;
/// Before one that is to go, and did not answer, is asked again.
const RETRY_S: u64 = 10;

pub struct Volumes {
    shared: Arc<Shared>,
    looks: Looks,
}

pub struct Seen {
    infra: Arc<OpenStackCluster>,
    /// What the cluster said; nothing if it was not asked, or did not answer.
    going: Option<Going>,
    /// When it is asked again.
    again_s: Option<u64>,
}

impl Volumes {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, looks: Looks::default() }
    }
}

impl Reconcile for Volumes {
    const NAME: &'static str = "openstackvolumes";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let Some(infra) = self.shared.caches.openstack_clusters.get(key) else {
            self.looks.forget(key);
            return Ok(None);
        };
        let owner = owner::owner_of_kind(&infra.metadata, "Cluster");
        let cluster = owner.and_then(|owner| self.shared.caches.cluster(&key.namespace, &owner.name));
        let mut seen = Seen { infra, going: None, again_s: None };
        let meta = &seen.infra.metadata;
        let Some(cluster) =
            cluster.filter(|cluster| is_looked_at(meta, owner::is_paused(Some(cluster.as_ref()), meta)))
        else {
            return Ok(Some(seen));
        };
        let (workload, now) = (Key::of(cluster.as_ref()), self.shared.writer.clock().now());
        let deleted = cluster.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        seen.again_s = self.looks.left_s(key, deleted, now);
        if seen.again_s != Some(0) {
            return Ok(Some(seen));
        }
        seen.again_s = Some(if deleted.is_some() { RETRY_S } else { LOOK_EVERY_S });
        let Some(client) = self.shared.workloads.client(&workload) else { return Ok(Some(seen)) };
        match bounded(&workload, going(client)).await {
            Ok(Ok(going)) => {
                self.looks.keep(key, now);
                seen.going = Some(going);
                seen.again_s = deleted.is_none().then_some(LOOK_EVERY_S);
            }
            Ok(Err(error)) => tracing::info!(%workload, %error, "the cluster's volumes are not seen"),
            Err(error) => tracing::info!(%workload, %error, "the cluster's volumes are not seen"),
        }
        Ok(Some(seen))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Plan {
        plan(seen)
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> control::Result<Outcome> {
        self.shared.writer.execute(plan).await
    }
}

/// Not before anything is made, and no longer when its machines have gone.
fn is_looked_at(infra: &ObjectMeta, paused: bool) -> bool {
    !paused
        && infra.deletion_timestamp.is_none()
        && owner::has_finalizer(infra, OPENSTACK_CLUSTER_FINALIZER)
        && owner::annotation_of(infra, MANAGED_BY_ANNOTATION).is_none()
}

fn plan(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    if let Some(going) = &seen.going {
        let mut after = seen.infra.as_ref().clone();
        going.note(&mut after.metadata);
        plan.update(seen.infra.as_ref(), &after);
    }
    if let Some(again_s) = seen.again_s {
        plan.wait("the next look at the cluster's volumes", again_s);
    }
    plan
}

/// When clusters said last what goes with them. In memory only: who starts anew asks anew.
#[derive(Default)]
struct Looks(Mutex<HashMap<Key, Timestamp>>);

impl Looks {
    /// Seconds until the cluster is to be asked, 0 for now. One that is to go since `deleted` is asked once more, and no further.
    fn left_s(&self, cluster: &Key, deleted: Option<Timestamp>, now: Timestamp) -> Option<u64> {
        let all = self.0.lock();
        match (all.get(cluster), deleted) {
            (Some(last), Some(deleted)) => (*last < deleted).then_some(0),
            (Some(last), None) => Some(u64::try_from((*last + LOOK_EVERY).duration_since(now).as_secs()).unwrap_or(0)),
            (None, _) => Some(0),
        }
    }

    fn keep(&self, cluster: &Key, now: Timestamp) {
        self.0.lock().insert(cluster.clone(), now);
    }

    fn forget(&self, cluster: &Key) {
        self.0.lock().remove(cluster);
    }
}

/// Ids as annotations have them.
#[derive(Default)]
pub struct Going {
    /// Of the volumes that go with their PersistentVolume.
    pub volumes: String,
    /// Of the snapshots that go with their VolumeSnapshotContent.
    pub snapshots: String,
}

impl Going {
    /// Notes them, and takes away what was noted before.
    fn note(&self, meta: &mut ObjectMeta) {
        for (name, ids) in [(VOLUMES_ANNOTATION, &self.volumes), (SNAPSHOTS_ANNOTATION, &self.snapshots)] {
            if !ids.is_empty() {
                owner::annotate(meta, name, ids.as_str());
            } else if let Some(annotations) = &mut meta.annotations {
                annotations.remove(name);
            }
        }
    }
}

/// Ids that the cluster tells, as they are noted.
fn joined(ids: impl Iterator<Item = String>) -> String {
    let mut ids: Vec<String> = ids.filter(|id| id.len() <= ID_BYTES_MAX).take(VOLUMES_LIMIT).collect();
    ids.sort();
    ids.join(",")
}

/// What the cluster says that is to go.
async fn going(client: Client) -> kube::Result<Going> {
    let params = ListParams::default().limit(u32::try_from(VOLUMES_LIMIT).unwrap_or(u32::MAX));
    let all = Api::<PersistentVolume>::all(client.clone()).list(&params).await?;
    let volumes = joined(all.items.into_iter().filter_map(volume_to_delete));
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent");
    let contents = Api::<DynamicObject>::all_with(client, &ApiResource::from_gvk(&kind));
    let snapshots = match contents.list(&params).await {
        Ok(all) => joined(all.items.into_iter().filter_map(snapshot_to_delete)),
        // Not every cluster has the kind.
        Err(kube::Error::Api(status)) if status.code == 404 => String::new(),
        Err(error) => return Err(error),
    };
    Ok(Going { volumes, snapshots })
}

fn snapshot_to_delete(content: DynamicObject) -> Option<String> {
    let is = |pointer: &str, text: &str| content.data.pointer(pointer).is_some_and(|value| value == text);
    if !is("/spec/deletionPolicy", "Delete") || !is("/spec/driver", CSI_DRIVER) {
        return None;
    }
    let handles = ["/status/snapshotHandle", "/spec/source/snapshotHandle"];
    handles.iter().find_map(|pointer| content.data.pointer(pointer)?.as_str().map(str::to_owned))
}

fn volume_to_delete(volume: PersistentVolume) -> Option<String> {
    let spec = volume.spec?;
    if spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete") {
        return None;
    }
    let csi = spec.csi.filter(|csi| csi.driver == CSI_DRIVER).map(|csi| csi.volume_handle);
    csi.or(spec.cinder.map(|cinder| cinder.volume_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_that_say_so_are_deleted() {
        let volume = |policy: &str, driver: &str| -> PersistentVolume {
            serde_json::from_value(serde_json::json!({"spec": {"persistentVolumeReclaimPolicy": policy,
                "csi": {"driver": driver, "volumeHandle": "id"}}}))
            .unwrap()
        };
        assert_eq!(volume_to_delete(volume("Delete", CSI_DRIVER)).as_deref(), Some("id"));
        assert_eq!(volume_to_delete(volume("Retain", CSI_DRIVER)), None);
        assert_eq!(volume_to_delete(volume("Delete", "other.example")), None);
        let snapshot = |policy: &str, driver: &str| -> DynamicObject {
            serde_json::from_value(serde_json::json!({"metadata": {"name": "a"},
                "spec": {"deletionPolicy": policy, "driver": driver}, "status": {"snapshotHandle": "id"}}))
            .unwrap()
        };
        assert_eq!(snapshot_to_delete(snapshot("Delete", CSI_DRIVER)).as_deref(), Some("id"));
        assert_eq!(snapshot_to_delete(snapshot("Retain", CSI_DRIVER)), None);
        assert_eq!(snapshot_to_delete(snapshot("Delete", "other.example")), None);
    }

    #[test]
    fn a_cluster_is_asked_now_and_then_and_once_more_when_it_is_to_go() {
        let (looks, key) = (Looks::default(), Key::new("ns", "demo"));
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        assert_eq!(looks.left_s(&key, None, at(0)), Some(0));
        looks.keep(&key, at(0));
        assert_eq!([10, 299, 300, 900].map(|now| looks.left_s(&key, None, at(now))), [290, 1, 0, 0].map(Some));
        assert_eq!(looks.left_s(&key, Some(at(5)), at(6)), Some(0));
        looks.keep(&key, at(6));
        assert_eq!(looks.left_s(&key, Some(at(5)), at(9000)), None, "what it said when it was to go counts");
        looks.forget(&key);
        assert_eq!(looks.left_s(&key, Some(at(5)), at(9000)), Some(0));
    }

    #[test]
    fn a_cluster_is_looked_at_while_its_infrastructure_is_ours_and_stays() {
        let mut meta = ObjectMeta::default();
        assert!(!is_looked_at(&meta, false));
        owner::add_finalizer(&mut meta, OPENSTACK_CLUSTER_FINALIZER);
        assert!(is_looked_at(&meta, false) && !is_looked_at(&meta, true));
        let mut others = meta.clone();
        owner::annotate(&mut others, MANAGED_BY_ANNOTATION, "others");
        assert!(!is_looked_at(&others, false));
        meta.deletion_timestamp = Some(api::meta::Time(Timestamp::UNIX_EPOCH));
        assert!(!is_looked_at(&meta, false));
    }

    #[test]
    fn what_is_noted_follows_what_is_seen_and_nothing_is_noted_of_nothing() {
        let mut meta = ObjectMeta::default();
        let going = |volumes: &str| Going { volumes: volumes.into(), snapshots: String::new() };
        going("").note(&mut meta);
        assert_eq!(meta, ObjectMeta::default());
        going("a,b").note(&mut meta);
        assert_eq!(owner::annotation_of(&meta, VOLUMES_ANNOTATION), Some("a,b"));
        assert_eq!(owner::annotation_of(&meta, SNAPSHOTS_ANNOTATION), None);
        going("").note(&mut meta);
        assert_eq!(owner::annotation_of(&meta, VOLUMES_ANNOTATION), None);
    }

    #[test]
    fn what_is_noted_of_a_cluster_has_an_end() {
        let id = |length: usize| "a".repeat(length);
        assert_eq!(joined([id(ID_BYTES_MAX), id(ID_BYTES_MAX + 1)].into_iter()), id(ID_BYTES_MAX));
        let many = joined((0..=VOLUMES_LIMIT).map(|index| index.to_string()));
        assert_eq!(many.split(',').count(), VOLUMES_LIMIT);
    }
}
