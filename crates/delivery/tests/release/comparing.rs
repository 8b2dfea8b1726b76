//! What would change, and what has changed.

use delivery::release::{Difference, Verdict};
use serde_json::json;

use crate::support::{DEPLOYMENT, MAP, NS, Wish, World, chart, done};

fn told(found: &[Difference]) -> Vec<String> {
    let one = |one: &Difference| {
        let changes: Vec<String> = one
            .changes
            .iter()
            .map(|change| {
                let side = |side: &Option<serde_json::Value>| {
                    side.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
                };
                format!(" {}: {} -> {}", change.path, side(&change.from), side(&change.to))
            })
            .collect();
        format!("{:?} {} {}{}", one.verdict, one.id.kind, one.id.name, changes.join(","))
    };
    found.iter().filter(|found| found.verdict != Verdict::Same).map(one).collect()
}

#[tokio::test]
async fn what_an_upgrade_would_change_is_told_and_nothing_is_written() {
    let world = World::new().await;
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n";
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: '{{ .Values.color }}', same: x}\n";
    done(
        Wish::new(chart(&[("map", MAP), ("more", more), ("secret", secret), ("web", DEPLOYMENT)]), "blue")
            .install(&world)
            .await,
    );
    let new = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\n";
    let wish = Wish::new(chart(&[("map", MAP), ("new", new), ("secret", secret), ("web", DEPLOYMENT)]), "red");
    let history = world.history("shop").await;
    let found = world.engine().diff(&wish.request()).await.unwrap();
    assert_eq!(
        told(&found),
        [
            "Changed Secret s data.password: \"(hidden)\" -> \"(hidden)\"",
            "Changed ConfigMap shop data.color: \"blue\" -> \"red\", data.revision: \"1\" -> \"2\"",
            "Made ConfigMap new",
            "Changed Deployment web spec.template.spec.containers[0].image: \"web:blue\" -> \"web:red\"",
            "Deleted ConfigMap more",
        ]
    );
    let secret = found.iter().find(|one| one.id.kind == "Secret").unwrap();
    let data = |side: &Option<serde_json::Value>| side.as_ref().unwrap()["data"].clone();
    assert_eq!(data(&secret.before), json!({"password": "(hidden: as it is)", "same": "(hidden)"}));
    assert_eq!(data(&secret.after), json!({"password": "(hidden: as it would be)", "same": "(hidden)"}));
    let whole = |verdict| found.iter().find(|one| one.verdict == verdict).unwrap();
    let (new, gone) = (whole(Verdict::Made), whole(Verdict::Deleted));
    assert!(new.before.is_none() && new.after.as_ref().unwrap()["metadata"]["name"] == "new");
    assert!(gone.after.is_none() && gone.before.as_ref().unwrap()["metadata"].get("uid").is_none());
    assert_eq!(world.history("shop").await, history);
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "blue");
    assert!(world.config_map("new").await.is_none());
}

#[tokio::test]
async fn what_others_changed_is_told_and_put_back_and_what_they_added_stays() {
    let world = World::new().await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: x}\n";
    done(Wish::new(chart(&[("map", MAP), ("web", DEPLOYMENT), ("secret", secret)]), "blue").install(&world).await);
    assert_eq!(told(&world.engine().drift("shop", NS).await.unwrap()), Vec::<String>::new(), "defaults are no drift");
    let secret_text = |found: &[Difference]| format!("{:?}", found.iter().find(|one| one.id.kind == "Secret"));
    world.patch("/api/v1/namespaces/default/configmaps/shop", &json!({"data": {"color": "pink", "own": "1"}})).await;
    world.patch("/apis/apps/v1/namespaces/default/deployments/web", &json!({"spec": {"replicas": 5}})).await;
    world.delete("/api/v1/namespaces/default/secrets/s").await;
    let found = world.engine().drift("shop", NS).await.unwrap();
    assert!(secret_text(&found).contains("(hidden)") && !secret_text(&found).contains("eA=="), "{found:?}");
    assert_eq!(
        told(&found),
        [
            "Made Secret s",
            "Changed ConfigMap shop data.color: \"pink\" -> \"blue\"",
            "Changed Deployment web spec.replicas: 5 -> 2"
        ]
    );
    world.engine().correct("shop", NS).await.unwrap();
    assert_eq!(told(&world.engine().drift("shop", NS).await.unwrap()), Vec::<String>::new());
    let data = world.config_map("shop").await.unwrap()["data"].clone();
    assert_eq!(data, json!({"color": "blue", "revision": "1", "own": "1"}));
    assert_eq!(world.history("shop").await, ["1 deployed"]);
}

#[tokio::test]
async fn what_is_not_deployed_has_no_drift() {
    let world = World::new().await;
    let error = world.engine().drift("shop", NS).await.unwrap_err();
    assert_eq!(error.to_string(), "release: not found: shop");
}
