//! Rollouts, step by step, as stories of the model.

mod model;
mod paused;
mod updates;

use jiff::SignedDuration;

use self::model::{World, count, percent, rolling};
use super::*;

/// The story of a rollout from v1 to v2.
fn story(replicas: i32, strategy: RolloutStrategy) -> String {
    let mut world = World::new(replicas, strategy);
    world.release("v2");
    world.settle();
    world.text()
}

#[test]
fn with_a_surge_of_one_a_new_machine_comes_before_an_old_one_goes() {
    assert_eq!(
        story(3, rolling(count(1), count(0))),
        "\
release v2\n\
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
}

#[test]
fn without_a_surge_an_old_machine_goes_before_a_new_one_comes() {
    assert_eq!(
        story(3, rolling(count(0), count(1))),
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
}

#[test]
fn sets_of_nobody_that_the_selector_names_are_adopted_and_none_is_made_beside_them() {
    let world = World::new(2, rolling(count(1), count(0)));
    let mut seen = world.seen();
    seen.orphans = std::mem::take(&mut seen.sets);
    for set in &mut seen.orphans {
        Arc::make_mut(set).metadata.owner_references = None;
    }
    let told = super::plan(&seen, &Time(world.now)).to_string();
    assert!(told.contains("SuccessfulAdopt") && told.contains("ownerReferences"), "{told}");
    assert!(!told.contains("create"), "{told}");
}

#[test]
fn percentages_round_the_surge_up_and_the_unavailable_down() {
    let limits = |surge, unavailable| {
        super::limits(Some(&RollingUpdate { max_surge: Some(surge), max_unavailable: Some(unavailable) }), 5)
    };
    assert_eq!(limits(percent("25%"), percent("25%")), (2, 1));
    assert_eq!(limits(percent("0%"), percent("10%")), (0, 1), "both zero would never move");
    assert_eq!(limits(count(0), count(9)), (0, 5));
    assert_eq!(super::limits(None, 5), (1, 0));
    assert_eq!(
        story(5, rolling(percent("25%"), percent("25%"))),
        "\
release v2\n\
a 5/5  b 2/0\n\
a 5/5  b 2/1\n\
a 3/5  b 2/1\n\
a 3/3  b 2/1\n\
a 3/3  b 2/2\n\
a 2/3  b 4/2\n\
a 2/2  b 4/2\n\
a 2/2  b 4/3\n\
a 1/2  b 5/3\n\
a 1/1  b 5/3\n\
a 1/1  b 5/4\n\
a 0/1  b 5/4\n\
a 0/0  b 5/4\n\
a 0/0  b 5/5\n\
b 5/5"
    );
}

#[test]
fn machines_that_never_become_available_hold_the_rollout_and_then_go_first() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.stuck = Some("b");
    world.release("v2");
    for _ in 0..4 {
        world.step();
        world.sets_act();
        world.become_available(1);
    }
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0"
    );
    world.release("v3");
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0\n\
release v3\n\
a 3/3  b 1/0  c 0/0\n\
a 3/3  b 0/0  c 0/0\n\
a 3/3  c 1/0\n\
a 3/3  c 1/1\n\
a 2/3  c 1/1\n\
a 2/2  c 1/1\n\
a 2/2  c 2/1\n\
a 2/2  c 2/2\n\
a 1/2  c 2/2\n\
a 1/1  c 2/2\n\
a 1/1  c 3/2\n\
a 1/1  c 3/3\n\
a 0/1  c 3/3\n\
a 0/0  c 3/3\n\
c 3/3"
    );
}

#[test]
fn machines_that_are_still_being_deleted_count_for_the_surge() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.slow = true;
    world.release("v2");
    for _ in 0..6 {
        world.step();
        world.sets_act();
        world.become_available(1);
    }
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0\n\
a 3/3  b 1/1\n\
a 2/3  b 1/1\n\
a 2/2  b 1/1"
    );
    assert_eq!(world.units.len(), 4, "one surges, whatever is being deleted");
    world.slow = false;
    world.reap();
    world.settle();
    assert_eq!(world.sets.len(), 1);
}

