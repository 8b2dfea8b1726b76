//! Apps from a management cluster to workload clusters, in one process: API servers are real, repositories are served from memory.

mod atomic;
mod bad_input;
mod clusters;
mod delivery;
mod drift;
mod registries;
mod wishes;
mod world;
