//! What apps are judged by, read from the API that they are written to.

use std::collections::HashMap;

use api::{
    admission::app::{
        self, Beside, CHART_OPERATOR, Defaults, Refusal,
        inspection::{Lists, inspect},
    },
    app::{App, AppCatalogEntry, CATALOG_NAMESPACES, Catalog, ConfigKind, OWN_PREFIX, ObjectRef},
    names,
    release::{Component, Release},
};
use apiserver::{Denied, Operation, Request, Warning};
use delivery::app::values;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::Value;

use crate::work::PROVIDER;

const ENTRIES_NAMESPACE: &str = "default";

const GROUP: &str = "application.giantswarm.io";

pub fn is_app(request: &Request) -> bool {
    request.group == GROUP && request.kind == "App"
}

/// The app as it will be, with the namespace that it is written to; none if it is none by its schema.
fn read(request: &Request, object: &Value) -> Option<App> {
    let mut app: App = serde_json::from_value(object.clone()).ok()?;
    app.metadata.namespace.get_or_insert_with(|| request.namespace.clone());
    Some(app)
}

fn unreadable(error: kube::Error) -> Denied {
    Denied::Forbidden(format!("what the app is judged by cannot be read: {error}"))
}

fn denied(refusal: Refusal) -> Denied {
    Denied::Webhook { name: app::WEBHOOK, why: refusal.to_string() }
}

/// Fills in what the app leaves out.
pub async fn default(client: &Client, request: &Request, object: &mut Value) -> Result<(), Denied> {
    let Some(app) = read(request, object) else { return Ok(()) };
    // A trial tells nothing of the cluster.
    if request.dry_run || (request.operation == Operation::Update && app.metadata.deletion_timestamp.is_some()) {
        return Ok(());
    }
    let mut defaults = defaults(client, &request.namespace, &app).await.map_err(unreadable)?;
    if app::takes_release(&app, &defaults) {
        defaults.component = component(client, &app).await.map_err(unreadable)?.map_err(denied)?;
    }
    app::default(&app, object, &defaults);
    Ok(())
}

/// What the Release has for an app that its values name. Where they cannot be read, an app that tells its version itself needs none.
async fn component(client: &Client, app: &App) -> kube::Result<Result<Option<Component>, Refusal>> {
    // What an app may not read is not told in what is wrong with it either.
    if let Err(refusal) = app::foreign(app) {
        return Ok(Err(refusal));
    }
    let Some(catalog) = catalog(client, app).await? else { return Ok(Ok(None)) };
    let layers = values::layers(app, &catalog, ConfigKind::ConfigMap);
    let mut contents = HashMap::new();
    for ObjectRef { name, namespace } in layers.iter().map(|layer| &layer.object) {
        if let Some(found) = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await? {
            contents.insert((name, namespace), found.data.unwrap_or_default());
        }
    }
    let find = |object: &ObjectRef| contents.get(&(&object.name, &object.namespace)).cloned();
    let merged = match values::merged(&layers, ConfigKind::ConfigMap, find) {
        Ok(merged) => merged.unwrap_or_default(),
        Err(error) if app.spec.version.is_empty() => return Ok(Err(Refusal::Invalid(error.to_string()))),
        Err(_) => return Ok(Ok(None)),
    };
    let name = match app::release(app, &merged) {
        Ok(Some(name)) => name,
        other => return Ok(other.map(|_| None)),
    };
    let release = Api::<Release>::all(client.clone()).get_opt(&name).await?;
    Ok(app::component(app, &name, release).map(Some))
}

