//! How long reconciles take: the longest of each controller.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Longest(Arc<Mutex<BTreeMap<&'static str, Duration>>>);

impl Longest {
    pub(crate) fn note(&self, controller: &'static str, took: Duration) {
        let mut all = self.0.lock();
        let longest = all.entry(controller).or_default();
        *longest = took.max(*longest);
    }

    /// By the controllers' names.
    pub fn all(&self) -> BTreeMap<&'static str, Duration> {
        self.0.lock().clone()
    }
}
