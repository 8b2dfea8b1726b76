//! The topology controller: makes a Cluster's objects from its ClusterClass and keeps them as the topology says.
//!
//! What is to be there is computed by `api::topology::desired`, a pure function. It is applied by server-side apply with a
//! manager of its own, so users and other controllers keep the fields that the topology says nothing of. An object is
//! applied only when it is not as it should be, or when the topology says something else than it did.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/topology/cluster.

mod ask;
mod class;
mod feed;
mod templates;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use api::{
    cluster::{Cluster, UpgradeStep},
    condition::{self, Statement},
    conversion,
    health_check::MachineHealthCheck,
    machine::{Machine, MachineDeployment, MachineSet},
    machine_pool::MachinePool,
    meta::{ContractRef, Time},
    names,
    topology::{
        TopologyError,
        desired::{self, Desired, Group, Reference, desired},
        hooks::{self, Blocking},
    },
};
use control::{Error, Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::ObjectMeta,
};
use parking_lot::Mutex;
use serde_json::Value;

pub use self::class::Classes;
use crate::{
    Context,
    extension::{GO_ON_S, UNREACHED_S},
    external::{self, External},
    owner,
};

/// Owns the fields that the topology decides.
const MANAGER: &str = "skep-topology";
/// An extension that failed is asked again.
const RETRY_S: u64 = 10;
/// Pause until templates that are used no more are looked for again, and upgrades that go on.
const PAUSE_S: u64 = 30;
/// Steps of an upgrade that a Cluster's status has room for.
const STEPS_SHOWN_MAX: usize = 32;

pub struct Topologies {
    context: Arc<Context>,
    applied: Applied,
}

/// By kind and name, what was applied last: a sum of it.
type Sums = HashMap<(String, String), u64>;

/// The sums of each cluster. They are forgotten with the process, and all is then applied once more, which changes nothing.
#[derive(Default)]
struct Applied(Mutex<HashMap<Key, Sums>>);

impl Applied {
    fn has(&self, cluster: &Key, own: &(String, String), sum: u64) -> bool {
        self.0.lock().get(cluster).and_then(|all| all.get(own)) == Some(&sum)
    }

    fn note(&self, cluster: &Key, own: (String, String), sum: u64) {
        self.0.lock().entry(cluster.clone()).or_default().insert(own, sum);
    }

    fn forget(&self, cluster: &Key) {
        self.0.lock().remove(cluster);
    }
}

impl Topologies {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, applied: Applied::default() }
    }
}

/// A cluster with a topology, and what is there of it.
pub struct Seen {
    pub cluster: Arc<Cluster>,
    /// None: there is no such class.
    pub class: Option<Value>,
    pub state: desired::Seen,
    /// By kind and name: the objects that the topology applies.
    pub there: HashMap<(String, String), Value>,
    /// Templates, health checks and what pools are made of that the topology owns.
    pub owned: Vec<(ApiResource, ObjectMeta)>,
    /// Kinds and names of what something is made from.
    pub used: HashSet<(String, String)>,
    /// Extensions have to let it go before it is deleted.
    pub held: bool,
    /// Something is not said because an extension was not reached, which is to be ignored.
    pub unreached: bool,
}

/// What to do: note what is to be known after a crash, apply, then change objects by `plan`.
#[derive(Debug, Default)]
pub struct Doing {
    pub note: Plan,
    pub apply: Vec<Value>,
    pub plan: Plan,
}

impl Reconcile for Topologies {
    const NAME: &'static str = "topology";
    type Seen = Seen;
    type Plan = Doing;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let found = self.context.caches.clusters.get(key);
        let Some(cluster) = found.filter(|cluster| cluster.spec.topology.is_some()) else {
            self.applied.forget(key);
            return Ok(None);
        };
        let mut seen = observe(&self.context, key, cluster);
        ask::ask(&self.context, key, &mut seen).await?;
        Ok(Some(seen))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Doing {
        plan(seen, &Time(now))
    }

