//! An OpenStack-compatible cloud in memory: Keystone, Glance, Nova, Neutron, Octavia and Cinder under one address.
//!
//! What users of those services rely on is real: scopes, quotas, address allocation, conflicts, states that take time,
//! faults, microversions, paging. What is behind them is not: nothing boots and no packet moves (hollow machines give
//! servers a life of their own). All state is in a [`store`], written before an answer leaves, so it survives a restart.
//!
//! Left out: images' bytes, snapshots, volumes' data, L7 policies, QoS, trunk sub-ports, revoking tokens, federation.

mod address;
mod block_storage;
mod compute;
mod fault;
mod generic;
mod http;
mod identity;
mod image;
mod injection;
mod kind;
mod load_balancer;
mod network;
mod options;
mod serve;
mod setup;
mod state;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use store::{At, Guard, Op, Range, SharedStore};
use tokio::sync::{Notify, mpsc, watch};

pub use self::{
    compute::{MICROVERSION_MAX, PUBLIC_KEY_LIMIT},
    generic::{LIST_LIMIT, TAGS_LIMIT, TEXT_LIMIT},
    injection::{
        BuildRule, Built, CallRule, DELAY_LIMIT_MS, Effect, End, FAULTS_LIMIT_BYTES, Faults, LifeRule, RULE_TEXT_LIMIT,
        RULES_LIMIT, When, ZoneRule,
    },
    options::{FlavorSpec, ImageSpec, Login, Options},
    serve::{BODY_LIMIT_BYTES, UPLOAD_LIMIT_BYTES},
};
use self::{
    http::Service,
    identity::Signer,
    kind::Kind,
    state::State,
    table::{Row, text},
};

/// The longest console that is kept of a server, in bytes; the end of it.
pub const CONSOLE_LIMIT_BYTES: usize = 64 * 1024;
/// Operations that are written in one commit.
const COMMIT_OPS: usize = 256;
/// Rows that are read at once when the cloud is opened.
const LOAD_PAGE: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the cloud's state out of the store")]
    Load(#[source] store::Error),
    #[error("cannot write the cloud's state to the store")]
    Save(#[source] store::Error),
    #[error("the cloud's state has an unreadable row at {key}: {what}")]
    Row { key: String, what: String },
    #[error("the cloud's options are wrong: {0}")]
    Options(String),
}

/// A handle of the cloud. Clones are the same cloud; it ends with the last one.
#[derive(Clone)]
pub struct Cloud(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    signer: Signer,
    options: Arc<Options>,
    /// Not bounded: each request waits for its own write, so it holds no more than there are requests.
    writes: mpsc::UnboundedSender<(u64, Vec<Op>)>,
    /// The last version that is written, or why nothing can be written any more.
    durable: watch::Receiver<Result<u64, String>>,
    changed: watch::Sender<u64>,
    timer: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.timer.notify_one();
    }
}

