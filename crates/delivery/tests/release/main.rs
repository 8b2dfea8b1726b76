//! Releases in a cluster, through the API of Kubernetes.

mod comparing;
mod hooks;
mod installing;
mod limits;
mod resuming;
mod support;
mod testing;
mod waiting;
