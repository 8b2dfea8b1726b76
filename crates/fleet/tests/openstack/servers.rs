//! Servers that are objects of their own.

use api::{condition, openstack_server::OpenStackServer};
use kube::{
    ResourceExt,
    api::DeleteParams,
    runtime::{conditions::is_deleted, wait::await_condition},
};
use openstack::{
    Query,
    block_storage::Volume,
    compute::Server,
    network::{Network, NetworkDraft, Port, PortDraft, Subnet, SubnetDraft},
};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, message, quick};

async fn network(world: &World) -> String {
    let draft = NetworkDraft { name: "ours".into(), ..Default::default() };
    let network: Network = world.admin.create(&draft).await.unwrap();
    subnet(world, &network.id).await;
    network.id
}

async fn subnet(world: &World, network: &str) {
    let draft = SubnetDraft {
        name: "ours".into(),
        network_id: network.to_owned(),
        cidr: "10.9.0.0/24".into(),
        ip_version: Some(4),
        ..Default::default()
    };
    world.admin.create::<Subnet>(&draft).await.unwrap();
}

fn server(name: &str, ports: Value) -> Value {
    json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "OpenStackServer", "metadata": {"name": name},
        "spec": {
            "identityRef": {"name": "demo-cloud-config", "cloudName": "c-admin"}, "sshKeyName": "", "ports": ports,
            "flavor": "m1.small", "image": {"filter": {"name": "ubuntu-2404-kube"}}, "userDataRef": {"name": "boot"},
            "rootVolume": {"sizeGiB": 10}, "serverMetadata": [{"key": "team", "value": "red"}], "tags": ["one"],
        },
    })
}

async fn until(world: &World, name: &str, is: impl Fn(&OpenStackServer) -> bool) -> OpenStackServer {
    let api = world.api::<OpenStackServer>();
    let wanted = await_condition(api.clone(), name, |server: Option<&OpenStackServer>| server.is_some_and(&is));
    match tokio::time::timeout(LIMIT, wanted).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("not as wanted: {:#?}", api.get(name).await.unwrap().status),
    }
}

fn told(server: &OpenStackServer) -> String {
    message(&server.status.clone().unwrap_or_default().conditions, "InstanceReady")
}

async fn delete(world: &World, name: &str) {
    let api = world.api::<OpenStackServer>();
    let uid = api.get(name).await.unwrap().uid().unwrap();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    tokio::time::timeout(LIMIT, await_condition(api, name, is_deleted(&uid))).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_of_its_own_is_made_and_leaves_nothing_behind() {
    // The answer to its creation is lost: it is found again.
    let world = World::start(quick(), &["servers"]).await;
    let network = network(&world).await;
    world
        .apply(&[
            world.objects(|_| ()).remove(0),
            server(
                "one",
                json!([{"network": {"id": network}}, {"network": {"filter": {"name": "ours"}}, "nameSuffix": "b"}]),
            ),
        ])
        .await;
    until(&world, "one", |server| told(server).contains("Secret boot (userDataRef)")).await;
    world
        .apply(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "boot"}, "stringData": {"value": "#cloud-config\n"}})])
        .await;
    let made = until(&world, "one", |server| server.status.as_ref().is_some_and(|status| status.ready)).await;
    let status = made.status.unwrap();
    assert!(condition::is_true(&status.conditions, "InstanceReady"));
    let all = Query::new().with("all_tenants", 1);
    let servers = world.admin.list::<Server>(&all).await.unwrap();
    assert_eq!((servers.len(), servers[0].name.as_str()), (1, "one"));
    assert_eq!(status.instance_id.as_ref(), Some(&servers[0].id));
    assert_eq!(servers[0].metadata.get("team").map(String::as_str), Some("red"));
    let ports = async || {
        let mut names: Vec<String> =
            world.admin.list::<Port>(&Query::new()).await.unwrap().into_iter().map(|port| port.name).collect();
        names.retain(|name| name.starts_with("one"));
        names.sort();
        names
    };
    assert_eq!(ports().await, ["one-0", "one-b"]);
    assert_eq!(status.addresses.iter().filter(|one| one.type_ == "InternalIP").count(), 2);
    assert_eq!(world.admin.list::<Volume>(&all).await.unwrap().len(), 1);

    delete(&world, "one").await;
    assert_eq!(world.admin.list::<Server>(&all).await.unwrap().len(), 0);
    assert_eq!(world.admin.list::<Volume>(&all).await.unwrap().len(), 0);
    assert_eq!(ports().await, [""; 0]);
}

#[tokio::test]
async fn what_a_server_lacks_is_told_and_it_goes_without_a_trace() {
    let world = World::start(quick(), &[]).await;
    world.apply(&[world.objects(|_| ()).remove(0), server("two", json!([{}]))]).await;
    let told = until(&world, "two", |server| told(server).starts_with("InvalidMachineSpec")).await;
    assert!(!told.status.unwrap().ready);
    assert!(
        self::told(&world.api::<OpenStackServer>().get("two").await.unwrap()).contains("ports[0].network is missing")
    );
    delete(&world, "two").await;
}

#[tokio::test]
async fn a_server_waits_for_a_subnet_and_a_port_from_before_is_made_anew_with_an_address() {
    let world = World::start(quick(), &[]).await;
    let draft = NetworkDraft { name: "ours".into(), ..Default::default() };
    let network: Network = world.admin.create(&draft).await.unwrap();
    let early = PortDraft {
        name: "three-0".into(),
        description: "Created by cluster-api-provider-openstack cluster default-three".into(),
        network_id: network.id.clone(),
        ..Default::default()
    };
    let early: Port = world.admin.create(&early).await.unwrap();
    assert!(early.fixed_ips.is_empty());
    let boot = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "boot"}, "stringData": {"value": "#cloud-config\n"}});
    let wanted = server("three", json!([{"network": {"id": network.id}}]));
    world.apply(&[world.objects(|_| ()).remove(0), boot, wanted]).await;
    until(&world, "three", |server| told(server).contains("a subnet in network ours, for port three-0")).await;
    subnet(&world, &network.id).await;
    until(&world, "three", |server| server.status.as_ref().is_some_and(|status| status.ready)).await;
    let ports = world.admin.list::<Port>(&Query::new().with("network_id", &network.id)).await.unwrap();
    let own: Vec<&Port> = ports.iter().filter(|port| port.name == "three-0").collect();
    assert!(own.len() == 1 && own[0].id != early.id && own[0].fixed_ips.len() == 1, "{own:?}");
    delete(&world, "three").await;
}
