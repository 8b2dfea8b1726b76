//! Waiting for objects, and what happens when they do not become ready.

use serde_json::json;

use crate::support::{DEPLOYMENT, MAP, Wish, World, chart, done, failed, waiting};

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

#[tokio::test]
async fn a_release_that_waits_is_deployed_when_its_objects_are_ready() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("map", MAP), ("web", DEPLOYMENT)]), "blue").with(|options| options.wait = true);
    let told = waiting(wish.install(&world).await);
    assert_eq!(told, "Deployment \"web\" in namespace \"default\": no controller has looked at it yet");
    world.writes.take();
    waiting(wish.install(&world).await);
    assert_eq!(world.writes.take(), Vec::<String>::new(), "to wait writes nothing");
    world.work().await;
    done(wish.install(&world).await);
    assert_eq!(world.history("shop").await, ["1 deployed"]);
}

#[tokio::test]
async fn jobs_are_waited_for_only_when_that_is_wished() {
    let world = World::new().await;
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: '{{ .Values.color }}'}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: c}]}}}\n";
    done(Wish::new(chart(&[("job", job)]), "one").with(|options| options.wait = true).install(&world).await);
    let wish =
        Wish::new(chart(&[("job", job)]), "two").with(|options| (options.wait, options.wait_for_jobs) = (true, true));
    assert!(waiting(wish.upgrade(&world).await).starts_with("Job \"two\""));
    world.end_job("two", "Complete").await;
    done(wish.upgrade(&world).await);
}

#[tokio::test]
async fn what_does_not_become_ready_in_time_fails_and_the_next_request_goes_on() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("web", DEPLOYMENT)]), "blue").with(|options| options.wait = true);
    waiting(wish.install(&world).await);
    world.pass(300);
    let why = failed(wish.install(&world).await);
    assert_eq!(
        why,
        "Deployment \"web\" in namespace \"default\": timed out waiting for the condition: no controller has looked at it yet"
    );
    assert_eq!(world.history("shop").await, ["1 failed"]);
    done(Wish::new(chart(&[("web", DEPLOYMENT)]), "red").upgrade(&world).await);
    assert_eq!(world.history("shop").await, ["1 failed", "2 deployed"]);
}

#[tokio::test]
async fn a_newer_request_takes_the_place_of_one_that_waits() {
    let world = World::new().await;
    let of = |color: &str| {
        Wish::new(chart(&[("web", DEPLOYMENT)]), color).with(|options| (options.wait, options.install) = (true, true))
    };
    waiting(of("wrong").upgrade(&world).await);
    waiting(of("right").upgrade(&world).await);
    world.work().await;
    done(of("right").upgrade(&world).await);
    assert_eq!(world.history("shop").await, ["1 failed", "2 deployed"]);
    let image = world.get(WEB).await.unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, "web:right");
}

#[tokio::test]
async fn an_atomic_upgrade_that_fails_is_rolled_back() {
    let world = World::new().await;
    done(Wish::new(chart(&[("map", MAP), ("web", DEPLOYMENT)]), "good").install(&world).await);
    let wish = Wish::new(chart(&[("map", MAP), ("web", DEPLOYMENT)]), "bad").with(|options| options.atomic = true);
    waiting(wish.upgrade(&world).await);
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "bad");
    let late = json!({"status": {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}});
    world.patch_status(WEB, &late).await;
    let told = wish.upgrade(&world).await;
    // The deployment that is rolled back still says that it is late: no controller looked at it.
    assert!(failed(told).contains("an error occurred while undoing it"));
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "good");
}

#[tokio::test]
async fn an_atomic_upgrade_whose_hook_fails_is_rolled_back_once() {
    let world = World::new().await;
    done(Wish::new(chart(&[("map", MAP)]), "good").install(&world).await);
    let hook = crate::support::job("check", "post-upgrade", "");
    let wish = Wish::new(chart(&[("map", MAP), ("check", &hook)]), "bad").with(|options| options.atomic = true);
    waiting(wish.upgrade(&world).await);
    world.end_job("check", "Failed").await;
    let told = "release shop failed, and has been rolled back due to atomic being set: post-upgrade hooks failed: job check failed: Ended";
    assert_eq!(failed(wish.upgrade(&world).await), told);
    assert_eq!(failed(wish.upgrade(&world).await), told);
    assert_eq!(world.history("shop").await, ["1 superseded", "2 failed", "3 deployed"]);
    assert_eq!(world.config_map("shop").await.unwrap()["data"], json!({"color": "good", "revision": "1"}));
}

