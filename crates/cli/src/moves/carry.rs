//! What a move writes, step by step. Each write may be the last one: the next run finds how far it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use api::{cluster::Cluster, condition, machine::Machine};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Move,
    graph::{Graph, Node},
};

/// Holds a move back while its value is not `false`.
const BLOCK_ANNOTATION: &str = "clusterctl.cluster.x-k8s.io/block-move";
/// On what is deleted because it is in the target: others may ask for it.
const DELETE_ANNOTATION: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";
/// On a Cluster that is being moved, here: the target. Namespaces' UIDs tell management clusters apart.
const TO_ANNOTATION: &str = "move.skep.dev/to";
/// On a Cluster that is being moved, in the target: where it comes from.
pub const FROM_ANNOTATION: &str = "move.skep.dev/from";
/// On what was made in the target: the UID that it had.
const UID_ANNOTATION: &str = "move.skep.dev/uid";
/// Looks for objects that came late.
pub const ROUNDS_MAX: usize = 5;
/// How long controllers may take to say that they are paused, and others to let go of a move.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

/// The two management clusters.
pub struct Ends<'a> {
    of: &'a Move,
    from_id: String,
    to_id: String,
}

fn api_of(client: &Client, namespace: &str, node: &Node) -> Api<DynamicObject> {
    if node.kind.global {
        Api::all_with(client.clone(), &node.kind.resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &node.kind.resource)
    }
}

fn annotation<'a>(meta: &'a kube::core::ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

impl<'a> Ends<'a> {
    pub async fn of(of: &'a Move) -> Result<Self> {
        let id = async |client: &Client, which: &str| -> Result<String> {
            let found = Api::<Namespace>::all(client.clone()).get("kube-system").await;
            let found = found.with_context(|| format!("read namespace kube-system of the {which}"))?;
            found.metadata.uid.with_context(|| format!("namespace kube-system of the {which} has no UID"))
        };
        let (from_id, to_id) = (id(&of.from, "source").await?, id(&of.to, "target").await?);
        ensure!(from_id != to_id, "source and target are the same management cluster");
        Ok(Self { of, from_id, to_id })
    }

    fn clusters(&self, client: &Client) -> Api<Cluster> {
        Api::namespaced(client.clone(), &self.of.namespace)
    }

    /// Clusters of the target that came from here and do not go on yet.
    async fn unfinished(&self) -> Result<Vec<Cluster>> {
        let found = self.clusters(&self.of.to).list(&ListParams::default()).await;
        let found = found.context("list the clusters of the target (is Skep or Cluster API installed there?)")?;
        let ours = |cluster: &Cluster| annotation(&cluster.metadata, FROM_ANNOTATION) == Some(&self.from_id);
        Ok(found.items.into_iter().filter(ours).collect())
    }

    pub async fn has_unfinished(&self) -> Result<bool> {
        Ok(!self.unfinished().await?.is_empty())
    }

    /// Whether the clusters are in a state that can be moved, and the target can take them.
    pub async fn check(&self, graph: &Graph) -> Result<()> {
        let mut wrong = Vec::new();
        for node in graph.nodes() {
            if node.meta().deletion_timestamp.is_some() && annotation(node.meta(), DELETE_ANNOTATION).is_none() {
                wrong.push(format!("{} is being deleted", node.told()));
            } else if node.is_cluster() {
                let moving = annotation(node.meta(), TO_ANNOTATION);
                let cluster: Cluster =
                    node.object.clone().try_parse().with_context(|| format!("read {}", node.told()))?;
                match moving {
                    Some(to) if to == self.to_id => continue,
                    Some(_) => wrong.push(format!("{} is being moved to another management cluster", node.told())),
                    None => wrong.extend(unready(&cluster).map(|why| format!("{} {why}", node.told()))),
                }
            } else if node.is("cluster.x-k8s.io", "Machine") {
                let machine: Machine =
                    node.object.clone().try_parse().with_context(|| format!("read {}", node.told()))?;
                if machine.status.is_none_or(|status| status.node_ref.is_none()) {
                    wrong.push(format!("{} has no node yet", node.told()));
                }
            }
        }
        wrong.extend(self.unserved(graph).await?);
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("cannot move now:\n  {}", wrong.join("\n  "))
    }

    /// Kinds that the target does not serve as they are here.
    async fn unserved(&self, graph: &Graph) -> Result<Vec<String>> {
        let wanted: BTreeSet<(String, String, String)> = graph
            .nodes()
            .map(|node| &node.kind.resource)
            .map(|kind| (kind.api_version.clone(), kind.group.clone(), kind.kind.clone()))
            .collect();
        let mut missing = Vec::new();
        for (api_version, group, kind) in wanted {
            if group.is_empty() {
                continue;
            }
            let served = match self.of.to.list_api_group_resources(&api_version).await {
                Ok(list) => list.resources.iter().any(|resource| resource.kind == kind),
                Err(kube::Error::Api(status)) if status.code == 404 => false,
                Err(error) => return Err(error).with_context(|| format!("look for {api_version} in the target")),
            };
            if !served {
                missing.push(format!("the target does not serve {kind} of {api_version}"));
            }
        }
        Ok(missing)
    }

