//! Which objects go, and in which order: owners before what they own.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use api::names::MOVE_LABEL;
use kube::{
    api::{ApiResource, DynamicObject},
    core::ObjectMeta,
};

use super::discovery::HIERARCHY_LABEL;

#[derive(Clone, Debug)]
pub struct Kind {
    pub resource: ApiResource,
    /// In no namespace.
    pub global: bool,
    /// All objects of the kind go, whoever owns them.
    pub moves: bool,
    /// Objects of the kind go with all that they own.
    pub is_root: bool,
}

#[derive(Clone, Debug)]
pub struct Found {
    pub kind: Kind,
    pub object: DynamicObject,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub object: DynamicObject,
    /// Copied, and not deleted here: others may need it.
    pub stays: bool,
    /// Indexes of the owners, and of what is needed first without being an owner.
    owners: Vec<usize>,
}

impl Node {
    pub fn meta(&self) -> &ObjectMeta {
        &self.object.metadata
    }

    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.kind.resource.group == group && self.kind.resource.kind == kind
    }

    pub fn is_cluster(&self) -> bool {
        self.is("cluster.x-k8s.io", "Cluster")
    }

    pub fn told(&self) -> String {
        format!("{}/{}", self.kind.resource.kind, self.name())
    }

    fn has_label(&self, key: &str) -> bool {
        self.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(key))
    }
}

/// What is moved, in groups: all owners of an object are in earlier groups.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    groups: Vec<Vec<usize>>,
}

impl Graph {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn len(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    pub fn groups(&self) -> impl DoubleEndedIterator<Item = Vec<&Node>> {
        self.groups.iter().map(|group| group.iter().filter_map(|index| self.nodes.get(*index)).collect())
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.groups().flatten()
    }

    /// Names of the clusters.
    pub fn clusters(&self) -> Vec<String> {
        self.nodes().filter(|node| node.is_cluster()).map(|node| node.name().to_owned()).collect()
    }

    pub fn is_covered_by(&self, uids: &BTreeMap<String, String>) -> bool {
        self.nodes().all(|node| uids.contains_key(node.uid()))
    }
}

/// Builds the graph. `only`: one cluster. `used_elsewhere`: classes that clusters of other namespaces need.
pub fn build(found: Vec<Found>, only: Option<&str>, used_elsewhere: &BTreeSet<String>) -> Result<Graph> {
    let mut nodes: Vec<Node> = found
        .into_iter()
        .map(|Found { kind, object }| Node { kind, object, stays: false, owners: Vec::new() })
        .collect();
    connect(&mut nodes);
    let cluster = |node: &Node| node.is_cluster() && only.is_none_or(|only| node.name() == only);
    if let Some(only) = only
        && !nodes.iter().any(cluster)
        && nodes.iter().any(Node::is_cluster)
    {
        bail!("there is no Cluster {only} here: it may have been moved already");
    }
    let is_root = |node: &Node| node.kind.is_root || node.has_label(HIERARCHY_LABEL);
    let is_forced = |node: &Node| node.kind.moves || node.has_label(MOVE_LABEL);
    let all = |wanted: &dyn Fn(&Node) -> bool| {
        let indexes = nodes.iter().enumerate().filter(|(_, node)| wanted(node)).map(|(index, _)| index);
        indexes.collect::<BTreeSet<usize>>()
    };
    let own = descend(&nodes, all(&cluster));
    let others = match only {
        Some(_) => descend(&nodes, all(&|node| node.is_cluster() && !cluster(node))),
        None => BTreeSet::new(),
    };
    let mut taken = descend(&nodes, all(&|node| is_root(node) && (only.is_none() || !node.is_cluster())));
    taken.extend(all(&is_forced));
    taken.extend(&own);
    taken.retain(|index| !others.contains(index) || own.contains(index));
    let elsewhere = descend_owned(
        &nodes,
        all(&|node| node.is("cluster.x-k8s.io", "ClusterClass") && used_elsewhere.contains(node.name())),
    );
    for (index, node) in nodes.iter_mut().enumerate() {
        let shared = only.is_some() && !own.contains(&index);
        node.stays = node.kind.global || shared || elsewhere.contains(&index);
    }
    let groups = sequence(&nodes, &taken)?;
    Ok(Graph { nodes, groups })
}

/// Finds the owners of each object: by reference, and by what it is named or says.
fn connect(nodes: &mut [Node]) {
    let by_uid: BTreeMap<String, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.uid().to_owned(), index)).collect();
    let named = |kind: &str| -> BTreeMap<String, usize> {
        let of_kind = nodes.iter().enumerate().filter(|(_, node)| node.is("cluster.x-k8s.io", kind));
        of_kind.map(|(index, node)| (node.name().to_owned(), index)).collect()
    };
    let (clusters, classes) = (named("Cluster"), named("ClusterClass"));
    let owners = |node: &Node| -> Vec<usize> {
        let references = node.meta().owner_references.iter().flatten();
        let mut owners: Vec<usize> = references.filter_map(|owner| by_uid.get(&owner.uid).copied()).collect();
        let text = |pointer: &str| node.object.data.pointer(pointer).and_then(|value| value.as_str());
        // A secret of the user's: `<cluster>-ca`.
        if node.is("", "Secret") && node.meta().owner_references.as_ref().is_none_or(Vec::is_empty) {
            const PURPOSES: [&str; 6] = ["ca", "etcd", "proxy", "sa", "apiserver-etcd-client", "kubeconfig"];
            let of = PURPOSES.iter().filter_map(|purpose| node.name().strip_suffix(purpose)?.strip_suffix('-'));
            owners.extend(of.filter_map(|cluster| clusters.get(cluster)));
        }
        if node.is_cluster()
            && text("/spec/topology/classRef/namespace").is_none_or(|of| Some(of) == node.meta().namespace.as_deref())
        {
            owners.extend(text("/spec/topology/classRef/name").and_then(|class| classes.get(class)));
        }
        if node.is("addons.cluster.x-k8s.io", "ClusterResourceSetBinding") {
            owners.extend(text("/spec/clusterName").and_then(|cluster| clusters.get(cluster)));
        }
        owners
    };
    let owners: Vec<Vec<usize>> = nodes.iter().map(owners).collect();
    for (node, owners) in nodes.iter_mut().zip(owners) {
        node.owners = owners;
    }
}

