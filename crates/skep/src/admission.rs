//! Puts the pure rules of `api` into the API server: admission, and conversion between versions.

use std::sync::OnceLock;

use api::{
    admission::{addresses, openstack, topology},
    cluster_class::ClusterClass,
    conversion,
    ip_address::IPAddressClaim,
};
use apiserver::{Admission, Conversion, Denied, FieldError, FieldErrorKind, Operation, Request, Warning};
use async_trait::async_trait;
use kube::{Api, Client};
use serde_json::Value;

/// Defaults and validation of the kinds that Skep serves.
#[derive(Default)]
pub struct Rules {
    /// Of this very server, once it runs: a Cluster's topology is judged by its class.
    pub client: OnceLock<Client>,
}

impl Rules {
    /// The class of a Cluster's topology, in v1beta2; none if there is none.
    async fn class(&self, cluster: &Value) -> Option<Value> {
        let (namespace, name) = topology::class_of(cluster)?;
        let classes = Api::<ClusterClass>::namespaced(self.client.get()?.clone(), namespace);
        serde_json::to_value(classes.get_opt(name).await.ok()??).ok()
    }

    /// The claim that an address is for, in v1beta2; none if there is none.
    async fn claim(&self, address: &Value, namespace: &str) -> Option<Value> {
        let name = address.pointer("/spec/claimRef/name")?.as_str()?;
        let claims = Api::<IPAddressClaim>::namespaced(self.client.get()?.clone(), namespace);
        serde_json::to_value(claims.get_opt(name).await.ok()??).ok()
    }

    /// `old` is in v1beta2 as the object is.
    async fn default(&self, request: &Request, object: &mut Value, old: Option<&Value>) {
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

fn is_cluster(request: &Request) -> bool {
    request.group == "cluster.x-k8s.io" && request.kind == "Cluster"
}

#[async_trait]
impl Admission for Rules {
    async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() || !object.is_object() {
            return Ok(Vec::new());
        }
        if !is_older(request) {
            self.default(request, object, request.old.as_ref()).await;
            return Ok(Vec::new());
        }
        // The rules speak of v1beta2.
        let hub = converted(object, conversion::HUB)?;
        let old = request.old.as_ref().map(|old| converted(old, conversion::HUB)).transpose()?;
        let mut defaulted = hub.clone();
        self.default(request, &mut defaulted, old.as_ref()).await;
        if defaulted != hub {
            *object = converted(&defaulted, conversion::SPOKE)?;
        }
        Ok(Vec::new())
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() || request.operation == Operation::Delete {
            return Ok(Vec::new());
        }
        let (mut object, mut old) = (object.clone(), request.old.clone());
        if is_older(request) {
            object = converted(&object, conversion::HUB)?;
            old = old.map(|old| converted(&old, conversion::HUB)).transpose()?;
        }
        if openstack::is_topology_dry_run(&request.kind, &object, request.dry_run) {
            old = None;
        }
        let mut problems = api::admission::validate(&request.group, &request.kind, &object, old.as_ref());
        let mut warnings = Vec::new();
        // What stays as it is is not held up by what its class says now.
        let topology_of = |cluster: &Value| cluster.pointer("/spec/topology").cloned();
        if is_cluster(request) && old.as_ref().and_then(topology_of) != topology_of(&object) {
            let class = self.class(&object).await;
            if let (None, Some((namespace, name))) = (&class, topology::class_of(&object)) {
                warnings.push(format!(
                    "ClusterClass {namespace}/{name} does not exist: the topology is checked once it does"
                ));
            }
            problems.extend(topology::validate(&object, old.as_ref(), class.as_ref()));
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
    request.version == conversion::SPOKE && conversion::converts(&request.group, &request.kind)
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
