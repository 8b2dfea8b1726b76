//! What a pool does about its machines, as text.

use api::{
    cluster::ClusterSpec,
    machine::{MachineInitialization, MachineStatus, MachineTemplate, NodeRef},
    machine_pool::{MachinePoolPhase, MachinePoolSpec},
};
use serde_json::{Value, json};

use super::*;
use crate::machine_set::tests::{brief, external, now, placed};

fn reference(kind: &str) -> ContractRef {
    ContractRef { api_group: "x.example".into(), kind: kind.into(), name: "t".into() }
}

fn seen(replicas: &[&str]) -> Seen {
    let spec = MachineSpec {
        cluster_name: "demo".into(),
        version: Some("v1.34.2".into()),
        bootstrap: Bootstrap { config_ref: Some(reference("Boot")), data_secret_name: None },
        infrastructure_ref: reference("InfraPool"),
        ..Default::default()
    };
    let template = MachineTemplate { metadata: None, spec };
    let spec = MachinePoolSpec { cluster_name: "demo".into(), replicas: Some(2), template, ..Default::default() };
    let mut pool = placed(MachinePool::new("mp", spec), "u-mp");
    let cluster = placed(Cluster::new("demo", ClusterSpec::default()), "u-demo");
    pool.metadata.finalizers = Some(vec![names::MACHINE_POOL_FINALIZER.into()]);
    owner::label(&mut pool.metadata, names::CLUSTER_LABEL, "demo");
    owner::ensure(&mut pool.metadata, owner::reference(&cluster, false));
    let part = |kind: &str, value: Value| {
        let mut part = external(kind, "t", value);
        owner::ensure(&mut part.meta, owner::reference(&pool, true));
        owner::label(&mut part.meta, names::CLUSTER_LABEL, "demo");
        Some(part)
    };
    Seen {
        bootstrap: part(
            "Boot",
            json!({"status": {"dataSecretName": "t", "initialization": {"dataSecretCreated": true}}}),
        ),
        infrastructure: part("InfraPool", json!({"status": {"replicas": 2, "currentTemplateHash": "2"}})),
        replicas: replicas
            .iter()
            .map(|name| {
                let mut replica = external("Infra", name, json!({}));
                owner::label(&mut replica.meta, names::TEMPLATE_HASH_LABEL, "2");
                replica
            })
            .collect(),
        machines: Vec::new(),
        bare: BTreeSet::new(),
        nodes: BTreeMap::new(),
        cluster: Some(Arc::new(cluster)),
        pool: Arc::new(pool),
    }
}

fn machine(seen: &mut Seen, name: &str, change: impl FnOnce(&mut Machine)) {
    let mut spec = seen.pool.spec.template.spec.clone();
    spec.bootstrap = Bootstrap { config_ref: None, data_secret_name: Some("t".into()) };
    let mut machine = placed(Machine::new(name, spec), &format!("u-{name}"));
    machine.metadata.owner_references = Some(vec![owner::reference(seen.pool.as_ref(), true)]);
    machine.status =
        Some(MachineStatus { node_ref: Some(NodeRef { name: format!("{name}-node") }), ..Default::default() });
    change(&mut machine);
    seen.machines.push(Arc::new(machine));
}

/// The pool as the plan writes it.
fn written(seen: &Seen) -> MachinePool {
    let mut after = seen.pool.as_ref().clone();
    take_over(seen, &mut after);
    status::set(seen, &mut after, false, &now());
    after
}

#[test]
fn each_replica_gets_a_machine_with_the_pools_bootstrap_data_in_the_emptiest_zone() {
    let mut seen = seen(&["mp-a", "mp-b", "mp-c"]);
    Arc::get_mut(&mut seen.pool).unwrap().spec.failure_domains = vec!["az1".into(), "az2".into()];
    machine(&mut seen, "mp-a", |machine| machine.spec.failure_domain = Some("az1".into()));
    let plan = plan(&seen, &now());
    let text = brief(&plan);
    assert!(text.contains("create Machine mp-b") && text.contains("create Machine mp-c"), "{text}");
    assert!(!text.contains("create Machine mp-a"), "{text}");
    let made = plan.steps.iter().find_map(|step| match step {
        control::Step::Create { body, .. } => Some(body.clone()),
        _ => None,
    });
    let spec = &made.unwrap()["spec"];
    assert_eq!(spec["failureDomain"], "az2");
    assert_eq!(spec["bootstrap"], json!({"dataSecretName": "t"}));
    assert_eq!(spec["infrastructureRef"], json!({"apiGroup": "x.example", "kind": "Infra", "name": "mp-b"}));

    seen.bootstrap.as_mut().unwrap().set(json!({}));
    let text = brief(&super::plan(&seen, &now()));
    assert!(!text.contains("create Machine") && text.contains("the bootstrap data"), "{text}");
}