/// The objects with all that is below them.
fn descend(nodes: &[Node], mut taken: BTreeSet<usize>) -> BTreeSet<usize> {
    loop {
        let before = taken.len();
        for (index, node) in nodes.iter().enumerate() {
            if node.owners.iter().any(|owner| taken.contains(owner)) {
                taken.insert(index);
            }
        }
        if taken.len() == before {
            return taken;
        }
    }
}

/// As [`descend`], and not into clusters: a class is none of their owners.
fn descend_owned(nodes: &[Node], taken: BTreeSet<usize>) -> BTreeSet<usize> {
    let mut below = taken.clone();
    for (index, node) in nodes.iter().enumerate() {
        if !node.is_cluster() && node.owners.iter().any(|owner| taken.contains(owner)) {
            below.insert(index);
        }
    }
    below
}

fn sequence(nodes: &[Node], taken: &BTreeSet<usize>) -> Result<Vec<Vec<usize>>> {
    let mut placed = BTreeSet::new();
    let mut groups = Vec::new();
    while placed.len() < taken.len() {
        let ready = |index: &&usize| {
            !placed.contains(*index)
                && nodes.get(**index).is_some_and(|node| {
                    // Owners that do not go are left behind.
                    node.owners.iter().all(|owner| placed.contains(owner) || !taken.contains(owner))
                })
        };
        let group: Vec<usize> = taken.iter().filter(ready).copied().collect();
        if group.is_empty() {
            let stuck = taken.iter().filter(|index| !placed.contains(*index)).filter_map(|index| nodes.get(*index));
            let stuck: Vec<String> = stuck.map(Node::told).take(5).collect();
            bail!("these objects own each other: {}", stuck.join(", "));
        }
        placed.extend(group.iter().copied());
        groups.push(group);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CORE: &str = "cluster.x-k8s.io";

    /// An object of a kind by name, owned by others of the list.
    fn found(group: &str, kind: &str, name: &str, owners: &[&str], more: Value) -> Found {
        let owner = |uid: &&str| json!({"apiVersion": "v1", "kind": "K", "name": uid, "uid": uid});
        let mut object = json!({"metadata": {
            "name": name, "namespace": "ns", "uid": format!("{kind}/{name}"),
            "ownerReferences": owners.iter().map(owner).collect::<Vec<_>>(),
        }});
        for (key, value) in more.as_object().unwrap() {
            if key == "labels" {
                object["metadata"]["labels"] = value.clone();
            } else {
                object[key] = value.clone();
            }
        }
        let resource = ApiResource {
            group: group.into(),
            version: "v1".into(),
            api_version: format!("{group}/v1"),
            kind: kind.into(),
            plural: kind.to_lowercase(),
        };
        let is_root = ["Cluster", "ClusterClass", "ClusterResourceSet"].contains(&kind);
        let kind = Kind { resource, global: kind == "Identity", moves: kind == "Identity", is_root };
        Found { kind, object: serde_json::from_value(object).unwrap() }
    }

    fn fleet() -> Vec<Found> {
        let none = || json!({});
        let of_class = json!({"spec": {"topology": {"classRef": {"name": "base"}}}});
        vec![
            found(CORE, "Machine", "m", &["MachineSet/s"], none()),
            found(CORE, "MachineSet", "s", &["Cluster/a"], none()),
            found(CORE, "Cluster", "a", &[], of_class),
            found(CORE, "Cluster", "b", &[], none()),
            found(CORE, "ClusterClass", "base", &[], none()),
            found("x", "Template", "t", &["ClusterClass/base"], none()),
            found("", "Secret", "a-ca", &[], none()),
            found("", "Secret", "b-ca", &[], none()),
            found("", "Secret", "other", &[], none()),
            found("", "Secret", "cloud", &[], json!({"labels": {MOVE_LABEL: "true"}})),
            found("x", "Identity", "i", &[], none()),
            found("addons.cluster.x-k8s.io", "ClusterResourceSet", "crs", &[], none()),
            found(
                "addons.cluster.x-k8s.io",
                "ClusterResourceSetBinding",
                "a",
                &["ClusterResourceSet/crs"],
                json!({"spec": {"clusterName": "a"}}),
            ),
            found(
                "addons.cluster.x-k8s.io",
                "ClusterResourceSetBinding",
                "b",
                &["ClusterResourceSet/crs"],
                json!({"spec": {"clusterName": "b"}}),
            ),
        ]
    }

    /// A line for each group; what is not deleted has a `+`.
    fn told(only: Option<&str>, elsewhere: &[&str]) -> String {
        let elsewhere = elsewhere.iter().map(|name| (*name).to_owned()).collect();
        let graph = build(fleet(), only, &elsewhere).unwrap();
        let line = |group: Vec<&Node>| {
            let one = |node: &Node| format!("{}{}", node.told(), if node.stays { "+" } else { "" });
            group.into_iter().map(one).collect::<Vec<_>>().join(" ")
        };
        graph.groups().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn owners_come_before_what_they_own_and_strangers_stay() {
        assert_eq!(
            told(None, &[]),
            "\
Cluster/b ClusterClass/base Secret/cloud Identity/i+ ClusterResourceSet/crs\n\
Cluster/a Template/t Secret/b-ca ClusterResourceSetBinding/b\n\
MachineSet/s Secret/a-ca ClusterResourceSetBinding/a\n\
Machine/m"
        );
    }

    #[test]
    fn of_one_cluster_only_its_own_goes_and_what_is_shared_is_copied() {
        assert_eq!(
            told(Some("a"), &[]),
            "\
ClusterClass/base+ Secret/cloud+ Identity/i+ ClusterResourceSet/crs+\n\
Cluster/a Template/t+\n\
MachineSet/s Secret/a-ca ClusterResourceSetBinding/a\n\
Machine/m"
        );
        assert!(build(fleet(), Some("c"), &BTreeSet::new()).is_err());
    }

    #[test]
    fn a_class_that_another_namespace_uses_stays_with_its_templates() {
        let told = told(None, &["base"]);
        assert!(
            told.contains("ClusterClass/base+") && told.contains("Template/t+") && told.contains("Cluster/a "),
            "{told}"
        );
    }

    #[test]
    fn objects_that_own_each_other_are_refused() {
        let ring = vec![
            found(CORE, "Cluster", "a", &["Machine/m"], json!({})),
            found(CORE, "Machine", "m", &["Cluster/a"], json!({})),
        ];
        let error = build(ring, None, &BTreeSet::new()).unwrap_err().to_string();
        assert_eq!(error, "these objects own each other: Cluster/a, Machine/m");
    }
}
