//! What Prometheus is told of clusters' apps, by the names of the published cluster-apps-operator.

use std::collections::{BTreeMap, HashMap};

use control::{Counted, Key};
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Clusters that are going away: their id, and how many apps of theirs are still there, as their last look found them.
#[derive(Debug, Default)]
pub struct Dangling(Mutex<HashMap<Key, (String, usize)>>);

impl Dangling {
    /// None: the cluster is not waiting for its apps.
    pub fn note(&self, cluster: &Key, apps: Option<(&str, usize)>) {
        let mut all = self.0.lock();
        match apps {
            Some((id, apps)) => drop(all.insert(cluster.clone(), (id.to_owned(), apps))),
            None => drop(all.remove(cluster)),
        }
    }
}

impl Counted for Dangling {
    fn register(&self, registry: &mut Registry) {
        let gauges = Family::<Vec<(&'static str, String)>, Gauge>::default();
        // The published label is the id alone: namesakes are one.
        let mut by_id = BTreeMap::<String, usize>::new();
        for (id, apps) in self.0.lock().values() {
            *by_id.entry(id.clone()).or_default() += apps;
        }
        for (id, apps) in by_id {
            gauges.get_or_create(&vec![("cluster_id", id)]).set(i64::try_from(apps).unwrap_or(i64::MAX));
        }
        registry.register(
            "cluster_apps_operator_cluster_dangling_apps",
            "Apps that are still there of a cluster that is being deleted",
            gauges,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use control::Figures;

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
        for (namespace, id, apps) in [("a", "one", 2), ("b", "one", 3), ("a", "two", 1)] {
            dangling.note(&Key::new(namespace, format!("name-of-{id}")), Some((id, apps)));
        }
        assert_eq!((told("one").as_deref(), told("two").as_deref()), (Some("5"), Some("1")));
        dangling.note(&Key::new("a", "name-of-two"), None);
        assert_eq!(told("two"), None);
    }
}
