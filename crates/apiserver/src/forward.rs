//! Streams to a pod's ports (`pods/portforward`), over WebSocket.
//!
//! Each port has two channels, for data (2i) and for errors (2i+1). A frame begins with its channel's number; the server's
//! first frame on a channel is the port, in two bytes, little end first.
//! Source: k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go, subprotocol `v4.channel.k8s.io`.

use std::{io, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, future::BoxFuture};
use http::{HeaderMap, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Operation, chain},
    http::Call,
    status::{Error, Result},
};

/// Ports of one request.
pub const PORTS_MAX: usize = 8;
/// A frame of the caller, and what is read from a pod at once.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
/// Frames that wait to be sent.
const WAITING_MAX: usize = 16;
const PROTOCOL: &str = "v4.channel.k8s.io";

/// What a kubelet does: opens a stream to a port of a pod. An error's text reaches the caller.
pub trait Forward: Send + Sync + 'static {
    fn open<'a>(&'a self, namespace: &'a str, pod: &'a str, port: u16) -> BoxFuture<'a, io::Result<DuplexStream>>;
}

/// Answers 101 and forwards until one of the two sides ends.
pub(crate) async fn serve(call: Call, upgrade: Option<OnUpgrade>) -> Result<Response> {
    let mut scope = call.scope()?;
    scope.current().await?.ok_or_else(|| scope.not_found())?;
    let mut options = json!({"kind": "PodPortForwardOptions", "apiVersion": "v1"});
    chain::subresource(&mut scope, Operation::Connect, &mut options).await?;
    let key = wanted(&call.headers).ok_or_else(|| Error::bad_request("Upgrade request required"))?;
    let upgrade = upgrade.ok_or_else(|| Error::bad_request("this connection cannot be upgraded"))?;
    let ports = ports(call.query.all("ports"))?;
    let Some(forward) = call.server.state().options.forward.clone() else {
        return Err(Error::internal("error dialing backend: no node of this cluster runs pods"));
    };
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Body::empty())
        .map_err(Error::internal)?;
    let stop = call.server.state().stop.clone();
    let (namespace, pod) = (call.target.namespace.clone(), call.target.name.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        if let Ok(upgraded) = upgrade.await {
            run(upgraded, forward, &namespace, &pod, &ports, stop).await;
        }
    }));
    Ok(response)
}

/// The caller's key, if it asks for a WebSocket with our protocol.
fn wanted(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let has = |list: &str, one: &str| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(one));
    let asked = has(text(header::CONNECTION), "upgrade")
        && has(text(header::UPGRADE), "websocket")
        && has(text(header::SEC_WEBSOCKET_PROTOCOL), PROTOCOL);
    Some(text(header::SEC_WEBSOCKET_KEY)).filter(|key| asked && !key.is_empty()).map(str::to_owned)
}

fn ports<'a>(given: impl Iterator<Item = &'a str>) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for text in given.flat_map(|list| list.split(',')) {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        ports.push(port.ok_or_else(|| Error::bad_request(format!("unable to parse \"{text}\" as a port")))?);
        if ports.len() > PORTS_MAX {
            return Err(Error::bad_request(format!("more than {PORTS_MAX} ports")));
        }
    }
    if ports.is_empty() { Err(Error::bad_request("query parameter \"ports\" is required")) } else { Ok(ports) }
}

async fn run(
    upgraded: Upgraded,
    forward: Arc<dyn Forward>,
    namespace: &str,
    pod: &str,
    ports: &[u16],
    stop: CancellationToken,
) {
    let config =
        WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut sink, mut frames) = socket.split();
    let (sender, mut outgoing) = tokio::sync::mpsc::channel::<Message>(WAITING_MAX);
    // Ends the readers, whichever way this function ends.
    let over = stop.child_token();
    let _over = over.clone().drop_guard();
    let send = async {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let talk = async move {
        let mut writers: Vec<Option<WriteHalf<DuplexStream>>> = Vec::new();
        for (channel, port) in (0_u8..).step_by(2).zip(ports) {
            for channel in [channel, channel + 1] {
                let _ = sender.send(frame(channel, &port.to_le_bytes())).await;
            }
            writers.push(match forward.open(namespace, pod, *port).await {
                Ok(stream) => {
                    let (reader, writer) = tokio::io::split(stream);
                    tokio::spawn(over.clone().run_until_cancelled_owned(read(channel, reader, sender.clone())));
                    Some(writer)
                }
                Err(error) => {
                    let _ = sender.send(frame(channel + 1, error.to_string().as_bytes())).await;
                    None
                }
            });
        }
        // From here on only the readers keep the way out open: it ends when every pod has ended its stream.
        drop(sender);
        while let Some(Ok(message)) = frames.next().await {
            let Message::Binary(data) = message else { continue };
            let Some((channel, data)) = data.split_first() else { continue };
            let writer = writers.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
            if let Some(Some(writer)) = writer
                && writer.write_all(data).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = talk => {}
    }
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(Bytes::from(bytes))
}

async fn read(channel: u8, mut reader: ReadHalf<DuplexStream>, sender: tokio::sync::mpsc::Sender<Message>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(count) = reader.read(&mut buffer).await {
        if count == 0 || sender.send(frame(channel, &buffer[..count])).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_few() {
        assert_eq!(ports(["2379", "80,443"].into_iter()).unwrap(), [2379, 80, 443]);
        for wrong in ["", "0", "65536", "http"] {
            assert!(ports([wrong].into_iter()).is_err(), "{wrong:?}");
        }
        assert!(ports(std::iter::empty()).is_err());
        assert!(ports(std::iter::repeat_n("80", PORTS_MAX)).is_ok());
        assert!(ports(std::iter::repeat_n("80", PORTS_MAX + 1)).is_err());
    }
}
