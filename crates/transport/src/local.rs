//! A server in the same process: requests are handed to a tower service (an axum Router, say).

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{Service, ServiceExt};

use super::{Source, Transport, TransportError, collect};

/// Hands requests to `S`, whatever their scheme and host say.
pub struct Local<S> {
    // Routers are Send but need not be Sync; a clone is taken per request.
    service: parking_lot::Mutex<S>,
}

impl<S> Local<S> {
    pub fn new(service: S) -> Self {
        Self { service: parking_lot::Mutex::new(service) }
    }

    /// Fixes the request body's type to what the service takes, as inference cannot.
    pub fn shared<ReqBody, ResBody>(service: S) -> std::sync::Arc<dyn Transport>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Error: Into<Source>,
        S::Future: Send,
        ReqBody: From<Bytes> + Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
        ResBody::Error: Into<Source>,
    {
        std::sync::Arc::new(Typed {
            local: Self::new(service),
            marker: std::marker::PhantomData::<fn(ReqBody) -> ResBody>,
        })
    }
}

struct Typed<S, ReqBody, ResBody> {
    local: Local<S>,
    marker: std::marker::PhantomData<fn(ReqBody) -> ResBody>,
}

#[async_trait]
impl<S, ReqBody, ResBody> Transport for Typed<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Error: Into<Source>,
    S::Future: Send,
    ReqBody: From<Bytes> + Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<Source>,
{
    async fn send(&self, request: Request<Bytes>, limit_bytes: usize) -> Result<Response<Bytes>, TransportError> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let service = self.local.service.lock().clone();
        let response = service
            .oneshot(request.map(ReqBody::from))
            .await
            .map_err(|e| TransportError::Connect { authority: authority.clone(), source: e.into() })?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, collect(body, limit_bytes, &authority).await?))
    }
}
