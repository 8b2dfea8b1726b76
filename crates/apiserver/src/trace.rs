//! Traces (OpenTelemetry): a span for each request that is sampled, and within it for each call of a webhook and each commit,
//! sent to a collector over OTLP. A caller's own trace goes on here, and from here to webhooks, by W3C Trace Context.
//!
//! As in kube-apiserver (KEP-647) only members of `system:masters` and `system:monitoring` decide whether their requests are
//! sampled; the trace of anybody else begins anew, with a link to theirs. Left out: baggage, metrics and logs over OTLP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, request::Parts};
use jiff::Timestamp;
use parking_lot::Mutex;
use policy::User;
use tokio::{sync::mpsc, time::Instant};

use crate::path::Resource;

mod config;
mod context;
mod export;
mod wire;

pub use self::config::TracingError;
use self::context::Remote;

/// Spans that wait to be sent; what comes then is lost and counted.
const QUEUE_SPANS: usize = 2048;
/// Longer texts of callers are cut off.
const TEXT_BYTES_MAX: usize = 1024;
const SAMPLED: u8 = 1;
const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

tokio::task_local! {
    static CURRENT: Context;
}

/// Where spans go and which are made; one for each server.
pub struct Tracing {
    endpoint: config::Endpoint,
    /// Of a million requests that come without a trace.
    rate_per_million: u32,
    sender: mpsc::Sender<wire::Span>,
    queue: Mutex<Option<mpsc::Receiver<wire::Span>>>,
    lost: AtomicU64,
}

impl Tracing {
    /// `config`: YAML or JSON of a TracingConfiguration (apiserver.config.k8s.io/v1).
    pub fn new(config: &str) -> Result<Arc<Self>, TracingError> {
        let config::Configured { endpoint, rate_per_million } = config::parse(config)?;
        let (sender, queue) = mpsc::channel(QUEUE_SPANS);
        let queue = Mutex::new(Some(queue));
        Ok(Arc::new(Self { endpoint, rate_per_million, sender, queue, lost: AtomicU64::new(0) }))
    }

    /// Sends what is made until `stop`, and then what still waits. `instance`: the server's own name among servers.
    pub(crate) async fn export(
        self: Arc<Self>,
        version: String,
        instance: String,
        stop: tokio_util::sync::CancellationToken,
    ) {
        let Some(queue) = self.queue.lock().take() else { return };
        export::run(&self, queue, export::Resource { version, instance }, stop).await;
    }

    fn send(&self, span: wire::Span) {
        if self.sender.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of requests without a trace, by the trace's number as all of OpenTelemetry decides it.
    fn samples(&self, trace: u128) -> bool {
        let number = u128::from((trace as u64) >> 1);
        number * 1_000_000 < u128::from(self.rate_per_million) << 63
    }
}

/// The clocks of a trace: the wall clock is read once, at its beginning.
#[derive(Clone, Copy)]
struct Clocks {
    unix_ns: u64,
    at: Instant,
}

impl Clocks {
    fn unix_ns(&self, at: Instant) -> u64 {
        let since = u64::try_from(at.saturating_duration_since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.unix_ns.saturating_add(since)
    }
}

/// The span that work is done in.
#[derive(Clone)]
pub(crate) struct Context {
    tracing: Arc<Tracing>,
    random: Arc<dyn Fn() -> u128 + Send + Sync>,
    clocks: Clocks,
    trace: u128,
    span: u64,
    sampled: bool,
    state: Option<HeaderValue>,
}

impl Context {
    /// Tells whoever is called which trace it works for.
    pub fn put(&self, headers: &mut HeaderMap) {
        let flags = if self.sampled { SAMPLED } else { 0 };
        let text = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span);
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(PARENT, value);
        }
        if let Some(state) = &self.state {
            headers.insert(STATE, state.clone());
        }
    }
}

