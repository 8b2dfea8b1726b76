//! Clusters as the Management API shows them, watched until they are as they should be.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use anyhow::{Context, Result, bail};
use api::{
    cluster::Cluster,
    condition,
    control_plane::KubeadmControlPlane,
    kubeadm::KubeadmConfig,
    machine::{Machine, MachineDeployment, MachineSet},
    meta::Condition,
    names::{CLUSTER_LABEL, CONTROL_PLANE_LABEL},
    openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachine,
};
use futures::{
    StreamExt, pin_mut,
    stream::{BoxStream, select_all},
};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::inventory::Counts;

/// How large a cluster is, and which ways of the provider it goes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// A word for names: clusters are called `<word><shape>`.
    pub name: &'static str,
    pub control_plane: u32,
    pub workers: u32,
    pub zones: &'static [&'static str],
    /// Or the floating IP of the first control plane machine.
    pub load_balancer: bool,
    pub bastion: bool,
}

impl Shape {
    pub fn machines(&self) -> usize {
        (self.control_plane + self.workers) as usize
    }

    pub fn objects(&self, name: &str, cloud: &str, clouds_yaml: &str) -> Vec<Value> {
        let template = cli::ClusterTemplate {
            name: name.to_owned(),
            control_plane_machines: self.control_plane,
            worker_machines: self.workers,
            zones: self.zones.iter().map(|zone| (*zone).to_owned()).collect(),
            load_balancer: self.load_balancer,
            cloud: cloud.to_owned(),
            clouds_yaml: clouds_yaml.to_owned(),
            ..cli::ClusterTemplate::sandbox()
        };
        let mut objects = template.objects();
        if self.bastion {
            let spec =
                json!({"flavor": {"filter": {"name": "m1.small"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
            for object in objects.iter_mut().filter(|object| object["kind"] == "OpenStackCluster") {
                object["spec"]["bastion"] = json!({"enabled": true, "spec": spec});
            }
        }
        objects
    }
}

fn of_cluster(name: &str) -> watcher::Config {
    watcher::Config::default().labels(&format!("{CLUSTER_LABEL}={name}"))
}

/// Watches a kind until all that there is of it passes.
async fn until<K>(client: &Client, config: watcher::Config, pass: impl Fn(&HashMap<String, K>) -> bool) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let events = watcher(Api::<K>::default_namespaced(client.clone()), config).default_backoff();
    pin_mut!(events);
    let mut known = HashMap::new();
    let mut complete = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => drop(known.insert(object.name_any(), object)),
            Ok(Event::Delete(object)) => drop(known.remove(&object.name_any())),
            Ok(Event::Init) => {
                known.clear();
                complete = false;
            }
            Ok(Event::InitDone) => complete = true,
            // The server is being killed under us: the watcher starts again by itself.
            Err(_) => {}
        }
        if complete && pass(&known) {
            return Ok(());
        }
    }
    bail!("the watch of {} ended", K::kind(&K::DynamicType::default()))
}

/// Waits until the cluster is Available with all its machines, and there is nothing left to do.
pub async fn settled(client: &Client, name: &str, shape: &Shape) -> Result<()> {
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let holds = |conditions: &[Condition], types: &[&str]| types.iter().all(|t| condition::is_true(conditions, t));
    until::<Cluster>(client, one, |found| {
        found.values().any(|c| c.status.as_ref().is_some_and(|s| condition::is_true(&s.conditions, "Available")))
    })
    .await?;
    until::<Machine>(client, of_cluster(name), |found| {
        let ready = |m: &Machine| m.status.as_ref().is_some_and(|s| holds(&s.conditions, &["Ready", "Available"]));
        found.len() == shape.machines() && found.values().all(ready)
    })
    .await?;
    until::<OpenStackMachine>(client, of_cluster(name), |found| {
        let ready = |m: &OpenStackMachine| {
            let wanted: &[&str] = match m.labels().contains_key(CONTROL_PLANE_LABEL) {
                true => &["Ready", "APIServerIngressReady"],
                false => &["Ready"],
            };
            m.status.as_ref().is_some_and(|s| holds(&s.conditions, wanted))
        };
        found.len() == shape.machines() && found.values().all(ready)
    })
    .await?;
    until::<MachineSet>(client, of_cluster(name), |found| {
        found.values().all(|set| {
            let wanted = set.spec.replicas.unwrap_or(0);
            set.status.as_ref().is_some_and(|s| s.replicas == Some(wanted) && s.available_replicas == Some(wanted))
        })
    })
    .await
}

/// Something has changed at a kind: an item for each change after the start of the watch, which never ends.
fn changes_of<K>(client: &Client) -> BoxStream<'static, ()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let events = watcher(Api::<K>::default_namespaced(client.clone()), watcher::Config::default()).default_backoff();
    let changed = |event| async move { matches!(event, Ok(Event::Apply(_) | Event::Delete(_))).then_some(()) };
    events.filter_map(changed).boxed()
}

