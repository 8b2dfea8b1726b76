//! Sets without machines that are kept, so that a rollout can be undone.
//!
//! Cluster API did so until v1.11, by the field `revisionHistoryLimit` that v1beta2 has no more; here an annotation says how
//! many, and one is the number that was the field's default. A topology says itself what its workers are to be: none there.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use api::{
    machine::{MachineDeployment, MachineSet},
    names,
};

use super::revision;
use crate::owner;

/// Sets that are kept where nothing else is said.
const KEPT: usize = 1;
/// Sets that are kept at most, whatever the annotation says.
const KEPT_MAX: usize = 100;

fn limit(deployment: &MachineDeployment) -> usize {
    let meta = &deployment.metadata;
    if owner::label_of(meta, names::TOPOLOGY_OWNED_LABEL).is_some() {
        return 0;
    }
    let said = owner::annotation_of(meta, names::HISTORY_LIMIT_ANNOTATION).and_then(|text| text.parse().ok());
    said.unwrap_or(KEPT).min(KEPT_MAX)
}

/// The UIDs of those that stay although they have no machines: the newest revisions.
pub fn kept(deployment: &MachineDeployment, old: &[&Arc<MachineSet>]) -> BTreeSet<Option<String>> {
    let mut past: Vec<_> = old.iter().filter(|set| set.spec.replicas.unwrap_or(0) == 0).collect();
    past.retain(|set| set.metadata.deletion_timestamp.is_none());
    past.sort_by_key(|set| Reverse(revision(set.as_ref())));
    past.iter().take(limit(deployment)).map(|set| set.metadata.uid.clone()).collect()
}
