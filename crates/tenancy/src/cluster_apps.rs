//! What the apps of a workload cluster are told of it (`<id>-cluster-values`, as a ConfigMap and as a Secret), and that they go with it.
//!
//! Source: giantswarm/cluster-apps-operator. Apps of operators in each cluster are not made: `delivery` needs none.

mod sources;
mod values;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use api::{
    app::{App, CLUSTER_LABEL, MANAGED_BY_LABEL, WATCHING_LABEL},
    cluster::Cluster,
    names,
    openstack_cluster::OpenStackCluster,
    openstack_reference::IdentityType,
};
use control::{Cache, Error, Key, Life, Outcome, Plan, Queue, Reconcile, Result, Writer};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta},
    runtime::watcher,
};
use parking_lot::Mutex;
use serde::Serialize;

pub use self::values::Installation;
use self::{
    sources::Sources,
    values::{Facts, Identity, Problem},
};
use crate::figures::Dangling;

/// As the published controller calls itself in what it writes.
pub const MANAGER: &str = "cluster-apps-operator";
const FINALIZER: &str = "operatorkit.giantswarm.io/cluster-apps-operator-cluster-controller";
const NOTES: &str = "giantswarm.io/notes";
const NOTE: &str = "DO NOT EDIT. Values managed by cluster-apps-operator.";
/// Apps with both are made anew by Flux when they are deleted.
const FLUX: [&str; 2] = ["kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace"];
/// Apps of a cluster that goes are looked for again after so many seconds.
const LOOK_AGAIN_S: u64 = 5;
/// What the values are made of wakes its cluster when it comes; it is looked for again all the same.
const LOOK_ANYWAY_S: u64 = 300;
/// Releases are the most of all Secrets, and no values are made of them.
const NO_RELEASES: &str = "type!=helm.sh/release.v1";
const SECRET: &str = "Secret";
const INFRASTRUCTURE: &str = "OpenStackCluster";
/// Apps of one cluster that are listed.
const APPS_MAX: u32 = 1_000;

pub struct Clusters {
    client: Client,
    writer: Writer,
    clusters: Arc<Cache<Cluster>>,
    maps: Arc<Cache<ConfigMap>>,
    secrets: Arc<Cache<Secret>>,
    sources: Arc<Sources>,
    installation: Installation,
    dangling: Arc<Dangling>,
}

pub struct Seen {
    cluster: Arc<Cluster>,
    id: String,
    maps: BTreeMap<String, Arc<ConfigMap>>,
    secret: Option<Arc<Secret>>,
    /// Somebody else works on it, a move for one: it is left alone, and so are its apps.
    is_paused: bool,
    facts: Result<Facts, Problem>,
    /// Of a cluster that goes.
    apps: Vec<App>,
}

impl Clusters {
    pub fn start(client: &Client, writer: Writer, installation: Installation, queue: &Queue) -> Self {
        let own = || watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
        let clusters = Cache::start(client.clone(), watcher::Config::default().labels(WATCHING_LABEL), &writer);
        let (maps, secrets) =
            (Cache::start(client.clone(), own(), &writer), Cache::start(client.clone(), own(), &writer));
        feed_wishes(&clusters, queue);
        feed_owner(&maps, queue);
        feed_owner(&secrets, queue);
        let (sources, dangling) = (Arc::default(), Arc::default());
        Self { client: client.clone(), writer, clusters, maps, secrets, sources, installation, dangling }
    }

    /// What the values are made of wakes the clusters that they are of.
    pub fn follow_sources(&self, life: &Life, queue: &Queue) {
        let (sources, client) = (self.sources.clone(), self.client.clone());
        let secrets = watcher::Config::default().fields(NO_RELEASES);
        life.task(sources.follow::<Secret>(SECRET, client, secrets, queue.clone()));
        let (sources, client) = (self.sources.clone(), self.client.clone());
        let all = watcher::Config::default();
        life.task(sources.follow::<OpenStackCluster>(INFRASTRUCTURE, client, all, queue.clone()));
    }

