//! Schemas of the built-in kinds: shapes from k8s-openapi, merge rules and defaults from two tables beside this file.
//!
//! Left out: recursion (a JSON schema within a CRD is kept as it is; [`Schema::parse`] looks at it), and most of what
//! Kubernetes checks by hand in Go; such rules are the registry's.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use k8s_openapi::{
    api, apiextensions_apiserver::pkg::apis::apiextensions, apimachinery::pkg::apis::meta,
    kube_aggregator::pkg::apis::apiregistration, schemars,
};
use parking_lot::Mutex;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::{Additional, Checks, List, Node, Patch, Schema, Texts, Type, format};

const LISTS: &str = include_str!("builtin_lists.txt");
const DEFAULTS: &str = include_str!("builtin_defaults.txt");
const REFERENCE: &str = "#/definitions/";
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

type Generate = fn(&mut SchemaGenerator) -> schemars::Schema;

macro_rules! row {
    ($group:literal $version:literal ($($module:ident)::+) $kind:ident) => {
        ($group, $version, stringify!($kind), |generator| generator.subschema_for::<$($module::)+$kind>())
    };
}

macro_rules! kinds {
    ($($group:literal $version:literal $module:tt { $($kind:ident)* })*) => {
        &[$($(row!($group $version $module $kind),)*)*]
    };
}

static KINDS: &[(&str, &str, &str, Generate)] = kinds! {
    "" "v1" (api::core::v1) {
        ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate
        ReplicationController ResourceQuota Secret Service ServiceAccount
    }
    "admissionregistration.k8s.io" "v1" (api::admissionregistration::v1) {
        MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding MutatingAdmissionPolicy
        MutatingAdmissionPolicyBinding
        ValidatingWebhookConfiguration
    }
    "apiextensions.k8s.io" "v1" (apiextensions::v1) { CustomResourceDefinition }
    "apiregistration.k8s.io" "v1" (apiregistration::v1) { APIService }
    "apps" "v1" (api::apps::v1) { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
    "authentication.k8s.io" "v1" (api::authentication::v1) { SelfSubjectReview TokenRequest TokenReview }
    "authorization.k8s.io" "v1" (api::authorization::v1) {
        LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
    }
    "autoscaling" "v1" (api::autoscaling::v1) { HorizontalPodAutoscaler Scale }
    "autoscaling" "v2" (api::autoscaling::v2) { HorizontalPodAutoscaler }
    "batch" "v1" (api::batch::v1) { CronJob Job }
    "certificates.k8s.io" "v1" (api::certificates::v1) { CertificateSigningRequest }
    "coordination.k8s.io" "v1" (api::coordination::v1) { Lease }
    "discovery.k8s.io" "v1" (api::discovery::v1) { EndpointSlice }
    "events.k8s.io" "v1" (api::events::v1) { Event }
    "flowcontrol.apiserver.k8s.io" "v1" (api::flowcontrol::v1) { FlowSchema PriorityLevelConfiguration }
    "networking.k8s.io" "v1" (api::networking::v1) { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
    "node.k8s.io" "v1" (api::node::v1) { RuntimeClass }
    "policy" "v1" (api::policy::v1) { Eviction PodDisruptionBudget }
    "rbac.authorization.k8s.io" "v1" (api::rbac::v1) { ClusterRole ClusterRoleBinding Role RoleBinding }
    "scheduling.k8s.io" "v1" (api::scheduling::v1) { PriorityClass }
    "storage.k8s.io" "v1" (api::storage::v1) { CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment }
};

/// Lists that Kubernetes checks by hand to be there; the other required lists may be null, which Go reads as empty.
const REQUIRED_LISTS: [(&str, &str); 2] =
    [("core.v1.PodSpec", "containers"), ("apiextensions.v1.CustomResourceDefinitionSpec", "versions")];

#[derive(Default)]
struct Cache {
    nodes: HashMap<String, Arc<Node>>,
    schemas: HashMap<(&'static str, &'static str, &'static str), Arc<Schema>>,
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

fn generator() -> SchemaGenerator {
    SchemaSettings::draft07().into_generator()
}

pub(super) fn find(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    let &(group, version, kind, generate) = KINDS.iter().find(|row| (row.0, row.1, row.2) == (group, version, kind))?;
    let mut cache = CACHE.lock();
    if let Some(schema) = cache.schemas.get(&(group, version, kind)) {
        return Some(schema.clone());
    }
    let mut generator = generator();
    let root = generate(&mut generator).to_value();
    let definitions = generator.take_definitions(false);
    let mut builder = Builder { definitions: &definitions, nodes: &mut cache.nodes, open: Vec::new() };
    let schema = Arc::new(Schema::of(builder.node(&root)));
    cache.schemas.insert((group, version, kind), schema.clone());
    Some(schema)
}

pub(super) fn definition(name: &str) -> Option<Arc<Node>> {
    CACHE.lock().nodes.get(name).cloned()
}

pub(super) fn object_meta() -> Arc<Node> {
    static META_NODE: LazyLock<Arc<Node>> = LazyLock::new(|| {
        let mut generator = generator();
        let root = generator.subschema_for::<meta::v1::ObjectMeta>().to_value();
        let definitions = generator.take_definitions(false);
        let mut cache = CACHE.lock();
        Builder { definitions: &definitions, nodes: &mut cache.nodes, open: Vec::new() }.node(&root)
    });
    META_NODE.clone()
}

/// What every kind says of `field`, which is one of `apiVersion`, `kind` and `metadata`.
pub(super) fn own_text(field: &str) -> Option<&'static str> {
    static TEXTS: LazyLock<[(&str, Option<String>); 3]> = LazyLock::new(|| {
        let mut generator = generator();
        generator.subschema_for::<api::core::v1::ConfigMap>();
        let definitions = generator.take_definitions(false);
        let fields = definitions.get("io.k8s.api.core.v1.ConfigMap").and_then(|kind| kind.get("properties"));
        ["apiVersion", "kind", "metadata"].map(|name| {
            let text = fields.and_then(|fields| fields.get(name)?.get("description")?.as_str());
            (name, text.map(str::to_owned))
        })
    });
    TEXTS.iter().find(|(name, _)| *name == field).and_then(|(_, text)| text.as_deref())
}

/// `core.v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn short(name: &str) -> &str {
    [
        "io.k8s.api.",
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apiextensions-apiserver.pkg.apis.",
        "io.k8s.kube-aggregator.pkg.apis.",
    ]
    .iter()
    .find_map(|prefix| name.strip_prefix(prefix))
    .unwrap_or(name)
}

/// The rows of a table that speak of a definition, without the definition.
fn rows<'a>(table: &'static str, definition: &'a str) -> impl Iterator<Item = &'static str> + use<'a> {
    table.lines().filter_map(move |line| line.strip_prefix(definition)?.strip_prefix(' '))
}

struct Builder<'a> {
    definitions: &'a Map<String, Value>,
    nodes: &'a mut HashMap<String, Arc<Node>>,
    /// The definitions that are being built, to stop at recursion.
    open: Vec<String>,
}

