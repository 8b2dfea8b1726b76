//! What Prometheus is told of clusters' apps, by the names of the published cluster-apps-operator.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use control::Key;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Clusters that are going away, and how many apps of theirs are still there, as their last look found them.
#[derive(Debug, Default)]
pub struct Dangling(Mutex<HashMap<Key, usize>>);

impl Dangling {
    /// None: the cluster is not waiting for its apps.
    pub fn note(&self, cluster: &Key, apps: Option<usize>) {
        let mut all = self.0.lock();
        match apps {
            Some(apps) => drop(all.insert(cluster.clone(), apps)),
            None => drop(all.remove(cluster)),
        }
    }
}

/// Where the figures are read: empty until the controllers of this process work.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Mutex<Weak<Dangling>>>);

impl Figures {
    pub(crate) fn follow(&self, dangling: &Arc<Dangling>) {
        *self.0.lock() = Arc::downgrade(dangling);
    }

    /// In OpenMetrics' text form, without its end.
    pub fn text(&self) -> String {
        let Some(dangling) = self.0.lock().upgrade() else { return String::new() };
        let gauges = Family::<Vec<(&'static str, String)>, Gauge>::default();
        // The published label is the name alone: namesakes are one.
        let mut by_name = BTreeMap::<String, usize>::new();
        for (key, apps) in dangling.0.lock().iter() {
            *by_name.entry(key.name.clone()).or_default() += apps;
        }
        for (name, apps) in by_name {
            gauges.get_or_create(&vec![("cluster_id", name)]).set(i64::try_from(apps).unwrap_or(i64::MAX));
        }
        let mut registry = Registry::default();
        registry.register(
            "cluster_apps_operator_cluster_dangling_apps",
            "Apps that are still there of a cluster that is being deleted",
            gauges,
        );
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode_registry(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namesakes_are_counted_together_and_whoever_waits_no_more_is_not_told() {
        let (figures, dangling) = (Figures::default(), Arc::new(Dangling::default()));
        assert_eq!(figures.text(), "", "nobody works");
        figures.follow(&dangling);
        let told = |name: &str| {
            let begin = format!("cluster_apps_operator_cluster_dangling_apps{{cluster_id=\"{name}\"}} ");
            figures.text().lines().find_map(|line| line.strip_prefix(&begin).map(str::to_owned))
        };
        for (key, apps) in [(Key::new("a", "one"), 2), (Key::new("b", "one"), 3), (Key::new("a", "two"), 1)] {
            dangling.note(&key, Some(apps));
        }
        assert_eq!((told("one").as_deref(), told("two").as_deref()), (Some("5"), Some("1")));
        dangling.note(&Key::new("a", "two"), None);
        assert_eq!(told("two"), None);
    }
}
