//! Releases: a chart that is installed with values in a namespace of a cluster, as Helm 3 keeps them, so that the stock `helm` works on
//! ours and we on its. An [`Engine`] carries requests out: each call makes the progress that is possible at once and says where it
//! stands. Where that is lies in the release's own Secret, so any process can go on.

mod apply;
mod chart;
mod cluster;
mod comparison;
mod drift;
mod engine;
mod error;
mod hooks;
mod logs;
mod merge;
mod object;
pub mod readiness;
mod record;
mod rendering;
pub mod storage;

pub use self::{
    comparison::{Change, Difference, Verdict},
    drift::{Field, Installed},
    engine::{Engine, Limits, Namespace, Options, Outcome, Propagation, Request, Selection, Testing},
    error::{Class, Error, Result},
    logs::{Log, Output},
    object::{Id, OBJECTS_MAX},
    record::{Execution, Hook, Info, Phase, Release, Status},
    rendering::{Chance, LOOKUPS_MAX},
};
