//! What a spec points at by id or filter; a filter must match exactly one.

use api::openstack_reference::{
    Filter, FlavorParam, ImageParam, NetworkFilter, NetworkParam, ServerGroupParam, SubnetParam,
};
use openstack::{
    Client, Query, Reads,
    compute::{Flavor, ServerGroup},
    image::Image,
    network::{Network, Router, SecurityGroup, Subnet},
};

use super::{
    image,
    scope::Scope,
    stop::{Result, blocked},
};

const REASON: &str = "DependencyFailed";

fn tags(query: Query, lists: [(&str, &[String]); 4]) -> Query {
    lists.iter().fold(query, |q, (name, tags)| if tags.is_empty() { q } else { q.with(name, tags.join(",")) })
}

fn network_query(filter: &NetworkFilter) -> Query {
    let query = Query::new()
        .with_some("name", filter.name.as_ref())
        .with_some("description", filter.description.as_ref())
        .with_some("project_id", filter.project_id.as_ref());
    tags(
        query,
        [
            ("tags", &filter.tags),
            ("tags-any", &filter.tags_any),
            ("not-tags", &filter.not_tags),
            ("not-tags-any", &filter.not_tags_any),
        ],
    )
}

fn subnet_query(filter: &Filter) -> Query {
    let query = Query::new()
        .with_some("name", filter.name.as_ref())
        .with_some("description", filter.description.as_ref())
        .with_some("project_id", filter.project_id.as_ref())
        .with_some("cidr", filter.cidr.as_ref())
        .with_some("gateway_ip", filter.gateway_ip.as_ref())
        .with_some("ip_version", filter.ip_version)
        .with_some("ipv6_address_mode", filter.ipv6_address_mode.as_ref())
        .with_some("ipv6_ra_mode", filter.ipv6_ra_mode.as_ref());
    tags(
        query,
        [
            ("tags", &filter.tags),
            ("tags-any", &filter.tags_any),
            ("not-tags", &filter.not_tags),
            ("not-tags-any", &filter.not_tags_any),
        ],
    )
}

/// Exactly one of the list.
fn one<R: Reads>(found: Vec<R>, what: &str) -> Result<R> {
    let count = found.len();
    let mut found = found.into_iter();
    match (found.next(), count) {
        (Some(found), 1) => Ok(found),
        (None, _) => blocked(REASON, format!("no {} matches {what}", R::MANY.trim_end_matches('s'))),
        (Some(_), _) => blocked(REASON, format!("{count} {} match {what}: name one by id", R::MANY)),
    }
}

async fn by_id<R: Reads>(cloud: &Client, id: &str, field: &str) -> Result<R> {
    match cloud.look::<R>(id).await? {
        Some(found) => Ok(found),
        None => blocked(REASON, format!("{field}.id {id} does not exist in the cloud")),
    }
}

/// By a filter of the kind that networks, routers and security groups share.
async fn by_param<R: Reads>(cloud: &Client, param: &NetworkParam, more: Query, field: &str) -> Result<R> {
    match (&param.id, &param.filter) {
        (Some(id), _) => by_id(cloud, id, field).await,
        (None, Some(filter)) => {
            let query = network_query(filter);
            let query = if more.as_str().is_empty() { query } else { query.with("router:external", true) };
            one(cloud.list::<R>(&query).await?, &format!("{field}.filter ({})", query.as_str()))
        }
        (None, None) => blocked(REASON, format!("{field} has neither id nor filter")),
    }
}

pub async fn network(cloud: &Client, param: &NetworkParam, field: &str) -> Result<Network> {
    by_param(cloud, param, Query::new(), field).await
}

pub async fn external_network(cloud: &Client, param: &NetworkParam) -> Result<Network> {
    by_param(cloud, param, Query::new().with("router:external", true), "externalNetwork").await
}

pub async fn router(cloud: &Client, param: &NetworkParam) -> Result<Router> {
    by_param(cloud, param, Query::new(), "router").await
}

pub async fn security_group(cloud: &Client, param: &NetworkParam) -> Result<SecurityGroup> {
    by_param(cloud, param, Query::new(), "securityGroups").await
}

pub async fn subnet(cloud: &Client, param: &SubnetParam, network: Option<&str>, field: &str) -> Result<Subnet> {
    match (&param.id, &param.filter) {
        (Some(id), _) => by_id(cloud, id, field).await,
        (None, Some(filter)) => {
            let query = subnet_query(filter).with_some("network_id", network);
            one(cloud.list::<Subnet>(&query).await?, &format!("{field}.filter ({})", query.as_str()))
        }
        (None, None) => blocked(REASON, format!("{field} has neither id nor filter")),
    }
}

pub async fn flavor(cloud: &Client, param: &FlavorParam) -> Result<Flavor> {
    match (&param.id, param.filter.as_ref().and_then(|f| f.name.as_ref())) {
        (Some(id), _) => by_id(cloud, id, "flavor").await,
        (None, Some(name)) => {
            let all = cloud.list::<Flavor>(&Query::new()).await?;
            one(all.into_iter().filter(|f| f.name == *name).collect(), &format!("flavor.filter.name {name:?}"))
        }
        (None, None) => blocked("InvalidMachineSpec", "flavor has neither id nor filter.name"),
    }
}

pub async fn image(scope: &Scope, param: &ImageParam) -> Result<Image> {
    let cloud = &scope.cloud;
    if let Some(id) = &param.id {
        return by_id(cloud, id, "image").await;
    }
    if let Some(reference) = &param.image_ref {
        let id = image::of(scope, &reference.name)?;
        return by_id(cloud, &id, "image.imageRef").await;
    }
    let Some(filter) = &param.filter else {
        return blocked("InvalidMachineSpec", "image has neither id nor filter");
    };
    let query = filter.tags.iter().fold(Query::new().with_some("name", filter.name.as_ref()), |q, t| q.with("tag", t));
    let found = cloud.list::<Image>(&query).await?;
    one(found, &format!("image.filter ({})", query.as_str()))
}

pub async fn server_group(cloud: &Client, param: &ServerGroupParam) -> Result<ServerGroup> {
    match (&param.id, param.filter.as_ref().and_then(|f| f.name.as_ref())) {
        (Some(id), _) => by_id(cloud, id, "serverGroup").await,
        (None, Some(name)) => {
            let all = cloud.list::<ServerGroup>(&Query::new()).await?;
            one(all.into_iter().filter(|g| g.name == *name).collect(), &format!("serverGroup.filter.name {name:?}"))
        }
        (None, None) => blocked("InvalidMachineSpec", "serverGroup has neither id nor filter.name"),
    }
}
