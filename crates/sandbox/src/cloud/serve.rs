//! The HTTP side: reads requests within limits, finds out who asks, hands them to a service, and answers when what was
//! changed is durable. And the timers that move states on.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use axum::{Router, body::Body, response::Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use super::{
    Cloud, Shared, block_storage, compute,
    fault::{Fault, Result},
    http::{Caller, Reply, Request, Service},
    identity, image,
    injection::{self, FAULTS_LIMIT_BYTES, Faults, Strike},
    kind::Kind,
    load_balancer, network,
    state::State,
};

/// The largest JSON body.
pub const BODY_LIMIT_BYTES: usize = 1024 * 1024;
/// The largest image that can be uploaded.
pub const UPLOAD_LIMIT_BYTES: u64 = 8 << 30;
/// Pairs in a query string.
const QUERY_LIMIT: usize = 256;

pub fn router(cloud: Cloud) -> Router {
    Router::new().fallback(move |request: axum::extract::Request| {
        let cloud = cloud.clone();
        async move { answer(&cloud, request).await }
    })
}

async fn answer(cloud: &Cloud, request: axum::extract::Request) -> Response {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("req-{}", uuid::Uuid::from_u64_pair(0x5eed_0000_0000_4000, 0x8000_0000_0000_0000 | number));
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_matches('/').to_owned();
    let head = parts.method == Method::HEAD;
    let mut segments = path.split('/').filter(|s| !s.is_empty());
    let Some(prefix) = segments.next() else {
        return respond(Reply::ok(index(cloud)), None, &id, head);
    };
    if prefix == "sandbox" {
        let reply = control(cloud, &parts, segments.collect(), body).await;
        let reply = reply.unwrap_or_else(|fault| Reply::new(fault.status.as_u16(), fault.body(Service::Identity)));
        return respond(reply, None, &id, head);
    }
    let Some(service) = Service::ALL.into_iter().find(|s| s.prefix() == prefix) else {
        return respond(
            Reply::new(404, json!({"error": {"code": 404, "title": "Not Found", "message": "no such service"}})),
            None,
            &id,
            head,
        );
    };
    let segments: Vec<String> = segments.map(decode).collect();
    let reply = match read(service, &parts, segments, body).await {
        Ok(request) => {
            let strike = strike(cloud, &request);
            let reply = match strike.error {
                Some(fault) => {
                    tokio::time::sleep(strike.delay).await;
                    Err(fault)
                }
                None if strike.delay.is_zero() => run(cloud, request).await,
                None => late(cloud.clone(), request, strike.delay).await,
            };
            match strike.lost {
                Some(true) => return broken(),
                Some(false) => return proxied(StatusCode::GATEWAY_TIMEOUT, head),
                None => reply,
            }
        }
        Err(fault) => Err(fault),
    };
    if let Err(Fault { status: status @ (StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT), .. }) = &reply {
        return proxied(*status, head);
    }
    let microversion = microversion(&parts.headers, service).unwrap_or(1);
    let reply = reply.unwrap_or_else(|fault| {
        let mut reply = Reply::new(fault.status.as_u16(), fault.body(service));
        if fault.status == StatusCode::UNAUTHORIZED {
            reply
                .headers
                .push(("www-authenticate", format!("Keystone uri=\"{}/identity\"", cloud.0.options.public_url)));
        }
        if let Some(seconds) = fault.retry_after_s {
            reply.headers.push(("retry-after", seconds.to_string()));
        }
        reply
    });
    respond(reply, (service == Service::Compute).then_some(microversion), &id, head)
}

/// What faults make of a call.
fn strike(cloud: &Cloud, request: &Request) -> Strike {
    let mut state = cloud.0.state.lock();
    if state.injection.faults().calls.is_empty() {
        return Strike::default();
    }
    let caller = caller(&state, cloud, request);
    let administrator = injection::is_administrator(request, caller.as_deref(), &state.options.admin.user.clone());
    state.injection.strike(request, administrator)
}

