//! What the apps of a workload cluster are told of it (`<id>-cluster-values`, as a ConfigMap and as a Secret), and that they go with it.
//!
//! Source: giantswarm/cluster-apps-operator. Apps of operators in each cluster are not made: `delivery` needs none.

mod values;

use std::{collections::BTreeMap, sync::Arc};

use api::{
    app::{App, CLUSTER_LABEL, MANAGED_BY_LABEL},
    cluster::Cluster,
    names,
    openstack_cluster::OpenStackCluster,
};
use control::{Cache, Error, Key, Outcome, Plan, Queue, Reconcile, Result, Writer};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta},
    runtime::watcher,
};

pub use self::values::Installation;
use self::values::{Facts, Problem};
use crate::figures::Dangling;

/// As the published controller calls itself in what it writes.
pub const MANAGER: &str = "cluster-apps-operator";
/// Clusters with this label are looked after.
const WATCHING: &str = "cluster-apps-operator.giantswarm.io/watching";
const FINALIZER: &str = "operatorkit.giantswarm.io/cluster-apps-operator-cluster-controller";
const NOTES: &str = "giantswarm.io/notes";
const NOTE: &str = "DO NOT EDIT. Values managed by cluster-apps-operator.";
/// Apps with both are made anew by Flux when they are deleted.
const FLUX: [&str; 2] = ["kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace"];
/// What a cluster is made of is looked for again after so many seconds.
const LOOK_AGAIN_S: u64 = 5;
/// Apps of one cluster that are listed.
const APPS_MAX: u32 = 1_000;

pub struct Clusters {
    client: Client,
    writer: Writer,
    clusters: Arc<Cache<Cluster>>,
    maps: Arc<Cache<ConfigMap>>,
    secrets: Arc<Cache<Secret>>,
    installation: Installation,
    dangling: Arc<Dangling>,
}

pub struct Seen {
    cluster: Arc<Cluster>,
    id: String,
    maps: BTreeMap<String, Arc<ConfigMap>>,
    secret: Option<Arc<Secret>>,
    facts: Result<Facts, Problem>,
    /// Of a cluster that goes.
    apps: Vec<App>,
}

impl Clusters {
    pub fn start(client: &Client, writer: Writer, installation: Installation, queue: &Queue) -> Self {
        let own = || watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
        let clusters = Cache::start(client.clone(), watcher::Config::default().labels(WATCHING), &writer);
        let (maps, secrets) =
            (Cache::start(client.clone(), own(), &writer), Cache::start(client.clone(), own(), &writer));
        clusters.feed(queue);
        feed_owner(&maps, queue);
        feed_owner(&secrets, queue);
        let dangling = Arc::default();
        Self { client: client.clone(), writer, clusters, maps, secrets, installation, dangling }
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
        let namespace = cluster.namespace().unwrap_or_default();
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &namespace);
        let authority = format!("{}-ca", cluster.name_any());
        let authority = get(&secrets, &authority).await?.and_then(|secret| text(&secret, "tls.crt"));
        let infrastructure =
            cluster.spec.infrastructure_ref.as_ref().filter(|object| object.kind == "OpenStackCluster");
        let Some(infrastructure) = infrastructure else {
            return Ok(Facts::of(cluster, id, authority, None, &self.installation));
        };
        let Some(openstack) =
            get(&Api::<OpenStackCluster>::namespaced(self.client.clone(), &namespace), &infrastructure.name).await?
        else {
            return Ok(Err(Problem::Missing(format!("OpenStackCluster {namespace}/{}", infrastructure.name))));
        };
        let identity = &openstack.spec.identity_ref;
        let is_secret = identity.type_.as_ref().is_none_or(|kind| format!("{kind:?}") == "Secret");
        let clouds = match is_secret {
            true => get(&secrets, &identity.name).await?.and_then(|secret| text(&secret, "clouds.yaml")),
            // Its Secret is not the tenant's to hand on.
            false => None,
        };
        Ok(Facts::of(cluster, id, authority, Some((&openstack, clouds.as_deref())), &self.installation))
    }

    /// The apps that others have made for the cluster.
    async fn apps(&self, namespace: &str, id: &str) -> Result<Vec<App>> {
        let labels = format!("{CLUSTER_LABEL}={id},{MANAGED_BY_LABEL}!={MANAGER}");
        let params = ListParams::default().labels(&labels).limit(APPS_MAX);
        let listed = Api::<App>::namespaced(self.client.clone(), namespace).list(&params).await;
        Ok(listed.map_err(|error| Error::api("list", format!("apps of cluster {namespace}/{id}"), error))?.items)
    }
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
            return Ok(None);
        };
        let id = id(&cluster);
        let at = |name: &str| Key::new(&key.namespace, name);
        let names = [format!("{id}-cluster-values"), format!("{id}-app-operator-values")];
        let maps = names.iter().filter_map(|name| Some((name.clone(), self.maps.get(&at(name))?))).collect();
        let secret = self.secrets.get(&at(&names[0]));
        let goes = cluster.metadata.deletion_timestamp.is_some();
        let facts = if goes { Err(Problem::Goes) } else { self.facts(&cluster, &id).await? };
        let apps = if goes { self.apps(&key.namespace, &id).await? } else { Vec::new() };
        self.dangling.note(key, (goes && is_held(&cluster)).then_some(apps.len()));
        Ok(Some(Seen { cluster, id, maps, secret, facts, apps }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Plan {
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
        Err(problem) => return Plan::waiting(problem.to_string(), LOOK_AGAIN_S),
    };
    let mut after = (*seen.cluster).clone();
    if !is_held(&after) {
        after.finalizers_mut().push(FINALIZER.to_owned());
    }
    plan.update(&*seen.cluster, &after);
    for (suffix, text) in [("cluster-values", facts.cluster_values()), ("app-operator-values", facts.operator_values())]
    {
        let name = format!("{}-{suffix}", seen.id);
        let data = BTreeMap::from([("values".to_owned(), text)]);
        let wanted = ConfigMap { metadata: metadata(seen, &name), data: Some(data), ..ConfigMap::default() };
        plan.create_or_replace(&wanted, seen.maps.get(&name).map(|map| &**map));
    }
    let name = format!("{}-cluster-values", seen.id);
    let data = BTreeMap::from([("values".to_owned(), ByteString(facts.secret_values().into_bytes()))]);
    let type_ = seen.secret.as_ref().and_then(|secret| secret.type_.clone());
    let wanted = Secret { metadata: metadata(seen, &name), data: Some(data), type_, ..Secret::default() };
    plan.create_or_replace(&wanted, seen.secret.as_deref());
    if !facts.is_whole() {
        plan.wait("the cluster's network and authority", LOOK_AGAIN_S);
    }
    plan
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
