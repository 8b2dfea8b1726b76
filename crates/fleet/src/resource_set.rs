//! ClusterResourceSets: manifests in Secrets and ConfigMaps that every cluster with some labels gets.
//!
//! Two controllers. [`ClusterResources`] brings one cluster what all sets have for it, and keeps its binding, which
//! nobody else writes. [`ResourceSets`] owns the sets' resources and sums up how far their clusters are. So a cluster
//! that is not reached delays no other, and a change of one cluster costs what one cluster costs.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/clusterresourceset, clusterresourcesetbinding.

mod apply;
mod manifests;
mod sets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use api::{
    cluster::Cluster,
    meta::Time,
    names,
    resource_set::{
        ClusterResourceSet, ClusterResourceSetBinding, ClusterResourceSetBindingSpec, ResourceBinding, ResourceKind,
        ResourceRef, ResourceSetBinding, Strategy,
    },
};
use control::{Key, Outcome, Plan, Queue, Reconcile, Result};
use jiff::Timestamp;
use kube::core::ObjectMeta;
use parking_lot::Mutex;

pub use self::sets::ResourceSets;
use crate::{Caches, Context, owner};

/// Pause until what could not be applied is tried again.
const RETRY_S: u64 = 15;

/// Hashes of resources, with the version that each is of.
pub type Hashes = Mutex<HashMap<(ResourceKind, Key), (String, String)>>;

pub struct ClusterResources {
    context: Arc<Context>,
    told: Arc<Failures>,
}

/// Why sets are not applied: by set, and then by cluster. Lost with the process, and found out again.
pub struct Failures {
    by_set: Mutex<HashMap<Key, BTreeMap<String, String>>>,
    sets: Queue,
}

impl Failures {
    pub fn new(sets: Queue) -> Arc<Self> {
        Arc::new(Self { by_set: Mutex::default(), sets })
    }

    fn of(&self, set: &Key) -> BTreeMap<String, String> {
        self.by_set.lock().get(set).cloned().unwrap_or_default()
    }

    /// Remembers why a set is not applied to a cluster, or that it is, and wakes the set if that is news.
    fn tell(&self, set: &Key, cluster: &str, why: Option<String>) {
        let mut all = self.by_set.lock();
        let before = all.get(set).and_then(|of| of.get(cluster));
        if before == why.as_ref() {
            return;
        }
        match why {
            Some(why) => drop(all.entry(set.clone()).or_default().insert(cluster.to_owned(), why)),
            None => {
                if let Some(of) = all.get_mut(set) {
                    of.remove(cluster);
                    if of.is_empty() {
                        all.remove(set);
                    }
                }
            }
        }
        self.sets.add(set.clone());
    }
}

pub struct Seen {
    pub name: Key,
    pub cluster: Option<Arc<Cluster>>,
    pub binding: Option<Arc<ClusterResourceSetBinding>>,
    /// Those that select the cluster.
    pub sets: Vec<Arc<ClusterResourceSet>>,
    /// Names of all sets of the namespace that stay.
    pub existing: Vec<String>,
    /// The hash of what a resource holds, of sets that follow changes. `None`: it could not be read.
    pub hashes: HashMap<ResourceRef, Option<String>>,
}

#[derive(Default)]
pub struct ResourcesPlan {
    pub local: Plan,
    /// What is to be brought to the cluster: the set and its resource.
    pub apply: Vec<(Arc<ClusterResourceSet>, ResourceRef)>,
}

impl ClusterResources {
    pub fn new(context: Arc<Context>, told: Arc<Failures>) -> Self {
        Self { context, told }
    }
}