fn caller(state: &State, cloud: &Cloud, request: &Request) -> Option<Arc<Caller>> {
    let token = request.headers.get("x-auth-token").and_then(|v| v.to_str().ok())?;
    if state.injection.is_expired(token) {
        return None;
    }
    identity::caller(state, &cloud.0.signer, token)
}

/// A call that is done later, also if the caller has not waited for it.
async fn late(cloud: Cloud, request: Request, delay: Duration) -> Result<Reply> {
    let done = tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        run(&cloud, request).await
    });
    done.await.unwrap_or_else(|_| {
        Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "Unexpected API Error."))
    })
}

/// An answer whose connection breaks before it is whole.
fn broken() -> Response {
    let reset = || std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection was lost");
    Response::new(Body::from_stream(futures::stream::once(async move { Err::<bytes::Bytes, _>(reset()) })))
}

/// What a proxy before the service answers in its place.
fn proxied(status: StatusCode, head: bool) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let text = format!(
        "<html><body><h1>{} {title}</h1>\nThe server didn't respond in time.\n</body></html>\n",
        status.as_u16()
    );
    let mut response = Response::new(if head { Body::empty() } else { Body::from(text) });
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
    response
}

/// `/sandbox/faults`: what the cloud is to get wrong, for its administrator.
async fn control(cloud: &Cloud, parts: &Parts, path: Vec<&str>, body: Body) -> Result<Reply> {
    {
        let state = cloud.0.state.lock();
        let token = parts.headers.get("x-auth-token").and_then(|v| v.to_str().ok());
        let caller = token.and_then(|token| identity::caller(&state, &cloud.0.signer, token));
        if !caller.ok_or_else(Fault::unauthorized)?.admin {
            return Err(Fault::forbidden("Faults are set by the cloud's administrator."));
        }
    }
    if path != ["faults"] {
        return Err(Fault::no_route());
    }
    match parts.method.as_str() {
        "GET" | "HEAD" => {}
        "DELETE" => cloud.set_faults(Faults::default()).map_err(Fault::bad)?,
        "PUT" => {
            let bytes = http_body_util::Limited::new(body, FAULTS_LIMIT_BYTES).collect().await;
            let bytes = bytes.map_err(|_| {
                let message = format!("The faults are longer than {FAULTS_LIMIT_BYTES} bytes");
                Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "HTTPRequestEntityTooLarge", message)
            })?;
            let faults: Faults = serde_json::from_slice(&bytes.to_bytes())
                .map_err(|error| Fault::bad(format!("The faults cannot be read: {error}")))?;
            cloud.set_faults(faults).map_err(Fault::bad)?;
        }
        _ => return Err(Fault::method()),
    }
    let [calls, builds, lives] = cloud.struck();
    let struck = json!({"calls": calls, "builds": builds, "lives": lives});
    Ok(Reply::ok(json!({"faults": cloud.faults(), "struck": struck})))
}

