//! What the writer makes of a plan whose object has changed since.

use std::sync::Arc;

use apiserver::{Server, User};
use control::{Clock, Outcome, Plan, Writer};
use k8s_openapi::api::core::v1::ConfigMap;
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
