//! Who leads, on a real API server in this process and a paused clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use apiserver::{Options, Server, User};
use axum::{Router, http::StatusCode, response::IntoResponse};
use control::{Clock, Election, Overrun, Timing};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use store::{Embedded, Limits};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
struct Candidate {
    /// Its requests fail.
    cut: Arc<AtomicBool>,
    leads: Arc<AtomicBool>,
    stop: CancellationToken,
}

struct World {
    server: Server,
    /// How many work at this moment.
    at_work: Arc<AtomicUsize>,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(Embedded::memory(Limits::default()));
        let server = Server::start(store, Options::default()).await.unwrap();
        Self { server, at_work: Arc::default() }
    }

    fn candidate(&self, identity: &str) -> (Candidate, tokio::task::JoinHandle<Result<(), Overrun>>) {
        let candidate = Candidate::default();
        let (server, cut) = (self.server.clone(), candidate.cut.clone());
        let user = Arc::new(User::master("test"));
        let router = Router::new().fallback(move |request| {
            let (server, user, cut) = (server.clone(), user.clone(), cut.clone());
            async move {
                match cut.load(Ordering::SeqCst) {
                    true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    false => server.call_as(user, request).await,
                }
            }
        });
        let election = Election {
            client: Client::new(router, "default"),
            clock: Clock::system(),
            namespace: "kube-system".to_owned(),
            name: "work".to_owned(),
            identity: identity.to_owned(),
            timing: Timing::default(),
        };
        let (at_work, me) = (self.at_work.clone(), candidate.clone());
        let leading = election.lead(candidate.stop.clone(), move |lost| {
            let (at_work, me) = (at_work.clone(), me.clone());
            async move {
                assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0, "two work at once");
                me.leads.store(true, Ordering::SeqCst);
                lost.cancelled().await;
                me.leads.store(false, Ordering::SeqCst);
                at_work.fetch_sub(1, Ordering::SeqCst);
            }
        });
        (candidate, tokio::spawn(leading))
    }
}

/// How long it took until `what` is as said.
async fn until(what: &AtomicBool, is: bool) -> Duration {
    let began = Instant::now();
    while what.load(Ordering::SeqCst) != is {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_secs(120), "it does not come to pass");
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over_at_once_when_it_ends() {
    let world = World::new().await;
    let (a, a_ended) = world.candidate("a");
    until(&a.leads, true).await;
    let (b, b_ended) = world.candidate("b");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(a.leads.load(Ordering::SeqCst) && !b.leads.load(Ordering::SeqCst), "who leads goes on");
    a.stop.cancel();
    a_ended.await.unwrap().unwrap();
    assert!(until(&b.leads, true).await <= Duration::from_secs(3));
    let api: Api<Lease> =
        Api::namespaced(Client::new(world.server.service_as(User::master("t")), "default"), "kube-system");
    let spec = api.get("work").await.unwrap().spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    b.stop.cancel();
    b_ended.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_before_another_begins() {
    let world = World::new().await;
    let (a, a_ended) = world.candidate("a");
    until(&a.leads, true).await;
    let (b, b_ended) = world.candidate("b");
    tokio::time::sleep(Duration::from_secs(20)).await;
    a.cut.store(true, Ordering::SeqCst);
    let stopped = until(&a.leads, false).await;
    assert!(stopped <= Duration::from_secs(11), "{stopped:?}");
    let began = until(&b.leads, true).await;
    assert!(began >= Duration::from_secs(2) && began <= Duration::from_secs(8), "{began:?} after the other stopped");
    a.cut.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(b.leads.load(Ordering::SeqCst) && !a.leads.load(Ordering::SeqCst));
    for (candidate, ended) in [(a, a_ended), (b, b_ended)] {
        candidate.stop.cancel();
        ended.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_end_is_an_error() {
    let world = World::new().await;
    let election = |cut: Arc<AtomicBool>| {
        let server = world.server.clone();
        let router = Router::new().fallback(move |request| {
            let (server, cut) = (server.clone(), cut.clone());
            async move {
                match cut.load(Ordering::SeqCst) {
                    true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    false => server.call_as(Arc::new(User::master("test")), request).await,
                }
            }
        });
        Client::new(router, "default")
    };
    let cut = Arc::new(AtomicBool::new(false));
    let leads = Arc::new(AtomicBool::new(false));
    let election = Election {
        client: election(cut.clone()),
        clock: Clock::system(),
        namespace: "kube-system".to_owned(),
        name: "stubborn".to_owned(),
        identity: "a".to_owned(),
        timing: Timing::default(),
    };
    let seen = leads.clone();
    let ended = tokio::spawn(election.lead(CancellationToken::new(), move |_| {
        seen.store(true, Ordering::SeqCst);
        std::future::pending()
    }));
    until(&leads, true).await;
    cut.store(true, Ordering::SeqCst);
    assert_eq!(ended.await.unwrap(), Err(Overrun));
}
