//! The cloud as its users see it: through the client, in one process, on a paused clock.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use openstack::{
    Class, Client, Cloud as Where, Local, Options as ClientOptions, Query,
    block_storage::Volume,
    compute::{BlockDevice, Flavor, Server, ServerDraft, ServerGroup, ServerGroupDraft, ServerNetwork},
    identity::{ApplicationCredential, ApplicationCredentialDraft},
    image::Image,
    load_balancer::{Listener, ListenerDraft, LoadBalancer, LoadBalancerDraft, Member, MemberDraft, Pool, PoolDraft},
    network::{
        FixedIp, FloatingIp, FloatingIpDraft, GatewayDraft, Network, NetworkDraft, Port, PortDraft, Router,
        RouterDraft, SecurityGroup, SecurityGroupDraft, SecurityGroupRule, SecurityGroupRuleDraft, Subnet, SubnetDraft,
    },
};
use sandbox::cloud::{BODY_LIMIT_BYTES, Cloud, Options};
use serde_json::json;
use store::{Embedded, Limits, SharedStore};

fn memory() -> SharedStore {
    Arc::new(Embedded::memory(Limits::default()))
}

fn options() -> Options {
    Options { public_url: "http://cloud.test".to_owned(), seed: Some(7), ..Options::default() }
}

fn client(cloud: &Cloud, name: &str) -> Client {
    let yaml = cloud.clouds_yaml("c");
    let at = Where::from_yaml(yaml.as_bytes(), Some(name), None).unwrap();
    Client::new(at, Local::shared::<Body, Body>(cloud.router()), ClientOptions::default())
}

async fn new(options: Options) -> (Cloud, Client) {
    let cloud = Cloud::open(memory(), options).await.unwrap();
    let client = client(&cloud, "c");
    (cloud, client)
}

struct Net {
    network: Network,
    subnet: Subnet,
    router: Router,
}

async fn network(c: &Client, cloud: &Cloud) -> Net {
    let network: Network = c.create(&NetworkDraft { name: "n".into(), ..Default::default() }).await.unwrap();
    let draft = SubnetDraft {
        name: "s".into(),
        network_id: network.id.clone(),
        cidr: "10.6.0.0/24".into(),
        ip_version: Some(4),
        ..Default::default()
    };
    let subnet: Subnet = c.create(&draft).await.unwrap();
    let gateway = GatewayDraft { network_id: cloud.external_network(), ..Default::default() };
    let draft = RouterDraft { name: "r".into(), external_gateway_info: Some(gateway), ..Default::default() };
    let router: Router = c.create(&draft).await.unwrap();
    c.add_router_interface(&router.id, &subnet.id).await.unwrap();
    Net { network, subnet, router }
}

async fn server_draft(c: &Client, net: &Net, name: &str) -> ServerDraft {
    let flavor = c.find::<Flavor>("m1.small", Query::new()).await.unwrap().unwrap();
    let image = c.find::<Image>("ubuntu-2404-kube", Query::new()).await.unwrap().unwrap();
    ServerDraft {
        name: name.into(),
        flavor_ref: flavor.id,
        image_ref: Some(image.id),
        networks: vec![ServerNetwork { uuid: Some(net.network.id.clone()), port: None }],
        ..Default::default()
    }
}

