//! A store in an etcd cluster, for any number of servers.
//!
//! etcd orders commits and makes them durable; one watch on the prefix brings what all servers commit into the same core that
//! the embedded store has, and reads and watches are answered from there. Values are etcd's values, so `etcdctl get` shows them.
//!
//! Under the prefix lie, besides `data`: `clock`, which every commit writes as well, so that its revision is that of the last
//! commit (a read asks etcd for it, once for all that wait, and answers when the core is there: no stale read, and no use of
//! progress notifications, which etcd before 3.4.25 sends too early); `fence`, on whose revision every commit depends;
//! `compact`, by which the servers agree who compacts; `origin`, what is added to etcd's revisions.
//!
//! **A commit whose answer is lost** is neither reported as failed nor made twice: the fence is moved, after which the commit can
//! take place no more, and the clock's events up to there tell whether it has. Only if etcd does not answer in time at all, the
//! outcome is [`Error::Unknown`].
//!
//! Left out: etcd's users and passwords (client certificates are enough), leases.

mod client;
mod commit;
mod compact;
mod follow;
mod grpc;
mod options;
mod read;
mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use self::{client::Client, grpc::Fault};
use crate::{
    At, Commit, Error, Guard, Op, Page, Range, Result, Revision, Store, Watch,
    core::{Shared, hub, state::State},
};

pub use self::options::{Address, Invalid, Options, PREFIX, Tls};

/// Operations and conditions of one commit: etcd takes 128 (`--max-txn-ops`), of which the clock and the fence are one each.
pub const COMMIT_OPS_MAX: usize = 126;
/// How long a read waits for a revision that somebody has seen elsewhere.
const REACH: Duration = Duration::from_secs(3);
/// The layout of the keys: the beginning of the clock's value.
const LAYOUT: &str = "skep-1";

/// Where things lie in etcd.
struct Keys {
    data: Bytes,
    clock: Bytes,
    fence: Bytes,
    compact: Bytes,
    origin: Bytes,
    /// All of them, and nothing else.
    all: Range,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let key = |name: &str| Bytes::from(format!("{prefix}/{name}"));
        Self {
            data: key("data"),
            clock: key("clock"),
            fence: key("fence"),
            compact: key("compact"),
            origin: key("origin"),
            all: Range::prefix(format!("{prefix}/")),
        }
    }

    fn outer(&self, key: &[u8]) -> Bytes {
        let mut outer = BytesMut::with_capacity(self.data.len() + key.len());
        outer.extend_from_slice(&self.data);
        outer.extend_from_slice(key);
        outer.freeze()
    }

    fn inner(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.data).then(|| key.slice(self.data.len()..))
    }

    fn outer_range(&self, range: &Range) -> (Bytes, Bytes) {
        let end = match &range.end {
            Some(end) => self.outer(end),
            None => Range::prefix(self.data.clone()).end.unwrap_or_default(),
        };
        (self.outer(&range.start), end)
    }
}

/// Who waits for which revision to be visible.
#[derive(Default)]
struct Waiters(BTreeMap<Revision, Vec<oneshot::Sender<()>>>);

type Reader = oneshot::Sender<Result<Revision>>;

/// What the tasks of one store share.
struct Inner {
    client: Client,
    keys: Keys,
    prefix: String,
    shared: Arc<Shared>,
    patience: Duration,
    commit_timeout: Duration,
    /// Our revisions are etcd's and this.
    origin: AtomicU64,
    /// This process, in the clock's values.
    writer: u64,
    next_commit: AtomicU64,
    /// Commits under way, and the revision at which the watch has shown them.
    under_way: Mutex<HashMap<u64, Option<Revision>>>,
    commits: Semaphore,
    /// etcd's revision of the last change of the fence.
    fence: AtomicI64,
    /// How often the core began anew: what happened in between was not seen.
    resets: AtomicU64,
    waiters: Mutex<Waiters>,
    /// Reads that want to know the clock.
    readers: mpsc::UnboundedSender<Reader>,
}

impl Inner {
    /// One that has read nothing yet, and the queue of reads that want to know the clock.
    fn new(options: &Options) -> Result<(Self, mpsc::UnboundedReceiver<Reader>)> {
        let mut limits = options.limits.clone();
        limits.commit_ops = limits.commit_ops.min(COMMIT_OPS_MAX);
        let client = Client::new(options.address.endpoints.clone(), options.tls.as_ref(), options.request_timeout)?;
        let (readers, queue) = mpsc::unbounded_channel();
        let inner = Self {
            client,
            keys: Keys::new(&options.address.prefix),
            prefix: options.address.prefix.clone(),
            commits: Semaphore::new(limits.pending_commits.clamp(1, Semaphore::MAX_PERMITS)),
            shared: Shared::new(State::default(), limits),
            patience: options.patience,
            commit_timeout: options.commit_timeout,
            origin: AtomicU64::new(0),
            writer: rand::random(),
            next_commit: AtomicU64::new(1),
            under_way: Mutex::default(),
            fence: AtomicI64::new(0),
            resets: AtomicU64::new(0),
            waiters: Mutex::default(),
            readers,
        };
        Ok((inner, queue))
    }

    /// Our revision of etcd's.
    fn ours(&self, revision: i64) -> Revision {
        Revision(u64::try_from(revision).unwrap_or(0).saturating_add(self.origin.load(Ordering::Relaxed)))
    }

    /// etcd's revision of ours; none if it is from before this store.
    fn theirs(&self, revision: Revision) -> Option<i64> {
        i64::try_from(revision.0.checked_sub(self.origin.load(Ordering::Relaxed))?).ok()
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().revision
    }

