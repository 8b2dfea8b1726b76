//! The API as clients see it, in process: through `kube::Client`, and byte by byte where that matters.

mod access;
mod admission;
mod aggregation;
mod bad_input;
mod conversion;
mod crd;
mod deciders;
mod forms;
mod garbage;
mod hook;
mod identity;
mod issuer;
mod noise;
mod operation;
mod policies;
mod quotas;
mod registry;
mod support;
mod tenants;
mod together;
mod traces;
mod watching;
mod webhooks;
mod workload;
