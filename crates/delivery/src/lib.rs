//! Apps in clusters. `release`: charts that are installed in a cluster, upgraded, rolled back and removed.
//! `repository`: where charts come from. `app`: what an App asks for.
//!
//! Controllers call this from reconciles: nothing here blocks, sleeps or polls. What takes time is an outcome that says on what.

pub mod app;
pub mod release;
pub mod repository;
