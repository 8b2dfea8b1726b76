//! Rollouts whose machines an extension updates in place.

use control::Step;

use super::*;

/// What is left of the way that machines take from set to set.
fn traces(world: &World) -> usize {
    let keys =
        [names::MOVE_MACHINES_ANNOTATION, names::RECEIVE_MACHINES_ANNOTATION, names::ACKNOWLEDGED_MOVE_ANNOTATION];
    let of = |set: &MachineSet| keys.iter().filter(|key| owner::annotation_of(&set.metadata, key).is_some()).count();
    world.sets.iter().map(of).sum()
}

/// The story of a rollout from v1 to v2, and how many machines were made for it.
fn story(replicas: i32, strategy: RolloutStrategy) -> (String, usize) {
    let mut world = World::new(replicas, strategy);
    world.in_place = true;
    let before = world.named;
    world.release("v2");
    world.settle();
    assert_eq!(traces(&world), 0, "{:#?}", world.sets);
    (world.text(), world.named - before)
}

#[test]
fn machines_that_can_be_updated_go_over_one_by_one() {
    let (told, made) = story(3, rolling(count(0), count(1)));
    assert_eq!(
        told,
        "\
release v2\n\
a 3/3  b 0/0\n\
a 2/3  b 0/0\n\
a 2/2  b 0/0\n\
a 2/2  b 1/0\n\
a 2/2  b 1/1\n\
a 1/2  b 1/1\n\
a 1/1  b 1/1\n\
a 1/1  b 2/1\n\
a 1/1  b 2/2\n\
a 0/1  b 2/2\n\
a 0/0  b 2/2\n\
b 3/2\n\
b 3/3"
    );
    assert_eq!(made, 0);
}

#[test]
fn where_none_may_be_unavailable_one_machine_more_is_made_before_others_are_updated() {
    let (told, made) = story(3, rolling(count(1), count(0)));
    assert_eq!(
        told,
        "\
release v2\n\
a 3/3  b 0/0\n\
a 3/3  b 1/0\n\
a 3/3  b 1/1\n\
a 2/3  b 1/1\n\
a 2/2  b 1/1\n\
a 2/2  b 2/1\n\
a 2/2  b 2/2\n\
a 1/2  b 2/2\n\
a 1/1  b 2/2\n\
a 1/1  b 3/2\n\
a 1/1  b 3/3\n\
a 0/1  b 3/3\n\
a 0/0  b 3/3\n\
b 3/3"
    );
    assert_eq!(made, 1);
}

#[test]
fn a_surge_is_not_used_where_machines_can_be_updated() {
    for (replicas, strategy, wanted) in [
        (6, rolling(count(3), count(0)), 1),
        (6, rolling(count(3), count(2)), 0),
        (12, rolling(percent("30%"), percent("20%")), 0),
        (1, rolling(count(1), count(0)), 1),
    ] {
        let (told, made) = story(replicas, strategy);
        assert_eq!(made, wanted, "{told}");
    }
}

#[test]
fn a_new_template_in_the_middle_and_another_size_leave_nothing_behind() {
    for turns in 1..8 {
        let mut world = World::new(5, rolling(count(1), count(1)));
        world.in_place = true;
        world.release("v2");
        for _ in 0..turns {
            world.step();
            world.sets_act();
            world.become_available(1);
        }
        world.strict = false;
        world.release("v3");
        world.scale(3);
        world.settle();
        assert_eq!((traces(&world), world.units.len()), (0, 3), "{:#?}", world.text);
    }
}

#[test]
fn while_it_is_not_known_whether_machines_can_be_updated_none_is_replaced() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.in_place = true;
    world.release("v2");
    world.step();
    let mut seen = world.seen();
    let why = crate::in_place::Verdict::Unknown("it is away".into());
    seen.in_place.verdicts.values_mut().for_each(|verdict| *verdict = why.clone());
    let plan = super::super::plan(&seen, &Time(world.now));
    let sets =
        plan.steps.iter().filter(|step| matches!(step, Step::Update(change) if change.resource.kind == "MachineSet"));
    assert_eq!(sets.count(), 0);
    assert!(plan.to_string().contains("MachineSet md-"), "{plan}");
}
