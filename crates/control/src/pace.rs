//! How long writes take at present, which says how busy the server and this process are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Of how many writes it is a mean.
const WRITES: u32 = 32;

/// Cheap to clone; clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<AtomicU64>);

impl Pace {
    /// A write was made, and the caches have read it. Of two that end at once one may not count.
    pub fn took(&self, time: Duration) {
        let mean = (self.mean() * (WRITES - 1) + time) / WRITES;
        self.0.store(u64::try_from(mean.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}
