//! Every object that may have to be moved: of the kinds that say so, and Secrets and ConfigMaps.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use api::names::{INVENTORY_LABEL, MOVE_LABEL, PROVIDER_LABEL};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
};

use super::graph::{Found, Kind};

pub const HIERARCHY_LABEL: &str = "clusterctl.cluster.x-k8s.io/move-hierarchy";
/// Objects in an answer.
const PAGE: u32 = 500;
/// Objects of a kind that are looked at; more are an error.
const OBJECTS_MAX: usize = 200_000;
/// Kinds that draw along what they own.
const ROOTS: [(&str, &str); 3] = [
    ("cluster.x-k8s.io", "Cluster"),
    ("cluster.x-k8s.io", "ClusterClass"),
    ("addons.cluster.x-k8s.io", "ClusterResourceSet"),
];

/// The kinds, from the definitions of a management cluster.
async fn kinds(client: &Client) -> Result<Vec<Kind>> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let found = api.list(&ListParams::default()).await.context("list the kinds of the management cluster")?;
    let mut kinds: Vec<Kind> = ["Secret", "ConfigMap"]
        .map(|kind| Kind {
            resource: ApiResource {
                group: String::new(),
                version: "v1".to_owned(),
                api_version: "v1".to_owned(),
                kind: kind.to_owned(),
                plural: format!("{}s", kind.to_lowercase()),
            },
            global: false,
            moves: false,
            is_root: false,
        })
        .to_vec();
    kinds.extend(found.items.iter().filter_map(kind));
    Ok(kinds)
}

fn kind(definition: &CustomResourceDefinition) -> Option<Kind> {
    let labels = definition.metadata.labels.as_ref()?;
    if !labels.contains_key(INVENTORY_LABEL) && !labels.contains_key(PROVIDER_LABEL) {
        return None;
    }
    let spec = &definition.spec;
    let version = &spec.versions.iter().find(|version| version.storage)?.name;
    let is_root = labels.contains_key(HIERARCHY_LABEL) || ROOTS.contains(&(&*spec.group, &*spec.names.kind));
    Some(Kind {
        resource: ApiResource {
            group: spec.group.clone(),
            version: version.clone(),
            api_version: format!("{}/{version}", spec.group),
            kind: spec.names.kind.clone(),
            plural: spec.names.plural.clone(),
        },
        global: spec.scope == "Cluster",
        moves: labels.contains_key(MOVE_LABEL),
        is_root,
    })
}

pub async fn all(client: &Client, namespace: &str) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for kind in kinds(client).await? {
        let api = if kind.global {
            Api::<DynamicObject>::all_with(client.clone(), &kind.resource)
        } else {
            Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind.resource)
        };
        for object in list(&api, &kind.resource.plural).await? {
            all.push(Found { kind: kind.clone(), object });
        }
    }
    Ok(all)
}

async fn list<K>(api: &Api<K>, what: &str) -> Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await.with_context(|| format!("list {what}"))?;
        all.extend(page.items);
        anyhow::ensure!(all.len() <= OBJECTS_MAX, "there are more than {OBJECTS_MAX} {what}");
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Namespaces with clusters to move, or with a move that was cut off. Those with classes come first: clusters of others may
/// be made from them.
pub async fn namespaces(from: &Client, to: &Client) -> Result<Vec<String>> {
    let of = |meta: &kube::core::ObjectMeta| meta.namespace.clone().unwrap_or_default();
    let classes = list(&Api::<api::cluster_class::ClusterClass>::all(from.clone()), "ClusterClasses").await?;
    let mut found: Vec<String> = classes.iter().map(|class| of(&class.metadata)).collect();
    let here = list(&Api::<api::cluster::Cluster>::all(from.clone()), "clusters").await?;
    let there = list(&Api::<api::cluster::Cluster>::all(to.clone()), "clusters of the target").await?;
    let coming = there.iter().filter(|cluster| {
        cluster.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(super::carry::FROM_ANNOTATION))
    });
    found.sort();
    let mut others: Vec<String> = here.iter().chain(coming).map(|cluster| of(&cluster.metadata)).collect();
    others.sort();
    found.extend(others);
    let mut seen = BTreeSet::new();
    found.retain(|namespace| seen.insert(namespace.clone()));
    Ok(found)
}

/// Classes of the namespace that clusters of other namespaces are made from: they have to stay.
pub async fn classes_used_elsewhere(client: &Client, namespace: &str) -> Result<BTreeSet<String>> {
    let clusters = list(&Api::<api::cluster::Cluster>::all(client.clone()), "clusters").await?;
    let elsewhere = clusters.into_iter().filter(|cluster| cluster.metadata.namespace.as_deref() != Some(namespace));
    let classes = elsewhere.filter_map(|cluster| Some(cluster.spec.topology?.class_ref));
    let here = classes.filter(|class| class.namespace.as_deref() == Some(namespace));
    Ok(here.map(|class| class.name).collect())
}
