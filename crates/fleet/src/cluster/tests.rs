//! What a cluster takes over from its parts, and the order in which it takes them apart.

use api::{
    cluster::{ClusterSpec, ClusterStatus},
    condition,
    machine::{MachineDeploymentSpec, MachineSetSpec, MachineSpec},
    meta::ContractRef,
};
use control::Step;
use serde_json::{Value, json};

use super::*;
use crate::machine_set::tests::{brief, external, now, placed};

pub fn seen() -> Seen {
    let reference =
        |kind: &str| Some(ContractRef { api_group: "x.example".into(), kind: kind.into(), name: "demo".into() });
    let spec = ClusterSpec {
        infrastructure_ref: reference("Infra"),
        control_plane_ref: reference("ControlPlane"),
        ..Default::default()
    };
    let mut cluster = placed(Cluster::new("demo", spec), "u-demo");
    cluster.metadata.finalizers = Some(vec![names::CLUSTER_FINALIZER.into()]);
    Seen {
        infrastructure: None,
        control_plane: None,
        machines: Vec::new(),
        sets: Vec::new(),
        pools: Vec::new(),
        deployments: Vec::new(),
        probe: None,
        nodes: Vec::new(),
        class_gates: Vec::new(),
        held: false,
        kubeconfig: false,
        cluster: Arc::new(cluster),
    }
}

/// What the plan writes of the cluster itself.
fn written(seen: &Seen) -> (Value, Value) {
    let plan = plan(seen, &now());
    let change = plan.steps.into_iter().find_map(|step| match step {
        Step::Update(change) if change.resource.kind == "Cluster" => Some(change),
        _ => None,
    });
    let change = change.map(|change| (change.main, change.status)).unwrap_or_default();
    (change.0.unwrap_or_default(), change.1.unwrap_or_default()["status"].clone())
}

fn infrastructure(endpoint: &str, zone: &str) -> Option<External> {
    Some(external(
        "Infra",
        "demo",
        json!({
            "spec": {"controlPlaneEndpoint": {"host": endpoint, "port": 6443}},
            "status": {"initialization": {"provisioned": true}, "failureDomains": [{"name": zone, "controlPlane": true}]},
        }),
    ))
}

#[test]
fn the_finalizer_comes_first_and_then_the_parts_are_adopted() {
    let mut seen = seen();
    Arc::make_mut(&mut seen.cluster).metadata.finalizers = None;
    seen.infrastructure = Some(external("Infra", "demo", json!({})));
    assert_eq!(
        brief(&plan(&seen, &now())),
        "\
update Cluster demo {\"metadata\":{\"finalizers\":[\"cluster.cluster.x-k8s.io\"]}}\n\
settled"
    );
    Arc::make_mut(&mut seen.cluster).metadata.finalizers = Some(vec![names::CLUSTER_FINALIZER.into()]);
    assert_eq!(
        brief(&plan(&seen, &now())),
        "\
update Infra demo {\"metadata\":{\"labels\":{\"cluster.x-k8s.io/cluster-name\":\"demo\"},\"ownerReferences\":[{\"apiVersion\":\"cluster.x-k8s.io/v1beta2\",\"blockOwnerDeletion\":true,\"controller\":true,\"kind\":\"Cluster\",\"name\":\"demo\",\"uid\":\"u-demo\"}]}}\n\
settled"
    );
}

#[test]
fn phases_follow_from_what_is_there() {
    let mut seen = seen();
    let phase = |seen: &Seen| written(seen).1["phase"].as_str().unwrap_or("unchanged").to_owned();
    assert_eq!(phase(&seen), "Pending");
    seen.infrastructure = Some(external("Infra", "demo", json!({})));
    assert_eq!(phase(&seen), "Provisioning");
    seen.infrastructure = infrastructure("", "az1");
    assert_eq!(phase(&seen), "Provisioning", "no endpoint yet");
    seen.infrastructure = infrastructure("127.0.0.9", "az1");
    assert_eq!(phase(&seen), "Provisioned");
    Arc::make_mut(&mut seen.cluster).metadata.deletion_timestamp = Some(now());
    assert_eq!(phase(&seen), "Deleting");
}

