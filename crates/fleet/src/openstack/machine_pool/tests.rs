//! Scaling and rollouts of a pool, as the names of what comes and goes.

use api::{
    cluster::ClusterSpec,
    machine::{MachineSetDeletion, MachineStatus, NodeRef, RolloutStrategy},
    machine_pool::MachinePoolSpec,
    openstack_cluster::OpenStackClusterStatus,
};
use control::Step;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::machine_set::tests::{now, placed};

fn seen(wanted: i32) -> Seen {
    let mut infra = placed(OpenStackMachinePool::new("osmp", Default::default()), "u-osmp");
    infra.metadata.finalizers = Some(vec![names::OPENSTACK_MACHINE_POOL_FINALIZER.into()]);
    let mut pool = placed(MachinePool::new("mp", MachinePoolSpec::default()), "u-mp");
    pool.spec.replicas = Some(wanted);
    pool.spec.cluster_name = "demo".into();
    pool.spec.template.spec.version = Some("v1.34.2".into());
    pool.spec.template.spec.bootstrap.data_secret_name = Some("data".into());
    let mut infra_cluster = OpenStackCluster::default();
    let initialization = Some(Provisioned { provisioned: Some(true) });
    infra_cluster.status = Some(OpenStackClusterStatus { initialization, ..Default::default() });
    Seen {
        infra: Arc::new(infra),
        pool: Some(Arc::new(pool)),
        cluster: Some(Arc::new(placed(Cluster::new("demo", ClusterSpec::default()), "u-demo"))),
        infra_cluster: Some(Arc::new(infra_cluster)),
        replicas: Vec::new(),
        suffixes: Suffixes::seeded(1),
    }
}

/// A replica made so many minutes ago, of the kind that is made now or of an earlier one.
fn replica(seen: &mut Seen, name: &str, minutes: i64, new: bool, available: bool) {
    let hash = template_hash(&seen.infra, seen.pool.as_ref().unwrap());
    let mut infra = placed(OpenStackMachine::new(name, Default::default()), &format!("u-{name}"));
    owner::label(&mut infra.metadata, names::TEMPLATE_HASH_LABEL, if new { &hash } else { "old" });
    infra.status.get_or_insert_default().initialization = Some(Provisioned { provisioned: Some(true) });
    infra.spec.provider_id = Some(format!("openstack:///{name}"));
    let mut machine = placed(Machine::new(name, Default::default()), &format!("m-{name}"));
    machine.metadata.creation_timestamp = Some(Time(now().0 - SignedDuration::from_mins(minutes)));
    let mut status = MachineStatus { node_ref: Some(NodeRef { name: name.into() }), ..Default::default() };
    let statement = Statement::of("Available", available, ("Available", "NotAvailable"), "");
    condition::set(&mut status.conditions, statement, None, &now());
    machine.status = Some(status);
    seen.replicas.push(Replica { infra: Arc::new(infra), machine: Some(Arc::new(machine)) });
}

/// `+2 -a -b`: how many are made, and which go.
fn changes(seen: &Seen) -> String {
    let plan = plan(seen, &now()).local;
    let made = plan.steps.iter().filter(|step| matches!(step, Step::Create { .. })).count();
    let gone = plan.steps.iter().filter_map(|step| match step {
        Step::Delete { key, .. } => Some(format!(" -{}", key.name)),
        _ => None,
    });
    format!("+{made}{}", gone.collect::<String>())
}

