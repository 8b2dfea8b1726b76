//! The topology controller: makes a Cluster's objects from its ClusterClass and keeps them as the topology says.
//!
//! What is to be there is computed by `api::topology::desired`, a pure function. It is applied by server-side apply with a
//! manager of its own, so users and other controllers keep the fields that the topology says nothing of. An object is
//! applied only when it is not as it should be, or when the topology says something else than it did.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/topology/cluster.

mod class;
mod feed;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    conversion,
    health_check::MachineHealthCheck,
    machine::{MachineDeployment, MachineSet},
    meta::{ContractRef, Time},
    names,
    topology::{
        TopologyError,
        desired::{self, Desired, Reference, Waiting, desired},
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
use crate::{Context, external::External, owner};

/// Owns the fields that the topology decides.
const MANAGER: &str = "skep-topology";
/// Pause until templates that are used no more are looked for again, and upgrades that go on.
const PAUSE_S: u64 = 30;

pub struct Topologies {
    context: Arc<Context>,
    /// By kind and key, what was applied last: a sum of it. It is forgotten with the process, and then applied once more,
    /// which changes nothing.
    applied: Mutex<HashMap<(String, Key), u64>>,
}

impl Topologies {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, applied: Mutex::default() }
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
    /// Templates and health checks that the topology owns.
    pub owned: Vec<(ApiResource, ObjectMeta)>,
    /// Kinds and names of templates that something is made from.
    pub used: HashSet<(String, String)>,
}