#[test]
fn a_machine_goes_with_its_infrastructure_unless_that_may_still_come() {
    let mut seen = seen(&["a", "b"]);
    for name in ["a", "b", "c", "d"] {
        machine(&mut seen, name, |machine| {
            machine.spec.infrastructure_ref.name = name.into();
            machine.metadata.creation_timestamp = Some(now());
            let ready = MachineInitialization { infrastructure_provisioned: Some(true), ..Default::default() };
            machine.status.as_mut().unwrap().initialization = (name != "d").then_some(ready);
        });
    }
    seen.replicas[1].meta.deletion_timestamp = Some(now());
    seen.bare = ["c", "d"].map(str::to_owned).into();
    let deleted = |after_s: i64| {
        let told = brief(&plan(&seen, &Time(now().0 + jiff::SignedDuration::from_secs(after_s))));
        let names: Vec<String> =
            told.lines().filter_map(|line| line.strip_prefix("delete Machine ").map(str::to_owned)).collect();
        (names, told.contains("waits 5 s: the infrastructure of d"))
    };
    assert_eq!(deleted(55), (vec!["b".to_owned(), "c".to_owned()], true));
    assert_eq!(deleted(60), (vec!["b".to_owned(), "c".to_owned(), "d".to_owned()], false));
}

#[test]
fn a_machine_that_admission_has_completed_is_left_alone() {
    let mut seen = seen(&["a"]);
    machine(&mut seen, "a", |machine| {
        machine.spec.deletion = Some(api::machine::MachineDeletion {
            node_deletion_timeout_seconds: Some(api::admission::NODE_DELETION_TIMEOUT_S),
            ..Default::default()
        });
    });
    let text = brief(&plan(&seen, &now()));
    assert!(!text.contains("update Machine a"), "{text}");
}

