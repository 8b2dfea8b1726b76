//! What a set does about its machines, as text.

use api::{
    cluster::ClusterSpec,
    machine::{
        Bootstrap, MachineDeletion, MachineDeploymentSpec, MachineSetDeletion, MachineSetSpec, MachineStatus,
        MachineTemplate, NodeRef,
    },
    meta::TemplateMeta,
};
use jiff::SignedDuration;
use kube::{Resource, api::ApiResource, core::GroupVersionKind};

use super::*;

pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

pub(crate) fn now() -> Time {
    Time(NOW.parse().unwrap())
}

/// The plan without what its updates say about conditions and counters.
pub(crate) fn brief(plan: &Plan) -> String {
    let mut lines: Vec<String> = Vec::new();
    for step in &plan.steps {
        match step {
            Step::Update(change) => {
                if let Some(main) = &change.main {
                    lines.push(format!("update {} {} {main}", change.resource.kind, change.key.name));
                }
            }
            Step::Create { resource, key, .. } => lines.push(format!("create {} {}", resource.kind, key.name)),
            Step::Delete { resource, key, .. } => lines.push(format!("delete {} {}", resource.kind, key.name)),
            Step::Event(event) => lines.push(format!("event {}: {}", event.reason, event.message)),
        }
    }
    let settled = Plan { steps: Vec::new(), outcome: plan.outcome.clone() };
    lines.push(settled.to_string());
    lines.join("\n")
}

/// An object of a provider that exists in tests only.
pub(crate) fn external(kind: &str, name: &str, value: Value) -> External {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("x.example", "v1", kind));
    let meta = ObjectMeta { name: Some(name.into()), namespace: Some("ns".into()), ..Default::default() };
    External::from_value(resource, meta, value)
}

fn reference(kind: &str) -> ContractRef {
    ContractRef { api_group: "x.example".into(), kind: kind.into(), name: "t".into() }
}

pub(crate) fn placed<K: Resource>(mut object: K, uid: &str) -> K {
    object.meta_mut().namespace = Some("ns".into());
    object.meta_mut().uid = Some(uid.into());
    object
}

pub(super) fn seen(replicas: i32) -> Seen {
    let template = MachineTemplate {
        metadata: None,
        spec: MachineSpec {
            cluster_name: "demo".into(),
            version: Some("v1.34.2".into()),
            bootstrap: Bootstrap { config_ref: Some(reference("BootTemplate")), data_secret_name: None },
            infrastructure_ref: reference("InfraTemplate"),
            deletion: MachineDeletion::completed(None),
            ..Default::default()
        },
    };
    let spec = MachineSetSpec { cluster_name: "demo".into(), replicas: Some(replicas), template, ..Default::default() };
    let mut set = placed(MachineSet::new("ms", spec), "u-ms");
    set.metadata.finalizers = Some(vec![names::MACHINE_SET_FINALIZER.into()]);
    set.metadata.labels = Some([(names::CLUSTER_LABEL.to_owned(), "demo".to_owned())].into());
    let cluster = placed(Cluster::new("demo", ClusterSpec::default()), "u-demo");
    owner::ensure(&mut set.metadata, owner::reference(&cluster, false));
    let kind = |kind| Some(ApiResource::from_gvk(&GroupVersionKind::gvk("x.example", "v1", kind)));
    let template = |kind: &str, value: Value| {
        let mut template = external(kind, "t", value);
        owner::ensure(&mut template.meta, owner::reference(&cluster, false));
        Some(template)
    };
    Seen {
        set: Arc::new(set),
        cluster: Some(Arc::new(cluster.clone())),
        control_plane: ControlPlane::Unknown,
        deployment: None,
        machines: Vec::new(),
        orphans: Vec::new(),
        bootstrap_template: template("BootTemplate", json!({"spec": {"template": {"spec": {"a": 1}}}})),
        infrastructure_template: template("InfraTemplate", json!({})),
        bootstraps: BTreeMap::new(),
        infrastructures: BTreeMap::new(),
        kinds: CloneKinds { bootstrap: kind("Boot"), infrastructure: kind("Infra") },
        suffixes: Suffixes::seeded(1),
        target: None,
        moved: BTreeMap::new(),
    }
}

pub(super) fn set_of(seen: &mut Seen) -> &mut MachineSet {
    Arc::get_mut(&mut seen.set).unwrap()
}

