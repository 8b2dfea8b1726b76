//! How many requests are served at once, and who waits: no user can keep the others out.
//!
//! Reads and writes are counted apart, as upstream's max-in-flight does; watches and streams are not counted. Within each:
//! - *exempt*: members of `system:masters`, and callers in the process, never wait;
//! - *system*: nodes, leases (leader election) of the system's own accounts, and what lives in `kube-system` may use every seat
//!   and are served before anybody else who waits;
//! - *workload*: all others share four fifths of the seats. Each flow (a user; the service accounts of one namespace together)
//!   has at most half of these, waits in a queue of its own, and a seat that gets free goes to the flow that holds the fewest.
//!
//! This is upstream's priority and fairness (KEP-1040) without its API objects: FlowSchemas and PriorityLevelConfigurations
//! are stored and not acted upon. A request whose queue is full, or that waited too long, is answered 429 with Retry-After.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use policy::User;
use tokio::sync::oneshot;

use crate::{
    metrics::Metrics,
    path::{Resource, Verb},
    status::{Error, Result},
};

/// Requests of one flow that wait, and of all flows together.
pub(crate) const FLOW_QUEUE_MAX: usize = 50;
pub(crate) const QUEUE_MAX: usize = 1000;
/// Longest wait for a seat.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// The share of the seats that is kept for the system: one in so many.
const RESERVED: usize = 5;
const RETRY_AFTER_S: u32 = 1;

/// How many requests are served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Gets and lists.
    pub reads: usize,
    /// All that changes something.
    pub writes: usize,
}