#[tokio::test]
async fn an_atomic_installation_that_fails_is_removed() {
    let world = World::new().await;
    let hook = crate::support::job("check", "post-install", "");
    let wish = Wish::new(chart(&[("map", MAP), ("check", &hook)]), "bad").with(|options| options.atomic = true);
    waiting(wish.install(&world).await);
    world.end_job("check", "Failed").await;
    let told = "release shop failed, and has been uninstalled due to atomic being set: failed post-install: job check failed: Ended";
    assert_eq!(failed(wish.install(&world).await), told);
    assert_eq!(world.history("shop").await, Vec::<String>::new());
    assert!(world.config_map("shop").await.is_none());
}

#[tokio::test]
async fn a_newer_request_comes_after_a_removal_that_is_under_way() {
    let world = World::new().await;
    let hooks =
        crate::support::job("check", "post-install", "") + "---\n" + &crate::support::job("before", "pre-delete", "");
    let wish = Wish::new(chart(&[("map", MAP), ("hooks", &hooks)]), "bad").with(|options| options.atomic = true);
    waiting(wish.install(&world).await);
    world.end_job("check", "Failed").await;
    assert!(waiting(wish.install(&world).await).starts_with("Job \"before\""), "it is being undone");
    let next = Wish::new(chart(&[("map", MAP)]), "good").with(|options| options.install = true);
    assert!(waiting(next.upgrade(&world).await).starts_with("Job \"before\""));
    world.end_job("before", "Failed").await;
    assert!(failed(next.upgrade(&world).await).contains("failed pre-delete: job before failed"));
    world.pass(1);
    waiting(next.upgrade(&world).await);
    world.end_job("before", "Complete").await;
    let release = done(next.upgrade(&world).await);
    assert_eq!((release.version, world.history("shop").await), (1, vec!["1 deployed".to_owned()]));
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "good");
}

#[tokio::test]
async fn what_only_a_failed_upgrade_brought_is_deleted_when_that_is_wished() {
    let world = World::new().await;
    done(Wish::new(chart(&[("map", MAP)]), "good").install(&world).await);
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n";
    let wish = Wish::new(chart(&[("map", MAP), ("more", more), ("web", DEPLOYMENT)]), "bad");
    let wish = wish.with(|options| (options.wait, options.cleanup_on_fail) = (true, true));
    waiting(wish.upgrade(&world).await);
    assert!(world.config_map("more").await.is_some());
    world.pass(300);
    failed(wish.upgrade(&world).await);
    assert!(world.config_map("more").await.is_none() && world.get(WEB).await.is_none());
    assert!(world.config_map("shop").await.is_some());
}

#[tokio::test]
async fn a_release_that_the_stock_helm_left_pending_is_not_touched() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("web", DEPLOYMENT)]), "blue").with(|options| options.wait = true);
    waiting(wish.install(&world).await);
    // As the stock Helm writes it: without a word of ours.
    let secret = "/api/v1/namespaces/default/secrets/sh.helm.release.v1.shop.v1";
    world.patch(secret, &json!({"metadata": {"annotations": null}})).await;
    let told = wish.upgrade(&world).await.unwrap_err().to_string();
    assert_eq!(told, "release shop: another operation (install/upgrade/rollback) is in progress");
}

#[tokio::test]
async fn what_is_removed_is_waited_for() {
    let world = World::new().await;
    let held = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, finalizers: [example.dev/hold]}\n";
    done(Wish::new(chart(&[("held", held)]), "blue").install(&world).await);
    let options = delivery::release::Options { wait: true, ..Default::default() };
    let remove = async || world.engine().uninstall("shop", crate::support::NS, &options).await;
    assert_eq!(waiting(remove().await), "ConfigMap \"held\" in namespace \"default\": is to be gone");
    world.patch("/api/v1/namespaces/default/configmaps/held", &json!({"metadata": {"finalizers": null}})).await;
    assert!(matches!(remove().await, Ok(delivery::release::Outcome::Gone)));
}

#[tokio::test]
async fn an_object_that_is_still_being_deleted_is_waited_for_and_made_anew() {
    let world = World::new().await;
    let held = json!({"metadata": {"name": "shop", "finalizers": ["example.dev/hold"], "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "default"}}});
    world.create("/api/v1/namespaces/default/configmaps", &held).await;
    let path = "/api/v1/namespaces/default/configmaps/shop";
    world.delete(path).await;
    let wish = Wish::new(chart(&[("map", MAP)]), "blue");
    let error = wish.install(&world).await.unwrap_err();
    assert_eq!(error.to_string(), "ConfigMap \"shop\" in namespace \"default\" is being deleted");
    assert_eq!(error.class(), delivery::release::Class::Retry);
    world.patch(path, &json!({"metadata": {"finalizers": null}})).await;
    done(wish.install(&world).await);
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "blue");
}
