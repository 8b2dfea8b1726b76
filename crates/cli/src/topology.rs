//! `skep topology plan`: what a topology would make, change, roll and delete, told before it is applied.
//!
//! It is computed as the topology controller does it, by the same pure function, from what is in the file and what is in
//! the management cluster. Extensions are asked as there, from here.

mod ask;

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use anyhow::{Context, Result, bail};
use api::{
    conversion,
    names::{CLUSTER_LABEL, TOPOLOGY_OWNED_LABEL},
    topology::desired::{self, Desired, Group, Reference, Waiting},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde_json::Value;

use crate::{
    DONE, FAILED, Target,
    output::{self, Colour},
};

/// A file may be so long.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Changes of one object that are told.
const CHANGES_MAX: usize = 20;

#[derive(clap::Args)]
pub struct Topology {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Show what would be made, changed, rolled and deleted if a file were applied
    Plan(Arguments),
}

#[derive(clap::Args)]
struct Arguments {
    /// File with Clusters, ClusterClasses and templates, in YAML or JSON
    #[arg(short, long)]
    filename: PathBuf,
    #[command(flatten)]
    target: Target,
}

/// What is in the file, over what is in the management cluster.
struct World {
    client: Client,
    /// By kind, namespace and name.
    given: BTreeMap<(String, String, String), Value>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The object in the version that is stored, if it is of a kind that has several.
fn hub(object: &Value) -> Value {
    conversion::convert(object, conversion::HUB).unwrap_or_else(|_| object.clone())
}

pub async fn run(topology: Topology) -> Result<u8> {
    let What::Plan(arguments) = topology.what;
    let path = arguments.filename.display();
    let file = std::fs::read_to_string(&arguments.filename).with_context(|| format!("read {path}"))?;
    if file.len() > FILE_BYTES_MAX {
        bail!("{path} has more than {FILE_BYTES_MAX} bytes");
    }
    let namespace = &arguments.target.namespace;
    let given = read(&file, namespace).with_context(|| format!("read {path}"))?;
    let world = World { client: arguments.target.client().await?, given };
    let clusters = world.clusters(namespace).await?;
    if clusters.is_empty() {
        output::progress("nothing in the file is a Cluster with a topology, or a ClusterClass that one has");
    }
    let mut code = DONE;
    let mut extensions = ask::Extensions::read(&world.client).await?;
    for cluster in clusters {
        let (mut seen, there) = world.seen(cluster).await?;
        let namespace = text(&seen.cluster, "/metadata/namespace").to_owned();
        output::line(&format!("Cluster {namespace}/{}", text(&seen.cluster, "/metadata/name")));
        seen.runtime = extensions.runtime(&namespace).await?;
        let found = match world.is_given(&seen.class) {
            true => ask::discover(&mut extensions, &mut seen.class).await?,
            false => Ok(()),
        };
        let cannot = |why: &str| output::line(&output::coloured(&format!("  cannot be: {why}"), Colour::Red));
        if let Err(why) = found {
            cannot(&why);
            code = FAILED;
            continue;
        }
        let computed = extensions.desired(&mut seen).await;
        for hook in computed.hooks {
            let line = format!("  . hook   {hook} of extensions is called then; not now");
            output::line(&output::coloured(&line, Colour::Faint));
        }
        match computed.desired {
            Ok(desired) => output::line(&told(&seen, &desired, &there)),
            Err(error) => {
                cannot(&error.to_string());
                code = FAILED;
            }
        }
    }
    Ok(code)
}

type Given = BTreeMap<(String, String, String), Value>;

fn read(file: &str, namespace: &str) -> Result<Given> {
    let mut given = Given::new();
    let documents: Vec<Value> = serde_saphyr::from_multiple(file)?;
    for mut object in documents.into_iter().filter(Value::is_object) {
        if text(&object, "/metadata/namespace").is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        let key = ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(&object, pointer).to_owned());
        let [kind, namespace, name] = key;
        given.insert((kind, namespace, name), object);
    }
    Ok(given)
}

impl World {
    async fn live(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource(api_version, kind));
        let found = api.get_opt(name).await.with_context(|| format!("read {kind} {namespace}/{name}"))?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    async fn list(&self, api_version: &str, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource(api_version, kind));
        let found = api.list(&ListParams::default().labels(labels)).await;
        let found = found.with_context(|| format!("list {kind} in {namespace}"))?;
        found
            .items
            .into_iter()
            .map(|mut one| {
                one.types = Some(kube::core::TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() });
                Ok(serde_json::to_value(one)?)
            })
            .collect()
    }

    /// Whether the object is the file's: the management cluster says nothing of it yet.
    fn is_given(&self, object: &Value) -> bool {
        let [kind, namespace, name] = ["/kind", "/metadata/namespace", "/metadata/name"].map(|at| text(object, at));
        self.given(kind, namespace, name).is_some()
    }

    fn given(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.given.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    /// The Clusters of the file, and those that have a class or use a template of it.
    async fn clusters(&self, namespace: &str) -> Result<Vec<Value>> {
        let mut clusters = Vec::new();
        for ((_, namespace, name), given) in self.given.iter().filter(|((kind, _, _), _)| kind == "Cluster") {
            let mut cluster = hub(given);
            let live = self.live("cluster.x-k8s.io/v1beta2", "Cluster", namespace, name).await?;
            if let Some(live) = live {
                // What others decide stays as it is.
                cluster["metadata"]["uid"] = live["metadata"]["uid"].clone();
                for field in ["infrastructureRef", "controlPlaneRef"] {
                    cluster["spec"][field] = live["spec"][field].clone();
                }
            }
            clusters.push(cluster);
        }
        for live in self.list("cluster.x-k8s.io/v1beta2", "Cluster", namespace, "").await? {
            let known = clusters.iter().any(|cluster| cluster["metadata"]["name"] == live["metadata"]["name"]);
            if !known && self.given.keys().any(|(kind, _, _)| kind != "Cluster") {
                clusters.push(live);
            }
        }
        clusters.retain(|cluster| cluster["spec"]["topology"].is_object());
        Ok(clusters)
    }

    async fn template(&self, reference: &Reference, namespace: &str) -> Result<Option<Value>> {
        let version = reference.api_version.split_once('/').map_or("", |(_, version)| version);
        match self.given(&reference.kind, namespace, &reference.name) {
            Some(given) => Ok(Some(conversion::convert(given, version).unwrap_or_else(|_| given.clone()))),
            None => self.live(&reference.api_version, &reference.kind, namespace, &reference.name).await,
        }
    }

    /// What decides, and what is there of it, by kind and name.
    async fn seen(&self, cluster: Value) -> Result<(desired::Seen, BTreeMap<(String, String), Value>)> {
        const CORE: &str = "cluster.x-k8s.io/v1beta2";
        let (namespace, name) = (text(&cluster, "/metadata/namespace").to_owned(), text(&cluster, "/metadata/name"));
        let class_ref = &cluster["spec"]["topology"]["classRef"];
        let class_namespace = class_ref["namespace"].as_str().unwrap_or(&namespace);
        let class_name = text(class_ref, "/name");
        let class = match self.given("ClusterClass", class_namespace, class_name) {
            Some(given) => Some(hub(given)),
            None => self.live(CORE, "ClusterClass", class_namespace, class_name).await?,
        };
        let class = class.with_context(|| format!("there is no ClusterClass {class_namespace}/{class_name}"))?;
        let mut templates = BTreeMap::new();
        for reference in desired::references(&class) {
            if let Some(template) = self.template(&reference, class_namespace).await? {
                templates.insert(reference, template);
            }
        }
        let labels = format!("{CLUSTER_LABEL}={name},{TOPOLOGY_OWNED_LABEL}");
        let deployments = self.list(CORE, "MachineDeployment", &namespace, &labels).await?;
        let pools = self.list(CORE, "MachinePool", &namespace, &labels).await?;
        let mut machines = Vec::new();
        for group in Group::ALL {
            let workers = format!("{labels},{}", group.label());
            machines.extend(self.list(CORE, "Machine", &namespace, &workers).await?);
        }
        let mut there = BTreeMap::new();
        let mut known = |object: &Value| {
            there.insert((text(object, "/kind").to_owned(), text(object, "/metadata/name").to_owned()), object.clone());
        };
        deployments.iter().chain(&pools).for_each(&mut known);
        let mut control_plane = None;
        for field in ["infrastructureRef", "controlPlaneRef"] {
            let reference = &cluster["spec"][field];
            if let Some(group) = reference["apiGroup"].as_str() {
                let version = format!("{group}/{}", conversion::HUB);
                let found = self.live(&version, text(reference, "/kind"), &namespace, text(reference, "/name")).await?;
                found.iter().for_each(&mut known);
                control_plane = if field == "controlPlaneRef" { found } else { None };
            }
        }
        let mut kinds: Vec<(String, String)> = templates
            .keys()
            .map(|reference| (format!("{}/{}", reference.group(), conversion::HUB), reference.kind.clone()))
            .collect();
        kinds.push((CORE.to_owned(), "MachineHealthCheck".to_owned()));
        kinds.dedup();
        // A pool names objects.
        for class in class.pointer("/spec/workers/machinePools").and_then(Value::as_array).into_iter().flatten() {
            for part in ["bootstrap", "infrastructure"] {
                let reference = &class[part]["templateRef"];
                let group = text(reference, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
                let kind = text(reference, "/kind").trim_end_matches("Template").to_owned();
                let found = (format!("{group}/{}", conversion::HUB), kind);
                if !kinds.contains(&found) {
                    kinds.push(found);
                }
            }
        }
        for (api_version, kind) in kinds {
            self.list(&api_version, &kind, &namespace, &labels).await?.iter().for_each(&mut known);
        }
        // Extensions are asked later, of what is seen here.
        let runtime = Default::default();
        Ok((desired::Seen { cluster, class, templates, control_plane, deployments, pools, machines, runtime }, there))
    }
}

/// The plan as a person reads it.
fn told(seen: &desired::Seen, desired: &Desired, there: &BTreeMap<(String, String), Value>) -> String {
    let is_new = text(&seen.cluster, "/metadata/uid").is_empty();
    let mut out = String::new();
    let mut same = 0;
    let mut say = |sign: &str, colour: Colour, text: &str| {
        let _ = writeln!(out, "  {}", output::coloured(&format!("{sign} {text}"), colour));
    };
    for object in desired.objects() {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        // Names end in what follows from the UID.
        let shown = if is_new {
            name.rsplit_once('-').map_or(name.to_owned(), |(base, _)| format!("{base}-*"))
        } else {
            name.to_owned()
        };
        let Some(live) = there.get(&(kind.to_owned(), name.to_owned())) else {
            say("+", Colour::Green, &format!("create {kind} {shown}"));
            continue;
        };
        let mut changes = Vec::new();
        differences(&object["spec"], &live["spec"], "spec", &mut changes);
        if changes.is_empty() {
            same += 1;
            continue;
        }
        say("~", Colour::Yellow, &format!("change {kind} {shown}{}", rolls(kind, &changes, live)));
        for change in changes.iter().take(CHANGES_MAX) {
            say(" ", Colour::Faint, &format!("    {change}"));
        }
        if changes.len() > CHANGES_MAX {
            say(" ", Colour::Faint, &format!("    and {} more", changes.len() - CHANGES_MAX));
        }
    }
    for (group, name) in &desired.removed {
        let kind = group.kind();
        let machines = there.get(&(kind.to_owned(), name.clone())).map_or(0, replicas);
        say("-", Colour::Red, &format!("delete {kind} {name} with its {machines} machines"));
    }
    for waiting in &desired.upgrade.waiting {
        let text = match waiting {
            Waiting::ControlPlane { from, to, on } => format!("wait   control plane, from {from} to {to}: {on}"),
            Waiting::Create { group, topology, on } => {
                format!("wait   {} {topology} is made later: {on}", group.kind())
            }
            Waiting::Workers { group, topology, to, on, .. } => {
                format!("wait   {} {topology} goes to {to} later: {on}", group.kind())
            }
            Waiting::Deferred { group, topology, to, .. } => {
                format!("wait   {} {topology} goes to {to} when its annotation is gone", group.kind())
            }
        };
        say(".", Colour::Faint, &text);
    }
    let _ = write!(out, "  {same} objects stay as they are");
    out
}

fn replicas(object: &Value) -> i64 {
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    count("/spec/replicas").or_else(|| count("/status/replicas")).unwrap_or(1)
}

/// Whether machines are replaced, and how many.
fn rolls(kind: &str, changes: &[String], live: &Value) -> String {
    let parts: &[&str] = match kind {
        "MachineDeployment" => &[
            "spec.template.spec.version",
            "spec.template.spec.bootstrap",
            "spec.template.spec.infrastructureRef",
            "spec.template.spec.failureDomain",
        ],
        "MachinePool" => {
            &["spec.template.spec.version", "spec.template.spec.bootstrap", "spec.template.spec.infrastructureRef"]
        }
        // The infrastructure's, of any provider.
        pool if pool.ends_with("MachinePool") => &["spec.template"],
        "KubeadmControlPlane" => &[
            "spec.version",
            "spec.kubeadmConfigSpec",
            "spec.machineTemplate.spec.infrastructureRef",
            "spec.rollout.after",
        ],
        _ => &[],
    };
    match changes.iter().any(|change| parts.iter().any(|part| change.starts_with(part))) {
        true => format!(": its {} machines are replaced", replicas(live)),
        false => String::new(),
    }
}

/// What is wanted and is not so, a line each.
fn differences(wanted: &Value, live: &Value, path: &str, found: &mut Vec<String>) {
    match (wanted, live) {
        (Value::Object(wanted), live) if live.is_object() || live.is_null() => {
            for (name, value) in wanted {
                differences(value, &live[name.as_str()], &format!("{path}.{name}"), found);
            }
        }
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            for (index, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                differences(wanted, live, &format!("{path}[{index}]"), found);
            }
        }
        (Value::Array(wanted), Value::Null) if wanted.is_empty() => {}
        (wanted, live) if wanted == live || wanted.is_null() => {}
        (wanted, Value::Null) => found.push(format!("{path}: {wanted}")),
        (wanted, live) => found.push(format!("{path}: {live} -> {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_read_document_by_document() {
        let file =
            "kind: Cluster\nmetadata: {name: a}\n---\n---\nkind: ClusterClass\nmetadata: {name: b, namespace: org}\n";
        let given = read(file, "default").unwrap();
        let keys: Vec<_> = given.keys().map(|(kind, namespace, name)| format!("{kind} {namespace}/{name}")).collect();
        assert_eq!(keys, ["Cluster default/a", "ClusterClass org/b"]);
    }

    #[test]
    fn only_what_is_wanted_counts_as_a_difference() {
        let live = json!({"version": "v1.34.2", "replicas": 3, "list": [{"a": 1, "b": 2}]});
        let mut found = Vec::new();
        differences(
            &json!({"version": "v1.35.0", "list": [{"a": 1}], "new": {"x": true}, "none": []}),
            &live,
            "spec",
            &mut found,
        );
        assert_eq!(found, ["spec.new.x: true", r#"spec.version: "v1.34.2" -> "v1.35.0""#]);
        let live = json!({"spec": {"replicas": 3}});
        assert_eq!(rolls("KubeadmControlPlane", &found, &live), ": its 3 machines are replaced");
        let pool = ["spec.template.spec.version: a -> b".to_owned()];
        assert_eq!(rolls("MachinePool", &pool, &live), ": its 3 machines are replaced");
        assert_eq!(rolls("OpenStackCluster", &found, &live), "");
    }
}
