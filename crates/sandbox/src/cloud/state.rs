//! Everything the cloud knows, and the changes that are not written yet.
//!
//! A request runs to its end under one lock: it changes rows, and either all its changes stay or, if it fails, none.
//! Who changes a row need not think of the store: [`State::put`] and [`State::remove`] note what is to be written.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use store::Op;
use tokio::time::Instant;

use super::{
    Options,
    fault::{Fault, Result},
    injection::Injection,
    kind::Kind,
    table::{Row, SEQUENCE, Table, number, text},
};

/// Servers that are gone and are still told of in `changes-since`.
const TOMBSTONES_LIMIT: usize = 1000;

/// Sums over a project's servers that its quota limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    pub cores: i64,
    pub ram_mib: i64,
}

pub struct State {
    pub options: Arc<Options>,
    tables: HashMap<Kind, Table>,
    rng: StdRng,
    next_sequence: u64,
    /// What is to be moved on, and when.
    due: BTreeSet<(Instant, Kind, String)>,
    /// Addresses in use: network, address -> port.
    addresses: HashMap<String, BTreeMap<u128, String>>,
    /// Where the search for a free address of a subnet goes on.
    cursors: HashMap<String, u128>,
    used: HashMap<String, Use>,
    gigabytes: HashMap<String, i64>,
    tombstones: VecDeque<Arc<Row>>,
    undo: Vec<(Kind, String, Option<Arc<Row>>)>,
    ops: Vec<Op>,
    /// Bumped by each request or timer that changes something.
    pub version: u64,
    pub injection: Injection,
}

