//! What is left of a request's body that nobody reads on.
//!
//! A connection that is closed over unread bytes is reset: a client that writes its body before it reads sees a broken
//! pipe in place of the answer, which says why the body was not taken. So the rest is read, within limits, and thrown
//! away (RFC 9112, section 9.6: "If a server performs an immediate close of a TCP connection").

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A rest that is larger, or comes more slowly, is worth a broken connection.
const REST_BYTES_MAX: usize = 16 << 20;
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// A body whose rest is read when it is dropped.
pub(super) struct Lingering {
    /// Always there but in `drop`.
    body: Option<Incoming>,
    /// A client that asked whether to send its body at all has not sent it yet.
    sent: bool,
}

impl Lingering {
    /// `asked`: the request expects `100-continue`.
    pub fn new(body: Incoming, asked: bool) -> Self {
        Self { body: Some(body), sent: !asked }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.sent = true;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| self.sent && !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(REST_TIMEOUT, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > REST_BYTES_MAX {
            return;
        }
    }
}
