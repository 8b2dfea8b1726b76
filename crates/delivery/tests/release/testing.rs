//! Tests of releases.

use std::sync::mpsc;

use delivery::release::{Output, Phase, Selection};
use serde_json::json;

use crate::support::{MAP, NS, Wish, World, chart, done, failed, job, waiting};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn all_tests() -> Selection {
    Selection { only: Vec::new(), without: Vec::new(), timeout_s: 300 }
}

/// A release whose tests are `late` and, before it by its weight, `early`.
async fn tested(policy: &str) -> World {
    let world = World::new().await;
    let early = job("early", "test-success", &format!("    helm.sh/hook-weight: '-1'\n{policy}"));
    let late = job("late", "test", "");
    done(Wish::new(chart(&[("map", MAP), ("a", &late), ("b", &early)]), "blue").install(&world).await);
    world
}

async fn phases(world: &World) -> Vec<(String, Phase)> {
    let release = world.engine().last("shop", NS).await.unwrap().unwrap();
    release.hooks.into_iter().map(|hook| (hook.name, hook.last_run.phase)).collect()
}

#[tokio::test]
async fn tests_run_by_weight_when_they_are_asked_for_and_the_release_says_what_came_of_each() {
    let world = tested("    helm.sh/hook-delete-policy: hook-succeeded\n").await;
    assert_eq!(world.names(JOBS).await, Vec::<String>::new(), "nobody asked");
    let engine = world.engine();
    let mut testing = engine.test("shop", NS, &all_tests()).await.unwrap();
    assert!(waiting(testing.proceed().await).starts_with("Job \"early\""));
    assert_eq!(world.names(JOBS).await, ["early"]);
    let ran: Vec<bool> = testing.tests().map(|(_, ran)| ran).collect();
    assert_eq!(ran, [true, false]);
    world.end_job("early", "Complete").await;
    assert!(waiting(testing.proceed().await).starts_with("Job \"late\""));
    world.end_job("late", "Complete").await;
    let release = done(testing.proceed().await);
    assert_eq!(release.version, 1, "a test is no revision");
    assert!(phases(&world).await.iter().all(|(_, phase)| *phase == Phase::Succeeded));
    assert_eq!(world.names(JOBS).await, ["late"], "one has a policy that deletes it");
    world.pass(60);
    let mut again = engine.test("shop", NS, &all_tests()).await.unwrap();
    assert!(waiting(again.proceed().await).starts_with("Job \"early\""), "they run as often as they are asked for");
    assert_eq!(world.history("shop").await, ["1 deployed"]);
}

#[tokio::test]
async fn the_first_test_that_fails_is_the_last() {
    let world = tested("    helm.sh/hook-delete-policy: hook-failed\n").await;
    let engine = world.engine();
    let mut testing = engine.test("shop", NS, &all_tests()).await.unwrap();
    waiting(testing.proceed().await);
    world.end_job("early", "Failed").await;
    assert_eq!(failed(testing.proceed().await), "job early failed: Ended");
    let mut phases = phases(&world).await;
    phases.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(phases, [("early".to_owned(), Phase::Failed), ("late".to_owned(), Phase::None)]);
    assert_eq!(world.names(JOBS).await, Vec::<String>::new());
    assert_eq!(world.history("shop").await, ["1 deployed"], "the release is what it was");
}

#[tokio::test]
async fn a_test_that_takes_too_long_has_failed() {
    let world = tested("").await;
    let engine = world.engine();
    let mut testing = engine.test("shop", NS, &Selection { timeout_s: 10, ..all_tests() }).await.unwrap();
    waiting(testing.proceed().await);
    world.pass(9);
    waiting(testing.proceed().await);
    world.pass(1);
    assert!(failed(testing.proceed().await).contains("timed out waiting"));
}

#[tokio::test]
async fn tests_are_chosen_by_name_and_one_that_is_not_there_is_told() {
    let world = tested("").await;
    let engine = world.engine();
    for selection in [
        Selection { only: vec!["late".into()], ..all_tests() },
        Selection { without: vec!["early".into()], ..all_tests() },
    ] {
        let mut testing = engine.test("shop", NS, &selection).await.unwrap();
        assert!(waiting(testing.proceed().await).starts_with("Job \"late\""));
        world.end_job("late", "Complete").await;
        let release = done(testing.proceed().await);
        assert_eq!(release.hooks.len(), 2, "the others stay in the release");
        world.pass(1);
    }
    let error = engine.test("shop", NS, &Selection { only: vec!["x".into()], ..all_tests() }).await.err().unwrap();
    assert_eq!(error.to_string(), "release shop has no test \"x\"; its tests: early, late");
    assert!(engine.test("other", NS, &all_tests()).await.is_err());
}

#[tokio::test]
async fn a_release_that_changes_meanwhile_is_not_written_over() {
    let world = tested("").await;
    let engine = world.engine();
    let mut testing = engine.test("shop", NS, &all_tests()).await.unwrap();
    waiting(testing.proceed().await);
    let secret = "/api/v1/namespaces/default/secrets/sh.helm.release.v1.shop.v1";
    world.patch(secret, &json!({"metadata": {"annotations": {"a": "b"}}})).await;
    world.end_job("early", "Complete").await;
    assert!(testing.proceed().await.is_err());
}

#[tokio::test]
async fn what_a_hook_has_written_is_told_before_it_is_deleted_if_its_annotation_or_the_caller_asks() {
    for (policy, all, phase, told) in [
        ("hook-succeeded", false, "Succeeded", true),
        ("hook-succeeded", false, "Failed", false),
        ("hook-failed", false, "Failed", true),
        ("hook-failed, Hook-Succeeded", false, "Succeeded", true),
        ("", false, "Succeeded", false),
        ("", true, "Failed", true),
    ] {
        let world = World::new().await;
        let probe = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: probe\n  annotations:\n    helm.sh/hook: test\n    helm.sh/hook-output-log-policy: '{policy}'\n    helm.sh/hook-delete-policy: hook-succeeded,hook-failed\nspec: {{restartPolicy: Never, containers: [{{name: c, image: c}}]}}\n"
        );
        done(Wish::new(chart(&[("a", &probe)]), "blue").install(&world).await);
        let (send, receive) = mpsc::channel();
        let engine = world.engine().with_output(Output::new(all, move |log| send.send(log).unwrap()));
        let mut testing = engine.test("shop", NS, &all_tests()).await.unwrap();
        waiting(testing.proceed().await);
        world.end_pod("probe", phase).await;
        let outcome = testing.proceed().await;
        if phase == "Failed" {
            drop(failed(outcome));
        } else {
            drop(done(outcome));
        }
        let logs: Vec<_> = receive.try_iter().map(|log| (log.pod, log.text)).collect();
        let want = vec![("probe".to_owned(), Ok("c of probe\n".to_owned()))];
        assert_eq!(logs, if told { want } else { Vec::new() }, "{policy} {all} {phase}");
        assert_eq!(world.names("/api/v1/namespaces/default/pods").await, Vec::<String>::new());
    }
}
