//! Hooks of releases.

use delivery::release::{Options, Outcome, Phase};

use crate::support::{MAP, NS, Wish, World, chart, done, failed, job, waiting};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

#[tokio::test]
async fn hooks_run_by_weight_and_are_waited_for() {
    let world = World::new().await;
    let first = job("zz-first", "pre-install", "    helm.sh/hook-weight: '-5'\n");
    let second = job("aa-second", "pre-install,post-install", "");
    let wish = Wish::new(chart(&[("map", MAP), ("a", &second), ("b", &first)]), "blue");
    let told = waiting(wish.install(&world).await);
    assert_eq!(
        told,
        "Job \"zz-first\" in namespace \"default\": the job is not complete: 0 pods active, 0 succeeded, 0 failed"
    );
    assert_eq!(world.names(JOBS).await, ["zz-first"]);
    assert!(world.config_map("shop").await.is_none());
    assert_eq!(world.history("shop").await, ["1 pending-install"]);
    world.end_job("zz-first", "Complete").await;
    assert!(waiting(wish.install(&world).await).starts_with("Job \"aa-second\""));
    world.end_job("aa-second", "Complete").await;
    // The same job is a hook of what comes last too: it is made anew.
    assert!(waiting(wish.install(&world).await).starts_with("Job \"aa-second\""));
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "blue");
    world.end_job("aa-second", "Complete").await;
    let release = done(wish.install(&world).await);
    assert!(release.hooks.iter().all(|hook| hook.last_run.phase == Phase::Succeeded), "{:?}", release.hooks);
}

#[tokio::test]
async fn a_hook_is_deleted_when_its_policy_says_so() {
    let world = World::new().await;
    let gone = job("gone", "post-install", "    helm.sh/hook-delete-policy: hook-succeeded\n");
    let kept = job("kept", "post-install", "    helm.sh/hook-delete-policy: hook-failed\n");
    let wish = Wish::new(chart(&[("a", &gone), ("b", &kept)]), "blue");
    waiting(wish.install(&world).await);
    world.end_job("gone", "Complete").await;
    waiting(wish.install(&world).await);
    world.end_job("kept", "Complete").await;
    done(wish.install(&world).await);
    assert_eq!(world.names(JOBS).await, ["kept"]);
}

#[tokio::test]
async fn a_hook_that_fails_fails_the_release_and_is_tidied_up() {
    let world = World::new().await;
    let good =
        job("good", "pre-install", "    helm.sh/hook-weight: '-1'\n    helm.sh/hook-delete-policy: hook-succeeded\n");
    let bad = job("bad", "pre-install", "    helm.sh/hook-delete-policy: hook-failed\n");
    let wish = Wish::new(chart(&[("map", MAP), ("a", &good), ("b", &bad)]), "blue");
    waiting(wish.install(&world).await);
    world.end_job("good", "Complete").await;
    waiting(wish.install(&world).await);
    world.end_job("bad", "Failed").await;
    assert_eq!(failed(wish.install(&world).await), "failed pre-install: job bad failed: Ended");
    assert_eq!(
        failed(wish.install(&world).await),
        "failed pre-install: job bad failed: Ended",
        "the same request, the same end"
    );
    assert_eq!(world.names(JOBS).await, Vec::<String>::new());
    assert_eq!(world.history("shop").await, ["1 failed"]);
    assert!(world.config_map("shop").await.is_none());
    let last = world.engine().last("shop", NS).await.unwrap().unwrap();
    assert_eq!(last.info.description, "Release \"shop\" failed: failed pre-install: job bad failed: Ended");
}

#[tokio::test]
async fn a_hook_that_is_gone_was_done_and_is_not_made_again() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("a", &job("brief", "pre-install", ""))]), "blue");
    waiting(wish.install(&world).await);
    world.delete(&format!("{JOBS}/brief")).await;
    world.writes.take();
    done(wish.install(&world).await);
    assert!(!world.writes.take().iter().any(|write| write.contains("/jobs")), "it was made again");
}

