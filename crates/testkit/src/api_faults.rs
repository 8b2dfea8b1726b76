//! A Management API whose answers do not all arrive, and that notices controllers which write against each other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::Notify, time::Instant};

/// Writes of controllers within one second of the world's clock. Where two write against each other, a paused clock stands still.
const WRITES_MAX: usize = 5_000;

/// Shares of the controllers' writes, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Not done.
    pub lost: f64,
    /// Done, and the answer is lost.
    pub unanswered: f64,
    /// Of one resource alone.
    pub of: Option<&'static str>,
}

/// Between the controllers and the Management API. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct ApiFaults(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    too_many: Notify,
}

struct State {
    shares: Shares,
    /// Since when all answers arrive.
    whole_since: Instant,
    rng: StdRng,
    /// The second that is counted, and what was written in it.
    since: Instant,
    writes: HashMap<String, usize>,
    count: usize,
}

impl ApiFaults {
    pub fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed.rotate_left(17));
        let state = State {
            shares: Shares::default(),
            whole_since: Instant::now(),
            rng,
            since: Instant::now(),
            writes: HashMap::new(),
            count: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), too_many: Notify::new() }))
    }

    pub fn set(&self, shares: Shares) {
        let state = &mut *self.0.state.lock();
        (state.shares, state.whole_since) = (shares, Instant::now());
    }

    /// How long all answers have arrived: none while some do not.
    pub fn whole_for(&self) -> Duration {
        let state = self.0.state.lock();
        if state.shares == Shares::default() { state.whole_since.elapsed() } else { Duration::ZERO }
    }

    /// Ends when controllers write without end: what they write.
    pub async fn storm(&self) -> String {
        self.0.too_many.notified().await;
        let mut writes: Vec<_> = self.0.state.lock().writes.clone().into_iter().collect();
        writes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        writes.truncate(5);
        format!("the controllers write without end: more than {WRITES_MAX} in a second, most of all {writes:?}")
    }

    /// The same API, with what goes wrong on the way.
    pub(crate) fn before(&self, api: Router) -> Router {
        let faults = self.clone();
        api.layer(middleware::from_fn(move |request: Request, next: Next| {
            let faults = faults.clone();
            async move { faults.pass(request, next).await }
        }))
    }

    async fn pass(&self, request: Request, next: Next) -> Response {
        let (lost, unanswered) = if matches!(*request.method(), Method::GET | Method::HEAD) {
            (false, false)
        } else {
            let state = &mut *self.0.state.lock();
            if state.count(request.uri().path()) {
                self.0.too_many.notify_one();
            }
            let (shares, rng) = (state.shares, &mut state.rng);
            let concerns = shares.of.is_none_or(|of| request.uri().path().split('/').any(|part| part == of));
            if shares == Shares::default() || !concerns {
                (false, false)
            } else {
                (rng.random_bool(shares.lost), rng.random_bool(shares.unanswered))
            }
        };
        let broken = || (StatusCode::GATEWAY_TIMEOUT, "the request or its answer was lost").into_response();
        if lost {
            return broken();
        }
        let answer = next.run(request).await;
        if unanswered { broken() } else { answer }
    }
}

impl State {
    /// True if that is one write too many.
    fn count(&mut self, path: &str) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            self.since = Instant::now();
            self.writes.clear();
            self.count = 0;
        }
        *self.writes.entry(path.to_owned()).or_default() += 1;
        self.count += 1;
        self.count > WRITES_MAX
    }
}
