//! The objects that a Cluster with a topology consists of: a pure function of its ClusterClass, the templates that the class
//! names, and what is there now.
//!
//! Names follow from what they are names of: a template's from its content, so that one that changes gets another name and
//! what uses it rolls, and everything else's from the Cluster's UID. A crash at any line leaks nothing and doubles nothing.
//!
//! Source: kubernetes-sigs/cluster-api exp/topology/desiredstate.

mod upgrade;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use self::upgrade::{Upgrade, Waiting};
use super::{
    TopologyError,
    patches::{self, Draft, Use},
    template, variables,
};
use crate::{
    conversion,
    names::{
        CLONED_FROM_KIND_ANNOTATION, CLONED_FROM_NAME_ANNOTATION, CLUSTER_LABEL, CONTROL_PLANE_LABEL,
        TOPOLOGY_DEPLOYMENT_LABEL, TOPOLOGY_OWNED_LABEL,
    },
};

/// Letters and digits of suffixes (apimachinery `util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;
/// Content is told apart by more.
const CONTENT_CHARS: usize = 10;
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
    for workers in spec["workers"]["machineDeployments"].as_array().into_iter().flatten() {
        found.extend(Reference::of(&workers["bootstrap"]["templateRef"]));
        found.extend(Reference::of(&workers["infrastructure"]["templateRef"]));
    }
    found.sort();
    found.dedup();
    found
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
    /// Of the workers.
    pub machines: Vec<Value>,
}

/// Workers of one kind.
#[derive(Clone, Debug)]
pub struct Workers {
    /// As the topology calls them.
    pub topology: String,
    pub bootstrap: Value,
    pub infrastructure: Value,
    pub deployment: Value,
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
    /// Names of MachineDeployments that the topology has no more.
    pub removed: Vec<String>,
    pub upgrade: Upgrade,
}

