//! Carries out what controllers want, over the cluster's own API.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use http::{Method, Request};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tracing::debug;

use super::plan::{Target, Write};
use crate::hollow::cluster::Cluster;

/// Writes at once.
const CONCURRENCY: usize = 16;

#[derive(Default)]
pub struct Done {
    /// Something is different now.
    pub progress: bool,
    pub failures: usize,
    /// What the API said to pods that it did not take, by the UID of their controller.
    pub refused: BTreeMap<String, String>,
}

pub async fn carry_out(cluster: &Cluster, writes: Vec<Write>) -> Done {
    let results = stream::iter(writes).map(|write| async move {
        let result = carry(&cluster.client, &write).await;
        (write, result)
    });
    let mut results = std::pin::pin!(results.buffer_unordered(CONCURRENCY));
    let mut done = Done::default();
    while let Some((write, result)) = results.next().await {
        match result {
            Ok(changed) => done.progress |= changed && !is_event(&write),
            // An event that was told is told. Of all else somebody was faster, and that wakes the controllers.
            Err(kube::Error::Api(status)) if status.code == 409 && is_event(&write) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && !is_creation(&write) => {}
            Err(error) => {
                debug!(cluster = cluster.id, %error, ?write, "a write of a hollow controller is refused");
                done.failures += usize::from(!is_event(&write));
                if let (Write::Create(object), kube::Error::Api(status)) = (&write, error)
                    && let Some(owner) = controller(object)
                {
                    done.refused.insert(owner, status.message.clone());
                }
            }
        }
    }
    done
}

fn is_event(write: &Write) -> bool {
    matches!(write, Write::Create(object) if object["kind"] == "Event")
}

fn is_creation(write: &Write) -> bool {
    matches!(write, Write::Create(_))
}

fn controller(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    owner["uid"].as_str().map(str::to_owned)
}

fn api(client: &Client, version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn of(client: &Client, target: &Target) -> Api<DynamicObject> {
    api(client, &target.api_version, &target.kind, target.namespace.as_deref())
}

fn of_object(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (version, kind) = (text("/apiVersion").unwrap_or_default(), text("/kind").unwrap_or_default());
    api(client, version, kind, text("/metadata/namespace"))
}

/// Whether something is different now: a write that says what was there is none.
async fn carry(client: &Client, write: &Write) -> Result<bool, kube::Error> {
    let post = PostParams::default();
    let read = |object: &Value| serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError);
    match write {
        Write::Create(object) => {
            of_object(client, object).create(&post, &read(object)?).await?;
        }
        Write::Status(object) => {
            let object: DynamicObject = read(object)?;
            let api = of_object(client, &super::plan::value(&object));
            let new = api.replace_status(&object.name_any(), &post, &object).await?;
            return Ok(new.metadata.resource_version != object.metadata.resource_version);
        }
        Write::Patch { target, patch } => {
            let patch = Patch::Merge(patch);
            let new = of(client, target).patch(&target.name, &PatchParams::default(), &patch).await?;
            return Ok(new.metadata.resource_version != target.version);
        }
        Write::Bind { pod, node } => bind(client, pod, node).await?,
        Write::Delete { target, now } => {
            let preconditions = target.uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None });
            let mut params = DeleteParams { preconditions, ..DeleteParams::background() };
            if *now {
                params = params.grace_period(0);
            }
            of(client, target).delete(&target.name, &params).await?;
        }
    }
    Ok(true)
}

async fn bind(client: &Client, pod: &Target, node: &str) -> Result<(), kube::Error> {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let namespace = pod.namespace.as_deref().unwrap_or("default");
    let path = format!("/api/v1/namespaces/{namespace}/pods/{}/binding", pod.name);
    let request = Request::builder().method(Method::POST).uri(path).header("Content-Type", "application/json");
    let request = request.body(body.to_string().into_bytes()).map_err(kube::core::request::Error::BuildRequest);
    client.request_text(request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(())
}