/// A machine of the set, made so many minutes ago.
pub(super) fn machine(seen: &mut Seen, name: &str, minutes: i64, healthy: bool) {
    let mut machine = placed(Machine::new(name, seen.set.spec.template.spec.clone()), &format!("u-{name}"));
    machine.metadata.owner_references = Some(vec![owner::reference(seen.set.as_ref(), true)]);
    machine.metadata.creation_timestamp = Some(Time(now().0 - SignedDuration::from_mins(minutes)));
    let mut status = MachineStatus { node_ref: Some(NodeRef { name: name.into() }), ..Default::default() };
    let statement = Statement::of("NodeHealthy", healthy, ("NodeHealthy", "NodeNotHealthy"), "");
    condition::set(&mut status.conditions, statement, None, &now());
    machine.status = Some(status);
    seen.machines.push(Arc::new(machine));
}

pub(super) fn machine_of<'a>(seen: &'a mut Seen, name: &str) -> &'a mut Machine {
    let found = seen.machines.iter_mut().find(|machine| machine.metadata.name.as_deref() == Some(name));
    Arc::get_mut(found.unwrap()).unwrap()
}

pub(super) fn text(seen: &Seen) -> String {
    brief(&plan(seen, &now()))
}

#[test]
fn machines_of_nobody_that_the_selector_names_are_adopted_and_none_is_made_beside_them() {
    let mut seen = seen(2);
    machine(&mut seen, "m1", 5, true);
    owner::label(&mut set_of(&mut seen).metadata, names::DEPLOYMENT_LABEL, "md");
    seen.orphans = std::mem::take(&mut seen.machines);
    Arc::get_mut(&mut seen.orphans[0]).unwrap().metadata.owner_references = None;
    let told = text(&seen);
    let (update, rest) = told.split_once('\n').unwrap();
    assert!(update.starts_with("update Machine m1 ") && update.contains(r#""controller":true"#), "{told}");
    assert!(update.contains(r#""cluster.x-k8s.io/set-name":"ms""#), "{told}");
    assert!(update.contains(r#""cluster.x-k8s.io/deployment-name":"md""#), "{told}");
    assert!(rest.starts_with("event SuccessfulAdopt: Adopted Machine m1\nsettled"), "{told}");
}

#[test]
fn a_machine_is_made_after_its_configuration_and_its_infrastructure() {
    assert_eq!(
        text(&seen(2)),
        "\
create Boot ms-hvls4\n\
create Infra ms-hvls4\n\
create Machine ms-hvls4\n\
event SuccessfulCreate: Created Machine ms-hvls4\n\
create Boot ms-8vcx9\n\
create Infra ms-8vcx9\n\
create Machine ms-8vcx9\n\
event SuccessfulCreate: Created Machine ms-8vcx9\n\
settled"
    );
}

#[test]
fn a_create_that_was_cut_short_is_finished_and_not_begun_again() {
    let mut seen = seen(2);
    seen.bootstraps.insert("ms-a".into(), external("Boot", "ms-a", json!({})));
    assert_eq!(
        text(&seen),
        "\
create Infra ms-a\n\
create Machine ms-a\n\
event SuccessfulCreate: Created Machine ms-a\n\
create Boot ms-hvls4\n\
create Infra ms-hvls4\n\
create Machine ms-hvls4\n\
event SuccessfulCreate: Created Machine ms-hvls4\n\
settled"
    );
    seen.infrastructures.insert("ms-a".into(), external("Infra", "ms-a", json!({})));
    set_of(&mut seen).spec.replicas = Some(1);
    assert_eq!(
        text(&seen),
        "\
create Machine ms-a\n\
event SuccessfulCreate: Created Machine ms-a\n\
settled",
        "only the machine is missing"
    );
    seen.bootstraps.get_mut("ms-a").unwrap().meta.deletion_timestamp = Some(now());
    seen.infrastructures.get_mut("ms-a").unwrap().meta.deletion_timestamp = Some(now());
    assert!(!text(&seen).contains("ms-a"), "what is being deleted is no start: {}", text(&seen));
}

#[test]
fn clones_that_nobody_needs_any_more_go() {
    let mut seen = seen(1);
    machine(&mut seen, "m", 1, true);
    seen.infrastructures.insert("ms-a".into(), external("Infra", "ms-a", json!({})));
    assert_eq!(
        text(&seen),
        "\
delete Infra ms-a\n\
settled",
        "as many machines as wanted"
    );
    set_of(&mut seen).spec.replicas = Some(0);
    assert_eq!(
        text(&seen),
        "\
delete Machine m\n\
delete Infra ms-a\n\
settled"
    );
}

#[test]
fn clones_of_machines_that_go_are_their_machines_affair() {
    let mut seen = seen(0);
    let mut clone = external("Infra", "m", json!({}));
    let gone = placed(Machine::new("m", MachineSpec::default()), "u-m");
    owner::ensure(&mut clone.meta, owner::reference(&gone, true));
    seen.infrastructures.insert("m".into(), clone);
    assert_eq!(text(&seen), "settled");
}

#[test]
fn machines_are_removed_by_need_and_then_by_order() {
    let order = |order, keep: i32| {
        let mut seen = seen(keep);
        for (name, minutes, healthy) in
            [("m1", 50, true), ("m2", 40, true), ("m3", 30, false), ("m4", 20, true), ("m5", 10, true)]
        {
            machine(&mut seen, name, minutes, healthy);
        }
        set_of(&mut seen).spec.deletion = Some(MachineSetDeletion { order: Some(order) });
        machine_of(&mut seen, "m4").metadata.annotations =
            Some([(names::DELETE_MACHINE_ANNOTATION.to_owned(), String::new())].into());
        machine_of(&mut seen, "m1").metadata.deletion_timestamp = Some(now());
        let deleted = text(&seen);
        deleted.lines().filter_map(|line| line.strip_prefix("delete Machine ")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(DeletionOrder::Newest, 4), "", "one goes already");
    assert_eq!(order(DeletionOrder::Newest, 3), "m4", "named by a user");
    assert_eq!(order(DeletionOrder::Newest, 2), "m4 m3", "unhealthy");
    assert_eq!(order(DeletionOrder::Newest, 1), "m4 m3 m5");
    assert_eq!(order(DeletionOrder::Oldest, 1), "m4 m3 m2");
    assert_eq!(order(DeletionOrder::Random, 1), "m4 m3 m2");
}

#[test]
fn a_machine_that_is_being_updated_goes_before_those_that_are_not_well() {
    let mut seen = seen(1);
    for (name, healthy) in [("m1", false), ("m2", true), ("m3", true)] {
        machine(&mut seen, name, 10, healthy);
    }
    api::in_place::mark(&mut machine_of(&mut seen, "m3").metadata, true);
    assert_eq!(names_of(&first_to_go(&seen.machines, DeletionOrder::Oldest)), "m3 m1 m2");
    owner::annotate(&mut machine_of(&mut seen, "m2").metadata, names::DELETE_MACHINE_ANNOTATION, "");
    assert_eq!(names_of(&first_to_go(&seen.machines, DeletionOrder::Oldest)), "m2 m3 m1");
}

fn names_of(machines: &[&Arc<Machine>]) -> String {
    machines.iter().filter_map(|machine| machine.metadata.name.as_deref()).collect::<Vec<_>>().join(" ")
}

/// The names of machines that the plan gives to set `new`.
fn given(seen: &Seen) -> String {
    let plan = plan(seen, &now());
    let given = plan.steps.iter().filter_map(|step| match step {
        Step::Update(change) if change.resource.kind == "Machine" => {
            let owner = change.main.as_ref()?.pointer("/metadata/ownerReferences/0/name")?;
            (owner == "new").then(|| change.key.name.clone())
        }
        _ => None,
    });
    given.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_set_gives_machines_to_one_that_takes_them_and_to_no_other() {
    let mut seen = seen(1);
    for (name, healthy) in [("m1", true), ("m2", true), ("m3", true), ("m4", true)] {
        machine(&mut seen, name, 10, healthy);
    }
    owner::annotate(&mut set_of(&mut seen).metadata, names::MOVE_MACHINES_ANNOTATION, "new");
    assert!(text(&seen).contains("MachineSet new, which is to take Machines of this one, does not exist"));
    let mut target = placed(MachineSet::new("new", seen.set.spec.clone()), "u-new");
    seen.target = Some(Arc::new(target.clone()));
    assert!(text(&seen).contains("only accepts Machines from"), "{}", text(&seen));
    assert!(!text(&seen).contains("delete Machine"));
    owner::annotate(&mut target.metadata, names::RECEIVE_MACHINES_ANNOTATION, "ms,other");
    seen.target = Some(Arc::new(target));
    assert_eq!(given(&seen), "m1 m2 m3");
    // One without a node and one that is being updated stay; one that is to be replaced goes.
    machine_of(&mut seen, "m1").status.as_mut().unwrap().node_ref = None;
    api::in_place::mark(&mut machine_of(&mut seen, "m2").metadata, true);
    assert_eq!(given(&seen), "m3 m4");
    let status = machine_of(&mut seen, "m3").status.as_mut().unwrap();
    for type_ in ["HealthCheckSucceeded", "OwnerRemediated"] {
        condition::set(&mut status.conditions, Statement::no(type_, "No", ""), None, &now());
    }
    assert_eq!(given(&seen), "m4");
    assert!(text(&seen).contains("delete Machine m3"));
}

#[test]
fn machines_that_came_are_not_too_many_before_they_are_counted() {
    let mut seen = seen(1);
    for name in ["m1", "m2"] {
        machine(&mut seen, name, 10, true);
    }
    let came = machine_of(&mut seen, "m2");
    api::in_place::mark(&mut came.metadata, true);
    owner::annotate(&mut came.metadata, names::PENDING_ACKNOWLEDGE_MOVE_ANNOTATION, "");
    owner::annotate(&mut set_of(&mut seen).metadata, names::RECEIVE_MACHINES_ANNOTATION, "old");
    assert!(!text(&seen).contains("delete Machine"));
    assert!(in_place::beginning(&seen).is_empty());
    owner::annotate(&mut set_of(&mut seen).metadata, names::ACKNOWLEDGED_MOVE_ANNOTATION, "m2");
    assert!(in_place::beginning(&seen).contains("m2"));
    // Where none are taken any more, it is one like any other.
    let none = set_of(&mut seen).metadata.annotations.take();
    assert!(in_place::beginning(&seen).contains("m2"));
    assert!(text(&seen).contains("delete Machine m2"));
    set_of(&mut seen).metadata.annotations = none;
    assert!(!text(&seen).contains("delete Machine"));
}

#[test]
fn a_machine_that_is_deleted_is_not_written_in_the_same_plan() {
    let mut seen = seen(0);
    machine(&mut seen, "m", 1, true);
    let mut deployment = MachineDeployment::new("md", MachineDeploymentSpec::default());
    deployment.spec.template = seen.set.spec.template.clone();
    seen.deployment = Some(Arc::new(deployment));
    let meta = TemplateMeta { labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() };
    set_of(&mut seen).spec.template.metadata = Some(meta);
    assert!(text(&seen).starts_with("delete Machine m\n"), "{}", text(&seen));
    assert!(!plan(&seen, &now()).to_string().contains("update Machine ns/m"));
    set_of(&mut seen).spec.replicas = Some(1);
    let carried = r#"{"metadata":{"annotations":{"cluster.x-k8s.io/labels-from-owner":"a"},"labels":{"a":"b"}}}"#;
    assert!(text(&seen).contains(&format!("update Machine m {carried}")), "{}", text(&seen));
}

#[test]
fn what_a_deletion_takes_is_carried_to_a_machine_that_goes_and_its_labels_are_not() {
    let mut seen = seen(0);
    machine(&mut seen, "m", 1, true);
    machine_of(&mut seen, "m").metadata.deletion_timestamp = Some(now());
    let template = &mut set_of(&mut seen).spec.template;
    template.metadata = Some(TemplateMeta { labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() });
    let deletion = template.spec.deletion.get_or_insert_default();
    (deletion.node_drain_timeout_seconds, deletion.node_volume_detach_timeout_seconds) = (Some(1), Some(2));
    template.spec.min_ready_seconds = Some(3);
    let carried = r#"update Machine m {"spec":{"deletion":{"nodeDrainTimeoutSeconds":1,"nodeVolumeDetachTimeoutSeconds":2},"minReadySeconds":3}}"#;
    assert!(text(&seen).contains(carried), "{}", text(&seen));
}

#[test]
fn a_label_that_leaves_the_template_leaves_the_machine_and_that_of_another_stays() {
    let mut seen = seen(1);
    let meta = TemplateMeta { labels: [("a".to_owned(), "1".to_owned())].into(), ..Default::default() };
    set_of(&mut seen).spec.template.metadata = Some(meta);
    let made = plan(&seen, &now()).steps.into_iter().find_map(|step| match step {
        Step::Create { resource, body, .. } if resource.kind == "Machine" => Some(body),
        _ => None,
    });
    let mut made: Machine = serde_json::from_value(made.unwrap()).unwrap();
    (made.metadata.uid, made.status) = (Some("u-m".into()), Some(MachineStatus::default()));
    owner::label(&mut made.metadata, "theirs", "1");
    let name = made.metadata.name.clone().unwrap();
    seen.machines.push(Arc::new(made));
    assert!(!text(&seen).contains("update Machine "), "one that was just made is written no more: {}", text(&seen));
    set_of(&mut seen).spec.template.metadata = None;
    let gone = r#"{"metadata":{"annotations":{"cluster.x-k8s.io/labels-from-owner":null},"labels":{"a":null}}}"#;
    assert!(text(&seen).contains(&format!("update Machine {name} {gone}")), "{}", text(&seen));
}

#[test]
fn no_worker_is_made_before_its_control_plane_lets_it() {
    let mut seen = seen(1);
    seen.control_plane = ControlPlane::Missing;
    assert_eq!(
        text(&seen),
        "\
event ScalingUpBlocked: the control plane does not exist\n\
waits 15 s: the control plane does not exist"
    );
    let at = |wanted: &str, running: &str| {
        let value = json!({"spec": {"version": wanted}, "status": {"version": running}});
        ControlPlane::Found(external("KubeadmControlPlane", "cp", value).into())
    };
    seen.control_plane = at("v1.35.0", "v1.34.2");
    assert_eq!(
        text(&seen),
        "\
event ScalingUpBlocked: KubeadmControlPlane ns/cp is upgrading from v1.34.2 to v1.35.0 (\"ControlPlaneIsStable\" preflight check failed)\n\
waits 15 s: KubeadmControlPlane ns/cp is upgrading from v1.34.2 to v1.35.0 (\"ControlPlaneIsStable\" preflight check failed)"
    );
    seen.control_plane = at("v1.35.0", "v1.35.0");
    assert!(text(&seen).contains("create Machine"));
}

#[test]
fn a_set_makes_nothing_without_its_templates_or_when_it_may_not() {
    let mut one = seen(1);
    one.infrastructure_template = None;
    assert_eq!(
        text(&one),
        "\
create Boot ms-hvls4\n\
event ScalingUpBlocked: InfraTemplate t does not exist\n\
waits 2 s: InfraTemplate t does not exist"
    );
    let mut two = seen(1);
    owner::annotate(&mut set_of(&mut two).metadata, names::DISABLE_MACHINE_CREATE_ANNOTATION, "true");
    assert!(text(&two).ends_with("waits 2 s: creation of machines is disabled by annotation"), "{}", text(&two));
    let many = text(&seen(21));
    assert_eq!(many.matches("create Machine ").count(), CREATED_AT_ONCE);
    assert!(many.ends_with("waits 1 s: the next machines' turn"));
}

#[test]
fn a_set_that_is_deleted_takes_its_machines_and_its_unfinished_clones_along() {
    let mut seen = seen(2);
    machine(&mut seen, "m", 1, true);
    seen.bootstraps.insert("ms-a".into(), external("Boot", "ms-a", json!({})));
    set_of(&mut seen).metadata.deletion_timestamp = Some(now());
    assert_eq!(
        text(&seen),
        "\
delete Machine m\n\
delete Boot ms-a\n\
settled"
    );
    seen.machines.clear();
    seen.bootstraps.clear();
    assert_eq!(
        text(&seen),
        "\
update MachineSet ms {\"metadata\":{\"finalizers\":null}}\n\
settled"
    );
}

#[test]
fn a_paused_set_does_nothing_even_when_it_is_deleted() {
    let mut seen = seen(2);
    machine(&mut seen, "m", 1, true);
    owner::annotate(&mut set_of(&mut seen).metadata, names::PAUSED_ANNOTATION, "");
    assert_eq!(text(&seen), "settled");
    set_of(&mut seen).metadata.deletion_timestamp = Some(now());
    assert_eq!(text(&seen), "settled");
}

#[test]
fn the_finalizer_comes_before_the_first_machine() {
    let mut seen = seen(1);
    set_of(&mut seen).metadata.finalizers = None;
    assert_eq!(
        text(&seen),
        "\
update MachineSet ms {\"metadata\":{\"finalizers\":[\"cluster.x-k8s.io/machineset\"]}}\n\
settled"
    );
}

#[test]
fn the_cluster_owns_the_templates() {
    let mut seen = seen(0);
    seen.infrastructure_template.as_mut().unwrap().meta.owner_references = None;
    let text = text(&seen);
    assert!(text.starts_with("update InfraTemplate t") && text.contains("\"uid\":\"u-demo\""), "{text}");
    assert!(!text.contains("BootTemplate"), "it is owned: {text}");
}

#[test]
fn a_health_that_is_not_known_makes_nobody_go_first() {
    let mut seen = seen(1);
    for name in ["m1", "m2"] {
        machine(&mut seen, name, 1, true);
    }
    let conditions = |seen: &mut Seen, statement| {
        let status = machine_of(seen, "m2").status.as_mut().unwrap();
        condition::set(&mut status.conditions, statement, None, &now());
    };
    conditions(&mut seen, Statement::unknown("NodeHealthy", "ConnectionDown", ""));
    assert!(text(&seen).contains("delete Machine m1"), "by name");
    conditions(&mut seen, Statement::no("HealthCheckSucceeded", "UnhealthyNode", ""));
    assert!(text(&seen).contains("delete Machine m2"));
}
