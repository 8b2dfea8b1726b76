//! A cloud that is told to fail, as its users see it: through the client, in one process, on a paused clock.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use openstack::{
    Class, Client, Cloud as Where, Local, Options as ClientOptions, Query, Service,
    compute::{AvailabilityZone, Flavor, Server, ServerDraft, ServerNetwork},
    image::Image,
    load_balancer::{Listener, ListenerDraft, LoadBalancer, LoadBalancerDraft},
    network::{Network, NetworkDraft, Port, Subnet, SubnetDraft},
};
use sandbox::cloud::{
    BuildRule, Built, CallRule, Cloud, Effect, End, FAULTS_LIMIT_BYTES, Faults, LifeRule, Options, When, ZoneRule,
};
use serde_json::{Value, json};
use store::{Embedded, Limits};
use tokio::time::Instant;
use tower::ServiceExt;

fn client(cloud: &Cloud, name: &str) -> Client {
    let yaml = cloud.clouds_yaml("c");
    let at = Where::from_yaml(yaml.as_bytes(), Some(name), None).unwrap();
    Client::new(at, Local::shared::<Body, Body>(cloud.router()), ClientOptions::default())
}

async fn new() -> (Cloud, Client) {
    let options = Options { public_url: "http://cloud.test".to_owned(), seed: Some(7), ..Options::default() };
    let cloud = Cloud::open(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let client = client(&cloud, "c");
    (cloud, client)
}

async fn network(c: &Client) -> (Network, Subnet) {
    let network: Network = c.create(&NetworkDraft { name: "n".into(), ..Default::default() }).await.unwrap();
    let draft = SubnetDraft {
        name: "s".into(),
        network_id: network.id.clone(),
        cidr: "10.6.0.0/24".into(),
        ip_version: Some(4),
        ..Default::default()
    };
    (network, c.create(&draft).await.unwrap())
}

async fn draft(c: &Client, network: &Network, name: &str) -> ServerDraft {
    ServerDraft {
        name: name.into(),
        flavor_ref: c.find::<Flavor>("m1.small", Query::new()).await.unwrap().unwrap().id,
        image_ref: Some(c.find::<Image>("ubuntu-2404-kube", Query::new()).await.unwrap().unwrap().id),
        networks: vec![ServerNetwork { uuid: Some(network.id.clone()), port: None }],
        ..Default::default()
    }
}

fn calls(rule: CallRule) -> Faults {
    Faults { calls: vec![rule], ..Faults::default() }
}

fn error(status: u16, retry_after_s: Option<u32>) -> Effect {
    Effect::Error { status, message: None, retry_after_s }
}

async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_is_not_done_and_answered_as_its_service_does() {
    let (cloud, c) = new().await;
    let one = |service: &str, path: &str, effect| calls(CallRule::on(service, "POST", path, When::times(1), effect));
    for (status, class) in [(500, Class::Server), (503, Class::Server), (504, Class::Timeout), (409, Class::Conflict)] {
        cloud.set_faults(one("network", "networks", error(status, None))).unwrap();
        let made = c.create::<Network>(&NetworkDraft { name: "n".into(), ..Default::default() }).await;
        let failed = made.unwrap_err();
        assert_eq!((failed.class(), failed.status().unwrap().as_u16()), (class, status));
        assert_eq!(cloud.struck()[0], [1]);
    }
    assert_eq!(c.list::<Network>(&Query::by_name("n")).await.unwrap(), []);
    for status in [429, 413] {
        cloud.set_faults(one("network", "networks", error(status, Some(7)))).unwrap();
        let failed = c.create::<Network>(&NetworkDraft::default()).await.unwrap_err();
        assert_eq!((failed.class(), failed.retry_after()), (Class::RateLimited, Some(Duration::from_secs(7))));
        // The client leaves the service alone for so long.
        settle(7).await;
    }
    // Hollow machines and other administrators are spared.
    cloud.set_faults(calls(CallRule::all(When::default(), error(503, None)))).unwrap();
    assert!(c.list::<Network>(&Query::new()).await.is_err());
    assert!(client(&cloud, "c").access().await.is_err(), "logging in fails too");
    client(&cloud, "c-admin").list::<Network>(&Query::new()).await.unwrap();
    cloud.set_faults(Faults::default()).unwrap();
    network(&c).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_answer_is_lost_is_done() {
    let (cloud, c) = new().await;
    for (broken, class) in [(false, Class::Timeout), (true, Class::Transport)] {
        cloud
            .set_faults(calls(CallRule::on("network", "POST", "networks", When::times(1), Effect::Lost { broken })))
            .unwrap();
        let name = format!("lost-{broken}");
        let made = c.create::<Network>(&NetworkDraft { name: name.clone(), ..Default::default() }).await;
        assert_eq!(made.unwrap_err().class(), class);
        assert_eq!(c.list::<Network>(&Query::by_name(&name)).await.unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_early_and_a_call_takes_its_time() {
    let (cloud, c) = new().await;
    c.list::<Network>(&Query::new()).await.unwrap();
    let first = c.access().await.unwrap();
    cloud.set_faults(calls(CallRule::on("network", "GET", "networks", When::times(1), Effect::Expire {}))).unwrap();
    c.list::<Network>(&Query::new()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &c.access().await.unwrap()), "the client has a new token");
    let slow = Effect::Delay { min_ms: 2000, max_ms: 3000 };
    cloud.set_faults(calls(CallRule::all(When::default(), slow))).unwrap();
    let since = Instant::now();
    c.list::<Network>(&Query::new()).await.unwrap();
    assert!((2.0..3.1).contains(&since.elapsed().as_secs_f64()));
}

#[tokio::test(start_paused = true)]
async fn servers_end_in_error_or_vanish_as_told() {
    let (cloud, c) = new().await;
    let (network, _) = network(&c).await;
    let failing = BuildRule {
        what: Built::Server,
        name: Some("bad".into()),
        when: When::default(),
        error: Some("No valid host was found.".into()),
        slow_ms: 0,
    };
    let short = LifeRule { name: Some("short".into()), when: When::default(), after_ms: 10_000, end: End::Vanish };
    cloud.set_faults(Faults { builds: vec![failing], lives: vec![short], ..Faults::default() }).unwrap();
    let mut ids = Vec::new();
    for name in ["bad", "short", "good"] {
        ids.push(c.create::<Server>(&draft(&c, &network, name).await).await.unwrap().id);
    }
    settle(5).await;
    let bad: Server = c.get(&ids[0]).await.unwrap();
    assert_eq!((bad.status.as_str(), bad.fault.unwrap().message.as_str()), ("ERROR", "No valid host was found."));
    assert_eq!(c.get::<Server>(&ids[1]).await.unwrap().status, "ACTIVE");
    settle(10).await;
    assert_eq!(c.look::<Server>(&ids[1]).await.unwrap(), None);
    assert!(c.list::<Port>(&Query::new().with("device_id", &ids[1])).await.unwrap().is_empty());
    assert_eq!(c.get::<Server>(&ids[2]).await.unwrap().status, "ACTIVE");
    assert_eq!(cloud.struck(), [vec![], vec![1], vec![1]]);
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_is_busy_for_long_and_goes_on_when_faults_end() {
    let (cloud, c) = new().await;
    let (_, subnet) = network(&c).await;
    let slow =
        BuildRule { what: Built::LoadBalancer, name: None, when: When::default(), error: None, slow_ms: 600_000 };
    cloud.set_faults(Faults { builds: vec![slow.clone()], ..Faults::default() }).unwrap();
    let wanted = LoadBalancerDraft { name: "lb".into(), vip_subnet_id: Some(subnet.id), ..Default::default() };
    let balancer: LoadBalancer = c.create(&wanted).await.unwrap();
    settle(500).await;
    let listener = ListenerDraft {
        name: "l".into(),
        loadbalancer_id: balancer.id.clone(),
        protocol: "TCP".into(),
        protocol_port: Some(6443),
        ..Default::default()
    };
    assert!(c.create::<Listener>(&listener).await.unwrap_err().is_conflict());
    assert!(c.delete::<LoadBalancer>(&balancer.id).await.unwrap_err().is_conflict());
    cloud.set_faults(Faults::default()).unwrap();
    settle(5).await;
    c.create::<Listener>(&listener).await.unwrap();
    settle(5).await;
    // One that fails can only be deleted.
    let failing = BuildRule { slow_ms: 0, error: Some("no amphora".into()), ..slow };
    cloud.set_faults(Faults { builds: vec![failing], ..Faults::default() }).unwrap();
    let failed: LoadBalancer = c.create(&LoadBalancerDraft { name: "lb2".into(), ..wanted }).await.unwrap();
    settle(5).await;
    assert_eq!(c.get::<LoadBalancer>(&failed.id).await.unwrap().provisioning_status, "ERROR");
    let more = ListenerDraft { loadbalancer_id: failed.id.clone(), ..listener };
    assert!(c.create::<Listener>(&more).await.unwrap_err().is_conflict());
    c.delete::<LoadBalancer>(&failed.id).await.unwrap();
    settle(5).await;
    assert_eq!(c.look::<LoadBalancer>(&failed.id).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_down_takes_no_servers_and_loses_those_it_has() {
    let (cloud, c) = new().await;
    let (network, _) = network(&c).await;
    let place = async |name: &str| {
        let wanted = ServerDraft { availability_zone: Some("az1".into()), ..draft(&c, &network, name).await };
        let id = c.create::<Server>(&wanted).await.unwrap().id;
        settle(3).await;
        id
    };
    let first = place("first").await;
    let down = |running| ZoneRule { name: "az1".into(), running };
    cloud.set_faults(Faults { zones_down: vec![down(Some(End::Shutoff))], ..Faults::default() }).unwrap();
    assert_eq!(c.get::<Server>(&first).await.unwrap().status, "SHUTOFF");
    let second = place("second").await;
    let failed: Server = c.get(&second).await.unwrap();
    assert_eq!(failed.status, "ERROR");
    assert!(failed.fault.unwrap().message.starts_with("No valid host was found."));
    let zones = c.list::<AvailabilityZone>(&Query::new()).await.unwrap();
    let up: Vec<bool> = zones.iter().map(|zone| zone.state.available).collect();
    assert_eq!(up, [false, true, true]);
    let unknown = Faults { zones_down: vec![ZoneRule { name: "az9".into(), running: None }], ..Faults::default() };
    assert!(cloud.set_faults(unknown).unwrap_err().contains("az1, az2, az3"));
    cloud.set_faults(Faults::default()).unwrap();
    let third = place("third").await;
    assert_eq!(c.get::<Server>(&third).await.unwrap().status, "ACTIVE");
}

#[tokio::test(start_paused = true)]
async fn quotas_and_microversions_change_while_the_cloud_runs() {
    let (cloud, c) = new().await;
    let (network, _) = network(&c).await;
    c.create::<Server>(&draft(&c, &network, "one").await).await.unwrap();
    cloud.set_faults(Faults { quotas: [("instances".to_owned(), 1)].into(), ..Faults::default() }).unwrap();
    let refused = c.create::<Server>(&draft(&c, &network, "two").await).await.unwrap_err();
    assert_eq!(refused.class(), Class::Quota);
    cloud.set_faults(Faults { compute_microversion_max: Some(52), ..Faults::default() }).unwrap();
    assert_eq!(client(&cloud, "c").microversion(Service::Compute).await.unwrap().to_string(), "2.52");
    // A client that knew better finds out.
    c.list::<Server>(&Query::new()).await.unwrap();
    assert_eq!(c.microversion(Service::Compute).await.unwrap().to_string(), "2.52");
}

#[tokio::test(start_paused = true)]
async fn faults_are_set_over_http_by_the_administrator_alone() {
    let (cloud, c) = new().await;
    let log_in = async |name: &str| {
        let domain = json!({"id": "default"});
        let user = json!({"name": name, "password": "sandbox", "domain": domain});
        let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": name, "domain": domain}}}});
        let request = Request::post("http://cloud.test/identity/v3/auth/tokens").body(Body::from(body.to_string()));
        let response = cloud.router().oneshot(request.unwrap()).await.unwrap();
        response.headers()["x-subject-token"].to_str().unwrap().to_owned()
    };
    let (demo, admin) = (log_in("demo").await, log_in("admin").await);
    let call = async |method: Method, token: Option<&str>, body: String| {
        let mut request = Request::builder().method(method).uri("http://cloud.test/sandbox/faults");
        if let Some(token) = token {
            request = request.header("x-auth-token", token);
        }
        let response = cloud.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let faults = json!({"calls": [{"service": "compute", "effect": {"error": {"status": 503}}}]});
    assert_eq!(call(Method::PUT, None, faults.to_string()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(call(Method::PUT, Some(&demo), faults.to_string()).await.0, StatusCode::FORBIDDEN);
    assert_eq!(cloud.faults(), Faults::default());
    let (status, told) = call(Method::PUT, Some(&admin), faults.to_string()).await;
    assert_eq!((status, &told["struck"]["calls"]), (StatusCode::OK, &json!([0])));
    assert!(c.list::<Server>(&Query::new()).await.is_err());
    let (_, told) = call(Method::GET, Some(&admin), String::new()).await;
    assert_eq!(told["struck"]["calls"], json!([1]));
    let (status, told) = call(Method::PUT, Some(&admin), json!({"calls": [{"effect": {}}]}).to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    let padded = |bytes: usize| format!("{}{}", " ".repeat(bytes - 2), "{}");
    assert_eq!(call(Method::PUT, Some(&admin), padded(FAULTS_LIMIT_BYTES + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(call(Method::PUT, Some(&admin), padded(FAULTS_LIMIT_BYTES)).await.0, StatusCode::OK);
    assert_eq!(call(Method::DELETE, Some(&admin), String::new()).await.0, StatusCode::OK);
    assert_eq!(cloud.faults(), Faults::default());
    c.list::<Server>(&Query::new()).await.unwrap();
}