async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_goes_from_build_to_active_and_takes_its_own_port_with_it() {
    let (cloud, c) = new(options()).await;
    let net = network(&c, &cloud).await;
    let mut draft = server_draft(&c, &net, "one").await;
    draft.user_data = Some("I2Nsb3VkLWNvbmZpZw==".into());
    draft.tags = vec!["a".into()];
    draft.availability_zone = Some("az2".into());
    let id = c.create::<Server>(&draft).await.unwrap().id;
    assert_eq!(c.get::<Server>(&id).await.unwrap().status, "BUILD");
    settle(2).await;
    let server: Server = c.get(&id).await.unwrap();
    assert_eq!((server.status.as_str(), server.availability_zone.as_str()), ("ACTIVE", "az2"));
    assert_eq!(server.addresses["n"][0].addr, "10.6.0.2");
    assert_eq!(server.tags, ["a"]);
    assert_eq!(server.user_data, None, "only administrators see user data");
    let admin = client(&cloud, "c-admin");
    let seen = admin.list::<Server>(&Query::new().with("all_tenants", 1)).await.unwrap();
    assert_eq!(seen[0].user_data.as_deref(), Some("I2Nsb3VkLWNvbmZpZw=="));
    assert!(admin.list::<Server>(&Query::new()).await.unwrap().is_empty(), "without all_tenants: the own project");
    cloud.set_console(&id, "one\ntwo\nthree");
    assert_eq!(c.console_log(&id, 2).await.unwrap(), "two\nthree");
    c.delete::<Server>(&id).await.unwrap();
    settle(1).await;
    assert!(c.get::<Server>(&id).await.unwrap_err().is_not_found());
    assert_eq!(c.list::<Port>(&Query::new().with("device_id", &id)).await.unwrap(), []);
    let since = Query::new().with("changes-since", "2000-01-01T00:00:00Z");
    assert_eq!(c.list::<Server>(&since).await.unwrap()[0].status, "DELETED");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_a_user_made_outlives_the_server() {
    let (cloud, c) = new(options()).await;
    let net = network(&c, &cloud).await;
    let port: Port = c.create(&PortDraft { network_id: net.network.id.clone(), ..Default::default() }).await.unwrap();
    let mut draft = server_draft(&c, &net, "one").await;
    draft.networks = vec![ServerNetwork { port: Some(port.id.clone()), uuid: None }];
    let id = c.create::<Server>(&draft).await.unwrap().id;
    let twice = c.create::<Server>(&draft).await.unwrap_err();
    assert!(twice.is_conflict() && twice.message().contains("still in use"), "{twice}");
    settle(2).await;
    assert_eq!(c.get::<Port>(&port.id).await.unwrap().status, "ACTIVE");
    c.delete::<Server>(&id).await.unwrap();
    settle(1).await;
    let port: Port = c.get(&port.id).await.unwrap();
    assert_eq!((port.device_id.as_str(), port.status.as_str()), ("", "DOWN"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_says_why() {
    let mut small = options();
    small.quotas.insert("cores".into(), 2);
    small.quotas.insert("port".into(), 3);
    small.quotas.insert("load_balancer".into(), 0);
    let (cloud, c) = new(small).await;
    let net = network(&c, &cloud).await;
    let good = server_draft(&c, &net, "one").await;
    let refused = |draft: ServerDraft| {
        let c = c.clone();
        async move { c.create::<Server>(&draft).await.unwrap_err() }
    };
    let error = refused(ServerDraft { flavor_ref: "nope".into(), ..good.clone() }).await;
    assert_eq!((error.class(), error.message()), (Class::Invalid, "Flavor nope could not be found."));
    let error = refused(ServerDraft { image_ref: Some("nope".into()), ..good.clone() }).await;
    assert_eq!(error.message(), "Can not find requested image");
    let error = refused(ServerDraft { availability_zone: Some("az9".into()), ..good.clone() }).await;
    assert_eq!(error.message(), "The requested availability zone is not available");
    let error = refused(ServerDraft { user_data: Some("A".repeat(65_536)), ..good.clone() }).await;
    assert!(error.message().contains("65535"), "{error}");
    c.create::<Server>(&good).await.unwrap();
    c.create::<Server>(&good).await.unwrap();
    let error = refused(good.clone()).await;
    assert_eq!(error.class(), Class::Quota, "{error}");
    assert!(error.message().starts_with("Quota exceeded for cores: Requested 1, but already used 2 of 2"), "{error}");
    let port = PortDraft { network_id: net.network.id.clone(), ..Default::default() };
    let error = c.create::<Port>(&port).await.unwrap_err();
    assert_eq!((error.class(), error.message()), (Class::Quota, "Quota exceeded for resources: ['port']."));
    let draft = LoadBalancerDraft { vip_subnet_id: Some(net.subnet.id.clone()), ..Default::default() };
    assert_eq!(c.create::<LoadBalancer>(&draft).await.unwrap_err().class(), Class::Quota);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_host_ends_in_error_with_novas_words_and_frees_its_ports() {
    let (cloud, c) = new(Options { zones: 1, hosts_per_zone: 2, ..options() }).await;
    let net = network(&c, &cloud).await;
    let group: ServerGroup = c
        .create(&ServerGroupDraft { name: "g".into(), policy: "anti-affinity".into(), ..Default::default() })
        .await
        .unwrap();
    let mut draft = server_draft(&c, &net, "m").await;
    draft.scheduler_hints.insert("group".into(), json!(group.id));
    for _ in 0..3 {
        c.create::<Server>(&draft).await.unwrap();
        settle(2).await;
    }
    let servers = c.list::<Server>(&Query::new()).await.unwrap();
    assert_eq!(servers.iter().map(|s| s.status.as_str()).collect::<Vec<_>>(), ["ERROR", "ACTIVE", "ACTIVE"]);
    let fault = servers[0].fault.as_ref().unwrap();
    assert_eq!(fault.message, "No valid host was found. There are not enough hosts available.");
    assert_eq!(c.list::<Port>(&Query::new().with("device_id", &servers[0].id)).await.unwrap(), []);
    assert_eq!(c.get::<ServerGroup>(&group.id).await.unwrap().members.len(), 3);
}

#[tokio::test]
async fn addresses_come_out_of_the_pool_once_each_until_it_is_empty() {
    let (_cloud, c) = new(options()).await;
    let network: Network = c.create(&NetworkDraft { name: "n".into(), ..Default::default() }).await.unwrap();
    let subnet = SubnetDraft {
        network_id: network.id.clone(),
        cidr: "10.6.0.0/29".into(),
        ip_version: Some(4),
        ..Default::default()
    };
    let subnet: Subnet = c.create(&subnet).await.unwrap();
    assert_eq!(subnet.gateway_ip.as_deref(), Some("10.6.0.1"));
    let draft = PortDraft { network_id: network.id.clone(), ..Default::default() };
    let mut ports = Vec::new();
    for _ in 0..5 {
        ports.push(c.create::<Port>(&draft).await.unwrap());
    }
    let mut addresses: Vec<&str> = ports.iter().map(|p| p.fixed_ips[0].ip_address.as_str()).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["10.6.0.2", "10.6.0.3", "10.6.0.4", "10.6.0.5", "10.6.0.6"]);
    let full = c.create::<Port>(&draft).await.unwrap_err();
    assert_eq!(full.message(), format!("No more IP addresses available on network {}.", network.id));
    c.delete::<Port>(&ports[2].id).await.unwrap();
    assert_eq!(c.create::<Port>(&draft).await.unwrap().fixed_ips, ports[2].fixed_ips);
    let fixed = |ip: &str| PortDraft {
        fixed_ips: vec![FixedIp { ip_address: ip.into(), ..Default::default() }],
        ..draft.clone()
    };
    assert!(c.create::<Port>(&fixed("10.6.0.2")).await.unwrap_err().is_conflict());
    assert_eq!(c.create::<Port>(&fixed("10.7.0.2")).await.unwrap_err().class(), Class::Invalid);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_not_deleted_and_the_right_order_leaves_nothing() {
    let (cloud, c) = new(options()).await;
    let net = network(&c, &cloud).await;
    let conflict = |result: openstack::Result<()>, words: &str| {
        let error = result.unwrap_err();
        assert!(error.is_conflict() && error.message().contains(words), "{error}");
    };
    conflict(c.delete::<Subnet>(&net.subnet.id).await, "One or more ports have an IP allocation from this subnet");
    conflict(c.delete::<Network>(&net.network.id).await, "ports still in use on the network");
    conflict(c.delete::<Router>(&net.router.id).await, "still has ports");
    let interface = &c.list::<Port>(&Query::new().with("device_id", &net.router.id)).await.unwrap()[0];
    conflict(c.delete::<Port>(&interface.id).await, "cannot be deleted directly via the port API");
    let group: SecurityGroup = c.create(&SecurityGroupDraft { name: "g".into(), ..Default::default() }).await.unwrap();
    assert_eq!(group.security_group_rules.len(), 2);
    let draft = PortDraft {
        network_id: net.network.id.clone(),
        security_groups: Some(vec![group.id.clone()]),
        ..Default::default()
    };
    let port: Port = c.create(&draft).await.unwrap();
    conflict(c.delete::<SecurityGroup>(&group.id).await, "in use");
    let draft = FloatingIpDraft {
        floating_network_id: cloud.external_network(),
        port_id: Some(port.id.clone()),
        ..Default::default()
    };
    let ip: FloatingIp = c.create(&draft).await.unwrap();
    assert!(ip.floating_ip_address.starts_with("127.24."), "{ip:?}");
    conflict(c.remove_router_interface(&net.router.id, &net.subnet.id).await, "required by one or more floating IPs");
    c.delete::<Port>(&port.id).await.unwrap();
    let ip: FloatingIp = c.get(&ip.id).await.unwrap();
    assert_eq!((ip.status.as_str(), ip.port_id), ("DOWN", None));
    c.delete::<FloatingIp>(&ip.id).await.unwrap();
    c.remove_router_interface(&net.router.id, &net.subnet.id).await.unwrap();
    c.delete::<Router>(&net.router.id).await.unwrap();
    c.delete::<Network>(&net.network.id).await.unwrap();
    c.delete::<SecurityGroup>(&group.id).await.unwrap();
    let admin = client(&cloud, "c-admin");
    assert_eq!(admin.list::<Port>(&Query::new()).await.unwrap(), [], "no port is left, also none of a service");
    assert_eq!(c.list::<Subnet>(&Query::by_name("s")).await.unwrap(), [], "subnets go with their network");
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_takes_one_change_at_a_time_and_goes_with_all_below_it() {
    let (cloud, c) = new(options()).await;
    let net = network(&c, &cloud).await;
    let draft =
        LoadBalancerDraft { name: "lb".into(), vip_subnet_id: Some(net.subnet.id.clone()), ..Default::default() };
    let lb: LoadBalancer = c.create(&draft).await.unwrap();
    assert_eq!(lb.provisioning_status, "PENDING_CREATE");
    let listener = ListenerDraft {
        name: "l".into(),
        loadbalancer_id: lb.id.clone(),
        protocol: "TCP".into(),
        protocol_port: Some(6443),
        ..Default::default()
    };
    let early = c.create::<Listener>(&listener).await.unwrap_err();
    assert!(early.is_conflict() && early.message().contains("immutable"), "{early}");
    assert_eq!(c.list::<Listener>(&Query::new()).await.unwrap(), [], "a refused request leaves nothing");
    settle(2).await;
    let listener: Listener = c.create(&listener).await.unwrap();
    settle(2).await;
    let pool = PoolDraft {
        name: "p".into(),
        listener_id: Some(listener.id.clone()),
        protocol: "TCP".into(),
        lb_algorithm: "ROUND_ROBIN".into(),
        ..Default::default()
    };
    let pool: Pool = c.create(&pool).await.unwrap();
    settle(2).await;
    let member =
        MemberDraft { name: "m".into(), address: "10.6.0.9".into(), protocol_port: Some(6443), ..Default::default() };
    let member: Member = c.create_in(&pool.id, &member).await.unwrap();
    settle(2).await;
    let lb: LoadBalancer = c.get(&lb.id).await.unwrap();
    assert_eq!((lb.provisioning_status.as_str(), lb.listeners.len(), lb.pools.len()), ("ACTIVE", 1, 1));
    assert_eq!(c.get::<Listener>(&listener.id).await.unwrap().default_pool_id, pool.id);
    assert_eq!(c.list_in::<Member>(&pool.id, &Query::new()).await.unwrap()[0].id, member.id);
    assert!(c.delete::<LoadBalancer>(&lb.id).await.unwrap_err().message().contains("has children"));
    c.delete_with::<LoadBalancer>(&lb.id, &Query::new().with("cascade", true)).await.unwrap();
    settle(2).await;
    assert!(c.get::<LoadBalancer>(&lb.id).await.unwrap_err().is_not_found());
    assert!(c.get::<Port>(&lb.vip_port_id).await.unwrap_err().is_not_found());
    assert!(c.get::<Pool>(&pool.id).await.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn everything_survives_a_restart_and_what_was_under_way_goes_on() {
    let store = memory();
    let cloud = Cloud::open(store.clone(), options()).await.unwrap();
    let c = client(&cloud, "c");
    let net = network(&c, &cloud).await;
    let draft = server_draft(&c, &net, "one").await;
    let id = c.create::<Server>(&draft).await.unwrap().id;
    let token = c.access().await.unwrap();
    drop((cloud, c));
    let cloud = Cloud::open(store, options()).await.unwrap();
    let c = client(&cloud, "c");
    assert_eq!(c.get::<Server>(&id).await.unwrap().status, "BUILD");
    settle(2).await;
    let server: Server = c.get(&id).await.unwrap();
    assert_eq!((server.status.as_str(), server.addresses["n"][0].addr.as_str()), ("ACTIVE", "10.6.0.2"));
    let twin = c.create::<Server>(&draft).await.unwrap().id;
    settle(2).await;
    assert_ne!(c.get::<Server>(&twin).await.unwrap().addresses["n"][0].addr, "10.6.0.2");
    assert_eq!(c.list::<SecurityGroup>(&Query::by_name("default")).await.unwrap().len(), 1);
    assert_eq!(c.access().await.unwrap().project_id, token.project_id);
}

#[tokio::test]
async fn a_project_sees_and_changes_its_own_things_only() {
    let (cloud, c) = new(options()).await;
    let admin = client(&cloud, "c-admin");
    let hidden: Network = admin.create(&NetworkDraft { name: "hidden".into(), ..Default::default() }).await.unwrap();
    let mut names: Vec<String> = c.list::<Network>(&Query::new()).await.unwrap().into_iter().map(|n| n.name).collect();
    assert_eq!(names.pop().as_deref(), Some("public"));
    assert!(names.is_empty());
    assert!(c.get::<Network>(&hidden.id).await.unwrap_err().is_not_found());
    let external = cloud.external_network();
    assert_eq!(c.delete::<Network>(&external).await.unwrap_err().class(), Class::Forbidden);
    let found = c.list::<Network>(&Query::new().with("router:external", true)).await.unwrap();
    assert_eq!((found.len(), found[0].id.as_str()), (1, external.as_str()));
    let own: Network = c.create(&NetworkDraft { name: "own".into(), ..Default::default() }).await.unwrap();
    assert!(admin.get::<Network>(&own.id).await.is_ok(), "administrators see all");
}

#[tokio::test]
async fn an_application_credential_stands_for_its_user_until_it_is_deleted() {
    let (cloud, c) = new(options()).await;
    let user = c.access().await.unwrap().user_id.clone();
    let draft = ApplicationCredentialDraft { name: "robot".into(), ..Default::default() };
    let made: ApplicationCredential = c.create_in(&user, &draft).await.unwrap();
    let yaml = format!(
        "clouds: {{r: {{auth: {{auth_url: 'http://cloud.test/identity/v3', application_credential_id: {}, application_credential_secret: {}}}}}}}",
        made.id, made.secret
    );
    let at = Where::from_yaml(yaml.as_bytes(), None, None).unwrap();
    let robot = Client::new(at, Local::shared::<Body, Body>(cloud.router()), ClientOptions::default());
    assert_eq!(robot.access().await.unwrap().user_id, user);
    c.delete_in::<ApplicationCredential>(&user, &made.id).await.unwrap();
    let lost = robot.list::<Network>(&Query::new()).await.unwrap_err();
    assert_eq!(lost.class(), Class::Forbidden, "tokens go with their credential");
    let at = Where::from_yaml(yaml.as_bytes(), None, None).unwrap();
    let robot = Client::new(at, Local::shared::<Body, Body>(cloud.router()), ClientOptions::default());
    assert_eq!(robot.access().await.unwrap_err().class(), Class::Forbidden);
}

#[tokio::test]
async fn an_application_credential_tells_when_it_ends_and_its_tokens_end_no_later() {
    let (cloud, c) = new(options()).await;
    let user = c.access().await.unwrap().user_id.clone();
    let draft = |time: &str| ApplicationCredentialDraft {
        name: "robot".into(),
        expires_at: Some(time.into()),
        ..Default::default()
    };
    let refused = c.create_in::<ApplicationCredential>(&user, &draft("2001-01-01T00:00:00")).await.unwrap_err();
    assert!(refused.message().contains("expires_at"), "{refused}");
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(20);
    let end = end.round(jiff::Unit::Second).unwrap();
    let made: ApplicationCredential = c.create_in(&user, &draft(&end.to_string())).await.unwrap();
    let at = Where::from_yaml(
        format!(
            "clouds: {{r: {{auth: {{auth_url: 'http://cloud.test/identity/v3', application_credential_id: {}, application_credential_secret: {}}}}}}}",
            made.id, made.secret
        )
        .as_bytes(),
        None,
        None,
    );
    let robot = Client::new(at.unwrap(), Local::shared::<Body, Body>(cloud.router()), ClientOptions::default());
    assert_eq!(robot.access().await.unwrap().expires_at, end);
    let read: ApplicationCredential = robot.get_in(&user, &made.id).await.unwrap();
    assert_eq!(read.expires_at, Some(end.strftime("%Y-%m-%dT%H:%M:%S.000000").to_string()));
    assert_eq!(read.secret, "");
}

#[tokio::test]
async fn a_restricted_application_credential_makes_and_deletes_no_other_and_an_unrestricted_one_does() {
    let (cloud, c) = new(options()).await;
    let user = c.access().await.unwrap().user_id.clone();
    let draft = |name: &str, unrestricted| ApplicationCredentialDraft {
        name: name.into(),
        unrestricted: Some(unrestricted),
        ..Default::default()
    };
    let by = |made: &ApplicationCredential| {
        let auth = json!({"auth_url": "http://cloud.test/identity/v3", "application_credential_id": made.id,
                          "application_credential_secret": made.secret});
        let yaml = json!({"clouds": {"r": {"auth": auth}}}).to_string();
        let at = Where::from_yaml(yaml.as_bytes(), None, None).unwrap();
        Client::new(at, Local::shared::<Body, Body>(cloud.router()), ClientOptions::default())
    };
    let bound: ApplicationCredential = c.create_in(&user, &draft("bound", false)).await.unwrap();
    let free: ApplicationCredential = c.create_in(&user, &draft("free", true)).await.unwrap();
    let (restricted, unrestricted) = (by(&bound), by(&free));
    let made = restricted.create_in::<ApplicationCredential>(&user, &draft("more", false)).await.unwrap_err();
    let gone = restricted.delete_in::<ApplicationCredential>(&user, &free.id).await.unwrap_err();
    for refused in [made, gone] {
        assert_eq!(refused.status().map(|status| status.as_u16()), Some(403), "{refused}");
        assert!(refused.message().contains("managing additional application credentials"), "{refused}");
    }
    let read: ApplicationCredential = restricted.get_in(&user, &bound.id).await.unwrap();
    assert_eq!(read.unrestricted, Some(false), "it may read itself");
    let more: ApplicationCredential = unrestricted.create_in(&user, &draft("more", false)).await.unwrap();
    unrestricted.delete_in::<ApplicationCredential>(&user, &more.id).await.unwrap();
}

#[tokio::test]
async fn a_password_tells_when_it_ends_and_is_refused_then() {
    let (_, c) = new(options()).await;
    assert_eq!(c.access().await.unwrap().password_expires_at, None);
    let life = Duration::from_secs(7 * 24 * 3600);
    let (_, c) = new(Options { password_life: Some(life), ..options() }).await;
    let end = c.access().await.unwrap().password_expires_at.unwrap();
    let left = end.duration_since(jiff::Timestamp::now());
    assert!(left > jiff::SignedDuration::from_hours(167) && left <= jiff::SignedDuration::from_hours(168), "{left}");
    let (_cloud, c) = new(Options { password_life: Some(Duration::ZERO), ..options() }).await;
    assert_eq!(c.access().await.unwrap_err().class(), Class::Forbidden);
}

#[tokio::test]
async fn tags_names_and_pages_narrow_a_list() {
    let (_cloud, c) = new(options()).await;
    for i in 0..5 {
        let made: Network = c.create(&NetworkDraft { name: format!("n{i}"), ..Default::default() }).await.unwrap();
        let tags = if i % 2 == 0 { vec!["even".to_owned(), format!("t{i}")] } else { vec!["odd".to_owned()] };
        c.set_tags::<Network>(&made.id, &tags).await.unwrap();
    }
    let names = |query: Query| {
        let c = c.clone();
        async move { c.list::<Network>(&query).await.unwrap().into_iter().map(|n| n.name).collect::<Vec<_>>() }
    };
    assert_eq!(names(Query::new().with("tags", "even,t2")).await, ["n2"]);
    assert_eq!(names(Query::new().with("tags-any", "t0,odd")).await, ["n0", "n1", "n3"]);
    assert_eq!(names(Query::by_name("n4")).await, ["n4"]);
    assert_eq!(names(Query::new().with("limit", 2).with("tags-any", "even,odd")).await, ["n0", "n1", "n2", "n3", "n4"]);
}

#[tokio::test]
async fn rules_are_checked_and_not_doubled() {
    let (_cloud, c) = new(options()).await;
    let group: SecurityGroup = c.create(&SecurityGroupDraft { name: "g".into(), ..Default::default() }).await.unwrap();
    let rule = SecurityGroupRuleDraft {
        security_group_id: group.id.clone(),
        direction: "ingress".into(),
        ethertype: "IPv4".into(),
        protocol: Some("tcp".into()),
        port_range_min: Some(6443),
        port_range_max: Some(6443),
        ..Default::default()
    };
    c.create::<SecurityGroupRule>(&rule).await.unwrap();
    let twin = c.create::<SecurityGroupRule>(&rule).await.unwrap_err();
    assert!(
        twin.is_conflict() && twin.message().starts_with("Security group rule already exists. Rule id is "),
        "{twin}"
    );
    for wrong in [
        SecurityGroupRuleDraft { direction: "sideways".into(), ..rule.clone() },
        SecurityGroupRuleDraft { protocol: Some("carrier-pigeon".into()), ..rule.clone() },
        SecurityGroupRuleDraft { port_range_max: Some(1), ..rule.clone() },
        SecurityGroupRuleDraft { remote_ip_prefix: Some("fd00::/8".into()), ..rule.clone() },
    ] {
        assert_eq!(c.create::<SecurityGroupRule>(&wrong).await.unwrap_err().class(), Class::Invalid, "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_can_boot_from_a_volume_that_goes_with_it() {
    let (cloud, c) = new(options()).await;
    let net = network(&c, &cloud).await;
    let mut draft = server_draft(&c, &net, "one").await;
    draft.block_device_mapping_v2 = vec![BlockDevice {
        source_type: "image".into(),
        destination_type: "volume".into(),
        uuid: draft.image_ref.take(),
        boot_index: Some(0),
        volume_size: Some(10),
        delete_on_termination: Some(true),
        ..Default::default()
    }];
    let id = c.create::<Server>(&draft).await.unwrap().id;
    settle(2).await;
    let volumes = c.list::<Volume>(&Query::new()).await.unwrap();
    assert_eq!((volumes.len(), volumes[0].status.as_str(), volumes[0].size), (1, "in-use", 10));
    assert_eq!(c.get::<Server>(&id).await.unwrap().image_id(), None);
    c.delete::<Server>(&id).await.unwrap();
    settle(1).await;
    assert!(c.list::<Volume>(&Query::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_is_announced_and_a_read_is_not() {
    let (cloud, c) = new(options()).await;
    c.list::<Network>(&Query::new()).await.unwrap();
    let mut changed = cloud.changed();
    changed.mark_unchanged();
    c.list::<Network>(&Query::new()).await.unwrap();
    assert!(!changed.has_changed().unwrap());
    c.create::<Network>(&NetworkDraft { name: "n".into(), ..Default::default() }).await.unwrap();
    assert!(changed.has_changed().unwrap());
}

#[tokio::test]
async fn bodies_over_the_limit_and_microversions_over_the_maximum_are_refused() {
    use http::{Request, StatusCode};
    let (cloud, c) = new(options()).await;
    c.access().await.unwrap();
    let transport = Local::shared::<Body, Body>(cloud.router());
    let send = |request: Request<bytes::Bytes>| {
        let transport = transport.clone();
        async move { transport.send(request, 1 << 20).await.unwrap() }
    };
    let body = |size: usize| Request::post("http://c/identity/v3/auth/tokens").body(vec![b' '; size].into()).unwrap();
    assert_eq!(send(body(BODY_LIMIT_BYTES)).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(send(body(BODY_LIMIT_BYTES + 1)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let version = |v: &str| {
        let header = format!("compute {v}");
        Request::get("http://c/compute/v2.1/servers")
            .header("openstack-api-version", header)
            .body(bytes::Bytes::new())
            .unwrap()
    };
    assert_eq!(send(version("2.90")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(version("2.91")).await.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn names_tags_lists_and_keys_one_over_their_limits_are_refused() {
    use openstack::compute::{Keypair, KeypairDraft};
    use sandbox::cloud::{LIST_LIMIT, PUBLIC_KEY_LIMIT, TAGS_LIMIT, TEXT_LIMIT};
    let (_cloud, c) = new(options()).await;
    let named = |n: usize| NetworkDraft { name: "x".repeat(n), ..Default::default() };
    let network: Network = c.create(&named(TEXT_LIMIT)).await.unwrap();
    assert_eq!(c.create::<Network>(&named(TEXT_LIMIT + 1)).await.unwrap_err().class(), Class::Invalid);
    let tags = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>();
    c.set_tags::<Network>(&network.id, &tags(TAGS_LIMIT)).await.unwrap();
    assert_eq!(c.set_tags::<Network>(&network.id, &tags(TAGS_LIMIT + 1)).await.unwrap_err().class(), Class::Invalid);
    let subnet = |n: usize, third: u8| SubnetDraft {
        network_id: network.id.clone(),
        cidr: format!("10.6.{third}.0/24"),
        ip_version: Some(4),
        dns_nameservers: vec!["192.0.2.1".into(); n],
        ..Default::default()
    };
    c.create::<Subnet>(&subnet(LIST_LIMIT, 0)).await.unwrap();
    assert_eq!(c.create::<Subnet>(&subnet(LIST_LIMIT + 1, 1)).await.unwrap_err().class(), Class::Invalid);
    let key = |n: usize| {
        let blob = "ssh-rsa AAAA ";
        KeypairDraft { name: format!("k{n}"), public_key: Some(format!("{blob}{}", "c".repeat(n - blob.len()))) }
    };
    c.create::<Keypair>(&key(PUBLIC_KEY_LIMIT)).await.unwrap();
    assert_eq!(c.create::<Keypair>(&key(PUBLIC_KEY_LIMIT + 1)).await.unwrap_err().class(), Class::Invalid);
}

#[tokio::test]
async fn a_key_pair_that_brings_no_key_is_generated() {
    use openstack::compute::{Keypair, KeypairDraft};
    let (_cloud, c) = new(options()).await;
    let made: Keypair = c.create(&KeypairDraft { name: "made".into(), public_key: None }).await.unwrap();
    assert!(made.public_key.starts_with("ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB"), "{}", made.public_key);
}
