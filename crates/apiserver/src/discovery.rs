//! What is served, as clients ask for it: group by group, or all at once (KEP-3352 aggregated discovery).

use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    aggregation,
    catalog::{Catalog, Group},
    kinds::{Kind, api_version, split_api_version},
    negotiate,
    server::Server,
    status::{Error, Result},
};

const JSON: &str = "application/json";

/// Content type and document.
pub(crate) fn serve(server: &Server, segments: &[&str], headers: &HeaderMap) -> Result<(String, Value)> {
    let catalog = server.catalog();
    let aggregated = negotiate::aggregated_discovery(headers);
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let value = match (segments, aggregated) {
        (["api"], Some(version)) => return Ok(aggregate(server, version, true)),
        (["apis"], Some(version)) => return Ok(aggregate(server, version, false)),
        (["api"], None) => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
        }),
        (["apis"], None) => {
            let groups = catalog.groups();
            let named = groups.iter().filter(|group| !group.name.is_empty());
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named.map(group).collect::<Vec<_>>()})
        }
        (["api", version], _) => resources(&catalog, "", version)?,
        (["apis", name], _) => {
            let found = catalog.find_group(name).filter(|g| !g.name.is_empty()).ok_or_else(Error::nothing_here)?;
            let mut value = group(&found);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        (["apis", name, version], _) => resources(&catalog, name, version)?,
        (["version"], _) => version(&server.state().options.version),
        ([], _) => json!({"paths": paths(&catalog)}),
        _ => return Err(Error::nothing_here()),
    };
    Ok((JSON.to_owned(), value))
}

fn version(text: &str) -> Value {
    let mut numbers = text.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let previous = minor.parse::<u32>().map_or_else(|_| minor.to_owned(), |minor| minor.saturating_sub(1).to_string());
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": previous, "gitVersion": text, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn paths(catalog: &Catalog) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in catalog.groups().iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(versions(group).map(|version| format!("/apis/{}/{version}", group.name)));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths
}

fn versions(group: &Group) -> impl Iterator<Item = &str> {
    let own = group.versions.iter().map(|(version, _)| version.as_str());
    own.chain(group.registered.iter().map(|other| other.version.as_str()))
}

fn group(group: &Group) -> Value {
    let versions: Vec<Value> = versions(group)
        .map(|version| json!({"groupVersion": api_version(&group.name, version), "version": version}))
        .collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

/// What may be done with a kind.
fn verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.review {
        return &["create"];
    }
    if kind.is_namespace() {
        return &["create", "delete", "get", "list", "patch", "update", "watch"];
    }
    if kind.is_custom() {
        return &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    }
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
}

/// Changes when the version that is stored does (`apiserver/pkg/endpoints/discovery`): eight bytes of a SHA-256.
fn storage_version_hash(kind: &Kind) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (group, mut version) = split_api_version(&kind.storage_api_version);
    if group == crate::crd::GROUP {
        // Upstream keeps them in the form that they had first.
        version = "v1beta1";
    }
    let text = format!("{group}/{version}/{}", kind.kind);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    STANDARD.encode(digest.as_ref().get(..8).unwrap_or_default())
}

struct Sub<'a> {
    name: &'a str,
    /// Group, version, kind.
    kind: (&'a str, &'a str, &'a str),
    verbs: &'a [&'a str],
}

fn subresources(kind: &Kind) -> Vec<Sub<'_>> {
    let own = (kind.group.as_ref(), kind.version.as_ref(), kind.kind.as_ref());
    let usual = &["get", "patch", "update"];
    let mut list = Vec::new();
    if kind.status {
        list.push(Sub { name: "status", kind: own, verbs: usual });
    }
    if kind.scale.is_some() {
        list.push(Sub { name: "scale", kind: ("autoscaling", "v1", "Scale"), verbs: usual });
    }
    for sub in kind.strategy.subresources {
        list.push(Sub { name: sub.name, kind: sub.kind.unwrap_or(own), verbs: sub.verbs });
    }
    list
}

fn resources(catalog: &Catalog, group: &str, version: &str) -> Result<Value> {
    let found = catalog.find_group(group).filter(|found| !found.versions.is_empty()).ok_or_else(Error::nothing_here)?;
    let kinds = found.versions.into_iter().find(|(v, _)| v == version).ok_or_else(Error::no_such_path)?.1;
    let mut list = Vec::new();
    for kind in &kinds {
        let mut entry = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": verbs(kind),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if !kind.review {
            entry["storageVersionHash"] = storage_version_hash(kind).into();
        }
        list.push(entry);
        for sub in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, sub.name), "singularName": "", "namespaced": kind.namespaced,
                "kind": sub.kind.2, "verbs": sub.verbs,
            });
            if (sub.kind.0, sub.kind.1) != (kind.group.as_ref(), kind.version.as_ref()) {
                entry["group"] = sub.kind.0.into();
                entry["version"] = sub.kind.1.into();
            }
            list.push(entry);
        }
    }
    if kinds.iter().all(|kind| !kind.is_custom()) {
        let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
        list.sort_by_cached_key(name);
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": list,
    }))
}

/// apidiscovery.k8s.io APIGroupDiscoveryList, of the core group or of all others.
fn aggregate(server: &Server, version: &str, core: bool) -> (String, Value) {
    let groups = server.catalog().groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let own = group.versions.iter().map(|(version, kinds)| {
                let resources: Vec<Value> = kinds.iter().map(aggregated_kind).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            });
            let others = group.registered.iter().map(|other| aggregation::discovered(server, other));
            let versions: Vec<Value> = own.chain(others).collect();
            let mut metadata = json!({});
            if !group.name.is_empty() {
                metadata["name"] = group.name.as_str().into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    });
    (format!("{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"), list)
}

fn aggregated_kind(kind: &Arc<Kind>) -> Value {
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let subs: Vec<Value> = subresources(kind)
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": {"group": sub.kind.0, "version": sub.kind.1, "kind": sub.kind.2},
                "verbs": sub.verbs,
            })
        })
        .collect();
    if !subs.is_empty() {
        entry["subresources"] = subs.into();
    }
    entry
}