    /// Pauses the clusters, and waits until nobody works on them or holds them.
    pub async fn pause(&self, graph: &Graph) -> Result<()> {
        for node in graph.nodes().filter(|node| node.is_cluster()) {
            if annotation(node.meta(), TO_ANNOTATION).is_some() {
                continue;
            }
            let patch = json!({
                "metadata": {"uid": node.uid(), "annotations": {TO_ANNOTATION: self.to_id}}, "spec": {"paused": true},
            });
            let clusters = self.clusters(&self.of.from);
            let sent = clusters.patch(node.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
            sent.with_context(|| format!("pause {}", node.told()))?;
        }
        Ok(())
    }

    /// Waits until controllers have seen the pause and nobody blocks the move.
    pub async fn still(&self, graph: &Graph) -> Result<()> {
        let started = Instant::now();
        for node in graph.nodes() {
            let api = api_of(&self.of.from, &self.of.namespace, node);
            let mut seen = Some(node.object.clone());
            while let Some(why) = seen.as_ref().and_then(|seen| restless(seen, &node.kind.resource.kind)) {
                ensure!(
                    started.elapsed() < PATIENCE,
                    "{} {why}: the clusters are paused, and the same command goes on with the move",
                    node.told()
                );
                tokio::time::sleep(PAUSE).await;
                seen = api.get_opt(node.name()).await.with_context(|| format!("read {}", node.told()))?;
            }
        }
        Ok(())
    }

    /// Makes in the target what is not there yet; returns the new UIDs by the old ones.
    pub async fn make(&self, graph: &Graph) -> Result<BTreeMap<String, String>> {
        self.namespace().await?;
        let mut uids = BTreeMap::new();
        for node in graph.groups().flatten() {
            let api = api_of(&self.of.to, &self.of.namespace, node);
            let body = self.body(node, &uids)?;
            let made = match api.create(&PostParams::default(), &body).await {
                Ok(made) => made,
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let there = api.get(node.name()).await;
                    let there = there.with_context(|| format!("read {} of the target", node.told()))?;
                    let ours = annotation(&there.metadata, UID_ANNOTATION) == Some(node.uid());
                    if !ours && !node.stays {
                        bail!("{} is in the target already, and is another one: delete one of the two", node.told());
                    }
                    there
                }
                Err(error) => return Err(error).with_context(|| format!("make {} in the target", node.told())),
            };
            let uid = made.metadata.uid.clone().unwrap_or_default();
            if annotation(&made.metadata, UID_ANNOTATION) == Some(node.uid()) {
                keep_managers(&api, node, &made).await?;
            }
            uids.insert(node.uid().to_owned(), uid);
        }
        Ok(uids)
    }

