//! Deployments whose rollouts are paused.

use api::condition;

use super::*;

fn pause(world: &mut World, paused: bool) {
    world.deployment.spec.paused = Some(paused);
    world.strict = false;
}

#[test]
fn a_paused_deployment_is_scaled_and_its_new_template_waits() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    pause(&mut world, true);
    world.release("v2");
    world.scale(4);
    world.settle();
    world.scale(0);
    world.settle();
    world.scale(3);
    world.settle();
    assert_eq!(world.sets.len(), 1);
    assert_eq!(
        world.text(),
        "\
release v2\n\
scale 4\n\
a 4/2\n\
a 4/3\n\
a 4/4\n\
scale 0\n\
a 0/4\n\
a 0/0\n\
scale 3\n\
a 3/0\n\
a 3/1\n\
a 3/2\n\
a 3/3"
    );
    pause(&mut world, false);
    world.settle();
    assert_eq!(world.text.last().unwrap(), "b 3/3");
}

#[test]
fn a_deployment_that_is_paused_in_the_middle_of_a_rollout_keeps_the_proportion_of_its_sets() {
    let mut world = World::new(6, rolling(count(1), count(0)));
    world.release("v2");
    while world.sets.len() < 2 || world.sets[1].spec.replicas != Some(3) {
        world.step();
        world.sets_act();
        world.become_available(1);
    }
    let sizes = |world: &World| world.sets.iter().map(|set| set.spec.replicas.unwrap()).collect::<Vec<_>>();
    assert_eq!(sizes(&world), [4, 3]);
    pause(&mut world, true);
    world.settle();
    assert_eq!(sizes(&world), [4, 3], "nothing is rolled out");
    world.scale(13);
    world.settle();
    assert_eq!(sizes(&world), [8, 6], "with the one that may be too many");
    world.scale(6);
    world.settle();
    assert_eq!(sizes(&world), [4, 3]);
    world.scale(0);
    world.settle();
    assert_eq!(sizes(&world), [0, 0]);
    world.scale(2);
    world.settle();
    assert_eq!(sizes(&world), [0, 2], "the new set, where none has machines");
}

#[test]
fn what_changes_in_place_reaches_the_sets_of_a_paused_deployment_and_its_condition_is_of_other_pauses() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    pause(&mut world, true);
    world.deployment.spec.template.spec.min_ready_seconds = Some(7);
    world.settle();
    assert_eq!(world.sets[0].spec.template.spec.min_ready_seconds, Some(7));
    let told =
        |world: &World, type_: &str| condition::is_true(&world.deployment.status.as_ref().unwrap().conditions, type_);
    assert!(told(&world, "Available") && !told(&world, "Paused"));
    world.scale(3);
    world.step();
    assert!(told(&world, "ScalingUp"), "the status follows");
}

#[test]
fn its_own_pause_does_not_hold_a_deletion_and_that_of_the_cluster_does() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    pause(&mut world, true);
    let mut seen = world.seen();
    let mut deployment = world.deployment.clone();
    deployment.metadata.deletion_timestamp = Some(Time(world.now));
    seen.deployment = Arc::new(deployment);
    let deleted = |seen: &Seen| super::plan(seen, &Time(world.now)).to_string().contains("delete MachineSet");
    assert!(deleted(&seen));
    let spec = api::cluster::ClusterSpec { paused: Some(true), ..Default::default() };
    seen.cluster = Some(Arc::new(Cluster::new("demo", spec)));
    assert!(!deleted(&seen));
}
