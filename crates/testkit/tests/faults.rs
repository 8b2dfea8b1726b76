//! What a cluster makes of a cloud that fails in one way.

use std::time::Duration;

use api::{
    cluster::Cluster, condition, machine::Machine, openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachine, openstack_server::OpenStackServer,
};
use openstack::compute::{Server, ServerDraft, ServerNetwork};
use sandbox::cloud::{BuildRule, Built, CallRule, Effect, End, Faults, When};
use serde_json::{Value, json};
use testkit::{CLOUD, Shape, World};

fn build(what: Built, name: Option<&str>, error: &str) -> BuildRule {
    let (name, error) = (name.map(str::to_owned), Some(error.to_owned()));
    BuildRule { what, name, when: When::times(1), error, slow_ms: 0 }
}

async fn ready(world: &World, count: usize) {
    let ready = async || {
        let machines = world.machines().await;
        let is = |machine: &Machine| {
            let status = machine.status.clone().unwrap_or_default();
            machine.metadata.deletion_timestamp.is_none() && condition::is_true(&status.conditions, "Ready")
        };
        machines.len() == count && machines.iter().all(is)
    };
    world.until("all machines are ready", ready).await;
}

/// Waits until a Machine says this of its infrastructure; its name.
async fn told(world: &World, text: &str) -> String {
    let found = async || {
        let says = |machine: &Machine| {
            let conditions = machine.status.clone().unwrap_or_default().conditions;
            let ready = condition::get(&conditions, "InfrastructureReady").cloned();
            ready.is_some_and(|ready| ready.message.contains(text))
        };
        world.machines().await.into_iter().find(says).and_then(|machine| machine.metadata.name)
    };
    world.until(&format!("a machine says {text:?}"), async || found().await.is_some()).await;
    found().await.unwrap()
}

