//! What runs in a hollow cluster besides its API: the scheduler, kubelets, and the controllers of kube-controller-manager that
//! make pods and tell how they are.
//!
//! Each part is a pure function from what the cluster has to what is to be written. One task for each cluster looks at the
//! store's changes, asks all parts when something has changed that concerns them, writes, and asks again until nothing is
//! left to do. Between changes nothing is kept in memory and nothing is polled; a cluster that has only what kubeadm and
//! kubelets leave in it is not looked at at all.

mod adoption;
mod aggregation;
mod autoscaler;
mod budgets;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod history;
mod job;
pub mod kubelet;
pub mod metrics;
mod nodes;
mod observed;
mod plan;
mod pods;
mod provider;
mod quantity;
mod replica_set;
mod scheduler;
mod services;
mod stateful_set;
mod volumes;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use store::{At, Event, Range, Revision, SharedStore, Watch, WatchItem};
use tracing::{debug, warn};

use self::{
    observed::{CLOUD_CONFIG, Observed, RESOURCES, ROOT},
    plan::Plan,
    provider::{Outcome, Provider, Task},
};
use super::cluster::Cluster;

/// Pauses after a pass of which nothing could be written, or that could not be made: doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Passes without a pause: more means that two parts do not agree on something.
const PASSES_MAX: u32 = 1000;
/// Between two looks at a cloud that is at work for the cluster.
const CLOUD_PAUSE: Duration = Duration::from_millis(500);

/// In this order: who owns what is asked first, since all else counts what is owned.
const PARTS: &[fn(&Observed, &mut Plan)] = &[
    adoption::plan,
    nodes::plan,
    kubelet::plan,
    scheduler::plan,
    replica_set::plan,
    deployment::plan,
    daemon_set::plan,
    stateful_set::plan,
    job::plan,
    cron_job::plan,
    services::plan,
    endpoints::plan,
    aggregation::plan,
    budgets::plan,
    volumes::plan,
    autoscaler::plan,
];

fn plan(seen: &Observed) -> Plan {
    let mut plan = Plan::default();
    for part in PARTS {
        part(seen, &mut plan);
    }
    plan
}

/// Follows a cluster until it ends.
pub async fn run(cluster: Weak<Cluster>) {
    let Some(store) = cluster.upgrade().map(|cluster| cluster.server.store().clone()) else { return };
    let mut workloads = Workloads {
        cluster,
        store,
        awake: false,
        refused: BTreeMap::new(),
        pause: RETRY_MIN,
        provider: None,
        balanced: BTreeMap::new(),
        missing: BTreeSet::new(),
    };
    while workloads.follow().await.is_some() {}
}

struct Workloads {
    cluster: Weak<Cluster>,
    store: SharedStore,
    /// There is more than what kubeadm and kubelets leave.
    awake: bool,
    refused: BTreeMap<String, String>,
    pause: Duration,
    /// The cluster's access to its cloud, as the version of its Secret says.
    provider: Option<(Option<String>, Arc<Provider>)>,
    /// What the load balancers of Services were last brought in line with, by UID.
    balanced: BTreeMap<String, u64>,
    /// ConfigMaps and Secrets that pods wait for, by their keys below the root.
    missing: BTreeSet<String>,
}

/// When to look again though nothing changes.
struct Settled {
    seen: Revision,
    wake: Option<Duration>,
}

