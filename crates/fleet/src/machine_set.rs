//! The MachineSet controller: keeps a number of equal machines.
//!
//! A machine is three objects of one name: infrastructure and bootstrap configuration, cloned from the templates and
//! carrying the set's label, then the Machine that binds them. A set that finds clones without a machine finishes them
//! before it makes new ones, so a crash between any two steps leaves nothing behind.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machineset.

pub mod in_place;
mod preflight;
pub mod remediation;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    in_place::is_under_way,
    machine::{DeletionOrder, Machine, MachineDeletion, MachineDeployment, MachineSet, MachineSpec},
    meta::{ConditionStatus, ContractRef, Time},
    names,
};
use control::{EventType, Key, Outcome, Plan, Reconcile, Result, Step};
use jiff::Timestamp;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use self::{in_place::Moves, preflight::ControlPlane, remediation::Remediation};
use crate::{
    Caches, Context, adoption,
    external::External,
    machine,
    naming::{self, MACHINE_NAME_MAX, Suffixes},
    owner, propagation,
};

/// Machines that are made in one reconcile; the next one goes on.
const CREATED_AT_ONCE: usize = 20;
/// Pause while a template is waited for: it may be a line further down in what a user applies.
const PAUSE_S: u64 = 2;
/// Pause until what holds machines back is looked at again; a control plane that changes wakes its sets.
const PREFLIGHT_PAUSE_S: u64 = 15;

pub struct MachineSets(pub Arc<Context>);

pub struct Seen {
    pub set: Arc<MachineSet>,
    pub cluster: Option<Arc<Cluster>>,
    pub control_plane: ControlPlane,
    pub deployment: Option<Arc<MachineDeployment>>,
    /// Those that the set controls.
    pub machines: Vec<Arc<Machine>>,
    /// Those that its selector names, that nobody controls and that may be adopted now.
    pub orphans: Vec<Arc<Machine>>,
    pub bootstrap_template: Option<External>,
    pub infrastructure_template: Option<External>,
    /// Clones that carry the set's label, by name.
    pub bootstraps: BTreeMap<String, External>,
    pub infrastructures: BTreeMap<String, External>,
    /// What the clones are served as.
    pub kinds: CloneKinds,
    pub suffixes: Suffixes,
    /// The set that gets the machines that are too many here.
    pub target: Option<Arc<MachineSet>>,
    /// What belongs to machines that are to be updated in place, by the machine's name.
    pub moved: BTreeMap<String, in_place::Parts>,
}

/// The resources that a set's two templates are cloned into.
#[derive(Clone, Debug, Default)]
pub struct CloneKinds {
    pub bootstrap: Option<kube::api::ApiResource>,
    pub infrastructure: Option<kube::api::ApiResource>,
}

