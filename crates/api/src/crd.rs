//! The CustomResourceDefinitions of every kind in this crate, made from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::{
    cluster, control_plane, conversion, drain_rule, extension, health_check, kubeadm, machine, machine_pool, names,
    openstack_cluster, openstack_machine, openstack_machine_pool,
    published::{self, Version},
    resource_set, rules,
};

/// All definitions, in the order in which they are to be installed. Each kind is stored as v1beta2 and served as v1beta1 too.
pub fn all() -> Vec<CustomResourceDefinition> {
    let versions = published::versions();
    let definitions = published::definitions(&versions).into_iter();
    let of_data = definitions.map(|crd| serde_json::from_value(crd).expect("a definition made of data is one"));
    [
        cluster::Cluster::crd(),
        machine::Machine::crd(),
        machine::MachineSet::crd(),
        machine::MachineDeployment::crd(),
        machine_pool::MachinePool::crd(),
        health_check::MachineHealthCheck::crd(),
        drain_rule::MachineDrainRule::crd(),
        resource_set::ClusterResourceSet::crd(),
        resource_set::ClusterResourceSetBinding::crd(),
        kubeadm::KubeadmConfig::crd(),
        kubeadm::KubeadmConfigTemplate::crd(),
        control_plane::KubeadmControlPlane::crd(),
        openstack_cluster::OpenStackCluster::crd(),
        openstack_cluster::OpenStackClusterTemplate::crd(),
        openstack_machine::OpenStackMachine::crd(),
        openstack_machine::OpenStackMachineTemplate::crd(),
        openstack_machine_pool::OpenStackMachinePool::crd(),
        openstack_machine_pool::OpenStackMachinePoolTemplate::crd(),
        extension::ExtensionConfig::crd(),
    ]
    .into_iter()
    .map(without_nullable)
    .chain(of_data)
    .map(|crd| complete(crd, &versions))
    .collect()
}

/// A derived definition without `nullable`, which Go's optional fields do not have: a null is dropped as the API server
/// drops it.
fn without_nullable(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a definition made from types is JSON");
    drop_nullable(&mut value["spec"]);
    serde_json::from_value(value).expect("removing optional keys leaves a definition")
}

/// Puts a definition into its published form: the contract labels, the rules, the versions of the past.
fn complete(mut crd: CustomResourceDefinition, versions: &[Version]) -> CustomResourceDefinition {
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert(names::PROVIDER_LABEL.into(), provider(&crd.spec.group).into());
    if crd.spec.group.ends_with("cluster.x-k8s.io") {
        labels.insert(names::INVENTORY_LABEL.into(), String::new());
        labels.insert(names::CONTRACT_LABEL.into(), "v1beta2".into());
    }
    let kind = crd.spec.names.kind.clone();
    let mut value = serde_json::to_value(crd).expect("a definition made from types is JSON");
    // What the type takes for what is absent is no default of the API.
    for part in ["spec", "status"] {
        let schema = value.pointer_mut(&format!("/spec/versions/0/schema/openAPIV3Schema/properties/{part}"));
        if let Some(schema) = schema.and_then(Value::as_object_mut) {
            schema.remove("default");
        }
    }
    rules::add(&kind, &mut value["spec"]);
    let group = value["spec"]["group"].clone();
    for older in versions
        .iter()
        .filter(|older| older.kind == kind && older.group == group && older.value["name"] == conversion::spoke(&kind))
    {
        let mut older = older.value.clone();
        add_words_of_the_past(&mut value["spec"]["versions"][0], &older);
        older["served"] = true.into();
        older["storage"] = false.into();
        value["spec"]["versions"].as_array_mut().expect("a definition has versions").push(older);
        if conversion::spoke(&kind) == conversion::SPOKE {
            value["metadata"]["labels"][names::OLD_CONTRACT_LABEL] = conversion::SPOKE.into();
        }
    }
    serde_json::from_value(value).expect("removing optional keys leaves a definition")
}

/// What Cluster API's v1beta1 says in its status in its own words, where it has a `v1beta2` beside them.
const WORDS_OF_THE_PAST: [&str; 8] = [
    "availableReplicas",
    "conditions",
    "failureMessage",
    "failureReason",
    "fullyLabeledReplicas",
    "readyReplicas",
    "unavailableReplicas",
    "updatedReplicas",
];

