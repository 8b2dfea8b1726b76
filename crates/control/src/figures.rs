//! What Prometheus is told of what controllers know.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode_registry, registry::Registry};

/// Whoever knows something that is counted: each scrape counts it anew.
pub trait Counted: Send + Sync + 'static {
    fn register(&self, registry: &mut Registry);
}

/// Where the figures of all controllers of this process are read: those of controllers that work.
#[derive(Clone, Default)]
pub struct Figures(Arc<Mutex<Vec<Weak<dyn Counted>>>>);

impl Figures {
    /// Counts these for as long as they are there.
    pub fn follow<T: Counted>(&self, counted: &Arc<T>) {
        let counted: Arc<dyn Counted> = counted.clone();
        let mut all = self.0.lock();
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&counted));
    }

    /// In OpenMetrics' text form, without its end.
    pub fn text(&self) -> String {
        let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let mut registry = Registry::default();
        all.iter().for_each(|one| one.register(&mut registry));
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode_registry(&mut text, &registry);
        text
    }
}