#[test]
fn the_endpoint_is_taken_over_once_and_the_failure_domains_as_they_are() {
    let mut seen = seen();
    seen.infrastructure = infrastructure("127.0.0.9", "az1");
    let (main, status) = written(&seen);
    assert_eq!(main["spec"], json!({"controlPlaneEndpoint": {"host": "127.0.0.9", "port": 6443}}));
    assert_eq!(status["failureDomains"], json!([{"name": "az1", "controlPlane": true}]));
    assert_eq!(status["initialization"], json!({"infrastructureProvisioned": true}));
    let mut cluster = seen.cluster.as_ref().clone();
    cluster.spec.control_plane_endpoint = Some(Endpoint { host: Some("127.0.0.9".into()), port: Some(6443) });
    seen.cluster = Arc::new(cluster);
    seen.infrastructure = infrastructure("127.0.0.10", "az2");
    let (main, status) = written(&seen);
    assert_eq!(main.get("spec"), None, "an endpoint never changes");
    assert_eq!(status["failureDomains"][0]["name"], "az2");
}

#[test]
fn what_has_been_provisioned_stays_so() {
    let mut seen = seen();
    Arc::make_mut(&mut seen.cluster).status = Some(ClusterStatus {
        initialization: Some(ClusterInitialization {
            infrastructure_provisioned: Some(true),
            control_plane_initialized: Some(true),
        }),
        ..Default::default()
    });
    seen.infrastructure = Some(external("Infra", "demo", json!({})));
    seen.control_plane = Some(external("ControlPlane", "demo", json!({})));
    assert_eq!(written(&seen).1.get("initialization"), None);
}