/// v1beta2 has a place for them, `status.deprecated.v1beta1`, with the same schemas. It is in no Rust type, so no controller
/// can write it, and none takes away what is there.
fn add_words_of_the_past(version: &mut Value, older: &Value) {
    const STATUS: &str = "/schema/openAPIV3Schema/properties/status/properties";
    let Some(told) = older.pointer(STATUS).filter(|told| told.get("v1beta2").is_some()) else { return };
    let Some(status) = version.pointer_mut(STATUS).and_then(Value::as_object_mut) else { return };
    let fields = WORDS_OF_THE_PAST.iter().filter_map(|name| Some(((*name).to_owned(), told.get(*name)?.clone())));
    let fields: Map<String, Value> = fields.collect();
    let v1beta1 = json!({"type": "object", "properties": fields});
    status.insert("deprecated".into(), json!({"type": "object", "properties": {"v1beta1": v1beta1}}));
}

/// The value of the `cluster.x-k8s.io/provider` label, by which clusterctl groups definitions.
fn provider(group: &str) -> &'static str {
    match group {
        "bootstrap.cluster.x-k8s.io" => "bootstrap-kubeadm",
        "controlplane.cluster.x-k8s.io" => "control-plane-kubeadm",
        "infrastructure.cluster.x-k8s.io" | "openstack.k-orc.cloud" => "infrastructure-openstack",
        "application.giantswarm.io" | "release.giantswarm.io" => "app-platform",
        _ => "cluster-api",
    }
}

fn drop_nullable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            if let Some(Value::Array(choices)) = map.get_mut("enum") {
                choices.retain(|choice| !choice.is_null());
            }
            map.values_mut().for_each(drop_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nullable),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_named_after_its_plural_and_group() {
        for crd in all() {
            let spec = &crd.spec;
            assert_eq!(crd.metadata.name.as_deref(), Some(format!("{}.{}", spec.names.plural, spec.group).as_str()));
        }
    }

    #[test]
    fn each_kind_has_the_words_of_the_past_that_are_published() {
        let fields = |crd: &CustomResourceDefinition| {
            let value = serde_json::to_value(&crd.spec.versions[0]).unwrap();
            let pointer =
                "/schema/openAPIV3Schema/properties/status/properties/deprecated/properties/v1beta1/properties";
            let fields = value.pointer(pointer)?.as_object()?.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
            Some((crd.spec.names.kind.clone(), fields))
        };
        let found: std::collections::BTreeMap<_, _> = all().iter().filter_map(fields).collect();
        let failure = "conditions failureMessage failureReason";
        let expected = [
            ("Cluster", failure.to_owned()),
            ("ClusterClass", "conditions".to_owned()),
            ("ClusterResourceSet", "conditions".to_owned()),
            ("ExtensionConfig", "conditions".to_owned()),
            ("IPAddressClaim", "conditions".to_owned()),
            ("KubeadmConfig", failure.to_owned()),
            ("KubeadmControlPlane", format!("{failure} readyReplicas unavailableReplicas updatedReplicas")),
            ("Machine", failure.to_owned()),
            (
                "MachineDeployment",
                "availableReplicas conditions readyReplicas unavailableReplicas updatedReplicas".to_owned(),
            ),
            ("MachineHealthCheck", "conditions".to_owned()),
            ("MachinePool", format!("availableReplicas {failure} readyReplicas unavailableReplicas")),
            ("MachineSet", format!("availableReplicas {failure} fullyLabeledReplicas readyReplicas")),
        ];
        assert_eq!(found, expected.map(|(kind, fields)| (kind.to_owned(), fields)).into());
    }

    #[test]
    fn schemas_of_types_say_nullable_nowhere() {
        for crd in all().into_iter().filter(|crd| !crd.spec.group.ends_with(".giantswarm.io")) {
            let text = serde_json::to_string(&crd).unwrap();
            assert!(!text.contains("nullable"), "{}", crd.spec.names.kind);
        }
    }
}