impl Reconcile for ClusterResources {
    const NAME: &'static str = "clusterresources";
    type Seen = Seen;
    type Plan = ResourcesPlan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.context.caches;
        let (cluster, binding) = (caches.clusters.get(key), caches.bindings.get(key));
        if cluster.is_none() && binding.is_none() {
            return Ok(None);
        }
        let all = caches.resource_sets.in_namespace(&key.namespace);
        let stays = |set: &&Arc<ClusterResourceSet>| set.metadata.deletion_timestamp.is_none();
        let existing = all.iter().filter(stays).filter_map(|set| set.metadata.name.clone()).collect();
        let is_paused = |set: &ClusterResourceSet| owner::is_paused(None, &set.metadata);
        let mut sets: Vec<_> = all
            .iter()
            .filter(stays)
            .filter(|set| cluster.as_ref().is_some_and(|cluster| selects(set, cluster)) && !is_paused(set))
            .cloned()
            .collect();
        sets.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let mut hashes = HashMap::new();
        for resource in sets.iter().filter(|set| follows(set)).flat_map(|set| &set.spec.resources) {
            if !hashes.contains_key(resource) {
                let hash = manifests::hash(&self.context, &key.namespace, resource).await?;
                hashes.insert(resource.clone(), hash);
            }
        }
        Ok(Some(Seen { name: key.clone(), cluster, binding, sets, existing, hashes }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> ResourcesPlan {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, mut plan: ResourcesPlan) -> Result<Outcome> {
        let mut done: Vec<(Key, ResourceRef, std::result::Result<String, String>)> = Vec::new();
        for (set, resource) in &plan.apply {
            let name = Key::of(set.as_ref());
            let applied = apply::apply(&self.context, key, resource, follows(set)).await;
            done.push((name, resource.clone(), applied));
        }
        let mut failures: BTreeMap<Key, Vec<String>> =
            seen.sets.iter().map(|set| (Key::of(set.as_ref()), Vec::new())).collect();
        for (set, resource, result) in &done {
            if let Err(why) = result {
                failures.entry(set.clone()).or_default().push(format!("{:?} {}: {why}", resource.kind, resource.name));
            }
        }
        for (set, why) in failures {
            self.told.tell(&set, &key.name, (!why.is_empty()).then(|| why.join("; ")));
        }
        if done.iter().any(|(_, _, result)| result.is_err()) {
            plan.local.wait("what could not be applied", RETRY_S);
        }
        let binding = bound(seen, &done, &Time(self.context.writer.clock().now()));
        if let Some(binding) = binding {
            match &seen.binding {
                Some(before) => plan.local.update(before.as_ref(), &binding),
                None => plan.local.create(&binding),
            };
        }
        self.context.writer.execute(plan.local).await
    }
}

/// An empty selector selects none.
pub fn selects(set: &ClusterResourceSet, cluster: &Cluster) -> bool {
    let selector = &set.spec.cluster_selector;
    !selector.is_empty() && selector.selects(cluster.metadata.labels.as_ref())
}

fn follows(set: &ClusterResourceSet) -> bool {
    set.spec.strategy == Some(Strategy::Reconcile)
}

pub fn plan(seen: &Seen) -> ResourcesPlan {
    let mut plan = ResourcesPlan::default();
    let alive = seen.cluster.as_ref().filter(|cluster| cluster.metadata.deletion_timestamp.is_none());
    let Some(cluster) = alive else {
        if let Some(binding) = seen.binding.as_ref().filter(|binding| binding.metadata.deletion_timestamp.is_none()) {
            plan.local.delete(binding.as_ref());
        }
        return plan;
    };
    if owner::is_paused(Some(cluster), &cluster.metadata) {
        return plan;
    }
    for set in &seen.sets {
        for resource in &set.spec.resources {
            let entry = entry_of(seen.binding.as_deref(), set, resource).filter(|entry| entry.applied);
            let done = entry.is_some_and(|entry| match seen.hashes.get(resource) {
                // What can't be read now was applied once.
                Some(hash) if follows(set) => hash.is_none() || *hash == entry.hash,
                _ => true,
            });
            if !done {
                plan.apply.push((set.clone(), resource.clone()));
            }
        }
    }
    plan
}

fn entry_of<'a>(
    binding: Option<&'a ClusterResourceSetBinding>,
    set: &ClusterResourceSet,
    resource: &ResourceRef,
) -> Option<&'a ResourceBinding> {
    let sets = binding.into_iter().flat_map(|binding| &binding.spec.bindings);
    let mut of_set = sets.filter(|of| Some(&of.cluster_resource_set_name) == set.metadata.name.as_ref());
    of_set.next()?.resources.iter().find(|entry| (entry.kind, &entry.name) == (resource.kind, &resource.name))
}

/// The binding with what has been done; `None` if the cluster has none and needs none.
fn bound(
    seen: &Seen,
    done: &[(Key, ResourceRef, std::result::Result<String, String>)],
    now: &Time,
) -> Option<ClusterResourceSetBinding> {
    let cluster = seen.cluster.as_ref().filter(|cluster| cluster.metadata.deletion_timestamp.is_none())?;
    if seen.binding.is_none() && seen.sets.is_empty() {
        return None;
    }
    let mut binding = seen.binding.as_ref().map_or_else(|| fresh(cluster), |binding| binding.as_ref().clone());
    owner::label(&mut binding.metadata, names::CLUSTER_LABEL, seen.name.name.as_str());
    let exists = |name: &str| seen.existing.iter().any(|other| other == name);
    binding.spec.bindings.retain(|of| exists(&of.cluster_resource_set_name));
    if let Some(owners) = &mut binding.metadata.owner_references {
        owners.retain(|owner| owner.kind != "ClusterResourceSet" || exists(&owner.name));
    }
    for set in &seen.sets {
        owner::ensure(&mut binding.metadata, owner::reference(set.as_ref(), false));
        let name = set.metadata.name.clone().unwrap_or_default();
        let index =
            binding.spec.bindings.iter().position(|of| of.cluster_resource_set_name == name).unwrap_or_else(|| {
                let of = ResourceSetBinding { cluster_resource_set_name: name.clone(), resources: Vec::new() };
                binding.spec.bindings.push(of);
                binding.spec.bindings.len() - 1
            });
        let entries = &mut binding.spec.bindings[index].resources;
        for (_, resource, result) in done.iter().filter(|(of, _, _)| *of == Key::of(set.as_ref())) {
            let (applied, hash) = (result.is_ok(), result.as_ref().ok().cloned());
            let entry = ResourceBinding {
                applied,
                hash,
                kind: resource.kind,
                last_applied_time: Some(now.clone()),
                name: resource.name.clone(),
            };
            match entries.iter_mut().find(|old| (old.kind, &old.name) == (resource.kind, &resource.name)) {
                // That it still fails is no news to write each time.
                Some(old) if !applied && !old.applied => {}
                Some(old) => *old = entry,
                None => entries.push(entry),
            }
        }
    }
    Some(binding)
}

