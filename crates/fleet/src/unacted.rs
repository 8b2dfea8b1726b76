//! Fields that are accepted and stored, but that no controller acts upon yet: said once a generation, never ignored.

use control::{EventType, Plan};
use kube::Resource;
use serde::Serialize;

/// JSON pointers by kind. A line goes when the field is acted upon.
const FIELDS: &[(&str, &[&str])] = &[
    ("Cluster", &["/spec/topology"]),
    ("MachineDeployment", &["/spec/remediation"]),
    ("KubeadmControlPlane", &["/spec/remediation", "/spec/rollout/before"]),
    ("KubeadmConfig", &["/spec/ignition"]),
];

/// The fields of the object that are set and not acted upon, as `spec.topology`.
fn set<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Vec<String> {
    let kind = K::kind(&());
    let fields = FIELDS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, fields)| fields);
    if fields.is_empty() {
        return Vec::new();
    }
    let value = serde_json::to_value(object).unwrap_or_default();
    let found = fields.iter().filter(|pointer| value.pointer(pointer).is_some_and(|field| !field.is_null()));
    found.map(|pointer| pointer.trim_start_matches('/').replace('/', ".")).collect()
}

/// Adds an event if the object has such fields and its present generation has not been observed before.
pub fn tell<K: Resource<DynamicType = ()> + Serialize>(object: &K, observed: Option<i64>, plan: &mut Plan) {
    if observed == object.meta().generation {
        return;
    }
    let fields = set(object);
    if !fields.is_empty() {
        let message = format!("Stored but not acted upon yet: {}", fields.join(", "));
        plan.event(object, EventType::Warning, "FieldNotActedUpon", message);
    }
}

#[cfg(test)]
mod tests {
    use api::{
        cluster::{Cluster, ClusterSpec},
        topology::Topology,
    };

    use super::*;

    #[test]
    fn a_field_that_is_stored_only_is_told_of_once_a_generation() {
        let mut cluster =
            Cluster::new("demo", ClusterSpec { topology: Some(Topology::default()), ..Default::default() });
        cluster.metadata.generation = Some(2);
        let mut plan = Plan::nothing();
        tell(&cluster, Some(1), &mut plan);
        assert_eq!(
            plan.to_string(),
            "event Warning FieldNotActedUpon: Stored but not acted upon yet: spec.topology\nsettled"
        );
        let mut plan = Plan::nothing();
        tell(&cluster, Some(2), &mut plan);
        assert!(plan.steps.is_empty());
    }
}