/// The span that this task works in, if its request is traced.
pub(crate) fn current() -> Option<Context> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Does something within a span.
pub(crate) async fn within<F: Future>(context: Option<Context>, work: impl FnOnce() -> F) -> F::Output {
    match context {
        // On the heap, and made here: requests are rarely traced, and should not be the larger for it.
        Some(context) => CURRENT.scope(context, Box::pin(work())).await,
        None => work().await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server = 2,
    Client = 3,
}

/// A span that has begun; it ends when it is dropped.
pub(crate) struct Span {
    context: Context,
    begun: Instant,
    span: wire::Span,
}

impl Span {
    fn new(context: Context, parent: u64, name: String, kind: Kind, begun: Instant) -> Self {
        let span = wire::Span {
            trace_id: context.trace.to_be_bytes().to_vec(),
            span_id: context.span.to_be_bytes().to_vec(),
            trace_state: context.state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default().to_owned(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            name,
            kind: kind as i32,
            flags: u32::from(SAMPLED),
            ..wire::Span::default()
        };
        Self { context, begun, span }
    }

    pub fn context(&self) -> Context {
        self.context.clone()
    }

    pub fn rename(&mut self, name: String) {
        self.span.name = name;
    }

    pub fn text(&mut self, key: &str, value: &str) {
        if self.context.sampled {
            let value = value.chars().take(TEXT_BYTES_MAX).collect();
            self.span.attributes.push(wire::KeyValue::text(key, value));
        }
    }

    pub fn number(&mut self, key: &str, value: i64) {
        if self.context.sampled {
            self.span.attributes.push(wire::KeyValue::number(key, value));
        }
    }

    pub fn failed(&mut self, why: &str) {
        self.span.status = Some(wire::Status { message: why.chars().take(TEXT_BYTES_MAX).collect(), code: 2 });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.context.sampled {
            return;
        }
        self.span.start_time_unix_nano = self.context.clocks.unix_ns(self.begun);
        self.span.end_time_unix_nano = self.context.clocks.unix_ns(Instant::now());
        self.context.tracing.send(std::mem::take(&mut self.span));
    }
}

/// Begins a span within the current one; none if this request is not sampled.
pub(crate) fn child(name: impl FnOnce() -> String, kind: Kind) -> Option<Span> {
    let mut context = current().filter(|context| context.sampled)?;
    let parent = std::mem::replace(&mut context.span, fresh(&context.random));
    Some(Span::new(context, parent, name(), kind, Instant::now()))
}

/// A number of a span: not 0, which is none.
fn fresh(random: &Arc<dyn Fn() -> u128 + Send + Sync>) -> u64 {
    (random() as u64).max(1)
}

/// Who decides whether what they ask is traced.
fn is_trusted(user: &User) -> bool {
    user.groups.iter().any(|group| matches!(group.as_str(), "system:masters" | "system:monitoring"))
}

/// What a request is traced with.
pub(crate) struct Source<'a> {
    pub tracing: &'a Arc<Tracing>,
    pub random: &'a Arc<dyn Fn() -> u128 + Send + Sync>,
    pub now: Timestamp,
}

/// Begins the span of a request that came at `begun`; `user`: who sent it, before it acts as anybody else.
pub(crate) fn request(source: &Source<'_>, user: &User, parts: &Parts, begun: Instant) -> Span {
    let remote = Remote::read(&parts.headers);
    let trusted = is_trusted(user);
    let parent = remote.as_ref().filter(|_| trusted);
    let trace = parent.map_or_else(|| (source.random)().max(1), |remote| remote.trace);
    let sampled = parent.map_or_else(|| source.tracing.samples(trace), |remote| remote.sampled);
    let elapsed = i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let unix_ns = i64::try_from(source.now.as_nanosecond()).unwrap_or(i64::MAX).saturating_sub(elapsed);
    let context = Context {
        tracing: Arc::clone(source.tracing),
        random: Arc::clone(source.random),
        clocks: Clocks { unix_ns: u64::try_from(unix_ns).unwrap_or(0), at: begun },
        trace,
        span: fresh(source.random),
        sampled,
        state: parent.and_then(|remote| remote.state.clone()),
    };
    let method = parts.method.as_str();
    let mut span = Span::new(context, parent.map_or(0, |remote| remote.span), method.to_owned(), Kind::Server, begun);
    if let Some(remote) = remote.filter(|_| !trusted) {
        span.span.links.push(remote.link());
    }
    span.text("http.request.method", method);
    span.text("http.target", parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str));
    let agent = parts.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    span.text("user_agent.original", agent.unwrap_or_default());
    span
}

/// The name of a request's span: its path, with placeholders for what callers choose (upstream: `endpoints/filters/traces.go`).
pub(crate) fn name_of(method: &http::Method, target: &Resource) -> String {
    let mut name = format!("{method} {}", if target.group.is_empty() { "/api" } else { "/apis/" });
    name.push_str(&target.group);
    for part in ["/", target.version.as_str()] {
        name.push_str(part);
    }
    if !target.namespace.is_empty() {
        name.push_str("/namespaces/{:namespace}");
    }
    name.push('/');
    name.push_str(&target.resource);
    if !target.name.is_empty() {
        name.push_str("/{:name}");
    }
    if !target.subresource.is_empty() {
        name.push('/');
        name.push_str(&target.subresource);
    }
    name
}

/// How long sending may take when the server ends.
pub(crate) const END_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn tracing(rate: u32) -> Arc<Tracing> {
        let config = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nsamplingRatePerMillion: ";
        Tracing::new(&format!("{config}{rate}")).unwrap()
    }

    #[test]
    fn a_rate_takes_so_many_of_all_traces() {
        assert!(!tracing(0).samples(0));
        assert!(tracing(1_000_000).samples(u128::MAX));
        let half = tracing(500_000);
        assert!(half.samples(u128::from(u64::MAX >> 1)) && !half.samples(u128::from(u64::MAX)));
    }

    #[test]
    fn a_queue_that_is_full_loses_spans_and_counts_them() {
        let tracing = tracing(0);
        for _ in 0..=QUEUE_SPANS {
            tracing.send(wire::Span::default());
        }
        assert_eq!(tracing.lost.load(Ordering::Relaxed), 1);
    }
}
