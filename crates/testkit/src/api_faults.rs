//! A Management API whose answers do not all arrive.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Shares of the controllers' writes, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Not done.
    pub lost: f64,
    /// Done, and the answer is lost.
    pub unanswered: f64,
}

/// Between the controllers and the Management API. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct ApiFaults(Arc<Mutex<(Shares, StdRng)>>);

impl ApiFaults {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new((Shares::default(), StdRng::seed_from_u64(seed.rotate_left(17))))))
    }

    pub fn set(&self, shares: Shares) {
        self.0.lock().0 = shares;
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
        let (lost, unanswered) = {
            let (shares, rng) = &mut *self.0.lock();
            let writes = !matches!(*request.method(), Method::GET | Method::HEAD) && *shares != Shares::default();
            if writes { (rng.random_bool(shares.lost), rng.random_bool(shares.unanswered)) } else { (false, false) }
        };
        let broken = || (StatusCode::GATEWAY_TIMEOUT, "the request or its answer was lost").into_response();
        if lost {
            return broken();
        }
        let answer = next.run(request).await;
        if unanswered { broken() } else { answer }
    }
}