impl State {
    pub fn new(options: Arc<Options>) -> Self {
        let seed = options.seed.unwrap_or_else(rand::random);
        let rng = match options.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_os_rng(),
        };
        Self {
            options,
            tables: Kind::ALL.into_iter().map(|k| (k, Table::new(k.meta().indexed))).collect(),
            rng,
            next_sequence: 1,
            due: BTreeSet::new(),
            addresses: HashMap::new(),
            cursors: HashMap::new(),
            used: HashMap::new(),
            gigabytes: HashMap::new(),
            tombstones: VecDeque::new(),
            undo: Vec::new(),
            ops: Vec::new(),
            version: 0,
            injection: Injection::new(seed),
        }
    }

    /// Takes a row that the store held. Rows are loaded before anything else happens.
    pub fn load(&mut self, kind: Kind, row: Row) {
        let sequence = row.get(SEQUENCE).and_then(Value::as_u64).unwrap_or_default();
        self.next_sequence = self.next_sequence.max(sequence + 1);
        self.account(kind, &row, true);
        self.table_mut(kind).put(row);
    }

    /// Makes ids after a restart different from those before it, also with a seed.
    pub fn reseed(&mut self) {
        if let Some(seed) = self.options.seed {
            self.rng = StdRng::seed_from_u64(seed ^ self.next_sequence.rotate_left(32));
        }
    }

    pub fn table(&self, kind: Kind) -> &Table {
        self.tables.get(&kind).expect("every kind has a table since `new`")
    }

    fn table_mut(&mut self, kind: Kind) -> &mut Table {
        self.tables.get_mut(&kind).expect("every kind has a table since `new`")
    }

    pub fn get(&self, kind: Kind, id: &str) -> Option<Arc<Row>> {
        self.table(kind).get(id).cloned()
    }

    /// Writes a row that has an `id`; gives it its place in the order if it is new.
    pub fn put(&mut self, kind: Kind, mut row: Row) {
        if !row.contains_key(SEQUENCE) {
            row.insert(SEQUENCE.into(), json!(self.next_sequence));
            self.next_sequence += 1;
        }
        let id = text(&row, "id").to_owned();
        self.ops.push(Op::Put { key: key(kind, &id), value: Value::Object(row.clone()).to_string().into() });
        self.account(kind, &row, true);
        let old = self.table_mut(kind).put(row);
        if let Some(old) = &old {
            self.account(kind, old, false);
            // Both rows may hold the same addresses: what was just taken away is put back.
            if kind == Kind::Port
                && let Some(new) = self.get(kind, &id)
            {
                self.take_addresses(&new);
            }
        }
        self.undo.push((kind, id, old));
    }

    /// Changes fields of a row that exists.
    pub fn set(&mut self, kind: Kind, id: &str, fields: Value) {
        let Some(row) = self.get(kind, id) else { return };
        let mut row = Row::clone(&row);
        if let Value::Object(fields) = fields {
            row.extend(fields);
        }
        self.put(kind, row);
    }

    pub fn remove(&mut self, kind: Kind, id: &str) {
        let Some(old) = self.table_mut(kind).remove(id) else { return };
        self.account(kind, &old, false);
        if kind == Kind::Server {
            self.tombstones.push_back(old.clone());
            if self.tombstones.len() > TOMBSTONES_LIMIT {
                self.tombstones.pop_front();
            }
        }
        self.ops.push(Op::Delete { key: key(kind, id) });
        self.undo.push((kind, id.to_owned(), Some(old)));
    }

    pub fn tombstones(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.tombstones.iter()
    }

    /// Takes back everything since the last [`State::settle`].
    pub fn roll_back(&mut self) {
        self.ops.clear();
        while let Some((kind, id, old)) = self.undo.pop() {
            if let Some(now) = self.table_mut(kind).remove(&id) {
                self.account(kind, &now, false);
            }
            if let Some(old) = old {
                self.account(kind, &old, true);
                self.table_mut(kind).put(Row::clone(&old));
            }
        }
    }

    /// Keeps everything since the last call; what is to be written.
    pub fn settle(&mut self) -> Vec<Op> {
        self.undo.clear();
        if !self.ops.is_empty() {
            self.version += 1;
        }
        let mut last: BTreeMap<Bytes, Op> = BTreeMap::new();
        for op in self.ops.drain(..) {
            let key = match &op {
                Op::Put { key, .. } | Op::Delete { key } => key.clone(),
            };
            last.insert(key, op);
        }
        last.into_values().collect()
    }

    fn account(&mut self, kind: Kind, row: &Row, add: bool) {
        let sign = if add { 1 } else { -1 };
        match kind {
            Kind::Server => {
                // Projects and hosts share the map: a host's name has a slash, a project's id does not.
                for holder in [text(row, "project_id"), text(row, "~host")] {
                    let used = self.used.entry(holder.to_owned()).or_default();
                    used.cores += sign * number(row, "~vcpus");
                    used.ram_mib += sign * number(row, "~ram");
                }
            }
            Kind::Volume => {
                *self.gigabytes.entry(text(row, "project_id").to_owned()).or_default() += sign * number(row, "size");
            }
            Kind::Port if add => self.take_addresses(row),
            Kind::Port => {
                let id = text(row, "id");
                for (network, address) in addresses(row) {
                    if let Some(used) = self.addresses.get_mut(&network)
                        && used.get(&address).is_some_and(|holder| holder == id)
                    {
                        used.remove(&address);
                    }
                }
            }
            _ => {}
        }
    }

    fn take_addresses(&mut self, port: &Row) {
        for (network, address) in addresses(port) {
            self.addresses.entry(network).or_default().insert(address, text(port, "id").to_owned());
        }
    }

    /// The port that holds an address of a network.
    pub fn holder(&self, network: &str, address: u128) -> Option<&str> {
        self.addresses.get(network)?.get(&address).map(String::as_str)
    }

    pub fn cursor(&mut self, subnet: &str) -> &mut u128 {
        self.cursors.entry(subnet.to_owned()).or_default()
    }

    pub fn used(&self, project: &str) -> Use {
        self.used.get(project).copied().unwrap_or_default()
    }

    pub fn gigabytes(&self, project: &str) -> i64 {
        self.gigabytes.get(project).copied().unwrap_or_default()
    }

    /// A UUID with hyphens.
    pub fn uuid(&mut self) -> String {
        let bytes: [u8; 16] = self.rng.random();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    pub fn random(&mut self) -> u64 {
        self.rng.random()
    }

    /// Has `id` moved on after `delay` of the clock that may be paused.
    pub fn schedule(&mut self, kind: Kind, id: &str, delay: Duration) {
        self.due.insert((Instant::now() + delay, kind, id.to_owned()));
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// The next object whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Kind, String)> {
        if self.next_due()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, kind, id)| (kind, id))
    }

    /// A project's limit for a resource; -1 is none.
    pub fn quota(&self, service: &str, project: &str, resource: &str) -> i64 {
        if let Some(limit) = self.injection.quota(resource) {
            return limit;
        }
        let changed = self.get(Kind::Quota, &format!("{service}/{project}"));
        changed
            .and_then(|row| row.get(resource)?.as_i64())
            .or_else(|| self.options.quotas.get(resource).copied())
            .unwrap_or(-1)
    }

    /// Refuses one more object of a kind if the project has as many as it may.
    pub fn check_quota(&self, kind: Kind, project: &str) -> Result<()> {
        let meta = kind.meta();
        if meta.quota.is_empty() || project.is_empty() {
            return Ok(());
        }
        let limit = self.quota(meta.service.key(), project, meta.quota);
        let count = self.table(kind).count("project_id", project);
        if limit < 0 || (count as i64) < limit {
            return Ok(());
        }
        Err(quota_fault(kind, count as i64, limit))
    }
}

/// The services' own ways to say that a quota is used up.
fn quota_fault(kind: Kind, count: i64, limit: i64) -> Fault {
    use super::http::Service::{BlockStorage, Compute, LoadBalancer, Network};
    let meta = kind.meta();
    let quota = meta.quota;
    match meta.service {
        Network => Fault::conflict("OverQuota", format!("Quota exceeded for resources: ['{quota}'].")),
        LoadBalancer => Fault::forbidden(format!("Quota has been met for resources: {}", meta.label)),
        Compute => Fault::forbidden(format!(
            "Quota exceeded for {quota}: Requested 1, but already used {count} of {limit} {quota}"
        )),
        BlockStorage => Fault::new(
            http::StatusCode::PAYLOAD_TOO_LARGE,
            "OverLimit",
            format!("VolumeLimitExceeded: Maximum number of volumes allowed ({limit}) exceeded for quota '{quota}'."),
        ),
        _ => Fault::forbidden(format!("Quota exceeded for {quota}: {limit}")),
    }
}

pub fn key(kind: Kind, id: &str) -> Bytes {
    format!("{}/{id}", kind.meta().key).into()
}

fn addresses(port: &Row) -> Vec<(String, u128)> {
    let network = text(port, "network_id");
    super::table::values(port, "fixed_ips[].ip_address")
        .iter()
        .filter_map(|a| a.parse().ok())
        .map(|a: std::net::IpAddr| (network.to_owned(), super::address::bits(a)))
        .collect()
}
