//! Repositories and charts that are no good: an app says what is wrong, and nothing is lost.

use std::sync::Arc;

use serde_json::json;

use super::world::{REPOSITORY, World, chart, chart_of, packed};

/// The status of an app whose catalog has this, and why.
async fn told(world: &World, change: &serde_json::Value, status: &str) -> String {
    world.cluster("w1").await;
    world.app("w1-hello", "w1", change).await;
    world.until("w1-hello", status).await
}

#[tokio::test(start_paused = true)]
async fn a_chart_or_a_version_that_is_not_there() {
    let world = World::new().await;
    let reason = told(&world, &json!({"spec": {"version": "9.9.9"}}), "app-version-not-found").await;
    assert_eq!(reason, "app version not found error: no app `hello` in index.yaml with given version `9.9.9`");
    world.patch("w1-hello", &json!({"spec": {"name": "other"}})).await;
    let reason = world.until("w1-hello", "app-not-found").await;
    assert_eq!(reason, format!("app not found error: no entries for app `other` in index.yaml for `{REPOSITORY}`"));
    world.patch("w1-hello", &json!({"spec": {"name": "hello", "version": "1.0.0"}})).await;
    world.until("w1-hello", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_is_gone_that_hangs_or_is_none() {
    let world = World::new().await;
    world.catalog("gone", &["https://gone.test/charts"]).await;
    world.catalog("hanging", &["https://hangs.test/charts"]).await;
    world.site.put("https://page.test/charts/index.yaml", "<html>hello</html>");
    world.catalog("page", &["https://page.test/charts"]).await;
    let reason = told(&world, &json!({"spec": {"catalog": "gone"}}), "index-not-found").await;
    assert!(reason.contains("`https://gone.test/charts`") && reason.contains("404"), "{reason}");
    world.patch("w1-hello", &json!({"spec": {"catalog": "hanging"}})).await;
    world
        .eventually("the other is named", async || {
            world.status("w1-hello").await.release.reason.is_some_and(|reason| reason.contains("30 s"))
        })
        .await;
    world.patch("w1-hello", &json!({"spec": {"catalog": "page"}})).await;
    world
        .eventually("the page is named", async || {
            world.status("w1-hello").await.release.reason.is_some_and(|reason| reason.contains("cannot be read"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_is_not_what_the_index_promises_replaces_nothing() {
    let world = World::new().await;
    let cluster = world.cluster("w1").await;
    world.app("w1-hello", "w1", &json!({})).await;
    world.until("w1-hello", "deployed").await;
    world.site.put(&format!("{REPOSITORY}/hello-1.1.0.tgz"), packed("hello", &chart("hello", "6.6.6")));
    world.patch("w1-hello", &json!({"spec": {"version": "1.1.0"}})).await;
    let reason = world.until("w1-hello", "chart-pull-failed").await;
    assert!(
        reason.starts_with(&format!("pulling chart `{REPOSITORY}/hello-1.1.0.tgz` failed: "))
            && reason.contains("digest"),
        "{reason}"
    );
    assert_eq!(cluster.map("web", "hello").await.unwrap()["version"], "1.0.0");
    assert_eq!(cluster.history("web", "hello").await, ["1 deployed"]);
}

#[tokio::test(start_paused = true)]
async fn a_chart_that_unpacks_to_gigabytes_or_climbs_out_of_its_folder() {
    let world = World::new().await;
    let mut bomb = chart("hello", "1.0.0");
    for n in 0..8 {
        bomb.insert(format!("files/{n}"), Arc::from(vec![0_u8; 16 << 20]));
    }
    let mut climbing = chart("hello", "1.1.0");
    climbing.insert("templates/../../../evil.yaml".to_owned(), Arc::from(&b"a: 1"[..]));
    world.site.publish(&[("hello", "1.0.0", bomb)]);
    let reason = told(&world, &json!({}), "chart-pull-failed").await;
    assert!(reason.contains("bytes"), "{reason}");
    drop(climbing);
}

#[tokio::test(start_paused = true)]
async fn a_template_without_end_and_values_against_the_schema() {
    let world = World::new().await;
    let endless = "{{ define \"a\" }}{{ include \"a\" . }}{{ end }}{{ include \"a\" . }}";
    let mut strict = chart("hello", "1.1.0");
    let schema = r#"{"type": "object", "properties": {"size": {"type": "integer", "maximum": 5}}}"#;
    strict.insert("values.schema.json".to_owned(), Arc::from(schema.as_bytes()));
    world.site.publish(&[
        ("hello", "1.0.0", chart_of("hello", "1.0.0", &[("endless.yaml", endless)])),
        ("hello", "1.1.0", strict),
    ]);
    let reason = told(&world, &json!({}), "not-installed").await;
    assert!(reason.contains("endless.yaml"), "{reason}");
    world.map("large", "size: 7\n").await;
    let refs = json!({"configMap": {"name": "large", "namespace": super::world::ORGANIZATION}});
    world.patch("w1-hello", &json!({"spec": {"version": "1.1.0", "config": refs}})).await;
    let reason = world.until("w1-hello", "values-schema-violation").await;
    assert!(reason.contains("size"), "{reason}");
    world.map("large", "size: 5\n").await;
    world.until("w1-hello", "deployed").await;
}

#[tokio::test(start_paused = true)]
async fn of_several_repositories_each_is_named() {
    let world = World::new().await;
    world.catalog("two", &[REPOSITORY, "https://gone.test/charts"]).await;
    let reason = told(&world, &json!({"spec": {"catalog": "two", "version": "9.9.9"}}), "index-not-found").await;
    assert!(reason.contains("given version `9.9.9`; ") && reason.contains("`https://gone.test/charts`"), "{reason}");
    world.patch("w1-hello", &json!({"spec": {"version": "1.0.0"}})).await;
    world.until("w1-hello", "deployed").await;
}
