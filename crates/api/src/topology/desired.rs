//! The objects that a Cluster with a topology consists of: a pure function of its ClusterClass, the templates that the class
//! names, and what is there now.
//!
//! Names follow from what they are names of: a template's from its content, so that one that changes gets another name and
//! what uses it rolls, and everything else's from the Cluster's UID. A crash at any line leaks nothing and doubles nothing.
//!
//! Source: kubernetes-sigs/cluster-api exp/topology/desiredstate.

mod group;
mod objects;
mod plan;
mod upgrade;
mod workers;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use self::{
    group::Group,
    plan::Plan,
    upgrade::{Upgrade, Waiting, is_upgrading, lowest_version},
};
use super::{
    TopologyError,
    hooks::{Blocking, Calls, Hook, Runtime},
    patches::{self, Draft, Use},
    template, variables,
};
use crate::conversion;

const SUFFIX_CHARS: usize = 5;
/// Names of objects that become host names or label values.
const NAME_MAX: usize = 63;

/// A template that a class names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

impl Reference {
    fn of(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self { api_version: text("apiVersion")?, kind: text("kind")?, name: text("name")? })
    }

    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// The templates that a class is made of.
pub fn references(class: &Value) -> Vec<Reference> {
    let spec = &class["spec"];
    let mut found: Vec<Reference> = [
        &spec["infrastructure"]["templateRef"],
        &spec["controlPlane"]["templateRef"],
        &spec["controlPlane"]["machineInfrastructure"]["templateRef"],
    ]
    .into_iter()
    .filter_map(Reference::of)
    .collect();
    for workers in Group::ALL.iter().flat_map(|group| items(spec, &format!("/workers/{}", group.list()))) {
        found.extend(Reference::of(&workers["bootstrap"]["templateRef"]));
        found.extend(Reference::of(&workers["infrastructure"]["templateRef"]));
    }
    found.sort();
    found.dedup();
    found
}

/// The handler of an extension that plans upgrades, if the class names one.
pub fn plan_extension(class: &Value) -> Option<&str> {
    let name = class.pointer("/spec/upgrade/external/generateUpgradePlanExtension")?.as_str()?;
    Some(name).filter(|name| !name.is_empty())
}

/// All that decides. Objects are of v1beta2, as the API has them.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub cluster: Value,
    pub class: Value,
    pub templates: BTreeMap<Reference, Value>,
    pub control_plane: Option<Value>,
    /// Those that the topology owns.
    pub deployments: Vec<Value>,
    /// The same.
    pub pools: Vec<Value>,
    /// Of the workers.
    pub machines: Vec<Value>,
    /// What is known of runtime extensions.
    pub runtime: Runtime,
}

impl Seen {
    fn workers(&self, group: Group) -> &[Value] {
        match group {
            Group::Deployments => &self.deployments,
            Group::Pools => &self.pools,
        }
    }

    /// What is there of the workers that the topology calls so.
    fn made(&self, group: Group, topology: &str) -> Option<&Value> {
        self.workers(group).iter().find(|one| *group.of(one) == *topology)
    }
}

/// Workers of one kind.
#[derive(Clone, Debug)]
pub struct Workers {
    pub group: Group,
    /// As the topology calls them.
    pub topology: String,
    /// Templates of a MachineDeployment; of a MachinePool the objects themselves.
    pub bootstrap: Value,
    pub infrastructure: Value,
    /// The MachineDeployment or MachinePool.
    pub object: Value,
    pub health_check: Option<Value>,
}

/// What is to be there. Every object is whole in what the topology decides, and says nothing of the rest.
#[derive(Clone, Debug)]
pub struct Desired {
    pub infrastructure: Value,
    pub control_plane_machines: Option<Value>,
    pub control_plane: Value,
    pub control_plane_health_check: Option<Value>,
    pub workers: Vec<Workers>,
    /// Names of MachineDeployments and MachinePools that the topology has no more.
    pub removed: Vec<(Group, String)>,
    pub upgrade: Upgrade,
    pub hooks: Hooks,
}

/// What hooks of runtime extensions have to do with it.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// What the annotation of hooks that are to be called yet is to be; none: it is to be gone.
    pub noted: Option<String>,
    pub blocking: Vec<Blocking>,
}