impl Reconcile for MachineSets {
    const NAME: &'static str = "machineset";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(set) = caches.sets.get(key) else { return Ok(None) };
        let (namespace, cluster) = (key.namespace.as_str(), set.spec.cluster_name.as_str());
        let spec = &set.spec.template.spec;
        let config = spec.bootstrap.config_ref.as_ref();
        let clones = |reference: Option<&ContractRef>| -> BTreeMap<String, External> {
            let Some(reference) = reference else { return BTreeMap::new() };
            let found = caches.kinds.in_cluster(&reference.api_group, clone_kind(&reference.kind), namespace, cluster);
            let mine =
                found.into_iter().filter(|clone| owner::label_of(&clone.meta, names::SET_LABEL) == Some(&key.name));
            mine.map(|clone| (clone.key().name, clone)).collect()
        };
        let resource =
            |reference: &ContractRef| caches.kinds.resource(&reference.api_group, clone_kind(&reference.kind)).cloned();
        let deployment = owner::owner_of_kind(&set.metadata, "MachineDeployment");
        let found = caches.cluster(namespace, cluster);
        let mut machines = caches.machines.in_cluster(namespace, cluster);
        let fits = |meta: &ObjectMeta| adoption::selects(&set.spec.selector, meta);
        let client = self.0.writer.client();
        let orphans = adoption::orphans(client, set.as_ref(), found.as_deref(), &machines, fits).await?;
        machines.retain(|machine| owner::is_controlled_by(&machine.metadata, &set.metadata));
        let parts = |machine: &Arc<Machine>| {
            let (name, spec) = (machine.metadata.name.clone().unwrap_or_default(), &machine.spec);
            let bootstrap = caches.external(namespace, spec.bootstrap.config_ref.as_ref());
            (name, (caches.external(namespace, Some(&spec.infrastructure_ref)), bootstrap))
        };
        Ok(Some(Seen {
            target: in_place::target_of(&set).and_then(|name| caches.sets.get(&Key::new(namespace, name))),
            moved: machines.iter().filter(|machine| in_place::is_unwritten(machine)).map(parts).collect(),
            control_plane: control_plane(caches, namespace, found.as_deref()),
            cluster: found,
            deployment: deployment.and_then(|owner| caches.deployments.get(&Key::new(namespace, owner.name.as_str()))),
            machines,
            orphans,
            bootstrap_template: caches.external(namespace, config),
            infrastructure_template: caches.external(namespace, Some(&spec.infrastructure_ref)),
            bootstraps: clones(config),
            infrastructures: clones(Some(&spec.infrastructure_ref)),
            kinds: CloneKinds {
                bootstrap: config.and_then(resource),
                infrastructure: resource(&spec.infrastructure_ref),
            },
            suffixes: Suffixes::seeded((self.0.random)()),
            set,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> Result<Outcome> {
        self.0.writer.execute(plan).await
    }
}

/// `OpenStackMachineTemplate` is cloned into `OpenStackMachine`.
pub fn clone_kind(template: &str) -> &str {
    template.strip_suffix("Template").unwrap_or(template)
}

pub fn plan(seen: &Seen, now: &Time) -> Plan {
    let set = seen.set.as_ref();
    let mut plan = Plan::nothing();
    let mut after = set.clone();
    let deleting = set.metadata.deletion_timestamp.is_some();
    let paused = owner::is_paused(seen.cluster.as_deref(), &set.metadata);
    let mut trouble = None;
    if deleting {
        if !owner::has_finalizer(&set.metadata, names::MACHINE_SET_FINALIZER) {
            return plan;
        }
        if !paused && delete(seen, &mut plan) {
            owner::remove_finalizer(&mut after.metadata, names::MACHINE_SET_FINALIZER);
            plan.update(set, &after);
            return plan;
        }
    } else if !paused {
        owner::add_finalizer(&mut after.metadata, names::MACHINE_SET_FINALIZER);
        owner::label(&mut after.metadata, names::CLUSTER_LABEL, set.spec.cluster_name.as_str());
        // One that a deployment made goes back to it.
        let is_alone = owner::controller(&set.metadata).is_none()
            && owner::label_of(&set.metadata, names::DEPLOYMENT_LABEL).is_none();
        if let Some(cluster) = seen.cluster.as_ref().filter(|_| is_alone) {
            owner::ensure(&mut after.metadata, owner::reference(cluster.as_ref(), false));
        }
        // The finalizer comes first: nothing is made on behalf of an object that could vanish.
        let held = owner::has_finalizer(&set.metadata, names::MACHINE_SET_FINALIZER);
        if held && !seen.orphans.is_empty() {
            adopt(seen, &mut plan);
        } else if held {
            let mut moves = Moves { begin: in_place::beginning(seen), ..Moves::default() };
            trouble = scale(seen, &mut plan, &mut moves).err();
            if let Some(Trouble { why, pause_s }) = &trouble {
                plan.wait(why.as_str(), *pause_s);
            }
            let remediation = remediation::decide(seen);
            if remediation.deferred {
                plan.wait("the turn of unhealthy machines", PAUSE_S);
            }
            propagate(seen, &remediation, &moves, now, &mut plan);
            adopt_templates(seen, &mut plan);
            for machine in &remediation.delete {
                // It says why it goes before it does.
                if !deletes(&plan, machine) {
                    plan.delete(machine.as_ref());
                }
            }
        }
    }
    status::set(seen, &mut after, trouble.map(|trouble| trouble.why), paused, now, &mut plan);
    plan.update(set, &after);
    plan
}

/// Takes over the machines of nobody that the selector names. What is to be done with so many is seen with them.
fn adopt(seen: &Seen, plan: &mut Plan) {
    let set = seen.set.as_ref();
    for machine in &seen.orphans {
        let mark = |meta: &mut ObjectMeta| owner::extend(&mut meta.labels, &own_labels(set));
        adoption::adopt(set, machine.as_ref(), mark, plan);
    }
}

/// Labels that a set gives its machines and what belongs to them, whatever its template says.
fn own_labels(set: &MachineSet) -> BTreeMap<String, String> {
    let deployment = owner::label_of(&set.metadata, names::DEPLOYMENT_LABEL).map(str::to_owned);
    let labels = [
        (names::CLUSTER_LABEL, Some(set.spec.cluster_name.clone())),
        (names::SET_LABEL, set.metadata.name.clone()),
        (names::DEPLOYMENT_LABEL, deployment),
    ];
    labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// The cluster owns the templates, so that they move and go with it.
fn adopt_templates(seen: &Seen, plan: &mut Plan) {
    let Some(cluster) = &seen.cluster else { return };
    for template in [&seen.bootstrap_template, &seen.infrastructure_template].into_iter().flatten() {
        let mut meta = template.meta.clone();
        owner::ensure(&mut meta, owner::reference(cluster.as_ref(), false));
        if !template.deleting() {
            plan.update_metadata(&template.resource, &template.meta, &meta);
        }
    }
}

/// Why no machines are made or given away, and when that is looked at again.
struct Trouble {
    why: String,
    pause_s: u64,
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, pause_s: PAUSE_S }
    }
}

/// What is seen of the control plane that the cluster names.
fn control_plane(caches: &Caches, namespace: &str, cluster: Option<&Cluster>) -> ControlPlane {
    let Some(reference) = cluster.and_then(|cluster| cluster.spec.control_plane_ref.as_ref()) else {
        return ControlPlane::Unknown;
    };
    if caches.kinds.resource(&reference.api_group, &reference.kind).is_none() {
        return ControlPlane::Unknown;
    }
    caches.external(namespace, Some(reference)).map_or(ControlPlane::Missing, |found| ControlPlane::Found(found.into()))
}

/// Makes machines or removes them; `Err` says why it can't make any now, or give them away.
fn scale(seen: &Seen, plan: &mut Plan, moves: &mut Moves) -> Result<(), Trouble> {
    let wanted = usize::try_from(seen.set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    let have = seen.machines.len();
    let unfinished = unfinished(seen);
    if have >= wanted {
        let surplus = (have - wanted).saturating_sub(in_place::uncounted(&seen.set, &seen.machines));
        if surplus > 0 && in_place::target_of(&seen.set).is_some() {
            in_place::give_away(seen, surplus, plan, moves)?;
        } else {
            for machine in to_remove(seen, surplus) {
                plan.delete(machine.as_ref());
            }
        }
        // Nobody needs them any more, and nobody else would find them.
        for name in &unfinished {
            for clone in [seen.bootstraps.get(name), seen.infrastructures.get(name)].into_iter().flatten() {
                if !clone.deleting() {
                    plan.delete_external(&clone.resource, &clone.meta);
                }
            }
        }
        return Ok(());
    }
    if owner::annotation_of(&seen.set.metadata, names::DISABLE_MACHINE_CREATE_ANNOTATION) == Some("true") {
        return Err("creation of machines is disabled by annotation".to_owned().into());
    }
    preflight::check(seen).map_err(|why| Trouble { why, pause_s: PREFLIGHT_PAUSE_S })?;
    let missing = wanted - have;
    let fresh = missing.saturating_sub(unfinished.len());
    let mut names: Vec<String> = unfinished.into_iter().take(missing).collect();
    for index in 0..fresh {
        names.push(new_name(seen, index)?);
    }
    if names.len() > CREATED_AT_ONCE {
        names.truncate(CREATED_AT_ONCE);
        plan.wait("the next machines' turn", 1);
    }
    for name in names {
        create(seen, &name, plan)?;
    }
    Ok(())
}

/// Clones without a machine: a create that was cut short.
fn unfinished(seen: &Seen) -> BTreeSet<String> {
    let bound: BTreeSet<&str> = seen.machines.iter().filter_map(|machine| machine.metadata.name.as_deref()).collect();
    seen.bootstraps
        .iter()
        .chain(&seen.infrastructures)
        .filter(|(name, clone)| {
            !bound.contains(name.as_str())
                && !clone.deleting()
                && owner::owner_of_kind(&clone.meta, "Machine").is_none()
        })
        .map(|(name, _)| name.clone())
        .collect()
}

fn new_name(seen: &Seen, index: usize) -> Result<String, String> {
    let suffix = seen.suffixes.get(index);
    let set = seen.set.metadata.name.as_deref().unwrap_or_default();
    match seen.set.spec.machine_naming.as_ref().and_then(|naming| naming.template.as_deref()) {
        Some(template) => naming::from_template(template, &seen.set.spec.cluster_name, ("machineSet", set), &suffix),
        None => Ok(naming::with_suffix(set, &suffix, MACHINE_NAME_MAX)),
    }
}

/// The steps that make one machine, without those that have been done.
fn create(seen: &Seen, name: &str, plan: &mut Plan) -> Result<(), String> {
    let set = seen.set.as_ref();
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let mut labels = set.spec.template.metadata.as_ref().map(|meta| meta.labels.clone()).unwrap_or_default();
    labels.extend(own_labels(set));
    let maker = owner::reference(set, false);
    let template = &set.spec.template.spec;
    let mut bootstrap = template.bootstrap.clone();
    if let Some(reference) = &template.bootstrap.config_ref {
        let source = seen.bootstrap_template.as_ref();
        let (source, resource) = found(source, &seen.kinds.bootstrap, reference)?;
        if !seen.bootstraps.contains_key(name) {
            let body = clone(source, name, &namespace, &labels, &maker);
            plan.create_external(resource, Key::new(namespace.as_str(), name), body);
        }
        bootstrap.config_ref = Some(renamed(reference, &resource.kind, name));
    }
    let reference = &template.infrastructure_ref;
    let (source, resource) = found(seen.infrastructure_template.as_ref(), &seen.kinds.infrastructure, reference)?;
    if !seen.infrastructures.contains_key(name) {
        let body = clone(source, name, &namespace, &labels, &maker);
        plan.create_external(resource, Key::new(namespace.as_str(), name), body);
    }
    let meta = set.spec.template.metadata.clone().unwrap_or_default();
    plan.create(&Machine {
        metadata: machine::metadata(set, Key::new(namespace, name), &meta, labels),
        spec: MachineSpec {
            bootstrap,
            infrastructure_ref: renamed(reference, &resource.kind, name),
            cluster_name: set.spec.cluster_name.clone(),
            deletion: MachineDeletion::completed(template.deletion.as_ref()),
            ..template.clone()
        },
        status: None,
    });
    plan.event(set, EventType::Normal, "SuccessfulCreate", format!("Created Machine {name}"));
    Ok(())
}

fn found<'a>(
    template: Option<&'a External>,
    resource: &'a Option<kube::api::ApiResource>,
    reference: &ContractRef,
) -> Result<(&'a External, &'a kube::api::ApiResource), String> {
    let resource = resource
        .as_ref()
        .ok_or_else(|| format!("no provider here knows {}.{}", reference.kind, reference.api_group))?;
    let template = template.ok_or_else(|| format!("{} {} does not exist", reference.kind, reference.name))?;
    Ok((template, resource))
}

pub fn renamed(reference: &ContractRef, kind: &str, name: &str) -> ContractRef {
    ContractRef { api_group: reference.api_group.clone(), kind: kind.to_owned(), name: name.to_owned() }
}

/// A template's copy as an object of its own.
pub fn clone(
    template: &External,
    name: &str,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    maker: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
) -> Value {
    let mut all: BTreeMap<String, String> = template.read("/spec/template/metadata/labels").unwrap_or_default();
    all.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    let mut annotations: BTreeMap<String, String> =
        template.read("/spec/template/metadata/annotations").unwrap_or_default();
    annotations.insert(names::CLONED_FROM_NAME_ANNOTATION.into(), template.key().name);
    annotations.insert(
        names::CLONED_FROM_KIND_ANNOTATION.into(),
        format!("{}.{}", template.resource.kind, template.resource.group),
    );
    let mut body = json!({
        "metadata": {
            "name": name, "namespace": namespace, "labels": all, "annotations": annotations, "ownerReferences": [maker],
        },
    });
    if let Some(spec) = template.value().pointer("/spec/template/spec") {
        body["spec"] = spec.clone();
    }
    body
}

/// Picks machines to remove.
fn to_remove(seen: &Seen, count: usize) -> Vec<&Arc<Machine>> {
    let order = seen.set.spec.deletion.as_ref().and_then(|deletion| deletion.order).unwrap_or_default();
    let first = first_to_go(&seen.machines, order).into_iter().take(count);
    first.filter(|machine| machine.metadata.deletion_timestamp.is_none()).collect()
}

/// Machines in the order in which they go: those that go anyway first, then those that were named, those that are being
/// updated in place, unhealthy ones, then by order.
pub fn first_to_go<'a>(
    machines: impl IntoIterator<Item = &'a Arc<Machine>>,
    order: DeletionOrder,
) -> Vec<&'a Arc<Machine>> {
    let mut machines: Vec<_> = machines.into_iter().collect();
    let urgency = |machine: &Machine| {
        let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
        // What is not known speaks against nobody.
        let ill = ["NodeHealthy", "HealthCheckSucceeded"]
            .iter()
            .any(|type_| condition::get(conditions, type_).is_some_and(|found| found.status == ConditionStatus::False));
        let meta = &machine.metadata;
        match () {
            () if meta.deletion_timestamp.is_some() => 0,
            () if owner::annotation_of(meta, names::DELETE_MACHINE_ANNOTATION).is_some() => 1,
            () if is_under_way(meta) => 2,
            () if machine.status.as_ref().is_none_or(|status| status.node_ref.is_none()) || ill => 3,
            () => 4,
        }
    };
    machines.sort_by(|a, b| {
        let age = || {
            a.metadata
                .creation_timestamp
                .as_ref()
                .map(|t| t.0)
                .cmp(&b.metadata.creation_timestamp.as_ref().map(|t| t.0))
        };
        let within = match order {
            DeletionOrder::Random => a.metadata.name.cmp(&b.metadata.name),
            DeletionOrder::Newest => age().reverse(),
            DeletionOrder::Oldest => age(),
        };
        urgency(a).cmp(&urgency(b)).then(within).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    machines
}

/// Deletes what is left; true when there is nothing.
fn delete(seen: &Seen, plan: &mut Plan) -> bool {
    for machine in seen.machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_none()) {
        plan.delete(machine.as_ref());
    }
    let names = unfinished(seen);
    for clone in names.iter().flat_map(|name| [seen.bootstraps.get(name), seen.infrastructures.get(name)]).flatten() {
        plan.delete_external(&clone.resource, &clone.meta);
    }
    seen.machines.is_empty() && names.is_empty()
}

/// Carries to existing machines what changes without replacing them, and tells them whether they are up to date.
fn propagate(seen: &Seen, remediation: &Remediation, moves: &Moves, now: &Time, plan: &mut Plan) {
    let template = &seen.set.spec.template;
    for machine in &seen.machines {
        if deletes(plan, machine) {
            continue;
        }
        let mut after = machine.as_ref().clone();
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        if moves.away.contains(name) {
            // The rest is the other set's to say.
            in_place::leave(seen, &mut after);
            plan.update(machine.as_ref(), &after);
            continue;
        }
        let mut stuck = None;
        // One that goes gets them too: a drain that does not end is freed by a shorter time for it.
        after.spec.deletion = MachineDeletion::completed(template.spec.deletion.as_ref());
        after.spec.min_ready_seconds = template.spec.min_ready_seconds;
        after.spec.readiness_gates = template.spec.readiness_gates.clone();
        after.spec.taints = template.spec.taints.clone();
        if machine.metadata.deletion_timestamp.is_none() {
            propagation::carry(&mut after.metadata, template.metadata.as_ref());
            if moves.begin.contains(name) {
                stuck = in_place::begin(seen, &mut after, plan).err();
            }
        }
        if let Some(why) = &stuck {
            plan.wait(why.as_str(), PAUSE_S);
        }
        if let Some(status) = &mut after.status {
            let statement = status::up_to_date(seen, machine, stuck);
            condition::set(&mut status.conditions, statement, machine.metadata.generation, now);
            match machine.metadata.name.as_ref().and_then(|name| remediation.statements.get(name)) {
                Some(Some(statement)) => {
                    condition::set(&mut status.conditions, statement.clone(), machine.metadata.generation, now);
                }
                Some(None) => condition::remove(&mut status.conditions, "OwnerRemediated"),
                None => {}
            }
        }
        plan.update(machine.as_ref(), &after);
    }
}

/// Whether the plan deletes the machine: a write after that would only conflict with it.
pub(crate) fn deletes(plan: &Plan, machine: &Machine) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Delete { uid, .. } if *uid == machine.metadata.uid))
}

pub(crate) fn statement_of(type_: &'static str, holds: bool, names: (&str, &str), message: String) -> Statement {
    let mut statement = Statement::of(type_, holds, names, "");
    statement.message = message;
    statement
}
