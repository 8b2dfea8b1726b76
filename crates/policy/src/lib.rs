//! Decisions on requests as pure functions: who may do what.
//!
//! The API server asks, this crate answers; it does no IO, owns no clock and keeps no task. Now it holds RBAC
//! ([`rbac`]) with its escalation check and the users that requests are made as, and CEL
//! ([`cel`]), which rules of schemas are written in. Left out so far: tenants' own policies.

pub mod cel;
pub mod rbac;
pub mod user;

pub use user::User;