/// Where the app takes its chart from.
async fn catalog(client: &Client, app: &App) -> kube::Result<Option<Catalog>> {
    let own = app.spec.catalog_namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let places = own.map_or_else(|| CATALOG_NAMESPACES.to_vec(), |own| vec![own]);
    for place in places.into_iter().filter(|_| !app.spec.catalog.is_empty()) {
        let found = Api::<Catalog>::namespaced(client.clone(), place).get_opt(&app.spec.catalog).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn defaults(client: &Client, namespace: &str, app: &App) -> kube::Result<Defaults> {
    let mut defaults = Defaults::default();
    if app::takes_version(app) {
        let operator = Api::<App>::namespaced(client.clone(), namespace).get_opt(CHART_OPERATOR).await?;
        defaults.version = operator.map(|operator| operator.version_label().to_owned());
    }
    if app::takes_kubeconfig(app) {
        let name = app.cluster_kubeconfig();
        if Api::<Secret>::namespaced(client.clone(), namespace).get_metadata_opt(&name).await?.is_some() {
            defaults.kubeconfig_namespace = Some(namespace.to_owned());
        } else {
            let of_cluster = ListParams::default().labels(&format!("{}={namespace}", names::CLUSTER_LABEL));
            let secrets = Api::<Secret>::all(client.clone()).list_metadata(&of_cluster).await?;
            let found = secrets.into_iter().find(|secret| secret.metadata.name.as_ref() == Some(&name));
            defaults.kubeconfig_namespace = found.and_then(|secret| secret.metadata.namespace);
        }
    }
    Ok(defaults)
}

/// Refuses what the published rules refuse.
pub async fn validate(
    client: &Client,
    lists: &Lists,
    request: &Request,
    object: &Value,
) -> Result<Vec<Warning>, Denied> {
    let Some(app) = read(request, object) else { return Ok(Vec::new()) };
    if !app::applies(&app, request.operation == Operation::Update) {
        return Ok(Vec::new());
    }
    let old = request.old.as_ref().and_then(|old| read(request, old));
    let own = |app: &App| -> Vec<_> {
        let own = app.annotations().iter().filter(|(name, _)| name.starts_with(OWN_PREFIX));
        own.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    if old.as_ref().is_none_or(|old| own(old) != own(&app)) {
        app::own_annotations(&app).map_err(denied)?;
    }
    // What is written of an app besides its wishes is no reason to read what is beside it.
    if old.as_ref().is_some_and(|old| old.spec == app.spec && wishes(old) == wishes(&app)) {
        return Ok(Vec::new());
    }
    let groups = request.user.groups.iter().map(String::as_str);
    inspect(&app, &request.user.name, groups, lists).map_err(denied)?;
    let beside = beside(client, &request.namespace, &app).await.map_err(unreadable)?;
    app::validate(&app, old.as_ref(), &beside).map_err(denied)?;
    Ok(Vec::new())
}

/// What of an app's metadata is judged.
fn wishes(app: &App) -> (Option<&std::collections::BTreeMap<String, String>>, Option<&String>) {
    let annotations = app.metadata.annotations.as_ref();
    (app.metadata.labels.as_ref(), annotations.and_then(|all| all.get(app::APP_NAMESPACE_ANNOTATION)))
}

async fn beside(client: &Client, namespace: &str, app: &App) -> kube::Result<Beside> {
    let catalog = catalog(client, app).await?.is_some();
    let mut beside = Beside { provider: PROVIDER.to_owned(), catalog, ..Beside::default() };
    let entries = Api::<AppCatalogEntry>::namespaced(client.clone(), ENTRIES_NAMESPACE);
    beside.entry = entries.get_opt(&app.entry()).await?;
    if app::compares(app, beside.entry.as_ref()) {
        let here = Api::<App>::namespaced(client.clone(), namespace);
        beside.neighbours = here.list(&ListParams::default()).await?.items;
    }
    if app::is_unique(app) {
        let name = app.metadata.name.as_deref().unwrap_or_default();
        let of_name = ListParams::default().fields(&format!("metadata.name={name}"));
        beside.namesakes = Api::<App>::all(client.clone()).list(&of_name).await?.items;
    }
    Ok(beside)
}
