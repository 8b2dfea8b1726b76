//! The Kubernetes API over a [`store`]: one generic registry for built-in kinds and CRDs alike.
//!
//! It exists so that a management cluster, and the hollow workload clusters of the sandbox, need no etcd and no
//! kube-apiserver, and so that controllers cannot tell the difference. A server has no thread of its own, shares all
//! that is the same for each (built-in kinds and their schemas), and is a tower service: `kube::Client` takes it as it is.
//!
//! Left out on purpose: connections to aggregated API servers, `exec` and `proxy` of pods, webhooks that authenticate,
//! PodSecurity and the type checking of admission policies, encryption by anything but AES-GCM,
//! and flow control by API objects.

mod access;
mod admission;
mod aggregation;
mod answer;
mod apply;
mod audit;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod catalog;
mod collector;
mod convert;
mod crd;
mod decode;
mod discovery;
mod documents;
mod fairness;
mod field;
mod forward;
mod health;
mod http;
mod jose;
mod kinds;
mod listen;
mod logs;
mod metrics;
mod names;
mod negotiate;
mod object;
mod oidc;
mod openapi;
mod options;
mod patch;
mod path;
pub mod protobuf;
mod read;
mod request;
mod rest;
mod reviews;
mod schema;
mod seal;
mod selector;
mod server;
mod service_ip;
mod status;
mod stored;
mod strategy;
mod subresource;
mod table;
mod token;
mod trace;
mod watch;
mod webhook;
mod write;

pub use policy::{User, rbac::Attributes};

pub use self::{
    admission::{Admission, Denied, Operation, Request, Warning},
    aggregation::{Aggregated, Backend},
    audit::{Audit, AuditError, AuditLog, AuditWebhook, Batching, PolicyError, Rotation},
    authn::PeerCertificates,
    authz::{Authorization, AuthorizationError, Authorizer, Question, Verdict},
    body::{BODY_BYTES_MAX, DEPTH_MAX},
    collector::{Controller, UnknownController},
    convert::Conversion,
    fairness::RequestLimits,
    field::{FieldError, FieldErrorKind},
    forward::Forward,
    http::HEADERS_BYTES_MAX,
    kinds::builtin::Profile,
    listen::{ListenError, Tls, server_tls, server_tls13},
    logs::Logs,
    oidc::{Anonymous, Authentication, AuthenticationError},
    seal::{Encryption, EncryptionError},
    server::{Clock, Options, Server, ServiceAccountKeys, StartError},
    service_ip::{ServiceRange, ServiceRangeError},
    stored::check_stored,
    token::KeyError,
    trace::{Tracing, TracingError},
    webhook::ReadFile,
    write::OBJECT_BYTES_MAX,
};