#[test]
fn what_a_deletion_takes_is_carried_to_a_machine_that_goes_and_labels_come_and_go() {
    let mut seen = seen(&["a", "b"]);
    machine(&mut seen, "a", |machine| machine.metadata.deletion_timestamp = Some(now()));
    machine(&mut seen, "b", |_| ());
    let template = &mut Arc::get_mut(&mut seen.pool).unwrap().spec.template;
    template.metadata.get_or_insert_default().labels.insert("a".into(), "b".into());
    template.spec.deletion.get_or_insert_default().node_drain_timeout_seconds = Some(1);
    let text = brief(&plan(&seen, &now()));
    let deletion = r#""deletion":{"nodeDeletionTimeoutSeconds":10,"nodeDrainTimeoutSeconds":1}"#;
    assert!(text.contains(&format!(r#"update Machine a {{"spec":{{{deletion}}}}}"#)), "{text}");
    assert!(text.contains(r#""labels":{"a":"b"}"#), "{text}");
    machine(&mut seen, "c", |machine| {
        owner::label(&mut machine.metadata, "a", "b");
        owner::annotate(&mut machine.metadata, names::LABELS_FROM_OWNER_ANNOTATION, "a");
    });
    Arc::get_mut(&mut seen.pool).unwrap().spec.template.metadata = None;
    let text = brief(&plan(&seen, &now()));
    assert!(text.contains(r#""labels":{"a":null}"#), "{text}");
}

#[test]
fn what_belongs_to_another_pool_is_not_taken_from_it() {
    let mut seen = seen(&[]);
    let other = placed(MachinePool::new("other", MachinePoolSpec::default()), "u-other");
    let meta = &mut seen.bootstrap.as_mut().unwrap().meta;
    meta.owner_references = None;
    owner::ensure(meta, owner::reference(&other, true));
    let text = brief(&plan(&seen, &now()));
    assert!(!text.contains("update Boot t"), "{text}");
    let status = written(&seen).status.unwrap();
    let told = condition::get(&status.conditions, "BootstrapConfigReady").unwrap();
    assert_eq!((told.reason.as_str(), told.message.as_str()), ("NotOwned", "Boot t belongs to MachinePool other"));
    // One of the same name was there before.
    let before = placed(MachinePool::new("mp", MachinePoolSpec::default()), "u-before");
    let meta = &mut seen.bootstrap.as_mut().unwrap().meta;
    meta.owner_references = None;
    owner::ensure(meta, owner::reference(&before, true));
    let text = brief(&plan(&seen, &now()));
    assert!(text.contains("update Boot t"), "{text}");
}

#[test]
fn what_is_outdated_says_why_and_what_is_sick_goes() {
    let mut seen = seen(&["new", "old", "sick"]);
    machine(&mut seen, "new", |_| ());
    machine(&mut seen, "old", |_| ());
    machine(&mut seen, "sick", |machine| {
        let conditions = &mut machine.status.as_mut().unwrap().conditions;
        for type_ in ["HealthCheckSucceeded", "OwnerRemediated"] {
            condition::set(conditions, Statement::no(type_, "Sick", ""), None, &now());
        }
    });
    owner::label(&mut seen.replicas[1].meta, names::TEMPLATE_HASH_LABEL, "1");
    assert_eq!(up_to_date(&seen, &seen.machines[0]).message, "");
    assert_eq!(up_to_date(&seen, &seen.machines[1]).message, "* InfraPool t has changed");
    let version = &mut Arc::get_mut(&mut seen.pool).unwrap().spec.template.spec.version;
    *version = Some("v1.35.0".into());
    assert_eq!(up_to_date(&seen, &seen.machines[0]).message, "* Version v1.34.2, v1.35.0 required");
    let text = brief(&plan(&seen, &now()));
    assert!(text.contains("delete Machine sick") && !text.contains("delete Machine old"), "{text}");
}

#[test]
fn phases_and_nodes_are_those_of_the_machines() {
    let mut seen = seen(&["a", "b"]);
    assert_eq!(written(&seen).status.unwrap().phase, Some(MachinePoolPhase::Provisioning));
    machine(&mut seen, "a", |_| ());
    let after = written(&seen);
    let status = after.status.unwrap();
    assert_eq!(after.spec.template.spec.bootstrap.data_secret_name.as_deref(), Some("t"));
    assert_eq!(status.phase, Some(MachinePoolPhase::Provisioned));
    assert_eq!(status.node_refs[0].name.as_deref(), Some("a-node"));
    seen.infrastructure.as_mut().unwrap().set(json!({
        "spec": {"providerIDList": ["openstack:///a"], "replicas": 5},
        "status": {"replicas": 2, "initialization": {"provisioned": true}},
    }));
    let after = written(&seen);
    assert_eq!(after.spec.provider_id_list, ["openstack:///a"]);
    assert_eq!((after.spec.replicas, after.status.unwrap().phase), (Some(2), Some(MachinePoolPhase::ScalingUp)));
    let pool = Arc::get_mut(&mut seen.pool).unwrap();
    owner::annotate(&mut pool.metadata, names::REPLICAS_MANAGED_BY_ANNOTATION, "external-autoscaler");
    let after = written(&seen);
    assert_eq!((after.spec.replicas, after.status.unwrap().phase), (Some(5), Some(MachinePoolPhase::Scaling)));
}

#[test]
fn a_pool_takes_its_machines_then_its_infrastructure_then_its_configuration_along() {
    let mut seen = seen(&[]);
    machine(&mut seen, "a", |_| ());
    Arc::get_mut(&mut seen.pool).unwrap().metadata.deletion_timestamp = Some(now());
    assert!(brief(&plan(&seen, &now())).contains("delete Machine a"));
    seen.machines.clear();
    let text = brief(&plan(&seen, &now()));
    assert!(text.contains("delete InfraPool t") && !text.contains("delete Boot t"), "{text}");
    seen.infrastructure = None;
    assert!(brief(&plan(&seen, &now())).contains("delete Boot t"));
    seen.bootstrap = None;
    assert!(brief(&plan(&seen, &now())).contains(r#"update MachinePool mp {"metadata":{"finalizers":null}}"#));
}
