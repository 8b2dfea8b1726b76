//! A client of the OpenStack APIs: the few dozen calls that carrying Kubernetes clusters takes, and no more.
//!
//! It exists because the transport has to be pluggable: controllers run against the sandbox cloud inside one process,
//! on a paused clock and without a socket, and against a real cloud over TLS, with nothing between the two but a
//! [`Transport`]. `docs/decisions/openstack-client.md` says what else was looked at.
//!
//! [`clouds`] reads `clouds.yaml`; [`Client`] holds a token, finds endpoints and speaks to them; the modules named
//! after services hold what goes over the wire, read leniently (a field that a cloud leaves out or sends as `null` is
//! its type's default). Left out on purpose: retries other than a new token on 401 (a reconciler's business),
//! client certificates, federation, and every call that nothing here makes.

#[macro_use]
mod lenient;
#[macro_use]
mod resource;

pub mod block_storage;
mod client;
pub mod clouds;
pub mod compute;
mod endpoint;
mod error;
pub mod identity;
pub mod image;
pub mod load_balancer;
pub mod network;
mod pass;
mod query;
mod token;

pub use self::{
    client::{Client, Options},
    clouds::{Auth, Cloud},
    endpoint::{Microversion, Service},
    error::{Class, Error, Result},
    pass::Pass,
    query::Query,
    resource::{Reads, Resource, Writes},
    token::{Access, Endpoint},
};
pub use transport::{Https, Local, Proxies, ProxyError, Tls, Transport, TransportError};

/// The wall clock, in one place.
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