impl Builder<'_> {
    fn node(&mut self, value: &Value) -> Arc<Node> {
        let Some(name) = value.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(REFERENCE)) else {
            return Arc::new(self.plain(value));
        };
        let node = self.definition(name);
        // Each kind says the same of its metadata, so all of them share the one node.
        match value.get("description").and_then(Value::as_str) {
            Some(description) if name != META => {
                let texts = Texts { description: Some(description.into()), others: Vec::new() };
                Arc::new(Node { texts: Some(Arc::new(texts)), ..Node::clone(&node) })
            }
            _ => node,
        }
    }

    fn definition(&mut self, name: &str) -> Arc<Node> {
        if let Some(node) = self.nodes.get(name) {
            return node.clone();
        }
        let anything = || Arc::new(Node { preserve_unknown: true, ..Node::default() });
        let last = name.rsplit('.').next().unwrap_or(name);
        let is_any = matches!(
            last,
            "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray"
        );
        let Some(value) = self.definitions.get(name).filter(|_| !is_any && !self.open.iter().any(|open| open == name))
        else {
            return anything();
        };
        self.open.push(name.to_owned());
        let mut node = self.plain(value);
        self.open.pop();
        match last {
            "Quantity" => {
                node.quantity = true;
                node.checks = Some(Arc::new(Checks { format: Some("quantity".into()), ..Checks::default() }));
            }
            "RawExtension" | "FieldsV1" => node.preserve_unknown = true,
            _ => apply_tables(short(name), &mut node),
        }
        node.name = Some(name.into());
        let node = Arc::new(node);
        self.nodes.insert(name.to_owned(), node.clone());
        node
    }

    fn plain(&mut self, value: &Value) -> Node {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let type_ = Type::ALL.into_iter().find(|type_| Some(type_.name()) == text("type"));
        let description = text("description")
            .map(|description| Arc::new(Texts { description: Some(description.into()), others: Vec::new() }));
        let mut properties: Vec<(Box<str>, _)> = value
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str().into(), self.node(value)))
            .collect();
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        let additional = match value.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(inner @ Value::Object(_)) => Additional::Of(self.node(inner)),
            _ => Additional::None,
        };
        let format = text("format").filter(|name| format::is_known(type_, name));
        let required: Vec<&str> =
            value.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let checks = Checks {
            format: format.map(Into::into),
            required: required.into_iter().map(Into::into).collect(),
            ..Checks::default()
        };
        Node {
            type_,
            int_or_string: value.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)),
            preserve_unknown: value.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)),
            properties: properties.into(),
            additional,
            items: value.get("items").map(|items| self.node(items)),
            checks: (!checks.is_empty()).then(|| Arc::new(checks)),
            texts: description,
            ..Node::default()
        }
    }
}