impl Workloads {
    /// Until changes are lost, or (none) the cluster is.
    async fn follow(&mut self) -> Option<()> {
        let mut watch = match self.store.watch(Range::prefix(ROOT), self.store.revision()) {
            Ok(watch) => watch,
            Err(error) => {
                debug!(%error, "a hollow cluster is not watched");
                tokio::time::sleep(RETRY_MIN).await;
                return Some(());
            }
        };
        if !self.awake {
            self.awake = self.has_workloads().await;
        }
        loop {
            let settled = if self.awake { self.settle().await? } else { Settled { seen: Revision(0), wake: None } };
            let timer = async {
                match settled.wake {
                    Some(wake) => tokio::time::sleep(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                more = self.changed(&mut watch, settled.seen) => if !more { return Some(()) },
            }
        }
    }

    /// Returns when something has changed that the parts have not seen; false if changes were lost.
    async fn changed(&mut self, watch: &mut Watch, seen: Revision) -> bool {
        let mut changed = false;
        loop {
            let item = match watch.next().now_or_never() {
                Some(item) => item,
                // Changes come in bursts: one pass for all that are there.
                None if changed => return true,
                None => watch.next().await,
            };
            match item {
                Some(WatchItem::Event(event)) => changed |= event.revision() > seen && self.concerns(&event),
                Some(WatchItem::Bookmark(_)) => {}
                Some(WatchItem::Compacted) | None => return false,
            }
        }
    }

    fn concerns(&mut self, event: &Event) -> bool {
        let Some((resource, rest)) = split(event.key()) else { return self.is_awaited(event.key()) };
        if self.awake {
            return true;
        }
        self.awake = match event {
            Event::Put { item, .. } => wakes(resource, rest, &item.value),
            Event::Delete { .. } => false,
        };
        self.awake
    }

    fn is_awaited(&self, key: &[u8]) -> bool {
        let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(ROOT));
        key.is_some_and(|key| self.missing.contains(key))
    }

    async fn has_workloads(&self) -> bool {
        for resource in RESOURCES {
            let page = self.store.range(Range::prefix(format!("{ROOT}{resource}/")), At::Latest, 0).await;
            // Whoever looks closer says what is wrong.
            let Ok(items) = page.map(|page| page.items) else { return true };
            let wakes = |item: &store::KeyValue| split(&item.key).is_some_and(|(r, rest)| wakes(r, rest, &item.value));
            if items.iter().any(wakes) {
                return true;
            }
        }
        false
    }

    /// Passes until nothing is left to do now; none if the cluster has ended.
    async fn settle(&mut self) -> Option<Settled> {
        for _ in 0..PASSES_MAX {
            let cluster = self.cluster.upgrade()?;
            let now = (cluster.clock)();
            let revision = self.store.revision();
            let mut seen = match Observed::load(&self.store, now).await {
                Ok(seen) => seen,
                Err(error) => {
                    warn!(cluster = cluster.id, %error, "a hollow cluster's workloads stand still");
                    return Some(Settled { seen: revision, wake: Some(self.longer()) });
                }
            };
            seen.refused = std::mem::take(&mut self.refused);
            self.missing.clone_from(&seen.missing);
            let plan = plan(&seen);
            let wake = plan.wake.map(|at| until(now, at));
            let mut done = writer::carry_out(&cluster, plan.writes).await;
            self.refused = std::mem::take(&mut done.refused);
            let mut cloud = None;
            if !done.progress {
                let (writes, at) = self.in_cloud(&cluster, &seen, &mut done.failures).await;
                done.progress = writer::carry_out(&cluster, writes).await.progress;
                cloud = at;
            }
            if done.progress {
                self.pause = RETRY_MIN;
                continue;
            }
            let retry = (done.failures > 0).then(|| self.longer());
            if retry.is_none() {
                self.pause = RETRY_MIN;
            }
            return Some(Settled { seen: revision, wake: [wake, retry, cloud].into_iter().flatten().min() });
        }
        warn!(passes = PASSES_MAX, "a hollow cluster's workloads do not settle");
        Some(Settled { seen: self.store.revision(), wake: Some(self.longer()) })
    }

    /// Goes on with what the cluster wants of its cloud: what is to be written of it, and when to look at the cloud again.
    async fn in_cloud(
        &mut self,
        cluster: &Cluster,
        seen: &Observed,
        failures: &mut usize,
    ) -> (Vec<plan::Write>, Option<Duration>) {
        self.balanced.retain(|uid, _| seen.services.iter().any(|service| service.metadata.uid.as_ref() == Some(uid)));
        let tasks = provider::tasks(seen, &self.balanced);
        let (mut plan, mut again) = (Plan::default(), None);
        let provider = if tasks.is_empty() { None } else { self.provider(cluster, seen) };
        for task in &tasks {
            let outcome = match &provider {
                None => break,
                Some(Ok(provider)) => {
                    provider.carry_out(seen, task, &mut plan).await.map_err(|error| error.to_string())
                }
                Some(Err(why)) => Err(why.clone()),
            };
            match (outcome, task) {
                (Ok(Outcome::Done), Task::Balance { service, digest }) => {
                    self.balanced.insert(service.metadata.uid.clone().unwrap_or_default(), *digest);
                }
                (Ok(Outcome::Done), _) => {}
                (Ok(Outcome::Waits), _) => again = Some(CLOUD_PAUSE),
                (Err(why), _) => {
                    debug!(cluster = cluster.id, why, ?task, "the cloud does not do what a hollow cluster wants");
                    task.fail(seen, &why, &mut plan);
                    *failures += 1;
                }
            }
        }
        (plan.writes, again)
    }

    /// None if the cluster has no access to a cloud.
    fn provider(&mut self, cluster: &Cluster, seen: &Observed) -> Option<Result<Arc<Provider>, String>> {
        let version = seen.cloud_config.as_ref()?.metadata.resource_version.clone();
        if let Some((known, provider)) = &self.provider
            && *known == version
        {
            return Some(Ok(Arc::clone(provider)));
        }
        let provider = Provider::of(seen, &cluster.cloud)?.map(Arc::new);
        self.provider = provider.as_ref().ok().map(|provider| (version, Arc::clone(provider)));
        Some(provider)
    }

    fn longer(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = RETRY_MAX.min(pause * 2);
        pause
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

/// `core/pods` and the rest of the key, if it is of a kind that concerns the parts.
fn split(key: &[u8]) -> Option<(&'static str, &str)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    if key == CLOUD_CONFIG {
        return Some((CLOUD_CONFIG, ""));
    }
    RESOURCES.iter().find_map(|resource| Some((*resource, key.strip_prefix(resource)?.strip_prefix('/')?)))
}

/// Whether an object is more than what every cluster has from its beginning on. The addons of kubeadm run in a cluster from
/// the time on when somebody has brought something else.
fn wakes(resource: &str, name: &str, value: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        annotations: BTreeMap<String, String>,
        deletion_timestamp: Option<String>,
    }
    match (resource, name) {
        ("core/namespaces" | "core/nodes" | "storage.k8s.io/storageclasses" | CLOUD_CONFIG, _) => false,
        ("apps/daemonsets", "kube-system/kube-proxy") | ("apps/deployments", "kube-system/coredns") => false,
        ("core/services", "kube-system/kube-dns" | "default/kubernetes") => false,
        ("core/pods", _) => {
            let head = serde_json::from_slice::<Head>(value).map(|head| head.metadata).unwrap_or_default();
            let mirror = head.annotations.contains_key("kubernetes.io/config.mirror");
            !mirror || head.deletion_timestamp.is_some()
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_somebody_has_brought_wakes_a_cluster() {
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
        let mut going = mirror.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let none = json!({});
        for (key, value, want) in [
            ("core/nodes/w", &none, false),
            ("core/namespaces/team", &none, false),
            ("storage.k8s.io/storageclasses/standard", &none, false),
            ("core/secrets/kube-system/cloud-config", &none, false),
            ("apps/daemonsets/kube-system/kube-proxy", &none, false),
            ("apps/deployments/kube-system/coredns", &none, false),
            ("core/services/kube-system/kube-dns", &none, false),
            ("core/pods/kube-system/etcd-cp", &mirror, false),
            ("core/pods/kube-system/etcd-cp", &going, true),
            ("core/pods/default/web", &none, true),
            ("apps/deployments/default/coredns", &none, true),
            ("core/persistentvolumeclaims/default/data", &none, true),
            ("core/services/default/web", &none, true),
        ] {
            let key = format!("{ROOT}{key}");
            let (resource, name) = split(key.as_bytes()).unwrap();
            assert_eq!(wakes(resource, name, value.to_string().as_bytes()), want, "{key}");
        }
        for other in ["core/events/default/e", "core/secrets/default/s", "core/podtemplates/default/p", "apps/x"] {
            assert_eq!(split(format!("{ROOT}{other}").as_bytes()), None, "{other}");
        }
    }
}