    async fn act(&self, key: &Key, seen: &Seen, doing: Doing) -> Result<Outcome> {
        self.context.writer.execute(doing.note).await?;
        for object in &doing.apply {
            if let Err(error) = self.apply(key, seen, object).await {
                // What is wrong with an object is told where its user looks.
                let mut plan = Plan::nothing();
                let message = format!("{} {}: {}", text(object, "kind"), name(object), error.chain());
                state(
                    seen,
                    Statement::no("TopologyReconciled", "ReconcileFailed", message),
                    &Time(self.context.writer.clock().now()),
                    &mut plan,
                );
                self.context.writer.execute(plan).await?;
                return Err(error);
            }
        }
        self.context.writer.execute(doing.plan).await
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    text(&object["metadata"], "name")
}

fn observe(context: &Context, key: &Key, cluster: Arc<Cluster>) -> Seen {
    let caches = &context.caches;
    let (namespace, own) = (&key.namespace, &key.name);
    let value = |object: External| object.value().clone();
    let class_ref = cluster.spec.topology.as_ref().map(|topology| topology.class_ref.clone()).unwrap_or_default();
    let class_namespace = class_ref.namespace.unwrap_or_else(|| namespace.clone());
    let class = caches.classes.get(&Key::new(class_namespace.as_str(), class_ref.name));
    let class = class.map(|class| external::value(class.as_ref()));
    let mut templates = BTreeMap::new();
    for reference in class.iter().flat_map(desired::references) {
        let found = ContractRef {
            api_group: reference.group().to_owned(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        };
        if let Some(object) =
            caches.kinds.get(&class_namespace, &found).and_then(|found| in_version(found.value(), &reference))
        {
            templates.insert(reference, object);
        }
    }
    let infrastructure = caches.external(namespace, cluster.spec.infrastructure_ref.as_ref()).map(value);
    let control_plane = caches.external(namespace, cluster.spec.control_plane_ref.as_ref()).map(value);
    let deployments = caches.deployments.in_cluster(namespace, own);
    let owned_deployments: Vec<_> = deployments.iter().filter(|one| is_owned(&one.metadata)).collect();
    let mut pools = caches.machine_pools.in_cluster(namespace, own);
    pools.retain(|pool| is_owned(&pool.metadata));
    let mut workers = caches.machines.in_cluster(namespace, own);
    let is_worker = |machine: &Arc<Machine>| {
        Group::ALL.iter().any(|group| owner::label_of(&machine.metadata, group.label()).is_some())
    };
    workers.retain(is_worker);
    let state = desired::Seen {
        cluster: external::value(cluster.as_ref()),
        class: class.clone().unwrap_or_default(),
        templates,
        control_plane: control_plane.clone(),
        runtime: Default::default(),
        deployments: owned_deployments.iter().map(|one| external::value(one.as_ref())).collect(),
        pools: pools.iter().map(|pool| external::value(pool.as_ref())).collect(),
        machines: workers.iter().map(|machine| external::value(machine.as_ref())).collect(),
    };
    let made = state.deployments.iter().chain(&state.pools).cloned();
    let mut there: Vec<Value> = infrastructure.into_iter().chain(control_plane).chain(made).collect();
    let mut owned = Vec::new();
    let of_pools = parts_of_pools(&state);
    let is_part = |kind: &ApiResource| {
        kind.kind.ends_with("Template") || of_pools.contains(&(kind.group.clone(), kind.kind.clone()))
    };
    for resource in caches.kinds.resources().filter(|resource| is_part(resource)) {
        for object in caches.kinds.in_cluster(&resource.group, &resource.kind, namespace, own) {
            let is_pools = owner::label_of(&object.meta, names::TOPOLOGY_POOL_LABEL).is_some();
            if is_owned(&object.meta) && (is_pools || resource.kind.ends_with("Template")) {
                owned.push((object.resource.clone(), object.meta.clone()));
                there.push(object.value().clone());
            }
        }
    }
    for check in caches.health_checks.in_cluster(namespace, own) {
        if is_owned(&check.metadata) {
            owned.push((ApiResource::erase::<MachineHealthCheck>(&()), check.metadata.clone()));
            there.push(external::value(check.as_ref()));
        }
    }
    let used = used(&state, &caches.sets.in_cluster(namespace, own), &workers);
    let there = there.into_iter().map(|object| ((text(&object, "kind").to_owned(), name(&object).to_owned()), object));
    Seen { class, state, there: there.collect(), owned, used, cluster, held: false, unreached: false }
}

fn is_owned(meta: &ObjectMeta) -> bool {
    owner::label_of(meta, names::TOPOLOGY_OWNED_LABEL).is_some()
}

/// A template in the version that the class names it in.
fn in_version(object: &Value, reference: &Reference) -> Option<Value> {
    let (_, version) = reference.api_version.split_once('/')?;
    if object["apiVersion"] == *reference.api_version {
        return Some(object.clone());
    }
    conversion::convert(object, version).ok()
}

/// Groups and kinds of what pools name: the configuration of their machines, and their servers.
fn parts_of_pools(state: &desired::Seen) -> HashSet<(String, String)> {
    let mut kinds = HashSet::new();
    for pool in &state.pools {
        let spec = &pool["spec"]["template"]["spec"];
        for part in [&spec["bootstrap"]["configRef"], &spec["infrastructureRef"]] {
            kinds.insert((text(part, "apiGroup").to_owned(), text(part, "kind").to_owned()));
        }
    }
    let classes = state.class.pointer("/spec/workers/machinePools").and_then(Value::as_array);
    for class in classes.into_iter().flatten() {
        for part in ["bootstrap", "infrastructure"] {
            let reference = &class[part]["templateRef"];
            let group = text(reference, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            kinds.insert((group.to_owned(), text(reference, "kind").trim_end_matches("Template").to_owned()));
        }
    }
    kinds
}

/// What is named by what is there: by machine sets of the past too, and the configurations that machines of pools were
/// made with.
fn used(state: &desired::Seen, sets: &[Arc<MachineSet>], workers: &[Arc<Machine>]) -> HashSet<(String, String)> {
    let mut used = HashSet::new();
    let mut add = |reference: &Value| {
        used.insert((text(reference, "kind").to_owned(), text(reference, "name").to_owned()));
    };
    if let Some(control_plane) = &state.control_plane {
        add(&control_plane["spec"]["machineTemplate"]["spec"]["infrastructureRef"]);
    }
    for object in state.deployments.iter().chain(&state.pools) {
        let spec = &object["spec"]["template"]["spec"];
        add(&spec["infrastructureRef"]);
        add(&spec["bootstrap"]["configRef"]);
    }
    for set in sets {
        let spec = &set.spec.template.spec;
        for reference in std::iter::once(&spec.infrastructure_ref).chain(&spec.bootstrap.config_ref) {
            used.insert((reference.kind.clone(), reference.name.clone()));
        }
    }
    // Bootstrap data has the name of its configuration.
    for machine in workers.iter().filter(|machine| machine.spec.bootstrap.config_ref.is_none()) {
        let data = machine.spec.bootstrap.data_secret_name.iter();
        used.extend(data.map(|name| ("KubeadmConfig".to_owned(), name.clone())));
    }
    used
}

pub fn plan(seen: &Seen, now: &Time) -> Doing {
    let cluster = seen.cluster.as_ref();
    let mut doing = Doing::default();
    if cluster.metadata.deletion_timestamp.is_some() {
        doing.plan = let_go(seen, now);
        return doing;
    }
    let tell = |doing: &mut Doing, reason: &str, message: String| {
        state(seen, Statement::no("TopologyReconciled", reason, message), now, &mut doing.plan);
    };
    if owner::is_paused(Some(cluster), &cluster.metadata) {
        tell(&mut doing, "Paused", "Cluster spec.paused is set, or its paused annotation is".to_owned());
        return doing;
    }
    if seen.class.is_none() {
        let class = cluster.spec.topology.as_ref().map(|topology| topology.class_ref.name.clone()).unwrap_or_default();
        tell(&mut doing, "ClusterClassNotReconciled", format!("ClusterClass {class} does not exist"));
        return doing;
    }
    let desired = match desired(&seen.state) {
        Ok(desired) => desired,
        Err(TopologyError::Blocked(blocking)) => {
            tell(&mut doing, "ClusterCreating", hooks::told(&blocking, "Cluster topology creation"));
            wait_for(&blocking, &mut doing.plan);
            return doing;
        }
        Err(TopologyError::Ask(_)) => {
            doing.plan.wait("a runtime extension", GO_ON_S);
            return doing;
        }
        Err(error) => {
            tell(&mut doing, "ReconcileFailed", failure(&error));
            if matches!(error, TopologyError::Extension(_)) {
                doing.plan.wait("a runtime extension", RETRY_S);
            }
            return doing;
        }
    };
    let mut after = cluster.clone();
    owner::label(&mut after.metadata, names::CLUSTER_LABEL, cluster.metadata.name.clone().unwrap_or_default());
    owner::label(&mut after.metadata, names::TOPOLOGY_OWNED_LABEL, "");
    after.spec.infrastructure_ref = Some(reference(&desired.infrastructure));
    after.spec.control_plane_ref = Some(reference(&desired.control_plane));
    note(&mut after.metadata, names::PENDING_HOOKS_ANNOTATION, desired.hooks.noted.as_deref());
    note(&mut after.metadata, names::TOPOLOGY_UPGRADE_STEP_ANNOTATION, desired.upgrade.step());
    let objects = desired.objects();
    if after != *cluster && after.spec == cluster.spec && after.metadata.labels == cluster.metadata.labels {
        // Noted before it is done: a hook that is to come after is not forgotten. The change comes back here.
        doing.note.update(cluster, &after);
        doing.apply = objects.into_iter().cloned().collect();
        return doing;
    }
    if after != *cluster {
        // What has no reference yet comes first; the workers when the Cluster is whole.
        let first = objects.iter().filter(|object| is_first(object, &desired));
        doing.apply = first.map(|object| (*object).clone()).collect();
        doing.plan.update(cluster, &after);
        return doing;
    }
    doing.apply = objects.into_iter().cloned().collect();
    remove(seen, &desired, &mut doing.plan);
    let kind = seen.state.control_plane.as_ref().map_or("", |plane| text(plane, "kind"));
    settle(seen, &desired, told::reconciled(cluster, kind, &desired), now, &mut doing.plan);
    wait_for(&desired.hooks.blocking, &mut doing.plan);
    if seen.unreached {
        doing.plan.wait("a runtime extension that was not reached", UNREACHED_S);
    }
    if !desired.upgrade.waiting.is_empty() || !desired.upgrade.upgrading.is_empty() {
        doing.plan.wait("an upgrade", PAUSE_S);
    }
    doing
}

/// What is said of a Cluster that is to be deleted, and whether extensions let it go.
fn let_go(seen: &Seen, now: &Time) -> Plan {
    let cluster = seen.cluster.as_ref();
    let mut plan = Plan::nothing();
    if !seen.held || owner::is_paused(Some(cluster), &cluster.metadata) {
        return plan;
    }
    const TYPE: &str = "TopologyReconciled";
    match hooks::before_delete(&seen.state.runtime, &seen.state.cluster) {
        Ok(blocking) if blocking.is_empty() => {
            let mut after = cluster.clone();
            owner::annotate(&mut after.metadata, names::OK_TO_DELETE_ANNOTATION, "");
            plan.update(cluster, &after);
        }
        Ok(blocking) => {
            let message = format!("Cluster is deleting. {}", hooks::told(&blocking, "delete"));
            state(seen, Statement::no(TYPE, "Deleting", message), now, &mut plan);
            wait_for(&blocking, &mut plan);
        }
        Err(TopologyError::Ask(_)) => {
            plan.wait("a runtime extension", GO_ON_S);
        }
        Err(error) => {
            state(seen, Statement::no(TYPE, "ReconcileFailed", error.to_string()), now, &mut plan);
            plan.wait("a runtime extension", RETRY_S);
        }
    }
    plan
}

/// Hooks are asked again when they said so.
fn wait_for(blocking: &[Blocking], plan: &mut Plan) {
    for one in blocking {
        plan.wait(format!("the hook {}", one.hook.name()), one.retry_after_s);
    }
}

/// An annotation of ours, or none.
fn note(meta: &mut ObjectMeta, key: &str, value: Option<&str>) {
    match value {
        Some(value) => owner::annotate(meta, key, value),
        None => {
            let gone = meta.annotations.as_mut().is_some_and(|all| all.remove(key).is_some() && all.is_empty());
            if gone {
                meta.annotations = None;
            }
        }
    }
}

fn is_first(object: &Value, desired: &Desired) -> bool {
    [Some(&desired.infrastructure), desired.control_plane_machines.as_ref(), Some(&desired.control_plane)]
        .contains(&Some(object))
}

fn failure(error: &TopologyError) -> String {
    error.to_string()
}

fn reference(object: &Value) -> ContractRef {
    let group = text(object, "apiVersion").split_once('/').map_or("", |(group, _)| group);
    ContractRef { api_group: group.to_owned(), kind: text(object, "kind").to_owned(), name: name(object).to_owned() }
}

/// Workers that the topology has no more, and templates that nothing is made from any more.
fn remove(seen: &Seen, desired: &Desired, plan: &mut Plan) {
    for (group, name) in &desired.removed {
        let resource = match group {
            Group::Deployments => ApiResource::erase::<MachineDeployment>(&()),
            Group::Pools => ApiResource::erase::<MachinePool>(&()),
        };
        let found = seen.there.get(&(resource.kind.clone(), name.clone()));
        let meta = found.and_then(|found| serde_json::from_value::<ObjectMeta>(found["metadata"].clone()).ok());
        if let Some(meta) = meta.filter(|meta| meta.deletion_timestamp.is_none()) {
            plan.delete_external(&resource, &meta);
        }
    }
    let wanted: HashSet<(String, String)> =
        desired.objects().iter().map(|object| (text(object, "kind").to_owned(), name(object).to_owned())).collect();
    for (resource, meta) in &seen.owned {
        let key = (resource.kind.clone(), meta.name.clone().unwrap_or_default());
        if !wanted.contains(&key) && !seen.used.contains(&key) && meta.deletion_timestamp.is_none() {
            plan.delete_external(resource, meta);
        }
    }
}

fn state(seen: &Seen, statement: Statement, now: &Time, plan: &mut Plan) {
    let mut after = seen.cluster.as_ref().clone();
    let generation = after.metadata.generation;
    let status = after.status.get_or_insert_default();
    condition::set(&mut status.conditions, statement, generation, now);
    plan.update(seen.cluster.as_ref(), &after);
}

/// The same, with the way that an upgrade has yet to go.
fn settle(seen: &Seen, desired: &Desired, statement: Statement, now: &Time, plan: &mut Plan) {
    let mut after = seen.cluster.as_ref().clone();
    let generation = after.metadata.generation;
    let status = after.status.get_or_insert_default();
    condition::set(&mut status.conditions, statement, generation, now);
    let way = &desired.upgrade.plan;
    for (counts, way) in [(&mut status.control_plane, &way.control_plane), (&mut status.workers, &way.workers)] {
        let steps = way.iter().take(STEPS_SHOWN_MAX).map(|version| UpgradeStep { version: version.clone() });
        if counts.is_some() || !way.is_empty() {
            counts.get_or_insert_default().upgrade_plan = steps.collect();
        }
    }
    plan.update(seen.cluster.as_ref(), &after);
}

/// Whether an object has all that is wanted of it; what is empty need not be there.
fn covers(wanted: &Value, there: Option<&Value>) -> bool {
    match (wanted, there) {
        (Value::Null, _) => true,
        (Value::Object(wanted), there) => wanted.iter().all(|(name, value)| {
            let there = there.and_then(|there| there.get(name));
            if name == "ownerReferences" { covers_some(value, there) } else { covers(value, there) }
        }),
        (Value::Array(wanted), None) => wanted.is_empty(),
        (Value::Array(wanted), Some(Value::Array(there))) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| covers(wanted, Some(there)))
        }
        (wanted, there) => Some(wanted) == there,
    }
}

/// Others may own an object too.
fn covers_some(wanted: &Value, there: Option<&Value>) -> bool {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let there = items(there);
    items(Some(wanted)).iter().all(|one| there.iter().any(|other| covers(one, Some(other))))
}

fn sum(object: &Value) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

impl Topologies {
    async fn apply(&self, key: &Key, seen: &Seen, object: &Value) -> Result<()> {
        let own = (text(object, "kind").to_owned(), name(object).to_owned());
        let (there, sum) = (seen.there.get(&own), sum(object));
        if self.applied.has(key, &own, sum) && there.is_some() && covers(object, there) {
            return Ok(());
        }
        let group = text(object, "apiVersion").split_once('/').map_or("", |(group, _)| group);
        let resource = self.resource(group, &own.0)?;
        let api =
            Api::<DynamicObject>::namespaced_with(self.context.writer.client().clone(), &key.namespace, &resource);
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&own.1, &params, &Patch::Apply(object)).await;
        let place = || format!("{} {}", own.0, Key::new(key.namespace.as_str(), own.1.as_str()));
        applied.map_err(|source| Error::api("apply", place(), source))?;
        self.applied.note(key, own, sum);
        Ok(())
    }

    fn resource(&self, group: &str, kind: &str) -> Result<ApiResource> {
        let own = [
            ApiResource::erase::<MachineDeployment>(&()),
            ApiResource::erase::<MachinePool>(&()),
            ApiResource::erase::<MachineHealthCheck>(&()),
        ];
        if let Some(resource) = own.into_iter().find(|resource| resource.kind == kind && resource.group == group) {
            return Ok(resource);
        }
        let known = self.context.caches.kinds.resource(group, kind).cloned();
        known.ok_or_else(|| Error::blocked("ReconcileFailed", format!("no provider here knows {kind} of {group}")))
    }
}