fn index(cloud: &Cloud) -> Value {
    let url = &cloud.0.options.public_url;
    Service::ALL
        .into_iter()
        .map(|s| (s.prefix().to_owned(), json!(format!("{url}/{}", s.prefix()))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn respond(reply: Reply, microversion: Option<u16>, id: &str, head: bool) -> Response {
    let body = match (&reply.body, head) {
        (Some(body), false) => Body::from(serde_json::to_vec(&body).unwrap_or_default()),
        _ => Body::empty(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if reply.body.is_some() {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("x-openstack-request-id", id);
    if let Some(version) = microversion {
        set("openstack-api-version", &format!("compute 2.{version}"));
        set("x-openstack-nova-api-version", &format!("2.{version}"));
        set("vary", "OpenStack-API-Version, X-OpenStack-Nova-API-Version");
    }
    for (name, value) in &reply.headers {
        set(name, value);
    }
    response
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match b {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => out.push(high * 16 + low),
                _ => out.push(b'%'),
            },
            b => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn query(parts: &Parts) -> Result<Vec<(String, String)>> {
    let text = parts.uri.query().unwrap_or_default();
    let pairs: Vec<(String, String)> = text
        .split('&')
        .filter(|p| !p.is_empty())
        .take(QUERY_LIMIT + 1)
        .map(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect();
    if pairs.len() > QUERY_LIMIT {
        return Err(Fault::bad(format!("The query has more than {QUERY_LIMIT} parameters")));
    }
    Ok(pairs)
}

/// The minor version of `OpenStack-API-Version: compute 2.N`, or of Nova's older header.
fn microversion(headers: &HeaderMap, service: Service) -> Result<u16> {
    if service != Service::Compute {
        return Ok(1);
    }
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let new = header("openstack-api-version").and_then(|v| v.strip_prefix("compute"));
    let Some(text) = new.or(header("x-openstack-nova-api-version")).map(str::trim) else { return Ok(1) };
    if text == "latest" {
        return Ok(compute::MICROVERSION_MAX);
    }
    let minor: Option<u16> = text.strip_prefix("2.").and_then(|m| m.parse().ok());
    match minor {
        Some(minor) if (1..=compute::MICROVERSION_MAX).contains(&minor) => Ok(minor),
        Some(_) => {
            let max = compute::MICROVERSION_MAX;
            let message = format!("Version {text} is not supported by the API. Minimum is 2.1 and maximum is 2.{max}.");
            Err(Fault::new(StatusCode::NOT_ACCEPTABLE, "HTTPNotAcceptable", message))
        }
        None => Err(Fault::bad(format!(
            "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
        ))),
    }
}

async fn read(service: Service, parts: &Parts, path: Vec<String>, body: Body) -> Result<Request> {
    let kind = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let is_upload =
        service == Service::Image && parts.method == Method::PUT && kind.starts_with("application/octet-stream");
    let mut upload = None;
    let mut value = Value::Null;
    if is_upload {
        upload = Some(measure(body).await?);
    } else {
        let bytes = http_body_util::Limited::new(body, BODY_LIMIT_BYTES).collect().await;
        let too_large = || {
            Fault::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "HTTPRequestEntityTooLarge",
                format!("The request is larger than {BODY_LIMIT_BYTES} bytes"),
            )
        };
        let bytes = bytes.map_err(|_| too_large())?.to_bytes();
        if !bytes.is_empty() {
            value = serde_json::from_slice(&bytes).map_err(|_| Fault::bad("Malformed request body: it is not JSON"))?;
        }
    }
    Ok(Request {
        service,
        method: if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() },
        path,
        query: query(parts)?,
        headers: parts.headers.clone(),
        body: value,
        upload,
        caller: None,
        microversion: microversion(&parts.headers, service)?,
    })
}

/// The size and hash of a body that is not kept.
async fn measure(mut body: Body) -> Result<(u64, String)> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA512);
    let mut size = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::bad("The upload was broken off"))?;
        if let Some(data) = frame.data_ref() {
            size += data.len() as u64;
            if size > UPLOAD_LIMIT_BYTES {
                let message = format!("The image is larger than {UPLOAD_LIMIT_BYTES} bytes");
                return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "HTTPRequestEntityTooLarge", message));
            }
            context.update(data);
        }
    }
    let hash = context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    Ok((size, hash))
}

async fn run(cloud: &Cloud, mut request: Request) -> Result<Reply> {
    let (reply, version) = cloud.change(|state| {
        check_microversion(state, &request)?;
        if let Some(versions) = discovery(state, &request) {
            return Ok(versions);
        }
        request.caller = caller(state, cloud, &request);
        let reply = match request.service {
            Service::Identity => identity::handle(state, &request, &cloud.0.signer),
            Service::Image => image::handle(state, &request),
            Service::Compute => compute::handle(state, &request),
            Service::Network => network::handle(state, &request),
            Service::LoadBalancer => load_balancer::handle(state, &request),
            Service::BlockStorage => block_storage::handle(state, &request),
        };
        if reply.is_err() {
            state.roll_back();
        }
        reply
    });
    // Also a read waits: what it saw must not be lost afterwards.
    cloud.settled(version).await.map_err(|what| {
        let message = format!("The cloud cannot write its state: {what}");
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    })?;
    reply
}

