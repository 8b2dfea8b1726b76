//! Which cloud an object lives in, and with whose credentials: the Secret that an identity reference names.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use api::{
    openstack_identity::OpenStackClusterIdentity,
    openstack_image::Image,
    openstack_reference::{IdentityRef, IdentityType},
};
use control::{Cache, Key};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client};
use openstack::{Class, Cloud, Pass, Query, Reads, Resource};
use parking_lot::Mutex;

use super::{
    Clouds, credential, names,
    stop::{Result, Stop, blocked},
    zones,
};
use crate::{Caches, owner};

/// Clients kept: one for each set of credentials.
const CLIENTS_LIMIT: usize = 4096;
const AUTH: &str = "OpenStackAuthenticationFailed";
/// The condition of whether the cloud accepts the credentials.
pub const AUTHENTICATED: &str = "OpenStackAuthenticationSucceeded";

/// What is kept of one set of credentials.
#[derive(Clone)]
struct Known {
    cloud: openstack::Client,
    end: Arc<credential::End>,
}

/// Clients by credentials, so that a token is fetched once and not once a machine.
pub struct Scopes {
    clouds: Arc<dyn Clouds>,
    client: Client,
    images: Arc<Cache<Image>>,
    identities: Arc<Cache<OpenStackClusterIdentity>>,
    known: Mutex<HashMap<u64, Known>>,
    /// Of this process alone: nobody can make credentials that pass for another tenant's.
    hasher: RandomState,
    placing: Arc<tokio::sync::Mutex<()>>,
    zones: Arc<zones::Known>,
}

/// A cloud, and the cluster that is worked for in it.
#[derive(Clone)]
pub struct Scope {
    pub cloud: openstack::Client,
    /// Namespace and name of the Secret with the credentials.
    pub secret: String,
    /// When they end.
    pub end: Arc<credential::End>,
    /// How long each application credential is to live that is made in place of one that ends, as the Secret says.
    pub renewal: Option<String>,
    /// Of the object that is worked for, and what it may name there.
    pub namespace: String,
    pub images: Arc<Cache<Image>>,
    /// Held by who makes a server group.
    pub placing: Arc<tokio::sync::Mutex<()>>,
    pub zones: Arc<zones::Known>,
    /// [`names::resource`].
    pub resource: String,
    /// As providerIDs have it: the identity reference's own, else empty.
    pub region: String,
    pub tags: Vec<String>,
    /// The cloud may have made something twice: what is known by its id is looked for by its name all the same.
    pub doubts: bool,
}

impl Scopes {
    pub fn new(clouds: Arc<dyn Clouds>, client: Client, caches: &Caches) -> Self {
        let (images, identities) = (caches.images.clone(), caches.identities.clone());
        Self {
            clouds,
            client,
            images,
            identities,
            known: Mutex::default(),
            hasher: RandomState::new(),
            placing: Arc::default(),
            zones: Arc::default(),
        }
    }

    pub async fn open(
        &self,
        namespace: &str,
        identity: &IdentityRef,
        resource: String,
        tags: Vec<String>,
    ) -> Result<Scope> {
        let (home, name) = self.secret_of(namespace, identity).await?;
        let found = Api::<Secret>::namespaced(self.client.clone(), &home)
            .get_opt(&name)
            .await
            .map_err(|e| control::Error::api("get", format!("Secret {name}"), e))?;
        let Some(secret) = found else {
            return blocked(AUTH, format!("Secret {home}/{name} (identityRef) does not exist"));
        };
        let renewal = owner::annotation_of(&secret.metadata, credential::RENEW_ANNOTATION).map(str::to_owned);
        let data = secret.data.unwrap_or_default();
        let Some(yaml) = data.get("clouds.yaml") else {
            return blocked(AUTH, format!("Secret {home}/{name} has no key clouds.yaml"));
        };
        let ca = data.get("cacert").map(|c| c.0.as_slice());
        let Known { cloud, end } = self.known(&yaml.0, ca, identity)?;
        let (namespace, images, placing) = (namespace.to_owned(), self.images.clone(), self.placing.clone());
        Ok(Scope {
            cloud,
            secret: format!("{home}/{name}"),
            end,
            renewal,
            namespace,
            images,
            placing,
            zones: self.zones.clone(),
            resource,
            region: identity.region.clone().unwrap_or_default(),
            tags,
            doubts: false,
        })
    }

    /// Namespace and name of the Secret with the credentials. One of another namespace is lent by an OpenStackClusterIdentity,
    /// to the namespaces that it selects.
    async fn secret_of(&self, namespace: &str, identity: &IdentityRef) -> Result<(String, String)> {
        if identity.type_ != Some(IdentityType::ClusterIdentity) {
            return Ok((namespace.to_owned(), identity.name.clone()));
        }
        let name = &identity.name;
        let Some(lender) = self.identities.get(&Key::new("", name.as_str())) else {
            return blocked(AUTH, format!("OpenStackClusterIdentity {name} (identityRef) does not exist"));
        };
        if let Some(selector) = &lender.spec.namespace_selector {
            let found = Api::<Namespace>::all(self.client.clone()).get_metadata_opt(namespace).await;
            let found = found.map_err(|e| control::Error::api("get", format!("Namespace {namespace}"), e))?;
            let labels = found.and_then(|found| found.metadata.labels);
            if !selector.selects(labels.as_ref()) {
                let message = format!(
                    "OpenStackClusterIdentity {name} may not be used in namespace {namespace}: its namespaceSelector does not select it"
                );
                return blocked(AUTH, message);
            }
        }
        let secret = &lender.spec.secret_ref;
        Ok((secret.namespace.clone(), secret.name.clone()))
    }

