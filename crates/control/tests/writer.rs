//! What the writer makes of a plan whose object has changed since.

use std::{sync::Arc, time::Duration};

use apiserver::{Server, User};
use control::{Clock, Key, Life, Outcome, Plan, Reconcile, Runner, Writer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, NamespaceCondition, NamespaceStatus};
use kube::{Api, Client, core::ObjectMeta, runtime::wait::await_condition};
use tokio::sync::watch;

fn told(before: &Namespace, status: &str, message: &str) -> Namespace {
    let condition = NamespaceCondition {
        type_: "Ready".into(),
        status: status.into(),
        message: Some(message.into()),
        ..NamespaceCondition::default()
    };
    let status = NamespaceStatus { conditions: Some(vec![condition]), ..NamespaceStatus::default() };
    Namespace { status: Some(status), ..before.clone() }
}

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

#[tokio::test(start_paused = true)]
async fn what_sums_up_waits_a_moment_after_the_last_write_words_longer_and_everything_else_is_written_at_once() {
    let client = server().await;
    let namespaces = Api::<Namespace>::all(client.clone());
    let metadata = ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() };
    let made = namespaces.create(&Default::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
    let writer = Writer::new(client, "test", Clock::system());
    let write = async |before: &Namespace, after: &Namespace| {
        let mut plan = Plan::nothing();
        plan.update(before, after);
        assert_eq!(writer.execute(plan).await.unwrap(), Outcome::Settled);
        namespaces.get("a").await.unwrap()
    };
    let first = write(&made, &told(&made, "False", "one")).await;
    let pass = |s| tokio::time::advance(Duration::from_secs(s));
    assert_eq!(write(&first, &told(&first, "False", "two")).await, first);
    assert_eq!(write(&first, &told(&first, "True", "two")).await, first);
    let mut labelled = told(&first, "True", "two");
    labelled.metadata.labels.get_or_insert_default().insert("a".into(), "b".into());
    let second = write(&first, &labelled).await;
    assert_eq!((&second.metadata.labels, &second.status), (&labelled.metadata.labels, &first.status));
    pass(2).await;
    let third = write(&second, &told(&second, "True", "two")).await;
    assert_eq!(third.status, told(&second, "True", "two").status);
    assert_eq!(write(&third, &told(&third, "True", "three")).await, third, "words wait longer");
    pass(3).await;
    let fourth = write(&third, &told(&third, "True", "three")).await;
    assert_eq!(fourth.status, told(&third, "True", "three").status);
}

/// Says of a namespace what it is told to say, and never that it has to come again.
struct Teller {
    writer: Writer,
    namespaces: Api<Namespace>,
    says: watch::Receiver<&'static str>,
}

impl Reconcile for Teller {
    const NAME: &'static str = "teller";
    type Seen = (Namespace, &'static str);
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> control::Result<Option<Self::Seen>> {
        let says = *self.says.borrow();
        Ok(Some((self.namespaces.get(&key.name).await.unwrap(), says)))
    }

    fn plan(&self, (namespace, says): &Self::Seen, _: Timestamp) -> Plan {
        let mut plan = Plan::nothing();
        plan.update(namespace, &told(namespace, says, ""));
        plan
    }

    async fn act(&self, _: &Key, _: &Self::Seen, plan: Plan) -> control::Result<Outcome> {
        self.writer.execute(plan).await?;
        Ok(Outcome::Settled)
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_is_written_whatever_the_reconcile_said_of_coming_again() {
    let client = server().await;
    let namespaces = Api::<Namespace>::all(client.clone());
    let metadata = ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() };
    namespaces.create(&Default::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
    let writer = Writer::new(client, "test", Clock::system());
    let (say, says) = watch::channel("True");
    let (runner, life) = (Runner::new(1, &writer), Life::default());
    let queue = runner.queue();
    life.spawn(runner, Teller { writer, namespaces: namespaces.clone(), says });
    let is = |wanted: &'static str| {
        await_condition(namespaces.clone(), "a", move |found: Option<&Namespace>| {
            let conditions = found.and_then(|found| found.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition.status == wanted))
        })
    };
    queue.add(Key::new("", "a"));
    is("True").await.unwrap();
    say.send_replace("False");
    queue.add(Key::new("", "a"));
    tokio::time::timeout(Duration::from_secs(10), is("False")).await.unwrap().unwrap();
    life.shutdown().await;
}