/// What to do: apply, then change objects by `plan`.
#[derive(Debug, Default)]
pub struct Doing {
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
            self.applied.lock().retain(|(_, applied), _| applied.namespace != key.namespace || applied != key);
            return Ok(None);
        };
        Ok(Some(observe(&self.context, key, cluster)))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Doing {
        plan(seen, &Time(now))
    }

    async fn act(&self, key: &Key, seen: &Seen, doing: Doing) -> Result<Outcome> {
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
    let value = |object: External| object.value;
    let class_ref = cluster.spec.topology.as_ref().map(|topology| topology.class_ref.clone()).unwrap_or_default();
    let class_namespace = class_ref.namespace.unwrap_or_else(|| namespace.clone());
    let class = caches.classes.get(&Key::new(class_namespace.as_str(), class_ref.name));
    let class = class.map(|class| External::of(class.as_ref()).value);
    let mut templates = BTreeMap::new();
    for reference in class.iter().flat_map(desired::references) {
        let found = ContractRef {
            api_group: reference.group().to_owned(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        };
        if let Some(object) =
            caches.kinds.get(&class_namespace, &found).and_then(|found| in_version(&found.value, &reference))
        {
            templates.insert(reference, object);
        }
    }
    let infrastructure = caches.external(namespace, cluster.spec.infrastructure_ref.as_ref()).map(value);
    let control_plane = caches.external(namespace, cluster.spec.control_plane_ref.as_ref()).map(value);
    let deployments = caches.deployments.in_cluster(namespace, own);
    let owned_deployments: Vec<_> = deployments.iter().filter(|one| is_owned(&one.metadata)).collect();
    let machines = caches.machines.in_cluster(namespace, own);
    let workers = machines
        .iter()
        .filter(|machine| owner::label_of(&machine.metadata, names::TOPOLOGY_DEPLOYMENT_LABEL).is_some());
    let state = desired::Seen {
        cluster: External::of(cluster.as_ref()).value,
        class: class.clone().unwrap_or_default(),
        templates,
        control_plane: control_plane.clone(),
        deployments: owned_deployments.iter().map(|one| External::of(one.as_ref()).value).collect(),
        machines: workers.map(|machine| External::of(machine.as_ref()).value).collect(),
    };
    let mut there: Vec<Value> =
        infrastructure.into_iter().chain(control_plane).chain(state.deployments.iter().cloned()).collect();
    let mut owned = Vec::new();
    for resource in caches.kinds.resources().filter(|resource| resource.kind.ends_with("Template")) {
        for object in caches.kinds.in_cluster(&resource.group, &resource.kind, namespace, own) {
            if is_owned(&object.meta) {
                owned.push((object.resource.clone(), object.meta.clone()));
                there.push(object.value);
            }
        }
    }
    for check in caches.health_checks.in_cluster(namespace, own) {
        if is_owned(&check.metadata) {
            owned.push((ApiResource::erase::<MachineHealthCheck>(&()), check.metadata.clone()));
            there.push(External::of(check.as_ref()).value);
        }
    }
    let used = used(&state, &caches.sets.in_cluster(namespace, own));
    let there = there.into_iter().map(|object| ((text(&object, "kind").to_owned(), name(&object).to_owned()), object));
    Seen { class, state, there: there.collect(), owned, used, cluster }
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

/// The templates that are named by what is there: machine sets of the past among them.
fn used(state: &desired::Seen, sets: &[Arc<MachineSet>]) -> HashSet<(String, String)> {
    let mut used = HashSet::new();
    let mut add = |reference: &Value| {
        used.insert((text(reference, "kind").to_owned(), text(reference, "name").to_owned()));
    };
    if let Some(control_plane) = &state.control_plane {
        add(&control_plane["spec"]["machineTemplate"]["spec"]["infrastructureRef"]);
    }
    for deployment in &state.deployments {
        let spec = &deployment["spec"]["template"]["spec"];
        add(&spec["infrastructureRef"]);
        add(&spec["bootstrap"]["configRef"]);
    }
    for set in sets {
        let spec = &set.spec.template.spec;
        for reference in std::iter::once(&spec.infrastructure_ref).chain(&spec.bootstrap.config_ref) {
            used.insert((reference.kind.clone(), reference.name.clone()));
        }
    }
    used
}

pub fn plan(seen: &Seen, now: &Time) -> Doing {
    let cluster = seen.cluster.as_ref();
    let mut doing = Doing::default();
    if cluster.metadata.deletion_timestamp.is_some() {
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
        Err(error) => {
            tell(&mut doing, "ReconcileFailed", failure(&error));
            return doing;
        }
    };
    let mut after = cluster.clone();
    owner::label(&mut after.metadata, names::CLUSTER_LABEL, cluster.metadata.name.clone().unwrap_or_default());
    owner::label(&mut after.metadata, names::TOPOLOGY_OWNED_LABEL, "");
    after.spec.infrastructure_ref = Some(reference(&desired.infrastructure));
    after.spec.control_plane_ref = Some(reference(&desired.control_plane));
    let objects = desired.objects();
    if after != *cluster {
        // What has no reference yet comes first; the workers when the Cluster is whole.
        let first = objects.iter().filter(|object| is_first(object, &desired));
        doing.apply = first.map(|object| (*object).clone()).collect();
        doing.plan.update(cluster, &after);
        return doing;
    }
    doing.apply = objects.into_iter().cloned().collect();
    remove(seen, &desired, &mut doing.plan);
    state(seen, reconciled(&desired), now, &mut doing.plan);
    if !desired.upgrade.waiting.is_empty() || !desired.upgrade.upgrading.is_empty() {
        doing.plan.wait("an upgrade", PAUSE_S);
    }
    doing
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
    let resource = ApiResource::erase::<MachineDeployment>(&());
    for name in &desired.removed {
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

/// Whether everything is as the topology says, and what waits for what.
fn reconciled(desired: &Desired) -> Statement {
    const TYPE: &str = "TopologyReconciled";
    let upgrade = &desired.upgrade;
    let lines: Vec<String> = upgrade.waiting.iter().map(waits).collect();
    let any = |is: fn(&Waiting) -> bool| upgrade.waiting.iter().any(is);
    let reason = if any(|one| matches!(one, Waiting::ControlPlane { .. })) {
        "ControlPlaneUpgradePending"
    } else if any(|one| matches!(one, Waiting::Create { .. })) {
        "MachineDeploymentsCreatePending"
    } else if any(|one| matches!(one, Waiting::Workers { .. })) {
        "MachineDeploymentsUpgradePending"
    } else if any(|one| matches!(one, Waiting::Deferred { .. })) {
        "MachineDeploymentsUpgradeDeferred"
    } else if !upgrade.upgrading.is_empty() {
        return Statement::no(TYPE, "ClusterUpgrading", format!("* being upgraded: {}", upgrade.upgrading.join(", ")));
    } else {
        return Statement::yes(TYPE, "ReconcileSucceeded");
    };
    Statement::no(TYPE, reason, lines.join("\n"))
}

fn waits(waiting: &Waiting) -> String {
    match waiting {
        Waiting::ControlPlane { from, to, on } => format!("* control plane: from {from} to {to} waits: {on}"),
        Waiting::Create { topology, on } => format!("* MachineDeployment {topology}: is not made yet: {on}"),
        Waiting::Workers { topology, to, on } => format!("* MachineDeployment {topology}: {to} waits: {on}"),
        Waiting::Deferred { topology, to } => {
            format!("* MachineDeployment {topology}: {to} is deferred by an annotation")
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

/// Whether an object has all that is wanted of it; what is empty need not be there.
fn covers(wanted: &Value, there: Option<&Value>) -> bool {
    match (wanted, there) {
        (Value::Null, _) => true,
        (Value::Object(wanted), there) => {
            wanted.iter().all(|(name, value)| covers(value, there.and_then(|there| there.get(name))))
        }
        (Value::Array(wanted), None) => wanted.is_empty(),
        (Value::Array(wanted), Some(Value::Array(there))) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| covers(wanted, Some(there)))
        }
        (wanted, there) => Some(wanted) == there,
    }
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
        let place = (own.0.clone(), Key::new(key.namespace.as_str(), own.1.as_str()));
        let (there, sum) = (seen.there.get(&own), sum(object));
        let was_applied = self.applied.lock().get(&place) == Some(&sum);
        if was_applied && there.is_some() && covers(object, there) {
            return Ok(());
        }
        let group = text(object, "apiVersion").split_once('/').map_or("", |(group, _)| group);
        let resource = self.resource(group, &own.0)?;
        let api =
            Api::<DynamicObject>::namespaced_with(self.context.writer.client().clone(), &key.namespace, &resource);
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&own.1, &params, &Patch::Apply(object)).await;
        applied.map_err(|source| Error::api("apply", format!("{} {}", own.0, place.1), source))?;
        self.applied.lock().insert(place, sum);
        Ok(())
    }

    fn resource(&self, group: &str, kind: &str) -> Result<ApiResource> {
        let own = [ApiResource::erase::<MachineDeployment>(&()), ApiResource::erase::<MachineHealthCheck>(&())];
        if let Some(resource) = own.into_iter().find(|resource| resource.kind == kind && resource.group == group) {
            return Ok(resource);
        }
        let known = self.context.caches.kinds.resource(group, kind).cloned();
        known.ok_or_else(|| Error::blocked("ReconcileFailed", format!("no provider here knows {kind} of {group}")))
    }
}
