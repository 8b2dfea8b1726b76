//! `metrics.k8s.io`: what nodes and pods use, in place of the metrics-server whose pods do not run.
//!
//! Nothing is measured, since nothing runs: a container uses what it requests. Nodes that are not heard of, and their pods, are
//! left out, as by a metrics-server that cannot reach their kubelets.
//!
//! Source: k8s.io/metrics/pkg/apis/metrics/v1beta1/types.go.

use apiserver::{Aggregated, Backend};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use store::{At, Range, SharedStore};

use super::{
    observed::{ROOT, read},
    pods,
    quantity::{self, Amounts},
};
use crate::hollow::Clock;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const NODES: Aggregated = Aggregated { plural: "nodes", kind: "NodeMetrics", namespaced: false };
const PODS: Aggregated = Aggregated { plural: "pods", kind: "PodMetrics", namespaced: true };
/// What metrics-server is told to look back on, unless it is told otherwise.
const WINDOW: &str = "15s";

/// Whether the sandbox answers for a group and version, as soon as the pods are ready that would.
pub fn answers(group: &str, version: &str) -> bool {
    (group, version) == (GROUP, VERSION)
}

pub struct Metrics {
    pub store: SharedStore,
    pub clock: Clock,
}

impl Backend for Metrics {
    fn kinds(&self, group: &str, version: &str) -> Option<&'static [Aggregated]> {
        answers(group, version).then_some(&[NODES, PODS])
    }

    fn objects<'a>(&'a self, _: &'a str, kind: &'a Aggregated) -> BoxFuture<'a, Result<Vec<Value>, String>> {
        Box::pin(async move {
            let nodes: Vec<Node> = self.all("core/nodes").await?;
            let pods: Vec<Pod> = self.all("core/pods").await?;
            let now = (self.clock)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            Ok(if kind.kind == NODES.kind { of_nodes(&nodes, &pods, &now) } else { of_pods(&nodes, &pods, &now) })
        })
    }
}

impl Metrics {
    /// What is not of its kind's form is left out.
    async fn all<T>(&self, resource: &str) -> Result<Vec<T>, String>
    where
        T: serde::de::DeserializeOwned + kube::Resource,
    {
        let page = self.store.range(Range::prefix(format!("{ROOT}{resource}/")), At::Latest, 0).await;
        let items = page.map_err(|error| format!("read {resource}: {error}"))?.items;
        Ok(items.iter().filter_map(|item| read(&item.value, item.modified).ok()).collect())
    }
}

fn is_heard_of(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status != "Unknown")
}

/// The pods that run on a node.
fn running<'a>(pods: &'a [Pod], node: &str) -> impl Iterator<Item = &'a Pod> {
    let here = move |pod: &&Pod| pods::node(pod) == Some(node) && pods::phase(pod) == "Running";
    pods.iter().filter(here)
}

fn usage(amounts: &Amounts) -> Value {
    let of = |name: &str| amounts.get(name).copied().unwrap_or_default();
    json!({"cpu": format!("{}m", of("cpu")), "memory": format!("{}Ki", of("memory") / 1000 / 1024)})
}

fn metadata(object: &impl ResourceExt, now: &str) -> Value {
    let mut metadata = json!({"name": object.name_any(), "labels": object.labels(), "creationTimestamp": now});
    if let Some(namespace) = object.namespace() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn of_nodes(nodes: &[Node], pods: &[Pod], now: &str) -> Vec<Value> {
    let of_one = |node: &Node| {
        let mut sum = Amounts::new();
        let name = node.name_any();
        for spec in running(pods, &name).filter_map(|pod| pod.spec.as_ref()) {
            quantity::add(&mut sum, &quantity::requests(spec));
        }
        json!({"metadata": metadata(node, now), "timestamp": now, "window": WINDOW, "usage": usage(&sum)})
    };
    nodes.iter().filter(|node| is_heard_of(node)).map(of_one).collect()
}

fn of_pods(nodes: &[Node], pods: &[Pod], now: &str) -> Vec<Value> {
    let of_one = |pod: &Pod| {
        let spec = pod.spec.clone().unwrap_or_default();
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers = spec.containers.iter().chain(sidecars);
        let containers = containers
            .map(|container| json!({"name": container.name, "usage": usage(&quantity::asked(container))}))
            .collect::<Vec<_>>();
        json!({"metadata": metadata(pod, now), "timestamp": now, "window": WINDOW, "containers": containers})
    };
    let heard_of: Vec<String> = nodes.iter().filter(|node| is_heard_of(node)).map(ResourceExt::name_any).collect();
    heard_of.iter().flat_map(|node| running(pods, node)).map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use store::{Embedded, Guard, Limits, Op};

    use super::*;

    async fn metrics(objects: &[(&str, Value)]) -> Metrics {
        let store: SharedStore = Arc::new(Embedded::memory(Limits::default()));
        let put = |(key, value): &(&str, Value)| Op::Put {
            key: format!("{ROOT}{key}").into(),
            value: value.to_string().into(),
        };
        store.commit(Guard::default(), objects.iter().map(put).collect()).await.unwrap();
        Metrics { store, clock: Arc::new(|| Timestamp::UNIX_EPOCH) }
    }

    fn node(name: &str, ready: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"zone": "a"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn pod(name: &str, node: &str, phase: &str) -> Value {
        let asks = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}});
        json!({"metadata": {"name": name, "namespace": "default"}, "status": {"phase": phase},
        "spec": {"nodeName": node, "containers": [
            {"name": "a", "resources": asks("100m", "64Mi")}, {"name": "b", "resources": asks("0.5", "1Gi")}, {"name": "c"}]}})
    }

    #[tokio::test]
    async fn what_runs_uses_what_it_requests() {
        let metrics = metrics(&[
            ("core/nodes/w", node("w", "True")),
            ("core/nodes/lost", node("lost", "Unknown")),
            ("core/pods/default/p", pod("p", "w", "Running")),
            ("core/pods/default/waits", pod("waits", "w", "Pending")),
            ("core/pods/default/lost", pod("lost", "lost", "Running")),
        ])
        .await;
        let nodes = metrics.objects(GROUP, &NODES).await.unwrap();
        let [node] = &nodes[..] else { panic!("{nodes:?}") };
        assert_eq!(node["metadata"]["name"], "w");
        assert_eq!(node["metadata"]["labels"], json!({"zone": "a"}));
        assert_eq!(node["usage"], json!({"cpu": "600m", "memory": "1114112Ki"}));
        let pods = metrics.objects(GROUP, &PODS).await.unwrap();
        let [pod] = &pods[..] else { panic!("{pods:?}") };
        let used = |at: usize| (pod["containers"][at]["name"].clone(), pod["containers"][at]["usage"].clone());
        assert_eq!(used(0), (json!("a"), json!({"cpu": "100m", "memory": "65536Ki"})));
        assert_eq!(used(1), (json!("b"), json!({"cpu": "500m", "memory": "1048576Ki"})));
        assert_eq!(used(2), (json!("c"), json!({"cpu": "0m", "memory": "0Ki"})));
        assert_eq!(pod["timestamp"], "1970-01-01T00:00:00Z");
    }
}
