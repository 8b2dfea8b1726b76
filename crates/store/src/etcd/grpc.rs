//! gRPC over one HTTP/2 connection (`PROTOCOL-HTTP2.md` of gRPC): unary calls and one stream, as etcd needs them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// A connection, with its TLS handshake, must stand in this time.
const CONNECT: Duration = Duration::from_secs(2);
/// A peer that answers no ping is gone. etcd refuses more than one ping in 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest answer, and the largest part of a stream.
const ANSWER_BYTES_MAX: usize = 512 << 20;
const WINDOW_BYTES: u32 = 8 << 20;
/// A flag and a length stand before each message.
const PREFIX_BYTES: usize = 5;

/// Codes of gRPC that mean something here.
pub const CODE_INVALID_ARGUMENT: u32 = 3;
const CODE_PERMISSION_DENIED: u32 = 7;
pub const CODE_RESOURCE_EXHAUSTED: u32 = 8;
const CODE_FAILED_PRECONDITION: u32 = 9;
pub const CODE_OUT_OF_RANGE: u32 = 11;
const CODE_UNIMPLEMENTED: u32 = 12;
const CODE_UNAUTHENTICATED: u32 = 16;

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing was sent.
    #[error("{endpoint}: {why}")]
    Connect { endpoint: String, why: String },
    /// It is not known whether the call was carried out.
    #[error("{endpoint}: {why}")]
    Lost { endpoint: String, why: String },
    /// It was answered, with an error.
    #[error("{message} (code {code})")]
    Status { code: u32, message: String },
}

impl Fault {
    /// Whether the call was certainly not carried out.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Lost { .. } => false,
            Self::Status { code, .. } => matches!(
                *code,
                CODE_INVALID_ARGUMENT
                    | CODE_PERMISSION_DENIED
                    | CODE_RESOURCE_EXHAUSTED
                    | CODE_FAILED_PRECONDITION
                    | CODE_OUT_OF_RANGE
                    | CODE_UNIMPLEMENTED
                    | CODE_UNAUTHENTICATED
            ),
        }
    }

    /// Whether the same call may have another answer, from another member or later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Lost { .. } => true,
            Self::Status { message, .. } => !self.is_certain() || message.contains("too many requests"),
        }
    }
}

/// A connection to one member.
pub struct Channel {
    endpoint: String,
    scheme: &'static str,
    send: SendRequest<Sending>,
    /// Cancelled when another connection takes its place.
    pub retired: CancellationToken,
}

/// The body of a call: one message, after which the stream ends or stays open.
struct Sending {
    message: Option<Bytes>,
    stays_open: bool,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.message.take() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            // Nobody wakes this: the peer's end, or a reset, ends the stream.
            None if self.stays_open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.stays_open
    }
}

