//! The OpenAPI documents: made when first asked for, kept until a CRD changes.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    answer::respond,
    kinds::{Kind, api_version},
    negotiate,
    openapi::{self, Published},
    schema::Schema,
    server::Server,
    status::{Error, Result},
};

/// A document as it was made for one state of the catalog.
pub(crate) struct Document {
    generation: u64,
    bytes: Bytes,
}

pub(crate) fn serve(server: &Server, segments: &[&str], headers: &HeaderMap) -> Result<Response> {
    let in_protobuf = segments == ["v2"] && negotiate::wants_openapi_protobuf(headers);
    let media = if in_protobuf { negotiate::OPENAPI_PROTOBUF } else { "application/json" };
    if !in_protobuf {
        negotiate::answer(headers, false, false)?;
    }
    let generation = server.catalog().generation;
    let name = if in_protobuf { media.to_owned() } else { segments.join("/") };
    let known = {
        let documents = server.state().documents.lock();
        documents.get(&name).filter(|d| d.generation == generation).map(|d| d.bytes.clone())
    };
    let bytes = match known {
        Some(bytes) => bytes,
        None => {
            let document = make(server, segments)?;
            let bytes: Bytes = match in_protobuf {
                true => openapi::protobuf::document(&document).into(),
                false => document.to_string().into(),
            };
            let document = Document { generation, bytes: bytes.clone() };
            server.state().documents.lock().insert(name, document);
            bytes
        }
    };
    let form = if in_protobuf { "-protobuf" } else { "" };
    let tag = format!("\"{}-{generation}{form}\"", server.state().options.version);
    let unchanged = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(&tag);
    let mut response = match unchanged {
        true => respond(StatusCode::NOT_MODIFIED, media, Bytes::new()),
        false => respond(StatusCode::OK, media, bytes),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// A kind with its schema in hand.
fn with_schema(kind: &Kind) -> Option<(&Kind, std::sync::Arc<Schema>)> {
    Some((kind, kind.schema()?))
}

fn publish<'a>(kinds: &'a [(&'a Kind, std::sync::Arc<Schema>)]) -> Vec<Published<'a>> {
    kinds
        .iter()
        .map(|(kind, schema)| Published {
            group: &kind.group,
            version: &kind.version,
            kind: &kind.kind,
            plural: &kind.plural,
            namespaced: kind.namespaced,
            schema,
            status: kind.status,
            scale: kind.scale.is_some(),
        })
        .collect()
}

fn make(server: &Server, segments: &[&str]) -> Result<Value> {
    let catalog = server.catalog();
    let groups = catalog.groups();
    let (group, version) = match segments {
        ["v2"] => {
            let kinds: Vec<_> = groups.iter().flat_map(|g| &g.versions).flat_map(|(_, kinds)| kinds).collect();
            let kinds: Vec<_> = kinds.iter().filter_map(|kind| with_schema(kind)).collect();
            return Ok(openapi::v2(&publish(&kinds)));
        }
        ["v3"] => {
            let mut paths = serde_json::Map::new();
            for group in &groups {
                for (version, _) in &group.versions {
                    let root = if group.name.is_empty() { "api" } else { "apis" };
                    let path = format!("{root}/{}", api_version(&group.name, version));
                    let url = format!("/openapi/v3/{path}?hash={}", catalog.generation);
                    paths.insert(path, json!({"serverRelativeURL": url}));
                }
            }
            return Ok(json!({"paths": paths}));
        }
        ["v3", "api", version] => ("", *version),
        ["v3", "apis", group, version] => (*group, *version),
        _ => return Err(Error::silence()),
    };
    let found = groups.iter().find(|g| g.name == group).ok_or_else(Error::silence)?;
    let (_, kinds) = found.versions.iter().find(|(v, _)| v == version).ok_or_else(Error::silence)?;
    let kinds: Vec<_> = kinds.iter().filter_map(|kind| with_schema(kind)).collect();
    Ok(openapi::v3(&api_version(group, version), &publish(&kinds)))
}