impl Desired {
    /// In the order in which they are applied.
    pub fn objects(&self) -> Vec<&Value> {
        let mut objects = vec![&self.infrastructure];
        objects.extend(&self.control_plane_machines);
        objects.push(&self.control_plane);
        objects.extend(&self.control_plane_health_check);
        for workers in &self.workers {
            objects.extend([&workers.bootstrap, &workers.infrastructure, &workers.object]);
            objects.extend(&workers.health_check);
        }
        objects
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What the Cluster is to consist of.
///
/// # Errors
/// What is missing or wrong, and in which object.
pub fn desired(seen: &Seen) -> Result<Desired, TopologyError> {
    Generator::new(seen)?.all()
}

/// Whether the control plane of a Cluster has been initialized.
fn is_initialized(cluster: &Value) -> bool {
    let conditions = items(cluster, "/status/conditions");
    conditions.iter().any(|one| one["type"] == "ControlPlaneInitialized" && one["status"] == "True")
}

struct Generator<'a> {
    seen: &'a Seen,
    topology: &'a Value,
    calls: Calls<'a>,
    definitions: Vec<Value>,
    globals: Map<String, Value>,
    upgrade: Upgrade,
}

/// `base-suffix`, with the base cut so that it fits.
fn joined(base: &str, suffix: &str) -> String {
    let end = base.floor_char_boundary(base.len().min(NAME_MAX - suffix.len() - 1));
    format!("{}-{suffix}", base[..end].trim_end_matches(['-', '.']))
}

/// Maps laid over one another: the first wins.
fn over(maps: &[&Value]) -> Map<String, Value> {
    let mut all = Map::new();
    for map in maps.iter().rev() {
        all.extend(map.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    }
    all
}

/// The first that says something.
fn either(own: &Value, class: &Value) -> Option<Value> {
    [own, class].into_iter().find(|value| !value.is_null()).cloned()
}

/// Puts a value where its path leads, unless there is none.
fn put(object: &mut Value, path: &[&str], value: Option<Value>) {
    let Some(value) = value else { return };
    let mut at = object;
    for name in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*name];
    }
    *at = value;
}

/// A template in the version that is stored.
fn hub(object: &Value) -> Result<Value, TopologyError> {
    let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    if !conversion::converts(group, text(object, "/kind")) {
        return Ok(object.clone());
    }
    conversion::convert(object, conversion::HUB).map_err(|error| TopologyError::Template(error.to_string()))
}

fn by_name(variables: &[Value]) -> Map<String, Value> {
    let named = variables
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?.to_owned(), variable["value"].clone())));
    named.collect()
}

impl<'a> Generator<'a> {
    fn new(seen: &'a Seen) -> Result<Self, TopologyError> {
        let topology = &seen.cluster["spec"]["topology"];
        let class = &seen.class;
        let definitions = variables::definitions(class);
        let given = variables::defaulted(&definitions, items(topology, "/variables"), true);
        let wrong = variables::validate(&definitions, &given, &[], true, "spec.topology.variables");
        if let Some(problem) = wrong.first() {
            return Err(TopologyError::Variable(format!("{}: {}", problem.path, problem.detail)));
        }
        let mut globals = by_name(&given);
        globals.insert("builtin".into(), json!({"cluster": cluster_builtin(&seen.cluster)}));
        let mut calls = Calls::of(&seen.runtime, &seen.cluster);
        let spec = &seen.cluster["spec"];
        if spec["infrastructureRef"].is_null() && spec["controlPlaneRef"].is_null() {
            if !calls.passes(Hook::BeforeClusterCreate, json!({}))? {
                return Err(TopologyError::Blocked(calls.blocking));
            }
            calls.expect(&[Hook::AfterControlPlaneInitialized]);
        } else if is_initialized(&seen.cluster) {
            calls.tell_if_noted(Hook::AfterControlPlaneInitialized)?;
        }
        let upgrade = Upgrade::of(seen, &mut calls)?;
        Ok(Self { seen, topology, calls, definitions, globals, upgrade })
    }

    fn cluster_name(&self) -> &str {
        text(&self.seen.cluster, "/metadata/name")
    }

    fn uid(&self) -> &str {
        text(&self.seen.cluster, "/metadata/uid")
    }