    pub fn dangling(&self) -> &Arc<Dangling> {
        &self.dangling
    }

    pub async fn synced(&self) {
        self.clusters.synced().await;
        self.maps.synced().await;
        self.secrets.synced().await;
    }

    /// All that the values say.
    async fn facts(&self, cluster: &Cluster, id: &str) -> Result<Result<Facts, Problem>> {
        let (key, namespace) = (Key::of(cluster), cluster.namespace().unwrap_or_default());
        let source = |kind, name: &str| (kind, Key::new(&namespace, name));
        let authority = format!("{}-ca", cluster.name_any());
        let infrastructure = cluster.spec.infrastructure_ref.as_ref().filter(|object| object.kind == INFRASTRUCTURE);
        let mut sources = vec![source(SECRET, &authority)];
        sources.extend(infrastructure.map(|object| source(INFRASTRUCTURE, &object.name)));
        self.sources.note(&key, &sources);
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &namespace);
        let Some(infrastructure) = infrastructure else {
            let authority = get(&secrets, &authority).await?.and_then(|secret| text(&secret, "tls.crt"));
            return Ok(Facts::of(cluster, id, authority, None, &self.installation));
        };
        let clusters = Api::<OpenStackCluster>::namespaced(self.client.clone(), &namespace);
        let Some(openstack) = get(&clusters, &infrastructure.name).await? else {
            return Ok(Err(Problem::Missing(format!("{INFRASTRUCTURE} {namespace}/{}", infrastructure.name))));
        };
        let named = &openstack.spec.identity_ref;
        let identity = match named.type_.unwrap_or_default() {
            IdentityType::Secret => {
                sources.push(source(SECRET, &named.name));
                self.sources.note(&key, &sources);
                identity(get(&secrets, &named.name).await?.as_ref(), &Key::new(&namespace, &named.name))
            }
            IdentityType::ClusterIdentity => Identity::Shared,
        };
        let authority = get(&secrets, &authority).await?.and_then(|secret| text(&secret, "tls.crt"));
        Ok(Facts::of(cluster, id, authority, Some((&openstack, &identity)), &self.installation))
    }

    /// The object, whoever has made it: before there is one of ours, there may be one that stands in for it.
    async fn present<K>(&self, ours: &Cache<K>, key: &Key) -> Result<Option<Arc<K>>>
    where
        K: control::Cached + Resource<Scope = NamespaceResourceScope>,
    {
        if let Some(object) = ours.get(key) {
            return Ok(Some(object));
        }
        let objects = Api::<K>::namespaced(self.client.clone(), &key.namespace);
        Ok(get(&objects, &key.name).await?.map(Arc::new))
    }

    /// The apps that others have made for the cluster.
    async fn apps(&self, namespace: &str, id: &str) -> Result<Vec<App>> {
        let labels = format!("{CLUSTER_LABEL}={id},{MANAGED_BY_LABEL}!={MANAGER}");
        let params = ListParams::default().labels(&labels).limit(APPS_MAX);
        let listed = Api::<App>::namespaced(self.client.clone(), namespace).list(&params).await;
        Ok(listed.map_err(|error| Error::api("list", format!("apps of cluster {namespace}/{id}"), error))?.items)
    }
}

/// Wakes clusters when something is new that their values follow: while one is made its status is written a dozen times.
fn feed_wishes(clusters: &Arc<Cache<Cluster>>, queue: &Queue) {
    let (holder, queue, told) = (Arc::downgrade(clusters), queue.clone(), Mutex::<HashMap<Key, Cluster>>::default());
    clusters.on_change(move |cluster| {
        let key = Key::of(cluster.as_ref());
        let is_there = holder.upgrade().is_some_and(|clusters| clusters.get(&key).is_some());
        let mut wishes = Cluster { status: None, ..cluster.as_ref().clone() };
        wishes.metadata.resource_version = None;
        let mut told = told.lock();
        let is_new = match is_there {
            true => told.insert(key.clone(), wishes.clone()).as_ref() != Some(&wishes),
            false => told.remove(&key).is_some(),
        };
        if is_new {
            queue.add(key);
        }
    });
}