impl Desired {
    /// In the order in which they are applied.
    pub fn objects(&self) -> Vec<&Value> {
        let mut objects = vec![&self.infrastructure];
        objects.extend(&self.control_plane_machines);
        objects.push(&self.control_plane);
        objects.extend(&self.control_plane_health_check);
        for workers in &self.workers {
            objects.extend([&workers.bootstrap, &workers.infrastructure, &workers.deployment]);
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

struct Generator<'a> {
    seen: &'a Seen,
    topology: &'a Value,
    globals: Map<String, Value>,
    upgrade: Upgrade,
}

/// A name for what is made for the cluster: it follows from what decides it.
fn suffix(parts: &[&str], chars: usize) -> String {
    // FNV-1a, and then splitmix64 so that near values are far apart.
    let mut x = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        x = (x ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let mut text = String::with_capacity(chars);
    for _ in 0..chars {
        let letters = ALPHABET.len() as u64;
        text.push(char::from(ALPHABET[(x % letters) as usize]));
        x /= letters;
    }
    text
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

fn definitions(class: &Value) -> &[Value] {
    items(class, "/spec/variables")
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
        let given = variables::defaulted(definitions(class), items(topology, "/variables"), true);
        let wrong = variables::validate(definitions(class), &given, true, "spec.topology.variables");
        if let Some(problem) = wrong.first() {
            return Err(TopologyError::Variable(format!("{}: {}", problem.path, problem.detail)));
        }
        let mut globals = by_name(&given);
        globals.insert("builtin".into(), json!({"cluster": cluster_builtin(&seen.cluster)}));
        let upgrade = Upgrade::of(seen)?;
        Ok(Self { seen, topology, globals, upgrade })
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
            self.draft(&class["infrastructure"]["templateRef"], Use::Infrastructure, Map::new())?,
            self.draft(&class["controlPlane"]["templateRef"], Use::ControlPlane, self.control_plane_variables()?)?,
        ];
        let machines = &class["controlPlane"]["machineInfrastructure"]["templateRef"];
        if !machines.is_null() {
            drafts.push(self.draft(machines, Use::ControlPlaneMachines, self.control_plane_variables()?)?);
        }
        let first_of_workers = drafts.len();
        let mut workers = Vec::new();
        for own in items(self.topology, "/workers/machineDeployments") {
            let name = text(own, "/class");
            let all = items(class, "/workers/machineDeployments");
            let found = all.iter().find(|class| text(class, "/class") == name).ok_or_else(|| {
                TopologyError::Template(format!("the ClusterClass has no MachineDeployment class {name:?}"))
            })?;
            let Some(version) = self.upgrade.workers_version(self.seen, own) else { continue };
            let variables = self.worker_variables(own, &version)?;
            for part in ["bootstrap", "infrastructure"] {
                drafts.push(self.draft(
                    &found[part]["templateRef"],
                    Use::Deployment(name.to_owned()),
                    variables.clone(),
                )?);
            }
            workers.push((own, found, version));
        }
        patches::apply(items(class, "/patches"), &mut drafts, &self.globals)?;
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
        for (own, class, version) in workers {
            made.push(self.workers(own, class, &version, &next()?, &next()?)?);
        }
        let wanted = items(self.topology, "/workers/machineDeployments");
        let is_wanted = |deployment: &&Value| {
            let name = &deployment["metadata"]["labels"][TOPOLOGY_DEPLOYMENT_LABEL];
            wanted.iter().any(|own| own["name"] == *name)
        };
        let removed = self.seen.deployments.iter().filter(|one| !is_wanted(one));
        Ok(Desired {
            control_plane_health_check: self.control_plane_health_check(&control_plane),
            infrastructure,
            control_plane_machines,
            control_plane,
            workers: made,
            removed: removed.map(|one| text(one, "/metadata/name").to_owned()).collect(),
            upgrade: self.upgrade,
        })
    }

    fn draft(&self, reference: &Value, use_: Use, variables: Map<String, Value>) -> Result<Draft, TopologyError> {
        let missing = || TopologyError::Template(format!("the ClusterClass names no template for {use_:?}"));
        let reference = Reference::of(reference).ok_or_else(missing)?;
        let object = self.seen.templates.get(&reference).cloned();
        let object = object.ok_or_else(|| {
            TopologyError::Template(format!(
                "{} {} ({}) does not exist",
                reference.kind, reference.name, reference.api_version
            ))
        })?;
        Ok(Draft { use_, object, variables })
    }

    /// Overrides and built-in variables of a part.
    fn own_variables(&self, own: &Value, path: &str) -> Result<Map<String, Value>, TopologyError> {
        let class = &self.seen.class;
        let given = variables::defaulted(definitions(class), items(own, "/variables/overrides"), false);
        let wrong = variables::validate(definitions(class), &given, false, path);
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

    fn worker_variables(&self, own: &Value, version: &str) -> Result<Map<String, Value>, TopologyError> {
        let name = text(own, "/name");
        let path = format!("spec.topology.workers.machineDeployments[{name}].variables.overrides");
        let mut variables = self.own_variables(own, &path)?;
        let mut builtin = json!({"version": version, "class": own["class"], "topologyName": name});
        if let Some(current) =
            self.seen.deployments.iter().find(|one| one["metadata"]["labels"][TOPOLOGY_DEPLOYMENT_LABEL] == *name)
        {
            builtin["name"] = current["metadata"]["name"].clone();
        }
        put(&mut builtin, &["replicas"], either(&own["replicas"], &Value::Null));
        put(&mut builtin, &["metadata"], either(&own["metadata"], &Value::Null));
        let control_plane = json!({"version": self.upgrade.control_plane});
        variables.insert("builtin".into(), json!({"machineDeployment": builtin, "controlPlane": control_plane}));
        Ok(variables)
    }

    fn owner(&self) -> Value {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": self.cluster_name(), "uid": self.uid(),
            "controller": true, "blockOwnerDeletion": true,
        })
    }

    /// Labels of everything that the topology owns.
    fn labels(&self) -> Map<String, Value> {
        Map::from_iter([
            (CLUSTER_LABEL.to_owned(), self.cluster_name().into()),
            (TOPOLOGY_OWNED_LABEL.to_owned(), "".into()),
        ])
    }

    fn object(
        &self,
        like: &Value,
        kind: &str,
        name: &str,
        labels: Map<String, Value>,
        annotations: Map<String, Value>,
        spec: Value,
    ) -> Value {
        let mut all = labels;
        all.extend(self.labels());
        let mut metadata =
            json!({"name": name, "namespace": self.seen.cluster["metadata"]["namespace"], "labels": all});
        if !annotations.is_empty() {
            metadata["annotations"] = annotations.into();
        }
        json!({"apiVersion": like["apiVersion"], "kind": kind, "metadata": metadata, "spec": spec})
    }

    /// Where an object was made from.
    fn cloned(template: &Value) -> Map<String, Value> {
        let group = text(template, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
        Map::from_iter([
            (CLONED_FROM_NAME_ANNOTATION.to_owned(), template["metadata"]["name"].clone()),
            (CLONED_FROM_KIND_ANNOTATION.to_owned(), format!("{}.{group}", text(template, "/kind")).into()),
        ])
    }

    /// A name by the class' naming template, or by the usual one.
    fn name(&self, template: &Value, usual: &str, data: Value, random: &str) -> Result<String, TopologyError> {
        let Some(text) = template["template"].as_str().filter(|text| !text.is_empty()) else {
            return Ok(joined(usual, random));
        };
        let mut data = data;
        data["cluster"] = json!({"name": self.cluster_name()});
        data["random"] = random.into();
        let name = template::render(text, &data)
            .map_err(|error| TopologyError::Template(format!("naming template: {error}")))?;
        Ok(if name.len() <= NAME_MAX { name } else { joined(&name, &suffix(&[&name], SUFFIX_CHARS)) })
    }

    fn infrastructure(&self, template: &Value) -> Result<Value, TopologyError> {
        let known = text(&self.seen.cluster, "/spec/infrastructureRef/name");
        let random = suffix(&[self.uid(), "infrastructure"], SUFFIX_CHARS);
        let name = match known {
            "" => self.name(
                &self.seen.class["spec"]["infrastructure"]["naming"],
                self.cluster_name(),
                json!({}),
                &random,
            )?,
            known => known.to_owned(),
        };
        Ok(self.made_from(template, &name))
    }

    fn made_from(&self, template: &Value, name: &str) -> Value {
        let inner = &template["spec"]["template"];
        let kind = text(template, "/kind").trim_end_matches("Template");
        let mut annotations = over(&[&inner["metadata"]["annotations"]]);
        annotations.extend(Self::cloned(template));
        let labels = over(&[&inner["metadata"]["labels"]]);
        let mut object = self.object(
            template,
            kind,
            name,
            labels,
            annotations,
            either(&inner["spec"], &json!({})).unwrap_or_default(),
        );
        object["metadata"]["ownerReferences"] = json!([self.owner()]);
        object
    }

    /// A template for machines: its name follows from what is in it, and from nothing else that a move would change.
    fn template(&self, template: &Value, base: &str, labels: Map<String, Value>) -> Value {
        let mut object = self.object(
            template,
            text(template, "/kind"),
            "",
            labels,
            Self::cloned(template),
            template["spec"].clone(),
        );
        let content = json!([object["apiVersion"], object["kind"], object["spec"]]).to_string();
        object["metadata"]["name"] = joined(base, &suffix(&[&content], CONTENT_CHARS)).into();
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": self.cluster_name(), "uid": self.uid(),
        }]);
        object
    }

    fn control_plane_name(&self) -> Result<String, TopologyError> {
        let known = text(&self.seen.cluster, "/spec/controlPlaneRef/name");
        if !known.is_empty() {
            return Ok(known.to_owned());
        }
        let random = suffix(&[self.uid(), "control-plane"], SUFFIX_CHARS);
        self.name(&self.seen.class["spec"]["controlPlane"]["naming"], self.cluster_name(), json!({}), &random)
    }

    fn control_plane_metadata(&self) -> Value {
        let (own, class) =
            (&self.topology["controlPlane"]["metadata"], &self.seen.class["spec"]["controlPlane"]["metadata"]);
        json!({"labels": over(&[&own["labels"], &class["labels"]]), "annotations": over(&[&own["annotations"], &class["annotations"]])})
    }

    fn control_plane(&self, template: &Value, machines: Option<&Value>) -> Result<Value, TopologyError> {
        let (own, class) = (&self.topology["controlPlane"], &self.seen.class["spec"]["controlPlane"]);
        let metadata = self.control_plane_metadata();
        let mut object = self.made_from(template, &self.control_plane_name()?);
        for part in ["labels", "annotations"] {
            let all = over(&[&object["metadata"][part], &metadata[part]]);
            put(&mut object, &["metadata", part], (!all.is_empty()).then(|| all.into()));
        }
        let spec = &mut object["spec"];
        put(spec, &["version"], Some(self.upgrade.control_plane.clone().into()));
        put(spec, &["replicas"], either(&own["replicas"], &Value::Null));
        put(spec, &["rollout", "after"], either(&own["rollout"]["after"], &Value::Null));
        if let Some(machines) = machines {
            let group = text(machines, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
            let reference = json!({"apiGroup": group, "kind": machines["kind"], "name": machines["metadata"]["name"]});
            put(spec, &["machineTemplate", "spec", "infrastructureRef"], Some(reference));
            let given = spec["machineTemplate"]["metadata"].clone();
            let labels = over(&[&self.labels().into(), &metadata["labels"], &given["labels"]]);
            let annotations = over(&[&metadata["annotations"], &given["annotations"]]);
            put(spec, &["machineTemplate", "metadata", "labels"], Some(labels.into()));
            put(
                spec,
                &["machineTemplate", "metadata", "annotations"],
                (!annotations.is_empty()).then(|| annotations.into()),
            );
        }
        for field in ["readinessGates", "taints"] {
            put(spec, &["machineTemplate", "spec", field], either(&own[field], &class[field]));
        }
        for field in TIMEOUTS {
            put(
                spec,
                &["machineTemplate", "spec", "deletion", field],
                either(&own["deletion"][field], &class["deletion"][field]),
            );
        }
        Ok(object)
    }

    fn workers(
        &self,
        own: &Value,
        class: &Value,
        version: &str,
        bootstrap: &Value,
        infrastructure: &Value,
    ) -> Result<Workers, TopologyError> {
        let topology = text(own, "/name");
        let label = || Map::from_iter([(TOPOLOGY_DEPLOYMENT_LABEL.to_owned(), Value::from(topology))]);
        let base = format!("{}-{topology}", self.cluster_name());
        let (bootstrap, infrastructure) =
            (self.template(bootstrap, &base, label()), self.template(infrastructure, &base, label()));
        let current =
            self.seen.deployments.iter().find(|one| one["metadata"]["labels"][TOPOLOGY_DEPLOYMENT_LABEL] == *topology);
        let name = match current {
            Some(current) => text(current, "/metadata/name").to_owned(),
            None => {
                let random = suffix(&[self.uid(), "deployment", topology], SUFFIX_CHARS);
                self.name(&class["naming"], &base, json!({"machineDeployment": {"topologyName": topology}}), &random)?
            }
        };
        let mut labels = over(&[&own["metadata"]["labels"], &class["metadata"]["labels"]]);
        labels.extend(label());
        labels.extend(self.labels());
        let mut annotations = over(&[&own["metadata"]["annotations"], &class["metadata"]["annotations"]]);
        annotations.retain(|name, _| !upgrade::STEERING.contains(&name.as_str()));
        let mut selector = label();
        selector.extend(self.labels());
        let reference = |template: &Value| {
            let group = text(template, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
            json!({"apiGroup": group, "kind": template["kind"], "name": template["metadata"]["name"]})
        };
        let mut machine = json!({
            "clusterName": self.cluster_name(), "version": version,
            "bootstrap": {"configRef": reference(&bootstrap)}, "infrastructureRef": reference(&infrastructure),
        });
        for field in ["failureDomain", "minReadySeconds", "readinessGates", "taints"] {
            put(&mut machine, &[field], either(&own[field], &class[field]));
        }
        for field in TIMEOUTS {
            put(&mut machine, &["deletion", field], either(&own["deletion"][field], &class["deletion"][field]));
        }
        let mut metadata = json!({ "labels": labels });
        put(&mut metadata, &["annotations"], (!annotations.is_empty()).then(|| annotations.clone().into()));
        let mut spec = json!({
            "clusterName": self.cluster_name(), "selector": {"matchLabels": selector},
            "template": {"metadata": metadata, "spec": machine},
        });
        put(&mut spec, &["replicas"], either(&own["replicas"], &Value::Null));
        put(&mut spec, &["rollout", "after"], either(&own["rollout"]["after"], &Value::Null));
        put(&mut spec, &["rollout", "strategy"], either(&own["rollout"]["strategy"], &class["rollout"]["strategy"]));
        put(&mut spec, &["deletion", "order"], either(&own["deletion"]["order"], &class["deletion"]["order"]));
        let (own_health, class_health) = (&own["healthCheck"]["remediation"], &class["healthCheck"]["remediation"]);
        put(
            &mut spec,
            &["remediation", "maxInFlight"],
            either(&own_health["maxInFlight"], &class_health["maxInFlight"]),
        );
        let like = json!({"apiVersion": "cluster.x-k8s.io/v1beta2"});
        let mut deployment = self.object(&like, "MachineDeployment", &name, labels, annotations, spec);
        deployment["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": self.cluster_name(), "uid": self.uid(),
            "controller": false, "blockOwnerDeletion": true,
        }]);
        let health_check = self.health_check(&name, selector, &own["healthCheck"], &class["healthCheck"]);
        Ok(Workers { topology: topology.to_owned(), bootstrap, infrastructure, deployment, health_check })
    }

    fn control_plane_health_check(&self, control_plane: &Value) -> Option<Value> {
        let (own, class) = (&self.topology["controlPlane"], &self.seen.class["spec"]["controlPlane"]);
        let selector = Map::from_iter([
            (CLUSTER_LABEL.to_owned(), self.cluster_name().into()),
            (CONTROL_PLANE_LABEL.to_owned(), "".into()),
        ]);
        self.health_check(text(control_plane, "/metadata/name"), selector, &own["healthCheck"], &class["healthCheck"])
    }

    /// The topology's own checks take the place of the class', unless they are switched off.
    fn health_check(&self, name: &str, selector: Map<String, Value>, own: &Value, class: &Value) -> Option<Value> {
        let is_given = |health: &Value| !health["checks"].is_null() || !health["remediation"].is_null();
        let health = if is_given(own) { own } else { class };
        if own["enabled"] == false || !is_given(health) {
            return None;
        }
        let mut spec = json!({"clusterName": self.cluster_name(), "selector": {"matchLabels": selector}});
        put(&mut spec, &["checks"], either(&health["checks"], &Value::Null));
        for field in ["triggerIf", "templateRef"] {
            put(&mut spec, &["remediation", field], either(&health["remediation"][field], &Value::Null));
        }
        let like = json!({"apiVersion": "cluster.x-k8s.io/v1beta2"});
        let mut object = self.object(&like, "MachineHealthCheck", name, Map::new(), Map::new(), spec);
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": self.cluster_name(), "uid": self.uid(),
        }]);
        Some(object)
    }
}

const TIMEOUTS: [&str; 3] = ["nodeDrainTimeoutSeconds", "nodeVolumeDetachTimeoutSeconds", "nodeDeletionTimeoutSeconds"];

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