    fn all(mut self) -> Result<Desired, TopologyError> {
        let class = &self.seen.class["spec"];
        let mut drafts = vec![
            self.draft(
                &class["infrastructure"]["templateRef"],
                Use::Infrastructure,
                Map::new(),
                self.cluster_holder("spec.infrastructureRef"),
            )?,
            self.draft(
                &class["controlPlane"]["templateRef"],
                Use::ControlPlane,
                self.control_plane_variables()?,
                self.cluster_holder("spec.controlPlaneRef"),
            )?,
        ];
        let machines = &class["controlPlane"]["machineInfrastructure"]["templateRef"];
        if !machines.is_null() {
            let holder = self.machines_holder(&drafts[1].object)?;
            drafts.push(self.draft(machines, Use::ControlPlaneMachines, self.control_plane_variables()?, holder)?);
        }
        let first_of_workers = drafts.len();
        let mut workers = Vec::new();
        let topology = self.topology;
        let each = |group: Group| wanted(topology, group).iter().map(move |own| (group, own));
        for (group, own) in Group::ALL.into_iter().flat_map(each) {
            let found = class_of(class, group, own)?;
            let Some(version) = self.upgrade.workers_version(self.seen, group, own) else { continue };
            let variables = self.worker_variables(group, own, found, &version)?;
            for (part, path) in [("bootstrap", "bootstrap.configRef"), ("infrastructure", "infrastructureRef")] {
                let holder = self.workers_holder(group, own, found, path)?;
                let use_ = Use::Workers(group, text(own, "/class").to_owned());
                drafts.push(self.draft(&found[part]["templateRef"], use_, variables.clone(), holder)?);
            }
            workers.push((group, own, found, version));
        }
        if self.upgrade.is_over()
            && !self.calls.is_pending(Hook::AfterControlPlaneUpgrade)
            && !self.calls.is_pending(Hook::AfterWorkersUpgrade)
        {
            let version = json!({"kubernetesVersion": self.topology["version"]});
            self.calls.passes_if_noted(Hook::AfterClusterUpgrade, version)?;
        }
        patches::apply(&self.seen.class, &mut drafts, &self.globals, &self.seen.runtime)?;
        let mut drafts = drafts.into_iter().map(|draft| hub(&draft.object)).collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut next = || drafts.next().ok_or_else(|| TopologyError::Template("a template was lost".to_owned()));
        let infrastructure = self.infrastructure(&next()?)?;
        let control_plane = next()?;
        let control_plane_machines = match first_of_workers {
            3 => Some(self.template(&next()?, self.cluster_name(), Map::new())),
            _ => None,
        };
        let control_plane = self.control_plane(&control_plane, control_plane_machines.as_ref())?;
        let mut made = Vec::new();
        for (group, own, class, version) in workers {
            made.push(match group {
                Group::Deployments => self.deployment(own, class, &version, &next()?, &next()?)?,
                Group::Pools => self.pool(own, class, &version, &next()?, &next()?)?,
            });
        }
        let mut removed = Vec::new();
        for group in Group::ALL {
            let is_wanted = |one: &&Value| wanted(topology, group).iter().any(|own| own["name"] == *group.of(one));
            let gone = self.seen.workers(group).iter().filter(|one| !is_wanted(one));
            removed.extend(gone.map(|one| (group, text(one, "/metadata/name").to_owned())));
        }
        Ok(Desired {
            control_plane_health_check: self.control_plane_health_check(&control_plane),
            infrastructure,
            control_plane_machines,
            control_plane,
            workers: made,
            removed,
            upgrade: self.upgrade,
            hooks: Hooks { noted: self.calls.noted(), blocking: self.calls.blocking },
        })
    }

    fn draft(
        &self,
        reference: &Value,
        use_: Use,
        variables: Map<String, Value>,
        holder: Value,
    ) -> Result<Draft, TopologyError> {
        let missing = || TopologyError::Template(format!("the ClusterClass names no template for {use_:?}"));
        let reference = Reference::of(reference).ok_or_else(missing)?;
        let object = self.seen.templates.get(&reference).cloned();
        let object = object.ok_or_else(|| {
            TopologyError::Template(format!(
                "{} {} ({}) does not exist",
                reference.kind, reference.name, reference.api_version
            ))
        })?;
        Ok(Draft { use_, object, variables, holder })
    }

