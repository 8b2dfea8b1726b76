//! The sets themselves: owners of their resources, and the sum of what their clusters have.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    condition::{self, Statement},
    meta::Time,
    resource_set::{ClusterResourceSet, ClusterResourceSetBinding, FINALIZER, ResourceKind, ResourceRef},
};
use control::{Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{api::ApiResource, core::ObjectMeta};

use super::{Failures, entry_of, manifests::WRONG_TYPE, selects};
use crate::{Context, owner};

/// Clusters that a message names before it only counts them.
const NAMED_MAX: usize = 3;
/// Pause while the bindings of a set that goes still name it.
const PAUSE_S: u64 = 5;

pub struct ResourceSets {
    context: Arc<Context>,
    told: Arc<Failures>,
}

pub struct Seen {
    pub set: Arc<ClusterResourceSet>,
    /// The clusters that it selects, by name, with their bindings.
    pub clusters: Vec<(String, Option<Arc<ClusterResourceSetBinding>>)>,
    /// Some binding still names the set.
    pub bound: bool,
    /// Metadata of its resources that exist.
    pub resources: Vec<(ResourceRef, ObjectMeta)>,
    pub failures: BTreeMap<String, String>,
}

impl ResourceSets {
    pub fn new(context: Arc<Context>, told: Arc<Failures>) -> Self {
        Self { context, told }
    }
}

impl Reconcile for ResourceSets {
    const NAME: &'static str = "clusterresourceset";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.context.caches;
        let Some(set) = caches.resource_sets.get(key) else { return Ok(None) };
        let in_namespace = caches.clusters.in_namespace(&key.namespace);
        let selected = in_namespace
            .iter()
            .filter(|cluster| cluster.metadata.deletion_timestamp.is_none() && selects(&set, cluster));
        let mut clusters: Vec<_> = selected
            .map(|cluster| {
                let key = Key::of(cluster.as_ref());
                (key.name.clone(), caches.bindings.get(&key))
            })
            .collect();
        clusters.sort_by(|(a, _), (b, _)| a.cmp(b));
        let bound = set.metadata.deletion_timestamp.is_some()
            && caches
                .bindings
                .in_namespace(&key.namespace)
                .iter()
                .any(|binding| binding.spec.bindings.iter().any(|of| of.cluster_resource_set_name == key.name));
        let meta = |resource: &ResourceRef| {
            let key = Key::new(key.namespace.as_str(), resource.name.as_str());
            match resource.kind {
                ResourceKind::ConfigMap => caches.config_maps.get(&key).map(|map| map.metadata.clone()),
                ResourceKind::Secret => caches.resource_secrets.get(&key).map(|secret| secret.metadata.clone()),
            }
        };
        let resources = set.spec.resources.iter().filter_map(|one| Some((one.clone(), meta(one)?))).collect();
        Ok(Some(Seen { clusters, bound, resources, failures: self.told.of(key), set }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> Result<Outcome> {
        self.context.writer.execute(plan).await
    }
}

pub fn plan(seen: &Seen, now: &Time) -> Plan {
    let set = seen.set.as_ref();
    let (mut plan, mut after) = (Plan::nothing(), set.clone());
    if set.metadata.deletion_timestamp.is_some() {
        if seen.bound {
            plan.wait("the bindings of clusters", PAUSE_S);
        } else {
            owner::remove_finalizer(&mut after.metadata, FINALIZER);
        }
        plan.update(set, &after);
        return plan;
    }
    owner::add_finalizer(&mut after.metadata, FINALIZER);
    let generation = set.metadata.generation;
    let paused = owner::is_paused(None, &set.metadata);
    let status = after.status.get_or_insert_default();
    let statement = Statement::of("Paused", paused, ("Paused", "NotPaused"), "");
    condition::set(&mut status.conditions, statement, generation, now);
    if !paused {
        status.observed_generation = generation;
        match applied(seen) {
            Some(statement) => condition::set(&mut status.conditions, statement, generation, now),
            None => condition::remove(&mut status.conditions, "ResourcesApplied"),
        }
        for (resource, meta) in &seen.resources {
            let mut owned = meta.clone();
            owner::ensure(&mut owned, owner::reference(set, false));
            let kind = match resource.kind {
                ResourceKind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
                ResourceKind::Secret => ApiResource::erase::<Secret>(&()),
            };
            plan.update_metadata(&kind, meta, &owned);
        }
    }
    plan.update(set, &after);
    plan
}

/// Whether all clusters have everything; nothing if there is no cluster.
fn applied(seen: &Seen) -> Option<Statement> {
    let complete = |binding: &Option<Arc<ClusterResourceSetBinding>>| {
        seen.set
            .spec
            .resources
            .iter()
            .all(|resource| entry_of(binding.as_deref(), &seen.set, resource).is_some_and(|entry| entry.applied))
    };
    let missing: Vec<_> = seen
        .clusters
        .iter()
        .filter(|(name, binding)| seen.failures.contains_key(name) || !complete(binding))
        .map(|(name, _)| name)
        .collect();
    if seen.clusters.is_empty() {
        return None;
    }
    if missing.is_empty() {
        return Some(Statement::yes("ResourcesApplied", "Applied"));
    }
    let why = |name: &String| seen.failures.get(name).map_or("not applied yet", String::as_str);
    let mut lines: Vec<_> =
        missing.iter().take(NAMED_MAX).map(|name| format!("* Cluster {name}: {}", why(name))).collect();
    if missing.len() > NAMED_MAX {
        lines.push(format!("* and {} Clusters more", missing.len() - NAMED_MAX));
    }
    let wrong = missing.iter().any(|name| why(name).contains(WRONG_TYPE));
    let reason = if wrong { "WrongSecretType" } else { "NotApplied" };
    Some(Statement::no("ResourcesApplied", reason, lines.join("\n")))
}
