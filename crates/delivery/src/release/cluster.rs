//! Calls to the cluster, each with a limit on its time, and what kinds it serves.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use http::Request as HttpRequest;
use kube::{
    Client,
    api::{ApiResource, DeleteParams, DynamicObject, GetParams, Patch, PatchParams, PostParams},
    core::{Request, Resource},
    discovery::{Discovery, Scope},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{
    error::{Error, Result},
    object::{Id, Object},
};

/// As Helm calls itself in what it writes.
const MANAGER: &str = "helm";

/// What a cluster serves.
pub struct Served {
    kinds: Vec<Kind>,
    /// As `v1.36.0`.
    pub version: String,
    /// As `apps/v1` and `apps/v1/Deployment`.
    pub api_versions: Vec<String>,
}

struct Kind {
    resource: ApiResource,
    namespaced: bool,
}

pub struct Cluster {
    client: Client,
    call_limit: Duration,
    /// So many calls at once.
    parallel: usize,
    served: Mutex<Option<Arc<Served>>>,
}

/// An object with the place that calls for it go to.
#[derive(Clone)]
pub struct Target {
    /// With the namespace that it is really in.
    pub object: Object,
    path: String,
}

impl Target {
    pub fn id(&self) -> &Id {
        &self.object.id
    }
}

/// How a write is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Real,
    /// The cluster says what would be and changes nothing.
    Dry,
}

