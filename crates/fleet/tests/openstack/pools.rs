//! Floating IPs from pools.

use std::collections::BTreeSet;

use api::{
    condition,
    ip_address::{IPAddress, IPAddressClaim},
    openstack_pool::OpenStackFloatingIPPool as Pool,
};
use kube::{
    ResourceExt,
    api::DeleteParams,
    runtime::{conditions::is_deleted, wait::await_condition},
};
use openstack::{
    Query,
    network::{FloatingIp, FloatingIpDraft},
};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, is_ready, message, quick};

const READY: &str = "OpenstackFloatingIPPoolReadyCondition";

fn pool(world: &World, more: Value) -> Value {
    let mut spec = json!({
        "identityRef": {"name": "demo-cloud-config", "cloudName": "c-admin"}, "reclaimPolicy": "Delete",
        "floatingIPNetwork": {"id": world.cloud.external_network()},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "OpenStackFloatingIPPool",
           "metadata": {"name": "pool"}, "spec": spec})
}

fn claim(name: &str) -> Value {
    json!({"apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "metadata": {"name": name},
           "spec": {"poolRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackFloatingIPPool", "name": "pool"}}})
}

async fn answered(world: &World, name: &str) -> String {
    let is =
        |claim: Option<&IPAddressClaim>| claim.and_then(|claim| claim.status.as_ref()?.address_ref.as_ref()).is_some();
    tokio::time::timeout(LIMIT, await_condition(world.api(), name, is)).await.unwrap().unwrap();
    world.api::<IPAddress>().get(name).await.unwrap().spec.address
}

async fn until(world: &World, is: impl Fn(&Pool) -> bool) -> Pool {
    let wanted = await_condition(world.api::<Pool>(), "pool", |pool: Option<&Pool>| pool.is_some_and(&is));
    match tokio::time::timeout(LIMIT, wanted).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("not as wanted: {:#?}", world.api::<Pool>().get("pool").await.unwrap().status),
    }
}

async fn gone<K>(world: &World, name: &str)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api = world.api::<K>();
    let uid = api.get(name).await.unwrap().uid().unwrap();
    api.delete(name, &DeleteParams::background()).await.unwrap();
    tokio::time::timeout(LIMIT, await_condition(api, name, is_deleted(&uid))).await.unwrap().unwrap();
}

async fn in_cloud(world: &World) -> BTreeSet<String> {
    let all = world.admin.list::<FloatingIp>(&Query::new()).await.unwrap();
    all.into_iter().map(|ip| ip.floating_ip_address).collect()
}

fn lists(pool: &Pool) -> (Vec<String>, Vec<String>, Vec<String>) {
    let status = pool.status.clone().unwrap_or_default();
    (status.claimed_ips, status.available_ips, status.failed_ips)
}

#[tokio::test]
async fn claims_are_answered_up_to_the_limit_and_what_is_given_back_is_given_out_again() {
    // The answer to the first floating IP's creation is lost: it is found, not made twice.
    let world = World::start(quick(), &["floatingips"]).await;
    let more = json!({"maxIPs": 2, "reclaimPolicy": "Retain"});
    world.apply(&[world.objects(|_| ()).remove(0), pool(&world, more), claim("a"), claim("b")]).await;
    let (a, b) = (answered(&world, "a").await, answered(&world, "b").await);
    assert_eq!(in_cloud(&world).await, BTreeSet::from([a.clone(), b.clone()]));
    until(&world, |pool| {
        lists(pool).0.len() == 2 && condition::is_true(&pool.status.as_ref().unwrap().conditions, READY)
    })
    .await;
    world.apply(&[claim("c")]).await;
    let full =
        until(&world, |pool| message(&pool.status.as_ref().unwrap().conditions, READY).starts_with("MaxIPsReached"))
            .await;
    assert_eq!(lists(&full).0.len(), 2);

    gone::<IPAddressClaim>(&world, "a").await;
    assert_eq!(answered(&world, "c").await, a);
    assert_eq!(in_cloud(&world).await, BTreeSet::from([a, b]));
    gone::<IPAddressClaim>(&world, "b").await;
    gone::<IPAddressClaim>(&world, "c").await;
    until(&world, |pool| lists(pool).1.len() == 2).await;
    gone::<Pool>(&world, "pool").await;
    assert_eq!(in_cloud(&world).await, BTreeSet::new());
}

#[tokio::test]
async fn addresses_of_the_spec_go_first_and_stay() {
    let world = World::start(quick(), &[]).await;
    let draft = FloatingIpDraft { floating_network_id: world.cloud.external_network(), ..Default::default() };
    let given: FloatingIp = world.admin.create(&draft).await.unwrap();
    let given = given.floating_ip_address;
    // One of them does not exist.
    let more = json!({"preAllocatedFloatingIPs": ["198.51.100.7", given]});
    world.apply(&[world.objects(|_| ()).remove(0), pool(&world, more), claim("a"), claim("b")]).await;
    let got = BTreeSet::from([answered(&world, "a").await, answered(&world, "b").await]);
    assert!(got.contains(&given), "{got:?}");
    assert_eq!(in_cloud(&world).await, got);
    until(&world, |pool| lists(pool).2 == ["198.51.100.7"]).await;
    gone::<IPAddressClaim>(&world, "a").await;
    gone::<IPAddressClaim>(&world, "b").await;
    gone::<Pool>(&world, "pool").await;
    assert_eq!(in_cloud(&world).await, BTreeSet::from([given]));
}

#[tokio::test]
async fn a_machine_has_its_floating_ip_from_the_pool_and_gives_it_back() {
    let world = World::start(quick(), &[]).await;
    let mut objects = world.objects(|_| ());
    for object in &mut objects {
        if object["kind"] == "OpenStackMachineTemplate" {
            object["spec"]["template"]["spec"]["floatingIPPoolRef"] = json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackFloatingIPPool", "name": "pool"});
        }
    }
    // The servers' project.
    let pool = pool(&world, json!({"identityRef": {"name": "demo-cloud-config", "cloudName": "c"}}));
    world.apply(&objects).await;
    let told = |machine: &api::openstack_machine::OpenStackMachine| {
        message(&machine.status.clone().unwrap_or_default().conditions, "FloatingAddressFromPoolReady")
    };
    world.machine(|machine| told(machine).starts_with("WaitingForIPAMProvider")).await;
    world.apply(&[pool]).await;
    let machine = world.machine(is_ready).await;
    assert!(told(&machine).starts_with("Ready"), "{}", told(&machine));
    let claim = format!("{}-floating-ip-address", machine.name_any());
    let address = answered(&world, &claim).await;
    let shown = machine.status.unwrap().addresses;
    assert!(shown.iter().any(|one| one.type_ == "ExternalIP" && one.address == address), "{shown:?}");
    let query = Query::new().with("floating_ip_address", &address);
    let ip = world.admin.list::<FloatingIp>(&query).await.unwrap().remove(0);
    assert!(ip.port_id.is_some_and(|port| !port.is_empty()));
    world.delete().await;
    let released = await_condition(world.api::<IPAddress>(), &claim, |found: Option<&IPAddress>| found.is_none());
    tokio::time::timeout(LIMIT, released).await.unwrap().unwrap();
    assert_eq!(in_cloud(&world).await, BTreeSet::new());
    gone::<Pool>(&world, "pool").await;
}