    /// Returns when `revision` is visible.
    async fn visible(&self, revision: Revision) {
        let waiting = {
            // Held while looking: who publishes takes it afterwards.
            let mut waiters = self.waiters.lock();
            if self.revision() >= revision {
                return;
            }
            let (done, waiting) = oneshot::channel();
            waiters.0.entry(revision).or_default().push(done);
            waiting
        };
        // The sender goes with the store only.
        let _ = waiting.await;
    }

    /// Wakes who waits for what is visible now.
    fn wake(&self) {
        let now = self.revision();
        let ready = {
            let mut waiters = self.waiters.lock();
            let later = waiters.0.split_off(&Revision(now.0.saturating_add(1)));
            std::mem::replace(&mut waiters.0, later)
        };
        for done in ready.into_values().flatten() {
            // Who has gone needs no answer.
            let _ = done.send(());
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }
}

/// What a fault means for who asked, when nothing was changed.
fn error_of(fault: &Fault) -> Error {
    if fault.is_passing() {
        Error::Unavailable { why: fault.to_string() }
    } else {
        Error::Refused { message: fault.to_string() }
    }
}

/// A store over etcd. Dropping it ends its watches.
pub struct Etcd {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl Etcd {
    /// Connects, makes the store if there is none under the prefix, and reads it.
    pub async fn open(options: Options) -> Result<Self> {
        let (inner, queue) = Inner::new(&options)?;
        let inner = Arc::new(inner);
        let clock = inner.begin(options.above).await?;
        inner.load(true).await?;
        let mut tasks = vec![
            tokio::spawn(follow::follow(Arc::clone(&inner))),
            tokio::spawn(read::answer(Arc::clone(&inner), queue)),
        ];
        if let Some(interval) = options.compact_interval {
            tasks.push(tokio::spawn(compact::regularly(Arc::clone(&inner), interval)));
        }
        let store = Self { inner, tasks };
        let inner = &store.inner;
        match tokio::time::timeout(inner.patience, inner.visible(clock)).await {
            Ok(()) => Ok(store),
            Err(_) => Err(Error::Unavailable { why: "the watch does not come to the last commit".to_owned() }),
        }
    }

    /// What the members say of themselves: endpoint, and version with size or what is wrong. And the cluster's alarms.
    pub async fn members(&self) -> (Vec<(String, Result<Member>)>, Result<Vec<String>>) {
        let status = self.inner.client.status().await.into_iter().map(|(endpoint, status)| {
            let member = status.map_err(|fault| error_of(&fault)).map(|status| Member {
                version: status.version,
                size_bytes: u64::try_from(status.db_size).unwrap_or(0),
                leads: status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader),
                has_leader: status.leader != 0,
                errors: status.errors,
            });
            (endpoint, member)
        });
        let alarms = self.inner.client.alarms().await.map_err(|fault| error_of(&fault)).map(|answer| {
            let text = |alarm: wire::AlarmMember| match wire::AlarmType::try_from(alarm.alarm) {
                Ok(wire::AlarmType::NoSpace) => format!("member {:x} has no space left (NOSPACE)", alarm.member_id),
                Ok(wire::AlarmType::Corrupt) => format!("member {:x} is corrupt (CORRUPT)", alarm.member_id),
                _ => format!("member {:x} has alarm {}", alarm.member_id, alarm.alarm),
            };
            answer.alarms.into_iter().map(text).collect()
        });
        (status.collect(), alarms)
    }

    /// Removes everything under the prefix, the store itself included; for a store that is to be made anew.
    pub async fn erase(options: &Options) -> Result<()> {
        let client = Client::new(options.address.endpoints.clone(), options.tls.as_ref(), options.request_timeout)?;
        let all = Keys::new(&options.address.prefix).all;
        let request = wire::DeleteRequest { key: all.start, range_end: all.end.unwrap_or_default() };
        let until = Instant::now() + options.patience;
        let answer: Result<wire::DeleteResponse, _> = client.repeat(client::DELETE, &request, until).await;
        answer.map(drop).map_err(|fault| error_of(&fault))
    }

    /// Whether there is a store under the prefix.
    pub async fn exists(options: &Options) -> Result<bool> {
        let client = Client::new(options.address.endpoints.clone(), options.tls.as_ref(), options.request_timeout)?;
        let all = Keys::new(&options.address.prefix).all;
        let request = wire::RangeRequest {
            key: all.start,
            range_end: all.end.unwrap_or_default(),
            count_only: true,
            ..wire::RangeRequest::default()
        };
        let until = Instant::now() + options.patience;
        let answer: Result<wire::RangeResponse, _> = client.repeat(client::RANGE, &request, until).await;
        answer.map(|answer| answer.count > 0).map_err(|fault| error_of(&fault))
    }
}

/// One member of the cluster, as it says.
#[derive(Clone, Debug)]
pub struct Member {
    pub version: String,
    pub size_bytes: u64,
    pub leads: bool,
    pub has_leader: bool,
    pub errors: Vec<String>,
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, range: Range, at: At, limit: usize) -> Result<Page> {
        self.inner.range(range, at, limit).await
    }

    async fn commit(&self, guard: Guard, ops: Vec<Op>) -> Result<Commit> {
        self.inner.shared.limits.check(&guard, &ops)?;
        self.inner.commit(guard, ops).await
    }

    fn watch(&self, range: Range, after: Revision) -> Result<Watch> {
        hub::open(&self.inner.shared, range, after).map(Watch::new)
    }

    async fn compact(&self, below: Revision) -> Result<()> {
        self.inner.compact(below).await
    }

    async fn reach(&self, revision: Revision) -> Result<()> {
        self.inner.reach(revision).await
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn compacted(&self) -> Revision {
        self.inner.shared.state.read().compacted
    }

    fn size_bytes(&self) -> u64 {
        self.inner.shared.state.read().size_bytes
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.inner.shared.close();
    }
}