#[tokio::test]
async fn what_an_earlier_run_left_is_deleted_first_or_in_the_way() {
    let world = World::new().await;
    let wish = |policy: &str, color: &str| {
        Wish::new(chart(&[("a", &job("check", "pre-upgrade", policy)), ("map", MAP)]), color)
    };
    done(wish("", "a").install(&world).await);
    waiting(wish("", "b").upgrade(&world).await);
    let first = world.get(&format!("{JOBS}/check")).await.unwrap()["metadata"]["uid"].clone();
    world.end_job("check", "Complete").await;
    done(wish("", "b").upgrade(&world).await);
    waiting(wish("", "c").upgrade(&world).await);
    assert_ne!(world.get(&format!("{JOBS}/check")).await.unwrap()["metadata"]["uid"], first);
    world.end_job("check", "Complete").await;
    done(wish("", "c").upgrade(&world).await);
    let stays = wish("    helm.sh/hook-delete-policy: hook-failed\n", "d").upgrade(&world).await;
    assert_eq!(failed(stays), "pre-upgrade hooks failed: Job \"check\" in namespace \"default\" already exists");
}

#[tokio::test]
async fn a_run_that_somebody_else_has_begun_is_not_cleared_away() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("a", &job("check", "pre-install", ""))]), "blue");
    waiting(wish.install(&world).await);
    let job = format!("{JOBS}/check");
    let uid = world.get(&job).await.unwrap()["metadata"]["uid"].clone();
    // As one sees it who has read the release before the run began.
    let secret = "/api/v1/namespaces/default/secrets/sh.helm.release.v1.shop.v1";
    let key = "delivery.skep.dev/operation";
    let now = world.get(secret).await.unwrap()["metadata"]["annotations"][key].as_str().unwrap().to_owned();
    let before = now.replace("\"Watch\"", "\"Clear\"");
    assert_ne!(before, now);
    world.patch(secret, &serde_json::json!({"metadata": {"annotations": {key: before}}})).await;
    let error = wish.install(&world).await.unwrap_err();
    assert_eq!(error.to_string(), "Job \"check\" in namespace \"default\" was changed meanwhile");
    assert_eq!(world.get(&job).await.unwrap()["metadata"]["uid"], uid);
}

#[tokio::test]
async fn hooks_have_their_time_and_are_left_out_when_that_is_wished() {
    let world = World::new().await;
    let wish =
        Wish::new(chart(&[("a", &job("slow", "pre-install", ""))]), "blue").with(|options| options.timeout_s = 60);
    waiting(wish.install(&world).await);
    world.pass(59);
    waiting(wish.install(&world).await);
    world.pass(1);
    let why = failed(wish.install(&world).await);
    assert!(
        why.starts_with(
            "failed pre-install: Job \"slow\" in namespace \"default\": timed out waiting for the condition"
        ),
        "{why}"
    );
    done(
        Wish::new(chart(&[("a", &job("slow", "pre-upgrade", ""))]), "red")
            .with(|options| options.no_hooks = true)
            .upgrade(&world)
            .await,
    );
}

#[tokio::test]
async fn hooks_of_removal_run_before_and_after() {
    let world = World::new().await;
    let wish = Wish::new(
        chart(&[("map", MAP), ("a", &job("before", "pre-delete", "")), ("b", &job("after", "post-delete", ""))]),
        "blue",
    );
    done(wish.install(&world).await);
    let remove = async || world.engine().uninstall("shop", NS, &Options::default()).await;
    assert!(waiting(remove().await).starts_with("Job \"before\""));
    assert_eq!(world.history("shop").await, ["1 uninstalling"]);
    assert!(world.config_map("shop").await.is_some());
    world.end_job("before", "Complete").await;
    assert!(waiting(remove().await).starts_with("Job \"after\""));
    assert!(world.config_map("shop").await.is_none());
    world.end_job("after", "Complete").await;
    assert!(matches!(remove().await, Ok(Outcome::Gone)));
    assert_eq!(world.history("shop").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_removal_that_failed_begins_anew_when_it_is_asked_for_again() {
    let world = World::new().await;
    done(Wish::new(chart(&[("a", &job("before", "pre-delete", ""))]), "blue").install(&world).await);
    let remove = async || world.engine().uninstall("shop", NS, &Options::default()).await;
    waiting(remove().await);
    world.end_job("before", "Failed").await;
    assert_eq!(failed(remove().await), "failed pre-delete: job before failed: Ended");
    world.pass(1);
    waiting(remove().await);
    world.end_job("before", "Complete").await;
    assert!(matches!(remove().await, Ok(Outcome::Gone)));
}