async fn end(world: World) {
    world.delete("demo").await;
    let gone = async || world.api::<Cluster>().get_opt("demo").await.unwrap().is_none();
    world.until("the cluster is gone", gone).await;
    world.until("nothing is left in the cloud", async || world.in_cloud().await.is_empty()).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_have_no_host_or_vanish_are_told_on_their_machines_and_replaced() {
    let world = World::start(11).await;
    let failing = build(Built::Server, Some("demo-md"), "No valid host was found.");
    world.sandbox.set_faults(Faults { builds: vec![failing], ..Faults::default() }).unwrap();
    world.create("demo", Shape::default()).await;
    let failed = told(&world, "No valid host was found.").await;
    world.api::<Machine>().delete(&failed, &Default::default()).await.unwrap();
    ready(&world, 2).await;
    let is_worker = |machine: &OpenStackMachine| machine.metadata.name.as_ref().unwrap().starts_with("demo-md");
    let machines = world.api::<OpenStackMachine>().list(&Default::default()).await.unwrap();
    let worker = machines.items.into_iter().find(is_worker).unwrap();
    assert!(world.sandbox.end_server(&worker.status.unwrap().instance_id.unwrap(), End::Vanish));
    let lost = told(&world, "does not exist any more").await;
    world.api::<Machine>().delete(&lost, &Default::default()).await.unwrap();
    ready(&world, 2).await;
    end(world).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_and_a_volume_that_could_not_be_made_are_made_anew() {
    let world = World::start(12).await;
    let builds = vec![build(Built::LoadBalancer, None, "no amphora"), build(Built::Volume, None, "no space")];
    world.sandbox.set_faults(Faults { builds, ..Faults::default() }).unwrap();
    let volumes = |object: &mut Value| {
        if object["kind"] == "OpenStackMachineTemplate" {
            object["spec"]["template"]["spec"]["rootVolume"] = json!({"sizeGiB": 20});
        }
    };
    world.create_with("demo", Shape::default(), volumes).await;
    world.available("demo").await;
    ready(&world, 2).await;
    assert_eq!(world.sandbox.struck()[1], [1, 1]);
    let there = world.in_cloud().await;
    assert_eq!((there["load balancers"], there["volumes"]), (1, 2));
    end(world).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_makes_after_nobody_waits_any_more_is_not_left() {
    let world = World::start(13).await;
    // Clients wait for 30 s.
    let late = |service: &str, path: &str| {
        let effect = Effect::Delay { min_ms: 33_000, max_ms: 45_000 };
        CallRule::on(service, "POST", path, When::times(1), effect)
    };
    let network = ["networks", "routers", "security-groups", "floatingips", "ports"].map(|path| late("network", path));
    let calls = network.into_iter().chain([late("load-balancer", "loadbalancers"), late("compute", "servers")]);
    world.sandbox.set_faults(Faults { calls: calls.collect(), ..Faults::default() }).unwrap();
    world.create("demo", Shape::default()).await;
    world.available("demo").await;
    ready(&world, 2).await;
    assert_eq!(world.sandbox.struck()[0], [1; 7]);
    end(world).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_makes_late_goes_although_the_controllers_began_anew() {
    let mut world = World::start(14).await;
    // Clients wait for 30 s.
    let late = |service: &str, path: &str| {
        let effect = Effect::Delay { min_ms: 33_000, max_ms: 45_000 };
        CallRule::on(service, "POST", path, When::times(1), effect)
    };
    let calls = vec![late("network", "networks"), late("network", "floatingips"), late("compute", "servers")];
    world.sandbox.set_faults(Faults { calls, ..Faults::default() }).unwrap();
    world.create("demo", Shape::default()).await;
    for rule in 0..3 {
        world.until("a call gets no answer", async || world.sandbox.struck()[0][rule] == 1).await;
        tokio::time::sleep(Duration::from_secs(32)).await;
        world.restart_controllers().await;
    }
    world.available("demo").await;
    ready(&world, 2).await;
    let once = async || {
        let there = world.in_cloud().await;
        ["networks", "floating ips"].iter().all(|kind| there[kind] == 1) && there["servers"] == 2
    };
    world.until("nothing is there twice", once).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(once().await, "{:?}", world.in_cloud().await);
    end(world).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_made_twice_for_a_bastion_or_a_server_goes_while_it_runs() {
    let world = World::start(15).await;
    world.create("demo", Shape::default()).await;
    world.available("demo").await;
    ready(&world, 2).await;
    // Clients wait for 30 s.
    let late = |service: &str, path: &str| {
        let effect = Effect::Delay { min_ms: 31_000, max_ms: 31_000 };
        CallRule::on(service, "POST", path, When::times(1), effect)
    };
    let calls = || vec![late("network", "ports"), late("compute", "servers")];
    let count = async |kind: &str| world.in_cloud().await.get(kind).copied().unwrap_or_default();
    let (flavor, image) = ("m1.tiny", json!({"filter": {"name": "ubuntu-2404-kube"}}));

    let (servers, ports) = (count("servers").await, count("ports").await);
    world.sandbox.set_faults(Faults { calls: calls(), ..Faults::default() }).unwrap();
    let bastion = json!({"enabled": true, "spec": {"flavor": {"filter": {"name": flavor}}, "image": image}});
    world.patch::<OpenStackCluster>("demo", json!({"spec": {"bastion": bastion}})).await;
    let id = async || {
        let infra = world.api::<OpenStackCluster>().get("demo").await.unwrap();
        infra.status.unwrap().bastion.filter(|bastion| bastion.floating_ip.is_some())?.id
    };
    world.until("the bastion is reached", async || id().await.is_some()).await;
    assert_eq!(world.sandbox.struck()[0], [1, 1]);
    let first = id().await;
    assert_eq!(count("ports").await, ports + 2, "one was made twice");
    let once = async || [count("servers").await, count("ports").await] == [servers + 1, ports + 1];
    world.until("it is there once", once).await;
    assert_eq!(id().await, first, "the one in use stays");

    world.sandbox.set_faults(Faults { calls: calls(), ..Faults::default() }).unwrap();
    let network = json!({"filter": {"name": "k8s-clusterapi-cluster-default-demo"}});
    let server = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "OpenStackServer", "metadata": {"name": "aside"},
        "spec": {
            "identityRef": {"name": "demo-cloud-config", "cloudName": CLOUD}, "sshKeyName": "", "flavor": flavor, "image": image,
            "ports": [{"network": network}],
        },
    });
    world.apply(&server).await;
    let is_ready = async || {
        let aside = world.api::<OpenStackServer>().get("aside").await.unwrap();
        aside.status.is_some_and(|status| status.ready)
    };
    world.until("the server is ready", is_ready).await;
    assert_eq!(world.sandbox.struck()[0], [1, 1]);
    let once = async || [count("servers").await, count("ports").await] == [servers + 2, ports + 2];
    tokio::time::sleep(Duration::from_secs(45)).await;
    world.until("it is there once", once).await;
    world.api::<OpenStackServer>().delete("aside", &Default::default()).await.unwrap();
    end(world).await;
}

#[tokio::test(start_paused = true)]
async fn a_bastion_whose_server_is_lost_keeps_the_one_that_was_made_twice_and_its_port() {
    let world = World::start(16).await;
    world.create("demo", Shape::default()).await;
    world.available("demo").await;
    let failing = build(Built::Server, Some("default-demo-bastion"), "No valid host was found.");
    world.sandbox.set_faults(Faults { builds: vec![failing], ..Faults::default() }).unwrap();
    let spec = json!({"flavor": {"filter": {"name": "m1.tiny"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
    world.patch::<OpenStackCluster>("demo", json!({"spec": {"bastion": {"enabled": true, "spec": spec}}})).await;
    let shown = async || world.api::<OpenStackCluster>().get("demo").await.unwrap().status.unwrap().bastion;
    let failed = async || shown().await.is_some_and(|bastion| bastion.state.as_deref() == Some("ERROR"));
    world.until("the bastion's server is in ERROR", failed).await;

    // A call whose answer nobody waited for makes another of the port that the first has freed.
    let bastion = shown().await.unwrap();
    let (lost, resolved) = (bastion.id.unwrap(), bastion.resolved.unwrap());
    let twin = ServerDraft {
        name: bastion.name.unwrap(),
        flavor_ref: resolved.flavor_id.unwrap(),
        image_ref: resolved.image_id,
        networks: vec![ServerNetwork { port: Some(bastion.resources.unwrap().ports[0].id.clone()), uuid: None }],
        metadata: world.cloud.get::<Server>(&lost).await.unwrap().metadata,
        ..ServerDraft::default()
    };
    let twin: Server = world.tenant().create(&twin).await.unwrap();
    world.cloud.remove::<Server>(&lost).await.unwrap();
    let reached = async || shown().await.is_some_and(|bastion| bastion.floating_ip.is_some());
    world.until("the bastion is reached", reached).await;
    assert_eq!(shown().await.unwrap().id, Some(twin.id));
    end(world).await;
}