impl Channel {
    /// Connects to `endpoint` (`host:port`).
    pub async fn connect(endpoint: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Self, Fault> {
        let fail = |why: String| Fault::Connect { endpoint: endpoint.to_owned(), why };
        let send = match tokio::time::timeout(CONNECT, dial(endpoint, tls)).await {
            Ok(dialled) => dialled.map_err(fail)?,
            Err(_) => return Err(fail(format!("no connection in {} s", CONNECT.as_secs()))),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self { endpoint: endpoint.to_owned(), scheme, send, retired: CancellationToken::new() })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn is_open(&self) -> bool {
        !self.send.is_closed() && !self.retired.is_cancelled()
    }

    fn lost(&self, why: impl ToString) -> Fault {
        Fault::Lost { endpoint: self.endpoint.clone(), why: why.to_string() }
    }

    async fn send(&self, path: &str, body: Sending) -> Result<Response<Incoming>, Fault> {
        let request = Request::post(format!("{}://{}/{path}", self.scheme, self.endpoint))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            // A member without a leader says so at once (`rpctypes.MetadataRequireLeaderKey`).
            .header("hasleader", "true")
            .body(body);
        let request = request.map_err(|error| self.lost(error))?;
        let response = self.send.clone().send_request(request).await.map_err(|error| {
            if error.is_canceled() {
                // The connection had ended before anything of it was sent.
                return Fault::Connect { endpoint: self.endpoint.clone(), why: chain(&error) };
            }
            self.lost(chain(&error))
        })?;
        if !response.status().is_success() {
            return Err(self.lost(format!("the answer is HTTP {}", response.status())));
        }
        Ok(response)
    }

    /// One request, one answer.
    pub async fn unary<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        timeout: Duration,
    ) -> Result<A, Fault> {
        let call = async {
            let body = Sending { message: Some(framed(request)), stays_open: false };
            let response = self.send(path, body).await?;
            check_status(response.headers())?;
            let mut reader = Messages::new(response.into_body());
            let answer = reader.next(self).await?;
            match answer {
                Some(bytes) => {
                    // The trailers say whether it counts.
                    reader.finish(self).await?;
                    A::decode(bytes).map_err(|error| self.lost(error))
                }
                None => Err(self.lost("the answer is empty")),
            }
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(self.lost(format!("no answer in {} s", timeout.as_secs_f64()))),
        }
    }

    /// One request, after which messages come until either side ends.
    pub async fn stream(&self, path: &str, request: &impl Message, timeout: Duration) -> Result<Messages, Fault> {
        let body = Sending { message: Some(framed(request)), stays_open: true };
        let response = match tokio::time::timeout(timeout, self.send(path, body)).await {
            Ok(response) => response?,
            Err(_) => return Err(self.lost("no stream in time")),
        };
        check_status(response.headers())?;
        Ok(Messages::new(response.into_body()))
    }
}

async fn dial(endpoint: &str, tls: Option<&Arc<ClientConfig>>) -> Result<SendRequest<Sending>, String> {
    let tcp = TcpStream::connect(endpoint).await.map_err(|error| chain(&error))?;
    tcp.set_nodelay(true).map_err(|error| chain(&error))?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let Some(tls) = tls else {
        let (send, connection) = builder.handshake(TokioIo::new(tcp)).await.map_err(|error| chain(&error))?;
        // Ends with its last sender, or when the peer goes; whoever sends then hears of it.
        drop(tokio::spawn(connection));
        return Ok(send);
    };
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| chain(&error))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
    let stream = stream.map_err(|error| chain(&error))?;
    let (send, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    drop(tokio::spawn(connection));
    Ok(send)
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut bytes).expect("a buffer that grows has room");
    bytes.freeze()
}

/// What `grpc-status` says, where it is.
fn check_status(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let code = status.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    if code == 0 {
        return Ok(());
    }
    let message = headers.get("grpc-message").map_or(&[][..], |value| value.as_bytes());
    let message = percent_encoding::percent_decode(message).decode_utf8_lossy().into_owned();
    Err(Fault::Status { code, message })
}

/// The messages of an answer.
pub struct Messages {
    body: Incoming,
    buffer: BytesMut,
}

impl Messages {
    fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// Takes a whole message out of what has come.
    fn take(&mut self, channel: &Channel) -> Result<Option<Bytes>, Fault> {
        let Some((prefix, _)) = self.buffer.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [flag, a, b, c, d] = *prefix;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if flag != 0 {
            return Err(channel.lost("the answer is compressed, which was not asked for"));
        }
        if length > ANSWER_BYTES_MAX {
            return Err(channel.lost(format!("an answer of {length} bytes is over the limit of {ANSWER_BYTES_MAX}")));
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The next message; none at a good end.
    pub async fn next(&mut self, channel: &Channel) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(message) = self.take(channel)? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(channel.lost(chain(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            check_status(&trailers)?;
                        }
                    }
                },
            }
        }
    }

    async fn finish(&mut self, channel: &Channel) -> Result<(), Fault> {
        while self.next(channel).await?.is_some() {}
        Ok(())
    }
}
