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
