//! Puts the pure rules of `api` into the API server: admission, and conversion between versions.

mod apps;

use std::{borrow::Cow, sync::OnceLock};

use api::{
    admission::{addresses, app::inspection::Lists, class, control_plane, openstack, topology},
    cluster::Cluster,
    cluster_class::ClusterClass,
    control_plane::KubeadmControlPlane,
    conversion,
    ip_address::IPAddressClaim,
    machine::{Machine, MachineDeployment},
    machine_pool::MachinePool,
    names,
    topology::desired::Group,
};
use apiserver::{Admission, Conversion, Denied, FieldError, FieldErrorKind, Operation, Request, Warning};
use async_trait::async_trait;
use kube::{Api, Client, api::ListParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Defaults and validation of the kinds that Skep serves.
#[derive(Default)]
pub struct Rules {
    /// Of this very server, once it runs: a Cluster's topology is judged by its class.
    pub client: OnceLock<Client>,
    /// Who may make which apps of the management cluster.
    pub app_security: Lists,
}

impl Rules {
    /// The class of a Cluster's topology, in v1beta2; none if there is none.
    async fn class(&self, cluster: &Value) -> Option<Value> {
        let (namespace, name) = topology::class_of(cluster)?;
        let classes = Api::<ClusterClass>::namespaced(self.client.get()?.clone(), namespace);
        serde_json::to_value(classes.get_opt(name).await.ok()??).ok()
    }

    /// What a Cluster's topology is judged by, besides itself.
    async fn beside(&self, cluster: &Value, old: Option<&Value>) -> topology::Beside {
        let mut beside = topology::Beside { class: self.class(cluster).await, ..Default::default() };
        let Some(old) = old.filter(|old| old["spec"]["topology"].is_object()) else { return beside };
        if topology::class_of(old) != topology::class_of(cluster) {
            beside.old_class = self.class(old).await;
        }
        let version = |cluster: &Value| cluster.pointer("/spec/topology/version").cloned();
        if version(old) != version(cluster) {
            beside.busy = self.busy(old).await;
        }
        beside
    }

    /// Why the version of a Cluster's topology cannot change now.
    async fn busy(&self, cluster: &Value) -> Option<String> {
        let namespace = cluster.pointer("/metadata/namespace")?.as_str()?;
        let reference = &cluster["spec"]["controlPlaneRef"];
        // Of other kinds only their own webhooks know.
        let known = reference.is_null() || reference["kind"] == "KubeadmControlPlane";
        let mut control_plane = None;
        if let Some(name) = reference["name"].as_str() {
            let planes = Api::<KubeadmControlPlane>::namespaced(self.client.get()?.clone(), namespace);
            match planes.get_opt(name).await {
                Ok(plane) => control_plane = plane.and_then(|plane| serde_json::to_value(plane).ok()),
                Err(error) => return Some(format!("failed to get the control plane object: {error}")),
            }
        }
        let owned = format!(
            "{}={},{}",
            names::CLUSTER_LABEL,
            cluster["metadata"]["name"].as_str()?,
            names::TOPOLOGY_OWNED_LABEL
        );
        let deployments = self.labelled::<MachineDeployment>(namespace, &owned).await;
        let pools = self.labelled::<MachinePool>(namespace, &owned).await;
        let machines = self.labelled::<Machine>(namespace, &owned).await;
        match (deployments, pools, machines) {
            (Ok(deployments), Ok(pools), Ok(machines)) => known.then(|| {
                let workers = [(Group::Deployments, deployments), (Group::Pools, pools)];
                topology::busy(cluster, control_plane.as_ref(), &workers, &machines)
            })?,
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
                Some(format!("failed to list what is made of it: {error}"))
            }
        }
    }

    async fn labelled<K>(&self, namespace: &str, labels: &str) -> kube::Result<Vec<Value>>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug,
        K: DeserializeOwned + Serialize,
    {
        let Some(client) = self.client.get() else { return Ok(Vec::new()) };
        let api = Api::<K>::namespaced(client.clone(), namespace);
        let found = api.list(&ListParams::default().labels(labels)).await?;
        Ok(found.items.iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
    }

    /// The Clusters of a class.
    ///
    /// # Errors
    /// Nobody can tell: then nothing that would hurt them is let through.
    async fn clusters_of(&self, namespace: &str, name: &str) -> Result<Vec<Value>, Denied> {
        let Some(client) = self.client.get() else { return Ok(Vec::new()) };
        let unknown = |error| Denied::Forbidden(format!("Clusters using ClusterClass can not be retrieved: {error}"));
        let found = Api::<Cluster>::all(client.clone()).list(&ListParams::default()).await.map_err(unknown)?;
        let all = found.items.iter().filter(|cluster| cluster.spec.topology.is_some());
        let all = all.filter_map(|cluster| serde_json::to_value(cluster).ok());
        Ok(all.filter(|cluster| topology::class_of(cluster) == Some((namespace, name))).collect())
    }

    /// The claim that an address is for, in v1beta2; none if there is none.
    async fn claim(&self, address: &Value, namespace: &str) -> Option<Value> {
        let name = address.pointer("/spec/claimRef/name")?.as_str()?;
        let claims = Api::<IPAddressClaim>::namespaced(self.client.get()?.clone(), namespace);
        serde_json::to_value(claims.get_opt(name).await.ok()??).ok()
    }

    /// Whether a control plane can have so many replicas. Another API server shows its Scale alone.
    async fn scale(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        let mut scaled = object.clone();
        if request.kind == "Scale" {
            let Some(client) = self.client.get() else { return Ok(Vec::new()) };
            let all = Api::<KubeadmControlPlane>::namespaced(client.clone(), &request.namespace);
            let found = all.get(&request.name).await.map_err(|error| Denied::Forbidden(error.to_string()))?;
            scaled = serde_json::to_value(found).map_err(|error| Denied::Forbidden(error.to_string()))?;
            scaled["spec"]["replicas"] = object["spec"]["replicas"].clone();
        } else if is_older(request) {
            scaled = converted(object, conversion::HUB)?;
        }
        control_plane::scale(&scaled).map_or(Ok(Vec::new()), |why| Err(Denied::Forbidden(why.to_owned())))
    }

    /// `old` is in v1beta2 as the object is.
    async fn complete(&self, request: &Request, object: &mut Value, old: Option<&Value>) {
        api::admission::default(&request.group, &request.kind, object, old);
        if is_cluster(request) && object.pointer("/spec/topology").is_some_and(Value::is_object) {
            topology::version(object);
            if object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = request.namespace.clone().into();
            }
            // Controllers write Clusters all the time; the topology is its user's.
            let stands = request.old.as_ref().and_then(|old| old.pointer("/spec/topology"));
            if stands != object.pointer("/spec/topology")
                && let Some(class) = self.class(object).await
            {
                topology::default(object, &class);
            }
        }
    }
}

