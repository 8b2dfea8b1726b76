//! Schemas that are kept as data: the versions that are served for users of the past (v1beta1), and kinds that no Rust type
//! describes because they are templates for other kinds.
//!
//! `published/schemas.txt` has a line for each field, below its parent by one space of indentation: its name (`!`: required;
//! `[]`: the items of a list, `{}`: the values of a map), its type (`-`: none), and what else the schema says, as JSON.
//! `@name` stands for the part that is told once under `shared name`. The facts are those of `config/crd/bases` of
//! kubernetes-sigs/cluster-api, of its OpenStack provider, and of giantswarm/apiextensions-application and giantswarm/releases.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::conversion::HUB;

const TEXT: &str = include_str!("published/schemas.txt");

/// A field and what lies below it.
#[derive(Debug)]
struct Node {
    name: &'static str,
    required: bool,
    what: What,
    below: Vec<Node>,
}

#[derive(Debug)]
enum What {
    /// Type and further keywords.
    Own(&'static str, &'static str),
    Shared(&'static str),
}

/// A version of a kind as CRDs have it in `spec.versions`, without `served` and `storage`.
#[derive(Clone, Debug)]
pub struct Version {
    pub kind: String,
    pub group: String,
    /// `name`, `schema`, `additionalPrinterColumns`, `subresources`, `deprecated`.
    pub value: Value,
}

/// All versions that are kept as data.
pub fn versions() -> Vec<Version> {
    let mut kinds: Vec<(&str, Vec<Node>)> = Vec::new();
    let mut shared = HashMap::new();
    let mut lines = TEXT.lines().peekable();
    while let Some(line) = lines.next() {
        let below = read(&mut lines, 1);
        match line.split_once(' ') {
            Some(("kind", head)) => kinds.push((head, below)),
            Some(("shared", name)) => drop(shared.insert(name, below.into_iter().next())),
            _ => unreachable!("every block of schemas.txt begins with kind or shared"),
        }
    }
    kinds.into_iter().filter_map(|(head, fields)| version(head, &fields, &shared)).collect()
}

/// A kind that has no other schema than those here.
struct Kept {
    kind: &'static str,
    group: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    scope: &'static str,
    /// The version that is stored.
    stored: &'static str,
}

impl Kept {
    const fn new(kind: &'static str, group: &'static str, plural: &'static str, stored: &'static str) -> Self {
        Self { kind, group, plural, short: &[], categories: &["cluster-api"], scope: "Namespaced", stored }
    }
}

const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const IPAM: &str = "ipam.cluster.x-k8s.io";

/// A kind of the app platform.
const fn app(kind: &'static str, plural: &'static str) -> Kept {
    let categories = &["common", "giantswarm"];
    Kept { categories, ..Kept::new(kind, "application.giantswarm.io", plural, "v1alpha1") }
}

const KINDS: [Kept; 13] = [
    Kept { short: &["cc"], ..Kept::new("ClusterClass", "cluster.x-k8s.io", "clusterclasses", HUB) },
    Kept::new("KubeadmControlPlaneTemplate", "controlplane.cluster.x-k8s.io", "kubeadmcontrolplanetemplates", HUB),
    Kept {
        short: &["osci"],
        scope: "Cluster",
        ..Kept::new("OpenStackClusterIdentity", INFRASTRUCTURE, "openstackclusteridentities", "v1alpha1")
    },
    Kept { short: &["oss"], ..Kept::new("OpenStackServer", INFRASTRUCTURE, "openstackservers", "v1alpha1") },
    Kept {
        categories: &[],
        ..Kept::new("OpenStackFloatingIPPool", INFRASTRUCTURE, "openstackfloatingippools", "v1alpha1")
    },
    Kept::new("IPAddress", IPAM, "ipaddresses", HUB),
    Kept::new("IPAddressClaim", IPAM, "ipaddressclaims", HUB),
    Kept { categories: &["openstack"], ..Kept::new("Image", "openstack.k-orc.cloud", "images", "v1alpha1") },
    app("Catalog", "catalogs"),
    Kept { short: &["ace", "aces"], ..app("AppCatalogEntry", "appcatalogentries") },
    app("App", "apps"),
    app("Chart", "charts"),
    Kept { group: "release.giantswarm.io", scope: "Cluster", ..app("Release", "releases") },
];

/// The definitions of kinds that are described here alone, with the version that is stored; the older ones are added as to
/// all others.
pub(crate) fn definitions(versions: &[Version]) -> Vec<Value> {
    let definition = |kept: &Kept| {
        let Kept { kind, group, plural, short, categories, scope, stored } = kept;
        let is_stored =
            |version: &&Version| version.kind == *kind && version.group == *group && version.value["name"] == *stored;
        let mut stored = versions.iter().find(is_stored)?.value.clone();
        stored["served"] = true.into();
        stored["storage"] = true.into();
        let mut names = json!({
            "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
        });
        if !categories.is_empty() {
            names["categories"] = json!(categories);
        }
        if !short.is_empty() {
            names["shortNames"] = json!(short);
        }
        Some(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": scope, "names": names, "versions": [stored]},
        }))
    };
    KINDS.iter().filter_map(definition).collect()
}