/// Refuses a microversion that Nova does not have for now.
fn check_microversion(state: &State, request: &Request) -> Result<()> {
    let Some(max) = state.injection.faults().compute_microversion_max else { return Ok(()) };
    if request.service != Service::Compute || request.microversion <= max {
        return Ok(());
    }
    let version = request.microversion;
    let message = format!("Version 2.{version} is not supported by the API. Minimum is 2.1 and maximum is 2.{max}.");
    Err(Fault::new(StatusCode::NOT_ACCEPTABLE, "HTTPNotAcceptable", message))
}

/// The version documents, which need no token.
fn discovery(state: &State, request: &Request) -> Option<Reply> {
    if request.method != Method::GET {
        return None;
    }
    let url = format!("{}/{}", state.options.public_url, request.service.prefix());
    let entry = |id: &str, path: &str, more: Value| {
        let mut entry = json!({"id": id, "status": "CURRENT", "updated": "2024-01-01T00:00:00Z", "links": [{"rel": "self", "href": format!("{url}/{path}")}]});
        if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
            entry.extend(more);
        }
        entry
    };
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let max = state.injection.faults().compute_microversion_max.unwrap_or(u16::MAX).min(compute::MICROVERSION_MAX);
    let micro = json!({"version": format!("2.{max}"), "min_version": "2.1"});
    match (request.service, path.as_slice()) {
        (Service::Identity, []) => Some(Reply::new(300, identity::versions(state))),
        (Service::Image, [] | ["versions"]) => {
            Some(Reply::new(300, json!({"versions": [entry("v2.9", "v2/", json!({}))]})))
        }
        (Service::Compute, []) => Some(Reply::ok(json!({"versions": [entry("v2.1", "v2.1/", micro)]}))),
        (Service::Compute, ["v2.1"]) => Some(Reply::ok(json!({"version": entry("v2.1", "v2.1/", micro)}))),
        (Service::Network, []) => Some(Reply::ok(json!({"versions": [entry("v2.0", "v2.0/", json!({}))]}))),
        (Service::Network, ["v2.0"]) => Some(Reply::ok(json!({"resources": []}))),
        (Service::LoadBalancer, []) => Some(Reply::ok(json!({"versions": [entry("v2.0", "v2", json!({}))]}))),
        (Service::BlockStorage, []) => Some(Reply::new(
            300,
            json!({"versions": [entry("v3.0", "v3/", json!({"version": "3.0", "min_version": "3.0"}))]}),
        )),
        (Service::BlockStorage, ["v3"]) => Some(Reply::ok(
            json!({"versions": [entry("v3.0", "v3/", json!({"version": "3.0", "min_version": "3.0"}))]}),
        )),
        _ => None,
    }
}

/// Moves objects on when their time has come, until the cloud is gone.
pub async fn run_timers(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let cloud = Cloud(shared);
            let now = Instant::now();
            if cloud.0.state.lock().next_due().is_some_and(|at| at <= now) {
                cloud.change(|state| {
                    while let Some((kind, id)) = state.pop_due(now) {
                        match kind {
                            Kind::Server => compute::servers::advance(state, &id),
                            Kind::LoadBalancer => load_balancer::advance(state, &id),
                            Kind::Volume => block_storage::advance(state, &id),
                            Kind::Snapshot => block_storage::snapshots::advance(state, &id),
                            Kind::Image => image::advance(state, &id),
                            _ => {}
                        }
                    }
                });
            }
            cloud.0.state.lock().next_due()
        };
        match next {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = wake.notified() => {}
            },
            None => wake.notified().await,
        }
    }
}