fn is_class(request: &Request) -> bool {
    request.group == "cluster.x-k8s.io" && request.kind == "ClusterClass"
}

fn is_scale(request: &Request) -> bool {
    request.subresource == "scale" && request.resource == "kubeadmcontrolplanes"
}

fn is_cluster(request: &Request) -> bool {
    request.group == "cluster.x-k8s.io" && request.kind == "Cluster"
}

#[async_trait]
impl Admission for Rules {
    fn concerns(&self, request: &Request) -> bool {
        request.subresource.is_empty() || is_scale(request)
    }

    async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() || !object.is_object() {
            return Ok(Vec::new());
        }
        if let Some(client) = self.client.get().filter(|_| apps::is_app(request)) {
            apps::default(client, request, object).await?;
            return Ok(Vec::new());
        }
        if !is_older(request) {
            self.complete(request, object, request.old.as_deref()).await;
            return Ok(Vec::new());
        }
        // The rules speak of v1beta2.
        let hub = converted(object, conversion::HUB)?;
        let old = request.old.as_deref().map(|old| converted(old, conversion::HUB)).transpose()?;
        let mut defaulted = hub.clone();
        self.complete(request, &mut defaulted, old.as_ref()).await;
        if defaulted != hub {
            *object = converted(&defaulted, &request.version)?;
        }
        Ok(Vec::new())
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        if is_scale(request) {
            return self.scale(request, object).await;
        }
        if request.operation == Operation::Delete {
            if is_class(request) {
                // Of many that are deleted at once, a request names none.
                let named = request.old.as_ref().and_then(|old| old["metadata"]["name"].as_str());
                let clusters = self.clusters_of(&request.namespace, named.unwrap_or(&request.name)).await?;
                class::in_use(&clusters).map_or(Ok(()), |why| Err(Denied::Forbidden(why)))?;
            }
            return Ok(Vec::new());
        }
        if let Some(client) = self.client.get().filter(|_| apps::is_app(request)) {
            return apps::validate(client, &self.app_security, request, object).await;
        }
        let hub = |object| match is_older(request) {
            true => converted(object, conversion::HUB).map(Cow::Owned),
            false => Ok(Cow::Borrowed(object)),
        };
        let object = hub(object)?;
        let mut old = request.old.as_deref().map(hub).transpose()?;
        if openstack::is_topology_dry_run(&request.kind, &object, request.dry_run) {
            old = None;
        }
        let mut problems = api::admission::validate(&request.group, &request.kind, &object, old.as_deref());
        let mut warnings: Vec<Warning> = Vec::new();
        // What stays as it is is not held up by what its class says now.
        fn topology_of(cluster: &Value) -> Option<&Value> {
            cluster.pointer("/spec/topology")
        }
        if is_cluster(request) && old.as_deref().and_then(topology_of) != topology_of(&object) {
            let beside = self.beside(&object, old.as_deref()).await;
            if let (None, Some((namespace, name))) = (&beside.class, topology::class_of(&object)) {
                warnings.push(format!(
                    "ClusterClass {namespace}/{name} does not exist: the topology is checked once it does"
                ));
            }
            problems.extend(topology::validate(&object, old.as_deref(), &beside));
        }
        if let Some(old) = old.as_deref().filter(|old| is_class(request) && old["spec"] != object["spec"]) {
            let clusters = self.clusters_of(&request.namespace, &request.name).await?;
            problems.extend(class::for_clusters(&object, old, &clusters));
        }
        if request.kind == "IPAddress" && old.is_none() {
            let claim = self.claim(&object, &request.namespace).await;
            problems.extend(claim.and_then(|claim| addresses::for_claim(&object, &claim)));
        }
        if problems.is_empty() {
            return Ok(warnings);
        }
        let errors = problems.into_iter().map(|problem| FieldError {
            kind: match problem.kind {
                api::admission::ProblemKind::Required => FieldErrorKind::Required,
                api::admission::ProblemKind::Invalid => FieldErrorKind::Invalid,
                api::admission::ProblemKind::Forbidden => FieldErrorKind::Forbidden,
                api::admission::ProblemKind::Duplicate => FieldErrorKind::Duplicate,
            },
            path: problem.path,
            value: problem.value,
            detail: problem.detail,
        });
        Err(Denied::Invalid(errors.collect()))
    }
}

fn is_older(request: &Request) -> bool {
    request.version == conversion::spoke(&request.kind) && conversion::converts(&request.group, &request.kind)
}

fn converted(object: &Value, version: &str) -> Result<Value, Denied> {
    conversion::convert(object, version).map_err(|error| Denied::Forbidden(error.to_string()))
}

/// The versions of the kinds that Skep serves.
pub struct Versions;

impl Conversion for Versions {
    fn converts(&self, group: &str, kind: &str) -> bool {
        conversion::converts(group, kind)
    }

    fn convert(&self, object: &Value, version: &str) -> Result<Value, String> {
        conversion::convert(object, version).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
