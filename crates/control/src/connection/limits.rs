//! What a workload cluster may send: its API server is its tenant's, and this process is everybody's.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{BoxError, Layer, Service};

/// The largest answer, and the longest line of one that goes on (a watch, a log that is followed), in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Answers end with an error where they are larger than so many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits(pub usize);

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Limited { inner, bytes_max: self.0 }
    }
}

#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    bytes_max: usize,
}

impl<S, In, Out> Service<Request<In>> for Limited<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer<Out>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let (bytes_max, by_line) = (self.bytes_max, goes_on(request.uri().query().unwrap_or_default()));
        let answer = self.inner.call(request);
        answer.map(move |answer| Ok(answer?.map(|body| Answer { body, by_line, bytes_max, bytes: 0 }))).boxed()
    }
}

fn goes_on(query: &str) -> bool {
    query.split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "follow=true"))
}

/// A body that ends with an error where it is too large.
#[derive(Debug)]
pub struct Answer<B> {
    body: B,
    /// Only what has come since the last line counts.
    by_line: bool,
    bytes_max: usize,
    bytes: usize,
}

impl<B> Answer<B> {
    fn takes(&mut self, data: &[u8]) -> Result<(), BoxError> {
        let last_line = data.iter().rposition(|byte| *byte == b'\n').filter(|_| self.by_line);
        self.bytes = match last_line {
            Some(end) => data.len() - end - 1,
            None => self.bytes + data.len(),
        };
        if self.bytes > self.bytes_max {
            return Err(format!("the answer is larger than {} bytes", self.bytes_max).into());
        }
        Ok(())
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(frame) = std::task::ready!(Pin::new(&mut this.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Into::into)?;
        if let Some(data) = frame.data_ref() {
            this.takes(data)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body as Served, routing::get};
    use futures::{StreamExt, stream};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, Client, api::ListParams, api::WatchParams};

    use super::*;

    /// A client of a server that never stops to send `chunk`.
    fn endless(chunk: &'static [u8], bytes_max: usize) -> Client {
        let send = move || async move {
            Served::from_stream(stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk))))
        };
        let server = Router::new().route("/api/v1/namespaces/default/configmaps", get(send));
        Client::new(Limits(bytes_max).layer(server), "default")
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_given_up() {
        let maps = Api::<ConfigMap>::default_namespaced(endless(b"\n        ", 4096));
        let error = maps.list(&ListParams::default()).await.unwrap_err();
        assert!(format!("{error:?}").contains("the answer is larger than 4096 bytes"), "{error:?}");
    }

    #[tokio::test]
    async fn a_watch_goes_on_for_as_long_as_its_lines_are_short() {
        let line = b"{\"type\":\"ADDED\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"}}}\n";
        let maps = |chunk| Api::<ConfigMap>::default_namespaced(endless(chunk, 4096));
        let events = maps(line).watch(&WatchParams::default(), "0").await.unwrap();
        assert_eq!(events.take(100).filter(|event| std::future::ready(event.is_ok())).count().await, 100);
        let mut events = maps(b"        ").watch(&WatchParams::default(), "0").await.unwrap().boxed();
        let error = events.next().await.unwrap().unwrap_err();
        assert!(format!("{error:?}").contains("the answer is larger than 4096 bytes"), "{error:?}");
    }
}