#[test]
fn a_pool_has_as_many_machines_as_are_wanted_and_loses_them_in_order() {
    let mut seen = seen(3);
    assert_eq!(changes(&seen), "+3");
    for (name, minutes) in [("a", 30), ("b", 20), ("c", 10)] {
        replica(&mut seen, name, minutes, true, true);
    }
    assert_eq!(changes(&seen), "+0");
    let want =
        |seen: &mut Seen, wanted| Arc::get_mut(seen.pool.as_mut().unwrap()).unwrap().spec.replicas = Some(wanted);
    want(&mut seen, 2);
    let order = |seen: &mut Seen, order| {
        Arc::get_mut(&mut seen.infra).unwrap().spec.deletion = Some(MachineSetDeletion { order: Some(order) });
    };
    order(&mut seen, api::machine::DeletionOrder::Oldest);
    assert_eq!(changes(&seen), "+0 -a");
    order(&mut seen, api::machine::DeletionOrder::Newest);
    assert_eq!(changes(&seen), "+0 -c");
    // What the autoscaler names goes first.
    let machine = Arc::get_mut(seen.replicas[1].machine.as_mut().unwrap()).unwrap();
    owner::annotate(&mut machine.metadata, names::DELETE_MACHINE_ANNOTATION, "now");
    assert_eq!(changes(&seen), "+0 -b");
    // One that goes is not counted.
    Arc::get_mut(seen.replicas[1].machine.as_mut().unwrap()).unwrap().metadata.deletion_timestamp = Some(now());
    assert_eq!(changes(&seen), "+0");
    want(&mut seen, 3);
    assert_eq!(changes(&seen), "+1");
}

#[test]
fn outdated_machines_go_as_new_ones_serve() {
    let mut seen = seen(2);
    for (name, minutes) in [("a", 30), ("b", 20)] {
        replica(&mut seen, name, minutes, false, true);
    }
    assert_eq!(changes(&seen), "+1", "one more than is wanted");
    replica(&mut seen, "c", 5, true, false);
    assert_eq!(changes(&seen), "+0", "it does not serve yet");
    seen.replicas.pop();
    replica(&mut seen, "c", 5, true, true);
    assert_eq!(changes(&seen), "+1 -a");
    // Those that serve nobody are not waited for.
    seen.replicas.remove(0);
    replica(&mut seen, "idle", 30, false, false);
    assert_eq!(changes(&seen), "+1 -idle");
    let update = api::machine::RollingUpdate {
        max_surge: Some(IntOrString::Int(0)),
        max_unavailable: Some(IntOrString::Int(1)),
    };
    let strategy = |seen: &mut Seen, type_| {
        Arc::get_mut(&mut seen.infra).unwrap().spec.strategy =
            Some(RolloutStrategy { rolling_update: Some(update.clone()), type_ });
    };
    let mut seen = self::seen(2);
    replica(&mut seen, "a", 30, false, true);
    replica(&mut seen, "b", 20, false, true);
    strategy(&mut seen, RolloutStrategyType::RollingUpdate);
    assert_eq!(changes(&seen), "+1 -a", "one less than is wanted");
    strategy(&mut seen, RolloutStrategyType::OnDelete);
    assert_eq!(changes(&seen), "+0");
}

#[test]
fn nothing_is_made_before_its_time_and_the_group_goes_last() {
    let mut seen = seen(1);
    let reason = |seen: &Seen| {
        let mut after = seen.infra.as_ref().clone();
        status(seen, &mut after, waiting(seen), false, &now());
        condition::get(&after.status.unwrap().conditions, "Ready").unwrap().reason.clone()
    };
    seen.infra_cluster = None;
    assert_eq!((changes(&seen).as_str(), reason(&seen).as_str()), ("+0", "WaitingForClusterInfrastructure"));
    seen.pool = None;
    assert_eq!((changes(&seen).as_str(), reason(&seen).as_str()), ("+0", "WaitingForMachinePool"));
    seen.pool = self::seen(1).pool;
    replica(&mut seen, "a", 1, true, true);
    Arc::get_mut(&mut seen.infra).unwrap().metadata.deletion_timestamp = Some(now());
    assert_eq!(changes(&seen), "+0 -a");
    assert!(!plan(&seen, &now()).last);
    seen.replicas.clear();
    assert!(plan(&seen, &now()).last);
    // What holds it up is said once.
    let told = || ("OpenStackError", "compute: no".to_owned());
    let said = held_up(&seen.infra, told(), &now());
    let [Step::Update(change)] = &said.steps[..] else { panic!("{said}") };
    assert!(change.status.as_ref().unwrap().to_string().contains("compute: no"));
    let mut infra = seen.infra.as_ref().clone();
    let statement = Statement::no("Ready", "OpenStackError", "compute: no");
    condition::set(&mut infra.status.get_or_insert_default().conditions, statement, None, &now());
    assert!(held_up(&infra, told(), &now()).steps.is_empty());
}