impl Default for RequestLimits {
    /// kube-apiserver's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
    fn default() -> Self {
        Self { reads: 400, writes: 200 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Flow {
    Exempt,
    System,
    Workload(Arc<str>),
}

/// Whose turn a request takes.
fn flow(user: &User, target: Option<&Resource>) -> Flow {
    if user.is_master() {
        return Flow::Exempt;
    }
    let account = user.as_service_account();
    let system_account = account.is_some_and(|(namespace, _)| namespace == "kube-system");
    let component = user.name.starts_with("system:kube-") || user.is_in("system:nodes");
    let leases = target.is_some_and(|target| target.group == "coordination.k8s.io" && target.resource == "leases");
    if system_account || component || (leases && user.name.starts_with("system:") && account.is_none()) {
        return Flow::System;
    }
    Flow::Workload(match account {
        Some((namespace, _)) => format!("system:serviceaccounts:{namespace}").into(),
        None => user.name.as_str().into(),
    })
}

pub(crate) struct Fairness {
    reads: Arc<Lane>,
    writes: Arc<Lane>,
}

/// The seats of reads, or those of writes.
struct Lane {
    kind: &'static str,
    limit: usize,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    workload_running: usize,
    system_waiting: VecDeque<oneshot::Sender<Seat>>,
    flows: BTreeMap<Arc<str>, Held>,
    /// Orders flows that hold equally many seats by who was served longest ago.
    turn: u64,
}

#[derive(Default)]
struct Held {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Seat>>,
    served: u64,
}

/// A request's place among those that are served; given back when dropped.
pub(crate) struct Seat {
    lane: Arc<Lane>,
    flow: Flow,
}

impl State {
    /// Requests that wait, and some that went away since they were last swept.
    fn waiting(&self) -> usize {
        self.system_waiting.len() + self.flows.values().map(|held| held.waiting.len()).sum::<usize>()
    }

    /// Forgets those who wait no longer.
    fn sweep(&mut self) {
        self.system_waiting.retain(|sender| !sender.is_closed());
        for held in self.flows.values_mut() {
            held.waiting.retain(|sender| !sender.is_closed());
        }
        self.flows.retain(|_, held| held.running > 0 || !held.waiting.is_empty());
    }
}

impl Fairness {
    pub(crate) fn new(limits: RequestLimits, metrics: &Arc<Metrics>) -> Self {
        let lane = |kind, limit: usize| {
            Arc::new(Lane { kind, limit: limit.max(1), metrics: Arc::clone(metrics), state: Mutex::default() })
        };
        Self { reads: lane("readOnly", limits.reads), writes: lane("mutating", limits.writes) }
    }

    /// Waits for the request's turn.
    pub(crate) async fn seat(&self, user: &User, verb: Option<Verb>, target: Option<&Resource>) -> Result<Seat> {
        let reads = matches!(verb, None | Some(Verb::Get | Verb::List));
        let lane = if reads { &self.reads } else { &self.writes };
        lane.seat(flow(user, target)).await
    }
}

impl Lane {
    fn workload_limit(&self) -> usize {
        (self.limit - self.limit / RESERVED).max(1)
    }

    fn flow_limit(&self) -> usize {
        self.workload_limit().div_ceil(2)
    }

    async fn seat(self: &Arc<Self>, flow: Flow) -> Result<Seat> {
        let waiting = {
            let mut state = self.state.lock();
            if self.fits(&state, &flow) {
                return Ok(self.take(&mut state, flow));
            }
            if state.waiting() >= QUEUE_MAX {
                state.sweep();
            }
            if state.waiting() >= QUEUE_MAX {
                return Err(self.refuse("queue-full"));
            }
            let (sender, receiver) = oneshot::channel();
            let queue = match &flow {
                Flow::Exempt | Flow::System => &mut state.system_waiting,
                Flow::Workload(name) => &mut state.flows.entry(Arc::clone(name)).or_default().waiting,
            };
            queue.retain(|sender| !sender.is_closed());
            if queue.len() >= FLOW_QUEUE_MAX && flow != Flow::System {
                return Err(self.refuse("queue-full"));
            }
            queue.push_back(sender);
            receiver
        };
        self.metrics.queued(self.kind, 1);
        let waited = tokio::time::timeout(WAIT_MAX, waiting).await;
        self.metrics.queued(self.kind, -1);
        match waited {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(self.refuse("time-out")),
        }
    }

    fn refuse(&self, reason: &'static str) -> Error {
        self.metrics.rejected(self.kind, reason);
        Error::too_many_requests("too many requests, please try again later", RETRY_AFTER_S)
    }

    /// Whether a request can be served at once. Who waits already goes first: those that could be served are not waiting.
    fn fits(&self, state: &State, flow: &Flow) -> bool {
        match flow {
            Flow::Exempt => true,
            Flow::System => state.running < self.limit,
            Flow::Workload(name) => {
                let own = state.flows.get(name).map_or(0, |held| held.running);
                state.running < self.limit && state.workload_running < self.workload_limit() && own < self.flow_limit()
            }
        }
    }

    fn take(self: &Arc<Self>, state: &mut State, flow: Flow) -> Seat {
        if flow != Flow::Exempt {
            state.running += 1;
        }
        if let Flow::Workload(name) = &flow {
            state.workload_running += 1;
            state.turn += 1;
            let turn = state.turn;
            let held = state.flows.entry(Arc::clone(name)).or_default();
            held.running += 1;
            held.served = turn;
        }
        self.metrics.running(self.kind, 1);
        Seat { lane: Arc::clone(self), flow }
    }

    fn give_back(self: &Arc<Self>, flow: &Flow) {
        self.metrics.running(self.kind, -1);
        let mut state = self.state.lock();
        if *flow != Flow::Exempt {
            state.running -= 1;
        }
        if let Flow::Workload(name) = flow {
            state.workload_running -= 1;
            if let Some(held) = state.flows.get_mut(name) {
                held.running -= 1;
            }
        }
        // Seats whose taker went away at the very moment come back, after the lock is let go.
        let mut returned = Vec::new();
        while let Some((flow, sender)) = self.next(&mut state) {
            let seat = self.take(&mut state, flow);
            returned.extend(sender.send(seat).err());
        }
        state.flows.retain(|_, held| held.running > 0 || !held.waiting.is_empty());
        drop(state);
        drop(returned);
    }

    /// Who is to have a seat that is free, if there are both.
    fn next(&self, state: &mut State) -> Option<(Flow, oneshot::Sender<Seat>)> {
        if state.running >= self.limit {
            return None;
        }
        while let Some(sender) = state.system_waiting.pop_front() {
            if !sender.is_closed() {
                return Some((Flow::System, sender));
            }
        }
        if state.workload_running >= self.workload_limit() {
            return None;
        }
        for held in state.flows.values_mut() {
            held.waiting.retain(|sender| !sender.is_closed());
        }
        let limit = self.flow_limit();
        let waiting = state.flows.iter().filter(|(_, held)| !held.waiting.is_empty() && held.running < limit);
        let (name, _) = waiting.min_by_key(|(_, held)| (held.running, held.served))?;
        let name = Arc::clone(name);
        let sender = state.flows.get_mut(&name)?.waiting.pop_front()?;
        Some((Flow::Workload(name), sender))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lane.give_back(&self.flow);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn fairness(reads: usize) -> Fairness {
        Fairness::new(RequestLimits { reads, writes: 1 }, &Arc::new(Metrics::new()))
    }

    fn user(name: &str) -> User {
        User::new(name, Vec::<String>::new())
    }

    async fn seat(fairness: &Fairness, user: &User) -> Result<Seat> {
        fairness.seat(user, Some(Verb::Get), None).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_user_leaves_seats_for_the_others() {
        let fairness = fairness(10);
        let (flood, other) = (user("flood"), user("other"));
        let mut held = Vec::new();
        // Eight seats are for workloads, half of them for one user.
        for _ in 0..4 {
            held.push(seat(&fairness, &flood).now_or_never().unwrap().unwrap());
        }
        let mut queue: Vec<_> = (0..FLOW_QUEUE_MAX).map(|_| Box::pin(seat(&fairness, &flood))).collect();
        for waiting in &mut queue {
            assert!(waiting.now_or_never().is_none());
        }
        let refused = seat(&fairness, &flood).now_or_never().unwrap();
        assert_eq!(refused.err().map(|error| (error.code(), error.retry_after_s())), Some((429, Some(RETRY_AFTER_S))));
        let theirs = seat(&fairness, &other).now_or_never();
        assert!(theirs.is_some_and(|seat| seat.is_ok()), "the other is served at once");
        assert!(seat(&fairness, &User::master("root")).now_or_never().is_some());
        assert!(seat(&fairness, &User::new("system:node:n", ["system:nodes"])).now_or_never().is_some());
        // What gets free goes to the one who waited first.
        held.pop();
        let served = (&mut queue[0]).now_or_never();
        assert!(served.is_some_and(|seat| seat.map(|seat| held.push(seat)).is_ok()));
        assert!((&mut queue[1]).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_seat_goes_to_the_flow_that_holds_the_fewest_and_to_the_system_before() {
        let fairness = fairness(5);
        let held: Vec<_> = ["a", "a", "b", "b"]
            .iter()
            .map(|name| seat(&fairness, &user(name)).now_or_never().unwrap().unwrap())
            .collect();
        let node = User::new("system:node:n", ["system:nodes"]);
        let reserved = seat(&fairness, &node).now_or_never().unwrap().unwrap();
        let (a, c) = (user("a"), user("c"));
        let mut again = Box::pin(seat(&fairness, &a));
        let mut third = Box::pin(seat(&fairness, &c));
        let mut system = Box::pin(seat(&fairness, &node));
        assert!((&mut again).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut system).now_or_never().is_none());
        let mut held = held.into_iter();
        drop(held.next());
        let system = (&mut system).now_or_never().unwrap().unwrap();
        assert!((&mut third).now_or_never().is_none());
        drop(held.next());
        let _third = (&mut third).now_or_never().expect("the one without a seat goes before the one with two");
        assert!((&mut again).now_or_never().is_none(), "one seat more than all");
        drop(system);
        assert!((&mut again).now_or_never().is_some());
        drop(reserved);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_to_come_again_and_who_leaves_takes_no_seat() {
        let fairness = fairness(1);
        let first = seat(&fairness, &user("a")).await.unwrap();
        assert_eq!(seat(&fairness, &user("b")).await.err().map(|error| error.code()), Some(429));
        let c = user("c");
        let mut leaves = Box::pin(seat(&fairness, &c));
        assert!((&mut leaves).now_or_never().is_none());
        drop(leaves);
        drop(first);
        assert!(seat(&fairness, &user("d")).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_the_limit_of_all_flows_together() {
        let fairness = fairness(1);
        let _first = seat(&fairness, &user("first")).await.unwrap();
        let users: Vec<User> = (0..QUEUE_MAX / FLOW_QUEUE_MAX).map(|i| user(&format!("u{i}"))).collect();
        let mut waiting = Vec::new();
        for user in &users {
            for _ in 0..FLOW_QUEUE_MAX {
                let mut one = Box::pin(seat(&fairness, user));
                assert!((&mut one).now_or_never().is_none());
                waiting.push(one);
            }
        }
        let late = user("late");
        assert_eq!(seat(&fairness, &late).now_or_never().unwrap().err().map(|error| error.code()), Some(429));
        waiting.pop();
        assert!(Box::pin(seat(&fairness, &late)).now_or_never().is_none(), "there is room for one again");
    }

    #[test]
    fn accounts_of_a_namespace_are_one_flow_and_the_systems_own_are_none() {
        let account = |namespace: &str, name: &str| flow(&User::service_account(namespace, name, ""), None);
        assert_eq!(account("acme", "a"), account("acme", "b"));
        assert_ne!(account("acme", "a"), account("umbrella", "a"));
        assert_eq!(account("kube-system", "a"), Flow::System);
        assert_eq!(flow(&User::master("x"), None), Flow::Exempt);
        let leases = Resource { group: "coordination.k8s.io".into(), resource: "leases".into(), ..Resource::default() };
        assert_eq!(flow(&user("system:skep:controllers"), Some(&leases)), Flow::System);
        assert_eq!(flow(&user("anna"), Some(&leases)), Flow::Workload("anna".into()));
        assert_eq!(flow(&User::service_account("acme", "a", ""), Some(&leases)), account("acme", "b"));
    }
}
