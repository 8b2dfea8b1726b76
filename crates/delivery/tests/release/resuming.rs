//! A process that ends in the middle: another goes on, and everything happens once.

use delivery::release::{Engine, Options, Outcome, Phase, Release, Result};
use helm::chart::Chart;

use crate::support::{DEPLOYMENT, MAP, NS, Wish, World, chart, job};

/// More calls than any operation here needs.
const CALLS_MAX: usize = 40;

fn full() -> Chart {
    let both = job("both", "pre-install,post-install,pre-upgrade,post-upgrade,pre-rollback,pre-delete,post-delete", "");
    let brief = job(
        "brief",
        "pre-install,pre-upgrade,pre-delete",
        "    helm.sh/hook-weight: '-1'\n    helm.sh/hook-delete-policy: hook-succeeded\n",
    );
    let note = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: note\n  annotations: {helm.sh/hook: 'post-install,post-upgrade'}\n";
    let dropped =
        "{{ if eq .Values.color \"blue\" }}apiVersion: v1\nkind: ConfigMap\nmetadata: {name: dropped}\n{{ end }}";
    chart(&[
        ("map", MAP),
        ("web", DEPLOYMENT),
        ("both", &both),
        ("brief", &brief),
        ("note", note),
        ("dropped", dropped),
    ])
}

fn wish(color: &str) -> Wish {
    Wish::new(full(), color).with(|options| (options.wait, options.install) = (true, true))
}

/// What is there before, with less ado.
async fn prepared(world: &World, color: &str) {
    let wish = wish(color).with(|options| (options.wait, options.no_hooks) = (false, true));
    crate::support::done(wish.upgrade(world).await);
}

