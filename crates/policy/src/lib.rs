//! Decisions on requests as pure functions: who may do what.
//!
//! The API server asks, this crate answers; it does no IO, owns no clock and keeps no task. Now it holds RBAC
//! ([`rbac`]) with its escalation check and the users that requests are made as. Left out so far: CEL and tenants' own
//! policies.

pub mod rbac;
pub mod user;

pub use user::User;
