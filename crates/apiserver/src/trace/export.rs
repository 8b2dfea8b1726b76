//! Spans on their way to the collector: batches over gRPC (`PROTOCOL-HTTP2.md`), one connection that is made again when it ends.
//! What cannot be sent is lost, counted and said in the log: nobody waits for a collector.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{END_MAX, Tracing, config::Endpoint, wire};

/// A batch waits so long for more spans, and holds so many.
const BATCH_WAIT: Duration = Duration::from_secs(5);
const BATCH_SPANS: usize = 512;
/// A batch is taken in this time, connection included, or lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A collector answers in a few bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A flag and a length stand before each message.
const PREFIX_BYTES: usize = 5;

/// Who tells of these spans.
pub(super) struct Resource {
    pub version: String,
    pub instance: String,
}

type Sender = SendRequest<Full<Bytes>>;

pub(super) async fn run(
    tracing: &Tracing,
    mut queue: mpsc::Receiver<wire::Span>,
    resource: Resource,
    stop: CancellationToken,
) {
    let mut sender: Option<Sender> = None;
    let mut batch = Vec::with_capacity(BATCH_SPANS);
    loop {
        let first = tokio::select! {
            biased;
            first = queue.recv() => first,
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { break };
        batch.push(first);
        let more = async {
            while batch.len() < BATCH_SPANS {
                let Some(span) = queue.recv().await else { return };
                batch.push(span);
            }
        };
        tokio::select! {
            () = more => {}
            () = tokio::time::sleep(BATCH_WAIT) => {}
            () = stop.cancelled() => break,
        }
        deliver(tracing, &mut sender, &resource, &mut batch, SEND_TIMEOUT).await;
    }
    while let Ok(span) = queue.try_recv() {
        batch.push(span);
    }
    if !batch.is_empty() {
        deliver(tracing, &mut sender, &resource, &mut batch, END_MAX).await;
    }
}

async fn deliver(
    tracing: &Tracing,
    sender: &mut Option<Sender>,
    resource: &Resource,
    batch: &mut Vec<wire::Span>,
    timeout: Duration,
) {
    let spans = std::mem::take(batch);
    let count = spans.len();
    let body = framed(&request(resource, spans));
    let sent = tokio::time::timeout(timeout, send(&tracing.endpoint, sender, body)).await;
    let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs())));
    if let Err(why) = sent {
        *sender = None;
        tracing.lost.fetch_add(count as u64, Ordering::Relaxed);
        tracing::warn!(endpoint = ?tracing.endpoint, why, "traces are not taken by the collector");
    }
    let lost = tracing.lost.swap(0, Ordering::Relaxed);
    if lost > 0 {
        tracing::warn!(lost, "spans were lost");
    }
}

fn request(resource: &Resource, spans: Vec<wire::Span>) -> wire::Request {
    let attributes = [
        ("service.name", "apiserver"),
        ("service.instance.id", &resource.instance),
        ("service.version", &resource.version),
    ];
    let attributes = attributes.map(|(key, value)| wire::KeyValue::text(key, value.to_owned())).to_vec();
    let scope = Some(wire::Scope { name: env!("CARGO_PKG_NAME").to_owned() });
    wire::Request {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(wire::Resource { attributes }),
            scope_spans: vec![wire::ScopeSpans { scope, spans }],
        }],
    }
}

fn framed(message: &wire::Request) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut bytes).expect("a buffer that grows has room");
    bytes.freeze()
}

async fn send(endpoint: &Endpoint, kept: &mut Option<Sender>, body: Bytes) -> Result<(), String> {
    let mut sender = match kept.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => connect(endpoint).await?,
    };
    let authority = match endpoint {
        Endpoint::Tcp(address) => address.as_str(),
        Endpoint::Unix(_) => "localhost",
    };
    let request = http::Request::post(format!("http://{authority}{PATH}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::from(body));
    let response = sender.send_request(request.map_err(|error| error.to_string())?).await;
    let response = response.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("the answer is HTTP {}", response.status()));
    }
    // An error without a message has its status in the headers, and no trailers.
    check_status(response.headers())?;
    let read = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let read = read.map_err(|error| error.to_string())?;
    if let Some(trailers) = read.trailers() {
        check_status(trailers)?;
    }
    let answer = read.to_bytes();
    let answer = answer.get(PREFIX_BYTES..).and_then(|message| wire::Response::decode(message).ok());
    if let Some(partial) = answer.and_then(|answer| answer.partial_success).filter(|said| said.rejected_spans > 0) {
        return Err(format!("{} spans were refused: {}", partial.rejected_spans, partial.error_message));
    }
    *kept = Some(sender);
    Ok(())
}

fn check_status(headers: &HeaderMap) -> Result<(), String> {
    let Some(status) = headers.get("grpc-status").and_then(|status| status.to_str().ok()) else { return Ok(()) };
    if status == "0" {
        return Ok(());
    }
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
    Err(format!("gRPC status {status}: {message}"))
}

async fn connect(endpoint: &Endpoint) -> Result<Sender, String> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            tcp.set_nodelay(true).map_err(|error| error.to_string())?;
            handshake(tcp).await
        }
        Endpoint::Unix(path) => handshake(UnixStream::connect(path).await.map_err(|error| error.to_string())?).await,
    }
}

async fn handshake<S>(stream: S) -> Result<Sender, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with its sender, or when the collector goes; the next batch then hears of it.
    drop(tokio::spawn(connection));
    Ok(sender)
}