fn fresh(cluster: &Cluster) -> ClusterResourceSetBinding {
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let metadata =
        ObjectMeta { name: Some(name.clone()), namespace: cluster.metadata.namespace.clone(), ..ObjectMeta::default() };
    let spec = ClusterResourceSetBindingSpec { bindings: Vec::new(), cluster_name: name };
    ClusterResourceSetBinding { metadata, spec }
}

/// Which change wakes which of the two.
pub fn feed(caches: &Arc<Caches>, workloads: &crate::Workloads, clusters: &Queue, sets: &Queue) {
    workloads.feed_clusters(clusters);
    caches.resource_sets.feed(sets);
    let (weak, queue, own) = (Arc::downgrade(caches), clusters.clone(), sets.clone());
    let gates: Mutex<HashMap<Key, Gate>> = Mutex::default();
    caches.clusters.on_change(move |cluster| {
        let (key, now) = (Key::of(cluster.as_ref()), Gate::of(cluster));
        if gates.lock().insert(key.clone(), now.clone()).as_ref() == Some(&now) {
            return;
        }
        let Some(caches) = weak.upgrade() else { return };
        queue.add(key.clone());
        for set in caches.resource_sets.in_namespace(&key.namespace) {
            own.add(Key::of(set.as_ref()));
        }
    });
    let (weak, queue) = (Arc::downgrade(caches), clusters.clone());
    let wake_clusters = move |set: &ClusterResourceSet| {
        let Some(caches) = weak.upgrade() else { return };
        let goes = set.metadata.deletion_timestamp.is_some();
        for cluster in caches.clusters.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
            if goes || selects(set, &cluster) {
                queue.add(Key::of(cluster.as_ref()));
            }
        }
    };
    let of_set = wake_clusters.clone();
    let gates: Mutex<HashMap<Key, SetGate>> = Mutex::default();
    caches.resource_sets.on_change(move |set| {
        // Its status changes with every cluster, which is no cluster's affair.
        let (key, now) = (Key::of(set.as_ref()), SetGate::of(set));
        if gates.lock().insert(key, now.clone()).as_ref() != Some(&now) {
            of_set(set);
        }
    });
    let (own, queue) = (sets.clone(), clusters.clone());
    caches.bindings.on_change(move |binding| {
        queue.add(Key::of(binding.as_ref()));
        let namespace = binding.metadata.namespace.clone().unwrap_or_default();
        for of in &binding.spec.bindings {
            own.add(Key::new(namespace.as_str(), of.cluster_resource_set_name.as_str()));
        }
    });
    let (weak, own) = (Arc::downgrade(caches), sets.clone());
    let of_resource = move |kind: ResourceKind, meta: &ObjectMeta| {
        let Some(caches) = weak.upgrade() else { return };
        for set in caches.resource_sets.in_namespace(meta.namespace.as_deref().unwrap_or_default()) {
            if set.spec.resources.iter().any(|one| one.kind == kind && Some(&one.name) == meta.name.as_ref()) {
                own.add(Key::of(set.as_ref()));
                wake_clusters(&set);
            }
        }
    };
    let of_map = of_resource.clone();
    caches.config_maps.on_change(move |map| of_map(ResourceKind::ConfigMap, &map.metadata));
    caches.resource_secrets.on_change(move |secret| of_resource(ResourceKind::Secret, &secret.metadata));
}

/// What of a cluster matters here.
#[derive(Clone, PartialEq)]
struct Gate {
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    paused: bool,
    deleting: bool,
}

impl Gate {
    fn of(cluster: &Cluster) -> Self {
        Self {
            uid: cluster.metadata.uid.clone(),
            labels: cluster.metadata.labels.clone(),
            paused: owner::is_paused(Some(cluster), &cluster.metadata),
            deleting: cluster.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// What of a set matters to clusters.
#[derive(Clone, PartialEq)]
struct SetGate {
    uid: Option<String>,
    generation: Option<i64>,
    paused: bool,
    deleting: bool,
}

impl SetGate {
    fn of(set: &ClusterResourceSet) -> Self {
        Self {
            uid: set.metadata.uid.clone(),
            generation: set.metadata.generation,
            paused: owner::is_paused(None, &set.metadata),
            deleting: set.metadata.deletion_timestamp.is_some(),
        }
    }
}
