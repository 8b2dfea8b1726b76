//! What is at most.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apiserver::User;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use delivery::release::{
    Engine, Limits,
    storage::{RELEASE_BYTES_MAX, REVISIONS_MAX},
};
use flate2::{Compression, write::GzEncoder};
use kube::{Client, client::Body};
use serde_json::{Value as Json, json};
use tower::ServiceExt;

use crate::support::{MAP, NS, Wish, World, chance, chart, clock, done};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn secret(version: u32, data: &[u8]) -> Json {
    json!({"metadata": {"name": format!("sh.helm.release.v1.shop.v{version}"),
            "labels": {"name": "shop", "owner": "helm", "status": "superseded", "version": version.to_string()}},
        "type": "helm.sh/release.v1", "data": {"release": STANDARD.encode(STANDARD.encode(data))}})
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_holds_nobody_up() {
    let silent = tower::service_fn(|_: http::Request<Body>| {
        std::future::pending::<Result<http::Response<axum::body::Body>, std::io::Error>>()
    });
    let limits = Limits { call: Duration::from_secs(5), ..Limits::default() };
    let engine = Engine::new(Client::new(silent, NS), clock(), chance(), limits);
    let wish = Wish::new(chart(&[("map", MAP)]), "blue");
    let error = engine.install(&wish.request()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot list the releases in namespace \"default\": the cluster does not answer within 5 s"
    );
    assert_eq!(error.class(), delivery::release::Class::Retry);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_stops_to_answer_in_the_middle_is_called_no_more() {
    let world = World::new().await;
    let maps: Vec<(String, String)> = (0..40)
        .map(|n| (format!("map-{n}"), format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map-{n}}}\n")))
        .collect();
    let templates: Vec<(&str, &str)> = maps.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    done(Wish::new(chart(&templates), "blue").install(&world).await);
    let router = world.server.service_as(User::master("test"));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let stops = tower::service_fn(move |request: http::Request<Body>| {
        let (router, calls) = (router.clone(), Arc::clone(&counted));
        async move {
            let is_map = request.uri().path().contains("/configmaps/");
            if is_map && calls.fetch_add(1, Ordering::SeqCst) >= 4 {
                std::future::pending::<()>().await;
            }
            router.oneshot(request).await
        }
    });
    let limits = Limits { call: Duration::from_secs(5), parallel: 4 };
    let engine = Engine::new(Client::new(stops, NS), clock(), chance(), limits);
    let error = engine.drift("shop", NS).await.unwrap_err();
    assert!(error.to_string().ends_with("the cluster does not answer within 5 s"), "{error}");
    assert!(calls.load(Ordering::SeqCst) <= 4 + 2 * 4, "{calls:?} of 40");
}

#[tokio::test]
async fn so_many_calls_are_made_at_once_and_no_more() {
    let world = World::new().await;
    let router = world.server.service_as(User::master("test"));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let counting = tower::service_fn(move |request: http::Request<Body>| {
        let (router, now, most) = (router.clone(), Arc::clone(&now), Arc::clone(&seen));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // All that may begin have begun when this goes on.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let answer = router.oneshot(request).await;
            now.fetch_sub(1, Ordering::SeqCst);
            answer
        }
    });
    let limits = Limits { parallel: 3, ..Limits::default() };
    let engine = Engine::new(Client::new(counting, NS), clock(), chance(), limits);
    let many = "{{ range until 20 }}apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'm{{ . }}'}\n---\n{{ end }}";
    let wish = Wish::new(chart(&[("many", many)]), "blue");
    done(engine.install(&wish.request()).await);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(
        world.names("/api/v1/namespaces/default/configmaps").await.iter().filter(|name| name.starts_with('m')).count(),
        20
    );
}

#[tokio::test]
async fn a_history_of_one_revision_too_many_is_refused() {
    let world = World::new().await;
    for version in 1..=REVISIONS_MAX {
        world.create(SECRETS, &secret(version, b"{}")).await;
    }
    assert_eq!(world.history("shop").await.len(), 500);
    world.create(SECRETS, &secret(REVISIONS_MAX + 1, b"{}")).await;
    let told = world.engine().history(NS, Some("shop")).await.unwrap_err().to_string();
    assert_eq!(told, "release shop has more than 500 revisions: delete the oldest Secrets");
    assert_eq!(world.engine().history(NS, None).await.unwrap().len(), 501, "of all releases there may be more");
}

#[tokio::test]
async fn a_release_that_unpacks_to_one_byte_too_many_is_not_read() {
    let world = World::new().await;
    let zipped = |bytes: usize| {
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(b"{}").unwrap();
        zipped.write_all(&vec![b' '; bytes - 2]).unwrap();
        zipped.finish().unwrap()
    };
    world.create(SECRETS, &secret(1, &zipped(RELEASE_BYTES_MAX))).await;
    assert!(world.engine().last("shop", NS).await.unwrap().is_some());
    world.create(SECRETS, &secret(2, &zipped(RELEASE_BYTES_MAX + 1))).await;
    let told = world.engine().last("shop", NS).await.unwrap_err().to_string();
    assert!(
        told.ends_with(&format!("holds no release that can be read: it has more than {RELEASE_BYTES_MAX} bytes")),
        "{told}"
    );
}

#[tokio::test]
async fn so_many_changes_of_an_object_are_told() {
    let world = World::new().await;
    let many = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: many}\ndata:\n{{ range until 1100 }}  k{{ . }}: '{{ $.Values.color }}'\n{{ end }}";
    done(Wish::new(chart(&[("many", many)]), "blue").install(&world).await);
    let found = world.engine().diff(&Wish::new(chart(&[("many", many)]), "red").request()).await.unwrap();
    assert_eq!(found[0].changes.len(), 1_000);
}

#[tokio::test]
async fn the_longest_name_is_taken() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("map", MAP)]), "blue");
    let (mut request, name) = (wish.request(), "a".repeat(53));
    request.name = &name;
    done(world.engine().install(&request).await);
}
