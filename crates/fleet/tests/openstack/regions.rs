//! One cloud of several regions: one identity service, which names the services of each.

use std::sync::Arc;

use api::{openstack_cluster::OpenStackCluster, openstack_machine::OpenStackMachine};
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use kube::ResourceExt;
use openstack::{
    Client, Cloud as Where, Local, Options, Query, Transport, TransportError, compute::Server, network::Network,
};
use sandbox::cloud::{Cloud, Options as CloudSettings};
use serde_json::{Value, json};
use store::{Embedded, Guard, Limits, Op, Store};

use crate::world::{World, is_ready, management, quick};

/// The first region's host has the identity service; what it says of its own services it says of the second's too.
struct Regions {
    first: Arc<dyn Transport>,
    second: Arc<dyn Transport>,
}

#[async_trait::async_trait]
impl Transport for Regions {
    async fn send(&self, request: Request<Bytes>, limit: usize) -> Result<Response<Bytes>, TransportError> {
        if request.uri().host() == Some("two.test") {
            return self.second.send(request, limit).await;
        }
        let asks = request.uri().path().ends_with("/auth/tokens");
        let answer = self.first.send(request, limit).await?;
        if !asks || !answer.status().is_success() {
            return Ok(answer);
        }
        let (mut parts, body) = answer.into_parts();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        for service in body["token"]["catalog"].as_array_mut().unwrap() {
            let endpoints = service["endpoints"].as_array_mut().unwrap();
            let others = endpoints.iter().map(|one| {
                let url = one["url"].as_str().unwrap().replace("cloud.test", "two.test");
                json!({"interface": one["interface"], "region": "RegionTwo", "region_id": "RegionTwo", "url": url})
            });
            let others: Vec<Value> = others.collect();
            endpoints.extend(others);
        }
        parts.headers.remove(http::header::CONTENT_LENGTH);
        Ok(Response::from_parts(parts, body.to_string().into()))
    }
}

/// A region: both sign tokens with the same key, and have the same users.
async fn region(name: &str, host: &str) -> Cloud {
    let store = Arc::new(Embedded::memory(Limits::default()));
    let key = Op::Put { key: Bytes::from_static(b"secret"), value: Bytes::from_static(&[7; 32]) };
    store.commit(Guard::default(), vec![key]).await.unwrap();
    let settings =
        CloudSettings { region: name.into(), public_url: format!("http://{host}"), seed: Some(1), ..quick() };
    Cloud::open(store, settings).await.unwrap()
}

#[tokio::test]
async fn clusters_of_one_clouds_yaml_are_made_in_the_region_that_each_names() {
    let (one, two) = (region("RegionOne", "cloud.test").await, region("RegionTwo", "two.test").await);
    let second = Local::shared::<Body, Body>(two.router());
    let regions = Arc::new(Regions { first: Local::shared::<Body, Body>(one.router()), second });
    let at = Where::from_yaml(two.clouds_yaml("c").replace("two.test", "cloud.test").as_bytes(), Some("c-admin"), None);
    let there = Client::new(at.unwrap(), regions.clone(), Options::default());
    let external = two.external_network();
    let world = World::over(one, regions, management().await, &[]);

    world.apply(&world.objects(|_| ())).await;
    // The same Secret and cloud, another region.
    let mut objects = world.objects(|cluster| {
        cluster["spec"]["identityRef"]["region"] = "RegionTwo".into();
        cluster["spec"]["externalNetwork"]["id"] = external.clone().into();
    });
    objects.remove(0);
    let renamed = |object: Value| -> Value {
        let text = object
            .to_string()
            .replace("\"name\":\"demo", "\"name\":\"other")
            .replace("other-cloud-config", "demo-cloud-config");
        serde_json::from_str(&text).unwrap()
    };
    world.apply(&objects.into_iter().map(renamed).collect::<Vec<_>>()).await;
    let ready = async |name: &'static str| {
        let is = move |one: &OpenStackMachine| one.name_any().starts_with(name) && is_ready(one);
        world.machine(is).await.spec.provider_id.unwrap()
    };
    let (id, other) = (ready("demo").await, ready("other").await);
    let all = Query::new().with("all_tenants", 1);
    let servers = world.admin.list::<Server>(&all).await.unwrap();
    assert_eq!((servers.len(), id.rsplit('/').next()), (1, Some(servers[0].id.as_str())));
    let servers = there.list::<Server>(&all).await.unwrap();
    assert_eq!((servers.len(), other), (1, format!("openstack://RegionTwo/{}", servers[0].id)));
    let networks = there.list::<Network>(&Query::new()).await.unwrap();
    assert_eq!(networks.iter().filter(|network| network.id != external).count(), 1);
    let cluster = world.api::<OpenStackCluster>().get("other").await.unwrap();
    assert_eq!(cluster.spec.identity_ref.region.as_deref(), Some("RegionTwo"));
    world.delete().await;
    assert!(world.inventory().await.values().all(|count| *count == 0));
    assert_eq!(there.list::<Server>(&all).await.unwrap().len(), 1, "the other region's are another cluster's");
}
