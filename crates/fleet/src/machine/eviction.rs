//! Reads what is on a node, and asks its pods to leave.

use std::collections::{BTreeMap, BTreeSet};

use control::{Error, Key, Outcome, Result, bounded};
use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Namespace, Node, PersistentVolume, Pod},
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, EvictParams, ListParams},
};
use serde::de::DeserializeOwned;
use tracing::debug;

use super::drain::{Load, Volume};
use crate::{owner, workload::Workloads};

/// Pods that are evicted at once.
const EVICTIONS_AT_ONCE: usize = 10;
/// Pause between two looks at a node that is drained.
const DRAIN_PAUSE_S: u64 = 5;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// Pages of a list: a cluster has more volumes than that only by mistake.
const PAGES_MAX: usize = 100;

async fn all<K>(api: Api<K>, fields: Option<String>, cluster: &Key) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = ListParams { field_selector: fields, ..ListParams::default() }.limit(PAGE);
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = bounded(cluster, api.list(&params)).await?;
        let page = page.map_err(|source| Error::api("list", format!("{} of {cluster}", K::plural(&())), source))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
    Err(Error::Retry(format!("{} of {cluster}: more than {} objects", K::plural(&()), PAGE as usize * PAGES_MAX)))
}

/// What is on the node of a machine that goes. `namespaces`: rules ask for their labels.
pub async fn load(workloads: &Workloads, cluster: &Key, node: &Node, namespaces: bool) -> Result<Load> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let Some(client) = workloads.client(cluster) else {
        return Err(Error::Retry(format!(
            "the API of cluster {cluster} is not reached, so node {name} is not drained"
        )));
    };
    let pods = all(Api::<Pod>::all(client.clone()), Some(format!("spec.nodeName={name}")), cluster).await?;
    let sets = pods.iter().any(|pod| owner::owner_of_kind(&pod.metadata, "DaemonSet").is_some());
    let key = |meta: &kube::core::ObjectMeta| {
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    };
    let daemon_sets = match sets {
        true => all(Api::<DaemonSet>::all(client.clone()), None, cluster).await?,
        false => Vec::new(),
    };
    let namespaces = match namespaces {
        true => all(Api::<Namespace>::all(client.clone()), None, cluster).await?,
        false => Vec::new(),
    };
    let labels = |one: Namespace| (one.metadata.name.unwrap_or_default(), one.metadata.labels.unwrap_or_default());
    Ok(Load {
        pods,
        daemon_sets: daemon_sets.iter().map(|set| key(&set.metadata)).collect(),
        namespaces: namespaces.into_iter().map(labels).collect(),
        volumes: volumes(client, cluster, node).await?,
        refused: BTreeMap::new(),
    })
}

/// Volumes that are attached to the node: as the node says, and as the attachments say.
async fn volumes(client: Client, cluster: &Key, node: &Node) -> Result<Vec<Volume>> {
    let attachments = all(Api::<VolumeAttachment>::all(client.clone()), None, cluster).await?;
    let attached = attachments.into_iter().filter(|one| {
        Some(&one.spec.node_name) == node.metadata.name.as_ref()
            && one.status.as_ref().is_some_and(|status| status.attached)
    });
    let mut by_name: BTreeSet<String> = attached.filter_map(|one| one.spec.source.persistent_volume_name).collect();
    let told = node.status.as_ref().and_then(|status| status.volumes_attached.as_ref());
    let mut by_handle: BTreeSet<String> = told.into_iter().flatten().map(|volume| volume.name.clone()).collect();
    if by_name.is_empty() && by_handle.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for volume in all(Api::<PersistentVolume>::all(client), None, cluster).await? {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let spec = volume.spec.unwrap_or_default();
        let handle = spec.csi.map(|csi| format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle));
        let (named, handled) = (by_name.remove(&name), handle.is_some_and(|handle| by_handle.remove(&handle)));
        if named || handled {
            let claim = spec.claim_ref.filter(|claim| claim.kind.as_deref() == Some("PersistentVolumeClaim"));
            let claim = claim.and_then(|claim| Some((claim.namespace?, claim.name?)));
            found.push(Volume { name, claim });
        }
    }
    // Nobody knows whose they are, but they are attached.
    found.extend(by_name.into_iter().chain(by_handle).map(|name| Volume { name, claim: None }));
    Ok(found)
}

/// Cordons the node and asks the pods to leave as their disruption budgets allow. Gives those that may not, by reason.
pub async fn evict(
    workloads: &Workloads,
    cluster: &Key,
    node: &str,
    pods: Vec<Pod>,
    grace_s: Option<u32>,
) -> Result<(Outcome, BTreeMap<String, Vec<String>>)> {
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(client) = workloads.client(cluster) else {
        return Ok((Outcome::waiting(format!("the API of cluster {cluster}"), DRAIN_PAUSE_S), refused));
    };
    match bounded(cluster, Api::<Node>::all(client.clone()).cordon(node)).await? {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok((Outcome::Settled, refused)),
        Err(source) => return Err(Error::api("cordon", format!("node {node} of {cluster}"), source)),
    }
    let delete_options = grace_s.map(|seconds| DeleteParams::default().grace_period(seconds));
    let params = EvictParams { delete_options, ..EvictParams::default() };
    let params = &params;
    let answers: Vec<(String, String)> = futures::stream::iter(pods)
        .map(|pod| {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
            async move {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let why = match bounded(cluster, pods.evict(&name, params)).await {
                    Ok(Ok(_)) => return None,
                    Ok(Err(kube::Error::Api(status))) => match status.code {
                        404 => return None,
                        429 => budget(&status),
                        _ => format!("failed to evict Pod, {}", status.message),
                    },
                    Ok(Err(error)) => format!("failed to evict Pod, {error}"),
                    Err(late) => format!("failed to evict Pod, {late}"),
                };
                Some((why, format!("{namespace}/{name}")))
            }
        })
        .buffer_unordered(EVICTIONS_AT_ONCE)
        .filter_map(futures::future::ready)
        .collect()
        .await;
    for (why, pod) in answers {
        refused.entry(why).or_default().push(pod);
    }
    refused.values_mut().for_each(|pods| pods.sort());
    debug!(node, ?refused, "evicted");
    Ok((Outcome::waiting(format!("pods to leave node {node}"), DRAIN_PAUSE_S), refused))
}

/// What a disruption budget says, in the words that Cluster API's conditions have.
fn budget(status: &kube::core::Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<_> = causes.map(|cause| cause.message.as_str()).collect();
    let text = format!("{} {}", status.message, causes.join(","));
    match text.trim_end().strip_prefix("Cannot evict pod as it would violate the pod's disruption budget.") {
        Some(rest) => format!("cannot evict pod as it would violate the pod's disruption budget.{rest}"),
        None => format!("failed to evict Pod, {}", text.trim_end()),
    }
}
