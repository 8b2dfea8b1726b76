//! Groups that somebody else answers for, as APIServices say (k8s.io/kube-aggregator).
//!
//! No connection is made to the Service that an APIService names: whoever runs the server may answer in its place, with a
//! [`Backend`]. While the APIService is not Available its paths answer 503, and discovery names its group as stale.
//!
//! Left out: the APIServices of the server's own groups, which kube-apiserver makes itself; one that is made for a built-in group
//! changes nothing. The OpenAPI documents of others. Who says that an APIService is Available is a controller beside the server.

use axum::response::Response;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    answer::{respond, to_vec},
    kinds::api_version,
    object::{self, at, text_at},
    path::{Query, Resource, Verb},
    selector::Labels,
    server::Server,
    status::{Error, Result},
};

pub(crate) const GROUP: &str = "apiregistration.k8s.io";
pub(crate) const PLURAL: &str = "apiservices";

/// A kind that a [`Backend`] answers for; it can be read, not written or watched.
#[derive(Clone, Copy, Debug)]
pub struct Aggregated {
    /// Names of the resource and of its kind, as in `pods` and `PodMetrics`.
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

/// Answers in place of the Services that APIServices name.
pub trait Backend: Send + Sync + 'static {
    /// What there is in a group and version; none: nobody answers for it.
    fn kinds(&self, group: &str, version: &str) -> Option<&'static [Aggregated]>;
    /// All objects of a kind, without `apiVersion` and `kind`. An error's text reaches the caller.
    fn objects<'a>(
        &'a self,
        group: &'a str,
        kind: &'a Aggregated,
    ) -> BoxFuture<'a, std::result::Result<Vec<Value>, String>>;
}

/// An APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub group: String,
    pub version: String,
    /// Of the group among groups, and of the version in the group: the higher, the earlier.
    pub priority: (i64, i64),
    pub available: bool,
    /// It names a Service. Otherwise the group is the server's own, and discovery names it even if nothing of it is served.
    pub remote: bool,
}

impl Registration {
    pub(crate) fn read(object: &Value) -> Option<Self> {
        let spec = object.get("spec")?;
        let number = |key: &str| spec.get(key).and_then(Value::as_i64).unwrap_or_default();
        let conditions = at(object, &["status", "conditions"]).and_then(Value::as_array);
        let available = |condition: &Value| condition["type"] == "Available" && condition["status"] == "True";
        Some(Self {
            group: text_at(spec, &["group"]).to_owned(),
            version: text_at(spec, &["version"]).to_owned(),
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            available: conditions.into_iter().flatten().any(available),
            remote: spec.get("service").is_some_and(|service| !service.is_null()),
        })
    }

    fn backend<'a>(&self, server: &'a Server) -> Result<(&'a dyn Backend, &'static [Aggregated])> {
        if !self.available {
            return Err(Error::unreachable("service unavailable\n"));
        }
        let backend = server.state().options.aggregated.as_deref();
        let found = backend.and_then(|backend| Some((backend, backend.kinds(&self.group, &self.version)?)));
        found.ok_or_else(|| Error::unreachable("error trying to reach service: nobody answers for it in this cluster"))
    }

    /// The kinds as discovery lists them; none while nobody answers.
    pub(crate) fn kinds(&self, server: &Server) -> Option<&'static [Aggregated]> {
        Some(self.backend(server).ok()?.1)
    }

    /// `/apis/<group>/<version>`
    pub(crate) fn resources(&self, server: &Server) -> Result<Response> {
        let (_, kinds) = self.backend(server)?;
        let resources: Vec<Value> = kinds
            .iter()
            .map(|one| {
                json!({"name": one.plural, "singularName": "", "namespaced": one.namespaced, "kind": one.kind,
                    "verbs": VERBS})
            })
            .collect();
        let version = api_version(&self.group, &self.version);
        answer(&json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}))
    }

    /// A request below that.
    pub(crate) async fn serve(
        &self,
        server: &Server,
        verb: Verb,
        target: &Resource,
        query: &Query,
    ) -> Result<Response> {
        let (backend, kinds) = self.backend(server)?;
        let kind = kinds.iter().find(|one| one.plural == target.resource && target.subresource.is_empty());
        let kind = kind.filter(|one| one.namespaced || target.namespace.is_empty()).ok_or_else(Error::no_such_path)?;
        if !matches!(verb, Verb::Get | Verb::List) {
            return Err(Error::method_not_allowed(&self.group, kind.plural, verb.as_str()));
        }
        if query.text("fieldSelector").is_some() {
            return Err(Error::bad_request(format!("{} cannot be selected by fields", kind.plural)));
        }
        let labels = Labels::parse(query.text("labelSelector").unwrap_or_default())?;
        let mut objects = backend.objects(&self.group, kind).await.map_err(Error::internal)?;
        objects.retain(|object| {
            let label = |key: &str| at(object, &["metadata", "labels", key]).and_then(Value::as_str);
            let here = target.namespace.is_empty() || object::namespace(object) == target.namespace;
            here && (target.name.is_empty() || object::name(object) == target.name) && labels.matches(label)
        });
        let version = api_version(&self.group, &self.version);
        if target.name.is_empty() {
            let list = format!("{}List", kind.kind);
            return answer(&json!({"kind": list, "apiVersion": version, "metadata": {}, "items": objects}));
        }
        let missing = || Error::not_found(&self.group, &kind.kind.to_lowercase(), &target.name);
        let mut object = objects.pop().ok_or_else(missing)?;
        object::set_at(&mut object, &["kind"], kind.kind.into());
        object::set_at(&mut object, &["apiVersion"], version.into());
        answer(&object)
    }
}

const VERBS: [&str; 2] = ["get", "list"];

/// As aggregated discovery lists a version that somebody else answers for.
pub(crate) fn discovered(server: &Server, registration: &Registration) -> Value {
    if !registration.remote {
        return json!({"version": registration.version, "freshness": "Current"});
    }
    let Some(kinds) = registration.kinds(server) else {
        return json!({"version": registration.version, "freshness": "Stale"});
    };
    let resource = |one: &Aggregated| {
        json!({
            "resource": one.plural, "scope": if one.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": "",
            "responseKind": {"group": registration.group, "version": registration.version, "kind": one.kind}, "verbs": VERBS,
        })
    };
    let resources: Vec<Value> = kinds.iter().map(resource).collect();
    json!({"version": registration.version, "resources": resources, "freshness": "Current"})
}

fn answer(value: &Value) -> Result<Response> {
    Ok(respond(StatusCode::OK, "application/json", to_vec(value)?.into()))
}