/// The versions of one kind.
pub fn of(group: &str, kind: &str) -> Vec<Version> {
    let mut versions = versions();
    versions.retain(|version| version.group == group && version.kind == kind);
    versions
}

fn version(head: &str, fields: &[Node], shared: &HashMap<&str, Option<Node>>) -> Option<Version> {
    let mut parts = head.splitn(3, ' ');
    let (kind, api_version, facts) = (parts.next()?, parts.next()?, parts.next()?);
    let (group, name) = api_version.split_once('/')?;
    let mut value: Value = serde_json::from_str(facts).ok()?;
    let mut schema = json!({"type": "object", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
    }});
    add(&mut schema, fields, shared);
    value["name"] = name.into();
    value["schema"] = json!({ "openAPIV3Schema": schema });
    Some(Version { kind: kind.to_owned(), group: group.to_owned(), value })
}

/// The lines that are indented so far, with what is below them.
fn read(lines: &mut std::iter::Peekable<std::str::Lines<'static>>, depth: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    while let Some(line) = lines.next_if(|line| line.len() - line.trim_start().len() == depth) {
        let mut parts = line.trim_start().splitn(3, ' ');
        let name = parts.next().unwrap_or_default();
        let type_ = parts.next().unwrap_or_default();
        let what = match type_.strip_prefix('@') {
            Some(shared) => What::Shared(shared),
            None => What::Own(type_, parts.next().unwrap_or("{}")),
        };
        let required = name.ends_with('!');
        nodes.push(Node { name: name.trim_end_matches('!'), required, what, below: read(lines, depth + 1) });
    }
    nodes
}

fn schema(node: &Node, shared: &HashMap<&str, Option<Node>>) -> Value {
    match node.what {
        What::Shared(name) => {
            let whole = shared.get(name).and_then(Option::as_ref).expect("schemas.txt defines what it names");
            schema(whole, shared)
        }
        What::Own(type_, facts) => {
            let mut value: Value = serde_json::from_str(facts).expect("what a line of schemas.txt says is JSON");
            if type_ != "-" {
                value["type"] = type_.into();
            }
            add(&mut value, &node.below, shared);
            value
        }
    }
}

/// Puts fields into the schema of their parent.
fn add(parent: &mut Value, fields: &[Node], shared: &HashMap<&str, Option<Node>>) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let value = schema(field, shared);
        match field.name {
            "[]" => parent["items"] = value,
            "{}" => parent["additionalProperties"] = value,
            name => drop(properties.insert(name.to_owned(), value)),
        }
        if field.required {
            required.push(Value::from(field.name));
        }
    }
    if !properties.is_empty() {
        match parent.get_mut("properties").and_then(Value::as_object_mut) {
            Some(own) => own.extend(properties),
            None => parent["properties"] = properties.into(),
        }
    }
    if !required.is_empty() {
        parent["required"] = required.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_becomes_a_version_with_a_schema() {
        let blocks = TEXT.lines().filter(|line| line.starts_with("kind ")).count();
        let versions = versions();
        assert_eq!(versions.len(), blocks);
        for version in versions {
            assert!(version.value["schema"]["openAPIV3Schema"]["properties"]["spec"].is_object(), "{version:?}");
        }
    }

    #[test]
    fn fields_that_are_told_once_are_in_all_places() {
        let cluster = of("cluster.x-k8s.io", "Cluster").remove(0).value;
        let spec = "/schema/openAPIV3Schema/properties/spec/properties";
        let field = |path: &str| cluster.pointer(&format!("{spec}/{path}")).cloned();
        assert_eq!(field("controlPlaneRef"), field("infrastructureRef"));
        assert_eq!(field("topology/required"), Some(json!(["class", "version"])));
        assert_eq!(field("clusterNetwork/properties/pods/properties/cidrBlocks/items/maxLength"), Some(json!(43)));
    }
}