/// Returns at the `count`th change of the fleet from now on.
pub async fn changed(client: &Client, count: usize) {
    let mut seen = changes(client);
    for _ in 0..count {
        seen.next().await;
    }
}

/// An item for each change that the controllers make to what is theirs.
pub fn changes(client: &Client) -> BoxStream<'static, ()> {
    let kinds = [
        changes_of::<OpenStackCluster>(client),
        changes_of::<KubeadmControlPlane>(client),
        changes_of::<KubeadmConfig>(client),
        changes_of::<MachineSet>(client),
        changes_of::<Machine>(client),
        changes_of::<OpenStackMachine>(client),
    ];
    select_all(kinds).boxed()
}

/// Asks for the cluster's deletion; it may be gone already.
pub async fn delete(client: &Client, name: &str) -> Result<()> {
    match Api::<Cluster>::default_namespaced(client.clone()).delete(name, &DeleteParams::foreground()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("delete cluster {name}")),
    }
}

/// Waits until nothing of the cluster is left, but for the credentials that its user made.
pub async fn gone(client: &Client, name: &str) -> Result<()> {
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    until::<Cluster>(client, one, HashMap::is_empty).await?;
    until::<Machine>(client, of_cluster(name), HashMap::is_empty).await?;
    until::<OpenStackMachine>(client, of_cluster(name), HashMap::is_empty).await?;
    until::<Secret>(client, of_cluster(name), HashMap::is_empty).await
}

/// How many objects of each kind the Management API has for a cluster, by name pattern.
pub async fn objects(client: &Client, name: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    count::<Machine>(client, name, &mut counts).await?;
    count::<MachineSet>(client, name, &mut counts).await?;
    count::<MachineDeployment>(client, name, &mut counts).await?;
    count::<KubeadmControlPlane>(client, name, &mut counts).await?;
    count::<KubeadmConfig>(client, name, &mut counts).await?;
    count::<OpenStackMachine>(client, name, &mut counts).await?;
    count::<OpenStackCluster>(client, name, &mut counts).await?;
    count::<Secret>(client, name, &mut counts).await?;
    Ok(counts)
}

async fn count<K>(client: &Client, cluster: &str, counts: &mut Counts) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let suffix = regex::Regex::new("-[bcdfghjklmnpqrstvwxz2456789]{5}\\b")?;
    let params = ListParams::default().labels(&format!("{CLUSTER_LABEL}={cluster}"));
    let all = Api::<K>::default_namespaced(client.clone()).list(&params).await;
    for object in all.with_context(|| format!("list {kind}"))? {
        let name = object.name_any().replace(cluster, "CLUSTER");
        *counts.entry(format!("{kind} {}", suffix.replace_all(&name, "-*"))).or_default() += 1;
    }
    Ok(())
}

/// All of them at once.
pub async fn together<F: Future<Output = Result<()>>>(all: impl IntoIterator<Item = F>) -> Result<()> {
    futures::future::try_join_all(all).await.map(drop)
}

/// For limits: what was waited for goes into the error.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.with_context(|| what.to_owned()),
        Err(_) => bail!("{what}: not after {limit:?}"),
    }
}