    /// Overrides and built-in variables of a part.
    fn own_variables(&self, own: &Value, path: &str) -> Result<Map<String, Value>, TopologyError> {
        let given = variables::defaulted(&self.definitions, items(own, "/variables/overrides"), false);
        let wrong = variables::validate(&self.definitions, &given, &[], false, path);
        match wrong.first() {
            Some(problem) => Err(TopologyError::Variable(format!("{}: {}", problem.path, problem.detail))),
            None => Ok(by_name(&given)),
        }
    }

    fn control_plane_variables(&self) -> Result<Map<String, Value>, TopologyError> {
        let own = &self.topology["controlPlane"];
        let mut variables = self.own_variables(own, "spec.topology.controlPlane.variables.overrides")?;
        let mut builtin = json!({"version": self.upgrade.control_plane, "name": self.control_plane_name()?});
        put(&mut builtin, &["replicas"], either(&own["replicas"], &Value::Null));
        put(&mut builtin, &["metadata"], either(&self.control_plane_metadata(), &Value::Null));
        variables.insert("builtin".into(), json!({ "controlPlane": builtin }));
        Ok(variables)
    }

    fn worker_variables(
        &self,
        group: Group,
        own: &Value,
        class: &Value,
        version: &str,
    ) -> Result<Map<String, Value>, TopologyError> {
        let name = text(own, "/name");
        let path = format!("spec.topology.workers.{}[{name}].variables.overrides", group.list());
        let mut variables = self.own_variables(own, &path)?;
        let mut builtin = json!({
            "version": version, "class": own["class"], "topologyName": name,
            "name": self.workers_name(group, own, class)?,
        });
        put(&mut builtin, &["replicas"], either(&own["replicas"], &Value::Null));
        let (labels, annotations) = self.workers_metadata(group, own, class);
        put(&mut builtin, &["metadata", "labels"], Some(labels.into()));
        put(&mut builtin, &["metadata", "annotations"], (!annotations.is_empty()).then(|| annotations.into()));
        if group == Group::Pools {
            builtin["infrastructureRef"] = json!({"name": self.pool_infrastructure_name(own)});
        }
        let control_plane = json!({"version": self.upgrade.control_plane});
        variables.insert("builtin".into(), json!({group.variable(): builtin, "controlPlane": control_plane}));
        Ok(variables)
    }
}

/// What a topology has of a group.
fn wanted(topology: &Value, group: Group) -> &[Value] {
    items(topology, &format!("/workers/{}", group.list()))
}

/// The class of workers that a topology names.
fn class_of<'a>(class: &'a Value, group: Group, own: &Value) -> Result<&'a Value, TopologyError> {
    let (name, all) = (text(own, "/class"), items(class, &format!("/workers/{}", group.list())));
    all.iter()
        .find(|class| text(class, "/class") == name)
        .ok_or_else(|| TopologyError::Template(format!("the ClusterClass has no {} class {name:?}", group.kind())))
}

fn cluster_builtin(cluster: &Value) -> Value {
    let topology = &cluster["spec"]["topology"];
    let namespace = &cluster["metadata"]["namespace"];
    let class_namespace = either(&topology["classRef"]["namespace"], namespace).unwrap_or_default();
    let network = &cluster["spec"]["clusterNetwork"];
    let mut builtin = json!({
        "name": cluster["metadata"]["name"], "namespace": namespace, "uid": cluster["metadata"]["uid"],
        "topology": {
            "version": topology["version"], "class": topology["classRef"]["name"], "classNamespace": class_namespace,
            "classRef": {"name": topology["classRef"]["name"], "namespace": class_namespace},
        },
    });
    let mut metadata = json!({});
    for part in ["labels", "annotations"] {
        put(&mut metadata, &[part], either(&cluster["metadata"][part], &Value::Null));
    }
    builtin["metadata"] = metadata;
    put(&mut builtin, &["network", "serviceDomain"], either(&network["serviceDomain"], &Value::Null));
    put(&mut builtin, &["network", "services"], either(&network["services"]["cidrBlocks"], &Value::Null));
    put(&mut builtin, &["network", "pods"], either(&network["pods"]["cidrBlocks"], &Value::Null));
    builtin
}

#[cfg(test)]
mod tests;