impl Cloud {
    /// Opens the cloud that a store holds, or sets up a new one in it: projects, users, flavors, images, the external
    /// network. Must be called inside a tokio runtime.
    pub async fn open(store: SharedStore, options: Options) -> Result<Self, Error> {
        options.check().map_err(Error::Options)?;
        let options = Arc::new(options);
        let mut state = State::new(options.clone());
        let found = load(&store, &mut state).await?;
        let secret = match found {
            Some(secret) => secret,
            None => {
                let secret: [u8; 32] = rand::random();
                let op = Op::Put { key: Bytes::from_static(SECRET_KEY), value: Bytes::copy_from_slice(&secret) };
                store.commit(Guard::default(), vec![op]).await.map_err(Error::Save)?;
                secret.to_vec()
            }
        };
        state.reseed();
        let signer = Signer::new(&secret);
        setup::fill(&mut state, &signer);
        setup::resume(&mut state);
        let (writes, queue) = mpsc::unbounded_channel();
        let (durable_sender, durable) = watch::channel(Ok(0));
        let changed = watch::Sender::new(0);
        let timer = Arc::new(Notify::new());
        tokio::spawn(write(store, queue, durable_sender));
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            signer,
            options,
            writes,
            durable,
            changed,
            timer: timer.clone(),
        });
        tokio::spawn(serve::run_timers(Arc::downgrade(&shared), timer));
        let cloud = Self(shared);
        let version = cloud.change(|_| ()).1;
        cloud.settled(version).await.map_err(|what| Error::Row { key: "(set-up)".to_owned(), what })?;
        Ok(cloud)
    }

    /// The APIs, each below its prefix (`/identity`, `/compute`, ...).
    pub fn router(&self) -> axum::Router {
        serve::router(self.clone())
    }

    /// A clouds.yaml with the tenant's credentials as `name` and the administrator's as `<name>-admin`.
    pub fn clouds_yaml(&self, name: &str) -> String {
        self.0.options.clouds_yaml(name)
    }

    /// A number that grows with each change of the cloud's state.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The id of the external network.
    pub fn external_network(&self) -> String {
        setup::external_network_id()
    }

    /// Sets what a server has written to its console, as `GET console output` and `openstack console log show` give it.
    pub fn set_console(&self, server: &str, output: &str) {
        let mut start = output.len().saturating_sub(CONSOLE_LIMIT_BYTES);
        while !output.is_char_boundary(start) {
            start += 1;
        }
        let tail = output.get(start..).unwrap_or_default();
        self.change(|state| state.set(Kind::Server, server, json!({ "~console": tail })));
    }

    /// What goes wrong from now on, in place of what went wrong before; refused with what is wrong about it. Servers that
    /// run in a zone that is down end as the rule says, and what took long goes on at the pace of the new rules.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        faults.check()?;
        let options = self.0.options.clone();
        if let Some(rule) = faults.zones_down.iter().find(|rule| !options.zone_names().contains(&rule.name)) {
            return Err(format!("there is no zone {:?}; there are {}", rule.name, options.zone_names().join(", ")));
        }
        self.change(|state| {
            let slow = state.injection.faults().builds.iter().any(|rule| rule.slow_ms > 0);
            let down = faults.zones_down.clone();
            state.injection.set(faults);
            if slow {
                setup::begin_again(state, &options);
            }
            for rule in down {
                let Some(end) = rule.running else { continue };
                let runs = |row: &&Arc<Row>| {
                    text(row, "OS-EXT-AZ:availability_zone") == rule.name && text(row, "status") == "ACTIVE"
                };
                let ids: Vec<String> =
                    state.table(Kind::Server).all().filter(runs).map(|row| text(row, "id").to_owned()).collect();
                ids.iter().for_each(|id| compute::servers::end(state, id, end));
            }
        });
        Ok(())
    }

    pub fn faults(&self) -> Faults {
        self.0.state.lock().injection.faults().clone()
    }

    /// How often each rule of `calls`, `builds` and `lives` has struck since it was set.
    pub fn struck(&self) -> [Vec<u32>; 3] {
        let state = self.0.state.lock();
        ["calls", "builds", "lives"].map(|list| state.injection.struck(list))
    }

    /// Ends a server that runs, as a host does that is lost; whether there is one of that id.
    pub fn end_server(&self, id: &str, how: End) -> bool {
        self.change(|state| {
            let runs = state.get(Kind::Server, id).is_some();
            if runs {
                compute::servers::end(state, id, how);
            }
            runs
        })
        .0
    }

    /// Runs a change under the lock, hands it to the writer, and says which version it is.
    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> (T, u64) {
        let mut state = self.0.state.lock();
        let before = (state.version, state.next_due());
        let out = act(&mut state);
        let ops = state.settle();
        let version = state.version;
        if !ops.is_empty() {
            // The queue keeps the lock's order; it is closed only when the writer is gone, which `settled` tells.
            let _ = self.0.writes.send((version, ops));
        }
        if state.next_due() != before.1 {
            self.0.timer.notify_one();
        }
        drop(state);
        if version != before.0 {
            self.0.changed.send_replace(version);
        }
        (out, version)
    }

    /// Returns when everything up to a version is durable.
    async fn settled(&self, version: u64) -> Result<(), String> {
        let mut durable = self.0.durable.clone();
        let done = durable.wait_for(|d| d.as_ref().map_or(true, |v| *v >= version)).await;
        match done.as_deref() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(what)) => Err(what.clone()),
            Err(_) => Err("the cloud's writer has ended".to_owned()),
        }
    }
}

