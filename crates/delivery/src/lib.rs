//! Apps in clusters. `app` and `chart`: their controllers. `release`: charts that are installed in a cluster, upgraded, rolled back and
//! removed. `catalog`: what catalogs offer. `repository`: where charts come from; `embedded`: charts that need no network; `folder`: those of a folder on this machine; `served`: charts for others; `package`: how charts are packed; `mirror`: how they are copied. `target`: the
//! clusters that apps go to.
//!
//! Nothing here blocks, sleeps or polls within a reconcile: what takes time is an outcome that says on what.

pub mod app;
pub mod catalog;
pub mod chart;
mod controllers;
pub mod embedded;
mod figures;
pub mod folder;
pub mod mirror;
pub mod package;
pub mod release;
pub mod repository;
pub mod served;
pub mod target;

pub use self::{
    chart::controller::{PLATFORM_ACCOUNT, TENANT_ACCOUNT},
    controllers::{Options, start},
};
