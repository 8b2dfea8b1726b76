//! One request to somebody else's server, and its whole answer, within a limit: over TLS and through proxies, or as a call to a
//! service in the same process. Whoever sends it does not know which: controllers run on a paused clock without a socket.

mod https;
mod local;
mod proxy;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;

pub use self::{
    https::{Https, Tls},
    local::Local,
    proxy::{Proxies, ProxyError},
};

/// Sends one request and returns the whole response. Timeouts are the caller's: dropping the future ends the call.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// `limit_bytes` is the largest response body that is read; a larger one is [`TransportError::TooLarge`].
    async fn send(&self, request: Request<Bytes>, limit_bytes: usize) -> Result<Response<Bytes>, TransportError>;

    /// The same way, on which servers are believed too whose certificates these authorities (PEM) have signed.
    ///
    /// # Errors
    /// These are no certificates, or no certificate is looked at on this way.
    fn trusting(&self, _ca_pem: &[u8]) -> Result<Arc<dyn Transport>, TransportError> {
        Err(TransportError::Tls { what: "no certificate is looked at here".to_owned() })
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("cannot reach {authority}")]
    Connect {
        authority: String,
        #[source]
        source: Source,
    },
    #[error("the connection to {authority} broke while the answer was read")]
    Read {
        authority: String,
        #[source]
        source: Source,
    },
    #[error("the answer of {authority} is larger than {limit_bytes} bytes")]
    TooLarge { authority: String, limit_bytes: usize },
    #[error("cannot set up TLS: {what}")]
    Tls { what: String },
}

/// Reads a body to its end, or fails as soon as it is known to be larger than `limit_bytes`.
async fn collect<B>(body: B, limit_bytes: usize, authority: &str) -> Result<Bytes, TransportError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Source>,
{
    let too_large = || TransportError::TooLarge { authority: authority.to_owned(), limit_bytes };
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(too_large());
    }
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| TransportError::Read { authority: authority.to_owned(), source: e.into() })?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > limit_bytes {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}
