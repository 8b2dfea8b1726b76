//! What is known of one request from its beginning to the end of its answer, for those who look on: metrics and audit.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::Frame;
use policy::User;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    admission::Annotations,
    audit::{Asking, Trail, verb_name},
    body::{self, Media},
    kinds::Kind,
    metrics::{Metrics, Request},
    negotiate,
    path::{Query, Resource, Verb},
    server::Server,
    status::Result,
    trace::{self, Span},
};

/// Bytes of an answer that are put into an audit event; of a longer one only the status is.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

pub(crate) struct Seen {
    start: Instant,
    metrics: Arc<Metrics>,
    labels: Request,
    trail: Option<Trail>,
    span: Option<Span>,
    /// The answer goes on: a watch or a stream.
    long: bool,
}

impl Seen {
    pub(crate) fn begin(server: &Server, method: &Method, path: &str) -> Self {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        Self {
            start: Instant::now(),
            metrics: Arc::clone(&server.state().metrics),
            labels: Request::of_path(method, first),
            trail: None,
            span: None,
            long: false,
        }
    }

    /// Begins the request's span. `user`: who sent it.
    pub(crate) fn trace(&mut self, server: &Server, user: &User, target: Option<&Resource>, parts: &Parts) {
        let options = &server.state().options;
        let Some(tracing) = &options.tracing else { return };
        let source = trace::Source { tracing, random: &options.random, now: server.now() };
        let mut span = trace::request(&source, user, parts, self.start);
        if let Some(target) = target {
            span.rename(trace::name_of(&parts.method, target));
        }
        self.span = Some(span);
    }

    /// What the request is to be served in.
    pub(crate) fn context(&self) -> Option<trace::Context> {
        self.span.as_ref().map(Span::context)
    }

    pub(crate) fn kind(&mut self, kind: &Kind, verb: Verb, target: &Resource, query: &Query, headers: &HeaderMap) {
        let place = (target.namespace.as_str(), target.name.as_str());
        self.labels = Request::of(kind, verb, &target.subresource, place, query.dry_run());
        let media = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if verb == Verb::Patch && media.starts_with(b"application/apply-patch") {
            self.labels.verb = "APPLY";
        }
    }

    /// The answer will go on for as long as both sides like.
    pub(crate) fn goes_on(&mut self) {
        self.long = true;
    }

    /// Begins the request's audit trail.
    pub(crate) async fn told(
        &mut self,
        server: &Server,
        users: (&User, Option<&User>),
        verb: Option<Verb>,
        target: Option<&Resource>,
        parts: &Parts,
    ) {
        if server.state().options.audit.is_none() {
            return;
        }
        let verb = verb_name(verb, &parts.method);
        let (user, impersonated) = users;
        self.trail = Trail::begin(server, &Asking { user, impersonated, verb: &verb, target, parts });
        if let Some(trail) = &mut self.trail {
            trail.received().await;
        }
    }

    /// Tells of somebody whose credentials were not believed.
    pub(crate) async fn refused(server: &Server, verb: Option<Verb>, target: Option<&Resource>, parts: &Parts) {
        if server.state().options.audit.is_none() {
            return;
        }
        let verb = verb_name(verb, &parts.method);
        let user = User::default();
        let asking = Asking { user: &user, impersonated: None, verb: &verb, target, parts };
        if let Some(trail) = Trail::begin(server, &asking) {
            trail.refused().await;
        }
    }

    pub(crate) fn decided(&mut self, decision: &Result<()>) {
        if let Some(trail) = &mut self.trail {
            trail.decided(decision.is_ok(), "");
        }
    }

    /// The body, kept for the trail if that is to hold it.
    pub(crate) async fn body(&mut self, body: Body, parts: &Parts) -> Result<Body> {
        let Some(trail) = self.trail.as_mut().filter(|trail| trail.wants_request()) else { return Ok(body) };
        let bytes = body::read(body, &parts.headers).await?;
        let media = negotiate::body_media(&parts.headers).unwrap_or(Media::Yaml);
        trail.request(&bytes, media);
        Ok(Body::from(bytes))
    }

    /// The request met a bug.
    pub(crate) async fn panicked(&mut self) {
        if let Some(trail) = self.trail.take() {
            trail.panicked().await;
        }
    }

    /// Counts and tells the answer.
    pub(crate) async fn done(mut self, mut response: Response) -> Response {
        let code = response.status().as_u16();
        let size = response.body().size_hint().exact();
        self.metrics.answered(&self.labels, code, self.start.elapsed(), size);
        if let Some(span) = &mut self.span {
            span.number("http.response.status_code", code.into());
            span.text("audit-id", self.trail.as_ref().map_or("", Trail::id));
            if code >= 500 {
                span.failed("");
            }
        }
        if let Some(trail) = &self.trail
            && let Ok(id) = HeaderValue::from_str(trail.id())
        {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        if let Some(Annotations(annotations)) = response.extensions_mut().remove::<Annotations>()
            && let Some(trail) = &mut self.trail
        {
            trail.annotate(annotations);
        }
        if self.long && code < 400 {
            if let Some(trail) = &mut self.trail {
                trail.started(code).await;
            }
            self.metrics.opened(&self.labels);
            let open = Open { metrics: self.metrics, labels: self.labels, _trail: self.trail, _span: self.span };
            return response.map(|body| Body::new(Watched { body, _open: open }));
        }
        let Some(mut trail) = self.trail.take() else { return response };
        let small = size.is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX);
        if !small || !(code >= 400 || trail.wants_response()) {
            trail.complete(code, None).await;
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = match content_type.unwrap_or_default() {
            json if json.starts_with("application/json") => Some(Media::Json),
            yaml if yaml.starts_with("application/yaml") => Some(Media::Yaml),
            protobuf if protobuf.starts_with("application/vnd.kubernetes.protobuf") => Some(Media::Protobuf),
            _ => None,
        };
        let status = if code < 400 { None } else { status_of(&bytes, media) };
        if let Some(media) = media.filter(|_| trail.wants_response()) {
            trail.response(&bytes, media);
        }
        trail.complete(code, status.as_ref()).await;
        Response::from_parts(parts, Body::from(bytes))
    }
}

fn status_of(bytes: &Bytes, media: Option<Media>) -> Option<Value> {
    crate::body::parse(bytes, media?).ok().map(|parsed| parsed.value).filter(Value::is_object)
}

/// An answer that goes on, until it is dropped.
struct Open {
    metrics: Arc<Metrics>,
    labels: Request,
    _trail: Option<Trail>,
    _span: Option<Span>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.closed(&self.labels);
    }
}

struct Watched {
    body: Body,
    _open: Open,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
