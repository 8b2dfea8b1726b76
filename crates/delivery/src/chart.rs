//! What becomes of a Chart: a release in the cluster that it is in.

pub mod archives;
pub mod controller;
pub mod decision;
pub mod drift;