impl Cluster {
    pub fn new(client: Client, call_limit: Duration, parallel: usize) -> Self {
        Self { client, call_limit, parallel, served: Mutex::new(None) }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A call that ends in time.
    pub async fn call<T, F>(&self, operation: &'static str, object: impl ToString, call: F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        match tokio::time::timeout(self.call_limit, call).await {
            Ok(answer) => answer.map_err(|error| Error::api(operation, object, error)),
            Err(_) => Err(Error::Silent { operation, object: object.to_string(), limit_s: self.call_limit.as_secs() }),
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        target: &Target,
        request: Result<HttpRequest<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T> {
        let request = request.map_err(|error| Error::Invalid(format!("{}: {error}", target.id())))?;
        let answer = self.call(operation, target.id(), self.client.request(request)).await;
        answer.map_err(|error| if target.id().kind == "Secret" { hidden(error) } else { error })
    }

    /// What is served, as it was when it was last asked for.
    pub async fn served(&self) -> Result<Arc<Served>> {
        let known = self.served.lock().clone();
        match known {
            Some(served) => Ok(served),
            None => self.discover().await,
        }
    }

    /// What is served now.
    pub async fn discover(&self) -> Result<Arc<Served>> {
        let version = self.call("ask", "the cluster's version", self.client.apiserver_version()).await?;
        let aggregated = Discovery::new(self.client.clone()).run_aggregated();
        let discovery = match self.call("discover", "the cluster's kinds", aggregated).await {
            Ok(found) => found,
            Err(error) if matches!(error, Error::Silent { .. }) => return Err(error),
            // Older servers know the other form only.
            Err(_) => {
                let one_by_one = Discovery::new(self.client.clone()).run();
                self.call("discover", "the cluster's kinds", one_by_one).await?
            }
        };
        let served = Arc::new(Served::of(&discovery, version.git_version));
        *self.served.lock() = Some(Arc::clone(&served));
        Ok(served)
    }

    /// Where calls for objects go to. What is not known is asked for once more: its definition may be new.
    ///
    /// # Errors
    /// That a kind is not served.
    pub async fn targets(&self, objects: Vec<Object>, namespace: &str) -> Result<Vec<Target>> {
        let mut served = self.served().await?;
        if objects.iter().any(|object| served.kind(object).is_none()) {
            served = self.discover().await?;
        }
        objects.into_iter().map(|object| served.target(object, namespace)).collect()
    }

    pub async fn get(&self, target: &Target) -> Result<Option<Json>> {
        let request = Request::new(&*target.path).get(&target.id().name, &GetParams::default());
        match self.send("get", target, request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn create(&self, target: &Target, json: &Json, mode: Mode) -> Result<Json> {
        let bytes = serde_json::to_vec(json).map_err(|error| Error::Invalid(format!("{}: {error}", target.id())))?;
        let params = PostParams { dry_run: mode == Mode::Dry, field_manager: Some(MANAGER.to_owned()) };
        self.send("create", target, Request::new(&*target.path).create(&params, bytes)).await
    }

    pub async fn merge(&self, target: &Target, patch: &Json, mode: Mode) -> Result<Json> {
        let params = PatchParams {
            dry_run: mode == Mode::Dry,
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let request = Request::new(&*target.path).patch(&target.id().name, &params, &Patch::Merge(patch));
        self.send("patch", target, request).await
    }

    pub async fn replace(&self, target: &Target, json: &Json) -> Result<Json> {
        let bytes = serde_json::to_vec(json).map_err(|error| Error::Invalid(format!("{}: {error}", target.id())))?;
        let params = PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) };
        self.send("replace", target, Request::new(&*target.path).replace(&target.id().name, &params, bytes)).await
    }

    /// What is gone already is no error.
    pub async fn delete(&self, target: &Target, params: &DeleteParams) -> Result<()> {
        let request = Request::new(&*target.path).delete(&target.id().name, params);
        match self.send::<Json>("delete", target, request).await {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    /// Many calls: so many at once as this cluster's limit says, in their order. The first that is not answered is the last one.
    pub async fn each<R, F: Future<Output = Result<R>>>(&self, calls: Vec<F>) -> Vec<Result<R>> {
        let mut calls = stream::iter(calls).buffered(self.parallel);
        let mut results = Vec::new();
        while let Some(result) = calls.next().await {
            let is_silent = matches!(result, Err(Error::Silent { .. }));
            results.push(result);
            if is_silent {
                break;
            }
        }
        results
    }

    /// What is there of each.
    pub async fn get_all(&self, targets: &[Target]) -> Result<Vec<Option<Json>>> {
        let calls: Vec<_> = targets.iter().map(|target| self.get(target)).collect();
        stream::iter(calls).buffered(self.parallel).try_collect().await
    }
}

/// A refusal shows what was refused, and it ends in descriptions that many may read.
fn hidden(error: Error) -> Error {
    const VALUE: &str = "Invalid value: ";
    let Error::Api { operation, object, source } = error else { return error };
    let source = match *source {
        kube::Error::Api(mut status) => {
            if let Some(at) = status.message.find(VALUE) {
                status.message.truncate(at + VALUE.len());
                status.message.push_str("(hidden)");
            }
            status.details = None;
            kube::Error::Api(status)
        }
        other => other,
    };
    Error::Api { operation, object, source: Box::new(source) }
}

impl Served {
    fn of(discovery: &Discovery, version: String) -> Self {
        let (mut kinds, mut api_versions) = (Vec::new(), Vec::new());
        for group in discovery.groups() {
            for version in group.versions() {
                let of_group =
                    if group.name().is_empty() { version.to_owned() } else { format!("{}/{version}", group.name()) };
                for (resource, capabilities) in group.versioned_resources(version) {
                    api_versions.push(format!("{of_group}/{}", resource.kind));
                    kinds.push(Kind { namespaced: capabilities.scope == Scope::Namespaced, resource });
                }
                api_versions.push(of_group);
            }
        }
        api_versions.sort();
        api_versions.dedup();
        Self { kinds, version, api_versions }
    }

    fn kind(&self, object: &Object) -> Option<&Kind> {
        self.kinds
            .iter()
            .find(|kind| kind.resource.kind == object.id.kind && kind.resource.api_version == object.api_version)
    }

    fn target(&self, mut object: Object, namespace: &str) -> Result<Target> {
        let Some(kind) = self.kind(&object) else {
            return Err(Error::Invalid(format!(
                "resource mapping not found for name: {:?} namespace: {:?}: no matches for kind {:?} in version {:?}; ensure CRDs are installed first",
                object.id.name, object.id.namespace, object.id.kind, object.api_version
            )));
        };
        match (kind.namespaced, object.id.namespace.is_empty()) {
            (true, true) => namespace.clone_into(&mut object.id.namespace),
            (false, false) => object.id.namespace.clear(),
            _ => {}
        }
        let scope = kind.namespaced.then_some(object.id.namespace.as_str());
        let path = DynamicObject::url_path(&kind.resource, scope);
        Ok(Target { object, path })
    }

    /// Where to look for what a chart's `lookup` names; nothing where the kind is not served.
    pub fn place(&self, api_version: &str, kind: &str, namespace: &str) -> Option<String> {
        let found =
            self.kinds.iter().find(|known| known.resource.kind == kind && known.resource.api_version == api_version)?;
        let scope = (found.namespaced && !namespace.is_empty()).then_some(namespace);
        Some(DynamicObject::url_path(&found.resource, scope))
    }
}