/// Puts into a definition what its generated shape does not say.
fn apply_tables(name: &str, node: &mut Node) {
    let mut properties: Vec<_> = node.properties.iter().cloned().collect();
    let mut edit = |field: &str, change: &mut dyn FnMut(&mut Node)| {
        if let Some((_, inner)) = properties.iter_mut().find(|(name, _)| **name == *field) {
            change(Arc::make_mut(inner));
        }
    };
    for row in rows(LISTS, name) {
        let mut words = row.split(' ').map(|word| if word == "-" { "" } else { word });
        let mut word = || words.next().unwrap_or_default();
        let (field, kind, keys, patch) = (word(), word(), word(), word());
        let mut change = |inner: &mut Node| {
            match kind {
                "map" => inner.list = List::Map(keys.split(',').map(Into::into).collect()),
                "set" => inner.list = List::Set,
                "atomic-map" => inner.atomic_map = true,
                _ => {}
            }
            if !patch.is_empty() {
                let (strategies, key) = patch.split_once(':').unwrap_or((patch, ""));
                let has = |name| strategies.split(',').any(|strategy| strategy == name);
                inner.patch = Some(Box::new(Patch {
                    merge: has("merge"),
                    retain_keys: has("retainKeys"),
                    replace: has("replace"),
                    key: (!key.is_empty()).then(|| key.into()),
                }));
            }
        };
        if field == "*" {
            change(node);
        } else {
            edit(field, &mut change);
        }
    }
    for row in rows(DEFAULTS, name) {
        if let Some((field, text)) = row.split_once(' ')
            && let Ok(default) = serde_json::from_str::<Value>(text)
        {
            edit(field, &mut |inner| inner.default = Some(default.clone()));
        }
    }
    if let Some(checks) = &mut node.checks {
        let is_status = name.ends_with("Status");
        let keep = |field: &str| {
            let found = properties.iter().find(|(name, _)| **name == *field);
            let list = found.is_some_and(|(_, inner)| inner.type_ == Some(Type::Array));
            field != "metadata" && !is_status && (!list || REQUIRED_LISTS.contains(&(name, field)))
        };
        let required = checks.required.iter().filter(|field| keep(field)).cloned().collect();
        Arc::make_mut(checks).required = required;
        if checks.is_empty() {
            node.checks = None;
        }
    }
    node.properties = properties.into();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::builtin;

    #[test]
    fn every_built_in_kind_has_a_schema_and_shares_its_parts() {
        for (group, version, kind, _) in KINDS {
            let schema = builtin(group, version, kind).unwrap();
            let root = schema.root();
            assert!(root.property("kind").is_some(), "{group}/{version} {kind}");
            if let Some(metadata) = root.property("metadata") {
                assert!(Arc::ptr_eq(metadata, &object_meta()), "{kind}");
            }
        }
        assert!(builtin("apps", "v1", "Pod").is_none());
    }

    #[test]
    fn every_row_of_the_tables_names_a_field() {
        let mut generator = generator();
        for (_, _, _, generate) in KINDS {
            generate(&mut generator);
        }
        let definitions = generator.take_definitions(false);
        for line in LISTS.lines().chain(DEFAULTS.lines()).filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let (name, field) = (words.next().unwrap(), words.next().unwrap());
            let found = definitions.iter().find(|(full, _)| short(full) == name);
            let fits = found.is_some_and(|(_, found)| field == "*" || found["properties"].get(field).is_some());
            assert!(fits, "{line}");
        }
        for line in DEFAULTS.lines().filter(|line| !line.starts_with('#')) {
            let text = line.splitn(3, ' ').nth(2).unwrap();
            serde_json::from_str::<Value>(text).unwrap();
        }
    }

    #[test]
    fn a_deployment_is_defaulted_and_checked() {
        let schema = builtin("apps", "v1", "Deployment").unwrap();
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "replicas": null, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}}}]}}}, "status": {}});
        assert!(schema.prune(&mut object).is_empty());
        schema.default(&mut object);
        assert_eq!(schema.validate(&object), []);
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(object["metadata"], json!({"name": "a"}));
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Always");
        assert_eq!(pod["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(pod["containers"][0]["resources"]["limits"], json!({"cpu": "0.5", "memory": "1Gi"}));

        object["spec"]["replicas"] = json!("x");
        object["spec"]["template"]["spec"]["containers"] = json!([{"image": "i"}]);
        let errors: Vec<_> = schema.validate(&object).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
                "spec.template.spec.containers[0].name: Required value",
            ]
        );
    }

    #[test]
    fn a_definition_of_kinds_keeps_its_schemas() {
        let schema = builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
        let mut object = json!({"spec": {"group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "default": {"a": 1}, "additionalProperties": true}}}}}]}});
        let before = object.clone();
        assert!(schema.prune(&mut object).is_empty());
        assert_eq!(object, before);
        schema.default(&mut object);
        assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(schema.validate(&object), []);
    }
}
