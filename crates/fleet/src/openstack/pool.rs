//! The OpenStackFloatingIPPool controller: answers claims of addresses with floating IPs.
//!
//! A floating IP of a pool says so in its description from the moment it is made, so one that no IPAddress has is free and
//! none is lost or made twice for a claim. Only those are deleted.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackfloatingippool_controller.go;
//! kubernetes-sigs/cluster-api docs/book/src/developer/providers/contracts/ipam.md.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api::{
    condition::{self, Statement},
    ip_address::{IPAddress, IPAddressClaim, IPAddressSpec, NameRef},
    meta::{ContractRef, Time},
    names::{FLOATING_IP_FINALIZER, OPENSTACK_POOL_FINALIZER},
    openstack_cluster::NetworkStatus,
    openstack_pool::{
        OpenStackFloatingIPPool as Pool, OpenStackFloatingIPPoolSpec, OpenStackFloatingIPPoolStatus, ReclaimPolicy,
    },
};
use control::{Cached, Key, Outcome, Plan, Queue, Reconcile};
use jiff::Timestamp;
use openstack::{
    Query,
    network::{FloatingIp, FloatingIpDraft, Network},
};

use super::{
    Shared, find, names,
    passes::Aim,
    scope::{AUTHENTICATED, Scope, Scopes},
    stop::{Result, Stop, blocked, wait},
};
use crate::{Caches, owner};

const KIND: &str = "OpenStackFloatingIPPool";
const GROUP: &str = "infrastructure.cluster.x-k8s.io";
/// As it is published.
const READY: &str = "OpenstackFloatingIPPoolReadyCondition";
const FULL: &str = "MaxIPsReached";
const NO_NETWORK: &str = "UnableToFindNetwork";
const ROLE: &str = "pool";
/// Upstream's tag of a pool's floating IPs.
const TAG: &str = "cluster-api-provider-openstack-fip-pool-";
/// Claims that wait for a free address are woken by one that is given back.
const FULL_PAUSE: Duration = Duration::from_secs(5 * 60);
const PAUSE: Duration = Duration::from_secs(5);
const LOOK_PAUSE_S: u64 = 30 * 60;
/// Floating IPs that one reconcile makes at most: the next goes on.
pub const MADE_AT_ONCE_MAX: usize = 10;

pub struct Pools(pub Arc<Shared>);

pub struct Seen {
    pub pool: Arc<Pool>,
    pub claims: Vec<Arc<IPAddressClaim>>,
    pub addresses: Vec<Arc<IPAddress>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    AddFinalizer,
    Ensure,
    Delete,
}

fn refers(reference: &ContractRef, name: &str) -> bool {
    reference.kind == KIND && reference.name == name && reference.api_group == GROUP
}

/// Pools are woken by their claims and addresses.
pub fn feed(caches: &Caches, pools: &Queue) {
    fn wake<K: Cached>(cache: &control::Cache<K>, queue: &Queue, reference: fn(&K) -> &ContractRef) {
        let queue = queue.clone();
        cache.on_change(move |object| {
            let reference = reference(object);
            if reference.kind == KIND && reference.api_group == GROUP {
                let namespace = object.meta().namespace.clone().unwrap_or_default();
                queue.add(Key::new(namespace, reference.name.clone()));
            }
        });
    }
    caches.pools.feed(pools);
    wake(&caches.claims, pools, |claim| &claim.spec.pool_ref);
    wake(&caches.addresses, pools, |address| &address.spec.pool_ref);
}

