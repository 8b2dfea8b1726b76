//! Failure domains follow the cloud: its zones are looked at often, once for all clusters in it, and a cluster that is as it
//! should be is looked at no further.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{
    cluster::FailureDomain,
    names::{CLUSTER_LABEL, MANAGED_BY_ANNOTATION},
    openstack_cluster::{OpenStackCluster, OpenStackClusterSpec},
};
use control::{Key, Outcome, Plan, Reconcile};
use jiff::Timestamp;
use openstack::{Query, compute::AvailabilityZone};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Shared, names, passes::Aim, scope::Scope, stop::Result};
use crate::owner;

/// Between two looks at a cluster's zones.
const LOOK_PAUSE: Duration = Duration::from_secs(2 * 60);
/// So long what a cloud told one cluster does for all.
const FRESH: Duration = Duration::from_secs(60);
/// Clouds whose zones are remembered.
const CLOUDS_MAX: usize = 1024;

/// A cloud's address, and a region of it.
type Place = (String, String);

/// What clouds told last.
pub type Known = Mutex<HashMap<Place, (Instant, Vec<String>)>>;

pub struct Zones(pub Arc<Shared>);

/// Nova's zones that are up, by name. Whoever asks is told the same, or two would write one against the other.
pub async fn of(scope: &Scope) -> Result<Vec<String>> {
    let cloud = scope.cloud.cloud();
    let place = (cloud.auth_url.clone(), cloud.region.clone().unwrap_or_default());
    if let Some((since, names)) = scope.zones.lock().get(&place)
        && since.elapsed() < FRESH
    {
        return Ok(names.clone());
    }
    let zones = scope.cloud.list::<AvailabilityZone>(&Query::new()).await?;
    let mut names: Vec<String> = zones.into_iter().filter(|z| z.state.available).map(|z| z.name).collect();
    names.sort();
    names.dedup();
    let mut known = scope.zones.lock();
    if known.len() >= CLOUDS_MAX {
        known.clear();
    }
    known.insert(place, (Instant::now(), names.clone()));
    Ok(names)
}

/// Which of them control plane machines may be in.
pub fn domains(names: Vec<String>, spec: &OpenStackClusterSpec) -> Vec<FailureDomain> {
    let allowed = |name: &String| {
        let listed = &spec.control_plane_availability_zones;
        spec.control_plane_omit_availability_zone != Some(true) && (listed.is_empty() || listed.contains(name))
    };
    names
        .into_iter()
        .map(|name| FailureDomain { control_plane: Some(allowed(&name)), name, ..Default::default() })
        .collect()
}

impl Reconcile for Zones {
    const NAME: &'static str = "openstackzones";
    type Seen = Arc<OpenStackCluster>;
    /// Whether to look.
    type Plan = bool;

    async fn observe(&self, key: &Key) -> control::Result<Option<Arc<OpenStackCluster>>> {
        Ok(self.0.caches.openstack_clusters.get(key))
    }

    fn plan(&self, seen: &Arc<OpenStackCluster>, _: Timestamp) -> bool {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Arc<OpenStackCluster>, look: bool) -> control::Result<Outcome> {
        let label = owner::label_of(&seen.metadata, CLUSTER_LABEL);
        let cluster = label.and_then(|name| self.0.caches.cluster(&key.namespace, name));
        if !look || owner::is_paused(cluster.as_deref(), &seen.metadata) {
            return Ok(Outcome::Settled);
        }
        let resource = names::resource(&key.namespace, &key.name);
        let doubts = self.0.begin(Self::NAME, key, Aim::Ensure);
        let found = async {
            let identity = &seen.spec.identity_ref;
            let scope = self.0.scopes.open(&key.namespace, identity, resource, Vec::new()).await?;
            of(&self.0.during(Self::NAME, key, scope)).await
        }
        .await;
        self.0.end(Self::NAME, key, &found, doubts);
        // What is wrong with the cloud is told by the cluster's own controller.
        let again = Outcome::waiting("the next look at the zones", LOOK_PAUSE.as_secs());
        let names = match found {
            Ok(names) => names,
            Err(stop) if stop.is_put_off() => return stop.outcome(),
            Err(_) => return Ok(again),
        };
        let mut after = OpenStackCluster::clone(seen);
        after.status.get_or_insert_default().failure_domains = domains(names, &seen.spec);
        let mut plan = Plan::nothing();
        plan.update(seen.as_ref(), &after);
        Ok(self.0.writer.execute(plan).await?.sooner(again))
    }
}

/// A cluster that is not there yet is its own controller's alone.
fn plan(infra: &OpenStackCluster) -> bool {
    let started = infra.status.as_ref().and_then(|status| status.initialization.as_ref());
    started.and_then(|started| started.provisioned) == Some(true)
        && infra.metadata.deletion_timestamp.is_none()
        && owner::annotation_of(&infra.metadata, MANAGED_BY_ANNOTATION).is_none()
}

#[cfg(test)]
mod tests {
    use api::openstack_reference::Provisioned;

    use super::*;

    #[test]
    fn only_a_cluster_that_is_there_is_looked_at() {
        let mut infra = OpenStackCluster::default();
        assert!(!plan(&infra));
        infra.status.get_or_insert_default().initialization = Some(Provisioned { provisioned: Some(true) });
        assert!(plan(&infra));
        owner::annotate(&mut infra.metadata, MANAGED_BY_ANNOTATION, "others");
        assert!(!plan(&infra));
    }

    #[test]
    fn control_planes_may_be_in_the_zones_that_the_spec_lists() {
        let of = |spec: &OpenStackClusterSpec| {
            let domains = domains(vec!["a".into(), "b".into()], spec);
            domains.into_iter().map(|domain| domain.control_plane.unwrap()).collect::<Vec<_>>()
        };
        let mut spec = OpenStackClusterSpec::default();
        assert_eq!(of(&spec), [true, true]);
        spec.control_plane_availability_zones = vec!["b".into()];
        assert_eq!(of(&spec), [false, true]);
        spec.control_plane_omit_availability_zone = Some(true);
        assert_eq!(of(&spec), [false, false]);
    }
}
