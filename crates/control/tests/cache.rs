//! What a cache tells its listeners.

use std::sync::Arc;

use apiserver::{Server, User};
use control::{Cache, Clock, Key, Writer};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Client, runtime::watcher};
use parking_lot::Mutex;

#[tokio::test]
async fn who_listens_after_the_first_list_is_told_of_what_was_in_it() {
    let store = Arc::new(store::Embedded::memory(store::Limits::default()));
    let server = Server::start(store, apiserver::Options::default()).await.unwrap();
    let client = Client::new(server.service_as(User::master("test")), "default");
    let writer = Writer::new(client.clone(), "test", Clock::system());
    let cache = Cache::<Namespace>::start(client, watcher::Config::default(), &writer);
    cache.synced().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    cache.on_change(move |namespace| heard.lock().push(Key::of(namespace.as_ref())));
    let (mut told, mut present) = (told.lock().clone(), cache.keys());
    told.sort();
    present.sort();
    assert!(!present.is_empty());
    assert_eq!(told, present);
}
