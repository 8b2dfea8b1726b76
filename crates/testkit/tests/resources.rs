//! What clusters get by their labels.

use api::{
    cluster::Cluster,
    condition,
    resource_set::{ClusterResourceSet, ClusterResourceSetBinding},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use serde_json::{Value, json};
use testkit::{Shape, World};

async fn create<K>(world: &World, object: Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    world.api::<K>().create(&Default::default(), &object).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cluster_gets_what_sets_have_for_its_labels_and_follows_those_that_are_to_be_followed() {
    let world = World::start(6).await;
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: of-map, namespace: extra}}\ndata: {{a: {value}}}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: extra}}\n"
        )
    };
    create::<ConfigMap>(&world, json!({"metadata": {"name": "map"}, "data": {"x.yaml": manifest("one")}})).await;
    let secret =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-secret"}, "data": {"b": "1"}});
    create::<Secret>(&world, json!({"metadata": {"name": "secret"}, "type": "addons.cluster.x-k8s.io/resource-set", "stringData": {"x": secret.to_string()}})).await;
    let set = |name: &str, kind: &str, of: &str, strategy: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "clusterSelector": {"matchLabels": {"tier": "gold"}}, "strategy": strategy, "resources": [{"kind": kind, "name": of}],
        }})
    };
    create::<ClusterResourceSet>(&world, set("follow", "ConfigMap", "map", "Reconcile")).await;
    create::<ClusterResourceSet>(&world, set("once", "Secret", "secret", "ApplyOnce")).await;
    create::<ClusterResourceSet>(&world, set("broken", "ConfigMap", "absent", "ApplyOnce")).await;
    world.create("demo", Shape { control_plane: 1, workers: 0, version: "v1.34.2".into() }).await;
    world.patch::<Cluster>("demo", json!({"metadata": {"labels": {"tier": "gold"}}})).await;

    let says = async |set: &str, reason: &str| {
        let status = world.api::<ClusterResourceSet>().get(set).await.unwrap().status.unwrap_or_default();
        condition::get(&status.conditions, "ResourcesApplied").is_some_and(|found| found.reason == reason)
    };
    world.until("both are applied", async || says("follow", "Applied").await && says("once", "Applied").await).await;
    assert!(says("broken", "NotApplied").await);
    let client = world.workload("demo").await;
    let value = async || {
        let map = Api::<ConfigMap>::namespaced(client.clone(), "extra").get_opt("of-map").await.unwrap();
        map.and_then(|map| map.data).and_then(|mut data| data.remove("a")).unwrap_or_default()
    };
    assert_eq!(value().await, "one");
    let own = Api::<ConfigMap>::namespaced(client.clone(), "default");
    assert!(own.get_opt("of-secret").await.unwrap().is_some());
    own.delete("of-secret", &Default::default()).await.unwrap();

    world.patch::<ConfigMap>("map", json!({"data": {"x.yaml": manifest("two")}})).await;
    world.until("the change arrives", async || value().await == "two").await;
    assert!(own.get_opt("of-secret").await.unwrap().is_none(), "what is applied once is left alone");

    world.api::<ClusterResourceSet>().delete("once", &Default::default()).await.unwrap();
    let forgotten = async || {
        let binding = world.api::<ClusterResourceSetBinding>().get("demo").await.unwrap();
        !serde_json::to_string(&binding.spec).unwrap().contains("once")
    };
    world.until("the binding forgets the set", forgotten).await;
    let gone = async || world.api::<ClusterResourceSet>().get_opt("once").await.unwrap().is_none();
    world.until("the set is gone", gone).await;
    world.delete("demo").await;
    let gone = async || world.api::<ClusterResourceSetBinding>().get_opt("demo").await.unwrap().is_none();
    world.until("the binding goes with its cluster", gone).await;
    world.shutdown().await;
}