#[test]
fn a_deployment_is_scaled_in_the_middle_of_a_rollout() {
    let mut world = World::new(3, rolling(count(1), count(0)));
    world.release("v2");
    world.step();
    world.sets_act();
    world.become_available(1);
    // The new size is not there at once.
    world.strict = false;
    world.scale(5);
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 3/3  b 1/0\n\
a 3/3  b 1/1\n\
scale 5\n\
a 3/3  b 3/1\n\
a 3/3  b 3/2\n\
a 3/3  b 3/3\n\
a 2/3  b 3/3\n\
a 2/2  b 3/3\n\
a 2/2  b 4/3\n\
a 2/2  b 4/4\n\
a 1/2  b 4/4\n\
a 1/1  b 4/4\n\
a 1/1  b 5/4\n\
a 1/1  b 5/5\n\
a 0/1  b 5/5\n\
a 0/0  b 5/5\n\
b 5/5"
    );
    world.text.clear();
    world.release("v3");
    world.step();
    world.sets_act();
    world.scale(2);
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v3\n\
b 5/5  c 1/0\n\
scale 2\n\
b 2/5  c 1/0\n\
b 2/2  c 1/0\n\
b 2/2  c 1/1\n\
b 1/2  c 1/1\n\
b 1/1  c 1/1\n\
b 1/1  c 2/1\n\
b 1/1  c 2/2\n\
b 0/1  c 2/2\n\
b 0/0  c 2/2\n\
c 2/2"
    );
}

#[test]
fn a_new_template_in_the_middle_rolls_over_all_older_sets_and_an_old_one_comes_back() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    world.release("v2");
    world.step();
    world.sets_act();
    world.become_available(1);
    world.release("v3");
    world.step();
    world.sets_act();
    world.become_available(1);
    world.release("v1");
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 2/2  b 1/0\n\
a 2/2  b 1/1\n\
release v3\n\
a 2/2  b 1/1  c 0/0\n\
release v1\n\
a 2/2  b 0/1\n\
a 2/2  b 0/0\n\
a 2/2"
    );
    assert_eq!(world.sets[0].metadata.uid.as_deref(), Some("a"), "its own set is taken again");
    assert_eq!(revision(&world.sets[0]), 4, "and is the newest revision");
    assert_eq!(owner::annotation_of(&world.deployment.metadata, names::REVISION_ANNOTATION), Some("4"));
}

#[test]
fn on_delete_replaces_what_somebody_deletes_and_a_set_that_is_current_again_may_make_machines() {
    let mut world = World::new(2, RolloutStrategy { type_: RolloutStrategyType::OnDelete, rolling_update: None });
    world.strict = false;
    world.release("v2");
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v2\n\
a 2/2  b 0/0"
    );
    world.text.clear();
    world.units[0].deleting = true;
    world.settle();
    assert_eq!(
        world.text(),
        "\
a 1/2  b 1/0\n\
a 1/1  b 1/0\n\
a 1/1  b 1/1"
    );
    world.text.clear();
    world.release("v1");
    world.step();
    world.units.iter_mut().for_each(|unit| unit.deleting = true);
    world.settle();
    assert_eq!(
        world.text(),
        "\
release v1\n\
a 1/1  b 1/1\n\
a 2/1  b 0/1\n\
a 2/0  b 0/0\n\
a 2/1  b 0/0\n\
a 2/1\n\
a 2/2"
    );
}

#[test]
fn rollout_after_waits_for_its_time_and_then_replaces_all_machines_once() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    let due = world.now + SignedDuration::from_secs(90);
    world.deployment.spec.rollout.as_mut().unwrap().after = Some(Time(due));
    assert_eq!(world.plan().to_string(), "waits 90 s: the time of the rollout");
    world.now = due;
    world.settle();
    assert_eq!(
        world.text(),
        "\
a 2/2  b 1/0\n\
a 2/2  b 1/1\n\
a 1/2  b 1/1\n\
a 1/1  b 1/1\n\
a 1/1  b 2/1\n\
a 1/1  b 2/2\n\
a 0/1  b 2/2\n\
a 0/0  b 2/2\n\
b 2/2"
    );
    let hash = |set: &MachineSet| owner::label_of(&set.metadata, names::TEMPLATE_HASH_LABEL).unwrap().to_owned();
    assert!(hash(&world.sets[0]).ends_with("-2"), "a second set of one template has a hash of its own");
    world.text.clear();
    world.settle();
    assert_eq!(world.sets.len(), 1);
}

#[test]
fn a_settled_deployment_is_not_written_and_what_changes_in_place_makes_no_machine() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    assert_eq!(world.plan().to_string(), "settled");
    let template = &mut world.deployment.spec.template;
    template.metadata.get_or_insert_default().labels.insert("tier".into(), "web".into());
    template.spec.min_ready_seconds = Some(7);
    world.settle();
    assert_eq!((world.sets.len(), world.made), (1, 1));
    let template = &world.sets[0].spec.template;
    assert_eq!(template.metadata.as_ref().unwrap().labels["tier"], "web");
    assert_eq!(template.spec.min_ready_seconds, Some(7));
}

