//! Subnets of both IP versions, and load balancers with a flavor.

use api::{condition, openstack_cluster::OpenStackCluster};
use openstack::{
    Query,
    load_balancer::LoadBalancer,
    network::{Port, SecurityGroupRule, Subnet},
};
use serde_json::json;

use crate::world::{World, is_ready, message, quick};

#[tokio::test]
async fn a_cluster_has_subnets_addresses_and_rules_of_both_families() {
    let world = World::start(quick(), &[]).await;
    let objects = world.objects(|infra| {
        infra["spec"]["managedSubnets"] = json!([{"cidr": "10.6.0.0/24"}, {"cidr": "fd00:6::/64"}]);
        infra["spec"]["apiServer"]["managedLoadBalancer"] =
            json!({"enabled": true, "flavor": "ha", "allowedCIDRs": ["192.0.2.0/24", "2001:db8::/32"]});
    });
    world.apply(&objects).await;
    let machine = world.machine(is_ready).await;
    let addresses = machine.status.unwrap().addresses;
    let of = |six: bool| addresses.iter().filter(|a| a.type_ == "InternalIP" && a.address.contains(':') == six).count();
    assert_eq!((of(false), of(true)), (1, 1), "{addresses:?}");
    let subnets = world.admin.list::<Subnet>(&Query::new().with("ip_version", 6)).await.unwrap();
    assert_eq!(subnets.len(), 1);
    let ports = world.admin.list::<Port>(&Query::new()).await.unwrap();
    let interfaces = ports.iter().filter(|port| port.device_owner == "network:router_interface");
    assert!(interfaces.clone().any(|port| port.fixed_ips.iter().any(|ip| ip.subnet_id == subnets[0].id)));
    let rules = world.admin.list::<SecurityGroupRule>(&Query::new()).await.unwrap();
    for family in ["IPv4", "IPv6"] {
        let open = |rule: &&SecurityGroupRule| rule.ethertype == family && rule.direction == "ingress";
        assert!(rules.iter().filter(open).any(|rule| rule.port_range_min == Some(6443)), "{family}");
        let node_ports =
            |rule: &SecurityGroupRule| rule.port_range_min == Some(30000) && rule.remote_ip_prefix.is_some();
        assert!(rules.iter().filter(open).any(node_ports), "{family}");
    }
    let infra = world.infra_cluster(|_| true).await;
    let shown = infra.status.unwrap().api_server_managed_load_balancer.unwrap().allowed_cidrs;
    assert!(
        shown.iter().any(|cidr| cidr == "2001:db8::/32") && shown.iter().any(|cidr| cidr == "fd00:6::/64"),
        "{shown:?}"
    );
    let balancer = world.admin.list::<LoadBalancer>(&Query::new()).await.unwrap().remove(0);
    assert!(!balancer.flavor_id.is_empty());
    world.delete().await;
    assert!(world.inventory().await.values().all(|count| *count == 0));
}

#[tokio::test]
async fn a_load_balancer_of_a_flavor_that_is_not_there_is_not_made() {
    let world = World::start(quick(), &[]).await;
    let objects = world.objects(|infra| infra["spec"]["apiServer"]["managedLoadBalancer"]["flavor"] = json!("huge"));
    world.apply(&objects).await;
    let told = |infra: &OpenStackCluster| {
        let conditions = infra.status.clone().unwrap_or_default().conditions;
        condition::is_false(&conditions, "APIEndpointReady")
            && message(&conditions, "APIEndpointReady").contains("load balancer flavor \"huge\" does not exist")
    };
    world.infra_cluster(told).await;
    assert_eq!(world.inventory().await["balancers"], 0);
}
