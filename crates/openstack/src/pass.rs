//! A pass: work of many calls in a row that is to end soon, whatever the cloud takes for each of them.
//!
//! Calls are begun in the first moments of a pass only; the ones after that are put off, which is an error that says so. The answers
//! that came are kept, and a pass that goes on where another was put off is given them at once, call by call, as if it were the
//! same one that never stopped. So a pass never takes longer than one call may, and each gets at least one call further.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Calls are begun for so long.
pub const BEGIN_LIMIT: Duration = Duration::from_secs(2);
/// Answers that are kept for a pass that goes on.
pub const ANSWERS_LIMIT: usize = 512;
/// Answers are no longer used when the first of them is older than this.
pub const ANSWERS_LIFE: Duration = Duration::from_secs(15 * 60);

/// What is asked: two requests that are the same get answers in their order.
type Asked = (Method, String, Bytes);

struct Answers {
    /// When the first was given.
    since: Instant,
    count: usize,
    given: HashMap<Asked, Vec<Response<Bytes>>>,
}

/// See the module. Cheap to clone; clones are the same pass.
#[derive(Clone)]
pub struct Pass(Arc<State>);

struct State {
    begun: Instant,
    answers: Mutex<Answers>,
    /// How often each was asked in this pass.
    turns: Mutex<HashMap<Asked, usize>>,
}

impl Default for Pass {
    fn default() -> Self {
        Self::begin(Answers { since: Instant::now(), count: 0, given: HashMap::new() })
    }
}

impl Pass {
    fn begin(answers: Answers) -> Self {
        Self(Arc::new(State { begun: Instant::now(), answers: Mutex::new(answers), turns: Mutex::default() }))
    }

    /// The pass that goes on where this one was put off; a new one if that is too long ago.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut answers = self.0.answers.lock();
        if answers.since.elapsed() > ANSWERS_LIFE {
            return Self::default();
        }
        let given = std::mem::take(&mut answers.given);
        Self::begin(Answers { since: answers.since, count: answers.count, given })
    }

    /// No more calls are begun.
    pub(crate) fn is_over(&self) -> bool {
        self.0.begun.elapsed() >= BEGIN_LIMIT
    }

    pub(crate) fn begun(&self) -> Instant {
        self.0.begun
    }

    /// The answer that an earlier pass got to this, if it got so far.
    pub(crate) fn recall(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let asked = asked(request);
        let mut turns = self.0.turns.lock();
        let turn = turns.get(&asked).copied().unwrap_or_default();
        let found = self.0.answers.lock().given.get(&asked)?.get(turn)?.clone();
        turns.insert(asked, turn + 1);
        Some(found)
    }

    /// Keeps an answer that asking again would not change: what is there, or that it is not.
    pub(crate) fn keep(&self, asked: Asked, response: &Response<Bytes>) {
        let status = response.status();
        let passing = !(status.is_success() || status == StatusCode::NOT_FOUND);
        let mut answers = self.0.answers.lock();
        if passing || answers.count >= ANSWERS_LIMIT {
            return;
        }
        answers.count += 1;
        *self.0.turns.lock().entry(asked.clone()).or_default() += 1;
        answers.given.entry(asked).or_default().push(response.clone());
    }
}

pub(crate) fn asked(request: &Request<Bytes>) -> Asked {
    (request.method().clone(), request.uri().to_string(), request.body().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> Request<Bytes> {
        Request::get(path).body(Bytes::new()).unwrap()
    }

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn answers_are_given_again_in_their_order_and_only_to_the_next_pass() {
        let pass = Pass::default();
        let servers = request("/servers");
        for body in ["none", "one"] {
            assert!(pass.recall(&servers).is_none());
            pass.keep(asked(&servers), &answer(200, body));
        }
        let next = pass.again();
        let again = |pass: &Pass| pass.recall(&servers).map(Response::into_body);
        assert_eq!([again(&next), again(&next), again(&next)], [Some("none".into()), Some("one".into()), None]);
        assert_eq!(again(&next.again()), Some("none".into()));
    }

    #[test]
    fn what_may_pass_is_asked_again() {
        let pass = Pass::default();
        let servers = request("/servers");
        for status in [401, 406, 409, 429, 413, 500, 503] {
            pass.keep(asked(&servers), &answer(status, ""));
        }
        pass.keep(asked(&request("/servers/1")), &answer(404, "gone"));
        let next = pass.again();
        assert!(next.recall(&servers).is_none());
        assert_eq!(next.recall(&request("/servers/1")).unwrap().status(), 404);
    }

    #[test]
    fn answers_have_a_limit() {
        let pass = Pass::default();
        for number in 0..=ANSWERS_LIMIT {
            pass.keep(asked(&request(&format!("/servers/{number}"))), &answer(200, ""));
        }
        let next = pass.again();
        assert!(next.recall(&request(&format!("/servers/{}", ANSWERS_LIMIT - 1))).is_some());
        assert!(next.recall(&request(&format!("/servers/{ANSWERS_LIMIT}"))).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_get_old() {
        let pass = Pass::default();
        pass.keep(asked(&request("/servers")), &answer(200, ""));
        tokio::time::advance(ANSWERS_LIFE).await;
        let pass = pass.again();
        assert!(pass.recall(&request("/servers")).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pass.again().recall(&request("/servers")).is_none());
    }
}