/// What a cluster's objects are called after, whoever's cluster it is.
fn id(cluster: &Cluster) -> String {
    let label = |name: &str| cluster.labels().get(name).filter(|id| !id.is_empty()).cloned();
    label(CLUSTER_LABEL).or_else(|| label(names::CLUSTER_LABEL)).unwrap_or_else(|| cluster.name_any())
}

fn feed_owner<K: control::Cached>(objects: &Cache<K>, queue: &Queue) {
    objects.feed_owner("cluster.x-k8s.io", "Cluster", queue);
}

async fn get<K>(objects: &Api<K>, name: &str) -> Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    objects.get_opt(name).await.map_err(|error| Error::api("get", format!("{} {name}", K::kind(&())), error))
}

fn identity(secret: Option<&Secret>, key: &Key) -> Identity {
    let Some(secret) = secret else { return Identity::Missing(format!("Secret {key} of the cluster's identity")) };
    let missing = || Identity::Missing(format!("clouds.yaml in Secret {key} of the cluster's identity"));
    text(secret, "clouds.yaml").map_or_else(missing, Identity::Clouds)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

impl Reconcile for Clusters {
    const NAME: &'static str = "cluster-apps";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Some(cluster) = self.clusters.get(key) else {
            self.dangling.note(key, None);
            self.sources.note(key, &[]);
            return Ok(None);
        };
        let id = id(&cluster);
        let is_paused = is_paused(&cluster);
        let goes = cluster.metadata.deletion_timestamp.is_some();
        let facts = match (is_paused, goes) {
            (true, _) => Err(Problem::Paused),
            (false, true) => Err(Problem::Goes),
            (false, false) => self.facts(&cluster, &id).await?,
        };
        let (mut maps, mut secret) = (BTreeMap::new(), None);
        if facts.is_ok() {
            let at = |name: &str| Key::new(&key.namespace, name);
            let names = [format!("{id}-cluster-values"), format!("{id}-app-operator-values")];
            secret = self.present(&self.secrets, &at(&names[0])).await?;
            for name in names {
                if let Some(map) = self.present(&self.maps, &at(&name)).await? {
                    maps.insert(name, map);
                }
            }
        }
        let apps = if goes && !is_paused { self.apps(&key.namespace, &id).await? } else { Vec::new() };
        let waits = goes && !is_paused && is_held(&cluster);
        self.dangling.note(key, waits.then_some((&id, apps.len())));
        Ok(Some(Seen { cluster, id, maps, secret, is_paused, facts, apps }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Plan {
        if seen.is_paused {
            return Plan::nothing();
        }
        if seen.cluster.metadata.deletion_timestamp.is_some() { removal(seen) } else { values(seen) }
    }

    async fn act(&self, _: &Key, seen: &Seen, plan: Plan) -> Result<Outcome> {
        if seen.cluster.metadata.deletion_timestamp.is_some() {
            let apps = Api::<App>::namespaced(self.client.clone(), &seen.cluster.namespace().unwrap_or_default());
            for app in seen.apps.iter().filter(|app| !is_flux(app) && app.metadata.deletion_timestamp.is_none()) {
                match apps.delete(&app.name_any(), &DeleteParams::background()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    deleted => {
                        deleted.map_err(|error| Error::api("delete", format!("app {}", app.name_any()), error))?;
                    }
                }
            }
        }
        self.writer.execute(plan).await
    }
}

fn is_paused(cluster: &Cluster) -> bool {
    cluster.spec.paused == Some(true) || cluster.annotations().contains_key(names::PAUSED_ANNOTATION)
}

fn is_held(cluster: &Cluster) -> bool {
    cluster.finalizers().iter().any(|name| name == FINALIZER)
}

fn is_flux(app: &App) -> bool {
    FLUX.iter().all(|label| app.labels().contains_key(*label))
}

/// The cluster stays until none of its apps is left; those of Flux go when Flux takes them away.
fn removal(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    if !is_held(&seen.cluster) {
        return plan;
    }
    if !seen.apps.is_empty() {
        let names: Vec<String> = seen.apps.iter().take(10).map(ResourceExt::name_any).collect();
        return Plan::waiting(format!("apps to go: {}", names.join(", ")), LOOK_AGAIN_S);
    }
    let mut after = (*seen.cluster).clone();
    after.finalizers_mut().retain(|name| name != FINALIZER);
    plan.update(&*seen.cluster, &after);
    plan
}

fn values(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    let facts = match &seen.facts {
        Ok(facts) => facts,
        Err(problem) => return Plan::waiting(problem.to_string(), LOOK_ANYWAY_S),
    };
    let mut after = (*seen.cluster).clone();
    if !is_held(&after) {
        after.finalizers_mut().push(FINALIZER.to_owned());
    }
    plan.update(&*seen.cluster, &after);
    let name = format!("{}-cluster-values", seen.id);
    let map = seen.maps.get(&name).map(|map| &**map);
    if let Some(text) = facts.cluster_values(map.is_some_and(is_ours)) {
        put(&mut plan, config_map(seen, &name, text), map);
    }
    if let Some(text) = facts.secret_values(seen.secret.as_deref().is_some_and(is_ours)) {
        let data = BTreeMap::from([("values".to_owned(), ByteString(text.into_bytes()))]);
        let type_ = seen.secret.as_ref().and_then(|secret| secret.type_.clone());
        let wanted = Secret { metadata: metadata(seen, &name), data: Some(data), type_, ..Secret::default() };
        put(&mut plan, wanted, seen.secret.as_deref());
    }
    let name = format!("{}-app-operator-values", seen.id);
    put(&mut plan, config_map(seen, &name, facts.operator_values()), seen.maps.get(&name).map(|map| &**map));
    if let Some(what) = facts.lacks() {
        plan.wait(what, LOOK_ANYWAY_S);
    }
    plan
}

fn is_ours(object: &impl ResourceExt) -> bool {
    object.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGER)
}

fn config_map(seen: &Seen, name: &str, values: String) -> ConfigMap {
    let data = BTreeMap::from([("values".to_owned(), values)]);
    ConfigMap { metadata: metadata(seen, name), data: Some(data), ..ConfigMap::default() }
}

/// Makes the object, or makes ours of the one that is there; what others have marked it with stays.
fn put<K>(plan: &mut Plan, wanted: K, existing: Option<&K>)
where
    K: Resource<DynamicType = ()> + Serialize + PartialEq + Clone,
{
    let Some(existing) = existing else {
        plan.create(&wanted);
        return;
    };
    let mut after = wanted;
    let ours = std::mem::replace(after.meta_mut(), existing.meta().clone());
    after.labels_mut().extend(ours.labels.into_iter().flatten());
    after.annotations_mut().extend(ours.annotations.into_iter().flatten());
    for owner in ours.owner_references.into_iter().flatten() {
        if after.owner_references().iter().all(|there| there.uid != owner.uid) {
            after.owner_references_mut().push(owner);
        }
    }
    plan.update(existing, &after);
}

fn metadata(seen: &Seen, name: &str) -> ObjectMeta {
    let labels = [(CLUSTER_LABEL, seen.id.as_str()), (MANAGED_BY_LABEL, MANAGER)];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: seen.cluster.namespace(),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        annotations: Some(BTreeMap::from([(NOTES.to_owned(), NOTE.to_owned())])),
        owner_references: seen.cluster.owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