/// Calls until it is done or the process has ended; the cluster works between calls.
async fn drive(world: &World, engine: &Engine, call: impl AsyncFn(&Engine) -> Result<Outcome>) -> Option<Outcome> {
    for _ in 0..CALLS_MAX {
        match call(engine).await {
            Ok(Outcome::Waiting { .. }) => world.work().await,
            Ok(outcome) => return Some(outcome),
            Err(error) if error.to_string().contains("the process has ended") => return None,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not come to an end");
}

/// Has the process end with each write in turn (it is made, and the process does not learn of it), and another process go on. Says how
/// many writes there were.
async fn die_everywhere(
    prepare: impl AsyncFn(&World),
    call: impl AsyncFn(&Engine) -> Result<Outcome>,
    check: impl AsyncFn(&World, Outcome, usize, &str),
) -> usize {
    let world = World::new().await;
    prepare(&world).await;
    world.writes.take();
    let outcome = drive(&world, &world.engine(), &call).await.unwrap();
    let writes = world.writes.take();
    check(&world, outcome, runs(&writes), "without an end").await;
    for write in 1..=writes.len() {
        let world = World::new().await;
        prepare(&world).await;
        world.writes.take();
        let told = format!("the process ended with write {write} ({})", writes[write - 1]);
        let dead = drive(&world, &world.engine_until(Some(write)), &call).await;
        assert!(dead.is_none(), "{told}: it lived");
        let outcome = drive(&world, &world.engine(), &call).await.unwrap();
        check(&world, outcome, runs(&world.writes.take()), &told).await;
    }
    writes.len()
}

fn release(outcome: Outcome, told: &str) -> Release {
    match outcome {
        Outcome::Done(release) => *release,
        other => panic!("{told}: {other:?}"),
    }
}

/// How many jobs were made.
fn runs(writes: &[String]) -> usize {
    writes.iter().filter(|write| write.starts_with("POST") && write.ends_with("/jobs")).count()
}

#[tokio::test]
async fn an_upgrade_goes_on_after_any_write_and_is_made_once() {
    let writes = die_everywhere(
        async |world| prepared(world, "blue").await,
        async |engine| engine.upgrade(&wish("red").request()).await,
        async |world, outcome, runs, told| {
            let release = release(outcome, told);
            assert_eq!(release.version, 2, "{told}");
            assert_eq!(world.history("shop").await, ["1 superseded", "2 deployed"], "{told}");
            assert_eq!(runs, 3, "{told}: two jobs before, one after");
            let map = world.config_map("shop").await.unwrap();
            assert_eq!(
                (map["data"]["color"].as_str(), map["data"]["revision"].as_str()),
                (Some("red"), Some("2")),
                "{told}"
            );
            assert!(world.config_map("dropped").await.is_none(), "{told}");
            assert!(world.config_map("note").await.is_some(), "{told}");
            assert!(release.hooks.iter().all(|hook| hook.last_run.phase == Phase::Succeeded), "{told}");
        },
    )
    .await;
    assert!(writes > 15, "only {writes} writes: the test says little");
}

#[tokio::test]
async fn an_installation_goes_on_after_any_write_and_is_made_once() {
    die_everywhere(
        async |_| {},
        async |engine| engine.upgrade(&wish("blue").request()).await,
        async |world, outcome, runs, told| {
            assert_eq!(release(outcome, told).version, 1, "{told}");
            assert_eq!(world.history("shop").await, ["1 deployed"], "{told}");
            assert_eq!(runs, 3, "{told}");
        },
    )
    .await;
}

#[tokio::test]
async fn an_atomic_installation_that_fails_is_removed_after_any_write() {
    let bad = || {
        let hook = job("check", "post-install", "    helm.sh/hook-delete-policy: hook-failed\n");
        Wish::new(chart(&[("map", MAP), ("check", &hook)]), "bad")
            .with(|options| (options.atomic, options.timeout_s) = (true, 0))
    };
    die_everywhere(
        async |_| {},
        async |engine| engine.install(&bad().request()).await,
        async |world, outcome, _, told| {
            let Outcome::Failed { why, .. } = outcome else { panic!("{told}: {outcome:?}") };
            assert!(
                why.starts_with("release shop failed, and has been uninstalled due to atomic being set"),
                "{told}: {why}"
            );
            assert_eq!(world.history("shop").await, Vec::<String>::new(), "{told}");
            assert!(world.config_map("shop").await.is_none(), "{told}");
        },
    )
    .await;
}

#[tokio::test]
async fn an_atomic_installation_that_keeps_its_history_fails_once_whoever_asks_again() {
    let bad = || {
        let hook = job("check", "post-install", "    helm.sh/hook-delete-policy: hook-failed\n");
        Wish::new(chart(&[("map", MAP), ("check", &hook)]), "bad")
            .with(|options| (options.atomic, options.timeout_s) = (true, 0))
            .with(|options| (options.install, options.keep_history) = (true, true))
    };
    die_everywhere(
        async |_| {},
        async |engine| engine.upgrade(&bad().request()).await,
        async |world, outcome, _, told| {
            let told_why = |outcome: Outcome| {
                let Outcome::Failed { why, .. } = outcome else { panic!("{told}: {outcome:?}") };
                assert!(
                    why.starts_with("release shop failed, and has been uninstalled due to atomic"),
                    "{told}: {why}"
                );
            };
            told_why(outcome);
            assert_eq!(world.history("shop").await, ["1 uninstalled"], "{told}");
            assert!(world.config_map("shop").await.is_none(), "{told}");
            world.writes.take();
            told_why(world.engine().upgrade(&bad().request()).await.unwrap());
            assert_eq!(world.writes.take(), Vec::<String>::new(), "{told}");
        },
    )
    .await;
}

#[tokio::test]
async fn two_that_are_asked_for_the_same_at_once_make_one_revision() {
    let world = World::new().await;
    drive(&world, &world.engine(), async |engine| engine.upgrade(&wish("blue").request()).await).await;
    world.writes.take();
    let (one, other) = (world.engine(), world.engine());
    let (one, other) = (drive_on(&world, &one), drive_on(&world, &other));
    let (one, other) = tokio::join!(one, other);
    assert_eq!((one.version, other.version), (2, 2));
    assert_eq!(world.history("shop").await, ["1 superseded", "2 deployed"]);
    assert_eq!(runs(&world.writes.take()), 3, "each hook ran once");
}

/// Asks again when another has been quicker.
async fn drive_on(world: &World, engine: &Engine) -> Release {
    for _ in 0..CALLS_MAX {
        match engine.upgrade(&wish("red").request()).await {
            Ok(Outcome::Done(release)) => return *release,
            Ok(Outcome::Waiting { .. }) => world.work().await,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.class(), delivery::release::Class::Retry, "{error}"),
        }
    }
    panic!("it does not come to an end");
}

#[tokio::test]
async fn a_rollback_goes_on_after_any_write_and_is_made_once() {
    die_everywhere(
        async |world| {
            for color in ["blue", "red"] {
                prepared(world, color).await;
            }
        },
        async |engine| engine.rollback("shop", NS, Some(1), &Options { wait: true, ..Options::default() }, "t").await,
        async |world, outcome, runs, told| {
            assert_eq!(release(outcome, told).version, 3, "{told}");
            assert_eq!(world.history("shop").await, ["1 superseded", "2 superseded", "3 deployed"], "{told}");
            assert_eq!(runs, 1, "{told}");
            assert!(world.config_map("dropped").await.is_some(), "{told}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_removal_goes_on_after_any_write_and_leaves_nothing() {
    die_everywhere(
        async |world| prepared(world, "blue").await,
        async |engine| engine.uninstall("shop", NS, &Options { wait: true, ..Options::default() }).await,
        async |world, outcome, runs, told| {
            assert!(matches!(outcome, Outcome::Gone), "{told}: {outcome:?}");
            assert_eq!(world.history("shop").await, Vec::<String>::new(), "{told}");
            assert_eq!(runs, 3, "{told}");
            assert!(world.config_map("shop").await.is_none() && world.config_map("dropped").await.is_none(), "{told}");
        },
    )
    .await;
}

#[tokio::test]
async fn an_atomic_upgrade_that_fails_is_undone_after_any_write() {
    let bad = || {
        let hook = job("check", "post-upgrade", "    helm.sh/hook-delete-policy: hook-failed\n");
        Wish::new(chart(&[("map", MAP), ("check", &hook)]), "bad")
            .with(|options| (options.atomic, options.timeout_s) = (true, 0))
    };
    die_everywhere(
        async |world| drop(Wish::new(chart(&[("map", MAP)]), "good").install(world).await.unwrap()),
        async |engine| engine.upgrade(&bad().request()).await,
        async |world, outcome, _, told| {
            let Outcome::Failed { why, .. } = outcome else { panic!("{told}: {outcome:?}") };
            assert!(
                why.starts_with(
                    "release shop failed, and has been rolled back due to atomic being set: post-upgrade hooks failed"
                ),
                "{told}: {why}"
            );
            assert_eq!(world.history("shop").await, ["1 superseded", "2 failed", "3 deployed"], "{told}");
            assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "good", "{told}");
            assert_eq!(world.names("/apis/batch/v1/namespaces/default/jobs").await, Vec::<String>::new(), "{told}");
        },
    )
    .await;
}
