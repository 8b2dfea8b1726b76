//! What becomes of an App: values by layers, the place of its chart, the Chart in the target cluster, a status.

pub mod chart;
pub mod controller;
pub mod dependencies;
pub mod interests;
pub mod news;
pub mod source;
pub mod status;
pub mod values;

/// As the published controller calls itself in what it writes.
pub const MANAGER: &str = "app-operator";
