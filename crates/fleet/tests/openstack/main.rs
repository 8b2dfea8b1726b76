//! The OpenStack provider with all of the fleet's controllers, on the Management API and the sandbox cloud in this process.

mod families;
mod identities;
mod images;
mod pools;
mod regions;
mod servers;
mod world;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    names::WATCH_FILTER_LABEL as FILTER,
    openstack_cluster::OpenStackCluster,
    openstack_machine::{OpenStackMachine, OpenStackMachineTemplate},
};
use axum::body::Body;
use kube::{ResourceExt, runtime::wait::await_condition};
use openstack::{
    Client as CloudClient, Cloud as Where, Local, Options as CloudOptions, Query, Reads,
    block_storage::Volume,
    compute::Server,
    load_balancer::{HealthMonitor, Member, Pool},
    network::{FloatingIp, Network, Port, Router, SecurityGroup, SecurityGroupRule, Subnet},
    network::{GatewayDraft, NetworkDraft, RouterDraft, SubnetDraft},
};
use sandbox::cloud::Options as CloudSettings;
use serde_json::{Value, json};

use world::{LIMIT, World, is_ready, message, one_of_each, quick};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_up_and_leaves_nothing_behind() {
    let world = World::start(quick(), &[]).await;
    world.apply(&world.objects(|_| ())).await;
    let infra =
        world.infra_cluster(|c| c.status.as_ref().is_some_and(|s| condition::is_true(&s.conditions, "Ready"))).await;
    let status = infra.status.clone().unwrap();
    let endpoint = infra.spec.control_plane_endpoint.clone().unwrap();
    assert!(endpoint.host.as_deref().unwrap().starts_with("127.24."), "{endpoint:?}");
    assert_eq!(endpoint.port, Some(6443));
    assert_eq!(status.failure_domains.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["az1", "az2", "az3"]);
    let machine = world.machine(is_ready).await;
    let status = machine.status.clone().unwrap();
    let id = status.instance_id.clone().unwrap();
    assert_eq!(machine.spec.provider_id, Some(format!("openstack:///{id}")));
    let kinds: Vec<&str> = status.addresses.iter().map(|a| a.type_.as_str()).collect();
    assert_eq!(kinds, ["InternalIP", "InternalDNS"]);
    let server: Server = world.admin.get(&id).await.unwrap();
    assert!(server.user_data.is_some_and(|data| data.len() > 1000));
    assert_eq!(world.inventory().await, one_of_each());
    let rules = world.admin.list::<SecurityGroupRule>(&Query::new()).await.unwrap();
    assert!(rules.iter().any(|r| r.port_range_min == Some(6443) && r.remote_group_id.is_none()));
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_before_the_objects_that_it_names_finds_them_when_they_come() {
    let world = World::start(quick(), &[]).await;
    let mut objects = world.objects(|_| ());
    let mut take = |kind: &str| {
        let found = objects.iter().position(|object| object["kind"] == kind).unwrap();
        [objects.remove(found)]
    };
    world.apply(&take("Cluster")).await;
    let said = |type_: &'static str, reason: &'static str| {
        move |cluster: Option<&Cluster>| {
            let status = cluster.and_then(|cluster| cluster.status.as_ref());
            status.and_then(|s| condition::get(&s.conditions, type_)).is_some_and(|c| c.reason == reason)
        }
    };
    let until = async |wanted: &dyn Fn(Option<&Cluster>) -> bool| {
        let wanted = await_condition(world.api::<Cluster>(), "demo", wanted);
        tokio::time::timeout(LIMIT, wanted).await.expect("the cluster is not as wanted").unwrap();
    };
    until(&said("InfrastructureReady", "DoesNotExist")).await;
    until(&said("ControlPlaneAvailable", "DoesNotExist")).await;
    world.apply(&take("KubeadmControlPlane")).await;
    until(&said("ControlPlaneAvailable", "NotAvailable")).await;
    world.apply(&take("OpenStackCluster")).await;
    world.apply(&take("Secret")).await;
    until(&said("InfrastructureReady", "Ready")).await;
    world.apply(&take("OpenStackMachineTemplate")).await;
    world.machine(is_ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_without_the_label_that_controllers_watch_for_are_left_to_others_until_they_have_it() {
    let mut world = World::start(quick(), &[]).await;
    world.watch_only("ours").await;
    let mut objects = world.objects(|_| ());
    let watched = |object: &mut Value, value: &str| object["metadata"]["labels"] = json!({FILTER: value});
    for object in &mut objects {
        // The machines of the control plane get none.
        watched(object, if object["kind"] == "KubeadmControlPlane" { "theirs" } else { "ours" });
    }
    let mut plain = objects.clone();
    plain.retain(|object| ["OpenStackCluster", "Cluster"].contains(&object["kind"].as_str().unwrap()));
    for object in &mut plain {
        object["metadata"] = json!({"name": "plain"});
        if object["kind"] == "Cluster" {
            object["spec"]["infrastructureRef"]["name"] = "plain".into();
            object["spec"].as_object_mut().unwrap().remove("controlPlaneRef");
        }
    }
    world.apply(&plain).await;
    world.apply(&objects).await;
    let is_up = |infra: &OpenStackCluster| {
        infra.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready"))
    };
    world.infra_cluster(is_up).await;
    let infra = world.api::<OpenStackCluster>().get("plain").await.unwrap();
    assert_eq!((infra.status, infra.metadata.finalizers), (None, None), "nobody has touched it");
    let cluster = world.api::<Cluster>().get("plain").await.unwrap();
    assert!(cluster.status.is_none() && cluster.metadata.finalizers.is_none(), "{cluster:?}");
    let control_plane = world.api::<KubeadmControlPlane>().get("demo-cp").await.unwrap();
    assert!(control_plane.status.is_none() && control_plane.metadata.finalizers.is_none());

    let label = kube::api::Patch::Merge(json!({"metadata": {"labels": {FILTER: "ours"}}}));
    world.api::<Cluster>().patch("plain", &Default::default(), &label).await.unwrap();
    world.api::<OpenStackCluster>().patch("plain", &Default::default(), &label).await.unwrap();
    let wanted = await_condition(world.api::<OpenStackCluster>(), "plain", |infra: Option<&OpenStackCluster>| {
        infra.is_some_and(is_up)
    });
    tokio::time::timeout(LIMIT, wanted).await.expect("what gets the label is acted upon").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_and_controllers_that_restart_double_nothing() {
    let lose = [
        "/networks",
        "/subnets",
        "/routers",
        "/security-groups",
        "/loadbalancers",
        "/floatingips",
        "/listeners",
        "/pools",
        "/members",
        "/ports",
        "/servers",
    ];
    let mut world = World::start(quick(), &lose).await;
    world.apply(&world.objects(|_| ())).await;
    world.infra_cluster(|c| c.status.as_ref().is_some_and(|s| s.network.is_some())).await;
    world.restart().await;
    world.infra_cluster(|c| c.status.as_ref().is_some_and(|s| s.api_server_managed_load_balancer.is_some())).await;
    world.restart().await;
    world.machine(|_| true).await;
    world.restart().await;
    world.machine(is_ready).await;
    assert_eq!(world.inventory().await, one_of_each());
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nova_says_reaches_the_machine() {
    let mut settings = quick();
    settings.quotas.insert("instances".to_owned(), 0);
    let world = World::start(settings, &[]).await;
    world.apply(&world.objects(|_| ())).await;
    let said = |machine: &OpenStackMachine| message(&machine.status.clone().unwrap_or_default().conditions, "Ready");
    let refused = world.machine(move |m| said(m).contains("Quota exceeded for instances: Requested 1")).await;
    assert!(condition::is_false(&refused.status.unwrap().conditions, "InstanceReady"));
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_host_is_told_with_novas_fault() {
    let world = World::start(CloudSettings { host_vcpus: 0, ..quick() }, &[]).await;
    world.apply(&world.objects(|_| ())).await;
    let said =
        |machine: &OpenStackMachine| message(&machine.status.clone().unwrap_or_default().conditions, "InstanceReady");
    let failed = world.machine(move |m| said(m).contains("No valid host was found")).await;
    assert!(said(&failed).starts_with("InstanceStateError: "), "{}", said(&failed));
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_network_of_the_same_name_is_neither_used_nor_deleted() {
    let world = World::start(quick(), &[]).await;
    let tenant = tenant(&world);
    let draft = NetworkDraft { name: "k8s-clusterapi-cluster-default-demo".to_owned(), ..Default::default() };
    let stranger: Network = tenant.create(&draft).await.unwrap();
    world.apply(&world.objects(|_| ())).await;
    let infra = world.infra_cluster(|c| c.status.as_ref().is_some_and(|s| s.network.is_some())).await;
    assert_ne!(infra.status.unwrap().network.unwrap().id, stranger.id);
    world.delete().await;
    assert_eq!(tenant.get::<Network>(&stranger.id).await.unwrap().id(), stranger.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cloud_lacks_is_named_in_the_condition() {
    let world = World::start(quick(), &[]).await;
    let objects = world.objects(|infra| infra["spec"]["apiServer"]["managedLoadBalancer"]["provider"] = json!("nope"));
    world.apply(&objects).await;
    let said = |c: &OpenStackCluster| message(&c.status.clone().unwrap_or_default().conditions, "APIEndpointReady");
    let infra = world.infra_cluster(move |c| said(c).contains("provider \"nope\" does not exist")).await;
    assert!(condition::is_false(&infra.status.unwrap().conditions, "Ready"));
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_the_api_is_ready_when_the_member_is_active() {
    let world = World::start(CloudSettings { lb_latency: Duration::from_secs(2), ..quick() }, &[]).await;
    world.apply(&world.objects(|_| ())).await;
    let told =
        |m: &OpenStackMachine| message(&m.status.clone().unwrap_or_default().conditions, "APIServerIngressReady");
    let waiting = world.machine(move |m| told(m).starts_with("LoadBalancerMemberNotReady")).await;
    let conditions = &waiting.status.as_ref().unwrap().conditions;
    assert!(condition::is_true(conditions, "InstanceReady") && condition::is_false(conditions, "Ready"));
    assert!(waiting.spec.provider_id.is_some(), "the machine is there: only the way to it is not");
    world
        .machine(|m| condition::is_true(&m.status.clone().unwrap_or_default().conditions, "APIServerIngressReady"))
        .await;
    let pool = &world.admin.list::<Pool>(&Query::new()).await.unwrap()[0];
    let member = &world.admin.list_in::<Member>(&pool.id, &Query::new()).await.unwrap()[0];
    assert_eq!(member.provisioning_status, "ACTIVE");
    world.machine(is_ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_change_in_a_cluster_changes_in_the_cloud() {
    let world = World::start(quick(), &[]).await;
    let machine = |flavor: &str| json!({"flavor": {"filter": {"name": flavor}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
    let objects = world.objects(|infra| {
        infra["spec"]["bastion"] = json!({"enabled": true, "spec": machine("m1.tiny")});
    });
    world.apply(&objects).await;
    let ready = |c: &OpenStackCluster| c.status.as_ref().is_some_and(|s| condition::is_true(&s.conditions, "Ready"));
    let first = world.infra_cluster(ready).await.status.unwrap().bastion.unwrap();
    let mut spec = machine("m1.small");
    spec["ports"] = json!([{"nameSuffix": "other"}]);
    let change = json!({"spec": {
        "bastion": {"spec": spec},
        "apiServer": {"managedLoadBalancer": {"monitor": {"delay": 20, "timeout": 7, "maxRetries": 2, "maxRetriesDown": 1}}},
    }});
    let api = world.api::<OpenStackCluster>();
    api.patch("demo", &Default::default(), &kube::api::Patch::Merge(change)).await.unwrap();
    let second = move |c: &OpenStackCluster| {
        let bastion = c.status.as_ref().and_then(|s| s.bastion.clone());
        ready(c) && bastion.is_some_and(|b| b.id.is_some() && b.id != first.id)
    };
    let second = world.infra_cluster(second).await.status.unwrap().bastion.unwrap();
    assert_eq!(second.floating_ip, first.floating_ip, "those who know the way in keep it");
    let monitor = &world.admin.list::<HealthMonitor>(&Query::new()).await.unwrap()[0];
    let times = (monitor.delay, monitor.timeout, monitor.max_retries, monitor.max_retries_down);
    assert_eq!(times, (20, 7, 2, 1));
    let names: Vec<String> =
        world.admin.list::<Port>(&Query::new()).await.unwrap().into_iter().map(|p| p.name).collect();
    let of_bastion: Vec<_> = names.iter().filter(|name| name.contains("-bastion-")).collect();
    assert_eq!(of_bastion, ["default-demo-bastion-other"]);
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bastion_that_is_switched_off_takes_its_security_group_along_and_comes_back() {
    let world = World::start(quick(), &[]).await;
    let objects = world.objects(|infra| {
        let machine =
            json!({"flavor": {"filter": {"name": "m1.tiny"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
        infra["spec"]["bastion"] = json!({"enabled": true, "spec": machine});
    });
    world.apply(&objects).await;
    let groups = async || {
        let all = world.admin.list::<SecurityGroup>(&Query::new()).await.unwrap();
        all.into_iter().filter(|group| group.name.ends_with("bastion")).count()
    };
    let api = world.api::<OpenStackCluster>();
    let has = |c: &OpenStackCluster, is: bool| {
        let status = c.status.clone().unwrap_or_default();
        let (server, group) = (status.bastion.and_then(|b| b.floating_ip), status.bastion_security_group);
        condition::is_true(&status.conditions, "Ready") && [server.is_some(), group.is_some()] == [is; 2]
    };
    world.infra_cluster(|c| has(c, true)).await;
    for enabled in [false, true] {
        let switch = json!({"spec": {"bastion": {"enabled": enabled}}});
        api.patch("demo", &Default::default(), &kube::api::Patch::Merge(switch)).await.unwrap();
        world.infra_cluster(|c| has(c, enabled)).await;
        assert_eq!(groups().await, usize::from(enabled));
    }
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_load_balancer_the_node_carries_the_floating_ip_and_a_bastion_has_its_own() {
    let world = World::start(quick(), &[]).await;
    let objects = world.objects(|infra| {
        infra["spec"]["apiServer"] = json!({"port": 8443});
        let machine =
            json!({"flavor": {"filter": {"name": "m1.tiny"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
        infra["spec"]["bastion"] = json!({"enabled": true, "spec": machine});
    });
    world.apply(&objects).await;
    let infra =
        world.infra_cluster(|c| c.status.as_ref().is_some_and(|s| condition::is_true(&s.conditions, "Ready"))).await;
    let bastion = infra.status.clone().unwrap().bastion.unwrap();
    assert!(bastion.floating_ip.is_some_and(|ip| ip.starts_with("127.24.")));
    let endpoint = infra.spec.control_plane_endpoint.clone().unwrap();
    assert_eq!(endpoint.port, Some(8443));
    world.machine(is_ready).await;
    let ips = world.admin.list::<FloatingIp>(&Query::new()).await.unwrap();
    let api = ips.iter().find(|ip| Some(&ip.floating_ip_address) == endpoint.host.as_ref()).unwrap();
    assert_eq!((api.status.as_str(), ips.len()), ("ACTIVE", 2));
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

/// A client with the tenant's own credentials, as a person would have.
fn tenant(world: &World) -> CloudClient {
    let at = Where::from_yaml(world.cloud.clouds_yaml("c").as_bytes(), Some("c"), None).unwrap();
    CloudClient::new(at, Local::shared::<Body, Body>(world.cloud.router()), CloudOptions::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_was_there_before_is_used_and_stays_and_volumes_go_with_their_server() {
    let world = World::start(quick(), &["/volumes"]).await;
    let c = tenant(&world);
    let network: Network = c.create(&NetworkDraft { name: "mine".into(), ..Default::default() }).await.unwrap();
    let draft = SubnetDraft {
        network_id: network.id.clone(),
        cidr: "10.9.0.0/24".into(),
        ip_version: Some(4),
        ..Default::default()
    };
    let subnet: Subnet = c.create(&draft).await.unwrap();
    let gateway = GatewayDraft { network_id: world.cloud.external_network(), ..Default::default() };
    let router: Router =
        c.create(&RouterDraft { external_gateway_info: Some(gateway), ..Default::default() }).await.unwrap();
    c.add_router_interface(&router.id, &subnet.id).await.unwrap();
    let mut objects = world.objects(|infra| {
        let spec = infra["spec"].as_object_mut().unwrap();
        spec.remove("managedSubnets");
        spec.insert("network".to_owned(), json!({"filter": {"name": "mine"}}));
        spec.insert("tags".to_owned(), json!(["team-a"]));
        spec["apiServer"]["managedLoadBalancer"] =
            json!({"network": {"filter": {"name": "mine"}}, "subnets": [{"id": subnet.id}]});
    });
    let machine = &mut objects[2]["spec"]["template"]["spec"];
    machine["rootVolume"] = json!({"sizeGiB": 25});
    machine["additionalBlockDevices"] = json!([{"name": "etcd", "sizeGiB": 2, "storage": {"type": "Volume"}}]);
    machine["ports"] =
        json!([{"nameSuffix": "main", "tags": ["first"], "allowedAddressPairs": [{"ipAddress": "10.9.0.200"}]}]);
    machine["serverMetadata"] = json!([{"key": "purpose", "value": "test"}]);
    world.apply(&objects).await;
    let machine = world.machine(is_ready).await;
    let id = machine.status.unwrap().instance_id.unwrap();
    let server: Server = world.admin.get(&id).await.unwrap();
    assert_eq!((server.metadata["purpose"].as_str(), server.image_id()), ("test", None));
    assert_eq!(server.tags, ["team-a"]);
    let mut volumes: Vec<(u64, String)> =
        c.list::<Volume>(&Query::new()).await.unwrap().into_iter().map(|v| (v.size, v.status)).collect();
    volumes.sort();
    assert_eq!(volumes, [(2, "in-use".to_owned()), (25, "in-use".to_owned())]);
    let port = &c.list::<Port>(&Query::new().with("device_id", &id)).await.unwrap()[0];
    assert_eq!(
        (port.tags.clone(), port.allowed_address_pairs.len()),
        (vec!["first".to_owned(), "team-a".to_owned()], 1)
    );
    assert!(port.name.ends_with("-main"), "{}", port.name);
    let pairs = json!([{"nameSuffix": "main", "tags": ["first"],
        "allowedAddressPairs": [{"ipAddress": "10.9.0.201"}, {"ipAddress": "10.9.0.202"}]}]);
    let patch = kube::api::Patch::Merge(json!({"spec": {"ports": pairs}}));
    world.api::<OpenStackMachine>().patch(&server.name, &Default::default(), &patch).await.unwrap();
    let paired = |machine: &OpenStackMachine| {
        let resolved = machine.status.clone().unwrap_or_default().resolved.unwrap_or_default();
        is_ready(machine) && resolved.ports[0].allowed_address_pairs.len() == 2
    };
    world.machine(paired).await;
    let port = c.get::<Port>(&port.id).await.unwrap();
    let pairs: Vec<&str> = port.allowed_address_pairs.iter().map(|pair| pair.ip_address.as_str()).collect();
    assert_eq!(pairs, ["10.9.0.201", "10.9.0.202"]);
    let pairs =
        json!([{"nameSuffix": "main", "tags": ["first"], "allowedAddressPairs": [{"ipAddress": "10.9.0.203"}]}]);
    let patch = kube::api::Patch::Merge(json!({"spec": {"template": {"spec": {"ports": pairs}}}}));
    world.api::<OpenStackMachineTemplate>().patch("demo-cp", &Default::default(), &patch).await.unwrap();
    let paired = |machine: &OpenStackMachine| {
        let resolved = machine.status.clone().unwrap_or_default().resolved.unwrap_or_default();
        is_ready(machine) && resolved.ports[0].allowed_address_pairs.len() == 1
    };
    world.machine(paired).await;
    let port = c.get::<Port>(&port.id).await.unwrap();
    assert_eq!(port.allowed_address_pairs[0].ip_address, "10.9.0.203");
    let infra = world.infra_cluster(|_| true).await.status.unwrap();
    let home = infra.api_server_managed_load_balancer.unwrap().load_balancer_network.unwrap();
    assert_eq!((home.name.as_str(), home.subnets.len(), home.subnets[0].id == subnet.id), ("mine", 1, true));
    world.delete().await;
    assert!(c.list::<Volume>(&Query::new()).await.unwrap().is_empty());
    let left = world.inventory().await;
    let stays = ["networks", "subnets", "routers"];
    assert!(left.iter().all(|(kind, n)| *n == usize::from(stays.contains(kind))), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_somebody_deletes_is_missed_at_the_next_look() {
    let world = World::start(quick(), &[]).await;
    world.apply(&world.objects(|_| ())).await;
    let machine = world.machine(is_ready).await;
    let id = machine.status.clone().unwrap().instance_id.unwrap();
    tenant(&world).delete::<Server>(&id).await.unwrap();
    let mut changed = world.cloud.changed();
    while world.admin.look::<Server>(&id).await.unwrap().is_some() {
        changed.changed().await.unwrap();
    }
    let look = json!({"metadata": {"annotations": {"look": "again"}}});
    let api = world.api::<OpenStackMachine>();
    api.patch(&machine.name_any(), &Default::default(), &kube::api::Patch::Merge(look)).await.unwrap();
    let said = |m: &OpenStackMachine| message(&m.status.clone().unwrap_or_default().conditions, "Ready");
    world.machine(move |m| said(m).starts_with("InstanceDeleted: ")).await;
    world.delete().await;
    let left = world.inventory().await;
    assert!(left.values().all(|n| *n == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cluster_is_left_alone_until_the_pause_ends() {
    let world = World::start(CloudSettings { boot_latency: Duration::from_secs(1), ..quick() }, &[]).await;
    world.apply(&world.objects(|_| ())).await;
    world.machine(|m| m.status.as_ref().is_some_and(|s| s.instance_id.is_some())).await;
    let pause = |on: bool| {
        let api = world.api::<Cluster>();
        let patch = json!({"spec": {"paused": on}});
        async move { api.patch("demo", &Default::default(), &kube::api::Patch::Merge(patch)).await.unwrap() }
    };
    pause(true).await;
    let paused = |m: &OpenStackMachine| m.status.as_ref().is_some_and(|s| condition::is_true(&s.conditions, "Paused"));
    world.machine(paused).await;
    pause(false).await;
    world.machine(move |m| is_ready(m) && !paused(m)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settled_cluster_asks_the_cloud_nothing() {
    let world = World::start(quick(), &[]).await;
    world.apply(&world.objects(|_| ())).await;
    world.machine(is_ready).await;
    // The last event of its own writes makes each controller look once more; then there is nothing to wait for.
    let mut before = world.calls.load(Relaxed);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = world.calls.load(Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
    panic!("{before} requests, and it goes on");
}

/// `cargo test -p fleet --test openstack -- --ignored --nocapture many`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn many_clusters_at_once() {
    let count: usize = std::env::var("CLUSTERS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let world = World::start(quick(), &[]).await;
    let start = std::time::Instant::now();
    let secret = world.objects(|_| ()).remove(0);
    world.apply(&[secret]).await;
    for i in 0..count {
        let text = serde_json::to_string(&world.objects(|_| ())[1..]).unwrap();
        let text =
            text.replace("\"demo\"", &format!("\"demo-{i}\"")).replace("\"demo-cp\"", &format!("\"demo-{i}-cp\""));
        world.apply(&serde_json::from_str::<Vec<Value>>(&text).unwrap()).await;
    }
    let api = world.api::<OpenStackMachine>();
    loop {
        let ready = api.list(&Default::default()).await.unwrap().items.iter().filter(|m| is_ready(m)).count();
        eprintln!("{:?}: {ready} ready, {} requests", start.elapsed(), world.calls.load(Relaxed));
        if ready == count {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