#[test]
fn a_cluster_is_taken_apart_workers_first_and_infrastructure_last() {
    let mut seen = seen();
    Arc::make_mut(&mut seen.cluster).metadata.deletion_timestamp = Some(now());
    let deployment = placed(MachineDeployment::new("md", MachineDeploymentSpec::default()), "u-md");
    let mut set = placed(MachineSet::new("md-x", MachineSetSpec::default()), "u-md-x");
    owner::ensure(&mut set.metadata, owner::reference(&deployment, true));
    let mut worker = placed(Machine::new("md-x-1", MachineSpec::default()), "u-md-x-1");
    owner::ensure(&mut worker.metadata, owner::reference(&set, true));
    let lone = placed(MachineSet::new("ms", MachineSetSpec::default()), "u-ms");
    let mut first = placed(Machine::new("cp-1", MachineSpec::default()), "u-cp-1");
    owner::label(&mut first.metadata, names::CONTROL_PLANE_LABEL, "");
    seen.deployments = vec![Arc::new(deployment)];
    seen.sets = vec![Arc::new(set), Arc::new(lone)];
    seen.machines = vec![Arc::new(worker), Arc::new(first)];
    seen.control_plane = Some(external("ControlPlane", "demo", json!({})));
    seen.infrastructure = Some(external("Infra", "demo", json!({})));
    let told = |seen: &Seen| {
        let plan = plan(seen, &now());
        let mut after = seen.cluster.as_ref().clone();
        if let Some(Step::Update(change)) = plan.steps.last()
            && let Some(status) = &change.status
        {
            after.status = serde_json::from_value(status["status"].clone()).ok();
        }
        let conditions = after.status.map(|status| status.conditions).unwrap_or_default();
        let deleting =
            condition::get(&conditions, "Deleting").map(|found| format!("{}\n{}", found.reason, found.message));
        format!("{}\n{}", brief(&plan), deleting.unwrap_or_default())
    };
    assert_eq!(
        told(&seen),
        "\
delete MachineDeployment md\n\
delete MachineSet ms\n\
waits 5 s: the workers' deletion\n\
WaitingForWorkersDeletion\n\
* MachineDeployment md still exists\n\
* MachineSet md-x still exists\n\
* MachineSet ms still exists\n\
* Machine md-x-1 still exists",
        "workers"
    );
    seen.deployments.clear();
    seen.sets.clear();
    seen.machines.remove(0);
    assert_eq!(
        told(&seen),
        "\
delete ControlPlane demo\n\
waits 5 s: the control plane's deletion\n\
WaitingForControlPlaneDeletion\n\
* ControlPlane demo still exists",
        "control plane"
    );
    seen.control_plane.as_mut().unwrap().meta.deletion_timestamp = Some(now());
    assert!(!told(&seen).contains("delete ControlPlane"), "once is enough");
    seen.control_plane = None;
    assert_eq!(
        told(&seen),
        "\
delete Machine cp-1\n\
waits 5 s: the control plane machines' deletion\n\
WaitingForControlPlaneDeletion\n\
* Machine cp-1 still exists",
        "machines of nobody"
    );
    seen.machines.clear();
    assert_eq!(
        told(&seen),
        "\
delete Infra demo\n\
waits 5 s: the infrastructure's deletion\n\
WaitingForInfrastructureDeletion\n\
* Infra demo still exists",
        "infrastructure"
    );
    let infrastructure = seen.infrastructure.as_mut().unwrap();
    infrastructure.meta.deletion_timestamp = Some(now());
    let mut value = infrastructure.value().clone();
    value["status"] = json!({"conditions": [{
        "type": "Ready", "status": "False", "reason": "Cloud", "message": "the volumes cannot be listed",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    infrastructure.set(value);
    assert!(told(&seen).ends_with("* Infra demo still exists: the volumes cannot be listed"), "{}", told(&seen));
    seen.infrastructure = None;
    assert_eq!(
        told(&seen),
        "\
update Cluster demo {\"metadata\":{\"finalizers\":null}}\n\
settled\n\
",
        "itself"
    );
}

#[test]
fn a_paused_cluster_neither_adopts_nor_goes() {
    let mut seen = seen();
    seen.infrastructure = infrastructure("127.0.0.9", "az1");
    Arc::make_mut(&mut seen.cluster).spec.paused = Some(true);
    assert_eq!(brief(&plan(&seen, &now())), "settled");
    let paused = written(&seen).1["conditions"][0].clone();
    assert_eq!((&paused["type"], &paused["status"]), (&json!("Paused"), &json!("True")));
    Arc::make_mut(&mut seen.cluster).metadata.deletion_timestamp = Some(now());
    assert_eq!(brief(&plan(&seen, &now())), "settled");
}

#[test]
fn a_topology_that_has_not_failed_makes_no_cluster_unavailable() {
    let is_named = |reason: &str| {
        let mut seen = seen();
        let cluster = Arc::make_mut(&mut seen.cluster);
        cluster.spec.topology = Some(Default::default());
        let statement = condition::Statement::no("TopologyReconciled", reason, "told");
        condition::set(&mut cluster.status.get_or_insert_default().conditions, statement, None, &now());
        let conditions = written(&seen).1["conditions"].as_array().cloned().unwrap_or_default();
        let available = conditions.into_iter().find(|one| one["type"] == "Available").unwrap();
        available["message"].as_str().unwrap_or_default().contains("TopologyReconciled")
    };
    for (reason, named) in [
        ("ReconcileFailed", true),
        ("ClusterClassNotReconciled", true),
        ("ClusterUpgrading", false),
        ("MachinePoolsUpgradeDeferred", false),
        // It stands there for a moment after a cluster goes on.
        ("Paused", false),
    ] {
        assert_eq!(is_named(reason), named, "{reason}");
    }
}

#[test]
fn a_long_list_of_what_is_left_is_cut() {
    let names: Vec<String> = (0..6).map(|index| format!("Machine m{index}")).collect();
    assert!(listed(&names).ends_with("* Machine m4 still exists\n* and 1 more"));
    assert!(listed(&names[..5]).ends_with("* Machine m4 still exists"));
}
