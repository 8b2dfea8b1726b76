//! Nodes that outlive their machines: their deletion was given up while the cluster's API was away, or the machine went
//! before anybody knew of its node.

use api::{cluster::Cluster, machine::Machine, names};
use control::{Key, Outcome, Result, bounded};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use tracing::info;

use super::{Seen, is_control_plane};
use crate::{machine::is_unreachable, owner, workload::Workloads};

/// Before a node is tried again that could not be deleted.
const PAUSE_S: u64 = 20;

/// A node as it was seen: a namesake that registers since is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub name: String,
    pub uid: Option<String>,
}

/// Nodes whose kubelet is silent, that no machine of the cluster has, and that were a machine's of ours: they say whose, or still
/// carry the taint that only a machine's controller takes away.
pub fn plan(seen: &Seen) -> Vec<Stray> {
    let cluster = seen.cluster.as_ref();
    if cluster.metadata.deletion_timestamp.is_some() || owner::is_paused(Some(cluster), &cluster.metadata) {
        return Vec::new();
    }
    let is = |node: &&std::sync::Arc<Node>| is_stray(cluster, node, seen);
    let of = |node: &std::sync::Arc<Node>| Stray {
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone(),
    };
    seen.nodes.iter().filter(is).map(of).collect()
}

fn is_stray(cluster: &Cluster, node: &Node, seen: &Seen) -> bool {
    let meta = &node.metadata;
    let spec = node.spec.clone().unwrap_or_default();
    let Some(provider_id) = spec.provider_id.filter(|_| is_unreachable(node)) else { return false };
    let annotation = |name| owner::annotation_of(meta, name);
    let has = |machine: &Machine| {
        let status = machine.status.as_ref().and_then(|status| status.node_ref.as_ref());
        machine.spec.provider_id.as_ref() == Some(&provider_id)
            || status.is_some_and(|node| Some(&node.name) == meta.name.as_ref())
            || machine.metadata.name.as_deref() == annotation(names::MACHINE_ANNOTATION)
            // Not known yet what node it has: it may be this one.
            || (machine.spec.provider_id.is_none() && machine.metadata.deletion_timestamp.is_some())
    };
    if seen.machines.iter().any(|machine| has(machine)) {
        return false;
    }
    let ours = annotation(names::CLUSTER_NAME_ANNOTATION) == cluster.metadata.name.as_deref()
        && annotation(names::CLUSTER_NAMESPACE_ANNOTATION) == cluster.metadata.namespace.as_deref()
        && annotation(names::MACHINE_ANNOTATION).is_some_and(|machine| !machine.is_empty());
    let unclaimed = spec.taints.into_iter().flatten().any(|taint| taint.key == names::UNINITIALIZED_TAINT);
    // A machine that has no provider ID yet may claim it; without a control plane machine the list of machines is not whole.
    let may_be_claimed = seen.machines.iter().any(|machine| machine.spec.provider_id.is_none());
    ours || (unclaimed && !may_be_claimed && seen.machines.iter().any(|machine| is_control_plane(machine)))
}

/// Deletes them. What fails is tried again: nobody else would.
pub async fn delete(workloads: &Workloads, cluster: &Key, strays: Vec<Stray>) -> Result<Outcome> {
    let Some(client) = workloads.client(cluster).filter(|_| !strays.is_empty()) else { return Ok(Outcome::Settled) };
    let nodes = Api::<Node>::all(client);
    let mut outcome = Outcome::Settled;
    for Stray { name, uid } in strays {
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match bounded(cluster, nodes.delete(&name, &params)).await? {
            Ok(_) => info!(node = name, %cluster, "a node is deleted whose machine is gone"),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                tracing::debug!(node = name, %cluster, %error, "a node stays whose machine is gone");
                outcome = outcome.sooner(Outcome::waiting("nodes whose machines are gone", PAUSE_S));
            }
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::{super::tests::seen, *};
    use crate::machine_set::tests::placed;

    fn node(annotated: bool, taint: bool, ready: &str) -> Arc<Node> {
        let mut node = json!({
            "metadata": {"name": "demo-md-a", "uid": "u-node"}, "spec": {"providerID": "x:///a"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        if annotated {
            node["metadata"]["annotations"] = json!({
                names::CLUSTER_NAME_ANNOTATION: "demo", names::CLUSTER_NAMESPACE_ANNOTATION: "ns",
                names::MACHINE_ANNOTATION: "demo-md-a",
            });
        }
        if taint {
            node["spec"]["taints"] = json!([{"key": names::UNINITIALIZED_TAINT, "effect": "NoSchedule"}]);
        }
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn machine(name: &str, spec: Value, control_plane: bool) -> Arc<Machine> {
        let mut base = json!({"clusterName": "demo", "bootstrap": {}, "infrastructureRef": {"kind": "X", "name": name, "apiGroup": "x"}});
        json_patch(&mut base, spec);
        let mut machine = placed(Machine::new(name, serde_json::from_value(base).unwrap()), name);
        if control_plane {
            owner::label(&mut machine.metadata, names::CONTROL_PLANE_LABEL, "");
        }
        Arc::new(machine)
    }

    fn json_patch(base: &mut Value, more: Value) {
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }

    fn strays(node: Arc<Node>, machines: Vec<Arc<Machine>>) -> usize {
        plan(&Seen { nodes: vec![node], machines, ..seen() }).len()
    }

    #[test]
    fn a_silent_node_that_was_a_machines_goes_when_no_machine_has_it() {
        let cp = || machine("demo-cp", json!({"providerID": "x:///cp"}), true);
        assert_eq!(strays(node(true, false, "Unknown"), vec![cp()]), 1);
        assert_eq!(strays(node(true, false, "True"), vec![cp()]), 0);
        assert_eq!(strays(node(true, false, "False"), vec![cp()]), 0);
        assert_eq!(strays(node(false, false, "Unknown"), vec![cp()]), 0, "a stranger");
        let its = machine("demo-md-a", json!({}), false);
        assert_eq!(strays(node(true, false, "Unknown"), vec![cp(), its]), 0);
        let its = machine("other", json!({"providerID": "x:///a"}), false);
        assert_eq!(strays(node(true, false, "Unknown"), vec![cp(), its]), 0);
    }

    #[test]
    fn a_silent_node_that_nobody_claimed_goes_when_nobody_can_claim_it() {
        let cp = || machine("demo-cp", json!({"providerID": "x:///cp"}), true);
        assert_eq!(strays(node(false, true, "Unknown"), vec![cp()]), 1);
        assert_eq!(strays(node(false, true, "Unknown"), vec![]), 0);
        let starts = machine("demo-md-b", json!({}), false);
        assert_eq!(strays(node(false, true, "Unknown"), vec![cp(), starts]), 0);
    }

    #[test]
    fn a_cluster_that_is_paused_or_goes_keeps_its_nodes() {
        let mut paused = Seen { nodes: vec![node(true, false, "Unknown")], ..seen() };
        assert_eq!(plan(&paused), [Stray { name: "demo-md-a".into(), uid: Some("u-node".into()) }]);
        let mut cluster = paused.cluster.as_ref().clone();
        cluster.spec.paused = Some(true);
        paused.cluster = Arc::new(cluster.clone());
        assert!(plan(&paused).is_empty());
        cluster.spec.paused = None;
        cluster.metadata.deletion_timestamp = Some(crate::machine_set::tests::now());
        paused.cluster = Arc::new(cluster);
        assert!(plan(&paused).is_empty());
    }
}