    async fn namespace(&self) -> Result<()> {
        let (api, name) = (Api::<Namespace>::all(self.of.to.clone()), &self.of.namespace);
        if api.get_opt(name).await.with_context(|| format!("read namespace {name} of the target"))?.is_some() {
            return Ok(());
        }
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("make namespace {name} in the target")),
        }
    }

    /// The object as it is to be made: without what the server gives, owned by what its owners became.
    fn body(&self, node: &Node, uids: &BTreeMap<String, String>) -> Result<DynamicObject> {
        let mut body = node.object.clone();
        body.types = Some(kube::core::TypeMeta {
            api_version: node.kind.resource.api_version.clone(),
            kind: node.kind.resource.kind.clone(),
        });
        if let Some(fields) = body.data.as_object_mut() {
            // Controllers find it out anew.
            fields.remove("status");
        }
        let old = node.meta();
        let owners = old
            .owner_references
            .iter()
            .flatten()
            .filter_map(|owner| Some(OwnerReference { uid: uids.get(&owner.uid)?.clone(), ..owner.clone() }));
        let owners: Vec<_> = owners.collect();
        let mut annotations = old.annotations.clone().unwrap_or_default();
        for key in [TO_ANNOTATION, DELETE_ANNOTATION] {
            annotations.remove(key);
        }
        annotations.insert(UID_ANNOTATION.to_owned(), node.uid().to_owned());
        if node.is_cluster() {
            annotations.insert(FROM_ANNOTATION.to_owned(), self.from_id.clone());
            ensure!(
                body.data.pointer("/spec/paused") == Some(&Value::Bool(true)),
                "{} is not paused any more: somebody else works on it",
                node.told()
            );
        }
        body.metadata = kube::core::ObjectMeta {
            name: old.name.clone(),
            namespace: old.namespace.clone(),
            labels: old.labels.clone(),
            annotations: Some(annotations),
            owner_references: (!owners.is_empty()).then_some(owners),
            finalizers: old.finalizers.clone(),
            ..Default::default()
        };
        Ok(body)
    }

    /// Deletes what is in the target, what is owned before its owners. Finalizers go: what they guard lives on.
    pub async fn delete(&self, graph: &Graph) -> Result<usize> {
        let mut count = 0;
        for node in graph.groups().rev().flatten().filter(|node| !node.stays) {
            let api = api_of(&self.of.from, &self.of.namespace, node);
            let uid = node.uid();
            let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
            let told = || format!("delete {} here", node.told());
            let mark = json!({"metadata": {"uid": uid, "annotations": {DELETE_ANNOTATION: ""}}});
            match api.patch(node.name(), &PatchParams::default(), &Patch::Merge(mark)).await {
                Ok(_) => {}
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error).with_context(told),
            }
            let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
            match api.delete(node.name(), &DeleteParams { preconditions, ..DeleteParams::background() }).await {
                Ok(_) => {}
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error).with_context(told),
            }
            if node.meta().finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty()) {
                let free = json!({"metadata": {"uid": uid, "finalizers": null}});
                match api.patch(node.name(), &PatchParams::default(), &Patch::Merge(free)).await {
                    Ok(_) => {}
                    Err(error) if gone(&error) => {}
                    Err(error) => return Err(error).with_context(told),
                }
            }
            count += 1;
        }
        Ok(count)
    }

    /// Lets the clusters go on in the target; returns their names.
    pub async fn resume(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for cluster in self.unfinished().await? {
            let name = cluster.metadata.name.unwrap_or_default();
            if self.of.cluster.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            let left = self.clusters(&self.of.from).get_opt(&name).await;
            ensure!(
                left.context("read the cluster here")?.is_none(),
                "Cluster {name} is still here, and in the target too"
            );
            let patch = json!({"metadata": {"annotations": {FROM_ANNOTATION: null}}, "spec": {"paused": null}});
            let sent = self.clusters(&self.of.to).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            sent.with_context(|| format!("let Cluster {name} of the target go on"))?;
            names.push(name);
        }
        Ok(names)
    }
}

/// Why a cluster cannot be moved now.
fn unready(cluster: &Cluster) -> Option<&'static str> {
    let status = cluster.status.clone().unwrap_or_default();
    let started = status.initialization.unwrap_or_default();
    if cluster.spec.paused == Some(true) {
        Some("is paused: let it go on first")
    } else if started.infrastructure_provisioned != Some(true) {
        Some("has no infrastructure yet")
    } else if started.control_plane_initialized != Some(true) {
        Some("has no initialized control plane yet")
    } else {
        None
    }
}

/// Why an object may not be copied yet.
fn restless(object: &DynamicObject, kind: &str) -> Option<&'static str> {
    if annotation(&object.metadata, BLOCK_ANNOTATION).is_some_and(|value| value != "false") {
        return Some("blocks the move (annotation clusterctl.cluster.x-k8s.io/block-move)");
    }
    let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let conditions: Vec<api::meta::Condition> = serde_json::from_value(conditions).unwrap_or_default();
    // Kinds that do not say are paused with their cluster; a ClusterClass or ClusterResourceSet is not.
    let of_cluster = !matches!(kind, "ClusterClass" | "ClusterResourceSet");
    (of_cluster && condition::is_false(&conditions, "Paused")).then_some("is still being worked on")
}

/// Who owns which fields by server-side apply is as it was: else nobody could take away what it applied.
async fn keep_managers(api: &Api<DynamicObject>, node: &Node, made: &DynamicObject) -> Result<()> {
    let applied = |object: &DynamicObject| {
        let managers = object.metadata.managed_fields.iter().flatten();
        managers.filter(|entry| entry.operation.as_deref() == Some("Apply")).count()
    };
    if applied(&node.object) == 0 || applied(made) == applied(&node.object) {
        return Ok(());
    }
    let fields: Vec<_> = node.object.metadata.managed_fields.iter().flatten().collect();
    let fields: Vec<_> = fields.into_iter().filter(|entry| entry.subresource.as_deref() != Some("status")).collect();
    let patch: json_patch::Patch = serde_json::from_value(json!([
        { "op": "test", "path": "/metadata/uid", "value": made.metadata.uid },
        { "op": "replace", "path": "/metadata/managedFields", "value": fields },
    ]))?;
    let sent = api.patch(node.name(), &PatchParams::default(), &Patch::Json::<()>(patch)).await;
    sent.map(drop).with_context(|| format!("say who applied {} of the target", node.told()))
}