#[test]
fn what_changes_in_place_reaches_the_sets_that_are_rolled_out() {
    let mut world = World::new(2, rolling(count(1), count(0)));
    world.release("v2");
    world.step();
    assert_eq!(world.sets.len(), 2);
    let template = &mut world.deployment.spec.template;
    template.metadata.get_or_insert_default().labels.insert("tier".into(), "web".into());
    template.spec.deletion.get_or_insert_default().node_drain_timeout_seconds = Some(1);
    world.step();
    for set in &world.sets {
        let template = &set.spec.template;
        assert_eq!(template.spec.deletion.as_ref().and_then(|found| found.node_drain_timeout_seconds), Some(1));
        assert_eq!(template.metadata.as_ref().unwrap().labels["tier"], "web");
        assert_eq!(owner::label_of(&set.metadata, "tier"), Some("web"));
    }
    assert_ne!(world.sets[0].spec.template.spec.version, world.sets[1].spec.template.spec.version);
}

#[test]
fn a_deployments_annotations_are_its_sets_but_for_those_about_itself() {
    let mut world = World::new(1, rolling(count(1), count(0)));
    let skip = "machineset.cluster.x-k8s.io/skip-preflight-checks";
    for (key, value) in [
        (skip, "All"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ("cluster.x-k8s.io/conversion-data", "{}"),
        ("machinedeployment.clusters.x-k8s.io/revision-history", "1"),
    ] {
        owner::annotate(&mut world.deployment.metadata, key, value);
    }
    world.settle();
    let expected = [
        ("cluster.x-k8s.io/annotations-from-owner", skip),
        (names::DESIRED_REPLICAS_ANNOTATION, "1"),
        (names::MAX_REPLICAS_ANNOTATION, "2"),
        (names::REVISION_ANNOTATION, "1"),
        (skip, "All"),
    ];
    let found = |world: &World| world.sets[0].metadata.annotations.clone().unwrap_or_default();
    let entries = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(found(&world), entries(&expected));
    owner::annotate(&mut world.sets[0].metadata, "theirs", "1");
    world.deployment.metadata.annotations.as_mut().unwrap().remove(skip);
    world.settle();
    let left = [expected[1], expected[2], expected[3], ("theirs", "1")];
    assert_eq!(found(&world), entries(&left), "another's annotation stays");
    owner::annotate(&mut world.deployment.metadata, skip, "All");
    world.release("v2");
    world.step();
    let newest = world.sets.last().unwrap();
    assert_eq!(owner::annotation_of(&newest.metadata, skip), Some("All"), "a set is made with them");
}

#[test]
fn as_many_sets_without_machines_stay_as_are_to_be_kept_and_the_oldest_go_first() {
    let mut world = World::new(1, rolling(count(1), count(0)));
    let revisions = |world: &World| world.sets.iter().map(revision).collect::<Vec<_>>();
    let keep = |world: &mut World, limit: Option<&str>| {
        let annotations = world.deployment.metadata.annotations.as_mut().unwrap();
        annotations.remove(names::HISTORY_LIMIT_ANNOTATION);
        if let Some(limit) = limit {
            annotations.insert(names::HISTORY_LIMIT_ANNOTATION.into(), limit.into());
        }
    };
    keep(&mut world, Some("2"));
    for version in ["v2", "v3", "v4", "v5"] {
        world.release(version);
        world.settle();
    }
    assert_eq!(revisions(&world), [3, 4, 5]);
    keep(&mut world, None);
    world.settle();
    assert_eq!(revisions(&world), [4, 5], "one where nothing is said");
    // Back: the set of v4 is taken again, and v5 is what one could go back to.
    world.release("v4");
    world.settle();
    assert_eq!(revisions(&world), [6, 5]);
    keep(&mut world, None);
    owner::label(&mut world.deployment.metadata, names::TOPOLOGY_OWNED_LABEL, "");
    world.settle();
    assert_eq!(revisions(&world), [6], "a topology has its own word");
}

#[test]
fn no_more_sets_are_kept_than_the_limit_whatever_the_annotation_says() {
    let mut world = World::new(0, rolling(count(1), count(0)));
    owner::annotate(&mut world.deployment.metadata, names::HISTORY_LIMIT_ANNOTATION, "1000000");
    let set = |revision: usize| {
        let mut set = MachineSet::new("set", MachineSetSpec::default());
        (set.metadata.uid, set.spec.replicas) = (Some(format!("{revision:03}")), Some(0));
        owner::annotate(&mut set.metadata, names::REVISION_ANNOTATION, revision.to_string());
        Arc::new(set)
    };
    let sets: Vec<_> = (1..=101).map(set).collect();
    let kept = history::kept(&world.deployment, &sets.iter().collect::<Vec<_>>());
    assert_eq!((kept.len(), kept.first()), (100, Some(&Some("002".to_owned()))));
}
