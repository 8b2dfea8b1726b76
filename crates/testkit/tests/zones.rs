//! A cloud whose zones change, and what nodes tell of theirs.

use std::time::Duration;

use api::openstack_cluster::OpenStackCluster;
use sandbox::cloud::{Faults, ZoneRule};
use testkit::{Shape, World};

async fn domains(world: &World) -> Vec<String> {
    let infra = world.api::<OpenStackCluster>().get("demo").await.unwrap();
    infra.status.unwrap_or_default().failure_domains.into_iter().map(|domain| domain.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_appears_is_a_failure_domain_within_minutes_and_nodes_say_what_they_are() {
    let world = World::start(31).await;
    let down = serde_json::from_value::<ZoneRule>(serde_json::json!({"name": "az3"})).unwrap();
    world.sandbox.set_faults(Faults { zones_down: vec![down], ..Faults::default() }).unwrap();
    world.create("demo", Shape::default()).await;
    world.available("demo").await;
    assert_eq!(domains(&world).await, ["az1", "az2"]);
    let before = world.elapsed();
    world.sandbox.set_faults(Faults::default()).unwrap();
    world.until("the third zone is known", async || domains(&world).await == ["az1", "az2", "az3"]).await;
    assert!(world.elapsed() - before <= Duration::from_secs(4 * 60), "{:?}", world.elapsed() - before);

    for node in world.nodes("demo").await {
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["node.kubernetes.io/instance-type"], "m1.medium");
        assert_eq!(labels["topology.kubernetes.io/region"], "RegionOne");
        assert!(labels["topology.kubernetes.io/zone"].starts_with("az"));
        assert!(node.spec.unwrap().provider_id.unwrap().starts_with("openstack:///"));
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_that_look_at_zones_at_different_times_do_not_write_against_each_other() {
    let world = World::start(32).await;
    world.create("demo", Shape::default()).await;
    world.available("demo").await;
    let zones = |down: &[&str]| {
        let down = down.iter().map(|name| serde_json::from_value(serde_json::json!({ "name": name })).unwrap());
        world.sandbox.set_faults(Faults { zones_down: down.collect(), ..Faults::default() }).unwrap();
    };
    // One of the two has just been told, and the cluster's own controller is woken by a change that it acts upon.
    tokio::time::sleep(Duration::from_secs(125)).await;
    zones(&["az3"]);
    let spec = serde_json::json!({"spec": {"tags": ["one"]}});
    world.patch::<OpenStackCluster>("demo", spec).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let generation = async || world.api::<OpenStackCluster>().get("demo").await.unwrap().metadata.resource_version;
    let before = generation().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(generation().await, before, "they go on writing");
    world.until("the lost zone is known", async || domains(&world).await == ["az1", "az2"]).await;
    world.shutdown().await;
}