impl Reconcile for Pools {
    const NAME: &'static str = "openstackfloatingippool";
    type Seen = Seen;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(pool) = caches.pools.get(key) else { return Ok(None) };
        let mut claims = caches.claims.in_namespace(&key.namespace);
        claims.retain(|claim| refers(&claim.spec.pool_ref, &key.name));
        claims.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let mut addresses = caches.addresses.in_namespace(&key.namespace);
        addresses.retain(|address| refers(&address.spec.pool_ref, &key.name));
        addresses.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        Ok(Some(Seen { pool, claims, addresses }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> control::Result<Outcome> {
        let now = Time(self.0.writer.clock().now());
        let before = seen.pool.as_ref();
        let mut after = before.clone();
        let mut plan = Plan::nothing();
        let mut status = after.status.take().unwrap_or_default();
        let doubts = match work {
            Work::Ensure => self.0.begin(Self::NAME, key, Aim::Ensure),
            Work::Delete => self.0.begin(Self::NAME, key, Aim::Delete),
            _ => false,
        };
        let done = match work {
            Work::Nothing => return Ok(Outcome::Settled),
            Work::AddFinalizer => {
                after.status = before.status.clone();
                owner::add_finalizer(&mut after.metadata, OPENSTACK_POOL_FINALIZER);
                plan.update(before, &after);
                return self.0.writer.execute(plan).await;
            }
            Work::Ensure => self.ensure(key, seen, &mut status, &mut plan, &now).await,
            Work::Delete => self.delete(key, seen, &mut status, &mut plan, &now).await,
        };
        self.0.end(Self::NAME, key, &done, doubts);
        let done = match (work, done) {
            (Work::Delete, Ok(())) => self.0.unanswered.wait(Self::NAME, key),
            (_, done) => done,
        };
        if work == Work::Delete && done.is_ok() {
            after.status = before.status.clone();
            owner::remove_finalizer(&mut after.metadata, OPENSTACK_POOL_FINALIZER);
        } else {
            let stays =
                matches!(&done, Err(stop) if stop.found_nothing() && condition::is_true(&status.conditions, READY));
            if condition::is_true(&status.conditions, AUTHENTICATED) && !stays {
                let statement = match &done {
                    Ok(()) => Statement::yes(READY, "Ready"),
                    Err(stop) => {
                        let (reason, message) = stop.told();
                        Statement::no(READY, reason, message)
                    }
                };
                condition::set(&mut status.conditions, statement, after.metadata.generation, &now);
            }
            after.status = Some(status);
        }
        plan.update(before, &after);
        let written = self.0.writer.execute(plan).await?;
        match done {
            Ok(()) if work == Work::Ensure => {
                Ok(written.sooner(Outcome::waiting("the next look at the pool", LOOK_PAUSE_S)))
            }
            Ok(()) => Ok(written),
            Err(stop) => stop.outcome(),
        }
    }
}

pub fn plan(seen: &Seen) -> Work {
    let meta = &seen.pool.metadata;
    let has_finalizer = owner::has_finalizer(meta, OPENSTACK_POOL_FINALIZER);
    match (meta.deletion_timestamp.is_some(), has_finalizer) {
        (true, true) => Work::Delete,
        (true, false) => Work::Nothing,
        (false, false) => Work::AddFinalizer,
        (false, true) => Work::Ensure,
    }
}

/// The addresses that nobody has: those of the spec first, in their order.
fn free(spec: &OpenStackFloatingIPPoolSpec, made: &[FloatingIp], taken: &BTreeSet<String>) -> Vec<String> {
    let mut own: Vec<&String> = made.iter().map(|ip| &ip.floating_ip_address).collect();
    own.sort();
    let mut free: Vec<String> = Vec::new();
    for address in spec.pre_allocated_floating_ips.iter().chain(own) {
        if !taken.contains(address) && !free.contains(address) {
            free.push(address.clone());
        }
    }
    free
}

/// Whether the pool may give out one more.
fn has_room(spec: &OpenStackFloatingIPPoolSpec, taken: usize) -> bool {
    spec.max_ips.is_none_or(|most| i64::try_from(taken).is_ok_and(|taken| taken < most))
}

impl Pools {
    /// The pool's cloud, with the condition that tells whether it lets us in.
    async fn scope(
        &self,
        key: &Key,
        pool: &Pool,
        status: &mut OpenStackFloatingIPPoolStatus,
        now: &Time,
    ) -> Result<Scope> {
        let resource = names::resource(&key.namespace, &key.name);
        let scope = self.0.scopes.open(&key.namespace, &pool.spec.identity_ref, resource, Vec::new()).await;
        let scope = Scopes::checked(scope.map(|scope| self.0.during(Self::NAME, key, scope))).await;
        let statement = match &scope {
            Ok(_) => Statement::yes(AUTHENTICATED, "Ready"),
            Err(stop) => {
                let (reason, message) = stop.told();
                Statement::no(AUTHENTICATED, reason, message)
            }
        };
        condition::set(&mut status.conditions, statement, pool.metadata.generation, now);
        scope
    }

    async fn ensure(
        &self,
        key: &Key,
        seen: &Seen,
        status: &mut OpenStackFloatingIPPoolStatus,
        plan: &mut Plan,
        now: &Time,
    ) -> Result<()> {
        let pool = seen.pool.as_ref();
        let scope = self.scope(key, pool, status, now).await?;
        release(&scope, seen, plan).await?;
        let external = external(&scope, pool).await?;
        status.floating_ip_network =
            Some(NetworkStatus { id: external.id.clone(), name: external.name, tags: external.tags, subnets: vec![] });
        let made = own(&scope).await?;
        let mut taken: BTreeSet<String> = seen.addresses.iter().map(|one| one.spec.address.clone()).collect();
        let mut failed = BTreeSet::new();
        let mut new = 0;
        let mut short = Ok(());
        for claim in seen.claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            if let Some(address) = seen.addresses.iter().find(|one| one.metadata.name.as_ref() == Some(&name)) {
                if address.metadata.deletion_timestamp.is_some() {
                    short = wait("WaitingForIPAddress", format!("IPAddress {name} of before to be gone"), PAUSE);
                } else {
                    answer(claim, &name, plan);
                }
                continue;
            }
            if !has_room(&pool.spec, taken.len()) {
                let most = pool.spec.max_ips.unwrap_or_default();
                short = wait(FULL, format!("one of the pool's {most} addresses to be given back"), FULL_PAUSE);
                break;
            }
            let mut found = None;
            for address in free(&pool.spec, &made, &taken) {
                if failed.contains(&address) {
                    continue;
                }
                if exists(&scope, &made, &address).await? {
                    found = Some(address);
                    break;
                }
                failed.insert(address);
            }
            let address = match found {
                Some(address) => address,
                None if new >= MADE_AT_ONCE_MAX => {
                    short = wait("Progressing", "further floating IPs", Duration::ZERO);
                    break;
                }
                None => match make(&scope, &key.name, &external.id).await {
                    Ok(address) => {
                        new += 1;
                        address
                    }
                    Err(stop) => {
                        short = Err(stop);
                        break;
                    }
                },
            };
            taken.insert(address.clone());
            plan.create(&object(claim, &name, &address));
            answer(claim, &name, plan);
        }
        // Of what the spec names and nobody asked for, too, it is told whether it is there.
        let known: BTreeSet<String> = status.failed_ips.drain(..).collect();
        for address in known.into_iter().filter(|one| pool.spec.pre_allocated_floating_ips.contains(one)) {
            if !failed.contains(&address) && !exists(&scope, &made, &address).await? {
                failed.insert(address);
            }
        }
        status.available_ips =
            free(&pool.spec, &made, &taken).into_iter().filter(|address| !failed.contains(address)).collect();
        status.claimed_ips = taken.into_iter().collect();
        status.failed_ips = failed.into_iter().collect();
        short
    }

    async fn delete(
        &self,
        key: &Key,
        seen: &Seen,
        status: &mut OpenStackFloatingIPPoolStatus,
        plan: &mut Plan,
        now: &Time,
    ) -> Result<()> {
        let scope = match self.scope(key, &seen.pool, status, now).await {
            // Nothing was ever made without credentials.
            Err(Stop::Blocked { .. }) if status.floating_ip_network.is_none() && seen.addresses.is_empty() => {
                return Ok(());
            }
            other => other?,
        };
        release(&scope, seen, plan).await?;
        if !seen.addresses.is_empty() {
            let names: Vec<&str> = seen.addresses.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
            return wait("WaitingForIPAddresses", format!("the IPAddresses {} to be gone", names.join(", ")), PAUSE);
        }
        for ip in own(&scope).await? {
            if !seen.pool.spec.pre_allocated_floating_ips.contains(&ip.floating_ip_address) {
                scope.cloud.remove::<FloatingIp>(&ip.id).await?;
            }
        }
        Ok(())
    }
}

async fn external(scope: &Scope, pool: &Pool) -> Result<Network> {
    let found = match &pool.spec.floating_ip_network {
        Some(param) => find::external_network(&scope.cloud, param).await,
        None => {
            let mut all = scope.cloud.list::<Network>(&Query::new().with("router:external", true)).await?;
            match (all.pop(), all.len()) {
                (Some(one), 0) => Ok(one),
                (_, more) => {
                    let count = if more == 0 { "no".to_owned() } else { (more + 1).to_string() };
                    blocked(
                        NO_NETWORK,
                        format!("the cloud has {count} external networks: name one in spec.floatingIPNetwork"),
                    )
                }
            }
        }
    };
    match found {
        Err(Stop::Blocked { message, .. }) => blocked(NO_NETWORK, message),
        other => other,
    }
}

/// What an address's place in the cloud says of it.
fn mark(scope: &Scope) -> String {
    names::floating_description(&scope.resource, ROLE)
}

/// The floating IPs that were made for the pool.
async fn own(scope: &Scope) -> Result<Vec<FloatingIp>> {
    let mark = mark(scope);
    let mut found = scope.cloud.list::<FloatingIp>(&Query::new().with("description", &mark)).await?;
    found.retain(|ip| ip.description == mark);
    Ok(found)
}

async fn by_address(scope: &Scope, address: &str) -> Result<Option<FloatingIp>> {
    let query = Query::new().with("floating_ip_address", address);
    Ok(scope.cloud.list::<FloatingIp>(&query).await?.into_iter().find(|ip| ip.floating_ip_address == address))
}

async fn exists(scope: &Scope, made: &[FloatingIp], address: &str) -> Result<bool> {
    Ok(made.iter().any(|ip| ip.floating_ip_address == address) || by_address(scope, address).await?.is_some())
}

async fn make(scope: &Scope, pool: &str, external: &str) -> Result<String> {
    let draft = FloatingIpDraft {
        description: mark(scope),
        floating_network_id: external.to_owned(),
        floating_ip_address: None,
        port_id: None,
    };
    let made: FloatingIp = scope.cloud.create(&draft).await?;
    scope.tag::<FloatingIp>(&made.id, &made.tags, &[format!("{TAG}{pool}")]).await?;
    Ok(made.floating_ip_address)
}

fn object(claim: &IPAddressClaim, name: &str, address: &str) -> IPAddress {
    let spec = IPAddressSpec {
        address: address.to_owned(),
        claim_ref: NameRef { name: name.to_owned() },
        gateway: None,
        pool_ref: claim.spec.pool_ref.clone(),
        prefix: if address.contains(':') { 128 } else { 32 },
    };
    let mut object = IPAddress::new(name, spec);
    object.metadata.namespace = claim.metadata.namespace.clone();
    owner::add_finalizer(&mut object.metadata, FLOATING_IP_FINALIZER);
    // No other owner: garbage collection spares what has one left.
    owner::ensure(&mut object.metadata, owner::reference(claim, true));
    object
}

/// Tells the claim its address.
fn answer(claim: &IPAddressClaim, name: &str, plan: &mut Plan) {
    let mut after = claim.clone();
    after.status.get_or_insert_default().address_ref = Some(NameRef { name: name.to_owned() });
    plan.update(claim, &after);
}

/// Takes back what is given back: addresses that are deleted, or whose claim is gone.
async fn release(scope: &Scope, seen: &Seen, plan: &mut Plan) -> Result<()> {
    let spec = &seen.pool.spec;
    for address in &seen.addresses {
        if address.metadata.deletion_timestamp.is_none() {
            let claimed = seen.claims.iter().any(|claim| {
                claim.metadata.name.as_ref() == Some(&address.spec.claim_ref.name)
                    && owner::is_controlled_by(&address.metadata, &claim.metadata)
            });
            if !claimed && owner::has_finalizer(&address.metadata, FLOATING_IP_FINALIZER) {
                plan.delete(address.as_ref());
            }
            continue;
        }
        if !owner::has_finalizer(&address.metadata, FLOATING_IP_FINALIZER) {
            continue;
        }
        let text = &address.spec.address;
        if let Some(ip) = by_address(scope, text).await? {
            let stays = spec.reclaim_policy == ReclaimPolicy::Retain || spec.pre_allocated_floating_ips.contains(text);
            if !stays && ip.description == mark(scope) {
                scope.cloud.remove::<FloatingIp>(&ip.id).await?;
            } else if ip.port_id.as_ref().is_some_and(|port| !port.is_empty()) {
                scope.cloud.associate_floating_ip(&ip.id, None).await?;
            }
        }
        let mut after = IPAddress::clone(address);
        owner::remove_finalizer(&mut after.metadata, FLOATING_IP_FINALIZER);
        plan.update(address.as_ref(), &after);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str) -> FloatingIp {
        FloatingIp { floating_ip_address: address.into(), ..Default::default() }
    }

    #[test]
    fn addresses_of_the_spec_are_taken_first_and_each_once() {
        let spec = OpenStackFloatingIPPoolSpec {
            pre_allocated_floating_ips: vec!["203.0.113.9".into(), "203.0.113.2".into()],
            ..Default::default()
        };
        let made = [ip("203.0.113.4"), ip("203.0.113.3"), ip("203.0.113.2")];
        let taken = BTreeSet::from(["203.0.113.4".to_owned()]);
        assert_eq!(free(&spec, &made, &taken), ["203.0.113.9", "203.0.113.2", "203.0.113.3"]);
    }

    #[test]
    fn a_pool_gives_out_no_more_than_it_may() {
        let of = |most| OpenStackFloatingIPPoolSpec { max_ips: most, ..Default::default() };
        assert!(has_room(&of(None), 10_000));
        assert!(has_room(&of(Some(2)), 1));
        assert!(!has_room(&of(Some(2)), 2));
        assert!(!has_room(&of(Some(0)), 0));
    }

    #[test]
    fn a_pool_is_another_groups_pools_namesake() {
        let of = |group: &str| ContractRef { api_group: group.into(), kind: KIND.into(), name: "p".into() };
        assert!(refers(&of(GROUP), "p") && !refers(&of("ipam.example.org"), "p") && !refers(&of(GROUP), "q"));
    }
}
