//! What the server counts and measures, under the names that dashboards for kube-apiserver ask for.
//!
//! Label values come from kinds that are served and from fixed lists, never from what a caller writes, so that their number is
//! bounded. Left out: what upstream marks as alpha and no dashboard of the field reads.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::RwLock;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

mod process;
mod storage;

pub(crate) use storage::Metered;

use crate::{kinds::Kind, path::Verb, server::Server, status::Result};

type Text = Cow<'static, str>;
type Labels<const N: usize> = [(&'static str, Text); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, Buckets>;
type Fractions = Gauge<f64, AtomicU64>;

/// Seconds that requests and calls to the store take.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Bytes of answers: 1 KB to 1 GB.
const ANSWER_BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Bytes of an event.
const EVENT_BYTES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
/// Seconds that admission takes.
const ADMISSION_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// Where a histogram's buckets end.
#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// What a request was, as labels say it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `GET`, `LIST`, `WATCH`, `POST`, `APPLY`, ...
    pub verb: &'static str,
    pub dry_run: bool,
    pub group: Text,
    pub version: Text,
    pub resource: Text,
    pub subresource: &'static str,
    /// `resource`, `namespace`, `cluster`, or nothing.
    pub scope: &'static str,
}

impl Request {
    pub(crate) fn of(kind: &Kind, verb: Verb, subresource: &str, place: (&str, &str), dry_run: bool) -> Self {
        let (namespace, name) = place;
        let scope = match (name, namespace) {
            ("", "") => "cluster",
            ("", _) if verb != Verb::Create => "namespace",
            _ => "resource",
        };
        let verb = match (verb, subresource) {
            (_, "portforward" | "exec" | "attach" | "proxy") => "CONNECT",
            (Verb::Get, _) => "GET",
            (Verb::List, _) => "LIST",
            (Verb::Watch, _) => "WATCH",
            (Verb::Create, _) => "POST",
            (Verb::Update, _) => "PUT",
            (Verb::Patch, _) => "PATCH",
            (Verb::Delete, _) => "DELETE",
            (Verb::DeleteCollection, _) => "DELETECOLLECTION",
        };
        const SUBRESOURCES: [&str; 11] = [
            "status",
            "scale",
            "token",
            "binding",
            "eviction",
            "approval",
            "finalize",
            "log",
            "exec",
            "portforward",
            "",
        ];
        let subresource = SUBRESOURCES.into_iter().find(|known| *known == subresource).unwrap_or("other");
        Self {
            verb,
            dry_run,
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: kind.plural.clone(),
            subresource,
            scope,
        }
    }

    /// For what is no resource: health, discovery, documents.
    pub(crate) fn of_path(method: &http::Method, first: &str) -> Self {
        const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
        const PATHS: [&str; 9] =
            ["/api", "/apis", "/healthz", "/livez", "/readyz", "/metrics", "/openapi", "/version", "/.well-known"];
        let verb = METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
        let path = PATHS.into_iter().find(|known| known.get(1..) == Some(first)).unwrap_or_default();
        Self {
            verb,
            dry_run: false,
            group: Text::Borrowed(""),
            version: Text::Borrowed(""),
            resource: Text::Borrowed(""),
            subresource: path,
            scope: "",
        }
    }

    fn labels(&self) -> Labels<8> {
        [
            ("component", Text::Borrowed("apiserver")),
            ("dry_run", Text::Borrowed(if self.dry_run { "All" } else { "" })),
            ("group", self.group.clone()),
            ("resource", self.resource.clone()),
            ("scope", Text::Borrowed(self.scope)),
            ("subresource", Text::Borrowed(self.subresource)),
            ("verb", Text::Borrowed(self.verb)),
            ("version", self.version.clone()),
        ]
    }

    fn coded(&self, code: u16) -> Labels<9> {
        let [a, b, c, d, e, f, g, h] = self.labels();
        [("code", code_text(code)), a, b, c, d, e, f, g, h]
    }

    fn long_running(&self) -> Labels<7> {
        let [component, _, group, resource, scope, subresource, verb, version] = self.labels();
        [component, group, resource, scope, subresource, verb, version]
    }
}

fn code_text(code: u16) -> Text {
    match code {
        200 => Text::Borrowed("200"),
        201 => Text::Borrowed("201"),
        _ => Text::Owned(code.to_string()),
    }
}

/// All of them, of one server.
pub(crate) struct Metrics {
    registry: RwLock<Registry>,
    requests: Counters<9>,
    durations: Histograms<8>,
    answer_bytes: Histograms<7>,
    in_flight: Gauges<1>,
    in_queue: Gauges<1>,
    rejected: Counters<2>,
    long_running: Gauges<7>,
    watch_events: Counters<3>,
    watch_event_bytes: Histograms<3>,
    store_calls: Histograms<3>,
    store_errors: Counters<3>,
    /// By prefix of keys, so that a call looks no labels up.
    stores: RwLock<HashMap<Box<str>, Arc<storage::Calls>>>,
    objects: Gauges<1>,
    objects_by_group: Gauges<2>,
    store_bytes: Gauge,
    admission_steps: Histograms<3>,
    audit_events: Counter,
    audit_errors: Counters<1>,
    audit_levels: Counters<1>,
    authentications: Counters<1>,
    tls_errors: Counter,
    process: process::Gauges,
}

fn histograms<const N: usize>(buckets: &'static [f64]) -> Histograms<N> {
    Family::new_with_constructor(Buckets(buckets))
}

/// One label from a fixed list.
fn one(name: &'static str, value: &'static str) -> Labels<1> {
    [(name, Text::Borrowed(value))]
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: RwLock::default(),
            requests: Family::default(),
            durations: histograms(SECONDS),
            answer_bytes: histograms(ANSWER_BYTES),
            in_flight: Family::default(),
            in_queue: Family::default(),
            rejected: Family::default(),
            long_running: Family::default(),
            watch_events: Family::default(),
            watch_event_bytes: histograms(EVENT_BYTES),
            store_calls: histograms(SECONDS),
            store_errors: Family::default(),
            stores: RwLock::default(),
            objects: Family::default(),
            objects_by_group: Family::default(),
            store_bytes: Gauge::default(),
            admission_steps: histograms(ADMISSION_SECONDS),
            audit_events: Counter::default(),
            audit_errors: Family::default(),
            audit_levels: Family::default(),
            authentications: Family::default(),
            tls_errors: Counter::default(),
            process: process::Gauges::default(),
        };
        for kind in ["readOnly", "mutating"] {
            drop(metrics.in_flight.get_or_create(&one("request_kind", kind)));
        }
        metrics.register();
        metrics
    }

    /// Counters are named without `_total`, which is added when they are written out.
    fn register(&self) {
        let mut registry = self.registry.write();
        let r = &mut *registry;
        r.register("apiserver_request", "Requests answered, by what they were and the code", self.requests.clone());
        r.register("apiserver_request_duration_seconds", "Seconds to the answer", self.durations.clone());
        r.register("apiserver_response_sizes", "Bytes of answers", self.answer_bytes.clone());
        r.register("apiserver_current_inflight_requests", "Requests being served, by kind", self.in_flight.clone());
        r.register("apiserver_current_inqueue_requests", "Requests that wait their turn", self.in_queue.clone());
        let help = "Requests refused because too many were there";
        r.register("apiserver_flowcontrol_rejected_requests", help, self.rejected.clone());
        r.register("apiserver_longrunning_requests", "Watches and streams that are open", self.long_running.clone());
        r.register("apiserver_watch_events", "Events sent to watches", self.watch_events.clone());
        r.register("apiserver_watch_events_sizes", "Bytes of events", self.watch_event_bytes.clone());
        r.register("etcd_request_duration_seconds", "Seconds of calls to the store", self.store_calls.clone());
        r.register("etcd_request_errors", "Calls to the store that failed", self.store_errors.clone());
        r.register("apiserver_storage_objects", "Objects that are stored, by resource", self.objects.clone());
        r.register("apiserver_resource_objects", "Objects that are stored, by kind", self.objects_by_group.clone());
        r.register("apiserver_storage_size_bytes", "Bytes that the store holds", self.store_bytes.clone());
        let help = "Seconds of a step of admission";
        r.register("apiserver_admission_step_admission_duration_seconds", help, self.admission_steps.clone());
        r.register("apiserver_audit_event", "Audit events written", self.audit_events.clone());
        r.register("apiserver_audit_error", "Audit events lost", self.audit_errors.clone());
        r.register("apiserver_audit_level", "Requests by the level they are audited at", self.audit_levels.clone());
        r.register("authentication_attempts", "Log-ins, by what came of them", self.authentications.clone());
        r.register("apiserver_tls_handshake_errors", "TLS handshakes that failed", self.tls_errors.clone());
        self.process.register(r);
    }

    pub(crate) fn answered(&self, request: &Request, code: u16, took: Duration, bytes: Option<u64>) {
        self.requests.get_or_create(&request.coded(code)).inc();
        if request.verb == "WATCH" {
            return;
        }
        self.durations.get_or_create(&request.labels()).observe(took.as_secs_f64());
        if let Some(bytes) = bytes {
            self.answer_bytes.get_or_create(&request.long_running()).observe(float(bytes));
        }
    }

    pub(crate) fn running(&self, kind: &'static str, by: i64) {
        self.in_flight.get_or_create(&one("request_kind", kind)).inc_by(by);
    }

    pub(crate) fn queued(&self, kind: &'static str, by: i64) {
        self.in_queue.get_or_create(&one("request_kind", kind)).inc_by(by);
    }

    pub(crate) fn rejected(&self, kind: &'static str, reason: &'static str) {
        let labels = [("reason", Text::Borrowed(reason)), ("request_kind", Text::Borrowed(kind))];
        self.rejected.get_or_create(&labels).inc();
    }

    pub(crate) fn opened(&self, request: &Request) {
        self.long_running.get_or_create(&request.long_running()).inc();
    }

    pub(crate) fn closed(&self, request: &Request) {
        self.long_running.get_or_create(&request.long_running()).dec();
    }

    /// A watch that sends events of a kind.
    pub(crate) fn watch(&self, kind: &Kind) -> WatchMetrics {
        let labels: Labels<3> =
            [("group", kind.group.clone()), ("resource", kind.plural.clone()), ("version", kind.version.clone())];
        WatchMetrics {
            events: self.watch_events.get_or_create(&labels).clone(),
            bytes: self.watch_event_bytes.get_or_create(&labels).clone(),
        }
    }

    /// `step`: admit or validate.
    pub(crate) fn admitted(&self, step: &'static str, operation: &'static str, rejected: bool, took: Duration) {
        let labels = [
            ("operation", Text::Borrowed(operation)),
            ("rejected", Text::Borrowed(if rejected { "true" } else { "false" })),
            ("type", Text::Borrowed(step)),
        ];
        self.admission_steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn audited(&self, written: bool) {
        match written {
            true => drop(self.audit_events.inc()),
            false => drop(self.audit_errors.get_or_create(&one("plugin", "log")).inc()),
        }
    }

    pub(crate) fn audit_level(&self, level: &'static str) {
        self.audit_levels.get_or_create(&one("level", level)).inc();
    }

    pub(crate) fn authenticated(&self, result: &'static str) {
        self.authentications.get_or_create(&one("result", result)).inc();
    }

    pub(crate) fn handshake_failed(&self) {
        self.tls_errors.inc();
    }
}

/// What a watch counts.
#[derive(Clone, Debug)]
pub(crate) struct WatchMetrics {
    events: Counter,
    bytes: Histogram,
}

impl WatchMetrics {
    pub(crate) fn sent(&self, bytes: usize) {
        self.events.inc();
        self.bytes.observe(float(bytes as u64));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn float(number: u64) -> f64 {
    number as f64
}

/// What Prometheus asks for: OpenMetrics 1.0, which is also what its older text format allows but for the names of counters.
pub(crate) const MEDIA: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as they are now, in OpenMetrics' text form.
pub(crate) async fn render(server: &Server) -> Result<String> {
    let metrics = &server.state().metrics;
    metrics.count_objects(server).await;
    metrics.process.read();
    let mut text = String::new();
    prometheus_client::encoding::text::encode_registry(&mut text, &metrics.registry.read())
        .map_err(crate::status::Error::internal)?;
    for others in &server.state().options.figures {
        text.push_str(&others());
    }
    prometheus_client::encoding::text::encode_eof(&mut text).map_err(crate::status::Error::internal)?;
    Ok(text)
}
