//! What the writer makes of a plan whose object has changed since.

use std::{sync::Arc, time::Duration};

use apiserver::{Server, User};
use control::{Clock, Outcome, Plan, Writer};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, NamespaceCondition, NamespaceStatus};
use kube::{Api, Client, core::ObjectMeta};

async fn server() -> Client {
    let store = Arc::new(store::Embedded::memory(store::Limits::default()));
    let server = Server::start(store, apiserver::Options::default()).await.unwrap();
    Client::new(server.service_as(User::master("test")), "default")
}

#[tokio::test]
async fn what_is_gone_needs_no_write_and_what_has_changed_is_a_conflict() {
    let client = server().await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let metadata = ObjectMeta { name: Some("a".into()), namespace: Some("default".into()), ..ObjectMeta::default() };
    let before = maps.create(&Default::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await.unwrap();
    let changed = |value: &str| ConfigMap { data: Some([("a".to_owned(), value.to_owned())].into()), ..before.clone() };
    let writer = Writer::new(client, "test", Clock::system());
    let write = async |value: &str| {
        let mut plan = Plan::nothing();
        plan.update(&before, &changed(value));
        writer.execute(plan).await
    };
    assert_eq!(write("b").await.unwrap(), Outcome::Settled);
    assert!(write("c").await.unwrap_err().chain().contains("the object has been modified"));
    maps.delete("a", &Default::default()).await.unwrap();
    assert_eq!(write("d").await.unwrap(), Outcome::Settled);
}

#[tokio::test]
async fn words_wait_after_the_last_write_and_everything_else_is_written_at_once() {
    let client = server().await;
    let namespaces = Api::<Namespace>::all(client.clone());
    let metadata = ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() };
    let made = namespaces.create(&Default::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
    let told = |before: &Namespace, status: &str, message: &str| {
        let condition = NamespaceCondition {
            type_: "Ready".into(),
            status: status.into(),
            message: Some(message.into()),
            ..NamespaceCondition::default()
        };
        let status = NamespaceStatus { conditions: Some(vec![condition]), ..NamespaceStatus::default() };
        Namespace { status: Some(status), ..before.clone() }
    };
    let writer = Writer::new(client, "test", Clock::system());
    let write = async |before: &Namespace, after: &Namespace| {
        let mut plan = Plan::nothing();
        plan.update(before, after);
        let outcome = writer.execute(plan).await.unwrap();
        (outcome, namespaces.get("a").await.unwrap())
    };
    let (outcome, first) = write(&made, &told(&made, "False", "one")).await;
    assert_eq!(outcome, Outcome::Settled);
    let (outcome, same) = write(&first, &told(&first, "False", "two")).await;
    assert!(matches!(outcome, Outcome::Waiting { after, .. } if after <= Duration::from_secs(3)), "{outcome:?}");
    assert_eq!(same, first);
    let (outcome, second) = write(&first, &told(&first, "True", "two")).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_ne!(second, first);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    tokio::time::resume();
    let (outcome, third) = write(&second, &told(&second, "True", "three")).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(third.status, told(&second, "True", "three").status);
}