    /// A scope whose credentials the cloud has accepted.
    pub async fn checked(scope: Result<Scope>) -> Result<Scope> {
        let scope = scope?;
        match scope.cloud.access().await {
            Ok(_) => Ok(scope),
            Err(e) if e.class() == Class::Forbidden => {
                let end =
                    scope.end.lock().await.at.map(|at| format!(" (they were to end at {at})")).unwrap_or_default();
                let url = &scope.cloud.cloud().auth_url;
                blocked(AUTH, format!("{url} refuses the credentials of Secret {}{end}: {}", scope.secret, e.message()))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn known(&self, yaml: &[u8], ca: Option<&[u8]>, identity: &IdentityRef) -> Result<Known> {
        let key = self.hasher.hash_one((yaml, ca, &identity.cloud_name, &identity.region));
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(known.clone());
        }
        let cloud = Cloud::from_yaml(yaml, Some(&identity.cloud_name), ca);
        let mut cloud = cloud.map_err(|e| Stop::Blocked { reason: AUTH, message: e.to_string() })?;
        if let Some(region) = identity.region.clone().filter(|r| !r.is_empty()) {
            cloud.region = Some(region);
        }
        let new = Known { cloud: self.clouds.client(cloud)?, end: Arc::default() };
        let mut known = self.known.lock();
        if known.len() >= CLIENTS_LIMIT {
            known.clear();
        }
        known.insert(key, new.clone());
        Ok(new)
    }
}

/// What can carry our mark.
pub trait Described: Reads {
    fn description(&self) -> &str;
    /// As the service writes times: earlier ones sort first.
    fn created_at(&self) -> &str;
}

macro_rules! described {
    ($($kind:ty),*) => {
        $(impl Described for $kind {
            fn description(&self) -> &str {
                &self.description
            }
            fn created_at(&self) -> &str {
                &self.created_at
            }
        })*
    };
}

described!(
    openstack::network::Network,
    openstack::network::Subnet,
    openstack::network::Router,
    openstack::network::Port,
    openstack::network::SecurityGroup,
    openstack::network::Trunk,
    openstack::load_balancer::LoadBalancer
);

impl Scope {
    /// The same, with calls that belong to a pass.
    #[must_use]
    pub fn during(self, pass: &Pass, doubts: bool) -> Self {
        Self { cloud: self.cloud.during(pass), doubts, ..self }
    }

    pub fn description(&self) -> String {
        names::description(&self.resource)
    }

    /// The object of that name that carries our mark; strangers of the same name are passed over. There may be several: a
    /// cloud that does late what it was asked and gave no answer to makes a second one. The first is the one that is used, and
    /// the others go.
    pub async fn own<R: Described>(&self, name: &str, more: Query) -> Result<Option<R>> {
        self.own_before(None, name, more).await
    }

    /// The same, where the one of that id comes first.
    async fn own_before<R: Described>(&self, id: Option<&str>, name: &str, more: Query) -> Result<Option<R>> {
        let mark = self.description();
        let mut ours = self.cloud.list::<R>(&more.with("name", name)).await?;
        ours.retain(|r| r.name() == name && r.description() == mark);
        let other = |one: &R| id.is_some_and(|id| one.id() != id);
        ours.sort_by(|a, b| (other(a), a.created_at(), a.id()).cmp(&(other(b), b.created_at(), b.id())));
        let mut ours = ours.into_iter();
        let first = ours.next();
        for double in ours {
            tracing::info!(name, id = double.id(), "one of two {} of a name is deleted", R::MANY);
            self.cloud.remove::<R>(double.id()).await?;
        }
        Ok(first)
    }

    /// An object by the id that the status remembers, else by name and mark.
    pub async fn known<R: Described>(&self, id: Option<&str>, name: &str, more: Query) -> Result<Option<R>> {
        if let Some(id) = id.filter(|id| !id.is_empty())
            && let Some(found) = self.cloud.look::<R>(id).await?
        {
            if self.doubts {
                self.own_before::<R>(Some(id), name, more).await?;
            }
            return Ok(Some(found));
        }
        self.own(name, more).await
    }

    /// Gives the object the cluster's tags and its own, unless it has them.
    pub async fn tag<R: Resource>(&self, id: &str, have: &[String], more: &[String]) -> Result<()> {
        let mut want: Vec<String> = have.iter().chain(&self.tags).chain(more).cloned().collect();
        want.sort();
        want.dedup();
        if want.iter().any(|t| !have.contains(t)) {
            self.cloud.set_tags::<R>(id, &want).await?;
        }
        Ok(())
    }
}