const SECRET_KEY: &[u8] = b"secret";

/// Reads all rows; the signing secret if there is one.
async fn load(store: &SharedStore, state: &mut State) -> Result<Option<Vec<u8>>, Error> {
    let mut range = Range::prefix(Bytes::new());
    let mut at = At::Latest;
    let mut secret = None;
    loop {
        let page = store.range(range.clone(), at, LOAD_PAGE).await.map_err(Error::Load)?;
        at = At::Exact(page.revision);
        for item in &page.items {
            if item.key == SECRET_KEY {
                secret = Some(item.value.to_vec());
                continue;
            }
            let key = String::from_utf8_lossy(&item.key).into_owned();
            let kind = key.split('/').next().and_then(|table| Kind::ALL.into_iter().find(|k| k.meta().key == table));
            let row: Result<Row, _> = serde_json::from_slice(&item.value);
            match (kind, row) {
                (Some(kind), Ok(row)) => state.load(kind, row),
                (None, _) => return Err(Error::Row { key, what: "no such table".to_owned() }),
                (_, Err(e)) => return Err(Error::Row { key, what: e.to_string() }),
            }
        }
        match page.items.last() {
            Some(last) if page.remaining > 0 => {
                let mut next = last.key.to_vec();
                next.push(0);
                range.start = next.into();
            }
            _ => return Ok(secret),
        }
    }
}

/// Writes changes in their order, several in one commit where they have piled up.
async fn write(
    store: SharedStore,
    mut queue: mpsc::UnboundedReceiver<(u64, Vec<Op>)>,
    durable: watch::Sender<Result<u64, String>>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, COMMIT_OPS).await > 0 {
        let mut last = 0;
        let mut ops: std::collections::BTreeMap<Bytes, Op> = std::collections::BTreeMap::new();
        for (version, changes) in batch.drain(..) {
            last = version;
            for op in changes {
                let key = match &op {
                    Op::Put { key, .. } | Op::Delete { key } => key.clone(),
                };
                ops.insert(key, op);
            }
        }
        let ops: Vec<Op> = ops.into_values().collect();
        for chunk in ops.chunks(COMMIT_OPS) {
            if let Err(error) = store.commit(Guard::default(), chunk.to_vec()).await {
                tracing::error!(%error, "the sandbox cloud cannot write its state; it answers 503 from now on");
                drop(durable.send_replace(Err(error.to_string())));
                return;
            }
        }
        drop(durable.send_replace(Ok(last)));
    }
}

/// Sets limits of a project: numbers by resource, -1 for none.
fn set_quota(state: &mut State, service: Service, project: &str, body: &Map<String, Value>) -> fault::Result<()> {
    let id = format!("{}/{project}", service.key());
    let mut row = state.get(Kind::Quota, &id).map(|r| Row::clone(&r)).unwrap_or_default();
    row.insert("id".into(), json!(id));
    for (name, value) in body {
        if matches!(name.as_str(), "force" | "tenant_id" | "project_id") {
            continue;
        }
        let limit = value.as_i64().or_else(|| value.as_str()?.parse().ok()).filter(|n| *n >= -1);
        let limit = limit.ok_or_else(|| fault::Fault::bad(format!("Invalid limit for {name}: {value}")))?;
        if name.len() > TEXT_LIMIT || body.len() > LIST_LIMIT {
            return Err(fault::Fault::bad("Too many or too long names of resources"));
        }
        row.insert(name.clone(), json!(limit));
    }
    debug_assert!(!text(&row, "id").is_empty(), "a row has an id");
    state.put(Kind::Quota, row);
    Ok(())
}
